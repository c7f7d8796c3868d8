package coco

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// runPython gives cases to a script of testdata as a JSON file and reads what it prints. The interpreter is
// TORCHVIT_PYTHON or the repository's .venv, as in internal/testmain, which needs libtorch and this
// package does not.
func runPython(t testing.TB, script string, cases, answers any, args ...string) {
	t.Helper()
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	python := os.Getenv("TORCHVIT_PYTHON")
	if python == "" {
		python = filepath.Join(root, ".venv", "bin", "python")
	}
	_, err = os.Stat(python)
	require.NoError(t, err, "parity tests compare with Python in the same run: want the environment of `make test`")

	text, err := json.Marshal(cases)
	require.NoError(t, err)
	name := filepath.Join(t.TempDir(), "cases.json")
	require.NoError(t, os.WriteFile(name, text, 0o600))
	cmd := exec.Command(python, append([]string{filepath.Join("testdata", script), name}, args...)...)
	cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s: %s", script, out)
	require.NoError(t, json.Unmarshal(out, answers))
}
