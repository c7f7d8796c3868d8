package torch_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
)

// record runs an operator in mode Grad; the test's end closes the result.
func record(t testing.TB, name string, args ...any) *torch.Tensor {
	t.Helper()
	v, err := torch.CallWith(t.Context(), torch.CallOptions{Mode: torch.Grad}, name, args...)
	require.NoError(t, err)
	x, ok := v.(*torch.Tensor)
	require.True(t, ok)
	t.Cleanup(func() { x.Close() })
	return x
}

// leaf is a tensor that asks for gradients.
func leaf(t testing.TB, data ...float32) *torch.Tensor {
	t.Helper()
	x := tensor(t, data, int64(len(data)))
	require.NoError(t, x.SetRequiresGrad(true))
	return x
}

// gradOf is the leaf's gradient, nil where there is none.
func gradOf(t testing.TB, x *torch.Tensor) []float32 {
	t.Helper()
	g, err := x.Grad()
	require.NoError(t, err)
	if g == nil {
		return nil
	}
	defer g.Close()
	data, err := torch.CopyData[float32](g)
	require.NoError(t, err)
	return data
}

func TestBackward(t *testing.T) {
	x := leaf(t, 1, -2, 3)
	assert.True(t, x.RequiresGrad())
	assert.Nil(t, gradOf(t, x))
	cube := record(t, "aten::pow.Tensor_Scalar", x, 3)
	loss := record(t, "aten::sum", cube)
	assert.True(t, loss.RequiresGrad())

	require.NoError(t, torch.Backward(t.Context(), loss, torch.BackwardOptions{RetainGraph: true}))
	assert.Equal(t, []float32{3, 12, 27}, gradOf(t, x))
	g := own(t)(x.Grad())
	require.NoError(t, torch.Backward(t.Context(), loss, torch.BackwardOptions{}))
	assert.Equal(t, []float32{6, 24, 54}, gradOf(t, x), "gradients add up")
	assert.Equal(t, []float32{6, 24, 54}, must(torch.CopyData[float32](g)), "they share the memory")

	// The graph is gone now.
	err := torch.Backward(t.Context(), loss, torch.BackwardOptions{})
	require.ErrorIs(t, err, torch.ErrAutograd)
	assert.ErrorContains(t, err, "backward: Trying to backward through the graph a second time")
	assert.NotContains(t, err.Error(), "\n")
	assert.Nil(t, gradOf(t, cube), "not a leaf")

	// A root of several elements needs its gradient.
	y := leaf(t, 1, 2)
	twice := record(t, "aten::mul.Scalar", y, 2)
	err = torch.Backward(t.Context(), twice, torch.BackwardOptions{})
	require.ErrorIs(t, err, torch.ErrShape)
	assert.ErrorContains(t, err, "grad can be implicitly created only for scalar outputs")
	require.NoError(t, torch.Backward(t.Context(), twice, torch.BackwardOptions{Gradient: tensor(t, []float32{1, 10})}))
	assert.Equal(t, []float32{2, 20}, gradOf(t, y))
}

// TestBackwardOnALane takes a graph of large tensors, which closing the intermediates does not end.
func TestBackwardOnALane(t *testing.T) {
	n := int64(1 << 17)
	x := own(t)(torch.Full([]int64{n}, 3, torch.TensorOptions{}))
	require.NoError(t, x.SetRequiresGrad(true))
	square := record(t, "aten::mul.Tensor", x, x)
	loss := record(t, "aten::mean", square)
	square.Close()
	require.NoError(t, torch.Backward(t.Context(), loss, torch.BackwardOptions{}))
	g := own(t)(x.Grad())
	assert.Equal(t, float64(6), must(own(t)(g.Sum()).Item()))

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, torch.Backward(ended, loss, torch.BackwardOptions{}), context.Canceled)
}

// TestModesAndGradients: what is made without a graph says so, in Python's words.
func TestModesAndGradients(t *testing.T) {
	x := leaf(t, 1, 2)
	inference := own(t)(torch.CallTensor(t.Context(), "aten::sum", x))
	err := torch.Backward(t.Context(), inference, torch.BackwardOptions{})
	require.ErrorIs(t, err, torch.ErrAutograd)
	assert.EqualError(t, err, "backward: element 0 of tensors does not require grad and does not have a grad_fn")

	made := own(t)(torch.CallTensor(t.Context(), "aten::mul.Scalar", x, 2))
	assert.True(t, made.IsInference())
	err = made.SetRequiresGrad(true)
	require.ErrorIs(t, err, torch.ErrAutograd)
	assert.ErrorContains(t, err, "Setting requires_grad=True on inference tensor outside InferenceMode is not allowed.")
	_, err = torch.CallWith(t.Context(), torch.CallOptions{Mode: torch.Grad}, "aten::mul.Tensor", x, made)
	require.ErrorIs(t, err, torch.ErrAutograd)
	assert.ErrorContains(t, err, "Inference tensors cannot be saved for backward")
	clone := own(t)(made.Clone())
	require.NoError(t, clone.SetRequiresGrad(true), "a clone is an ordinary tensor")

	_, err = torch.CallWith(t.Context(), torch.CallOptions{Mode: torch.Grad}, "aten::add_.Scalar", x, 1)
	require.ErrorIs(t, err, torch.ErrAutograd)
	assert.ErrorContains(t, err, "a leaf Variable that requires grad is being used in an in-place operation")

	y := record(t, "aten::exp", x)
	err = y.SetRequiresGrad(false)
	require.ErrorIs(t, err, torch.ErrAutograd)
	assert.ErrorContains(t, err, "you can only change requires_grad flags of leaf variables")
	err = tensor(t, []int64{1}).SetRequiresGrad(true)
	require.ErrorIs(t, err, torch.ErrDType)
	assert.ErrorContains(t, err, "Only Tensors of floating point and complex dtype can require gradients")

	loss := record(t, "aten::sum", y)
	record(t, "aten::mul_.Scalar", y, 2) // exp's backward needs what it gave
	err = torch.Backward(t.Context(), loss, torch.BackwardOptions{})
	require.ErrorIs(t, err, torch.ErrAutograd)
	assert.ErrorContains(t, err, "one of the variables needed for gradient computation has been modified")

	// Detached: the same memory, out of the graph, and fit for a graph of its own.
	d := own(t)(y.Detach())
	assert.Equal(t, y.DataPtr(), d.DataPtr())
	assert.False(t, d.RequiresGrad())
	assert.False(t, d.IsInference())
	require.NoError(t, d.SetRequiresGrad(true))

	// Frozen: nothing is recorded.
	require.NoError(t, x.SetRequiresGrad(false))
	assert.False(t, record(t, "aten::exp", x).RequiresGrad())
}

func TestGradients(t *testing.T) {
	x, w, other := leaf(t, 1, 2), leaf(t, 3, 4), leaf(t, 5, 6)
	product := record(t, "aten::mul.Tensor", x, w)
	out := record(t, "aten::sum", record(t, "aten::pow.Tensor_Scalar", product, 2))

	both, err := torch.Gradients(t.Context(), []*torch.Tensor{out}, []*torch.Tensor{x, w}, torch.GradientsOptions{CreateGraph: true})
	require.NoError(t, err)
	require.Len(t, both, 2)
	t.Cleanup(func() { torch.CloseAll(both) })
	assert.Equal(t, []float32{2 * 9, 2 * 2 * 16}, must(torch.CopyData[float32](both[0])))
	assert.Equal(t, []float32{2 * 3, 2 * 4 * 4}, must(torch.CopyData[float32](both[1])))
	assert.Nil(t, gradOf(t, x), "the leaves' own stay as they are")

	// The gradients of a gradient.
	second, err := torch.Gradients(t.Context(), both[:1], []*torch.Tensor{x}, torch.GradientsOptions{
		Gradients: []*torch.Tensor{tensor(t, []float32{1, 1})}, RetainGraph: true,
	})
	require.NoError(t, err)
	assert.Equal(t, []float32{18, 32}, must(torch.CopyData[float32](second[0])))
	torch.CloseAll(second)

	_, err = torch.Gradients(t.Context(), []*torch.Tensor{out}, []*torch.Tensor{other}, torch.GradientsOptions{RetainGraph: true})
	require.ErrorIs(t, err, torch.ErrAutograd)
	assert.ErrorContains(t, err, "appears to not have been used in the graph")
	unused, err := torch.Gradients(t.Context(), []*torch.Tensor{out}, []*torch.Tensor{other, x}, torch.GradientsOptions{AllowUnused: true})
	require.NoError(t, err)
	require.Len(t, unused, 2)
	assert.Nil(t, unused[0])
	assert.NotNil(t, unused[1])
	torch.CloseAll(unused)

	one := []*torch.Tensor{x}
	discard := func(_ []*torch.Tensor, err error) error { return err }
	for _, err := range []error{
		discard(torch.Gradients(t.Context(), nil, one, torch.GradientsOptions{})),
		discard(torch.Gradients(t.Context(), one, []*torch.Tensor{nil}, torch.GradientsOptions{})),
		discard(torch.Gradients(t.Context(), one, one, torch.GradientsOptions{Gradients: []*torch.Tensor{nil, nil}})),
		torch.Backward(t.Context(), nil, torch.BackwardOptions{}),
	} {
		assert.ErrorIs(t, err, torch.ErrInvalidArgument)
	}
}

func TestRNGState(t *testing.T) {
	require.NoError(t, torch.ManualSeed(7))
	own(t)(torch.RandN([]int64{5}, torch.TensorOptions{})) // an odd number: the generator keeps half a pair
	state := own(t)(torch.RNGState())
	assert.Equal(t, torch.Uint8, state.DType())
	a := own(t)(torch.RandN([]int64{9}, torch.TensorOptions{}))
	b := own(t)(torch.RandN([]int64{9}, torch.TensorOptions{}))
	require.NoError(t, torch.SetRNGState(state))
	again := own(t)(torch.RandN([]int64{9}, torch.TensorOptions{}))
	assert.True(t, must(torch.Equal(a, again)))
	assert.False(t, must(torch.Equal(a, b)))
	assert.Error(t, torch.SetRNGState(tensor(t, []uint8{1, 2})))
	assert.ErrorIs(t, torch.SetRNGState(nil), torch.ErrInvalidArgument)
}
