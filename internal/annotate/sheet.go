package annotate

import (
	"image"
	"image/draw"
	"math"
)

// Tile is one picture of a sheet, with a caption and a quieter note after it.
type Tile struct {
	Image   *image.RGBA
	Caption string
	Note    string
}

// Sheet lays tiles of equal size on a page, in rows, with their captions below
// them and a title, where there is one, above all.
func Sheet(title string, tiles []Tile, ttf []byte) (*image.RGBA, error) {
	if len(tiles) == 0 {
		return image.NewRGBA(image.Rectangle{}), nil
	}
	tile := tiles[0].Image.Rect.Size()
	cols := columns(len(tiles), tile)
	rows := (len(tiles) + cols - 1) / cols
	// The captions follow the tile's width; the page is looked at as a whole.
	size := max(11, math.Round(float64(tile.X)*0.042))
	text, err := NewText(size, false, ttf)
	if err != nil {
		return nil, err
	}
	strong, err := NewText(size, true, ttf)
	if err != nil {
		return nil, err
	}
	head, err := NewText(math.Round(size*1.3), true, ttf)
	if err != nil {
		return nil, err
	}

	gap := max(6, int(size*0.7))
	caption := text.Height() + gap/2
	top := gap
	if title != "" {
		top += head.Height() + gap
	}
	page := image.NewRGBA(image.Rect(0, 0,
		gap+cols*(tile.X+gap),
		top+rows*(tile.Y+caption+gap)))
	Fill(page, page.Rect, paper, 1)
	if title != "" {
		head.Draw(page, image.Pt(gap, gap), head.Fit(title, page.Rect.Dx()-2*gap), ink)
	}
	for i, t := range tiles {
		p := image.Pt(gap+i%cols*(tile.X+gap), top+i/cols*(tile.Y+caption+gap))
		draw.Draw(page, image.Rectangle{Min: p, Max: p.Add(tile)}, t.Image, t.Image.Rect.Min, draw.Src)
		p.Y += tile.Y + gap/4
		name := strong.Fit(t.Caption, tile.X)
		strong.Draw(page, p, name, ink)
		rest := tile.X - strong.Width(name) - gap
		note := text.Fit(t.Note, rest)
		text.Draw(page, p.Add(image.Pt(tile.X-text.Width(note), 0)), note, faint)
	}
	return page, nil
}

// columns chooses the number of columns: a page near 3:2 with few empty places.
func columns(n int, tile image.Point) int {
	best, cost := 1, math.Inf(1)
	for c := 1; c <= n; c++ {
		rows := (n + c - 1) / c
		aspect := float64(c*tile.X) / float64(rows*tile.Y)
		v := math.Abs(math.Log(aspect/1.5)) + 2*float64(c*rows-n)/float64(n)
		if v < cost {
			best, cost = c, v
		}
	}
	return best
}
