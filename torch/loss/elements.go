package loss

import (
	"context"
	"slices"

	"github.com/torchvit/torchvit/torch"
)

// pair gives an input and a target of one shape as floats.
func (c *calls) pair(input, target *torch.Tensor) (a, b *torch.Tensor) {
	if !c.some(input, target) {
		return nil, nil
	}
	if got, want := target.Shape(), input.Shape(); !slices.Equal(got, want) {
		c.fail(torch.ErrShape, "got a target of %v, want %v, the input's", got, want)
		return nil, nil
	}
	a = c.floating(input)
	if c.Err != nil {
		return nil, nil
	}
	if target.RequiresGrad() {
		c.fail(torch.ErrInvalidArgument, "got a target that requires a gradient, want one without")
		return nil, nil
	}
	return c.kept(a), c.fixed(target, a)
}

// Options of losses without others.
type Options struct {
	Reduction Reduction
}

// L1 is torch.nn.functional.l1_loss: |input - target|, of tensors of one shape.
func L1(ctx context.Context, input, target *torch.Tensor, o Options) (*torch.Tensor, error) {
	c := begin(ctx, "l1_loss")
	defer c.Close()
	c.option(o.Reduction)
	input, target = c.pair(input, target)
	return c.result(c.elements("aten::l1_loss", o.Reduction, input, target))
}

// elements runs an operator whose third argument is the reduction.
func (c *calls) elements(name string, r Reduction, input, target *torch.Tensor, more ...any) *torch.Tensor {
	if c.Err != nil {
		return nil
	}
	return c.Call(name, append([]any{input, target, r.code()}, more...)...)
}

// SmoothL1Options are those of SmoothL1.
type SmoothL1Options struct {
	// Beta is the difference at which the square turns into a line; 0: 1, as in PyTorch.
	Beta      float64
	Reduction Reduction
}

// SmoothL1 is torch.nn.functional.smooth_l1_loss (Girshick, arXiv:1504.08083), of tensors of one shape:
// 0.5 * d^2 / beta for differences d below beta, |d| - 0.5 * beta above.
func SmoothL1(ctx context.Context, input, target *torch.Tensor, o SmoothL1Options) (*torch.Tensor, error) {
	c := begin(ctx, "smooth_l1_loss")
	defer c.Close()
	c.option(o.Reduction)
	beta := o.Beta
	switch {
	case beta == 0:
		beta = 1
	case !(beta > 0):
		c.fail(torch.ErrInvalidArgument, "got beta %v, want one above 0", beta)
	}
	input, target = c.pair(input, target)
	return c.result(c.elements("aten::smooth_l1_loss", o.Reduction, input, target, beta))
}

// BCEWithLogitsOptions are those of BCEWithLogits.
type BCEWithLogitsOptions struct {
	// Weight of each element, and PosWeight of the positive ones; both broadcast to the logits' shape.
	Weight, PosWeight *torch.Tensor
	Reduction         Reduction
}

// BCEWithLogits is torch.nn.functional.binary_cross_entropy_with_logits: logits and a target of 0 to 1 of one
// shape. The target may be of any dtype.
func BCEWithLogits(ctx context.Context, logits, target *torch.Tensor, o BCEWithLogitsOptions) (*torch.Tensor, error) {
	c := begin(ctx, "binary_cross_entropy_with_logits")
	defer c.Close()
	c.option(o.Reduction)
	logits, target = c.pair(logits, target)
	c.broadcasts("weight", o.Weight, logits)
	c.broadcasts("pos_weight", o.PosWeight, logits)
	weight, positive := c.fixed(o.Weight, logits), c.fixed(o.PosWeight, logits)
	if c.Err != nil {
		return c.result(nil)
	}
	return c.result(c.Call("aten::binary_cross_entropy_with_logits", logits, target, weight, positive, o.Reduction.code()))
}

// broadcasts fails where a weight does not broadcast to the shape of like.
func (c *calls) broadcasts(name string, weight, like *torch.Tensor) {
	if c.Err != nil || weight == nil || !c.some(weight) {
		return
	}
	got, want := weight.Shape(), like.Shape()
	fits := len(got) <= len(want)
	for i := 1; fits && i <= len(got); i++ {
		size := got[len(got)-i]
		fits = size == 1 || size == want[len(want)-i]
	}
	if !fits {
		c.fail(torch.ErrShape, "got a %s of %v, want one that broadcasts to %v", name, got, want)
	}
}

// SigmoidFocalOptions are those of SigmoidFocal.
type SigmoidFocalOptions struct {
	// Alpha weighs the positive elements, 1 - Alpha the others; nil: 0.25; -1: no weights.
	Alpha *float64
	// Gamma is the exponent of 1 - p; nil: 2.
	Gamma     *float64
	Reduction Reduction
}

// SigmoidFocal is torchvision.ops.sigmoid_focal_loss (Lin et al., arXiv:1708.02002): logits and a target of 0
// or 1 of one shape. The target may be of any dtype.
func SigmoidFocal(ctx context.Context, logits, target *torch.Tensor, o SigmoidFocalOptions) (*torch.Tensor, error) {
	c := begin(ctx, "sigmoid_focal_loss")
	defer c.Close()
	c.option(o.Reduction)
	alpha, gamma := 0.25, 2.0
	if o.Alpha != nil {
		alpha = *o.Alpha
	}
	if o.Gamma != nil {
		gamma = *o.Gamma
	}
	if !(alpha >= 0 && alpha <= 1) && alpha != -1 {
		c.fail(torch.ErrInvalidArgument, "got alpha %v, want 0 to 1, or -1 for none", alpha)
	}
	x, y := c.pair(logits, target)
	if c.Err != nil {
		return c.result(nil)
	}
	p := c.Call("aten::sigmoid", x)
	entropy := c.Call("aten::binary_cross_entropy_with_logits", x, y, nil, nil, ReductionNone.code())
	hit := c.Call("aten::add.Tensor", c.Call("aten::mul.Tensor", p, y),
		c.Call("aten::mul.Tensor", c.Call("aten::rsub.Scalar", p, 1), c.Call("aten::rsub.Scalar", y, 1)))
	loss := c.Call("aten::mul.Tensor", entropy,
		c.Call("aten::pow.Tensor_Scalar", c.Call("aten::rsub.Scalar", hit, 1), gamma))
	if alpha >= 0 {
		weight := c.Call("aten::add.Tensor", c.Call("aten::mul.Scalar", y, alpha),
			c.Call("aten::mul.Scalar", c.Call("aten::rsub.Scalar", y, 1), 1-alpha))
		loss = c.Call("aten::mul.Tensor", weight, loss)
	}
	return c.result(c.reduce(loss, o.Reduction))
}
