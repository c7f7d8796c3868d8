package transforms

import (
	"encoding/json"
	"fmt"
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
