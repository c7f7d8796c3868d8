package seg

import (
	"errors"
	"fmt"
	"image"
	"io"
	"sync"

	"github.com/torchvit/torchvit/internal/annotate"
	"github.com/torchvit/torchvit/internal/whole"
)

// ErrSize says that sizes do not agree: of a class map and its pixels, or of a
// class map and the photo under it.
var ErrSize = errors.New("sizes do not agree")

// ClassMap holds the class of every pixel, row by row from the top left.
type ClassMap struct {
	Width, Height int
	Classes       []uint8 // Width*Height class ids
}

// NewClassMap makes a class map over classes, which are not copied. The error is
// [ErrSize] where there are not width*height of them.
func NewClassMap(width, height int, classes []uint8) (*ClassMap, error) {
	m := &ClassMap{Width: width, Height: height, Classes: classes}
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *ClassMap) check() error {
	if m.Width <= 0 || m.Height <= 0 || len(m.Classes)/m.Width != m.Height || len(m.Classes)%m.Width != 0 {
		return fmt.Errorf("seg: %w: class map of %dx%d with %d pixels", ErrSize, m.Width, m.Height, len(m.Classes))
	}
	return nil
}

// At gives the class at column x and row y, both counted from 0.
func (m *ClassMap) At(x, y int) uint8 { return m.Classes[y*m.Width+x] }

// Counts gives the number of pixels of each class.
func (m *ClassMap) Counts() [256]int {
	var n [256]int
	var mu sync.Mutex
	const line = 4096
	annotate.Rows(line, (len(m.Classes)+line-1)/line, func(y0, y1 int) {
		// Neighbours are mostly equal, and adding to one counter again and again is slow.
		var part [256]int
		classes := m.Classes[y0*line : min(y1*line, len(m.Classes))]
		for i := 0; i < len(classes); {
			start := i
			i = annotate.Run(classes, i)
			part[classes[start]] += i - start
		}
		mu.Lock()
		defer mu.Unlock()
		for c, k := range part {
			n[c] += k
		}
	})
	return n
}

// Shares gives each class's part of the pixels, in [0, 1]; all are 0 for an empty
// map.
func (m *ClassMap) Shares() [256]float64 {
	var s [256]float64
	for c, n := range m.Counts() {
		if n > 0 {
			s[c] = float64(n) / float64(len(m.Classes))
		}
	}
	return s
}

// Image gives the class map as an indexed picture whose index is the class id. The
// pixels are the class map's own, not a copy. The palette always has 256 entries,
// so that every id has a colour and files hold one byte per pixel; see
// [Palette.Color] for those that p does not name.
func (m *ClassMap) Image(p Palette) *image.Paletted {
	return &image.Paletted{
		Pix: m.Classes, Stride: m.Width, Rect: image.Rect(0, 0, m.Width, m.Height), Palette: p.colors(),
	}
}

// EncodePNG writes the class map as an indexed PNG, which Pillow opens in mode P
// with the class ids as its pixels.
func (m *ClassMap) EncodePNG(w io.Writer, p Palette) error {
	if err := m.check(); err != nil {
		return err
	}
	return annotate.EncodePNG(w, m.Image(p))
}

// WritePNG writes the class map to the file path, as EncodePNG does, whole or not
// at all.
func (m *ClassMap) WritePNG(path string, p Palette) error {
	return whole.Write(path, func(w io.Writer) error { return m.EncodePNG(w, p) })
}
