package coco

import "slices"

// Outline is the border of one area of pixels that hang together at their sides: rings [x0, y0, x1, y1,
// ...] of the pixels' corners, closed from the last point to the first. On the screen Outer runs
// clockwise and Holes run the other way.
type Outline struct {
	Outer []float64
	Holes [][]float64
}

// Outlines gives the border of each area of the mask, ordered by their leftmost, then topmost pixel.
// Areas that touch only at a corner are two. The error is [ErrRLE] where the mask is not valid.
func (r RLE) Outlines() ([]Outline, error) {
	b, err := r.borders()
	if err != nil {
		return nil, err
	}
	// Rings come by their leftmost edge, and a hole lies to the right of the ring it hangs on: that one
	// has its outline already.
	var out []Outline
	of := make([]int, len(b.rings))
	for i, ring := range b.rings {
		points := b.trace(ring.start, false)
		if ring.parent < 0 {
			of[i] = len(out)
			out = append(out, Outline{Outer: points})
			continue
		}
		of[i] = of[ring.parent]
		o := &out[of[i]]
		o.Holes = append(o.Holes, points)
	}
	return out, nil
}

// Polygons gives the mask as COCO's polygons, one for each of [RLE.Outlines]. COCO's form knows no holes:
// the polygon goes into each by a line of no width and comes back on it. [FromPolygons] makes exactly
// this mask of them again. The error is [ErrRLE] where the mask is not valid.
func (r RLE) Polygons() ([][]float64, error) {
	b, err := r.borders()
	if err != nil {
		return nil, err
	}
	var out [][]float64
	for _, ring := range b.rings {
		if ring.parent < 0 {
			out = append(out, b.trace(ring.start, true))
		}
	}
	return out, nil
}

// borders are the sides between pixels that are set and those that are not. The mask is cut into spans:
// pixels of one column that are set and hang together. Span i has two level edges, of length 1: its upper
// one, 2*i, runs from left to right and its lower one, 2*i+1, back, so the area lies to the right of
// both. Between them go upright edges of any length, which need no number: next has the level edge that
// follows.
type borders struct {
	start []int // of each column's spans; start[width] is their number
	spans []span
	next  []int
	rings []ring
	// holes has the rings of holes that hang on an upper edge, by the edge.
	holes map[int][]int
}

type span struct{ x, top, bottom int }

// ring is one closed line. A hole hangs on an edge of another ring.
type ring struct{ start, parent int }

func (b *borders) y(edge int) int {
	if edge%2 == 0 {
		return b.spans[edge/2].top
	}
	return b.spans[edge/2].bottom
}

// end is where the edge ends.
func (b *borders) end(edge int) (x, y int) {
	x = b.spans[edge/2].x
	if edge%2 == 0 {
		x++
	}
	return x, b.y(edge)
}

func (r RLE) borders() (*borders, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	intervals := r.intervals(nil)
	if len(intervals) == 0 { // where one side is 0 the other may be anything below 1<<32
		return &borders{}, nil
	}
	b := &borders{start: make([]int, 1, r.Width+1), holes: map[int][]int{}}
	for _, set := range intervals {
		for at, end := int(set.start), int(set.end); at < end; {
			x, y := at/r.Height, at%r.Height
			n := min(end-at, r.Height-y)
			for len(b.start) <= x {
				b.start = append(b.start, len(b.spans))
			}
			b.spans = append(b.spans, span{x, y, y + n})
			at += n
		}
	}
	for len(b.start) <= r.Width {
		b.start = append(b.start, len(b.spans))
	}
	b.link(r.Width)
	b.find()
	return b, nil
}

// link finds the edge that follows each edge, boundary by boundary between two columns.
func (b *borders) link(width int) {
	b.next = make([]int, 2*len(b.spans))
	// ends are the edges that end or start at the boundary, from the top.
	var ends []int
	for x := range width + 1 {
		ends = ends[:0]
		var left, right []int
		if x > 0 {
			left = b.column(left, x-1)
		}
		if x < width {
			right = b.column(right, x)
		}
		for len(left) > 0 || len(right) > 0 {
			switch {
			case len(right) == 0 || len(left) > 0 && b.y(left[0]) < b.y(right[0]):
				ends, left = append(ends, left[0]), left[1:]
			case len(left) == 0 || b.y(right[0]) < b.y(left[0]):
				ends, right = append(ends, right[0]), right[1:]
			case left[0]%2 == right[0]%2: // straight on
				if left[0]%2 == 0 {
					b.next[left[0]] = right[0]
				} else {
					b.next[right[0]] = left[0]
				}
				left, right = left[1:], right[1:]
			case left[0]%2 == 1: // two areas touch at a corner; each line keeps to its own
				ends = append(ends, left[0], right[0])
				left, right = left[1:], right[1:]
			default:
				ends = append(ends, right[0], left[0])
				left, right = left[1:], right[1:]
			}
		}
		for i := 0; i+1 < len(ends); i += 2 {
			from, to := ends[i], ends[i+1]
			// An upper edge of the left column and a lower one of the right column end here.
			if fromLeft := b.spans[from/2].x < x; fromLeft != (from%2 == 0) {
				from, to = to, from
			}
			b.next[from] = to
		}
	}
}

// column appends the edges of a column, from the top.
func (b *borders) column(dst []int, x int) []int {
	for i := b.start[x]; i < b.start[x+1]; i++ {
		dst = append(dst, 2*i, 2*i+1)
	}
	return dst
}

// find lists the rings, by their leftmost edges.
func (b *borders) find() {
	of := make([]int, len(b.next)) // the ring of each edge, counted from 1
	for first := range b.next {
		if of[first] != 0 {
			continue
		}
		for e := first; of[e] == 0; e = b.next[e] {
			of[e] = len(b.rings) + 1
		}
		// No edge of the ring has a smaller number. Where that is an upper edge, the area lies below it and
		// nothing of it above or to the left; else it is the lower edge of what lies above a hole.
		if first%2 == 0 {
			b.rings = append(b.rings, ring{first, -1})
			continue
		}
		// The pixel to the left of the hole's first is set. The ring hangs on the upper edge of its span,
		// straight above.
		at := b.spans[first/2]
		column := b.spans[b.start[at.x-1]:b.start[at.x]]
		i, _ := slices.BinarySearchFunc(column, at.bottom, func(s span, y int) int {
			if s.bottom <= y {
				return -1
			}
			return 1
		})
		hook := 2 * (b.start[at.x-1] + i)
		b.holes[hook] = append(b.holes[hook], len(b.rings))
		b.rings = append(b.rings, ring{first, of[hook] - 1})
	}
}

// trace gives the corners of the ring that the edge first is of, with those of the holes that hang on it
// where joined.
func (b *borders) trace(first int, joined bool) []float64 {
	points := b.walk(nil, first, joined)
	return slices.Clip(points[:len(points)-2]) // the first point again
}

// walk appends the corners of a ring, the first one at both ends. It starts at an upper edge's left end,
// or at the end of a hole's lower edge, which is its left end too.
func (b *borders) walk(points []float64, first int, joined bool) []float64 {
	add := func(x, y int) {
		n, px, py := len(points), float64(x), float64(y)
		if n < 2 || points[n-2] != px || points[n-1] != py {
			points = append(points, px, py)
		}
	}
	hole := first%2 == 1
	e := first
	add(b.spans[first/2].x, b.y(first))
	if hole {
		e = b.next[first]
		add(b.spans[first/2].x, b.y(e))
	}
	for {
		x, y := b.end(e)
		if joined {
			for _, i := range b.holes[e] {
				add(x, y)
				points = b.walk(points, b.rings[i].start, joined)
				add(x, y)
			}
		}
		if hole && e == first {
			add(x, y)
			return points
		}
		e = b.next[e]
		if b.y(e) != y {
			add(x, y)
			add(x, b.y(e))
		}
		if !hole && e == first {
			return points
		}
	}
}
