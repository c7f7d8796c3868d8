package sequence_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/sequence"
	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
)

func TestMain(m *testing.M) { testmain.Run(m, torch.Config{Device: "cpu"}) }

func TestCallsOwnAndKeep(t *testing.T) {
	c := sequence.Calls{Ctx: t.Context()}
	x := c.Own(torch.NewTensor([]float32{3, 1, 2}))
	assert.Same(t, x, c.Cast(x, torch.Float32))
	values, indices := c.Pair("aten::sort", c.Lane("aten::neg", x))
	half := c.Cast(c.View("aten::slice.Tensor", values, 0, 1, 3, 1), torch.Float64)
	c.Keep(half)
	require.NoError(t, c.Err)
	places, err := torch.CopyData[int64](indices)
	require.NoError(t, err)
	assert.Equal(t, []int64{0, 2, 1}, places)
	c.Close()
	_, err = torch.CopyData[float32](values)
	require.ErrorIs(t, err, torch.ErrClosed)
	kept, err := torch.CopyData[float64](half)
	require.NoError(t, err)
	assert.Equal(t, []float64{-2, -1}, kept)
	half.Close()
}

func TestTheFirstErrorStays(t *testing.T) {
	for name, wrong := range map[string]func(c *sequence.Calls, x *torch.Tensor){
		"aten::reshape": func(c *sequence.Calls, x *torch.Tensor) { c.Call("aten::reshape", x, []int{5}) },
		"one tensor":    func(c *sequence.Calls, x *torch.Tensor) { c.Call("aten::sort", x) },
		"two tensors":   func(c *sequence.Calls, x *torch.Tensor) { c.Pair("aten::neg", x) },
	} {
		c := sequence.Calls{Ctx: t.Context()}
		x := c.Own(torch.NewTensor([]float32{3, 1, 2}))
		wrong(&c, x)
		require.ErrorContains(t, c.Err, name)
		first := c.Err
		assert.Nil(t, c.Call("aten::neg", c.Cast(nil, torch.Float64)))
		a, b := c.Pair("aten::sort", x)
		assert.Nil(t, a)
		assert.Nil(t, b)
		assert.Nil(t, c.Keep(x))
		c.Own(nil, torch.ErrShape)
		assert.Equal(t, first, c.Err)
		c.Close()
	}
}
