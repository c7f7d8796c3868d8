package coco

import (
	"cmp"
	"fmt"
	"iter"
	"math"
	"slices"
)

// farthest is how far from the first pixel a polygon's points may lie: five times that still fits C's int.
const farthest = 1e8

// mostColumns bounds the memory that an outline takes: edges times columns of the image that each crosses.
const mostColumns = 1 << 28

// FromPolygons gives the union of polygons, each [x0, y0, x1, y1, ...] in pixels with at least three
// points, closed from the last to the first (pycocotools: frPyObjects and merge, what COCO.annToRLE does).
// No polygon gives an empty mask. What lies outside the image is cut off. The error is [ErrRLE] for an odd
// number of values, fewer than six, values that are not finite or beyond 1e8, and outlines that cross more
// than 1<<28 columns.
//
// The rule is that of COCO's rleFrPoly: the outline is drawn with Bresenham's steps on a grid five times
// as fine, and where it crosses the middle of a pixel's column the column changes its value.
func FromPolygons(polygons [][]float64, height, width int) (RLE, error) {
	n, err := pixels(height, width)
	if err != nil {
		return RLE{}, err
	}
	var d drawing
	var events []event
	var area runs
	columns := 0.0
	for i, points := range polygons {
		if len(points) < 6 || len(points)%2 != 0 {
			return RLE{}, fmt.Errorf("%w: got polygon %d of %d values, want x and y of at least 3 points", ErrRLE, i, len(points))
		}
		x := points[len(points)-2]
		for j, v := range points {
			if !(math.Abs(v) <= farthest) {
				return RLE{}, fmt.Errorf("%w: got polygon %d with a point at %v, want -1e8 to 1e8", ErrRLE, i, v)
			}
			if j%2 == 0 {
				columns += min(math.Abs(v-x), float64(width))
				x = v
			}
		}
		if columns > mostColumns {
			return RLE{}, fmt.Errorf("%w: got polygons that cross %.0f columns, want %d at most", ErrRLE, columns, mostColumns)
		}
		d.outline(points, height, width)
		if len(polygons) == 1 {
			for at := range d.changes(n) {
				area.change(at)
			}
			break
		}
		delta := int32(1)
		for at := range d.changes(n) {
			events = append(events, event{at, delta})
			delta = -delta
		}
	}
	slices.SortFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	depth := int32(0) // polygons that hold the pixel
	for i := 0; i < len(events); {
		before, at := depth, events[i].at
		for ; i < len(events) && events[i].at == at; i++ {
			depth += events[i].delta
		}
		if (before > 0) != (depth > 0) {
			area.change(at)
		}
	}
	return RLE{Height: height, Width: width, Counts: area.finish(n)}, nil
}

// event is where a polygon begins, with 1, or ends, with -1, counted down the columns.
type event struct {
	at    uint32
	delta int32
}

// FromBox gives the mask of a box (pycocotools: frPyObjects of a box), by the rule of [FromPolygons].
func FromBox(box Box, height, width int) (RLE, error) {
	return FromPolygons([][]float64{box.polygon()}, height, width)
}

// polygon has the corners in the order in which COCO.loadRes gives them.
func (b Box) polygon() []float64 {
	x, y, right, bottom := b[0], b[1], b[0]+b[2], b[1]+b[3]
	return []float64{x, y, x, bottom, right, bottom, right, y}
}

// scale is how much finer the grid is on which outlines are drawn.
const scale = 5

// drawing is one polygon's outline.
type drawing struct {
	crossings []crossing
	sorted    []uint32
	starts    []int
}

// crossing is where the outline crosses the middle of column x: at, the first pixel below, is counted down
// the columns.
type crossing struct{ x, at uint32 }

// outline finds the crossings.
func (d *drawing) outline(points []float64, height, width int) {
	d.crossings = d.crossings[:0]
	fine := func(v float64) int { return int(float64(scale*v) + .5) }
	xe, ye := fine(points[len(points)-2]), fine(points[len(points)-1])
	for i := 0; i < len(points); i += 2 {
		xs, ys := xe, ye
		xe, ye = fine(points[i]), fine(points[i+1])
		d.edge(xs, ys, xe, ye, height, width)
	}
}

// changes gives where the mask changes, in rising order and before n. Two crossings at one place are none.
func (d *drawing) changes(n uint32) iter.Seq[uint32] {
	// By column first: an outline crosses most of them a few times.
	least, most := uint32(math.MaxUint32), uint32(0)
	for _, c := range d.crossings {
		least, most = min(least, c.x), max(most, c.x)
	}
	d.sorted = d.sorted[:0]
	if len(d.crossings) > 0 {
		d.sorted = slices.Grow(d.sorted, len(d.crossings))[:len(d.crossings)]
		count := int(most-least) + 2
		d.starts = slices.Grow(d.starts[:0], count)[:count]
		clear(d.starts)
		for _, c := range d.crossings {
			d.starts[c.x-least+1]++
		}
		for i := 1; i < count; i++ {
			d.starts[i] += d.starts[i-1]
		}
		for _, c := range d.crossings {
			at := &d.starts[c.x-least]
			d.sorted[*at] = c.at
			*at++
		}
		start := 0
		for _, end := range d.starts[:count-1] {
			slices.Sort(d.sorted[start:end])
			start = end
		}
	}
	return func(yield func(uint32) bool) {
		for i := 0; i < len(d.sorted) && d.sorted[i] < n; i++ {
			if i+1 < len(d.sorted) && d.sorted[i+1] == d.sorted[i] {
				i++
			} else if !yield(d.sorted[i]) {
				return
			}
		}
	}
}

// edge adds the crossings of one edge on the fine grid. The steps of the edge are not walked: the one that
// leaves the middle of a column (5x+2) is found by itself.
func (d *drawing) edge(xs, ys, xe, ye, height, width int) {
	dx, dy := xe-xs, ye-ys
	steep := max(dx, -dx) < max(dy, -dy)
	// Points are counted from the left end, those of a steep edge from the upper one, so an edge has the
	// same points in both directions.
	if !steep && dx < 0 || steep && dy < 0 {
		xs, ys, xe, ye = xe, ye, xs, ys
		dx, dy = -dx, -dy
	}
	if dx == 0 {
		return
	}
	// Columns whose middle lies between both ends.
	left, right := min(xs, xe), max(xs, xe)
	first := max(0, floorDiv(left-2+scale-1, scale))
	last := min(width-1, floorDiv(right-3, scale))
	if !steep {
		slope := float64(dy) / float64(dx)
		at := func(x int) int { return int(float64(ys) + float64(slope*float64(x-xs)) + .5) }
		for x := first; x <= last; x++ {
			u := scale*x + 2
			d.cross(x, min(at(u), at(u+1)), height)
		}
		return
	}
	slope := float64(dx) / float64(dy)
	at := func(t int) int { return int(float64(xs) + float64(slope*float64(t)) + .5) }
	for x := first; x <= last; x++ {
		// The first step t at which the edge stands on the far side: right of the middle where it runs to
		// the right, on it where it runs to the left.
		u, sign := scale*x+3, 1
		if dx < 0 {
			u, sign = u-1, -1
		}
		t := min(max(int((float64(u-xs)-.5)/slope), 1), dy)
		for t > 1 && sign*at(t-1) >= sign*u {
			t--
		}
		for t < dy && sign*at(t) < sign*u {
			t++
		}
		d.cross(x, ys+t-1, height)
	}
}

// cross adds a crossing of column x by a step at v of the fine grid.
func (d *drawing) cross(x, v, height int) {
	y := math.Ceil(min(max((float64(v)+.5)/scale-.5, 0), float64(height)))
	d.crossings = append(d.crossings, crossing{uint32(x), uint32(x*height + int(y))})
}

func floorDiv(a, b int) int {
	if a < 0 {
		return -((-a + b - 1) / b)
	}
	return a / b
}
