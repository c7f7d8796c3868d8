package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Setup finds libtorch, compiles the shim against it unless that is done
// already, and records the choice. It takes up to a minute the first time, and
// a few milliseconds after. Two set-ups at once wait for each other; a failed
// or interrupted one leaves nothing behind.
func Setup(ctx context.Context, sources fs.FS, o Options) (*Install, error) {
	if runtime.GOOS != "linux" {
		return nil, fmt.Errorf("setup: torchvit runs on Linux, this is %s", runtime.GOOS)
	}
	files, err := sourceFiles(sources)
	if err != nil {
		return nil, err
	}
	if o.Output != "" { // a minute of compiling must not end in a refusal
		if _, err := outputFolder(o.Output); err != nil {
			return nil, err
		}
	}
	found, err := Find(ctx, o)
	if err != nil {
		return nil, err
	}
	torch := found[0]
	o.logf("libtorch %s at %s (%s)", torch.Version, torch.Root, torch.Source)
	cxx, err := findCompiler(ctx, o.Compiler)
	if err != nil {
		return nil, err
	}
	cache, err := o.cacheDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("cache folder: %w", err)
	}
	unlock, err := lock(ctx, cache, func() { o.logf("waiting for another set-up to end") })
	if err != nil {
		return nil, err
	}
	defer unlock()

	b := &build{o: &o, torch: &torch, cxx: cxx, files: files}
	in, err := b.cached(cache)
	if in == nil && err == nil {
		in, err = b.compileInto(ctx, cache)
	}
	if err != nil {
		return nil, err
	}
	if o.Output != "" {
		return writePortable(ctx, in, o)
	}
	r, err := readRecord(cache)
	if err != nil {
		o.logf("starting a new record: %v", err)
		r = &record{}
	}
	for _, old := range r.choose(*in) {
		if filepath.Dir(old.Dir) == cache {
			_ = os.RemoveAll(old.Dir)
		}
	}
	if err := r.write(cache); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	return in, nil
}

// cached gives the finished install of the same key, nil where there is none
// or it is damaged.
func (b *build) cached(cache string) (*Install, error) {
	if b.o.Force {
		return nil, nil
	}
	in, err := readManifest(filepath.Join(cache, b.key()))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = in.check()
	}
	if err != nil {
		b.o.logf("compiling again: %v", err)
		return nil, nil
	}
	in.LibTorch.Source = b.torch.Source
	b.o.logf("the shim is compiled already: %s", in.Dir)
	return in, nil
}

// compileInto builds in a folder of its own and renames it into place.
func (b *build) compileInto(ctx context.Context, cache string) (*Install, error) {
	start := time.Now()
	b.o.logf("compiler %s", b.cxx.version)
	if len(b.torch.CUDAIncludeDirs) == 0 && b.torch.CUDAVersion != "" {
		b.o.logf("no CUDA headers found: the CUDA side library is left out")
	}
	// The lock is held, so what lies there is of a set-up that was killed.
	stale, _ := filepath.Glob(filepath.Join(cache, "build-*"))
	for _, dir := range stale {
		_ = os.RemoveAll(dir)
	}
	tmp, err := os.MkdirTemp(cache, "build-")
	if err != nil {
		return nil, fmt.Errorf("cache folder: %w", err)
	}
	defer os.RemoveAll(tmp)
	b.dir = filepath.Join(tmp, "install")
	work := tmp
	if os.Getenv(EnvKeepObjects) != "" {
		work = filepath.Join(cache, "objects", b.configKey())
	}
	b.src, b.obj = filepath.Join(work, "src"), filepath.Join(work, "obj")
	if err := b.run(ctx); err != nil {
		if e, ok := errors.AsType[*Error](err); ok && e.Detail != "" {
			b.o.logf("%s", strings.TrimSpace(e.Detail))
		}
		return nil, err
	}

	final := filepath.Join(cache, b.key())
	in := &Install{
		LibTorch: *b.torch, Dir: final, Key: b.key(), ASan: b.o.ASan,
		Sources:  hashFiles(b.files, func(string) bool { return true }),
		Compiler: b.cxx.path + " (" + b.cxx.version + ")", BuiltAt: time.Now().UTC().Truncate(time.Second),
		Shim: filepath.Join(final, shimName), MKLFast: filepath.Join(final, mklFastName),
		StubDir: filepath.Join(final, stubsName), Stubs: []string{},
	}
	if isFile(filepath.Join(b.dir, shimCUDAName)) {
		in.ShimCUDA = filepath.Join(final, shimCUDAName)
	}
	stubs, err := b.torch.neededStubs()
	if err != nil {
		return nil, err
	}
	for _, stub := range stubs {
		in.Stubs = append(in.Stubs, filepath.Join(in.StubDir, stub))
	}
	if err := replaceDir(b.dir, final); err != nil {
		return nil, err
	}
	if err := in.measure(); err != nil {
		return nil, err
	}
	if err := writeJSON(filepath.Join(final, manifestName), in); err != nil {
		return nil, err
	}
	b.o.logf("compiled in %s: %s", time.Since(start).Round(100*time.Millisecond), final)
	return in, nil
}

// replaceDir moves a finished folder to where an older one may be. A process
// that has the older one's libraries open keeps them.
func replaceDir(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.Rename(from, to)
}
