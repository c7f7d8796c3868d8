package cgo_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(text)
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.NotEmpty(t, names)
	return names
}

var declaration = regexp.MustCompile(`TV_API\s+([\w\s]+?[\s*]+)(tv_\w+)\(`)

// declared is every function of the headers, with its result type.
func declared(t *testing.T) map[string]string {
	t.Helper()
	functions := map[string]string{}
	for _, name := range []string{"shim/shim.h", "shim/cuda_shim.h"} {
		for _, m := range declaration.FindAllStringSubmatch(read(t, name), -1) {
			functions[m[2]] = strings.ReplaceAll(m[1], " ", "")
		}
	}
	require.Greater(t, len(functions), 45)
	return functions
}

// TestEveryFunctionIsGuarded reads the C++ sources: the body of every exported function is one guard, so
// that nothing that C++ throws reaches Go.
func TestEveryFunctionIsGuarded(t *testing.T) {
	// These give a constant or the address of a counter.
	plain := map[string]string{"tv_abi_hash": "return TV_ABI_HASH;", "tv_pins_pending": "return reinterpret_cast<const int64_t*>(&pending);"}
	definition := regexp.MustCompile(`(?m)^(?:const )?[\w:]+\*? (tv_\w+)\(([^)]*)\) \{`)
	functions := declared(t)
	seen := map[string]bool{}
	for _, name := range glob(t, "shim/*.cc") {
		text := read(t, name)
		for _, at := range definition.FindAllStringSubmatchIndex(text, -1) {
			function := text[at[2]:at[3]]
			result, exported := functions[function]
			assert.True(t, exported, "%s: %s is not in a header", name, function)
			seen[function] = true
			body := strings.TrimSpace(text[at[1]:end(text, at[1]-1)])
			if want, ok := plain[function]; ok {
				assert.Equal(t, want, body, function)
				continue
			}
			var open string
			switch {
			case result == "tv_status*":
				open = `^return tv::(guard|light|run)\(`
			case function == "tv_pins_drain": // counts
				open = `^int64_t n = 0;\s+tv::quiet\(`
				body = strings.TrimSuffix(strings.TrimSpace(strings.TrimSuffix(body, "return n;")), "\n")
			default:
				open = `^tv::quiet\(`
			}
			require.Regexp(t, open, body, "%s: %s", name, function)
			// Nothing stands after the guard.
			first := strings.Index(body, "(")
			last := endRound(body, strings.Index(body[first-1:], "(")+first-1)
			assert.Equal(t, ");", body[last:], "%s: %s goes on after its guard", name, function)
		}
	}
	for function := range functions {
		assert.True(t, seen[function], "%s has no body", function)
	}
}

// end is the place of the brace that closes the one at open.
func end(text string, open int) int { return closing(text, open, '{', '}') }

func endRound(text string, open int) int { return closing(text, open, '(', ')') }

func closing(text string, open int, left, right byte) int {
	depth := 0
	for i := open; i < len(text); i++ {
		switch text[i] {
		case left:
			depth++
		case right:
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return len(text)
}

// TestCallsAreMarked: Go tells cgo that no function calls back, and that none keeps what it is given but
// the one that wraps memory. The markers stand in the file that makes the call.
func TestCallsAreMarked(t *testing.T) {
	functions := declared(t)
	unmarked := []string{"tv_abi_hash", "tv_pins_pending"} // no arguments, once a process
	called := map[string]bool{}
	for _, name := range glob(t, "*_cgo.go") {
		text := read(t, name)
		preamble, code, ok := strings.Cut(text, `import "C"`)
		require.True(t, ok, name)
		for _, m := range regexp.MustCompile(`C\.(tv_\w+)\(`).FindAllStringSubmatch(code, -1) {
			function := m[1]
			called[function] = true
			assert.Contains(t, functions, function, name)
			if slices.Contains(unmarked, function) {
				continue
			}
			assert.Contains(t, preamble, "#cgo nocallback "+function+"\n", "%s", name)
			if function == "tv_tensor_from_blob" {
				assert.NotContains(t, preamble, "#cgo noescape "+function+"\n", "it keeps the memory")
			} else {
				assert.Contains(t, preamble, "#cgo noescape "+function+"\n", "%s", name)
			}
		}
	}
	for function := range functions {
		assert.True(t, called[function], "%s has no Go function", function)
	}
}

// TestGeneratedFilesAreFresh runs the generator on a copy.
func TestGeneratedFilesAreFresh(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "shim"), 0o755))
	for _, name := range append(glob(t, "*_cgo.go"), "shim/shim.h", "shim/cuda_shim.h") {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(read(t, name)), 0o644))
	}
	out, err := exec.CommandContext(t.Context(), "go", "run", "./gen", dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, name := range []string{"calls.c", "shim/abi.h", "nocgo_stubs.go"} {
		fresh, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.True(t, bytes.Equal(fresh, []byte(read(t, name))), "%s is stale: run go generate ./cgo", name)
	}
}

// TestNoThreadLocalErrors: no mode or error outlives a call, so nothing that a caller sets is kept per
// thread. What a thread keeps is that its libraries were told to use one thread.
func TestNoThreadLocalErrors(t *testing.T) {
	for _, name := range glob(t, "shim/*.cc") {
		for i, line := range strings.Split(read(t, name), "\n") {
			if strings.Contains(line, "thread_local") {
				assert.Contains(t, line, "const bool once", "%s:%d", name, i+1)
			}
		}
	}
}
