package jit_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
)

// TestCUDAModules runs a module on the device: loaded there, moved there, and given a tensor of the CPU.
func TestCUDAModules(t *testing.T) {
	testmain.RequireCUDA(t)
	cuda := torch.Device{Type: "cuda"}
	x := tensorOf(t, []float32{1, 2, 3, 4}, 2, 2)
	there, err := x.To(cuda)
	require.NoError(t, err)
	t.Cleanup(func() { there.Close() })

	moved := load(t, "methods")
	require.NoError(t, moved.To(cuda))
	loaded, err := jit.Load(modulePath(t, "methods"), jit.LoadOptions{Device: cuda})
	require.NoError(t, err)
	t.Cleanup(func() { loaded.Close() })
	for _, m := range []*jit.Module{moved, loaded} {
		y, ok := call(t, m, "forward", there).(*torch.Tensor)
		require.True(t, ok)
		assert.Equal(t, cuda, y.Device())
		assert.Equal(t, []float32{7, 10, 15, 22}, floats(t, y))
		_, err := m.Forward(t.Context(), x)
		assert.ErrorIs(t, err, torch.ErrDevice)
	}
	same, ok := call(t, load(t, "identity"), "forward", there).(*torch.Tensor)
	require.True(t, ok)
	assert.Equal(t, there.DataPtr(), same.DataPtr())
}
