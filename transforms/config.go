package transforms

import (
	"encoding/json"
	"fmt"
	"math"
)

var (
	imagenetMean = []float64{0.485, 0.456, 0.406}
	imagenetStd  = []float64{0.229, 0.224, 0.225}
)

// SpecFromTimm reads the preprocess out of timm's config.json, or of its pretrained_cfg alone: what
// timm.data.create_transform makes of it for evaluation. Modes center, squash and border.
func SpecFromTimm(config []byte) (Spec, error) {
	type cfg struct {
		InputSize     []int     `json:"input_size"`
		Interpolation string    `json:"interpolation"`
		CropPct       float64   `json:"crop_pct"`
		CropMode      string    `json:"crop_mode"`
		Mean          []float64 `json:"mean"`
		Std           []float64 `json:"std"`
	}
	var file struct {
		cfg
		PretrainedCfg *cfg `json:"pretrained_cfg"`
	}
	if err := json.Unmarshal(config, &file); err != nil {
		return Spec{}, fmt.Errorf("timm config: %w: %w", ErrSpec, err)
	}
	c := file.cfg
	if file.PretrainedCfg != nil {
		c = *file.PretrainedCfg
	}
	if c.InputSize == nil {
		c.InputSize = []int{3, 224, 224}
	}
	if len(c.InputSize) != 3 || c.InputSize[0] != 3 && c.InputSize[0] != 1 {
		return Spec{}, fmt.Errorf("timm config: %w: input_size: got %v, want [3, H, W]", ErrSpec, c.InputSize)
	}
	if c.CropPct == 0 {
		c.CropPct = 0.875
	}
	if c.CropPct < 0 {
		return Spec{}, fmt.Errorf("timm config: %w: crop_pct: got %v, want more than 0", ErrSpec, c.CropPct)
	}
	if c.Mean == nil {
		c.Mean = imagenetMean
	}
	if c.Std == nil {
		c.Std = imagenetStd
	}
	if c.Interpolation == "" {
		c.Interpolation = string(Bicubic)
	}
	input := c.InputSize[1:]
	scale := []int{TimmSize(input[0], c.CropPct), TimmSize(input[1], c.CropPct)}
	s := Spec{
		Interpolation: Interpolation(c.Interpolation),
		Crop:          CropSpec{Rule: CropCenter, Size: input},
		Mean:          c.Mean, Std: c.Std, Normalize: NormalizeTorchvision,
	}
	switch {
	case c.CropMode == "squash":
		s.Resize = ResizeSpec{Rule: RuleExact, Size: scale}
	case c.CropMode == "border":
		s.Resize = ResizeSpec{Rule: RuleContain, Size: scale}
		for _, m := range c.Mean {
			s.Crop.Fill = append(s.Crop.Fill, round(255*m))
		}
	case c.CropMode != "" && c.CropMode != "center":
		return Spec{}, fmt.Errorf("timm config: %w: crop_mode: got %q, want center, squash or border", ErrSpec, c.CropMode)
	case scale[0] == scale[1]:
		s.Resize = ResizeSpec{Rule: RuleShortestEdge, Size: scale[:1]}
	default:
		s.Resize = ResizeSpec{Rule: RuleCover, Size: scale}
	}
	if err := s.Validate(); err != nil {
		return Spec{}, fmt.Errorf("timm config: %w", err)
	}
	return s, nil
}

// hfSize is a size of Hugging Face: {"height", "width"}, {"shortest_edge"[, "longest_edge"]},
// {"longest_edge"}, {"max_height", "max_width"}, or a number.
type hfSize struct {
	Height       int `json:"height"`
	Width        int `json:"width"`
	ShortestEdge int `json:"shortest_edge"`
	LongestEdge  int `json:"longest_edge"`
	MaxHeight    int `json:"max_height"`
	MaxWidth     int `json:"max_width"`
}

// UnmarshalJSON takes a number for a square.
func (s *hfSize) UnmarshalJSON(data []byte) error {
	var n int
	if json.Unmarshal(data, &n) == nil {
		*s = hfSize{Height: n, Width: n}
		return nil
	}
	type plain hfSize
	return json.Unmarshal(data, (*plain)(s))
}

// pillowFilters are the numbers that Hugging Face's "resample" holds.
var pillowFilters = []Interpolation{Nearest, Lanczos, Bilinear, Bicubic, Box, Hamming}

// SpecFromHuggingFace reads the preprocess out of Hugging Face's preprocessor_config.json. backend says
// which of its processors to follow: Torch for the torchvision ones, the default of transformers 5 ("fast"
// before), PIL for the others. do_pad means nothing here, because the photos of a batch have one size; what
// pads to a given size, and rescale factors other than 1/255, are refused.
func SpecFromHuggingFace(config []byte, backend Backend) (Spec, error) {
	var c struct {
		Type      string  `json:"image_processor_type"`
		OldType   string  `json:"feature_extractor_type"`
		DoResize  *bool   `json:"do_resize"`
		Size      *hfSize `json:"size"`
		Resample  *int    `json:"resample"`
		DoCrop    *bool   `json:"do_center_crop"`
		CropSize  *hfSize `json:"crop_size"`
		DoRescale *bool   `json:"do_rescale"`
		Factor    float64 `json:"rescale_factor"`
		DoNorm    *bool   `json:"do_normalize"`
		Mean      any     `json:"image_mean"`
		Std       any     `json:"image_std"`
		PadSize   any     `json:"pad_size"`
		Divisor   any     `json:"size_divisor"`
		KeepRatio *bool   `json:"keep_aspect_ratio"`
		Multiple  int     `json:"ensure_multiple_of"`
	}
	bad := func(format string, args ...any) (Spec, error) {
		return Spec{}, fmt.Errorf("preprocessor_config.json: %w: "+format, append([]any{ErrSpec}, args...)...)
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return bad("%w", err)
	}
	yes := func(b *bool) bool { return b == nil || *b }
	if backend == "" {
		backend = PIL
	}
	s := Spec{Backend: backend, Interpolation: Bilinear, Normalize: NormalizeTorchvision}
	if c.PadSize != nil || c.Divisor != nil {
		return bad("pad_size and size_divisor: got %v and %v, want none", c.PadSize, c.Divisor)
	}
	if c.Resample != nil {
		if *c.Resample < 0 || *c.Resample >= len(pillowFilters) {
			return bad("resample: got %d, want 0 to 5", *c.Resample)
		}
		s.Interpolation = pillowFilters[*c.Resample]
	}
	yolos := c.Type == "YolosImageProcessor" || c.Type == "YolosImageProcessorFast" || c.OldType == "YolosFeatureExtractor"
	if yes(c.DoResize) {
		z := c.Size
		switch {
		case z == nil:
			return bad("size: got none, want one with do_resize")
		case z.ShortestEdge > 0 && yolos:
			s.Resize = ResizeSpec{Rule: RuleYOLOS, Size: []int{z.ShortestEdge}, MaxSize: z.LongestEdge, MultipleOf: 16}
		case z.ShortestEdge > 0 && z.LongestEdge > 0:
			s.Resize = ResizeSpec{Rule: RuleDETR, Size: []int{z.ShortestEdge}, MaxSize: z.LongestEdge}
		case z.ShortestEdge > 0:
			s.Resize = ResizeSpec{Rule: RuleShortestEdge, Size: []int{z.ShortestEdge}}
		case z.LongestEdge > 0:
			s.Resize = ResizeSpec{Rule: RuleLongestEdge, Size: []int{z.LongestEdge}}
		case z.MaxHeight > 0 && z.MaxWidth > 0:
			s.Resize = ResizeSpec{Rule: RuleMax, Size: []int{z.MaxHeight, z.MaxWidth}}
		case c.KeepRatio != nil && *c.KeepRatio:
			s.Resize = ResizeSpec{Rule: RuleDPT, Size: []int{z.Height, z.Width}, MultipleOf: c.Multiple}
		default:
			s.Resize = ResizeSpec{Rule: RuleExact, Size: []int{z.Height, z.Width}, MultipleOf: c.Multiple}
		}
	}
	if c.DoCrop != nil && *c.DoCrop {
		if c.CropSize == nil {
			return bad("crop_size: got none, want one with do_center_crop")
		}
		s.Crop = CropSpec{Rule: CropCenterFloor, Size: []int{c.CropSize.Height, c.CropSize.Width}}
	}
	if !yes(c.DoRescale) {
		return bad("do_rescale: got false, want true")
	}
	if c.Factor != 0 && math.Abs(c.Factor*255-1) > 1e-9 {
		return bad("rescale_factor: got %v, want 1/255", c.Factor)
	}
	if !yes(c.DoNorm) {
		s.Normalize = NormalizeNone
	} else {
		var err error
		if s.Mean, err = threeNumbers("image_mean", c.Mean); err != nil {
			return bad("%w", err)
		}
		if s.Std, err = threeNumbers("image_std", c.Std); err != nil {
			return bad("%w", err)
		}
		if backend == Torch {
			s.Normalize = NormalizeFused
		}
	}
	if err := s.Validate(); err != nil {
		return Spec{}, fmt.Errorf("preprocessor_config.json: %w", err)
	}
	return s, nil
}

// threeNumbers takes a list of three, or one for all.
func threeNumbers(name string, v any) ([]float64, error) {
	switch v := v.(type) {
	case nil: // ViTImageProcessor's
		return []float64{0.5, 0.5, 0.5}, nil
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
