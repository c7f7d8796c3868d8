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
