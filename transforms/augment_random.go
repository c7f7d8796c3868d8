package transforms

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// The random transforms below draw their parameters from a *rand.Rand, in the order of torchvision's
// make_params. The numbers are Go's and not those of torch's generator; the rules are torchvision's.

// uniform is a number of low to high.
func uniform(r *rand.Rand, low, high float64) float64 { return low + r.Float64()*(high-low) }

// RandomResizedCrop is torchvision's: a part of the photo of random area and aspect ratio, resized to Size.
type RandomResizedCrop struct {
	// Size is that of the result.
	Size Size
	// Scale bounds the part's share of the photo's area; zeros are 0.08 to 1.
	Scale [2]float64
	// Ratio bounds its width over its height; zeros are 3/4 to 4/3.
	Ratio [2]float64
	// Interpolation is Bilinear by default.
	Interpolation Interpolation
}

func (t RandomResizedCrop) bounds() (scale, ratio [2]float64) {
	scale, ratio = t.Scale, t.Ratio
	if scale == ([2]float64{}) {
		scale = [2]float64{0.08, 1}
	}
	if ratio == ([2]float64{}) {
		ratio = [2]float64{3.0 / 4, 4.0 / 3}
	}
	return scale, ratio
}

// Validate gives ErrSpec for parameters that make no sense.
func (t RandomResizedCrop) Validate() error {
	scale, ratio := t.bounds()
	if err := validSize("random resized crop", []int{t.Size.Height, t.Size.Width}, 2); err != nil {
		return err
	}
	if !(scale[0] >= 0 && scale[0] <= scale[1] && scale[1] <= 1 && scale[1] > 0) {
		return fmt.Errorf("%w: random resized crop: got scale %v, want increasing shares of 0 to 1", ErrSpec, t.Scale)
	}
	if !(ratio[0] > 0 && ratio[0] <= ratio[1] && ratio[1] <= 1e6) {
		return fmt.Errorf("%w: random resized crop: got ratio %v, want increasing numbers above 0", ErrSpec, t.Ratio)
	}
	_, err := t.Interpolation.pillow()
	return err
}

// Params draws a part of a photo of that size. After ten parts that do not fit it is the largest central one of an
// allowed ratio, as in torchvision. The parameters must be valid.
func (t RandomResizedCrop) Params(r *rand.Rand, photo Size) View {
	scale, ratio := t.bounds()
	c := Rect{0, 0, photo.Height, photo.Width}
	found := false
	for range 10 {
		area := float64(photo.Height*photo.Width) * uniform(r, scale[0], scale[1])
		aspect := math.Exp(uniform(r, math.Log(ratio[0]), math.Log(ratio[1])))
		w, h := round(math.Sqrt(float64(area*aspect))), round(math.Sqrt(area/aspect))
		if found = 0 < w && w <= photo.Width && 0 < h && h <= photo.Height; found {
			c = Rect{r.IntN(photo.Height - h + 1), r.IntN(photo.Width - w + 1), h, w}
			break
		}
	}
	if !found {
		switch have := float64(photo.Width) / float64(photo.Height); {
		case have < ratio[0]:
			c.Height = max(1, round(float64(c.Width)/ratio[0]))
		case have > ratio[1]:
			c.Width = max(1, round(float64(c.Height)*ratio[1]))
		}
		c.Top, c.Left = (photo.Height-c.Height)/2, (photo.Width-c.Width)/2
	}
	return View{Crop: c, Resized: t.Size, Window: Rect{0, 0, t.Size.Height, t.Size.Width}, Interpolation: t.Interpolation}
}

// ScaleJitter is large-scale jitter ("Simple Copy-Paste is a Strong Data Augmentation Method", and ViTDet's
// recipe): torchvision's ScaleJitter, then a RandomCrop where the result is larger than TargetSize, and padding at
// the right and the bottom where it is smaller.
type ScaleJitter struct {
	// TargetSize is the size that scale 1 fits the photo into, and that of the result.
	TargetSize Size
	// ScaleRange bounds the scale; zeros are 0.1 to 2.
	ScaleRange [2]float64
	// Fill is the colour of padding.
	Fill [3]uint8
	// Interpolation is Bilinear by default.
	Interpolation Interpolation
}

func (t ScaleJitter) bounds() [2]float64 {
	if t.ScaleRange == ([2]float64{}) {
		return [2]float64{0.1, 2}
	}
	return t.ScaleRange
}

// Validate gives ErrSpec for parameters that make no sense.
func (t ScaleJitter) Validate() error {
	if err := validSize("scale jitter", []int{t.TargetSize.Height, t.TargetSize.Width}, 2); err != nil {
		return err
	}
	if b := t.bounds(); !(b[0] > 0 && b[0] <= b[1] && b[1] <= 1e3) {
		return fmt.Errorf("%w: scale jitter: got the scale range %v, want increasing numbers of 0 to 1000", ErrSpec, t.ScaleRange)
	}
	_, err := t.Interpolation.pillow()
	return err
}

// Params draws scale and place for a photo of that size. The parameters must be valid.
func (t ScaleJitter) Params(r *rand.Rand, photo Size) View {
	b := t.bounds()
	scale := min(float64(t.TargetSize.Height)/float64(photo.Height), float64(t.TargetSize.Width)/float64(photo.Width)) *
		uniform(r, b[0], b[1])
	size := Size{max(1, int(float64(photo.Height)*scale)), max(1, int(float64(photo.Width)*scale))}
	window := Rect{0, 0, t.TargetSize.Height, t.TargetSize.Width}
	if n := size.Height - window.Height; n > 0 {
		window.Top = r.IntN(n + 1)
	}
	if n := size.Width - window.Width; n > 0 {
		window.Left = r.IntN(n + 1)
	}
	return View{
		Crop: Rect{0, 0, photo.Height, photo.Width}, Resized: size, Window: window,
		Interpolation: t.Interpolation, Fill: t.Fill,
	}
}

// RandomShortestSize is torchvision's: the shorter side becomes one of MinSize, unless the longer would pass
// MaxSize. Results have different sizes. (Resize with one size is a Spec's RuleShortestEdge.)
type RandomShortestSize struct {
	MinSize []int
	// MaxSize limits the longer side; 0 does not.
	MaxSize int
	// Interpolation is Bilinear by default.
	Interpolation Interpolation
}

// Validate gives ErrSpec for parameters that make no sense.
func (t RandomShortestSize) Validate() error {
	if len(t.MinSize) == 0 {
		return fmt.Errorf("%w: random shortest size: got no sizes, want at least one", ErrSpec)
	}
	for _, s := range t.MinSize {
		if err := validSize("random shortest size", []int{s}, 1); err != nil {
			return err
		}
	}
	if t.MaxSize < 0 || t.MaxSize > maxSide {
		return fmt.Errorf("%w: random shortest size: got max_size %d, want 0 to %d", ErrSpec, t.MaxSize, maxSide)
	}
	_, err := t.Interpolation.pillow()
	return err
}

// Params draws the size for a photo of that size. The parameters must be valid.
func (t RandomShortestSize) Params(r *rand.Rand, photo Size) View {
	scale := float64(t.MinSize[r.IntN(len(t.MinSize))]) / float64(photo.short())
	if t.MaxSize > 0 {
		scale = min(scale, float64(t.MaxSize)/float64(photo.long()))
	}
	size := Size{max(1, int(float64(photo.Height)*scale)), max(1, int(float64(photo.Width)*scale))}
	return View{
		Crop: Rect{0, 0, photo.Height, photo.Width}, Resized: size,
		Window: Rect{0, 0, size.Height, size.Width}, Interpolation: t.Interpolation,
	}
}

// RandomHorizontalFlip is torchvision's.
type RandomHorizontalFlip struct {
	// P is the probability; 0 is 0.5.
	P float64
}

// Validate gives ErrSpec for a P outside 0 to 1.
func (t RandomHorizontalFlip) Validate() error {
	if !(t.P >= 0 && t.P <= 1) {
		return fmt.Errorf("%w: random horizontal flip: got p %v, want 0 to 1", ErrSpec, t.P)
	}
	return nil
}

// Params draws whether to mirror: set View.Flip to it.
func (t RandomHorizontalFlip) Params(r *rand.Rand) bool {
	if t.P == 0 {
		t.P = 0.5
	}
	return r.Float64() < t.P
}

// SanitizeBoundingBoxes is torchvision's: it tells which boxes are worth keeping after an augmentation. The zero
// value has torchvision's defaults.
type SanitizeBoundingBoxes struct {
	// MinSize is the least width and height in pixels; 0 is 1.
	MinSize float32
	// MinArea is the least area in pixels; 0 is 1.
	MinArea float32
	// MinVisible is the least share of a box's area that must be left, 0 to 1, which torchvision does not have:
	// albumentations' min_visibility.
	MinVisible float64
}

// Validate gives ErrSpec for parameters that make no sense.
func (t SanitizeBoundingBoxes) Validate() error {
	if !(t.MinSize >= 0 && t.MinArea >= 0) || t.MinSize > 0 && t.MinSize < 1 || t.MinArea > 0 && t.MinArea < 1 {
		return fmt.Errorf("%w: sanitize bounding boxes: got min_size %v and min_area %v, want at least 1", ErrSpec, t.MinSize, t.MinArea)
	}
	if !(t.MinVisible >= 0 && t.MinVisible <= 1) {
		return fmt.Errorf("%w: sanitize bounding boxes: got a visible share of %v, want 0 to 1", ErrSpec, t.MinVisible)
	}
	return nil
}

// Keep tells whether a box of View.Box stays, in an image of that size.
func (t SanitizeBoundingBoxes) Keep(box [4]float32, visible float64, canvas Size) bool {
	w, h := box[2]-box[0], box[3]-box[1]
	inside := true
	for i, v := range box {
		end := canvas.Width
		if i&1 == 1 {
			end = canvas.Height
		}
		inside = inside && v >= 0 && v <= float32(end)
	}
	return inside && w >= max(t.MinSize, 1) && h >= max(t.MinSize, 1) && float32(w*h) >= max(t.MinArea, 1) && visible >= t.MinVisible
}
