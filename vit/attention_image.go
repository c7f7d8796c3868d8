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
	// Mask outlines the values for which it is true, as AttentionMaps.HeadMask gives them; nil is no outline.
	Mask []bool
	// Mark is a part of the photo with a frame around it, in the photo's own coordinates, as the patch that
	// looks (see AttentionMaps.QueryPatch). Empty is none; HeatMap does not draw it.
	Mark image.Rectangle
	// InPlace draws on the photo itself, which saves a copy, where it is an opaque *image.RGBA whose origin is
	// (0, 0). For OverlayHeatMap.
	InPlace bool
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
// changed unless InPlace says so; the picture is new, of the photo's size.
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
	out := annotate.Paint(photo, opts.InPlace, func(*image.RGBA, int, int) {})
	darkenOutside(out, region)
	m.over(out, region)
	mark(out, opts.Mark.Sub(photo.Bounds().Min))
	return out, nil
}

// mark draws a frame around a part of a picture, white between dark lines.
func mark(dst *image.RGBA, r image.Rectangle) {
	if r.Empty() {
		return
	}
	t := annotate.ScaleFor(dst.Rect.Dx(), dst.Rect.Dy()).Thickness
	annotate.Frame(dst, r.Inset(-t-1), t+2, black, 1)
	annotate.Frame(dst, r.Inset(-t), t, white, 1)
}

// AttentionMask gives the mask of one map, rows*cols values, as a picture of a photo's size: 255 where the
// mask is true, 0 elsewhere and outside region, the part of the photo that the map covers (empty means all).
// Each value is as large as its patch: nearest, as DINO draws it.
//
// Errors: [ErrHeatMap].
func AttentionMask(mask []bool, rows, cols int, photo image.Point, region image.Rectangle) (*image.Gray, error) {
	whole := image.Rectangle{Max: photo}
	if region.Empty() {
		region = whole
	}
	if rows <= 0 || cols <= 0 || len(mask) != rows*cols {
		return nil, fmt.Errorf("vit: %w: got a mask of %d values, want %dx%d", ErrHeatMap, len(mask), rows, cols)
	}
	if region.Empty() || !region.In(whole) {
		return nil, fmt.Errorf("vit: %w: region %v is not inside the photo's %v", ErrHeatMap, region, whole)
	}
	out := image.NewGray(whole)
	w, h := region.Dx(), region.Dy()
	for y := range h {
		values := mask[y*rows/h*cols:]
		row := out.Pix[out.PixOffset(region.Min.X, region.Min.Y+y):][:w]
		for x := range row {
			if values[x*cols/w] {
				row[x] = 255
			}
		}
	}
	return out, nil
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
	// Masks outline values in each map, as Mask does in one: n*rows*cols of them, or nil.
	Masks []bool
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
	if opts.Masks != nil && len(opts.Masks) != len(maps) {
		return nil, fmt.Errorf("vit: %w: got masks of %d values, want %d", ErrHeatMap, len(opts.Masks), len(maps))
	}
	if opts.Names != nil && len(opts.Names) != n {
		return nil, fmt.Errorf("vit: %w: got %d names, want %d", ErrHeatMap, len(opts.Names), n)
	}
	region, err := region(photo, opts.Region)
	if err != nil {
		return nil, err
	}
	full := annotate.Opaque(photo)
	marked := opts.Mark.Sub(photo.Bounds().Min)
	if opts.NoPhoto {
		full = annotate.Opaque(full.SubImage(region))
		marked = marked.Sub(region.Min)
		region = full.Rect
	}
	tile, region, marked := tileOf(full, region, marked, opts.TileSize)

	shown := tile
	if !marked.Empty() {
		shown = annotate.Opaque(tile)
		mark(shown, marked)
	}
	tiles := []annotate.Tile{{Image: shown, Caption: "photo"}}
	add := func(name string, values []float32, mask []bool) error {
		o := opts.HeatMapOptions
		o.Mask = mask
		m, err := newHeatMap(values, rows, cols, o)
		if err != nil {
			return err
		}
		out := annotate.Opaque(tile)
		if opts.NoPhoto {
			m.alpha = 1
		}
		darkenOutside(out, region)
		m.over(out, region)
		mark(out, marked)
		tiles = append(tiles, annotate.Tile{Image: out, Caption: name, Note: short(m.low) + " – " + short(m.high)})
		return nil
	}
	if !opts.NoMean && n > 1 {
		if err := add("mean", mean(maps, n, size), nil); err != nil {
			return nil, err
		}
	}
	for i := range n {
		name := "head " + strconv.Itoa(i)
		if opts.Names != nil {
			name = opts.Names[i]
		}
		var mask []bool
		if opts.Masks != nil {
			mask = opts.Masks[i*size : (i+1)*size]
		}
		if err := add(name, maps[i*size:(i+1)*size], mask); err != nil {
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
	mask       []bool
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
		colors: colors, smooth: opts.Smooth, alpha: float32(opts.Alpha), mask: opts.Mask,
	}
	if opts.Alpha == 0 {
		m.alpha = DefaultAlpha
	}
	if !(m.alpha > 0 && m.alpha <= 1) {
		return nil, fmt.Errorf("vit: %w: alpha: got %v, want it in (0, 1]", ErrHeatMap, opts.Alpha)
	}
	if m.mask != nil && len(m.mask) != len(values) {
		return nil, fmt.Errorf("vit: %w: got a mask of %d values, want %dx%d", ErrHeatMap, len(m.mask), rows, cols)
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
	for i := 3; i < len(out.Pix); i += 4 {
		out.Pix[i] = 255
	}
	alpha := m.alpha
	m.alpha = 1
	m.over(out, out.Rect)
	m.alpha = alpha
	return out, nil
}

// over mixes the map into a region of a picture: each colour by its table.
func (m *heatMap) over(dst *image.RGBA, region image.Rectangle) {
	w, h := region.Dx(), region.Dy()
	tints := &annotate.Tints{Alpha: m.alpha, Color: func(i uint8) (color.RGBA, bool) {
		c := m.colors[i]
		return color.RGBA{R: c[0], G: c[1], B: c[2], A: 255}, true
	}}
	xs, ys := m.taps(w, m.cols), m.taps(h, m.rows)
	annotate.Rows(w, h, func(y0, y1 int) {
		steps := make([]uint8, w) // each pixel's place in the colour map
		for y := y0; y < y1; y++ {
			if m.smooth || y == y0 || ys[y] != ys[y-1] {
				m.steps(steps, xs, ys[y])
			}
			tints.Row(dst.Pix[dst.PixOffset(region.Min.X, region.Min.Y+y):][:4*w], steps)
		}
	})
	if m.mask != nil {
		// Lines of the picture's thickness, but thinner than a patch.
		t := annotate.ScaleFor(dst.Rect.Dx(), dst.Rect.Dy()).Thickness
		t = max(1, min(t, w/m.cols/4, h/m.rows/4))
		annotate.Cells(dst, region, m.mask, m.rows, m.cols, t, white)
	}
}

// steps gives the places in the colour map of one row of pixels.
func (m *heatMap) steps(dst []uint8, xs []tap, y tap) {
	a, b := m.values[y.i*m.cols:], m.values[y.j*m.cols:]
	if m.smooth {
		for x, t := range xs {
			top := mix(a[t.i], a[t.j], t.share)
			dst[x] = annotate.Step(mix(top, mix(b[t.i], b[t.j], t.share), y.share), m.low, m.high)
		}
		return
	}
	last := -1
	for x, t := range xs {
		if t.i != last {
			last = t.i
			dst[x] = annotate.Step(a[t.i], m.low, m.high)
			continue
		}
		dst[x] = dst[x-1]
	}
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

// tileOf scales a photo, the region in it and a mark to the size of a sheet's tiles.
func tileOf(full *image.RGBA, r, mark image.Rectangle, size int) (tile *image.RGBA, region, marked image.Rectangle) {
	w, h := full.Rect.Dx(), full.Rect.Dy()
	if size <= 0 {
		size = min(max(w, h, 224), 448)
	}
	k := float64(size) / float64(max(w, h))
	to := func(v int) int { return int(math.Round(float64(v) * k)) }
	tile = image.NewRGBA(image.Rect(0, 0, max(1, to(w)), max(1, to(h))))
	draw.CatmullRom.Scale(tile, tile.Rect, full, full.Rect, draw.Src, nil)
	scaled := func(r image.Rectangle) image.Rectangle {
		return image.Rect(to(r.Min.X), to(r.Min.Y), to(r.Max.X), to(r.Max.Y)).Intersect(tile.Rect)
	}
	r = scaled(r)
	r.Max.X, r.Max.Y = max(r.Max.X, r.Min.X+1), max(r.Max.Y, r.Min.Y+1)
	return tile, r, scaled(mark)
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

var (
	black = color.RGBA{A: 255}
	white = color.RGBA{R: 255, G: 255, B: 255, A: 255}
)

// short writes a value with two digits that count.
func short(v float32) string { return strconv.FormatFloat(float64(v), 'g', 2, 32) }
