package seg_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/seg"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

func TestWholePhoto(t *testing.T) {
	classifier := &vit.Metadata{
		Task:  vit.TaskClassification,
		Input: vit.InputSpec{Size: []int{224, 224}, MultipleOf: 16, Dynamic: true},
		Preprocess: transforms.Spec{
			Resize: transforms.ResizeSpec{Rule: transforms.RuleShortestEdge, Size: []int{256}},
			Crop:   transforms.CropSpec{Rule: transforms.CropCenter, Size: []int{224, 192}},
			Mean:   []float64{0.5, 0.5, 0.5}, Std: []float64{0.5, 0.5, 0.5},
		},
	}
	fixed := *classifier
	fixed.Input.Dynamic = false
	letterbox := *classifier
	letterbox.Preprocess.Crop = transforms.CropSpec{}
	letterbox.Preprocess.Resize = transforms.ResizeSpec{Rule: transforms.RuleLetterbox, Size: []int{320}}
	for _, c := range []struct {
		meta *vit.Metadata
		want transforms.Size // of a photo of 300 x 200
	}{
		{classifier, transforms.Size{Height: 192, Width: 288}},
		{&fixed, transforms.Size{Height: 224, Width: 192}},
		{&letterbox, transforms.Size{Height: 320, Width: 480}},
	} {
		whole := seg.WholePhoto(c.meta)
		require.NoError(t, whole.Preprocess.Validate())
		g, err := whole.Preprocess.Plan(transforms.Size{Height: 200, Width: 300})
		require.NoError(t, err)
		assert.True(t, g.Whole())
		assert.Equal(t, c.want, transforms.Size{Height: g.OutputHeight, Width: g.OutputWidth})
		assert.Equal(t, c.meta.Preprocess.Mean, whole.Preprocess.Mean)
		assert.NotSame(t, c.meta, whole)
		assert.Same(t, whole, seg.WholePhoto(whole), "already whole")
	}
	noSize := &vit.Metadata{Preprocess: transforms.Spec{Crop: transforms.CropSpec{Rule: transforms.CropCenter}}}
	assert.Same(t, noSize, seg.WholePhoto(noSize))
	assert.Equal(t, transforms.CropCenter, classifier.Preprocess.Crop.Rule, "the original stays as it is")
}
