package train

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/torchvit/torchvit/transforms"
)

// curve is a column over another one, without what is not a number.
func (t *table) curve(x, y string) plotter.XYs {
	var out plotter.XYs
	for _, row := range t.rows {
		if a, b := t.at(row, x), t.at(row, y); !math.IsNaN(a) && !math.IsNaN(b) {
			out = append(out, plotter.XY{X: a, Y: b})
		}
	}
	return out
}

// smooth is the mean over the last part of a curve, so that its course is seen.
func smooth(c plotter.XYs) plotter.XYs {
	n := max(1, len(c)/25)
	out := make(plotter.XYs, len(c))
	sum := 0.0
	for i, p := range c {
		sum += p.Y
		if i >= n {
			sum -= c[i-n].Y
		}
		out[i] = plotter.XY{X: p.X, Y: sum / float64(min(i+1, n))}
	}
	return out
}

// draw writes the curves: the loss of each step above, the metrics of each epoch below.
func (r *records) draw(title string) error {
	losses := plot.New()
	losses.Title.Text = title
	losses.X.Label.Text, losses.Y.Label.Text = "step", "loss"
	steps := r.steps.curve("step", "loss")
	if err := add(losses, "each step", steps, color.Gray{190}, false); err != nil {
		return err
	}
	if err := add(losses, "mean", smooth(steps), plotutil.Color(0), false); err != nil {
		return err
	}
	measures := plot.New()
	measures.X.Label.Text = "epoch"
	measures.Y.Min, measures.Y.Max = 0, 1
	measures.Legend.Top = true
	measures.Legend.Left = true
	shown := 0
	for _, name := range r.epochs.columns {
		switch name {
		case "epoch", "step", "loss", "learned", "seconds":
			continue
		}
		if err := add(measures, name, r.epochs.curve("epoch", name), plotutil.Color(shown), true); err != nil {
			return err
		}
		shown++
	}
	plots := [][]*plot.Plot{{losses}}
	if shown > 0 {
		plots = append(plots, []*plot.Plot{measures})
	}
	losses.Legend.Top = true
	const width, height, dpi = 800, 400, 96
	size := func(pixels int) vg.Length { return vg.Length(pixels) * vg.Inch / dpi }
	canvas := vgimg.NewWith(vgimg.UseWH(size(width), size(height*len(plots))), vgimg.UseDPI(dpi))
	tiles := draw.Tiles{Rows: len(plots), Cols: 1, PadX: vg.Points(6), PadY: vg.Points(6), PadTop: vg.Points(6), PadBottom: vg.Points(6), PadLeft: vg.Points(6), PadRight: vg.Points(12)}
	for i, row := range plot.Align(plots, tiles, draw.New(canvas)) {
		plots[i][0].Draw(row[0])
	}
	return writeWhole(filepath.Join(r.dir, CurvesFile), func(w io.Writer) error { return transforms.EncodePNG(w, canvas.Image()) })
}

// add draws a curve, with a mark at each point where there are few.
func add(p *plot.Plot, name string, c plotter.XYs, ink color.Color, marks bool) error {
	if len(c) == 0 {
		return nil
	}
	line, points, err := plotter.NewLinePoints(c)
	if err != nil {
		return fmt.Errorf("curves: %s: %w", name, err)
	}
	line.Color, points.Color = ink, ink
	line.Width = vg.Points(1.5)
	if marks {
		points.Shape = draw.CircleGlyph{}
		p.Add(line, points)
	} else {
		p.Add(line)
	}
	p.Legend.Add(name, line)
	return nil
}
