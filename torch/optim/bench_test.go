package optim_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/optim"
)

// vitShapes are the parameters of a ViT of width 192 and 6 blocks.
func vitShapes() (shapes [][]int64) {
	shapes = append(shapes, []int64{1, 1, 192}, []int64{1, 257, 192}, []int64{192, 3, 8, 8}, []int64{192})
	for range 6 {
		shapes = append(shapes, []int64{192}, []int64{192}, []int64{576, 192}, []int64{576}, []int64{192, 192}, []int64{192},
			[]int64{192}, []int64{192}, []int64{576, 192}, []int64{576}, []int64{192, 576}, []int64{192})
	}
	return append(shapes, []int64{192}, []int64{192}, []int64{10, 192}, []int64{10})
}

// BenchmarkStep is one step of AdamW for 2.3 million parameters, in Python's order and fused, and the
// clipping before it. testdata/steps.py measures the same in Python.
func BenchmarkStep(b *testing.B) {
	testmain.Measure(b)
	var params []optim.Param
	for i, shape := range vitShapes() {
		p, err := torch.RandN(shape, torch.TensorOptions{})
		require.NoError(b, err)
		defer p.Close()
		require.NoError(b, p.SetRequiresGrad(true))
		params = append(params, optim.Param{Name: fmt.Sprint(i), Tensor: p})
		y, err := torch.CallWith(b.Context(), torch.CallOptions{Mode: torch.Grad}, "aten::mul.Scalar", p, 1)
		require.NoError(b, err)
		require.NoError(b, torch.Backward(b.Context(), y.(*torch.Tensor), torch.BackwardOptions{Gradient: p}))
		torch.CloseAll(y)
	}
	for name, fused := range map[string]bool{"adamw": false, "adamw-fused": true} {
		b.Run(name, func(b *testing.B) {
			o, err := optim.NewAdamW(optim.Parameters(params), optim.AdamOptions{Fused: fused})
			require.NoError(b, err)
			defer o.Close()
			b.ReportAllocs()
			for b.Loop() {
				if err := o.Step(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("clip", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := optim.ClipGradNorm(b.Context(), params, 1e9); err != nil {
				b.Fatal(err)
			}
		}
	})
}
