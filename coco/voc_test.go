package coco

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestVOCAveragePrecision(t *testing.T) {
	type vocCase struct {
		Objects    []VOCObject    `json:"objects"`
		Detections []VOCDetection `json:"detections"`
		Threshold  float64        `json:"threshold"`
	}
	r := rand.New(rand.NewPCG(31, 32))
	var cases []vocCase
	for i := range 60 {
		c := vocCase{Threshold: []float64{0.5, 0.3, 0.75}[i%3], Objects: []VOCObject{}, Detections: []VOCDetection{}}
		box := func() Box { // whole pixels, as VOC's
			return Box{
				float64(r.IntN(200)), float64(r.IntN(200)), float64(1 + r.IntN(150)), float64(1 + r.IntN(150)),
			}
		}
		detect := func(image int64, b Box) {
			c.Detections = append(c.Detections, VOCDetection{image, b, math.Round(r.Float64()*20) / 20})
		}
		for image := range int64(1 + r.IntN(8)) {
			for k := range 1 + r.IntN(4) {
				o := VOCObject{image, box(), r.IntN(4) == 0 && (image > 0 || k > 0)}
				c.Objects = append(c.Objects, o)
				for r.IntN(3) > 0 {
					b := o.Box
					for j := range b {
						b[j] = math.Max(1, math.Round(b[j]+r.NormFloat64()*8))
					}
					detect(image, b)
				}
			}
			detect(image, box())
			detect(77, box()) // an image without objects
		}
		cases = append(cases, c)
	}
	var answers []struct {
		Recall, Precision []float64
		Eleven, Area      float64
	}
	runPython(t, "voc.py", cases, &answers)
	require.Len(t, answers, len(cases))
	different := map[float64]bool{}
	for i, c := range cases {
		want := answers[i]
		got, err := VOCAveragePrecision(c.Objects, c.Detections, VOCOptions{IoUThreshold: c.Threshold})
		require.NoError(t, err)
		require.Equal(t, want.Recall, got.Recall)
		require.Equal(t, want.Precision, got.Precision)
		require.InDelta(t, want.Area, got.AP, 1e-12)
		different[got.AP] = true
		got, err = VOCAveragePrecision(c.Objects, c.Detections, VOCOptions{IoUThreshold: c.Threshold, ElevenPoints: true})
		require.NoError(t, err)
		require.Equal(t, want.Eleven, got.AP)
		different[got.AP] = true
	}
	assert.Greater(t, len(different), 80)

	got, err := VOCAveragePrecision([]VOCObject{{Difficult: true}}, []VOCDetection{{}}, VOCOptions{})
	require.NoError(t, err)
	assert.True(t, math.IsNaN(got.AP))
	got, err = VOCAveragePrecision([]VOCObject{{Box: Box{0, 0, 2, 2}}}, nil, VOCOptions{})
	require.NoError(t, err)
	assert.Equal(t, VOCResult{Objects: 1}, got)
	_, err = VOCAveragePrecision(nil, []VOCDetection{{Score: math.NaN()}}, VOCOptions{})
	require.ErrorIs(t, err, ErrData)
	_, err = VOCAveragePrecision([]VOCObject{{Box: Box{math.Inf(1)}}}, nil, VOCOptions{})
	require.ErrorIs(t, err, ErrData)
	_, err = VOCAveragePrecision(nil, nil, VOCOptions{IoUThreshold: 2})
	require.Error(t, err)
}
