package main

import (
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch/npy"
)

// pythonRuns gives what scripts/parity.py prints for each list of arguments, all from one process, because
// importing torch takes longer than the work.
func pythonRuns(t *testing.T, runs [][]string) []string {
	t.Helper()
	testmain.NotShort(t)
	const script = `
import json, sys
sys.path.insert(0, "scripts")
import parity
for args in json.loads(sys.argv[1]):
    sys.argv = ["parity.py", *args]
    parity.main()
    print(end="\0")
`
	text, err := json.Marshal(runs)
	require.NoError(t, err)
	outputs := strings.Split(testmain.RunPython(t, "-c", script, string(text)), "\x00")
	require.Len(t, outputs, len(runs)+1)
	return outputs
}

// TestSameTextAsPython compares what the commands print with what scripts/parity.py prints, byte for byte.
func TestSameTextAsPython(t *testing.T) {
	photos := photoFiles(t)
	cases := []struct {
		args  []string
		lines int // at least, so that nothing passes on nothing
	}{
		{append([]string{"classify", generated(t, "vit_reference.pt")}, photos...), 24},
		{append([]string{"classify", generated(t, "vit_small_patch14_reg4_dinov2.pt"), "--top", "3"}, photos[:2]...), 8},
		{append([]string{"attend", generated(t, "deit_tiny_distilled_patch16_224.pt"), "--block", "-3"}, photos[:2]...), 8},
		{append([]string{"segment", generated(t, "segmentation.pt")}, photos...), 16},
		{append([]string{"segment", generated(t, "vit_reference.pt"), "--head", generated(t, "segmentation_head.pt")}, photos...), 16},
		{[]string{"segment", generated(t, "vit_tiny_patch16_224.pt"), "--head", generated(t, "segmentation_head.pt"), photos[2]}, 3},
		{append([]string{"detect", generated(t, "detection.pt")}, photos...), 44},
		{[]string{"detect", generated(t, "detection.pt"), "--threshold", "0", photos[0]}, 10},
	}
	var runs [][]string
	for _, c := range cases {
		runs = append(runs, c.args, append(c.args[:len(c.args):len(c.args)], "--json"))
	}
	for i, want := range pythonRuns(t, runs) {
		if i == len(runs) {
			break
		}
		args := runs[i]
		t.Run(strings.ReplaceAll(strings.Join(args, " "), testmain.Root(t)+"/", ""), func(t *testing.T) {
			got, _ := ok(t, args...)
			assert.Equal(t, want, got)
			lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
			if args[len(args)-1] != "--json" {
				assert.GreaterOrEqual(t, len(lines), cases[i/2].lines)
				return
			}
			for _, line := range lines {
				assert.True(t, json.Valid([]byte(line)), line)
			}
		})
	}
}

func TestOneAnswerForManyLanes(t *testing.T) {
	args := append([]string{"classify", generated(t, "vit_reference.pt")}, photoFiles(t)...)
	one, _ := ok(t, args...)
	many, _ := ok(t, append(args, "--lanes", "4")...)
	assert.Equal(t, one, many)
}

func TestPictures(t *testing.T) {
	dir := t.TempDir()
	photo := photoFile(t, "coffee.jpg")
	for _, c := range []struct {
		args  []string
		files []string
	}{
		{[]string{"classify", generated(t, "vit_reference.pt")}, []string{"coffee.classes.jpg"}},
		{[]string{"attend", generated(t, "vit_reference.pt"), "--smooth", "--colormap", "inferno"}, []string{"coffee.attention.png", "coffee.attention-mean.jpg", "coffee.attention.npy"}},
		{[]string{"segment", generated(t, "segmentation.pt")}, []string{"coffee.mask.png", "coffee.overlay.jpg"}},
		{[]string{"detect", generated(t, "detection.pt")}, []string{"coffee.detections.jpg"}},
	} {
		_, stderr := ok(t, append(c.args, photo, "--out", dir)...)
		for _, name := range c.files {
			assert.Contains(t, stderr, "wrote "+filepath.Join(dir, name)+"\n")
			info, err := os.Stat(filepath.Join(dir, name))
			require.NoError(t, err)
			assert.Greater(t, info.Size(), int64(500), name)
		}
	}

	// The class map holds what the text says, the weights what attend says.
	mask, isPaletted := decodePNG(t, filepath.Join(dir, "coffee.mask.png")).(*image.Paletted)
	require.True(t, isPaletted)
	assert.Equal(t, image.Rect(0, 0, 600, 400), mask.Rect)
	counts := map[uint8]int{}
	for _, id := range mask.Pix {
		counts[id]++
	}
	stdout, _ := ok(t, "segment", generated(t, "segmentation.pt"), photo, "--json")
	var segmented struct {
		Classes []struct {
			Label  string
			Pixels int
		}
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &segmented))
	assert.Len(t, counts, len(segmented.Classes))
	for _, c := range segmented.Classes {
		n := 0
		for id, pixels := range counts {
			if c.Label == fmt.Sprintf("class %d", id) {
				n = pixels
			}
		}
		assert.Equal(t, c.Pixels, n, c.Label)
	}
	weights, err := npy.ReadFile(filepath.Join(dir, "coffee.attention.npy"))
	require.NoError(t, err)
	assert.Equal(t, []int64{3, 14, 14}, weights.Shape)
	assert.Equal(t, "f4", weights.DType)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 7, "no temporary files are left")
}

func decodePNG(t *testing.T, path string) image.Image {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	img, err := png.Decode(f)
	require.NoError(t, err)
	return img
}
