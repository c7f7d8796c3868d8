package torch_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
)

// TestCUDATensors moves tensors to the device and back: the same bits, and errors where memory of the
// device would be read as a slice.
func TestCUDATensors(t *testing.T) {
	testmain.RequireCUDA(t)
	cuda := torch.Device{Type: "cuda"}
	n, err := torch.CUDADeviceCount()
	require.NoError(t, err)
	assert.Positive(t, n)

	x := own(t)(torch.RandN([]int64{300, 200}, torch.TensorOptions{}))
	y := own(t)(x.To(cuda))
	assert.Equal(t, cuda, y.Device())
	same := own(t)(y.To(cuda))
	assert.Equal(t, y.DataPtr(), same.DataPtr(), "there already: the same memory")
	back := own(t)(y.To(torch.CPU))
	d, err := torch.Compare(x, back)
	require.NoError(t, err)
	assert.Zero(t, d.Different)
	d, err = torch.Compare(y, same)
	require.NoError(t, err)
	assert.Zero(t, d.Different)

	err = torch.WithData(y, func([]float32) error { return nil })
	assert.ErrorIs(t, err, torch.ErrDevice)
	data, err := torch.CopyData[float32](y)
	require.NoError(t, err)
	assert.Len(t, data, 60000)
	_, err = x.Add(y)
	assert.ErrorIs(t, err, torch.ErrDevice)

	small := own(t)(tensor(t, []float32{1, 2}).To(cuda))
	assert.Equal(t, "tensor([1., 2.], device='cuda:0')", small.String())
	sum := own(t)(small.Sum())
	assert.Equal(t, "tensor(3., device='cuda:0')", sum.String())

	_, err = x.To(torch.Device{Type: "cuda", Index: 99})
	assert.ErrorIs(t, err, torch.ErrDevice)
	require.NoError(t, torch.Synchronize(cuda))
}

// TestCUDAMemory counts what the caching allocator holds, and allocates page-locked memory.
func TestCUDAMemory(t *testing.T) {
	testmain.RequireCUDA(t)
	cuda := torch.Device{Type: "cuda"}
	before, err := torch.CUDAMemoryStats(cuda)
	require.NoError(t, err)
	x, err := torch.Zeros([]int64{1 << 20}, torch.TensorOptions{Device: cuda})
	require.NoError(t, err)
	now, err := torch.CUDAMemoryStats(cuda)
	require.NoError(t, err)
	assert.Equal(t, before.Allocated+4<<20, now.Allocated)
	assert.GreaterOrEqual(t, now.PeakAllocated, now.Allocated)
	x.Close()
	require.NoError(t, torch.CUDAEmptyCache())
	after, err := torch.CUDAMemoryStats(cuda)
	require.NoError(t, err)
	assert.Equal(t, before.Allocated, after.Allocated)

	p := own(t)(torch.Empty([]int64{1 << 16}, torch.TensorOptions{PinMemory: true}))
	require.NoError(t, torch.WithData(p, func(data []float32) error {
		data[7] = 3
		return nil
	}))
	item, err := own(t)(own(t)(p.To(cuda)).Index(7)).Item()
	require.NoError(t, err)
	assert.Equal(t, 3.0, item)
}
