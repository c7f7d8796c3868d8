package det

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/coco"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// masks cuts the probabilities of the candidates at the threshold, at the photo's size; nil where the output
// has none. Those of a tensor of another size are brought back first: without padding, with zeros where the photo
// was cropped, bilinear (align_corners False, no antialias).
func (s *settings) masks(ctx context.Context, out *Output, found []candidate, g transforms.Geometry) ([]*coco.RLE, error) {
	if out.Masks == nil {
		return nil, nil
	}
	if h, w := out.Masks.Size(2), out.Masks.Size(3); h != int64(g.OutputHeight) || w != int64(g.OutputWidth) {
		return nil, fmt.Errorf("%w: got masks of %v, want the input's size, %d x %d", vit.ErrOutput, out.Masks.Shape(), g.OutputHeight, g.OutputWidth)
	}
	list := make([]*coco.RLE, len(found))
	for i, c := range found {
		mask, err := s.mask(ctx, out.Masks, c.index, g)
		if err != nil {
			return nil, err
		}
		list[i] = mask
	}
	return list, nil
}

func (s *settings) mask(ctx context.Context, masks *torch.Tensor, index int, g transforms.Geometry) (*coco.RLE, error) {
	o := newOps(ctx)
	defer o.Close()
	mask := o.slice(masks, 0, index, index+1) // (1, 1, H, W)
	if !g.Whole() {
		right, bottom := g.ResizedWidth-g.OutputWidth-g.Left, g.ResizedHeight-g.OutputHeight-g.Top
		mask = o.Call("aten::constant_pad_nd", mask, []int{g.Left, right, g.Top, bottom}, 0)
	}
	if g.ResizedHeight != g.Height || g.ResizedWidth != g.Width {
		// On a lane even for small masks: the kernel's last bits depend on the number of threads.
		mask = o.Lane("aten::upsample_bilinear2d", o.Cast(mask, torch.Float32), []int{g.Height, g.Width}, false, nil, nil)
	}
	set := o.Call("aten::contiguous", o.cpu(o.Call("aten::gt.Scalar", mask, float64(s.maskAbove))))
	if o.Err != nil {
		return nil, o.Err
	}
	var rle coco.RLE
	err := torch.WithData(set, func(pixels []bool) (err error) {
		rle, err = coco.Encode(pixels, g.Height, g.Width)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &rle, nil
}
