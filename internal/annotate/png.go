package annotate

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/adler32"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// EncodePNG writes a picture as PNG, as image/png does, only faster: strips of rows are filtered and
// compressed side by side, with the rows before them as their dictionary. Opaque RGBA pictures become RGB,
// indexed ones keep their index, one byte each; other kinds go to image/png itself.
func EncodePNG(w io.Writer, img image.Image) error {
	e, ok := newPNG(img)
	if !ok {
		return png.Encode(w, img)
	}
	return e.encode(w)
}

// pngSource is a picture whose rows can be had as PNG wants them.
type pngSource struct {
	width, height int
	depth         int // bytes of a pixel: 1 or 3
	kind          byte
	palette       []byte
	alphas        []byte
	level         int
	// row gives the bytes of row y, perhaps in scratch.
	row func(y int, scratch []byte) []byte
}

func newPNG(img image.Image) (*pngSource, bool) {
	b := img.Bounds()
	e := &pngSource{width: b.Dx(), height: b.Dy()}
	if e.width <= 0 || e.height <= 0 {
		return nil, false // image/png says what is wrong
	}
	switch m := img.(type) {
	case *image.RGBA:
		if !opaque(m) {
			return nil, false
		}
		e.depth, e.kind, e.level = 3, 2, flate.BestSpeed
		e.row = func(y int, scratch []byte) []byte {
			src := m.Pix[y*m.Stride : y*m.Stride+4*e.width]
			packRGB(scratch, src)
			return scratch
		}
	case *image.Gray:
		e.depth, e.kind, e.level = 1, 0, maskLevel
		e.row = func(y int, _ []byte) []byte { return m.Pix[y*m.Stride : y*m.Stride+e.width] }
	case *image.Paletted:
		// Shorter palettes are packed by image/png.
		if len(m.Palette) <= 16 || len(m.Palette) > 256 {
			return nil, false
		}
		e.depth, e.kind, e.level = 1, 3, maskLevel
		for _, c := range m.Palette {
			n := color.NRGBAModel.Convert(c).(color.NRGBA)
			e.palette = append(e.palette, n.R, n.G, n.B)
			e.alphas = append(e.alphas, n.A)
		}
		for len(e.alphas) > 0 && e.alphas[len(e.alphas)-1] == 255 {
			e.alphas = e.alphas[:len(e.alphas)-1]
		}
		e.row = func(y int, _ []byte) []byte { return m.Pix[y*m.Stride : y*m.Stride+e.width] }
	default:
		return nil, false
	}
	return e, true
}

// opaque is m.Opaque on all processors.
func opaque(m *image.RGBA) bool {
	var not atomic.Bool
	Rows(m.Rect.Dx(), m.Rect.Dy(), func(y0, y1 int) {
		for y := y0; y < y1; y++ {
			if !opaqueRow(m.Pix[y*m.Stride:][:4*m.Rect.Dx()]) {
				not.Store(true)
				return
			}
		}
	})
	return !not.Load()
}

// maskLevel is flate's level for maps of classes and masks, whose long runs make it cheap.
const maskLevel = 4

// packRGB drops every fourth byte.
func packRGB(dst, src []byte) {
	// Eight bytes are written for six; the last pixels go one by one.
	for len(src) >= 8 && len(dst) >= 8 {
		p := binary.LittleEndian.Uint64(src)
		binary.LittleEndian.PutUint64(dst, p&0xffffff|p>>8&0xffffff000000)
		dst, src = dst[6:], src[8:]
	}
	for len(src) >= 4 && len(dst) >= 3 {
		dst[0], dst[1], dst[2] = src[0], src[1], src[2]
		dst, src = dst[3:], src[4:]
	}
}

// strip is a number of rows at work.
type strip struct {
	raw  []byte // filtered rows, the first byte of each its filter; nil once they are compressed
	tail []byte // the end of raw, the dictionary of the next strip
	sum  uint32 // Adler-32 of raw, which has size bytes
	size int
	out  bytes.Buffer
	err  error
	done chan struct{}
}

// window is as far back as deflate looks.
const window = 32 << 10

// stripBytes is about how much one strip holds: enough that the ends cost little.
const stripBytes = 256 << 10

func (e *pngSource) encode(w io.Writer) error {
	if _, err := io.WriteString(w, "\x89PNG\r\n\x1a\n"); err != nil {
		return err
	}
	head := make([]byte, 13)
	binary.BigEndian.PutUint32(head, uint32(e.width))
	binary.BigEndian.PutUint32(head[4:], uint32(e.height))
	head[8], head[9] = 8, e.kind
	if err := chunk(w, "IHDR", head); err != nil {
		return err
	}
	if e.palette != nil {
		if err := chunk(w, "PLTE", e.palette); err != nil {
			return err
		}
		if len(e.alphas) > 0 {
			if err := chunk(w, "tRNS", e.alphas); err != nil {
				return err
			}
		}
	}
	if err := e.strips(w); err != nil {
		return err
	}
	return chunk(w, "IEND", nil)
}

// strips writes the picture's data.
func (e *pngSource) strips(w io.Writer) error {
	line := 1 + e.width*e.depth
	rows := max(1, stripBytes/line)
	count := (e.height + rows - 1) / rows
	list := make([]*strip, count)
	for i := range list {
		list[i] = &strip{done: make(chan struct{})}
	}
	filtered := make([]chan struct{}, count)
	for i := range filtered {
		filtered[i] = make(chan struct{})
	}
	next := make(chan int)
	go func() {
		for i := range count {
			next <- i
		}
		close(next)
	}()
	var workers sync.WaitGroup
	defer workers.Wait()
	for range min(runtime.GOMAXPROCS(0), count) {
		workers.Go(func() {
			for i := range next {
				s := list[i]
				e.filter(s, i*rows, min(e.height, (i+1)*rows), line)
				s.tail = slices.Clone(s.raw[max(0, len(s.raw)-window):])
				s.sum, s.size = adler32.Checksum(s.raw), len(s.raw)
				close(filtered[i])
				var before []byte
				if i > 0 {
					// The strip before was taken first, so that this wait ends.
					<-filtered[i-1]
					before = list[i-1].tail
				}
				s.err = deflate(&s.out, s.raw, before, e.level, i == count-1)
				s.raw = nil
				close(s.done)
			}
		})
	}
	sum := uint32(1)
	for i, s := range list {
		<-s.done
		if s.err != nil {
			return s.err
		}
		sum = joinAdler(sum, s.sum, s.size)
		if err := s.write(w, sum, i == 0, i == count-1); err != nil {
			return err
		}
		s.out = bytes.Buffer{}
	}
	return nil
}

// joinAdler is the Adler-32 of two texts after each other, from those of both and the length of the second.
func joinAdler(a, b uint32, n int) uint32 {
	const base = 65521
	low := (uint64(a&0xffff) + uint64(b&0xffff) + base - 1) % base
	high := (uint64(a>>16) + uint64(b>>16) + uint64(n%base)*(uint64(a&0xffff)+base-1)) % base
	return uint32(high)<<16 | uint32(low)
}

// write writes a strip as a chunk: zlib's header before the first, the checksum after the last.
func (s *strip) write(w io.Writer, sum uint32, first, last bool) error {
	data := s.out.Bytes()
	if first {
		data = append([]byte{0x78, 0x5e}, data...)
	}
	if last {
		data = binary.BigEndian.AppendUint32(data, sum)
	}
	return chunk(w, "IDAT", data)
}

// filter fills a strip with the rows from y0 to y1.
func (e *pngSource) filter(s *strip, y0, y1, line int) {
	s.raw = make([]byte, (y1-y0)*line)
	above, now := make([]byte, line-1), make([]byte, line-1)
	var up []byte
	if y0 > 0 {
		up = e.row(y0-1, above)
	}
	for y := y0; y < y1; y++ {
		row := e.row(y, now)
		out := s.raw[(y-y0)*line : (y-y0+1)*line]
		if e.depth == 1 {
			// Indices are not levels: only equal rows gain by a filter, and runs do without.
			copy(out[1:], row)
			continue
		}
		filterRow(out, row, up, e.depth)
		up = row
		above, now = now, above
	}
}

// filterRow writes a row after the filter that seems to suit it: from every 16th pixel it judges which of
// Sub, Up and Paeth leaves the smallest differences.
func filterRow(out, row, up []byte, depth int) {
	if up == nil {
		out[0] = 1
		copy(out[1:1+depth], row)
		for i := depth; i < len(row); i++ {
			out[1+i] = row[i] - row[i-depth]
		}
		return
	}
	up = up[:len(row)]
	sub, above, paeth := 0, 0, 0
	for i := depth; i < len(row); i += 16*depth + 1 {
		a, b, c, x := row[i-depth], up[i], up[i-depth], row[i]
		sub += size(x - a)
		above += size(x - b)
		paeth += size(x - predict(a, b, c))
	}
	switch {
	case above <= sub && above <= paeth:
		out[0] = 2
		dst := out[1 : 1+len(row)]
		for i, x := range row {
			dst[i] = x - up[i]
		}
	case sub <= paeth:
		out[0] = 1
		copy(out[1:1+depth], row)
		for i := depth; i < len(row); i++ {
			out[1+i] = row[i] - row[i-depth]
		}
	default:
		out[0] = 4
		for i := range depth {
			out[1+i] = row[i] - up[i]
		}
		for i := depth; i < len(row); i++ {
			out[1+i] = row[i] - predict(row[i-depth], up[i], up[i-depth])
		}
	}
}

func size(v byte) int {
	if v < 128 {
		return int(v)
	}
	return 256 - int(v)
}

// predict is PNG's Paeth predictor.
func predict(a, b, c byte) byte {
	pc := int(c)
	pa, pb := int(b)-pc, int(a)-pc
	pc = abs(pa + pb)
	pa, pb = abs(pa), abs(pb)
	if pa <= pb && pa <= pc {
		return a
	}
	if pb <= pc {
		return b
	}
	return c
}

func abs(v int) int {
	if v < 0 {
		return -v
	}
	return v
}

// deflate compresses data after the bytes before it. What is not the last ends on a byte, with an empty block.
func deflate(w *bytes.Buffer, data, before []byte, level int, last bool) error {
	z, err := flate.NewWriterDict(w, level, before)
	if err != nil {
		return err
	}
	if _, err := z.Write(data); err != nil {
		return err
	}
	if last {
		return z.Close()
	}
	return z.Flush()
}

// chunk writes one chunk of a PNG file.
func chunk(w io.Writer, name string, data []byte) error {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	head = append(head, name...)
	crc := crc32.NewIEEE()
	_, _ = crc.Write(head[4:]) // never fails
	_, _ = crc.Write(data)
	for _, part := range [][]byte{head, data, binary.BigEndian.AppendUint32(nil, crc.Sum32())} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// PackRGB writes a picture's colours, three bytes each and row by row, into dst, which has room for them.
func PackRGB(dst []uint8, img *image.RGBA) {
	w, h := img.Rect.Dx(), img.Rect.Dy()
	Rows(w, h, func(y0, y1 int) {
		for y := y0; y < y1; y++ {
			packRGB(dst[3*w*y:3*w*(y+1)], img.Pix[img.PixOffset(img.Rect.Min.X, img.Rect.Min.Y+y):][:4*w])
		}
	})
}
