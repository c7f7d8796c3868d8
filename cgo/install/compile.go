package install

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// Names of what a set-up makes.
const (
	shimName     = "libtorchvit_shim.so"
	shimCUDAName = "libtorchvit_shim_cuda.so"
	mklFastName  = "libtorchvit_mkl_fast.so"
	stubsName    = "stubs"
	pchName      = "pch.h"
	cudaPrefix   = "cuda_"
)

// mklFastSource makes MKL believe that it runs on an Intel processor, when it
// is opened before libtorch_cpu.
const mklFastSource = "__attribute__((visibility(\"default\"))) int mkl_serv_intel_cpu_true(void) { return 1; }\n"

// sourceFiles reads the shim's sources from the root of an fs.FS.
func sourceFiles(sources fs.FS) (map[string][]byte, error) {
	if sources == nil {
		return nil, errors.New("no shim sources given")
	}
	files := map[string][]byte{}
	entries, err := fs.ReadDir(sources, ".")
	if err != nil {
		return nil, fmt.Errorf("shim sources: %w", err)
	}
	for _, e := range entries {
		if ext := path.Ext(e.Name()); e.Type().IsRegular() && (ext == ".h" || ext == ".cc") {
			if files[e.Name()], err = fs.ReadFile(sources, e.Name()); err != nil {
				return nil, fmt.Errorf("shim sources: %w", err)
			}
		}
	}
	return files, nil
}

// hashFiles is one hash over names and contents; include picks the files.
func hashFiles(files map[string][]byte, include func(name string) bool) string {
	h := sha256.New()
	for _, name := range sortedKeys(files) {
		if include(name) {
			fmt.Fprintf(h, "%s %d\n", name, len(files[name]))
			h.Write(files[name])
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:20]
}

func sourcesHash(sources fs.FS) (string, error) {
	files, err := sourceFiles(sources)
	if err != nil {
		return "", err
	}
	return hashFiles(files, func(string) bool { return true }), nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// compiler is a C++ compiler and what it says of itself.
type compiler struct {
	path    string
	version string // first line of --version
	clang   bool
}

func findCompiler(ctx context.Context, named string) (*compiler, error) {
	names := []string{"g++", "clang++", "c++"}
	switch cxx := os.Getenv("CXX"); {
	case named != "":
		names = []string{named}
	case cxx != "":
		names = []string{cxx}
	}
	for _, name := range names {
		file, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		out, err := exec.CommandContext(ctx, file, "--version").Output()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, &Error{Step: "compiler", Reason: fmt.Sprintf("%s --version failed: %v", file, err), Err: err}
		}
		version := oneLine(string(out))
		return &compiler{path: file, version: version, clang: strings.Contains(version, "clang")}, nil
	}
	return nil, &Error{
		Step:   "compiler",
		Reason: fmt.Sprintf("no C++ compiler (looked for %s): install one (Debian: `apt install g++`) or name it with --compiler", strings.Join(names, ", ")),
		Err:    exec.ErrNotFound,
	}
}

// build is one compilation of the shim.
type build struct {
	o     *Options
	torch *LibTorch
	cxx   *compiler
	files map[string][]byte
	dir   string // finished files
	src   string // sources, and the precompiled header
	obj   string // object files
	group slots
}

// flags are those of every C++ file; they are part of the key.
func (b *build) flags() []string {
	flags := []string{
		fmt.Sprintf("-std=c++%d", b.torch.CXXStandard),
		"-fPIC", "-fvisibility=hidden", "-pthread", "-DNDEBUG", "-Wall", "-Wextra", "-Werror",
	}
	if b.torch.CXX11ABI {
		flags = append(flags, "-D_GLIBCXX_USE_CXX11_ABI=1")
	} else {
		flags = append(flags, "-D_GLIBCXX_USE_CXX11_ABI=0")
	}
	if b.o.ASan {
		flags = append(flags, "-O1", "-g1", "-fsanitize=address", "-fno-omit-frame-pointer")
	} else {
		flags = append(flags, "-O3")
	}
	for _, dir := range b.torch.IncludeDirs {
		flags = append(flags, "-isystem", dir)
	}
	return flags
}

func (b *build) withCUDA() bool {
	return len(b.torch.CUDAIncludeDirs) > 0 && slices.ContainsFunc(sortedKeys(b.files), isCUDASource)
}

func isCUDASource(name string) bool {
	return strings.HasPrefix(name, cudaPrefix) && strings.HasSuffix(name, ".cc")
}

// key names the finished folder: the same key, the same files.
func (b *build) key() string {
	h := sha256.New()
	fmt.Fprintln(h, "layout 2", hashFiles(b.files, func(string) bool { return true }))
	b.hashConfig(h)
	return hex.EncodeToString(h.Sum(nil))[:20]
}

// configKey is the key without the sources, for kept objects.
func (b *build) configKey() string {
	h := sha256.New()
	b.hashConfig(h)
	return hex.EncodeToString(h.Sum(nil))[:20]
}

func (b *build) hashConfig(w interface{ Write([]byte) (int, error) }) {
	fmt.Fprintf(w, "%s\n%s\n%q\n", b.cxx.path, b.cxx.version, b.flags())
	fmt.Fprintf(w, "%s\n%s\n%v\n", b.torch.Version, b.torch.Root, b.o.ASan)
	fmt.Fprintf(w, "%s\n%s\n%v\n", b.torch.TorchvisionOps, b.torch.TorchvisionImage, b.torch.CUDAIncludeDirs)
	// A libtorch built anew at the same place has the same version.
	for _, name := range []string{cpuLibrary, "libc10.so"} {
		if info, err := os.Stat(filepath.Join(b.torch.LibDir, name)); err == nil {
			fmt.Fprintf(w, "%s %d\n", name, info.Size())
		}
	}
}

// run compiles and links all into b.dir.
func (b *build) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, dir := range []string{b.src, b.obj, filepath.Join(b.dir, stubsName)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for name, text := range b.files {
		if err := writeIfChanged(filepath.Join(b.src, name), text); err != nil {
			return err
		}
	}
	b.group = newSlots(runtime.GOMAXPROCS(0))

	objects, cudaObjects, err := b.compileAll(ctx, cancel)
	if err != nil {
		return err
	}
	b.o.logf("linking %s", shimName)
	if err := b.link(ctx, shimName, objects, []string{"-ltorch_cpu", "-lc10"}, nil); err != nil {
		return err
	}
	if len(cudaObjects) > 0 {
		b.o.logf("linking %s", shimCUDAName)
		libs := []string{filepath.Join(b.dir, shimName), "-ltorch_cuda", "-lc10_cuda", "-ltorch_cpu", "-lc10"}
		for _, dir := range b.torch.CUDALibDirs {
			found, _ := filepath.Glob(filepath.Join(dir, "libcudart.so*"))
			if len(found) > 0 {
				libs = append(libs, found[0])
				break
			}
		}
		return b.link(ctx, shimCUDAName, cudaObjects, libs, b.torch.CUDALibDirs)
	}
	return nil
}

// precompile saves some ten seconds for each file that includes torch.
func (b *build) precompile(ctx context.Context) error {
	if b.files[pchName] == nil {
		return nil
	}
	out := filepath.Join(b.src, pchName+b.pchSuffix())
	stamp := out + ".stamp"
	want := hashFiles(b.files, func(name string) bool { return name == pchName })
	if got, err := os.ReadFile(stamp); err == nil && string(got) == want && isFile(out) {
		return nil
	}
	b.o.logf("precompiling torch's headers")
	b.group.acquire()
	defer b.group.release()
	// -w: the header is a main file here, which "#pragma once" warns of.
	args := append(b.flags(), "-w", "-x", "c++-header", filepath.Join(b.src, pchName), "-o", out)
	if err := b.tool(ctx, "precompiling torch's headers", args...); err != nil {
		return err
	}
	return os.WriteFile(stamp, []byte(want), 0o644)
}

func (b *build) pchSuffix() string {
	if b.cxx.clang {
		return ".pch"
	}
	return ".gch"
}

// compileAll makes the object files and the small libraries, as many at a time
// as there are processors. What needs no torch header does not wait for the
// precompiled one.
func (b *build) compileAll(ctx context.Context, cancel context.CancelFunc) (objects, cudaObjects []string, err error) {
	var names []string
	for _, name := range sortedKeys(b.files) {
		if strings.HasSuffix(name, ".cc") && (!isCUDASource(name) || b.withCUDA()) {
			names = append(names, name)
		}
	}
	// The biggest first, so that no long one is left for the end.
	slices.SortStableFunc(names, func(x, y string) int { return cmp.Compare(len(b.files[y]), len(b.files[x])) })
	headers := hashFiles(b.files, func(name string) bool { return strings.HasSuffix(name, ".h") })

	var all tasks
	var mu sync.Mutex
	var lacking *Error // a CUDA header that no package brought: CPU users can do without
	done := 0
	one := func(name, object string) error {
		b.group.acquire()
		defer b.group.release()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		start := time.Now()
		how := "kept"
		if !isFile(object) {
			err := b.compile(ctx, name, object)
			if e, ok := errors.AsType[*Error](err); ok && isCUDASource(name) && missingHeader.MatchString(e.Reason) {
				mu.Lock()
				defer mu.Unlock()
				lacking = e
				return nil
			}
			if err != nil {
				return err
			}
			how = time.Since(start).Round(100 * time.Millisecond).String()
		}
		mu.Lock()
		defer mu.Unlock()
		done++
		b.o.logf("compiled %s (%d/%d, %s)", name, done, len(names), how)
		return nil
	}
	pch := make(chan struct{})
	all.run(cancel, func() error {
		defer close(pch)
		return b.precompile(ctx)
	})
	for _, name := range names {
		object := filepath.Join(b.obj, name+"-"+headers+"-"+hashFiles(b.files, func(n string) bool { return n == name })+".o")
		if isCUDASource(name) {
			cudaObjects = append(cudaObjects, object)
		} else {
			objects = append(objects, object)
		}
		all.run(cancel, func() error {
			if b.needsTorch(name) {
				<-pch
			}
			return one(name, object)
		})
	}
	all.run(cancel, func() error { return b.compileMKLFast(ctx) })
	all.run(cancel, func() error { return b.compileStubs(ctx) })
	err = firstCause(all.wait())
	if lacking != nil {
		b.o.logf("the CUDA side library is left out: %s", lacking.Reason)
		cudaObjects = nil
	}
	return objects, cudaObjects, err
}

var missingHeader = regexp.MustCompile(`fatal error: .*(No such file or directory|file not found)`)

var includeLine = regexp.MustCompile(`(?m)^\s*#\s*include\s*([<"])([^>"]+)[>"]`)

// needsTorch says whether a source includes a header of torch, by itself or
// through the shim's own headers.
func (b *build) needsTorch(name string) bool {
	seen := map[string]bool{name: true}
	for queue := []string{name}; len(queue) > 0; queue = queue[1:] {
		for _, m := range includeLine.FindAllSubmatch(b.files[queue[0]], -1) {
			file := string(m[2])
			if _, own := b.files[file]; own {
				if !seen[file] {
					seen[file] = true
					queue = append(queue, file)
				}
			} else if strings.Contains(file, "/") { // torch/, ATen/, c10/; the standard's have none
				return true
			}
		}
	}
	return false
}

func (b *build) compile(ctx context.Context, name, object string) error {
	args := b.flags()
	if isCUDASource(name) {
		for _, dir := range b.torch.CUDAIncludeDirs {
			args = append(args, "-isystem", dir)
		}
	}
	if b.files[pchName] != nil && b.needsTorch(name) {
		if b.cxx.clang {
			args = append(args, "-include-pch", filepath.Join(b.src, pchName+b.pchSuffix()))
		} else {
			args = append(args, "-include", filepath.Join(b.src, pchName))
		}
	}
	part := object + ".part"
	args = append(args, "-c", filepath.Join(b.src, name), "-o", part)
	if err := b.tool(ctx, "compiling "+name, args...); err != nil {
		return err
	}
	return os.Rename(part, object)
}

// link makes a shared library whose every symbol resolves, now and not at its
// first call. $ORIGIN/lib is where a folder written with Options.Output has
// libtorch.
func (b *build) link(ctx context.Context, name string, objects, libs, dirs []string) error {
	args := []string{"-shared", "-pthread", "-o", filepath.Join(b.dir, name), "-Wl,-soname," + name}
	args = append(args, objects...)
	args = append(args, "-Wl,--no-as-needed", "-L"+b.torch.LibDir)
	args = append(args, libs...)
	args = append(args, "-Wl,--disable-new-dtags", "-Wl,-rpath,$ORIGIN:$ORIGIN/lib", "-Wl,-rpath,"+b.torch.LibDir,
		"-Wl,-Bsymbolic", "-Wl,--allow-shlib-undefined", "-Wl,-z,now")
	for _, dir := range dirs {
		args = append(args, "-Wl,-rpath,"+dir)
	}
	if b.o.ASan {
		args = append(args, "-fsanitize=address") // its symbols come from the executable
	} else {
		args = append(args, "-Wl,-z,defs")
	}
	return b.tool(ctx, "linking "+name, args...)
}

func (b *build) compileMKLFast(ctx context.Context) error {
	return b.compileC(ctx, mklFastSource, filepath.Join(b.dir, mklFastName), mklFastName)
}

// compileC makes a shared library of plain C that depends on nothing.
func (b *build) compileC(ctx context.Context, source, out, soname string) error {
	b.group.acquire()
	defer b.group.release()
	name := filepath.Base(out)
	file := filepath.Join(b.obj, name+".c")
	if err := os.WriteFile(file, []byte(source), 0o644); err != nil {
		return err
	}
	return b.tool(ctx, "making "+name, "-x", "c", "-shared", "-fPIC", "-nostdlib", "-O1", "-o", out, file, "-Wl,-soname,"+soname)
}

// tool runs the compiler; what it says goes into the error.
func (b *build) tool(ctx context.Context, step string, args ...string) error {
	cmd := exec.CommandContext(ctx, b.cxx.path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TMPDIR="+b.obj)
	cmd.WaitDelay = 5 * time.Second
	ownGroup(cmd)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	detail := strings.ReplaceAll(out.String(), b.src+string(filepath.Separator), "")
	reason := ""
	for line := range strings.Lines(detail) {
		if strings.Contains(line, "error:") || strings.Contains(line, "undefined reference") {
			reason = strings.TrimSpace(line)
			break
		}
	}
	switch {
	case strings.Contains(detail, "Killed signal"):
		reason = "the compiler was killed, probably for memory (one file needs 2 GB): try again with GOMAXPROCS=1"
	case strings.Contains(detail, "No space left on device"):
		reason = "no space left on the device (the build needs 1 GB for a while): make room or set " + EnvCache
	case reason == "":
		reason = cmp.Or(oneLine(detail), err.Error())
	}
	return &Error{Step: step, Reason: reason, Detail: detail, Err: err}
}

// slots is a counting semaphore.
type slots chan struct{}

func newSlots(n int) slots { return make(slots, max(n, 1)) }
func (s slots) acquire()   { s <- struct{}{} }
func (s slots) release()   { <-s }

// tasks runs functions side by side; the first failure stops the others.
type tasks struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	errs []error
}

func (t *tasks) run(stop context.CancelFunc, f func() error) {
	t.wg.Go(func() {
		if err := f(); err != nil {
			stop()
			t.mu.Lock()
			defer t.mu.Unlock()
			t.errs = append(t.errs, err)
		}
	})
}

func (t *tasks) wait() error {
	t.wg.Wait()
	return errors.Join(t.errs...)
}

// firstCause picks the failure that stopped the others out of a joined error.
func firstCause(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if e = firstCause(e); !errors.Is(e, context.Canceled) {
				return e
			}
		}
	}
	return err
}

// writeIfChanged leaves the file's time alone where nothing is new.
func writeIfChanged(path string, text []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	return os.WriteFile(path, text, 0o644)
}
