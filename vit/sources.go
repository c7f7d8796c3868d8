package vit

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/torchvit/torchvit/transforms"
)

// The files of other programs that describe a model.
const (
	ultralyticsFile  = "config.txt"
	preprocessorFile = "preprocessor_config.json"
	processorFile    = "processor_config.json"
	configFile       = "config.json"
)

// partOfUltralytics reads config.txt, which ultralytics puts into the TorchScript files that it exports: JSON
// with names, stride, imgsz, task, batch and the arguments of the export.
//
// Its detectors see the photo letterboxed to imgsz. ultralytics resizes with OpenCV, bilinear without
// antialias in fixed-point arithmetic; the backend torch without antialias comes nearest, within one level.
func partOfUltralytics(text []byte) (*partial, error) {
	var c struct {
		Description string          `json:"description"`
		Stride      int             `json:"stride"`
		Task        string          `json:"task"`
		ImgSz       json.RawMessage `json:"imgsz"`
		Names       json.RawMessage `json:"names"`
		Channels    *int            `json:"channels"`
		End2End     bool            `json:"end2end"`
		Args        struct {
			NMS     bool `json:"nms"`
			Dynamic bool `json:"dynamic"`
		} `json:"args"`
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, err
	}
	p := &partial{}
	if c.Description != "" {
		name, _, _ := strings.Cut(strings.TrimPrefix(c.Description, "Ultralytics "), " model")
		p.Architecture = name
		p.know("architecture")
	}
	if c.Names != nil {
		labels, err := ParseLabels(c.Names)
		if err != nil {
			p.note("names: %v", err)
		} else {
			p.Labels = labels
			p.know("labels")
		}
	}
	size, err := pixelSize(c.ImgSz)
	if err != nil {
		p.note("imgsz: %v", err)
	} else if size != nil {
		p.Input.Size = size
		p.know("input.size")
	}
	if c.Args.Dynamic {
		p.Input.Dynamic = true
		p.know("input.dynamic")
	}
	if c.Channels != nil && *c.Channels != 3 {
		p.note("channels: got %d, want 3", *c.Channels)
		size = nil
	}
	switch c.Task {
	case "detect":
		p.Task, p.Output.Kind = TaskDetection, OutputYOLO
		if c.End2End || c.Args.NMS {
			p.Output.Kind = OutputYOLOEnd2End
		}
		p.know("task", "output.kind")
		if c.Stride > 1 {
			p.Input.MultipleOf = c.Stride
			p.know("input.multiple_of")
		}
		if size != nil {
			antialias := false
			p.Preprocess = transforms.Spec{
				Backend: transforms.Torch, Antialias: &antialias, Interpolation: transforms.Bilinear,
				Resize:    transforms.ResizeSpec{Rule: transforms.RuleLetterbox, Size: size},
				Normalize: transforms.NormalizeNone,
			}
			p.know("preprocess")
		}
	case "classify":
		p.Task, p.Output.Activation = TaskClassification, ActivationNone // its files end with the softmax
		p.know("task", "output.activation")
		if size != nil {
			p.Preprocess = transforms.Spec{
				Backend: transforms.PIL, Interpolation: transforms.Bilinear,
				Resize:    transforms.ResizeSpec{Rule: transforms.RuleShortestEdge, Size: []int{min(size[0], size[1])}},
				Crop:      transforms.CropSpec{Rule: transforms.CropCenter, Size: size},
				Normalize: transforms.NormalizeNone,
			}
			if size[0] != size[1] {
				p.Preprocess.Resize = transforms.ResizeSpec{Rule: transforms.RuleCover, Size: size}
			}
			p.know("preprocess")
		}
	case "":
	default:
		p.note("task: got %s, want detect or classify", quote(c.Task))
	}
	return p, nil
}

// pixelSize reads a side, or [H, W]; nothing where there is none.
func pixelSize(text json.RawMessage) ([]int, error) {
	if len(text) == 0 || string(text) == "null" {
		return nil, nil
	}
	var side int
	if json.Unmarshal(text, &side) == nil {
		return []int{side, side}, sides("size", []int{side, side}, maxPixels)
	}
	var size []int
	if err := json.Unmarshal(text, &size); err != nil {
		return nil, fmt.Errorf("got %s, want a side or height and width", quote(string(text)))
	}
	if len(size) == 1 {
		size = append(size, size[0])
	}
	return size, sides("size", size, maxPixels)
}

// ParseLabels reads the names of classes from JSON: a list, or an object of names by number, as id2label of
// transformers and names of ultralytics. Numbers that it leaves out have the name N/A.
func ParseLabels(text []byte) ([]string, error) {
	var list []string
	if json.Unmarshal(text, &list) == nil {
		return list, nil
	}
	var dict map[string]string
	if err := json.Unmarshal(text, &dict); err != nil {
		return nil, errors.New("got neither a list of names nor a dict of names by number")
	}
	byIndex := make(map[int]string, len(dict))
	last := -1
	for key, name := range dict {
		i, err := strconv.Atoi(key)
		if err != nil || i < 0 || i >= maxLabels || i > 1000+20*len(dict) {
			return nil, fmt.Errorf("got the key %s, want numbers from 0", quote(key))
		}
		byIndex[i] = name
		last = max(last, i)
	}
	labels := make([]string, last+1)
	for i := range labels {
		name, ok := byIndex[i]
		if !ok {
			name = "N/A"
		}
		labels[i] = name
	}
	return labels, nil
}

// partOfPreprocessor reads preprocessor_config.json, as transformers 5 carries it out: on torch's tensors.
func partOfPreprocessor(text []byte) (*partial, error) {
	spec, err := transforms.SpecFromHuggingFace(text, transforms.Torch)
	if err != nil {
		return nil, err
	}
	p := &partial{}
	p.Preprocess = spec
	p.know("preprocess")
	if size := sizeOf(&spec); size != nil {
		p.Input.Size = size
		p.know("input.size")
	}
	return p, nil
}

// partOfProcessor reads processor_config.json, which holds preprocessor_config.json for models of images and
// text.
func partOfProcessor(text []byte) (*partial, error) {
	var c struct {
		ImageProcessor json.RawMessage `json:"image_processor"`
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, err
	}
	if c.ImageProcessor == nil {
		return &partial{}, nil
	}
	return partOfPreprocessor(c.ImageProcessor)
}

// partOfConfig reads config.json of timm or of transformers.
func partOfConfig(text []byte) (*partial, error) {
	var c struct {
		Architecture  string          `json:"architecture"`
		PretrainedCfg json.RawMessage `json:"pretrained_cfg"`
		ModelType     string          `json:"model_type"`
		Architectures []string        `json:"architectures"`
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, err
	}
	switch {
	case c.PretrainedCfg != nil || c.Architecture != "" && c.ModelType == "":
		return partOfTimm(text)
	case c.ModelType != "" || len(c.Architectures) > 0:
		return partOfTransformers(text)
	}
	return nil, errors.New("got neither timm's architecture and pretrained_cfg nor transformers' model_type")
}

// partOfTimm reads timm's config.json, as it is on the Hugging Face hub.
func partOfTimm(text []byte) (*partial, error) {
	type timm struct {
		Architecture string            `json:"architecture"`
		NumClasses   *int              `json:"num_classes"`
		LabelNames   json.RawMessage   `json:"label_names"`
		Descriptions map[string]string `json:"label_descriptions"`
	}
	var c struct {
		timm
		PretrainedCfg timm `json:"pretrained_cfg"`
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, err
	}
	p := &partial{}
	inner := c.PretrainedCfg
	if p.Architecture = cmp.Or(c.Architecture, inner.Architecture); p.Architecture != "" {
		p.know("architecture")
	}
	classes := c.NumClasses
	if classes == nil {
		classes = inner.NumClasses
	}
	if classes != nil {
		p.Task = TaskClassification
		if *classes == 0 {
			p.Task = TaskFeatures
		}
		p.know("task")
	}
	names, descriptions := c.LabelNames, c.Descriptions
	if names == nil {
		names = inner.LabelNames
	}
	if descriptions == nil {
		descriptions = inner.Descriptions
	}
	if names != nil && string(names) != "null" {
		labels, err := ParseLabels(names)
		if err != nil {
			p.note("label_names: %v", err)
		} else {
			for i, name := range labels {
				labels[i] = cmp.Or(descriptions[name], name)
			}
			p.Labels = labels
			p.know("labels")
		}
	}
	spec, err := transforms.SpecFromTimm(text)
	if err != nil {
		p.note("%v", err)
		return p, nil
	}
	p.Preprocess = spec
	p.know("preprocess")
	if size := sizeOf(&spec); size != nil {
		p.Input.Size = size
		p.know("input.size")
	}
	return p, nil
}

// Model types of transformers by what is known of them.
var (
	// prefixTokens is the number of tokens before the patches; registers come on top. The detection tokens of
	// YOLOS come after them.
	prefixTokens = map[string]int{
		"vit": 1, "deit": 2, "beit": 1, "data2vec-vision": 1, "dinov2": 1, "dinov2_with_registers": 1, "dinov3_vit": 1,
		"vit_msn": 1, "vit_mae": 1, "vit_hybrid": 1, "dpt": 1, "yolos": 1, "clip_vision_model": 1, "siglip_vision_model": 0, "ijepa": 0,
	}
	// sigmoidDetectors judge each class for itself.
	sigmoidDetectors = []string{
		"conditional_detr", "deformable_detr", "dab-detr", "deta", "rt_detr", "rt_detr_v2", "d_fine",
	}
	softmaxDetectors = []string{"detr", "yolos", "table-transformer"}
	// headTasks are the ends of transformers' class names.
	headTasks = []struct{ suffix, task string }{
		{"ForImageClassification", TaskClassification},
		{"ForImageClassificationWithTeacher", TaskClassification},
		{"ForSemanticSegmentation", TaskSegmentation},
		{"ForObjectDetection", TaskDetection},
		{"Model", TaskFeatures},
		{"Backbone", TaskFeatures},
	}
)

// partOfTransformers reads config.json of Hugging Face's transformers.
func partOfTransformers(text []byte) (*partial, error) {
	type size = json.RawMessage
	type model struct {
		ModelType  string          `json:"model_type"`
		PatchSize  size            `json:"patch_size"`
		ImageSize  size            `json:"image_size"`
		Layers     int             `json:"num_hidden_layers"`
		Heads      int             `json:"num_attention_heads"`
		HiddenSize int             `json:"hidden_size"`
		Registers  int             `json:"num_register_tokens"`
		ID2Label   json.RawMessage `json:"id2label"`
		Problem    string          `json:"problem_type"`
	}
	var c struct {
		model
		Architectures []string `json:"architectures"`
		Vision        *model   `json:"vision_config"`
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, err
	}
	p := &partial{}
	if len(c.Architectures) > 0 {
		p.Architecture = c.Architectures[0]
		p.know("architecture")
		for _, h := range headTasks {
			if strings.HasSuffix(p.Architecture, h.suffix) {
				p.Task = h.task
			}
		}
		if p.Task != "" {
			p.know("task")
		} else {
			p.note("architectures: got %s, which is for none of torchvit's tasks", quote(p.Architecture))
		}
	}
	switch {
	case p.Task != TaskDetection:
	case slices.Contains(sigmoidDetectors, c.ModelType):
		p.Output.Kind = OutputSetPredictionSigmoid
		p.know("output.kind")
	case slices.Contains(softmaxDetectors, c.ModelType):
		p.Output.Kind = OutputSetPrediction
		p.know("output.kind")
	}
	if p.Task != TaskFeatures && len(c.ID2Label) > 0 && string(c.ID2Label) != "null" {
		labels, err := ParseLabels(c.ID2Label)
		if err != nil {
			p.note("id2label: %v", err)
		} else if len(labels) > 0 {
			p.Labels = labels
			p.know("labels")
		}
	}
	if p.Task == TaskClassification {
		// What transformers' pipeline does.
		p.Output.Activation = ActivationSoftmax
		if c.Problem == "multi_label_classification" || len(p.Labels) == 1 {
			p.Output.Activation = ActivationSigmoid
		}
		p.know("output.activation")
	}
	m := c.model
	if c.Vision != nil {
		m = *c.Vision
	}
	if image, err := pixelSize(m.ImageSize); err != nil {
		p.note("image_size: %v", err)
	} else if image != nil {
		p.Input.Size = image
		p.know("input.size")
	}
	prefix, isViT := prefixTokens[m.ModelType]
	if !isViT {
		return p, nil
	}
	patch, err := pixelSize(m.PatchSize)
	if err != nil || patch == nil {
		return p, nil
	}
	p.Tokens = &Tokens{PatchSize: patch, Prefix: prefix + m.Registers, NumHeads: m.Heads, Depth: m.Layers, EmbedDim: m.HiddenSize}
	p.know("tokens.patch_size", "tokens.prefix")
	for _, f := range []struct {
		name  string
		value int
	}{{"tokens.num_heads", m.Heads}, {"tokens.depth", m.Layers}, {"tokens.embed_dim", m.HiddenSize}} {
		if f.value > 0 {
			p.know(f.name)
		}
	}
	return p, nil
}
