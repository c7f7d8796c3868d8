package torchvit_test

import (
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

var link = regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`)

// TestDocumentLinks follows the links to files of this repository.
func TestDocumentLinks(t *testing.T) {
	count := 0
	for name, text := range readDocuments(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
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
		if strings.HasPrefix(dir, "cmd") || strings.HasPrefix(dir, "internal") || !library || strings.HasSuffix(dir, "/gen") {
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
