package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// isolate keeps a test away from the machine's own libtorch, cache and python.
func isolate(t *testing.T) (cache string) {
	t.Helper()
	cache = filepath.Join(t.TempDir(), "cache")
	t.Setenv(EnvCache, cache)
	t.Setenv(EnvLibTorch, "")
	t.Setenv(EnvKeepObjects, "")
	t.Setenv("CXX", "")
	old := systemDirs
	systemDirs = nil
	t.Cleanup(func() { systemDirs = old })
	t.Chdir(t.TempDir())
	return cache
}

// withoutPython leaves PATH without a python3, but with the compiler.
func withoutPython(t *testing.T) {
	t.Helper()
	bin := t.TempDir()
	for _, name := range []string{"g++", "gcc", "as", "ld", "env", "sh"} {
		if path, err := exec.LookPath(name); err == nil {
			require.NoError(t, os.Symlink(path, filepath.Join(bin, name)))
		}
	}
	t.Setenv("PATH", bin)
}

// sharedLibrary compiles C++ into a shared library.
func sharedLibrary(t *testing.T, path, soname, source string, flags ...string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	file := filepath.Join(t.TempDir(), "x.cc")
	require.NoError(t, os.WriteFile(file, []byte(source), 0o644))
	args := append([]string{"-shared", "-fPIC", "-o", path, file, "-Wl,-soname," + soname, "-Wl,--no-as-needed"}, flags...)
	out, err := exec.Command("g++", args...).CombinedOutput()
	require.NoError(t, err, string(out))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
}

// fakeTorch makes a site-packages folder with a torch that has all that setup
// looks at, and real, tiny libraries. It gives the torch package's folder.
func fakeTorch(t *testing.T, site, version string) string {
	t.Helper()
	if real, err := filepath.EvalSymlinks(filepath.Dir(site)); err == nil {
		site = filepath.Join(real, filepath.Base(site))
	}
	root := filepath.Join(site, "torch")
	write(t, filepath.Join(root, "version.py"), "from typing import Optional\n__version__ = '"+version+"'\ncuda: Optional[str] = None\n")
	write(t, filepath.Join(root, "include/torch/script.h"), "#pragma once\nint torch_cpu_answer();\n")
	lib := filepath.Join(root, "lib")
	sharedLibrary(t, filepath.Join(lib, "libgomp.so.1"), "libgomp.so.1", "int omp_answer() { return 1; }")
	sharedLibrary(t, filepath.Join(lib, "libc10.so"), "libc10.so", "#include <string>\nvoid c10_name(std::string) {}")
	sharedLibrary(t, filepath.Join(lib, cpuLibrary), cpuLibrary, "int torch_cpu_answer() { return 42; }",
		"-L"+lib, "-lc10", "-l:libgomp.so.1", "-Wl,-rpath,$ORIGIN", "-Wl,--disable-new-dtags")
	return root
}

// dummyShim stands for the shim; the real one is compiled by the tests of cgo.
func dummyShim() fstest.MapFS {
	return fstest.MapFS{
		"shim.h": {Data: []byte("#pragma once\nextern \"C\" __attribute__((visibility(\"default\"))) int tv_answer(void);\n")},
		"pch.h":  {Data: []byte("#include <torch/script.h>\n")},
		"a.cc":   {Data: []byte("#include \"shim.h\"\n#include <torch/script.h>\nint tv_answer() { return torch_cpu_answer(); }\n")},
	}
}

func TestFindOrder(t *testing.T) {
	isolate(t)
	base := t.TempDir()
	option := fakeTorch(t, filepath.Join(base, "option"), "2.15.0+cpu")
	env := fakeTorch(t, filepath.Join(base, "env"), "2.14.0")
	system := fakeTorch(t, filepath.Join(base, "system"), "2.12.1")
	systemDirs = []string{filepath.Join(base, "nothing"), system}

	python := fakeTorch(t, filepath.Join(base, "python"), "2.13.0")
	bin := t.TempDir()
	write(t, filepath.Join(bin, "python3"), "#!/bin/sh\necho '[\"/nowhere\", \""+filepath.Dir(python)+"\"]'\n")
	require.NoError(t, os.Chmod(filepath.Join(bin, "python3"), 0o755))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))

	project := filepath.Join(base, "project")
	require.NoError(t, os.MkdirAll(filepath.Join(project, ".venv/lib/python3.11"), 0o755))
	venv := fakeTorch(t, filepath.Join(project, ".venv/lib/python3.11/site-packages"), "2.11.0")
	require.NoError(t, os.MkdirAll(filepath.Join(project, "deep/er"), 0o755))
	t.Chdir(filepath.Join(project, "deep/er"))

	roots := func(o Options) (found []string) {
		all, err := Find(t.Context(), o)
		require.NoError(t, err)
		for _, l := range all {
			found = append(found, l.Source+" "+l.Root)
		}
		return found
	}
	assert.Equal(t, []string{"venv " + venv, "python3 " + python, "system " + system}, roots(Options{}))
	assert.Equal(t, []string{"option " + python}, roots(Options{Python: filepath.Join(bin, "python3")}))
	assert.Equal(t, []string{"option " + venv}, roots(Options{LibTorch: filepath.Join(project, ".venv")}), "a virtual environment names its torch")
	t.Setenv(EnvLibTorch, env)
	assert.Equal(t, []string{"env " + env}, roots(Options{}), "the variable is the only place")
	assert.Equal(t, []string{"option " + option}, roots(Options{LibTorch: filepath.Dir(option)}), "an option beats the variable")

	t.Setenv(EnvLibTorch, filepath.Join(base, "nothing"))
	_, err := Find(t.Context(), Options{})
	require.ErrorIs(t, err, ErrNotFound, "what is named and is not there is an error, not a reason to look elsewhere")
	assert.ErrorContains(t, err, "nothing")
}

func TestProbe(t *testing.T) {
	isolate(t)
	site := filepath.Join(t.TempDir(), "site-packages")
	root := fakeTorch(t, site, "2.15.0+cpu")
	got, err := probe(root, "option")
	require.NoError(t, err)
	assert.Equal(t, "2.15.0+cpu", got.Version)
	assert.Equal(t, 20, got.CXXStandard)
	assert.True(t, got.CXX11ABI)
	assert.Empty(t, got.CUDAVersion)
	assert.Empty(t, got.TorchvisionOps)
	assert.Equal(t, filepath.Join(root, "lib/libgomp.so.1"), got.OpenMP)

	old := fakeTorch(t, filepath.Join(t.TempDir(), "old"), "2.11.0")
	sharedLibrary(t, filepath.Join(old, "lib/libc10.so"), "libc10.so", "#include <string>\nvoid c10_name(std::string) {}", "-D_GLIBCXX_USE_CXX11_ABI=0")
	got, err = probe(old, "option")
	require.NoError(t, err)
	assert.Equal(t, 17, got.CXXStandard)
	assert.False(t, got.CXX11ABI)

	archive := fakeTorch(t, filepath.Join(t.TempDir(), "archive"), "x")
	require.NoError(t, os.Remove(filepath.Join(archive, "version.py")))
	_, err = probe(archive, "option")
	require.ErrorIs(t, err, ErrNotFound)
	write(t, filepath.Join(archive, "include/torch/headeronly/version.h"), "#define TORCH_VERSION \\\n  \"2.14.1\"\n")
	got, err = probe(archive, "option")
	require.NoError(t, err)
	assert.Equal(t, "2.14.1", got.Version)
	write(t, filepath.Join(archive, "build-version"), "2.15.1+cu132\n")
	write(t, filepath.Join(archive, "lib/libtorch_cuda.so"), "")
	got, err = probe(archive, "option")
	require.NoError(t, err)
	assert.Equal(t, "2.15.1+cu132", got.Version)
	assert.Equal(t, "13.2", got.CUDAVersion)

	require.NoError(t, os.Remove(filepath.Join(root, "include/torch/script.h")))
	_, err = probe(root, "option")
	assert.ErrorContains(t, err, "no headers")
	write(t, filepath.Join(root, "include/torch/script.h"), "")
	write(t, filepath.Join(root, "lib/libc10.so"), "not a library")
	_, err = probe(root, "option")
	assert.ErrorContains(t, err, "not a shared library")
}

func TestSetupThenResolve(t *testing.T) {
	cache := isolate(t)
	root := fakeTorch(t, filepath.Join(t.TempDir(), "site-packages"), "2.15.0+cpu")
	sources := dummyShim()

	_, err := Resolve(sources, Options{})
	require.ErrorIs(t, err, ErrNotInstalled)
	assert.ErrorContains(t, err, "torchvit setup")

	var log bytes.Buffer
	in, err := Setup(t.Context(), sources, Options{LibTorch: root, Log: &log})
	require.NoError(t, err, log.String())
	assert.FileExists(t, in.Shim)
	assert.FileExists(t, in.MKLFast)
	assert.Empty(t, in.ShimCUDA)
	assert.Contains(t, log.String(), "compiled a.cc (1/1")
	symbols, err := exports(in.Shim)
	require.NoError(t, err)
	assert.True(t, symbols["tv_answer"])
	assert.False(t, symbols["_Z16torch_cpu_answerv"], "the shim must not carry libtorch's symbols")
	symbols, err = exports(in.MKLFast)
	require.NoError(t, err)
	assert.True(t, symbols["mkl_serv_intel_cpu_true"])
	left, err := filepath.Glob(filepath.Join(cache, "build-*"))
	require.NoError(t, err)
	assert.Empty(t, left)

	got, err := Resolve(sources, Options{})
	require.NoError(t, err)
	assert.Equal(t, in.Shim, got.Shim)
	assert.Equal(t, "record", got.LibTorch.Source)
	t.Setenv(EnvLibTorch, root)
	got, err = Resolve(sources, Options{})
	require.NoError(t, err)
	assert.Equal(t, "env", got.LibTorch.Source)
	t.Setenv(EnvLibTorch, "")

	// Again is quick, and the same folder.
	start := time.Now()
	again, err := Setup(t.Context(), sources, Options{LibTorch: root})
	require.NoError(t, err)
	assert.Equal(t, in.Dir, again.Dir)
	assert.Equal(t, in.BuiltAt, again.BuiltAt)
	assert.Less(t, time.Since(start), 2*time.Second)

	t.Run("other sources", func(t *testing.T) {
		changed := dummyShim()
		changed["a.cc"].Data = append(changed["a.cc"].Data, "// changed\n"...)
		_, err := Resolve(changed, Options{})
		require.ErrorIs(t, err, ErrNotInstalled)
		assert.ErrorContains(t, err, "another torchvit version")
	})
	t.Run("asan is another install", func(t *testing.T) {
		_, err := Resolve(sources, Options{ASan: true})
		require.ErrorIs(t, err, ErrNotInstalled)
		assert.ErrorContains(t, err, "--asan")
	})
	t.Run("a libtorch that was not set up", func(t *testing.T) {
		other := fakeTorch(t, filepath.Join(t.TempDir(), "other"), "2.15.0")
		_, err := Resolve(sources, Options{LibTorch: other})
		require.ErrorIs(t, err, ErrNotInstalled)
		assert.ErrorContains(t, err, "--libtorch "+other)
	})
	t.Run("damaged cache", func(t *testing.T) {
		require.NoError(t, os.Truncate(in.Shim, 100))
		_, err := Resolve(sources, Options{})
		require.ErrorIs(t, err, ErrNotInstalled)
		assert.ErrorContains(t, err, "100 bytes")
		_, err = Setup(t.Context(), sources, Options{LibTorch: root})
		require.NoError(t, err)
		_, err = Resolve(sources, Options{})
		require.NoError(t, err, "setup mends it")
	})
	t.Run("torch upgraded in place", func(t *testing.T) {
		write(t, filepath.Join(root, "version.py"), "__version__ = '2.16.0'\n")
		_, err := Resolve(sources, Options{})
		require.ErrorIs(t, err, ErrNotInstalled)
		assert.ErrorContains(t, err, "is now 2.16.0, the shim was compiled for 2.15.0+cpu")
		assert.ErrorContains(t, err, "torchvit setup")
	})
	t.Run("torch removed", func(t *testing.T) {
		require.NoError(t, os.RemoveAll(root))
		_, err := Resolve(sources, Options{})
		require.ErrorIs(t, err, ErrNotInstalled)
		assert.ErrorContains(t, err, "no longer at")
	})
	t.Run("damaged record", func(t *testing.T) {
		write(t, filepath.Join(cache, recordName), "{")
		_, err := Resolve(sources, Options{})
		require.ErrorIs(t, err, ErrNotInstalled)
		assert.ErrorContains(t, err, "damaged")
	})
}

func TestResolveDoesNotSearch(t *testing.T) {
	isolate(t)
	require.NoError(t, os.MkdirAll(".venv/lib/python3.11", 0o755))
	wd, err := os.Getwd()
	require.NoError(t, err)
	fakeTorch(t, filepath.Join(wd, ".venv/lib/python3.11/site-packages"), "2.15.0")
	_, err = Resolve(dummyShim(), Options{})
	require.ErrorIs(t, err, ErrNotInstalled, "a folder that a program happens to run in must not choose its libraries")
}

func TestPortable(t *testing.T) {
	isolate(t)
	root := fakeTorch(t, filepath.Join(t.TempDir(), "site-packages"), "2.15.0+cpu")
	out := filepath.Join(t.TempDir(), "out")
	in, err := Setup(t.Context(), dummyShim(), Options{LibTorch: root, Output: out})
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(out, shimName), in.Shim)
	_, err = Resolve(dummyShim(), Options{})
	require.ErrorIs(t, err, ErrNotInstalled, "writing a folder for a container does not change this machine's choice")

	// Moved, and with the original gone, it still resolves and loads.
	moved := filepath.Join(t.TempDir(), "moved")
	require.NoError(t, os.Rename(out, moved))
	require.NoError(t, os.RemoveAll(root))
	t.Setenv(EnvLibTorch, moved)
	got, err := Resolve(dummyShim(), Options{})
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(moved, "lib"), got.LibTorch.LibDir)
	assert.Equal(t, filepath.Join(moved, "lib/libgomp.so.1"), got.LibTorch.OpenMP)
	text, err := os.ReadFile(filepath.Join(moved, manifestName))
	require.NoError(t, err)
	assert.NotContains(t, string(text), filepath.Dir(out))
	assert.Equal(t, 42, callAnswer(t, got.Shim))

	_, err = Setup(t.Context(), dummyShim(), Options{})
	assert.ErrorContains(t, err, "can only be run")
	require.NoError(t, os.Remove(filepath.Join(moved, "lib/libc10.so")))
	_, err = Resolve(dummyShim(), Options{})
	require.ErrorIs(t, err, ErrNotInstalled)
	assert.ErrorContains(t, err, "libc10.so is missing")

	t.Setenv(EnvLibTorch, "")
	root = fakeTorch(t, filepath.Join(t.TempDir(), "site-packages"), "2.15.0+cpu")
	full := t.TempDir()
	write(t, filepath.Join(full, "precious.txt"), "x")
	_, err = Setup(t.Context(), dummyShim(), Options{LibTorch: root, Output: full})
	require.ErrorContains(t, err, "holds other files")
	assert.FileExists(t, filepath.Join(full, "precious.txt"))
}

// callAnswer opens a shim in a process of its own, binding every symbol at once.
func callAnswer(t *testing.T, shim string, first ...string) int {
	t.Helper()
	program := filepath.Join(t.TempDir(), "call")
	write(t, program+".cc", `#include <dlfcn.h>
#include <cstdio>
int main(int argc, char** argv) {
  void* h = nullptr;
  for (int i = 1; i < argc; i++)
    if (!(h = dlopen(argv[i], RTLD_NOW | RTLD_GLOBAL))) { std::puts(dlerror()); return 255; }
  return reinterpret_cast<int (*)()>(dlsym(h, "tv_answer"))();
}`)
	out, err := exec.Command("g++", "-o", program, program+".cc", "-ldl").CombinedOutput()
	require.NoError(t, err, string(out))
	cmd := exec.Command(program, append(first, shim)...)
	cmd.Env = append(os.Environ(), "LD_BIND_NOW=1")
	out, err = cmd.CombinedOutput()
	exit, ok := errors.AsType[*exec.ExitError](err)
	require.True(t, ok, "%v %s", err, out)
	require.NotEqual(t, 255, exit.ExitCode(), string(out))
	return exit.ExitCode()
}

// TestStubs has a torchvision whose libraries name CUDA libraries and want
// symbols of theirs that no CPU library has.
func TestStubs(t *testing.T) {
	isolate(t)
	site := filepath.Join(t.TempDir(), "site-packages")
	root := fakeTorch(t, site, "2.15.0+cu132")
	lib := filepath.Join(root, "lib")
	write(t, filepath.Join(root, "version.py"), "__version__ = '2.15.0+cu132'\ncuda: Optional[str] = '13.2'\n")
	sharedLibrary(t, filepath.Join(lib, "libtorch_cuda.so"), "libtorch_cuda.so", "extern \"C\" void only_cuda() {}\nextern \"C\" void unused_cuda() {}")
	sharedLibrary(t, filepath.Join(lib, "libtorch.so"), "libtorch.so", "", "-L"+lib, "-ltorch_cuda")
	vision := filepath.Join(filepath.Dir(root), "torchvision")
	write(t, filepath.Join(vision, "version.py"), "__version__ = '0.29.2+cu132'\n")
	const ops = "int torch_cpu_answer();\nextern \"C\" void only_cuda();\n" +
		"extern \"C\" int tv_answer() { return torch_cpu_answer(); }\nextern \"C\" void gpu() { only_cuda(); }"
	sharedLibrary(t, filepath.Join(vision, "_C_stable.so"), "", ops, "-L"+lib, "-ltorch", "-ltorch_cuda", "-ltorch_cpu", "-Wl,-rpath-link,"+lib)
	sharedLibrary(t, filepath.Join(lib, pythonLibrary), pythonLibrary, "")
	const image = "extern \"C\" char PyInstanceMethod_Type[8];\nextern \"C\" void* python_type = PyInstanceMethod_Type;"
	sharedLibrary(t, filepath.Join(vision, "image_stable.so"), "", image, "-L"+lib, "-ltorch_cpu", "-ltorch_python")

	in, err := Setup(t.Context(), dummyShim(), Options{LibTorch: root})
	require.NoError(t, err)
	assert.Equal(t, []string{
		filepath.Join(in.StubDir, "libtorch.so"), filepath.Join(in.StubDir, "libtorch_cuda.so"), filepath.Join(in.StubDir, pythonLibrary),
	}, in.Stubs)
	symbols, err := exports(in.Stubs[1])
	require.NoError(t, err)
	assert.Equal(t, map[string]bool{"only_cuda": true}, symbols)
	assert.Equal(t, 42, callAnswer(t, in.LibTorch.TorchvisionOps, append([]string{in.Shim}, append(in.Stubs, in.LibTorch.TorchvisionImage)...)...))
}

// TestCUDASideLibrary has a torch with CUDA, whose headers are there in part.
func TestCUDASideLibrary(t *testing.T) {
	isolate(t)
	root := fakeTorch(t, filepath.Join(t.TempDir(), "site-packages"), "2.15.0+cu132")
	site, lib := filepath.Dir(root), filepath.Join(root, "lib")
	write(t, filepath.Join(root, "version.py"), "__version__ = '2.15.0+cu132'\ncuda: Optional[str] = '13.2'\n")
	sharedLibrary(t, filepath.Join(lib, "libtorch_cuda.so"), "libtorch_cuda.so", "int cuda_answer() { return 7; }")
	sharedLibrary(t, filepath.Join(lib, "libc10_cuda.so"), "libc10_cuda.so", "")
	sharedLibrary(t, filepath.Join(site, "nvidia/cu13/lib/libcudart.so.13"), "libcudart.so.13", "int runtime_answer() { return 8; }")
	sources := dummyShim()
	sources["cuda_a.cc"] = &fstest.MapFile{Data: []byte("#include \"shim.h\"\n#include <crt/host_config.h>\n#include <cuda_runtime_api.h>\n" +
		"int cuda_answer();\nextern \"C\" __attribute__((visibility(\"default\"))) int tv_cuda() { return cuda_answer() + runtime_answer() + tv_answer(); }\n")}

	in, err := Setup(t.Context(), sources, Options{LibTorch: root})
	require.NoError(t, err)
	assert.Empty(t, in.ShimCUDA, "no headers, no side library, and no failure")

	for _, header := range cudaHeaders {
		write(t, filepath.Join(site, "nvidia/cu13/include", header), "#pragma once\n")
	}
	write(t, filepath.Join(site, "nvidia/cu13/include/cuda_runtime_api.h"), "#pragma once\n#include <not/brought.h>\nint runtime_answer();\n")
	var log bytes.Buffer
	in, err = Setup(t.Context(), sources, Options{LibTorch: root, Log: &log})
	require.NoError(t, err)
	assert.Empty(t, in.ShimCUDA)
	assert.Contains(t, log.String(), "left out")
	assert.Contains(t, log.String(), "not/brought.h")

	write(t, filepath.Join(site, "nvidia/cu13/include/cuda_runtime_api.h"), "#pragma once\nint runtime_answer();\n")
	in, err = Setup(t.Context(), sources, Options{LibTorch: root, Force: true})
	require.NoError(t, err)
	require.NotEmpty(t, in.ShimCUDA)
	lib2, err := readLibrary(in.ShimCUDA)
	require.NoError(t, err)
	assert.Subset(t, lib2.needed, []string{shimName, "libtorch_cuda.so", "libc10_cuda.so", "libcudart.so.13"})
	assert.Equal(t, 42, callAnswer(t, in.Shim, in.ShimCUDA), "every symbol of the side library resolves")

	sources["cuda_a.cc"].Data = append(sources["cuda_a.cc"].Data, "int wrong = nothing;\n"...)
	_, err = Setup(t.Context(), sources, Options{LibTorch: root})
	assert.ErrorContains(t, err, "nothing", "an error of ours is an error")
}

func TestSetupErrors(t *testing.T) {
	cache := isolate(t)
	root := fakeTorch(t, filepath.Join(t.TempDir(), "site-packages"), "2.15.0+cpu")

	broken := dummyShim()
	broken["b.cc"] = &fstest.MapFile{Data: []byte("#include <torch/script.h>\nint f() { return no_such_name; }\n")}
	var log bytes.Buffer
	_, err := Setup(t.Context(), broken, Options{LibTorch: root, Log: &log})
	e, ok := errors.AsType[*Error](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, "compiling b.cc", e.Step)
	assert.Contains(t, e.Reason, "no_such_name")
	assert.NotContains(t, err.Error(), "\n")
	assert.Contains(t, e.Detail, "b.cc:2")
	assert.Contains(t, log.String(), "no_such_name")

	warned := dummyShim()
	warned["b.cc"] = &fstest.MapFile{Data: []byte("static int unused() { return 1; }\n")}
	_, err = Setup(t.Context(), warned, Options{LibTorch: root})
	assert.ErrorContains(t, err, "unused", "warnings are errors")

	unresolved := dummyShim()
	unresolved["b.cc"] = &fstest.MapFile{Data: []byte("int nowhere();\n__attribute__((visibility(\"default\"))) int f() { return nowhere(); }\n")}
	_, err = Setup(t.Context(), unresolved, Options{LibTorch: root})
	assert.ErrorContains(t, err, "linking")
	assert.ErrorContains(t, err, "nowhere")

	_, err = Setup(t.Context(), dummyShim(), Options{LibTorch: root, Compiler: "no-such-compiler"})
	require.ErrorIs(t, err, exec.ErrNotFound)
	assert.ErrorContains(t, err, "install one")
	t.Setenv("CXX", "no-such-either")
	_, err = Setup(t.Context(), dummyShim(), Options{LibTorch: root})
	assert.ErrorContains(t, err, "no-such-either")
	t.Setenv("CXX", "")

	left, err := filepath.Glob(filepath.Join(cache, "*", "*"))
	require.NoError(t, err)
	assert.Empty(t, left, "a failed set-up leaves nothing behind")
	_, err = Resolve(dummyShim(), Options{})
	require.ErrorIs(t, err, ErrNotInstalled)
}

func TestSetupCancelled(t *testing.T) {
	cache := isolate(t)
	root := fakeTorch(t, filepath.Join(t.TempDir(), "site-packages"), "2.15.0+cpu")
	slow := filepath.Join(t.TempDir(), "slow++")
	write(t, slow, "#!/bin/sh\ncase \"$1\" in --version) echo slow 1;; *) sleep 60;; esac\n")
	require.NoError(t, os.Chmod(slow, 0o755))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(300*time.Millisecond, cancel)
	start := time.Now()
	_, err := Setup(ctx, dummyShim(), Options{LibTorch: root, Compiler: slow})
	require.ErrorIs(t, err, context.Canceled)
	assert.Less(t, time.Since(start), 20*time.Second)
	left, err := filepath.Glob(filepath.Join(cache, "build-*"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestTwoSetupsAtOnce(t *testing.T) {
	isolate(t)
	root := fakeTorch(t, filepath.Join(t.TempDir(), "site-packages"), "2.15.0+cpu")
	var logs [2]bytes.Buffer
	var wg sync.WaitGroup
	for i := range logs {
		wg.Go(func() {
			_, err := Setup(t.Context(), dummyShim(), Options{LibTorch: root, Log: &logs[i]})
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	both := logs[0].String() + logs[1].String()
	assert.Equal(t, 1, strings.Count(both, "compiled a.cc"), both)
	assert.Equal(t, 1, strings.Count(both, "compiled already"), both)
	_, err := Resolve(dummyShim(), Options{})
	require.NoError(t, err)
}

func TestKey(t *testing.T) {
	isolate(t)
	base := t.TempDir()
	torch, err := probe(fakeTorch(t, filepath.Join(base, "a"), "2.15.0"), "option")
	require.NoError(t, err)
	elsewhere, err := probe(fakeTorch(t, filepath.Join(base, "b"), "2.15.0"), "option")
	require.NoError(t, err)
	newer := torch
	newer.Version = "2.15.1"
	sources, err := sourceFiles(dummyShim())
	require.NoError(t, err)
	changed := dummyShim()
	changed["shim.h"].Data = append(changed["shim.h"].Data, '\n')
	edited, err := sourceFiles(changed)
	require.NoError(t, err)
	gcc, clang := &compiler{path: "/usr/bin/g++", version: "g++ 12"}, &compiler{path: "/usr/bin/g++", version: "g++ 13"}

	base0 := build{o: &Options{}, torch: &torch, cxx: gcc, files: sources}
	keys := map[string]string{base0.key(): "base"}
	for name, b := range map[string]build{
		"sources":  {o: &Options{}, torch: &torch, cxx: gcc, files: edited},
		"compiler": {o: &Options{}, torch: &torch, cxx: clang, files: sources},
		"asan":     {o: &Options{ASan: true}, torch: &torch, cxx: gcc, files: sources},
		"path":     {o: &Options{}, torch: &elsewhere, cxx: gcc, files: sources},
		"version":  {o: &Options{}, torch: &newer, cxx: gcc, files: sources},
	} {
		assert.NotContains(t, keys, b.key(), name)
		keys[b.key()] = name
	}
	same := build{o: &Options{Force: true}, torch: &torch, cxx: gcc, files: sources}
	assert.Equal(t, base0.key(), same.key())
}

func TestRecordKeepsFew(t *testing.T) {
	r := &record{}
	for i := range recordLimit + 3 {
		dropped := r.choose(Install{Key: string(rune('a' + i))})
		assert.Len(t, dropped, max(0, min(1, i-recordLimit+1)))
	}
	assert.Len(t, r.Installs, recordLimit)
	assert.Equal(t, string(rune('a'+recordLimit+2)), r.Installs[0].Key)
	r.choose(Install{Key: r.Installs[4].Key})
	assert.Len(t, r.Installs, recordLimit, "choosing again does not duplicate")
}

func TestNeedsTorch(t *testing.T) {
	b := build{files: map[string][]byte{
		"plain.cc":  []byte("#include \"plain.h\"\n#include <vector>\n"),
		"plain.h":   []byte("#include <cstdint>\n#include \"plain.h\"\n"),
		"direct.cc": []byte("#include <ATen/ATen.h>\n"),
		"far.cc":    []byte("#include \"far.h\"\n"),
		"far.h":     []byte("#include \"direct.h\"\n"),
		"direct.h":  []byte("  #  include <c10/core/Device.h>\n"),
	}}
	assert.False(t, b.needsTorch("plain.cc"))
	assert.True(t, b.needsTorch("direct.cc"))
	assert.True(t, b.needsTorch("far.cc"))
}

func TestDiagnose(t *testing.T) {
	find := func(r *Report, name string) Check {
		for _, c := range r.Checks {
			if c.Name == name {
				return c
			}
		}
		t.Errorf("no check %q in %+v", name, r.Checks)
		return Check{}
	}
	t.Run("nothing installed", func(t *testing.T) {
		isolate(t)
		t.Setenv("PATH", t.TempDir())
		t.Setenv("HOME", "")
		t.Setenv("XDG_CACHE_HOME", "")
		t.Setenv(EnvCache, "")
		r := Diagnose(t.Context(), dummyShim(), Options{})
		assert.False(t, r.Ready)
		assert.Equal(t, Failure, find(r, "libtorch").State)
		assert.Contains(t, find(r, "libtorch").Do, "pip install torch")
		assert.Equal(t, Failure, find(r, "compiler").State)
		assert.Contains(t, find(r, "compiler").Do, "apt install g++")
		assert.Equal(t, Failure, find(r, "cache").State)
		assert.Equal(t, Failure, find(r, "shim").State)
		text, err := json.Marshal(r)
		require.NoError(t, err)
		assert.Contains(t, string(text), `"candidates":[]`)
	})
	t.Run("libtorch but no shim", func(t *testing.T) {
		isolate(t)
		withoutPython(t)
		root := fakeTorch(t, filepath.Join(t.TempDir(), "site-packages"), "2.15.0+cpu")
		systemDirs = []string{root}
		r := Diagnose(t.Context(), dummyShim(), Options{})
		assert.False(t, r.Ready)
		assert.Equal(t, OK, find(r, "libtorch").State)
		assert.Equal(t, Warning, find(r, "torchvision").State)
		shim := find(r, "shim")
		assert.Equal(t, Failure, shim.State)
		assert.Contains(t, shim.Found+shim.Do, "torchvit setup")
	})
	t.Run("ready", func(t *testing.T) {
		isolate(t)
		root := fakeTorch(t, filepath.Join(t.TempDir(), "site-packages"), "2.15.0+cpu")
		_, err := Setup(t.Context(), dummyShim(), Options{LibTorch: root})
		require.NoError(t, err)
		r := Diagnose(t.Context(), dummyShim(), Options{})
		assert.True(t, r.Ready)
		assert.Equal(t, OK, find(r, "shim").State)
		assert.Contains(t, find(r, "libtorch").Found, "2.15.0+cpu")
		assert.Contains(t, find(r, "openmp").Found, "libgomp.so.1")
		for _, c := range r.Checks {
			assert.NotEqual(t, Failure, c.State, "%+v", c)
		}
	})
	t.Run("a place that is no libtorch", func(t *testing.T) {
		isolate(t)
		r := Diagnose(t.Context(), dummyShim(), Options{LibTorch: "/no/such/folder"})
		assert.False(t, r.Ready)
		require.Len(t, r.Candidates, 1)
		assert.Contains(t, r.Candidates[0].Problem, "/no/such/folder")
	})
}
