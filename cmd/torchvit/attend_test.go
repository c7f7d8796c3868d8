package main

import (
	"encoding/binary"
	"encoding/json"
	"image"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch/npy"
)

// attended is a line of `attend --json` of one block.
type attended struct {
	Query string
	Block *int
	Heads []struct {
		Head     *int
		Map      string
		Min, Max float64
		ArgMax   [2]int
		Mask     *int
	}
	Blocks []attended
}

func attendJSON(t *testing.T, args ...string) attended {
	t.Helper()
	stdout, _ := ok(t, append([]string{"attend", generated(t, "vit_reference.pt"), photoFile(t, "coffee.jpg"), "--json"}, args...)...)
	var a attended
	require.NoError(t, json.Unmarshal([]byte(stdout), &a))
	return a
}

func TestAttendOptions(t *testing.T) {
	last := attendJSON(t)
	require.Len(t, last.Heads, 3)
	assert.Equal(t, 3, *last.Block)
	assert.Empty(t, last.Query)
	assert.Nil(t, last.Heads[0].Mask)

	some := attendJSON(t, "--head", "2,0")
	require.Len(t, some.Heads, 2)
	assert.Equal(t, last.Heads[2], some.Heads[0])
	assert.Equal(t, last.Heads[0], some.Heads[1])

	mean := attendJSON(t, "--head", "mean", "--mask", "0.6")
	require.Len(t, mean.Heads, 1)
	assert.Equal(t, "mean", mean.Heads[0].Map)
	assert.Nil(t, mean.Heads[0].Head)
	assert.True(t, *mean.Heads[0].Mask > 10 && *mean.Heads[0].Mask < 140)

	all := attendJSON(t, "--block", "all")
	require.Len(t, all.Blocks, 4)
	for i, b := range all.Blocks {
		assert.Equal(t, i, *b.Block)
	}
	assert.Equal(t, last.Heads, all.Blocks[3].Heads)

	rolled := attendJSON(t, "--rollout")
	require.Len(t, rolled.Heads, 1)
	assert.Equal(t, "rollout", rolled.Heads[0].Map)
	assert.Nil(t, rolled.Block)
	assert.NotEqual(t, rolled.Heads, attendJSON(t, "--rollout", "--fusion", "max", "--discard", "0.5").Heads)

	patch := attendJSON(t, "--query", "3,4")
	assert.Equal(t, "patch 3,4", patch.Query)
	assert.NotEqual(t, last.Heads, patch.Heads)
	assert.Equal(t, last.Heads, attendJSON(t, "--token", "0").Heads)
	// The patch 3,4 of 14 x 14 in the middle 400 x 400 of the photo's 600 x 400, by the file's preprocess.
	found := false
	for x := 140; x < 460 && !found; x += 8 {
		pixel := attendJSON(t, "--pixel", strconv.Itoa(x)+",100")
		found = assert.ObjectsAreEqual(patch.Heads, pixel.Heads)
	}
	assert.True(t, found, "no pixel of row 100 lies in the patch")
}

func TestAttendText(t *testing.T) {
	photo := photoFile(t, "coffee.jpg")
	for _, c := range []struct {
		args []string
		line string
	}{
		{nil, `^  block 3  head 0  min \d\.\d+  max \d\.\d+  argmax \d+,\d+$`},
		{[]string{"--mask", "0.6"}, `^  block 3  head 0  min .*  argmax \d+,\d+  mask \d+$`},
		{[]string{"--block", "1", "--head", "mean"}, `^  block 1  mean  min .*  argmax \d+,\d+$`},
		{[]string{"--rollout"}, `^  rollout  min .*  argmax \d+,\d+$`},
	} {
		stdout, _ := ok(t, append([]string{"attend", generated(t, "vit_reference.pt"), photo}, c.args...)...)
		lines := strings.Split(stdout, "\n")
		assert.Equal(t, photo, lines[0])
		assert.Regexp(t, regexp.MustCompile(c.line), lines[1])
	}
}

func TestAttendPictures(t *testing.T) {
	dir := t.TempDir()
	photo, model := photoFile(t, "coffee.jpg"), generated(t, "vit_reference.pt")
	ok(t, "attend", model, photo, "--rollout", "--mask", "0.6", "--out", dir)
	assert.Equal(t, []string{"coffee.attention-mask.png", "coffee.attention-rollout.jpg", "coffee.attention.npy", "coffee.attention.png"}, names(t, dir))

	// The mask holds the patches with the highest weights, those with 0.6 of all.
	weights, err := npy.ReadFile(filepath.Join(dir, "coffee.attention.npy"))
	require.NoError(t, err)
	require.Equal(t, []int64{1, 14, 14}, weights.Shape)
	mask := decodePNG(t, filepath.Join(dir, "coffee.attention-mask.png")).(*image.Gray)
	require.Equal(t, image.Rect(0, 0, 600, 400), mask.Rect)
	heat := decodePNG(t, filepath.Join(dir, "coffee.attention.png")).Bounds()
	left := (600 - heat.Dx()) / 2
	sum, kept, lowest, highest := 0.0, 0.0, math.Inf(1), 0.0
	for i := range 14 * 14 {
		v := float64(math.Float32frombits(binary.LittleEndian.Uint32(weights.Data[4*i:])))
		sum += v
		x := left + (2*(i%14)+1)*heat.Dx()/28
		y := (400-heat.Dy())/2 + (2*(i/14)+1)*heat.Dy()/28
		if mask.GrayAt(x, y) == (color.Gray{Y: 255}) {
			kept += v
			lowest = min(lowest, v)
		} else {
			highest = max(highest, v)
		}
	}
	assert.InDelta(t, 0.6, kept/sum, 0.02)
	assert.GreaterOrEqual(t, lowest, highest)
	assert.Equal(t, uint8(0), mask.GrayAt(1, 200).Y, "what the model does not see is not in the mask")

	dir = t.TempDir()
	ok(t, "attend", model, photo, "--block", "0,2", "--head", "1,2", "--query", "1,1", "--mask", "0.5", "--out", dir)
	assert.Equal(t, []string{
		"coffee.attention-mask-block0-head1.png", "coffee.attention-mask-block0-head2.png",
		"coffee.attention-mask-block2-head1.png", "coffee.attention-mask-block2-head2.png",
		"coffee.attention.npy", "coffee.attention.png",
	}, names(t, dir))
	weights, err = npy.ReadFile(filepath.Join(dir, "coffee.attention.npy"))
	require.NoError(t, err)
	assert.Equal(t, []int64{2, 2, 14, 14}, weights.Shape)
}

// names lists the files of a folder, sorted.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestAttendUsage(t *testing.T) {
	model, photo := generated(t, "vit_reference.pt"), photoFile(t, "coffee.jpg")
	for want, args := range map[string][]string{
		"--block x: want numbers or all":          {"--block", "x"},
		"--block 0,9: want -4 to 3":               {"--block", "0,9"},
		"--head 3: want 0 to 2":                   {"--head", "3"},
		"--head 1,1: want different heads":        {"--head", "1,1"},
		"--head sum: want numbers, all or mean":   {"--head", "sum"},
		"--rollout --head mean: want one of them": {"--rollout", "--head", "mean"},
		"--fusion sum: want mean, max or min":     {"--rollout", "--fusion", "sum"},
		"--fusion and --discard: want --rollout":  {"--discard", "0.5"},
		"--discard 1: want 0 or more":             {"--rollout", "--discard", "1"},
		"--mask 0: want more than 0":              {"--mask", "0"},
		"--query 1: want two numbers":             {"--query", "1"},
		"--pixel 1,b: want two numbers":           {"--pixel", "1,b"},
		"if any flags in the group":               {"--pixel", "1,1", "--query", "1,1"},
		"--colormap jet: want viridis or inferno": {"--colormap", "jet"},
	} {
		assert.Contains(t, fails(t, exitUsage, append([]string{"attend", model, photo}, args...)...), want)
	}
	for want, args := range map[string][]string{
		"token 1, want 0 to 0": {"--token", "1"},
		"patch 14,0":           {"--query", "14,0"},
		"pixel 600,0":          {"--pixel", "600,0"},
	} {
		line := fails(t, exitError, append([]string{"attend", model, photo}, args...)...)
		assert.Contains(t, line, want)
		assert.Contains(t, line, "no such query token")
	}
}
