//go:build cgo

package cgo

/*
#include "calls.h"

// tv_tensor_from_blob keeps the memory it is given, so it has no noescape.
#cgo nocallback tv_tensor_from_blob
#cgo noescape tv_tensor_empty
#cgo nocallback tv_tensor_empty
#cgo noescape tv_tensor_free
#cgo nocallback tv_tensor_free
#cgo noescape tv_tensor_meta
#cgo nocallback tv_tensor_meta
#cgo noescape tv_tensor_alias
#cgo nocallback tv_tensor_alias
#cgo noescape tv_tensor_to
#cgo nocallback tv_tensor_to
#cgo noescape tv_tensor_contiguous
#cgo nocallback tv_tensor_contiguous
#cgo noescape tv_tensor_clone
#cgo nocallback tv_tensor_clone
#cgo noescape tv_tensor_equal
#cgo nocallback tv_tensor_equal
#cgo noescape tv_tensor_copy
#cgo nocallback tv_tensor_copy
#cgo noescape tv_tensor_to_dlpack
#cgo nocallback tv_tensor_to_dlpack
#cgo noescape tv_tensor_from_dlpack
#cgo nocallback tv_tensor_from_dlpack
#cgo noescape tv_dlpack_free
#cgo nocallback tv_dlpack_free

*/
import "C"

import "unsafe"

// The Go mirrors are as large as the C structs; a difference does not compile.
var (
	_ [unsafe.Sizeof(C.tv_meta{}) - unsafe.Sizeof(Meta{})]byte
	_ [unsafe.Sizeof(Meta{}) - unsafe.Sizeof(C.tv_meta{})]byte
	_ [unsafe.Sizeof(C.tv_node{}) - unsafe.Sizeof(Node{})]byte
	_ [unsafe.Sizeof(Node{}) - unsafe.Sizeof(C.tv_node{})]byte
)

func (t Tensor) c() *C.tv_tensor { return (*C.tv_tensor)(t.p) }

func (m Mode) c() C.tv_mode {
	return C.tv_mode{mode: C.int32_t(m.Mode), autocast: C.int32_t(m.Autocast), lane: C.int32_t(m.Lane)}
}

func sizes(s []int64) (*C.int64_t, C.int32_t) {
	return (*C.int64_t)(unsafe.SliceData(s)), C.int32_t(len(s))
}

func newTensor(t *C.tv_tensor, s *C.tv_status) (Tensor, error) {
	if s != nil {
		return Tensor{}, takeStatus(s)
	}
	return Tensor{unsafe.Pointer(t)}, nil
}

// TensorFromBlob wraps tv_tensor_from_blob. The caller has pinned data; the token comes back through
// PinsDrain when libtorch drops the memory. strides may be nil.
func TensorFromBlob(data unsafe.Pointer, shape, strides []int64, dtype int32, token uint64) (Tensor, error) {
	var out *C.tv_tensor
	p, n := sizes(shape)
	s, _ := sizes(strides)
	st := C.tv_tensor_from_blob(data, p, s, n, C.int32_t(dtype), C.uint64_t(token), &out)
	return newTensor(out, st)
}

// TensorEmpty wraps tv_tensor_empty. The memory is libtorch's, aligned to 64 bytes.
func TensorEmpty(shape []int64, dtype, deviceType, deviceIndex int32, pinned bool) (Tensor, error) {
	var out *C.tv_tensor
	p, n := sizes(shape)
	st := C.tv_tensor_empty(p, n, C.int32_t(dtype), C.int32_t(deviceType), C.int32_t(deviceIndex), flag(pinned), &out)
	return newTensor(out, st)
}

func flag(b bool) C.int32_t {
	if b {
		return 1
	}
	return 0
}

// TensorFree wraps tv_tensor_free.
func TensorFree(t Tensor) { C.tv_tensor_free(t.c()) }

// TensorMeta wraps tv_tensor_meta.
func TensorMeta(t Tensor, out *Meta) error {
	return check(C.tv_tensor_meta(t.c(), (*C.tv_meta)(unsafe.Pointer(out))))
}

// TensorAlias wraps tv_tensor_alias.
func TensorAlias(t Tensor) (Tensor, error) {
	var out *C.tv_tensor
	st := C.tv_tensor_alias(t.c(), &out)
	return newTensor(out, st)
}

// TensorTo wraps tv_tensor_to; dtype 0 and deviceType -1 leave them as they are.
func TensorTo(t Tensor, dtype, deviceType, deviceIndex int32, nonBlocking, forceCopy bool, mode Mode) (Tensor, error) {
	var out *C.tv_tensor
	st := C.tv_tensor_to(t.c(), C.int32_t(dtype), C.int32_t(deviceType), C.int32_t(deviceIndex), flag(nonBlocking), flag(forceCopy), mode.c(), &out)
	return newTensor(out, st)
}

// TensorContiguous wraps tv_tensor_contiguous.
func TensorContiguous(t Tensor, mode Mode) (Tensor, error) {
	var out *C.tv_tensor
	st := C.tv_tensor_contiguous(t.c(), mode.c(), &out)
	return newTensor(out, st)
}

// TensorClone wraps tv_tensor_clone.
func TensorClone(t Tensor, mode Mode) (Tensor, error) {
	var out *C.tv_tensor
	st := C.tv_tensor_clone(t.c(), mode.c(), &out)
	return newTensor(out, st)
}

// TensorEqual wraps tv_tensor_equal.
func TensorEqual(a, b Tensor, mode Mode) (bool, error) {
	var out C.int32_t
	err := check(C.tv_tensor_equal(a.c(), b.c(), mode.c(), &out))
	return out != 0, err
}

// TensorCopy wraps tv_tensor_copy.
func TensorCopy(dst, src Tensor, nonBlocking bool, mode Mode) error {
	return check(C.tv_tensor_copy(dst.c(), src.c(), flag(nonBlocking), mode.c()))
}

// TensorToDLPack wraps tv_tensor_to_dlpack.
func TensorToDLPack(t Tensor) (unsafe.Pointer, error) {
	var out unsafe.Pointer
	err := check(C.tv_tensor_to_dlpack(t.c(), &out))
	return out, err
}

// TensorFromDLPack wraps tv_tensor_from_dlpack.
func TensorFromDLPack(managed unsafe.Pointer) (Tensor, error) {
	var out *C.tv_tensor
	st := C.tv_tensor_from_dlpack(managed, &out)
	return newTensor(out, st)
}

// DLPackFree wraps tv_dlpack_free.
func DLPackFree(managed unsafe.Pointer) { C.tv_dlpack_free(managed) }
