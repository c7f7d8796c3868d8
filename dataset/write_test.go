package dataset_test

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/internal/testmain"
)

// python runs testdata/reference.py and reads the JSON that it prints.
func python(t *testing.T, into any, in []byte, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testmain.Python(t), append([]string{"-W", "ignore", "testdata/reference.py"}, args...)...)
	cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1")
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	require.NoError(t, json.Unmarshal(out, into), string(out))
}

var street = dataset.Image{
	Path: "JPEGImages/street.jpg", Width: 500, Height: 375,
	Objects: []dataset.Object{
		{Label: "dog & cat", Class: 3, Box: dataset.Box{X1: 0, Y1: 0, X2: 500, Y2: 375}, Score: 0.75, Difficult: true},
		{
			Label: "car", Class: 11, Box: dataset.Box{X1: 10.6, Y1: 20.4, X2: 33.5, Y2: 60}, Score: 1.0 / 3, Truncated: true,
			Polygons: [][]float64{{10.6, 20.4, 33.5, 20.4, 33.5, 60}, {12, 40, 14, 60, 10.6, 55}},
		},
		{Label: "car", Class: 11, Box: dataset.Box{X1: 499.8, Y1: -7, X2: 512, Y2: 0.2}, Score: 1},
	},
}

func TestWriteVOC(t *testing.T) {
	path := filepath.Join(t.TempDir(), "street.xml")
	require.NoError(t, dataset.WriteVOC(path, street, dataset.VOCOptions{Scores: true}))
	var got []struct {
		Annotation struct {
			Folder, Filename string
			Size             struct{ Width, Height, Depth string }
			Object           []struct {
				Name, Truncated, Difficult, Score string
				Bndbox                            struct{ Xmin, Ymin, Xmax, Ymax string }
			}
		}
	}
	python(t, &got, nil, "voc", path)
	a := got[0].Annotation
	assert.Equal(t, "JPEGImages", a.Folder)
	assert.Equal(t, "street.jpg", a.Filename)
	assert.Equal(t, "500", a.Size.Width)
	assert.Equal(t, "375", a.Size.Height)
	require.Len(t, a.Object, 3)
	var lines []string
	for _, o := range a.Object {
		b := o.Bndbox
		lines = append(lines, strings.Join([]string{o.Name, b.Xmin, b.Ymin, b.Xmax, b.Ymax, o.Difficult, o.Truncated, o.Score}, " "))
	}
	assert.Equal(t, []string{"dog & cat 1 1 500 375 1 0 0.75", "car 12 21 34 60 0 1 0.33333334", "car 500 1 500 1 0 0 1"}, lines)
}

func TestWriteYOLO(t *testing.T) {
	folder := t.TempDir()
	write := func(o dataset.YOLOOptions) string {
		path := filepath.Join(folder, "street.txt")
		require.NoError(t, dataset.WriteYOLO(path, street, o))
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(text)
	}
	assert.Equal(t, "3 0.5 0.5 1 1\n11 0.0441 0.1072 0.0458 0.1056\n11 1.0118 -0.00906667 0.0244 0.0192\n", write(dataset.YOLOOptions{}))
	assert.Equal(t, "3 0.5 0.5 1 1 0.75\n"+
		"11 0.0212 0.0544 0.067 0.0544 0.067 0.16 0.024 0.106667 0.028 0.16 0.0212 0.146667 0.333333\n"+
		"11 1.0118 -0.00906667 0.0244 0.0192 1\n", write(dataset.YOLOOptions{Scores: true, Polygons: true}))
}

// TestNumbersAreC compares the digits with C's %g, which Python has.
func TestNumbersAreC(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	img := dataset.Image{Path: "a.jpg", Width: 1, Height: 1}
	var values []float64
	for i := range 2000 {
		v := rng.Float64() * math.Pow(10, float64(rng.IntN(14)-8))
		if i%7 == 0 {
			v = math.Round(v*100) / 100
		}
		values = append(values, v)
		img.Objects = append(img.Objects, dataset.Object{Score: v})
	}
	in, err := json.Marshal(values)
	require.NoError(t, err)
	var want []string
	python(t, &want, in, "percent-g")
	var text bytes.Buffer
	require.NoError(t, dataset.EncodeYOLO(&text, img, dataset.YOLOOptions{Scores: true}))
	exponents := 0
	for i, line := range strings.Split(strings.TrimSpace(text.String()), "\n") {
		got := line[strings.LastIndexByte(line, ' ')+1:]
		require.Equal(t, want[i], got)
		if strings.Contains(got, "e") {
			exponents++
		}
	}
	assert.Greater(t, exponents, 100)
}

func TestWritersRefuse(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "a.xml")
	nowhere := street
	nowhere.Width = 0
	require.ErrorIs(t, dataset.WriteVOC(path, nowhere, dataset.VOCOptions{}), dataset.ErrFormat)
	require.ErrorIs(t, dataset.WriteYOLO(path, nowhere, dataset.YOLOOptions{}), dataset.ErrFormat)
	odd := street
	odd.Objects = []dataset.Object{{Class: 1, Box: dataset.Box{X2: math.NaN()}}}
	require.ErrorIs(t, dataset.WriteVOC(path, odd, dataset.VOCOptions{}), dataset.ErrFormat)
	require.ErrorIs(t, dataset.WriteYOLO(path, odd, dataset.YOLOOptions{}), dataset.ErrFormat)
	odd.Objects = []dataset.Object{{Class: -1}}
	err := dataset.WriteYOLO(path, odd, dataset.YOLOOptions{})
	require.ErrorIs(t, err, dataset.ErrClass)
	var e *dataset.Error
	require.ErrorAs(t, err, &e)
	assert.Equal(t, path, e.Path)
	left, err := os.ReadDir(folder)
	require.NoError(t, err)
	assert.Empty(t, left)
}
