package det_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/det"
	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/vit"
)

func TestConfusionMatrixIsSupervisions(t *testing.T) {
	type image struct {
		Found [][6]float32 `json:"found"`
		Truth [][5]float32 `json:"truth"`
	}
	const classes = 6
	rng := rand.New(rand.NewPCG(4, 2))
	m := det.NewConfusionMatrix(classes, det.ConfusionOptions{Threshold: 0.25, IoU: 0.45})
	images := make([]image, 40)
	for i := range images {
		img := image{[][6]float32{}, [][5]float32{}}
		var found []det.Detection
		var truth []det.Truth
		see := func(b det.Box, class int) {
			d := det.Detection{Box: b, LabelID: class, Score: rng.Float32()}
			found = append(found, d)
			img.Found = append(img.Found, [6]float32{b.X1, b.Y1, b.X2, b.Y2, float32(class), d.Score})
		}
		for range rng.IntN(8) {
			b := det.BoxFromXYWH(rng.Float32()*200, rng.Float32()*150, 20+rng.Float32()*60, 20+rng.Float32()*60)
			class := rng.IntN(classes)
			truth = append(truth, det.Truth{Box: b, LabelID: class})
			img.Truth = append(img.Truth, [5]float32{b.X1, b.Y1, b.X2, b.Y2, float32(class)})
			for range rng.IntN(4) { // near it, often of its class
				shift := func() float32 { return float32(rng.NormFloat64()) * 6 }
				other := class
				if rng.IntN(3) == 0 {
					other = rng.IntN(classes)
				}
				see(det.Box{X1: b.X1 + shift(), Y1: b.Y1 + shift(), X2: b.X2 + shift(), Y2: b.Y2 + shift()}, other)
			}
		}
		for range rng.IntN(3) {
			see(det.BoxFromXYWH(rng.Float32()*200, rng.Float32()*150, 30, 30), rng.IntN(classes))
		}
		require.NoError(t, m.Add(found, truth))
		images[i] = img
	}
	in, err := json.Marshal(map[string]any{"classes": classes, "threshold": 0.25, "iou": 0.45, "images": images})
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), testmain.Python(t), "-W", "ignore", "testdata/confusion.py")
	cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1")
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var want [][]int64
	require.NoError(t, json.Unmarshal(out, &want))
	require.Len(t, want, classes+1)
	crossed, right := int64(0), int64(0)
	for truth, row := range want {
		assert.Equal(t, row, m.Row(truth))
		for p, n := range row {
			if truth == p {
				right += n
			} else if truth < classes && p < classes {
				crossed += n
			}
		}
	}
	assert.Equal(t, classes, m.Background())
	assert.Greater(t, right, int64(30))
	assert.Greater(t, crossed, int64(5))
	assert.Positive(t, m.At(m.Background(), 2), "found where nothing is")
	assert.Positive(t, m.At(2, m.Background()), "not found")
}

func TestConfusionMatrixRefuses(t *testing.T) {
	m := det.NewConfusionMatrix(2, det.ConfusionOptions{})
	require.ErrorIs(t, m.Add(nil, []det.Truth{{LabelID: 2}}), vit.ErrClass)
	require.ErrorIs(t, m.Add([]det.Detection{{LabelID: -1, Score: 1}}, nil), vit.ErrClass)
	require.NoError(t, m.Add([]det.Detection{{LabelID: -1, Score: 0.2}}, nil), "below the threshold")
	assert.Zero(t, m.Total())
}
