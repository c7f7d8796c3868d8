package annotate

import (
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"path/filepath"
	"strings"

	"github.com/torchvit/torchvit/internal/whole"
)

// ErrImageFormat says that a picture cannot be written in the format that the
// file's name asks for.
var ErrImageFormat = errors.New("image format cannot be written")

// JPEGQuality is the quality of the JPEG files that WriteImage writes.
const JPEGQuality = 92

// WriteImage writes img to path as PNG (.png) or JPEG (.jpg, .jpeg), whole or not
// at all, as [whole.Write] does. The error is [ErrImageFormat] for other names.
func WriteImage(path string, img image.Image) error {
	var encode func(io.Writer) error
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".png":
		encode = func(w io.Writer) error { return EncodePNG(w, img) }
	case ".jpg", ".jpeg":
		encode = func(w io.Writer) error { return jpeg.Encode(w, img, &jpeg.Options{Quality: JPEGQuality}) }
	default:
		return fmt.Errorf("%w: got %q, want a name that ends in .png, .jpg or .jpeg", ErrImageFormat, path)
	}
	return whole.Write(path, encode)
}
