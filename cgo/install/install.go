package install

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Environment variables that the package reads.
const (
	// EnvLibTorch names a torch package folder, a libtorch folder, or a folder
	// that setup wrote with Options.Output.
	EnvLibTorch = "TORCHVIT_LIBTORCH"
	// EnvCache replaces the folder that holds compiled shims and the record.
	EnvCache = "TORCHVIT_CACHE"
	// EnvKeepObjects, when not empty, keeps the precompiled header and the
	// object files in the cache (some 500 MB), for those who edit the shim.
	EnvKeepObjects = "TORCHVIT_KEEP_OBJECTS"
)

// ErrNotInstalled says that no compiled shim is there for this program. It
// comes wrapped with what to type.
var ErrNotInstalled = errors.New("libtorch is not set up")

// ErrNotFound says that no libtorch was found.
var ErrNotFound = errors.New("no libtorch found")

// HowTo is the command that mends an ErrNotInstalled.
const HowTo = "run `torchvit setup` (in a module of yours: `go get -tool github.com/torchvit/torchvit/cmd/torchvit && go tool torchvit setup`)"

// Options say where to look and how to compile. The zero value searches the
// machine and uses the user's cache folder.
type Options struct {
	// LibTorch is a torch package folder, a libtorch folder, a virtual
	// environment, or (for Resolve) a folder that Setup wrote. Nothing else is
	// searched when it is given.
	LibTorch string
	// Python is an interpreter whose site-packages are searched first.
	Python string
	// Compiler is a C++ compiler; the default is $CXX, then g++, clang++, c++.
	Compiler string
	// Output is a folder to write that holds all of the CPU plan, for a
	// container image; the record is then left alone.
	Output string
	// Force compiles even where a compiled shim is kept.
	Force bool
	// ASan compiles the shim with AddressSanitizer, for `go test -asan`.
	ASan bool
	// CacheDir replaces $TORCHVIT_CACHE and the user's cache folder.
	CacheDir string
	// Log gets one line for each step; nil is silent.
	Log io.Writer
}

// LibTorch is one libtorch on this machine. All paths are absolute.
type LibTorch struct {
	// Root is the torch package or libtorch folder.
	Root string `json:"root"`
	// Version is torch's own, such as "2.15.0+cu132".
	Version string `json:"version"`
	// LibDir holds libtorch_cpu.so.
	LibDir      string   `json:"lib_dir"`
	IncludeDirs []string `json:"include_dirs,omitempty"`
	// CUDAVersion is the CUDA that torch was built with, "" for none.
	CUDAVersion string `json:"cuda_version,omitempty"`
	CXX11ABI    bool   `json:"cxx11_abi"`
	// CXXStandard is what its headers need: 20 from torch 2.13, 17 before.
	CXXStandard int `json:"cxx_standard"`
	// OpenMP is the OpenMP runtime that libtorch_cpu.so names as a dependency,
	// "" where the system's loader has to find it.
	OpenMP string `json:"openmp,omitempty"`
	// Source is where it was found: option, env, venv, python3, system, record.
	Source string `json:"source"`
	// TorchvisionVersion, TorchvisionOps and TorchvisionImage are those of the
	// torchvision beside torch, "" where there is none.
	TorchvisionVersion string   `json:"torchvision_version,omitempty"`
	TorchvisionOps     string   `json:"torchvision_ops,omitempty"`
	TorchvisionImage   string   `json:"torchvision_image,omitempty"`
	CUDAIncludeDirs    []string `json:"cuda_include_dirs,omitempty"`
	// CUDALibDirs hold the CUDA libraries of the wheels.
	CUDALibDirs []string `json:"cuda_lib_dirs,omitempty"`
}

// Install is a compiled shim and the libtorch that it was compiled for.
type Install struct {
	LibTorch LibTorch `json:"libtorch"`
	// Dir holds the files below.
	Dir  string `json:"dir"`
	Shim string `json:"shim"`
	// ShimCUDA is "" where torch has no CUDA or its headers are missing.
	ShimCUDA string `json:"shim_cuda,omitempty"`
	// MKLFast exports mkl_serv_intel_cpu_true; opened before libtorch it gives
	// MKL's AVX-512 path on AMD processors.
	MKLFast string `json:"mkl_fast"`
	// StubDir holds Stubs: libraries to open before torchvision's, on the CPU
	// plan only (RTLD_LOCAL is enough). They bear the names of libraries of
	// CUDA and Python that torchvision's CPU operators do not use.
	StubDir string   `json:"stub_dir"`
	Stubs   []string `json:"stubs"`
	// Key is the folder's name in the cache.
	Key string `json:"key"`
	// Sources is the hash of the shim's sources.
	Sources  string    `json:"sources"`
	ASan     bool      `json:"asan"`
	Compiler string    `json:"compiler"`
	BuiltAt  time.Time `json:"built_at"`
	// Sizes holds the size of each file that the install needs, so that a
	// replaced libtorch or a damaged cache is seen before it is opened.
	Sizes map[string]int64 `json:"sizes"`
	// Portable marks a folder written with Options.Output.
	Portable bool `json:"portable,omitempty"`
}

// Error is a failed set-up: one line for a person, and the tool's output.
type Error struct {
	// Step is what failed, such as "compiling tensor.cc".
	Step string
	// Reason is one line.
	Reason string
	// Detail is the whole output of the compiler or linker, "" where none ran.
	Detail string
	Err    error
}

func (e *Error) Error() string { return "setup: " + e.Step + ": " + e.Reason }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Format prints the detail too with %+v.
func (e *Error) Format(s fmt.State, verb rune) {
	_, _ = io.WriteString(s, e.Error())
	if verb == 'v' && s.Flag('+') && e.Detail != "" {
		_, _ = io.WriteString(s, "\n"+e.Detail)
	}
}

// cacheDir is the folder that holds compiled shims and the record.
func (o *Options) cacheDir() (string, error) {
	dir := o.CacheDir
	if dir == "" {
		dir = os.Getenv(EnvCache)
	}
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("no cache folder: %w: set %s to a folder", err, EnvCache)
		}
		dir = filepath.Join(base, "torchvit")
	}
	return filepath.Abs(dir)
}

func (o *Options) logf(format string, args ...any) {
	if o.Log != nil {
		fmt.Fprintf(o.Log, format+"\n", args...)
	}
}

// oneLine is the first line of s that is not empty.
func oneLine(s string) string {
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			return line
		}
	}
	return ""
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
