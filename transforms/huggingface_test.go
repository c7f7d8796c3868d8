package transforms

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
)

// shapesOfPhotos are photos of every shape: square, wide, high, tiny, smaller than the crops.
func shapesOfPhotos(t *testing.T) (data [][]byte) {
	for _, name := range []string{"tiny.png", "formats/png_rgb.png", "portrait.jpg", "panorama.jpg", "chelsea.png", "coffee.jpg"} {
		data = append(data, photo(t, name))
	}
	require.GreaterOrEqual(t, len(data), 6)
	return data
}

// TestHuggingFaceProcessors compares each processor with transformers' own, both backends, bit for bit: with
// what it has by default, and with files as they are on the hub.
func TestHuggingFaceProcessors(t *testing.T) {
	data := shapesOfPhotos(t)
	type config struct{ processor, text string }
	var configs []config
	for family := range hfProcessors {
		if family != "" && family != "EfficientNet" && family != "GroundingDino" && family != "PromptDepthAnything" {
			configs = append(configs, config{family, `{}`})
		}
	}
	configs = append(
		configs,
		config{"GroundingDino", `{"size":{"shortest_edge":200,"longest_edge":333}}`},
		config{"ViT", `{"do_normalize":true,"do_resize":true,"feature_extractor_type":"ViTFeatureExtractor","image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5],"resample":2,"size":224}`},
		config{"ViT", `{"do_rescale":true,"do_normalize":false,"size":{"height":96,"width":160},"resample":3,"rescale_factor":0.00392156862745098}`},
		config{"DeiT", `{"crop_size":224,"do_center_crop":true,"do_normalize":true,"do_resize":true,"feature_extractor_type":"DeiTFeatureExtractor","image_mean":[0.485,0.456,0.406],"image_std":[0.229,0.224,0.225],"resample":3,"size":256}`},
		config{"Beit", `{"crop_size":{"height":224,"width":224},"do_center_crop":true,"do_reduce_labels":true,"resample":2,"size":{"height":256,"width":256}}`},
		config{"CLIP", `{"crop_size":224,"do_center_crop":true,"do_normalize":true,"do_resize":true,"feature_extractor_type":"CLIPFeatureExtractor","image_mean":[0.48145466,0.4578275,0.40821073],"image_std":[0.26862954,0.26130258,0.27577711],"resample":3,"size":224}`},
		config{"Bit", `{"crop_size":{"height":224,"width":224},"image_mean":[0.485,0.456,0.406],"image_std":[0.229,0.224,0.225],"resample":3,"size":{"shortest_edge":256}}`},
		config{"ConvNext", `{"crop_pct":0.875,"size":{"shortest_edge":224},"image_mean":[0.485,0.456,0.406],"image_std":[0.229,0.224,0.225],"resample":3}`},
		config{"ConvNext", `{"crop_pct":0.95,"size":224,"resample":2}`},
		config{"Segformer", `{"do_normalize":true,"do_resize":true,"feature_extractor_type":"SegformerFeatureExtractor","image_mean":[0.485,0.456,0.406],"image_std":[0.229,0.224,0.225],"reduce_labels":true,"resample":2,"size":128}`},
		config{"Segformer", `{"do_reduce_labels":false,"size":{"height":160,"width":96}}`},
		config{"DPT", `{"do_pad":false,"ensure_multiple_of":32,"keep_aspect_ratio":true,"resample":3,"size":{"height":192,"width":192},"size_divisor":null}`},
		config{"DPT", `{"ensure_multiple_of":14,"keep_aspect_ratio":false,"resample":2,"size":{"height":130,"width":192}}`},
		config{"Detr", `{"do_normalize":true,"do_resize":true,"feature_extractor_type":"DetrFeatureExtractor","format":"coco_detection","image_mean":[0.485,0.456,0.406],"image_std":[0.229,0.224,0.225],"max_size":333,"size":200}`},
		config{"Detr", `{"do_pad":true,"size":{"height":200,"width":320},"do_convert_annotations":true}`},
		config{"Yolos", `{"do_pad":true,"format":"coco_detection","size":{"shortest_edge":256,"longest_edge":432}}`},
		config{"RTDetr", `{"do_normalize":false,"do_pad":false,"size":{"height":160,"width":160},"resample":2}`},
		config{"RTDetr", `{"do_normalize":true,"size":{"height":160,"width":160}}`},
		config{"EfficientNet", `{"include_top":false,"rescale_offset":false,"size":{"height":100,"width":120},"resample":0}`},
		config{"EfficientNet", `{"include_top":false,"do_center_crop":true,"size":{"height":100,"width":120},"crop_size":{"height":89,"width":101}}`},
		config{"Levit", `{"size":{"shortest_edge":100},"crop_size":{"height":101,"width":97}}`},
		config{"PoolFormer", `{"crop_pct":0.95,"size":{"shortest_edge":120},"crop_size":{"height":121,"width":120}}`},
		config{"MobileViT", `{"do_flip_channel_order":false,"do_center_crop":false,"size":{"shortest_edge":77}}`},
		config{"Pvt", `{"do_resize":false}`},
		config{"Siglip", `{"resample":1,"size":{"height":100,"width":120}}`},
	)
	compared := map[Backend]int{}
	for _, c := range configs {
		for _, backend := range []Backend{PIL, Torch} {
			var withType map[string]any
			require.NoError(t, json.Unmarshal([]byte(c.text), &withType))
			if withType["feature_extractor_type"] == nil {
				withType["image_processor_type"] = c.processor + "ImageProcessor"
			}
			text, err := json.Marshal(withType)
			require.NoError(t, err)
			spec, err := SpecFromHuggingFace(text, backend)
			require.NoError(t, err, c)
			p, err := NewPipeline(spec, Options{})
			require.NoError(t, err)
			data := data
			if spec.Resize.Rule == RuleDETR && spec.Resize.Size[0] == 800 {
				data = data[:2] // large ones take long
			}
			var answer struct{ Shapes [][]int64 }
			want := ask(t, object{"op": "huggingface_processor", "processor": c.processor + "ImageProcessor", "backend": backend, "config": withType}, &answer, data...)
			for i, d := range data {
				batch, _, err := p.Apply(t.Context(), d)
				require.NoError(t, err)
				require.Equal(t, answer.Shapes[i], batch.Shape()[1:], "photo %d: %s %s", i, backend, c)
				got, err := torch.CopyData[float32](batch)
				require.NoError(t, err)
				require.Zero(t, differingBits(got, floats(want[i])), "photo %d: %s %s", i, backend, c)
				batch.Close()
				compared[backend]++
			}
		}
	}
	t.Log(len(configs), "configurations", compared)
	require.Greater(t, compared[Torch], 200)
	require.Equal(t, compared[Torch], compared[PIL])
}

func TestHuggingFaceProcessorsThatNoSpecSays(t *testing.T) {
	for _, bad := range []string{
		`{"image_processor_type":"DINOv3ViTImageProcessorFast"}`, `{"image_processor_type":"Siglip2ImageProcessor"}`,
		`{"image_processor_type":"EfficientNetImageProcessor"}`, `{"image_processor_type":"EfficientNetImageProcessor","include_top":false,"rescale_offset":true}`,
		`{"image_processor_type":"DPTImageProcessor","do_pad":true,"size_divisor":14}`, `{"image_processor_type":"DetrImageProcessor","pad_size":{"height":800,"width":800}}`,
		`{"image_processor_type":"ViTImageProcessor","size":null}`, `{"image_processor_type":"ViTImageProcessor","size":[1,2,3]}`,
		`{"image_processor_type":"ViTImageProcessor","rescale_factor":0.00784313725490196}`, `{"image_processor_type":"ConvNextImageProcessor","size":{"height":5,"width":5}}`,
		`{"image_processor_type":"ConvNextImageProcessor","size":{"shortest_edge":224},"crop_pct":null}`, `{"image_processor_type":"PoolFormerImageProcessor","size":{"height":5,"width":6}}`,
		`{"image_processor_type":5}`,
	} {
		for _, backend := range []Backend{PIL, Torch} {
			_, err := SpecFromHuggingFace([]byte(bad), backend)
			require.ErrorIs(t, err, ErrSpec, bad)
			require.NotContains(t, err.Error(), "\n")
		}
	}
}

// TestLetterboxIsNearOpenCVs measures how far the letterbox for files of ultralytics is from OpenCV's, which
// resizes in fixed-point numbers that no kernel of torch has: one level at most, and places are equal.
func TestLetterboxIsNearOpenCVs(t *testing.T) {
	data := shapesOfPhotos(t)
	noAntialias := false
	for _, size := range [][]int{{640, 640}, {320, 416}, {224, 160}} {
		want := ask(t, object{"op": "opencv_letterbox", "size": size}, nil, data...)
		far := map[Backend]int{}
		different, all := 0, 0
		for _, backend := range []Backend{PIL, Torch} {
			spec := Spec{Backend: backend, Antialias: &noAntialias, Resize: ResizeSpec{Rule: RuleLetterbox, Size: size}, Normalize: NormalizeNone}
			p, err := NewPipeline(spec, Options{})
			require.NoError(t, err)
			for i, d := range data {
				batch, _, err := p.Apply(t.Context(), d)
				require.NoError(t, err)
				got, err := torch.CopyData[float32](batch)
				batch.Close()
				require.NoError(t, err)
				require.Len(t, want[i], len(got))
				for k, v := range got {
					level := int(float32(v*255) + 0.5)
					by := max(level-int(want[i][k]), int(want[i][k])-level)
					far[backend] = max(far[backend], by)
					if backend == Torch {
						all++
						if by > 0 {
							different++
						}
					}
				}
			}
		}
		t.Logf("%v: %d of %d values differ from OpenCV, by at most %d level; with Pillow's antialias by %d", size, different, all, far[Torch], far[PIL])
		require.Positive(t, different)
		require.LessOrEqual(t, far[Torch], 1)
	}
}
