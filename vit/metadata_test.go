package vit_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/vit"
)

const minimal = `{"format":1,"task":"classification","preprocess":{"resize":{"rule":"exact","size":[8,8]},"crop":{}},
"tokens":{"patch_size":[4,4],"prefix":1},"output":{"kind":"logits"},"thresholds":{"score":0.5},
"reference":{"torch":"2.15.0","cpu_vendor":"x","cpu_capability":"y","threads":1,"dtype":"float32","atol":0,"rtol":0,
"calls":[{"method":"forward","inputs":[{"tensor":"c0.in0"},{"int":0}],"outputs":["out"]}]}}`

func TestParseMetadata(t *testing.T) {
	m, err := vit.ParseMetadata([]byte(minimal))
	require.NoError(t, err)
	require.Equal(t, int64(0), *m.Reference.Calls[0].Inputs[1].Int)
	again, err := json.Marshal(m)
	require.NoError(t, err)
	same, err := vit.ParseMetadata(again)
	require.NoError(t, err)
	require.Equal(t, m, same)
}

func TestMetadataErrorsNameTheField(t *testing.T) {
	for _, c := range []struct{ old, replacement, want string }{
		{`"format":1`, `"format":2`, "format: got 2"},
		{`"classification"`, `"poetry"`, `task: got "poetry"`},
		{`"rule":"exact"`, `"rule":"zoom"`, "preprocess"},
		{`"patch_size":[4,4]`, `"patch_size":[4,0]`, "tokens.patch_size"},
		{`"prefix":1`, `"prefix":-1`, "tokens.prefix: got -1"},
		{`"kind":"logits"`, `"kind":"poem"`, "output.kind"},
		{`"score":0.5`, `"score":1.5`, "thresholds.score: got 1.5"},
		{`"threads":1`, `"threads":0`, "reference.threads"},
		{`"dtype":"float32"`, `"dtype":"int4"`, "reference.dtype"},
		{`{"int":0}`, `{"int":0,"ints":[1]}`, "calls[0].inputs[1]: got 2 kinds"},
		{`"outputs":["out"]`, `"outputs":[]`, "calls[0]"},
		{`"thresholds"`, `"treshold":1,"thresholds"`, "treshold"},
		{`{"format"`, `{} {"format"`, "got 0"},
	} {
		text := strings.Replace(minimal, c.old, c.replacement, 1)
		require.NotEqual(t, minimal, text, c.old)
		_, err := vit.ParseMetadata([]byte(text))
		require.ErrorIs(t, err, vit.ErrMetadata, c.replacement)
		require.ErrorContains(t, err, c.want)
		require.NotContains(t, err.Error(), "\n")
	}
}

func TestMetadataOfExportedFiles(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(testmain.Root(t), "testdata", "generated", "*.pt"))
	require.NoError(t, err)
	require.NotEmpty(t, files, "make test makes them with scripts/export_parity_models.py")
	for _, path := range files {
		m, err := vit.ReadMetadata(path)
		require.NoError(t, err, path)
		require.NotEmpty(t, m.Reference.Calls, path)
		// What this package writes again loses nothing.
		a, err := jit.OpenArchive(path)
		require.NoError(t, err)
		text, err := a.ReadExtra(vit.MetadataFile)
		require.NoError(t, err)
		require.NoError(t, a.Close())
		var want, got map[string]any
		require.NoError(t, json.Unmarshal(text, &want))
		again, err := json.Marshal(m)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(again, &got))
		require.Equal(t, want["labels"], got["labels"])
		require.Equal(t, want["reference"], got["reference"])
	}
}

// FuzzParseMetadata: an error of one line, or a description that is valid and reads the same when it is written
// again.
func FuzzParseMetadata(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(full))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := vit.ParseMetadata(text)
		if (m == nil) == (err == nil) {
			t.Fatalf("got metadata %v and error %v, want exactly one", m, err)
		}
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("got an error of several lines: %q", err)
			}
			return
		}
		if err := m.Validate(); err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := vit.ParseMetadata(again); err != nil {
			t.Fatalf("%s\n%s: %v", text, again, err)
		}
	})
}
