package transforms

import "fmt"

// Interpolation is the filter of a resize, by torchvision's InterpolationMode names.
type Interpolation string

// The filters. Box and Hamming exist for the backend pil only, and NearestExact for torch only.
const (
	Nearest      Interpolation = "nearest"
	NearestExact Interpolation = "nearest-exact"
	Box          Interpolation = "box"
	Bilinear     Interpolation = "bilinear"
	Hamming      Interpolation = "hamming"
	Bicubic      Interpolation = "bicubic"
	Lanczos      Interpolation = "lanczos"
)

// pillow is Pillow's number of the filter; "" is Bilinear, torchvision's default.
func (i Interpolation) pillow() (int32, error) {
	switch i {
	case Nearest:
		return 0, nil
	case Lanczos:
		return 1, nil
	case Bilinear, "":
		return 2, nil
	case Bicubic:
		return 3, nil
	case Box:
		return 4, nil
	case Hamming:
		return 5, nil
	}
	return 0, fmt.Errorf("%w: interpolation: got %q, want nearest, box, bilinear, hamming, bicubic or lanczos", ErrSpec, i)
}

// Backend is whose arithmetic a resize has.
type Backend string

const (
	// PIL is Pillow's 8-bit arithmetic, bit for bit: the default.
	PIL Backend = "pil"
	// Torch is what torchvision's v2 Resize does with a tensor: torch's uint8 kernels for images of uint8,
	// its float kernels for images of float32.
	Torch Backend = "torch"
)

// PassOrder is which pass of Pillow's resize runs first; the bits depend on it where both sides change.
type PassOrder int32

const (
	// Pillow13 is the order of Pillow 13: vertical first where the height shrinks more than twice as much
	// as the width.
	Pillow13 PassOrder = 0
	// Pillow12 is the order of Pillow 12 and before: horizontal first, unless the image is more than a
	// hundred times as high as wide.
	Pillow12 PassOrder = 1
)
