package coco

import (
	"cmp"
	"fmt"
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
	// Where polygons begin and end, down the columns.
	type event struct {
		at    uint32
		delta int32
	}
	var events []event
	var crossings []uint32
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
		crossings = outline(crossings[:0], points, height, width)
		slices.Sort(crossings)
		// Two changes at one place are none.
		delta := int32(1)
		for j := 0; j < len(crossings) && crossings[j] < n; j++ {
			if j+1 < len(crossings) && crossings[j+1] == crossings[j] {
				j++
				continue
			}
			events = append(events, event{crossings[j], delta})
			delta = -delta
		}
	}
	if len(polygons) > 1 {
		slices.SortFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	}
	var area runs
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

// outline appends where the outline crosses the middle of a column: the number of the first pixel below,
// down the columns.
func outline(dst []uint32, points []float64, height, width int) []uint32 {
	fine := func(v float64) int { return int(float64(scale*v) + .5) }
	xe, ye := fine(points[len(points)-2]), fine(points[len(points)-1])
	for i := 0; i < len(points); i += 2 {
		xs, ys := xe, ye
		xe, ye = fine(points[i]), fine(points[i+1])
		dst = edge(dst, xs, ys, xe, ye, height, width)
	}
	return dst
}

// edge appends the crossings of one edge on the fine grid. The steps of the edge are not walked: the one
// that leaves the middle of a column (5x+2) is found by itself.
func edge(dst []uint32, xs, ys, xe, ye, height, width int) []uint32 {
	dx, dy := xe-xs, ye-ys
	steep := max(dx, -dx) < max(dy, -dy)
	// Points are counted from the left end, those of a steep edge from the upper one, so an edge has the
	// same points in both directions.
	if !steep && dx < 0 || steep && dy < 0 {
		xs, ys, xe, ye = xe, ye, xs, ys
		dx, dy = -dx, -dy
	}
	if dx == 0 {
		return dst
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
			dst = append(dst, crossing(x, min(at(u), at(u+1)), height))
		}
		return dst
	}
	slope := float64(dx) / float64(dy)
	at := func(t int) int { return int(float64(xs) + float64(slope*float64(t)) + .5) }
	for x := first; x <= last; x++ {
		// The first step t at which the edge stands on the far side: right of the middle where it runs to
		// the right, on it where it runs to the left.
		u := scale*x + 3
		beyond := func(t int) bool { return at(t) >= u }
		if dx < 0 {
			u--
			beyond = func(t int) bool { return at(t) <= u }
		}
		t := min(max(int((float64(u-xs)-.5)/slope), 1), dy)
		for t > 1 && beyond(t-1) {
			t--
		}
		for t < dy && !beyond(t) {
			t++
		}
		dst = append(dst, crossing(x, ys+t-1, height))
	}
	return dst
}

// crossing is the pixel of column x at which the value changes, for a step at v of the fine grid.
func crossing(x, v, height int) uint32 {
	y := math.Ceil(min(max((float64(v)+.5)/scale-.5, 0), float64(height)))
	return uint32(x*height + int(y))
}

func floorDiv(a, b int) int {
	if a < 0 {
		return -((-a + b - 1) / b)
	}
	return a / b
}
