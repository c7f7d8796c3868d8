package seg

import (
	"cmp"
	"errors"
	"fmt"
	"image"
	"image/color"
	"slices"
	"strconv"

	"github.com/torchvit/torchvit/internal/annotate"
)

// ErrAlpha says that an overlay's share is not in [0, 1].
var ErrAlpha = errors.New("alpha is not in [0, 1]")

// DefaultAlpha is the classes' share of an overlay where the options give none.
const DefaultAlpha = 0.5

// OverlayOptions says how a class map is drawn over a photo. The zero value works.
type OverlayOptions struct {
	// Alpha is the share of the class's colour in a pixel, in (0, 1]; 0 means
	// DefaultAlpha.
	Alpha float64
	// Palette holds the classes' colours; nil means DistinctPalette(256).
	Palette Palette
	// Labels holds the classes' names for the legend. A class without one is shown
	// by its id.
	Labels []string
	// Transparent lists classes that are not painted, as the background. They
	// still stand in the legend, with their share and an empty swatch.
	Transparent []uint8
	// Hidden lists classes that are neither painted nor in the legend.
	Hidden []uint8
	// NoLegend leaves the legend out, so that the picture has the photo's size.
	NoLegend bool
	// InPlace paints on the photo itself, which saves a copy, where it is an opaque *image.RGBA whose origin is
	// (0, 0). Without a legend the picture is then the photo.
	InPlace bool
	// Font is a TrueType or OpenType file's bytes for the legend's text; nil means
	// the Go font, which covers Latin, Greek and Cyrillic.
	Font []byte
}

// Overlay draws a class map over its photo, which must have the same size, and puts
// a legend beside or below it: the classes that are present, the largest first, and
// their share of the pixels. The photo, whose alpha is dropped, is not changed, and the
// picture is new, unless InPlace says otherwise.
//
// The blend is Pillow's Image.blend(photo, colours, alpha), the one that Segmenter
// uses: photo + alpha*(colour-photo) in float32, truncated to uint8. (torchvision's
// draw_segmentation_masks gives the same at 0.5; elsewhere it can be one less.)
//
// Errors: [ErrSize], [ErrAlpha].
func Overlay(photo image.Image, m *ClassMap, opts OverlayOptions) (*image.RGBA, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	if s := photo.Bounds().Size(); s.X != m.Width || s.Y != m.Height {
		return nil, fmt.Errorf("seg: %w: photo of %dx%d, class map of %dx%d", ErrSize, s.X, s.Y, m.Width, m.Height)
	}
	alpha := float32(opts.Alpha)
	if opts.Alpha == 0 {
		alpha = DefaultAlpha
	}
	if !(alpha > 0 && alpha <= 1) {
		return nil, fmt.Errorf("seg: %w: got %v", ErrAlpha, opts.Alpha)
	}
	palette := opts.Palette
	if palette == nil {
		palette = DistinctPalette(256)
	}

	hidden := [256]bool{}
	for _, id := range opts.Transparent {
		hidden[id] = true
	}
	unseen := hidden
	for _, id := range opts.Hidden {
		unseen[id] = true
	}
	tints := &annotate.Tints{Alpha: alpha, Color: func(id uint8) (color.RGBA, bool) { return palette.Color(id), !unseen[id] }}
	out := annotate.Paint(photo, opts.InPlace, func(out *image.RGBA, y0, y1 int) { annotate.Runs(out, m.Classes, tints, y0, y1) })
	if opts.NoLegend {
		return out, nil
	}
	counts := m.Counts()
	for _, id := range opts.Hidden {
		counts[id] = 0
	}
	legend, err := annotate.WithLegend(out, legendEntries(counts, len(m.Classes), palette, opts.Labels, hidden), opts.Font)
	if err != nil {
		return nil, fmt.Errorf("seg: legend: %w", err)
	}
	return legend, nil
}

func legendEntries(counts [256]int, pixels int, p Palette, labels []string, hidden [256]bool) []annotate.Entry {
	var ids []int
	for id, n := range counts {
		if n > 0 {
			ids = append(ids, id)
		}
	}
	slices.SortStableFunc(ids, func(a, b int) int { return cmp.Compare(counts[b], counts[a]) })
	entries := make([]annotate.Entry, len(ids))
	for i, id := range ids {
		name := strconv.Itoa(id)
		if id < len(labels) && labels[id] != "" {
			name = labels[id]
		}
		entries[i] = annotate.Entry{Name: name, Value: percent(float64(counts[id]) / float64(pixels))}
		if !hidden[id] {
			entries[i].Color = p.Color(uint8(id))
		}
	}
	return entries
}

// percent writes a share so that a class that is there never reads 0 %.
func percent(share float64) string {
	if p := 100 * share; p >= 0.05 {
		return strconv.FormatFloat(p, 'f', 1, 64) + " %"
	}
	return "<0.1 %"
}
