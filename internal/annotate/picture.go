package annotate

import (
	"encoding/binary"
	"image"
	"image/color"
	"image/draw"
	"math"
)

// Scale holds the sizes, in pixels, at which things are drawn on a picture.
type Scale struct {
	Text      float64 // em size of the text
	Thickness int     // width of a frame's lines
	Pad       int     // room between text and the edge of its plate
}

// ScaleFor gives the sizes for a picture of w by h pixels: text of 9 pixels at 100x80, 11 at
// 200x150, 15 at 512x512, 31 at 2000x1500, 98 at 8000x6000. A long and narrow picture
// is looked at as if it were only four times as long as it is wide.
func ScaleFor(w, h int) Scale {
	w, h = max(w, 1), max(h, 1)
	w, h = min(w, 4*h), min(h, 4*w)
	side := math.Sqrt(float64(w) * float64(h))
	least := 11.0
	if side < 130 {
		least = 9 // still read, where 11 would leave nothing of the picture
	}
	return Scale{
		Text:      max(least, math.Round(8+side*0.013)),
		Thickness: max(1, int(math.Round(0.7+side*0.0025))),
		Pad:       max(2, int(math.Round(side*0.003))),
	}
}

// Opaque copies img into a new RGBA picture whose origin is (0, 0). Alpha is
// dropped without blending, as Pillow's convert("RGB") does, so that the picture
// is the one the model saw.
func Opaque(img image.Image) *image.RGBA {
	return Paint(img, false, func(*image.RGBA, int, int) {})
}

// Paint is Opaque and then work on the rows y0 to y1 of the copy, a few at a time, while they are at hand, and
// on all processors. It must leave other rows alone. With inPlace there is no copy where img is an RGBA
// picture without alpha whose origin is (0, 0): it works on img itself.
func Paint(img image.Image, inPlace bool, work func(out *image.RGBA, y0, y1 int)) *image.RGBA {
	b := img.Bounds()
	if m, ok := img.(*image.RGBA); ok && inPlace && b.Min == (image.Point{}) && opaque(m) {
		Rows(b.Dx(), b.Dy(), func(y0, y1 int) { work(m, y0, y1) })
		return m
	}
	out := image.NewRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	// About 64 KiB.
	some := max(1, 1<<14/max(1, b.Dx()))
	Rows(b.Dx(), b.Dy(), func(y0, y1 int) {
		for y := y0; y < y1; y += some {
			end := min(y+some, y1)
			opaqueRows(out, img, b, y, end)
			work(out, y, end)
		}
	})
	return out
}

func opaqueRows(out *image.RGBA, img image.Image, b image.Rectangle, y0, y1 int) {
	n := 4 * b.Dx()
	switch m := img.(type) {
	case *image.RGBA:
		whole := true
		for y := y0; y < y1 && whole; y++ {
			row := out.Pix[y*out.Stride : y*out.Stride+n]
			copy(row, m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):][:n])
			whole = opaqueRow(row)
		}
		if whole {
			return
		}
		// Its colours were multiplied with alpha.
	case *image.NRGBA:
		for y := y0; y < y1; y++ {
			row := out.Pix[y*out.Stride : y*out.Stride+n]
			copy(row, m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):][:n])
			for i := 3; i < n; i += 4 {
				row[i] = 255
			}
		}
		return
	default:
		if o, ok := img.(interface{ Opaque() bool }); ok && o.Opaque() {
			draw.Draw(out, image.Rect(0, y0, b.Dx(), y1), img, image.Pt(b.Min.X, b.Min.Y+y0), draw.Src)
			return
		}
	}
	for y := y0; y < y1; y++ {
		row := out.Pix[y*out.Stride:]
		for x := range b.Dx() {
			c := color.NRGBAModel.Convert(img.At(b.Min.X+x, b.Min.Y+y)).(color.NRGBA)
			row[4*x], row[4*x+1], row[4*x+2], row[4*x+3] = c.R, c.G, c.B, 255
		}
	}
}

// opaqueRow reports whether all pixels of a row have an alpha of 255.
func opaqueRow(row []uint8) bool {
	all := ^uint64(0)
	for len(row) >= 16 {
		all &= binary.LittleEndian.Uint64(row) & binary.LittleEndian.Uint64(row[8:])
		row = row[16:]
	}
	for ; len(row) >= 4; row = row[4:] {
		all &= uint64(row[3])<<24 | uint64(row[3])<<56 | 0x00ffffff00ffffff
	}
	return all>>24&255 == 255 && all>>56 == 255
}

// Mix is one byte of Pillow's Image.blend: a + alpha*(b-a) in float32, truncated.
// Alpha must be in [0, 1].
func Mix(a, b uint8, alpha float32) uint8 {
	// The conversion keeps the product from being fused with the sum.
	return uint8(float32(a) + float32(alpha*float32(int(b)-int(a))))
}

// Blend mixes src into dst at the place at, where alpha is the share of src in
// [0, 1]: Pillow's Image.blend. What lies outside dst is left out.
func Blend(dst *image.RGBA, at image.Point, src *image.RGBA, alpha float32) {
	r := image.Rectangle{Min: at, Max: at.Add(src.Rect.Size())}.Intersect(dst.Rect)
	if r.Empty() {
		return
	}
	// alpha*(b-a) for every difference of two bytes.
	var part [511]float32
	for d := range part {
		part[d] = float32(alpha * float32(d-255))
	}
	mix := func(a, b uint8) uint8 { return uint8(float32(a) + part[int(b)-int(a)+255]) }
	Rows(r.Dx(), r.Dy(), func(y0, y1 int) {
		for y := r.Min.Y + y0; y < r.Min.Y+y1; y++ {
			d := dst.Pix[dst.PixOffset(r.Min.X, y):][:4*r.Dx()]
			s := src.Pix[src.PixOffset(src.Rect.Min.X+r.Min.X-at.X, src.Rect.Min.Y+y-at.Y):][:len(d)]
			for i := 0; i+3 < len(d); i += 4 {
				d[i], d[i+1], d[i+2] = mix(d[i], s[i]), mix(d[i+1], s[i+1]), mix(d[i+2], s[i+2])
			}
		}
	})
}

// Fill paints the part of r that lies inside dst. Alpha is the colour's share in
// [0, 1], 1 being solid; the pixels are opaque afterwards.
func Fill(dst *image.RGBA, r image.Rectangle, c color.RGBA, alpha float32) {
	r = r.Intersect(dst.Rect)
	if r.Empty() {
		return
	}
	if alpha == 1 {
		first := dst.Pix[dst.PixOffset(r.Min.X, r.Min.Y):][:4*r.Dx()]
		copy(first, []uint8{c.R, c.G, c.B, 255})
		for n := 4; n < len(first); n *= 2 {
			copy(first[n:], first[:n])
		}
		for y := r.Min.Y + 1; y < r.Max.Y; y++ {
			copy(dst.Pix[dst.PixOffset(r.Min.X, y):], first)
		}
		return
	}
	if r.Dx()*r.Dy() >= fewPixels/16 {
		tint := NewTint(c, alpha)
		Rows(r.Dx(), r.Dy(), func(y0, y1 int) {
			for y := r.Min.Y + y0; y < r.Min.Y+y1; y++ {
				d := dst.Pix[dst.PixOffset(r.Min.X, y):][:4*r.Dx()]
				tint.Apply(d)
			}
		})
		return
	}
	for y := r.Min.Y; y < r.Max.Y; y++ {
		d := dst.Pix[dst.PixOffset(r.Min.X, y):][:4*r.Dx()]
		for i := 0; i < len(d); i += 4 {
			d[i] = Mix(d[i], c.R, alpha)
			d[i+1] = Mix(d[i+1], c.G, alpha)
			d[i+2] = Mix(d[i+2], c.B, alpha)
			d[i+3] = 255
		}
	}
}

// Frame draws the outline of r with lines of the given thickness, inwards from
// r's edge. A rectangle too small for a hole is filled.
func Frame(dst *image.RGBA, r image.Rectangle, thickness int, c color.RGBA, alpha float32) {
	t := thickness
	if 2*t >= r.Dx() || 2*t >= r.Dy() {
		Fill(dst, r, c, alpha)
		return
	}
	Fill(dst, image.Rect(r.Min.X, r.Min.Y, r.Max.X, r.Min.Y+t), c, alpha)
	Fill(dst, image.Rect(r.Min.X, r.Max.Y-t, r.Max.X, r.Max.Y), c, alpha)
	Fill(dst, image.Rect(r.Min.X, r.Min.Y+t, r.Min.X+t, r.Max.Y-t), c, alpha)
	Fill(dst, image.Rect(r.Max.X-t, r.Min.Y+t, r.Max.X, r.Max.Y-t), c, alpha)
}

// Contrast gives black or white, for text on c: white up to a luminance of 0.25,
// somewhat beyond the point where WCAG's contrast ratios are equal, because bold
// white is easier to read on strong colours. The ratio is at least 3.5.
func Contrast(c color.RGBA) color.RGBA {
	if 0.2126*linear(c.R)+0.7152*linear(c.G)+0.0722*linear(c.B) > 0.25 {
		return color.RGBA{A: 255}
	}
	return color.RGBA{R: 255, G: 255, B: 255, A: 255}
}

// linear is the sRGB transfer function, from a byte to light in [0, 1].
func linear(v uint8) float64 {
	s := float64(v) / 255
	if s <= 0.04045 {
		return s / 12.92
	}
	return math.Pow((s+0.055)/1.055, 2.4)
}
