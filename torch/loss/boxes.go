package loss

import (
	"context"
	"math"
	"slices"

	"github.com/torchvit/torchvit/torch"
)

// BoxOptions are those of the losses of boxes.
type BoxOptions struct {
	// Eps keeps divisors from 0; 0: 1e-7, as in torchvision.
	Eps       float64
	Reduction Reduction
}

func (o BoxOptions) eps() float64 {
	if o.Eps == 0 {
		return 1e-7
	}
	return o.Eps
}

// GIoU is torchvision.ops.generalized_box_iou_loss (Rezatofighi et al., arXiv:1902.09630): 1 - GIoU of each pair
// of boxes (N, 4), xyxy, where x1 < x2 and y1 < y2. Without boxes it is 0, with a gradient.
func GIoU(ctx context.Context, boxes1, boxes2 *torch.Tensor, o BoxOptions) (*torch.Tensor, error) {
	c := begin(ctx, "generalized_box_iou_loss")
	defer c.Close()
	boxes1, boxes2 = c.boxes(boxes1, boxes2, o)
	inter, union := c.interUnion(boxes1, boxes2)
	iou := c.Call("aten::div.Tensor", inter, c.Call("aten::add.Scalar", union, o.eps()))
	around := c.enclosing(c.edges(boxes1), c.edges(boxes2))
	area := c.area(around)
	outside := c.Call("aten::div.Tensor", c.Call("aten::sub.Tensor", area, union), c.Call("aten::add.Scalar", area, o.eps()))
	loss := c.Call("aten::rsub.Scalar", c.Call("aten::sub.Tensor", iou, outside), 1)
	return c.result(c.reduceBoxes(loss, o.Reduction))
}

// CIoU is torchvision.ops.complete_box_iou_loss (Zheng et al., arXiv:1911.08287): 1 - CIoU of each pair of boxes
// (N, 4), xyxy, where x1 < x2 and y1 < y2. Without boxes it is 0, with a gradient.
func CIoU(ctx context.Context, boxes1, boxes2 *torch.Tensor, o BoxOptions) (*torch.Tensor, error) {
	c := begin(ctx, "complete_box_iou_loss")
	defer c.Close()
	boxes1, boxes2 = c.boxes(boxes1, boxes2, o)
	inter, union := c.interUnion(boxes1, boxes2)
	// torchvision gives its own eps to the aspect ratio's weight alone.
	iou := c.Call("aten::div.Tensor", inter, c.Call("aten::add.Scalar", union, 1e-7))
	a, b := c.edges(boxes1), c.edges(boxes2)
	around := c.enclosing(a, b)
	square := func(high, low *torch.Tensor) *torch.Tensor {
		return c.Call("aten::pow.Tensor_Scalar", c.Call("aten::sub.Tensor", high, low), 2)
	}
	// The order of torchvision's lines, which that of the sums of gradients follows.
	width := square(around.x2, around.x1)
	diagonal := c.Call("aten::add.Scalar", c.Call("aten::add.Tensor", width, square(around.y2, around.y1)), 1e-7)
	middle := func(low, high *torch.Tensor) *torch.Tensor {
		return c.Call("aten::div.Scalar", c.Call("aten::add.Tensor", low, high), 2)
	}
	ax, ay, bx, by := middle(a.x2, a.x1), middle(a.y2, a.y1), middle(b.x1, b.x2), middle(b.y1, b.y2)
	dx := square(ax, bx)
	distance := c.Call("aten::add.Tensor", dx, square(ay, by))
	diou := c.Call("aten::add.Tensor", c.Call("aten::rsub.Scalar", iou, 1), c.Call("aten::div.Tensor", distance, diagonal))

	a, b = c.edges(boxes1), c.edges(boxes2)
	wa, ha := c.Call("aten::sub.Tensor", a.x2, a.x1), c.Call("aten::sub.Tensor", a.y2, a.y1)
	wb, hb := c.Call("aten::sub.Tensor", b.x2, b.x1), c.Call("aten::sub.Tensor", b.y2, b.y1)
	angleB := c.Call("aten::atan", c.Call("aten::div.Tensor", wb, hb))
	angleA := c.Call("aten::atan", c.Call("aten::div.Tensor", wa, ha))
	pi := math.Pi // so that the factor is rounded as Python rounds it
	v := c.Call("aten::mul.Scalar", square(angleB, angleA), 4/(pi*pi))
	c.Mode = torch.NoGrad
	alpha := c.Call("aten::div.Tensor", v, c.Call("aten::add.Scalar",
		c.Call("aten::add.Tensor", c.Call("aten::rsub.Scalar", iou, 1), v), o.eps()))
	c.Mode = torch.Grad
	loss := c.Call("aten::add.Tensor", diou, c.Call("aten::mul.Tensor", alpha, v))
	return c.result(c.reduceBoxes(loss, o.Reduction))
}

func (c *calls) boxes(boxes1, boxes2 *torch.Tensor, o BoxOptions) (a, b *torch.Tensor) {
	c.option(o.Reduction)
	if !c.some(boxes1, boxes2) {
		return nil, nil
	}
	s1, s2 := boxes1.Shape(), boxes2.Shape()
	if len(s1) != 2 || s1[1] != 4 || !slices.Equal(s1, s2) {
		c.fail(torch.ErrShape, "got boxes of %v and %v, want (N, 4) twice", s1, s2)
		return nil, nil
	}
	a, b = c.floating(boxes1), c.floating(boxes2)
	return c.kept(a), c.kept(b)
}

// edges are the columns of boxes.
type edges struct{ x1, y1, x2, y2 *torch.Tensor }

// edges is boxes.unbind(dim=-1). Each call of it in Python is one here: gradients are summed in its order.
func (c *calls) edges(boxes *torch.Tensor) edges {
	e := c.List("aten::unbind.int", boxes, -1)
	if c.Err != nil {
		return edges{}
	}
	return edges{e[0], e[1], e[2], e[3]}
}

// interUnion is torchvision's _loss_inter_union.
func (c *calls) interUnion(boxes1, boxes2 *torch.Tensor) (inter, union *torch.Tensor) {
	a, b := c.edges(boxes1), c.edges(boxes2)
	left, top := c.Call("aten::max.other", a.x1, b.x1), c.Call("aten::max.other", a.y1, b.y1)
	right, bottom := c.Call("aten::min.other", a.x2, b.x2), c.Call("aten::min.other", a.y2, b.y2)
	inter = c.Call("aten::zeros_like", a.x1)
	meet := []*torch.Tensor{c.Call("aten::bitwise_and.Tensor", c.Call("aten::gt.Tensor", bottom, top), c.Call("aten::gt.Tensor", right, left))}
	side := func(high, low *torch.Tensor) *torch.Tensor {
		return c.Call("aten::sub.Tensor", c.Call("aten::index.Tensor", high, meet), c.Call("aten::index.Tensor", low, meet))
	}
	width := side(right, left)
	inter = c.Call("aten::index_put", inter, meet, c.Call("aten::mul.Tensor", width, side(bottom, top)))
	areaA := c.area(a)
	union = c.Call("aten::sub.Tensor", c.Call("aten::add.Tensor", areaA, c.area(b)), inter)
	return inter, union
}

func (c *calls) area(e edges) *torch.Tensor {
	width := c.Call("aten::sub.Tensor", e.x2, e.x1)
	return c.Call("aten::mul.Tensor", width, c.Call("aten::sub.Tensor", e.y2, e.y1))
}

// enclosing is the smallest box around two.
func (c *calls) enclosing(a, b edges) edges {
	left, top := c.Call("aten::min.other", a.x1, b.x1), c.Call("aten::min.other", a.y1, b.y1)
	return edges{left, top, c.Call("aten::max.other", a.x2, b.x2), c.Call("aten::max.other", a.y2, b.y2)}
}

// reduceBoxes is reduce, where the mean of nothing is 0.
func (c *calls) reduceBoxes(t *torch.Tensor, r Reduction) *torch.Tensor {
	if c.Err == nil && r == ReductionMean && t.NumEl() == 0 {
		return c.Call("aten::mul.Scalar", c.Call("aten::sum", t, nil), 0.0)
	}
	return c.reduce(t, r)
}
