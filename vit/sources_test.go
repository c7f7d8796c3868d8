package vit_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// modelFolder is a folder with model.pt, a module of testdata/modules, with those files inside and beside it.
func modelFolder(t *testing.T, module string, inside, beside map[string]string) string {
	t.Helper()
	m, err := jit.Load(filepath.Join(testmain.Root(t), "testdata", "modules", module), jit.LoadOptions{})
	require.NoError(t, err)
	defer m.Close()
	dir := t.TempDir()
	path := filepath.Join(dir, "model.pt")
	require.NoError(t, m.Save(path, inside))
	for name, text := range beside {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return path
}

const (
	yoloConfig = `{"description": "Ultralytics YOLO11n model trained on coco.yaml", "author": "Ultralytics", "date": "2025-01-01T00:00:00",
		"version": "8.3.0", "license": "AGPL-3.0", "docs": "https://example.org", "stride": 32, "task": "detect", "batch": 1,
		"imgsz": [480, 640], "names": {"0": "person", "1": "bicycle", "2": "car"}, "args": {"batch": 1, "half": false, "dynamic": false, "nms": false}, "channels": 3}`
	vitConfig = `{"architectures": ["ViTForImageClassification"], "attention_probs_dropout_prob": 0.0, "hidden_size": 192, "image_size": 224,
		"id2label": {"0": "cat", "1": "dog", "2": "bird"}, "label2id": {"cat": 0, "dog": 1, "bird": 2}, "model_type": "vit",
		"num_attention_heads": 3, "num_hidden_layers": 12, "patch_size": 16, "torch_dtype": "float32", "transformers_version": "4.36.0"}`
	vitProcessor = `{"do_normalize": true, "do_rescale": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
		"image_processor_type": "ViTImageProcessor", "resample": 2, "rescale_factor": 0.00392156862745098, "size": {"height": 224, "width": 224}}`
	timmConfig = `{"architecture": "vit_tiny_patch16_224", "num_classes": 2, "num_features": 192, "global_pool": "token",
		"label_names": ["n01440764", "n01443537"], "label_descriptions": {"n01440764": "tench"},
		"pretrained_cfg": {"tag": "augreg", "input_size": [3, 224, 224], "crop_pct": 0.9, "interpolation": "bicubic",
		"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "num_classes": 1000, "classifier": "head"}}`
	half = `{"format": 1, "task": "classification", "architecture": "mine", "labels": ["a", "b"]}`
)

func TestDescribeReadsWhatOthersWrite(t *testing.T) {
	three := []float64{0.5, 0.5, 0.5}
	noAntialias := false
	for name, c := range map[string]struct {
		inside, beside map[string]string
		want           vit.Metadata
		sources        map[string]string
		notes          []string
	}{
		"ultralytics": {
			inside: map[string]string{"config.txt": yoloConfig},
			want: vit.Metadata{
				Task: vit.TaskDetection, Architecture: "YOLO11n", Labels: []string{"person", "bicycle", "car"},
				Input: vit.InputSpec{Size: []int{480, 640}, MultipleOf: 32, Layout: vit.LayoutBatch}, Output: vit.OutputSpec{Kind: vit.OutputYOLO},
				Preprocess: transforms.Spec{Backend: transforms.Torch, Antialias: &noAntialias, Interpolation: transforms.Bilinear, Resize: transforms.ResizeSpec{Rule: "letterbox", Size: []int{480, 640}}, Normalize: "none"},
			},
			sources: map[string]string{"task": "config.txt", "preprocess": "config.txt", "labels": "config.txt", "input.layout": "forward's signature"},
		},
		"ultralytics, end to end, without sizes": {
			inside: map[string]string{"config.txt": `{"task": "detect", "imgsz": 320, "names": ["a"], "args": {"nms": true, "dynamic": true}}`},
			want: vit.Metadata{
				Task: vit.TaskDetection, Labels: []string{"a"}, Input: vit.InputSpec{Size: []int{320, 320}, Dynamic: true, Layout: vit.LayoutBatch}, Output: vit.OutputSpec{Kind: vit.OutputYOLOEnd2End},
				Preprocess: transforms.Spec{Backend: transforms.Torch, Antialias: &noAntialias, Interpolation: transforms.Bilinear, Resize: transforms.ResizeSpec{Rule: "letterbox", Size: []int{320, 320}}, Normalize: "none"},
			},
		},
		"ultralytics' classifier": {
			inside: map[string]string{"config.txt": `{"task": "classify", "imgsz": [224, 224], "names": {"0": "a", "1": "b"}}`},
			want: vit.Metadata{
				Task: vit.TaskClassification, Labels: []string{"a", "b"}, Input: vit.InputSpec{Size: []int{224, 224}}, Output: vit.OutputSpec{Activation: vit.ActivationNone},
				Preprocess: transforms.Spec{Backend: transforms.PIL, Interpolation: transforms.Bilinear, Resize: transforms.ResizeSpec{Rule: "shortest_edge", Size: []int{224}}, Crop: transforms.CropSpec{Rule: "center", Size: []int{224, 224}}, Normalize: "none"},
			},
		},
		"transformers": {
			beside: map[string]string{"config.json": vitConfig, "preprocessor_config.json": vitProcessor},
			want: vit.Metadata{
				Task: vit.TaskClassification, Architecture: "ViTForImageClassification", Labels: []string{"cat", "dog", "bird"},
				Input: vit.InputSpec{Size: []int{224, 224}}, Output: vit.OutputSpec{Activation: vit.ActivationSoftmax},
				Tokens:     &vit.Tokens{PatchSize: []int{16, 16}, Prefix: 1, NumHeads: 3, Depth: 12, EmbedDim: 192},
				Preprocess: transforms.Spec{Backend: transforms.Torch, Interpolation: transforms.Bilinear, Resize: transforms.ResizeSpec{Rule: "exact", Size: []int{224, 224}}, Mean: three, Std: three, Normalize: "fused"},
			},
			sources: map[string]string{"task": "config.json", "preprocess": "preprocessor_config.json", "tokens.prefix": "config.json", "input.size": "preprocessor_config.json", "input.dynamic": ""},
		},
		"timm": {
			beside: map[string]string{"config.json": timmConfig},
			want: vit.Metadata{
				Task: vit.TaskClassification, Architecture: "vit_tiny_patch16_224", Labels: []string{"tench", "n01443537"}, Input: vit.InputSpec{Size: []int{224, 224}},
				Preprocess: transforms.Spec{Interpolation: transforms.Bicubic, Resize: transforms.ResizeSpec{Rule: "shortest_edge", Size: []int{248}}, Crop: transforms.CropSpec{Rule: "center", Size: []int{224, 224}}, Mean: three, Std: three, Normalize: "torchvision"},
			},
			sources: map[string]string{"task": "config.json", "preprocess": "config.json"},
		},
		"the file before the sidecar before the others": {
			inside: map[string]string{"torchvit.json": half, "config.txt": yoloConfig},
			beside: map[string]string{"model.pt.json": `{"format": 1, "task": "segmentation", "torch": "2.15.0", "preprocess": {"normalize": "none"}}`, "config.json": vitConfig, "preprocessor_config.json": vitProcessor},
			want: vit.Metadata{
				Task: vit.TaskClassification, Architecture: "mine", Torch: "2.15.0", Labels: []string{"a", "b"},
				Input: vit.InputSpec{Size: []int{480, 640}, MultipleOf: 32}, Preprocess: transforms.Spec{Normalize: "none"}, Output: vit.OutputSpec{Activation: vit.ActivationSoftmax},
				Tokens: &vit.Tokens{PatchSize: []int{16, 16}, Prefix: 1, NumHeads: 3, Depth: 12, EmbedDim: 192},
			},
			sources: map[string]string{"task": "torchvit.json", "torch": "model.pt.json", "preprocess": "model.pt.json", "input.size": "config.txt", "tokens.depth": "config.json", "output.kind": ""},
			notes:   []string{"config.txt: output.kind: got \"yolo\""},
		},
		"what does not fit is left out": {
			inside:  map[string]string{"torchvit.json": `{"format": 1, "task": "segmentation", "palette": [[1, 2, 3], [4, 5, 6]]}`},
			beside:  map[string]string{"config.json": vitConfig, "preprocessor_config.json": `{"image_processor_type": "DINOv3ViTImageProcessor"}`},
			want:    vit.Metadata{Task: vit.TaskSegmentation, Architecture: "ViTForImageClassification", Palette: [][3]uint8{{1, 2, 3}, {4, 5, 6}}, Input: vit.InputSpec{Size: []int{224, 224}}, Tokens: &vit.Tokens{PatchSize: []int{16, 16}, Prefix: 1, NumHeads: 3, Depth: 12, EmbedDim: 192}, Output: vit.OutputSpec{Activation: vit.ActivationSoftmax}},
			sources: map[string]string{"labels": "", "preprocess": ""},
			notes:   []string{"DINOv3ViTImageProcessor", "palette: got 2 colours"},
		},
		"a detector's config": {
			beside: map[string]string{"config.json": `{"architectures": ["DeformableDetrForObjectDetection"], "model_type": "deformable_detr", "id2label": {"1": "person", "3": "car"}}`, "processor_config.json": `{"image_processor": {"image_processor_type": "DeformableDetrImageProcessorFast", "size": {"shortest_edge": 480, "longest_edge": 640}}}`},
			want: vit.Metadata{
				Task: vit.TaskDetection, Architecture: "DeformableDetrForObjectDetection", Labels: []string{"N/A", "person", "N/A", "car"},
				Input: vit.InputSpec{Layout: vit.LayoutBatch}, Output: vit.OutputSpec{Kind: vit.OutputSetPredictionSigmoid},
				Preprocess: transforms.Spec{Backend: transforms.Torch, Interpolation: transforms.Bilinear, Resize: transforms.ResizeSpec{Rule: "detr", Size: []int{480}, MaxSize: 640}, Mean: []float64{0.485, 0.456, 0.406}, Std: []float64{0.229, 0.224, 0.225}, Normalize: "fused"},
			},
			sources: map[string]string{"preprocess": "processor_config.json"},
		},
		"registers, many labels": {
			beside: map[string]string{"config.json": `{"architectures": ["Dinov2WithRegistersForImageClassification"], "model_type": "dinov2_with_registers", "num_register_tokens": 4, "patch_size": 14, "image_size": [518, 518], "num_hidden_layers": 12, "problem_type": "multi_label_classification"}`},
			want:   vit.Metadata{Task: vit.TaskClassification, Architecture: "Dinov2WithRegistersForImageClassification", Input: vit.InputSpec{Size: []int{518, 518}}, Output: vit.OutputSpec{Activation: vit.ActivationSigmoid}, Tokens: &vit.Tokens{PatchSize: []int{14, 14}, Prefix: 5, Depth: 12}},
		},
	} {
		d, err := vit.Describe(modelFolder(t, "identity.pt", c.inside, c.beside))
		require.NoError(t, err, name)
		m, err := d.Metadata("")
		require.NoError(t, err, name)
		c.want.Format = 1
		if c.want.Input.Layout == "" {
			m.Input.Layout = ""
		}
		require.Equal(t, &c.want, m, name)
		for field, source := range c.sources {
			require.Equal(t, source, d.Source(field), "%s: %s", name, field)
		}
		for i, note := range c.notes {
			require.Contains(t, d.Notes[i], note, name)
		}
		require.Len(t, d.Notes, len(c.notes), "%s: %v", name, d.Notes)
	}
}

func TestDescribeSaysWhatIsMissing(t *testing.T) {
	path := modelFolder(t, "identity.pt", nil, nil)
	d, err := vit.Describe(path)
	require.NoError(t, err)
	require.Empty(t, d.Notes)
	_, err = d.Metadata("")
	require.ErrorIs(t, err, vit.ErrNoMetadata)
	require.ErrorContains(t, err, "--task")
	fields := func(task string) (names []string) {
		for _, m := range d.Missing(task) {
			names = append(names, m.Field)
		}
		return names
	}
	levels := []string{"preprocess.resize", "preprocess.normalize"}
	require.Equal(t, append(levels, "labels"), fields(vit.TaskClassification))
	require.Equal(t, append(levels, "tokens.patch_size", "tokens.prefix", "tokens.depth"), fields(vit.TaskAttention))
	require.Equal(t, levels, fields(vit.TaskFeatures))
	require.Empty(t, fields(vit.TaskSegmentationHead))
	err = d.Need(vit.TaskClassification)
	require.ErrorIs(t, err, vit.ErrNoMetadata)
	for _, says := range []string{"--size", "--mean", "model.pt.json", "export.py"} {
		require.ErrorContains(t, err, says)
	}
	d.Set("--size", "preprocess.resize", func(m *vit.Metadata) {
		m.Preprocess.Resize = transforms.ResizeSpec{Rule: "exact", Size: []int{8, 8}}
	})
	d.Set("--normalize", "preprocess.normalize", func(m *vit.Metadata) { m.Preprocess.Normalize = "none" })
	require.NoError(t, d.Need(vit.TaskClassification))
	require.Equal(t, []string{"input.layout", "preprocess.normalize", "preprocess.resize"}, d.Fields())
	require.Equal(t, "--size", d.Source("preprocess.resize"))

	// A model that nothing describes takes tensors, and no photos.
	m, err := vit.LoadModel(path, vit.Options{Task: vit.TaskClassification})
	require.NoError(t, err)
	defer m.Close()
	require.Equal(t, vit.TaskClassification, m.Metadata().Task)
	_, err = m.Prepare(t.Context(), 0, testImage(t, "coffee.jpg"))
	require.ErrorIs(t, err, vit.ErrNoMetadata)
	require.ErrorContains(t, err, "--size")

	// torchvision's detectors tell what they are, and take photos as they are.
	d, err = vit.Describe(filepath.Join(testmain.Root(t), "testdata", "modules", "detections.pt"))
	require.NoError(t, err)
	t.Log(d.Fields(), d.Known().Output, d.Known().Input)
}

func TestScriptedDetectorsAreKnownByTheirCode(t *testing.T) {
	m, err := jit.Load(filepath.Join(testmain.Root(t), "testdata", "models", "garments_faster_rcnn.pt"), jit.LoadOptions{})
	require.NoError(t, err)
	defer m.Close()
	path := filepath.Join(t.TempDir(), "bare.pt")
	require.NoError(t, m.Save(path, nil))
	d, err := vit.Describe(path)
	require.NoError(t, err)
	meta, err := d.Metadata("")
	require.NoError(t, err)
	require.Equal(t, vit.TaskDetection, meta.Task)
	require.Equal(t, vit.OutputDetections, meta.Output.Kind)
	require.Equal(t, vit.LayoutList, meta.Layout())
	require.NoError(t, d.Need(vit.TaskDetection), "photos go in as they are")
}

func TestDescribeRefusesOnlyItsOwnFormat(t *testing.T) {
	for name, text := range map[string]string{
		"config.json": `{"a": `, "preprocessor_config.json": `[]`, "processor_config.json": `{"image_processor": 3}`,
	} {
		d, err := vit.Describe(modelFolder(t, "identity.pt", nil, map[string]string{name: text}))
		require.NoError(t, err)
		require.Len(t, d.Notes, 1)
		require.True(t, strings.HasPrefix(d.Notes[0], name+": "), d.Notes[0])
	}
	d, err := vit.Describe(modelFolder(t, "identity.pt", map[string]string{"config.txt": "plain text"}, nil))
	require.NoError(t, err)
	require.Len(t, d.Notes, 1)
	for name, dirs := range map[string][2]map[string]string{
		"torchvit.json": {{"torchvit.json": `{"format": 1}`}, nil},
		"model.pt.json": {nil, {"model.pt.json": `{"format": 1, "task": "classification", "colour": "red"}`}},
	} {
		_, err := vit.Describe(modelFolder(t, "identity.pt", dirs[0], dirs[1]))
		require.ErrorIs(t, err, vit.ErrMetadata)
		require.ErrorContains(t, err, name)
	}
	path := modelFolder(t, "identity.pt", nil, nil)
	require.NoError(t, os.Mkdir(filepath.Join(filepath.Dir(path), "config.json"), 0o755))
	d, err = vit.Describe(path)
	require.NoError(t, err)
	require.Contains(t, d.Notes[0], "no regular file")
}

// FuzzSources gives any text to all readers: what they find is a description that holds together.
func FuzzSources(f *testing.F) {
	for _, text := range []string{yoloConfig, vitConfig, vitProcessor, timmConfig, half, `{}`, `[]`, `{"names": {"5": "a"}}`, `{"image_processor": {}}`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		known := vit.DescriptionOf(text)
		for _, note := range known.Notes {
			require.NotContains(t, note, "\n")
		}
		m, err := known.Metadata(vit.TaskClassification)
		require.NoError(t, err)
		again, err := json.Marshal(m)
		require.NoError(t, err)
		parsed, err := vit.ParseMetadata(again)
		require.NoError(t, err)
		require.Equal(t, m.Task, parsed.Task)
	})
}
