package transforms

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/torch"
)

// Transform is one step from a photo to a model's input.
type Transform interface {
	// Apply gives a new image, which the caller closes; img stays the caller's. The two may share memory.
	Apply(ctx context.Context, img *Image) (*Image, error)
}

// Compose is torchvision's Compose: the transforms in order. What lies between is closed.
type Compose []Transform

// Apply implements Transform.
func (c Compose) Apply(ctx context.Context, img *Image) (*Image, error) {
	out, err := img.alias()
	if err != nil {
		return nil, err
	}
	for _, t := range c {
		next, err := t.Apply(ctx, out)
		out.Close()
		if err != nil {
			return nil, err
		}
		out = next
	}
	return out, nil
}

// Resize is torchvision's Resize.
type Resize struct {
	// Size is [S] for the shorter side, the longer following, or [H, W].
	Size []int
	// MaxSize limits the longer side where Size is [S]; 0 does not.
	MaxSize int
	// Rule replaces what Size alone says, with one of the Rule constants.
	Rule string
	// MultipleOf > 0 takes both sides to the nearest multiple.
	MultipleOf int
	// Interpolation is Bilinear by default, as in torchvision.
	Interpolation Interpolation
	// NoAntialias turns off antialias for the backend Torch; Pillow always has it.
	NoAntialias bool
	// Backend is PIL by default. An image of float32 needs Torch.
	Backend Backend
	// PassOrder is Pillow13 by default.
	PassOrder PassOrder
}

// Apply implements Transform.
func (r Resize) Apply(ctx context.Context, img *Image) (*Image, error) {
	rule := ResizeSpec{Rule: r.Rule, Size: r.Size, MaxSize: r.MaxSize, MultipleOf: r.MultipleOf}
	if rule.Rule == "" {
		rule.Rule = RuleExact
		if len(r.Size) == 1 {
			rule.Rule = RuleShortestEdge
		}
	}
	how := resizing{filter: r.Interpolation, backend: r.Backend, antialias: !r.NoAntialias, order: r.PassOrder}
	if err := how.validate(); err != nil {
		return nil, err
	}
	if err := rule.validate(); err != nil {
		return nil, err
	}
	size := rule.Resized(Size{img.Height(), img.Width()})
	if err := checkResized(size); err != nil {
		return nil, err
	}
	if err := (DecodeOptions{}).check("output", size.Height, size.Width); err != nil {
		return nil, err
	}
	out, err := how.apply(ctx, img, size)
	if err != nil {
		return nil, err
	}
	g := img.geometry
	if g.OutputHeight == img.Height() && g.OutputWidth == img.Width() && g.Whole() {
		g.ResizedHeight, g.ResizedWidth = size.Height, size.Width
		g.OutputHeight, g.OutputWidth = size.Height, size.Width
	} else {
		// A window of a photo that is resized again: no one rectangle of integers says it all.
		g = wholePhoto(size.Height, size.Width)
	}
	out.geometry = g
	if rule.Rule != RuleLetterbox {
		return out, nil
	}
	canvas := hw(rule.Size)
	top, left := LetterboxOffset(size, canvas)
	boxed, err := out.window(ctx, -top, -left, canvas, letterboxFill)
	out.Close()
	return boxed, err
}

// letterboxFill is the grey that ultralytics pads with.
const letterboxFill = 114

// window is a part of the image, filled where it lies outside.
func (m *Image) window(ctx context.Context, top, left int, size Size, fill uint8) (*Image, error) {
	var out *Image
	if m.dtype == torch.Uint8 {
		plan := cgo.ImagePlan{
			Height: m.layout.Height, Width: m.layout.Width,
			Top: int64(top), Left: int64(left), WindowHeight: int64(size.Height), WindowWidth: int64(size.Width),
			Fill: [4]uint8{fill, fill, fill, fill},
		}
		var err error
		if out, err = m.planned(ctx, &plan); err != nil {
			return nil, err
		}
	} else {
		t, err := m.Tensor()
		if err != nil {
			return nil, err
		}
		defer t.Close()
		// A negative pad crops.
		padded, err := torch.CallTensor(ctx, "aten::constant_pad_nd", t, []int{
			-left, left + size.Width - m.Width(), -top, top + size.Height - m.Height(),
		}, float64(fill))
		if err != nil {
			return nil, err
		}
		defer padded.Close()
		if out, err = FromTensor(padded); err != nil {
			return nil, err
		}
	}
	out.geometry = m.geometry.window(top, left, size.Height, size.Width)
	return out, nil
}

// CenterCrop is torchvision's CenterCrop. An image that is smaller is padded with 0 first.
type CenterCrop struct {
	// Size is [S] for a square, or [H, W].
	Size []int
	// Floor rounds the corner down, as Hugging Face does, where torchvision takes halves to even.
	Floor bool
}

// Apply implements Transform.
func (c CenterCrop) Apply(ctx context.Context, img *Image) (*Image, error) {
	if err := validSize("size of the crop", c.Size, 1, 2); err != nil {
		return nil, err
	}
	rule := CenterCropWindow
	if c.Floor {
		rule = FloorCropWindow
	}
	size := hw(c.Size)
	if err := (DecodeOptions{}).check("output", size.Height, size.Width); err != nil {
		return nil, err
	}
	top, left := rule(Size{img.Height(), img.Width()}, size)
	return img.window(ctx, top, left, size, 0)
}

// Pad is torchvision's Pad with padding_mode "constant". Negative numbers crop.
type Pad struct {
	Left, Top, Right, Bottom int
	// Fill is the level of the padding; the same number in an image of float32.
	Fill uint8
}

// Apply implements Transform.
func (p Pad) Apply(ctx context.Context, img *Image) (*Image, error) {
	for _, v := range []int{p.Left, p.Top, p.Right, p.Bottom} {
		if v < -maxSide || v > maxSide {
			return nil, fmt.Errorf("%w: pad: got %d, want at most %d on each side", ErrSpec, v, maxSide)
		}
	}
	size := Size{img.Height() + p.Top + p.Bottom, img.Width() + p.Left + p.Right}
	if size.Height < 1 || size.Width < 1 {
		return nil, fmt.Errorf("%w: pad: got %d x %d pixels left of %d x %d, want at least one", ErrSpec, size.Width, size.Height, img.Width(), img.Height())
	}
	if err := (DecodeOptions{}).check("output", size.Height, size.Width); err != nil {
		return nil, err
	}
	return img.window(ctx, -p.Top, -p.Left, size, p.Fill)
}

// ToTensor is torchvision's ToTensor: uint8 to float32 in 0..1, row-major (C, H, W), v / 255. An image of
// float32 stays as it is.
type ToTensor struct{}

// Apply implements Transform.
func (ToTensor) Apply(ctx context.Context, img *Image) (*Image, error) {
	if img.dtype == torch.Float32 {
		return img.alias()
	}
	table, err := NormalizeNone.table(nil, nil, img.Channels())
	if err != nil {
		return nil, err
	}
	l := img.layout
	t, err := torch.Empty([]int64{l.Channels, l.Height, l.Width}, torch.TensorOptions{})
	if err != nil {
		return nil, err
	}
	if err := takeLight(ctx); err != nil {
		t.Close()
		return nil, err
	}
	defer leaveLight()
	err = torch.WithData(t, func(dst []float32) error {
		return toFloat(img, wholePhoto(img.Height(), img.Width()), resizing{filter: Nearest}, [4]uint8{}, table, dst)
	})
	if err != nil {
		t.Close()
		return nil, err
	}
	out := ofPixels(t, planar(img.Height(), img.Width(), img.Channels()), torch.Float32)
	out.geometry = img.geometry
	return out, nil
}

// toFloat writes the window of the resized image through the table to dst, (C, H, W) row-major.
func toFloat(img *Image, g Geometry, how resizing, fill [4]uint8, table, dst []float32) error {
	filter, err := how.filter.pillow()
	if err != nil {
		return err
	}
	plan := cgo.ImagePlan{
		Height: int64(g.ResizedHeight), Width: int64(g.ResizedWidth),
		Top: int64(g.Top), Left: int64(g.Left), WindowHeight: int64(g.OutputHeight), WindowWidth: int64(g.OutputWidth),
		Fill: fill, Filter: filter, PassOrder: int32(how.order),
	}
	layout := img.layout
	if n := int64(len(table) / 256); layout.Channels == 1 && n > 1 { // grey to all channels
		layout.Channels, layout.StrideChannel = n, 0
	}
	stride := cgo.ImageStride{Row: plan.WindowWidth, Pixel: 1, Channel: plan.WindowHeight * plan.WindowWidth}
	return img.bytes(func(src []byte) error {
		return torch.WrapStatus("preprocess", cgo.ImageToFloat(src, &layout, &plan, table, dst, stride))
	})
}

// Normalize is torchvision's Normalize: (x - mean) / std for each channel, in float32. It comes after
// ToTensor.
type Normalize struct {
	Mean, Std []float64
}

// Apply implements Transform.
func (n Normalize) Apply(ctx context.Context, img *Image) (*Image, error) {
	if img.dtype != torch.Float32 {
		return nil, fmt.Errorf("normalize: %w: got an image of %s, want float32: put ToTensor before it", torch.ErrDType, img.dtype)
	}
	if len(n.Mean) != img.Channels() || len(n.Std) != img.Channels() {
		return nil, fmt.Errorf("%w: normalize: got mean %v and std %v, want %d numbers each", ErrSpec, n.Mean, n.Std, img.Channels())
	}
	for _, s := range n.Std {
		if float32(s) == 0 {
			return nil, fmt.Errorf("%w: normalize: got std %v, want no zeros", ErrSpec, n.Std)
		}
	}
	if err := takeLight(ctx); err != nil {
		return nil, err
	}
	defer leaveLight()
	l := img.layout
	out, err := torch.Empty([]int64{l.Channels, l.Height, l.Width}, torch.TensorOptions{})
	if err != nil {
		return nil, err
	}
	err = torch.WithData(img.pixels, func(src []float32) error {
		return torch.WithData(out, func(dst []float32) error {
			i := 0
			for c := range l.Channels {
				mean, std := float32(n.Mean[c]), float32(n.Std[c])
				for y := range l.Height {
					at := c*l.StrideChannel + y*l.StrideRow
					for range l.Width {
						dst[i] = float32(src[at]-mean) / std
						i++
						at += l.StridePixel
					}
				}
			}
			return nil
		})
	})
	if err != nil {
		out.Close()
		return nil, err
	}
	result := ofPixels(out, planar(img.Height(), img.Width(), img.Channels()), torch.Float32)
	result.geometry = img.geometry
	return result, nil
}
