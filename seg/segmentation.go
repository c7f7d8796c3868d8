package seg

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// VisionTransformerForSegmentation is a ViT with a segmentation head in one file: the Python subclass of
// that name. Embedding stands for the subclass: it has every method of the ViT, and Forward shadows the
// ViT's.
type VisionTransformerForSegmentation struct {
	*vit.VisionTransformer
}

// Load loads a model file whose task is segmentation.
func Load(path string, o vit.Options) (*VisionTransformerForSegmentation, error) {
	v, err := vit.Load(path, o)
	if err != nil {
		return nil, err
	}
	if err := v.Need("segment", vit.TaskSegmentation); err != nil {
		v.Close()
		return nil, err
	}
	return &VisionTransformerForSegmentation{v}, nil
}

// Forward gives the logits (B, num_classes, H, W) of pixels (B, 3, H, W), at the input's size.
func (s *VisionTransformerForSegmentation) Forward(ctx context.Context, pixels *torch.Tensor) (*torch.Tensor, error) {
	return s.VisionTransformer.Forward(ctx, pixels)
}

// Segment gives the class map of each photo at the photo's own size.
func (s *VisionTransformerForSegmentation) Segment(ctx context.Context, images ...transforms.Source) ([]*ClassMap, error) {
	return segment(ctx, s, s.Forward, images)
}

// Palette is the file's colours, or distinct ones where it has none.
func (s *VisionTransformerForSegmentation) Palette() Palette { return paletteOf(s.Metadata()) }

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

// Forward gives the logits (B, num_classes, height, width) for tokens (B, N, D), prefix tokens first,
// of an input of that height and width in pixels.
func (h *SegmentationHead) Forward(ctx context.Context, features *torch.Tensor, height, width int) (*torch.Tensor, error) {
	return h.Tensor(ctx, "forward", features, height, width)
}

// Palette is the file's colours, or distinct ones where it has none.
func (h *SegmentationHead) Palette() Palette { return paletteOf(h.Metadata()) }

// FeatureModel is the first half of a CustomSegmentationModel: *vit.VisionTransformer is one.
type FeatureModel interface {
	Preparer
	// ForwardFeatures gives tokens (B, N, D) and attention, which the caller closes.
	ForwardFeatures(ctx context.Context, pixels *torch.Tensor) (tokens, attention *torch.Tensor, err error)
}

// Head is the second half of a CustomSegmentationModel: *SegmentationHead is one.
type Head interface {
	// Forward gives logits (B, num_classes, height, width), which the caller closes.
	Forward(ctx context.Context, features *torch.Tensor, height, width int) (*torch.Tensor, error)
}

// Preparer turns photos into pixels: the ViT's preprocess.
type Preparer interface {
	Prepare(ctx context.Context, maxBatch int, images ...transforms.Source) ([]vit.Input, error)
}

// CustomSegmentationModel composes any ViT with any head, as the Python class of that name. The features
// never leave libtorch between the two. It owns neither: close them yourself.
type CustomSegmentationModel struct {
	ViT              FeatureModel
	SegmentationHead Head
}

// Forward gives the logits (B, num_classes, H, W) of pixels (B, 3, H, W).
func (c *CustomSegmentationModel) Forward(ctx context.Context, pixels *torch.Tensor) (*torch.Tensor, error) {
	shape := pixels.Shape()
	if len(shape) != 4 {
		return nil, fmt.Errorf("segmentation: %w: got pixels of %v, want (B, 3, H, W)", torch.ErrShape, shape)
	}
	features, attention, err := c.ViT.ForwardFeatures(ctx, pixels)
	if err != nil {
		return nil, err
	}
	attention.Close()
	defer features.Close()
	return c.SegmentationHead.Forward(ctx, features, int(shape[2]), int(shape[3]))
}

// Segment gives the class map of each photo at the photo's own size.
func (c *CustomSegmentationModel) Segment(ctx context.Context, images ...transforms.Source) ([]*ClassMap, error) {
	return segment(ctx, c.ViT, c.Forward, images)
}

func segment(ctx context.Context, p Preparer, forward func(context.Context, *torch.Tensor) (*torch.Tensor, error), images []transforms.Source) ([]*ClassMap, error) {
	inputs, err := p.Prepare(ctx, 0, images...)
	if err != nil {
		return nil, err
	}
	defer vit.CloseInputs(inputs)
	answers := make([]*ClassMap, len(images))
	for _, in := range inputs {
		logits, err := forward(ctx, in.Pixels)
		if err != nil {
			return nil, err
		}
		maps, err := ClassMaps(ctx, logits, in.Geometry)
		logits.Close()
		if err != nil {
			return nil, err
		}
		for i, index := range in.Index {
			answers[index] = maps[i]
		}
	}
	return answers, nil
}

// ClassMaps turns logits (B, num_classes, h, w) into class maps at the photos' own sizes: bilinear
// resize in float32 (align_corners False, no antialias), then argmax, as Hugging Face's
// post_process_semantic_segmentation. The preprocess must not crop or pad.
func ClassMaps(ctx context.Context, logits *torch.Tensor, geometry []transforms.Geometry) ([]*ClassMap, error) {
	shape := logits.Shape()
	if len(shape) != 4 || shape[0] != int64(len(geometry)) || shape[1] < 2 || shape[1] > 256 {
		return nil, fmt.Errorf("class map: %w: got logits of %v, want (%d, 2 to 256 classes, h, w)", vit.ErrOutput, shape, len(geometry))
	}
	maps := make([]*ClassMap, len(geometry))
	for b, g := range geometry {
		if !g.Whole() {
			return nil, fmt.Errorf("class map: %w: the preprocess crops or pads, want one that shows the model the whole photo", torch.ErrUnsupported)
		}
		m, err := classMap(ctx, logits, b, g.Height, g.Width)
		if err != nil {
			return nil, err
		}
		maps[b] = m
	}
	return maps, nil
}

func classMap(ctx context.Context, logits *torch.Tensor, b, height, width int) (*ClassMap, error) {
	var scope torch.Scope
	defer scope.Close()
	own := torch.Own(&scope)
	t, err := own(torch.CallTensor(ctx, "aten::slice.Tensor", logits, 0, b, b+1, 1))
	if err != nil {
		return nil, err
	}
	if t, err = own(t.CastTo(torch.Float32)); err != nil {
		return nil, err
	}
	// On a lane even from few logits: the kernel's last bits depend on the number of threads.
	resized, err := torch.CallWith(ctx, torch.CallOptions{OnLane: true}, "aten::upsample_bilinear2d", t, []int{height, width}, false, nil, nil)
	if err != nil {
		return nil, err
	}
	scope.Track(resized)
	if t, err = own(torch.CallTensor(ctx, "aten::argmax", resized, 1, false)); err != nil {
		return nil, err
	}
	if t, err = own(t.CastTo(torch.Uint8)); err != nil {
		return nil, err
	}
	classes, err := torch.CopyData[uint8](t)
	if err != nil {
		return nil, err
	}
	return NewClassMap(width, height, classes)
}

func paletteOf(m *vit.Metadata) Palette {
	if len(m.Palette) > 0 {
		return Palette(m.Palette)
	}
	return DistinctPalette(max(len(m.Labels), 2))
}
