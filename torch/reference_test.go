package torch_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/npy"
)

// facts is what testdata/reference.py wrote in this run.
type facts struct {
	Print []struct {
		DType, Text string
		Grad        bool
	}
	Seeds []struct {
		Seed, Kind, DType string
		Shape             []int64
	}
	Differences []struct {
		Name      string
		MaxAbs    float64 `json:"max_abs"`
		MaxULP    uint64  `json:"max_ulp"`
		Different int64
		At        int64
		Close     [3]bool
	}
	Ops        []string
	Capability string
	Version    string

	arrays *npy.Zip
}

var referenceOnce struct {
	sync.Once
	facts *facts
}

// reference runs Python once for all tests.
func reference(t *testing.T) *facts {
	t.Helper()
	referenceOnce.Do(func() {
		dir := t.TempDir()
		testmain.RunPython(t, filepath.Join("torch", "testdata", "reference.py"), dir)
		text, err := os.ReadFile(filepath.Join(dir, "facts.json"))
		require.NoError(t, err)
		f := &facts{}
		require.NoError(t, json.Unmarshal(text, f))
		f.arrays, err = npy.ReadZipFile(filepath.Join(dir, "arrays.npz"))
		require.NoError(t, err)
		referenceOnce.facts = f
	})
	require.NotNil(t, referenceOnce.facts, "the reference failed in an earlier test")
	return referenceOnce.facts
}

// tensor is one of Python's arrays, as that dtype where it is not "".
func (f *facts) tensor(t *testing.T, name, dtype string) *torch.Tensor {
	t.Helper()
	a := f.arrays.Get(name)
	require.NotNil(t, a, name)
	x := own(t)(torch.FromNumpy(a))
	if dtype == "" {
		return x
	}
	d, err := torch.ParseDType(dtype)
	require.NoError(t, err)
	return own(t)(x.CastTo(d))
}

// TestPrintsAsPyTorch compares the text of some 360 tensors: all dtypes, no dimensions, no elements, NaN
// and infinities, scientific, summarised and wide ones.
func TestPrintsAsPyTorch(t *testing.T) {
	f := reference(t)
	require.GreaterOrEqual(t, len(f.Print), 60)
	wrong := 0
	for i, c := range f.Print {
		x := f.tensor(t, "print."+strconv.Itoa(i), c.DType)
		if c.Grad {
			v, err := torch.CallWith(t.Context(), torch.CallOptions{Mode: torch.NoGrad}, "aten::requires_grad_", x, true)
			require.NoError(t, err)
			torch.CloseAll(v)
		}
		if got := x.String(); got != c.Text {
			if wrong++; wrong < 5 {
				t.Errorf("case %d, %s:\ngot\n%s\nwant\n%s", i, c.DType, got, c.Text)
			}
		}
	}
	assert.Zero(t, wrong, "of %d tensors", len(f.Print))
}

func TestPrintsViewsAndTheUnprintable(t *testing.T) {
	x := tensor(t, []float32{1, 2, 3, 4, 5, 6}, 2, 3)
	y := own(t)(x.Transpose(0, 1))
	assert.Equal(t, "tensor([[1., 4.],\n        [2., 5.],\n        [3., 6.]])", y.String())
	closed := tensor(t, []float32{1})
	closed.Close()
	assert.Equal(t, "tensor(<closed>)", closed.String())
	var none *torch.Tensor
	assert.Equal(t, "tensor(<nil>)", none.String())
}

// TestSeeds draws what torch.manual_seed and torch.randn draw in Python.
func TestSeeds(t *testing.T) {
	f := reference(t)
	var last string
	for i, c := range f.Seeds {
		if c.Seed != last {
			seed, err := strconv.ParseUint(c.Seed, 10, 64)
			require.NoError(t, err)
			require.NoError(t, torch.ManualSeed(seed))
			last = c.Seed
		}
		dtype, err := torch.ParseDType(c.DType)
		require.NoError(t, err)
		draw := torch.RandN
		if c.Kind == "rand" {
			draw = torch.Rand
		}
		got := own(t)(draw(c.Shape, torch.TensorOptions{DType: dtype}))
		d, err := torch.Compare(got, f.tensor(t, "seed."+strconv.Itoa(i), c.DType))
		require.NoError(t, err)
		assert.Zero(t, d.Different, "%+v: %s", c, d)
	}
	assert.Len(t, f.Seeds, 120)
}

// TestCompareAsNumPy measures differences as NumPy does.
func TestCompareAsNumPy(t *testing.T) {
	f := reference(t)
	require.Len(t, f.Differences, 12)
	for _, c := range f.Differences {
		a, b := f.tensor(t, c.Name+".a", ""), f.tensor(t, c.Name+".b", "")
		d, err := torch.Compare(a, b)
		require.NoError(t, err)
		assert.Equal(t, torch.Difference{MaxAbs: c.MaxAbs, MaxULP: c.MaxULP, Different: c.Different, At: c.At, NumEl: 200}, d, c.Name)
		for i, tolerance := range [][2]float64{{0, 0}, {1e-3, 0}, {0, 10}} {
			close, err := torch.AllClose(a, b, tolerance[0], tolerance[1])
			require.NoError(t, err)
			assert.Equal(t, c.Close[i], close, "%s %v", c.Name, tolerance)
		}
	}
}

// TestOps holds every helper of ops.go to what Python computed, to the bit.
func TestOps(t *testing.T) {
	f := reference(t)
	x, y := f.tensor(t, "ops.x", ""), f.tensor(t, "ops.y", "")
	abs := own(t)(x.Abs())
	index := tensor(t, []int64{3, 0, 0})
	tall := own(t)(x.View(4, 1, 6, 1))
	turned := own(t)(x.Transpose(0, 1))
	turnedY := own(t)(y.Transpose(0, 1))
	highest := own(t)(x.Max())
	row := own(t)(x.Unsqueeze(0))
	values, indices, err := x.TopK(3, 1)
	require.NoError(t, err)
	options := torch.TensorOptions{}
	ops := map[string]func() (*torch.Tensor, error){
		"select":       func() (*torch.Tensor, error) { return x.Select(1, -1) },
		"narrow":       func() (*torch.Tensor, error) { return x.Narrow(1, 2, 3) },
		"slice":        func() (*torch.Tensor, error) { return x.Slice(1, 1, 6, 2) },
		"view":         func() (*torch.Tensor, error) { return x.View(8, -1) },
		"reshape":      func() (*torch.Tensor, error) { return turned.Reshape(3, 8) },
		"permute":      func() (*torch.Tensor, error) { return x.Permute(1, 0) },
		"transpose":    func() (*torch.Tensor, error) { return x.Transpose(0, 1) },
		"flatten":      func() (*torch.Tensor, error) { return x.Flatten(0, -1) },
		"squeeze":      func() (*torch.Tensor, error) { return tall.Squeeze() },
		"squeeze_dims": func() (*torch.Tensor, error) { return tall.Squeeze(1) },
		"unsqueeze":    func() (*torch.Tensor, error) { return x.Unsqueeze(-1) },
		"expand":       func() (*torch.Tensor, error) { return row.Expand(2, -1, -1) },
		"detach":       x.Detach,
		"index":        func() (*torch.Tensor, error) { return x.Index(2, 3) },
		"index_select": func() (*torch.Tensor, error) { return x.IndexSelect(0, index) },
		"add":          func() (*torch.Tensor, error) { return x.Add(y) },
		"add_number":   func() (*torch.Tensor, error) { return x.Add(2) },
		"sub":          func() (*torch.Tensor, error) { return x.Sub(y) },
		"mul":          func() (*torch.Tensor, error) { return x.Mul(2.5) },
		"div":          func() (*torch.Tensor, error) { return x.Div(y) },
		"div_int":      func() (*torch.Tensor, error) { return index.Div(2) },
		"pow":          func() (*torch.Tensor, error) { return x.Pow(2) },
		"eq":           func() (*torch.Tensor, error) { return x.Eq(highest) },
		"ne":           func() (*torch.Tensor, error) { return x.Ne(y) },
		"lt":           func() (*torch.Tensor, error) { return x.Lt(y) },
		"le":           func() (*torch.Tensor, error) { return x.Le(0) },
		"gt":           func() (*torch.Tensor, error) { return x.Gt(0.5) },
		"ge":           func() (*torch.Tensor, error) { return x.Ge(y) },
		"matmul":       func() (*torch.Tensor, error) { return x.MatMul(turnedY) },
		"mm":           func() (*torch.Tensor, error) { return x.MM(turnedY) },
		"abs":          x.Abs, "neg": x.Neg, "exp": x.Exp, "log": abs.Log, "sqrt": abs.Sqrt,
		"clamp": func() (*torch.Tensor, error) { return x.Clamp(-0.5, 0.5) },
		"relu":  x.Relu, "gelu": x.Gelu, "sigmoid": x.Sigmoid, "tanh": x.Tanh,
		"leaky_relu":   func() (*torch.Tensor, error) { return x.LeakyRelu(0.1) },
		"softmax":      func() (*torch.Tensor, error) { return x.Softmax(-1) },
		"log_softmax":  func() (*torch.Tensor, error) { return x.LogSoftmax(0) },
		"sum":          func() (*torch.Tensor, error) { return x.Sum() },
		"sum_dims":     func() (*torch.Tensor, error) { return x.Sum(0) },
		"mean":         func() (*torch.Tensor, error) { return x.Mean() },
		"mean_dims":    func() (*torch.Tensor, error) { return x.Mean(0, 1) },
		"max":          x.Max,
		"min":          x.Min,
		"argmax":       func() (*torch.Tensor, error) { return x.Argmax(1, false) },
		"argmin":       func() (*torch.Tensor, error) { return x.Argmin(0, true) },
		"topk_values":  func() (*torch.Tensor, error) { return values, nil },
		"topk_indices": func() (*torch.Tensor, error) { return indices, nil },
		"stack":        func() (*torch.Tensor, error) { return torch.Stack([]*torch.Tensor{x, y}, 1) },
		"cat":          func() (*torch.Tensor, error) { return torch.Cat([]*torch.Tensor{x, y}, -1) },
		"arange":       func() (*torch.Tensor, error) { return torch.Arange(0, 5, 0.5, options) },
		"arange_int":   func() (*torch.Tensor, error) { return torch.Arange(2, 9, 3, torch.TensorOptions{DType: torch.Int64}) },
		"eye":          func() (*torch.Tensor, error) { return torch.Eye(3, options) },
		"eye_bool":     func() (*torch.Tensor, error) { return torch.Eye(2, torch.TensorOptions{DType: torch.Bool}) },
	}
	for _, name := range f.Ops {
		require.Contains(t, ops, name)
		got := own(t)(ops[name]())
		d, err := torch.Compare(got, f.tensor(t, "op."+name, ""))
		require.NoError(t, err, name)
		assert.Zero(t, d.Different, "%s: %s", name, d)
	}
	assert.Len(t, ops, len(f.Ops))

	// Views share the memory.
	for _, name := range []string{"select", "narrow", "slice", "view", "permute", "transpose", "flatten", "unsqueeze", "expand", "detach", "index"} {
		v := own(t)(ops[name]())
		assert.True(t, v.DataPtr() >= x.DataPtr() && v.DataPtr() < x.DataPtr()+4*24, name)
	}
	item, err := highest.Item()
	require.NoError(t, err)
	assert.Equal(t, float64(slices.Max(must(torch.CopyData[float32](x)))), item)
	for want, x := range map[any]*torch.Tensor{
		int64(-3): tensor(t, []int8{-3}, 1, 1), true: tensor(t, []bool{true}), 0.5: tensor(t, []float64{0.5}),
	} {
		got, err := x.Item()
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err = x.Item()
	assert.ErrorIs(t, err, torch.ErrShape)
	_, err = x.Index(9)
	assert.Error(t, err)
	_, err = x.Index(0, 0, 0)
	assert.ErrorIs(t, err, torch.ErrShape)
	var none *torch.Tensor
	_, err = none.Index(0)
	assert.ErrorIs(t, err, torch.ErrInvalidArgument)
	_, err = none.Add(1)
	assert.ErrorIs(t, err, torch.ErrInvalidArgument)
	_, _, err = x.TopK(100, 1)
	assert.Error(t, err)
	_, err = torch.RandN([]int64{2}, torch.TensorOptions{Device: torch.Device{Type: "cuda"}})
	assert.ErrorIs(t, err, torch.ErrCUDANotLoaded)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestNpyAndNpz writes tensors of every dtype for Python to read, and reads what Python wrote.
func TestNpyAndNpz(t *testing.T) {
	dir := t.TempDir()
	half := own(t)(tensor(t, []float32{-1.5, 0, 0.1}).CastTo(torch.Float16))
	brain := own(t)(tensor(t, []float32{-1.5, 0, 0.1}).CastTo(torch.BFloat16))
	turned := own(t)(tensor(t, []int32{1, 2, 3, 4, 5, 6}, 2, 3).Transpose(0, 1))
	tensors := map[string]*torch.Tensor{
		"bool": tensor(t, []bool{true, false}), "uint8": tensor(t, []uint8{0, 255}), "int8": tensor(t, []int8{-128, 127}),
		"int16": tensor(t, []int16{-32768, 32767}), "int32": turned, "int64": tensor(t, []int64{-1 << 63, 1<<63 - 1}),
		"float16": half, "bfloat16": brain, "float32": tensor(t, []float32{0.1, -2}, 1, 2, 1), "float64": tensor(t, []float64{0.1}),
		"scalar": tensor(t, []float32{7}, []int64{}...), "empty": tensor(t, []float32{}, 0, 3),
	}
	require.NoError(t, torch.SaveNpz(filepath.Join(dir, "all.npz"), tensors))
	for name, x := range tensors {
		require.NoError(t, torch.SaveNpy(filepath.Join(dir, name+".npy"), x), name)
	}
	script := filepath.Join(dir, "read.py")
	require.NoError(t, os.WriteFile(script, []byte(`
import sys, pathlib, numpy as np
folder = pathlib.Path(sys.argv[1])
with np.load(folder / "all.npz", allow_pickle=False) as z:
    for name in sorted(z.files):
        one = np.load(folder / (name + ".npy"), allow_pickle=False)
        assert one.dtype == z[name].dtype and one.shape == z[name].shape and one.tobytes() == z[name].tobytes()
        print(name, one.dtype, one.shape, one.ravel().tolist())
np.savez(folder / "back.npz", big=np.arange(6, dtype=">i4").reshape(2, 3), fortran=np.asfortranarray(np.arange(6.0).reshape(2, 3)))
`), 0o644))
	assert.Equal(t, strings.TrimLeft(`
bfloat16 float32 (3,) [-1.5, 0.0, 0.10009765625]
bool bool (2,) [True, False]
empty float32 (0, 3) []
float16 float16 (3,) [-1.5, 0.0, 0.0999755859375]
float32 float32 (1, 2, 1) [0.10000000149011612, -2.0]
float64 float64 (1,) [0.1]
int16 int16 (2,) [-32768, 32767]
int32 int32 (3, 2) [1, 4, 2, 5, 3, 6]
int64 int64 (2,) [-9223372036854775808, 9223372036854775807]
int8 int8 (2,) [-128, 127]
scalar float32 () [7.0]
uint8 uint8 (2,) [0, 255]
`, "\n"), testmain.RunPython(t, script, dir))

	again, err := torch.LoadNpz(filepath.Join(dir, "all.npz"))
	require.NoError(t, err)
	defer torch.CloseAll(again)
	assert.Len(t, again, len(tensors))
	for name, x := range tensors {
		want := x
		if name == "bfloat16" {
			want = own(t)(x.CastTo(torch.Float32))
		}
		one := own(t)(torch.LoadNpy(filepath.Join(dir, name+".npy")))
		for _, got := range []*torch.Tensor{again[name], one} {
			d, err := torch.Compare(want, got)
			require.NoError(t, err, name)
			assert.Zero(t, d.Different, name)
			assert.Zero(t, got.DataPtr()%64, "memory of libtorch")
		}
	}
	back, err := torch.LoadNpz(filepath.Join(dir, "back.npz"))
	require.NoError(t, err)
	defer torch.CloseAll(back)
	assert.Equal(t, "tensor([[0, 1, 2],\n        [3, 4, 5]], dtype=torch.int32)", back["big"].String())
	assert.Equal(t, "tensor([[0., 1., 2.],\n        [3., 4., 5.]], dtype=torch.float64)", back["fortran"].String())

	_, err = torch.LoadNpy(filepath.Join(dir, "missing.npy"))
	assert.ErrorIs(t, err, os.ErrNotExist)
	_, err = torch.LoadNpz(filepath.Join(dir, "bool.npy"))
	assert.Error(t, err)
	_, err = torch.LoadNpy(filepath.Join(dir, "all.npz"))
	assert.Error(t, err)
	closed := tensor(t, []float32{1})
	closed.Close()
	assert.ErrorIs(t, torch.SaveNpy(filepath.Join(dir, "x.npy"), closed), torch.ErrClosed)
	assert.ErrorIs(t, torch.SaveNpz(filepath.Join(dir, "x.npz"), map[string]*torch.Tensor{"x": closed}), torch.ErrClosed)
	assert.NoFileExists(t, filepath.Join(dir, "x.npy"))
	assert.NoFileExists(t, filepath.Join(dir, "x.npz"))
}

// TestRuntimeInfo names what Python names.
func TestRuntimeInfo(t *testing.T) {
	f := reference(t)
	info, err := torch.RuntimeInfo()
	require.NoError(t, err)
	assert.Equal(t, f.Version, info.Version)
	assert.Equal(t, f.Capability, info.CPUCapability)
	assert.False(t, info.CUDA)
	assert.Equal(t, []int{2, 1}, info.LaneThreads)
	assert.Contains(t, info.BuildConfig, "PyTorch built with")
	assert.Contains(t, info.Parallel, "ATen/Parallel")
	assert.Empty(t, info.Notes)
	assert.FileExists(t, info.Shim)
}
