package transforms

import (
	"fmt"
	"math"
)

// Size is a height and a width in pixels.
type Size struct{ Height, Width int }

// The rules below are those of the Python libraries, each with its own rounding: int() cuts off, round()
// takes halves to the even neighbour.

// scaled is Python's int(a * b / c).
func scaled(a, b, c int) int { return int(float64(a*b) / float64(c)) }

// round is Python's round(x): halves go to the even neighbour.
func round(x float64) int { return int(math.RoundToEven(x)) }

// sides gives a size from its short and long side, in the photo's orientation.
func (s Size) sides(short, long int) Size {
	if s.Height <= s.Width {
		return Size{short, long}
	}
	return Size{long, short}
}

func (s Size) short() int { return min(s.Height, s.Width) }
func (s Size) long() int  { return max(s.Height, s.Width) }

// ShortestEdge is torchvision's Resize(size, max_size) and Hugging Face's {"shortest_edge": size}: the
// shorter side becomes size, the longer int(size * long / short). With maxSize > 0 and a longer side
// above it, the longer side becomes maxSize and the shorter int(maxSize * short / long) of that result.
func ShortestEdge(photo Size, size, maxSize int) Size {
	short, long := size, scaled(size, photo.long(), photo.short())
	if maxSize > 0 && long > maxSize {
		short, long = scaled(maxSize, short, long), maxSize
	}
	return photo.sides(short, long)
}

// LongestEdge makes the longer side size and the shorter int(size * short / long), at least 1: Hugging
// Face's {"longest_edge": size}.
func LongestEdge(photo Size, size int) Size {
	return photo.sides(max(1, scaled(size, photo.short(), photo.long())), size)
}

// DETREdges is the rule of DETR and of YOLOS in Hugging Face (get_size_with_aspect_ratio): the shorter
// side becomes size unless the longer would then pass maxSize, where the shorter is
// round(maxSize * short / long) and the longer follows from the value before rounding.
func DETREdges(photo Size, size, maxSize int) Size {
	short, long := float64(photo.short()), float64(photo.long())
	raw := float64(size)
	if maxSize > 0 && long/short*raw > float64(maxSize) {
		raw = float64(maxSize) * short / long
		size = round(raw)
	}
	if photo.short() == size {
		return photo
	}
	if photo.Width < photo.Height {
		return Size{int(raw * float64(photo.Height) / float64(photo.Width)), size}
	}
	return Size{size, int(raw * float64(photo.Width) / float64(photo.Height))}
}

// LetterboxSize is the size of the photo inside a canvas: the largest that keeps the aspect ratio, each
// side max(round(side * ratio), 1), as ultralytics computes it.
func LetterboxSize(photo, canvas Size) Size {
	r := min(float64(canvas.Height)/float64(photo.Height), float64(canvas.Width)/float64(photo.Width))
	return Size{max(round(float64(photo.Height)*r), 1), max(round(float64(photo.Width)*r), 1)}
}

// LetterboxOffset is where the photo lies in the canvas: round((canvas - photo) / 2 - 0.1), as
// ultralytics does. Negative where the photo is larger.
func LetterboxOffset(photo, canvas Size) (top, left int) {
	return round(float64(canvas.Height-photo.Height)/2 - 0.1), round(float64(canvas.Width-photo.Width)/2 - 0.1)
}

// MultipleOf takes each side to the nearest multiple of m, halves to the even multiple, at least m:
// max(m, round(side / m) * m).
func MultipleOf(s Size, m int) Size {
	f := func(v int) int { return max(m, round(float64(v)/float64(m))*m) }
	return Size{f(s.Height), f(s.Width)}
}

// FloorMultipleOf takes each side down to a multiple of m, at least m, as YOLOS in Hugging Face does.
func FloorMultipleOf(s Size, m int) Size {
	f := func(v int) int { return max(m, v/m*m) }
	return Size{f(s.Height), f(s.Width)}
}

// TimmSize is timm's scale_size, to which the shorter side is resized before the crop:
// floor(size / crop_pct).
func TimmSize(size int, cropPct float64) int { return int(math.Floor(float64(size) / cropPct)) }

// CenterCropWindow is torchvision's center_crop: the window's corner. Where the photo is smaller the
// corner is negative, and what lies outside is filled with 0.
func CenterCropWindow(photo, crop Size) (top, left int) {
	f := func(have, want int) int {
		if want > have {
			return -((want - have) / 2)
		}
		return round(float64(have-want) / 2)
	}
	return f(photo.Height, crop.Height), f(photo.Width, crop.Width)
}

// FloorCropWindow is Hugging Face's center_crop, which rounds down where torchvision rounds halves to
// even.
func FloorCropWindow(photo, crop Size) (top, left int) {
	f := func(have, want int) int {
		if want > have {
			return -((want - have) / 2)
		}
		return (have - want) / 2
	}
	return f(photo.Height, crop.Height), f(photo.Width, crop.Width)
}

// Resize rules of a preprocess description.
const (
	// RuleNone keeps the photo's size.
	RuleNone = "none"
	// RuleExact stretches to size [H, W].
	RuleExact = "exact"
	// RuleShortestEdge is ShortestEdge with size [S] and max_size.
	RuleShortestEdge = "shortest_edge"
	// RuleLongestEdge is LongestEdge with size [S].
	RuleLongestEdge = "longest_edge"
	// RuleLetterbox fits the photo into size [H, W] and pads with grey of level 114.
	RuleLetterbox = "letterbox"
	// RuleDETR is DETREdges with size [S] and max_size.
	RuleDETR = "detr"
)

// ResizeSpec is the "resize" part of a preprocess description. The zero value does not resize.
type ResizeSpec struct {
	// Rule is one of the Rule constants; "" is RuleNone.
	Rule string `json:"rule,omitempty"`
	// Size is [S] for the rules of one edge, [H, W] for the others.
	Size []int `json:"size,omitempty"`
	// MaxSize limits the longer side for RuleShortestEdge and RuleDETR; 0 does not.
	MaxSize int `json:"max_size,omitempty"`
	// MultipleOf > 0 then takes both sides to a multiple of it.
	MultipleOf int `json:"multiple_of,omitempty"`
	// MultipleRule is "round" (MultipleOf, the default) or "floor" (FloorMultipleOf).
	MultipleRule string `json:"multiple_rule,omitempty"`
}

// maxSide is the largest side that an image may be resized to.
const maxSide = 1 << 24

func validSize(what string, size []int, lengths ...int) error {
	ok := false
	for _, n := range lengths {
		ok = ok || len(size) == n
	}
	if !ok {
		return fmt.Errorf("%w: %s: got %v, want %d numbers", ErrSpec, what, size, lengths[len(lengths)-1])
	}
	for _, v := range size {
		if v < 1 || v > maxSide {
			return fmt.Errorf("%w: %s: got %v, want sides of 1 to %d", ErrSpec, what, size, maxSide)
		}
	}
	return nil
}

func (r ResizeSpec) validate() error {
	var err error
	switch r.Rule {
	case "", RuleNone:
	case RuleShortestEdge, RuleLongestEdge, RuleDETR:
		err = validSize("resize.size", r.Size, 1)
	case RuleExact, RuleLetterbox:
		err = validSize("resize.size", r.Size, 1, 2)
	default:
		err = fmt.Errorf("%w: resize.rule: got %q, want none, exact, shortest_edge, longest_edge, letterbox or detr", ErrSpec, r.Rule)
	}
	switch {
	case err != nil:
		return err
	case r.MaxSize < 0 || r.MaxSize > maxSide:
		return fmt.Errorf("%w: resize.max_size: got %d, want 0 to %d", ErrSpec, r.MaxSize, maxSide)
	case r.MaxSize > 0 && r.Rule != RuleShortestEdge && r.Rule != RuleDETR:
		return fmt.Errorf("%w: resize.max_size: got %d with rule %q, want it with shortest_edge or detr only", ErrSpec, r.MaxSize, r.Rule)
	case r.MaxSize > 0 && r.Rule == RuleShortestEdge && r.MaxSize <= r.Size[0]:
		return fmt.Errorf("%w: resize.max_size: got %d, want more than the shorter side's %d", ErrSpec, r.MaxSize, r.Size[0])
	case r.MultipleOf < 0 || r.MultipleOf > maxSide:
		return fmt.Errorf("%w: resize.multiple_of: got %d, want 0 to %d", ErrSpec, r.MultipleOf, maxSide)
	case r.MultipleRule != "" && r.MultipleRule != "round" && r.MultipleRule != "floor":
		return fmt.Errorf("%w: resize.multiple_rule: got %q, want round or floor", ErrSpec, r.MultipleRule)
	}
	return nil
}

// hw reads [H, W], or [S] for a square.
func hw(size []int) Size { return Size{size[0], size[len(size)-1]} }

// Resized is the size that the rule gives for a photo. The rule must be a valid one.
func (r ResizeSpec) Resized(photo Size) Size {
	s := photo
	switch r.Rule {
	case RuleExact:
		s = hw(r.Size)
	case RuleShortestEdge:
		s = ShortestEdge(photo, r.Size[0], r.MaxSize)
	case RuleLongestEdge:
		s = LongestEdge(photo, r.Size[0])
	case RuleLetterbox:
		s = LetterboxSize(photo, hw(r.Size))
	case RuleDETR:
		s = DETREdges(photo, r.Size[0], r.MaxSize)
	}
	if r.MultipleOf > 0 {
		if r.MultipleRule == "floor" {
			return FloorMultipleOf(s, r.MultipleOf)
		}
		return MultipleOf(s, r.MultipleOf)
	}
	return s
}
