package det

import (
	"context"
	"fmt"
	"math"

	"github.com/torchvit/torchvit/internal/sequence"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/loss"
)

// GridLossOptions are those of GridLoss. Anchors, Height and Width must be given.
type GridLossOptions struct {
	// Anchors of each level, width and height in pixels of the input: vit.OutputSpec's.
	Anchors [][][2]float64
	// Height and Width of the input in pixels.
	Height, Width int
	// BoxWeight, ObjectnessWeight and ClassWeight are the factors of the parts; nil: 1.
	BoxWeight, ObjectnessWeight, ClassWeight *float64
	// Balance is a factor of each level's objectness; none: 4, 1 and 0.4 for three levels, else 1.
	Balance []float64
}

// maxAnchorRatio is how many times a box's side may be longer or shorter than its anchor's.
const maxAnchorRatio = 4

// minHalfSide is the least half of a predicted side in pixels: the CIoU of boxes without sides is NaN.
const minHalfSide = 1e-3

// GridLoss is the training loss of vit.OutputYOLOGrid's levels (B, anchors*(5+C), h, w), as YOLOv5's documentation
// describes it and scripts/models/yolo_loss.py computes it, to the bit. For each image it takes boxes (n, 4), xyxy
// in pixels of the input, and labels (n) of int64, 0 to C-1.
//
// A box trains, at each level, the anchors whose sides are within a factor of 4 of its own, in the cell of its
// centre, the nearest cell beside that and the nearest above or below. The loss is the sum of "box", 1 - CIoU,
// the mean of a level's matches; "objectness", the binary cross-entropy with the best CIoU of the boxes that a
// prediction is matched with, the mean of a level times its balance; and "classes", the binary cross-entropy, the
// mean of a level's matches; each summed over the levels and times its weight. Boxes without an area train
// nothing. All of it is float32.
//
// The loss records gradients; parts, by those names, are without weights and gradients. The caller closes all.
// Errors are torch.ErrShape, torch.ErrDType, torch.ErrInvalidArgument and loss.ErrClass.
func GridLoss(ctx context.Context, levels, boxes, labels []*torch.Tensor, o GridLossOptions) (total *torch.Tensor, parts map[string]*torch.Tensor, err error) {
	total, parts, err = gridLoss(ctx, levels, boxes, labels, o)
	if err != nil {
		return nil, nil, fmt.Errorf("grid loss: %w", err)
	}
	return total, parts, nil
}

func gridLoss(ctx context.Context, levels, boxes, labels []*torch.Tensor, o GridLossOptions) (*torch.Tensor, map[string]*torch.Tensor, error) {
	classes, err := o.check(levels, len(boxes))
	if err != nil {
		return nil, nil, err
	}
	objects, err := gridObjects(boxes, labels, classes)
	if err != nil {
		return nil, nil, err
	}
	balance := o.Balance
	if balance == nil {
		balance = make([]float64, len(levels))
		for i := range balance {
			balance[i] = 1
		}
		if len(levels) == 3 {
			copy(balance, []float64{4, 1, 0.4})
		}
	}
	c := &ops{sequence.Calls{Ctx: ctx, Mode: torch.Grad}}
	defer c.Close()
	var box, objectness, class []*torch.Tensor
	for i, level := range levels {
		l := gridLevelOf(level, o, i)
		raw := c.Call("aten::reshape", c.Cast(level, torch.Float32), []int64{-1, l.anchors(), int64(5 + classes), l.h, l.w})
		raw = c.Call("aten::reshape", c.View("aten::permute", raw, []int{0, 1, 3, 4, 2}), []int{-1, 5 + classes})
		if c.Err != nil {
			break
		}
		target := c.Own(torch.Zeros([]int64{raw.Size(0)}, torch.TensorOptions{Device: raw.Device()}))
		if m := l.match(objects); len(m.row) > 0 {
			b, k, best := c.matched(raw, l, m, classes)
			box, class = append(box, b), append(class, k)
			// The best of the boxes that share a prediction, whatever their order, and 0 or more.
			target = c.Call("aten::scatter_reduce.two", target, 0, c.numbers(m.row, raw), best, "amax")
		}
		x := c.Call("aten::binary_cross_entropy_with_logits", c.View("aten::select.int", raw, 1, 4), target, nil, nil, 1)
		objectness = append(objectness, c.Call("aten::mul.Scalar", x, balance[i]))
	}
	var terms []loss.Term
	parts := map[string]*torch.Tensor{}
	for _, part := range []struct {
		name   string
		values []*torch.Tensor
		weight *float64
	}{{"box", box, o.BoxWeight}, {"objectness", objectness, o.ObjectnessWeight}, {"classes", class, o.ClassWeight}} {
		if c.Err != nil {
			break
		}
		var sum *torch.Tensor
		if len(part.values) > 0 {
			sum = c.Call("aten::sum", c.Call("aten::stack", part.values), nil)
		} else {
			sum = c.Own(torch.Zeros(nil, torch.TensorOptions{Device: levels[0].Device()}))
		}
		weight := 1.0
		if part.weight != nil {
			weight = *part.weight
		}
		terms = append(terms, loss.Term{Loss: sum, Weight: weight})
		parts[part.name] = c.View("aten::detach", sum)
	}
	if c.Err != nil {
		return nil, nil, c.Err
	}
	total, err := loss.Sum(ctx, terms...)
	if err != nil {
		return nil, nil, err
	}
	for _, part := range parts {
		c.Keep(part)
	}
	return total, parts, nil
}

// check gives the number of classes.
func (o *GridLossOptions) check(levels []*torch.Tensor, images int) (classes int, err error) {
	if len(levels) == 0 || len(levels) != len(o.Anchors) {
		return 0, fmt.Errorf("%w: got %d levels and anchors of %d, want as many, one or more", torch.ErrShape, len(levels), len(o.Anchors))
	}
	if o.Height <= 0 || o.Width <= 0 {
		return 0, fmt.Errorf("%w: got an input of %d x %d pixels, want a width and a height", torch.ErrInvalidArgument, o.Width, o.Height)
	}
	if o.Balance != nil && len(o.Balance) != len(levels) {
		return 0, fmt.Errorf("%w: got %d balances, want one for each of %d levels", torch.ErrInvalidArgument, len(o.Balance), len(levels))
	}
	for i, t := range levels {
		if t == nil {
			return 0, fmt.Errorf("%w: got a nil tensor as level %d", torch.ErrInvalidArgument, i)
		}
		shape, anchors := t.Shape(), int64(len(o.Anchors[i]))
		if len(shape) != 4 || anchors == 0 || shape[1]%anchors != 0 || shape[1]/anchors < 6 || t.NumEl() == 0 || shape[0] != int64(images) {
			return 0, fmt.Errorf("%w: got level %d of %v with %d anchors, and boxes of %d images, want (B, anchors*(5+C), h, w) and B",
				torch.ErrShape, i, shape, anchors, images)
		}
		if !t.DType().IsFloatingPoint() {
			return 0, fmt.Errorf("%w: got level %d of %s, want floats", torch.ErrDType, i, t.DType())
		}
		got := int(shape[1]/anchors) - 5
		if classes != 0 && got != classes {
			return 0, fmt.Errorf("%w: got levels of %d and of %d classes, want as many", torch.ErrShape, classes, got)
		}
		classes = got
		for _, anchor := range o.Anchors[i] {
			if !(anchor[0] > 0 && anchor[1] > 0) {
				return 0, fmt.Errorf("%w: got an anchor %v, want a width and a height", torch.ErrInvalidArgument, anchor)
			}
		}
	}
	return classes, nil
}

// gridObject is one box of a batch.
type gridObject struct {
	image int
	box   [4]float32
	label int64
}

func gridObjects(boxes, labels []*torch.Tensor, classes int) (objects []gridObject, err error) {
	if len(boxes) != len(labels) {
		return nil, fmt.Errorf("%w: got boxes of %d images and labels of %d, want as many", torch.ErrShape, len(boxes), len(labels))
	}
	for i := range boxes {
		values, ids, err := boxesOf(boxes[i], labels[i])
		if err != nil {
			return nil, fmt.Errorf("image %d: %w", i, err)
		}
		for j, id := range ids {
			if id < 0 || id >= int64(classes) {
				return nil, fmt.Errorf("image %d: box %d: %w: got the label %d, want 0 to %d", i, j, loss.ErrClass, id, classes-1)
			}
			objects = append(objects, gridObject{i, [4]float32(values[4*j:]), id})
		}
	}
	return objects, nil
}

// boxesOf reads boxes (n, 4) and labels (n).
func boxesOf(boxes, labels *torch.Tensor) (values []float32, ids []int64, err error) {
	if boxes == nil || labels == nil {
		return nil, nil, fmt.Errorf("%w: got nil boxes or labels", torch.ErrInvalidArgument)
	}
	b, l := boxes.Shape(), labels.Shape()
	if len(b) != 2 || b[1] != 4 || len(l) != 1 || l[0] != b[0] {
		return nil, nil, fmt.Errorf("%w: got boxes of %v and labels of %v, want (n, 4) and (n)", torch.ErrShape, b, l)
	}
	if !boxes.DType().IsFloatingPoint() || labels.DType() != torch.Int64 {
		return nil, nil, fmt.Errorf("%w: got boxes of %s and labels of %s, want floats and int64", torch.ErrDType, boxes.DType(), labels.DType())
	}
	if ids, err = torch.CopyData[int64](labels); err != nil {
		return nil, nil, err
	}
	cast, err := boxes.CastTo(torch.Float32)
	if err != nil {
		return nil, nil, err
	}
	defer cast.Close()
	values, err = torch.CopyData[float32](cast)
	return values, ids, err
}

// gridScale is one level: its cells and anchors.
type gridScale struct {
	h, w   int64
	stride [2]float32 // width and height of a cell in pixels
	sides  [][2]float32
}

func gridLevelOf(level *torch.Tensor, o GridLossOptions, i int) gridScale {
	s := gridScale{h: level.Size(2), w: level.Size(3)}
	s.stride = [2]float32{float32(o.Width) / float32(s.w), float32(o.Height) / float32(s.h)}
	for _, a := range o.Anchors[i] {
		s.sides = append(s.sides, [2]float32{float32(a[0]), float32(a[1])})
	}
	return s
}

func (s *gridScale) anchors() int64 { return int64(len(s.sides)) }

// gridMatches are pairs of a prediction and a box, by the numbers that the loss takes from them.
type gridMatches struct {
	row    []int64   // of the prediction, among images, anchors, rows and columns
	cell   []float32 // column and row
	anchor []float32 // width and height
	box    []float32 // xyxy
	label  []int64
}

// match is match of yolo_loss.py, in the order of boxes, anchors and cells. Products and sums are rounded one by
// one, as there.
func (s *gridScale) match(objects []gridObject) (m gridMatches) {
	grid := [2]float32{float32(s.w), float32(s.h)}
	for _, object := range objects {
		var cell, step, size [2]float32
		for i := range 2 {
			low, high := object.box[i], object.box[i+2]
			size[i] = high - low
			center := (low + high) / 2 / s.stride[i]
			cell[i] = min(max(float32(math.Floor(float64(center))), 0), grid[i]-1)
			switch inside := center - cell[i]; {
			case inside > 0.5:
				step[i] = 1
			case inside < 0.5:
				step[i] = -1
			}
		}
		cells := [][2]float32{cell}
		for i := range 2 {
			next := cell
			next[i] += step[i]
			if step[i] != 0 && next[i] >= 0 && next[i] < grid[i] {
				cells = append(cells, next)
			}
		}
		for a, side := range s.sides {
			if !fits(size[0]/side[0]) || !fits(size[1]/side[1]) {
				continue
			}
			for _, at := range cells {
				row := int64(object.image)*s.anchors() + int64(a)
				m.row = append(m.row, (row*s.h+int64(at[1]))*s.w+int64(at[0]))
				m.cell = append(m.cell, at[:]...)
				m.anchor = append(m.anchor, side[:]...)
				m.box = append(m.box, object.box[:]...)
				m.label = append(m.label, object.label)
			}
		}
	}
	return m
}

// fits is false for NaN.
func fits(ratio float32) bool { return ratio > 1.0/maxAnchorRatio && ratio < maxAnchorRatio }

// matched gives the losses of boxes and classes, and the CIoU of each match.
func (o *ops) matched(raw *torch.Tensor, s gridScale, m gridMatches, classes int) (box, class, best *torch.Tensor) {
	n := int64(len(m.row))
	chosen := o.Call("aten::index_select", raw, 0, o.numbers(m.row, raw))
	y := o.Call("aten::sigmoid", o.slice(chosen, 1, 0, 4))
	center := o.Call("aten::sub.Scalar", o.Call("aten::mul.Scalar", o.slice(y, 1, 0, 2), 2), 0.5)
	center = o.Call("aten::mul.Tensor", o.Call("aten::add.Tensor", center, o.constant(m.cell, raw, n, 2)), o.constant(s.stride[:], raw, 2))
	half := o.Call("aten::pow.Tensor_Scalar", o.Call("aten::mul.Scalar", o.slice(y, 1, 2, 4), 2), 2)
	half = o.Call("aten::div.Scalar", o.Call("aten::mul.Tensor", half, o.constant(m.anchor, raw, n, 2)), 2)
	half = o.Call("aten::clamp", half, minHalfSide, nil)
	low := o.Call("aten::sub.Tensor", center, half)
	high := o.Call("aten::add.Tensor", center, half)
	if o.Err != nil {
		return nil, nil, nil
	}
	predicted := o.Call("aten::cat", []*torch.Tensor{low, high}, 1)
	wanted := o.constant(m.box, raw, n, 4)
	if o.Err != nil {
		return nil, nil, nil
	}
	each := o.Own(loss.CIoU(o.Ctx, predicted, wanted, loss.BoxOptions{Reduction: loss.ReductionNone}))
	box = o.Call("aten::mean", each, nil)
	best = o.Call("aten::rsub.Scalar", o.View("aten::detach", each), 1)
	one := make([]float32, n*int64(classes))
	for i, label := range m.label {
		one[i*classes+int(label)] = 1
	}
	class = o.Call("aten::binary_cross_entropy_with_logits", o.slice(chosen, 1, 5, 5+classes), o.constant(one, raw, n, int64(classes)), nil, nil, 1)
	return box, class, best
}

// numbers is a tensor of whole numbers on the device of like.
func (o *ops) numbers(values []int64, like *torch.Tensor) *torch.Tensor {
	if o.Err != nil {
		return nil
	}
	t := o.Own(torch.NewTensor(values))
	if o.Err != nil {
		return nil
	}
	return o.Own(t.To(like.Device()))
}
