package coco

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// ErrRLE says that run lengths, a mask or polygons do not describe a mask of the size given.
var ErrRLE = errors.New("not a mask")

// Box is a box [x, y, width, height] in pixels, as in COCO's JSON: [0, 0, 1, 1] holds the first pixel.
type Box [4]float64

// RLE is a binary mask as run lengths, COCO's way: Counts[0] pixels that are not set, Counts[1] that are,
// and so on in turn, down the columns, the leftmost first. The counts sum up to Height*Width, which is
// less than 1<<32. The zero value is a mask without pixels.
//
// Methods do not change the receiver, share none of its memory unless they say so, and never panic on
// counts that [RLE.Validate] refuses; what they give for those means nothing.
type RLE struct {
	Height, Width int
	Counts        []uint32
}

// pixels is height*width, checked.
func pixels(height, width int) (uint32, error) {
	if height < 0 || width < 0 || height > math.MaxUint32 || width > math.MaxUint32 ||
		uint64(height)*uint64(width) > math.MaxUint32 {
		return 0, fmt.Errorf("%w: got size [%d %d], want height*width below 1<<32", ErrRLE, height, width)
	}
	return uint32(height * width), nil
}

// Validate says whether the counts fill the mask: [ErrRLE] where they do not. A mask without pixels may
// have no counts at all.
func (r RLE) Validate() error {
	n, err := pixels(r.Height, r.Width)
	if err != nil {
		return err
	}
	sum := uint64(0)
	for _, c := range r.Counts {
		sum += uint64(c)
	}
	if sum != uint64(n) {
		return fmt.Errorf("%w: got counts that sum up to %d, want %d for size [%d %d]", ErrRLE, sum, n, r.Height, r.Width)
	}
	return nil
}

// Area is the number of pixels that are set (pycocotools.mask.area).
func (r RLE) Area() int {
	n := 0
	for i := 1; i < len(r.Counts); i += 2 {
		n += int(r.Counts[i])
	}
	return n
}

// Box is the least box around the pixels that are set (pycocotools.mask.toBbox), all zeros where none is.
func (r RLE) Box() Box {
	if r.Height <= 0 {
		return Box{}
	}
	height := uint64(r.Height)
	left, top, right, bottom := uint64(math.MaxUint64), height, uint64(0), uint64(0)
	at := uint64(0)
	for i, c := range r.Counts {
		start := at
		at += uint64(c)
		if i%2 == 0 || c == 0 {
			continue
		}
		x0, y0 := start/height, start%height
		x1, y1 := (at-1)/height, (at-1)%height
		left, right = min(left, x0), max(right, x1)
		if x0 < x1 {
			top, bottom = 0, height-1
		} else {
			top, bottom = min(top, y0), max(bottom, y1)
		}
	}
	if left > right {
		return Box{}
	}
	return Box{float64(left), float64(top), float64(right - left + 1), float64(bottom - top + 1)}
}

// Equal says whether both are the same mask: of one size, with the same pixels set, however they are
// cut into runs.
func (r RLE) Equal(other RLE) bool {
	if r.Height != other.Height || r.Width != other.Width {
		return false
	}
	if slices.Equal(r.Counts, other.Counts) {
		return true
	}
	return slices.Equal(r.intervals(nil), other.intervals(nil))
}

// interval is a run of pixels that are set, from start to before end, counted down the columns.
type interval struct{ start, end uint32 }

// intervals appends the runs that are set to dst, joined where they touch.
func (r RLE) intervals(dst []interval) []interval {
	at := uint32(0)
	for i, c := range r.Counts {
		start := at
		at += c
		if i%2 == 0 || c == 0 {
			continue
		}
		if n := len(dst); n > 0 && dst[n-1].end == start {
			dst[n-1].end = at
			continue
		}
		dst = append(dst, interval{start, at})
	}
	return dst
}

// runs collects the counts of a mask of n pixels from the places where the value changes, in rising order.
type runs struct {
	counts []uint32
	last   uint32
}

func (r *runs) change(at uint32) {
	r.counts = append(r.counts, at-r.last)
	r.last = at
}

func (r *runs) finish(n uint32) []uint32 {
	return slices.Clip(append(r.counts, n-r.last))
}

// Encode gives the run lengths of a row-major mask, pixel (x, y) at y*width+x (pycocotools.mask.encode).
// Any value but 0 and false is set. The error is [ErrRLE] where the mask's length is not height*width.
func Encode[T uint8 | bool](mask []T, height, width int) (RLE, error) {
	n, err := pixels(height, width)
	if err != nil {
		return RLE{}, err
	}
	if len(mask) != int(n) {
		return RLE{}, fmt.Errorf("%w: got a mask of %d pixels, want %d for size [%d %d]", ErrRLE, len(mask), n, height, width)
	}
	if n == 0 { // the other side may be anything below 1<<32
		return RLE{Height: height, Width: width, Counts: []uint32{0}}, nil
	}
	// Rows are packed to bits in the order they lie in memory. Blocks of 64 x 64 bits are then turned, so
	// that columns are read 64 pixels at a time too.
	words := (width + 63) / 64
	rows := make([]uint64, height*words)
	switch mask := any(mask).(type) {
	case []uint8:
		for y := range height {
			packBytes(rows[y*words:(y+1)*words], mask[y*width:(y+1)*width])
		}
	case []bool:
		for y := range height {
			packBools(rows[y*words:(y+1)*words], mask[y*width:(y+1)*width])
		}
	}
	var out runs
	out.encode(rows, height, width)
	return RLE{Height: height, Width: width, Counts: out.finish(n)}, nil
}

// packBytes sets bit i%64 of dst[i/64] where row[i] is not 0.
func packBytes(dst []uint64, row []uint8) {
	for i := range dst {
		if len(row) < 64 {
			word := uint64(0)
			for j, v := range row {
				if v != 0 {
					word |= 1 << j
				}
			}
			dst[i] = word
			return
		}
		chunk := row[:64]
		row = row[64:]
		a, b := binary.LittleEndian.Uint64(chunk), binary.LittleEndian.Uint64(chunk[8:])
		c, d := binary.LittleEndian.Uint64(chunk[16:]), binary.LittleEndian.Uint64(chunk[24:])
		e, f := binary.LittleEndian.Uint64(chunk[32:]), binary.LittleEndian.Uint64(chunk[40:])
		g, h := binary.LittleEndian.Uint64(chunk[48:]), binary.LittleEndian.Uint64(chunk[56:])
		if a|b|c|d|e|f|g|h == 0 {
			continue
		}
		dst[i] = gather(a) | gather(b)<<8 | gather(c)<<16 | gather(d)<<24 |
			gather(e)<<32 | gather(f)<<40 | gather(g)<<48 | gather(h)<<56
	}
}

// gather gives one bit for each of eight bytes: whether it is not 0.
func gather(v uint64) uint64 {
	const low = 0x7f7f7f7f7f7f7f7f
	high := (v&low + low | v) &^ low
	return high * 0x0002040810204081 >> 56
}

func packBools(dst []uint64, row []bool) {
	for i := range dst {
		chunk := row[:min(64, len(row))]
		row = row[len(chunk):]
		word, shift := uint64(0), 0
		for ; len(chunk) >= 8; chunk, shift = chunk[8:], shift+8 {
			c := chunk[:8]
			eight := bit(c[0]) | bit(c[1])<<1 | bit(c[2])<<2 | bit(c[3])<<3 |
				bit(c[4])<<4 | bit(c[5])<<5 | bit(c[6])<<6 | bit(c[7])<<7
			word |= eight << (shift & 63)
		}
		for j, v := range chunk {
			word |= bit(v) << (shift + j)
		}
		dst[i] = word
	}
}

func bit(v bool) uint64 {
	if v { // no branch: the compiler widens the byte
		return 1
	}
	return 0
}

// turn mirrors 64 x 64 bits at their diagonal (Warren, Hacker's Delight, 7-3).
func turn(a *[64]uint64) {
	m := uint64(1<<32 - 1)
	for j := 32; j != 0; j >>= 1 {
		for k := 0; k < 64; k = (k | j + 1) &^ j {
			t := (a[k]>>j ^ a[k|j]) & m
			a[k] ^= t << j
			a[k|j] ^= t
		}
		m ^= m << (j >> 1)
	}
}

// encode notes where the packed rows change, down the columns.
func (r *runs) encode(rows []uint64, height, width int) {
	words, tiles := (width+63)/64, (height+63)/64
	columns := make([]uint64, 64*tiles) // of 64 columns side by side, each packed to bits
	value := uint64(0)                  // of the pixel before
	var block [64]uint64
	for strip := range words {
		some := uint64(0)
		for tile := range tiles {
			n := min(64, height-tile*64)
			bitsSet := uint64(0)
			for k := range n {
				block[k] = rows[(tile*64+k)*words+strip]
				bitsSet |= block[k]
			}
			if bitsSet == 0 {
				for k := range 64 {
					columns[k*tiles+tile] = 0
				}
				continue
			}
			some |= bitsSet
			clear(block[n:])
			turn(&block)
			for k := range 64 {
				columns[k*tiles+tile] = block[k]
			}
		}
		if some|value == 0 {
			continue
		}
		for k := range min(64, width-strip*64) {
			base := (strip*64 + k) * height
			for tile, word := range columns[k*tiles : (k+1)*tiles] {
				n := min(64, height-tile*64)
				changes := word ^ (word<<1 | value)
				if n < 64 {
					changes &= 1<<n - 1
				}
				for ; changes != 0; changes &= changes - 1 {
					r.change(uint32(base + tile*64 + bits.TrailingZeros64(changes)))
				}
				value = word >> (n - 1) & 1
			}
		}
	}
}

// Decode gives the mask, row-major, 1 where a pixel is set and 0 elsewhere (pycocotools.mask.decode). It
// takes Height*Width bytes; look at those first where the mask comes from outside.
func (r RLE) Decode() ([]uint8, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	mask := make([]uint8, r.Height*r.Width)
	r.decode(mask)
	return mask, nil
}

// DecodeInto writes the mask to dst as [RLE.Decode] does. The error is [ErrRLE] where dst is not of
// Height*Width bytes.
func (r RLE) DecodeInto(dst []uint8) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if len(dst) != r.Height*r.Width {
		return fmt.Errorf("%w: got %d bytes for it, want %d for size [%d %d]",
			ErrRLE, len(dst), r.Height*r.Width, r.Height, r.Width)
	}
	clear(dst)
	r.decode(dst)
	return nil
}

// spread has eight bytes for eight bits, the lowest first.
var spread = func() (table [256]uint64) {
	for i := range table {
		for j := range 8 {
			table[i] |= uint64(i) >> j & 1 << (8 * j)
		}
	}
	return table
}()

// decode sets pixels of a mask that is all 0.
func (r RLE) decode(mask []uint8) {
	if len(mask) == 0 { // the other side may be anything below 1<<32
		return
	}
	height, width := r.Height, r.Width
	words, tiles := (width+63)/64, (height+63)/64
	rows := make([]uint64, height*words)
	columns := make([]uint64, 64*tiles)
	var block [64]uint64

	// The run at hand: from start to before end; next is the one after it.
	start, end, next := 0, 0, 0
	advance := func() bool {
		for next+1 < len(r.Counts) {
			start = end + int(r.Counts[next])
			end = start + int(r.Counts[next+1])
			next += 2
			if end > start {
				return true
			}
		}
		return false
	}
	more := advance()
	for strip := 0; strip < words && more; strip++ {
		first, last := strip*64*height, min(strip*64+64, width)*height
		if start >= last {
			continue
		}
		clear(columns)
		for more && start < last {
			from, to := max(start, first), min(end, last)
			for from < to {
				x, y := from/height, from%height
				n := min(to-from, height-y)
				k := x - strip*64
				setBits(columns[k*tiles:(k+1)*tiles], y, y+n)
				from += n
			}
			if end > last {
				break
			}
			more = advance()
		}
		for tile := range tiles {
			bitsSet := uint64(0)
			for k := range 64 {
				block[k] = columns[k*tiles+tile]
				bitsSet |= block[k]
			}
			if bitsSet == 0 {
				continue
			}
			turn(&block)
			for k := range min(64, height-tile*64) {
				rows[(tile*64+k)*words+strip] = block[k]
			}
		}
	}

	for y := range height {
		row := mask[y*width : (y+1)*width]
		for i, word := range rows[y*words : (y+1)*words] {
			if word == 0 {
				continue
			}
			if len(row) < i*64+64 {
				for tail := row[i*64:]; word != 0; word &= word - 1 {
					tail[bits.TrailingZeros64(word)] = 1
				}
				continue
			}
			chunk := row[i*64 : i*64+64]
			for j := 0; j < 64; j += 8 {
				binary.LittleEndian.PutUint64(chunk[j:], spread[word>>j&255])
			}
		}
	}
}

// setBits sets bits from to before to, from < to.
func setBits(words []uint64, from, to int) {
	i, j := from/64, (to-1)/64
	head, tail := ^uint64(0)<<(from%64), ^uint64(0)>>(63-(to-1)%64)
	if i == j {
		words[i] |= head & tail
		return
	}
	words[i] |= head
	for k := i + 1; k < j; k++ {
		words[k] = ^uint64(0)
	}
	words[j] |= tail
}

// Union is the mask of the pixels that are set in any of the masks (pycocotools.mask.merge). The error is
// [ErrRLE] for no mask, one that is not valid, and masks of different sizes.
func Union(masks ...RLE) (RLE, error) {
	return merge(masks, func(a, b bool) bool { return a || b })
}

// Intersection is the mask of the pixels that are set in all of the masks (pycocotools.mask.merge with
// intersect=1). The errors are those of [Union].
func Intersection(masks ...RLE) (RLE, error) {
	return merge(masks, func(a, b bool) bool { return a && b })
}

func merge(masks []RLE, both func(a, b bool) bool) (RLE, error) {
	if len(masks) == 0 {
		return RLE{}, fmt.Errorf("%w: got no masks to merge, want at least one", ErrRLE)
	}
	out := masks[0]
	for i, m := range masks {
		if m.Height != out.Height || m.Width != out.Width {
			return RLE{}, fmt.Errorf("%w: got masks of size [%d %d] and [%d %d] to merge, want one size",
				ErrRLE, out.Height, out.Width, m.Height, m.Width)
		}
		if err := m.Validate(); err != nil {
			return RLE{}, fmt.Errorf("mask %d: %w", i, err)
		}
	}
	n := uint32(out.Height * out.Width)
	counts := slices.Clone(out.Counts)
	for _, m := range masks[1:] {
		counts = mergeCounts(counts, m.Counts, n, both)
	}
	return RLE{Height: out.Height, Width: out.Width, Counts: counts}, nil
}

// cursor walks over counts: value holds up to before end.
type cursor struct {
	rest  []uint32
	end   uint32
	value bool
}

func newCursor(counts []uint32) cursor {
	c := cursor{rest: counts, value: true}
	c.step()
	return c
}

func (c *cursor) step() {
	if len(c.rest) == 0 {
		c.end = math.MaxUint32
		return
	}
	c.end += c.rest[0]
	c.rest = c.rest[1:]
	c.value = !c.value
}

func mergeCounts(a, b []uint32, n uint32, both func(a, b bool) bool) []uint32 {
	var out runs
	ca, cb := newCursor(a), newCursor(b)
	value := false
	for at := uint32(0); at < n; {
		for ca.end <= at {
			ca.step()
		}
		for cb.end <= at {
			cb.step()
		}
		if v := both(ca.value, cb.value); v != value {
			out.change(at)
			value = v
		}
		at = min(ca.end, cb.end)
	}
	return out.finish(n)
}

// Invert is the mask of the pixels that are not set.
func (r RLE) Invert() RLE {
	out := RLE{Height: r.Height, Width: r.Width}
	switch {
	case len(r.Counts) > 1 && r.Counts[0] == 0:
		out.Counts = slices.Clone(r.Counts[1:])
	case r.Height*r.Width == 0:
		out.Counts = slices.Clone(r.Counts)
	default:
		out.Counts = append([]uint32{0}, r.Counts...)
	}
	return out
}
