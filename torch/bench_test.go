package torch_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
)

// BenchmarkFromSlice is FromSlice and Close: at most 1 microsecond on an idle machine.
func BenchmarkFromSlice(b *testing.B) {
	testmain.Measure(b)
	data := make([]float32, 3*224*224)
	b.ReportAllocs()
	for b.Loop() {
		x, err := torch.FromSlice(data, 1, 3, 224, 224)
		if err != nil {
			b.Fatal(err)
		}
		x.Close()
	}
}

// BenchmarkEmpty is Empty and Close, where the memory is libtorch's.
func BenchmarkEmpty(b *testing.B) {
	testmain.Measure(b)
	shape := []int64{1, 3, 224, 224}
	b.ReportAllocs()
	for b.Loop() {
		x, err := torch.Empty(shape, torch.TensorOptions{})
		if err != nil {
			b.Fatal(err)
		}
		x.Close()
	}
}

// BenchmarkShape is one call that fetches the metadata.
func BenchmarkShape(b *testing.B) {
	x := tensor(b, []float32{1, 2, 3, 4}, 2, 2)
	b.ReportAllocs()
	for b.Loop() {
		if len(x.Shape()) != 2 {
			b.Fatal("shape")
		}
	}
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
		{"add", "aten::add", []any{x, x}}, // 20 overloads
		{"softmax", "aten::softmax", []any{x, -1, nil}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				y, err := torch.CallTensor(ctx, c.op, c.args...)
				if err != nil {
					b.Fatal(err)
				}
				y.Close()
			}
			b.StopTimer()
			const n = 20000
			seconds, err := torch.OperatorSeconds(ctx, c.op, n, c.args...)
			require.NoError(b, err)
			perCall := seconds / n * 1e9
			b.ReportMetric(perCall, "C++-ns/op")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)-perCall, "over-ns/op")
		})
	}
}
