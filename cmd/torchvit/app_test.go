package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/cgo/install"
)

// cli runs the program as a shell would.
func cli(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// bareMachine has no libtorch, no compiler, no python and an empty home.
func bareMachine(t *testing.T) {
	t.Helper()
	t.Setenv("PATH", t.TempDir())
	t.Setenv("CXX", "")
	t.Setenv(install.EnvLibTorch, "")
	t.Setenv(install.EnvCache, t.TempDir())
	t.Chdir(t.TempDir())
}

func TestExitCodes(t *testing.T) {
	bareMachine(t)
	for _, c := range []struct {
		name   string
		args   []string
		code   int
		stderr string
	}{
		{"no arguments", nil, exitOK, ""},
		{"help", []string{"help", "setup"}, exitOK, ""},
		{"version", []string{"version"}, exitOK, ""},
		{"unknown command", []string{"clasify"}, exitUsage, "unknown command"},
		{"unknown flag", []string{"doctor", "--jsn"}, exitUsage, "--jsn"},
		{"flag without value", []string{"setup", "--output"}, exitUsage, "--output"},
		{"flag of the wrong kind", []string{"doctor", "--threads", "two"}, exitUsage, "two"},
		{"negative threads", []string{"doctor", "--threads", "-1"}, exitUsage, "--threads -1"},
		{"argument too many", []string{"doctor", "model.pt"}, exitUsage, "model.pt"},
		{"flags that exclude each other", []string{"setup", "--python", "p", "--libtorch", "l"}, exitUsage, "exclude"},
		{"nothing to set up", []string{"setup", "--libtorch", "/no/such"}, exitError, "/no/such"},
		{"not ready", []string{"doctor"}, exitError, "not ready"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, stdout, stderr := cli(t, c.args...)
			assert.Equal(t, c.code, code, stderr)
			if c.code == exitOK {
				assert.NotEmpty(t, stdout)
				assert.Empty(t, stderr)
				return
			}
			assert.Contains(t, stderr, c.stderr)
			assert.Regexp(t, `^torchvit: [^\n]+\n$`, stderr, "one line")
		})
	}
}

func TestDoctorOnABareMachine(t *testing.T) {
	bareMachine(t)
	code, stdout, stderr := cli(t, "doctor", "--json", "--lanes", "2", "--threads", "3")
	assert.Equal(t, exitError, code)
	assert.Contains(t, stderr, "pip install torch")
	var report doctorReport
	require.NoError(t, json.Unmarshal([]byte(stdout), &report))
	assert.False(t, report.Ready)
	assert.Equal(t, 2, report.Threads.Lanes)
	assert.Equal(t, 3, report.Threads.IntraOp)
	names := map[string]install.Check{}
	for _, c := range report.Checks {
		names[c.Name] = c
	}
	for _, name := range []string{"system", "libtorch", "shim", "compiler", "threads"} {
		assert.Contains(t, names, name)
	}
	for _, c := range report.Checks {
		if c.State == install.Failure {
			assert.Contains(t, c.Do+c.Found, "`", "%+v must say what to type", c)
		}
	}

	_, text, _ := cli(t, "doctor")
	assert.Contains(t, text, "FAIL")
	assert.Contains(t, text, "-> ")
}

func TestThreadPlan(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	plan := newThreadPlan(&app{})
	assert.Equal(t, 1, plan.Lanes)
	assert.Equal(t, plan.GOMAXPROCS, plan.IntraOp)
	assert.Equal(t, install.OK, threadPlan{CPUs: 4, Lanes: 2, IntraOp: 2}.check().State)
	assert.Equal(t, install.Warning, threadPlan{CPUs: 4, Lanes: 2, IntraOp: 3}.check().State)
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		code, stdout, _ := cli(t, "completion", shell)
		assert.Equal(t, exitOK, code)
		assert.Contains(t, stdout, "torchvit")
	}
	_, stdout, _ := cli(t, "__complete", "do")
	assert.Contains(t, stdout, "doctor")
}

func TestEveryCommandIsDocumented(t *testing.T) {
	root := newRootCommand(&app{})
	seen := 0
	for _, cmd := range root.Commands() {
		if cmd.Name() == "help" || cmd.Name() == "completion" {
			continue
		}
		seen++
		assert.NotEmpty(t, cmd.Short, cmd.Name())
		assert.NotNil(t, cmd.Args, "%s must say how many arguments it takes", cmd.Name())
		assert.NotNil(t, cmd.RunE, "%s must return its errors", cmd.Name())
	}
	assert.Equal(t, len(commands), seen)
}

// TestErrorsOfWork has a command that fails after it began, in three ways.
func TestErrorsOfWork(t *testing.T) {
	var work func(context.Context) error
	old := commands
	t.Cleanup(func() { commands = old })
	commands = append([]func(*app) *cobra.Command{func(*app) *cobra.Command {
		return &cobra.Command{Use: "work", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return work(cmd.Context()) }}
	}}, old...)

	work = func(context.Context) error { return errors.New("first line\n  second line\n") }
	code, _, stderr := cli(t, "work")
	assert.Equal(t, exitError, code)
	assert.Equal(t, "torchvit: first line | second line\n", stderr)

	work = func(context.Context) error { return usagef("want an image, got %q", "x.txt") }
	code, _, stderr = cli(t, "work")
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, stderr, `want an image, got "x.txt"`)

	work = func(ctx context.Context) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	var errs bytes.Buffer
	code = run(ctx, []string{"work"}, strings.NewReader(""), &bytes.Buffer{}, &errs)
	assert.Equal(t, exitError, code)
	assert.Equal(t, "torchvit: interrupted\n", errs.String())
}

func TestSetupOutputIsNotOverwritten(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "precious.txt"), []byte("x"), 0o644))
	code, _, stderr := cli(t, "setup", "--output", dir)
	assert.Equal(t, exitError, code)
	assert.Contains(t, stderr, "holds other files")
	assert.FileExists(t, filepath.Join(dir, "precious.txt"))
}
