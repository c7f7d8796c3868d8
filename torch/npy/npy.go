package npy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/torchvit/torchvit/internal/whole"
)

// ErrFormat is wrapped by the errors for input that is not a valid .npy or
// .npz file, or holds what this package does not read.
var ErrFormat = errors.New("npy: invalid file")

// MaxDims is the largest number of dimensions, as in NumPy 2.
const MaxDims = 64

const (
	magic = "\x93NUMPY"
	// NumPy refuses to parse longer headers than 10,000 bytes unless told so.
	maxHeader = 1 << 16
	// Data is allocated in steps of at least this, as it arrives.
	readStep = 1 << 20
)

// Array is an n-dimensional array in memory.
type Array struct {
	// DType is NumPy's type code without byte order: "b1", "u1", "i1", "i2",
	// "i4", "i8", "f2", "f4" or "f8".
	DType string
	// Shape is the size of each dimension; empty for a scalar.
	Shape []int64
	// Fortran tells that Data is in column-major order.
	Fortran bool
	// Data holds the elements, little endian, without gaps. Arrays from this
	// package start at a multiple of 8 bytes. The caller owns it.
	Data []byte
}

var itemSizes = map[string]int64{"b1": 1, "u1": 1, "i1": 1, "i2": 2, "i4": 4, "i8": 8, "f2": 2, "f4": 4, "f8": 8}

// ItemSize returns the bytes of one element, and 0 for an unknown DType.
func (a *Array) ItemSize() int64 { return itemSizes[a.DType] }

// Len returns the number of elements: the product of Shape, 1 for a scalar.
func (a *Array) Len() int64 {
	n := int64(1)
	for _, d := range a.Shape {
		n *= d
	}
	return n
}

// Validate reports what is wrong with an array made by hand: an unknown DType,
// a negative or too large Shape, Data of another length, a bool that is
// neither 0 nor 1.
func (a *Array) Validate() error {
	n, err := byteSize(a.DType, a.Shape)
	if err != nil {
		return err
	}
	if int64(len(a.Data)) != n {
		return fmt.Errorf("npy: got %d bytes of data, want %d for shape %s of %s", len(a.Data), n, shapeString(a.Shape), a.DType)
	}
	return a.checkBools()
}

func (a *Array) checkBools() error {
	if a.DType != "b1" {
		return nil
	}
	for i, b := range a.Data {
		if b > 1 {
			return fmt.Errorf("npy: got bool %d at element %d, want 0 or 1", b, i)
		}
	}
	return nil
}

// byteSize returns the bytes that dtype and shape ask for.
func byteSize(dtype string, shape []int64) (int64, error) {
	item := itemSizes[dtype]
	if item == 0 {
		return 0, fmt.Errorf("npy: got dtype %q, want one of b1 u1 i1 i2 i4 i8 f2 f4 f8", dtype)
	}
	if len(shape) > MaxDims {
		return 0, fmt.Errorf("npy: got %d dimensions, want at most %d", len(shape), MaxDims)
	}
	// Without its zeros, the product must fit too, as NumPy demands.
	n, empty := item, false
	for i, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("npy: got size %d in dimension %d, want 0 or more", d, i)
		}
		if d == 0 {
			empty = true
			continue
		}
		if n > math.MaxInt64/d {
			return 0, fmt.Errorf("npy: got shape %s, which is larger than 2^63 bytes", shapeString(shape))
		}
		n *= d
	}
	if empty {
		return 0, nil
	}
	return n, nil
}

// RowMajor returns a with its elements in row-major (C) order: a itself when
// they already are, else a new array.
func (a *Array) RowMajor() *Array {
	if !a.Fortran {
		return a
	}
	out := &Array{DType: a.DType, Shape: append([]int64(nil), a.Shape...), Data: alignedBytes(int64(len(a.Data)))}
	item, n := a.ItemSize(), len(a.Shape)
	strides := make([]int64, n) // of the column-major source, in bytes
	step := item
	for i, d := range a.Shape {
		strides[i] = step
		step *= d
	}
	index := make([]int64, n)
	var from int64
	for to := int64(0); to < int64(len(out.Data)); to += item {
		copy(out.Data[to:to+item], a.Data[from:from+item])
		for i := n - 1; i >= 0; i-- {
			index[i]++
			from += strides[i]
			if index[i] < a.Shape[i] {
				break
			}
			from -= strides[i] * a.Shape[i]
			index[i] = 0
		}
	}
	return out
}

// alignedBytes returns n bytes that start at a multiple of 8. Go's allocator
// gives that to sizes that are multiples of 8, small ones included.
func alignedBytes(n int64) []byte {
	return make([]byte, (n+7)/8*8)[:n:n]
}

func shapeString(shape []int64) string {
	if len(shape) == 1 {
		return fmt.Sprintf("(%d,)", shape[0])
	}
	parts := make([]string, len(shape))
	for i, d := range shape {
		parts[i] = strconv.FormatInt(d, 10)
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// Read reads one .npy file, of format 1, 2 or 3, from r, and leaves r behind
// the array. Big-endian data is turned into little-endian.
func Read(r io.Reader) (*Array, error) { return read(r, -1, false) }

// ReadFile reads the .npy file at path. Bytes after the array are an error.
func ReadFile(path string) (*Array, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("npy: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read from
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("npy: %w", err)
	}
	size := int64(-1)
	if info.Mode().IsRegular() {
		size = info.Size()
	}
	a, err := read(f, size, size >= 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

// read reads an array from r. A size of 0 or more is what r must hold exactly;
// present says that these bytes exist, so that memory for them can be had at
// once.
func read(r io.Reader, size int64, present bool) (*Array, error) {
	dtype, swap, a, used, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	a.DType = dtype
	n, err := byteSize(dtype, a.Shape)
	if err != nil {
		return nil, invalid("%s", strings.TrimPrefix(err.Error(), "npy: "))
	}
	if size >= 0 && size-used != n {
		return nil, invalid("got %d bytes after the header, want %d for shape %s of %s", size-used, n, shapeString(a.Shape), dtype)
	}
	if a.Data, err = readData(r, n, present); err != nil {
		return nil, err
	}
	if swap {
		swapBytes(a.Data, int(a.ItemSize()))
	}
	if err := a.checkBools(); err != nil {
		return nil, invalid("%s", strings.TrimPrefix(err.Error(), "npy: "))
	}
	return a, nil
}

// readData reads n bytes. Unless they are present, memory grows with what has
// arrived.
func readData(r io.Reader, n int64, present bool) ([]byte, error) {
	have, data := int64(0), alignedBytes(0)
	for {
		want := n
		if !present {
			want = min(n, max(readStep, 2*have))
		}
		if want > int64(len(data)) {
			grown := alignedBytes(want)
			copy(grown, data[:have])
			data = grown
		}
		got, err := io.ReadFull(r, data[have:])
		have += int64(got)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, invalid("got %d bytes of data, want %d (truncated?)", have, n)
		}
		if err != nil {
			return nil, fmt.Errorf("npy: reading data: %w", err)
		}
		if have == n {
			return data, nil
		}
	}
}

func swapBytes(b []byte, item int) {
	switch item {
	case 2:
		for i := 0; i+2 <= len(b); i += 2 {
			binary.LittleEndian.PutUint16(b[i:], binary.BigEndian.Uint16(b[i:]))
		}
	case 4:
		for i := 0; i+4 <= len(b); i += 4 {
			binary.LittleEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
		}
	case 8:
		for i := 0; i+8 <= len(b); i += 8 {
			binary.LittleEndian.PutUint64(b[i:], binary.BigEndian.Uint64(b[i:]))
		}
	}
}

// readHeader returns the dtype, whether its bytes must be swapped, an array
// with shape and order, and the bytes that were read.
func readHeader(r io.Reader) (dtype string, swap bool, a *Array, used int64, err error) {
	fail := func(err error) (string, bool, *Array, int64, error) { return "", false, nil, 0, err }
	var pre [12]byte
	if err := readFull(r, pre[:8], "magic"); err != nil {
		return fail(err)
	}
	if string(pre[:6]) != magic {
		return fail(invalid("got % x at the start, want % x (a .npy file)", pre[:6], magic))
	}
	var length, lengthBytes int64
	switch pre[6] {
	case 1:
		lengthBytes = 2
	case 2, 3:
		lengthBytes = 4
	default:
		return fail(invalid("got format version %d.%d, want 1, 2 or 3", pre[6], pre[7]))
	}
	if err := readFull(r, pre[8:8+lengthBytes], "header length"); err != nil {
		return fail(err)
	}
	if length = int64(binary.LittleEndian.Uint16(pre[8:])); lengthBytes == 4 {
		length = int64(binary.LittleEndian.Uint32(pre[8:]))
	}
	if length > maxHeader {
		return fail(invalid("got a header of %d bytes, want at most %d", length, maxHeader))
	}
	header := make([]byte, length)
	if err := readFull(r, header, "header"); err != nil {
		return fail(err)
	}
	if !utf8.Valid(header) {
		return fail(invalid("got a header that is not text"))
	}
	p := headerParser{s: string(header)}
	descr, fortran, shape, err := p.parse()
	if err != nil {
		return fail(err)
	}
	if dtype, swap, err = parseDescr(descr); err != nil {
		return fail(err)
	}
	return dtype, swap, &Array{Shape: shape, Fortran: fortran}, 8 + lengthBytes + length, nil
}

func readFull(r io.Reader, b []byte, what string) error {
	n, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return invalid("%s: got %d bytes, want %d (truncated?)", what, n, len(b))
	}
	if err != nil {
		return fmt.Errorf("npy: reading %s: %w", what, err)
	}
	return nil
}

// parseDescr takes '<f4' apart.
func parseDescr(descr string) (dtype string, swap bool, err error) {
	order, code := byte('='), descr
	if descr != "" && strings.IndexByte("<>|=", descr[0]) >= 0 {
		order, code = descr[0], descr[1:]
	}
	if code == "?" {
		code = "b1"
	}
	item := itemSizes[code]
	switch {
	case item != 0:
	case code == "V2":
		return "", false, invalid("got dtype %q, which is raw bytes (bfloat16?), want a number: write it as float32", descr)
	case strings.HasPrefix(code, "O"):
		return "", false, invalid("got dtype %q, an object array (a pickle), want numbers", descr)
	default:
		return "", false, invalid("got dtype %q, want one of b1 u1 i1 i2 i4 i8 f2 f4 f8", descr)
	}
	if order == '|' && item > 1 {
		return "", false, invalid("got dtype %q without byte order, want < or >", descr)
	}
	return code, order == '>' && item > 1, nil
}

// headerParser parses the header, which is a Python dict literal with the keys
// descr, fortran_order and shape.
type headerParser struct {
	s   string
	pos int
}

func (p *headerParser) fail(want string) error {
	rest := p.s[p.pos:]
	if len(rest) > 20 {
		rest = rest[:20] + "..."
	}
	return invalid("header: got %s at byte %d, want %s", strconv.QuoteToASCII(rest), p.pos, want)
}

func (p *headerParser) space() {
	for p.pos < len(p.s) && strings.IndexByte(" \t\n\r", p.s[p.pos]) >= 0 {
		p.pos++
	}
}

// take consumes one of the characters of set, after white space.
func (p *headerParser) take(set string) byte {
	p.space()
	if p.pos < len(p.s) && strings.IndexByte(set, p.s[p.pos]) >= 0 {
		p.pos++
		return p.s[p.pos-1]
	}
	return 0
}

func (p *headerParser) parse() (descr string, fortran bool, shape []int64, err error) {
	var seen [3]bool
	fail := func(err error) (string, bool, []int64, error) { return "", false, nil, err }
	if p.take("{") == 0 {
		return fail(p.fail("a dict"))
	}
	for p.take("}") == 0 {
		key, ok := p.text()
		if !ok {
			return fail(p.fail("a key"))
		}
		if p.take(":") == 0 {
			return fail(p.fail("':'"))
		}
		which := map[string]int{"descr": 0, "fortran_order": 1, "shape": 2}
		i, known := which[key]
		if !known || seen[i] {
			return fail(invalid("header: got key %s, want descr, fortran_order and shape once each", strconv.QuoteToASCII(key)))
		}
		seen[i] = true
		switch key {
		case "descr":
			if descr, ok = p.text(); !ok {
				return fail(p.fail("a dtype such as '<f4' (structured arrays are not supported)"))
			}
		case "fortran_order":
			p.space()
			switch {
			case strings.HasPrefix(p.s[p.pos:], "True"):
				fortran, p.pos = true, p.pos+4
			case strings.HasPrefix(p.s[p.pos:], "False"):
				p.pos += 5
			default:
				return fail(p.fail("True or False"))
			}
		case "shape":
			if shape, err = p.tuple(); err != nil {
				return fail(err)
			}
		}
		if p.take(",") == 0 {
			if p.take("}") == 0 {
				return fail(p.fail("',' or '}'"))
			}
			break
		}
	}
	if p.space(); p.pos != len(p.s) {
		return fail(p.fail("the end"))
	}
	if seen != [3]bool{true, true, true} {
		return fail(invalid("header: got keys descr %v, fortran_order %v, shape %v, want all three", seen[0], seen[1], seen[2]))
	}
	return descr, fortran, shape, nil
}

// text reads a string literal without escapes, which no valid header needs.
func (p *headerParser) text() (string, bool) {
	quote := p.take(`'"`)
	if quote == 0 {
		return "", false
	}
	end := strings.IndexAny(p.s[p.pos:], string(quote)+"\\\n")
	if end < 0 || p.s[p.pos+end] != quote {
		return "", false
	}
	s := p.s[p.pos : p.pos+end]
	p.pos += end + 1
	return s, true
}

func (p *headerParser) tuple() ([]int64, error) {
	if p.take("(") == 0 {
		return nil, p.fail("a tuple")
	}
	shape := []int64{}
	for p.take(")") == 0 {
		p.space()
		start := p.pos
		for p.pos < len(p.s) && p.s[p.pos] >= '0' && p.s[p.pos] <= '9' {
			p.pos++
		}
		d, err := strconv.ParseInt(p.s[start:p.pos], 10, 64)
		if err != nil {
			p.pos = start
			return nil, p.fail("a size of 0 or more")
		}
		if len(shape) == MaxDims {
			return nil, invalid("header: got more than %d dimensions", MaxDims)
		}
		shape = append(shape, d)
		p.take("L") // Python 2 wrote 3L
		if p.take(",") == 0 {
			if p.take(")") == 0 {
				return nil, p.fail("',' or ')'")
			}
			if len(shape) == 1 {
				return nil, p.fail("a tuple, (3,) for one dimension")
			}
			break
		}
	}
	return shape, nil
}

// header returns everything before the data, in the bytes that numpy.save
// writes.
func (a *Array) header() []byte {
	descr, order := "<"+a.DType, "False"
	if a.ItemSize() == 1 {
		descr = "|" + a.DType
	}
	if a.Fortran {
		order = "True"
	}
	dict := fmt.Sprintf("{'descr': '%s', 'fortran_order': %s, 'shape': %s, }", descr, order, shapeString(a.Shape))
	// NumPy leaves room for the growing axis to become 21 digits long.
	if n := len(a.Shape); n > 0 {
		axis := a.Shape[0]
		if a.Fortran {
			axis = a.Shape[n-1]
		}
		dict += strings.Repeat(" ", 21-len(strconv.FormatInt(axis, 10)))
	}
	// A shape of 64 dimensions stays far below the 65,535 bytes of version 1.
	const align, pre = 64, len(magic) + 4
	dict += strings.Repeat(" ", (align-(pre+len(dict)+1)%align)%align) + "\n"
	var b bytes.Buffer
	b.WriteString(magic)
	b.Write([]byte{1, 0})
	_ = binary.Write(&b, binary.LittleEndian, uint16(len(dict)))
	b.WriteString(dict)
	return b.Bytes()
}

// Write writes a to w as a .npy file, in the bytes that numpy.save writes.
func Write(w io.Writer, a *Array) error {
	if err := a.Validate(); err != nil {
		return err
	}
	if _, err := w.Write(a.header()); err != nil {
		return fmt.Errorf("npy: writing: %w", err)
	}
	if _, err := w.Write(a.Data); err != nil {
		return fmt.Errorf("npy: writing: %w", err)
	}
	return nil
}

// WriteFile writes a to path as a .npy file, whole or not at all: it writes a
// temporary file in the same folder and renames it.
func WriteFile(path string, a *Array) error {
	if err := a.Validate(); err != nil {
		return err
	}
	if err := whole.Write(path, func(w io.Writer) error { return Write(w, a) }); err != nil {
		return fmt.Errorf("npy: %w", err)
	}
	return nil
}
