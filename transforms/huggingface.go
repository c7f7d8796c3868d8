package transforms

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
)

// hfSize is a size of Hugging Face: {"height", "width"}, {"shortest_edge"[, "longest_edge"]},
// {"longest_edge"}, {"max_height", "max_width"}, [height, width], or a number.
type hfSize struct {
	Height       int `json:"height"`
	Width        int `json:"width"`
	ShortestEdge int `json:"shortest_edge"`
	LongestEdge  int `json:"longest_edge"`
	MaxHeight    int `json:"max_height"`
	MaxWidth     int `json:"max_width"`

	side int // of a number, as files before 2023 have it: a square or the shorter edge
}

// UnmarshalJSON takes all forms.
func (s *hfSize) UnmarshalJSON(data []byte) error {
	*s = hfSize{}
	if json.Unmarshal(data, &s.side) == nil {
		return nil
	}
	var list []int
	if json.Unmarshal(data, &list) == nil {
		if len(list) != 2 {
			return fmt.Errorf("got a list of %d, want height and width", len(list))
		}
		s.Height, s.Width = list[0], list[1]
		return nil
	}
	type plain hfSize
	return json.Unmarshal(data, (*plain)(s))
}

// hfConfig is a preprocessor_config.json. null is Python's None, which counts as false.
type hfConfig struct {
	Type      string   `json:"image_processor_type"`
	OldType   string   `json:"feature_extractor_type"`
	DoResize  *bool    `json:"do_resize"`
	Size      *hfSize  `json:"size"`
	MaxSize   int      `json:"max_size"`
	Resample  *int     `json:"resample"`
	DoCrop    *bool    `json:"do_center_crop"`
	CropSize  *hfSize  `json:"crop_size"`
	CropPct   *float64 `json:"crop_pct"`
	DoRescale *bool    `json:"do_rescale"`
	Factor    float64  `json:"rescale_factor"`
	Offset    *bool    `json:"rescale_offset"`
	DoNorm    *bool    `json:"do_normalize"`
	Mean      any      `json:"image_mean"`
	Std       any      `json:"image_std"`
	DoPad     *bool    `json:"do_pad"`
	PadSize   any      `json:"pad_size"`
	Divisor   any      `json:"size_divisor"`
	KeepRatio *bool    `json:"keep_aspect_ratio"`
	Multiple  int      `json:"ensure_multiple_of"`
	Top       *bool    `json:"include_top"`
	Flip      *bool    `json:"do_flip_channel_order"`
}

const (
	hfHalf     = `"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5]`
	hfImageNet = `"image_mean":[0.485,0.456,0.406],"image_std":[0.229,0.224,0.225]`
	hfCLIP     = `"image_mean":[0.48145466,0.4578275,0.40821073],"image_std":[0.26862954,0.26130258,0.27577711]`
	hfSquare   = `"size":{"height":224,"width":224}`
	hfCrop     = `"do_center_crop":true,"crop_size":{"height":224,"width":224}`
	hfDETR     = `"size":{"shortest_edge":800,"longest_edge":1333},` + hfImageNet
)

// hfProcessors are the image processors of transformers whose arithmetic a Spec has, by name without
// "ImageProcessor", and what each takes where its file leaves it out. Steps are on by default, but the crop.
// The test compares each with Python's.
var hfProcessors = map[string]string{
	"ViT":                 hfSquare + `,"resample":2,` + hfHalf,
	"DeiT":                `"size":{"height":256,"width":256},"resample":3,` + hfCrop + `,` + hfHalf,
	"Beit":                hfSquare + `,"resample":3,"crop_size":{"height":224,"width":224},` + hfHalf,
	"Segformer":           `"size":{"height":512,"width":512},"resample":2,` + hfImageNet,
	"DPT":                 `"size":{"height":384,"width":384},"resample":3,` + hfHalf,
	"PromptDepthAnything": `"size":{"height":384,"width":384},"resample":3,` + hfHalf,
	"CLIP":                `"size":{"shortest_edge":224},"resample":3,` + hfCrop + `,` + hfCLIP,
	"ChineseCLIP":         `"size":{"shortest_edge":224},"resample":3,` + hfCrop + `,` + hfCLIP,
	"Bit":                 `"size":{"shortest_edge":224},"resample":3,` + hfCrop + `,` + hfCLIP,
	"Siglip":              hfSquare + `,"resample":3,` + hfHalf,
	"Blip":                `"size":{"height":384,"width":384},"resample":3,` + hfCLIP,
	"ConvNext":            `"size":{"shortest_edge":384},"resample":3,"crop_pct":0.875,` + hfHalf,
	"Levit":               `"size":{"shortest_edge":224},"resample":3,` + hfCrop + `,` + hfImageNet,
	"PoolFormer":          `"size":{"shortest_edge":224},"resample":3,"crop_pct":0.9,` + hfCrop + `,` + hfImageNet,
	"EfficientNet":        `"size":{"height":346,"width":346},"resample":3,"crop_size":{"height":289,"width":289},"include_top":true,` + hfHalf,
	"MobileViT":           `"size":{"shortest_edge":224},"resample":3,"do_center_crop":true,"crop_size":{"height":256,"width":256},"do_flip_channel_order":true`,
	"MobileNetV1":         `"size":{"shortest_edge":256},"resample":2,` + hfCrop + `,` + hfHalf,
	"MobileNetV2":         `"size":{"shortest_edge":256},"resample":2,` + hfCrop + `,` + hfHalf,
	"Pvt":                 hfSquare + `,"resample":3,` + hfImageNet,
	"Detr":                hfDETR,
	"ConditionalDetr":     hfDETR,
	"DeformableDetr":      hfDETR,
	"GroundingDino":       hfDETR,
	"Yolos":               hfDETR,
	"RTDetr":              `"size":{"height":640,"width":640},"do_normalize":false,` + hfImageNet,
	// Files without a type are older than the types; what they leave out is ViT's.
	"": `"resample":2,` + hfHalf,
}

// hfEdges are those whose size, where it is a number, is that of the shorter edge.
var hfEdges = []string{
	"CLIP", "ChineseCLIP", "Bit", "ConvNext", "Levit", "PoolFormer", "MobileViT", "MobileNetV1", "MobileNetV2",
	"Detr", "ConditionalDetr", "DeformableDetr", "GroundingDino", "Yolos", "RTDetr",
}

// hfFamily is the name of a processor without the ending that says of which release and backend it is.
func hfFamily(name string) string {
	for _, end := range []string{"ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor"} {
		if rest, ok := strings.CutSuffix(name, end); ok {
			return rest
		}
	}
	return name
}

// pillowFilters are the numbers that Hugging Face's "resample" holds.
var pillowFilters = []Interpolation{Nearest, Lanczos, Bilinear, Bicubic, Box, Hamming}

// SpecFromHuggingFace reads the preprocess out of Hugging Face's preprocessor_config.json. backend says
// which of its processors to follow: Torch for the torchvision ones, the default of transformers 5 ("fast"
// before), PIL for the others; "" is PIL. What a file leaves out is as its processor has it. do_pad without
// a size means nothing here, because the photos of a batch have one size, and neither does
// do_reduce_labels, which is about labels.
//
// Processors that this package does not know, and steps that a [Spec] cannot say, are an ErrSpec: padding to
// a given size or multiple, other rescale factors than 1/255, EfficientNet's second normalization
// (include_top), DINOv3's resize after the rescale.
func SpecFromHuggingFace(config []byte, backend Backend) (Spec, error) {
	s, err := specFromHuggingFace(config, backend)
	if err != nil {
		return Spec{}, fmt.Errorf("preprocessor_config.json: %w", err)
	}
	return s, nil
}

func specFromHuggingFace(config []byte, backend Backend) (Spec, error) {
	bad := func(format string, args ...any) (Spec, error) {
		return Spec{}, fmt.Errorf("%w: "+format, append([]any{ErrSpec}, args...)...)
	}
	var c hfConfig
	if err := json.Unmarshal(config, &c); err != nil {
		return bad("%w", err)
	}
	name := c.Type
	if name == "" {
		name = c.OldType
	}
	family := hfFamily(name)
	if family == "TimmWrapper" {
		return SpecFromTimm(config)
	}
	defaults, known := hfProcessors[family]
	if !known {
		return bad("image_processor_type: got %.60q, which is none of the processors that this package knows", name)
	}
	c = hfConfig{DoResize: new(true), DoRescale: new(true), DoNorm: new(true)}
	for _, text := range []string{"{" + defaults + "}", string(config)} {
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			return bad("%w", err)
		}
	}
	if backend == "" {
		backend = PIL
	}
	s := Spec{Backend: backend, Interpolation: Bilinear}
	if (c.PadSize != nil || c.Divisor != nil) && (c.DoPad == nil || *c.DoPad) {
		return bad("pad_size and size_divisor: got %v and %v, want none", c.PadSize, c.Divisor)
	}
	if c.Resample != nil {
		if *c.Resample < 0 || *c.Resample >= len(pillowFilters) {
			return bad("resample: got %d, want 0 to 5", *c.Resample)
		}
		s.Interpolation = pillowFilters[*c.Resample]
		if s.Interpolation == Nearest && backend == Torch {
			s.Interpolation = NearestExact // torch's name for Pillow's nearest
		}
	}
	if yes(c.DoResize) {
		if c.Size == nil {
			return bad("size: got none, want one with do_resize")
		}
		c.Size.spread(slices.Contains(hfEdges, family), c.MaxSize)
		if err := c.resize(&s, family); err != nil {
			return bad("%w", err)
		}
	}
	if yes(c.DoCrop) && family != "Segformer" && s.Crop.Rule == "" { // Segformer's does not crop
		if c.CropSize == nil {
			return bad("crop_size: got none, want one with do_center_crop")
		}
		c.CropSize.spread(false, 0)
		s.Crop = CropSpec{Rule: CropCenterFloor, Size: []int{c.CropSize.Height, c.CropSize.Width}}
	}
	if err := c.levels(&s, family); err != nil {
		return bad("%w", err)
	}
	if err := s.Validate(); err != nil {
		return Spec{}, err
	}
	return s, nil
}

func yes(b *bool) bool { return b != nil && *b }

// spread makes a number a square, or the shorter edge.
func (s *hfSize) spread(edge bool, maxSize int) {
	switch {
	case s.side == 0:
	case edge:
		s.ShortestEdge, s.LongestEdge = s.side, maxSize
	default:
		s.Height, s.Width = s.side, s.side
	}
}

func (c *hfConfig) resize(s *Spec, family string) error {
	z := c.Size
	switch {
	case family == "ConvNext":
		edge := z.ShortestEdge
		switch {
		case edge <= 0:
			return fmt.Errorf("size: got no shortest_edge, want one for %s", family)
		case edge >= 384: // stretched
			s.Resize = ResizeSpec{Rule: RuleExact, Size: []int{edge, edge}}
		case c.CropPct == nil || *c.CropPct <= 0:
			return fmt.Errorf("crop_pct: got none, want more than 0")
		default:
			s.Resize = ResizeSpec{Rule: RuleShortestEdge, Size: []int{int(float64(edge) / *c.CropPct)}}
			s.Crop = CropSpec{Rule: CropCenterFloor, Size: []int{edge, edge}}
		}
	case family == "PoolFormer" && c.CropPct != nil && *c.CropPct > 0:
		edge := z.ShortestEdge
		if edge == 0 && z.Height == z.Width {
			edge = z.Height
		}
		if edge == 0 {
			return fmt.Errorf("size: got %d x %d, want a square or shortest_edge for %s", z.Height, z.Width, family)
		}
		s.Resize = ResizeSpec{Rule: RuleShortestEdge, Size: []int{int(float64(edge) / *c.CropPct)}}
	case family == "Levit" && z.ShortestEdge > 0:
		s.Resize = ResizeSpec{Rule: RuleShortestEdge, Size: []int{int(256.0 / 224.0 * float64(z.ShortestEdge))}}
	case z.ShortestEdge > 0 && family == "Yolos":
		s.Resize = ResizeSpec{Rule: RuleYOLOS, Size: []int{z.ShortestEdge}, MaxSize: z.LongestEdge, MultipleOf: 16}
	case z.ShortestEdge > 0 && z.LongestEdge > 0:
		s.Resize = ResizeSpec{Rule: RuleDETR, Size: []int{z.ShortestEdge}, MaxSize: z.LongestEdge}
	case z.ShortestEdge > 0:
		s.Resize = ResizeSpec{Rule: RuleShortestEdge, Size: []int{z.ShortestEdge}}
	case z.LongestEdge > 0:
		s.Resize = ResizeSpec{Rule: RuleLongestEdge, Size: []int{z.LongestEdge}}
	case z.MaxHeight > 0 && z.MaxWidth > 0:
		s.Resize = ResizeSpec{Rule: RuleMax, Size: []int{z.MaxHeight, z.MaxWidth}}
	case yes(c.KeepRatio):
		s.Resize = ResizeSpec{Rule: RuleDPT, Size: []int{z.Height, z.Width}, MultipleOf: c.Multiple}
	default:
		s.Resize = ResizeSpec{Rule: RuleExact, Size: []int{z.Height, z.Width}}
		if c.Multiple > 1 {
			s.Resize.MultipleOf = c.Multiple
		}
	}
	return nil
}

func (c *hfConfig) levels(s *Spec, family string) error {
	switch {
	case !yes(c.DoRescale):
		return fmt.Errorf("do_rescale: got false, want true")
	case c.Factor != 0 && math.Abs(c.Factor*255-1) > 1e-9:
		return fmt.Errorf("rescale_factor: got %v, want 1/255", c.Factor)
	case yes(c.Offset):
		return fmt.Errorf("rescale_offset: got true, want false")
	}
	if family == "MobileViT" {
		c.DoNorm = nil // it has no such step
		if yes(c.Flip) {
			s.ChannelOrder = "BGR"
		}
	}
	if !yes(c.DoNorm) {
		s.Normalize = NormalizeNone
		if s.Backend == Torch { // v * (1/255), where Pillow's give v / 255
			s.Normalize, s.Mean, s.Std = NormalizeV2, []float64{0, 0, 0}, []float64{1, 1, 1}
		}
		return nil
	}
	if family == "EfficientNet" && yes(c.Top) {
		return fmt.Errorf("include_top: got true, a second normalization, want false")
	}
	s.Normalize = NormalizeTorchvision
	if s.Backend == Torch {
		s.Normalize = NormalizeFused
	}
	var err error
	if s.Mean, err = threeNumbers("image_mean", c.Mean); err != nil {
		return err
	}
	s.Std, err = threeNumbers("image_std", c.Std)
	return err
}

// threeNumbers takes a list of three, or one for all.
func threeNumbers(name string, v any) ([]float64, error) {
	switch v := v.(type) {
	case float64:
		return []float64{v, v, v}, nil
	case []any:
		var out []float64
		for _, x := range v {
			if f, ok := x.(float64); ok {
				out = append(out, f)
			}
		}
		if len(out) == len(v) && len(v) == 3 {
			return out, nil
		}
	}
	return nil, fmt.Errorf("%s: got %v, want three numbers", name, v)
}
