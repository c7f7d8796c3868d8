package torchvit_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/cgo/install"
)

// goCommand gives a run of the go tool with a home that holds nothing of
// torchvit's or libtorch's. Go's own caches stay, and env comes last.
func goCommand(t *testing.T, dir string, env []string, args ...string) *exec.Cmd {
	t.Helper()
	caches, err := exec.Command("go", "env", "GOCACHE", "GOMODCACHE").Output()
	require.NoError(t, err)
	paths := strings.Fields(string(caches))
	require.Len(t, paths, 2)
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CACHE_HOME="+home, "XDG_CONFIG_HOME="+home,
		"GOCACHE="+paths[0], "GOMODCACHE="+paths[1], install.EnvLibTorch+"=", install.EnvCache+"=")
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// TestBuildsWithoutLibTorch proves that an editor, a linter and a build need
// no libtorch, with cgo and without.
func TestBuildsWithoutLibTorch(t *testing.T) {
	for _, enabled := range []string{"CGO_ENABLED=0", "CGO_ENABLED=1"} {
		for _, verb := range []string{"build", "vet"} {
			out, err := goCommand(t, ".", []string{enabled}, verb, "./...").CombinedOutput()
			assert.NoError(t, err, "%s go %s ./...: %s", enabled, verb, out)
		}
	}
	// The program says what is missing, in both builds, and does not crash.
	for _, enabled := range []string{"CGO_ENABLED=0", "CGO_ENABLED=1"} {
		binary := filepath.Join(t.TempDir(), "torchvit")
		out, err := goCommand(t, ".", []string{enabled}, "build", "-o", binary, "./cmd/torchvit").CombinedOutput()
		require.NoError(t, err, "%s", out)
		doctor := exec.CommandContext(t.Context(), binary, "doctor")
		doctor.Dir = t.TempDir()
		doctor.Env = []string{"HOME=" + t.TempDir(), "PATH="}
		out, err = doctor.CombinedOutput()
		assert.Equal(t, 1, doctor.ProcessState.ExitCode(), "%v", err)
		assert.Contains(t, string(out), "torchvit setup", enabled)
		if enabled == "CGO_ENABLED=0" {
			assert.Contains(t, string(out), "CGO_ENABLED=1")
		}
	}
}

const scratchProgram = `package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/torchvit/torchvit/torch"
)

func main() {
	x, err := torch.FromSlice([]float32{1, 2, 3, 4}, 2, 2)
	if errors.Is(err, torch.ErrNotInstalled) {
		fmt.Println("not installed:", err)
		os.Exit(3)
	}
	check(err)
	defer x.Close()
	y, err := torch.CallTensor(context.Background(), "aten::sum", x)
	check(err)
	defer y.Close()
	check(torch.WithData(y, func(sum []float32) error {
		fmt.Println("sum", sum[0])
		return nil
	}))
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
`

// TestFromAnotherModule builds and runs a program of another module that
// imports torchvit, without libtorch and with it.
func TestFromAnotherModule(t *testing.T) {
	root, err := os.Getwd()
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	write("main.go", scratchProgram)
	write("go.mod", "module example.org/scratch\n\ngo 1.26\n\nrequire "+module+" v0.0.0\n\nreplace "+module+" => "+root+"\n")
	sums, err := os.ReadFile("go.sum")
	require.NoError(t, err)
	write("go.sum", string(sums))

	out, err := goCommand(t, dir, []string{"GOFLAGS=-mod=mod"}, "build", "-o", "scratch", ".").CombinedOutput()
	require.NoError(t, err, "%s", out)

	// It never runs where torchvit's own sources or .venv are near.
	scratch := exec.CommandContext(t.Context(), filepath.Join(dir, "scratch"))
	scratch.Dir = dir
	scratch.Env = []string{"HOME=" + t.TempDir(), "PATH=/usr/bin:/bin"}
	out, _ = scratch.CombinedOutput()
	assert.Equal(t, 3, scratch.ProcessState.ExitCode(), "%s", out)
	assert.Contains(t, string(out), "torchvit setup")

	in, err := install.Resolve(cgo.Sources(), install.Options{})
	require.NoError(t, err, "make build prepares libtorch for the tests")
	cache, err := filepath.Abs(filepath.Dir(in.Dir))
	require.NoError(t, err)
	scratch = exec.CommandContext(t.Context(), filepath.Join(dir, "scratch"))
	scratch.Dir = dir
	scratch.Env = []string{"PATH=/usr/bin:/bin", install.EnvCache + "=" + cache, install.EnvLibTorch + "=" + in.LibTorch.Root}
	if in.Portable {
		scratch.Env = []string{"PATH=/usr/bin:/bin", install.EnvLibTorch + "=" + in.Dir}
	}
	out, err = scratch.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Equal(t, "sum 10\n", string(out))
}
