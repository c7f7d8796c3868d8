package seg

import (
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// WholePhoto describes a ViT for segmentation. A classifier's preprocess crops the photo, so that the
// model would never see its borders; for segmentation the photo is resized to the size of the crop
// instead: the shorter side, with the longer one in proportion and both multiples of input.multiple_of,
// where the model takes other sizes (input.dynamic), else both sides. The result is m itself where its
// preprocess shows the whole photo already. Give it to vit.Load as Options.Metadata.
func WholePhoto(m *vit.Metadata) *vit.Metadata {
	size := m.Preprocess.Crop.Size
	if m.Preprocess.Crop.Rule == "" || m.Preprocess.Crop.Rule == transforms.CropNone {
		if m.Preprocess.Resize.Rule != transforms.RuleLetterbox {
			return m
		}
		size = m.Preprocess.Resize.Size
	}
	if len(size) == 0 { // not valid; vit.Load says so
		return m
	}
	whole := *m
	whole.Preprocess.Crop = transforms.CropSpec{Rule: transforms.CropNone}
	height, width := size[0], size[len(size)-1]
	if m.Input.Dynamic {
		whole.Preprocess.Resize = transforms.ResizeSpec{Rule: transforms.RuleShortestEdge, Size: []int{min(height, width)}, MultipleOf: m.Input.MultipleOf}
	} else {
		whole.Preprocess.Resize = transforms.ResizeSpec{Rule: transforms.RuleExact, Size: []int{height, width}}
	}
	return &whole
}
