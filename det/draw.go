package det

import (
	"cmp"
	"errors"
	"fmt"
	"image"
	"image/color"
	"math"
	"slices"
	"strconv"

	"github.com/torchvit/torchvit/coco"
	"github.com/torchvit/torchvit/internal/annotate"
)

// DrawOptions says how detections are drawn. The zero value works.
type DrawOptions struct {
	// Thickness of the lines and TextSize (em), both in pixels; 0 means that they
	// follow the photo's size.
	Thickness int
	TextSize  float64
	// Palette holds the colours, red, green and blue, by label id, starting again
	// at its end; nil means 256 distinct ones.
	Palette [][3]uint8
	// ByInstance gives each detection a colour of its own, those with the highest scores first, in place of
	// its label's.
	ByInstance bool
	// MaskAlpha is the share of the colour in the pixels of a detection's mask, in (0, 1]; 0 means 0.5. The
	// mask's rim is solid.
	MaskAlpha float64
	// NoMasks and NoBoxes leave those out.
	NoMasks, NoBoxes bool
	// NoLabels and NoScores leave those out of the plates; without both there are
	// no plates.
	NoLabels, NoScores bool
	// InPlace draws on the photo itself, which saves a copy, where it is an opaque *image.RGBA whose origin is
	// (0, 0).
	InPlace bool
	// Font is a TrueType or OpenType file's bytes for the labels; nil means the Go
	// font, which covers Latin, Greek and Cyrillic.
	Font []byte
}

// crowded is the share of a plate, or of one with a higher score, that may be
// covered before the plate is left out. It lets edges touch.
const crowded = 0.06

// ErrDraw says that detections cannot be drawn so: a mask that is not of the photo's size, or a bad option.
var ErrDraw = errors.New("cannot be drawn")

// mostPlates is the share of the picture that plates may cover, which counts on small pictures only.
const mostPlates = 0.4

// Draw draws the detections on the photo, which is not changed unless InPlace says so;
// the picture is new, of the same size, and without alpha. Masks are filled, with a rim, below the boxes.
// Boxes are coloured by label id, those with low scores first, so that those with high
// scores lie on top. The plate with label and score stands above its box, or where it
// would leave the picture or cover another, inside or below it. In a crowd the plate
// with the lower score is left out; its box is still drawn. Boxes that are empty, not
// finite or outside the photo are left out, with their masks.
//
// Errors: [ErrDraw], and that of a Font that cannot be read.
func Draw(photo image.Image, dets []Detection, opts DrawOptions) (*image.RGBA, error) {
	alpha := float32(opts.MaskAlpha)
	if opts.MaskAlpha == 0 {
		alpha = 0.5
	}
	if !(alpha > 0 && alpha <= 1) {
		return nil, fmt.Errorf("det: %w: got MaskAlpha %v, want it in (0, 1]", ErrDraw, opts.MaskAlpha)
	}
	out := annotate.Paint(photo, opts.InPlace, func(*image.RGBA, int, int) {})
	w, h := out.Rect.Dx(), out.Rect.Dy()
	scale := annotate.ScaleFor(w, h)
	if opts.Thickness > 0 {
		scale.Thickness = opts.Thickness
	}
	if opts.TextSize > 0 {
		scale.Text = opts.TextSize
	}
	text, err := annotate.NewText(scale.Text, true, opts.Font)
	if err != nil {
		return nil, fmt.Errorf("det: %w", err)
	}

	type item struct {
		Detection
		frame image.Rectangle
		color color.RGBA
	}
	var items []item
	for _, d := range dets {
		b := d.Box.Clip(w, h)
		if b.Empty() {
			continue
		}
		items = append(items, item{d, frame(b, scale.Thickness, out.Rect), opts.color(d.LabelID)})
	}
	slices.SortStableFunc(items, func(a, b item) int { return cmp.Compare(b.Score, a.Score) })

	if opts.ByInstance {
		for i := range items {
			items[i].color = opts.color(i)
		}
	}
	if !opts.NoMasks {
		masks := maskPainter{dst: out, alpha: alpha, thickness: scale.Thickness}
		for _, it := range slices.Backward(items) {
			if it.Mask == nil {
				continue
			}
			if err := masks.paint(it.Mask, it.color); err != nil {
				return nil, err
			}
		}
	}
	for _, it := range slices.Backward(items) {
		if opts.NoBoxes {
			break
		}
		// A dark rim parts the line from a background of the same colour.
		annotate.Frame(out, it.frame.Inset(-1), 1, color.RGBA{A: 255}, 0.45)
		annotate.Frame(out, it.frame.Inset(scale.Thickness), 1, color.RGBA{A: 255}, 0.45)
		annotate.Frame(out, it.frame, scale.Thickness, it.color, 1)
	}

	// The highest scores choose their places first and are painted last.
	type plate struct {
		place image.Rectangle
		text  string
		color color.RGBA
	}
	var plates []plate
	placer := annotate.Placer{Bounds: out.Rect}
	room := int(float64(w*h) * mostPlates)
	for _, it := range items {
		s := opts.caption(it.Detection, text, w-2*scale.Pad)
		if s == "" {
			continue
		}
		size := text.PlateSize(s, scale.Pad)
		if room -= size.X * size.Y; room < 0 && len(plates) > 0 {
			break
		}
		place, covered := placer.Place(size, corners(it.frame, size, scale.Thickness)...)
		if covered > crowded {
			room += size.X * size.Y
			continue
		}
		placer.Take(place)
		plates = append(plates, plate{place, s, it.color})
	}
	for _, p := range slices.Backward(plates) {
		text.DrawPlate(out, p.place, scale.Pad, p.text, p.color)
	}
	return out, nil
}

// maskPainter paints masks on a picture, with one buffer for all.
type maskPainter struct {
	dst       *image.RGBA
	alpha     float32
	thickness int
	pixels    []uint8
}

func (p *maskPainter) paint(mask *coco.RLE, c color.RGBA) error {
	w, h := p.dst.Rect.Dx(), p.dst.Rect.Dy()
	if mask.Width != w || mask.Height != h {
		return fmt.Errorf("det: %w: got a mask of %dx%d, want the photo's %dx%d", ErrDraw, mask.Width, mask.Height, w, h)
	}
	if p.pixels == nil {
		p.pixels = make([]uint8, w*h)
	}
	if err := mask.DecodeInto(p.pixels); err != nil {
		return fmt.Errorf("det: %w: %w", ErrDraw, err)
	}
	b := mask.Box() // x, y, width, height
	box := image.Rect(int(b[0]), int(b[1]), int(b[0]+b[2]), int(b[1]+b[3]))
	annotate.Region(p.dst, p.pixels, box, annotate.NewTint(c, p.alpha), annotate.NewTint(c, 1), p.thickness)
	return nil
}

// frame gives the pixels of a box's outline, whose lines lie on the box's edges.
func frame(b Box, thickness int, bounds image.Rectangle) image.Rectangle {
	r := image.Rect(round(b.X1), round(b.Y1), round(b.X2), round(b.Y2))
	r = r.Inset(-(thickness / 2))
	// At least one pixel of it is in the picture.
	r.Min.X, r.Min.Y = min(r.Min.X, bounds.Max.X-1), min(r.Min.Y, bounds.Max.Y-1)
	r.Max.X, r.Max.Y = max(r.Max.X, r.Min.X+1), max(r.Max.Y, r.Min.Y+1)
	return r.Intersect(bounds)
}

func round(v float32) int { return int(math.Round(float64(v))) }

// corners lists where the top left of a plate may be, the best first: above the
// box, in its corners, below it, then further down inside.
func corners(f image.Rectangle, size image.Point, t int) []image.Point {
	left, right := f.Min.X, f.Max.X-size.X
	above, below := f.Min.Y-size.Y, f.Max.Y
	top, bottom := f.Min.Y+t, f.Max.Y-t-size.Y
	list := []image.Point{}
	if above >= 0 {
		list = append(list, image.Pt(left, above))
	}
	list = append(list,
		image.Pt(left, top), image.Pt(right, top), image.Pt(right, above),
		image.Pt(left, bottom), image.Pt(right, bottom),
		image.Pt(left, below), image.Pt(right, below),
	)
	for y := top + size.Y; y < bottom; y += size.Y {
		list = append(list, image.Pt(left, y), image.Pt(right, y))
	}
	return list
}

func (o DrawOptions) color(id int) color.RGBA {
	if len(o.Palette) == 0 {
		return annotate.Distinct(id)
	}
	i := id % len(o.Palette)
	if i < 0 {
		i += len(o.Palette)
	}
	c := o.Palette[i]
	return color.RGBA{R: c[0], G: c[1], B: c[2], A: 255}
}

// caption is the plate's text, "cat 0.93", at most width pixels wide. Where it must
// be shortened, the score stays whole as long as that is possible.
func (o DrawOptions) caption(d Detection, text *annotate.Text, width int) string {
	label := d.Label
	if label == "" {
		label = strconv.Itoa(d.LabelID)
	}
	score := strconv.FormatFloat(float64(d.Score), 'f', 2, 32)
	switch {
	case o.NoLabels && o.NoScores:
		return ""
	case o.NoLabels:
		return text.Fit(score, width)
	case o.NoScores:
		return text.Fit(label, width)
	}
	whole := label + " " + score
	if text.Width(whole) > width {
		whole = text.Fit(label, width-text.Width("… "+score)) + " " + score
	}
	return text.Fit(whole, width)
}
