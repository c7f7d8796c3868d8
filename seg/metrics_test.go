package seg_test

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/seg"
	"github.com/torchvit/torchvit/vit"
)

// metricsImage is one image as testdata/metrics.py reads it.
type metricsImage struct {
	Width     int    `json:"width"`
	Height    int    `json:"height"`
	Predicted []byte `json:"predicted"`
	Labels    []byte `json:"labels"`
}

type metricsRequest struct {
	Classes         int            `json:"classes"`
	Ignore          int            `json:"ignore"`
	ReduceZeroLabel bool           `json:"reduce_zero_label"`
	Images          []metricsImage `json:"images"`
}

// number reads null as NaN.
type number float64

func (n *number) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		*n = number(math.NaN())
		return nil
	}
	return json.Unmarshal(text, (*float64)(n))
}

type metricsAnswer struct {
	MMSegmentation struct {
		AAcc, MIoU, MAcc, MDice, MPrecision, MRecall, MFscore number
		IoU, Acc, Dice, Precision, Fscore                     []number
	}
	Torchvision *struct {
		Matrix       []int64
		Global, Mean number
		Acc, IoU     []number
	}
	Torchmetrics *struct {
		IoU, Accuracy, Precision, Recall, Dice []number
		MeanIoU                                number `json:"mean_iou"`
		PixelAccuracy                          number `json:"pixel_accuracy"`
	}
}

func pythonMetrics(t *testing.T, r []metricsRequest) (a []metricsAnswer) {
	t.Helper()
	in, err := json.Marshal(r)
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), testmain.Python(t), "-W", "ignore", "testdata/metrics.py")
	cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1")
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	require.NoError(t, json.Unmarshal(out, &a), string(out))
	return a
}

// randomImages are labels of blobs and predictions that are right for a part of the pixels, which differs from
// class to class. Labels are offset classes on; absent classes are neither there nor predicted.
func randomImages(seed uint64, n, classes, offset int, absent ...int) []metricsImage {
	rng := rand.New(rand.NewPCG(seed, 1))
	draw := func() int {
		for {
			c := int(float64(classes) * math.Pow(rng.Float64(), 1.7)) // unequal shares
			ok := true
			for _, a := range absent {
				ok = ok && a != c
			}
			if ok {
				return c
			}
		}
	}
	images := make([]metricsImage, n)
	for i := range images {
		m := metricsImage{Width: 20 + rng.IntN(60), Height: 20 + rng.IntN(60)}
		for range m.Width * m.Height {
			label := draw()
			predicted := label
			if rng.Float64() > 0.9-0.6*float64(label)/float64(classes) {
				predicted = draw()
			}
			stored := label + offset
			if rng.IntN(12) == 0 {
				stored = 255
			}
			if offset > 0 && rng.IntN(9) == 0 {
				stored = 0
			}
			m.Labels = append(m.Labels, byte(stored))
			m.Predicted = append(m.Predicted, byte(predicted))
		}
		images[i] = m
	}
	return images
}

func classMap(t *testing.T, m metricsImage, pixels []byte) *seg.ClassMap {
	t.Helper()
	c, err := seg.NewClassMap(m.Width, m.Height, pixels)
	require.NoError(t, err)
	return c
}

func measure(t *testing.T, images []metricsImage, o seg.MetricsOptions) *seg.Metrics {
	t.Helper()
	// In two halves, as goroutines would.
	halves := make([]*seg.Metrics, 2)
	for i := range halves {
		m, err := seg.NewMetrics(o)
		require.NoError(t, err)
		halves[i] = m
	}
	for i, img := range images {
		require.NoError(t, halves[i%2].Add(classMap(t, img, img.Predicted), classMap(t, img, img.Labels)))
	}
	require.NoError(t, halves[0].Merge(halves[1]))
	return halves[0]
}

const tolerance = 1e-9

func same(t *testing.T, what string, want number, got float64) {
	t.Helper()
	if math.IsNaN(float64(want)) {
		assert.True(t, math.IsNaN(got), "%s: got %v, want NaN", what, got)
		return
	}
	assert.InDelta(t, float64(want), got, tolerance, what)
}

func sameAll(t *testing.T, what string, want []number, s seg.Scores, got func(seg.ClassScores) float64) {
	t.Helper()
	require.Len(t, s.Classes, len(want), what)
	for c := range want {
		same(t, what, want[c], got(s.Classes[c]))
	}
}

func TestMetricsArePythons(t *testing.T) {
	var requests []metricsRequest
	var tests []func(want metricsAnswer)
	for name, c := range map[string]struct {
		classes, ignore int
		reduce          bool
		absent          []int
	}{
		"all classes":        {classes: 11, ignore: 255},
		"absent classes":     {classes: 21, ignore: 255, absent: []int{3, 20}},
		"150, from 1":        {classes: 150, ignore: 255, reduce: true, absent: []int{77}},
		"a class is ignored": {classes: 5, ignore: 2},
	} {
		offset := 0
		if c.reduce {
			offset = 1
		}
		images := randomImages(uint64(c.classes), 7, c.classes, offset, c.absent...)
		o := seg.MetricsOptions{Classes: c.classes, ReduceZeroLabel: c.reduce}
		if c.ignore != 255 {
			o.Ignore = []uint8{uint8(c.ignore), 255}
			for _, img := range images { // the packages know one label to ignore
				for i, v := range img.Labels {
					if v == 255 {
						img.Labels[i] = byte(c.ignore)
					}
				}
			}
		}
		requests = append(requests, metricsRequest{c.classes, c.ignore, c.reduce, images})
		tests = append(tests, func(want metricsAnswer) {
			t.Log(name)
			m := measure(t, images, o)
			s := m.Scores()
			mm := want.MMSegmentation
			same(t, "aAcc", mm.AAcc, s.PixelAccuracy)
			same(t, "mIoU", mm.MIoU, s.MeanIoU)
			same(t, "mAcc", mm.MAcc, s.MeanAccuracy)
			same(t, "mDice", mm.MDice, s.MeanDice)
			same(t, "mPrecision", mm.MPrecision, s.MeanPrecision)
			same(t, "mRecall", mm.MRecall, s.MeanRecall)
			same(t, "mFscore", mm.MFscore, s.MeanFScore)
			iou := func(x seg.ClassScores) float64 { return x.IoU }
			accuracy := func(x seg.ClassScores) float64 { return x.Accuracy }
			precision := func(x seg.ClassScores) float64 { return x.Precision }
			sameAll(t, "IoU", mm.IoU, s, iou)
			sameAll(t, "Acc", mm.Acc, s, accuracy)
			sameAll(t, "Dice", mm.Dice, s, func(x seg.ClassScores) float64 { return x.Dice })
			sameAll(t, "Precision", mm.Precision, s, precision)
			sameAll(t, "Fscore", mm.Fscore, s, func(x seg.ClassScores) float64 { return x.FScore })

			// Nothing trivial was compared.
			assert.Positive(t, m.Ignored)
			assert.Equal(t, c.classes-len(c.absent), s.Present())
			distinct := map[float64]bool{}
			for _, v := range []float64{s.PixelAccuracy, s.MeanIoU, s.MeanAccuracy, s.MeanDice, s.MeanPrecision} {
				assert.Greater(t, v, 0.1)
				assert.Less(t, v, 0.95)
				distinct[v] = true
			}
			assert.Len(t, distinct, 5)
			for _, x := range s.Classes {
				if !math.IsNaN(x.IoU) {
					distinct[x.IoU] = true
				}
			}
			assert.Greater(t, len(distinct), 5+s.Present()*3/4)

			if want.Torchvision == nil {
				return
			}
			if c.ignore == 255 { // torchvision's ignores what is no class
				assert.Equal(t, want.Torchvision.Matrix, m.Confusion.Counts)
				same(t, "global correct", want.Torchvision.Global, s.PixelAccuracy)
				same(t, "torchvision's mean IoU", want.Torchvision.Mean, s.MeanIoUTorchvision)
				assert.Equal(t, len(c.absent) > 0, math.IsNaN(s.MeanIoUTorchvision))
				sameAll(t, "torchvision's IoU", want.Torchvision.IoU, s, iou)
				sameAll(t, "average row correct", want.Torchvision.Acc, s, accuracy)
			}
			tm := want.Torchmetrics
			zero := func(f func(seg.ClassScores) float64) func(seg.ClassScores) float64 {
				return func(x seg.ClassScores) float64 { // torchmetrics' zero_division
					if v := f(x); !math.IsNaN(v) {
						return v
					}
					return 0
				}
			}
			if c.ignore == 255 {
				same(t, "MulticlassJaccardIndex", tm.MeanIoU, s.MeanIoU)
			}
			sameAll(t, "MulticlassJaccardIndex", tm.IoU, s, zero(iou))
			same(t, "MulticlassAccuracy", tm.PixelAccuracy, s.PixelAccuracy)
			sameAll(t, "MulticlassAccuracy", tm.Accuracy, s, zero(accuracy))
			sameAll(t, "MulticlassPrecision", tm.Precision, s, zero(precision))
			sameAll(t, "MulticlassRecall", tm.Recall, s, zero(accuracy))
			sameAll(t, "DiceScore", tm.Dice, s, func(x seg.ClassScores) float64 { return x.Dice })
		})
	}
	answers := pythonMetrics(t, requests)
	require.Len(t, answers, 4)
	for i, test := range tests {
		test(answers[i])
	}
}

func TestMetricsRefuse(t *testing.T) {
	_, err := seg.NewMetrics(seg.MetricsOptions{})
	require.ErrorIs(t, err, vit.ErrClass)
	m, err := seg.NewMetrics(seg.MetricsOptions{Classes: 3})
	require.NoError(t, err)
	pair := func(p, l []uint8) error {
		a, err := seg.NewClassMap(2, 2, p)
		require.NoError(t, err)
		b, err := seg.NewClassMap(2, len(l)/2, l)
		require.NoError(t, err)
		return m.Add(a, b)
	}
	require.ErrorIs(t, pair([]uint8{0, 1, 2, 0}, []uint8{0, 0}), seg.ErrSize)
	err = pair([]uint8{0, 1, 2, 0}, []uint8{0, 1, 7, 7})
	require.ErrorIs(t, err, vit.ErrClass)
	require.ErrorContains(t, err, "got 2 pixels with the label 7, want 0 to 2")
	require.ErrorContains(t, pair([]uint8{0, 9, 9, 9}, []uint8{0, 1, 255, 2}), "got 2 pixels predicted as 9")
	assert.Zero(t, m.Confusion.Total(), "nothing of a bad image counts")
	assert.Zero(t, m.Ignored)
	require.NoError(t, pair([]uint8{0, 9, 2, 1}, []uint8{0, 255, 2, 0}), "what is predicted where the label is ignored is free")
	assert.EqualValues(t, 3, m.Confusion.Total())
	assert.EqualValues(t, 1, m.Ignored)
	other, err := seg.NewMetrics(seg.MetricsOptions{Classes: 4})
	require.NoError(t, err)
	require.ErrorIs(t, m.Merge(other), vit.ErrClass)

	all, err := seg.NewMetrics(seg.MetricsOptions{Classes: 256, Ignore: []uint8{}})
	require.NoError(t, err)
	a, _ := seg.NewClassMap(1, 1, []uint8{255})
	require.NoError(t, all.Add(a, a))
	assert.EqualValues(t, 1, all.Confusion.At(255, 255))
}

func BenchmarkMetrics(b *testing.B) {
	m, err := seg.NewMetrics(seg.MetricsOptions{Classes: 150})
	require.NoError(b, err)
	rng := rand.New(rand.NewPCG(1, 2))
	x, y := make([]uint8, 1<<20), make([]uint8, 1<<20)
	for i := range x {
		x[i], y[i] = uint8(rng.IntN(150)), uint8(rng.IntN(150))
	}
	p, _ := seg.NewClassMap(1024, 1024, x)
	l, _ := seg.NewClassMap(1024, 1024, y)
	b.SetBytes(1 << 20)
	for b.Loop() {
		if err := m.Add(p, l); err != nil {
			b.Fatal(err)
		}
	}
}
