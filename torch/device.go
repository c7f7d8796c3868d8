package torch

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/torchvit/torchvit/cgo"
)

// Device is torch.device: where a tensor lives. The zero value is the CPU.
type Device struct {
	// Type is "" or "cpu", or "cuda".
	Type string
	// Index is the number of the CUDA device, from 0.
	Index int
}

// CPU is the device of ordinary memory.
var CPU = Device{}

// NewDevice reads "cpu", "cuda" or "cuda:1". It does not ask whether the device is there.
func NewDevice(name string) (Device, error) {
	kind, index, indexed := strings.Cut(name, ":")
	n := 0
	if indexed {
		var err error
		if n, err = strconv.Atoi(index); err != nil || n < 0 || n > 127 {
			return Device{}, fmt.Errorf("%w: got %q, want cpu, cuda or cuda:N", ErrDevice, name)
		}
	}
	switch {
	case kind == "cuda":
		return Device{Type: "cuda", Index: n}, nil
	case kind == "cpu" && n == 0:
		return Device{}, nil
	}
	return Device{}, fmt.Errorf("%w: got %q, want cpu, cuda or cuda:N", ErrDevice, name)
}

// IsCUDA reports whether the device is a CUDA device.
func (d Device) IsCUDA() bool { return d.Type == "cuda" }

// String is the name as PyTorch writes it.
func (d Device) String() string {
	if d.IsCUDA() {
		return "cuda:" + strconv.Itoa(d.Index)
	}
	return "cpu"
}

// Codes gives c10::DeviceType and index, and an error where this process cannot reach the device. For
// packages that wrap the shim.
func (d Device) Codes() (kind, index int32, err error) {
	switch d.Type {
	case "", "cpu":
		return 0, 0, nil
	case "cuda":
		if err := ensure(); err != nil {
			return 0, 0, err
		}
		if !cgo.CUDALoaded() {
			return 0, 0, fmt.Errorf("device %s: %w: this process loaded libtorch for the CPU; set torch.Config.Device to \"cuda\" before the first use", d, ErrCUDANotLoaded)
		}
		n, err := cgo.CUDADeviceCount()
		if err != nil {
			return 0, 0, WrapStatus("device "+d.String(), err)
		}
		if d.Index >= n {
			return 0, 0, fmt.Errorf("%w: got %s, want one of %d CUDA devices", ErrDevice, d, n)
		}
		return 1, int32(d.Index), nil
	}
	return 0, 0, fmt.Errorf("%w: got %q, want cpu or cuda", ErrDevice, d.Type)
}

// IsCUDAAvailable is torch.cuda.is_available: CUDA is loaded and there is a device.
func IsCUDAAvailable() bool {
	if ensure() != nil || !cgo.CUDALoaded() {
		return false
	}
	n, err := cgo.CUDADeviceCount()
	return err == nil && n > 0
}

// CUDADeviceCount is torch.cuda.device_count.
func CUDADeviceCount() (int, error) {
	if err := ensure(); err != nil {
		return 0, err
	}
	n, err := cgo.CUDADeviceCount()
	return n, WrapStatus("cuda device count", err)
}

// Synchronize is torch.cuda.synchronize: it waits for all work on the device. Nothing to do on the CPU.
func Synchronize(d Device) error {
	if !d.IsCUDA() {
		return nil
	}
	if _, _, err := d.Codes(); err != nil {
		return err
	}
	return WrapStatus("synchronize", cgo.CUDASynchronize(d.Index))
}

// CUDAMemory is the caching allocator's account of a device, in bytes: torch.cuda.memory_stats.
type CUDAMemory struct {
	Allocated, PeakAllocated, Reserved, PeakReserved int64
}

// CUDAMemoryStats asks the caching allocator.
func CUDAMemoryStats(d Device) (CUDAMemory, error) {
	if _, _, err := d.Codes(); err != nil {
		return CUDAMemory{}, err
	}
	s, err := cgo.CUDAMemoryStats(d.Index)
	return CUDAMemory{s[0], s[1], s[2], s[3]}, WrapStatus("cuda memory stats", err)
}

// CUDAEmptyCache is torch.cuda.empty_cache.
func CUDAEmptyCache() error {
	if err := ensure(); err != nil {
		return err
	}
	return WrapStatus("cuda empty cache", cgo.CUDAEmptyCache())
}

func deviceOf(kind, index int32) Device {
	if kind == 1 {
		return Device{Type: "cuda", Index: int(index)}
	}
	if kind == 0 {
		return Device{}
	}
	return Device{Type: fmt.Sprintf("device type %d", kind), Index: int(index)}
}
