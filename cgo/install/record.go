package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

const (
	recordName   = "installed.json"
	manifestName = "install.json"
	recordFormat = 1
	// Shims of so many source versions and libtorchs are kept side by side.
	recordLimit = 12
)

// record lists what was set up, the present choice first.
type record struct {
	Format   int       `json:"format"`
	Installs []Install `json:"installs"`
}

// readRecord gives an empty record where there is none.
func readRecord(cache string) (*record, error) {
	path := filepath.Join(cache, recordName)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return &record{Format: recordFormat}, nil
	}
	if err != nil {
		return nil, err
	}
	r := &record{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	if r.Format != recordFormat {
		return nil, fmt.Errorf("%s has format %d, want %d", path, r.Format, recordFormat)
	}
	return r, nil
}

// choose puts an install first and drops the oldest ones.
func (r *record) choose(in Install) (dropped []Install) {
	r.Format = recordFormat
	r.Installs = slices.DeleteFunc(r.Installs, func(old Install) bool { return old.Key == in.Key })
	r.Installs = slices.Insert(r.Installs, 0, in)
	if len(r.Installs) > recordLimit {
		dropped = slices.Clone(r.Installs[recordLimit:])
		r.Installs = r.Installs[:recordLimit]
	}
	return dropped
}

func (r *record) write(cache string) error {
	return writeJSON(filepath.Join(cache, recordName), r)
}

// writeJSON replaces a file at once, never half of it.
func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.part")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// readManifest reads the install.json of a finished folder. In a portable one
// the paths are relative to it.
func readManifest(dir string) (*Install, error) {
	path := filepath.Join(dir, manifestName)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	in := &Install{}
	if err := json.Unmarshal(text, in); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	if in.Portable {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, err
		}
		in.mapPaths(func(path string) string { return filepath.Join(abs, path) })
	}
	return in, nil
}

// mapPaths changes every path that an install holds.
func (in *Install) mapPaths(change func(string) string) {
	one := func(p *string) {
		if *p != "" {
			*p = change(*p)
		}
	}
	t := &in.LibTorch
	for _, p := range []*string{
		&in.Dir, &in.Shim, &in.ShimCUDA, &in.MKLFast, &in.StubDir,
		&t.Root, &t.LibDir, &t.OpenMP, &t.TorchvisionOps, &t.TorchvisionImage,
	} {
		one(p)
	}
	for _, list := range [][]string{in.Stubs, t.IncludeDirs, t.CUDAIncludeDirs, t.CUDALibDirs} {
		for i := range list {
			one(&list[i])
		}
	}
	sizes := make(map[string]int64, len(in.Sizes))
	for path, size := range in.Sizes {
		sizes[change(path)] = size
	}
	in.Sizes = sizes
}

// measure notes the sizes of the files that the install needs.
func (in *Install) measure(more ...string) error {
	in.Sizes = map[string]int64{}
	t := in.LibTorch
	paths := []string{
		in.Shim, in.ShimCUDA, in.MKLFast,
		filepath.Join(t.LibDir, cpuLibrary), filepath.Join(t.LibDir, "libc10.so"), t.OpenMP, t.TorchvisionOps, t.TorchvisionImage,
	}
	for _, path := range slices.Concat(paths, in.Stubs, more) {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		in.Sizes[path] = info.Size()
	}
	return nil
}

// check says what is wrong with a recorded install, nil where it can be opened.
func (in *Install) check() error {
	if !in.Portable {
		now := LibTorch{Root: in.LibTorch.Root, LibDir: in.LibTorch.LibDir}
		if err := now.readVersion(); err != nil {
			return fmt.Errorf("torch %s is no longer at %s", in.LibTorch.Version, in.LibTorch.Root)
		}
		if now.Version != in.LibTorch.Version {
			return fmt.Errorf("torch at %s is now %s, the shim was compiled for %s", in.LibTorch.Root, now.Version, in.LibTorch.Version)
		}
	}
	for _, path := range sortedKeys(in.Sizes) {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("%s is missing", path)
		}
		if info.Size() != in.Sizes[path] {
			return fmt.Errorf("%s has %d bytes, %d were recorded", path, info.Size(), in.Sizes[path])
		}
	}
	return nil
}
