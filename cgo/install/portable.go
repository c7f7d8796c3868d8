package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// closure lists the libraries that the CPU plan opens, and those that they
// need in turn, without the system's own and without the stubs.
func (in *Install) closure() ([]string, error) {
	t := in.LibTorch
	queue := []string{filepath.Join(t.LibDir, cpuLibrary), filepath.Join(t.LibDir, "libc10.so"), t.OpenMP, t.TorchvisionOps, t.TorchvisionImage}
	stubs := map[string]bool{}
	for _, path := range in.Stubs {
		stubs[filepath.Base(path)] = true
	}
	var paths []string
	seen := map[string]bool{}
	for len(queue) > 0 {
		path := queue[0]
		queue = queue[1:]
		if path == "" || seen[filepath.Base(path)] {
			continue
		}
		seen[filepath.Base(path)] = true
		paths = append(paths, path)
		lib, err := readLibrary(path)
		if err != nil {
			return nil, err
		}
		for _, name := range lib.needed {
			if !stubs[name] && !seen[name] {
				queue = append(queue, lib.find(name, t.LibDir))
			}
		}
	}
	return paths, nil
}

// outputFolder refuses a folder that holds anything but an earlier output.
func outputFolder(dir string) (string, error) {
	target, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	switch entries, err := os.ReadDir(target); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return "", fmt.Errorf("setup: output: %w", err)
	case len(entries) > 0 && !isFile(filepath.Join(target, manifestName)):
		return "", fmt.Errorf("setup: %s holds other files: name a new folder or an empty one", dir)
	}
	return target, nil
}

// writePortable writes Options.Output: the shim, the stubs, and under lib all
// that the CPU plan opens. Every path in its install.json is relative, and the
// libraries find each other by $ORIGIN, so the folder can be moved.
func writePortable(ctx context.Context, in *Install, o Options) (*Install, error) {
	target, err := outputFolder(o.Output)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(target), "."+filepath.Base(target)+"-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return nil, err
	}

	out := *in
	out.Portable, out.ShimCUDA = true, ""
	t := &out.LibTorch
	t.IncludeDirs, t.CUDAIncludeDirs, t.CUDALibDirs, t.CUDAVersion = nil, nil, nil, ""
	libs, err := in.closure()
	if err != nil {
		return nil, err
	}
	moved := map[string]string{} // from an absolute path to one in the folder
	for _, path := range libs {
		moved[path] = filepath.Join("lib", filepath.Base(path))
	}
	for _, path := range slices.Concat(in.Stubs, []string{in.Shim, in.MKLFast}) {
		moved[path] = strings.TrimPrefix(path, in.Dir+string(filepath.Separator))
	}
	for _, path := range sortedKeys(moved) {
		o.logf("copying %s", moved[path])
		if err := copyFile(ctx, filepath.Join(tmp, moved[path]), path); err != nil {
			return nil, fmt.Errorf("setup: output: %w", err)
		}
	}
	moved[t.LibDir], moved[t.Root], moved[in.Dir], moved[in.StubDir] = "lib", ".", ".", stubsName
	out.Stubs = slices.Clone(in.Stubs)
	out.Sizes = map[string]int64{}
	for path := range moved {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			out.Sizes[path] = info.Size()
		}
	}
	out.mapPaths(func(path string) string { return moved[path] })
	if err := writeJSON(filepath.Join(tmp, manifestName), &out); err != nil {
		return nil, err
	}
	if err := replaceDir(tmp, target); err != nil {
		return nil, err
	}
	return readManifest(target)
}

func copyFile(ctx context.Context, to, from string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}
