package vit

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"math"
	"strconv"

	"golang.org/x/image/draw"

	"github.com/torchvit/torchvit/internal/annotate"
)

// ErrHeatMap says that values cannot be drawn as a heat map: not rows*cols of
// them, or one that is not finite, or a bad option.
var ErrHeatMap = errors.New("not a heat map")

// DefaultAlpha is a heat map's share of a picture where the options give none.
const DefaultAlpha = 0.55

// HeatMapOptions says how a map of values is coloured. The zero value works.
type HeatMapOptions struct {
	// Width and Height are the picture's size in pixels. Both 0 means 16 pixels
	// for each value; over a photo they are not used.
	Width, Height int
	// ColorMap is "viridis" (also for ""), matplotlib's and DINO's default, or
	// "inferno".
	ColorMap string
	// Smooth interpolates between values: bilinear, as torch's interpolate with
	// align_corners=False, instead of nearest, which shows each patch as it is and
	// is what DINO does.
	Smooth bool
	// Min and Max are the values of the lowest and the highest colour. Both 0 means
	// those of the map itself; set them to compare maps.
	Min, Max float32
	// Alpha is the heat map's share of the picture over a photo, in (0, 1]; 0 means
	// DefaultAlpha.
	Alpha float64
	// Region is the part of the photo that the map covers, in the photo's own
	// coordinates: what the model saw, where preprocessing crops. The rest of the
	// photo is darkened. Empty means the whole photo.
	Region image.Rectangle
}

// HeatMap colours a map of values, row by row from the top left, such as the
// attention of one head from the class token to the patches. Every value's colour
// is the one that matplotlib's imsave gives it.
//
// Errors: [ErrHeatMap].
func HeatMap(values []float32, rows, cols int, opts HeatMapOptions) (*image.RGBA, error) {
	w, h := opts.Width, opts.Height
	if w == 0 && h == 0 {
		w, h = 16*cols, 16*rows
	}
	m, err := newHeatMap(values, rows, cols, opts)
	if err != nil {
		return nil, err
	}
	return m.draw(w, h)
}

// OverlayHeatMap draws a heat map over a photo: Pillow's Image.blend of the two,
// with the map's share opts.Alpha. The photo, whose alpha is dropped, is not
// changed; the picture is new, of the photo's size.
//
// Errors: [ErrHeatMap].
func OverlayHeatMap(photo image.Image, values []float32, rows, cols int, opts HeatMapOptions) (*image.RGBA, error) {
	m, err := newHeatMap(values, rows, cols, opts)
	if err != nil {
		return nil, err
	}
	region, err := region(photo, opts.Region)
	if err != nil {
		return nil, err
	}
	out := annotate.Opaque(photo)
	darkenOutside(out, region)
	return out, m.over(out, region)
}

// HeatMapSheetOptions says how a sheet of heat maps is drawn. The zero value works.
type HeatMapSheetOptions struct {
	HeatMapOptions
	// Title stands above the maps.
	Title string
	// Names holds the maps' captions; nil means "head 0", "head 1" and so on.
	Names []string
	// NoMean leaves out the mean of the maps.
	NoMean bool
	// NoPhoto draws the maps alone, not over the photo, of which only the region
	// is shown.
	NoPhoto bool
	// TileSize is the longer side of each tile in pixels; 0 means the photo's, but
	// at least 224 and at most 448.
	TileSize int
	// Font is a TrueType or OpenType file's bytes for the captions; nil means the
	// Go font, which covers Latin, Greek and Cyrillic.
	Font []byte
}

// HeatMapSheet draws one page with the photo, the mean of the maps, and each map,
// with captions that give the values at both ends of its colours. Maps holds n maps
// of rows*cols values one after the other, such as the attention of all heads.
//
// Errors: [ErrHeatMap].
func HeatMapSheet(photo image.Image, maps []float32, n, rows, cols int, opts HeatMapSheetOptions) (*image.RGBA, error) {
	size := rows * cols
	if n <= 0 || rows <= 0 || cols <= 0 || len(maps) != n*size {
		return nil, fmt.Errorf("vit: %w: got %d values, want %d maps of %dx%d", ErrHeatMap, len(maps), n, rows, cols)
	}
	if opts.Names != nil && len(opts.Names) != n {
		return nil, fmt.Errorf("vit: %w: got %d names, want %d", ErrHeatMap, len(opts.Names), n)
	}
	region, err := region(photo, opts.Region)
	if err != nil {
		return nil, err
	}
	full := annotate.Opaque(photo)
	if opts.NoPhoto {
		full = annotate.Opaque(full.SubImage(region))
		region = full.Rect
	}
	tile, region := tileOf(full, region, opts.TileSize)

	tiles := []annotate.Tile{{Image: tile, Caption: "photo"}}
	add := func(name string, values []float32) error {
		m, err := newHeatMap(values, rows, cols, opts.HeatMapOptions)
		if err != nil {
			return err
		}
		out := annotate.Opaque(tile)
		if opts.NoPhoto {
			m.alpha = 1
		}
		darkenOutside(out, region)
		if err := m.over(out, region); err != nil {
			return err
		}
		tiles = append(tiles, annotate.Tile{Image: out, Caption: name, Note: short(m.low) + " – " + short(m.high)})
		return nil
	}
	if !opts.NoMean && n > 1 {
		if err := add("mean", mean(maps, n, size)); err != nil {
			return nil, err
		}
	}
	for i := range n {
		name := "head " + strconv.Itoa(i)
		if opts.Names != nil {
			name = opts.Names[i]
		}
		if err := add(name, maps[i*size:(i+1)*size]); err != nil {
			return nil, err
		}
	}
	page, err := annotate.Sheet(opts.Title, tiles, opts.Font)
	if err != nil {
		return nil, fmt.Errorf("vit: %w", err)
	}
	return page, nil
}

// heatMap is a checked map of values with its colours.
type heatMap struct {
	values     []float32
	rows, cols int
	low, high  float32
	colors     *annotate.ColorMap
	smooth     bool
	alpha      float32
}

func newHeatMap(values []float32, rows, cols int, opts HeatMapOptions) (*heatMap, error) {
	if rows <= 0 || cols <= 0 || len(values)/rows != cols || len(values)%rows != 0 {
		return nil, fmt.Errorf("vit: %w: got %d values, want %dx%d", ErrHeatMap, len(values), rows, cols)
	}
	colors, err := annotate.LookupColorMap(opts.ColorMap)
	if err != nil {
		return nil, fmt.Errorf("vit: %w: %w", ErrHeatMap, err)
	}
	m := &heatMap{
		values: values, rows: rows, cols: cols, low: opts.Min, high: opts.Max,
		colors: colors, smooth: opts.Smooth, alpha: float32(opts.Alpha),
	}
	if opts.Alpha == 0 {
		m.alpha = DefaultAlpha
	}
	if !(m.alpha > 0 && m.alpha <= 1) {
		return nil, fmt.Errorf("vit: %w: alpha: got %v, want it in (0, 1]", ErrHeatMap, opts.Alpha)
	}
	low, high := values[0], values[0]
	for i, v := range values {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return nil, fmt.Errorf("vit: %w: value %d is %v", ErrHeatMap, i, v)
		}
		low, high = min(low, v), max(high, v)
	}
	if m.low == 0 && m.high == 0 {
		m.low, m.high = low, high
	}
	if !(m.low <= m.high) {
		return nil, fmt.Errorf("vit: %w: got Min %v and Max %v", ErrHeatMap, opts.Min, opts.Max)
	}
	return m, nil
}

// draw gives the map as a picture of w by h pixels.
func (m *heatMap) draw(w, h int) (*image.RGBA, error) {
	if w <= 0 || h <= 0 {
		return nil, fmt.Errorf("vit: %w: picture of %dx%d", ErrHeatMap, w, h)
	}
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	xs, ys := m.taps(w, m.cols), m.taps(h, m.rows)
	for y := range h {
		a, b := m.values[ys[y].i*m.cols:], m.values[ys[y].j*m.cols:]
		for x := range w {
			t := xs[x]
			top := mix(a[t.i], a[t.j], t.share)
			c := m.colors.At(mix(top, mix(b[t.i], b[t.j], t.share), ys[y].share), m.low, m.high)
			p := out.Pix[y*out.Stride+4*x:]
			p[0], p[1], p[2], p[3] = c.R, c.G, c.B, 255
		}
	}
	return out, nil
}

// over mixes the map into a region of a picture.
func (m *heatMap) over(dst *image.RGBA, region image.Rectangle) error {
	heat, err := m.draw(region.Dx(), region.Dy())
	if err != nil {
		return err
	}
	annotate.Blend(dst, region.Min, heat, m.alpha)
	return nil
}

// tap says between which values i and j a pixel lies, and j's share.
type tap struct {
	i, j  int
	share float32
}

// taps gives the values behind each of n pixels along a side with size values.
func (m *heatMap) taps(n, size int) []tap {
	list := make([]tap, n)
	for p := range list {
		if !m.smooth {
			i := p * size / n
			list[p] = tap{i, i, 0}
			continue
		}
		// Pixel centres at (p + 0.5) * size/n - 0.5, held inside the map.
		at := max(0, (float64(p)+0.5)*float64(size)/float64(n)-0.5)
		i := min(int(at), size-1)
		list[p] = tap{i, min(i+1, size-1), float32(at - float64(i))}
	}
	return list
}

func mix(a, b, share float32) float32 { return a + share*(b-a) }

func mean(maps []float32, n, size int) []float32 {
	out := make([]float32, size)
	for i := range out {
		sum := 0.0
		for k := range n {
			sum += float64(maps[k*size+i])
		}
		out[i] = float32(sum / float64(n))
	}
	return out
}

// region moves the part of a photo that a map covers to the photo's origin.
func region(photo image.Image, r image.Rectangle) (image.Rectangle, error) {
	b := photo.Bounds()
	if r.Empty() {
		r = b
	}
	if r.Empty() || !r.In(b) {
		return r, fmt.Errorf("vit: %w: region %v is not inside the photo's %v", ErrHeatMap, r, b)
	}
	return r.Sub(b.Min), nil
}

// tileOf scales a photo, and the region in it, to the size of a sheet's tiles.
func tileOf(full *image.RGBA, r image.Rectangle, size int) (*image.RGBA, image.Rectangle) {
	w, h := full.Rect.Dx(), full.Rect.Dy()
	if size <= 0 {
		size = min(max(w, h, 224), 448)
	}
	k := float64(size) / float64(max(w, h))
	to := func(v int) int { return int(math.Round(float64(v) * k)) }
	tile := image.NewRGBA(image.Rect(0, 0, max(1, to(w)), max(1, to(h))))
	draw.CatmullRom.Scale(tile, tile.Rect, full, full.Rect, draw.Src, nil)
	r = image.Rect(to(r.Min.X), to(r.Min.Y), to(r.Max.X), to(r.Max.Y)).Intersect(tile.Rect)
	r.Max.X, r.Max.Y = max(r.Max.X, r.Min.X+1), max(r.Max.Y, r.Min.Y+1)
	return tile, r
}

// darkenOutside dims what the model did not see.
func darkenOutside(dst *image.RGBA, r image.Rectangle) {
	b := dst.Rect
	for _, side := range []image.Rectangle{
		image.Rect(b.Min.X, b.Min.Y, b.Max.X, r.Min.Y),
		image.Rect(b.Min.X, r.Max.Y, b.Max.X, b.Max.Y),
		image.Rect(b.Min.X, r.Min.Y, r.Min.X, r.Max.Y),
		image.Rect(r.Max.X, r.Min.Y, b.Max.X, r.Max.Y),
	} {
		annotate.Fill(dst, side, black, 0.6)
	}
}

var black = color.RGBA{A: 255}

// short writes a value with two digits that count.
func short(v float32) string { return strconv.FormatFloat(float64(v), 'g', 2, 32) }
