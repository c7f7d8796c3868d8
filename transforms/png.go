package transforms

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"sync"
)

// PNG is decoded here and not by torchvision, because torchvision's decoder (0.29) ends the process on a
// file with a wrong byte in its pixels. PNG is lossless, so the bits are Pillow's all the same.

const pngSignature = "\x89PNG\r\n\x1a\n"

// Colour types.
const (
	pngGrey      = 0
	pngRGB       = 2
	pngPalette   = 3
	pngGreyAlpha = 4
	pngRGBA      = 6
)

type pngHeader struct {
	width, height int
	depth, colour int
	interlaced    bool
}

func (h *pngHeader) channels() int { return [...]int{1, 0, 3, 1, 2, 0, 4}[h.colour] }

// rowBytes is the length of a scanline of n pixels, without its filter byte.
func (h *pngHeader) rowBytes(n int) int { return (n*h.channels()*h.depth + 7) / 8 }

// pngChunk is one chunk; ok is false at the end of the data.
type pngChunk struct {
	kind string
	body []byte
	crc  bool // whether the checksum matches
}

// nextChunk cuts a chunk off; ok is false where the rest is too short for one.
func nextChunk(data []byte) (c pngChunk, rest []byte, ok bool) {
	if len(data) < 12 {
		return c, nil, false
	}
	n := binary.BigEndian.Uint32(data)
	if uint64(n)+12 > uint64(len(data)) {
		return c, nil, false
	}
	end := 8 + int(n)
	c.kind, c.body = string(data[4:8]), data[8:end]
	c.crc = crc32.ChecksumIEEE(data[4:end]) == binary.BigEndian.Uint32(data[end:])
	return c, data[end+4:], true
}

func readIHDR(data []byte) (h pngHeader, rest []byte, err error) {
	c, rest, ok := nextChunk(data[len(pngSignature):])
	if !ok || c.kind != "IHDR" || len(c.body) != 13 {
		return h, nil, damaged(PNG, "got no header chunk")
	}
	if !c.crc {
		return h, nil, damaged(PNG, "the header's checksum does not match")
	}
	b := c.body
	w, ht := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	if w < 1 || ht < 1 || w > 1<<31-1 || ht > 1<<31-1 {
		return h, nil, damaged(PNG, "got %d x %d pixels", w, ht)
	}
	h = pngHeader{width: int(w), height: int(ht), depth: int(b[8]), colour: int(b[9]), interlaced: b[12] == 1}
	depths := map[int]string{pngGrey: "\x01\x02\x04\x08\x10", pngRGB: "\x08\x10", pngPalette: "\x01\x02\x04\x08", pngGreyAlpha: "\x08\x10", pngRGBA: "\x08\x10"}[h.colour]
	if !bytes.ContainsRune([]byte(depths), rune(b[8])) || b[10] != 0 || b[11] != 0 || b[12] > 1 {
		return h, nil, damaged(PNG, "got colour type %d of %d bits, compression %d, filter %d, interlace %d", b[9], b[8], b[10], b[11], b[12])
	}
	return h, rest, nil
}

func inspectPNG(data []byte, info *Info) error {
	h, rest, err := readIHDR(data)
	if err != nil {
		return err
	}
	info.Height, info.Width = h.height, h.width
	var exif, xmp []byte
	for {
		c, next, ok := nextChunk(rest)
		if !ok || c.kind == "IEND" {
			break
		}
		rest = next
		switch c.kind {
		case "acTL":
			info.Animated = true
		case "eXIf":
			exif = c.body
		case "iTXt":
			if bytes.HasPrefix(c.body, []byte("XML:com.adobe.xmp\x00")) {
				xmp = c.body
			}
		}
	}
	info.Orientation = orientation(exif, xmp)
	return nil
}

// idat gives the compressed pixels, which lie in one or more IDAT chunks in a row; they are joined by a
// copy to joined only where there is more than one.
func idat(data []byte, joined *[]byte) ([]byte, error) {
	var all []byte
	for chunks := 0; ; chunks++ {
		c, rest, ok := nextChunk(data)
		if !ok && len(data) > 8 && string(data[4:8]) == "IDAT" { // cut short: what is there
			c.body, c.crc = data[8:], true
		} else if !ok || c.kind != "IDAT" {
			return all, nil
		}
		if !c.crc {
			return nil, damaged(PNG, "the checksum of the pixels does not match")
		}
		if chunks == 0 {
			all = c.body
		} else {
			if chunks == 1 {
				*joined = append((*joined)[:0], all...)
			}
			*joined = append(*joined, c.body...)
			all = *joined
		}
		data = rest
	}
}

// pngMemory is what a file's pixels are decompressed in: the chunks joined, and the scanlines.
type pngMemory struct{ joined, raw []byte }

var pngMemories = sync.Pool{New: func() any { return new(pngMemory) }}

// pngDecoder turns scanlines into RGB.
type pngDecoder struct {
	pngHeader
	palette [256][3]byte
	raw     []byte // scanlines to come, each after its filter byte
	dst     []byte // height x width x 3
}

// decodePNG writes the pixels to dst, height x width x 3, as Pillow's convert("RGB") gives them: alpha
// is dropped, 16-bit grey is clipped at 255, and of other 16-bit samples the high byte is kept.
func decodePNG(data, dst []byte) error {
	h, rest, err := readIHDR(data)
	if err != nil {
		return err
	}
	d := &pngDecoder{pngHeader: h, dst: dst}
	havePalette := false
	for {
		c, next, ok := nextChunk(rest)
		switch {
		case ok && c.kind == "IDAT", !ok && len(rest) > 8 && string(rest[4:8]) == "IDAT":
			if h.colour == pngPalette && !havePalette {
				return damaged(PNG, "got no palette")
			}
			return d.run(rest)
		case !ok:
			return damaged(PNG, "the file is cut short before its pixels")
		case c.kind == "IEND":
			return damaged(PNG, "got no pixels")
		case c.kind == "PLTE":
			if !c.crc || len(c.body)%3 != 0 || len(c.body) > 768 {
				return damaged(PNG, "the palette is damaged")
			}
			for i := 0; i < len(c.body); i += 3 {
				copy(d.palette[i/3][:], c.body[i:])
			}
			havePalette = true
		}
		rest = next
	}
}

// passes calls f for each part of the image that is coded on its own: all of it, or Adam7's.
func (d *pngDecoder) passes(f func(x, y, dx, dy, width, height int) error) error {
	if !d.interlaced {
		return f(0, 0, 1, 1, d.width, d.height)
	}
	for _, p := range [...]struct{ x, y, dx, dy int }{
		{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2},
	} {
		w, h := (d.width-p.x+p.dx-1)/p.dx, (d.height-p.y+p.dy-1)/p.dy
		if w <= 0 || h <= 0 {
			continue
		}
		if err := f(p.x, p.y, p.dx, p.dy, w, h); err != nil {
			return err
		}
	}
	return nil
}

func (d *pngDecoder) run(chunks []byte) error {
	memory, _ := pngMemories.Get().(*pngMemory)
	defer pngMemories.Put(memory)
	packed, err := idat(chunks, &memory.joined)
	if err != nil {
		return err
	}
	size := 0
	_ = d.passes(func(_, _, _, _, width, height int) error {
		size += height * (1 + d.rowBytes(width))
		return nil
	})
	if size/maxInflate > len(packed) { // before memory is taken for what cannot be there
		return damaged(PNG, "the pixels are cut short")
	}
	memory.raw = slices.Grow(memory.raw[:0], size)[:size]
	d.raw = memory.raw
	n, err := inflate(d.raw, packed)
	switch {
	case errors.Is(err, errInflateShort), err == nil && n < size:
		return damaged(PNG, "the pixels are cut short")
	case err != nil:
		return damaged(PNG, "the pixels do not decompress: %s", err)
	}
	return d.passes(d.rows)
}

// rows reads width x height scanlines, whose pixels lie at (x + i dx, y + k dy).
func (d *pngDecoder) rows(x, y, dx, dy, width, height int) error {
	n := d.rowBytes(width)
	bpp := max(1, d.channels()*d.depth/8)
	above := make([]byte, n)
	for k := range height {
		filter, row := d.raw[0], d.raw[1:n+1]
		d.raw = d.raw[n+1:]
		if !unfilter(filter, row, above, bpp) {
			return damaged(PNG, "got filter type %d, want 0 to 4", filter)
		}
		out := d.dst[((y+k*dy)*d.width+x)*3:]
		if d.colour == pngRGB && d.depth == 8 && dx == 1 {
			copy(out, row)
		} else {
			d.expand(row, width, out, 3*dx)
		}
		above = row
	}
	return nil
}

// expand writes the n pixels of a scanline as RGB, step bytes apart.
func (d *pngDecoder) expand(row []byte, n int, dst []byte, step int) {
	put := func(i int, r, g, b byte) {
		o := dst[i*step : i*step+3 : i*step+3]
		o[0], o[1], o[2] = r, g, b
	}
	switch {
	case d.depth < 8:
		mask := byte(1<<d.depth - 1)
		scale := 255 / mask
		for i := range n {
			bit := i * d.depth
			v := row[bit/8] >> (8 - d.depth - bit%8) & mask
			if d.colour == pngPalette {
				c := &d.palette[v]
				put(i, c[0], c[1], c[2])
			} else {
				v *= scale
				put(i, v, v, v)
			}
		}
	case d.colour == pngPalette:
		for i := range n {
			c := &d.palette[row[i]]
			put(i, c[0], c[1], c[2])
		}
	case d.colour == pngGrey && d.depth == 16:
		for i := range n {
			v := row[2*i+1]
			if row[2*i] != 0 {
				v = 255
			}
			put(i, v, v, v)
		}
	default:
		size := d.depth / 8
		c := d.channels() * size
		for i := range n {
			p := row[i*c : i*c+c]
			if d.colour == pngGrey || d.colour == pngGreyAlpha {
				put(i, p[0], p[0], p[0])
			} else {
				put(i, p[0], p[size], p[2*size])
			}
		}
	}
}

// unfilter undoes a scanline's filter in place. above is the scanline above, zeros for the first.
func unfilter(filter byte, row, above []byte, bpp int) bool {
	switch filter {
	case 0:
	case 1:
		for i := bpp; i < len(row); i++ {
			row[i] += row[i-bpp]
		}
	case 2:
		above = above[:len(row)]
		for i := range row {
			row[i] += above[i]
		}
	case 3:
		above = above[:len(row)]
		for i := range min(bpp, len(row)) {
			row[i] += above[i] / 2
		}
		for i := bpp; i < len(row); i++ {
			row[i] += byte((int(row[i-bpp]) + int(above[i])) / 2)
		}
	case 4:
		if bpp == 3 {
			paeth3(row, above)
			return true
		}
		above = above[:len(row)]
		for i := range min(bpp, len(row)) {
			row[i] += above[i]
		}
		for i := bpp; i < len(row); i++ {
			row[i] += paeth(int(row[i-bpp]), int(above[i]), int(above[i-bpp]))
		}
	default:
		return false
	}
	return true
}

// paeth picks of left, above and upper left the one that is nearest to left + above - upper left.
func paeth(a, b, c int) byte {
	pa, pb := b-c, a-c
	pc := abs(pa + pb)
	pa, pb = abs(pa), abs(pb)
	if pa <= pb && pa <= pc {
		return byte(a)
	}
	if pb <= pc {
		return byte(b)
	}
	return byte(c)
}

// paeth3 is the filter for three bytes a pixel, with the left and upper left pixels in registers.
func paeth3(row, above []byte) {
	var a0, a1, a2, c0, c1, c2 int
	n := len(row) / 3 * 3
	row, above = row[:n], above[:n]
	for i := 0; i+2 < len(row) && i+2 < len(above); i += 3 {
		b0, b1, b2 := int(above[i]), int(above[i+1]), int(above[i+2])
		a0 = int(row[i] + paeth(a0, b0, c0))
		a1 = int(row[i+1] + paeth(a1, b1, c1))
		a2 = int(row[i+2] + paeth(a2, b2, c2))
		row[i], row[i+1], row[i+2] = byte(a0), byte(a1), byte(a2)
		c0, c1, c2 = b0, b1, b2
	}
}

func abs(x int) int {
	m := x >> 63
	return (x ^ m) - m
}
