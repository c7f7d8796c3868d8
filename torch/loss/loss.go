package loss

import (
	"context"
	"errors"
	"fmt"

	"github.com/torchvit/torchvit/internal/sequence"
	"github.com/torchvit/torchvit/torch"
)

// ErrClass: a target holds a class that the logits do not have.
var ErrClass = errors.New("class out of range")

// Reduction is what becomes of the elements' losses.
type Reduction int

const (
	// ReductionMean is their mean.
	ReductionMean Reduction = iota
	// ReductionSum is their sum.
	ReductionSum
	// ReductionNone leaves them.
	ReductionNone
)

// code is at::Reduction.
func (r Reduction) code() int { return [...]int{1, 2, 0}[r] }

// Term is one loss of Sum.
type Term struct {
	Loss *torch.Tensor
	// Weight is the factor of the loss.
	Weight float64
}

// Sum is loss * weight + loss * weight + ..., from left to right.
func Sum(ctx context.Context, terms ...Term) (*torch.Tensor, error) {
	c := begin(ctx, "sum")
	defer c.Close()
	if len(terms) == 0 {
		c.fail(torch.ErrInvalidArgument, "got no terms, want one or more")
	}
	var sum *torch.Tensor
	for _, term := range terms {
		c.some(term.Loss)
		part := c.Call("aten::mul.Scalar", term.Loss, term.Weight)
		if sum == nil {
			sum = part
		} else {
			sum = c.Call("aten::add.Tensor", sum, part)
		}
	}
	return c.result(sum)
}

// calls is the sequence of operators of one loss.
type calls struct {
	sequence.Calls
	op string
	// grad: the result will have a gradient, so that autograd keeps its arguments.
	grad bool
}

func begin(ctx context.Context, op string) *calls {
	return &calls{Calls: sequence.Calls{Ctx: ctx, Mode: torch.Grad}, op: op}
}

func (c *calls) fail(kind error, format string, args ...any) {
	if c.Err == nil {
		c.Err = fmt.Errorf("%w: %s", kind, fmt.Sprintf(format, args...))
	}
}

func (c *calls) result(t *torch.Tensor) (*torch.Tensor, error) {
	if c.Err != nil {
		return nil, fmt.Errorf("%s: %w", c.op, c.Err)
	}
	return c.Keep(t), nil
}

// some fails for tensors that are nil or closed.
func (c *calls) some(tensors ...*torch.Tensor) bool {
	for _, t := range tensors {
		switch {
		case t == nil:
			c.fail(torch.ErrInvalidArgument, "got a nil tensor")
		case t.Shape() == nil:
			c.fail(torch.ErrClosed, "got a tensor that is closed")
		}
	}
	return c.Err == nil
}

// floating gives a tensor of floats as float32, or float64 where it is that.
func (c *calls) floating(t *torch.Tensor) *torch.Tensor {
	if c.Err != nil {
		return nil
	}
	dtype := t.DType()
	if !dtype.IsFloatingPoint() {
		c.fail(torch.ErrDType, "got %s, want floats", dtype)
		return nil
	}
	c.grad = c.grad || t.RequiresGrad()
	if dtype == torch.Float64 {
		return t
	}
	return c.Cast(t, torch.Float32)
}

// kept is a tensor that autograd may keep: one of inference mode is copied.
func (c *calls) kept(t *torch.Tensor) *torch.Tensor {
	if c.Err != nil || t == nil || !c.grad || !t.IsInference() {
		return t
	}
	return c.Call("aten::clone", t)
}

// fixed gives numbers without a gradient in the dtype of like.
func (c *calls) fixed(t, like *torch.Tensor) *torch.Tensor {
	if c.Err != nil || t == nil {
		return nil
	}
	return c.kept(c.Cast(t, like.DType()))
}

func (c *calls) option(r Reduction) {
	if r < ReductionMean || r > ReductionNone {
		c.fail(torch.ErrInvalidArgument, "got reduction %d, want ReductionMean, ReductionSum or ReductionNone", r)
	}
}

// reduce is torchvision's end of a loss.
func (c *calls) reduce(t *torch.Tensor, r Reduction) *torch.Tensor {
	switch {
	case c.Err != nil:
		return nil
	case r == ReductionMean:
		return c.Call("aten::mean", t, nil)
	case r == ReductionSum:
		return c.Call("aten::sum", t, nil)
	}
	return t
}
