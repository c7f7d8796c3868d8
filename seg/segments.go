package seg

import (
	"fmt"

	"github.com/torchvit/torchvit/coco"
)

// Segment is all pixels of one class in a class map.
type Segment struct {
	// Class is the class's id and Label its name, "class ID" where it has none.
	Class int
	Label string
	// Pixels is how many there are, 1 or more, and Share their part of the map, 0 to 1.
	Pixels int
	Share  float64
	// Mask is where they are. Its Polygons, String and JSON are COCO's.
	Mask coco.RLE
}

// Segments gives the classes that have pixels, by id, each with its mask. labels names them by id, as
// [Labels]. The error is [ErrSize] for a class map that does not hold together.
func (m *ClassMap) Segments(labels []string) ([]Segment, error) {
	masks, err := m.masks()
	if err != nil {
		return nil, err
	}
	var segments []Segment
	counts, shares := m.Counts(), m.Shares()
	for class, n := range counts {
		if n == 0 {
			continue
		}
		s := Segment{Class: class, Label: fmt.Sprintf("class %d", class), Pixels: n, Share: shares[class], Mask: masks[class]}
		if class < len(labels) {
			s.Label = labels[class]
		}
		segments = append(segments, s)
	}
	return segments, nil
}

// Mask is where the class map has that class, as [coco.Encode] of class == map. The error is [ErrSize] for
// a class map that does not hold together.
func (m *ClassMap) Mask(class uint8) (coco.RLE, error) {
	masks, err := m.masks()
	if err != nil {
		return coco.RLE{}, err
	}
	return masks[class], nil
}

// masks encodes all classes in one pass down the columns.
func (m *ClassMap) masks() (*[256]coco.RLE, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	if uint64(len(m.Classes)) >= 1<<32 {
		return nil, fmt.Errorf("seg: %w: class map of %dx%d, want fewer than 1<<32 pixels", ErrSize, m.Width, m.Height)
	}
	var masks [256]coco.RLE
	var done [256]uint32 // up to where the class's counts reach
	start, class := uint32(0), m.Classes[0]
	end := func(at uint32) {
		r := &masks[class]
		r.Counts = append(r.Counts, start-done[class], at-start)
		done[class] = at
	}
	at := uint32(0)
	for x := range m.Width {
		for i := x; i < len(m.Classes); i += m.Width {
			if c := m.Classes[i]; c != class {
				end(at)
				start, class = at, c
			}
			at++
		}
	}
	end(at)
	for i := range masks {
		r := &masks[i]
		r.Height, r.Width = m.Height, m.Width
		if done[i] < at {
			r.Counts = append(r.Counts, at-done[i])
		}
	}
	return &masks, nil
}
