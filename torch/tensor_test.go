package torch_test

import (
	"bytes"
	"log/slog"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/torch"
)

// What was freed stays with the process for the next forward, until it is asked for.
func TestTrimMemory(t *testing.T) {
	if cgo.ASan {
		t.Skip("AddressSanitizer keeps freed memory")
	}
	var scope torch.Scope
	for range 64 {
		x, err := torch.Ones([]int64{1 << 20}, torch.TensorOptions{}) // 4 MB
		require.NoError(t, err)
		scope.Track(x)
	}
	used := torch.MemoryStats().Resident
	scope.Close()
	require.NoError(t, torch.TrimMemory())
	// glibc keeps the top of a thread's heap, which is 64 MB at most.
	assert.Less(t, torch.MemoryStats().Resident, used-(256-64)<<20)
}

func TestMetadata(t *testing.T) {
	x := tensor(t, []float32{1, 2, 3, 4, 5, 6}, 1, 2, 3)
	assert.Equal(t, []int64{1, 2, 3}, x.Shape())
	assert.Equal(t, []int64{6, 3, 1}, x.Strides())
	assert.Equal(t, 3, x.Dim())
	assert.Equal(t, int64(6), x.NumEl())
	assert.Equal(t, torch.Float32, x.DType())
	assert.Equal(t, torch.CPU, x.Device())
	assert.True(t, x.IsContiguous())
	assert.False(t, x.RequiresGrad())
	assert.False(t, x.IsInference())
	for dim, want := range map[int]int64{0: 1, 2: 3, -1: 3, -3: 1, 3: -1, -4: -1} {
		assert.Equal(t, want, x.Size(dim), "%d", dim)
	}
	scalar := tensor(t, []int64{7}, []int64{}...)
	assert.NotNil(t, scalar.Shape())
	assert.Empty(t, scalar.Shape())
	assert.Zero(t, scalar.Dim())
	assert.Equal(t, int64(1), scalar.NumEl())

	y := own(t)(x.Permute(2, 0, 1))
	assert.Equal(t, []int64{3, 1, 2}, y.Shape())
	assert.Equal(t, []int64{1, 6, 3}, y.Strides())
	assert.False(t, y.IsContiguous())
	data, err := torch.CopyData[float32](y)
	require.NoError(t, err)
	assert.Equal(t, []float32{1, 4, 2, 5, 3, 6}, data)
	c := own(t)(y.Contiguous())
	assert.True(t, c.IsContiguous())
	assert.NotEqual(t, x.DataPtr(), c.DataPtr())
	same := own(t)(x.Contiguous())
	assert.Equal(t, x.DataPtr(), same.DataPtr(), "contiguous already: the same memory")

	// 16 dimensions are the most that cross.
	ones := make([]int64, 16)
	for i := range ones {
		ones[i] = 1
	}
	deep := own(t)(torch.Zeros(ones, torch.TensorOptions{}))
	assert.Equal(t, ones, deep.Shape())
	deeper := own(t)(deep.Unsqueeze(0))
	assert.Nil(t, deeper.Shape())
	_, err = torch.Zeros(append(ones, 1), torch.TensorOptions{})
	assert.ErrorIs(t, err, torch.ErrShape)
}

// TestEveryDType makes, reads and converts tensors of each dtype.
func TestEveryDType(t *testing.T) {
	every := map[torch.DType]struct {
		name string
		size int
		copy func(*torch.Tensor) (any, error)
	}{
		torch.Bool:     {"bool", 1, func(x *torch.Tensor) (any, error) { return torch.CopyData[bool](x) }},
		torch.Uint8:    {"uint8", 1, func(x *torch.Tensor) (any, error) { return torch.CopyData[uint8](x) }},
		torch.Int8:     {"int8", 1, func(x *torch.Tensor) (any, error) { return torch.CopyData[int8](x) }},
		torch.Int16:    {"int16", 2, func(x *torch.Tensor) (any, error) { return torch.CopyData[int16](x) }},
		torch.Int32:    {"int32", 4, func(x *torch.Tensor) (any, error) { return torch.CopyData[int32](x) }},
		torch.Int64:    {"int64", 8, func(x *torch.Tensor) (any, error) { return torch.CopyData[int64](x) }},
		torch.Float16:  {"float16", 2, func(x *torch.Tensor) (any, error) { return torch.CopyData[torch.Half](x) }},
		torch.BFloat16: {"bfloat16", 2, func(x *torch.Tensor) (any, error) { return torch.CopyData[torch.Brain](x) }},
		torch.Float32:  {"float32", 4, func(x *torch.Tensor) (any, error) { return torch.CopyData[float32](x) }},
		torch.Float64:  {"float64", 8, func(x *torch.Tensor) (any, error) { return torch.CopyData[float64](x) }},
	}
	want := map[torch.DType]any{
		torch.Bool: []bool{true, true}, torch.Uint8: []uint8{1, 1}, torch.Int8: []int8{1, 1}, torch.Int16: []int16{1, 1},
		torch.Int32: []int32{1, 1}, torch.Int64: []int64{1, 1}, torch.Float16: []torch.Half{0x3c00, 0x3c00},
		torch.BFloat16: []torch.Brain{0x3f80, 0x3f80}, torch.Float32: []float32{1, 1}, torch.Float64: []float64{1, 1},
	}
	for d, c := range every {
		assert.Equal(t, c.name, d.String())
		assert.Equal(t, c.size, d.Size())
		parsed, err := torch.ParseDType("torch." + c.name)
		require.NoError(t, err)
		assert.Equal(t, d, parsed)
		assert.Equal(t, strings.Contains(c.name, "float"), d.IsFloatingPoint())

		x := own(t)(torch.Ones([]int64{2}, torch.TensorOptions{DType: d}))
		assert.Equal(t, d, x.DType())
		got, err := c.copy(x)
		require.NoError(t, err)
		assert.Equal(t, want[d], got)
		assert.Zero(t, x.DataPtr()%64, "allocated by libtorch: aligned to 64 bytes")
		for other, o := range every {
			y := own(t)(x.CastTo(other))
			assert.Equal(t, other, y.DType())
			if other == d {
				assert.Equal(t, x.DataPtr(), y.DataPtr(), "the same dtype is the same memory")
			} else {
				_, err = o.copy(x)
				assert.ErrorIs(t, err, torch.ErrDType)
			}
		}
	}
	for name, want := range map[string]torch.DType{
		"half": torch.Float16, "bf16": torch.BFloat16, "float": torch.Float32, "fp32": torch.Float32, "double": torch.Float64, "long": torch.Int64, "int": torch.Int32,
	} {
		d, err := torch.ParseDType(name)
		require.NoError(t, err)
		assert.Equal(t, want, d)
	}
	for _, name := range []string{"", "torch.", "float8", "complex64"} {
		_, err := torch.ParseDType(name)
		assert.ErrorIs(t, err, torch.ErrDType, name)
	}
	for _, bad := range []torch.DType{-1, 99, 127, -128} {
		_, err := torch.Empty([]int64{1}, torch.TensorOptions{DType: bad})
		assert.Error(t, err, "%d", bad)
		x := own(t)(torch.Ones([]int64{1}, torch.TensorOptions{}))
		_, err = x.CastTo(bad)
		assert.Error(t, err, "%d", bad)
	}
	x := own(t)(torch.Ones([]int64{1}, torch.TensorOptions{}))
	_, err := x.CastTo(torch.InvalidDType)
	assert.ErrorIs(t, err, torch.ErrDType)
}

// TestHalfAndBrain converts every float16 and bfloat16 as libtorch does.
func TestHalfAndBrain(t *testing.T) {
	halves, brains := make([]torch.Half, 1<<16), make([]torch.Brain, 1<<16)
	for i := range halves {
		halves[i], brains[i] = torch.Half(i), torch.Brain(i)
	}
	h := own(t)(tensor(t, halves).CastTo(torch.Float32))
	b := own(t)(tensor(t, brains).CastTo(torch.Float32))
	require.NoError(t, torch.WithData(h, func(data []float32) error {
		for i, want := range data {
			got := torch.Half(i).Float32()
			if math.IsNaN(float64(want)) != math.IsNaN(float64(got)) || want == want && math.Float32bits(want) != math.Float32bits(got) {
				t.Fatalf("half %04x: got %v, want %v", i, got, want)
			}
		}
		return nil
	}))
	require.NoError(t, torch.WithData(b, func(data []float32) error {
		for i, want := range data {
			got := torch.Brain(i).Float32()
			if math.IsNaN(float64(want)) != math.IsNaN(float64(got)) || want == want && math.Float32bits(want) != math.Float32bits(got) {
				t.Fatalf("bfloat16 %04x: got %v, want %v", i, got, want)
			}
		}
		return nil
	}))
}

func TestFull(t *testing.T) {
	x := own(t)(torch.Full([]int64{2}, -2.5, torch.TensorOptions{DType: torch.Float64}))
	assert.Equal(t, "tensor([-2.5000, -2.5000], dtype=torch.float64)", x.String())
	y := own(t)(torch.Full([]int64{1}, 7, torch.TensorOptions{DType: torch.Uint8}))
	assert.Equal(t, "tensor([7], dtype=torch.uint8)", y.String())
	zero := own(t)(torch.Full([]int64{1}, math.Copysign(0, -1), torch.TensorOptions{}))
	assert.Equal(t, "tensor([-0.])", zero.String())
	nan := own(t)(torch.Full([]int64{1}, math.NaN(), torch.TensorOptions{}))
	assert.Equal(t, "tensor([nan])", nan.String())
	_, err := torch.Full([]int64{-1}, 0, torch.TensorOptions{})
	assert.ErrorIs(t, err, torch.ErrShape)
	_, err = torch.Empty([]int64{1 << 40, 1 << 40}, torch.TensorOptions{})
	assert.ErrorIs(t, err, torch.ErrShape)
	if !cgo.ASan { // which ends the process
		_, err = torch.Empty([]int64{1 << 50}, torch.TensorOptions{})
		assert.ErrorIs(t, err, torch.ErrOutOfMemory)
	}
	_, err = torch.Empty([]int64{1}, torch.TensorOptions{PinMemory: true})
	assert.ErrorIs(t, err, torch.ErrCUDANotLoaded)
	empty := own(t)(torch.Zeros([]int64{0, 5}, torch.TensorOptions{}))
	assert.Zero(t, empty.NumEl())
	data, err := torch.CopyData[float32](empty)
	require.NoError(t, err)
	assert.Empty(t, data)
	require.NoError(t, torch.WithData(empty, func(data []float32) error { assert.Empty(t, data); return nil }))
}

func TestCopyFromAndEqual(t *testing.T) {
	x := tensor(t, []float32{1, 2, 3, 4}, 2, 2)
	y := own(t)(torch.Zeros([]int64{2, 2}, torch.TensorOptions{DType: torch.Float64}))
	require.NoError(t, y.CopyFrom(x))
	assert.Equal(t, []float64{1, 2, 3, 4}, must(torch.CopyData[float64](y)))
	err := y.CopyFrom(tensor(t, []float32{1, 2}))
	assert.ErrorIs(t, err, torch.ErrShape, "no broadcasting")
	assert.ErrorContains(t, err, "[2]")
	assert.ErrorContains(t, err, "[2, 2]")

	z := own(t)(x.Clone())
	assert.NotEqual(t, x.DataPtr(), z.DataPtr())
	same, err := torch.Equal(x, z)
	require.NoError(t, err)
	assert.True(t, same)
	require.NoError(t, torch.WithData(z, func(data []float32) error { data[3] = 5; return nil }))
	same, err = torch.Equal(x, z)
	require.NoError(t, err)
	assert.False(t, same)
	same, err = torch.Equal(x, tensor(t, []float32{1, 2}))
	require.NoError(t, err)
	assert.False(t, same)
	nan := tensor(t, []float32{float32(math.NaN())})
	same, err = torch.Equal(nan, nan)
	require.NoError(t, err)
	assert.False(t, same, "as torch.equal, though the tensors are one")

	big := own(t)(torch.Ones([]int64{1 << 20}, torch.TensorOptions{}))
	clone := own(t)(big.Clone())
	same, err = torch.Equal(big, clone)
	require.NoError(t, err)
	assert.True(t, same)
}

func TestCompareErrors(t *testing.T) {
	x := tensor(t, []float32{1, 2})
	_, err := torch.Compare(x, tensor(t, []float32{1, 2}, 2, 1))
	assert.ErrorIs(t, err, torch.ErrShape)
	_, err = torch.Compare(x, tensor(t, []float64{1, 2}))
	assert.ErrorIs(t, err, torch.ErrDType)
	_, err = torch.AllClose(x, tensor(t, []float64{1, 2}), 0, 0)
	assert.ErrorIs(t, err, torch.ErrDType)
	closed := tensor(t, []float32{1, 2})
	closed.Close()
	_, err = torch.Compare(x, closed)
	assert.Error(t, err)
	_, err = torch.Compare(closed, closed)
	assert.ErrorIs(t, err, torch.ErrClosed)
}

func TestCompareOtherDTypes(t *testing.T) {
	d, err := torch.Compare(tensor(t, []int64{math.MinInt64, 5, 0}), tensor(t, []int64{math.MaxInt64, 3, 0}))
	require.NoError(t, err)
	assert.Equal(t, uint64(math.MaxUint64), d.MaxULP)
	assert.Equal(t, int64(2), d.Different)
	assert.Equal(t, "2 of 3 elements differ, first at 0, by at most 1.84e+19 and 18446744073709551615 ULP", d.String())
	d, err = torch.Compare(tensor(t, []bool{true, false}), tensor(t, []bool{true, true}))
	require.NoError(t, err)
	assert.Equal(t, torch.Difference{MaxAbs: 1, MaxULP: 1, Different: 1, At: 1, NumEl: 2}, d)
	for _, pair := range [][2]*torch.Tensor{
		{tensor(t, []uint8{200}), tensor(t, []uint8{100})},
		{tensor(t, []int8{-50}), tensor(t, []int8{50})},
		{tensor(t, []int16{-50}), tensor(t, []int16{50})},
		{tensor(t, []int32{-50}), tensor(t, []int32{50})},
	} {
		d, err := torch.Compare(pair[0], pair[1])
		require.NoError(t, err)
		assert.Equal(t, torch.Difference{MaxAbs: 100, MaxULP: 100, Different: 1, At: 0, NumEl: 1}, d)
	}
	// bfloat16: neighbours are one ULP apart, and so are the smallest numbers around zero.
	d, err = torch.Compare(tensor(t, []torch.Brain{0x3f80, 0x0001}), tensor(t, []torch.Brain{0x3f81, 0x8001}))
	require.NoError(t, err)
	assert.Equal(t, uint64(2), d.MaxULP)
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	d, err = torch.Compare(tensor(t, []float32{nan, inf, 1}), tensor(t, []float32{nan, inf, 1}))
	require.NoError(t, err)
	assert.Zero(t, d.Different)
	assert.Equal(t, "0 of 3 elements differ", d.String())
	d, err = torch.Compare(tensor(t, []float32{nan, 1}), tensor(t, []float32{1, 1}))
	require.NoError(t, err)
	assert.True(t, math.IsNaN(d.MaxAbs))
	assert.Equal(t, int64(1), d.Different)
}

func TestLogValue(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	x := tensor(t, []float32{1, 2, 3, 4, 5, 6}, 2, 3)
	log.Info("got", "x", x)
	assert.Equal(t, "level=INFO msg=got x.shape=\"[2 3]\" x.dtype=float32 x.device=cpu\n", b.String())
	b.Reset()
	x.Close()
	log.Info("got", "x", x)
	assert.Contains(t, b.String(), "closed")
}

func TestDevices(t *testing.T) {
	for name, want := range map[string]torch.Device{
		"cpu": {}, "cpu:0": {}, "cuda": {Type: "cuda"}, "cuda:0": {Type: "cuda"}, "cuda:3": {Type: "cuda", Index: 3},
	} {
		d, err := torch.NewDevice(name)
		require.NoError(t, err)
		assert.Equal(t, want, d)
	}
	for _, name := range []string{"", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:128", "cpu:1", "CUDA"} {
		_, err := torch.NewDevice(name)
		assert.ErrorIs(t, err, torch.ErrDevice, name)
	}
	cuda := torch.Device{Type: "cuda", Index: 1}
	assert.Equal(t, "cuda:1", cuda.String())
	assert.Equal(t, "cpu", torch.CPU.String())

	// This process loaded libtorch for the CPU.
	assert.False(t, torch.IsCUDAAvailable())
	x := tensor(t, []float32{1})
	_, err := x.To(cuda)
	assert.ErrorIs(t, err, torch.ErrCUDANotLoaded)
	assert.ErrorIs(t, err, torch.ErrDevice)
	assert.ErrorContains(t, err, "torch.Config.Device")
	_, err = torch.Empty([]int64{1}, torch.TensorOptions{Device: cuda})
	assert.ErrorIs(t, err, torch.ErrCUDANotLoaded)
	_, err = torch.CUDADeviceCount()
	assert.ErrorIs(t, err, torch.ErrDevice)
	_, err = torch.CUDAMemoryStats(cuda)
	assert.ErrorIs(t, err, torch.ErrCUDANotLoaded)
	assert.ErrorIs(t, torch.CUDAEmptyCache(), torch.ErrDevice)
	assert.ErrorIs(t, torch.Synchronize(cuda), torch.ErrCUDANotLoaded)
	require.NoError(t, torch.Synchronize(torch.CPU))
	same := own(t)(x.To(torch.CPU))
	assert.Equal(t, x.DataPtr(), same.DataPtr())
	_, err = x.To(torch.Device{Type: "tpu"})
	assert.ErrorIs(t, err, torch.ErrDevice)
}

// TestFlags sets switches of the process; one that can be seen is the refusal of operators that have no
// deterministic form.
func TestFlags(t *testing.T) {
	on, off := true, false
	x := tensor(t, []float32{1, 2, 3, 4}, 1, 1, 4)
	unpool := func() error {
		v, err := torch.Call(t.Context(), "aten::max_unpool2d", own(t)(x.View(1, 1, 2, 2)), tensor(t, []int64{0, 2, 8, 10}, 1, 1, 2, 2), []int{4, 4})
		torch.CloseAll(v)
		return err
	}
	require.NoError(t, unpool())
	require.NoError(t, torch.SetFlags(torch.Flags{Deterministic: &on, TF32MatMul: &off, TF32CuDNN: &off, CuDNNBenchmark: &off}))
	err := unpool()
	require.NoError(t, torch.SetFlags(torch.Flags{Deterministic: &off, ProfilingExecutor: &on, GraphOptimization: &on}))
	assert.ErrorContains(t, err, "deterministic")
	require.NoError(t, torch.SetFlags(torch.Flags{}))
	require.NoError(t, unpool())
}
