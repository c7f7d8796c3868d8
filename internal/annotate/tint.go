package annotate

import (
	"encoding/binary"
	"image"
	"image/color"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
)

// Tint is one colour mixed into every byte, as a table for each channel: what [Mix] gives, in its place
// within a pixel of four bytes, the last of which is 255.
type Tint [3][256]uint32

// NewTint makes the table for a colour's share alpha, in [0, 1].
func NewTint(c color.RGBA, alpha float32) *Tint {
	t := &Tint{}
	for i, v := range [3]uint8{c.R, c.G, c.B} {
		for b := range 256 {
			t[i][b] = uint32(Mix(uint8(b), v, alpha)) << (8 * i)
		}
	}
	for b := range 256 {
		t[0][b] |= 255 << 24
	}
	return t
}

// Apply mixes the colour into a run of RGBA pixels, which are opaque afterwards.
func (t *Tint) Apply(pix []uint8) {
	r, g, b := &t[0], &t[1], &t[2]
	for len(pix) >= 8 {
		p := binary.LittleEndian.Uint64(pix)
		first := r[uint8(p)] | g[uint8(p>>8)] | b[uint8(p>>16)]
		second := r[uint8(p>>32)] | g[uint8(p>>40)] | b[uint8(p>>48)]
		binary.LittleEndian.PutUint64(pix, uint64(first)|uint64(second)<<32)
		pix = pix[8:]
	}
	if len(pix) >= 4 {
		p := binary.LittleEndian.Uint32(pix)
		binary.LittleEndian.PutUint32(pix, r[uint8(p)]|g[uint8(p>>8)]|b[uint8(p>>16)])
	}
}

// fewPixels is below what goroutines and tables cost more than they save.
const fewPixels = 1 << 14

// Rows splits h rows of w pixels among the processors: work does rows y0 to y1.
func Rows(w, h int, work func(y0, y1 int)) {
	n := min(runtime.GOMAXPROCS(0), h, w*h/fewPixels)
	if n <= 1 {
		work(0, h)
		return
	}
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { work(i*h/n, (i+1)*h/n) })
	}
	all.Wait()
}

// Tints makes the tint of each class at its first use, and nil for those that are left alone. It may be used
// by many goroutines.
type Tints struct {
	Alpha float32
	Color func(class uint8) (c color.RGBA, paint bool)

	made [256]atomic.Pointer[Tint]
}

func (t *Tints) at(class uint8) *Tint {
	if tint := t.made[class].Load(); tint != nil {
		return tint
	}
	c, paint := t.Color(class)
	if !paint {
		return nil
	}
	tint := NewTint(c, t.Alpha)
	t.made[class].Store(tint)
	return tint
}

// Runs mixes tints into the rows y0 to y1 of dst by class: of is row by row the class of each pixel, of as
// many as dst is wide.
func Runs(dst *image.RGBA, of []uint8, tints *Tints, y0, y1 int) {
	w := dst.Rect.Dx()
	for y := y0; y < y1; y++ {
		tints.Row(dst.Pix[y*dst.Stride:y*dst.Stride+4*w], of[y*w:(y+1)*w])
	}
}

// Row mixes tints into a row of RGBA pixels by the class of each.
func (t *Tints) Row(pix, classes []uint8) {
	for x := 0; x < len(classes); {
		start := x
		x = Run(classes, x)
		if tint := t.at(classes[start]); tint != nil {
			tint.Apply(pix[4*start : 4*x])
		}
	}
}

// Run is where the run of equal bytes that begins at x ends.
func Run(b []uint8, x int) int {
	v := b[x]
	all := uint64(v) * 0x0101010101010101
	for x++; x < len(b) && b[x] == v; {
		if x+8 <= len(b) {
			if d := binary.LittleEndian.Uint64(b[x:]) ^ all; d != 0 {
				return x + bits.TrailingZeros64(d)/8
			}
			x += 8
			continue
		}
		x++
	}
	return x
}

// Cells draws the borders between the cells of a grid that are set and those that are not, over a region
// of dst, as lines of that thickness around the set ones; the region's own edge has none. Dark lines beside
// them keep them visible on a ground of the same colour.
func Cells(dst *image.RGBA, region image.Rectangle, set []bool, rows, cols, thickness int, c color.RGBA) {
	at := func(r, q int) bool { return set[r*cols+q] }
	x := func(q int) int { return region.Min.X + ceilDiv(q*region.Dx(), cols) }
	y := func(r int) int { return region.Min.Y + ceilDiv(r*region.Dy(), rows) }
	half, rest := thickness/2, thickness-thickness/2
	line := func(grow int, c color.RGBA, alpha float32) {
		for r := range rows {
			for q := range cols {
				if r > 0 && at(r, q) != at(r-1, q) {
					Fill(dst, image.Rect(x(q)-half-grow, y(r)-half-grow, x(q+1)+rest+grow, y(r)+rest+grow).Intersect(region), c, alpha)
				}
				if q > 0 && at(r, q) != at(r, q-1) {
					Fill(dst, image.Rect(x(q)-half-grow, y(r)-half-grow, x(q)+rest+grow, y(r+1)+rest+grow).Intersect(region), c, alpha)
				}
			}
		}
	}
	line(max(1, thickness/3), color.RGBA{A: 255}, 1)
	line(0, c, 1)
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// Region paints the pixels of dst inside box where mask is 1: their rim, thickness pixels wide, with rim,
// and the rest with fill; either may be nil. mask holds 0 and 1, row by row, as large as dst. Where a mask
// reaches the edge of dst it has no rim.
func Region(dst *image.RGBA, mask []uint8, box image.Rectangle, fill, rim *Tint, thickness int) {
	box = box.Intersect(dst.Rect)
	if box.Empty() {
		return
	}
	Rows(box.Dx(), box.Dy(), func(y0, y1 int) {
		regionRows(dst, mask, box, box.Min.Y+y0, box.Min.Y+y1, fill, rim, thickness)
	})
}

func regionRows(dst *image.RGBA, mask []uint8, box image.Rectangle, y0, y1 int, fill, rim *Tint, t int) {
	w, h := dst.Rect.Dx(), dst.Rect.Dy()
	// set counts for each column the set pixels from t above a row to t below it.
	set := make([]uint16, box.Dx())
	count := func(y int, add uint16) {
		if y < 0 || y >= h {
			for x := range set {
				set[x] += add
			}
			return
		}
		row := mask[y*w+box.Min.X : y*w+box.Max.X]
		for x, v := range row {
			set[x] += uint16(v) * add
		}
	}
	for y := y0 - t; y < y0+t; y++ {
		count(y, 1)
	}
	all := uint16(2*t + 1)
	for y := y0; y < y1; y++ {
		count(y+t, 1)
		row := mask[y*w+box.Min.X : y*w+box.Max.X]
		pix := dst.Pix[dst.PixOffset(box.Min.X, y):][:4*box.Dx()]
		paint := func(from, to int, tint *Tint) {
			if tint != nil && from < to {
				tint.Apply(pix[4*from : 4*to])
			}
		}
		for x := 0; x < len(row); {
			if row[x] == 0 {
				x++
				continue
			}
			start := x
			for x++; x < len(row) && row[x] != 0; x++ {
			}
			left, right := min(start+t, x), max(x-t, start)
			if box.Min.X+start == 0 {
				left = start
			}
			if box.Min.X+x == w {
				right = x
			}
			if left >= right {
				paint(start, x, rim)
				continue
			}
			paint(start, left, rim)
			for i := left; i < right; {
				from, whole := i, set[i] == all
				for i++; i < right && (set[i] == all) == whole; i++ {
				}
				if whole {
					paint(from, i, fill)
				} else {
					paint(from, i, rim)
				}
			}
			paint(right, x, rim)
		}
		count(y-t, ^uint16(0)) // less one
	}
}
