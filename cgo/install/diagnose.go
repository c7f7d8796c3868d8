package install

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// State says how a check ended.
type State string

// The states of a check.
const (
	OK      State = "ok"
	Info    State = "info"    // a fact that is neither good nor bad
	Warning State = "warning" // torchvit works, something does not
	Failure State = "failure" // torchvit does not work
)

// Check is one line of a report.
type Check struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	Found string `json:"found"`
	// Do is what a person can do about it, "" where nothing is to be done.
	Do string `json:"do,omitempty"`
}

// Candidate is a place where libtorch was looked for.
type Candidate struct {
	Source   string    `json:"source"`
	Path     string    `json:"path"`
	LibTorch *LibTorch `json:"libtorch,omitempty"`
	Problem  string    `json:"problem,omitempty"`
}

// System describes the machine and the program.
type System struct {
	OS         string `json:"os"`
	Arch       string `json:"arch"`
	Go         string `json:"go"`
	CGO        bool   `json:"cgo"`
	Processor  string `json:"processor,omitempty"`
	Vendor     string `json:"vendor,omitempty"`
	Vector     string `json:"vector,omitempty"`
	CPUs       int    `json:"cpus"`
	GOMAXPROCS int    `json:"gomaxprocs"`
	// CUDADriver is the path of libcuda.so.1, "" where there is none.
	CUDADriver string `json:"cuda_driver,omitempty"`
}

// Report is what `torchvit doctor` says.
type Report struct {
	// Ready says whether a program would find a shim to open.
	Ready      bool        `json:"ready"`
	System     System      `json:"system"`
	Install    *Install    `json:"install,omitempty"`
	Candidates []Candidate `json:"candidates"`
	Cache      string      `json:"cache,omitempty"`
	Checks     []Check     `json:"checks"`
}

func (r *Report) add(name string, state State, found, do string) {
	r.Checks = append(r.Checks, Check{Name: name, State: state, Found: found, Do: do})
}

// Diagnose looks at everything that a set-up and a run need, opens nothing and
// changes nothing. It never fails: what is wrong is in the report.
func Diagnose(ctx context.Context, sources fs.FS, o Options) *Report {
	r := &Report{System: inspectSystem(), Candidates: []Candidate{}}
	r.Cache, _ = o.cacheDir()

	in, err := Resolve(sources, o)
	if err == nil {
		r.Ready, r.Install = true, in
	}
	places, searchErr := search(ctx, o)
	for _, c := range places {
		cand := Candidate{Source: c.source, Path: c.path}
		if c.err != nil {
			cand.Problem = c.err.Error()
		} else {
			cand.LibTorch, cand.Path = &c.torch, c.torch.Root
		}
		r.Candidates = append(r.Candidates, cand)
	}

	var torch *LibTorch // the one that runs, or that setup would take
	if in != nil {
		torch = &in.LibTorch
	} else if i := slices.IndexFunc(r.Candidates, func(c Candidate) bool { return c.LibTorch != nil }); i >= 0 {
		torch = r.Candidates[i].LibTorch
	}

	r.checkSystem()
	r.checkLibTorch(torch, in, searchErr)
	r.checkShim(in, err, torch)
	if in == nil || !in.Portable {
		r.checkCompiler(ctx, o)
	}
	r.checkEnvironment()
	return r
}

func (r *Report) checkSystem() {
	s := r.System
	switch {
	case s.OS != "linux":
		r.add("system", Failure, s.OS+"/"+s.Arch, "torchvit runs on Linux")
	case s.Arch != "amd64":
		r.add("system", Warning, s.OS+"/"+s.Arch+", "+s.Go,
			"only x86-64 is verified; if libgomp gives \"cannot allocate memory in static TLS block\", see BUILD.md")
	default:
		r.add("system", OK, s.OS+"/"+s.Arch+", "+s.Go, "")
	}
	if s.Processor != "" {
		r.add("processor", Info, fmt.Sprintf("%s (%s), %s", s.Processor, s.Vendor, s.Vector), "")
	}
	if !s.CGO {
		r.add("cgo", Failure, "this program was built with CGO_ENABLED=0", "build with CGO_ENABLED=1 and a C compiler")
	}
}

func (r *Report) checkLibTorch(t *LibTorch, in *Install, searchErr error) {
	if t == nil {
		found := "not found"
		if searchErr != nil {
			found = oneLine(searchErr.Error())
		}
		for _, c := range r.Candidates {
			found += "; " + c.Source + ": " + oneLine(c.Problem)
		}
		r.add("libtorch", Failure, found,
			"run `python3 -m venv .venv && .venv/bin/pip install torch torchvision`, then `torchvit setup`; or name one with --libtorch or "+EnvLibTorch)
		return
	}
	where := map[string]string{
		"option": "named by an option", "env": "named by " + EnvLibTorch, "venv": "in a .venv",
		"python3": "python3's", "system": "the system's", "record": "chosen by the last setup",
	}[t.Source]
	state, do := OK, ""
	if major, minor := majorMinor(t.Version); major < 2 || major == 2 && minor < 11 {
		state, do = Warning, "torchvit is tested with torch 2.11 and 2.15"
	}
	r.add("libtorch", state, fmt.Sprintf("%s at %s (%s)", t.Version, t.Root, where), do)
	abi := "new"
	if !t.CXX11ABI {
		abi = "old"
	}
	r.add("c++", Info, fmt.Sprintf("C++%d, %s string ABI", t.CXXStandard, abi), "")
	r.checkCUDA(t, in)
	if t.OpenMP != "" {
		r.add("openmp", OK, t.OpenMP, "")
	} else {
		r.add("openmp", Info, "the system's own, not one beside libtorch", "")
	}
	r.checkTorchvision(t, in)
}

func (r *Report) checkCUDA(t *LibTorch, in *Install) {
	driver := r.System.CUDADriver
	switch {
	case t.CUDAVersion == "" && driver == "":
		r.add("cuda", Info, "torch is built without CUDA, and no driver is there: CPU", "")
	case t.CUDAVersion == "":
		r.add("cuda", Warning, "torch is built without CUDA, but a driver is there ("+driver+")", "install a CUDA build of torch to use the GPU")
	case driver == "":
		r.add("cuda", Info, "torch is built with CUDA "+t.CUDAVersion+", no driver (libcuda.so.1) is there: CPU", "")
	case in != nil && in.ShimCUDA == "":
		r.add("cuda", Warning, "CUDA "+t.CUDAVersion+", driver "+driver+", but the shim has no CUDA side library",
			"install CUDA's headers (the nvidia wheels of torch hold them) and run `torchvit setup --force`")
	default:
		r.add("cuda", OK, "CUDA "+t.CUDAVersion+", driver "+driver, "")
	}
}

func (r *Report) checkTorchvision(t *LibTorch, in *Install) {
	const do = "run `pip install torchvision` beside torch, then `torchvit setup`"
	switch {
	case t.TorchvisionOps == "" && t.TorchvisionImage == "":
		r.add("torchvision", Warning, "none beside torch: no exact decoders, and no detection models", do)
	case t.TorchvisionOps == "" || t.TorchvisionImage == "":
		r.add("torchvision", Warning, "incomplete: ops "+orNone(t.TorchvisionOps)+", image "+orNone(t.TorchvisionImage), do)
	default:
		found := fmt.Sprintf("%s: %s, %s", t.TorchvisionVersion, filepath.Base(t.TorchvisionOps), filepath.Base(t.TorchvisionImage))
		if in != nil && len(in.Stubs) > 0 {
			found += fmt.Sprintf(" (%d stubs for the CPU)", len(in.Stubs))
		}
		r.add("torchvision", OK, found, "")
	}
}

func orNone(path string) string {
	if path == "" {
		return "none"
	}
	return filepath.Base(path)
}

func (r *Report) checkShim(in *Install, err error, torch *LibTorch) {
	if in != nil {
		kind := ""
		if in.ShimCUDA != "" {
			kind = ", with CUDA"
		}
		if in.ASan {
			kind += ", with AddressSanitizer"
		}
		r.add("shim", OK, fmt.Sprintf("%s (built %s%s)", in.Shim, in.BuiltAt.Format("2006-01-02 15:04"), kind), "")
		return
	}
	do := HowTo
	if torch == nil {
		do = "first libtorch, then " + HowTo
	}
	found := "not compiled yet"
	if err != nil {
		found = oneLine(strings.TrimPrefix(err.Error(), ErrNotInstalled.Error()+": "))
		if strings.Contains(found, "torchvit setup") { // it says itself what to do
			do = ""
		}
	}
	r.add("shim", Failure, found, do)
}

func (r *Report) checkCompiler(ctx context.Context, o Options) {
	cxx, err := findCompiler(ctx, o.Compiler)
	switch {
	case err == nil:
		r.add("compiler", OK, cxx.path+" ("+cxx.version+")", "")
	case r.Ready:
		r.add("compiler", Info, "none; the shim is compiled already", "")
	default:
		r.add("compiler", Failure, "none", "install one (Debian: `apt install g++`) or name it with --compiler")
	}
}

// checkEnvironment names the variables that change what a run does.
func (r *Report) checkEnvironment() {
	if r.Cache == "" {
		r.add("cache", Failure, "no home folder", "set "+EnvCache+" to a folder")
	} else {
		r.add("cache", Info, r.Cache, "")
	}
	for _, v := range []struct {
		name, do string
		state    State
	}{
		{EnvLibTorch, "", Info},
		{"OMP_NUM_THREADS", "torchvit sets its own thread counts (--threads); unset it to be sure", Info},
		{"OMP_WAIT_POLICY", "", Info},
		{"GOMAXPROCS", "", Info},
		{"ATEN_CPU_CAPABILITY", "it changes the bits of results: the same must be set in Python to compare", Warning},
		{"LD_PRELOAD", "a library that is opened first can replace libtorch's OpenMP or allocator: unset it if results or speed look odd", Warning},
		{"LD_LIBRARY_PATH", "", Info},
	} {
		if value := os.Getenv(v.name); value != "" {
			r.add("environment", v.state, v.name+"="+value, v.do)
		}
	}
}

func inspectSystem() System {
	s := System{
		OS: runtime.GOOS, Arch: runtime.GOARCH, Go: runtime.Version(), CGO: cgoEnabled,
		CPUs: runtime.NumCPU(), GOMAXPROCS: runtime.GOMAXPROCS(0),
	}
	var flags string
	s.Processor, s.Vendor, flags = cpuInfo()
	switch has := strings.Fields(flags); {
	case slices.Contains(has, "avx512f"):
		s.Vector = "AVX-512"
	case slices.Contains(has, "avx2"):
		s.Vector = "AVX2"
	default:
		s.Vector = "no AVX2"
	}
	s.CUDADriver = findDriver()
	return s
}

// cpuInfo reads the first processor's block.
func cpuInfo() (model, vendor, flags string) {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "", "", ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() && lines.Text() != "" {
		name, value, _ := strings.Cut(lines.Text(), ":")
		switch strings.TrimSpace(name) {
		case "model name":
			model = strings.TrimSpace(value)
		case "vendor_id":
			vendor = strings.TrimSpace(value)
		case "flags":
			flags = value
		}
	}
	return model, vendor, flags
}

// findDriver looks for libcuda.so.1 where the loader would, without opening it.
func findDriver() string {
	dirs := filepath.SplitList(os.Getenv("LD_LIBRARY_PATH"))
	dirs = append(dirs, "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib",
		"/usr/local/nvidia/lib64", "/usr/local/cuda/compat", "/usr/lib/wsl/lib")
	for _, dir := range dirs {
		if path := filepath.Join(dir, "libcuda.so.1"); dir != "" && isFile(path) {
			return path
		}
	}
	return ""
}
