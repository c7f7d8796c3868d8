package annotate

import (
	"image"
	"image/color"
	"runtime"
	"sync"
)

// Tint is one colour mixed into every byte, as a table: what [Mix] gives.
type Tint [3][256]uint8

// NewTint makes the table for a colour's share alpha, in [0, 1].
func NewTint(c color.RGBA, alpha float32) *Tint {
	t := &Tint{}
	for i, v := range [3]uint8{c.R, c.G, c.B} {
		for b := range 256 {
			t[i][b] = Mix(uint8(b), v, alpha)
		}
	}
	return t
}

// Apply mixes the colour into a run of RGBA pixels, whose fourth bytes are left as they are.
func (t *Tint) Apply(pix []uint8) {
	r, g, b := &t[0], &t[1], &t[2]
	for ; len(pix) >= 4; pix = pix[4:] {
		pix[0], pix[1], pix[2] = r[pix[0]], g[pix[1]], b[pix[2]]
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

// Runs mixes tints into the rows y0 to y1 of dst by class: of is row by row the class of each pixel, of as
// many as dst is wide. A nil tint leaves its pixels.
func Runs(dst *image.RGBA, of []uint8, tints *[256]*Tint, y0, y1 int) {
	w := dst.Rect.Dx()
	for y := y0; y < y1; y++ {
		classes := of[y*w : (y+1)*w]
		row := dst.Pix[y*dst.Stride : y*dst.Stride+4*w]
		for x := 0; x < w; {
			id, start := classes[x], x
			for x++; x < w && classes[x] == id; x++ {
			}
			if t := tints[id]; t != nil {
				t.Apply(row[4*start : 4*x])
			}
		}
	}
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
