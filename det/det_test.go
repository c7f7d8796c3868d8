package det_test

import (
	"encoding/json"
	"image"
	"image/color"
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/det"
)

func TestBoxesAreTorchvisions(t *testing.T) {
	text, err := os.ReadFile("testdata/boxes.json")
	require.NoError(t, err)
	var want struct {
		Height, Width int
		Boxes         [][4]float32
		Area          []float32
		IoU           [][]float32
		Clip          [][4]float32
		XYWH          [][4]float32
		CXCYWH        [][4]float32
		FromXYWH      [][4]float32 `json:"from_xywh"`
		FromCXCYWH    [][4]float32 `json:"from_cxcywh"`
	}
	require.NoError(t, json.Unmarshal(text, &want))
	require.Len(t, want.Boxes, 40)
	flat := func(b det.Box) [4]float32 { return [4]float32{b.X1, b.Y1, b.X2, b.Y2} }
	overlapping := 0
	for i, v := range want.Boxes {
		b := det.Box{X1: v[0], Y1: v[1], X2: v[2], Y2: v[3]}
		assert.Equal(t, want.Area[i], b.Area())
		assert.Equal(t, want.Clip[i], flat(b.Clip(want.Width, want.Height)))
		x, y, w, h := b.XYWH()
		assert.Equal(t, want.XYWH[i], [4]float32{x, y, w, h})
		x, y, w, h = b.CXCYWH()
		assert.Equal(t, want.CXCYWH[i], [4]float32{x, y, w, h})
		assert.Equal(t, want.FromXYWH[i], flat(det.BoxFromXYWH(v[0], v[1], v[2], v[3])))
		assert.Equal(t, want.FromCXCYWH[i], flat(det.BoxFromCXCYWH(v[0], v[1], v[2], v[3])))
		for j, o := range want.Boxes {
			iou := b.IoU(det.Box{X1: o[0], Y1: o[1], X2: o[2], Y2: o[3]})
			assert.Equal(t, want.IoU[i][j], iou, "%d, %d", i, j)
			if iou > 0 && iou < 1 {
				overlapping++
			}
		}
	}
	assert.Greater(t, overlapping, 100)
}

func TestEmptyBoxes(t *testing.T) {
	turned := det.Box{X1: 5, Y1: 5, X2: 1, Y2: 1}
	assert.True(t, turned.Empty())
	assert.Zero(t, turned.Area())
	assert.Zero(t, turned.IoU(turned))
	nan := float32(math.NaN())
	assert.True(t, det.Box{X1: nan, Y1: 0, X2: 1, Y2: 1}.Empty())
	assert.False(t, det.Box{X2: 1, Y2: 1}.Empty())
	assert.Equal(t, det.Box{X1: 2, Y1: 9, X2: 4, Y2: 12}, det.Box{X1: 1, Y1: 3, X2: 2, Y2: 4}.Scale(2, 3))
}

func gray(w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range img.Pix {
		img.Pix[i] = 128
		if i%4 == 3 {
			img.Pix[i] = 255
		}
	}
	return img
}

var (
	red    = color.RGBA{230, 20, 20, 255}
	yellow = color.RGBA{250, 220, 20, 255}
	colors = [][3]uint8{{230, 20, 20}, {250, 220, 20}}
)

func TestFrameLiesOnTheBox(t *testing.T) {
	photo := gray(400, 300)
	d := det.Detection{Box: det.Box{X1: 99.6, Y1: 120.4, X2: 200, Y2: 180}, LabelID: 2, Label: "cat", Score: 0.5}
	out, err := det.Draw(photo, []det.Detection{d}, det.DrawOptions{Palette: colors, Thickness: 3, NoLabels: true, NoScores: true})
	require.NoError(t, err)
	assert.Equal(t, photo.Rect, out.Rect)
	for y := range 300 {
		for x := range 400 {
			p := image.Pt(x, y)
			// Three pixels wide, the middle one on the box's edge; then the dark rim.
			outer, inner := image.Rect(99, 119, 201, 181), image.Rect(102, 122, 198, 178)
			c := out.RGBAAt(x, y)
			switch {
			case p.In(outer) && !p.In(inner):
				require.Equal(t, red, c, "%v", p)
			case p.In(outer.Inset(-1)) && !p.In(inner.Inset(1)):
				require.Less(t, c.R, uint8(100), "%v", p)
			default:
				require.Equal(t, photo.RGBAAt(x, y), c, "%v", p)
			}
		}
	}
}

func TestPlateStandsAboveOrInside(t *testing.T) {
	count := func(img *image.RGBA, r image.Rectangle, c color.RGBA) (n int) {
		for y := r.Min.Y; y < r.Max.Y; y++ {
			for x := r.Min.X; x < r.Max.X; x++ {
				if img.RGBAAt(x, y) == c {
					n++
				}
			}
		}
		return n
	}
	draw := func(b det.Box) *image.RGBA {
		out, err := det.Draw(gray(400, 300), []det.Detection{{Box: b, Label: "cat", Score: 0.93}}, det.DrawOptions{Palette: colors})
		require.NoError(t, err)
		return out
	}
	low := draw(det.Box{X1: 100, Y1: 100, X2: 200, Y2: 200})
	assert.Greater(t, count(low, image.Rect(90, 80, 210, 98), red), 400, "above")
	assert.Zero(t, count(low, image.Rect(104, 104, 196, 196), red))
	top := draw(det.Box{X1: 100, Y1: 3, X2: 200, Y2: 200})
	assert.Greater(t, count(top, image.Rect(104, 7, 196, 40), red), 250, "inside, where there is no room above")
}

func TestHighScoresLieOnTop(t *testing.T) {
	b := det.Box{X1: 50, Y1: 60, X2: 150, Y2: 160}
	dets := []det.Detection{
		{Box: b, LabelID: 0, Label: "first", Score: 0.9},
		{Box: b, LabelID: 1, Label: "second", Score: 0.2},
	}
	for range 2 {
		out, err := det.Draw(gray(300, 300), dets, det.DrawOptions{Palette: colors, Thickness: 3})
		require.NoError(t, err)
		assert.Equal(t, red, out.RGBAAt(150, 110), "the frame of the higher score")
		n := 0
		for i := 0; i < len(out.Pix); i += 4 {
			if out.Pix[i] == yellow.R && out.Pix[i+1] == yellow.G {
				n++
			}
		}
		assert.Greater(t, n, 400, "the other's plate has another place")
		dets[0], dets[1] = dets[1], dets[0] // the order given does not matter
	}
}

func TestDrawSurvivesAnything(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	odd := []float32{nan, inf, -inf, 0, -1, 1e30, -1e30, 0.4, 1, 2, 5, 17, 300}
	label := []string{"", "cat", "ein sehr langer Name, der in kein Bild passt, auch in kein großes", "a\nb", "\xff\xfe", "猫"}
	for _, size := range []image.Point{{1, 1}, {3, 2}, {16, 400}, {200, 150}} {
		var dets []det.Detection
		for range 300 {
			v := func() float32 { return odd[rng.IntN(len(odd))] }
			dets = append(dets, det.Detection{
				Box: det.Box{X1: v(), Y1: v(), X2: v(), Y2: v()}, Label: label[rng.IntN(len(label))],
				LabelID: rng.IntN(400) - 100, Score: v(),
			})
		}
		for _, opts := range []det.DrawOptions{{}, {Thickness: 50, TextSize: 60}, {Palette: colors, NoLabels: true}, {NoScores: true}} {
			out, err := det.Draw(gray(size.X, size.Y), dets, opts)
			require.NoError(t, err)
			assert.Equal(t, image.Rectangle{Max: size}, out.Rect)
			assert.True(t, out.Opaque())
		}
	}
	photo := gray(50, 40)
	out, err := det.Draw(photo, []det.Detection{
		{Box: det.Box{X1: nan, Y1: 0, X2: 5, Y2: 5}}, {Box: det.Box{X1: 60, Y1: 0, X2: 90, Y2: 5}}, {Box: det.Box{X1: 9, Y1: 9, X2: 2, Y2: 12}},
	}, det.DrawOptions{})
	require.NoError(t, err)
	assert.Equal(t, photo.Pix, out.Pix, "boxes that are empty or outside are left out")
	out, err = det.Draw(photo, nil, det.DrawOptions{})
	require.NoError(t, err)
	assert.Equal(t, photo.Pix, out.Pix)
}

func TestDrawRefusesABadFont(t *testing.T) {
	_, err := det.Draw(gray(5, 5), nil, det.DrawOptions{Font: []byte("no font")})
	require.ErrorContains(t, err, "det: not a TrueType or OpenType font")
}

func BenchmarkDraw100(b *testing.B) {
	rng := rand.New(rand.NewPCG(5, 6))
	var dets []det.Detection
	for range 100 {
		dets = append(dets, det.Detection{
			Box:   det.BoxFromXYWH(rng.Float32()*1800, rng.Float32()*1300, 50+rng.Float32()*500, 50+rng.Float32()*500),
			Label: "coffee cup", LabelID: rng.IntN(90), Score: rng.Float32(),
		})
	}
	photo := gray(2000, 1500)
	for b.Loop() {
		if _, err := det.Draw(photo, dets, det.DrawOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
