package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Places that a person or a distribution puts libtorch in.
var systemDirs = []string{"/opt/libtorch", "/usr/local/libtorch", "/usr/local", "/usr"}

// candidate is one place that was looked at.
type candidate struct {
	path, source string
	torch        LibTorch
	err          error
}

// Find lists the libtorchs of this machine, first choice first: options,
// TORCHVIT_LIBTORCH, a .venv in the working folder or above it, the python3 on
// PATH, and the system's folders. A libtorch that the options or the variable
// name is the only one looked at, and an error where it is none.
func Find(ctx context.Context, o Options) ([]LibTorch, error) {
	places, err := search(ctx, o)
	if err != nil {
		return nil, err
	}
	var found []LibTorch
	for _, c := range places {
		if c.err == nil {
			found = append(found, c.torch)
		} else if c.source == "option" || c.source == "env" {
			return nil, c.err
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w in a .venv here or above, in python3's site-packages, or in %v: "+
			"run `python3 -m venv .venv && .venv/bin/pip install torch torchvision`, or name one with --libtorch", ErrNotFound, systemDirs)
	}
	return found, nil
}

// search looks at each place once, and keeps what is wrong with it.
func search(ctx context.Context, o Options) ([]candidate, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var places []candidate
	seen := map[string]bool{}
	add := func(path, source string) {
		torch, err := probe(path, source)
		root := torch.Root
		if err != nil {
			root = path
		}
		if !seen[root] {
			seen[root] = true
			places = append(places, candidate{path: path, source: source, torch: torch, err: err})
		}
	}
	switch dir := os.Getenv(EnvLibTorch); {
	case o.LibTorch != "":
		add(o.LibTorch, "option")
		return places, nil
	case o.Python != "":
		dirs, err := sitePackages(ctx, o.Python)
		if err != nil {
			return nil, err
		}
		for _, dir := range dirs {
			if isDir(filepath.Join(dir, "torch")) {
				add(filepath.Join(dir, "torch"), "option")
			}
		}
		if len(places) == 0 {
			return nil, fmt.Errorf("%w: %s has no torch: run `%s -m pip install torch torchvision`", ErrNotFound, o.Python, o.Python)
		}
		return places, nil
	case dir != "":
		if isFile(filepath.Join(dir, manifestName)) {
			return nil, fmt.Errorf("%s=%s is a folder that setup wrote, which can only be run: unset it, or name a libtorch with --libtorch", EnvLibTorch, dir)
		}
		add(dir, "env")
		return places, nil
	}
	for _, venv := range virtualEnvs() {
		found, _ := filepath.Glob(filepath.Join(venv, "lib*", "python3*", "site-packages", "torch"))
		for _, dir := range found {
			add(dir, "venv")
		}
	}
	if python, err := exec.LookPath("python3"); err == nil {
		dirs, err := sitePackages(ctx, python)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			places = append(places, candidate{path: python, source: "python3", err: err})
		}
		for _, dir := range dirs {
			if isDir(filepath.Join(dir, "torch")) {
				add(filepath.Join(dir, "torch"), "python3")
			}
		}
	}
	for _, dir := range systemDirs {
		if _, _, err := locate(dir); err == nil {
			add(dir, "system")
		}
	}
	return places, nil
}

// virtualEnvs lists the .venv folders from the working folder upward.
func virtualEnvs() []string {
	dir, err := os.Getwd()
	if err != nil {
		return nil
	}
	var found []string
	for {
		if venv := filepath.Join(dir, ".venv"); isDir(venv) {
			found = append(found, venv)
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return found
		}
		dir = parent
	}
}

// sitePackages asks an interpreter for its folders. -I keeps the working
// folder and PYTHONPATH out, so that nothing that lies about is imported.
func sitePackages(ctx context.Context, python string) ([]string, error) {
	const script = `import json, site, sys
print(json.dumps(sys.path + [site.getusersitepackages()]))`
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, python, "-I", "-c", script).Output()
	if err != nil {
		reason := err.Error()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && len(exit.Stderr) > 0 {
			reason = oneLine(string(exit.Stderr))
		}
		return nil, fmt.Errorf("cannot ask %s for its site-packages: %s", python, reason)
	}
	var dirs []string
	if err := json.Unmarshal(out, &dirs); err != nil {
		return nil, fmt.Errorf("cannot ask %s for its site-packages: %w", python, err)
	}
	return dirs, nil
}
