package vit_test

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/vit"
)

func TestClassificationMetricsAreTorchmetrics(t *testing.T) {
	const classes, images = 13, 600
	rng := rand.New(rand.NewPCG(8, 9))
	scores, targets := make([][]float32, images), make([]int, images)
	halves := []*vit.ClassificationMetrics{vit.NewClassificationMetrics(classes, classes), vit.NewClassificationMetrics(classes, classes)}
	for i := range scores {
		scores[i] = make([]float32, classes)
		for c := range scores[i] {
			scores[i][c] = rng.Float32()
		}
		if targets[i] = int(classes * rng.Float64() * rng.Float64()); targets[i] == 4 {
			targets[i] = 3 // a class that is predicted and never there
		}
		scores[i][targets[i]] += rng.Float32() * float32(targets[i]) / 8
		require.NoError(t, halves[i%2].Add(targets[i], vit.Rank(scores[i], classes)))
	}
	m := halves[0]
	require.NoError(t, m.Merge(halves[1]))

	in, err := json.Marshal(map[string]any{"classes": classes, "scores": scores, "targets": targets})
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), testmain.Python(t), "-W", "ignore", "testdata/metrics.py")
	cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1")
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var want struct {
		Confusion           [][]int64
		Top                 map[string]float64
		Accuracy, Precision []float64
		Macro               float64
		ClassTop3           []*float64 `json:"class_top3"`
	}
	require.NoError(t, json.Unmarshal(out, &want))

	for truth, row := range want.Confusion {
		assert.Equal(t, row, m.Confusion.Row(truth))
	}
	distinct := map[float64]bool{}
	for k := 1; k <= classes; k++ {
		assert.InDelta(t, want.Top[strconv.Itoa(k)], m.TopK(k), 1e-9, "top %d", k)
		distinct[m.TopK(k)] = true
	}
	assert.Greater(t, len(distinct), 9, "nothing trivial was compared")
	assert.InDelta(t, m.Confusion.Accuracy(), m.TopK(1), 0)
	accuracy, precision, top3 := m.Confusion.ClassAccuracy(), m.Confusion.Precision(), m.ClassTopK(3)
	sum := 0.0
	for c := range classes {
		if c == 4 {
			assert.True(t, math.IsNaN(accuracy[c]), "torchmetrics' 0")
			assert.True(t, math.IsNaN(top3[c]))
			assert.Zero(t, precision[c])
			continue
		}
		assert.InDelta(t, want.Accuracy[c], accuracy[c], 1e-9)
		assert.InDelta(t, want.Precision[c], precision[c], 1e-9)
		assert.InDelta(t, *want.ClassTop3[c], top3[c], 1e-9)
		sum += accuracy[c]
		if accuracy[c] > 0 && accuracy[c] < 1 {
			distinct[accuracy[c]] = true
		}
	}
	assert.Greater(t, len(distinct), 15)
	// torchmetrics' macro counts the class that is only predicted as 0.
	assert.InDelta(t, want.Macro, sum/classes, 1e-9)
	assert.InDelta(t, sum/(classes-1), vit.MeanOf(accuracy), 1e-9)
}

func TestRank(t *testing.T) {
	nan := float32(math.NaN())
	assert.Equal(t, []int{2, 1, 3, 0}, vit.Rank([]float32{0.1, 0.5, nan, 0.5}, 9))
	assert.Equal(t, []int{1, 2}, vit.Rank([]float32{0, 7, 7}, 2))
	assert.Empty(t, vit.Rank(nil, 3))
	assert.Empty(t, vit.Rank([]float32{1}, -1))
}

func TestMetricsRefuseOtherClasses(t *testing.T) {
	m := vit.NewClassificationMetrics(3, 5)
	assert.Equal(t, 3, m.Most(), "there are no more than the classes")
	assert.True(t, math.IsNaN(m.TopK(1)), "of nothing")
	require.ErrorIs(t, m.Add(3, []int{0}), vit.ErrClass)
	require.ErrorIs(t, m.Add(0, []int{-1}), vit.ErrClass)
	require.ErrorIs(t, m.Add(0, nil), vit.ErrClass)
	require.ErrorIs(t, m.Merge(vit.NewClassificationMetrics(4, 3)), vit.ErrClass)
	require.ErrorIs(t, m.Merge(vit.NewClassificationMetrics(3, 1)), vit.ErrClass)
	assert.Zero(t, m.Confusion.Total())
}
