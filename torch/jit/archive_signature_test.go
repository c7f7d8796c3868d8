package jit_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch/jit"
)

// TestSignatureIsThatOfTheModule compares what the archive alone tells with libtorch's schemas.
func TestSignatureIsThatOfTheModule(t *testing.T) {
	var paths []string
	for _, pattern := range []string{"modules", "models", "generated"} {
		found, err := filepath.Glob(filepath.Join(testmain.Root(t), "testdata", pattern, "*.pt"))
		require.NoError(t, err)
		paths = append(paths, found...)
	}
	// libtorch's names for types, of which code writes Python's.
	toCode := map[string]string{"Tensor": "Tensor", "Tensor[]": "List[Tensor]", "int": "int", "int[]": "List[int]", "float": "float", "str": "str"}
	lists, methods := 0, 0
	for _, path := range paths {
		archive, err := jit.OpenArchive(path)
		require.NoError(t, err, path)
		defer archive.Close()
		module, err := jit.Load(path, jit.LoadOptions{})
		require.NoError(t, err, path)
		defer module.Close()
		for _, m := range module.Methods() {
			parameters, result, err := archive.Signature(m.Name)
			require.NoError(t, err, path)
			methods++
			_, schema, _ := strings.Cut(m.Schema, "(")
			arguments, to, _ := strings.Cut(schema, ") -> ")
			require.Equal(t, strings.Count(m.Schema[:len(m.Schema)-len(to)], " self")+len(parameters), len(splitSchema(arguments)), "%s: %s", path, m.Schema)
			for i, p := range parameters {
				typ := splitSchema(arguments)[i+1]
				typ, _, _ = strings.Cut(typ, "=")
				want, plain := toCode[typ[:strings.LastIndexByte(typ, ' ')]]
				if plain {
					require.Equal(t, want, p, "%s: %s", path, m.Schema)
				}
				if p == "List[Tensor]" {
					lists++
				}
			}
			if to == "Tensor" || result == "Tensor" {
				require.Equal(t, to, result, path)
			}
		}
		_, _, err = archive.Signature("no_such_method")
		require.ErrorIs(t, err, os.ErrNotExist)
	}
	require.Greater(t, methods, 30)
	require.Positive(t, lists)
}

// splitSchema splits a schema's arguments at the commas outside of brackets.
func splitSchema(s string) (parts []string) {
	depth, from := 0, 0
	for i, c := range s {
		switch c {
		case '(', '[':
			depth++
		case ')', ']':
			depth--
		case ',':
			if depth == 0 {
				parts = append(parts, strings.TrimSpace(s[from:i]))
				from = i + 1
			}
		}
	}
	return append(parts, strings.TrimSpace(s[from:]))
}
