package loader

import (
	"testing"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/transforms"
)

// BenchmarkEpoch reads the test scenes again and again; scripts/bench_loader.py compares with Python.
func BenchmarkEpoch(b *testing.B) {
	set := scenes(b)
	o := augmented()
	o.Size = transforms.Size{Height: 128, Width: 128}
	crop := Augment{RandomResizedCrop: &transforms.RandomResizedCrop{}, HorizontalFlip: 0.5}
	jitter := crop
	jitter.ColorJitter = o.Augment.ColorJitter
	for name, task := range map[string]struct {
		augment Augment
		targets Targets
		cache   int64
	}{
		"crop":       {crop, Boxes, 0},
		"jitter":     {jitter, Boxes, 0},
		"cached":     {jitter, Boxes, 1 << 30},
		"scaleMasks": {Augment{ScaleJitter: &transforms.ScaleJitter{}}, Boxes | Masks, 0},
	} {
		b.Run(name, func(b *testing.B) {
			testmain.Measure(b)
			o.Augment, o.Targets, o.Cache = task.augment, task.targets, task.cache
			l, err := New(set, o)
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			images, number := 0, 0
			b.ReportAllocs()
			for b.Loop() {
				for batch, err := range l.Batches(b.Context(), number, 0) {
					if err != nil {
						b.Fatal(err)
					}
					images += batch.Len()
					batch.Close()
				}
				number++
			}
			b.ReportMetric(float64(images)/b.Elapsed().Seconds(), "images/s")
		})
	}
}
