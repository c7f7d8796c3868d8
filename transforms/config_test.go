package transforms

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
)

// TestSpecFromTimm compares with timm's own transforms, bit for bit.
func TestSpecFromTimm(t *testing.T) {
	var data [][]byte
	for _, name := range append([]string{"formats/png_rgb.png"}, photos...) {
		data = append(data, photo(t, name))
	}
	for _, config := range []string{
		`{"input_size":[3,224,224],"interpolation":"bicubic","crop_pct":0.9,"mean":[0.5,0.5,0.5],"std":[0.5,0.5,0.5]}`,
		`{"input_size":[3,224,224],"interpolation":"bilinear","crop_pct":0.875,"crop_mode":"center"}`,
		`{"input_size":[3,384,384],"interpolation":"bicubic","crop_pct":1.0,"crop_mode":"squash","mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]}`,
		`{"input_size":[3,240,200],"interpolation":"bicubic","crop_pct":0.95}`,
		`{"input_size":[3,224,224],"interpolation":"bicubic","crop_pct":0.93,"crop_mode":"border"}`,
		`{"input_size":[3,200,260],"interpolation":"lanczos","crop_pct":0.8,"crop_mode":"border","mean":[0.1,0.9,0.3]}`,
		`{"num_classes":7}`,
	} {
		spec, err := SpecFromTimm([]byte(`{"architecture":"vit","pretrained_cfg":` + config + `}`))
		require.NoError(t, err)
		alone, err := SpecFromTimm([]byte(config))
		require.NoError(t, err)
		require.Equal(t, spec, alone)
		p, err := NewPipeline(spec, Options{})
		require.NoError(t, err)
		var answer struct{ Shapes [][]int64 }
		want := ask(t, object{"op": "timm_transform", "config": json.RawMessage(config)}, &answer, data...)
		for i, d := range data {
			batch, _, err := p.Apply(t.Context(), d)
			require.NoError(t, err)
			require.Equal(t, answer.Shapes[i], batch.Shape()[1:], config)
			got, err := torch.CopyData[float32](batch)
			require.NoError(t, err)
			require.Zero(t, differingBits(got, floats(want[i])), "photo %d: %s", i, config)
			batch.Close()
		}
	}
	for _, bad := range []string{``, `[]`, `{"input_size":[3,224]}`, `{"crop_mode":"other"}`, `{"crop_pct":-1}`, `{"interpolation":"random"}`, `{"mean":[1]}`, `{"input_size":[3,0,5]}`} {
		_, err := SpecFromTimm([]byte(bad))
		require.ErrorIs(t, err, ErrSpec, bad)
	}
}

func TestSpecFromHuggingFace(t *testing.T) {
	half := []float64{0.5, 0.5, 0.5}
	for name, c := range map[string]struct {
		config  string
		backend Backend
		want    Spec
	}{
		"ViT": {
			`{"do_normalize":true,"do_rescale":true,"do_resize":true,"image_mean":[0.5,0.5,0.5],"image_processor_type":"ViTImageProcessor","image_std":[0.5,0.5,0.5],"resample":2,"rescale_factor":0.00392156862745098,"size":{"height":224,"width":224}}`,
			Torch,
			Spec{Backend: Torch, Resize: ResizeSpec{Rule: RuleExact, Size: []int{224, 224}}, Interpolation: Bilinear, Mean: half, Std: half, Normalize: NormalizeFused},
		},
		"old ViT": {
			`{"do_normalize":true,"do_resize":true,"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5],"size":224}`,
			PIL,
			Spec{Backend: PIL, Resize: ResizeSpec{Rule: RuleExact, Size: []int{224, 224}}, Interpolation: Bilinear, Mean: half, Std: half, Normalize: NormalizeTorchvision},
		},
		"CLIP": {
			`{"crop_size":{"height":224,"width":224},"do_center_crop":true,"image_mean":[0.48145466,0.4578275,0.40821073],"image_std":[0.26862954,0.26130258,0.27577711],"resample":3,"size":{"shortest_edge":224}}`,
			"",
			Spec{
				Backend: PIL, Resize: ResizeSpec{Rule: RuleShortestEdge, Size: []int{224}}, Interpolation: Bicubic,
				Crop: CropSpec{Rule: CropCenterFloor, Size: []int{224, 224}},
				Mean: []float64{0.48145466, 0.4578275, 0.40821073}, Std: []float64{0.26862954, 0.26130258, 0.27577711}, Normalize: NormalizeTorchvision,
			},
		},
		"DETR": {
			`{"do_pad":true,"image_mean":[0.485,0.456,0.406],"image_std":[0.229,0.224,0.225],"size":{"shortest_edge":800,"longest_edge":1333}}`,
			Torch,
			Spec{Backend: Torch, Resize: ResizeSpec{Rule: RuleDETR, Size: []int{800}, MaxSize: 1333}, Interpolation: Bilinear, Mean: imagenetMean, Std: imagenetStd, Normalize: NormalizeFused},
		},
		"YOLOS": {
			`{"image_processor_type":"YolosImageProcessor","image_mean":[0.485,0.456,0.406],"image_std":[0.229,0.224,0.225],"size":{"shortest_edge":512,"longest_edge":864}}`,
			Torch,
			Spec{Backend: Torch, Resize: ResizeSpec{Rule: RuleYOLOS, Size: []int{512}, MaxSize: 864, MultipleOf: 16}, Interpolation: Bilinear, Mean: imagenetMean, Std: imagenetStd, Normalize: NormalizeFused},
		},
		"DPT": {
			`{"do_normalize":false,"keep_aspect_ratio":true,"ensure_multiple_of":32,"resample":3,"size":{"height":384,"width":384}}`,
			PIL,
			Spec{Backend: PIL, Resize: ResizeSpec{Rule: RuleDPT, Size: []int{384, 384}, MultipleOf: 32}, Interpolation: Bicubic, Normalize: NormalizeNone},
		},
		"none": {`{"do_resize":false,"do_normalize":false}`, PIL, Spec{Backend: PIL, Interpolation: Bilinear, Normalize: NormalizeNone}},
	} {
		got, err := SpecFromHuggingFace([]byte(c.config), c.backend)
		require.NoError(t, err, name)
		require.Equal(t, c.want, got, name)
	}
	for _, bad := range []string{
		``, `{}`, `{"size":{}}`, `{"size":224,"resample":9}`, `{"size":224,"do_rescale":false}`, `{"size":224,"rescale_factor":1}`,
		`{"size":224,"do_center_crop":true}`, `{"size":224,"image_mean":[1,2]}`, `{"size":224,"image_mean":"a"}`, `{"size":224,"image_std":0}`, `{"size":224,"pad_size":{"height":5}}`,
	} {
		_, err := SpecFromHuggingFace([]byte(bad), Torch)
		require.ErrorIs(t, err, ErrSpec, bad)
		require.NotContains(t, err.Error(), "\n")
	}
}
