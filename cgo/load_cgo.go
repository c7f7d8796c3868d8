//go:build cgo

package cgo

/*
#cgo linux LDFLAGS: -ldl
#cgo CFLAGS: -Wall -Wextra -Werror
#include <dlfcn.h>
#include <stdlib.h>
#include "calls.h"

#cgo noescape tv_status_read
#cgo nocallback tv_status_read
#cgo noescape tv_status_free
#cgo nocallback tv_status_free
#cgo noescape tv_buffer_read
#cgo nocallback tv_buffer_read
#cgo noescape tv_buffer_free
#cgo nocallback tv_buffer_free
#cgo noescape tv_build_info
#cgo nocallback tv_build_info
#cgo noescape tv_live_counts
#cgo nocallback tv_live_counts
#cgo noescape tv_pins_drain
#cgo nocallback tv_pins_drain
#cgo noescape tv_manual_seed
#cgo nocallback tv_manual_seed
#cgo noescape tv_set_flags
#cgo nocallback tv_set_flags
#cgo noescape tv_set_executor
#cgo nocallback tv_set_executor
#cgo noescape tv_library_load
#cgo nocallback tv_library_load
#cgo noescape tv_lanes_start
#cgo nocallback tv_lanes_start
#cgo noescape tv_trim_memory
#cgo nocallback tv_trim_memory
#cgo noescape tv_lane_threads
#cgo nocallback tv_lane_threads
*/
import "C"

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"unsafe"
)

// pending points at the shim's count of pins that wait to be drained.
var pending atomic.Pointer[int64]

// Open opens libtorch and the shim and resolves every function. It runs once per process; what it
// opened stays. notes holds a line for each library of operators that did not open.
func Open(l Libraries) (notes []string, err error) {
	for _, first := range l.First {
		if _, err := open(first, C.RTLD_NOW|C.RTLD_GLOBAL); err != nil {
			return nil, err
		}
	}
	names := []string{"libc10.so", "libtorch_cpu.so"}
	if l.CUDA {
		// Before the first ATen call: ATen keeps the CUDA hooks that it finds then.
		names = append(names, "libc10_cuda.so", "libtorch_cuda.so", "libtorch.so")
	}
	for _, name := range names {
		if _, err := open(filepath.Join(l.LibDir, name), C.RTLD_NOW|C.RTLD_GLOBAL); err != nil {
			return nil, err
		}
	}
	if !l.CUDA {
		for _, stub := range l.Stubs {
			if _, err := open(stub, C.RTLD_NOW|C.RTLD_GLOBAL); err != nil {
				return nil, err
			}
		}
	}
	shim, err := open(l.Shim, C.RTLD_NOW|C.RTLD_LOCAL)
	if err != nil {
		return nil, err
	}
	if missing := C.tvgo_resolve(shim); missing != nil {
		return nil, &Status{Code: NotLoaded, Message: fmt.Sprintf(
			"shim %s: got no function %s, want one built from this version's sources: run `torchvit setup`", l.Shim, C.GoString(missing))}
	}
	if got := uint64(C.tv_abi_hash()); got != C.TV_ABI_HASH {
		return nil, &Status{Code: NotLoaded, Message: fmt.Sprintf(
			"shim %s: got interface %016x, want %016x: run `torchvit setup`", l.Shim, got, uint64(C.TV_ABI_HASH))}
	}
	if l.CUDA {
		if l.ShimCUDA == "" {
			notes = append(notes, "the CUDA side library was not built")
		} else if side, err := open(l.ShimCUDA, C.RTLD_NOW|C.RTLD_LOCAL); err != nil {
			return nil, err
		} else if missing := C.tvgo_resolve_cuda(side); missing != nil {
			return nil, &Status{Code: NotLoaded, Message: fmt.Sprintf("CUDA side library %s: got no function %s: run `torchvit setup`", l.ShimCUDA, C.GoString(missing))}
		} else {
			cudaLoaded.Store(true)
		}
	}
	for _, path := range l.Operators {
		if err := LibraryLoad(path); err != nil {
			notes = append(notes, err.Error())
		}
	}
	pending.Store((*int64)(unsafe.Pointer(C.tv_pins_pending())))
	return notes, nil
}

// cudaLoaded says whether the functions of cuda_shim.h may be called.
var cudaLoaded atomic.Bool

func open(path string, flags C.int) (unsafe.Pointer, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	handle := C.dlopen(name, flags)
	if handle == nil {
		return nil, &Status{Code: NotLoaded, Message: "open library: " + C.GoString(C.dlerror())}
	}
	return handle, nil
}

// Loaded reports whether Open succeeded.
func Loaded() bool { return pending.Load() != nil }

// check turns a status into an error and frees it. A nil status costs one comparison.
func check(s *C.tv_status) error {
	if s == nil {
		return nil
	}
	return takeStatus(s)
}

func takeStatus(s *C.tv_status) error {
	var code C.int32_t
	var message, detail *C.char
	var messageLen, detailLen C.int64_t
	C.tv_status_read(s, &code, &message, &messageLen, &detail, &detailLen)
	err := &Status{
		Code:    Code(code),
		Message: C.GoStringN(message, C.int(messageLen)),
		Detail:  C.GoStringN(detail, C.int(detailLen)),
	}
	C.tv_status_free(s)
	return err
}

// str gives a Go string's bytes and length. C never keeps them.
func str(s string) (*C.char, C.int64_t) {
	return (*C.char)(unsafe.Pointer(unsafe.StringData(s))), C.int64_t(len(s))
}

func takeBuffer(b *C.tv_buffer) []byte {
	var data unsafe.Pointer
	var n C.int64_t
	C.tv_buffer_read(b, &data, &n)
	out := make([]byte, n)
	copy(out, unsafe.Slice((*byte)(data), n))
	C.tv_buffer_free(b)
	return out
}

// BuildInfo wraps tv_build_info: JSON with torch, config, cpu_capability, parallel and cuda.
func BuildInfo() ([]byte, error) {
	var b *C.tv_buffer
	if err := check(C.tv_build_info(&b)); err != nil {
		return nil, err
	}
	return takeBuffer(b), nil
}

// Live wraps tv_live_counts.
func Live() LiveCounts {
	var n [8]C.int64_t
	if Loaded() {
		C.tv_live_counts(&n[0])
	}
	return LiveCounts{int64(n[0]), int64(n[1]), int64(n[2]), int64(n[3]), int64(n[4]), int64(n[5]), int64(n[6]), int64(n[7])}
}

// PinsPending is the number of released pins that wait for PinsDrain. It costs no call.
func PinsPending() int64 {
	p := pending.Load()
	if p == nil {
		return 0
	}
	return atomic.LoadInt64(p)
}

// PinsDrain wraps tv_pins_drain: it fills tokens and gives how many there were.
func PinsDrain(tokens []uint64) int {
	if len(tokens) == 0 {
		return 0
	}
	return int(C.tv_pins_drain((*C.uint64_t)(unsafe.SliceData(tokens)), C.int64_t(len(tokens))))
}

// ManualSeed wraps tv_manual_seed.
func ManualSeed(seed uint64) error { return check(C.tv_manual_seed(C.uint64_t(seed))) }

// SetFlags wraps tv_set_flags: -1 leaves a flag as it is.
func SetFlags(deterministic, tf32MatMul, tf32CuDNN, cuDNNBenchmark int32) error {
	return check(C.tv_set_flags(C.int32_t(deterministic), C.int32_t(tf32MatMul), C.int32_t(tf32CuDNN), C.int32_t(cuDNNBenchmark)))
}

// SetExecutor wraps tv_set_executor: -1 leaves a switch as it is.
func SetExecutor(profiling, optimize int32) error {
	return check(C.tv_set_executor(C.int32_t(profiling), C.int32_t(optimize)))
}

// LibraryLoad wraps tv_library_load.
func LibraryLoad(path string) error {
	p, n := str(path)
	return check(C.tv_library_load(p, n))
}

// LanesStart wraps tv_lanes_start: one lane per entry, with that many intra-op threads.
func LanesStart(intraThreads []int32) error {
	return check(C.tv_lanes_start((*C.int32_t)(unsafe.SliceData(intraThreads)), C.int32_t(len(intraThreads))))
}

// TrimMemory wraps tv_trim_memory.
func TrimMemory() error { return check(C.tv_trim_memory()) }

// LaneThreads wraps tv_lane_threads.
func LaneThreads(lane int32) (int32, error) {
	var n C.int32_t
	err := check(C.tv_lane_threads(C.int32_t(lane), &n))
	return int32(n), err
}

// CanOpen reports whether the dynamic linker finds that library. It stays open.
func CanOpen(name string) bool {
	_, err := open(name, C.RTLD_LAZY|C.RTLD_LOCAL)
	return err == nil
}
