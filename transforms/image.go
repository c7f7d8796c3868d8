package transforms

import (
	"encoding/binary"
	"fmt"
	"image"
	"image/color"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/internal/annotate"
	"github.com/torchvit/torchvit/torch"
)

// Image is a picture on the CPU: (C, H, W) with C = 3 (RGB) or 1 (grey), of uint8 in 0..255 as decoded,
// or of float32 after ToTensor. It owns its memory; Close gives it back. It is not changed after it was
// made, so many goroutines may use it at once.
type Image struct {
	// pixels is contiguous and holds at least the bytes that layout reaches over.
	pixels   *torch.Tensor
	layout   cgo.ImageLayout
	dtype    torch.DType
	geometry Geometry
}

// Height is the number of rows.
func (m *Image) Height() int { return int(m.layout.Height) }

// Width is the number of columns.
func (m *Image) Width() int { return int(m.layout.Width) }

// Channels is 3 for RGB, 1 for grey.
func (m *Image) Channels() int { return int(m.layout.Channels) }

// DType is torch.Uint8 or torch.Float32.
func (m *Image) DType() torch.DType { return m.dtype }

// Geometry tells how the image came out of the photo.
func (m *Image) Geometry() Geometry { return m.geometry }

// Close gives the memory back. Closing again, or a nil image, has no effect. It always returns nil.
func (m *Image) Close() error {
	if m != nil {
		m.pixels.Close()
	}
	return nil
}

// Tensor is a (C, H, W) tensor over the image's own memory: nothing is copied. It is a new owner, which
// the caller closes, and outlives the image. The decoders write interleaved pixels, so its strides are
// (1, 3W, 3) as those of torchvision's decoders.
func (m *Image) Tensor() (*torch.Tensor, error) {
	if m.pixels.Dim() < 0 {
		return nil, fmt.Errorf("image: %w", ErrClosed)
	}
	l := &m.layout
	return torch.CallTensor(background, "aten::as_strided", m.pixels,
		[]int64{l.Channels, l.Height, l.Width}, []int64{l.StrideChannel, l.StrideRow, l.StridePixel}, 0)
}

// RGBA copies the picture for Go's image packages: opaque, a grey picture as equal red, green and blue.
// ErrDType (torch's) for a float32 image.
func (m *Image) RGBA() (*image.RGBA, error) {
	if m.dtype != torch.Uint8 {
		return nil, fmt.Errorf("image: %w: got %s, want uint8", torch.ErrDType, m.dtype)
	}
	l := m.layout
	pixel, channel := int(l.StridePixel), int(l.StrideChannel)
	if l.Channels == 1 {
		channel = 0
	}
	out := image.NewRGBA(image.Rect(0, 0, m.Width(), m.Height()))
	err := torch.WithData(m.pixels, func(src []uint8) error {
		annotate.Rows(m.Width(), m.Height(), func(y0, y1 int) {
			for y := y0; y < y1; y++ {
				row, from := out.Pix[y*out.Stride:(y+1)*out.Stride], src[y*int(l.StrideRow):]
				for at := 0; len(row) >= 4; at, row = at+pixel, row[4:] {
					rgb := uint32(from[at]) | uint32(from[at+channel])<<8 | uint32(from[at+2*channel])<<16
					binary.LittleEndian.PutUint32(row, rgb|255<<24)
				}
			}
		})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	return out, nil
}

// newPixels makes an image of undefined bytes, H x W x C, and runs fill on its memory.
func newPixels(height, width, channels int, fill func(dst []byte) error) (*Image, error) {
	t, err := torch.Empty([]int64{int64(height), int64(width), int64(channels)}, torch.TensorOptions{DType: torch.Uint8})
	if err != nil {
		return nil, err
	}
	if err := torch.WithData(t, fill); err != nil {
		t.Close()
		return nil, err
	}
	return ofPixels(t, interleaved(height, width, channels), torch.Uint8), nil
}

func interleaved(height, width, channels int) cgo.ImageLayout {
	h, w, c := int64(height), int64(width), int64(channels)
	return cgo.ImageLayout{Height: h, Width: w, Channels: c, StrideRow: w * c, StridePixel: c, StrideChannel: 1}
}

func planar(height, width, channels int) cgo.ImageLayout {
	h, w, c := int64(height), int64(width), int64(channels)
	return cgo.ImageLayout{Height: h, Width: w, Channels: c, StrideRow: w, StridePixel: 1, StrideChannel: h * w}
}

// ofPixels takes the tensor over.
func ofPixels(t *torch.Tensor, layout cgo.ImageLayout, dtype torch.DType) *Image {
	h, w := int(layout.Height), int(layout.Width)
	return &Image{pixels: t, layout: layout, dtype: dtype, geometry: wholePhoto(h, w)}
}

// FromTensor makes an image of a uint8 or float32 tensor (C, H, W) on the CPU with C = 1 or 3. The image
// shares the tensor's memory where it is row-major or interleaved, and copies it otherwise. The tensor
// stays the caller's.
func FromTensor(t *torch.Tensor) (*Image, error) {
	shape, strides := t.Shape(), t.Strides()
	if len(shape) != 3 || shape[0] != 1 && shape[0] != 3 || shape[1] < 1 || shape[2] < 1 {
		return nil, fmt.Errorf("image: %w: got a tensor of shape %v, want (1, H, W) or (3, H, W)", torch.ErrShape, shape)
	}
	dtype := t.DType()
	if dtype != torch.Uint8 && dtype != torch.Float32 {
		return nil, fmt.Errorf("image: %w: got %s, want uint8 or float32", torch.ErrDType, dtype)
	}
	if t.Device().IsCUDA() {
		return nil, fmt.Errorf("image: %w: got a tensor on %s, want cpu", torch.ErrDevice, t.Device())
	}
	c, h, w := int(shape[0]), int(shape[1]), int(shape[2])
	if c == 3 && strides[0] == 1 && strides[1] == 3*shape[2] && strides[2] == 3 {
		pixels, err := torch.CallTensor(background, "aten::permute", t, []int64{1, 2, 0})
		if err != nil {
			return nil, err
		}
		return ofPixels(pixels, interleaved(h, w, c), dtype), nil
	}
	pixels, err := t.Contiguous()
	if err != nil {
		return nil, err
	}
	return ofPixels(pixels, planar(h, w, c), dtype), nil
}

// FromImage makes an RGB image of any image.Image. Alpha is dropped and not composed, as Pillow's
// convert("RGB") does.
//
// The memory of *image.NRGBA, *image.Gray and opaque *image.RGBA is shared and not copied: don't change
// it while the Image lives. All others are copied pixel by pixel. Of 16-bit samples the high byte is
// kept. *image.YCbCr and *image.CMYK go through Go's conversions, which differ from libjpeg's: a JPEG
// that Go's image package decoded does not give Python's bits; decode the file with Decode instead.
func FromImage(img image.Image) (*Image, error) {
	if img == nil {
		return nil, fmt.Errorf("%w: got nil, want an image.Image", ErrSource)
	}
	b := img.Bounds()
	if b.Empty() {
		return nil, fmt.Errorf("%w: got an image without pixels (%v)", ErrSource, b)
	}
	h, w := b.Dy(), b.Dx()
	shared := func(pix []uint8, offset, stride, pixel, channel int) (*Image, error) {
		n := (h-1)*stride + w*pixel
		t, err := torch.FromSlice(pix[offset : offset+n : offset+n])
		if err != nil {
			return nil, err
		}
		return ofPixels(t, cgo.ImageLayout{
			Height: int64(h), Width: int64(w), Channels: 3,
			StrideRow: int64(stride), StridePixel: int64(pixel), StrideChannel: int64(channel),
		}, torch.Uint8), nil
	}
	switch m := img.(type) {
	case *image.NRGBA:
		return shared(m.Pix, m.PixOffset(b.Min.X, b.Min.Y), m.Stride, 4, 1)
	case *image.RGBA:
		if m.Opaque() {
			return shared(m.Pix, m.PixOffset(b.Min.X, b.Min.Y), m.Stride, 4, 1)
		}
	case *image.Gray: // three channels over the same bytes
		return shared(m.Pix, m.PixOffset(b.Min.X, b.Min.Y), m.Stride, 1, 0)
	}
	return newPixels(h, w, 3, func(dst []byte) error {
		copyRGB(dst, img)
		return nil
	})
}

// copyRGB writes an image's colours, without alpha, to dst, H x W x 3.
func copyRGB(dst []byte, img image.Image) {
	b := img.Bounds()
	i := 0
	put := func(r, g, b byte) {
		dst[i], dst[i+1], dst[i+2] = r, g, b
		i += 3
	}
	switch m := img.(type) {
	case *image.YCbCr:
		for y := b.Min.Y; y < b.Max.Y; y++ {
			for x := b.Min.X; x < b.Max.X; x++ {
				yi, ci := m.YOffset(x, y), m.COffset(x, y)
				put(color.YCbCrToRGB(m.Y[yi], m.Cb[ci], m.Cr[ci]))
			}
		}
	case *image.Paletted:
		palette := make([]color.NRGBA, 256) // an index without a colour is black
		for k, c := range m.Palette {
			palette[k&255] = color.NRGBAModel.Convert(c).(color.NRGBA)
		}
		for y := b.Min.Y; y < b.Max.Y; y++ {
			for _, v := range m.Pix[m.PixOffset(b.Min.X, y):][:b.Dx()] {
				c := palette[v]
				put(c.R, c.G, c.B)
			}
		}
	case *image.RGBA: // premultiplied; the division is Pillow's
		for y := b.Min.Y; y < b.Max.Y; y++ {
			row := m.Pix[m.PixOffset(b.Min.X, y):]
			for x := range b.Dx() {
				p := row[4*x : 4*x+4]
				if a := int(p[3]); a != 0 && a != 255 {
					put(byte(min(255, 255*int(p[0])/a)), byte(min(255, 255*int(p[1])/a)), byte(min(255, 255*int(p[2])/a)))
				} else {
					put(p[0], p[1], p[2])
				}
			}
		}
	default:
		for y := b.Min.Y; y < b.Max.Y; y++ {
			for x := b.Min.X; x < b.Max.X; x++ {
				c := color.NRGBAModel.Convert(img.At(x, y)).(color.NRGBA)
				put(c.R, c.G, c.B)
			}
		}
	}
}

// bytes runs f on the image's memory, which must be of uint8.
func (m *Image) bytes(f func(src []uint8) error) error {
	if m.dtype != torch.Uint8 {
		return fmt.Errorf("image: %w: got %s, want uint8: this step belongs before ToTensor", torch.ErrDType, m.dtype)
	}
	return torch.WithData(m.pixels, f)
}

// oriented gives the image as EXIF's orientation (2 to 8) says it is to be looked at: Pillow's
// ImageOps.exif_transpose.
func (m *Image) oriented(orientation int) (*Image, error) {
	h, w, c := m.Height(), m.Width(), m.Channels()
	l := m.layout
	// The source's pixel (0, 0) of the result, and the steps that go with one row and one column of it.
	row, col := l.StrideRow, l.StridePixel
	bottom, right := int64(h-1)*row, int64(w-1)*col
	var start, stepY, stepX int64
	switch orientation {
	case 2:
		start, stepY, stepX = right, row, -col
	case 3:
		start, stepY, stepX = bottom+right, -row, -col
	case 4:
		start, stepY, stepX = bottom, -row, col
	case 5:
		start, stepY, stepX = 0, col, row
	case 6:
		start, stepY, stepX = bottom, col, -row
	case 7:
		start, stepY, stepX = bottom+right, -col, -row
	case 8:
		start, stepY, stepX = right, -col, row
	}
	if orientation >= 5 {
		h, w = w, h
	}
	return newPixels(h, w, c, func(dst []byte) error {
		return m.bytes(func(src []uint8) error {
			i := 0
			for y := range int64(h) {
				at := start + y*stepY
				for range w {
					for k := range int64(c) {
						dst[i] = src[at+k*l.StrideChannel]
						i++
					}
					at += stepX
				}
			}
			return nil
		})
	})
}

// grey gives the image with one channel, by Pillow's convert("L").
func (m *Image) grey() (*Image, error) {
	l := m.layout
	return newPixels(m.Height(), m.Width(), 1, func(dst []byte) error {
		return m.bytes(func(src []uint8) error {
			i := 0
			for y := range l.Height {
				at := y * l.StrideRow
				for range l.Width {
					r, g, b := uint32(src[at]), uint32(src[at+l.StrideChannel]), uint32(src[at+2*l.StrideChannel])
					dst[i] = byte((r*19595 + g*38470 + b*7471 + 0x8000) >> 16)
					i++
					at += l.StridePixel
				}
			}
			return nil
		})
	})
}
