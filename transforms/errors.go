package transforms

import (
	"errors"
	"fmt"

	"github.com/torchvit/torchvit/torch"
)

// Errors to test for with errors.Is.
var (
	// ErrFormat: the bytes are no image file of a known format.
	ErrFormat = errors.New("unknown image format")
	// ErrDecode: the file is damaged or cut short.
	ErrDecode = errors.New("damaged image")
	// ErrUnsupported: a valid file of a kind that is not decoded here.
	ErrUnsupported = errors.New("unsupported image")
	// ErrTooLarge: the image has more pixels than allowed; the error is a *SizeError.
	ErrTooLarge = errors.New("image too large")
	// ErrNoDecoder: torchvision's decoders, which give Python's bits, are not loaded.
	ErrNoDecoder = errors.New("no exact decoder")
	// ErrSpec: a preprocess description that makes no sense.
	ErrSpec = errors.New("invalid preprocess")
	// ErrSource: a value that is no image.
	ErrSource = errors.New("not an image")
	// ErrSizes: images whose tensors have different sizes cannot share a batch.
	ErrSizes = errors.New("images of different sizes")
	// ErrClosed: the image was closed.
	ErrClosed = torch.ErrClosed
)

// SizeError says that an image would have too many pixels. It is found in the header, before any pixel
// is decoded.
type SizeError struct {
	// What is "image" or "output".
	What          string
	Height, Width int
	// Limit is the number of pixels that was allowed.
	Limit int64
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("%s too large: got %d x %d = %d pixels, want at most %d (DecodeOptions.MaxPixels)",
		e.What, e.Width, e.Height, int64(e.Width)*int64(e.Height), e.Limit)
}

// Is makes errors.Is(err, ErrTooLarge) true.
func (e *SizeError) Is(target error) bool { return target == ErrTooLarge }

func damaged(f Format, format string, args ...any) error {
	return fmt.Errorf("decode %s: %w: "+format, append([]any{f, ErrDecode}, args...)...)
}

func unsupported(f Format, format string, args ...any) error {
	return fmt.Errorf("decode %s: %w: "+format, append([]any{f, ErrUnsupported}, args...)...)
}
