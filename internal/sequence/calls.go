// Package sequence calls libtorch's operators one after the other, as lines of Python would, with one check for
// an error at the end.
package sequence

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/torch"
)

// Calls runs operators and owns what they give until Close. After an error it does nothing more: its methods give
// nil, which the next ones take, and Err is the error.
type Calls struct {
	Ctx context.Context
	// Mode of every call; the zero value is inference.
	Mode  torch.Mode
	Err   error
	scope torch.Scope
}

// Close closes what the calls gave, but for what Keep took out.
func (c *Calls) Close() { c.scope.Close() }

// Call runs an operator that gives one tensor.
func (c *Calls) Call(name string, args ...any) *torch.Tensor {
	return c.with(torch.CallOptions{}, name, args)
}

// Lane is Call on a lane even for few elements: for kernels whose last bits depend on the number of threads.
func (c *Calls) Lane(name string, args ...any) *torch.Tensor {
	return c.with(torch.CallOptions{OnLane: true}, name, args)
}

// View is Call for operators that copy nothing, which need no lane.
func (c *Calls) View(name string, args ...any) *torch.Tensor {
	return c.with(torch.CallOptions{OnCaller: true}, name, args)
}

func (c *Calls) with(o torch.CallOptions, name string, args []any) *torch.Tensor {
	v := c.value(o, name, args)
	t, ok := v.(*torch.Tensor)
	if c.Err == nil && !ok {
		c.Err = fmt.Errorf("%s: %w: got %T, want one tensor", name, torch.ErrValue, v)
	}
	return t
}

// Pair is Call for operators that give two tensors.
func (c *Calls) Pair(name string, args ...any) (a, b *torch.Tensor) {
	v := c.value(torch.CallOptions{}, name, args)
	if pair, ok := v.(torch.Tuple); ok && len(pair) == 2 {
		a, _ = pair[0].(*torch.Tensor)
		b, _ = pair[1].(*torch.Tensor)
	}
	if c.Err == nil && (a == nil || b == nil) {
		c.Err = fmt.Errorf("%s: %w: got %T, want two tensors", name, torch.ErrValue, v)
	}
	return a, b
}

// List is Call for operators that give a list of tensors.
func (c *Calls) List(name string, args ...any) []*torch.Tensor {
	v := c.value(torch.CallOptions{}, name, args)
	list, ok := v.([]*torch.Tensor)
	if c.Err == nil && !ok {
		c.Err = fmt.Errorf("%s: %w: got %T, want a list of tensors", name, torch.ErrValue, v)
	}
	return list
}

func (c *Calls) value(o torch.CallOptions, name string, args []any) any {
	if c.Err != nil {
		return nil
	}
	o.Mode = c.Mode
	v, err := torch.CallWith(c.Ctx, o, name, args...)
	if err != nil {
		c.Err = err
		return nil
	}
	c.scope.Track(v)
	return v
}

// Own takes over a tensor that something else made.
func (c *Calls) Own(t *torch.Tensor, err error) *torch.Tensor {
	if c.Err == nil {
		c.Err = err
	}
	if err == nil {
		c.scope.Track(t)
	}
	return t
}

// Cast is t itself where it has that dtype.
func (c *Calls) Cast(t *torch.Tensor, dtype torch.DType) *torch.Tensor {
	if c.Err != nil || t.DType() == dtype {
		return t
	}
	if c.Mode == torch.Grad { // CastTo records nothing
		return c.Call("aten::to.dtype", t, dtype)
	}
	return c.Own(t.CastTo(dtype))
}

// Keep gives a tensor that the calls own to the caller.
func (c *Calls) Keep(t *torch.Tensor) *torch.Tensor {
	if c.Err != nil {
		return nil
	}
	return c.scope.Keep(t)
}
