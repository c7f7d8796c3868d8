package torch_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/npy"
)

// TestVisionOperatorsTrain compares torchvision's operators, their gradients and their dtypes in autocast, which
// its library leaves to Python.
func TestVisionOperatorsTrain(t *testing.T) {
	dir := t.TempDir()
	testmain.RunPython(t, "torch/testdata/vision.py", dir)
	text, err := os.ReadFile(filepath.Join(dir, "cases.json"))
	require.NoError(t, err)
	var cases []struct {
		Name, Op string
		Autocast bool
		Leaves   []int
		Args     []any
		Outputs  []string
	}
	require.NoError(t, json.Unmarshal(text, &cases))
	require.Len(t, cases, 8)
	arrays, err := npy.ReadZipFile(filepath.Join(dir, "arrays.npz"))
	require.NoError(t, err)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			array := func(name string) *torch.Tensor {
				a := arrays.Get(c.Name + "." + name)
				require.NotNil(t, a, name)
				return own(t)(torch.FromNumpy(a))
			}
			same := func(got *torch.Tensor, name string) {
				t.Helper()
				a, err := got.Numpy()
				require.NoError(t, err)
				want := arrays.Get(c.Name + "." + name)
				assert.Equal(t, want.Shape, a.Shape, name)
				assert.True(t, string(want.Data) == string(a.Data), name)
			}
			leaf := map[int]*torch.Tensor{}
			for _, i := range c.Leaves {
				leaf[i] = nil
			}
			op, err := torch.Schemas("torchvision::" + c.Op)
			require.NoError(t, err)
			args := make([]any, len(c.Args))
			for i, v := range c.Args {
				_, trained := leaf[i]
				switch v := v.(type) {
				case nil:
					x := array("in." + string(rune('0'+i)))
					if trained && c.Autocast {
						x = own(t)(x.CastTo(torch.BFloat16))
					}
					if trained {
						require.NoError(t, x.SetRequiresGrad(true))
						leaf[i] = x
					}
					args[i] = x
				case float64:
					args[i] = v
					if v == float64(int64(v)) {
						args[i] = int64(v)
					}
				default:
					args[i] = v
				}
			}
			o := torch.CallOptions{Mode: torch.Grad}
			if c.Autocast {
				o.Autocast = torch.BFloat16
			}
			out, err := torch.CallWith(t.Context(), o, "torchvision::"+c.Op, args...)
			require.NoError(t, err, op)
			t.Cleanup(func() { torch.CloseAll(out) })
			var results []*torch.Tensor
			torch.Tensors(out, func(x *torch.Tensor) { results = append(results, x) })
			require.Len(t, results, len(c.Outputs))
			for i, r := range results {
				assert.Equal(t, c.Outputs[i], r.DType().String())
				same(r, "out."+string(rune('0'+i)))
				assert.Equal(t, i == 0 && len(c.Leaves) > 0, r.RequiresGrad())
			}
			if len(c.Leaves) == 0 {
				return
			}
			weight := own(t)(array("weight").CastTo(results[0].DType()))
			require.NoError(t, torch.Backward(t.Context(), results[0], torch.BackwardOptions{Gradient: weight}))
			for i, x := range leaf {
				same(own(t)(x.Grad()), "grad."+string(rune('0'+i)))
			}
		})
	}
}

// TestGradientsAreSummedInTheOrderOfTheCalls has a tensor that ten calls use, each on another thread than the one
// before. As in Python, whose calls all run on one thread, the last one's gradient comes first; in another order
// the sum has other bits.
func TestGradientsAreSummedInTheOrderOfTheCalls(t *testing.T) {
	factors := []float64{1e8, 1, -1e8, 3.3, 1e-3, 7e7, 0.1, -7e7, 2e4, -0.7}
	want := float32(0)
	for i := len(factors) - 1; i >= 0; i-- {
		want += float32(factors[i])
	}
	for first := range 2 {
		x := leaf(t, 1)
		parts := make([]*torch.Tensor, len(factors))
		for i, f := range factors {
			o := torch.CallOptions{Mode: torch.Grad, OnLane: i%2 == first, OnCaller: i%2 != first}
			v, err := torch.CallWith(t.Context(), o, "aten::mul.Scalar", x, f)
			require.NoError(t, err)
			parts[i] = own(t)(v.(*torch.Tensor), nil)
		}
		all := record(t, "aten::sum", record(t, "aten::stack", parts))
		require.NoError(t, torch.Backward(t.Context(), all, torch.BackwardOptions{}))
		assert.Equal(t, []float32{want}, gradOf(t, x))
	}
}

// TestVisionOperatorsHaveNoSecondDerivative: as in Python they are an error, and not left out in silence.
func TestVisionOperatorsHaveNoSecondDerivative(t *testing.T) {
	pixels := make([]float32, 64)
	for i := range pixels {
		pixels[i] = float32(i)
	}
	x, w := tensor(t, pixels, 1, 1, 8, 8), tensor(t, []float32{1, 2, 3, 4}, 1, 1, 2, 2)
	require.NoError(t, x.SetRequiresGrad(true))
	require.NoError(t, w.SetRequiresGrad(true))
	pooled := record(t, "torchvision::roi_align", x, tensor(t, []float32{0, 1, 1, 6, 6}, 1, 5), 1.0, 2, 2, 2, false)
	out := record(t, "aten::sum", record(t, "aten::mul.Tensor", pooled, w))
	first, err := torch.Gradients(t.Context(), []*torch.Tensor{out}, []*torch.Tensor{x}, torch.GradientsOptions{CreateGraph: true})
	require.NoError(t, err)
	t.Cleanup(func() { torch.CloseAll(first) })
	sum := must(first[0].Sum())
	t.Cleanup(func() { sum.Close() })
	total := record(t, "aten::sum", first[0])
	assert.InDelta(t, 10, must(torch.CopyData[float32](sum))[0], 1e-5, "all of w comes back")
	_, err = torch.Gradients(t.Context(), []*torch.Tensor{total}, []*torch.Tensor{w}, torch.GradientsOptions{})
	require.ErrorContains(t, err, "derivative for torchvision::_roi_align_backward is not implemented")
}
