package torch

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"github.com/torchvit/torchvit/cgo"
)

// pinned holds the Go memory that tensors use, by token. A slot is used again after its release, so
// that a Pinner is never dropped.
var pinned struct {
	sync.Mutex
	slots []*runtime.Pinner
	free  []uint64
}

func pin(p unsafe.Pointer) uint64 {
	pinned.Lock()
	defer pinned.Unlock()
	var token uint64
	if n := len(pinned.free); n > 0 {
		token = pinned.free[n-1]
		pinned.free = pinned.free[:n-1]
	} else {
		token = uint64(len(pinned.slots))
		pinned.slots = append(pinned.slots, new(runtime.Pinner))
	}
	pinned.slots[token].Pin(p)
	return token
}

func unpin(token uint64) {
	pinned.Lock()
	defer pinned.Unlock()
	pinned.slots[token].Unpin()
	pinned.free = append(pinned.free, token)
}

// drainPins unpins the memory whose last tensor is gone. libtorch's deleters run on any thread and
// cannot call Go, so they queue their tokens and the next call of this package takes them.
func drainPins() {
	for cgo.PinsPending() > 0 {
		var tokens [64]uint64
		n := cgo.PinsDrain(tokens[:])
		for _, token := range tokens[:n] {
			unpin(token)
		}
		if n == 0 {
			return
		}
	}
}

// FromSlice makes a tensor of that shape over the memory of data: nothing is copied, and writes on one
// side are seen on the other. Without a shape it has one dimension.
//
// The slice is pinned and belongs to the tensor's memory: libtorch gives it back when the last tensor
// that uses it is gone, be it inside a TorchScript module. Do not append to data in place meanwhile.
// Kernels read memory aligned to 64 bytes in the way that Python's do; a Go slice may lie elsewhere,
// and then last bits can differ. For equal bits fill a tensor of Empty instead.
func FromSlice[T Element](data []T, shape ...int64) (*Tensor, error) {
	if err := ensure(); err != nil {
		return nil, err
	}
	drainPins()
	if shape == nil {
		shape = []int64{int64(len(data))}
	}
	n, err := numel(shape)
	if err != nil {
		return nil, fmt.Errorf("from slice: %w", err)
	}
	if n != int64(len(data)) {
		return nil, fmt.Errorf("from slice: %w: got %d elements, want %d for shape %v", ErrShape, len(data), n, shape)
	}
	dtype := DTypeOf[T]()
	if n == 0 { // there is no memory to share
		return Empty(shape, TensorOptions{DType: dtype})
	}
	p := unsafe.Pointer(unsafe.SliceData(data))
	token := pin(p)
	raw, err := cgo.TensorFromBlob(p, shape, nil, int32(dtype), token)
	if err != nil {
		drainPins()
		return nil, WrapStatus("from slice", err)
	}
	return newTensor(raw, n), nil
}

// NewTensor copies data into a new tensor: torch.tensor.
func NewTensor[T Element](data []T, shape ...int64) (*Tensor, error) {
	if shape == nil {
		shape = []int64{int64(len(data))}
	}
	n, err := numel(shape)
	if err != nil {
		return nil, fmt.Errorf("new tensor: %w", err)
	}
	if n != int64(len(data)) {
		return nil, fmt.Errorf("new tensor: %w: got %d elements, want %d for shape %v", ErrShape, len(data), n, shape)
	}
	t, err := Empty(shape, TensorOptions{DType: DTypeOf[T]()})
	if err != nil {
		return nil, err
	}
	if err := WithData(t, func(dst []T) error { copy(dst, data); return nil }); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func view[T Element](t *Tensor, op string) ([]T, error) {
	var m cgo.Meta
	if err := t.meta(op, &m); err != nil {
		return nil, err
	}
	if want := DTypeOf[T](); DType(m.DType) != want {
		return nil, fmt.Errorf("%s: %w: got a tensor of %s, want %s", op, ErrDType, DType(m.DType), want)
	}
	if m.DeviceType != 0 {
		return nil, fmt.Errorf("%s: %w: got a tensor on %s, want cpu", op, ErrDevice, deviceOf(m.DeviceType, m.DeviceIndex))
	}
	if !m.Contiguous {
		// Clones, so that m need not live on the heap.
		strides, sizes := slices.Clone(m.Strides[:m.NDim]), slices.Clone(m.Sizes[:m.NDim])
		return nil, fmt.Errorf("%s: %w: got strides %v for shape %v, want a contiguous tensor", op, ErrLayout, strides, sizes)
	}
	if m.NumEl == 0 {
		return []T{}, nil
	}
	return unsafe.Slice((*T)(m.Data), m.NumEl), nil
}

// WithData runs f on a slice over the tensor's memory, row-major: nothing is copied. The tensor must
// be on the CPU, contiguous, and of T's dtype. The slice is valid until f returns; a Close from
// another goroutine takes effect after that.
func WithData[T Element](t *Tensor, f func(data []T) error) error {
	if _, err := t.acquire("with data"); err != nil {
		return err
	}
	defer t.h.Release()
	data, err := view[T](t, "with data")
	if err != nil {
		return err
	}
	return f(data)
}

// Data is a slice over the tensor's memory, as WithData's, that stays valid until Close. A Go slice
// does not keep a tensor alive, so from here on the garbage collector no longer closes the tensor:
// only Close frees it.
func Data[T Element](t *Tensor) ([]T, error) {
	if _, err := t.acquire("data"); err != nil {
		return nil, err
	}
	defer t.h.Release()
	data, err := view[T](t, "data")
	if err != nil {
		return nil, err
	}
	t.h.Disown()
	return data, nil
}

// CopyData copies the tensor's elements, row-major, whatever its strides and device.
func CopyData[T Element](t *Tensor) ([]T, error) {
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
	var out []T
	err = WithData(c, func(data []T) error { out = append(out, data...); return nil })
	return out, err
}

// ToDLPack gives the tensor to another library of the process: a DLManagedTensor* with a reference of
// its own. Whoever takes it calls its deleter; give it to FromDLPack or FreeDLPack otherwise.
func (t *Tensor) ToDLPack() (unsafe.Pointer, error) {
	raw, err := t.acquire("to dlpack")
	if err != nil {
		return nil, err
	}
	defer t.h.Release()
	p, err := cgo.TensorToDLPack(raw)
	return p, WrapStatus("to dlpack", err)
}

// FromDLPack takes over a DLManagedTensor*: torch.from_dlpack. Nothing is copied; its deleter runs when
// the last tensor over the memory is gone, on any thread. On an error it stays the caller's.
func FromDLPack(managed unsafe.Pointer) (*Tensor, error) {
	if err := ensure(); err != nil {
		return nil, err
	}
	raw, err := cgo.TensorFromDLPack(managed)
	if err != nil {
		return nil, WrapStatus("from dlpack", err)
	}
	var m cgo.Meta
	if err := cgo.TensorMeta(raw, &m); err != nil {
		cgo.TensorFree(raw)
		return nil, WrapStatus("from dlpack", err)
	}
	return newTensor(raw, m.NumEl), nil
}

// FreeDLPack calls the deleter of a DLManagedTensor* that nobody took.
func FreeDLPack(managed unsafe.Pointer) {
	if managed != nil && ensure() == nil {
		cgo.DLPackFree(managed)
		drainPins()
	}
}
