package transforms

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/torch"
)

// ColorJitter is torchvision's: brightness, contrast, saturation and hue are changed by random factors, in random
// order. Each field is nil (no change), [x] or [low, high]: factors of max(0, 1 - x) to 1 + x, or low to high; for
// Hue -x to x, within -0.5 to 0.5.
type ColorJitter struct {
	Brightness, Contrast, Saturation, Hue []float64
}

func jitterRange(name string, v []float64, hue bool) (low, high float64, err error) {
	center, least, most := 1.0, 0.0, math.Inf(1)
	if hue {
		center, least, most = 0, -0.5, 0.5
	}
	switch len(v) {
	case 0:
		return center, center, nil
	case 1:
		low, high = center-v[0], center+v[0]
		if !hue {
			low = max(low, 0)
		}
	case 2:
		low, high = v[0], v[1]
	}
	if len(v) > 2 || len(v) == 1 && !(v[0] >= 0) || !(least <= low && low <= high && high <= most) || math.IsInf(high, 1) {
		return 0, 0, fmt.Errorf("%w: color jitter: %s: got %v, want one number of at least 0, or two, increasing, of %v to %v", ErrSpec, name, v, least, most)
	}
	return low, high, nil
}

// each runs f for the four kinds of change, in torchvision's order.
func (t ColorJitter) each(f func(i int, name string, v []float64)) {
	for i, v := range [4][]float64{t.Brightness, t.Contrast, t.Saturation, t.Hue} {
		f(i, [4]string{"brightness", "contrast", "saturation", "hue"}[i], v)
	}
}

// Validate gives ErrSpec for parameters that make no sense.
func (t ColorJitter) Validate() (err error) {
	t.each(func(i int, name string, v []float64) {
		if _, _, e := jitterRange(name, v, i == 3); err == nil {
			err = e
		}
	})
	return err
}

// Params draws the order and the factors. The parameters must be valid.
func (t ColorJitter) Params(r *rand.Rand) ColorParams {
	p := ColorParams{Brightness: 1, Contrast: 1, Saturation: 1}
	copy(p.Order[:], r.Perm(4))
	factors := [4]*float64{&p.Brightness, &p.Contrast, &p.Saturation, &p.Hue}
	t.each(func(i int, name string, v []float64) {
		if low, high, err := jitterRange(name, v, i == 3); err == nil && low < high {
			*factors[i] = uniform(r, low, high)
		} else if err == nil {
			*factors[i] = low
		}
	})
	return p
}

// ColorParams is a ColorJitter with every number drawn. As a Transform, for images of uint8, it gives the pixels of
// torchvision's functional.adjust_brightness, adjust_contrast, adjust_saturation and adjust_hue of a PIL image, one
// after the other. The zero value makes an image black.
type ColorParams struct {
	// Order is the order of the changes: 0 brightness, 1 contrast, 2 saturation, 3 hue.
	Order [4]int
	// Brightness, Contrast and Saturation are factors, 1 for no change; 0 gives black, the mean grey, grey.
	Brightness, Contrast, Saturation float64
	// Hue is the share of the colour circle to turn by, -0.5 to 0.5.
	Hue float64
}

func (c *ColorParams) validate() error {
	for _, f := range []float64{c.Brightness, c.Contrast, c.Saturation} {
		if !(f >= 0) || math.IsInf(f, 1) {
			return fmt.Errorf("%w: color: got the factor %v, want at least 0", ErrSpec, f)
		}
	}
	if !(c.Hue >= -0.5 && c.Hue <= 0.5) {
		return fmt.Errorf("%w: color: got the hue %v, want -0.5 to 0.5", ErrSpec, c.Hue)
	}
	seen := 0
	for _, k := range c.Order {
		if k < 0 || k > 3 || seen>>k&1 == 1 {
			return fmt.Errorf("%w: color: got the order %v, want 0, 1, 2 and 3", ErrSpec, c.Order)
		}
		seen |= 1 << k
	}
	return nil
}

// changes tells whether apply does anything. Turning by no hue still goes through HSV and back in torchvision
// where hue is jittered; here it is no change, as ColorJitter leaves it out without a hue.
func (c *ColorParams) changes(channels int) bool {
	return c != nil && (c.Brightness != 1 || c.Contrast != 1 || channels == 3 && (c.Saturation != 1 || c.Hue != 0))
}

// Apply implements Transform.
func (c ColorParams) Apply(ctx context.Context, img *Image) (*Image, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	h, w, n := img.Height(), img.Width(), img.Channels()
	plan := cgo.ImagePlan{Height: int64(h), Width: int64(w), WindowHeight: int64(h), WindowWidth: int64(w)}
	out, err := img.planned(ctx, &plan) // a copy
	if err != nil {
		return nil, err
	}
	out.geometry = img.geometry
	err = takeLight(ctx)
	if err == nil {
		defer leaveLight()
		err = torch.WithData(out.pixels, func(pixels []byte) error {
			c.apply(pixels, n)
			return nil
		})
	}
	if err != nil {
		out.Close()
		return nil, err
	}
	return out, nil
}

// apply changes interleaved pixels in place.
func (c *ColorParams) apply(pixels []byte, channels int) {
	for _, k := range c.Order {
		switch {
		case k == 0 && c.Brightness != 1:
			blendWith(pixels, 0, float32(c.Brightness))
		case k == 1 && c.Contrast != 1:
			blendWith(pixels, meanGrey(pixels, channels), float32(c.Contrast))
		case k == 2 && c.Saturation != 1 && channels == 3:
			blendGrey(pixels, float32(c.Saturation))
		case k == 3 && c.Hue != 0 && channels == 3:
			turnHue(pixels, uint8(int32(c.Hue*255))) // numpy casts so, wrapping around
		}
	}
}

// luma is Pillow's convert("L") of one pixel.
func luma(r, g, b byte) byte {
	return byte((uint32(r)*19595 + uint32(g)*38470 + uint32(b)*7471 + 0x8000) >> 16)
}

// meanGrey is the level that ImageEnhance.Contrast blends with: int(mean of L + 0.5).
func meanGrey(pixels []byte, channels int) byte {
	sum, n := 0, len(pixels)/channels
	if channels == 1 {
		for _, v := range pixels {
			sum += int(v)
		}
	} else {
		for p := pixels; len(p) >= 3; p = p[3:] {
			sum += int(luma(p[0], p[1], p[2]))
		}
	}
	return byte(float64(sum)/float64(n) + 0.5)
}

// blended is Image.blend of two levels: float32, cut off and clipped.
func blended(from, to byte, alpha float32) byte {
	v := float32(from) + float32(alpha*float32(int(to)-int(from)))
	switch {
	case v <= 0:
		return 0
	case v >= 255:
		return 255
	}
	return byte(v)
}

// blendWith is Image.blend of one level with the pixels.
func blendWith(pixels []byte, level byte, alpha float32) {
	var table [256]byte
	for v := range table {
		table[v] = blended(level, byte(v), alpha)
	}
	for i, v := range pixels {
		pixels[i] = table[v]
	}
}

// blendGrey is ImageEnhance.Color: Image.blend of the grey image with the pixels.
func blendGrey(pixels []byte, alpha float32) {
	for p := pixels; len(p) >= 3; p = p[3:] {
		grey := luma(p[0], p[1], p[2])
		p[0], p[1], p[2] = blended(grey, p[0], alpha), blended(grey, p[1], alpha), blended(grey, p[2], alpha)
	}
}

// turnHue adds to the hue as torchvision does: Pillow's convert("HSV"), which is 8 bits deep, and back.
func turnHue(pixels []byte, turn uint8) {
	for p := pixels; len(p) >= 3; p = p[3:] {
		h, s, v := hsv(p[0], p[1], p[2])
		p[0], p[1], p[2] = rgbOf(h+turn, s, v)
	}
}

// hsv is Pillow's rgb2hsv, with its mixture of float and double.
func hsv(r, g, b byte) (h, s, v byte) {
	most, least := max(r, g, b), min(r, g, b)
	if most == least {
		return 0, 0, most
	}
	span := float32(most - least)
	rc, gc, bc := float32(most-r)/span, float32(most-g)/span, float32(most-b)/span
	var hue float32
	switch most {
	case r:
		hue = bc - gc
	case g:
		hue = float32(float64(2+float64(rc)) - float64(bc))
	default:
		hue = float32(float64(4+float64(gc)) - float64(rc))
	}
	turns := float64(float64(hue)/6) + 1
	if turns >= 1 { // fmod(turns, 1), which is exact
		turns--
	}
	hue = float32(turns)
	return byte(float64(float64(hue) * 255)), byte(float64(float64(span/float32(most)) * 255)), most
}

// hueSectors are what hsv2rgb computes of a hue alone: the sector of 60 degrees, and the place in it.
var hueSectors = func() (t [256]struct {
	sector int
	f      float32
},
) {
	for h := range t {
		x := float64(float64(h)*6) / 255
		t[h].sector = int(x)
		t[h].f = float32(x - float64(float32(t[h].sector)))
	}
	return t
}()

// rgbOf is Pillow's hsv2rgb.
func rgbOf(h, s, v byte) (r, g, b byte) {
	if s == 0 {
		return v, v, v
	}
	sector := &hueSectors[h]
	fs, value := float32(float64(s)/255), float64(v)
	half := func(x float64) byte { // C's round, of at least 0
		n := int(x)
		if x-float64(n) >= 0.5 {
			n++
		}
		return byte(n)
	}
	p := half(value * (1 - float64(fs)))
	q := func() byte { return half(value * (1 - float64(float32(fs*sector.f)))) }
	t := func() byte { return half(value * (1 - float64(float64(fs)*(1-float64(sector.f))))) }
	switch sector.sector % 6 {
	case 0:
		return v, t(), p
	case 1:
		return q(), v, p
	case 2:
		return p, v, t()
	case 3:
		return p, q(), v
	case 4:
		return t(), p, v
	}
	return v, p, q()
}

// scratchPool holds the bytes between resize and colour change.
var scratchPool = sync.Pool{New: func() any { return new([]byte) }}

func takeScratch(n int) *[]byte {
	s := scratchPool.Get().(*[]byte)
	if cap(*s) < n {
		*s = make([]byte, n)
	}
	*s = (*s)[:n]
	return s
}
