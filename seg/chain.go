package seg

import (
	"context"

	"github.com/torchvit/torchvit/internal/sequence"
	"github.com/torchvit/torchvit/torch"
)

// chain is a sequence of operators with those that segmentation needs.
type chain struct{ sequence.Calls }

func newChain(ctx context.Context) *chain { return &chain{sequence.Calls{Ctx: ctx}} }

// window is t[..., y0:y1, x0:x1] of (B, C, H, W): a view.
func (c *chain) window(t *torch.Tensor, y0, y1, x0, x1 int) *torch.Tensor {
	return c.Call("aten::slice.Tensor", c.Call("aten::slice.Tensor", t, 2, y0, y1, 1), 3, x0, x1, 1)
}

// bilinear is F.interpolate(t, (height, width), mode="bilinear", align_corners=False).
func (c *chain) bilinear(t *torch.Tensor, height, width int) *torch.Tensor {
	return c.Lane("aten::upsample_bilinear2d", t, []int{height, width}, false, nil, nil)
}

// nearest is F.interpolate(t, (height, width), mode="nearest").
func (c *chain) nearest(t *torch.Tensor, height, width int) *torch.Tensor {
	return c.Call("aten::upsample_nearest2d", t, []int{height, width}, nil, nil)
}

// size gives the last two sides of a tensor.
func size(t *torch.Tensor) (height, width int) {
	s := t.Shape()
	return int(s[len(s)-2]), int(s[len(s)-1])
}
