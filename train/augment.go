package train

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/torchvit/torchvit/loader"
	"github.com/torchvit/torchvit/transforms"
)

// ParseAugment reads augmentations, comma-separated, in any order, each with a value or its default:
//
//	flip[=P]        mirrors with a probability of 0.5
//	crop[=LOW:HIGH] crops a part of 0.35 to 1 of the photo's area and resizes it (RandomResizedCrop)
//	scale[=LOW:HIGH] scales by 0.5 to 1.5 and crops or pads (ScaleJitter)
//	color[=X]       brightness, contrast and saturation by up to 0.3, hue by a tenth of that
//
// "" and "none" are none.
func ParseAugment(text string) (loader.Augment, error) {
	var a loader.Augment
	if text == "" || text == "none" {
		return a, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		name, value, given := strings.Cut(strings.TrimSpace(part), "=")
		fail := func(want string) (loader.Augment, error) {
			return a, fmt.Errorf("augment: %w: got %q, want %s", ErrOptions, part, want)
		}
		var numbers []float64
		if given {
			for n := range strings.SplitSeq(value, ":") {
				v, err := strconv.ParseFloat(n, 64)
				if err != nil || !(v >= 0) || len(numbers) == 2 {
					return fail("a number, or LOW:HIGH")
				}
				numbers = append(numbers, v)
			}
		}
		one := func(other float64) float64 {
			if len(numbers) == 0 {
				return other
			}
			return numbers[0]
		}
		span := func(low, high float64) [2]float64 {
			if len(numbers) == 2 {
				return [2]float64{numbers[0], numbers[1]}
			}
			return [2]float64{low, high}
		}
		switch {
		case (name == "flip" || name == "color") && len(numbers) == 2:
			return fail(name + " or " + name + "=X")
		case (name == "crop" || name == "scale") && len(numbers) == 1:
			return fail(name + " or " + name + "=LOW:HIGH")
		case name == "flip":
			a.HorizontalFlip = one(0.5)
		case name == "color":
			x := one(0.3)
			a.ColorJitter = &transforms.ColorJitter{
				Brightness: []float64{x}, Contrast: []float64{x}, Saturation: []float64{x}, Hue: []float64{min(x/10, 0.5)},
			}
		case name == "crop":
			a.RandomResizedCrop = &transforms.RandomResizedCrop{Scale: span(0.35, 1)}
		case name == "scale":
			a.ScaleJitter = &transforms.ScaleJitter{ScaleRange: span(0.5, 1.5)}
		default:
			return fail("flip, crop, scale or color, each perhaps with =VALUE, or none")
		}
	}
	return a, nil
}
