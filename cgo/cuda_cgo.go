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
*/
import "C"

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
