package seg

import (
	"image/color"

	"github.com/torchvit/torchvit/internal/annotate"
)

// Palette holds a colour, red, green and blue, for each class id. It is the form
// in which a model file holds it.
type Palette [][3]uint8

// VOCPalette gives Pascal VOC's 256 colours, which many data sets use: the bits of
// the class id, dealt in turn to red, green and blue from the highest bit down.
// Class 0, the background, is black.
func VOCPalette() Palette {
	p := make(Palette, 256)
	for id := range p {
		p[id] = voc(uint8(id))
	}
	return p
}

func voc(id uint8) (rgb [3]uint8) {
	for bit := 7; id != 0; bit, id = bit-1, id>>3 {
		for c := range rgb {
			rgb[c] |= id >> c & 1 << bit
		}
	}
	return rgb
}

// DistinctPalette gives n colours, at most 256, that are easy to tell apart on a
// photo. None is black: class 0 is a class like the others. A shorter palette is
// the beginning of a longer one.
func DistinctPalette(n int) Palette {
	p := make(Palette, min(max(n, 0), 256))
	for i := range p {
		c := annotate.Distinct(i)
		p[i] = [3]uint8{c.R, c.G, c.B}
	}
	return p
}

// Color gives the colour of a class. A class beyond the palette's end has Pascal
// VOC's colour.
func (p Palette) Color(id uint8) color.RGBA {
	c := voc(id)
	if int(id) < len(p) {
		c = p[id]
	}
	return color.RGBA{R: c[0], G: c[1], B: c[2], A: 255}
}

func (p Palette) colors() color.Palette {
	out := make(color.Palette, 256)
	for id := range out {
		out[id] = p.Color(uint8(id))
	}
	return out
}
