package seg

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/torch"
)

// chain calls operators one after the other and owns what they give. After an error it does nothing more.
type chain struct {
	ctx   context.Context
	scope torch.Scope
	err   error
}

func (c *chain) close() { c.scope.Close() }

// call runs an operator that gives one tensor.
func (c *chain) call(name string, args ...any) *torch.Tensor {
	return c.with(torch.CallOptions{}, name, args...)
}

// lane is call on a lane even for few elements: for kernels whose last bits depend on the number of threads.
func (c *chain) lane(name string, args ...any) *torch.Tensor {
	return c.with(torch.CallOptions{OnLane: true}, name, args...)
}

func (c *chain) with(o torch.CallOptions, name string, args ...any) *torch.Tensor {
	if c.err != nil {
		return nil
	}
	v, err := torch.CallWith(c.ctx, o, name, args...)
	if err != nil {
		c.err = err
		return nil
	}
	c.scope.Track(v)
	t, ok := v.(*torch.Tensor)
	if !ok {
		c.err = fmt.Errorf("%s: %w: got %T, want one tensor", name, torch.ErrValue, v)
	}
	return t
}

// own takes over a tensor that something else made.
func (c *chain) own(t *torch.Tensor, err error) *torch.Tensor {
	if c.err == nil {
		c.err = err
	}
	if err == nil {
		c.scope.Track(t)
	}
	return t
}

func (c *chain) cast(t *torch.Tensor, dtype torch.DType) *torch.Tensor {
	if c.err != nil {
		return nil
	}
	return c.own(t.CastTo(dtype))
}

// window is t[..., y0:y1, x0:x1] of (B, C, H, W): a view.
func (c *chain) window(t *torch.Tensor, y0, y1, x0, x1 int) *torch.Tensor {
	return c.call("aten::slice.Tensor", c.call("aten::slice.Tensor", t, 2, y0, y1, 1), 3, x0, x1, 1)
}

// bilinear is F.interpolate(t, (height, width), mode="bilinear", align_corners=False).
func (c *chain) bilinear(t *torch.Tensor, height, width int) *torch.Tensor {
	return c.lane("aten::upsample_bilinear2d", t, []int{height, width}, false, nil, nil)
}

// nearest is F.interpolate(t, (height, width), mode="nearest").
func (c *chain) nearest(t *torch.Tensor, height, width int) *torch.Tensor {
	return c.call("aten::upsample_nearest2d", t, []int{height, width}, nil, nil)
}

// keep gives a tensor of the chain to the caller.
func (c *chain) keep(t *torch.Tensor) *torch.Tensor {
	if c.err != nil {
		return nil
	}
	return c.scope.Keep(t)
}

// size gives the last two sides of a tensor.
func size(t *torch.Tensor) (height, width int) {
	s := t.Shape()
	return int(s[len(s)-2]), int(s[len(s)-1])
}
