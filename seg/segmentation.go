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
// ViT's. Any other file for segmentation works too.
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

// Forward gives the part of the model's answer to pixels (B, 3, H, W) that counts, which the caller closes:
// logits (B, num_classes, h, w), at the input's size or a smaller one, or classes (B, h, w) or (B, 1, h, w).
// Of a dict as torchvision's it is out, of other answers output.leaves or what has that form.
func (s *VisionTransformerForSegmentation) Forward(ctx context.Context, pixels *torch.Tensor) (*torch.Tensor, error) {
	answer, err := s.Call(ctx, "forward", pixels)
	if err != nil {
		return nil, err
	}
	return pick(s.Model, answer, pixels.Shape())
}

// Segment gives the class map of each photo at the photo's own size. Photos whose tensors have one shape run
// as one batch.
func (s *VisionTransformerForSegmentation) Segment(ctx context.Context, images ...transforms.Source) ([]*ClassMap, error) {
	return classMaps(s.SegmentWith(ctx, SegmentOptions{}, images...))
}

// SegmentWith is Segment with options: probabilities, sliding windows, test-time augmentation.
func (s *VisionTransformerForSegmentation) SegmentWith(ctx context.Context, o SegmentOptions, images ...transforms.Source) ([]*Segmentation, error) {
	return segmenter{s.Model, s.Forward}.segment(ctx, o, images)
}

// Label is the name of a class of the class maps; see [Labels].
func (s *VisionTransformerForSegmentation) Label(class int) string { return label(s.Metadata(), class) }

// Palette is the file's colours, or distinct ones where it has none.
func (s *VisionTransformerForSegmentation) Palette() Palette { return paletteOf(s.Metadata()) }

func classMaps(answers []*Segmentation, err error) ([]*ClassMap, error) {
	if err != nil {
		return nil, err
	}
	maps := make([]*ClassMap, len(answers))
	for i, a := range answers {
		maps[i] = a.ClassMap
	}
	return maps, nil
}

// Labels are the names of the classes of a model's class maps: the file's labels. A file with one label is a
// model of one channel, whose class maps have two classes: "background" and that label.
func Labels(m *vit.Metadata) []string {
	if len(m.Labels) == 1 {
		return []string{"background", m.Labels[0]}
	}
	return m.Labels
}

// label is the name of a class, or "class INDEX" where the file has none.
func label(m *vit.Metadata, class int) string {
	if labels := Labels(m); class >= 0 && class < len(labels) {
		return labels[class]
	}
	return fmt.Sprintf("class %d", class)
}

func paletteOf(m *vit.Metadata) Palette {
	p := Palette(m.Palette)
	if len(p) == 0 {
		p = DistinctPalette(max(len(m.Labels), 2))
	}
	if len(m.Labels) == 1 { // of a binary mask, whose background has no colour of its own
		p = Palette{{}, p[0]}
	}
	return p
}
