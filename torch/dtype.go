package torch

import (
	"fmt"
	"math"
	"unsafe"
)

// DType is a tensor's element type: torch.dtype. The zero value is no type; where an option has it, it
// means float32, PyTorch's default.
type DType int8

// The element types. Their numbers are c10::ScalarType's plus one.
const (
	InvalidDType DType = 0
	Uint8        DType = 1
	Int8         DType = 2
	Int16        DType = 3
	Int32        DType = 4
	Int64        DType = 5
	Float16      DType = 6
	Float32      DType = 7
	Float64      DType = 8
	Bool         DType = 12
	BFloat16     DType = 16
)

var dtypes = []struct {
	d    DType
	name string
	size int
}{
	{Uint8, "uint8", 1},
	{Int8, "int8", 1},
	{Int16, "int16", 2},
	{Int32, "int32", 4},
	{Int64, "int64", 8},
	{Float16, "float16", 2},
	{Float32, "float32", 4},
	{Float64, "float64", 8},
	{Bool, "bool", 1},
	{BFloat16, "bfloat16", 2},
}

// String is the name in Python without the prefix: "float32".
func (d DType) String() string {
	for _, t := range dtypes {
		if t.d == d {
			return t.name
		}
	}
	return fmt.Sprintf("dtype(%d)", int(d)-1)
}

// Size is the number of bytes of an element, 0 for a type that this package does not know.
func (d DType) Size() int {
	for _, t := range dtypes {
		if t.d == d {
			return t.size
		}
	}
	return 0
}

// IsFloatingPoint is torch.dtype.is_floating_point.
func (d DType) IsFloatingPoint() bool {
	return d == Float16 || d == Float32 || d == Float64 || d == BFloat16
}

// ParseDType reads a name such as "float32", "bfloat16", "half" or "torch.int64".
func ParseDType(name string) (DType, error) {
	const prefix = "torch."
	if len(name) > len(prefix) && name[:len(prefix)] == prefix {
		name = name[len(prefix):]
	}
	switch name {
	case "half", "fp16":
		return Float16, nil
	case "bf16":
		return BFloat16, nil
	case "float", "fp32":
		return Float32, nil
	case "double":
		return Float64, nil
	case "long":
		return Int64, nil
	case "int":
		return Int32, nil
	}
	for _, t := range dtypes {
		if t.name == name {
			return t.d, nil
		}
	}
	return InvalidDType, fmt.Errorf("%w: got %q, want a name such as float32, bfloat16, uint8 or int64", ErrDType, name)
}

// Half is the bits of a float16.
type Half uint16

// Brain is the bits of a bfloat16.
type Brain uint16

// Float32 is the same number as a float32.
func (b Brain) Float32() float32 { return math.Float32frombits(uint32(b) << 16) }

// Float32 is the same number as a float32.
func (h Half) Float32() float32 {
	sign := uint32(h>>15) << 31
	exp := uint32(h>>10) & 0x1f
	frac := uint32(h) & 0x3ff
	switch {
	case exp == 0x1f:
		return math.Float32frombits(sign | 0xff<<23 | frac<<13)
	case exp != 0:
		return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
	default: // zero or subnormal: exact in float32
		f := float32(frac) / (1 << 24)
		if sign != 0 {
			f = -f
		}
		return f
	}
}

// Element are the Go types of a tensor's elements. float16 and bfloat16 travel as bits.
type Element interface {
	bool | uint8 | int8 | int16 | int32 | int64 | float32 | float64 | Half | Brain
}

// DTypeOf is the DType of a Go element type.
func DTypeOf[T Element]() DType {
	var zero T
	switch any(zero).(type) {
	case bool:
		return Bool
	case uint8:
		return Uint8
	case int8:
		return Int8
	case int16:
		return Int16
	case int32:
		return Int32
	case int64:
		return Int64
	case float32:
		return Float32
	case float64:
		return Float64
	case Half:
		return Float16
	default:
		return BFloat16
	}
}

// bytesOf sees a slice of elements as bytes.
func bytesOf[T Element](s []T) []byte {
	var zero T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(zero)))
}
