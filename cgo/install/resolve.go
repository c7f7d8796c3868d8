package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Resolve finds the compiled shim for this program: of the libtorch that
// o.LibTorch or TORCHVIT_LIBTORCH names, or else of the last set-up. It runs
// nothing and searches nothing. The error wraps ErrNotInstalled and says what
// to type.
func Resolve(sources fs.FS, o Options) (*Install, error) {
	in, err := resolve(sources, o)
	if err != nil && !errors.Is(err, ErrNotInstalled) {
		err = fmt.Errorf("%w: %w", ErrNotInstalled, err)
	}
	return in, err
}

func resolve(sources fs.FS, o Options) (*Install, error) {
	hash, err := sourcesHash(sources)
	if err != nil {
		return nil, err
	}
	named, by := o.LibTorch, "option"
	if named == "" {
		named, by = os.Getenv(EnvLibTorch), "env"
	}
	if named != "" && isFile(filepath.Join(named, manifestName)) {
		return resolveFolder(named, by, hash, o.ASan)
	}

	cache, err := o.cacheDir()
	if err != nil {
		return nil, err
	}
	r, err := readRecord(cache)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, HowTo)
	}
	command := HowTo
	root := ""
	if named != "" {
		if root, _, err = locate(named); err != nil {
			return nil, err
		}
		command = fmt.Sprintf("run `torchvit setup --libtorch %s`", named)
	}
	if o.ASan {
		command = "run `torchvit setup --asan`, which the asan build needs"
	}

	var other *Install // right but for its sources
	for i := range r.Installs {
		in := &r.Installs[i]
		if in.ASan != o.ASan || root != "" && in.LibTorch.Root != root {
			continue
		}
		if in.Sources != hash {
			if other == nil {
				other = in
			}
			continue
		}
		if err := in.check(); err != nil {
			return nil, fmt.Errorf("%w: %s", err, command)
		}
		in.LibTorch.Source = "record"
		if named != "" {
			in.LibTorch.Source = by
		}
		return in, nil
	}
	switch {
	case other != nil:
		return nil, fmt.Errorf("%w: the shim kept in %s is of another torchvit version: %s", ErrNotInstalled, cache, command)
	case root != "":
		return nil, fmt.Errorf("%w: no shim compiled for %s: %s", ErrNotInstalled, root, command)
	}
	return nil, fmt.Errorf("%w: %s", ErrNotInstalled, command)
}

// resolveFolder opens a folder that Setup wrote with Options.Output.
func resolveFolder(dir, by, hash string, asan bool) (*Install, error) {
	in, err := readManifest(dir)
	if err != nil {
		return nil, err
	}
	again := fmt.Sprintf("run `torchvit setup --output %s` again with this program's torchvit", dir)
	if in.Sources != hash {
		return nil, fmt.Errorf("%w: %s was written by another torchvit version: %s", ErrNotInstalled, dir, again)
	}
	if in.ASan != asan {
		return nil, fmt.Errorf("%w: %s was written with asan=%v, this program has asan=%v: %s", ErrNotInstalled, dir, in.ASan, asan, again)
	}
	if err := in.check(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, again)
	}
	in.LibTorch.Source = by
	return in, nil
}
