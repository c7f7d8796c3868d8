package jit_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
)

// TestGradientsThroughAModule: the parameters that a module gives are the leaves of its calls, in every run
// of TorchScript's executor, which records in the first and optimises in the next ones.
func TestGradientsThroughAModule(t *testing.T) {
	m := load(t, "attributes") // (x @ weight.T + bias) * 7
	require.NoError(t, m.Train(true))
	parameters, err := m.NamedParameters()
	require.NoError(t, err)
	for _, p := range parameters {
		defer p.Tensor.Close()
		require.True(t, p.Tensor.RequiresGrad(), p.Name)
	}
	forward, err := m.Method("forward")
	require.NoError(t, err)
	x := tensorOf(t, []float32{1, 2, 10, 20}, 2, 2)
	gradient := tensorOf(t, []float32{1, 3, 1, 3}, 2, 2)
	for run := float32(1); run <= 4; run++ {
		out, err := forward.CallWith(t.Context(), torch.CallOptions{Mode: torch.Grad}, x)
		require.NoError(t, err)
		y, _ := out.(*torch.Tensor)
		require.True(t, y.RequiresGrad())
		require.NoError(t, torch.Backward(t.Context(), y, torch.BackwardOptions{Gradient: gradient}))
		y.Close()
		for i, want := range [][]float32{{77, 154, 231, 462}, {14, 42}} {
			g, err := parameters[i].Tensor.Grad()
			require.NoError(t, err)
			require.NotNil(t, g)
			for k := range want {
				want[k] *= run // they add up
			}
			assert.Equal(t, want, floats(t, g))
			g.Close()
		}
	}

	// Inference is the default: no graph.
	y, _ := call(t, m, "forward", x).(*torch.Tensor)
	assert.ErrorIs(t, torch.Backward(t.Context(), y, torch.BackwardOptions{Gradient: gradient}), torch.ErrAutograd)
}
