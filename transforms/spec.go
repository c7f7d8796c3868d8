package transforms

import (
	"fmt"
	"slices"
)

// Spec is the "preprocess" section of a model file (torchvit.json): how a photo becomes the model's
// input. The zero value decodes and divides by 255. Steps, in order: decode to RGB, resize, crop, to
// float, normalise.
type Spec struct {
	// Backend is whose arithmetic the resize has; "" is PIL.
	Backend Backend `json:"backend,omitempty"`
	// Resize is the size rule.
	Resize ResizeSpec `json:"resize"`
	// Interpolation is the filter; "" is Bilinear.
	Interpolation Interpolation `json:"interpolation,omitempty"`
	// Antialias is for the backend Torch; nil is true. Pillow always has it.
	Antialias *bool `json:"antialias,omitempty"`
	// Crop comes after the resize.
	Crop CropSpec `json:"crop"`
	// Mean and Std are per channel, for values of 0..1.
	Mean []float64 `json:"mean,omitempty"`
	Std  []float64 `json:"std,omitempty"`
	// Normalize is how bytes become floats; "" is NormalizeTorchvision, or NormalizeNone without mean and
	// std.
	Normalize Normalization `json:"normalize,omitempty"`
	// ChannelOrder is "RGB", which is also "", or "BGR": then blue is channel 0 of the tensor. Mean and Std
	// are in the order of the tensor's channels.
	ChannelOrder string `json:"channel_order,omitempty"`
}

// CropSpec is the "crop" part of a Spec. The zero value does not crop.
type CropSpec struct {
	// Rule is "none", "center" (torchvision's CenterCrop) or "center_floor" (Hugging Face's).
	Rule string `json:"rule,omitempty"`
	// Size is [H, W].
	Size []int `json:"size,omitempty"`
	// Fill is the level of each channel where the photo is smaller than the crop; none is 0.
	Fill []int `json:"fill,omitempty"`
}

// Crop rules.
const (
	CropNone        = "none"
	CropCenter      = "center"
	CropCenterFloor = "center_floor"
)

func (s *Spec) crops() bool { return s.Crop.Rule == CropCenter || s.Crop.Rule == CropCenterFloor }

func (s *Spec) resizing() resizing {
	return resizing{filter: s.Interpolation, backend: s.Backend, antialias: s.Antialias == nil || *s.Antialias}
}

// channels is 1 for a model of grey images, which has one mean.
func (s *Spec) channels() int {
	if len(s.Mean) == 1 {
		return 1
	}
	return 3
}

// Validate gives an ErrSpec for a description that cannot be carried out.
func (s *Spec) Validate() error {
	if err := s.resizing().validate(); err != nil {
		return err
	}
	if err := s.Resize.validate(); err != nil {
		return err
	}
	switch s.Crop.Rule {
	case "", CropNone:
	case CropCenter, CropCenterFloor:
		if err := validSize("crop.size", s.Crop.Size, 1, 2); err != nil {
			return err
		}
		if n := len(s.Crop.Fill); n > 0 && n != s.channels() || slices.ContainsFunc(s.Crop.Fill, func(v int) bool { return v < 0 || v > 255 }) {
			return fmt.Errorf("%w: crop.fill: got %v, want %d levels of 0 to 255", ErrSpec, s.Crop.Fill, s.channels())
		}
	default:
		return fmt.Errorf("%w: crop.rule: got %q, want none, center or center_floor", ErrSpec, s.Crop.Rule)
	}
	if s.Resize.Rule == RuleLetterbox && s.crops() {
		if crop, canvas := hw(s.Crop.Size), hw(s.Resize.Size); crop.Height > canvas.Height || crop.Width > canvas.Width {
			return fmt.Errorf("%w: crop.size: got %v, want at most the letterbox's %v", ErrSpec, s.Crop.Size, s.Resize.Size)
		}
	}
	if s.ChannelOrder != "" && s.ChannelOrder != "RGB" && (s.ChannelOrder != "BGR" || s.channels() != 3) {
		return fmt.Errorf("%w: channel_order: got %q, want RGB or, for three channels, BGR", ErrSpec, s.ChannelOrder)
	}
	_, err := s.table()
	return err
}

// table is that of Normalize, channel by channel of the photo, red first.
func (s *Spec) table() ([]float32, error) {
	t, err := s.Normalize.table(s.Mean, s.Std, s.channels())
	if err == nil && s.ChannelOrder == "BGR" {
		for i := range 256 {
			t[i], t[512+i] = t[512+i], t[i]
		}
	}
	return t, err
}

// Plan is what becomes of a photo of that size. The spec must be a valid one.
func (s *Spec) Plan(photo Size) (Geometry, error) {
	r := s.Resize.Resized(photo)
	if err := checkResized(r); err != nil {
		return Geometry{}, err
	}
	g := Geometry{
		Height: photo.Height, Width: photo.Width, ResizedHeight: r.Height, ResizedWidth: r.Width,
		OutputHeight: r.Height, OutputWidth: r.Width,
	}
	if s.Resize.Rule == RuleLetterbox {
		canvas := hw(s.Resize.Size)
		top, left := LetterboxOffset(r, canvas)
		g = g.window(-top, -left, canvas.Height, canvas.Width)
	}
	if s.crops() {
		rule := CenterCropWindow
		if s.Crop.Rule == CropCenterFloor {
			rule = FloorCropWindow
		}
		size := hw(s.Crop.Size)
		top, left := rule(Size{g.OutputHeight, g.OutputWidth}, size)
		g = g.window(top, left, size.Height, size.Width)
	}
	return g, nil
}

// OutputSize is the size of every tensor, where it does not depend on the photo.
func (s *Spec) OutputSize() (size Size, fixed bool) {
	switch {
	case s.crops():
		return hw(s.Crop.Size), true
	case s.Resize.Rule == RuleLetterbox:
		return hw(s.Resize.Size), true
	case s.Resize.Rule == RuleExact:
		return s.Resize.Resized(Size{}), true
	}
	return Size{}, false
}

// fill is the level of each channel outside the photo.
func (s *Spec) fill() (fill [4]uint8) {
	if s.Resize.Rule == RuleLetterbox {
		return [4]uint8{letterboxFill, letterboxFill, letterboxFill, letterboxFill}
	}
	for c, v := range s.Crop.Fill {
		if s.ChannelOrder == "BGR" {
			c = 2 - c
		}
		fill[c] = uint8(v)
	}
	return fill
}

func checkResized(s Size) error {
	if s.Height < 1 || s.Width < 1 {
		return fmt.Errorf("%w: resize: got %d x %d pixels, want at least one", ErrSpec, s.Width, s.Height)
	}
	if s.Height > maxSide || s.Width > maxSide {
		return &SizeError{What: "output", Height: s.Height, Width: s.Width, Limit: maxSide}
	}
	return nil
}
