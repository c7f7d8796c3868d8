package annotate

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

// ErrFont says that a font could not be read.
var ErrFont = errors.New("not a TrueType or OpenType font")

// Text measures and draws single lines of text at one size. It is not safe for
// concurrent use.
type Text struct {
	face    font.Face
	ascent  int // from the top of a line to its base line
	descent int
}

var (
	regular = sync.OnceValues(func() (*opentype.Font, error) { return opentype.Parse(goregular.TTF) })
	bold    = sync.OnceValues(func() (*opentype.Font, error) { return opentype.Parse(gobold.TTF) })
)

// NewText prepares text of the given em size in pixels. The font is the Go font,
// which covers Latin, Greek and Cyrillic, or a TrueType or OpenType file's bytes
// for other scripts; the error is [ErrFont].
func NewText(size float64, heavy bool, ttf []byte) (*Text, error) {
	var f *opentype.Font
	var err error
	switch {
	case ttf != nil:
		f, err = opentype.Parse(ttf)
	case heavy:
		f, err = bold()
	default:
		f, err = regular()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFont, err)
	}
	face, err := opentype.NewFace(f, &opentype.FaceOptions{Size: size, DPI: 72, Hinting: font.HintingFull})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFont, err)
	}
	m := face.Metrics()
	return &Text{face: face, ascent: m.Ascent.Ceil(), descent: m.Descent.Ceil()}, nil
}

// Height is the height of a line in pixels.
func (t *Text) Height() int { return t.ascent + t.descent }

// Width is the width of s in pixels.
func (t *Text) Width(s string) int { return font.MeasureString(t.face, oneLine(s)).Ceil() }

// Fit shortens s with an ellipsis until it is at most width pixels wide. It is
// empty where not even the ellipsis fits.
func (t *Text) Fit(s string, width int) string {
	s = oneLine(s)
	if t.Width(s) <= width {
		return s
	}
	for runes := []rune(s); len(runes) > 0; {
		runes = runes[:len(runes)-1]
		if short := strings.TrimRight(string(runes), " ") + "…"; t.Width(short) <= width {
			return short
		}
	}
	return ""
}

// Draw writes s with the top left corner of its line at p.
func (t *Text) Draw(dst *image.RGBA, p image.Point, s string, c color.RGBA) {
	d := font.Drawer{
		Dst: dst, Src: image.NewUniform(c), Face: t.face,
		Dot: fixed.P(p.X, p.Y+t.ascent),
	}
	d.DrawString(oneLine(s))
}

// PlateSize is the size of the plate that DrawPlate needs for s.
func (t *Text) PlateSize(s string, pad int) image.Point {
	return image.Pt(t.Width(s)+2*pad, t.Height()+2*(pad/3))
}

// DrawPlate fills r with c and writes s on it in black or white.
func (t *Text) DrawPlate(dst *image.RGBA, r image.Rectangle, pad int, s string, c color.RGBA) {
	Fill(dst, r, c, 1)
	t.Draw(dst, r.Min.Add(image.Pt(pad, pad/3)), s, Contrast(c))
}

// oneLine makes s fit for one line: valid UTF-8, and a space for every run of
// white space or control characters.
func oneLine(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}), " ")
}
