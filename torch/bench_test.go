package torch_test

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
)

// measure runs f, which closes what it makes, and reports the best batch, too.
func measure(b *testing.B, f func() error) float64 {
	b.Helper()
	call := func() {
		if err := f(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		call()
	}
	best := testmain.Best(call)
	b.ReportMetric(best, "best-ns/op")
	return best
}

func closed(x *torch.Tensor, err error) error {
	x.Close()
	return err
}

// BenchmarkFromSlice is FromSlice and Close: at most 1 microsecond on an idle machine.
func BenchmarkFromSlice(b *testing.B) {
	testmain.Measure(b)
	data := make([]float32, 3*224*224)
	measure(b, func() error { return closed(torch.FromSlice(data, 1, 3, 224, 224)) })
}

// BenchmarkEmpty is Empty and Close, where the memory is libtorch's.
func BenchmarkEmpty(b *testing.B) {
	testmain.Measure(b)
	shape := []int64{1, 3, 224, 224}
	measure(b, func() error { return closed(torch.Empty(shape, torch.TensorOptions{})) })
}

// BenchmarkShape is one call that fetches the metadata.
func BenchmarkShape(b *testing.B) {
	x := tensor(b, []float32{1, 2, 3, 4}, 2, 2)
	measure(b, func() error {
		x.Shape()
		return nil
	})
}

// BenchmarkCall is torch.Call on a small tensor and Close of the result, against the same calls made in
// C++: at most 2 microseconds more on an idle machine.
func BenchmarkCall(b *testing.B) {
	ctx := context.Background()
	x := tensor(b, []float32{1, 2, 3, 4}, 2, 2)
	testmain.Measure(b)
	for _, c := range []struct {
		name, op string
		args     []any
	}{
		{"relu", "aten::relu", []any{x}},
		{"add", "aten::add", []any{x, x}}, // 16 overloads
		{"softmax", "aten::softmax", []any{x, -1, nil}},
	} {
		b.Run(c.name, func(b *testing.B) {
			best := measure(b, func() error { return closed(torch.CallTensor(ctx, c.op, c.args...)) })
			cpp := math.Inf(1)
			for range 200 {
				const n = 100
				seconds, err := torch.OperatorSeconds(ctx, c.op, n, c.args...)
				require.NoError(b, err)
				cpp = min(cpp, seconds/n*1e9)
			}
			b.ReportMetric(cpp, "C++-ns/op")
			b.ReportMetric(best-cpp, "over-ns/op")
		})
	}
}
