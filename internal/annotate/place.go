package annotate

import "image"

// Placer finds places for plates, so that they stay inside the picture and off
// each other.
type Placer struct {
	Bounds image.Rectangle
	taken  []image.Rectangle
}

// Place moves each corner (the plate's top left) so that a plate of that size
// lies inside the bounds, and gives the first place that covers none of those
// taken before. Where all do, it gives the one that covers least, with the share of
// it, or of one below it, that is covered. Call Take to keep the place.
func (p *Placer) Place(size image.Point, corners ...image.Point) (place image.Rectangle, covered float64) {
	covered = 2
	for _, c := range corners {
		r := Inside(image.Rectangle{Min: c, Max: c.Add(size)}, p.Bounds)
		if share := p.share(r); share < covered {
			place, covered = r, share
		}
		if covered == 0 {
			break
		}
	}
	return place, covered
}

// Take marks a place as used.
func (p *Placer) Take(r image.Rectangle) { p.taken = append(p.taken, r) }

func (p *Placer) share(r image.Rectangle) float64 {
	worst := 0.0
	for _, t := range p.taken {
		if in := r.Intersect(t); !in.Empty() {
			worst = max(worst, area(in)/min(area(r), area(t)))
		}
	}
	return worst
}

func area(r image.Rectangle) float64 { return float64(r.Dx()) * float64(r.Dy()) }

// Inside moves r into bounds, and cuts it where it is larger than bounds.
func Inside(r, bounds image.Rectangle) image.Rectangle {
	w, h := min(r.Dx(), bounds.Dx()), min(r.Dy(), bounds.Dy())
	x := min(max(r.Min.X, bounds.Min.X), bounds.Max.X-w)
	y := min(max(r.Min.Y, bounds.Min.Y), bounds.Max.Y-h)
	return image.Rect(x, y, x+w, y+h)
}
