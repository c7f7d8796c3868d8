package transforms

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
)

// augmentation is one case of TestAugmentPython.
type augmentation struct {
	photo  Size
	pixels []byte
	mask   []byte
	boxes  [][4]float32
	view   View
	color  *ColorParams
}

func (a *augmentation) request(channels int) object {
	v := a.view
	filter := v.Interpolation
	if filter == "" {
		filter = Bilinear
	}
	r := object{
		"op": "augment", "source": []int{a.photo.Height, a.photo.Width, channels}, "boxes": a.boxes,
		"crop":    []int{v.Crop.Top, v.Crop.Left, v.Crop.Height, v.Crop.Width},
		"resized": []int{v.Resized.Height, v.Resized.Width},
		"window":  []int{v.Window.Top, v.Window.Left, v.Window.Height, v.Window.Width},
		"fill":    []int{int(v.Fill[0]), int(v.Fill[1]), int(v.Fill[2])}, "ignore": 255, "flip": v.Flip, "filter": filter,
	}
	if c := a.color; c != nil {
		factor := func(v, none float64) any {
			if v == none {
				return nil
			}
			return v
		}
		r["color"] = object{
			"order": c.Order[:], "brightness_factor": factor(c.Brightness, 1), "contrast_factor": factor(c.Contrast, 1),
			"saturation_factor": factor(c.Saturation, 1), "hue_factor": factor(c.Hue, 0),
		}
	}
	return r
}

// randomAugmentation draws a photo, a part of a real one half of the time, with mask and boxes.
func randomAugmentation(r *rand.Rand, real []byte, realSize Size, channels int) *augmentation {
	a := &augmentation{photo: Size{1 + r.IntN(180), 1 + r.IntN(180)}}
	h, w := a.photo.Height, a.photo.Width
	a.pixels = make([]byte, h*w*channels)
	if top, left := realSize.Height-h, realSize.Width-w; r.IntN(2) == 0 {
		y0, x0 := r.IntN(top+1), r.IntN(left+1)
		for y := range h {
			for x := range w {
				copy(a.pixels[(y*w+x)*channels:][:channels], real[((y0+y)*realSize.Width+x0+x)*3:])
			}
		}
	} else {
		for i := range a.pixels {
			a.pixels[i] = byte(r.Uint32())
		}
	}
	a.mask = make([]byte, h*w)
	for i := range a.mask {
		a.mask[i] = byte(r.IntN(256))
	}
	for range 6 {
		x, y := r.Float64()*float64(w), r.Float64()*float64(h)
		a.boxes = append(a.boxes, [4]float32{
			float32(x), float32(y),
			float32(x + r.Float64()*(float64(w)-x)), float32(y + r.Float64()*(float64(h)-y)),
		})
	}
	return a
}

// TestAugmentPython compares views and colours with torchvision.transforms.v2: the image's bytes, the normalised
// tensor, the mask and the boxes, in every bit.
func TestAugmentPython(t *testing.T) {
	real, err := Decode(t.Context(), photo(t, "coffee.jpg"), DecodeOptions{})
	require.NoError(t, err)
	defer real.Close()
	realPixels := rgb(t, real)
	r := rand.New(rand.NewPCG(3, 4))
	half := []float64{0.5, 0.5, 0.5}
	crop := RandomResizedCrop{Scale: [2]float64{0.02, 1}, Ratio: [2]float64{0.2, 5}}
	jitter := ColorJitter{Brightness: []float64{0.9}, Contrast: []float64{0, 2}, Saturation: []float64{1}, Hue: []float64{0.5}}
	var cropped, padded, flipped, colored, kept, dropped, greys, pixels int
	for i := range 240 {
		channels := 3
		if i%8 == 7 {
			channels, greys = 1, greys+1
		}
		a := randomAugmentation(r, realPixels, Size{real.Height(), real.Width()}, channels)
		switch i % 4 {
		case 0:
			crop.Size = Size{1 + r.IntN(150), 1 + r.IntN(150)}
			crop.Interpolation = []Interpolation{"", Bicubic, Nearest, Lanczos}[r.IntN(4)]
			require.NoError(t, crop.Validate())
			a.view = crop.Params(r, a.photo)
		case 1, 2:
			s := ScaleJitter{TargetSize: Size{1 + r.IntN(150), 1 + r.IntN(150)}, Fill: [3]uint8{124, 116, 104}}
			require.NoError(t, s.Validate())
			a.view = s.Params(r, a.photo)
		case 3:
			s := RandomShortestSize{MinSize: []int{20, 40, 80}, MaxSize: 100}
			require.NoError(t, s.Validate())
			a.view = s.Params(r, a.photo)
			if r.IntN(2) == 0 { // both at once, and padding on all sides
				a.view.Crop = Rect{a.photo.Height / 4, a.photo.Width / 3, 1 + a.photo.Height/2, 1 + a.photo.Width/2}
				a.view.Window = Rect{-3, -5, a.view.Resized.Height + 7, a.view.Resized.Width + 20}
			}
		}
		a.view.Flip = RandomHorizontalFlip{}.Params(r)
		if i%3 != 0 {
			c := jitter.Params(r)
			for k, f := range []*float64{&c.Brightness, &c.Contrast, &c.Saturation, &c.Hue} {
				if i%15 == 3*k+1 { // one change alone
					*f = []float64{1, 1, 1, 0}[k]
				}
			}
			require.NoError(t, c.validate())
			a.color = &c
			colored++
		}
		var answer struct{ Kept []int }
		want := ask(t, a.request(channels), &answer, a.pixels, a.mask)

		tensor, err := torch.FromSlice(a.pixels, int64(a.photo.Height), int64(a.photo.Width), int64(channels))
		require.NoError(t, err)
		chw, err := tensor.Permute(2, 0, 1)
		tensor.Close()
		require.NoError(t, err)
		img, err := FromTensor(chw)
		chw.Close()
		require.NoError(t, err)

		size := a.view.Size()
		n := size.Height * size.Width
		if a.color == nil {
			out, err := a.view.Apply(t.Context(), img)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want[0], rgb(t, out)), "case %d: %+v", i, a.view)
			out.Close()
		}
		p, err := NewPipeline(Spec{Mean: half[:channels], Std: half[:channels]}, Options{})
		require.NoError(t, err)
		floatsOut := make([]float32, channels*n)
		require.NoError(t, p.WriteView(t.Context(), img, a.view, a.color, floatsOut))
		require.Zero(t, differingBits(floats(want[3]), floatsOut), "case %d: %+v %+v", i, a.view, a.color)
		img.Close()

		mask := make([]uint8, n)
		require.NoError(t, ViewMask(a.view, a.mask, a.photo, 255, mask))
		require.True(t, bytes.Equal(want[1], mask), "mask %d: %+v", i, a.view)

		boxes := floats(want[2])
		var keep []int
		for k, b := range a.boxes {
			moved, visible := a.view.Box(b)
			for j, v := range moved {
				require.Equal(t, boxes[4*k+j], v, "box %d of case %d: %+v", k, i, a.view)
			}
			if (SanitizeBoundingBoxes{}).Keep(moved, visible, size) {
				keep = append(keep, k)
				require.Positive(t, visible)
			}
		}
		require.ElementsMatch(t, answer.Kept, keep)
		kept, dropped, pixels = kept+len(keep), dropped+len(a.boxes)-len(keep), pixels+n
		if v := a.view; v.Crop != (Rect{0, 0, a.photo.Height, a.photo.Width}) || v.Window.Top > 0 || v.Window.Left > 0 {
			cropped++
		}
		if s := a.view.visible(); s.Height < size.Height || s.Width < size.Width {
			padded++
		}
		if a.view.Flip {
			flipped++
		}
	}
	for name, n := range map[string]int{"cropped": cropped, "padded": padded, "flipped": flipped, "colored": colored, "kept": kept, "dropped": dropped, "grey": greys} {
		require.Greater(t, n, 20, name)
	}
	t.Logf("%d pixels compared, 0 differ; %d views cropped, %d padded, %d flipped, %d colored; %d boxes kept, %d dropped",
		pixels, cropped, padded, flipped, colored, kept, dropped)
}

// TestColorPython compares each change alone with Pillow's, on a quarter of a million colours.
func TestColorPython(t *testing.T) {
	const side = 512
	r := rand.New(rand.NewPCG(8, 9))
	pixels := make([]byte, side*side*3)
	for i := range pixels {
		pixels[i] = byte(r.Uint32())
	}
	for i := range 256 { // greys, primary colours and what is next to grey
		for j, v := range [][3]byte{{1, 1, 1}, {1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {1, 1, 0}} {
			for k := range 3 {
				pixels[(j*256+i)*3+k] = v[k] * byte(i)
			}
		}
		copy(pixels[(5*256+i)*3:], []byte{byte(i), byte(i), byte(min(255, i+1))})
	}
	cases := []ColorParams{}
	for _, f := range []float64{0, 0.1, 0.5, 0.9999999, 1.0000001, 1.4, 2.2, 100} {
		cases = append(cases, ColorParams{Brightness: f, Contrast: 1, Saturation: 1},
			ColorParams{Brightness: 1, Contrast: f, Saturation: 1}, ColorParams{Brightness: 1, Contrast: 1, Saturation: f})
	}
	for _, h := range []float64{-0.5, -0.3, -0.004, -0.003, 0.001, 0.02, 0.1, 0.25, 0.5} {
		cases = append(cases, ColorParams{Brightness: 1, Contrast: 1, Saturation: 1, Hue: h})
	}
	img := pixelImage(t, pixels, side, side)
	defer img.Close()
	changed := 0
	for _, c := range cases {
		c.Order = [4]int{0, 1, 2, 3}
		a := augmentation{photo: Size{side, side}, view: ViewOf(wholePhoto(side, side)), color: &c, boxes: [][4]float32{{0, 0, 1, 1}}}
		want := ask(t, a.request(3), nil, pixels, make([]byte, side*side))
		out, err := c.Apply(t.Context(), img)
		require.NoError(t, err)
		got := rgb(t, out)
		out.Close()
		require.True(t, bytes.Equal(want[0], got), "%+v", c)
		if !bytes.Equal(got, pixels) {
			changed++
		}
	}
	require.GreaterOrEqual(t, changed, len(cases)-6) // factors next to 1 change nothing
}

func pixelImage(t testing.TB, pixels []byte, h, w int) *Image {
	t.Helper()
	img, err := newPixels(h, w, 3, func(dst []byte) error { copy(dst, pixels); return nil })
	require.NoError(t, err)
	return img
}

// TestAugmentParams draws many parameters and looks at their bounds and their spread.
func TestAugmentParams(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	photo := Size{300, 400}
	var areas []float64
	for range 4000 {
		v := RandomResizedCrop{Size: Size{64, 64}}.Params(r, photo)
		require.NoError(t, v.check(photo))
		area := float64(v.Crop.Height*v.Crop.Width) / 120000
		ratio := float64(v.Crop.Width) / float64(v.Crop.Height)
		require.True(t, area > 0.078 && area <= 1 && ratio > 0.73 && ratio < 1.36, "%+v", v)
		areas = append(areas, area)
	}
	mean := 0.0
	for _, a := range areas {
		mean += a / float64(len(areas))
	}
	// Below the 0.54 of the range, as the largest parts often do not fit.
	var answer struct{ Mean float64 }
	ask(t, object{"op": "crop_shares", "height": 300, "width": 400, "count": 4000}, &answer)
	require.InDelta(t, answer.Mean, mean, 0.02)

	// What never fits gives the central part of an allowed ratio.
	v := RandomResizedCrop{Size: Size{8, 8}, Scale: [2]float64{1, 1}}.Params(r, Size{10, 1000})
	require.Equal(t, Rect{0, 493, 10, 13}, v.Crop)
	v = RandomResizedCrop{Size: Size{8, 8}, Scale: [2]float64{1, 1}}.Params(r, Size{1000, 10})
	require.Equal(t, Rect{493, 0, 13, 10}, v.Crop)

	smaller, larger, corners := 0, 0, map[Rect]bool{}
	for range 1000 {
		v := ScaleJitter{TargetSize: Size{128, 128}}.Params(r, photo)
		require.NoError(t, v.check(photo))
		require.Equal(t, Size{128, 128}, v.Size())
		require.InDelta(t, float64(v.Resized.Height)/300, float64(v.Resized.Width)/400, 0.01)
		require.True(t, v.Resized.Width >= 12 && v.Resized.Width < 257, "%+v", v)
		if v.Resized.Width > 128 {
			larger++
			corners[v.Window] = true
		} else {
			smaller++
			require.Zero(t, v.Window.Left)
		}
	}
	require.Greater(t, smaller, 400)
	require.Greater(t, larger, 400)
	require.Greater(t, len(corners), 300)

	orders, flips := map[[4]int]bool{}, 0
	for range 1000 {
		c := ColorJitter{Brightness: []float64{0.4}, Hue: []float64{-0.1, 0.3}}.Params(r)
		require.NoError(t, c.validate())
		require.True(t, c.Brightness >= 0.6 && c.Brightness < 1.4 && c.Hue >= -0.1 && c.Hue < 0.3, "%+v", c)
		require.Equal(t, []float64{1, 1}, []float64{c.Contrast, c.Saturation})
		orders[c.Order] = true
		if (RandomHorizontalFlip{}).Params(r) {
			flips++
		}
	}
	require.Len(t, orders, 24)
	require.InDelta(t, 500, flips, 80)
}

// TestAugmentErrors gives ErrSpec for parameters that make no sense.
func TestAugmentErrors(t *testing.T) {
	nan := math.NaN()
	for i, err := range []error{
		RandomResizedCrop{}.Validate(),
		RandomResizedCrop{Size: Size{8, 8}, Scale: [2]float64{0.5, 0.1}}.Validate(),
		RandomResizedCrop{Size: Size{8, 8}, Scale: [2]float64{0.5, 2}}.Validate(),
		RandomResizedCrop{Size: Size{8, 8}, Ratio: [2]float64{0, 1}}.Validate(),
		RandomResizedCrop{Size: Size{8, 8}, Interpolation: "cubic"}.Validate(),
		ScaleJitter{TargetSize: Size{8, 0}}.Validate(),
		ScaleJitter{TargetSize: Size{8, 8}, ScaleRange: [2]float64{0, 1}}.Validate(),
		RandomShortestSize{}.Validate(),
		RandomShortestSize{MinSize: []int{0}}.Validate(),
		RandomHorizontalFlip{P: 1.5}.Validate(),
		ColorJitter{Brightness: []float64{-1}}.Validate(),
		ColorJitter{Hue: []float64{0.6}}.Validate(),
		ColorJitter{Contrast: []float64{2, 1}}.Validate(),
		ColorJitter{Saturation: []float64{nan}}.Validate(),
		ColorJitter{Saturation: []float64{1, 2, 3}}.Validate(),
		SanitizeBoundingBoxes{MinSize: 0.5}.Validate(),
		SanitizeBoundingBoxes{MinVisible: 2}.Validate(),
		View{}.check(Size{8, 8}),
		ViewMask(ViewOf(wholePhoto(4, 4)), make([]uint8, 15), Size{4, 4}, 0, make([]uint8, 16)),
	} {
		if i == 18 {
			require.ErrorIs(t, err, torch.ErrShape)
			continue
		}
		require.ErrorIs(t, err, ErrSpec, "case %d", i)
	}
	require.NoError(t, ColorJitter{}.Validate())
	require.NoError(t, SanitizeBoundingBoxes{}.Validate())

	img := pixelImage(t, make([]byte, 4*4*3), 4, 4)
	defer img.Close()
	_, err := View{Crop: Rect{2, 0, 3, 4}, Resized: Size{4, 4}, Window: Rect{0, 0, 4, 4}}.Apply(t.Context(), img)
	require.ErrorIs(t, err, ErrSpec)
	_, err = ColorParams{Brightness: -1}.Apply(t.Context(), img)
	require.ErrorIs(t, err, ErrSpec)
}

func BenchmarkColor(b *testing.B) {
	pixels := make([]byte, 128*128*3)
	for i := range pixels {
		pixels[i] = byte(binary.LittleEndian.Uint32([]byte{byte(i), byte(i >> 3), byte(i * 7), 1}) * 2654435761 >> 24)
	}
	for name, c := range map[string]ColorParams{
		"brightness": {Brightness: 1.2, Contrast: 1, Saturation: 1},
		"contrast":   {Brightness: 1, Contrast: 1.2, Saturation: 1},
		"saturation": {Brightness: 1, Contrast: 1, Saturation: 1.2},
		"hue":        {Brightness: 1, Contrast: 1, Saturation: 1, Hue: 0.1},
	} {
		c.Order = [4]int{0, 1, 2, 3}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				c.apply(pixels, 3)
			}
		})
	}
}
