package seg_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/seg"
)

// pillow runs Python code with the project's Pillow and decodes the JSON that it
// prints. Without the virtual environment the test fails: parity is not optional.
func pillow(t *testing.T, into any, code string, args ...string) {
	t.Helper()
	python, err := filepath.Abs("../.venv/bin/python")
	require.NoError(t, err)
	if _, err := os.Stat(python); errors.Is(err, fs.ErrNotExist) {
		t.Fatal("got no .venv with Pillow, want the one that make test makes")
	}
	cmd := exec.CommandContext(t.Context(), python, append([]string{"-c", code}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	require.NoError(t, json.Unmarshal(out, into))
}

func randomMap(t *testing.T, w, h, classes int) *seg.ClassMap {
	t.Helper()
	rng := rand.New(rand.NewPCG(uint64(w), uint64(classes)))
	ids := make([]uint8, w*h)
	for i := range ids {
		ids[i] = uint8(rng.IntN(classes))
	}
	m, err := seg.NewClassMap(w, h, ids)
	require.NoError(t, err)
	return m
}

// photo is a picture of noise, so that every byte value meets every colour.
func photo(w, h int) *image.RGBA {
	rng := rand.New(rand.NewPCG(3, 4))
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range img.Pix {
		img.Pix[i] = uint8(rng.Uint32())
		if i%4 == 3 {
			img.Pix[i] = 255
		}
	}
	return img
}

func ints[T ~uint8](b []T) []int {
	out := make([]int, len(b))
	for i, v := range b {
		out[i] = int(v)
	}
	return out
}

func TestPillowReadsTheIndexedPNG(t *testing.T) {
	for _, classes := range []int{1, 2, 3, 10, 17, 256} {
		m := randomMap(t, 37, 23, classes)
		path := filepath.Join(t.TempDir(), "mask.png")
		require.NoError(t, m.WritePNG(path, seg.DistinctPalette(classes)))
		var got struct {
			Mode            string
			Size            [2]int
			Pixels, Palette []int
		}
		pillow(t, &got, `
import json, sys
from PIL import Image
im = Image.open(sys.argv[1])
print(json.dumps({"mode": im.mode, "size": im.size, "pixels": list(im.tobytes()), "palette": im.getpalette()}))
`, path)
		assert.Equal(t, "P", got.Mode)
		assert.Equal(t, [2]int{37, 23}, got.Size)
		assert.Equal(t, ints(m.Classes), got.Pixels, "%d classes", classes)
		require.Len(t, got.Palette, 768)
		for id, c := range seg.DistinctPalette(classes) {
			assert.Equal(t, ints(c[:]), got.Palette[3*id:3*id+3])
		}
		if classes < 256 {
			assert.Equal(t, []int{224, 224, 192}, got.Palette[765:], "the class to ignore has VOC's colour")
		}
	}
}

func TestOverlayIsPillowsBlend(t *testing.T) {
	m, under := randomMap(t, 64, 48, 256), photo(64, 48)
	dir := t.TempDir()
	palette := seg.VOCPalette()
	require.NoError(t, m.WritePNG(filepath.Join(dir, "mask.png"), palette))
	var buf bytes.Buffer
	require.NoError(t, png.Encode(&buf, under))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "photo.png"), buf.Bytes(), 0o600))
	for _, alpha := range []float64{0, 0.1, 0.3, 0.5, 0.7, 0.77, 0.9, 1} {
		got, err := seg.Overlay(under, m, seg.OverlayOptions{Alpha: alpha, Palette: palette, NoLegend: true})
		require.NoError(t, err)
		if alpha == 0 {
			alpha = seg.DefaultAlpha
		}
		var want []int
		pillow(t, &want, `
import json, sys
from PIL import Image
photo, mask = (Image.open(f"{sys.argv[1]}/{name}.png").convert("RGB") for name in ("photo", "mask"))
print(json.dumps(list(Image.blend(photo, mask, float(sys.argv[2])).convert("RGBA").tobytes())))
`, dir, fmt.Sprint(alpha))
		require.Equal(t, want, ints(got.Pix), "alpha %v", alpha)
	}
}

func TestImageSharesThePixels(t *testing.T) {
	m := randomMap(t, 5, 4, 9)
	img := m.Image(nil)
	assert.Same(t, &m.Classes[0], &img.Pix[0])
	assert.Equal(t, m.At(3, 2), img.ColorIndexAt(3, 2))
	assert.Len(t, img.Palette, 256)
}

func TestVOCPalette(t *testing.T) {
	p := seg.VOCPalette()
	require.Len(t, p, 256)
	want := map[int][3]uint8{
		0: {0, 0, 0}, 1: {128, 0, 0}, 2: {0, 128, 0}, 3: {128, 128, 0}, 4: {0, 0, 128}, 7: {128, 128, 128},
		8: {64, 0, 0}, 15: {192, 128, 128}, 20: {0, 64, 128}, 21: {128, 64, 128}, 64: {32, 0, 0}, 255: {224, 224, 192},
	}
	for id, c := range want {
		assert.Equal(t, c, p[id], "class %d", id)
	}
	seen := map[[3]uint8]bool{}
	for _, c := range p {
		seen[c] = true
	}
	assert.Len(t, seen, 256)
}

func TestDistinctPalette(t *testing.T) {
	assert.Empty(t, seg.DistinctPalette(0))
	assert.Empty(t, seg.DistinctPalette(-3))
	assert.Len(t, seg.DistinctPalette(1000), 256)
	assert.Equal(t, seg.DistinctPalette(150)[:21], seg.DistinctPalette(21))
	assert.NotContains(t, seg.DistinctPalette(256), [3]uint8{})
}

func TestPaletteBeyondItsEnd(t *testing.T) {
	p := seg.Palette{{1, 2, 3}}
	assert.Equal(t, color.RGBA{1, 2, 3, 255}, p.Color(0))
	assert.Equal(t, color.RGBA{128, 0, 0, 255}, p.Color(1))
}

func TestCountsAndShares(t *testing.T) {
	m, err := seg.NewClassMap(4, 2, []uint8{0, 0, 0, 7, 7, 255, 0, 0})
	require.NoError(t, err)
	counts, shares := m.Counts(), m.Shares()
	assert.Equal(t, 5, counts[0])
	assert.Equal(t, 2, counts[7])
	assert.Equal(t, 1, counts[255])
	assert.Zero(t, counts[1])
	assert.InDelta(t, 0.25, shares[7], 0)
	assert.InDelta(t, 0.625, shares[0], 0)
	assert.Zero(t, (&seg.ClassMap{}).Shares())
}

func TestTransparentClassesKeepThePhoto(t *testing.T) {
	under := photo(30, 20)
	before := bytes.Clone(under.Pix)
	m := randomMap(t, 30, 20, 3)
	out, err := seg.Overlay(under, m, seg.OverlayOptions{Transparent: []uint8{0, 2}, Alpha: 1, NoLegend: true})
	require.NoError(t, err)
	painted := seg.DistinctPalette(2).Color(1)
	for y := range 20 {
		for x := range 30 {
			want := under.RGBAAt(x, y)
			if m.At(x, y) == 1 {
				want = painted
			}
			require.Equal(t, want, out.RGBAAt(x, y))
		}
	}
	assert.Equal(t, before, under.Pix, "the photo is not changed")
}

func TestLegendNamesOnlyWhatIsThere(t *testing.T) {
	under := photo(200, 150)
	ids := make([]uint8, 200*150)
	for i := range ids {
		if i%200 >= 100 {
			ids[i] = 4
		}
	}
	ids[0] = 9
	m, err := seg.NewClassMap(200, 150, ids)
	require.NoError(t, err)
	with, err := seg.Overlay(under, m, seg.OverlayOptions{Labels: []string{"left", "unused"}, Transparent: []uint8{4}})
	require.NoError(t, err)
	without, err := seg.Overlay(under, m, seg.OverlayOptions{Transparent: []uint8{4}, NoLegend: true})
	require.NoError(t, err)
	assert.Equal(t, image.Rect(0, 0, 200, 150), without.Rect)
	counts := map[color.RGBA]int{}
	for y := range with.Rect.Dy() {
		for x := range with.Rect.Dx() {
			if image.Pt(x, y).In(without.Rect) {
				require.Equal(t, without.RGBAAt(x, y), with.RGBAAt(x, y))
			} else {
				counts[with.RGBAAt(x, y)]++
			}
		}
	}
	few, err := seg.Overlay(under, m, seg.OverlayOptions{Labels: []string{"left"}, Hidden: []uint8{0, 9}})
	require.NoError(t, err)
	assert.Equal(t, under.RGBAAt(5, 5), few.RGBAAt(5, 5), "a hidden class is not painted")
	assert.NotEqual(t, under.RGBAAt(150, 5), few.RGBAAt(150, 5))
	assert.Less(t, few.Rect.Dx()*few.Rect.Dy(), with.Rect.Dx()*with.Rect.Dy(), "nor does it stand in the legend")
	swatch := func(id int) int { return counts[seg.DistinctPalette(256).Color(uint8(id))] }
	assert.Greater(t, swatch(0), 80)
	assert.Greater(t, swatch(9), 80, "a class of one pixel is named")
	assert.Zero(t, swatch(4), "a transparent class has an empty swatch")
	assert.Zero(t, swatch(1), "a class that is not there is not named")
}

func TestErrors(t *testing.T) {
	for _, bad := range []seg.ClassMap{
		{Width: 2, Height: 2, Classes: make([]uint8, 3)},
		{Width: 0, Height: 0},
		{Width: -2, Height: -2, Classes: make([]uint8, 4)},
		{Width: 1 << 62, Height: 4, Classes: nil}, // the product overflows to 0
	} {
		_, err := seg.NewClassMap(bad.Width, bad.Height, bad.Classes)
		require.ErrorIs(t, err, seg.ErrSize)
		require.ErrorIs(t, bad.EncodePNG(&bytes.Buffer{}, nil), seg.ErrSize)
		_, err = seg.Overlay(photo(2, 2), &bad, seg.OverlayOptions{})
		require.ErrorIs(t, err, seg.ErrSize)
		path := filepath.Join(t.TempDir(), "mask.png")
		require.ErrorIs(t, bad.WritePNG(path, nil), seg.ErrSize)
		require.NoFileExists(t, path)
	}
	m := randomMap(t, 4, 3, 2)
	_, err := seg.Overlay(photo(3, 4), m, seg.OverlayOptions{})
	require.ErrorIs(t, err, seg.ErrSize)
	require.ErrorContains(t, err, "photo of 3x4, class map of 4x3")
	for _, alpha := range []float64{-0.1, 1.5} {
		_, err = seg.Overlay(photo(4, 3), m, seg.OverlayOptions{Alpha: alpha})
		require.ErrorIs(t, err, seg.ErrAlpha)
	}
	_, err = seg.Overlay(photo(4, 3), m, seg.OverlayOptions{Font: []byte("no")})
	require.Error(t, err)
}

func BenchmarkOverlay(b *testing.B) {
	const w, h = 2000, 1500
	ids := make([]uint8, w*h)
	for i := range ids {
		ids[i] = uint8(i / 5000)
	}
	m, err := seg.NewClassMap(w, h, ids)
	require.NoError(b, err)
	under := photo(w, h)
	for b.Loop() {
		if _, err := seg.Overlay(under, m, seg.OverlayOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
