package torch_test

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
)

func address[T any](s []T) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(s))) }

// TestFromSliceSharesMemory compares pointers and writes on both sides.
func TestFromSliceSharesMemory(t *testing.T) {
	data := []float32{1, 2, 3, 4, 5, 6}
	x := own(t)(torch.FromSlice(data, 2, 3))
	assert.Equal(t, address(data), x.DataPtr())
	assert.Equal(t, []int64{2, 3}, x.Shape())
	data[0] = 10
	y := own(t)(torch.CallTensor(t.Context(), "aten::mul_", x, 2))
	assert.Equal(t, []float32{20, 4, 6, 8, 10, 12}, data)
	assert.Equal(t, address(data), y.DataPtr())
	require.NoError(t, torch.WithData(x, func(seen []float32) error {
		assert.Same(t, &data[0], &seen[0])
		assert.Len(t, seen, 6)
		assert.Equal(t, 6, cap(seen))
		return nil
	}))
	assert.Same(t, &data[0], &must(torch.Data[float32](x))[0])

	// A part of a slice, and every element type.
	part := own(t)(torch.FromSlice(data[2:4]))
	assert.Equal(t, address(data)+8, part.DataPtr())
	shares(t, []bool{true, false}, torch.Bool)
	shares(t, []uint8{1, 2}, torch.Uint8)
	shares(t, []int8{1, -2}, torch.Int8)
	shares(t, []int16{1, -2}, torch.Int16)
	shares(t, []int32{1, -2}, torch.Int32)
	shares(t, []int64{1, -2}, torch.Int64)
	shares(t, []float32{1, -2}, torch.Float32)
	shares(t, []float64{1, -2}, torch.Float64)
	shares(t, []torch.Half{0x3c00, 0xc000}, torch.Float16)
	shares(t, []torch.Brain{0x3f80, 0xc000}, torch.BFloat16)

	// One slice under two tensors.
	a, b := own(t)(torch.FromSlice(data)), own(t)(torch.FromSlice(data))
	assert.Equal(t, a.DataPtr(), b.DataPtr())
	a.Close()
	assert.Equal(t, "tensor([20.,  4.,  6.,  8., 10., 12.])", b.String())
}

func shares[T torch.Element](t *testing.T, data []T, want torch.DType) {
	t.Helper()
	x := own(t)(torch.FromSlice(data))
	assert.Equal(t, address(data), x.DataPtr(), want)
	assert.Equal(t, want, x.DType())
	assert.Equal(t, want, torch.DTypeOf[T]())
	require.NoError(t, torch.WithData(x, func(seen []T) error {
		assert.Same(t, &data[0], &seen[0])
		assert.Equal(t, data, seen)
		return nil
	}))
}

// TestEmptyIsSeenInPlace fills memory of libtorch from Go.
func TestEmptyIsSeenInPlace(t *testing.T) {
	x := own(t)(torch.Empty([]int64{2, 2}, torch.TensorOptions{}))
	require.NoError(t, torch.WithData(x, func(data []float32) error {
		assert.Equal(t, x.DataPtr(), address(data))
		copy(data, []float32{1, 2, 3, 4})
		return nil
	}))
	assert.Equal(t, "tensor([[1., 2.],\n        [3., 4.]])", x.String())
	row := own(t)(x.Select(0, 1))
	require.NoError(t, torch.WithData(row, func(data []float32) error {
		assert.Equal(t, x.DataPtr()+8, address(data))
		assert.Equal(t, []float32{3, 4}, data)
		return nil
	}))
}

func TestFromSliceEdges(t *testing.T) {
	for _, shape := range [][]int64{nil, {0}, {0, 3}, {2, 0}} {
		x := own(t)(torch.FromSlice([]float32{}, shape...))
		assert.Zero(t, x.NumEl())
	}
	x := own(t)(torch.FromSlice[float32](nil))
	assert.Equal(t, []int64{0}, x.Shape())
	scalar := own(t)(torch.FromSlice([]float32{7}, []int64{}...))
	assert.Empty(t, scalar.Shape())
	assert.Equal(t, "tensor(7.)", scalar.String())
	for _, shape := range [][]int64{{2}, {4}, {-1}, {3, 0}, {1 << 62, 4}, {3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}} {
		_, err := torch.FromSlice([]float32{1, 2, 3}, shape...)
		assert.ErrorIs(t, err, torch.ErrShape, "%v", shape)
		_, err = torch.NewTensor([]float32{1, 2, 3}, shape...)
		assert.ErrorIs(t, err, torch.ErrShape, "%v", shape)
	}
	// A slice on the stack of a goroutine that grows.
	small := [4]int64{1, 2, 3, 4}
	y := own(t)(torch.FromSlice(small[:]))
	_ = grow(100)
	small[3] = 40
	assert.Equal(t, "tensor([ 1,  2,  3, 40])", y.String())
}

func grow(n int) [128]int {
	if n == 0 {
		return [128]int{}
	}
	return grow(n - 1)
}

// TestViewErrors: only a contiguous tensor on the CPU of that type is a slice.
func TestViewErrors(t *testing.T) {
	x := tensor(t, []float32{1, 2, 3, 4}, 2, 2)
	never := func([]float64) error { t.Error("called"); return nil }
	err := torch.WithData(x, never)
	assert.ErrorIs(t, err, torch.ErrDType)
	assert.ErrorContains(t, err, "got a tensor of float32, want float64")
	turned := own(t)(x.Transpose(0, 1))
	_, err = torch.Data[float32](turned)
	assert.ErrorIs(t, err, torch.ErrLayout)
	assert.ErrorContains(t, err, "got strides [1 2] for shape [2 2]")
	// Half and Brain are both 16 bits and not each other.
	half := own(t)(x.CastTo(torch.Float16))
	_, err = torch.Data[torch.Brain](half)
	assert.ErrorIs(t, err, torch.ErrDType)
	// A lazily negated tensor's memory does not hold its values.
	negative := own(t)(torch.CallTensor(t.Context(), "aten::_neg_view", x))
	_, err = torch.Data[float32](negative)
	assert.ErrorIs(t, err, torch.ErrLayout)
	assert.Zero(t, negative.DataPtr())
}

// TestAllocations counts the allocations of Go: the handle, and nothing for the data.
func TestAllocations(t *testing.T) {
	data := make([]float32, 1<<20)
	shape := []int64{1 << 20}
	x := tensor(t, []float32{1, 2, 3, 4}, 2, 2)
	testmain.Measure(t)
	for name, c := range map[string]struct {
		most float64
		f    func() (*torch.Tensor, error)
	}{
		"FromSlice":  {5, func() (*torch.Tensor, error) { return torch.FromSlice(data, shape...) }},
		"Empty":      {3, func() (*torch.Tensor, error) { return torch.Empty(shape, torch.TensorOptions{}) }},
		"CallTensor": {4, func() (*torch.Tensor, error) { return torch.CallTensor(t.Context(), "aten::relu", x) }},
		"Alias":      {3, x.Alias},
		"WithData": {0, func() (*torch.Tensor, error) {
			return nil, torch.WithData(x, func(data []float32) error { return nil })
		}},
	} {
		allocs := testing.AllocsPerRun(200, func() {
			y, err := c.f()
			if err != nil {
				t.Fatal(err)
			}
			y.Close()
		})
		if !cgo.ASan { // which moves variables to the heap
			assert.LessOrEqual(t, allocs, c.most, name)
		}
		t.Logf("%s: %.0f allocations", name, allocs)
	}
}

// TestDLPackRoundTrip gives a tensor away and takes it back: the same memory, and pins that are let go
// with the last of the two.
func TestDLPackRoundTrip(t *testing.T) {
	before := torch.MemoryStats().Live
	data := []float32{1, 2, 3, 4, 5, 6}
	x := must(torch.FromSlice(data, 2, 3))
	managed, err := x.ToDLPack()
	require.NoError(t, err)
	x.Close()
	assert.Equal(t, before.Pins+1, torch.MemoryStats().Live.Pins, "the capsule holds the memory")
	y, err := torch.FromDLPack(managed)
	require.NoError(t, err)
	assert.Equal(t, address(data), y.DataPtr())
	assert.Equal(t, []int64{2, 3}, y.Shape())
	assert.Equal(t, []int64{3, 1}, y.Strides())
	assert.Equal(t, "tensor([[1., 2., 3.],\n        [4., 5., 6.]])", y.String())
	y.Close()
	assert.Equal(t, before, torch.MemoryStats().Live)

	// Views, and every dtype that DLPack knows.
	z := tensor(t, []float32{1, 2, 3, 4, 5, 6}, 2, 3)
	turned := own(t)(z.Transpose(0, 1))
	for _, d := range []torch.DType{
		torch.Bool, torch.Uint8, torch.Int8, torch.Int16, torch.Int32, torch.Int64, torch.Float16, torch.BFloat16, torch.Float32, torch.Float64,
	} {
		v := own(t)(turned.CastTo(d))
		managed, err := v.ToDLPack()
		require.NoError(t, err, d)
		w := own(t)(torch.FromDLPack(managed))
		assert.Equal(t, v.DataPtr(), w.DataPtr(), d)
		assert.Equal(t, v.Strides(), w.Strides(), d)
		assert.Equal(t, v.String(), w.String(), d)
	}
	// Nobody took it.
	managed, err = z.ToDLPack()
	require.NoError(t, err)
	torch.FreeDLPack(managed)
	torch.FreeDLPack(nil)
	_, err = torch.FromDLPack(nil)
	assert.ErrorIs(t, err, torch.ErrInvalidArgument)
	sparse := own(t)(torch.CallTensor(t.Context(), "aten::to_sparse", z))
	_, err = sparse.ToDLPack()
	assert.Error(t, err)
}

// TestDLPackFromAnotherLibrary takes a tensor of a C library that knows nothing of libtorch. Its deleter
// runs once, when the last view is gone.
func TestDLPackFromAnotherLibrary(t *testing.T) {
	dir := t.TempDir()
	library := filepath.Join(dir, "libforeign.so")
	out, err := exec.CommandContext(t.Context(), "g++", "-x", "c", "-std=c11", "-shared", "-fPIC", "-Wall", "-Werror",
		"-o", library, filepath.Join("testdata", "foreign.c")).CombinedOutput()
	require.NoError(t, err, "%s", out)
	addresses := filepath.Join(dir, "addresses")
	t.Setenv("TORCHVIT_TEST_FOREIGN", addresses)
	require.NoError(t, torch.LoadLibrary(library), "its constructor writes the addresses of what it offers")
	lines := readLines(t, addresses)
	require.Len(t, lines, 4)
	pointer := func(i int) unsafe.Pointer {
		n, err := strconv.ParseUint(lines[i], 0, 64)
		require.NoError(t, err)
		p := uintptr(n)
		return *(*unsafe.Pointer)(unsafe.Pointer(&p)) // memory of C
	}
	managed, data, deleted, bad := pointer(0), pointer(1), (*int32)(pointer(2)), pointer(3)

	x, err := torch.FromDLPack(managed)
	require.NoError(t, err)
	assert.Equal(t, uintptr(data), x.DataPtr())
	assert.Equal(t, "tensor([[1., 2., 3.],\n        [4., 5., 6.]])", x.String())
	view, err := x.Select(0, 1)
	require.NoError(t, err)
	x.Close()
	assert.Zero(t, *deleted)
	*(*float32)(unsafe.Add(data, 12)) = 40
	assert.Equal(t, "tensor([40.,  5.,  6.])", view.String())
	view.Close()
	assert.Equal(t, int32(1), *deleted)

	// A dtype that libtorch does not know: the capsule stays the caller's.
	_, err = torch.FromDLPack(bad)
	assert.Error(t, err)
	assert.Equal(t, int32(1), *deleted)
	torch.FreeDLPack(bad)
	assert.Equal(t, int32(2), *deleted)
}
