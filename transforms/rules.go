package transforms

import (
	"cmp"
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

// DETREdges is the rule of DETR in Hugging Face (get_size_with_aspect_ratio): the shorter side becomes
// size unless the longer would then pass maxSize, where the shorter is round(maxSize * short / long) and
// the longer follows from the value before rounding. A photo whose shorter side has its size already
// stays as it is.
func DETREdges(photo Size, size, maxSize int) Size {
	short, raw := detrShort(photo, size, maxSize)
	if photo.short() == short {
		return photo
	}
	return photo.detrSides(short, raw)
}

// YOLOSEdges is DETREdges without its exception, with both sides then taken down to a multiple of m, as
// YOLOS in Hugging Face does with m = 16.
func YOLOSEdges(photo Size, size, maxSize, m int) Size {
	return FloorMultipleOf(photo.detrSides(detrShort(photo, size, maxSize)), m)
}

func detrShort(photo Size, size, maxSize int) (short int, raw float64) {
	raw = float64(size)
	if low, high := float64(photo.short()), float64(photo.long()); maxSize > 0 && high/low*raw > float64(maxSize) {
		raw = float64(maxSize) * low / high
	}
	return round(raw), raw
}

func (s Size) detrSides(short int, raw float64) Size {
	if s.Width < s.Height {
		return Size{int(raw * float64(s.Height) / float64(s.Width)), short}
	}
	return Size{short, int(raw * float64(s.Width) / float64(s.Height))}
}

// Cover is timm's ResizeKeepRatio(size): the smallest size that covers the target, each side
// round(side / ratio).
func Cover(photo, target Size) Size {
	return photo.over(min(float64(photo.Height)/float64(target.Height), float64(photo.Width)/float64(target.Width)))
}

// Contain is timm's ResizeKeepRatio(size, longest=1): the largest size that fits into the target, each
// side round(side / ratio).
func Contain(photo, target Size) Size {
	return photo.over(max(float64(photo.Height)/float64(target.Height), float64(photo.Width)/float64(target.Width)))
}

func (s Size) over(ratio float64) Size {
	return Size{round(float64(s.Height) / ratio), round(float64(s.Width) / ratio)}
}

// MaxEdges is Hugging Face's {"max_height", "max_width"}: the largest size that fits into the target,
// each side int(side * ratio).
func MaxEdges(photo, target Size) Size {
	r := min(float64(target.Height)/float64(photo.Height), float64(target.Width)/float64(photo.Width))
	return Size{int(float64(photo.Height) * r), int(float64(photo.Width) * r)}
}

// DPTSize is DPT's rule with keep_aspect_ratio: of the two scales the one nearer to 1, and each side
// round(scale * side / m) * m.
func DPTSize(photo, target Size, m int) Size {
	sh, sw := float64(target.Height)/float64(photo.Height), float64(target.Width)/float64(photo.Width)
	if math.Abs(1-sw) < math.Abs(1-sh) {
		sh = sw
	} else {
		sw = sh
	}
	f := func(v float64) int { return round(v/float64(m)) * m }
	return Size{f(sh * float64(photo.Height)), f(sw * float64(photo.Width))}
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

// FloorMultipleOf takes each side down to a multiple of m, at least m.
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
	// RuleYOLOS is YOLOSEdges with size [S], max_size and multiple_of (16 where that is 0).
	RuleYOLOS = "yolos"
	// RuleCover, RuleContain and RuleMax are Cover, Contain and MaxEdges with size [H, W].
	RuleCover   = "cover"
	RuleContain = "contain"
	RuleMax     = "max_edges"
	// RuleDPT is DPTSize with size [H, W] and multiple_of (1 where that is 0).
	RuleDPT = "dpt"
)

// ResizeSpec is the "resize" part of a preprocess description. The zero value does not resize.
type ResizeSpec struct {
	// Rule is one of the Rule constants; "" is RuleNone.
	Rule string `json:"rule,omitempty"`
	// Size is [S] for the rules of one edge, [H, W] for the others.
	Size []int `json:"size,omitempty"`
	// MaxSize limits the longer side for RuleShortestEdge and RuleDETR; 0 does not.
	MaxSize int `json:"max_size,omitempty"`
	// MultipleOf > 0 then takes both sides to the nearest multiple of it, unless the rule has a way of its
	// own.
	MultipleOf int `json:"multiple_of,omitempty"`
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
	case RuleShortestEdge, RuleLongestEdge, RuleDETR, RuleYOLOS:
		err = validSize("resize.size", r.Size, 1)
	case RuleExact, RuleLetterbox, RuleCover, RuleContain, RuleMax, RuleDPT:
		err = validSize("resize.size", r.Size, 1, 2)
	default:
		err = fmt.Errorf("%w: resize.rule: got %q, want none, exact, shortest_edge, longest_edge, letterbox, detr, yolos, cover, contain, max_edges or dpt", ErrSpec, r.Rule)
	}
	switch {
	case err != nil:
		return err
	case r.MaxSize < 0 || r.MaxSize > maxSide:
		return fmt.Errorf("%w: resize.max_size: got %d, want 0 to %d", ErrSpec, r.MaxSize, maxSide)
	case r.MaxSize > 0 && r.Rule != RuleShortestEdge && r.Rule != RuleDETR && r.Rule != RuleYOLOS:
		return fmt.Errorf("%w: resize.max_size: got %d with rule %q, want it with shortest_edge, detr or yolos only", ErrSpec, r.MaxSize, r.Rule)
	case r.MaxSize > 0 && r.Rule == RuleShortestEdge && r.MaxSize <= r.Size[0]:
		return fmt.Errorf("%w: resize.max_size: got %d, want more than the shorter side's %d", ErrSpec, r.MaxSize, r.Size[0])
	case r.MultipleOf < 0 || r.MultipleOf > maxSide:
		return fmt.Errorf("%w: resize.multiple_of: got %d, want 0 to %d", ErrSpec, r.MultipleOf, maxSide)
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
	case RuleYOLOS:
		return YOLOSEdges(photo, r.Size[0], r.MaxSize, cmp.Or(r.MultipleOf, 16))
	case RuleCover:
		s = Cover(photo, hw(r.Size))
	case RuleContain:
		s = Contain(photo, hw(r.Size))
	case RuleMax:
		s = MaxEdges(photo, hw(r.Size))
	case RuleDPT:
		return DPTSize(photo, hw(r.Size), max(r.MultipleOf, 1))
	}
	if r.MultipleOf > 0 {
		return MultipleOf(s, r.MultipleOf)
	}
	return s
}
