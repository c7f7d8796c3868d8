package seg

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// SegmentationHead is a head in a file of its own.
type SegmentationHead struct {
	*vit.Model
}

// LoadHead loads a model file whose task is segmentation_head.
func LoadHead(path string, o vit.Options) (*SegmentationHead, error) {
	m, err := vit.LoadModel(path, o)
	if err != nil {
		return nil, err
	}
	if err := m.Need("segmentation head", vit.TaskSegmentationHead); err != nil {
		m.Close()
		return nil, err
	}
	return &SegmentationHead{m}, nil
}

// Blocks are the blocks of the ViT that the head wants, of the file's input.blocks; none for a head that takes
// the tokens after the final norm.
func (h *SegmentationHead) Blocks() []int { return h.Metadata().Input.Blocks }

// Forward gives the logits (B, num_classes, height, width), which the caller closes, of an input of that
// height and width in pixels. The features, which stay the caller's, are tokens (B, N, D), prefix tokens
// first: for a head with Blocks those that leave each of the blocks, before the final norm, else one tensor,
// the tokens after the final norm.
func (h *SegmentationHead) Forward(ctx context.Context, features []*torch.Tensor, height, width int) (*torch.Tensor, error) {
	blocks := h.Blocks()
	if want := max(len(blocks), 1); len(features) != want {
		return nil, fmt.Errorf("segmentation head: %w: got %d features, want %d", torch.ErrShape, len(features), want)
	}
	var first any = features
	if len(blocks) == 0 {
		first = features[0]
	}
	answer, err := h.Call(ctx, "forward", first, height, width)
	if err != nil {
		return nil, err
	}
	return pick(h.Model, answer, []int64{features[0].Shape()[0], 3, int64(height), int64(width)})
}

// Label is the name of a class of the class maps; see [Labels].
func (h *SegmentationHead) Label(class int) string { return label(h.Metadata(), class) }

// Palette is the file's colours, or distinct ones where it has none.
func (h *SegmentationHead) Palette() Palette { return paletteOf(h.Metadata()) }

// FeatureModel is the first half of a CustomSegmentationModel: *vit.VisionTransformer is one.
type FeatureModel interface {
	Preparer
	// ForwardFeatures gives tokens (B, N, D) after the final norm and attention, which the caller closes.
	ForwardFeatures(ctx context.Context, pixels *torch.Tensor) (tokens, attention *torch.Tensor, err error)
	// ForwardBlocks gives the tokens (B, N, D) that leave those blocks, which the caller closes.
	ForwardBlocks(ctx context.Context, pixels *torch.Tensor, blocks ...int) ([]*torch.Tensor, error)
}

// Head is the second half of a CustomSegmentationModel: *SegmentationHead is one.
type Head interface {
	// Blocks are the blocks whose tokens it takes, before the final norm; none means one tensor, the tokens
	// after the final norm.
	Blocks() []int
	// Forward gives logits (B, num_classes, height, width), which the caller closes.
	Forward(ctx context.Context, features []*torch.Tensor, height, width int) (*torch.Tensor, error)
}

// Preparer turns photos into pixels, as the ViT's file says: *vit.Model is one.
type Preparer interface {
	Metadata() *vit.Metadata
	Prepare(ctx context.Context, maxBatch int, images ...transforms.Source) ([]vit.Input, error)
	PrepareAs(ctx context.Context, spec transforms.Spec, maxBatch int, images ...transforms.Source) ([]vit.Input, error)
	OpenPhoto(ctx context.Context, photo transforms.Source) (*transforms.Image, error)
}

// CustomSegmentationModel composes any ViT with any head, as the Python class of that name. The features
// never leave libtorch between the two. It owns neither: close them yourself.
type CustomSegmentationModel struct {
	ViT              FeatureModel
	SegmentationHead Head
}

// Forward gives the logits (B, num_classes, H, W) of pixels (B, 3, H, W), which the caller closes.
func (c *CustomSegmentationModel) Forward(ctx context.Context, pixels *torch.Tensor) (*torch.Tensor, error) {
	shape := pixels.Shape()
	if len(shape) != 4 {
		return nil, fmt.Errorf("segmentation: %w: got pixels of %v, want (B, 3, H, W)", torch.ErrShape, shape)
	}
	var features []*torch.Tensor
	if blocks := c.SegmentationHead.Blocks(); len(blocks) > 0 {
		var err error
		if features, err = c.ViT.ForwardBlocks(ctx, pixels, blocks...); err != nil {
			return nil, err
		}
	} else {
		tokens, attention, err := c.ViT.ForwardFeatures(ctx, pixels)
		if err != nil {
			return nil, err
		}
		attention.Close()
		features = []*torch.Tensor{tokens}
	}
	defer torch.CloseAll(features)
	return c.SegmentationHead.Forward(ctx, features, int(shape[2]), int(shape[3]))
}

// Segment gives the class map of each photo at the photo's own size.
func (c *CustomSegmentationModel) Segment(ctx context.Context, images ...transforms.Source) ([]*ClassMap, error) {
	return classMaps(c.SegmentWith(ctx, SegmentOptions{}, images...))
}

// SegmentWith is Segment with options: probabilities, sliding windows, test-time augmentation. Sizes are those
// of the ViT's file, the threshold the head's.
func (c *CustomSegmentationModel) SegmentWith(ctx context.Context, o SegmentOptions, images ...transforms.Source) ([]*Segmentation, error) {
	if h, ok := c.SegmentationHead.(interface{ Metadata() *vit.Metadata }); ok && o.Threshold == nil {
		if t := h.Metadata().Thresholds; t != nil {
			o.Threshold = t.Mask
		}
	}
	return segmenter{c.ViT, c.Forward}.segment(ctx, o, images)
}
