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
)

// String prints the tensor as PyTorch does: "tensor([1., 2., 3.])". Long dimensions are cut.
func (t *Tensor) String() string {
	if t == nil {
		return "tensor(<nil>)"
	}
	shape := t.Shape()
	if shape == nil {
		return "tensor(<closed>)"
	}
	dtype := t.DType()
	values, err := t.numbers(dtype)
	if err != nil {
		return fmt.Sprintf("tensor(<%v>)", err)
	}
	suffix := ""
	if device := t.Device(); device.IsCUDA() {
		suffix += ", device='" + device.String() + "'"
	}
	numel := int64(len(values))
	if numel == 0 && len(shape) != 1 {
		suffix += ", size=" + tupleText(shape)
	}
	if !(dtype == Float32 || dtype == Bool || dtype == Int64) || numel == 0 && dtype != Float32 {
		suffix += ", dtype=torch." + dtype.String()
	}
	body := "[]"
	const prefix = "tensor("
	if numel > 0 {
		f := &formatter{dtype: dtype, shape: shape, values: values, summarize: numel > printThreshold}
		f.prepare()
		body = f.format(len(prefix), 0, 0)
	}
	if suffix == "" {
		return prefix + body + ")"
	}
	last := body[strings.LastIndexByte(body, '\n')+1:]
	length := len(last)
	if !strings.Contains(body, "\n") {
		length += len(prefix)
	}
	if length+len(suffix)+1 > printWidth {
		return prefix + body + ",\n" + strings.Repeat(" ", len(prefix)) + suffix[2:] + ")"
	}
	return prefix + body + suffix + ")"
}

func tupleText(shape []int64) string {
	parts := make([]string, len(shape))
	for i, s := range shape {
		parts[i] = strconv.FormatInt(s, 10)
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// numbers reads the elements as float64, or as the nearest integer type inside it for printing.
func (t *Tensor) numbers(dtype DType) ([]float64, error) {
	switch dtype {
	case Float32:
		return numbersOf(t, func(x float32) float64 { return float64(x) })
	case Float64:
		return numbersOf(t, func(x float64) float64 { return x })
	case Float16:
		return numbersOf(t, func(x Half) float64 { return float64(x.Float32()) })
	case BFloat16:
		return numbersOf(t, func(x Brain) float64 { return float64(x.Float32()) })
	case Int64:
		return numbersOf(t, func(x int64) float64 { return float64(x) })
	case Int32:
		return numbersOf(t, func(x int32) float64 { return float64(x) })
	case Int16:
		return numbersOf(t, func(x int16) float64 { return float64(x) })
	case Int8:
		return numbersOf(t, func(x int8) float64 { return float64(x) })
	case Uint8:
		return numbersOf(t, func(x uint8) float64 { return float64(x) })
	case Bool:
		return numbersOf(t, func(x bool) float64 {
			if x {
				return 1
			}
			return 0
		})
	}
	return nil, fmt.Errorf("%w: %s", ErrDType, dtype)
}

func numbersOf[T Element](t *Tensor, f func(T) float64) ([]float64, error) {
	data, err := CopyData[T](t)
	if err != nil {
		return nil, err
	}
	out := make([]float64, len(data))
	for i, x := range data {
		out[i] = f(x)
	}
	return out, nil
}

// formatter follows torch/_tensor_str.py: one width for all elements, plain or scientific.
type formatter struct {
	dtype      DType
	shape      []int64
	values     []float64
	summarize  bool
	intMode    bool
	scientific bool
	width      int
}

// shown calls f for each element that is printed.
func (f *formatter) shown(visit func(float64)) {
	var walk func(dim int, offset int64)
	walk = func(dim int, offset int64) {
		if dim == len(f.shape) {
			visit(f.values[offset])
			return
		}
		stride := int64(1)
		for _, s := range f.shape[dim+1:] {
			stride *= s
		}
		n := f.shape[dim]
		for i := int64(0); i < n; i++ {
			if f.summarize && n > 2*printEdgeItems && i == printEdgeItems {
				i = n - printEdgeItems
			}
			walk(dim+1, offset+i*stride)
		}
	}
	walk(0, 0)
}

func (f *formatter) prepare() {
	if !f.dtype.IsFloatingPoint() {
		f.shown(func(v float64) { f.width = max(f.width, len(f.integer(v))) })
		return
	}
	f.intMode = true
	low, high := math.Inf(1), 0.0
	nonzero := false
	f.shown(func(v float64) {
		if math.IsNaN(v) || math.IsInf(v, 0) || v == 0 {
			return
		}
		nonzero = true
		if v != math.Ceil(v) {
			f.intMode = false
		}
		low, high = min(low, math.Abs(v)), max(high, math.Abs(v))
	})
	f.width = 1
	if !nonzero {
		f.shown(func(v float64) { f.width = max(f.width, len(f.number(v))) })
		return
	}
	if f.intMode {
		f.scientific = high/low > 1000 || high > 1e8
	} else {
		f.scientific = high/low > 1000 || high > 1e8 || low < 1e-4
	}
	f.shown(func(v float64) {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			f.width = max(f.width, len(f.number(v)))
			return
		}
		f.width = max(f.width, len(f.number(v)))
	})
}

func (f *formatter) integer(v float64) string {
	if f.dtype == Bool {
		if v != 0 {
			return "True"
		}
		return "False"
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

func (f *formatter) number(v float64) string {
	if !f.dtype.IsFloatingPoint() {
		return f.integer(v)
	}
	switch {
	case math.IsNaN(v):
		return "nan"
	case math.IsInf(v, 1):
		return "inf"
	case math.IsInf(v, -1):
		return "-inf"
	case f.scientific:
		return strconv.FormatFloat(v, 'e', printPrecision, 64)
	case f.intMode:
		return strconv.FormatFloat(v, 'f', 0, 64) + "."
	}
	return strconv.FormatFloat(v, 'f', printPrecision, 64)
}

func (f *formatter) element(v float64) string {
	s := f.number(v)
	return strings.Repeat(" ", max(0, f.width-len(s))) + s
}

func (f *formatter) format(indent, dim int, offset int64) string {
	if dim == len(f.shape) {
		return f.element(f.values[offset])
	}
	n := f.shape[dim]
	stride := int64(1)
	for _, s := range f.shape[dim+1:] {
		stride *= s
	}
	cut := f.summarize && n > 2*printEdgeItems
	var parts []string
	for i := int64(0); i < n; i++ {
		if cut && i == printEdgeItems {
			parts = append(parts, "...")
			i = n - printEdgeItems
			if dim == len(f.shape)-1 {
				parts[len(parts)-1] = " ..."
			}
		}
		parts = append(parts, f.format(indent+1, dim+1, offset+i*stride))
	}
	if dim < len(f.shape)-1 {
		gap := strings.Repeat("\n", len(f.shape)-1-dim) + strings.Repeat(" ", indent+1)
		return "[" + strings.Join(parts, ","+gap) + "]"
	}
	perLine := max(1, (printWidth-indent)/(f.width+2))
	var lines []string
	for len(parts) > 0 {
		k := min(perLine, len(parts))
		lines = append(lines, strings.Join(parts[:k], ", "))
		parts = parts[k:]
	}
	return "[" + strings.Join(lines, ",\n"+strings.Repeat(" ", indent+1)) + "]"
}
