package jit_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
)

func TestMain(m *testing.M) {
	testmain.Children(children)
	testmain.Run(m, torch.Config{Device: "cpu", LaneThreads: []int{2, 1}})
}

// load loads testdata/modules/NAME.pt; the test's end closes it.
func load(t testing.TB, name string) *jit.Module {
	t.Helper()
	m, err := jit.Load(modulePath(t, name), jit.LoadOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

func modulePath(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(testmain.Root(t), "testdata", "modules", name+".pt")
}

// tensorOf copies data into a tensor that the test's end closes.
func tensorOf[T torch.Element](t testing.TB, data []T, shape ...int64) *torch.Tensor {
	t.Helper()
	x, err := torch.NewTensor(data, shape...)
	require.NoError(t, err)
	t.Cleanup(func() { x.Close() })
	return x
}

// state is the module of testdata/state.py, made by Python in this run.
func state(t testing.TB) *jit.Module {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.pt")
	testmain.RunPython(t, filepath.Join("torch", "jit", "testdata", "state.py"), path)
	m, err := jit.Load(path, jit.LoadOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}
