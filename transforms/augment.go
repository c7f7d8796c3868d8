package transforms

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/torch"
)

// Rect is a rectangle of pixels.
type Rect struct{ Top, Left, Height, Width int }

// View is the geometric part of an augmentation with every number drawn: the photo is cropped, the crop
// resized, a window of that taken, and the window mirrored. The random transforms of this package give one:
// RandomResizedCrop, ScaleJitter, RandomShortestSize; ViewOf gives that of a Spec. What it does to an image, a
// mask and boxes are torchvision's own numbers: functional.resized_crop, crop, pad and horizontal_flip on a
// PIL image, a tv_tensors.Mask and tv_tensors.BoundingBoxes.
//
// A View is a Transform for images of uint8.
type View struct {
	// Crop is the part of the photo that is resized, inside it.
	Crop Rect
	// Resized is the size that the crop gets.
	Resized Size
	// Window is what is kept of the resized crop, and the size of the result: with a negative Top or Left,
	// or beyond the end, it is padded.
	Window Rect
	// Flip mirrors the window, left to right.
	Flip bool
	// Interpolation is the filter for images, Pillow's; "" is Bilinear. Masks take the nearest pixel.
	Interpolation Interpolation
	// Fill is the colour of padding.
	Fill [3]uint8
}

// ViewOf is the view that a Spec's Plan describes.
func ViewOf(g Geometry) View {
	return View{
		Crop:    Rect{0, 0, g.Height, g.Width},
		Resized: Size{g.ResizedHeight, g.ResizedWidth},
		Window:  Rect{g.Top, g.Left, g.OutputHeight, g.OutputWidth},
	}
}

// Size is that of the result.
func (v View) Size() Size { return Size{v.Window.Height, v.Window.Width} }

// check gives ErrSpec for a view that does not fit a photo of that size.
func (v View) check(photo Size) error {
	c, w := v.Crop, v.Window
	switch {
	case c.Top < 0 || c.Left < 0 || c.Height < 1 || c.Width < 1 || c.Top > photo.Height-c.Height || c.Left > photo.Width-c.Width:
		return fmt.Errorf("%w: view: got the crop %+v of a photo of %d x %d", ErrSpec, c, photo.Width, photo.Height)
	case w.Height < 1 || w.Width < 1 || w.Height > maxSide || w.Width > maxSide ||
		w.Top < -maxSide || w.Left < -maxSide || w.Top > maxSide || w.Left > maxSide:
		return fmt.Errorf("%w: view: got the window %+v, want sides of 1 to %d", ErrSpec, w, maxSide)
	}
	return checkResized(v.Resized)
}

// visible is the part of the window that shows photo, in its own pixels, before it is mirrored.
func (v View) visible() Rect {
	top, left := max(0, -v.Window.Top), max(0, -v.Window.Left)
	return Rect{
		top, left,
		max(0, min(v.Window.Height, v.Resized.Height-v.Window.Top)-top),
		max(0, min(v.Window.Width, v.Resized.Width-v.Window.Left)-left),
	}
}

// Apply implements Transform.
func (v View) Apply(ctx context.Context, img *Image) (*Image, error) {
	if err := v.check(Size{img.Height(), img.Width()}); err != nil {
		return nil, err
	}
	filter, err := v.Interpolation.pillow()
	if err != nil {
		return nil, err
	}
	if err := (DecodeOptions{}).check("output", v.Window.Height, v.Window.Width); err != nil {
		return nil, err
	}
	if err := takeLight(ctx); err != nil {
		return nil, err
	}
	defer leaveLight()
	c := img.Channels()
	return newPixels(v.Window.Height, v.Window.Width, c, func(dst []byte) error {
		return img.bytes(func(src []byte) error {
			plan := v.plan(filter, Pillow13)
			layout, offset := img.crop(v.Crop, c)
			stride := cgo.ImageStride{Row: plan.WindowWidth * int64(c), Pixel: int64(c), Channel: 1}
			err := cgo.ImageResize(src[offset:], &layout, &plan, dst, stride)
			if err == nil && v.Flip {
				mirrorPixels(dst, v.Window.Width, c)
			}
			return torch.WrapStatus("augment", err)
		})
	})
}

// plan is that of the kernels, for the crop as the source.
func (v View) plan(filter int32, order PassOrder) cgo.ImagePlan {
	return cgo.ImagePlan{
		Height: int64(v.Resized.Height), Width: int64(v.Resized.Width),
		Top: int64(v.Window.Top), Left: int64(v.Window.Left),
		WindowHeight: int64(v.Window.Height), WindowWidth: int64(v.Window.Width),
		Fill: [4]uint8{v.Fill[0], v.Fill[1], v.Fill[2]}, Filter: filter, PassOrder: int32(order),
	}
}

// crop is where a part of the image lies, with that number of channels, and from which byte on.
func (m *Image) crop(r Rect, channels int) (cgo.ImageLayout, int64) {
	l := m.layout
	offset := int64(r.Top)*l.StrideRow + int64(r.Left)*l.StridePixel
	l.Height, l.Width = int64(r.Height), int64(r.Width)
	if l.Channels == 1 && channels > 1 { // grey to all channels
		l.Channels, l.StrideChannel = int64(channels), 0
	}
	return l, offset
}

func mirrorPixels(pixels []byte, width, channels int) {
	for n := width * channels; len(pixels) >= n; pixels = pixels[n:] {
		for a, b := 0, n-channels; a < b; a, b = a+channels, b-channels {
			for c := range channels {
				pixels[a+c], pixels[b+c] = pixels[b+c], pixels[a+c]
			}
		}
	}
}

// View is what the pipeline's Spec makes of a photo of that size.
func (p *Pipeline) View(photo Size) (View, error) {
	g, err := p.Plan(photo)
	v := ViewOf(g)
	fill := p.spec.fill()
	copy(v.Fill[:], fill[:3])
	return v, err
}

// WriteView prepares what v shows of an image and writes it to dst, (C, H, W) of v.Size(), normalised as the
// pipeline's Spec says; its resize and crop are not used, v and v.Interpolation ("": the Spec's) stand for them.
// The colours of what is shown, without padding, are changed by c first; nil leaves them. A resize without c goes
// straight into dst.
func (p *Pipeline) WriteView(ctx context.Context, img *Image, v View, c *ColorParams, dst []float32) error {
	if err := v.check(Size{img.Height(), img.Width()}); err != nil {
		return err
	}
	channels := p.spec.channels()
	if n := channels * v.Window.Height * v.Window.Width; len(dst) != n {
		return fmt.Errorf("preprocess: %w: got room for %d values, want %d for (%d, %d, %d)", torch.ErrShape, len(dst), n, channels, v.Window.Height, v.Window.Width)
	}
	how := p.how
	if v.Interpolation != "" {
		how.filter = v.Interpolation
	}
	if err := how.validate(); err != nil {
		return err
	}
	if channels == 1 && img.Channels() == 3 {
		grey, err := img.grey()
		if err != nil {
			return err
		}
		defer grey.Close()
		img = grey
	}
	if how.backend == Torch {
		part, err := img.window(ctx, v.Crop.Top, v.Crop.Left, Size{v.Crop.Height, v.Crop.Width}, 0)
		if err != nil {
			return err
		}
		defer part.Close()
		if img, err = how.apply(ctx, part, v.Resized); err != nil {
			return err
		}
		defer img.Close()
		v.Crop = Rect{0, 0, v.Resized.Height, v.Resized.Width}
		how.filter = Nearest // nothing is left to resize
	}
	if err := takeLight(ctx); err != nil {
		return err
	}
	defer leaveLight()
	if err := p.writeView(img, v, how, c, channels, dst); err != nil {
		return err
	}
	if p.spec.ChannelOrder == "BGR" {
		n := len(dst) / 3
		for i, red := range dst[:n] {
			dst[i], dst[2*n+i] = dst[2*n+i], red
		}
	}
	if v.Flip {
		for row := dst; len(row) > 0; row = row[v.Window.Width:] {
			for a, b := 0, v.Window.Width-1; a < b; a, b = a+1, b-1 {
				row[a], row[b] = row[b], row[a]
			}
		}
	}
	return nil
}

func (p *Pipeline) writeView(img *Image, v View, how resizing, c *ColorParams, channels int, dst []float32) error {
	filter, err := how.filter.pillow()
	if err != nil {
		return err
	}
	plan := v.plan(filter, how.order)
	layout, offset := img.crop(v.Crop, channels)
	stride := cgo.ImageStride{Row: plan.WindowWidth, Pixel: 1, Channel: plan.WindowHeight * plan.WindowWidth}
	seen := v.visible()
	return img.bytes(func(src []byte) error {
		src = src[offset:]
		if c.changes(channels) && seen.Height > 0 && seen.Width > 0 {
			if err := c.validate(); err != nil {
				return err
			}
			// The colours are changed in the bytes of what is shown; padding comes after.
			n := int64(channels)
			inner := plan
			inner.Top, inner.Left = max(0, plan.Top), max(0, plan.Left)
			inner.WindowHeight, inner.WindowWidth = int64(seen.Height), int64(seen.Width)
			scratch := takeScratch(seen.Height * seen.Width * channels)
			defer scratchPool.Put(scratch)
			pixels := *scratch
			err := cgo.ImageResize(src, &layout, &inner, pixels, cgo.ImageStride{Row: inner.WindowWidth * n, Pixel: n, Channel: 1})
			if err != nil {
				return torch.WrapStatus("augment", err)
			}
			c.apply(pixels, channels)
			src, layout = pixels, interleaved(seen.Height, seen.Width, channels)
			plan.Height, plan.Width = layout.Height, layout.Width
			plan.Top, plan.Left = int64(-seen.Top), int64(-seen.Left)
		}
		return torch.WrapStatus("preprocess", cgo.ImageToFloat(src, &layout, &plan, p.table, dst, stride))
	})
}

// Box moves a box, xyxy in pixels of the photo, to the view and cuts it off at the end of what the view shows of
// the photo. visible is the share of its area that is left, 0 to 1. Each step is torchvision's of
// tv_tensors.BoundingBoxes in float32, with ClampBoundingBoxes before padding. A box that is outside has no area;
// SanitizeBoundingBoxes drops it.
func (v View) Box(box [4]float32) (moved [4]float32, visible float64) {
	area := func(b [4]float32) float64 { return max(0, float64(b[2]-b[0])) * max(0, float64(b[3]-b[1])) }
	shift := func(b [4]float32, left, top int) [4]float32 {
		x, y := float32(left), float32(top)
		return [4]float32{b[0] - x, b[1] - y, b[2] - x, b[3] - y}
	}
	clamp := func(b [4]float32, r Rect) [4]float32 {
		x0, y0, x1, y1 := float32(r.Left), float32(r.Top), float32(r.Left+r.Width), float32(r.Top+r.Height)
		return [4]float32{min(max(b[0], x0), x1), min(max(b[1], y0), y1), min(max(b[2], x0), x1), min(max(b[3], y0), y1)}
	}
	scaleX := float32(float64(v.Resized.Width) / float64(v.Crop.Width))
	scaleY := float32(float64(v.Resized.Height) / float64(v.Crop.Height))
	resize := func(b [4]float32) [4]float32 {
		return [4]float32{b[0] * scaleX, b[1] * scaleY, b[2] * scaleX, b[3] * scaleY}
	}
	box = shift(box, v.Crop.Left, v.Crop.Top)
	whole := area(resize(box))
	box = resize(clamp(box, Rect{0, 0, v.Crop.Height, v.Crop.Width}))
	box = clamp(shift(box, v.Window.Left, v.Window.Top), v.visible())
	if v.Flip { // torchvision subtracts the width and turns the sign
		w := float32(v.Window.Width)
		box[0], box[2] = -(box[2] - w), -(box[0] - w)
	}
	if whole > 0 {
		visible = min(1, area(box)/whole)
	}
	return box, visible
}

// ViewMask writes what v shows of a mask, row by row as large as the photo, to dst, which has v.Size(): of every
// pixel the nearest as torch's "nearest" has it (torchvision's tv_tensors.Mask), and fill in padding.
func ViewMask[T uint8 | int64](v View, mask []uint8, photo Size, fill T, dst []T) error {
	if err := v.check(photo); err != nil {
		return err
	}
	h, w := v.Window.Height, v.Window.Width
	if len(mask) != photo.Height*photo.Width || len(dst) != h*w {
		return fmt.Errorf("mask: %w: got %d pixels and room for %d, want %d x %d and %d x %d", torch.ErrShape, len(mask), len(dst), photo.Height, photo.Width, h, w)
	}
	ys := nearestPlaces(v.Crop.Top, v.Crop.Height, v.Resized.Height, v.Window.Top, h)
	xs := nearestPlaces(v.Crop.Left, v.Crop.Width, v.Resized.Width, v.Window.Left, w)
	if v.Flip {
		for a, b := 0, w-1; a < b; a, b = a+1, b-1 {
			xs[a], xs[b] = xs[b], xs[a]
		}
	}
	for i, y := range ys {
		row := dst[i*w : (i+1)*w]
		if y < 0 {
			for j := range row {
				row[j] = fill
			}
			continue
		}
		from := mask[int(y)*photo.Width : (int(y)+1)*photo.Width]
		for j, x := range xs {
			if x < 0 {
				row[j] = fill
			} else {
				row[j] = T(from[x])
			}
		}
	}
	return nil
}

// nearestPlaces gives for count places of an axis, from start on, where torch's nearest takes them from in a crop
// that was resized from in to out: floor(i * (in / out)) in float32; -1 outside.
func nearestPlaces(first, in, out, start, count int) []int32 {
	scale := float32(in) / float32(out)
	places := make([]int32, count)
	for k := range places {
		i := start + k
		switch {
		case i < 0 || i >= out:
			places[k] = -1
		case in == out:
			places[k] = int32(first + i)
		case out == 2*in:
			places[k] = int32(first + i>>1)
		default:
			places[k] = int32(first + min(int(float32(float32(i)*scale)), in-1))
		}
	}
	return places
}
