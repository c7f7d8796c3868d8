package torchvit_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/torchvit/torchvit"

// floors orders the rooms of the house: a package may import its own room and
// lower floors. Rooms on one floor do not know each other. cgo/install is
// below cgo, torch/jit above torch.
var floors = map[string]int{
	"coco":        0,
	"dataset":     1,
	"cgo/install": 0,
	"cgo":         1,
	"torch":       2,
	"torch/jit":   3,
	"torch/loss":  3,
	"torch/optim": 4,
	"transforms":  4,
	"loader":      5,
	"vit":         5,
	"seg":         6,
	"det":         6,
	"train":       7,
	"cmd":         8,
}

// room is the longest entry of floors that dir lies in, "" for the root and
// for internal, whose packages stand on the floor of the highest they import.
func room(dir string) string {
	for ; dir != "."; dir = path.Dir(dir) {
		if _, ok := floors[dir]; ok {
			return dir
		}
	}
	return ""
}

// sourceFile is one Go file and what it imports.
type sourceFile struct {
	path    string
	test    bool
	imports []string
}

func readSources(t *testing.T) map[string][]sourceFile {
	t.Helper()
	packages := map[string][]sourceFile{}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			name := d.Name()
			if file != "." && (strings.HasPrefix(name, ".") || name == "tools" || name == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		f := sourceFile{path: file, test: strings.HasSuffix(file, "_test.go")}
		for _, spec := range parsed.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, name)
		}
		dir := filepath.ToSlash(filepath.Dir(file))
		packages[dir] = append(packages[dir], f)
		return nil
	})
	require.NoError(t, err)
	require.Contains(t, packages, "cgo")
	require.Contains(t, packages, "torch")
	return packages
}

// TestOnlyTheBoundaryIsUnsafe keeps "C" and "unsafe" in cgo and torch.
func TestOnlyTheBoundaryIsUnsafe(t *testing.T) {
	boundary := 0
	for dir, files := range readSources(t) {
		for _, f := range files {
			for _, name := range f.imports {
				switch {
				case name == "C":
					boundary++
					assert.True(t, dir == "cgo", "%s imports \"C\", which only cgo may", f.path)
				case name == "unsafe":
					inside := dir == "cgo" || dir == "torch" || strings.HasPrefix(dir, "torch/")
					assert.True(t, inside, "%s imports \"unsafe\", which only cgo and torch may", f.path)
				}
			}
		}
	}
	assert.Positive(t, boundary, "cgo itself must have been read")
}

// TestImportsPointOneWay keeps cmd -> seg, det -> vit -> transforms ->
// torch/jit -> torch -> cgo.
func TestImportsPointOneWay(t *testing.T) {
	packages := readSources(t)

	// reach lists the rooms that a package imports, also through internal ones.
	var reach func(dir string, seen map[string]bool) map[string]string
	reach = func(dir string, seen map[string]bool) map[string]string {
		rooms := map[string]string{}
		for _, f := range packages[dir] {
			if f.test {
				continue
			}
			for _, name := range f.imports {
				imported, ours := strings.CutPrefix(name, module+"/")
				if !ours || seen[imported] {
					continue
				}
				if r := room(imported); r != "" {
					rooms[r] = f.path + " imports " + imported
					continue
				}
				seen[imported] = true
				for r, how := range reach(imported, seen) {
					rooms[r] = f.path + " imports " + imported + ", where " + how
				}
			}
		}
		return rooms
	}

	checked := 0
	for dir := range packages {
		from := room(dir)
		// Programs of tests stand outside the house.
		if from == "" || strings.Contains(dir, "testdata") {
			continue
		}
		for to, how := range reach(dir, map[string]bool{}) {
			checked++
			assert.True(t, to == from || floors[to] < floors[from], "%s: %s may not import %s", how, from, to)
		}
	}
	assert.Greater(t, checked, 3, "the imports must have been read")
}
