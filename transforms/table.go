package transforms

import "fmt"

// Normalization is how bytes become floats.
type Normalization string

const (
	// NormalizeTorchvision is ToTensor and Normalize: (v / 255 - mean) / std, each step rounded to
	// float32. timm's and Hugging Face's PIL processors give the same bits.
	NormalizeTorchvision Normalization = "torchvision"
	// NormalizeV2 is torchvision v2's ToDtype(scale=True) and Normalize: (v * (1/255) - mean) / std. It
	// differs from NormalizeTorchvision in the last bit of 126 of the 256 levels.
	NormalizeV2 Normalization = "torchvision_v2"
	// NormalizeFused is Hugging Face's torchvision processors: (v - mean * 255) / (std * 255).
	NormalizeFused Normalization = "fused"
	// NormalizeNone is ToTensor alone: v / 255.
	NormalizeNone Normalization = "none"
)

// table gives the float32 of each of the 256 levels of each channel. Every operation is rounded to
// float32 on its own, as torch's kernels do.
func (n Normalization) table(mean, std []float64, channels int) ([]float32, error) {
	if n == "" {
		n = NormalizeTorchvision
		if len(mean) == 0 && len(std) == 0 {
			n = NormalizeNone
		}
	}
	out := make([]float32, 0, 256*channels)
	if n == NormalizeNone {
		for range channels {
			for v := range 256 {
				out = append(out, float32(v)/255)
			}
		}
		return out, nil
	}
	if len(mean) != channels || len(std) != channels {
		return nil, fmt.Errorf("%w: mean and std: got %v and %v, want %d numbers each", ErrSpec, mean, std, channels)
	}
	for c := range channels {
		m, s := float32(mean[c]), float32(std[c])
		if s == 0 {
			return nil, fmt.Errorf("%w: std: got %v, want no zeros", ErrSpec, std)
		}
		for v := range 256 {
			x := float32(v)
			switch n {
			case NormalizeTorchvision:
				x /= 255
			case NormalizeV2:
				x = float32(x * float32(1.0/255))
			case NormalizeFused:
				out = append(out, float32(x-float32(m*255))/float32(s*255))
				continue
			default:
				return nil, fmt.Errorf("%w: normalize: got %q, want torchvision, torchvision_v2, fused or none", ErrSpec, n)
			}
			out = append(out, float32(x-m)/s)
		}
	}
	return out, nil
}
