//go:build cgo

package cgo

/*
#include "calls.h"

#cgo noescape tv_cuda_device_count
#cgo nocallback tv_cuda_device_count
#cgo noescape tv_cuda_synchronize
#cgo nocallback tv_cuda_synchronize
#cgo noescape tv_cuda_memory_stats
#cgo nocallback tv_cuda_memory_stats
#cgo noescape tv_cuda_empty_cache
#cgo nocallback tv_cuda_empty_cache
#cgo noescape tv_cuda_device_name
#cgo nocallback tv_cuda_device_name
#cgo noescape tv_cuda_graph_capture
#cgo nocallback tv_cuda_graph_capture
#cgo noescape tv_cuda_graph_replay
#cgo nocallback tv_cuda_graph_replay
#cgo noescape tv_cuda_graph_free
#cgo nocallback tv_cuda_graph_free
*/
import "C"

import "unsafe"

var errNoCUDA = &Status{Code: Device, Message: "CUDA: got a process that did not load libtorch_cuda, want Config.Device \"cuda\" before the first call"}

// CUDALoaded reports whether the CUDA side library is loaded.
func CUDALoaded() bool { return cudaLoaded.Load() }

// CUDADeviceCount wraps tv_cuda_device_count.
func CUDADeviceCount() (int, error) {
	if !CUDALoaded() {
		return 0, errNoCUDA
	}
	var n C.int32_t
	err := check(C.tv_cuda_device_count(&n))
	return int(n), err
}

// CUDASynchronize wraps tv_cuda_synchronize.
func CUDASynchronize(device int) error {
	if !CUDALoaded() {
		return errNoCUDA
	}
	return check(C.tv_cuda_synchronize(C.int32_t(device)))
}

// CUDAMemoryStats wraps tv_cuda_memory_stats: bytes allocated now and at peak, reserved now and at peak.
func CUDAMemoryStats(device int) ([4]int64, error) {
	if !CUDALoaded() {
		return [4]int64{}, errNoCUDA
	}
	var n [4]C.int64_t
	err := check(C.tv_cuda_memory_stats(C.int32_t(device), &n[0]))
	return [4]int64{int64(n[0]), int64(n[1]), int64(n[2]), int64(n[3])}, err
}

// CUDAEmptyCache wraps tv_cuda_empty_cache.
func CUDAEmptyCache() error {
	if !CUDALoaded() {
		return errNoCUDA
	}
	return check(C.tv_cuda_empty_cache())
}

// CUDADeviceName wraps tv_cuda_device_name.
func CUDADeviceName(device int) (string, error) {
	if !CUDALoaded() {
		return "", errNoCUDA
	}
	var b *C.tv_buffer
	if err := check(C.tv_cuda_device_name(C.int32_t(device), &b)); err != nil {
		return "", err
	}
	return string(takeBuffer(b)), nil
}

// CUDAGraphCapture wraps tv_cuda_graph_capture. A result of one plain node is in out and more is nil; recording says
// whether it is the recording that failed.
func CUDAGraphCapture(m Module, method int32, input Tensor, warmup int, mode Mode, out *Node) (g CUDAGraph, more Values, recording bool, err error) {
	if !CUDALoaded() {
		return g, more, false, errNoCUDA
	}
	var p *C.tv_cuda_graph
	var v *C.tv_values
	var r C.int32_t
	st := C.tv_cuda_graph_capture(m.c(), C.int32_t(method), input.c(), C.int32_t(warmup), mode.c(), &p, (*C.tv_node)(unsafe.Pointer(out)), &v, &r)
	more, err = newValues(v, st)
	return CUDAGraph{unsafe.Pointer(p)}, more, r != 0, err
}

// CUDAGraphReplay wraps tv_cuda_graph_replay.
func CUDAGraphReplay(g CUDAGraph, input Tensor, mode Mode) error {
	if !CUDALoaded() {
		return errNoCUDA
	}
	return check(C.tv_cuda_graph_replay((*C.tv_cuda_graph)(g.p), input.c(), mode.c()))
}

// CUDAGraphFree wraps tv_cuda_graph_free.
func CUDAGraphFree(g CUDAGraph) {
	if CUDALoaded() && g.p != nil {
		C.tv_cuda_graph_free((*C.tv_cuda_graph)(g.p))
	}
}
