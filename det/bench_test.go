package det_test

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/det"
	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// BenchmarkYOLO is what comes after the forward of a YOLO of 640 x 640: 8400 candidates of 80 classes, of which
// a few hundred count. testdata/bench.py times the like in Python.
func BenchmarkYOLO(b *testing.B) {
	testmain.Measure(b)
	rng := rand.New(rand.NewPCG(1, 2))
	const anchors, classes = 8400, 80
	data := make([]float32, (4+classes)*anchors)
	for i := range anchors {
		object := float64(i % 60)
		for k, v := range []float64{20 + 10*object, 20 + math.Mod(37*object, 600), 60, 80} {
			data[k*anchors+i] = float32(v + 4*rng.NormFloat64())
		}
		for c := range classes {
			data[(4+c)*anchors+i] = float32(0.1 * rng.Float64())
		}
		if i%14 == 0 {
			data[(4+int(object))*anchors+i] = float32(rng.Float64())
		}
	}
	answer, err := torch.NewTensor(data, 1, 4+classes, anchors)
	require.NoError(b, err)
	b.Cleanup(func() { answer.Close() })
	benchmark(b, func(m *vit.Metadata) { m.Output.Kind, m.Labels = vit.OutputYOLO, classNames(classes) },
		func() (any, error) { return answer.Alias() }, "tiny.png", det.DetectOptions{})
}

// BenchmarkSetPrediction is what comes after the forward of a DETR: 100 queries of 91 classes.
func BenchmarkSetPrediction(b *testing.B) {
	testmain.Measure(b)
	rng := rand.New(rand.NewPCG(1, 2))
	logits, boxes := make([]float32, 100*92), make([]float32, 400)
	for i := range logits {
		logits[i] = float32(3 * rng.NormFloat64())
	}
	for i := range boxes {
		boxes[i] = rng.Float32()
	}
	l, err := torch.NewTensor(logits, 1, 100, 92)
	require.NoError(b, err)
	x, err := torch.NewTensor(boxes, 1, 100, 4)
	require.NoError(b, err)
	b.Cleanup(func() { torch.CloseAll(l, x) })
	benchmark(b, func(m *vit.Metadata) { m.Output.Kind = vit.OutputSetPrediction }, func() (any, error) {
		a, err := l.Alias()
		if err != nil {
			return nil, err
		}
		c, err := x.Alias()
		return torch.Tuple{a, c}, err
	}, "tiny.png", det.DetectOptions{})
}

// BenchmarkMasks is what comes after the forward of a Mask R-CNN on a photo of 600 x 400: 20 masks.
func BenchmarkMasks(b *testing.B) {
	testmain.Measure(b)
	const n, h, w = 20, 400, 600
	one := objects(b, n, 0)
	data := make([]float32, n*h*w)
	for i := range data {
		y, x := float64(i/w%h), float64(i%w)
		data[i] = float32(0.5 + 0.5*math.Sin(x/40)*math.Sin(y/50))
	}
	masks, err := torch.NewTensor(data, n, 1, h, w)
	require.NoError(b, err)
	one["masks"] = masks
	b.Cleanup(func() { torch.CloseAll(one) })
	benchmark(b, func(m *vit.Metadata) {
		m.Output.Kind, m.Preprocess.Resize = vit.OutputDetections, transforms.ResizeSpec{}
	}, func() (any, error) {
		out := map[string]any{}
		for k, v := range one {
			t, err := v.(*torch.Tensor).Alias()
			if err != nil {
				return nil, err
			}
			out[k] = t
		}
		return torch.List{out}, nil
	}, "coffee.jpg", det.DetectOptions{Threshold: -1})
}

// benchmark times Detect on answers, with the preprocess of a photo that is decoded.
func benchmark(b *testing.B, edit func(*vit.Metadata), answer func() (any, error), name string, o det.DetectOptions) {
	d, _ := detector(b, func(any) (any, error) { return answer() }, func(m *vit.Metadata) {
		m.Preprocess.Resize = transforms.ResizeSpec{Rule: transforms.RuleExact, Size: []int{32, 32}}
		edit(m)
	})
	photo, err := transforms.Open(b.Context(), photos(b, name)[0].(string), transforms.DecodeOptions{})
	require.NoError(b, err)
	b.Cleanup(func() { photo.Close() })
	best := math.Inf(1) // what a busy machine hardly moves
	for b.Loop() {
		start := time.Now()
		found, err := d.Detect(context.Background(), o, photo)
		if err != nil || len(found[0]) < 10 {
			b.Fatal(len(found[0]), err)
		}
		best = min(best, float64(time.Since(start).Microseconds()))
	}
	b.ReportMetric(best, "best-us")
}
