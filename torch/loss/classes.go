package loss

import (
	"context"
	"fmt"
	"slices"

	"github.com/torchvit/torchvit/torch"
)

// CrossEntropyOptions are those of CrossEntropy.
type CrossEntropyOptions struct {
	// Weight (C) of each class; nil: 1.
	Weight *torch.Tensor
	// IgnoreIndex is the class of a target that has no loss and does not count in the mean; nil: -100.
	IgnoreIndex *int64
	// LabelSmoothing is the share of a target that is spread over all classes, 0 to 1.
	LabelSmoothing float64
	// Reduction: the mean is weighted by Weight.
	Reduction Reduction
}

// CrossEntropy is torch.nn.functional.cross_entropy: logits (B, C), (B, C, H, W) and so on, target (B),
// (B, H, W) and so on of int64, 0 to C-1 or IgnoreIndex. As in PyTorch, the mean is NaN where all is ignored.
func CrossEntropy(ctx context.Context, logits, target *torch.Tensor, o CrossEntropyOptions) (*torch.Tensor, error) {
	c := begin(ctx, "cross_entropy")
	defer c.Close()
	c.option(o.Reduction)
	ignore := int64(-100)
	if o.IgnoreIndex != nil {
		ignore = *o.IgnoreIndex
	}
	if !(o.LabelSmoothing >= 0 && o.LabelSmoothing <= 1) {
		c.fail(torch.ErrInvalidArgument, "got label smoothing %v, want 0 to 1", o.LabelSmoothing)
	}
	x, y := c.classes(logits, target, 2, &ignore)
	if c.Err == nil && o.Weight != nil && c.some(o.Weight) {
		if got, want := o.Weight.Shape(), x.Size(1); len(got) != 1 || got[0] != want {
			c.fail(torch.ErrShape, "got a weight of %v, want one for each of %d classes", got, want)
		}
	}
	weight := c.fixed(o.Weight, x)
	if c.Err != nil {
		return c.result(nil)
	}
	loss := c.Call("aten::cross_entropy_loss", x, y, weight, o.Reduction.code(), ignore, o.LabelSmoothing)
	c.explain(target, x, &ignore)
	return c.result(loss)
}

// DiceOptions are those of Dice.
type DiceOptions struct {
	// Smooth is added to numerator and denominator; 0: none.
	Smooth float64
	// Eps is the least denominator; 0: 1e-7.
	Eps float64
	// IgnoreIndex is the class of a target's pixels that have no part in the loss; nil: all have.
	IgnoreIndex *int64
	// Reduction over the classes; ReductionNone gives (C).
	Reduction Reduction
}

// Dice is the soft Dice loss over classes (Milletari et al., arXiv:1606.04797), logits (B, C, H, W) and a target
// (B, H, W) of int64: with the softmax p and the target as one-hot t, for each class over the pixels of the whole
// batch 1 - (2 * sum(p * t) + smooth) / max(sum(p + t) + smooth, eps), 0 for a class that the target does not
// hold. It is the DiceLoss of segmentation_models_pytorch 0.3 in the mode "multiclass", to the bit; from 0.4 on
// that one counts smooth twice, and differs in the last bits where it is 0.
func Dice(ctx context.Context, logits, target *torch.Tensor, o DiceOptions) (*torch.Tensor, error) {
	c := begin(ctx, "dice")
	defer c.Close()
	c.option(o.Reduction)
	eps := o.Eps
	if eps == 0 {
		eps = 1e-7
	}
	x, y := c.classes(logits, target, 3, o.IgnoreIndex)
	if c.Err != nil {
		return c.result(nil)
	}
	b, classes := x.Size(0), x.Size(1)
	p := c.Call("aten::exp", c.Call("aten::log_softmax.int", x, 1, nil))
	p = c.Call("aten::view", p, []int64{b, classes, -1})
	y = c.Call("aten::reshape", y, []int64{b, 1, -1})
	ones := any(1.0)
	t := c.Call("aten::zeros_like", p)
	if o.IgnoreIndex != nil {
		there := c.Call("aten::ne.Scalar", y, *o.IgnoreIndex)
		y = c.Call("aten::mul.Tensor", y, there)
		p = c.Call("aten::mul.Tensor", p, there)
		if c.Err == nil {
			ones = c.Cast(there, x.DType())
		}
	}
	if o.IgnoreIndex != nil {
		t = c.Call("aten::scatter.src", t, 1, y, ones)
	} else {
		t = c.Call("aten::scatter.value", t, 1, y, ones)
	}
	c.explain(target, x, o.IgnoreIndex)
	over := []int{0, 2}
	inter := c.Call("aten::sum.dim_IntList", c.Call("aten::mul.Tensor", p, t), over)
	all := c.Call("aten::sum.dim_IntList", c.Call("aten::add.Tensor", p, t), over)
	score := c.Call("aten::div.Tensor",
		c.Call("aten::add.Scalar", c.Call("aten::mul.Scalar", inter, 2.0), o.Smooth),
		c.Call("aten::clamp_min", c.Call("aten::add.Scalar", all, o.Smooth), eps))
	held := c.Call("aten::gt.Scalar", c.Call("aten::sum.dim_IntList", t, over), 0)
	loss := c.Call("aten::mul.Tensor", c.Call("aten::rsub.Scalar", score, 1.0), held)
	return c.result(c.reduce(loss, o.Reduction))
}

// classes checks logits (B, C, ...) of at least that many dimensions and a target (B, ...) of int64. CUDA's
// kernels end the process for a class out of range, so there it is looked for first.
func (c *calls) classes(logits, target *torch.Tensor, dims int, ignore *int64) (x, y *torch.Tensor) {
	if !c.some(logits, target) {
		return nil, nil
	}
	got, want := logits.Shape(), target.Shape()
	form := "(B, C, ...)"
	if dims > 2 {
		form = "(B, C, H, W)"
	}
	if len(got) < dims || !slices.Equal(slices.Delete(slices.Clone(got), 1, 2), want) {
		c.fail(torch.ErrShape, "got logits of %v and a target of %v, want %s and the same without C", got, want, form)
		return nil, nil
	}
	if target.DType() != torch.Int64 {
		c.fail(torch.ErrDType, "got a target of %s, want int64", target.DType())
		return nil, nil
	}
	x = c.floating(logits)
	if c.Err == nil && target.Device() != torch.CPU {
		c.Err = outOfRange(target, got[1], ignore)
	}
	return x, c.kept(target)
}

// explain names the class out of range that an operator has failed on.
func (c *calls) explain(target, logits *torch.Tensor, ignore *int64) {
	if c.Err == nil {
		return
	}
	if err := outOfRange(target, logits.Size(1), ignore); err != nil {
		c.Err = err
	}
}

// outOfRange is ErrClass for the first class of a target that is none of n.
func outOfRange(target *torch.Tensor, n int64, ignore *int64) error {
	classes, err := torch.CopyData[int64](target)
	if err != nil {
		return err
	}
	for i, class := range classes {
		if class >= 0 && class < n || ignore != nil && class == *ignore {
			continue
		}
		at := target.Shape()
		for d := len(at) - 1; d >= 0; d-- {
			at[d], i = int64(i)%at[d], i/int(at[d])
		}
		wanted := fmt.Sprintf("0 to %d", n-1)
		if ignore != nil {
			wanted += fmt.Sprintf(" or %d, which is ignored", *ignore)
		}
		return fmt.Errorf("%w: got %d at %v of the target, want %s", ErrClass, class, at, wanted)
	}
	return nil
}
