package transforms

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"sync"

	"github.com/torchvit/torchvit/internal/annotate"
	"github.com/torchvit/torchvit/torch"
)

// encodeOperator is torchvision's operator; tests name another.
var encodeOperator = "image::encode_jpeg"

// EncodeJPEG writes a picture as JPEG of a quality of 1 to 100, alpha dropped: by libjpeg-turbo, through
// torchvision's encode_jpeg, whose bytes it gives, several times as fast as image/jpeg. Where torchvision or
// libtorch is not there, image/jpeg writes it.
func EncodeJPEG(ctx context.Context, w io.Writer, img image.Image, quality int) error {
	b := img.Bounds()
	if b.Empty() || b.Dx() > 65535 || b.Dy() > 65535 {
		return fmt.Errorf("encode JPEG: %w: got a picture of %dx%d, want sides of 1 to 65535 pixels", torch.ErrInvalidArgument, b.Dx(), b.Dy())
	}
	if quality < 1 || quality > 100 {
		return fmt.Errorf("encode JPEG: %w: got quality %d, want 1 to 100", torch.ErrInvalidArgument, quality)
	}
	err := encodeTorchvision(ctx, w, img, quality)
	if errors.Is(err, torch.ErrNotFound) || errors.Is(err, torch.ErrNotInstalled) {
		return jpeg.Encode(w, img, &jpeg.Options{Quality: quality})
	}
	return err
}

// packed holds buffers of pixels: fresh memory costs as much as what is written to it.
var packed sync.Pool

func encodeTorchvision(ctx context.Context, w io.Writer, img image.Image, quality int) error {
	var scope torch.Scope
	own := torch.Own(&scope)
	b := img.Bounds()
	rgba, ok := img.(*image.RGBA)
	if !ok {
		rgba = annotate.Opaque(img)
	}
	buffer, _ := packed.Get().(*[]uint8)
	if n := 3 * b.Dx() * b.Dy(); buffer == nil || cap(*buffer) < n {
		buffer = new(make([]uint8, n))
	}
	dst := (*buffer)[:3*b.Dx()*b.Dy()]
	annotate.PackRGB(dst, rgba)
	pixels, err := torch.FromSlice(dst, int64(b.Dy()), int64(b.Dx()), 3)
	if err != nil {
		return err
	}
	// Closed after the views of it, so that nothing reads the buffer any more.
	defer packed.Put(buffer)
	defer pixels.Close()
	defer scope.Close()
	// The operator takes (3, H, W) and lays it out as it lies here already.
	planes, err := own(pixels.Permute(2, 0, 1))
	if err != nil {
		return err
	}
	v, err := torch.CallWith(ctx, torch.CallOptions{OnCaller: true}, encodeOperator, planes, quality)
	if err != nil {
		return fmt.Errorf("encode JPEG: %w", err)
	}
	scope.Track(v)
	file, ok := v.(*torch.Tensor)
	if !ok {
		return fmt.Errorf("encode JPEG: %w: got %T, want a tensor", torch.ErrDType, v)
	}
	return torch.WithData(file, func(data []uint8) error {
		_, err := w.Write(data)
		return err
	})
}

// EncodePNG writes a picture as PNG, as image/png does, only several times as fast: rows are filtered and
// compressed on all processors, for speed before size. Opaque RGBA pictures become RGB; indexed ones of more
// than 16 colours, as class maps, keep one byte per pixel.
func EncodePNG(w io.Writer, img image.Image) error { return annotate.EncodePNG(w, img) }
