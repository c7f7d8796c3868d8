package torch

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/internal/handle"
)

// Tensor is a torch.Tensor. It owns a reference to memory of libtorch; Close gives it back. All methods
// may be called from many goroutines; writing into a tensor's memory needs the caller's own care.
type Tensor struct {
	h handle.Handle[cgo.Tensor]
	// size is the number of elements when the tensor came here: what decides about a lane, without a
	// call. Code in place that resizes a tensor makes it stale, which costs time and nothing else.
	size int64
}

func newTensor(raw cgo.Tensor, size int64) *Tensor {
	t := &Tensor{size: size}
	t.h.Init(raw, "tensor", cgo.TensorFree)
	return t
}

// TensorOptions say what an allocated tensor is. The zero value is float32 on the CPU.
type TensorOptions struct {
	DType  DType
	Device Device
	// PinMemory asks for page-locked memory, which a CUDA device copies from at full speed. CPU only.
	PinMemory bool
}

// Empty is torch.empty: memory of libtorch, aligned to 64 bytes, with undefined content. The caller
// closes the tensor. Fill it with WithData: that is the fast way to build a batch.
func Empty(shape []int64, options TensorOptions) (*Tensor, error) {
	if err := ensure(); err != nil {
		return nil, err
	}
	drainPins()
	size, err := numel(shape)
	if err != nil {
		return nil, fmt.Errorf("empty: %w", err)
	}
	kind, index, err := options.Device.Codes()
	if err != nil {
		return nil, fmt.Errorf("empty: %w", err)
	}
	dtype := options.DType
	if dtype == InvalidDType {
		dtype = Float32
	}
	if options.PinMemory && !loaded.cuda {
		return nil, fmt.Errorf("empty: page-locked memory: %w", ErrCUDANotLoaded)
	}
	raw, err := cgo.TensorEmpty(shape, int32(dtype), kind, index, options.PinMemory)
	if err != nil {
		return nil, WrapStatus("empty", err)
	}
	return newTensor(raw, size), nil
}

// Zeros is torch.zeros.
func Zeros(shape []int64, options TensorOptions) (*Tensor, error) { return Full(shape, 0, options) }

// Ones is torch.ones.
func Ones(shape []int64, options TensorOptions) (*Tensor, error) { return Full(shape, 1, options) }

// Full is torch.full with the dtype of the options, float32 by default.
func Full(shape []int64, value float64, options TensorOptions) (*Tensor, error) {
	t, err := Empty(shape, options)
	if err != nil {
		return nil, err
	}
	var v any = value
	if value == float64(int64(value)) && !(value == 0 && math.Signbit(value)) {
		v = int64(value) // what an integer tensor takes
	}
	filled, err := CallWith(context.Background(), CallOptions{Mode: NoGrad}, "aten::fill_.Scalar", t, v)
	if err != nil {
		t.Close()
		return nil, err
	}
	CloseAll(filled)
	return t, nil
}

// numel is the number of elements, with sizes checked.
func numel(shape []int64) (int64, error) {
	n := int64(1)
	if len(shape) > cgo.MaxDims {
		return 0, fmt.Errorf("%w: got %d dimensions, want at most %d", ErrShape, len(shape), cgo.MaxDims)
	}
	for _, s := range shape {
		if s < 0 || s > 0 && n > (1<<62)/s {
			return 0, fmt.Errorf("%w: got %v, want sizes of 0 and more whose product fits in 62 bits", ErrShape, shape)
		}
		n *= s
	}
	return n, nil
}

// Close gives the memory back, at once or when the calls that use it are done. Closing again, or a nil
// tensor, has no effect. It always returns nil, so that a Tensor is an io.Closer.
func (t *Tensor) Close() error {
	if t != nil {
		t.h.Close()
		drainPins()
	}
	return nil
}

// Use gives the handle for calls of package cgo. It stays valid until the release function runs. For
// packages that call cgo themselves.
func (t *Tensor) Use() (raw cgo.Tensor, release func(), err error) {
	if t == nil {
		return cgo.Tensor{}, nil, fmt.Errorf("tensor: %w: got nil", ErrInvalidArgument)
	}
	raw, ok := t.h.Acquire()
	if !ok {
		return cgo.Tensor{}, nil, fmt.Errorf("tensor: %w", ErrClosed)
	}
	return raw, t.h.Release, nil
}

func (t *Tensor) acquire(op string) (cgo.Tensor, error) {
	if t == nil {
		return cgo.Tensor{}, fmt.Errorf("%s: %w: got a nil tensor", op, ErrInvalidArgument)
	}
	raw, ok := t.h.Acquire()
	if !ok {
		return cgo.Tensor{}, fmt.Errorf("%s: tensor: %w", op, ErrClosed)
	}
	return raw, nil
}

// meta fills m. The zero Meta with an error for a closed tensor.
func (t *Tensor) meta(op string, m *cgo.Meta) error {
	raw, err := t.acquire(op)
	if err != nil {
		return err
	}
	defer t.h.Release()
	if err := cgo.TensorMeta(raw, m); err != nil {
		return WrapStatus(op, err)
	}
	if !m.Defined {
		return fmt.Errorf("%s: %w: got an undefined tensor", op, ErrValue)
	}
	return nil
}

// Shape is the sizes. Nil for a closed tensor; empty and not nil for one of no dimensions.
func (t *Tensor) Shape() []int64 {
	var m cgo.Meta
	if t.meta("shape", &m) != nil {
		return nil
	}
	return append(make([]int64, 0, m.NDim), m.Sizes[:m.NDim]...)
}

// Strides is the strides in elements. Nil for a closed tensor.
func (t *Tensor) Strides() []int64 {
	var m cgo.Meta
	if t.meta("strides", &m) != nil {
		return nil
	}
	return append(make([]int64, 0, m.NDim), m.Strides[:m.NDim]...)
}

// Size is the size of one dimension, counted from the end where dim is negative; -1 where there is none.
func (t *Tensor) Size(dim int) int64 {
	s := t.Shape()
	if dim < 0 {
		dim += len(s)
	}
	if dim < 0 || dim >= len(s) {
		return -1
	}
	return s[dim]
}

// Dim is the number of dimensions; -1 for a closed tensor.
func (t *Tensor) Dim() int {
	var m cgo.Meta
	if t.meta("dim", &m) != nil {
		return -1
	}
	return int(m.NDim)
}

// NumEl is the number of elements; -1 for a closed tensor.
func (t *Tensor) NumEl() int64 {
	var m cgo.Meta
	if t.meta("numel", &m) != nil {
		return -1
	}
	return m.NumEl
}

// DType is the element type; InvalidDType for a closed tensor.
func (t *Tensor) DType() DType {
	var m cgo.Meta
	if t.meta("dtype", &m) != nil {
		return InvalidDType
	}
	return DType(m.DType)
}

// Device is where the tensor lives; the CPU for a closed tensor.
func (t *Tensor) Device() Device {
	var m cgo.Meta
	if t.meta("device", &m) != nil {
		return CPU
	}
	return deviceOf(m.DeviceType, m.DeviceIndex)
}

// IsContiguous is Tensor.is_contiguous.
func (t *Tensor) IsContiguous() bool {
	var m cgo.Meta
	return t.meta("is_contiguous", &m) == nil && m.Contiguous
}

// RequiresGrad is Tensor.requires_grad.
func (t *Tensor) RequiresGrad() bool {
	var m cgo.Meta
	return t.meta("requires_grad", &m) == nil && m.RequiresGrad
}

// IsInference is Tensor.is_inference: made in inference mode, so autograd will never take it.
func (t *Tensor) IsInference() bool {
	var m cgo.Meta
	return t.meta("is_inference", &m) == nil && m.Inference
}

// DataPtr is the address of the first element: Tensor.data_ptr. 0 where there is no strided memory.
// For comparing; use WithData to read.
func (t *Tensor) DataPtr() uintptr {
	var m cgo.Meta
	if t.meta("data_ptr", &m) != nil {
		return 0
	}
	return uintptr(m.Data)
}

// Alias is a second owner of the same tensor, to be closed on its own.
func (t *Tensor) Alias() (*Tensor, error) {
	raw, err := t.acquire("alias")
	if err != nil {
		return nil, err
	}
	defer t.h.Release()
	out, err := cgo.TensorAlias(raw)
	if err != nil {
		return nil, WrapStatus("alias", err)
	}
	return newTensor(out, t.size), nil
}

// heavy is the number of elements from which libtorch opens a parallel region: at::internal::GRAIN_SIZE.
const heavy = 32768

// onLane runs the call on a lane where the tensor is large, else on the calling thread.
func (t *Tensor) onLane(ctx context.Context, op string, call func(raw cgo.Tensor, mode cgo.Mode) (cgo.Tensor, error)) (*Tensor, error) {
	raw, err := t.acquire(op)
	if err != nil {
		return nil, err
	}
	defer t.h.Release()
	mode, done, err := place(ctx, CallOptions{Mode: NoGrad}, t.size > heavy)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	defer done()
	out, err := call(raw, mode)
	if err != nil {
		return nil, WrapStatus(op, err)
	}
	return newTensor(out, t.size), nil
}

// To is Tensor.to(device). The result is a new owner, of the same memory where nothing changes.
func (t *Tensor) To(device Device) (*Tensor, error) { return t.to(device, false) }

// ToNonBlocking is Tensor.to(device, non_blocking=True): from page-locked memory (TensorOptions.PinMemory) to a CUDA
// device it returns before the copy is done. Work on the result waits for it; t can be closed, and must not be written
// to until Synchronize. Elsewhere it is To, except that a copy from a CUDA device may not be there yet either.
func (t *Tensor) ToNonBlocking(device Device) (*Tensor, error) { return t.to(device, true) }

func (t *Tensor) to(device Device, nonBlocking bool) (*Tensor, error) {
	kind, index, err := device.Codes()
	if err != nil {
		return nil, fmt.Errorf("to: %w", err)
	}
	return t.onLane(context.Background(), "to", func(raw cgo.Tensor, mode cgo.Mode) (cgo.Tensor, error) {
		return cgo.TensorTo(raw, 0, kind, index, nonBlocking, false, mode)
	})
}

// CastTo is Tensor.to(dtype). The result is a new owner, of the same memory where nothing changes.
func (t *Tensor) CastTo(dtype DType) (*Tensor, error) {
	if dtype == InvalidDType { // which would leave it as it is
		return nil, fmt.Errorf("to: %w: got %s", ErrDType, dtype)
	}
	return t.onLane(context.Background(), "to "+dtype.String(), func(raw cgo.Tensor, mode cgo.Mode) (cgo.Tensor, error) {
		return cgo.TensorTo(raw, int32(dtype), -1, 0, false, false, mode)
	})
}

// Contiguous is Tensor.contiguous: a new owner, of the same memory where it is contiguous already.
func (t *Tensor) Contiguous() (*Tensor, error) {
	return t.onLane(context.Background(), "contiguous", cgo.TensorContiguous)
}

// Clone is Tensor.clone: a copy.
func (t *Tensor) Clone() (*Tensor, error) {
	return t.onLane(context.Background(), "clone", cgo.TensorClone)
}

// CopyFrom is Tensor.copy_ without broadcasting: src's values into t, which keeps its dtype and device.
func (t *Tensor) CopyFrom(src *Tensor) error {
	raw, err := t.acquire("copy")
	if err != nil {
		return err
	}
	defer t.h.Release()
	from, err := src.acquire("copy")
	if err != nil {
		return err
	}
	defer src.h.Release()
	mode, done, err := place(context.Background(), CallOptions{Mode: NoGrad}, t.size > heavy)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	defer done()
	return WrapStatus("copy", cgo.TensorCopy(raw, from, false, mode))
}

// Equal is torch.equal: the same shape, and every element equal (NaN equals nothing).
func Equal(a, b *Tensor) (bool, error) {
	x, err := a.acquire("equal")
	if err != nil {
		return false, err
	}
	defer a.h.Release()
	y, err := b.acquire("equal")
	if err != nil {
		return false, err
	}
	defer b.h.Release()
	if !slices.Equal(a.Shape(), b.Shape()) {
		return false, nil
	}
	mode, done, err := place(context.Background(), CallOptions{Mode: NoGrad}, a.size > heavy)
	if err != nil {
		return false, fmt.Errorf("equal: %w", err)
	}
	defer done()
	same, err := cgo.TensorEqual(x, y, mode)
	return same, WrapStatus("equal", err)
}

// LogValue logs a tensor as its shape, dtype and device.
func (t *Tensor) LogValue() slog.Value {
	var m cgo.Meta
	if err := t.meta("log", &m); err != nil {
		return slog.StringValue(err.Error())
	}
	return slog.GroupValue(
		slog.String("shape", fmt.Sprint(m.Sizes[:m.NDim])),
		slog.String("dtype", DType(m.DType).String()),
		slog.String("device", deviceOf(m.DeviceType, m.DeviceIndex).String()))
}
