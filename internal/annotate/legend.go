package annotate

import (
	"image"
	"image/color"
	"image/draw"
	"math"
)

// Entry is one line of a legend: a swatch, a name, and a value at the line's end.
// The swatch is empty where the colour has no alpha.
type Entry struct {
	Color color.RGBA
	Name  string
	Value string
}

var (
	paper = color.RGBA{R: 252, G: 252, B: 252, A: 255}
	ink   = color.RGBA{R: 24, G: 24, B: 27, A: 255}
	faint = color.RGBA{R: 110, G: 110, B: 118, A: 255}
	rule  = color.RGBA{R: 150, G: 150, B: 156, A: 255}
)

// WithLegend gives a new picture: img with a panel that holds the entries, to the
// right or below, in as many columns as make the picture small and its shape usual. Img stands at (0, 0), unchanged and whole. Without entries it is img.
func WithLegend(img *image.RGBA, entries []Entry, ttf []byte) (*image.RGBA, error) {
	if len(entries) == 0 {
		return img, nil
	}
	w, h := img.Rect.Dx(), img.Rect.Dy()
	s := ScaleFor(w, h)
	text, err := NewText(s.Text, false, ttf)
	if err != nil {
		return nil, err
	}
	l := newLegend(text, s, entries)

	at, rows, total := l.place(w, h)
	out := image.NewRGBA(image.Rectangle{Max: total})
	Fill(out, image.Rect(w, 0, total.X, total.Y), paper, 1)
	Fill(out, image.Rect(0, h, min(w, total.X), total.Y), paper, 1)
	draw.Draw(out, img.Rect, img, image.Point{}, draw.Src)
	l.draw(out, at, rows)
	return out, nil
}

// legend is the layout of a legend's entries.
type legend struct {
	text                            *Text
	entries                         []Entry
	gap, line, swatch, name, column int
}

func newLegend(text *Text, s Scale, entries []Entry) *legend {
	l := &legend{text: text, entries: entries, gap: max(5, int(s.Text*0.6))}
	l.line = text.Height() + max(2, text.Height()/5)
	l.swatch = int(s.Text)
	value := 0
	for _, e := range entries {
		l.name = max(l.name, text.Width(e.Name))
		value = max(value, text.Width(e.Value))
	}
	l.name = min(l.name, int(14*s.Text)) // longer names are shortened
	l.column = l.swatch + l.gap + l.name
	if value > 0 {
		l.column += l.gap + value
	}
	return l
}

// place chooses where the panel goes, to the right or below, and its rows: the smallest picture, but not one
// much longer than it is wide, or wider than it is long.
func (l *legend) place(w, h int) (at image.Point, rows int, total image.Point) {
	best := math.Inf(1)
	try := func(p image.Point, r int, size image.Point, sticksOut bool) {
		shape := math.Abs(math.Log(float64(size.X) / float64(size.Y) / 1.4))
		cost := float64(size.X) * float64(size.Y) * (1 + 0.35*shape)
		if sticksOut {
			cost *= 1.15 // for the bare strip beside it
		}
		if cost < best {
			best, at, rows, total = cost, p, r, size
		}
	}
	for cols := 1; cols <= len(l.entries); cols++ {
		r := (len(l.entries) + cols - 1) / cols
		panel := l.size(r)
		try(image.Pt(w, 0), r, image.Pt(w+panel.X, max(h, panel.Y)), panel.Y > h)
		try(image.Pt(0, h), r, image.Pt(max(w, panel.X), h+panel.Y), panel.X > w)
	}
	return at, rows, total
}

func (l *legend) size(rows int) image.Point {
	cols := (len(l.entries) + rows - 1) / rows
	return image.Pt(cols*(l.column+2*l.gap), rows*l.line+2*l.gap)
}

func (l *legend) draw(dst *image.RGBA, at image.Point, rows int) {
	for i, e := range l.entries {
		x := at.X + l.gap + i/rows*(l.column+2*l.gap)
		end := x + l.column
		y := at.Y + l.gap + i%rows*l.line
		top := y + (l.text.Height()-l.swatch)/2
		sw := image.Rect(x, top, x+l.swatch, top+l.swatch)
		if e.Color.A != 0 {
			Fill(dst, sw, e.Color, 1)
		}
		Frame(dst, sw, 1, rule, 1)
		x += l.swatch + l.gap
		l.text.Draw(dst, image.Pt(x, y), l.text.Fit(e.Name, l.name), ink)
		l.text.Draw(dst, image.Pt(end-l.text.Width(e.Value), y), e.Value, faint)
	}
}
