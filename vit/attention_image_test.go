package vit_test

import (
	"encoding/json"
	"image"
	"image/color"
	"math"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/vit"
)

func TestHeatMapIsMatplotlibsImsave(t *testing.T) {
	text, err := os.ReadFile("../internal/annotate/testdata/colormap.json")
	require.NoError(t, err)
	var record struct {
		Cases []struct {
			Rows, Cols       int
			Values           []float32
			Viridis, Inferno []int
		}
	}
	require.NoError(t, json.Unmarshal(text, &record))
	require.NotEmpty(t, record.Cases)
	const patch = 16
	for i, c := range record.Cases {
		for name, want := range map[string][]int{"": c.Viridis, "viridis": c.Viridis, "inferno": c.Inferno} {
			img, err := vit.HeatMap(c.Values, c.Rows, c.Cols, vit.HeatMapOptions{ColorMap: name})
			require.NoError(t, err)
			require.Equal(t, image.Rect(0, 0, patch*c.Cols, patch*c.Rows), img.Rect)
			for y := range patch * c.Rows {
				for x := range patch * c.Cols {
					p := img.RGBAAt(x, y)
					at := 3 * (y/patch*c.Cols + x/patch)
					require.Equal(t, want[at:at+3], []int{int(p.R), int(p.G), int(p.B)}, "case %d at %d, %d", i, x, y)
				}
			}
		}
	}
}

func TestSmoothIsTorchsBilinear(t *testing.T) {
	values := []float32{0, 1, 4, 9, 2, -3}
	// torch.nn.functional.interpolate(values, (5, 7), mode="bilinear", align_corners=False)
	want := []float32{
		0, 0.1428571, 0.5714286, 1, 2.2857144, 3.5714288, 4,
		0.9000001, 0.9285715, 1.0142858, 1.1, 2.0428569, 2.985714, 3.3,
		4.5, 4.0714288, 2.7857141, 1.5, 1.0714285, 0.6428571, 0.5,
		8.1000004, 7.2142859, 4.5571427, 1.9000001, 0.0999998, -1.7000005, -2.3000002,
		9, 8, 5, 2, -0.1428573, -2.2857146, -3,
	}
	smooth, err := vit.HeatMap(values, 2, 3, vit.HeatMapOptions{Width: 7, Height: 5, Smooth: true})
	require.NoError(t, err)
	direct, err := vit.HeatMap(want, 5, 7, vit.HeatMapOptions{Width: 7, Height: 5})
	require.NoError(t, err)
	for i := range smooth.Pix {
		// One step of the colour map is at most three levels.
		require.InDelta(t, direct.Pix[i], smooth.Pix[i], 3, "byte %d", i)
	}
}

func TestMinAndMaxMakeMapsComparable(t *testing.T) {
	low, err := vit.HeatMap([]float32{0, 0.1}, 1, 2, vit.HeatMapOptions{Width: 2, Height: 1, Max: 1})
	require.NoError(t, err)
	high, err := vit.HeatMap([]float32{0.1, 1}, 1, 2, vit.HeatMapOptions{Width: 2, Height: 1, Max: 1})
	require.NoError(t, err)
	assert.Equal(t, low.RGBAAt(1, 0), high.RGBAAt(0, 0))
	assert.Equal(t, color.RGBA{253, 231, 36, 255}, high.RGBAAt(1, 0))
}

func TestHeatMapErrors(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	four := []float32{1, 2, 3, 4}
	for name, try := range map[string]func() error{
		"count":    func() error { _, err := vit.HeatMap(four, 2, 3, vit.HeatMapOptions{}); return err },
		"none":     func() error { _, err := vit.HeatMap(nil, 0, 0, vit.HeatMapOptions{}); return err },
		"negative": func() error { _, err := vit.HeatMap(four, -2, -2, vit.HeatMapOptions{}); return err },
		"nan":      func() error { _, err := vit.HeatMap([]float32{1, nan}, 1, 2, vit.HeatMapOptions{}); return err },
		"inf":      func() error { _, err := vit.HeatMap([]float32{inf, 1}, 1, 2, vit.HeatMapOptions{}); return err },
		"map":      func() error { _, err := vit.HeatMap(four, 2, 2, vit.HeatMapOptions{ColorMap: "jet"}); return err },
		"size":     func() error { _, err := vit.HeatMap(four, 2, 2, vit.HeatMapOptions{Width: 5}); return err },
		"scale":    func() error { _, err := vit.HeatMap(four, 2, 2, vit.HeatMapOptions{Min: 2, Max: 1}); return err },
		"alpha":    func() error { _, err := vit.HeatMap(four, 2, 2, vit.HeatMapOptions{Alpha: 2}); return err },
		"region": func() error {
			_, err := vit.OverlayHeatMap(photo(), four, 2, 2, vit.HeatMapOptions{Region: image.Rect(0, 0, 999, 9)})
			return err
		},
		"empty photo": func() error {
			_, err := vit.OverlayHeatMap(image.NewRGBA(image.Rectangle{}), four, 2, 2, vit.HeatMapOptions{})
			return err
		},
		"sheet count": func() error {
			_, err := vit.HeatMapSheet(photo(), four, 3, 2, 2, vit.HeatMapSheetOptions{})
			return err
		},
		"sheet names": func() error {
			_, err := vit.HeatMapSheet(photo(), four, 1, 2, 2, vit.HeatMapSheetOptions{Names: []string{"a", "b"}})
			return err
		},
	} {
		require.ErrorIs(t, try(), vit.ErrHeatMap, name)
	}
}

// photo is a light picture with an origin of its own.
func photo() *image.RGBA {
	img := image.NewRGBA(image.Rect(10, 20, 10+120, 20+80))
	for i := range img.Pix {
		img.Pix[i] = 200
		if i%4 == 3 {
			img.Pix[i] = 255
		}
	}
	return img
}

func TestOverlayCoversTheRegion(t *testing.T) {
	region := image.Rect(30, 20, 110, 100)
	out, err := vit.OverlayHeatMap(photo(), []float32{0, 1, 2, 3}, 2, 2, vit.HeatMapOptions{Region: region, Alpha: 0.5})
	require.NoError(t, err)
	assert.Equal(t, image.Rect(0, 0, 120, 80), out.Rect)
	// 200 and viridis, half each, truncated: (68, 1, 84) first, (253, 231, 36) last.
	assert.Equal(t, color.RGBA{134, 100, 142, 255}, out.RGBAAt(20, 0))
	assert.Equal(t, color.RGBA{134, 100, 142, 255}, out.RGBAAt(59, 39))
	assert.Equal(t, color.RGBA{226, 215, 118, 255}, out.RGBAAt(60, 40))
	assert.Equal(t, color.RGBA{226, 215, 118, 255}, out.RGBAAt(99, 79))
	for _, x := range []int{0, 19, 100, 119} {
		assert.Equal(t, color.RGBA{79, 79, 79, 255}, out.RGBAAt(x, 50), "the rest is darkened")
	}
	whole, err := vit.OverlayHeatMap(photo(), []float32{0, 1, 2, 3}, 2, 2, vit.HeatMapOptions{Alpha: 1})
	require.NoError(t, err)
	assert.Equal(t, color.RGBA{68, 1, 84, 255}, whole.RGBAAt(0, 0))
	assert.Equal(t, color.RGBA{253, 231, 36, 255}, whole.RGBAAt(119, 79))
}

func TestSheetShowsPhotoMeanAndHeads(t *testing.T) {
	// Two heads whose mean is flat: its tile has the lowest colour alone.
	maps := []float32{0, 1, 2, 3, 3, 2, 1, 0}
	count := func(opts vit.HeatMapSheetOptions) map[color.RGBA]int {
		opts.NoPhoto, opts.TileSize = true, 60
		page, err := vit.HeatMapSheet(photo(), maps, 2, 2, 2, opts)
		require.NoError(t, err)
		require.True(t, page.Opaque())
		n := map[color.RGBA]int{}
		for i := 0; i < len(page.Pix); i += 4 {
			n[color.RGBA{page.Pix[i], page.Pix[i+1], page.Pix[i+2], 255}]++
		}
		return n
	}
	const tile = 60 * 40
	low, high, plain := color.RGBA{68, 1, 84, 255}, color.RGBA{253, 231, 36, 255}, color.RGBA{200, 200, 200, 255}
	n := count(vit.HeatMapSheetOptions{Title: "block 11", Names: []string{"a", "b"}})
	assert.Equal(t, tile+2*tile/4, n[low])
	assert.Equal(t, 2*tile/4, n[high])
	assert.GreaterOrEqual(t, n[plain], tile)
	n = count(vit.HeatMapSheetOptions{NoMean: true})
	assert.Equal(t, 2*tile/4, n[low])

	// A region of the photo's left half: tiles of 40x40 with the maps alone.
	n = count(vit.HeatMapSheetOptions{NoMean: true, HeatMapOptions: vit.HeatMapOptions{Region: image.Rect(10, 20, 90, 100)}})
	assert.Equal(t, 2*60*60/4, n[low])
}

func TestSheetOfALargePhotoIsNotHuge(t *testing.T) {
	big := image.NewRGBA(image.Rect(0, 0, 3000, 2000))
	page, err := vit.HeatMapSheet(big, make([]float32, 12*14*14), 12, 14, 14, vit.HeatMapSheetOptions{})
	require.NoError(t, err)
	assert.Less(t, page.Rect.Dx(), 2600)
	assert.Less(t, page.Rect.Dy(), 2600)
}

func TestAttentionMaskIsDINOs(t *testing.T) {
	mask := []bool{true, false, false, false, true, true}
	img, err := vit.AttentionMask(mask, 2, 3, image.Pt(20, 10), image.Rect(4, 2, 16, 10))
	require.NoError(t, err)
	require.Equal(t, image.Rect(0, 0, 20, 10), img.Rect)
	for y := range 10 {
		for x := range 20 {
			want := uint8(0)
			if x >= 4 && x < 16 && y >= 2 && mask[(y-2)/4*3+(x-4)/4] {
				want = 255
			}
			require.Equal(t, want, img.GrayAt(x, y).Y, "%d, %d", x, y)
		}
	}
	for name, try := range map[string]func() error{
		"count": func() error { _, err := vit.AttentionMask(mask, 2, 2, image.Pt(9, 9), image.Rectangle{}); return err },
		"region": func() error {
			_, err := vit.AttentionMask(mask, 2, 3, image.Pt(9, 9), image.Rect(0, 0, 10, 9))
			return err
		},
		"photo": func() error { _, err := vit.AttentionMask(mask, 2, 3, image.Point{}, image.Rectangle{}); return err },
		"heat map": func() error {
			_, err := vit.HeatMap([]float32{1, 2}, 1, 2, vit.HeatMapOptions{Mask: mask})
			return err
		},
		"sheet": func() error {
			_, err := vit.HeatMapSheet(photo(), []float32{1, 2}, 1, 1, 2, vit.HeatMapSheetOptions{Masks: mask})
			return err
		},
	} {
		require.ErrorIs(t, try(), vit.ErrHeatMap, name)
	}
}

func TestHeatMapOutlinesMaskAndMark(t *testing.T) {
	white := color.RGBA{255, 255, 255, 255}
	values := []float32{0, 1, 2, 3}
	p := photo() // 120 x 80 from 10, 20
	plain, err := vit.OverlayHeatMap(p, values, 2, 2, vit.HeatMapOptions{})
	require.NoError(t, err)
	out, err := vit.OverlayHeatMap(p, values, 2, 2, vit.HeatMapOptions{
		Mask: []bool{false, true, false, false}, Mark: image.Rect(10+10, 20+50, 10+30, 20+70),
	})
	require.NoError(t, err)
	assert.Equal(t, white, out.RGBAAt(60, 20), "left of the second value")
	assert.Equal(t, white, out.RGBAAt(90, 40), "below it")
	assert.Equal(t, plain.RGBAAt(30, 40), out.RGBAAt(30, 40), "between two that are not in the mask")
	assert.Equal(t, white, out.RGBAAt(9, 60), "the mark's left")
	assert.Equal(t, white, out.RGBAAt(20, 70), "the mark's bottom")
	assert.Equal(t, plain.RGBAAt(20, 60), out.RGBAAt(20, 60), "inside the mark")
}
