package loss_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/loss"
	"github.com/torchvit/torchvit/torch/npy"
)

func TestMain(m *testing.M) { testmain.Run(m, torch.Config{Device: "cpu"}) }

func own(t testing.TB) func(x *torch.Tensor, err error) *torch.Tensor {
	return func(x *torch.Tensor, err error) *torch.Tensor {
		t.Helper()
		require.NoError(t, err)
		t.Cleanup(func() { x.Close() })
		return x
	}
}

// referenceCase is one of testdata/reference.py's.
type referenceCase struct {
	Name, Op string
	Inputs   []string
	DTypes   []string
	Leaves   int
	Options  struct {
		Reduction      loss.Reduction
		IgnoreIndex    *int64
		LabelSmoothing float64
		Smooth         float64
		Eps            float64
		Beta           float64
		Alpha, Gamma   *float64
	}
}

// run calls the loss that the case names.
func (c *referenceCase) run(ctx context.Context, in map[string]*torch.Tensor) (*torch.Tensor, error) {
	o := c.Options
	boxes := loss.BoxOptions{Eps: o.Eps, Reduction: o.Reduction}
	switch c.Op {
	case "cross_entropy":
		return loss.CrossEntropy(ctx, in["logits"], in["target"], loss.CrossEntropyOptions{
			Weight: in["weight"], IgnoreIndex: o.IgnoreIndex, LabelSmoothing: o.LabelSmoothing, Reduction: o.Reduction,
		})
	case "dice":
		return loss.Dice(ctx, in["logits"], in["target"], loss.DiceOptions{
			Smooth: o.Smooth, Eps: o.Eps, IgnoreIndex: o.IgnoreIndex, Reduction: o.Reduction,
		})
	case "l1":
		return loss.L1(ctx, in["input"], in["target"], loss.Options{Reduction: o.Reduction})
	case "smooth_l1":
		return loss.SmoothL1(ctx, in["input"], in["target"], loss.SmoothL1Options{Beta: o.Beta, Reduction: o.Reduction})
	case "bce":
		return loss.BCEWithLogits(ctx, in["input"], in["target"], loss.BCEWithLogitsOptions{
			Weight: in["weight"], PosWeight: in["pos_weight"], Reduction: o.Reduction,
		})
	case "focal":
		return loss.SigmoidFocal(ctx, in["input"], in["target"], loss.SigmoidFocalOptions{
			Alpha: o.Alpha, Gamma: o.Gamma, Reduction: o.Reduction,
		})
	case "giou":
		return loss.GIoU(ctx, in["boxes1"], in["boxes2"], boxes)
	case "ciou":
		return loss.CIoU(ctx, in["boxes1"], in["boxes2"], boxes)
	}
	return nil, fmt.Errorf("no loss is called %s", c.Op)
}

// TestLossesAndGradientsHavePythonsBits compares every loss and its gradients with torch.nn.functional and
// torchvision.ops: reductions, weights, ignored pixels, bfloat16, extreme logits, no boxes.
func TestLossesAndGradientsHavePythonsBits(t *testing.T) {
	dir := t.TempDir()
	info, err := torch.RuntimeInfo()
	require.NoError(t, err)
	testmain.RunPython(t, "torch/loss/testdata/reference.py", "--out", dir, "--threads", strconv.Itoa(info.LaneThreads[0]))
	text, err := os.ReadFile(filepath.Join(dir, "cases.json"))
	require.NoError(t, err)
	var cases []referenceCase
	require.NoError(t, json.Unmarshal(text, &cases))
	arrays, err := npy.ReadZipFile(filepath.Join(dir, "arrays.npz"))
	require.NoError(t, err)
	ran := map[string]int{}
	for _, c := range cases {
		ran[c.Op]++
		t.Run(c.Name, func(t *testing.T) {
			array := func(name, dtype string) *torch.Tensor {
				a := arrays.Get(c.Name + "." + name)
				require.NotNil(t, a, name)
				x := own(t)(torch.FromNumpy(a))
				if dtype == "" || dtype == x.DType().String() {
					return x
				}
				d, err := torch.ParseDType(dtype)
				require.NoError(t, err)
				return own(t)(x.CastTo(d))
			}
			same := func(got, want *torch.Tensor, what string) {
				t.Helper()
				d, err := torch.Compare(got, want)
				require.NoError(t, err, what)
				a, err := got.Numpy()
				require.NoError(t, err)
				b, err := want.Numpy()
				require.NoError(t, err)
				assert.Equal(t, b.Shape, a.Shape, what)
				assert.True(t, string(a.Data) == string(b.Data), "%s: %v", what, d)
			}
			in := map[string]*torch.Tensor{}
			for i, name := range c.Inputs {
				in[name] = array("in."+name, c.DTypes[i])
				if i < c.Leaves {
					require.NoError(t, in[name].SetRequiresGrad(true))
				}
			}
			value := own(t)(c.run(t.Context(), in))
			upstream := array("upstream", value.DType().String())
			require.NoError(t, torch.Backward(t.Context(), value, torch.BackwardOptions{Gradient: upstream}))
			same(value, array("value", ""), "the loss")
			for i, name := range c.Inputs[:c.Leaves] {
				grad := own(t)(in[name].Grad())
				same(grad, array("grad."+name, c.DTypes[i]), "the gradient of "+name)
			}
		})
	}
	for op, least := range map[string]int{
		"cross_entropy": 36, "dice": 24, "l1": 12, "smooth_l1": 24, "bce": 39, "focal": 84, "giou": 24, "ciou": 24,
	} {
		assert.GreaterOrEqual(t, ran[op], least, op)
	}
}
