package seg

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/vit"
)

// FeatureMaps gives feature maps that were chosen before: *vit.FeatureExtractor is one.
type FeatureMaps interface {
	Preparer
	// Forward gives the maps of pixels (B, 3, H, W), which the caller closes.
	Forward(ctx context.Context, pixels *torch.Tensor) ([]*torch.Tensor, error)
}

// FromFeatures makes the first half of a CustomSegmentationModel of anything that gives feature maps, as a
// *vit.FeatureExtractor over a traced backbone. The head gets the maps as they are, one for each of its
// Blocks, or the only one: for the heads of scripts/export.py they are tokens with their prefix
// (vit.FormatNLC and KeepPrefix), for a decoder of one's own what it wants.
func FromFeatures(maps FeatureMaps) FeatureModel { return featureMaps{maps} }

type featureMaps struct{ FeatureMaps }

func (f featureMaps) ForwardFeatures(ctx context.Context, pixels *torch.Tensor) (tokens, attention *torch.Tensor, err error) {
	maps, err := f.maps(ctx, pixels, 1)
	if err != nil {
		return nil, nil, err
	}
	return maps[0], nil, nil
}

func (f featureMaps) ForwardBlocks(ctx context.Context, pixels *torch.Tensor, blocks ...int) ([]*torch.Tensor, error) {
	return f.maps(ctx, pixels, len(blocks))
}

func (f featureMaps) maps(ctx context.Context, pixels *torch.Tensor, want int) ([]*torch.Tensor, error) {
	maps, err := f.Forward(ctx, pixels)
	if err == nil && len(maps) != want {
		torch.CloseAll(maps)
		return nil, fmt.Errorf("segmentation: %w: got %d feature maps, want the %d that the head takes", vit.ErrOutput, len(maps), want)
	}
	return maps, err
}
