package annotate

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"sort"
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
	glyphs  map[rune]*glyph
}

// glyph is a character's picture, drawn once: lines of text begin and advance by
// whole pixels, as hinting makes them.
type glyph struct {
	mask    []uint8 // coverage, width x height
	box     image.Rectangle
	advance fixed.Int26_6
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
func (t *Text) Width(s string) int {
	var x fixed.Int26_6
	last := rune(-1)
	for _, r := range oneLine(s) {
		if last >= 0 {
			x += t.face.Kern(last, r)
		}
		x += t.glyph(r).advance
		last = r
	}
	return x.Ceil()
}

// glyph gives a character, or the font's picture for one that it has not.
func (t *Text) glyph(r rune) *glyph {
	if g, ok := t.glyphs[r]; ok {
		return g
	}
	g := &glyph{}
	box, mask, at, advance, ok := t.face.Glyph(fixed.Point26_6{}, r)
	g.advance = advance
	if !ok {
		g.advance, _ = t.face.GlyphAdvance(r)
	} else if !box.Empty() {
		g.box = box
		g.mask = make([]uint8, 0, box.Dx()*box.Dy())
		for y := range box.Dy() {
			for x := range box.Dx() {
				_, _, _, a := mask.At(at.X+x, at.Y+y).RGBA()
				g.mask = append(g.mask, uint8(a>>8))
			}
		}
	}
	if t.glyphs == nil {
		t.glyphs = map[rune]*glyph{}
	}
	t.glyphs[r] = g
	return g
}

// Fit shortens s with an ellipsis until it is at most width pixels wide. It is
// empty where not even the ellipsis fits.
func (t *Text) Fit(s string, width int) string {
	s = oneLine(s)
	if t.Width(s) <= width {
		return s
	}
	runes := []rune(s)
	short := func(n int) string { return strings.TrimRight(string(runes[:n]), " ") + "…" }
	// The least number of characters that is too wide.
	n := sort.Search(len(runes), func(n int) bool { return t.Width(short(n)) > width })
	if n == 0 {
		return ""
	}
	return short(n - 1)
}

// Draw writes s with the top left corner of its line at p.
func (t *Text) Draw(dst *image.RGBA, p image.Point, s string, c color.RGBA) {
	x := fixed.I(p.X)
	last := rune(-1)
	for _, r := range oneLine(s) {
		if last >= 0 {
			x += t.face.Kern(last, r)
		}
		g := t.glyph(r)
		g.draw(dst, image.Pt(x.Round(), p.Y+t.ascent), c)
		x += g.advance
		last = r
	}
}

// draw paints the glyph with its origin at p.
func (g *glyph) draw(dst *image.RGBA, p image.Point, c color.RGBA) {
	box := g.box.Add(p)
	r := box.Intersect(dst.Rect)
	if r.Empty() {
		return
	}
	for y := r.Min.Y; y < r.Max.Y; y++ {
		cover := g.mask[(y-box.Min.Y)*box.Dx()+r.Min.X-box.Min.X:][:r.Dx()]
		row := dst.Pix[dst.PixOffset(r.Min.X, y):][:4*r.Dx()]
		for x, a := range cover {
			if a == 0 {
				continue
			}
			q := row[4*x : 4*x+4 : 4*x+4]
			k := uint32(a)
			q[0] = uint8((uint32(c.R)*k + uint32(q[0])*(255-k) + 127) / 255)
			q[1] = uint8((uint32(c.G)*k + uint32(q[1])*(255-k) + 127) / 255)
			q[2] = uint8((uint32(c.B)*k + uint32(q[2])*(255-k) + 127) / 255)
			q[3] = uint8((255*k + uint32(q[3])*(255-k) + 127) / 255)
		}
	}
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
	plain := true
	for i := range len(s) {
		plain = plain && s[i] >= ' ' && s[i] < 0x7f && (s[i] != ' ' || i > 0 && i < len(s)-1 && s[i-1] != ' ')
	}
	if plain {
		return s
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}), " ")
}
