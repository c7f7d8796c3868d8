// Package testmain is the TestMain of every test binary that touches libtorch: it records each handle
// with its stack and fails the run where one is left at the end. It also finds Python for parity tests
// and decides about tests that need CUDA.
package testmain

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/torchvit/torchvit/internal/handle"
	"github.com/torchvit/torchvit/torch"
)

// Run runs the tests with that configuration and exits: with 99 where handles were left.
func Run(m *testing.M, config torch.Config) {
	table := handle.Trace()
	if os.Getenv(requireCUDA) == "1" {
		config.Device = "cuda"
	}
	if err := torch.Init(config); err != nil {
		fmt.Fprintf(os.Stderr, "testmain: %+v\n", err)
		os.Exit(1)
	}
	code := m.Run()
	if report := Leaks(table); report != "" {
		fmt.Fprintln(os.Stderr, "testmain: handles were left:\n"+report)
		if code == 0 {
			code = 99
		}
	}
	os.Exit(code)
}

// requireCUDA says that there is a device: binaries load libtorch for CUDA, and tests that need it fail
// in place of skipping.
const requireCUDA = "TORCHVIT_REQUIRE_CUDA"

const childName = "TORCHVIT_TEST_CHILD"

// Children is for tests that need a process of their own, before libtorch is loaded: in a child that
// RunChild started it runs the named function and exits. A TestMain calls it first.
func Children(children map[string]func() error) {
	name := os.Getenv(childName)
	if name == "" {
		return
	}
	f, ok := children[name]
	if !ok {
		fmt.Fprintln(os.Stderr, "testmain: got no child", name)
		os.Exit(2)
	}
	if err := f(); err != nil {
		fmt.Fprintf(os.Stderr, "%+v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// RunChild runs one of Children in a new process with those variables and gives what it prints. A child
// that fails or crashes fails the test.
func RunChild(t testing.TB, name string, env ...string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), env...), childName+"="+name)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("child %s: %v\n%s%s", name, err, out, errs.String())
	}
	return string(out)
}

// Leaks lets the collector run and then says what is still alive, "" for nothing.
func Leaks(table *handle.Table) string {
	// Cleanups run on a goroutine of their own after a collection.
	for range 20 {
		runtime.GC()
		if torch.MemoryStats().Live.Total() == 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	report := table.Report()
	if live := torch.MemoryStats().Live; live.Total() != 0 {
		report += "the shim still counts " + live.String()
	}
	return report
}

// Forget drops the notes on handles that a test let the collector free on purpose, and gives how many
// there were.
func Forget() int { return len(handle.Trace().Forget()) }

// Measure turns the table of handles off until the test or benchmark ends: recording a stack costs more
// than what is measured. Handles that are made from here on must be closed in the test, and older ones
// by its cleanups.
func Measure(t testing.TB) {
	t.Helper()
	t.Cleanup(handle.Trace().Suspend())
}

// Best is the least time that one call of f took, as the mean of a batch of 50, in nanoseconds: what a
// call costs when nothing else wants the processor.
func Best(f func()) float64 {
	best := math.Inf(1)
	for range 400 {
		start := time.Now()
		for range 50 {
			f()
		}
		best = min(best, float64(time.Since(start).Nanoseconds())/50)
	}
	return best
}

// Root is the repository's folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	for err == nil {
		if _, e := os.Stat(filepath.Join(dir, "go.mod")); e == nil {
			return dir
		}
		if filepath.Dir(dir) == dir {
			err = errors.New("no go.mod above")
			break
		}
		dir = filepath.Dir(dir)
	}
	t.Fatalf("repository root: %v", err)
	return ""
}

// Python is the interpreter of parity tests: TORCHVIT_PYTHON, else the repository's .venv. Without one
// the test fails: parity is not optional.
func Python(t testing.TB) string {
	t.Helper()
	if p := os.Getenv("TORCHVIT_PYTHON"); p != "" {
		return p
	}
	p := filepath.Join(Root(t), ".venv", "bin", "python")
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("parity tests compare with Python in the same run: got no %s, want one made by `make test`", p)
	}
	return p
}

// NotShort skips a comparison with Python under -short: the race detector and the sanitizers look at memory that is
// shared, not at numbers, which `make test` compares without them.
func NotShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("compares with Python: not with -short")
	}
}

// RunPython runs a script with arguments in the repository's folder and gives its output.
func RunPython(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command(Python(t), append([]string{"-W", "ignore"}, args...)...)
	cmd.Dir = Root(t)
	// Python's own OpenMP settings must be those of a user.
	out, err := cmd.Output()
	if err != nil {
		detail := ""
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			detail = string(e.Stderr)
		}
		t.Fatalf("python %v: %v\n%s", args, err, detail)
	}
	return string(out)
}

var cudaMissing = sync.OnceValue(func() string {
	info, err := torch.RuntimeInfo()
	switch {
	case err != nil:
		return err.Error()
	case !info.CUDA:
		return "this process loaded libtorch for the CPU: no libcuda.so.1, or torch was built without CUDA"
	case !torch.IsCUDAAvailable():
		return "CUDA is loaded and there is no device"
	}
	return ""
})

// RequireCUDA skips a test where there is no CUDA device, and says why. With TORCHVIT_REQUIRE_CUDA=1 a
// device was promised, and the test fails.
func RequireCUDA(t testing.TB) {
	t.Helper()
	if why := cudaMissing(); why != "" {
		if os.Getenv(requireCUDA) == "1" {
			t.Fatalf("%s=1: %s", requireCUDA, why)
		}
		t.Skipf("needs CUDA: %s", why)
	}
}
