package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
)

// runAsProgram makes the test binary be the program itself, for what a process can do only once: choose a
// device, miss libtorch, end on a signal.
const runAsProgram = "TORCHVIT_TEST_AS_PROGRAM"

// peakFile names a file for the program's largest resident set: what the system tells of a child counts its
// parent's memory too.
const peakFile = "TORCHVIT_TEST_PEAK_FILE"

func TestMain(m *testing.M) {
	if os.Getenv(runAsProgram) != "" {
		code := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
		if path := os.Getenv(peakFile); path != "" {
			if err := os.WriteFile(path, fmt.Append(nil, peakRSS()), 0o644); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
		os.Exit(code)
	}
	// One thread: the models' references were made with one.
	testmain.Run(m, torch.Config{Device: "cpu", IntraOpThreads: 1})
}

// program prepares the program as a process of its own.
func program(t *testing.T, env []string, args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	cmd = exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(append(os.Environ(), runAsProgram+"=1"), env...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

// ok runs the program in this process and demands status 0.
func ok(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	code, stdout, stderr := cli(t, args...)
	require.Equal(t, exitOK, code, "torchvit %s\n%s", strings.Join(args, " "), stderr)
	return stdout, stderr
}

// fails runs the program in this process and demands that status and one line of error.
func fails(t *testing.T, want int, args ...string) (line string) {
	t.Helper()
	code, _, stderr := cli(t, args...)
	require.Equal(t, want, code, "torchvit %s\n%s", strings.Join(args, " "), stderr)
	require.Regexp(t, `^torchvit: [^\n]+\n$`, stderr, "torchvit %s: one line", strings.Join(args, " "))
	return stderr
}

// generated is a model of `make models`.
func generated(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(testmain.Root(t), "testdata", "generated", name)
	require.FileExists(t, path, "run `make models` first")
	return path
}

func tiny(t *testing.T, name string) string {
	t.Helper()
	return filepath.Join(testmain.Root(t), "testdata", "modules", name)
}

func photoFile(t *testing.T, name string) string {
	t.Helper()
	return filepath.Join(testmain.Root(t), "testdata", "images", name)
}

// photoFiles are the four photos that the models give enough for.
func photoFiles(t *testing.T) []string {
	var paths []string
	for _, name := range []string{"astronaut.jpg", "chelsea.png", "coffee.jpg", "rocket.jpg"} {
		paths = append(paths, photoFile(t, name))
	}
	return paths
}
