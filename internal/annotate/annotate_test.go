package annotate

import (
	"encoding/json"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestColorMapIsMatplotlibs(t *testing.T) {
	text, err := os.ReadFile("testdata/colormap.json")
	require.NoError(t, err)
	var record struct {
		Cases []struct {
			Values           []float32
			Viridis, Inferno []uint8ish
		}
	}
	require.NoError(t, json.Unmarshal(text, &record))
	require.NotEmpty(t, record.Cases)
	for i, c := range record.Cases {
		low, high := c.Values[0], c.Values[0]
		for _, v := range c.Values {
			low, high = min(low, v), max(high, v)
		}
		for name, want := range map[string][]uint8ish{"viridis": c.Viridis, "inferno": c.Inferno} {
			m, err := LookupColorMap(name)
			require.NoError(t, err)
			var got []uint8ish
			for _, v := range c.Values {
				p := m.At(v, low, high)
				got = append(got, uint8ish(p.R), uint8ish(p.G), uint8ish(p.B))
			}
			assert.Equal(t, want, got, "case %d, %s", i, name)
		}
	}
}

// uint8ish keeps encoding/json from reading a list of numbers as base64.
type uint8ish int

func TestColorMapEnds(t *testing.T) {
	m, err := LookupColorMap("")
	require.NoError(t, err)
	assert.Equal(t, color.RGBA{68, 1, 84, 255}, m.At(-7, 0, 1))
	assert.Equal(t, color.RGBA{253, 231, 36, 255}, m.At(7, 0, 1))
	assert.Equal(t, color.RGBA{68, 1, 84, 255}, m.At(float32(math.NaN()), 0, 1))
	assert.Equal(t, color.RGBA{68, 1, 84, 255}, m.At(3, 3, 3))

	_, err = LookupColorMap("jet")
	require.ErrorIs(t, err, ErrColorMap)
	assert.ErrorContains(t, err, `got "jet", want one of inferno, viridis`)
}

func TestOpaqueDropsAlphaAndMovesTheOrigin(t *testing.T) {
	in := image.NewNRGBA(image.Rect(5, 7, 8, 9))
	in.SetNRGBA(5, 7, color.NRGBA{200, 100, 50, 0})
	in.SetNRGBA(6, 7, color.NRGBA{200, 100, 50, 128})
	in.SetNRGBA(7, 8, color.NRGBA{1, 2, 3, 255})
	out := Opaque(in)
	assert.Equal(t, image.Rect(0, 0, 3, 2), out.Rect)
	assert.Equal(t, color.RGBA{200, 100, 50, 255}, out.RGBAAt(1, 0))
	assert.Equal(t, color.RGBA{1, 2, 3, 255}, out.RGBAAt(2, 1))
	assert.True(t, out.Opaque())

	gray := image.NewGray(image.Rect(-2, -2, 2, 2))
	gray.SetGray(-2, -2, color.Gray{77})
	out = Opaque(gray)
	assert.Equal(t, color.RGBA{77, 77, 77, 255}, out.RGBAAt(0, 0))
	out.Pix[0] = 1
	assert.Equal(t, color.Gray{77}, gray.GrayAt(-2, -2), "the picture given is not changed")
}

func TestMixTruncates(t *testing.T) {
	assert.Equal(t, uint8(127), Mix(0, 255, 0.5))
	assert.Equal(t, uint8(127), Mix(255, 0, 0.5))
	assert.Equal(t, uint8(9), Mix(9, 200, 0))
	assert.Equal(t, uint8(200), Mix(9, 200, 1))
}

func TestFillAndFrameStayInside(t *testing.T) {
	red := color.RGBA{R: 255, A: 255}
	dst := image.NewRGBA(image.Rect(0, 0, 20, 10))
	Fill(dst, image.Rect(-5, -5, 3, 2), red, 1)
	assert.Equal(t, red, dst.RGBAAt(2, 1))
	assert.Equal(t, color.RGBA{}, dst.RGBAAt(3, 1))
	assert.Equal(t, color.RGBA{}, dst.RGBAAt(2, 2))

	dst = image.NewRGBA(image.Rect(0, 0, 20, 10))
	r := image.Rect(4, 2, 14, 9)
	Frame(dst, r, 2, red, 1)
	for y := range 10 {
		for x := range 20 {
			p := image.Pt(x, y)
			line := p.In(r) && !p.In(r.Inset(2))
			assert.Equal(t, line, dst.RGBAAt(x, y) == red, "%v", p)
		}
	}

	// Half outside, larger than the picture, or too small for a hole.
	for _, r := range []image.Rectangle{
		image.Rect(-100, -100, 100, 100),
		image.Rect(15, 5, 400, 500),
		image.Rect(3, 3, 4, 9),
		image.Rect(30, 30, 40, 40),
		{},
	} {
		assert.NotPanics(t, func() { Frame(dst, r, 3, red, 0.5) })
	}
}

func TestBlendOutsideIsLeftOut(t *testing.T) {
	dst, src := image.NewRGBA(image.Rect(0, 0, 4, 4)), image.NewRGBA(image.Rect(0, 0, 3, 3))
	Fill(dst, dst.Rect, color.RGBA{A: 255}, 1)
	Fill(src, src.Rect, color.RGBA{R: 200, A: 255}, 1)
	src.SetRGBA(0, 0, color.RGBA{R: 100, A: 255})
	Blend(dst, image.Pt(2, 2), src, 0.5)
	assert.Equal(t, color.RGBA{R: 50, A: 255}, dst.RGBAAt(2, 2))
	assert.Equal(t, color.RGBA{R: 100, A: 255}, dst.RGBAAt(3, 3))
	assert.Equal(t, color.RGBA{A: 255}, dst.RGBAAt(1, 2))
	Blend(dst, image.Pt(-2, -2), src, 1)
	assert.Equal(t, color.RGBA{R: 200, A: 255}, dst.RGBAAt(0, 0))
	assert.Equal(t, color.RGBA{A: 255}, dst.RGBAAt(1, 1))
}

func TestContrastCanBeRead(t *testing.T) {
	luminance := func(c color.RGBA) float64 {
		return 0.2126*linear(c.R) + 0.7152*linear(c.G) + 0.0722*linear(c.B)
	}
	for r := 0; r < 256; r += 15 {
		for g := 0; g < 256; g += 15 {
			for b := 0; b < 256; b += 15 {
				c := color.RGBA{uint8(r), uint8(g), uint8(b), 255}
				l, k := luminance(c), luminance(Contrast(c))
				ratio := (max(l, k) + 0.05) / (min(l, k) + 0.05)
				require.GreaterOrEqual(t, ratio, 3.5, "%v", c)
			}
		}
	}
}

func TestDistinctColorsDiffer(t *testing.T) {
	seen := map[color.RGBA]bool{}
	for i := range 256 {
		c := Distinct(i)
		assert.False(t, seen[c], "colour %d stands there twice", i)
		seen[c] = true
	}
	assert.Equal(t, Distinct(3), Distinct(259))
	assert.Equal(t, Distinct(255), Distinct(-1))
	nearest := func(n int) float64 {
		d := math.Inf(1)
		for i := range n {
			for j := range i {
				a, b := oklab(Distinct(i)), oklab(Distinct(j))
				d = min(d, math.Sqrt((a[0]-b[0])*(a[0]-b[0])+(a[1]-b[1])*(a[1]-b[1])+(a[2]-b[2])*(a[2]-b[2])))
			}
		}
		return d
	}
	// For comparison, 0.02 in OKLab can just be told apart side by side.
	assert.Greater(t, nearest(10), 0.14)
	assert.Greater(t, nearest(20), 0.11)
	assert.Greater(t, nearest(150), 0.03)
}

func TestTextStaysInItsBox(t *testing.T) {
	for _, size := range []float64{11, 15, 31} {
		text, err := NewText(size, size > 12, nil)
		require.NoError(t, err)
		for _, s := range []string{"coffee cup 0.97", "Ångström gjpqy (Ω)", "W"} {
			dst := image.NewRGBA(image.Rect(0, 0, 600, 100))
			box := image.Rectangle{Min: image.Pt(20, 20), Max: image.Pt(20+text.Width(s), 20+text.Height())}
			text.Draw(dst, box.Min, s, color.RGBA{A: 255})
			drawn := 0
			for y := range 100 {
				for x := range 600 {
					if dst.RGBAAt(x, y).A == 0 {
						continue
					}
					drawn++
					// Glyphs may lean out of their advance by a pixel.
					require.True(t, image.Pt(x, y).In(box.Inset(-1)), "%q at %v: %d, %d", s, size, x, y)
				}
			}
			assert.Greater(t, drawn, int(size), "%q", s)
		}
	}
}

func TestFitShortens(t *testing.T) {
	text, err := NewText(12, false, nil)
	require.NoError(t, err)
	long := "a rather long label of a class"
	assert.Equal(t, long, text.Fit(long, 1000))
	for width := range 200 {
		s := text.Fit(long, width)
		assert.LessOrEqual(t, text.Width(s), width)
		if s != "" && s != long {
			assert.True(t, strings.HasSuffix(s, "…") && strings.HasPrefix(long, strings.TrimSuffix(s, "…")), s)
		}
	}
	assert.Equal(t, "two lines \uFFFDx", text.Fit("two\n\tlines\x00 \xffx", 1000))
	assert.Empty(t, text.Fit("", 10))
}

func TestBadFont(t *testing.T) {
	_, err := NewText(12, false, []byte("not a font"))
	require.ErrorIs(t, err, ErrFont)
	_, err = NewText(12, false, []byte{})
	require.ErrorIs(t, err, ErrFont)
}

func TestInside(t *testing.T) {
	bounds := image.Rect(0, 0, 100, 50)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		p := image.Pt(rng.IntN(400)-200, rng.IntN(400)-200)
		r := image.Rectangle{Min: p, Max: p.Add(image.Pt(1+rng.IntN(150), 1+rng.IntN(80)))}
		in := Inside(r, bounds)
		require.True(t, in.In(bounds), "%v", r)
		require.Equal(t, min(r.Dx(), 100), in.Dx())
		require.Equal(t, min(r.Dy(), 50), in.Dy())
		if r.In(bounds) {
			require.Equal(t, r, in)
		}
	}
}

func TestPlacer(t *testing.T) {
	p := Placer{Bounds: image.Rect(0, 0, 100, 50)}
	size := image.Pt(40, 10)
	place, covered := p.Place(size, image.Pt(10, 10), image.Pt(50, 10))
	assert.Equal(t, image.Rect(10, 10, 50, 20), place)
	assert.Zero(t, covered)
	p.Take(place)
	place, covered = p.Place(size, image.Pt(10, 10), image.Pt(50, 10))
	assert.Equal(t, image.Rect(50, 10, 90, 20), place, "the second corner is free")
	assert.Zero(t, covered)
	place, covered = p.Place(size, image.Pt(10, 10), image.Pt(30, 10))
	assert.Equal(t, image.Rect(30, 10, 70, 20), place, "the least covered")
	assert.InDelta(t, 0.5, covered, 1e-9)
	place, _ = p.Place(size, image.Pt(90, 48))
	assert.Equal(t, image.Rect(60, 40, 100, 50), place, "moved into the bounds")
}

func TestLegendKeepsThePicture(t *testing.T) {
	for _, size := range []image.Point{{200, 150}, {150, 200}, {640, 480}, {2000, 1500}, {30, 20}, {3, 3}} {
		img := image.NewRGBA(image.Rectangle{Max: size})
		blue := color.RGBA{10, 20, 200, 255}
		Fill(img, img.Rect, blue, 1)
		for _, n := range []int{1, 5, 60} {
			var entries []Entry
			for i := range n {
				entries = append(entries, Entry{Distinct(i), "class " + strings.Repeat("x", i%20), "1.0 %"})
			}
			out, err := WithLegend(img, entries, nil)
			require.NoError(t, err)
			require.True(t, out.Opaque())
			assert.Greater(t, out.Rect.Dx()*out.Rect.Dy(), size.X*size.Y)
			counts := map[color.RGBA]int{}
			for y := range out.Rect.Dy() {
				for x := range out.Rect.Dx() {
					if c := out.RGBAAt(x, y); !image.Pt(x, y).In(img.Rect) {
						counts[c]++
					} else if c != blue {
						t.Fatalf("%v: the picture is covered at %d, %d", size, x, y)
					}
				}
			}
			for _, e := range entries {
				s := int(ScaleFor(size.X, size.Y).Text)
				assert.GreaterOrEqual(t, counts[e.Color], (s-2)*(s-2), "%v: swatch of %v", size, e.Color)
			}
		}
	}
	img := image.NewRGBA(image.Rect(0, 0, 5, 5))
	out, err := WithLegend(img, nil, nil)
	require.NoError(t, err)
	assert.Same(t, img, out)
}

func TestSheetHoldsEveryTile(t *testing.T) {
	for n := range 14 {
		var tiles []Tile
		for i := range n {
			img := image.NewRGBA(image.Rect(0, 0, 60, 40))
			Fill(img, img.Rect, Distinct(i), 1)
			tiles = append(tiles, Tile{img, "head 3", "0.1 – 0.2"})
		}
		page, err := Sheet("title", tiles, nil)
		require.NoError(t, err)
		counts := map[color.RGBA]int{}
		for i := 0; i < len(page.Pix); i += 4 {
			counts[color.RGBA{page.Pix[i], page.Pix[i+1], page.Pix[i+2], page.Pix[i+3]}]++
		}
		for i := range n {
			assert.Equal(t, 60*40, counts[Distinct(i)], "tile %d of %d", i, n)
		}
	}
}

func TestWriteImage(t *testing.T) {
	dir := t.TempDir()
	img := image.NewRGBA(image.Rect(0, 0, 8, 8))
	Fill(img, img.Rect, color.RGBA{R: 250, G: 10, B: 10, A: 255}, 1)

	require.NoError(t, WriteImage(filepath.Join(dir, "a.png"), img))
	f, err := os.Open(filepath.Join(dir, "a.png"))
	require.NoError(t, err)
	defer f.Close()
	got, err := png.Decode(f)
	require.NoError(t, err)
	assert.Equal(t, img.Pix, Opaque(got).Pix)

	require.NoError(t, WriteImage(filepath.Join(dir, "a.JPG"), img))
	g, err := os.Open(filepath.Join(dir, "a.JPG"))
	require.NoError(t, err)
	defer g.Close()
	got, err = jpeg.Decode(g)
	require.NoError(t, err)
	assert.InDelta(t, 250, Opaque(got).Pix[0], 6)

	require.ErrorIs(t, WriteImage(filepath.Join(dir, "a.gif"), img), ErrImageFormat)
	require.Error(t, WriteImage(filepath.Join(dir, "b.png"), image.NewRGBA(image.Rectangle{})))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, left, 2)
}

func TestPNGIsTheSamePicture(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	palette := make(color.Palette, 256)
	for i := range palette {
		palette[i] = color.NRGBA{uint8(i), uint8(3 * i), uint8(255 - i), uint8(255 - i/200*100)}
	}
	for _, size := range []image.Point{{1, 1}, {2, 300}, {700, 1}, {13, 11}, {640, 427}, {1500, 900}} {
		r := image.Rectangle{Max: size}
		photo := image.NewRGBA(r)
		classes := image.NewPaletted(r, palette)
		gray := image.NewGray(r)
		for y := range size.Y {
			for x := range size.X {
				// Slopes, flat parts and noise, so that each filter is used.
				v := uint8(x/3 + y)
				if y%97 < 30 {
					v = uint8(rng.IntN(256))
				} else if y%97 < 50 {
					v = uint8(x)
				}
				photo.SetRGBA(x, y, color.RGBA{v, v + uint8(x), uint8(y), 255})
				classes.SetColorIndex(x, y, uint8(x/40*7+y/30))
				gray.SetGray(x, y, color.Gray{v})
			}
		}
		inner := r.Inset(min(size.X, size.Y) / 5)
		for name, img := range map[string]image.Image{
			"photo": photo, "part": photo.SubImage(inner), "classes": classes, "part of classes": classes.SubImage(inner), "gray": gray,
			"few colours": &image.Paletted{Pix: make([]uint8, size.X*size.Y), Stride: size.X, Rect: r, Palette: palette[:7]},
		} {
			var buf strings.Builder
			require.NoError(t, EncodePNG(&buf, img), name)
			got, err := png.Decode(strings.NewReader(buf.String()))
			require.NoError(t, err, "%s of %v", name, size)
			require.Equal(t, img.Bounds().Size(), got.Bounds().Size(), name)
			if p, ok := img.(*image.Paletted); ok {
				require.IsType(t, p, got, name)
				require.Len(t, got.(*image.Paletted).Palette, len(p.Palette))
			}
			b := img.Bounds()
			for y := range b.Dy() {
				for x := range b.Dx() {
					r0, g0, b0, a0 := img.At(b.Min.X+x, b.Min.Y+y).RGBA()
					r1, g1, b1, a1 := got.At(x, y).RGBA()
					if r0 != r1 || g0 != g1 || b0 != b1 || a0 != a1 {
						t.Fatalf("%s of %v differs at %d, %d", name, size, x, y)
					}
				}
			}
		}
	}
	var buf strings.Builder
	see := image.NewNRGBA(image.Rect(0, 0, 9, 9))
	require.NoError(t, EncodePNG(&buf, see))
	got, err := png.Decode(strings.NewReader(buf.String()))
	require.NoError(t, err)
	require.Equal(t, see.Pix, got.(*image.NRGBA).Pix, "with alpha")
	require.Error(t, EncodePNG(&buf, image.NewRGBA(image.Rectangle{})))
}

func TestPNGIsWrittenWholeOrFails(t *testing.T) {
	img := image.NewRGBA(image.Rect(0, 0, 900, 700))
	Fill(img, img.Rect, color.RGBA{9, 8, 7, 255}, 1)
	var whole strings.Builder
	require.NoError(t, EncodePNG(&whole, img))
	full := errors.New("disk full")
	for _, room := range []int{0, 8, 20, 40, whole.Len() - 5} {
		require.ErrorIs(t, EncodePNG(&limited{room: room, err: full}, img), full, "%d", room)
	}
}

// limited takes a number of bytes and then fails.
type limited struct {
	room int
	err  error
}

func (l *limited) Write(p []byte) (int, error) {
	if l.room -= len(p); l.room < 0 {
		return 0, l.err
	}
	return len(p), nil
}

func TestTintsAreMix(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, alpha := range []float32{0.1, 0.35, 0.5, 0.55, 0.999} {
		c := color.RGBA{uint8(rng.IntN(256)), uint8(rng.IntN(256)), uint8(rng.IntN(256)), 255}
		src, dst := image.NewRGBA(image.Rect(0, 0, 300, 200)), image.NewRGBA(image.Rect(0, 0, 300, 200))
		Fill(src, src.Rect, c, 1)
		for i := range dst.Pix {
			dst.Pix[i] = uint8(rng.IntN(256))
		}
		want := append([]uint8{}, dst.Pix...)
		for i := range want {
			if i%4 < 3 {
				want[i] = Mix(want[i], [3]uint8{c.R, c.G, c.B}[i%4], alpha)
			}
		}
		blended := &image.RGBA{Pix: append([]uint8{}, dst.Pix...), Stride: dst.Stride, Rect: dst.Rect}
		Blend(blended, image.Point{}, src, alpha)
		require.Equal(t, want, blended.Pix, "Blend at %v", alpha)
		Fill(dst, dst.Rect, c, alpha)
		for i := 3; i < len(want); i += 4 {
			want[i] = 255
		}
		require.Equal(t, want, dst.Pix, "Fill at %v", alpha)
	}
}

func TestRowsCoverEveryRowOnce(t *testing.T) {
	for _, h := range []int{0, 1, 2, 3, 1080, 1081} {
		count := make([]int32, h)
		Rows(5000, h, func(y0, y1 int) {
			for y := y0; y < y1; y++ {
				count[y]++
			}
		})
		for y, n := range count {
			require.Equal(t, int32(1), n, "row %d of %d", y, h)
		}
	}
}

func TestCellsOutlineTheSetOnes(t *testing.T) {
	dst := image.NewRGBA(image.Rect(0, 0, 100, 100))
	white := color.RGBA{255, 255, 255, 255}
	set := []bool{
		false, false, false, false,
		false, true, true, false,
		false, true, false, false,
		false, false, false, false,
	}
	region := image.Rect(10, 10, 90, 90)
	Cells(dst, region, set, 4, 4, 2, white)
	for _, p := range []image.Point{{30, 40}, {50, 30}, {70, 40}, {60, 50}, {50, 60}, {40, 70}, {30, 60}} {
		assert.Equal(t, white, dst.RGBAAt(p.X, p.Y), "%v", p)
	}
	for _, p := range []image.Point{{50, 50 - 5}, {40, 50}, {20, 20}, {10, 40}, {80, 80}, {40, 40}} {
		assert.NotEqual(t, white, dst.RGBAAt(p.X, p.Y), "%v", p)
	}
}

func TestRegionsRimIsAsThickAsAsked(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	fill, rim := NewTint(color.RGBA{0, 200, 0, 255}, 1), NewTint(color.RGBA{200, 0, 0, 255}, 1)
	for _, size := range []image.Point{{1, 1}, {7, 300}, {90, 60}, {400, 300}} {
		for _, thickness := range []int{1, 2, 5} {
			w, h := size.X, size.Y
			mask := make([]uint8, w*h)
			for range 6 {
				x0, y0 := rng.IntN(w), rng.IntN(h)
				x1, y1 := min(w, x0+1+rng.IntN(w)), min(h, y0+1+rng.IntN(h))
				for y := y0; y < y1; y++ {
					for x := x0; x < x1; x++ {
						mask[y*w+x] = 1
					}
				}
			}
			for range w * h / 200 {
				mask[rng.IntN(w*h)] = 0
			}
			dst := image.NewRGBA(image.Rectangle{Max: size})
			Region(dst, mask, dst.Rect, fill, rim, thickness)
			unset := func(x, y int) bool { return x >= 0 && y >= 0 && x < w && y < h && mask[y*w+x] == 0 }
			for y := range h {
				for x := range w {
					want := color.RGBA{}
					if mask[y*w+x] == 1 {
						want = color.RGBA{0, 200, 0, 255}
						for d := 1; d <= thickness; d++ {
							if unset(x-d, y) || unset(x+d, y) || unset(x, y-d) || unset(x, y+d) {
								want = color.RGBA{200, 0, 0, 255}
							}
						}
					}
					require.Equal(t, want, dst.RGBAAt(x, y), "%v, %d thick, at %d, %d", size, thickness, x, y)
				}
			}
		}
	}
}

func TestRunEndsWhereTheByteChanges(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	for range 2000 {
		b := make([]byte, 1+rng.IntN(60))
		for i := range b {
			if b[i] = byte(rng.IntN(3)); i > 0 && rng.IntN(10) > 0 {
				b[i] = b[i-1]
			}
		}
		x := rng.IntN(len(b))
		want := x + 1
		for want < len(b) && b[want] == b[x] {
			want++
		}
		require.Equal(t, want, Run(b, x), "%v from %d", b, x)
	}
}
