package cgo

import (
	"embed"
	"fmt"
	"io/fs"
	"structs"
	"unsafe"
)

//go:embed shim/*.h shim/*.cc
var sources embed.FS

// Sources gives the C++ sources of the shim, which `torchvit setup` compiles against the libtorch that
// it finds.
func Sources() fs.FS {
	sub, err := fs.Sub(sources, "shim")
	if err != nil { // cannot be: the path is a constant
		return sources
	}
	return sub
}

// Handles to objects of the shim. The zero value is no object.
type (
	// Tensor is a tv_tensor*, freed with TensorFree.
	Tensor struct{ p unsafe.Pointer }
	// Values is a tv_values*, freed with ValuesFree.
	Values struct{ p unsafe.Pointer }
	// Module is a tv_module*, freed with ModuleFree.
	Module struct{ p unsafe.Pointer }
	// Optimizer is a tv_optimizer*, freed with OptimizerFree.
	Optimizer struct{ p unsafe.Pointer }
	// CUDAGraph is a tv_cuda_graph*, freed with CUDAGraphFree.
	CUDAGraph struct{ p unsafe.Pointer }
	// Operator is a tv_operator*, which lives as long as the process.
	Operator struct{ p unsafe.Pointer }
)

// IsNil reports whether there is no object.
func (t Tensor) IsNil() bool { return t.p == nil }

// IsNil reports whether there is no object.
func (v Values) IsNil() bool { return v.p == nil }

// IsNil reports whether there is no object.
func (m Module) IsNil() bool { return m.p == nil }

// Code says what kind of failure a Status is.
type Code int32

// The codes of shim.h, and NotLoaded for a call before Open.
const (
	InvalidArgument Code = 1 + iota
	Shape
	DType
	Device
	OutOfMemory
	IO
	NotFound
	Value
	Unsupported
	Script
	Runtime
	Autograd
	NotLoaded
)

// Status is the error of every call: one line in Message, libtorch's full text in Detail.
type Status struct {
	Code    Code
	Message string
	Detail  string
}

func (s *Status) Error() string { return s.Message }

// Kinds of a Node: the kinds of TorchScript's values that have a place in Go.
const (
	KindNone int32 = iota
	KindTensor
	KindBool
	KindInt
	KindFloat
	KindString
	KindTuple
	KindList
	KindDict
)

// Node is tv_node: one node of a value in pre-order.
type Node struct {
	_      structs.HostLayout
	Kind   int32
	Count  int32
	I      int64
	F      float64
	Tensor Tensor
}

// Kinds of an optimizer.
const (
	SGD int32 = iota
	Adam
	AdamW
)

// Group is tv_group: what one step does to the next Count parameters.
type Group struct {
	_                        structs.HostLayout
	Count                    int64
	LR, WeightDecay          float64
	Momentum, Dampening      float64
	Beta1, Beta2, Eps        float64
	Nesterov, AMSGrad, Fused bool
}

// Modes of a call.
const (
	ModeInference int32 = iota
	ModeNoGrad
	ModeGrad
)

// Mode is tv_mode: how a call runs and on which lane; lane -1 is the calling thread.
type Mode struct {
	Mode     int32
	Autocast int32
	Lane     int32
}

// MaxDims is the largest number of dimensions of a tensor that crosses.
const MaxDims = 16

// Meta is tv_meta: all metadata of a tensor. DType is c10::ScalarType plus one, 0 for an undefined
// tensor. Data is nil where the tensor has no plain strided memory.
type Meta struct {
	_             structs.HostLayout
	DType         int32
	DeviceType    int32
	DeviceIndex   int32
	NDim          int32
	NumEl         int64
	ItemSize      int64
	StorageOffset int64
	Data          unsafe.Pointer
	Defined       bool
	Contiguous    bool
	RequiresGrad  bool
	Inference     bool
	Strided       bool
	Sizes         [MaxDims]int64
	Strides       [MaxDims]int64
}

// LiveCounts says how many objects of the shim are alive.
type LiveCounts struct {
	Tensors, Values, Modules, Statuses, Pins, Buffers, Optimizers, CUDAGraphs int64
}

// Total is the number of all of them.
func (c LiveCounts) Total() int64 {
	return c.Tensors + c.Values + c.Modules + c.Statuses + c.Pins + c.Buffers + c.Optimizers + c.CUDAGraphs
}

func (c LiveCounts) String() string {
	return fmt.Sprintf("tensors %d, values %d, modules %d, statuses %d, pins %d, buffers %d, optimizers %d, CUDA graphs %d",
		c.Tensors, c.Values, c.Modules, c.Statuses, c.Pins, c.Buffers, c.Optimizers, c.CUDAGraphs)
}

// Libraries are the files that Open opens, as `torchvit setup` recorded them.
type Libraries struct {
	// LibDir is torch's lib folder, with libc10.so and libtorch_cpu.so.
	LibDir string
	// Shim and ShimCUDA are the compiled shim and its CUDA side library ("" for none).
	Shim, ShimCUDA string
	// First are libraries to open before libtorch, such as the one that opens MKL's fast path.
	First []string
	// Stubs stand in for the CUDA libraries that libraries of operators name as dependencies.
	Stubs []string
	// Operators are libraries of operators, such as torchvision's. One that does not open is reported
	// by Open's second result and is no failure.
	Operators []string
	// CUDA opens libtorch_cuda. Final for the process.
	CUDA bool
}
