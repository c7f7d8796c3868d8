package transforms

import (
	"encoding/binary"
	"errors"
	"hash/adler32"
	"math/bits"
)

// The pixels of a PNG are a zlib stream (RFC 1950, RFC 1951) whose unpacked size the header tells. With
// all of it in memory, decoding runs at twice the speed of compress/zlib, and is bounds-checked all the
// same. A fuzz test holds the two against each other.

var (
	errInflateShort = errors.New("the stream is cut short")
	errInflateBad   = errors.New("the stream is damaged")
	errInflateSum   = errors.New("the stream's checksum does not match")
)

// maxInflate is the most that one byte of a stream can unpack to, about.
const maxInflate = 1032

const (
	literalBits  = 10 // of the first look-up
	distanceBits = 8
)

// huffman is a decoding table. An entry is symbol << 4 | length of the code; where the code is longer
// than the first look-up, it is offset << 4 | bits of the second look-up, with linked set.
type huffman struct {
	table []uint32
	bits  uint
	mask  uint32
}

const linked = 1 << 31

// build makes the table for code lengths of 0 to 15. It refuses sets that are over-subscribed or not
// complete, but takes a single code of one bit, and none at all, which fails when it is used.
func (h *huffman) build(lengths []uint8, first uint) bool {
	var count [16]int
	for _, n := range lengths {
		count[n]++
	}
	count[0] = 0
	longest := uint(15)
	for longest > 0 && count[longest] == 0 {
		longest--
	}
	h.bits = min(first, max(longest, 1))
	size := 1 << h.bits
	h.mask = uint32(size - 1)
	h.table = append(h.table[:0], make([]uint32, size)...)
	if longest == 0 {
		return true
	}
	var next [16]uint32
	code := uint32(0)
	for n := uint(1); n <= longest; n++ {
		code <<= 1
		next[n] = code
		code += uint32(count[n])
	}
	if code != 1<<longest && !(code == 1 && longest == 1) {
		return false
	}
	for symbol, n8 := range lengths {
		n := uint(n8)
		if n == 0 {
			continue
		}
		reversed := bits.Reverse32(next[n]) >> (32 - n)
		next[n]++
		if n <= h.bits {
			for i := reversed; i < uint32(size); i += 1 << n {
				h.table[i] = uint32(symbol)<<4 | uint32(n)
			}
			continue
		}
		second := longest - h.bits
		link := h.table[reversed&h.mask]
		if link == 0 {
			link = linked | uint32(len(h.table))<<4 | uint32(second)
			h.table[reversed&h.mask] = link
			h.table = append(h.table, make([]uint32, 1<<second)...)
		}
		base := link &^ linked >> 4
		for i := reversed >> h.bits; i < 1<<second; i += 1 << (n - h.bits) {
			h.table[base+i] = uint32(symbol)<<4 | uint32(n)
		}
	}
	return true
}

// Lengths and distances: base value and number of extra bits of each symbol.
var (
	lengthBase, lengthExtra     [29]uint16
	distanceBase, distanceExtra [30]uint16
	fixedLiterals               [288]uint8
	fixedDistances              [30]uint8
)

func init() {
	base := uint16(3)
	for i := range lengthBase {
		if i >= 8 {
			lengthExtra[i] = uint16(i-4) / 4
		}
		lengthBase[i] = base
		base += 1 << lengthExtra[i]
	}
	lengthBase[28], lengthExtra[28] = 258, 0
	base = 1
	for i := range distanceBase {
		if i >= 4 {
			distanceExtra[i] = uint16(i-2) / 2
		}
		distanceBase[i] = base
		base += 1 << distanceExtra[i]
	}
	for i := range fixedLiterals {
		switch {
		case i < 144:
			fixedLiterals[i] = 8
		case i < 256:
			fixedLiterals[i] = 9
		case i < 280:
			fixedLiterals[i] = 7
		default:
			fixedLiterals[i] = 8
		}
	}
	for i := range fixedDistances {
		fixedDistances[i] = 5
	}
}

// inflater is the state of one stream.
type inflater struct {
	src   []byte
	at    int
	hold  uint64 // bits that were read and not used, the next one lowest
	count uint   // how many
	dst   []byte
	n     int // bytes of dst that are written

	literals, distances huffman
}

// inflate unpacks a zlib stream into dst until one of them ends, and gives the number of bytes. The
// checksum is compared where the stream ends.
func inflate(dst, src []byte) (int, error) {
	if len(src) < 2 {
		return 0, errInflateShort
	}
	if header := binary.BigEndian.Uint16(src); src[0]&0x0f != 8 || src[0]>>4 > 7 || header%31 != 0 || src[1]&0x20 != 0 {
		return 0, errInflateBad
	}
	f := &inflater{src: src, at: 2, dst: dst}
	for {
		head, err := f.take(3)
		if err != nil {
			return f.n, err
		}
		switch head >> 1 {
		case 0:
			err = f.stored()
		case 1:
			err = f.fixed()
		case 2:
			if err = f.dynamic(); err == nil {
				err = f.block()
			}
		default:
			err = errInflateBad
		}
		if errors.Is(err, errInflateFull) {
			return f.n, nil
		}
		if err != nil {
			return f.n, err
		}
		if head&1 != 0 {
			break
		}
	}
	f.at -= int(f.count / 8) // whole bytes that were read ahead
	if len(f.src)-f.at < 4 {
		return f.n, errInflateShort
	}
	if binary.BigEndian.Uint32(f.src[f.at:]) != adler32.Checksum(f.dst[:f.n]) {
		return f.n, errInflateSum
	}
	return f.n, nil
}

// errInflateFull says that dst is full and the stream goes on.
var errInflateFull = errors.New("more than was asked for")

// refill makes count at least 56, or takes what is left.
func (f *inflater) refill() {
	if f.at+8 <= len(f.src) {
		f.hold |= binary.LittleEndian.Uint64(f.src[f.at:]) << f.count
		read := (63 - f.count) / 8
		f.at += int(read)
		f.count += 8 * read
		return
	}
	for f.count <= 56 && f.at < len(f.src) {
		f.hold |= uint64(f.src[f.at]) << f.count
		f.at++
		f.count += 8
	}
}

// take gives n bits, at most 16.
func (f *inflater) take(n uint) (uint32, error) {
	if f.count < n {
		f.refill()
		if f.count < n {
			return 0, errInflateShort
		}
	}
	v := uint32(f.hold) & (1<<n - 1)
	f.hold >>= n
	f.count -= n
	return v, nil
}

func (f *inflater) stored() error {
	f.hold >>= f.count % 8
	f.count -= f.count % 8
	f.at -= int(f.count / 8)
	f.hold, f.count = 0, 0
	if len(f.src)-f.at < 4 {
		return errInflateShort
	}
	n := int(binary.LittleEndian.Uint16(f.src[f.at:]))
	if int(^binary.LittleEndian.Uint16(f.src[f.at+2:])) != n {
		return errInflateBad
	}
	f.at += 4
	have := copy(f.dst[f.n:], f.src[f.at:min(f.at+n, len(f.src))])
	f.n += have
	switch {
	case have == n:
		f.at += n
		return nil
	case f.n == len(f.dst):
		return errInflateFull
	}
	return errInflateShort
}

func (f *inflater) fixed() error {
	f.literals.build(fixedLiterals[:], literalBits)
	// All 30 codes of 5 bits; the two that are missing to a complete set are errors.
	f.distances.bits, f.distances.mask = 5, 31
	f.distances.table = append(f.distances.table[:0], make([]uint32, 32)...)
	for symbol := range fixedDistances {
		f.distances.table[bits.Reverse32(uint32(symbol))>>27] = uint32(symbol)<<4 | 5
	}
	return f.block()
}

var codeOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

func (f *inflater) dynamic() error {
	head, err := f.take(14)
	if err != nil {
		return err
	}
	literals, distances, codes := int(head&31)+257, int(head>>5&31)+1, int(head>>10)+4
	if literals > 286 || distances > 30 {
		return errInflateBad
	}
	var lengths [286 + 30]uint8
	var codeLengths [19]uint8
	for i := range codes {
		n, err := f.take(3)
		if err != nil {
			return err
		}
		codeLengths[codeOrder[i]] = uint8(n)
	}
	if !f.literals.build(codeLengths[:], 7) {
		return errInflateBad
	}
	for i := 0; i < literals+distances; {
		symbol, err := f.symbol(&f.literals)
		if err != nil {
			return err
		}
		if symbol < 16 {
			lengths[i] = uint8(symbol)
			i++
			continue
		}
		var value uint8
		var extra uint
		repeat := 3
		switch symbol {
		case 16:
			if i == 0 {
				return errInflateBad
			}
			value, extra = lengths[i-1], 2
		case 17:
			extra = 3
		default:
			repeat, extra = 11, 7
		}
		more, err := f.take(extra)
		if err != nil {
			return err
		}
		repeat += int(more)
		if i+repeat > literals+distances {
			return errInflateBad
		}
		for range repeat {
			lengths[i] = value
			i++
		}
	}
	if !f.literals.build(lengths[:literals], literalBits) || !f.distances.build(lengths[literals:literals+distances], distanceBits) {
		return errInflateBad
	}
	return nil
}

// symbol decodes one code.
func (f *inflater) symbol(h *huffman) (uint32, error) {
	if f.count < 15 {
		f.refill()
	}
	e := h.table[uint32(f.hold)&h.mask]
	if e&linked != 0 {
		e = h.table[e&^linked>>4+uint32(f.hold>>h.bits)&(1<<(e&15)-1)]
	}
	n := uint(e & 15)
	switch {
	case n == 0 && f.count < 15: // the missing bits could have made a code
		return 0, errInflateShort
	case n == 0:
		return 0, errInflateBad
	case n > f.count:
		return 0, errInflateShort
	}
	f.hold >>= n
	f.count -= n
	return e >> 4, nil
}

// block decodes codes until the end of the block.
func (f *inflater) block() error {
	literals, distances := f.literals.table, f.distances.table
	literalMask, distanceMask := f.literals.mask, f.distances.mask
	for {
		// The fast loop: far from both ends, nothing runs short. One round takes at most 48 bits and
		// writes at most 258 bytes.
		hold, count, at, n := f.hold, f.count, f.at, f.n
		src, dst := f.src, f.dst
		for at+8 <= len(src) && n+258 <= len(dst) {
			hold |= binary.LittleEndian.Uint64(src[at:]) << (count & 63)
			read := (63 - count) / 8
			at += int(read)
			count += 8 * read
			e := literals[uint32(hold)&literalMask]
			if e&linked != 0 {
				e = literals[e&^linked>>4+uint32(hold>>f.literals.bits)&(1<<(e&15)-1)]
			}
			if e&15 == 0 {
				return errInflateBad
			}
			hold >>= e & 15
			count -= uint(e & 15)
			symbol := e >> 4
			if symbol < 256 {
				dst[n] = byte(symbol)
				n++
				// A second literal, for which bits are always there.
				e = literals[uint32(hold)&literalMask]
				if e&linked != 0 || e&15 == 0 || e >= 256<<4 {
					continue
				}
				hold >>= e & 15
				count -= uint(e & 15)
				dst[n] = byte(e >> 4)
				n++
				continue
			}
			if symbol == 256 {
				f.hold, f.count, f.at, f.n = hold, count, at, n
				return nil
			}
			if symbol > 285 {
				return errInflateBad
			}
			extra := uint(lengthExtra[symbol-257])
			length := int(lengthBase[symbol-257]) + int(hold&(1<<extra-1))
			hold >>= extra
			count -= extra
			e = distances[uint32(hold)&distanceMask]
			if e&linked != 0 {
				e = distances[e&^linked>>4+uint32(hold>>f.distances.bits)&(1<<(e&15)-1)]
			}
			if e&15 == 0 || e>>4 > 29 {
				return errInflateBad
			}
			hold >>= e & 15
			count -= uint(e & 15)
			extra = uint(distanceExtra[e>>4])
			distance := int(distanceBase[e>>4]) + int(hold&(1<<extra-1))
			hold >>= extra
			count -= extra
			if distance > n {
				return errInflateBad
			}
			n = repeat(dst, n, distance, length)
		}
		f.hold, f.count, f.at, f.n = hold, count, at, n
		if done, err := f.step(); done || err != nil {
			return err
		}
	}
}

// step decodes one code near an end of the stream or of dst.
func (f *inflater) step() (done bool, err error) {
	symbol, err := f.symbol(&f.literals)
	switch {
	case err != nil:
		return false, err
	case symbol == 256:
		return true, nil
	case symbol > 285:
		return false, errInflateBad
	case symbol < 256:
		if f.n == len(f.dst) {
			return false, errInflateFull
		}
		f.dst[f.n] = byte(symbol)
		f.n++
		return false, nil
	}
	more, err := f.take(uint(lengthExtra[symbol-257]))
	if err != nil {
		return false, err
	}
	length := int(lengthBase[symbol-257]) + int(more)
	if symbol, err = f.symbol(&f.distances); err != nil {
		return false, err
	}
	if symbol > 29 {
		return false, errInflateBad
	}
	if more, err = f.take(uint(distanceExtra[symbol])); err != nil {
		return false, err
	}
	distance := int(distanceBase[symbol]) + int(more)
	if distance > f.n {
		return false, errInflateBad
	}
	room := len(f.dst) - f.n
	f.n = repeat(f.dst, f.n, distance, min(length, room))
	if length > room {
		return false, errInflateFull
	}
	return false, nil
}

// repeat copies length bytes from distance before n, which may overlap, and gives the new end.
func repeat(dst []byte, n, distance, length int) int {
	from, end := n-distance, n+length
	if distance >= length {
		copy(dst[n:end], dst[from:from+length])
		return end
	}
	for n < end { // each round doubles what can be copied at once
		n += copy(dst[n:end], dst[from:n])
	}
	return end
}
