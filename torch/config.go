package torch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/cgo/install"
)

// Config says how the process uses libtorch. The zero value is the default. It is given once, before
// the first use.
type Config struct {
	// Device is "cpu" or "cuda". Default: cuda where the torch build has it and libcuda.so.1 opens, else
	// cpu. Final for the process: libtorch cannot add CUDA later.
	Device string
	// LibTorch names a torch package, a libtorch folder, or a folder written by `torchvit setup
	// --output`. Default: TORCHVIT_LIBTORCH, else what `torchvit setup` recorded.
	LibTorch string
	// Lanes is the number of forwards that run at once. Default 1.
	Lanes int
	// IntraOpThreads is the number of threads that one forward uses. Default: GOMAXPROCS over Lanes.
	IntraOpThreads int
	// LaneThreads gives each lane its own number of threads, in place of the two above.
	LaneThreads []int
	// MKLFastPath opens MKL's AVX-512 path on processors that are not Intel's. Faster, and the last bits
	// differ from Python's: modules cannot be loaded with PrecisionExact then. It has no effect on an Intel
	// processor, and none on the bits there.
	MKLFastPath bool
	// OMPWaitPolicy is OMP_WAIT_POLICY for libgomp: "passive" or "active". Default: libgomp's own.
	OMPWaitPolicy string
	// OperatorLibraries are further libraries of operators to open after torchvision's.
	OperatorLibraries []string
}

func (c Config) lanes() ([]int32, error) {
	if len(c.LaneThreads) > 0 {
		out := make([]int32, len(c.LaneThreads))
		for i, n := range c.LaneThreads {
			if n < 1 || n > 1024 {
				return nil, fmt.Errorf("%w: Config.LaneThreads[%d]: got %d, want 1 to 1024", ErrInvalidArgument, i, n)
			}
			out[i] = int32(n)
		}
		return out, nil
	}
	lanes := max(c.Lanes, 1)
	threads := c.IntraOpThreads
	if threads == 0 {
		threads = max(1, runtime.GOMAXPROCS(0)/lanes)
	}
	if c.Lanes < 0 || lanes > 1024 || threads < 1 || threads > 1024 {
		return nil, fmt.Errorf("%w: Config: got %d lanes of %d threads, want 1 to 1024 each", ErrInvalidArgument, c.Lanes, c.IntraOpThreads)
	}
	out := make([]int32, lanes)
	for i := range out {
		out[i] = int32(threads)
	}
	return out, nil
}

var (
	loadMutex sync.Mutex
	ready     atomic.Bool
	loadErr   error // of the last try; a later try may succeed
	loaded    runtimeState
)

// runtimeState is what the process decided at load.
type runtimeState struct {
	config  Config
	install *install.Install
	cuda    bool
	notes   []string
	threads []int32
	lanes   *laneStack
	light   chan struct{}
}

// Init opens libtorch with that configuration. Without it the first use opens libtorch with the
// defaults. Once libtorch is open, Init gives ErrConfigured.
func Init(config Config) error {
	loadMutex.Lock()
	defer loadMutex.Unlock()
	if ready.Load() {
		return fmt.Errorf("torch.Init: %w: call it before anything else of this package", ErrConfigured)
	}
	return load(config)
}

// Ensure opens libtorch with the defaults unless it is open. Every function of this package does so.
func Ensure() error { return ensure() }

func ensure() error {
	if ready.Load() {
		return nil
	}
	loadMutex.Lock()
	defer loadMutex.Unlock()
	if ready.Load() {
		return nil
	}
	if loadErr != nil {
		return loadErr
	}
	return load(Config{})
}

// load runs under loadMutex.
func load(config Config) (err error) {
	opening := false
	defer func() {
		// Once libraries were opened a second try would meet a half-open process.
		if err != nil && opening {
			loadErr = err
		}
	}()
	threads, err := config.lanes()
	if err != nil {
		return err
	}
	var wantCUDA, mustCUDA bool
	switch config.Device {
	case "":
		wantCUDA = cgo.CanOpen("libcuda.so.1")
	case "cpu":
	case "cuda":
		wantCUDA, mustCUDA = true, true
	default:
		return fmt.Errorf("%w: Config.Device: got %q, want cpu or cuda", ErrDevice, config.Device)
	}
	found, err := install.Resolve(cgo.Sources(), install.Options{LibTorch: config.LibTorch, ASan: cgo.ASan})
	if err != nil {
		return err
	}
	if mustCUDA && found.LibTorch.CUDAVersion == "" {
		return fmt.Errorf("Config.Device cuda: %w: torch %s at %s was built without CUDA", ErrDevice, found.LibTorch.Version, found.LibTorch.Root)
	}
	if mustCUDA && found.ShimCUDA == "" {
		return fmt.Errorf("Config.Device cuda: %w: the CUDA side library was not built; `torchvit setup` says why", ErrDevice)
	}
	libraries := cgo.Libraries{
		LibDir:   found.LibTorch.LibDir,
		Shim:     found.Shim,
		ShimCUDA: found.ShimCUDA,
		Stubs:    found.Stubs,
		CUDA:     wantCUDA && found.LibTorch.CUDAVersion != "" && found.ShimCUDA != "",
	}
	for _, path := range []string{found.LibTorch.TorchvisionOps, found.LibTorch.TorchvisionImage} {
		if path != "" {
			libraries.Operators = append(libraries.Operators, path)
		}
	}
	libraries.Operators = append(libraries.Operators, config.OperatorLibraries...)
	if config.MKLFastPath && !isIntel() {
		libraries.First = append(libraries.First, found.MKLFast)
	}
	if config.OMPWaitPolicy != "" {
		// libgomp reads it once, when it is loaded, which is below.
		if err := os.Setenv("OMP_WAIT_POLICY", config.OMPWaitPolicy); err != nil {
			return fmt.Errorf("Config.OMPWaitPolicy: %w", err)
		}
	}
	opening = true
	notes, err := cgo.Open(libraries)
	if err != nil {
		return WrapStatus("open libtorch", err)
	}
	if err := cgo.LanesStart(threads); err != nil {
		return WrapStatus("start lanes", err)
	}
	loaded = runtimeState{
		config: config, install: found, cuda: libraries.CUDA, notes: notes, threads: threads,
		lanes: &laneStack{count: make(chan struct{}, len(threads))},
		light: make(chan struct{}, runtime.GOMAXPROCS(0)),
	}
	for lane := len(threads) - 1; lane >= 0; lane-- {
		loaded.lanes.put(int32(lane))
	}
	ready.Store(true)
	return nil
}

// isIntel says whether MKL takes the processor for one of its own.
func isIntel() bool {
	text, _ := os.ReadFile("/proc/cpuinfo")
	return strings.Contains(string(text), "GenuineIntel")
}

// ExactPossible says whether modules of this process can give Python's bits: not where MKL's fast path is open.
func ExactPossible() (bool, error) {
	if err := ensure(); err != nil {
		return false, err
	}
	return !loaded.config.MKLFastPath || isIntel(), nil
}

// Info describes the libtorch of this process.
type Info struct {
	// Version is torch's, such as "2.15.0+cu130".
	Version string `json:"version"`
	// Root is where it lies, Shim the compiled shim.
	Root string `json:"root"`
	Shim string `json:"shim"`
	// CPUCapability is torch.backends.cpu.get_cpu_capability(): the instruction set of its kernels.
	CPUCapability string `json:"cpu_capability"`
	// CUDA says whether libtorch_cuda was loaded.
	CUDA bool `json:"cuda"`
	// LaneThreads is the number of intra-op threads of each lane.
	LaneThreads []int `json:"lane_threads"`
	// Notes tell what could not be loaded and is not needed by everyone, such as torchvision.
	Notes []string `json:"notes,omitempty"`
	// BuildConfig and Parallel are torch.__config__.show() and parallel_info().
	BuildConfig string `json:"build_config"`
	Parallel    string `json:"parallel"`
}

// RuntimeInfo opens libtorch and describes it.
func RuntimeInfo() (Info, error) {
	if err := ensure(); err != nil {
		return Info{}, err
	}
	text, err := cgo.BuildInfo()
	if err != nil {
		return Info{}, WrapStatus("build info", err)
	}
	var build struct {
		Torch      string `json:"torch"`
		Config     string `json:"config"`
		Capability string `json:"cpu_capability"`
		Parallel   string `json:"parallel"`
	}
	if err := json.Unmarshal(text, &build); err != nil {
		return Info{}, fmt.Errorf("build info: %w", err)
	}
	// The headers leave out the build's variant, such as "+cu130".
	version := build.Torch
	if v := loaded.install.LibTorch.Version; strings.HasPrefix(v, version) {
		version = v
	}
	info := Info{
		Version: version, Root: loaded.install.LibTorch.Root, Shim: loaded.install.Shim,
		CPUCapability: build.Capability, CUDA: loaded.cuda, Notes: loaded.notes,
		BuildConfig: build.Config, Parallel: build.Parallel,
	}
	for _, n := range loaded.threads {
		info.LaneThreads = append(info.LaneThreads, int(n))
	}
	return info, nil
}

// LaneThreadCount asks libtorch on that lane how many intra-op threads it uses.
func LaneThreadCount(ctx context.Context, lane int) (int, error) {
	if err := ensure(); err != nil {
		return 0, err
	}
	if lane < 0 || lane >= len(loaded.threads) {
		return 0, fmt.Errorf("%w: lane: got %d, want 0 to %d", ErrInvalidArgument, lane, len(loaded.threads)-1)
	}
	// Lanes come from the channel in any order: take them until this one comes. Two callers at it would
	// wait for each other's lanes.
	laneQuestion.Lock()
	defer laneQuestion.Unlock()
	var others []int32
	defer func() {
		for _, l := range others {
			loaded.lanes.put(l)
		}
	}()
	for {
		l, err := takeLane(ctx)
		if err != nil {
			return 0, err
		}
		others = append(others, l)
		if l == int32(lane) {
			n, err := cgo.LaneThreads(l)
			return int(n), WrapStatus("lane threads", err)
		}
	}
}

var laneQuestion sync.Mutex

// laneStack holds the free lanes. The one that came back last goes out first: it is still awake, and a
// lane that is never needed sleeps.
type laneStack struct {
	count chan struct{} // one for each free lane, and where callers wait
	mu    sync.Mutex
	free  []int32
}

func (s *laneStack) put(lane int32) {
	s.mu.Lock()
	s.free = append(s.free, lane)
	s.mu.Unlock()
	s.count <- struct{}{}
}

// take pops a lane after one was received from count.
func (s *laneStack) take() int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	lane := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return lane
}

func takeLane(ctx context.Context) (int32, error) {
	select {
	case <-loaded.lanes.count:
		return loaded.lanes.take(), nil
	default:
	}
	select {
	case <-loaded.lanes.count:
		return loaded.lanes.take(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("waiting for a lane: %w", ended(ctx))
	}
}

// takeLight waits for a place among the light calls, of which GOMAXPROCS run at once.
func takeLight(ctx context.Context) error {
	select {
	case loaded.light <- struct{}{}:
		return nil
	default:
	}
	select {
	case loaded.light <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for a call: %w", ended(ctx))
	}
}

// ManualSeed is torch.manual_seed.
func ManualSeed(seed uint64) error {
	if err := ensure(); err != nil {
		return err
	}
	return WrapStatus("manual seed", cgo.ManualSeed(seed))
}

// Flags are switches of libtorch's global context. A nil field is left as it is.
type Flags struct {
	// Deterministic is torch.use_deterministic_algorithms.
	Deterministic *bool
	// TF32MatMul is torch.backends.cuda.matmul.allow_tf32, TF32CuDNN torch.backends.cudnn.allow_tf32.
	TF32MatMul, TF32CuDNN *bool
	// CuDNNBenchmark is torch.backends.cudnn.benchmark.
	CuDNNBenchmark *bool
	// ProfilingExecutor and GraphOptimization are switches of the TorchScript executor.
	ProfilingExecutor, GraphOptimization *bool
}

// SetFlags sets them for the whole process.
func SetFlags(f Flags) error {
	if err := ensure(); err != nil {
		return err
	}
	code := func(b *bool) int32 {
		switch {
		case b == nil:
			return -1
		case *b:
			return 1
		}
		return 0
	}
	return WrapStatus("set flags", errors.Join(
		cgo.SetFlags(code(f.Deterministic), code(f.TF32MatMul), code(f.TF32CuDNN), code(f.CuDNNBenchmark)),
		cgo.SetExecutor(code(f.ProfilingExecutor), code(f.GraphOptimization))))
}

// Memory is the account of the process.
type Memory struct {
	// Resident is the resident set in bytes (Linux; 0 elsewhere).
	Resident int64
	// Live counts the shim's objects.
	Live cgo.LiveCounts
}

// MemoryStats reads /proc/self/statm and the shim's counters.
func MemoryStats() Memory {
	drainPins()
	m := Memory{Live: cgo.Live()}
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		var size, resident int64
		if _, err := fmt.Sscan(string(text), &size, &resident); err == nil {
			m.Resident = resident * int64(os.Getpagesize())
		}
	}
	return m
}

// TrimMemory gives memory that was freed back to the system. Without it the process keeps, for the next forward, what
// forwards used, and large tensors are in huge pages: libtorch is opened with glibc's M_MMAP_THRESHOLD and
// M_TRIM_THRESHOLD raised and with PyTorch's THP_MEM_ALLOC_ENABLE, unless the environment sets that, MALLOC_... or
// GLIBC_TUNABLES. For after an unusually large batch; glibc keeps up to 64 MB of each thread's.
func TrimMemory() error {
	if err := ensure(); err != nil {
		return err
	}
	return WrapStatus("trim memory", cgo.TrimMemory())
}

// LoadLibrary opens a library of operators: torch.ops.load_library.
func LoadLibrary(path string) error {
	if err := ensure(); err != nil {
		return err
	}
	return WrapStatus("load library "+strconv.Quote(path), cgo.LibraryLoad(path))
}
