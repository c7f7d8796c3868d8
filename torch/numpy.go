package torch

import (
	"fmt"

	"github.com/torchvit/torchvit/torch/npy"
)

var npyTypes = []struct {
	name  string
	dtype DType
}{
	{"b1", Bool},
	{"u1", Uint8},
	{"i1", Int8},
	{"i2", Int16},
	{"i4", Int32},
	{"i8", Int64},
	{"f2", Float16},
	{"f4", Float32},
	{"f8", Float64},
}

// FromNumpy is torch.from_numpy, but copies, so that the tensor lies in memory of libtorch, aligned as
// Python's tensors are. The caller closes it.
func FromNumpy(a *npy.Array) (*Tensor, error) {
	if err := a.Validate(); err != nil {
		return nil, fmt.Errorf("from numpy: %w", err)
	}
	a = a.RowMajor()
	for _, k := range npyTypes {
		if k.name != a.DType {
			continue
		}
		t, err := Empty(a.Shape, TensorOptions{DType: k.dtype})
		if err != nil {
			return nil, err
		}
		if err := withBytes(t, k.dtype, func(dst []byte) { copy(dst, a.Data) }); err != nil {
			t.Close()
			return nil, err
		}
		return t, nil
	}
	return nil, fmt.Errorf("from numpy: %w: got %s", ErrDType, a.DType)
}

// Numpy is Tensor.numpy, but copies, from any device and any strides. NumPy has no bfloat16: such a
// tensor gives float32, which holds the same numbers.
func (t *Tensor) Numpy() (*npy.Array, error) {
	if t.DType() == BFloat16 {
		f, err := t.CastTo(Float32)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		t = f
	}
	cpu, err := t.To(CPU)
	if err != nil {
		return nil, err
	}
	defer cpu.Close()
	c, err := cpu.Contiguous()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	dtype := c.DType()
	for _, k := range npyTypes {
		if k.dtype != dtype {
			continue
		}
		a := &npy.Array{DType: k.name, Shape: c.Shape()}
		err := withBytes(c, dtype, func(src []byte) { a.Data = append([]byte{}, src...) })
		return a, err
	}
	return nil, fmt.Errorf("numpy: %w: got %s", ErrDType, dtype)
}

// withBytes is WithData for any dtype, as bytes.
func withBytes(t *Tensor, dtype DType, f func(data []byte)) error {
	switch dtype {
	case Bool:
		return withBytesOf[bool](t, f)
	case Uint8:
		return withBytesOf[uint8](t, f)
	case Int8:
		return withBytesOf[int8](t, f)
	case Int16:
		return withBytesOf[int16](t, f)
	case Int32:
		return withBytesOf[int32](t, f)
	case Int64:
		return withBytesOf[int64](t, f)
	case Float16:
		return withBytesOf[Half](t, f)
	case Float32:
		return withBytesOf[float32](t, f)
	case Float64:
		return withBytesOf[float64](t, f)
	}
	return fmt.Errorf("%w: got %s", ErrDType, dtype)
}

func withBytesOf[T Element](t *Tensor, f func(data []byte)) error {
	return WithData(t, func(data []T) error {
		f(bytesOf(data))
		return nil
	})
}
