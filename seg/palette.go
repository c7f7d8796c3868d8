package seg

import (
	"errors"
	"fmt"
	"image/color"
	"slices"
	"strings"

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

// ErrPalette says that no palette has the name that was asked for.
var ErrPalette = errors.New("no such palette")

// PaletteNames are the names that [PaletteByName] knows.
func PaletteNames() []string {
	return []string{"ade20k", "cityscapes", "coco", "coco-panoptic", "coco-stuff", "coco91", "distinct", "voc"}
}

// PaletteByName gives a data set's usual colours, a copy that is the caller's:
//
//   - "ade20k": ADE20K's 150 classes, without a background
//   - "cityscapes": Cityscapes' 19 classes by train id
//   - "coco": COCO's 80 things, numbered from 0 without gaps
//   - "coco91": the same by COCO's own category ids, 0 to 90, as torchvision's detectors give them; ids
//     that COCO does not use, and 0, the background, are black
//   - "coco-panoptic": 80 things, then 53 kinds of stuff
//   - "coco-stuff": 80 things, then 91 kinds of stuff
//   - "voc": [VOCPalette]
//   - "distinct": [DistinctPalette] of 256
//
// [vit.LabelSet] has the names of the classes in the same order. Sources: mmsegmentation's class_names.py
// and panopticapi's panoptic_coco_categories.json. The error is [ErrPalette].
func PaletteByName(name string) (Palette, error) {
	switch name {
	case "ade20k":
		return slices.Clone(ade20k), nil
	case "cityscapes":
		return slices.Clone(cityscapes), nil
	case "coco":
		return slices.Clone(cocoPanoptic[:len(cocoIDs)]), nil
	case "coco91":
		p := make(Palette, 91)
		for i, id := range cocoIDs {
			p[id] = cocoPanoptic[i]
		}
		return p, nil
	case "coco-panoptic":
		return slices.Clone(cocoPanoptic), nil
	case "coco-stuff":
		return slices.Clone(cocoStuff), nil
	case "voc":
		return VOCPalette(), nil
	case "distinct":
		return DistinctPalette(256), nil
	}
	return nil, fmt.Errorf("seg: %w: got %q, want one of %s", ErrPalette, name, strings.Join(PaletteNames(), ", "))
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
