package coco

import (
	"cmp"
	"fmt"
	"slices"
)

// shape is a mask made ready for many overlaps.
type shape struct {
	height, width int
	box           Box
	area          int
	set           []interval
}

func newShape(r RLE) shape {
	return shape{height: r.Height, width: r.Width, box: r.Box(), area: r.Area(), set: r.intervals(nil)}
}

// common counts the pixels that are set in both.
func (s *shape) common(other *shape) int {
	a, b := s.set, other.set
	if len(a) == 0 || len(b) == 0 {
		return 0
	}
	// Both start where the later one does.
	if a[0].start < b[0].start {
		a = a[search(a, b[0].start):]
	} else {
		b = b[search(b, a[0].start):]
	}
	n := 0
	for len(a) > 0 && len(b) > 0 {
		from, to := max(a[0].start, b[0].start), min(a[0].end, b[0].end)
		if from < to {
			n += int(to - from)
		}
		if a[0].end < b[0].end {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return n
}

// search gives the first interval that ends behind at.
func search(set []interval, at uint32) int {
	i, _ := slices.BinarySearchFunc(set, at, func(s interval, at uint32) int {
		if s.end <= at {
			return -1
		}
		return cmp.Compare(1, 0)
	})
	return i
}

// overlap is the intersection over union of a detection with an object, over the detection's area for a
// crowd.
func (s *shape) overlap(object *shape, crowd bool) float64 {
	if boxOverlap(s.box, object.box, crowd) <= 0 {
		return 0
	}
	n := s.common(object)
	switch {
	case n == 0:
		return 0
	case crowd:
		return float64(n) / float64(s.area)
	}
	return float64(n) / float64(s.area+object.area-n)
}

// boxOverlap is the same of boxes.
func boxOverlap(box, object Box, crowd bool) float64 {
	w := min(box[2]+box[0], object[2]+object[0]) - max(box[0], object[0])
	if !(w > 0) {
		return 0
	}
	h := min(box[3]+box[1], object[3]+object[1]) - max(box[1], object[1])
	if !(h > 0) {
		return 0
	}
	// The conversions keep a compiler from joining a product and a sum into one rounding.
	common, area := float64(w*h), float64(box[2]*box[3])
	if crowd {
		return common / area
	}
	return common / (area + float64(object[2]*object[3]) - common)
}

// IoU is the overlap of r with an object's mask: the pixels in both over the pixels in any of the two, or
// over r's pixels where the object is a crowd, of which r may be any part (pycocotools.mask.iou with
// iscrowd). It is 0 where no pixel is in both. The error is [ErrRLE] for masks of different sizes.
func (r RLE) IoU(object RLE, crowd bool) (float64, error) {
	overlaps, err := IoU([]RLE{r}, []RLE{object}, []bool{crowd})
	if err != nil {
		return 0, err
	}
	return overlaps[0], nil
}

// IoU gives the overlap of every detection with every object, len(dt) rows of len(gt), as [RLE.IoU]
// defines it. Crowd says which objects are crowds; nil is none. The error is [ErrRLE] for masks that are
// not valid or not of one size, and where crowd is not as long as gt.
func IoU(dt, gt []RLE, crowd []bool) ([]float64, error) {
	if crowd != nil && len(crowd) != len(gt) {
		return nil, fmt.Errorf("%w: got %d crowd flags for %d objects", ErrRLE, len(crowd), len(gt))
	}
	prepare := func(name string, masks []RLE) ([]shape, error) {
		shapes := make([]shape, len(masks))
		for i, m := range masks {
			if err := m.Validate(); err != nil {
				return nil, fmt.Errorf("%s %d: %w", name, i, err)
			}
			shapes[i] = newShape(m)
		}
		return shapes, nil
	}
	ds, err := prepare("detection", dt)
	if err != nil {
		return nil, err
	}
	gs, err := prepare("object", gt)
	if err != nil {
		return nil, err
	}
	out := make([]float64, 0, len(ds)*len(gs))
	for i := range ds {
		for j := range gs {
			d, g := &ds[i], &gs[j]
			if d.height != g.height || d.width != g.width {
				return nil, fmt.Errorf("%w: got detection %d of size [%d %d] and object %d of size [%d %d], want one size",
					ErrRLE, i, d.height, d.width, j, g.height, g.width)
			}
			out = append(out, d.overlap(g, crowd != nil && crowd[j]))
		}
	}
	return out, nil
}

// BoxIoU gives the overlap of every box with every object's box, len(dt) rows of len(gt): the common area
// over that of both together, or over the detection's own for a crowd (pycocotools.mask.iou of boxes).
// Crowd says which objects are crowds: it is nil for none, or as long as gt, else the error is [ErrRLE].
func BoxIoU(dt, gt []Box, crowd []bool) ([]float64, error) {
	if crowd != nil && len(crowd) != len(gt) {
		return nil, fmt.Errorf("%w: got %d crowd flags for %d objects", ErrRLE, len(crowd), len(gt))
	}
	out := make([]float64, 0, len(dt)*len(gt))
	for _, d := range dt {
		for j, g := range gt {
			out = append(out, boxOverlap(d, g, crowd != nil && crowd[j]))
		}
	}
	return out, nil
}
