package det

import (
	"image"
	"image/color"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/coco"
	"github.com/torchvit/torchvit/internal/annotate"
)

func TestCaptionKeepsTheScore(t *testing.T) {
	text, err := annotate.NewText(12, true, nil)
	require.NoError(t, err)
	d := Detection{Label: "a label that is too long", LabelID: 7, Score: 0.934}
	assert.Equal(t, "a label that is too long 0.93", DrawOptions{}.caption(d, text, 1000))
	for width := text.Width("0.93"); width < text.Width("a label that is too long 0.93"); width++ {
		s := DrawOptions{}.caption(d, text, width)
		require.LessOrEqual(t, text.Width(s), width)
		require.Regexp(t, `^((a.*)?…)? ?0\.93$`, s)
	}
	assert.Regexp(t, `^a lab.*… 0\.93$`, DrawOptions{}.caption(d, text, 120))
	assert.Equal(t, "0.93", DrawOptions{NoLabels: true}.caption(d, text, 120))
	assert.Equal(t, "7", DrawOptions{NoScores: true}.caption(Detection{LabelID: 7}, text, 120))
	assert.Empty(t, DrawOptions{NoLabels: true, NoScores: true}.caption(d, text, 120))
}

// disc is a mask of a disc.
func disc(w, h, cx, cy, r int) *coco.RLE {
	pixels := make([]uint8, w*h)
	for y := range h {
		for x := range w {
			if (x-cx)*(x-cx)+(y-cy)*(y-cy) <= r*r {
				pixels[y*w+x] = 1
			}
		}
	}
	mask, err := coco.Encode(pixels, h, w)
	if err != nil {
		panic(err)
	}
	return &mask
}

func TestDrawFillsMasks(t *testing.T) {
	photo := image.NewRGBA(image.Rect(0, 0, 200, 150))
	annotate.Fill(photo, photo.Rect, color.RGBA{100, 100, 100, 255}, 1)
	// The second reaches the picture's right edge.
	dets := []Detection{
		{Box: Box{20, 20, 81, 81}, LabelID: 0, Score: 0.9, Mask: disc(200, 150, 50, 50, 30)},
		{Box: Box{160, 60, 200, 141}, LabelID: 1, Score: 0.8, Mask: disc(200, 150, 200, 100, 40)},
	}
	opts := DrawOptions{NoBoxes: true, NoLabels: true, NoScores: true, Thickness: 3, Palette: [][3]uint8{{200, 0, 0}, {0, 200, 100}}}
	out, err := Draw(photo, dets, opts)
	require.NoError(t, err)
	plain, red, green := color.RGBA{100, 100, 100, 255}, color.RGBA{200, 0, 0, 255}, color.RGBA{0, 200, 100, 255}
	for _, d := range []struct {
		cx, cy, r int
		fill, rim color.RGBA
	}{{50, 50, 30, color.RGBA{150, 50, 50, 255}, red}, {200, 100, 40, color.RGBA{50, 150, 100, 255}, green}} {
		for y := range 150 {
			for x := range 200 {
				dx, dy := x-d.cx, y-d.cy
				got := out.RGBAAt(x, y)
				switch at := dx*dx + dy*dy; {
				case at <= (d.r-5)*(d.r-5):
					require.Equal(t, d.fill, got, "%d, %d", x, y)
				case at <= d.r*d.r && at > (d.r-2)*(d.r-2):
					require.Equal(t, d.rim, got, "%d, %d", x, y)
				case at > d.r*d.r && at < (d.r+10)*(d.r+10):
					require.Equal(t, plain, got, "%d, %d", x, y)
				}
			}
		}
	}
	assert.Equal(t, color.RGBA{50, 150, 100, 255}, out.RGBAAt(199, 100), "no rim at the picture's edge")
	assert.Equal(t, plain, photo.RGBAAt(50, 50), "the photo is not changed")

	opts.ByInstance = true
	swapped := []Detection{{Box: dets[0].Box, LabelID: 1, Score: 0.1, Mask: dets[0].Mask}, {Box: dets[1].Box, LabelID: 1, Score: 0.8}}
	out, err = Draw(photo, swapped, opts)
	require.NoError(t, err)
	assert.Equal(t, color.RGBA{50, 150, 100, 255}, out.RGBAAt(50, 50), "the second of two instances")
	opts.NoMasks = true
	out, err = Draw(photo, dets, opts)
	require.NoError(t, err)
	assert.Equal(t, photo.Pix, out.Pix)

	opts.NoMasks, opts.InPlace, opts.MaskAlpha = false, true, 1
	out, err = Draw(photo, dets[:1], opts)
	require.NoError(t, err)
	assert.Same(t, photo, out)
	assert.Equal(t, red, photo.RGBAAt(50, 50))

	dets[0].Mask = disc(100, 150, 50, 50, 30)
	_, err = Draw(photo, dets, DrawOptions{})
	require.ErrorIs(t, err, ErrDraw)
	require.ErrorContains(t, err, "mask of 100x150, want the photo's 200x150")
	_, err = Draw(photo, nil, DrawOptions{MaskAlpha: 2})
	require.ErrorIs(t, err, ErrDraw)
}

func TestPlatesLeaveRoomForASmallPicture(t *testing.T) {
	photo := image.NewRGBA(image.Rect(0, 0, 100, 80))
	annotate.Fill(photo, photo.Rect, color.RGBA{100, 100, 100, 255}, 1)
	var dets []Detection
	for i := range 12 {
		dets = append(dets, Detection{Box: Box{float32(i * 5), float32(i * 5), float32(i*5 + 30), float32(i*5 + 25)}, Label: "dining table", Score: 0.5})
	}
	out, err := Draw(photo, dets, DrawOptions{NoBoxes: true})
	require.NoError(t, err)
	covered := 0
	for i := 0; i < len(out.Pix); i += 4 {
		if [4]uint8(out.Pix[i:i+4]) != [4]uint8{100, 100, 100, 255} {
			covered++
		}
	}
	assert.True(t, covered > 400 && covered < 100*80*mostPlates, "got %d pixels covered", covered)
}
