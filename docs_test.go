package torchvit_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/vit"
)

// readDocuments gives the text of every document of this repository by its path.
func readDocuments(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("*.md")
	require.NoError(t, err)
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md"} {
		more, err := filepath.Glob(pattern)
		require.NoError(t, err)
		names = append(names, more...)
	}
	documents := map[string]string{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		documents[name] = string(text)
	}
	require.Contains(t, documents, "README.md")
	require.Contains(t, documents, filepath.Join("docs", "lifecycle.md"))
	return documents
}

var fence = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")

// blocks gives the fenced blocks of one language.
func blocks(text, language string) (found []string) {
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		if m[1] == language {
			found = append(found, m[2])
		}
	}
	return found
}

// unindented drops the indentation and empty lines, which a quotation may change.
func unindented(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// TestDocumentsQuoteTests keeps the Go code of the documents true: each block stands in a test file word
// for word, but for indentation.
func TestDocumentsQuoteTests(t *testing.T) {
	var tests strings.Builder
	for _, files := range readSources(t) {
		for _, f := range files {
			if !f.test {
				continue
			}
			text, err := os.ReadFile(f.path)
			require.NoError(t, err)
			tests.WriteString(unindented(string(text)))
		}
	}
	count := 0
	for name, text := range readDocuments(t) {
		for _, block := range blocks(text, "go") {
			count++
			assert.Contains(t, tests.String(), unindented(block), "%s: this code stands in no test", name)
		}
	}
	assert.Greater(t, count, 5, "the code blocks must have been read")
}

// TestDocumentsMetadata reads the descriptions of model files that the documents show.
func TestDocumentsMetadata(t *testing.T) {
	count := 0
	for name, text := range readDocuments(t) {
		for _, block := range blocks(text, "json") {
			count++
			_, err := vit.ParseMetadata([]byte(block))
			assert.NoError(t, err, name)
		}
	}
	assert.Positive(t, count)
}

// exported collects the exported names of a package: "Tensor", "Tensor.Close", "Config.Lanes".
func exported(t *testing.T, dir string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, decl := range parsed.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				name := d.Name.Name
				if d.Recv != nil {
					name = receiver(d.Recv.List[0].Type) + "." + name
				}
				names[name] = true
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch s := spec.(type) {
					case *ast.ValueSpec:
						for _, n := range s.Names {
							names[n.Name] = true
						}
					case *ast.TypeSpec:
						names[s.Name.Name] = true
						members(s, names)
					}
				}
			}
		}
	}
	return names
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// members adds the fields of a struct and the methods of an interface.
func members(s *ast.TypeSpec, names map[string]bool) {
	var fields *ast.FieldList
	switch x := s.Type.(type) {
	case *ast.StructType:
		fields = x.Fields
	case *ast.InterfaceType:
		fields = x.Methods
	default:
		return
	}
	for _, f := range fields.List {
		for _, n := range f.Names {
			names[s.Name.Name+"."+n.Name] = true
		}
	}
}

var (
	quoted    = regexp.MustCompile("`([^`\n]+)`")
	qualified = regexp.MustCompile(`\b(\w+)\.([A-Z]\w*)(?:\.([A-Z]\w*))?`)
	keyed     = regexp.MustCompile(`\b(\w+)\.([A-Z]\w*)\{([A-Za-z, ]+)[:}]`)
	operator  = regexp.MustCompile(`aten::[a-z_0-9]+`)
)

// TestDocumentsNames looks up every name of this module that the documents mention in backticks, such as
// torch.Scope, torch.Config{Lanes}, Tensor.To, and every operator.
func TestDocumentsNames(t *testing.T) {
	packages := map[string]map[string]bool{}
	types := map[string]map[string]bool{} // a type's name to the names of its package
	for _, dir := range []string{"torch", "torch/jit", "torch/npy", "transforms", "vit", "seg", "det", "loader", "train", "torch/loss", "internal/handle", "internal/testmain"} {
		names := exported(t, dir)
		packages[filepath.Base(dir)] = names
		for name := range names {
			if typ, _, isMember := strings.Cut(name, "."); isMember && (dir == "torch" || dir == "torch/jit" || types[typ] == nil) {
				types[typ] = names
			}
		}
	}
	count := 0
	for file, text := range readDocuments(t) {
		for _, q := range quoted.FindAllStringSubmatch(text, -1) {
			for _, m := range keyed.FindAllStringSubmatch(q[1], -1) {
				for field := range strings.SplitSeq(m[3], ",") {
					if names, ours := packages[m[1]]; ours {
						count++
						assert.True(t, names[m[2]+"."+strings.TrimSpace(field)], "%s: %s: no field %s", file, q[1], field)
					}
				}
			}
			for _, m := range qualified.FindAllStringSubmatch(q[1], -1) {
				names, ours := packages[m[1]]
				name := m[2]
				if !ours {
					if names, ours = types[m[1]]; !ours {
						continue
					}
					name = m[1] + "." + m[2]
				} else if m[3] != "" {
					name += "." + m[3]
				}
				count++
				assert.True(t, names[name], "%s: %s: no such name", file, q[1])
			}
			for _, name := range operator.FindAllString(q[1], -1) {
				if name == "aten::" {
					continue
				}
				count++
				_, err := torch.Schemas(name)
				assert.NoError(t, err, file)
			}
		}
	}
	assert.Greater(t, count, 100, "the names must have been read")
}

var link = regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`)

// TestDocumentLinks follows the links to files of this repository.
func TestDocumentLinks(t *testing.T) {
	count := 0
	for name, text := range readDocuments(t) {
		prose := quoted.ReplaceAllString(fence.ReplaceAllString(text, ""), "")
		for _, m := range link.FindAllStringSubmatch(prose, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			count++
			_, err := os.Stat(filepath.Join(filepath.Dir(name), m[1]))
			assert.NoError(t, err, "%s: link to %s", name, m[1])
		}
	}
	assert.Greater(t, count, 10, "the links must have been read")
}

// TestPackageComments wants a package comment of at most 30 lines, in doc.go, of every package that others
// can import.
func TestPackageComments(t *testing.T) {
	count := 0
	for dir, files := range readSources(t) {
		library := false
		for _, f := range files {
			library = library || !f.test
		}
		if strings.HasPrefix(dir, "cmd") || strings.HasPrefix(dir, "internal") || strings.Contains(dir, "testdata") || !library || strings.HasSuffix(dir, "/gen") {
			continue
		}
		count++
		name := filepath.Join(dir, "doc.go")
		parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if assert.NoError(t, err, "package %s", dir) {
			text, err := fs.ReadFile(os.DirFS("."), filepath.ToSlash(name))
			require.NoError(t, err)
			assert.LessOrEqual(t, strings.Count(string(text), "\n"), 30, name)
			assert.NotNil(t, parsed.Doc, "%s: package comment", name)
		}
	}
	assert.Greater(t, count, 7, "the packages must have been read")
}
