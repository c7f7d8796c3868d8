package torch_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/npy"
)

func TestNumpyRoundTrip(t *testing.T) {
	for _, a := range []*npy.Array{
		{DType: "b1", Shape: []int64{3}, Data: []byte{1, 0, 1}},
		{DType: "u1", Shape: []int64{2, 1}, Data: []byte{7, 255}},
		{DType: "i1", Shape: []int64{1}, Data: []byte{0x80}},
		{DType: "i2", Shape: []int64{1}, Data: []byte{0xfe, 0xff}},
		{DType: "i4", Shape: []int64{1}, Data: []byte{1, 2, 3, 4}},
		{DType: "i8", Shape: []int64{}, Data: []byte{1, 2, 3, 4, 5, 6, 7, 8}},
		{DType: "f2", Shape: []int64{2}, Data: []byte{0, 0x3c, 0, 0xc0}},
		{DType: "f4", Shape: []int64{1, 1, 2}, Data: []byte{0, 0, 0x80, 0x3f, 0xdb, 0x0f, 0x49, 0x40}},
		{DType: "f8", Shape: []int64{1}, Data: []byte{0, 0, 0, 0, 0, 0, 0xf0, 0x3f}},
		{DType: "f4", Shape: []int64{2, 0, 3}, Data: []byte{}},
	} {
		x, err := torch.FromNumpy(a)
		require.NoError(t, err, a.DType)
		require.Equal(t, a.Shape, x.Shape(), a.DType)
		require.EqualValues(t, a.ItemSize(), x.DType().Size(), a.DType)
		require.Zero(t, x.DataPtr()%64, "aligned as torch's own memory")
		back, err := x.Numpy()
		require.NoError(t, err, a.DType)
		require.Equal(t, a, back)
		require.NoError(t, x.Close())
	}
}

func TestNumpyOfOddTensors(t *testing.T) {
	// Column-major arrays are turned.
	x, err := torch.FromNumpy(&npy.Array{DType: "u1", Shape: []int64{2, 3}, Fortran: true, Data: []byte{1, 4, 2, 5, 3, 6}})
	require.NoError(t, err)
	defer x.Close()
	rows, err := torch.CopyData[uint8](x)
	require.NoError(t, err)
	require.Equal(t, []uint8{1, 2, 3, 4, 5, 6}, rows)

	// Tensors that are not contiguous too.
	y, err := torch.CallTensor(t.Context(), "aten::t", x)
	require.NoError(t, err)
	defer y.Close()
	a, err := y.Numpy()
	require.NoError(t, err)
	require.Equal(t, &npy.Array{DType: "u1", Shape: []int64{3, 2}, Data: []byte{1, 4, 2, 5, 3, 6}}, a)

	// bfloat16 widens: 0x3fc0 is 1.5.
	b, err := torch.NewTensor([]torch.Brain{0x3fc0}, 1)
	require.NoError(t, err)
	defer b.Close()
	a, err = b.Numpy()
	require.NoError(t, err)
	require.Equal(t, &npy.Array{DType: "f4", Shape: []int64{1}, Data: []byte{0, 0, 0xc0, 0x3f}}, a)

	for _, bad := range []*npy.Array{
		{DType: "c8", Shape: []int64{1}, Data: make([]byte, 8)},
		{DType: "f4", Shape: []int64{2}, Data: make([]byte, 4)},
	} {
		_, err := torch.FromNumpy(bad)
		require.Error(t, err)
	}
	require.NoError(t, b.Close())
	_, err = b.Numpy()
	require.ErrorIs(t, err, torch.ErrClosed)
}
