package transforms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"os"
	"regexp"
	"sync"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
	"golang.org/x/image/webp"

	"github.com/torchvit/torchvit/torch"
)

var background = context.Background()

// DefaultMaxPixels is where Pillow raises DecompressionBombError: twice Image.MAX_IMAGE_PIXELS.
const DefaultMaxPixels = 2 * 89478485

// ColorMode is the kind of image that a decoder gives.
type ColorMode int

const (
	// RGB is Pillow's convert("RGB"): three channels.
	RGB ColorMode = iota
	// Gray is Pillow's convert("L"): one channel.
	Gray
)

// DecodeOptions say how a file is decoded. The zero value does what Pillow's
// Image.open(f).convert("RGB") does.
type DecodeOptions struct {
	// ApplyEXIF turns the image as its EXIF orientation says (ImageOps.exif_transpose). Off as in Pillow,
	// timm and torchvision; Hugging Face's load_image does it. TIFF files are always turned, as Pillow does.
	ApplyEXIF bool
	// MaxPixels is the largest height x width, checked in the header before anything is decoded: 0 is
	// DefaultMaxPixels, below 0 no limit.
	MaxPixels int64
	// Mode is RGB or Gray.
	Mode ColorMode
}

func (o DecodeOptions) limit() int64 {
	if o.MaxPixels == 0 {
		return DefaultMaxPixels
	}
	return o.MaxPixels
}

func (o DecodeOptions) check(what string, height, width int) error {
	if limit := o.limit(); limit >= 0 && int64(height)*int64(width) > limit {
		return &SizeError{What: what, Height: height, Width: width, Limit: limit}
	}
	return nil
}

// Decoder turns the bytes of an image file into an image.
type Decoder interface {
	// Decode gives an image of uint8, which the caller closes.
	Decode(ctx context.Context, data []byte, o DecodeOptions) (*Image, error)
}

// ExactDecoder gives Pillow's bits: JPEG and WebP through torchvision's decoders (libjpeg-turbo and
// libwebp, which must be loaded), PNG and GIF by Pillow's rules in Go, BMP and TIFF through
// golang.org/x/image. Of animations it gives the first frame.
type ExactDecoder struct{}

// GoDecoder uses only Go's decoders, and needs no torchvision. PNG, GIF, BMP and TIFF are exact; JPEG
// differs from Python's bits by up to 90 levels of 255, WebP by up to 27. It has to be asked for.
type GoDecoder struct{}

// Decode decodes an image file with ExactDecoder. The caller closes the image.
func Decode(ctx context.Context, data []byte, o DecodeOptions) (*Image, error) {
	return ExactDecoder{}.Decode(ctx, data, o)
}

// Open decodes the image file at path with ExactDecoder. The caller closes the image.
func Open(ctx context.Context, path string, o DecodeOptions) (*Image, error) {
	return open(ctx, path, ExactDecoder{}, o)
}

// fileBuffers holds the memory that image files were read into.
var fileBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func open(ctx context.Context, path string, d Decoder, o DecodeOptions) (*Image, error) {
	var file *bytes.Buffer
	switch d.(type) {
	case ExactDecoder, GoDecoder:
		file, _ = fileBuffers.Get().(*bytes.Buffer)
		defer fileBuffers.Put(file)
	default: // another one may keep the bytes
		file = new(bytes.Buffer)
	}
	if err := readImageFile(file, path); err != nil {
		return nil, err
	}
	img, err := d.Decode(ctx, file.Bytes(), o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return img, nil
}

// readImageFile reads a file whole, after its first bytes were found to be those of an image.
func readImageFile(file *bytes.Buffer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return fmt.Errorf("%s: %w: got a folder, want an image file", path, ErrSource)
	}
	file.Reset()
	if _, err := io.CopyN(file, f, sniffLen); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if head := file.Bytes(); sniff(head) == "" {
		return fmt.Errorf("%s: %w: got %s, want JPEG, PNG, WebP, GIF, BMP or TIFF", path, ErrFormat, firstBytes(head))
	}
	file.Grow(int(max(info.Size(), 0)) + bytes.MinRead)
	_, err = file.ReadFrom(f)
	return err
}

// Decode implements Decoder.
func (ExactDecoder) Decode(ctx context.Context, data []byte, o DecodeOptions) (*Image, error) {
	return decode(ctx, data, o, exact)
}

// Decode implements Decoder.
func (GoDecoder) Decode(ctx context.Context, data []byte, o DecodeOptions) (*Image, error) {
	return decode(ctx, data, o, inGo)
}

// decode does what both decoders share: limits before, orientation and mode after.
func decode(ctx context.Context, data []byte, o DecodeOptions, pixels func(context.Context, []byte, Info) (*Image, error)) (*Image, error) {
	info, err := Inspect(data)
	if err != nil {
		return nil, err
	}
	if err := o.check("image", info.Height, info.Width); err != nil {
		return nil, fmt.Errorf("decode %s: %w", info.Format, err)
	}
	img, err := pixels(ctx, data, info)
	if err != nil {
		return nil, err
	}
	if img.Height() != info.Height || img.Width() != info.Width {
		img.Close()
		return nil, damaged(info.Format, "got %d x %d pixels, want the header's %d x %d", img.Width(), img.Height(), info.Width, info.Height)
	}
	replace := func(next *Image, err error) error {
		img.Close()
		img = next
		return err
	}
	if info.Orientation > 1 && (o.ApplyEXIF || info.Format == TIFF) {
		if err := replace(img.oriented(info.Orientation)); err != nil {
			return nil, err
		}
	}
	if o.Mode == Gray {
		if err := replace(img.grey()); err != nil {
			return nil, err
		}
	}
	return img, nil
}

func exact(ctx context.Context, data []byte, info Info) (*Image, error) {
	switch info.Format {
	case JPEG:
		return decodeTorchvision(ctx, data, info)
	case WebP:
		if !info.Animated {
			return decodeTorchvision(ctx, data, info)
		}
		return decodeAnimatedWebP(ctx, data, info)
	}
	return inGo(ctx, data, info)
}

func inGo(ctx context.Context, data []byte, info Info) (*Image, error) {
	if err := takeLight(ctx); err != nil {
		return nil, err
	}
	defer leaveLight()
	own := func(f Format, read func(data, dst []byte) error) (*Image, error) {
		return newPixels(info.Height, info.Width, 3, func(dst []byte) error {
			return guard(f, func() error { return read(data, dst) })
		})
	}
	std := func(read func(io.Reader) (image.Image, error)) (*Image, error) {
		var img *Image
		err := guard(info.Format, func() error {
			m, err := read(bytes.NewReader(data))
			if err != nil {
				return err
			}
			img, err = FromImage(m)
			return err
		})
		return img, err
	}
	switch info.Format {
	case PNG:
		return own(PNG, decodePNG)
	case GIF:
		return own(GIF, decodeGIF)
	case BMP:
		return std(bmp.Decode)
	case TIFF:
		return std(func(r io.Reader) (image.Image, error) {
			m, err := tiff.Decode(r)
			if err != nil {
				return nil, err
			}
			return pillowTIFF(m), nil
		})
	case JPEG:
		return std(jpeg.Decode)
	case WebP:
		if info.Animated {
			return nil, unsupported(WebP, "got an animation, want a still image: Go's decoder reads no other")
		}
		return std(webp.Decode)
	}
	return nil, fmt.Errorf("%w: got %s", ErrFormat, info.Format)
}

// pillowTIFF turns 16-bit grey into what Pillow makes of it: mode I;16, clipped at 255.
func pillowTIFF(m image.Image) image.Image {
	g, ok := m.(*image.Gray16)
	if !ok {
		return m
	}
	out := image.NewGray(g.Rect)
	for i := range out.Pix {
		if out.Pix[i] = g.Pix[2*i+1]; g.Pix[2*i] != 0 {
			out.Pix[i] = 255
		}
	}
	return out
}

// guard runs a decoder of Go's, whose panics on hostile files become errors.
func guard(f Format, run func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = damaged(f, "the decoder gave up: %v", r)
		}
	}()
	err = run()
	switch {
	case err == nil, errors.Is(err, ErrDecode), errors.Is(err, ErrUnsupported):
		return err
	case errors.Is(err, bmp.ErrUnsupported):
		return unsupported(f, "got a kind of BMP other than uncompressed with 1, 2, 4, 8, 24 or 32 bits")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return damaged(f, "the file is cut short")
	}
	if e, ok := errors.AsType[tiff.UnsupportedError](err); ok {
		return unsupported(f, "%s", string(e))
	}
	if e, ok := errors.AsType[jpeg.UnsupportedError](err); ok {
		return unsupported(f, "%s", string(e))
	}
	if errors.Is(err, torch.ErrNotInstalled) || errors.Is(err, torch.ErrOutOfMemory) {
		return err
	}
	return damaged(f, "%s", err)
}

// decodeOperator is torchvision's operator; tests name another.
var decodeOperator = "image::decode_image"

// place cuts off what torchvision puts before its own words: function, file and line.
var place = regexp.MustCompile(`^.*\.(?:cpp|h):\d+, `)

// decodeTorchvision runs torchvision's decode_image, which writes into memory that becomes the image's.
func decodeTorchvision(ctx context.Context, data []byte, info Info) (*Image, error) {
	input, err := torch.FromSlice(data)
	if err != nil {
		return nil, err
	}
	defer input.Close()
	const rgb = 3 // ImageReadMode.RGB
	v, err := torch.CallWith(ctx, torch.CallOptions{OnCaller: true}, decodeOperator, input, rgb, false)
	if err != nil {
		if errors.Is(err, torch.ErrNotFound) {
			return nil, fmt.Errorf("decode %s: %w: torchvision's image library is not loaded (%w); install torchvision beside torch and run `torchvit setup` again, or ask for transforms.GoDecoder, whose pixels differ from Python's", info.Format, ErrNoDecoder, err)
		}
		if ctx.Err() != nil || errors.Is(err, torch.ErrNotInstalled) || errors.Is(err, torch.ErrOutOfMemory) {
			return nil, err
		}
		message := err.Error()
		if e, ok := errors.AsType[*torch.Error](err); ok {
			message = place.ReplaceAllString(e.Message, "")
		}
		return nil, damaged(info.Format, "%s", message)
	}
	t, ok := v.(*torch.Tensor)
	if !ok {
		torch.CloseAll(v)
		return nil, damaged(info.Format, "got %T from torchvision, want a tensor", v)
	}
	defer t.Close()
	return FromTensor(t)
}

// decodeAnimatedWebP decodes the first frame and puts it on its canvas, which is black where the frame
// does not reach, as Pillow gives it without alpha.
func decodeAnimatedWebP(ctx context.Context, data []byte, info Info) (*Image, error) {
	f, err := inspectWebP(data, &Info{})
	if err != nil {
		return nil, err
	}
	file, err := f.still()
	if err != nil {
		return nil, err
	}
	frame, err := decodeTorchvision(ctx, file, info)
	if err != nil {
		return nil, err
	}
	if f.frameX == 0 && f.frameY == 0 && frame.Width() == info.Width && frame.Height() == info.Height {
		return frame, nil
	}
	defer frame.Close()
	if f.frameX+frame.Width() > info.Width || f.frameY+frame.Height() > info.Height {
		return nil, damaged(WebP, "the first frame sticks out of the canvas")
	}
	return newPixels(info.Height, info.Width, 3, func(dst []byte) error {
		clear(dst)
		return frame.bytes(func(src []uint8) error {
			n := 3 * frame.Width()
			for y := range frame.Height() {
				copy(dst[((f.frameY+y)*info.Width+f.frameX)*3:], src[y*n:(y+1)*n])
			}
			return nil
		})
	})
}
