package torch

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// What torch.set_printoptions has by default.
const (
	printPrecision = 4
	printThreshold = 1000
	printEdgeItems = 3
	printWidth     = 80
	printPrefix    = "tensor("
)

// String prints the tensor as PyTorch does, to the letter: "tensor([1., 2., 3.])". More than 1000
// elements are cut to the first and last three of each dimension. A tensor with a graph says
// requires_grad=True, where Python names the graph's node.
func (t *Tensor) String() string {
	if t == nil {
		return "tensor(<nil>)"
	}
	text, err := t.text()
	if err != nil {
		return "tensor(<" + err.Error() + ">)"
	}
	return text
}

func (t *Tensor) text() (string, error) {
	shape, dtype := t.Shape(), t.DType()
	if shape == nil {
		return "", ErrClosed
	}
	cells, done, err := t.cells(dtype)
	if err != nil {
		return "", err
	}
	defer done()
	n, err := numel(shape)
	if err != nil {
		return "", err
	}
	var suffixes []string
	if device := t.Device(); device.IsCUDA() {
		suffixes = append(suffixes, "device='"+device.String()+"'")
	}
	body := "[]"
	if n == 0 {
		if len(shape) != 1 {
			suffixes = append(suffixes, "size="+tupleText(shape))
		}
		if dtype != Float32 {
			suffixes = append(suffixes, "dtype=torch."+dtype.String())
		}
	} else {
		if dtype != Float32 && dtype != Int64 && dtype != Bool {
			suffixes = append(suffixes, "dtype=torch."+dtype.String())
		}
		f := &formatter{cells: cells, shape: shape, cut: n > printThreshold, width: 1}
		f.measure()
		body = f.format(len(printPrefix), shape, 0)
	}
	if t.RequiresGrad() {
		suffixes = append(suffixes, "requires_grad=True")
	}
	return withSuffixes(printPrefix+body, suffixes), nil
}

// withSuffixes is torch._tensor_str._add_suffixes: each one goes on the last line while there is room.
func withSuffixes(text string, suffixes []string) string {
	last := len(text) - strings.LastIndexByte(text, '\n') + 1
	for _, s := range suffixes {
		if last+len(s)+2 > printWidth {
			text += ",\n" + strings.Repeat(" ", len(printPrefix)) + s
			last = len(printPrefix) + len(s)
		} else {
			text += ", " + s
			last += len(s) + 2
		}
	}
	return text + ")"
}

// tupleText is a tuple as Python prints it.
func tupleText(shape []int64) string {
	if len(shape) == 1 {
		return "(" + strconv.FormatInt(shape[0], 10) + ",)"
	}
	parts := make([]string, len(shape))
	for i, s := range shape {
		parts[i] = strconv.FormatInt(s, 10)
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// cells are the elements in row-major order: number for floating dtypes, text for the others.
type cells struct {
	number func(i int64) float64
	text   func(i int64) string
}

// cells sees the elements of any tensor, until done is called.
func (t *Tensor) cells(dtype DType) (c cells, done func(), err error) {
	cpu, err := t.To(CPU)
	if err != nil {
		return c, nil, err
	}
	defer cpu.Close()
	plain, err := cpu.Contiguous()
	if err != nil {
		return c, nil, err
	}
	switch dtype {
	case Float32:
		c.number, err = elementsAs(plain, func(x float32) float64 { return float64(x) })
	case Float64:
		c.number, err = elementsAs(plain, func(x float64) float64 { return x })
	case Float16:
		c.number, err = elementsAs(plain, func(x Half) float64 { return float64(x.Float32()) })
	case BFloat16:
		c.number, err = elementsAs(plain, func(x Brain) float64 { return float64(x.Float32()) })
	case Int64:
		c.text, err = elementsAs(plain, func(x int64) string { return strconv.FormatInt(x, 10) })
	case Int32:
		c.text, err = elementsAs(plain, func(x int32) string { return strconv.Itoa(int(x)) })
	case Int16:
		c.text, err = elementsAs(plain, func(x int16) string { return strconv.Itoa(int(x)) })
	case Int8:
		c.text, err = elementsAs(plain, func(x int8) string { return strconv.Itoa(int(x)) })
	case Uint8:
		c.text, err = elementsAs(plain, func(x uint8) string { return strconv.Itoa(int(x)) })
	case Bool:
		c.text, err = elementsAs(plain, func(x bool) string {
			if x {
				return "True"
			}
			return "False"
		})
	default:
		err = fmt.Errorf("%w: %s", ErrDType, dtype)
	}
	if err != nil {
		plain.Close()
		return c, nil, err
	}
	return c, func() { plain.Close() }, nil
}

func elementsAs[T Element, V any](t *Tensor, f func(T) V) (func(i int64) V, error) {
	data, err := view[T](t, "print")
	return func(i int64) V { return f(data[i]) }, err
}

// formatter follows torch/_tensor_str.py: one width for all elements, plain or scientific.
type formatter struct {
	cells      cells
	shape      []int64
	cut        bool
	integers   bool // floats without a fraction: "1."
	scientific bool
	width      int
}

// shown calls visit for each element that is printed.
func (f *formatter) shown(shape []int64, offset int64, visit func(i int64)) {
	if len(shape) == 0 {
		visit(offset)
		return
	}
	stride := strideOf(shape)
	for i := int64(0); i < shape[0]; i++ {
		if f.cut && shape[0] > 2*printEdgeItems && i == printEdgeItems {
			i = shape[0] - printEdgeItems
		}
		f.shown(shape[1:], offset+i*stride, visit)
	}
}

func strideOf(shape []int64) int64 {
	n := int64(1)
	for _, s := range shape[1:] {
		n *= s
	}
	return n
}

// measure decides how numbers are written: torch._tensor_str._Formatter. Zeros, infinities and NaN have
// no say.
func (f *formatter) measure() {
	if f.cells.text != nil {
		f.shown(f.shape, 0, func(i int64) { f.width = max(f.width, len(f.cells.text(i))) })
		return
	}
	f.integers = true
	low, high := math.Inf(1), 0.0
	var finite []float64
	f.shown(f.shape, 0, func(i int64) {
		v := f.cells.number(i)
		if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
			return
		}
		finite = append(finite, v)
		f.integers = f.integers && v == math.Ceil(v)
		low, high = min(low, math.Abs(v)), max(high, math.Abs(v))
	})
	if len(finite) == 0 {
		return
	}
	f.scientific = high/low > 1000 || high > 1e8 || low < 1e-4
	for _, v := range finite {
		f.width = max(f.width, len(f.number(v)))
	}
}

func (f *formatter) number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "nan"
	case math.IsInf(v, 1):
		return "inf"
	case math.IsInf(v, -1):
		return "-inf"
	case f.scientific:
		return strconv.FormatFloat(v, 'e', printPrecision, 64)
	case f.integers:
		return strconv.FormatFloat(v, 'f', 0, 64) + "."
	}
	return strconv.FormatFloat(v, 'f', printPrecision, 64)
}

func (f *formatter) element(i int64) string {
	var s string
	if f.cells.text != nil {
		s = f.cells.text(i)
	} else {
		s = f.number(f.cells.number(i))
	}
	return strings.Repeat(" ", max(0, f.width-len(s))) + s
}

// format is torch._tensor_str._tensor_str_with_formatter for the part of that shape at offset.
func (f *formatter) format(indent int, shape []int64, offset int64) string {
	if len(shape) == 0 {
		return f.element(offset)
	}
	stride := strideOf(shape)
	var parts []string
	for i := int64(0); i < shape[0]; i++ {
		if f.cut && shape[0] > 2*printEdgeItems && i == printEdgeItems {
			if len(shape) == 1 {
				parts = append(parts, " ...")
			} else {
				parts = append(parts, "...")
			}
			i = shape[0] - printEdgeItems
		}
		parts = append(parts, f.format(indent+1, shape[1:], offset+i*stride))
	}
	pad := strings.Repeat(" ", indent+1)
	if len(shape) > 1 {
		return "[" + strings.Join(parts, ","+strings.Repeat("\n", len(shape)-1)+pad) + "]"
	}
	perLine := max(1, (printWidth-indent)/(f.width+2))
	var lines []string
	for len(parts) > 0 {
		k := min(perLine, len(parts))
		lines = append(lines, strings.Join(parts[:k], ", "))
		parts = parts[k:]
	}
	return "[" + strings.Join(lines, ",\n"+pad) + "]"
}
