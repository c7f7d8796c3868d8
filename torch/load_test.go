package torch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/cgo/install"
	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
)

var children = map[string]func() error{
	"load":      loadChild,
	"configure": configureChild,
	"nothing":   nothingChild,
	"handshake": handshakeChild,
	"wait":      waitPolicyChild,
}

// loadFacts is what a process that loaded libtorch for a device says of itself.
type loadFacts struct {
	CUDA      bool // libtorch_cuda is loaded, with every function of the side library
	Available bool
	Count     int
	CountErr  string
	ToErr     string // of Tensor.To, which asks first
	NotLoaded bool   // ToErr is ErrCUDANotLoaded
	DeviceErr bool   // ToErr is ErrDevice
	HooksErr  string // of an operator that reaches ATen's hooks
	Sum       string
	Libraries []string
	Threads   []int
}

func loadChild() error {
	if err := torch.Init(torch.Config{Device: os.Getenv("DEVICE")}); err != nil {
		return err
	}
	ctx := context.Background()
	x, err := torch.NewTensor([]float32{1, 2})
	if err != nil {
		return err
	}
	defer x.Close()
	facts := loadFacts{CUDA: cgo.CUDALoaded(), Available: torch.IsCUDAAvailable()}
	facts.Count, err = torch.CUDADeviceCount()
	facts.CountErr = fmt.Sprint(err)
	y, err := x.To(torch.Device{Type: "cuda"})
	y.Close()
	facts.ToErr, facts.NotLoaded, facts.DeviceErr = fmt.Sprint(err), errors.Is(err, torch.ErrCUDANotLoaded), errors.Is(err, torch.ErrDevice)
	v, err := torch.Call(ctx, "aten::empty", []int{1}, torch.Kwargs{"device": "cuda:0"})
	torch.CloseAll(v)
	facts.HooksErr = fmt.Sprint(err)
	sum, err := x.Sum()
	if err != nil {
		return err
	}
	facts.Sum = sum.String()
	sum.Close()
	info, err := torch.RuntimeInfo()
	if err != nil {
		return err
	}
	facts.Threads = info.LaneThreads
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile(`/[^ \n]*/(lib[^/ \n]+\.so)`).FindAllStringSubmatch(string(maps), -1) {
		if strings.Contains(m[0], "/stubs/") { // set-up's own stand-ins, which hold nothing
			continue
		}
		if !seen[m[1]] {
			facts.Libraries = append(facts.Libraries, m[1])
		}
		seen[m[1]] = true
	}
	return json.NewEncoder(os.Stdout).Encode(facts)
}

func loadIn(t *testing.T, device string) loadFacts {
	t.Helper()
	var facts loadFacts
	require.NoError(t, json.Unmarshal([]byte(testmain.RunChild(t, "load", "DEVICE="+device)), &facts))
	return facts
}

// TestEarlyLoad loads libtorch in processes of their own. With Device "cuda" the real CUDA hooks answer,
// which needs no GPU; with "cpu" nothing of CUDA is in the process, and asking for it is an error.
func TestEarlyLoad(t *testing.T) {
	found, err := install.Resolve(cgo.Sources(), install.Options{ASan: cgo.ASan})
	require.NoError(t, err)

	cpu := loadIn(t, "cpu")
	assert.Equal(t, "tensor(3.)", cpu.Sum)
	assert.False(t, cpu.CUDA || cpu.Available)
	assert.True(t, cpu.NotLoaded && cpu.DeviceErr, cpu.ToErr)
	assert.Contains(t, cpu.CountErr, "did not load libtorch_cuda")
	assert.NotEqual(t, "<nil>", cpu.HooksErr)
	// libtorch_cpu of a CUDA wheel itself wants libcudart and libcupti.
	for _, library := range []string{"libtorch_python.so", "libcublas.so", "libcudnn.so", "libtorchvit_shim_cuda.so"} {
		assert.NotContains(t, cpu.Libraries, library)
	}
	assert.Contains(t, cpu.Libraries, "libtorch_cpu.so")

	if found.LibTorch.CUDAVersion == "" || found.ShimCUDA == "" {
		t.Skip("torch was built without CUDA, or without its headers: there are no hooks to ask")
	}
	cuda := loadIn(t, "cuda")
	assert.Equal(t, "tensor(3.)", cuda.Sum)
	assert.True(t, cuda.CUDA, "the side library opens with every symbol resolved")
	assert.Contains(t, cuda.Libraries, "libtorchvit_shim_cuda.so")
	assert.False(t, cuda.NotLoaded)
	if cuda.Available {
		assert.Positive(t, cuda.Count)
		assert.Equal(t, "<nil>", cuda.ToErr)
		assert.Equal(t, "<nil>", cuda.HooksErr)
		return
	}
	assert.Zero(t, cuda.Count)
	assert.Equal(t, "<nil>", cuda.CountErr)
	assert.True(t, cuda.DeviceErr, cuda.ToErr)
	assert.Contains(t, cuda.ToErr, "got cuda:0, want one of 0 CUDA devices")
	// ATen's stub says that the library is missing; the real hooks say what the driver says.
	assert.NotEqual(t, "<nil>", cuda.HooksErr)
	for _, stub := range []string{"without ATen_cuda library", "Could not run", "PyTorch splits its backend"} {
		assert.NotContains(t, cuda.HooksErr, stub)
	}
	assert.Regexp(t, "(?i)nvidia|driver|cuda", cuda.HooksErr)
	t.Log("real hooks:", cuda.HooksErr)
	t.Log("stub:", cpu.HooksErr)
}

func configureChild() error {
	check := func(ok bool, format string, args ...any) {
		if !ok {
			fmt.Printf(format+"\n", args...)
		}
	}
	for _, bad := range []torch.Config{
		{Lanes: -1}, {Lanes: 5000}, {IntraOpThreads: -1}, {IntraOpThreads: 5000}, {LaneThreads: []int{0}}, {LaneThreads: []int{1, -2}},
	} {
		err := torch.Init(bad)
		check(errors.Is(err, torch.ErrInvalidArgument), "%+v: %v", bad, err)
	}
	err := torch.Init(torch.Config{Device: "tpu"})
	check(errors.Is(err, torch.ErrDevice), "tpu: %v", err)
	err = torch.Init(torch.Config{LibTorch: "/no/such/folder"})
	check(err != nil && strings.Contains(err.Error(), "/no/such/folder"), "LibTorch: %v", err)
	// A try that opened nothing is no obstacle.
	if err := torch.Init(torch.Config{Device: "cpu", Lanes: 3, IntraOpThreads: 1}); err != nil {
		return err
	}
	err = torch.Init(torch.Config{})
	check(errors.Is(err, torch.ErrConfigured), "again: %v", err)
	for lane := range 3 {
		n, err := torch.LaneThreadCount(context.Background(), lane)
		check(n == 1 && err == nil, "lane %d: %d threads, %v", lane, n, err)
	}
	_, err = torch.LaneThreadCount(context.Background(), 3)
	check(errors.Is(err, torch.ErrInvalidArgument), "lane 3: %v", err)
	return nil
}

func TestConfigure(t *testing.T) {
	assert.Empty(t, testmain.RunChild(t, "configure"))
	assert.ErrorIs(t, torch.Init(torch.Config{}), torch.ErrConfigured)
}

// waitPolicyChild asks libgomp whether it took the setting, which it reads when it is loaded.
func waitPolicyChild() error {
	if err := torch.Init(torch.Config{Device: "cpu", OMPWaitPolicy: "passive"}); err != nil {
		return err
	}
	return torch.Ensure()
}

func TestOMPWaitPolicy(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "TORCHVIT_TEST_CHILD=wait", "OMP_DISPLAY_ENV=true")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Regexp(t, `OMP_WAIT_POLICY = '?PASSIVE`, string(out))
}

func nothingChild() error {
	err := torch.Ensure()
	if !errors.Is(err, torch.ErrNotInstalled) {
		return fmt.Errorf("got %w, want ErrNotInstalled", err)
	}
	fmt.Println(err)
	_, err = torch.NewTensor([]float32{1})
	if !errors.Is(err, torch.ErrNotInstalled) {
		return fmt.Errorf("got %w, want ErrNotInstalled", err)
	}
	_, err = torch.Call(context.Background(), "aten::relu")
	if !errors.Is(err, torch.ErrNotInstalled) {
		return fmt.Errorf("got %w, want ErrNotInstalled", err)
	}
	if torch.IsCUDAAvailable() {
		return errors.New("CUDA is available without libtorch")
	}
	torch.MemoryStats()
	torch.FreeDLPack(nil)
	var none *torch.Tensor
	return none.Close()
}

// TestNotInstalled runs in a home that holds no record of a set-up.
func TestNotInstalled(t *testing.T) {
	home := t.TempDir()
	empty := []string{"HOME=" + home, "XDG_CACHE_HOME=" + home, "PATH=/usr/bin:/bin", install.EnvCache + "=", install.EnvLibTorch + "="}
	out := testmain.RunChild(t, "nothing", empty...)
	assert.Contains(t, out, "torchvit setup")
	assert.Equal(t, 1, strings.Count(out, "\n"), "one line")

	// A folder that is no torch, and a set-up whose shim is gone.
	out = testmain.RunChild(t, "nothing", append(empty, install.EnvLibTorch+"="+home)...)
	assert.Contains(t, out, home)
}

// TestWithoutCgo builds a program with CGO_ENABLED=0: it compiles, and every call says so.
func TestWithoutCgo(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./testdata/nocgo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.CommandContext(t.Context(), program).CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "true")
	assert.Contains(t, string(out), "CGO_ENABLED")
	assert.NotContains(t, string(out), "false")
}

// handshakeChild opens libraries in the shim's place that are not this version's shim.
func handshakeChild() error {
	found, err := install.Resolve(cgo.Sources(), install.Options{ASan: cgo.ASan})
	if err != nil {
		return err
	}
	for shim := range strings.SplitSeq(os.Getenv("SHIMS"), ":") {
		_, err := cgo.Open(cgo.Libraries{LibDir: found.LibTorch.LibDir, Shim: shim})
		if cgo.Loaded() {
			return fmt.Errorf("%s was taken", shim)
		}
		fmt.Println(err)
	}
	return nil
}

// TestHandshake refuses a shim of another version, before any call could go wrong.
func TestHandshake(t *testing.T) {
	dir := t.TempDir()
	compile := func(name, code string) string {
		source := filepath.Join(dir, name+".c")
		require.NoError(t, os.WriteFile(source, []byte(code), 0o644))
		library := filepath.Join(dir, name+".so")
		out, err := exec.CommandContext(t.Context(), "g++", "-x", "c", "-shared", "-fPIC", "-o", library, source).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return library
	}
	header, err := os.ReadFile(filepath.Join(testmain.Root(t), "cgo", "shim", "shim.h"))
	require.NoError(t, err)
	var all strings.Builder
	for _, m := range regexp.MustCompile(`(?s)TV_API [^;]*?\b(tv_\w+)\(`).FindAllStringSubmatch(string(header), -1) {
		if m[1] == "tv_abi_hash" {
			all.WriteString("unsigned long long tv_abi_hash(void) { return 42; }\n")
		} else {
			fmt.Fprintf(&all, "void %s(void) { __builtin_trap(); }\n", m[1])
		}
	}
	shims := strings.Join([]string{compile("empty", "int nothing;\n"), compile("other", all.String()), filepath.Join(dir, "missing.so")}, ":")
	lines := strings.Split(strings.TrimSpace(testmain.RunChild(t, "handshake", "SHIMS="+shims)), "\n")
	require.Len(t, lines, 3)
	assert.Regexp(t, `empty\.so: got no function tv_\w+, want one built from this version's sources: run .torchvit setup.$`, lines[0])
	assert.Regexp(t, `other\.so: got interface 000000000000002a, want [0-9a-f]{16}: run .torchvit setup.$`, lines[1])
	assert.Contains(t, lines[2], "missing.so")
}
