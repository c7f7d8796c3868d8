package det

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
)

// TestGridLossFindsBoxes lets free levels follow the gradient; what Detect's decoding makes of them are the boxes.
func TestGridLossFindsBoxes(t *testing.T) {
	ctx := t.Context()
	own := func(x *torch.Tensor, err error) *torch.Tensor {
		t.Helper()
		require.NoError(t, err)
		t.Cleanup(func() { x.Close() })
		return x
	}
	anchors := [][][2]float64{{{10, 12}, {20, 16}}, {{30, 24}, {28, 40}}}
	boxes := []*torch.Tensor{
		own(torch.NewTensor([]float32{2, 3, 14, 15, 30, 20, 62, 50}, 2, 4)),
		own(torch.NewTensor([]float32{8.5, 10, 36, 47}, 1, 4)),
	}
	labels := []*torch.Tensor{own(torch.NewTensor([]int64{2, 0})), own(torch.NewTensor([]int64{1}))}
	levels := []*torch.Tensor{
		own(torch.Zeros([]int64{2, 16, 8, 8}, torch.TensorOptions{})),
		own(torch.Zeros([]int64{2, 16, 4, 4}, torch.TensorOptions{})),
	}
	o := GridLossOptions{Anchors: anchors, Height: 64, Width: 64}
	update := func(name string, args ...any) {
		v, err := torch.CallWith(ctx, torch.CallOptions{Mode: torch.NoGrad}, name, args...)
		require.NoError(t, err)
		torch.CloseAll(v)
	}
	for _, level := range levels {
		require.NoError(t, level.SetRequiresGrad(true))
	}
	for range 80 {
		total, parts, err := GridLoss(ctx, levels, boxes, labels, o)
		require.NoError(t, err)
		require.NoError(t, torch.Backward(ctx, total, torch.BackwardOptions{}))
		torch.CloseAll(total, parts)
		for _, level := range levels {
			g, err := level.Grad()
			require.NoError(t, err)
			// The sign's step, as the gradients of means of many are small.
			update("aten::sub_.Tensor", level, own(torch.CallTensor(ctx, "aten::sign", g)), torch.Kwargs{"alpha": 0.1})
			update("aten::zero_", g)
			g.Close()
		}
	}
	outputs, err := yoloGrid(ctx, levels, &request{n: 2, height: 64, width: 64, floor: 0.3, anchors: anchors})
	require.NoError(t, err)
	defer closeOutputs(outputs)
	for i, found := range outputs {
		require.Positive(t, found.Boxes.Size(0))
		values := data[float32](t, found.Boxes)
		classes := data[int64](t, found.Labels)
		want := data[float32](t, boxes[i])
		for j, id := range data[int64](t, labels[i]) {
			best := float32(0)
			for k, class := range classes {
				if class == id {
					best = max(best, boxAt(values, k).IoU(boxAt(want, j)))
				}
			}
			assert.Greater(t, best, float32(0.8), "image %d, box %d of %d candidates", i, j, len(classes))
		}
		for k, class := range classes { // and nothing else
			best := float32(0)
			for j, id := range data[int64](t, labels[i]) {
				if class == id {
					best = max(best, boxAt(values, k).IoU(boxAt(want, j)))
				}
			}
			assert.Greater(t, best, float32(0.5), "image %d, candidate %d", i, k)
		}
	}
}

func data[T torch.Element](t *testing.T, x *torch.Tensor) []T {
	t.Helper()
	values, err := torch.CopyData[T](x)
	require.NoError(t, err)
	return values
}

func boxAt(values []float32, i int) Box {
	return Box{values[4*i], values[4*i+1], values[4*i+2], values[4*i+3]}
}
