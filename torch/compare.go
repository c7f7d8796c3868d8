package torch

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/torchvit/torchvit/cgo"
)

// AllClose is torch.allclose: |a-b| <= atol + rtol*|b| for every element. Both tensors have one dtype.
func AllClose(a, b *Tensor, rtol, atol float64) (bool, error) {
	v, err := Call(context.Background(), "aten::allclose", a, b, rtol, atol, false)
	if err != nil {
		return false, err
	}
	close, _ := v.(bool)
	return close, nil
}

// Difference is how far two tensors are apart.
type Difference struct {
	// MaxAbs is the largest absolute difference, NaN where exactly one of two elements is NaN.
	MaxAbs float64
	// MaxULP is the largest distance in units in the last place of the dtype: how many numbers of the
	// dtype lie between. For integers and bools it is the absolute difference.
	MaxULP uint64
	// Different is the number of elements whose bits differ; two NaN are equal.
	Different int64
	// At is the flat index of the first element that differs, -1 for none.
	At int64
	// NumEl is the number of elements compared.
	NumEl int64
}

func (d Difference) String() string {
	if d.Different == 0 {
		return fmt.Sprintf("0 of %d elements differ", d.NumEl)
	}
	return fmt.Sprintf("%d of %d elements differ, first at %d, by at most %.3g and %d ULP", d.Different, d.NumEl, d.At, d.MaxAbs, d.MaxULP)
}

// Compare measures the difference between two tensors of equal shape and dtype.
func Compare(a, b *Tensor) (Difference, error) {
	for _, t := range []*Tensor{a, b} {
		var m cgo.Meta
		if err := t.meta("compare", &m); err != nil {
			return Difference{}, err
		}
	}
	if x, y := a.Shape(), b.Shape(); !slices.Equal(x, y) {
		return Difference{}, fmt.Errorf("compare: %w: got %v and %v, want equal shapes", ErrShape, x, y)
	}
	if x, y := a.DType(), b.DType(); x != y {
		return Difference{}, fmt.Errorf("compare: %w: got %s and %s, want equal dtypes", ErrDType, x, y)
	}
	switch a.DType() {
	case Float32:
		return compareWith(a, b, func(x float32) (float64, int64) {
			return float64(x), ordered(int64(int32(math.Float32bits(x))), math.MinInt32)
		})
	case Float64:
		return compareWith(a, b, func(x float64) (float64, int64) { return x, ordered(int64(math.Float64bits(x)), math.MinInt64) })
	case Float16:
		return compareWith(a, b, func(x Half) (float64, int64) { return float64(x.Float32()), ordered(int64(int16(x)), math.MinInt16) })
	case BFloat16:
		return compareWith(a, b, func(x Brain) (float64, int64) { return float64(x.Float32()), ordered(int64(int16(x)), math.MinInt16) })
	case Int64:
		return compareWith(a, b, func(x int64) (float64, int64) { return float64(x), x })
	case Int32:
		return compareWith(a, b, func(x int32) (float64, int64) { return float64(x), int64(x) })
	case Int16:
		return compareWith(a, b, func(x int16) (float64, int64) { return float64(x), int64(x) })
	case Int8:
		return compareWith(a, b, func(x int8) (float64, int64) { return float64(x), int64(x) })
	case Uint8:
		return compareWith(a, b, func(x uint8) (float64, int64) { return float64(x), int64(x) })
	case Bool:
		return compareWith(a, b, func(x bool) (float64, int64) {
			if x {
				return 1, 1
			}
			return 0, 0
		})
	}
	return Difference{}, fmt.Errorf("compare: %w: got %s", ErrDType, a.DType())
}

// ordered maps the bits of a float, as a signed integer, to integers in the order of the numbers, so that
// neighbours differ by one. -0 and +0 coincide.
func ordered(bits, min int64) int64 {
	if bits < 0 {
		return min - bits
	}
	return bits
}

func compareWith[T Element](a, b *Tensor, number func(T) (value float64, place int64)) (Difference, error) {
	x, err := CopyData[T](a)
	if err != nil {
		return Difference{}, err
	}
	y, err := CopyData[T](b)
	if err != nil {
		return Difference{}, err
	}
	d := Difference{At: -1, NumEl: int64(len(x))}
	for i := range x {
		if x[i] == y[i] {
			// Equal numbers can have different bits: +0 and -0.
			if xb, yb := bytesOf(x[i:i+1]), bytesOf(y[i:i+1]); slices.Equal(xb, yb) {
				continue
			}
		}
		xv, xp := number(x[i])
		yv, yp := number(y[i])
		if math.IsNaN(xv) && math.IsNaN(yv) {
			continue
		}
		d.Different++
		if d.At < 0 {
			d.At = int64(i)
		}
		if abs := math.Abs(xv - yv); abs > d.MaxAbs || math.IsNaN(abs) {
			d.MaxAbs = abs
		}
		if xp < yp {
			xp, yp = yp, xp
		}
		d.MaxULP = max(d.MaxULP, uint64(xp)-uint64(yp))
	}
	return d, nil
}
