package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
)

// TestClassifyFilesOfOtherLibraries takes bare traces with the configuration files that timm and transformers
// save beside them, and no flags: the scores of their own processors and of torch.jit.load, bit for bit.
func TestClassifyFilesOfOtherLibraries(t *testing.T) {
	testmain.NotShort(t)
	var photos []string
	for _, name := range []string{"chelsea.png", "coffee.jpg", "portrait.jpg", "panorama.jpg", "grey.jpg", "palette.png", "cmyk.jpg", "tiny.png"} {
		photos = append(photos, photoFile(t, name))
	}
	dir := t.TempDir()
	script := filepath.Join("cmd", "torchvit", "testdata", "others_reference.py")
	type class struct {
		Label string
		Score float32
	}
	var want map[string][][]class
	out := testmain.RunPython(t, append([]string{script, "--out", dir}, photos...)...)
	require.NoError(t, json.Unmarshal([]byte(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:]), &want))
	require.Len(t, want, 3)
	seen, scores := map[string]bool{}, map[float32]bool{}
	for name, answers := range want {
		model := filepath.Join(dir, name, "model.pt")
		stdout, _ := ok(t, append([]string{"classify", model, "--format", "hf"}, photos...)...)
		lines := strings.Split(strings.TrimSpace(stdout), "\n")
		require.Len(t, lines, len(photos))
		for i, line := range lines {
			var got []class
			require.NoError(t, json.Unmarshal([]byte(line), &got))
			require.Equal(t, answers[i], got, "%s: %s", name, photos[i])
			seen[got[0].Label], scores[got[0].Score] = true, true
			require.NotEqual(t, got[0].Score, got[1].Score)
		}
	}
	require.Greater(t, len(seen), len(want), "more than one class of a model")
	require.Greater(t, len(scores), 20, "photos differ")

	text, _ := ok(t, "inspect", filepath.Join(dir, "vit", "model.pt"))
	for _, says := range []string{
		"ViTForImageClassification   (config.json)", "resize exact to 64 x 64 (bilinear, torch)", "(preprocessor_config.json)",
		"patches of 16 x 16, 1 prefix token(s), embed_dim 48, 2 blocks of 3 heads   (config.json)", "7: vit 0, vit 1",
	} {
		assert.Contains(t, text, says)
	}
	text, _ = ok(t, "inspect", filepath.Join(dir, "deit", "model.pt"))
	assert.Contains(t, text, "scores by sigmoid   (config.json)")
	text, _ = ok(t, "inspect", filepath.Join(dir, "timm", "model.pt"))
	assert.Contains(t, text, "5: timm 0")
	assert.Contains(t, text, "crop center 64 x 64")
	assert.NotContains(t, text, "not used")
}
