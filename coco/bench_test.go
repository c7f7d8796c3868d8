package coco

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The benchmarks run pycocotools on the same input in the same run. They report python/go, how many times
// as long its best call takes as the best one here.

// best gives the least time of the loop's calls.
func best(b *testing.B, f func() error) time.Duration {
	least := time.Duration(math.MaxInt64)
	for b.Loop() {
		start := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		least = min(least, time.Since(start))
	}
	return least
}

func BenchmarkMasks(b *testing.B) {
	r := rand.New(rand.NewPCG(7, 8))
	const height, width = 3000, 4000
	mask := randomMask(r, height, width, 0)
	for i, v := range mask {
		mask[i] = min(v, 1)
	}
	bools := make([]bool, len(mask))
	for i, v := range mask {
		bools[i] = v != 0
	}
	photo, err := Encode(mask, height, width)
	require.NoError(b, err)
	require.Positive(b, photo.Area())

	var input struct {
		Photo    encodeCase  `json:"photo"`
		Height   int         `json:"height"`
		Width    int         `json:"width"`
		DT       []RLE       `json:"dt"`
		GT       []RLE       `json:"gt"`
		Polygons [][]float64 `json:"polygons"`
		Dataset  string      `json:"dataset"`
	}
	input.Photo = encodeCase{height, width, mask}
	input.Height, input.Width = 480, 640
	for i := range 160 {
		box := Box{r.Float64() * 500, r.Float64() * 300, 20 + r.Float64()*400, 20 + r.Float64()*300}
		points := blob(r, box, 20)
		m, err := FromPolygons([][]float64{points}, input.Height, input.Width)
		require.NoError(b, err)
		input.Polygons = append(input.Polygons, points)
		if i < 100 {
			input.DT = append(input.DT, m)
		} else {
			input.GT = append(input.GT, m)
		}
	}
	gt, _ := big(b, false)
	for i := range gt.Annotations {
		a := &gt.Annotations[i]
		a.Segmentation.Polygons = [][]float64{blob(r, a.Box, 24)}
	}
	input.Dataset = filepath.Join(b.TempDir(), "gt.json")
	require.NoError(b, WriteDatasetFile(input.Dataset, gt))

	var python map[string]float64
	runPython(b, "speed.py", input, &python)
	run := func(name, same string, f func() error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			least := best(b, f)
			b.ReportMetric(python[same]*1e3, "python-ms")
			b.ReportMetric(python[same]/least.Seconds(), "python/go")
		})
	}
	run("encode", "encode", func() error {
		_, err := Encode(mask, height, width)
		return err
	})
	run("encodeBools", "encode", func() error {
		_, err := Encode(bools, height, width)
		return err
	})
	run("decode", "decode", func() error {
		_, err := photo.Decode()
		return err
	})
	run("iou", "iou", func() error {
		_, err := IoU(input.DT, input.GT, nil)
		return err
	})
	run("polygons", "polygons", func() error {
		for _, p := range input.Polygons {
			if _, err := FromPolygons([][]float64{p}, input.Height, input.Width); err != nil {
				return err
			}
		}
		return nil
	})
	run("readDataset", "read", func() error {
		_, err := ReadDatasetFile(input.Dataset)
		return err
	})
}

// big is a set of the size that models are evaluated on.
func big(b testing.TB, masks bool) (*Dataset, []Result) {
	s := scene{images: 1500, categories: 80, objects: 14, wrong: 60, side: 640}
	if masks {
		s = scene{images: 300, categories: 80, objects: 14, wrong: 60, side: 640, masks: true}
	}
	return s.random(b, rand.New(rand.NewPCG(21, 22)))
}

func BenchmarkEvaluate(b *testing.B) {
	for _, kind := range []IoUType{BBox, Segm} {
		b.Run(kind.String(), func(b *testing.B) {
			gt, dt := big(b, kind == Segm)
			for i := range dt {
				if kind == Segm {
					dt[i].Box = nil
				}
			}
			c := writeCase(b, gt, dt, EvalOptions{Type: kind})
			c.Bench = true
			var r *EvalResult
			least := best(b, func() (err error) {
				r, err = Evaluate(gt, dt, EvalOptions{Type: kind})
				return err
			})
			var answers []evalAnswer
			runPython(b, "evaluate.py", []evalCase{c}, &answers)
			values := r.Stats.Values()
			require.Equal(b, answers[0].Stats, values[:])
			b.ReportMetric(answers[0].Seconds/least.Seconds(), "python/go")
			b.ReportMetric(answers[0].Seconds*1e3, "python-ms")
			b.ReportMetric(float64(len(dt)), "detections")
		})
	}
}
