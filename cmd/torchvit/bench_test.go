package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
)

func TestBench(t *testing.T) {
	stdout, _ := ok(t, "bench", generated(t, "vit_reference.pt"), "--rounds", "4", "--warmup", "1", "--batch", "2", "--size", "64x96", "--json")
	var r benchReport
	require.NoError(t, json.Unmarshal([]byte(stdout), &r))
	assert.Equal(t, []int64{2, 3, 64, 96}, r.Shape)
	assert.Equal(t, "float32", r.DType)
	assert.Equal(t, 4, r.Calls)
	assert.Positive(t, r.Min)
	assert.LessOrEqual(t, r.Min, r.Median)
	assert.LessOrEqual(t, r.Median, r.P95)
	assert.Positive(t, r.CPPMean)
	assert.InDelta(t, 8/r.Seconds, r.Throughput, 1e-9)
	assert.Greater(t, r.PeakRSS, int64(50e6))

	stdout, _ = ok(t, "bench", generated(t, "detection.pt"), "--rounds", "1", "--warmup", "0", "--size", "64x64")
	assert.Contains(t, stdout, "median")
	assert.Contains(t, stdout, "photos/s")
	assert.NotContains(t, stdout, "from C++")

	stdout, _ = ok(t, "bench", tiny(t, "identity.pt"), "--size", "8x8", "--seconds", "0.01", "--dtype", "bfloat16", "--channels-last")
	assert.Contains(t, stdout, "bfloat16 [1, 3, 8, 8]")
}

func TestBenchSweep(t *testing.T) {
	assert.Equal(t, []sweepSetting{{1, 1}}, sweepSettings(1))
	assert.Equal(t, []sweepSetting{{1, 1}, {1, 2}, {2, 1}}, sweepSettings(2))
	assert.Equal(t, []sweepSetting{{1, 1}, {1, 2}, {1, 4}, {1, 6}, {2, 3}, {4, 1}, {6, 1}}, sweepSettings(6))

	run := func(args ...string) (string, string, error) {
		cmd, stdout, stderr := program(t, []string{"GOMAXPROCS=2"}, append([]string{"bench", generated(t, "vit_reference.pt"), "--sweep"}, args...)...)
		err := cmd.Run()
		return stdout.String(), stderr.String(), err
	}
	stdout, stderr, err := run("--rounds", "2", "--size", "64x96", "--precision", "fast", "--json")
	require.NoError(t, err, stderr)
	var r sweepReport
	require.NoError(t, json.Unmarshal([]byte(stdout), &r))
	require.Len(t, r.Runs, 3)
	assert.Equal(t, [][]int{{1}, {2}, {1, 1}}, [][]int{r.Runs[0].Lanes, r.Runs[1].Lanes, r.Runs[2].Lanes})
	for _, got := range r.Runs {
		assert.Equal(t, torch.PrecisionFast, got.Precision)
		assert.Equal(t, []int64{1, 3, 64, 96}, got.Shape)
		assert.LessOrEqual(t, got.Throughput, r.Runs[r.Throughput].Throughput)
		assert.GreaterOrEqual(t, got.Median, r.Runs[r.Latency].Median)
	}
	var text strings.Builder
	require.NoError(t, r.print(&text))
	assert.Equal(t, 1, strings.Count(text.String(), "most photos"))
	assert.Equal(t, 1, strings.Count(text.String(), "shortest call"))

	_, stderr, err = run("--size", "225x224")
	require.Error(t, err)
	assert.Contains(t, stderr, "multiples")
	assert.Contains(t, fails(t, exitUsage, "bench", generated(t, "vit_reference.pt"), "--sweep", "--lanes", "2"), "--sweep")
}

func TestBenchSummary(t *testing.T) {
	r := &benchReport{Shape: []int64{2, 3, 8, 8}, Seconds: 4}
	times := make([]float64, 100)
	for i := range times {
		times[99-i] = float64(i + 1)
	}
	r.summarize(times)
	assert.Equal(t, 1.0, r.Min)
	assert.Equal(t, 50.5, r.Median)
	assert.Equal(t, 95.0, r.P95)
	assert.Equal(t, 50.5, r.Mean)
	assert.Equal(t, 50.0, r.Throughput)
	r.summarize([]float64{3})
	assert.Equal(t, 3.0, r.P95)
	assert.Equal(t, 3.0, r.Median)
}

func TestBenchUsage(t *testing.T) {
	model := generated(t, "vit_reference.pt")
	for _, args := range [][]string{
		{"--batch", "0"},
		{"--rounds", "-1"},
		{"--seconds", "0"},
		{"--seconds", "NaN"},
		{"--warmup", "-1"},
		{"--size", "224"},
		{"--size", "0x5"},
		{"--dtype", "int64"},
	} {
		fails(t, exitUsage, append([]string{"bench", model}, args...)...)
	}
	assert.Contains(t, fails(t, exitError, "bench", generated(t, "segmentation_head.pt")), "tokens")
	assert.Contains(t, fails(t, exitError, "bench", model, "--size", "225x224"), "multiples")
	assert.Contains(t, fails(t, exitError, "bench", model, "--cuda-graphs", "--device", "cpu"), "CUDAGraphs: got device cpu, want a CUDA device")
}
