package vit

import (
	"encoding/csv"
	"fmt"
	"image"
	"image/color"
	"io"
	"math"
	"strconv"

	"github.com/torchvit/torchvit/internal/annotate"
)

// ConfusionOptions say how a confusion matrix is drawn. The zero value works.
type ConfusionOptions struct {
	// Labels name the classes; a class without one is shown by its number.
	Labels []string
	// Title stands above the matrix.
	Title string
	// All draws every class; else those that were neither there nor predicted are left out.
	All bool
	// Font is a TrueType or OpenType file's bytes for the text; nil means the Go font, which covers Latin, Greek
	// and Cyrillic.
	Font []byte
}

// blues are ColorBrewer's nine blues, from nothing to all of a row.
var blues = [...][3]float64{
	{255, 255, 255}, {222, 235, 247}, {198, 219, 239}, {158, 202, 225}, {107, 174, 214}, {66, 146, 198}, {33, 113, 181}, {8, 81, 156}, {8, 48, 107},
}

// blue is the colour of a share, 0 to 1, by its square root, so that one in a hundred can be seen.
func blue(share float64) color.RGBA {
	at := math.Sqrt(min(max(share, 0), 1)) * float64(len(blues)-1)
	i := min(int(at), len(blues)-2)
	mix := func(c int) uint8 {
		return uint8(math.Round(blues[i][c] + (at-float64(i))*(blues[i+1][c]-blues[i][c])))
	}
	return color.RGBA{mix(0), mix(1), mix(2), 255}
}

// Draw draws the matrix: a row for each true class, a column for each predicted one, and in each cell the share
// of its row, as a colour (by its square
// root), and in percent where there is room for a number. Rows of classes that were never there
// are grey. Where classes are too many for all names, those of some stand at the edge.
//
// The only error is that of a Font that cannot be read.
func (m *ConfusionMatrix) Draw(o ConfusionOptions) (*image.RGBA, error) {
	_, truths, predictions := m.Sums()
	var classes []int
	for c := range m.Classes {
		if o.All || truths[c] > 0 || predictions[c] > 0 {
			classes = append(classes, c)
		}
	}
	p, err := newConfusionPicture(len(classes), o.Font)
	if err != nil {
		return nil, err
	}
	rows, columns := make([]string, len(classes)), make([]string, len(classes))
	for i, c := range classes {
		columns[i] = strconv.Itoa(c)
		if c < len(o.Labels) && o.Labels[c] != "" {
			columns[i] = o.Labels[c]
		}
		rows[i] = columns[i]
	}
	p.layOut(o.Title, columns)
	for i, truth := range classes {
		for j, predicted := range classes {
			share := math.NaN()
			if truths[truth] > 0 {
				share = float64(m.At(truth, predicted)) / float64(truths[truth])
			}
			p.fill(i, j, share)
		}
	}
	p.frame(rows, columns)
	return p.img, nil
}

// confusionPicture is a matrix while it is drawn.
type confusionPicture struct {
	n, cell       int
	small, strong *annotate.Text
	number        *annotate.Text // nil where cells are too small for numbers
	img           *image.RGBA
	at            image.Point // the matrix's top left
	title         string
	edge          int // room of the names
	gap           int
}

var (
	confusionInk   = color.RGBA{30, 30, 30, 255}
	confusionLine  = color.RGBA{225, 228, 232, 255}
	confusionEmpty = color.RGBA{236, 236, 236, 255}
	confusionPage  = color.RGBA{255, 255, 255, 255}
)

func newConfusionPicture(n int, ttf []byte) (*confusionPicture, error) {
	p := &confusionPicture{n: n, gap: 12}
	// From 56 pixels for a few classes to 12 for hundreds, where each still has its name, and less beyond.
	switch {
	case n <= 12:
		p.cell = 56
	case n <= 30:
		p.cell = 38
	case n <= 60:
		p.cell = 22
	case n <= 200:
		p.cell = 14
	default:
		p.cell = max(2, 2800/n)
	}
	size := min(15, max(11, float64(p.cell)*0.72))
	var err error
	for _, t := range []struct {
		to    **annotate.Text
		size  float64
		heavy bool
	}{{&p.small, size, false}, {&p.strong, max(size, 14), true}} {
		if *t.to, err = annotate.NewText(t.size, t.heavy, ttf); err != nil {
			return nil, err
		}
	}
	if p.cell >= 38 {
		if p.number, err = annotate.NewText(float64(p.cell)*0.18+5, false, ttf); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// layOut makes the page.
func (p *confusionPicture) layOut(title string, names []string) {
	p.edge = 40
	for _, name := range names {
		p.edge = max(p.edge, min(p.small.Width(name), 200))
	}
	side := max(p.n*p.cell, 170)
	scale := 16 + p.gap + p.small.Width("100 %") + p.gap // the colour scale at the right
	axis := p.strong.Height() + p.gap
	p.at = image.Pt(p.gap+axis+p.edge+p.gap/2, p.gap+axis+p.edge+p.gap/2)
	width := p.at.X + side + p.gap*2 + scale
	p.title = p.strong.Fit(title, width-2*p.gap)
	if title != "" {
		p.at.Y += p.strong.Height() + p.gap
	}
	p.img = image.NewRGBA(image.Rect(0, 0, width, p.at.Y+side+p.gap))
	annotate.Fill(p.img, p.img.Rect, confusionPage, 1)
}

func (p *confusionPicture) rect(row, column int) image.Rectangle {
	min := p.at.Add(image.Pt(column*p.cell, row*p.cell))
	return image.Rectangle{Min: min, Max: min.Add(image.Pt(p.cell, p.cell))}
}

// fill paints one cell; NaN is a row without a class.
func (p *confusionPicture) fill(row, column int, share float64) {
	r := p.rect(row, column)
	c := confusionEmpty
	if !math.IsNaN(share) {
		c = blue(share)
	}
	annotate.Fill(p.img, r, c, 1)
	if p.number == nil || !(share > 0) {
		return
	}
	text := strconv.FormatFloat(100*share, 'f', 0, 64)
	if text == "0" {
		text = "<1"
	}
	at := image.Pt((r.Min.X+r.Max.X-p.number.Width(text))/2, (r.Min.Y+r.Max.Y-p.number.Height())/2)
	p.number.Draw(p.img, at, text, annotate.Contrast(c))
}

// frame draws lines, names, axes and the colour scale.
func (p *confusionPicture) frame(rows, columns []string) {
	side := p.n * p.cell
	all := image.Rectangle{Min: p.at, Max: p.at.Add(image.Pt(side, side))}
	every := 1 // lines between classes, of many between tens or hundreds
	switch {
	case p.n > 200:
		every = 100
	case p.cell < 20:
		every = 10
	}
	for i := every; i < p.n; i += every {
		at := i * p.cell
		annotate.Fill(p.img, image.Rect(all.Min.X, all.Min.Y+at, all.Max.X, all.Min.Y+at+1), confusionLine, 1)
		annotate.Fill(p.img, image.Rect(all.Min.X+at, all.Min.Y, all.Min.X+at+1, all.Max.Y), confusionLine, 1)
	}
	annotate.Frame(p.img, all.Inset(-1), 1, confusionInk, 1)

	// As many names as there is room for.
	step := max(1, (p.small.Height()-1+p.cell-1)/p.cell)
	if step > 1 {
		step = (step + 9) / 10 * 10
	}
	for i := 0; i < p.n; i += step {
		name := p.small.Fit(rows[i], p.edge)
		middle := i*p.cell + p.cell/2
		p.small.Draw(p.img, image.Pt(all.Min.X-p.gap/2-p.small.Width(name), all.Min.Y+middle-p.small.Height()/2), name, confusionInk)
		p.upward(p.small, p.small.Fit(columns[i], p.edge), image.Pt(all.Min.X+middle-p.small.Height()/2, all.Min.Y-p.gap/2))
	}
	p.strong.Draw(p.img, image.Pt(p.gap, p.gap), p.title, confusionInk)
	const predicted, truth = "predicted class", "true class"
	p.strong.Draw(p.img, image.Pt(all.Min.X, all.Min.Y-p.gap-p.edge-p.strong.Height()), predicted, confusionInk)
	p.upward(p.strong, truth, image.Pt(p.gap, all.Min.Y+p.strong.Width(truth)))
	p.scale(image.Rect(all.Max.X+2*p.gap, all.Min.Y, all.Max.X+2*p.gap+16, all.Min.Y+min(max(side, 168), 600)))
}

// scale draws the colour scale.
func (p *confusionPicture) scale(r image.Rectangle) {
	for y := r.Min.Y; y < r.Max.Y; y++ {
		root := 1 - (float64(y-r.Min.Y)+0.5)/float64(r.Dy())
		annotate.Fill(p.img, image.Rect(r.Min.X, y, r.Max.X, y+1), blue(root*root), 1)
	}
	annotate.Frame(p.img, r.Inset(-1), 1, confusionInk, 1)
	below := r.Max.Y + 1
	for _, percent := range []int{0, 2, 10, 25, 50, 100} {
		y := r.Max.Y - int(math.Sqrt(float64(percent)/100)*float64(r.Dy()))
		y = min(max(y-p.small.Height()/2, r.Min.Y), r.Max.Y-p.small.Height())
		if y+p.small.Height() > below {
			continue
		}
		below = y
		p.small.Draw(p.img, image.Pt(r.Max.X+p.gap/2, y), fmt.Sprintf("%d %%", percent), confusionInk)
	}
}

// upward writes a line that runs from at, its lower left, to the top.
func (p *confusionPicture) upward(t *annotate.Text, s string, at image.Point) {
	line := image.NewRGBA(image.Rect(0, 0, t.Width(s)+1, t.Height()))
	annotate.Fill(line, line.Rect, confusionPage, 1)
	t.Draw(line, image.Point{}, s, confusionInk)
	for y := range line.Rect.Dy() {
		for x := range line.Rect.Dx() {
			if c := line.RGBAAt(x, y); c != confusionPage {
				p.img.SetRGBA(at.X+y, at.Y-1-x, c)
			}
		}
	}
}

// WriteCSV writes the counts as CSV: a first row and a first column of labels, rows for the true classes.
func (m *ConfusionMatrix) WriteCSV(w io.Writer, labels []string) error {
	name := func(c int) string {
		if c < len(labels) && labels[c] != "" {
			return labels[c]
		}
		return strconv.Itoa(c)
	}
	out := csv.NewWriter(w)
	row := make([]string, m.Classes+1)
	row[0] = "true\\predicted"
	for c := range m.Classes {
		row[c+1] = name(c)
	}
	if err := out.Write(row); err != nil {
		return err
	}
	for t := range m.Classes {
		row[0] = name(t)
		for p, n := range m.Row(t) {
			row[p+1] = strconv.FormatInt(n, 10)
		}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}
