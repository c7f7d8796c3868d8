package loss_test

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/loss"
)

func floats(t testing.TB, data []float32, shape ...int64) *torch.Tensor {
	t.Helper()
	return own(t)(torch.NewTensor(data, shape...))
}

func whole(t testing.TB, data []int64, shape ...int64) *torch.Tensor {
	t.Helper()
	return own(t)(torch.NewTensor(data, shape...))
}

func zeros(t testing.TB, dtype torch.DType, shape ...int64) *torch.Tensor {
	t.Helper()
	return own(t)(torch.Zeros(shape, torch.TensorOptions{DType: dtype}))
}

func item(t testing.TB, x *torch.Tensor) float64 {
	t.Helper()
	v, err := x.Item()
	require.NoError(t, err)
	return v.(float64)
}

func TestSum(t *testing.T) {
	a, b := floats(t, []float32{2}, 1), floats(t, []float32{3}, 1)
	require.NoError(t, a.SetRequiresGrad(true))
	require.NoError(t, b.SetRequiresGrad(true))
	sum := own(t)(loss.Sum(t.Context(), loss.Term{Loss: a, Weight: 0.5}, loss.Term{Loss: b, Weight: 4}))
	assert.InDelta(t, 13, item(t, sum), 0)
	require.NoError(t, torch.Backward(t.Context(), sum, torch.BackwardOptions{}))
	assert.InDelta(t, 0.5, item(t, own(t)(a.Grad())), 0)
	assert.InDelta(t, 4, item(t, own(t)(b.Grad())), 0)
	_, err := loss.Sum(t.Context())
	require.ErrorIs(t, err, torch.ErrInvalidArgument)
	_, err = loss.Sum(t.Context(), loss.Term{Loss: a, Weight: 1}, loss.Term{})
	require.EqualError(t, err, "sum: invalid argument: got a nil tensor")
}

// TestTargetsOfInferenceMode trains on targets, weights and boxes that calls of the default mode made, which
// autograd refuses to keep.
func TestTargetsOfInferenceMode(t *testing.T) {
	ctx := t.Context()
	inference := func(x *torch.Tensor) *torch.Tensor {
		y := own(t)(torch.CallTensor(ctx, "aten::clone", x))
		require.True(t, y.IsInference())
		return y
	}
	leaf := func(shape ...int64) *torch.Tensor {
		x := own(t)(torch.RandN(shape, torch.TensorOptions{}))
		require.NoError(t, x.SetRequiresGrad(true))
		return x
	}
	classes := inference(whole(t, []int64{0, 2, 1, 0, 2, 2, 1, 255}, 2, 2, 2))
	weight := inference(floats(t, []float32{1, 2, 3}))
	hot := inference(floats(t, []float32{0, 1, 1, 0}, 4))
	boxes := inference(floats(t, []float32{0, 0, 2, 3, 1, 1, 4, 4}, 2, 4))
	logits, rows, corners := leaf(2, 3, 2, 2), leaf(4), leaf(2, 4)
	for name, run := range map[string]func() (*torch.Tensor, error){
		"cross_entropy": func() (*torch.Tensor, error) {
			return loss.CrossEntropy(ctx, logits, classes, loss.CrossEntropyOptions{Weight: weight, IgnoreIndex: new(int64(255))})
		},
		"dice": func() (*torch.Tensor, error) {
			return loss.Dice(ctx, logits, classes, loss.DiceOptions{IgnoreIndex: new(int64(255))})
		},
		"bce": func() (*torch.Tensor, error) {
			return loss.BCEWithLogits(ctx, rows, hot, loss.BCEWithLogitsOptions{Weight: hot, PosWeight: hot})
		},
		"focal":     func() (*torch.Tensor, error) { return loss.SigmoidFocal(ctx, rows, hot, loss.SigmoidFocalOptions{}) },
		"smooth_l1": func() (*torch.Tensor, error) { return loss.SmoothL1(ctx, rows, hot, loss.SmoothL1Options{}) },
		"l1":        func() (*torch.Tensor, error) { return loss.L1(ctx, rows, hot, loss.Options{}) },
		"giou":      func() (*torch.Tensor, error) { return loss.GIoU(ctx, corners, boxes, loss.BoxOptions{}) },
		"ciou":      func() (*torch.Tensor, error) { return loss.CIoU(ctx, corners, boxes, loss.BoxOptions{}) },
	} {
		value, err := run()
		require.NoError(t, err, name)
		require.NoError(t, torch.Backward(ctx, own(t)(value, nil), torch.BackwardOptions{}), name)
	}
	// Logits of inference mode give a loss as well, as of a validation set, without a gradient.
	value := own(t)(loss.CrossEntropy(ctx, inference(logits), classes, loss.CrossEntropyOptions{IgnoreIndex: new(int64(255))}))
	assert.False(t, value.RequiresGrad())
	assert.Positive(t, item(t, value))
}

func TestAllIgnoredIsNaNAsInPyTorch(t *testing.T) {
	x, y := zeros(t, torch.Float32, 2, 3), whole(t, []int64{255, 255})
	o := loss.CrossEntropyOptions{IgnoreIndex: new(int64(255))}
	assert.True(t, math.IsNaN(item(t, own(t)(loss.CrossEntropy(t.Context(), x, y, o)))))
	o.Reduction = loss.ReductionSum
	assert.Zero(t, item(t, own(t)(loss.CrossEntropy(t.Context(), x, y, o))))
}

func TestErrors(t *testing.T) {
	ctx := t.Context()
	logits, target := zeros(t, torch.Float32, 2, 3, 2, 2), zeros(t, torch.Int64, 2, 2, 2)
	f4, i4, boxes := zeros(t, torch.Float32, 4), zeros(t, torch.Int64, 4), zeros(t, torch.Float32, 4, 4)
	closed := zeros(t, torch.Float32, 4)
	closed.Close()
	wanting := zeros(t, torch.Float32, 4)
	require.NoError(t, wanting.SetRequiresGrad(true))
	entropy := func(x, y *torch.Tensor, o loss.CrossEntropyOptions) func() (*torch.Tensor, error) {
		return func() (*torch.Tensor, error) { return loss.CrossEntropy(ctx, x, y, o) }
	}
	dice := func(x, y *torch.Tensor, o loss.DiceOptions) func() (*torch.Tensor, error) {
		return func() (*torch.Tensor, error) { return loss.Dice(ctx, x, y, o) }
	}
	bce := func(x, y *torch.Tensor, o loss.BCEWithLogitsOptions) func() (*torch.Tensor, error) {
		return func() (*torch.Tensor, error) { return loss.BCEWithLogits(ctx, x, y, o) }
	}
	class := whole(t, []int64{0, 1, 2, 0, 255, 1, 7, 1}, 2, 2, 2)
	none := entropy(nil, target, loss.CrossEntropyOptions{})
	for _, c := range []struct {
		run  func() (*torch.Tensor, error)
		kind error
		text string
	}{
		{none, torch.ErrInvalidArgument, "cross_entropy: invalid argument: got a nil tensor"},
		{entropy(closed, target, loss.CrossEntropyOptions{}), torch.ErrClosed, "cross_entropy: closed: got a tensor that is closed"},
		{
			entropy(logits, i4, loss.CrossEntropyOptions{}), torch.ErrShape,
			"cross_entropy: wrong shape: got logits of [2 3 2 2] and a target of [4], want (B, C, ...) and the same without C",
		},
		{
			entropy(f4, i4, loss.CrossEntropyOptions{}), torch.ErrShape,
			"cross_entropy: wrong shape: got logits of [4] and a target of [4], want (B, C, ...) and the same without C",
		},
		{
			entropy(logits, zeros(t, torch.Uint8, 2, 2, 2), loss.CrossEntropyOptions{}), torch.ErrDType,
			"cross_entropy: wrong dtype: got a target of uint8, want int64",
		},
		{
			entropy(zeros(t, torch.Int64, 2, 3, 2, 2), target, loss.CrossEntropyOptions{}), torch.ErrDType,
			"cross_entropy: wrong dtype: got int64, want floats",
		},
		{
			entropy(logits, class, loss.CrossEntropyOptions{}), loss.ErrClass,
			"cross_entropy: class out of range: got 255 at [1 0 0] of the target, want 0 to 2 or -100, which is ignored",
		},
		{
			entropy(logits, class, loss.CrossEntropyOptions{IgnoreIndex: new(int64(255)), LabelSmoothing: 0.1}), loss.ErrClass,
			"cross_entropy: class out of range: got 7 at [1 1 0] of the target, want 0 to 2 or 255, which is ignored",
		},
		{
			entropy(logits, target, loss.CrossEntropyOptions{LabelSmoothing: math.NaN()}), torch.ErrInvalidArgument,
			"cross_entropy: invalid argument: got label smoothing NaN, want 0 to 1",
		},
		{
			entropy(logits, target, loss.CrossEntropyOptions{Weight: f4}), torch.ErrShape,
			"cross_entropy: wrong shape: got a weight of [4], want one for each of 3 classes",
		},
		{
			entropy(logits, target, loss.CrossEntropyOptions{Reduction: 3}), torch.ErrInvalidArgument,
			"cross_entropy: invalid argument: got reduction 3, want ReductionMean, ReductionSum or ReductionNone",
		},
		{
			dice(zeros(t, torch.Float32, 2, 3), zeros(t, torch.Int64, 2), loss.DiceOptions{}), torch.ErrShape,
			"dice: wrong shape: got logits of [2 3] and a target of [2], want (B, C, H, W) and the same without C",
		},
		{
			dice(logits, class, loss.DiceOptions{}), loss.ErrClass,
			"dice: class out of range: got 255 at [1 0 0] of the target, want 0 to 2",
		},
		{
			dice(logits, class, loss.DiceOptions{IgnoreIndex: new(int64(255))}), loss.ErrClass,
			"dice: class out of range: got 7 at [1 1 0] of the target, want 0 to 2 or 255, which is ignored",
		},
		{
			bce(f4, boxes, loss.BCEWithLogitsOptions{}), torch.ErrShape,
			"binary_cross_entropy_with_logits: wrong shape: got a target of [4 4], want [4], the input's",
		},
		{
			bce(f4, f4, loss.BCEWithLogitsOptions{PosWeight: boxes}), torch.ErrShape,
			"binary_cross_entropy_with_logits: wrong shape: got a pos_weight of [4 4], want one that broadcasts to [4]",
		},
		{
			bce(f4, wanting, loss.BCEWithLogitsOptions{}), torch.ErrInvalidArgument,
			"binary_cross_entropy_with_logits: invalid argument: got a target that requires a gradient, want one without",
		},
		{
			func() (*torch.Tensor, error) {
				return loss.SigmoidFocal(ctx, f4, f4, loss.SigmoidFocalOptions{Alpha: new(1.5)})
			},
			torch.ErrInvalidArgument, "sigmoid_focal_loss: invalid argument: got alpha 1.5, want 0 to 1, or -1 for none",
		},
		{
			func() (*torch.Tensor, error) { return loss.SmoothL1(ctx, f4, f4, loss.SmoothL1Options{Beta: -1}) },
			torch.ErrInvalidArgument, "smooth_l1_loss: invalid argument: got beta -1, want one above 0",
		},
		{
			func() (*torch.Tensor, error) { return loss.L1(ctx, i4, f4, loss.Options{}) },
			torch.ErrDType, "l1_loss: wrong dtype: got int64, want floats",
		},
		{
			func() (*torch.Tensor, error) { return loss.GIoU(ctx, boxes, f4, loss.BoxOptions{}) },
			torch.ErrShape, "generalized_box_iou_loss: wrong shape: got boxes of [4 4] and [4], want (N, 4) twice",
		},
		{
			func() (*torch.Tensor, error) { return loss.CIoU(ctx, boxes, nil, loss.BoxOptions{}) },
			torch.ErrInvalidArgument, "complete_box_iou_loss: invalid argument: got a nil tensor",
		},
	} {
		_, err := c.run()
		require.ErrorIs(t, err, c.kind, c.text)
		require.EqualError(t, err, c.text)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	_, err := loss.CIoU(done, boxes, boxes, loss.BoxOptions{})
	require.ErrorIs(t, err, context.Canceled)
}
