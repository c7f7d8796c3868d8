package jit_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
)

// convolutions makes the module of testdata/convolutions.py in this run, and gives its folder.
func convolutions(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	testmain.RunPython(t, filepath.Join("torch", "jit", "testdata", "convolutions.py"), dir)
	return dir
}

func loadConvolutions(t testing.TB, dir string, o jit.LoadOptions) *jit.Module {
	t.Helper()
	m, err := jit.Load(filepath.Join(dir, "convolutions.pt"), o)
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

func loadNpy(t testing.TB, path string) *torch.Tensor {
	t.Helper()
	x, err := torch.LoadNpy(path)
	require.NoError(t, err)
	t.Cleanup(func() { x.Close() })
	return x
}

// TestChannelsLast: weights and answers in channels_last, and Python's bits.
func TestChannelsLast(t *testing.T) {
	testmain.NotShort(t)
	dir := convolutions(t)
	x, want := loadNpy(t, filepath.Join(dir, "input.npy")), loadNpy(t, filepath.Join(dir, "answer.npy"))
	m := loadConvolutions(t, dir, jit.LoadOptions{ChannelsLast: true})
	parameters, err := m.NamedParameters()
	require.NoError(t, err)
	buffers, err := m.NamedBuffers()
	require.NoError(t, err)
	strides := map[string][]int64{}
	for _, p := range append(parameters, buffers...) {
		strides[p.Name] = p.Tensor.Strides()
		p.Tensor.Close()
	}
	data, err := os.ReadFile(filepath.Join(dir, "strides.json"))
	require.NoError(t, err)
	var python map[string][]int64
	require.NoError(t, json.Unmarshal(data, &python))
	assert.Equal(t, python, strides)
	assert.Equal(t, []int64{27, 1, 9, 3}, strides["a.weight"])
	assert.Equal(t, []int64{8, 1, 8, 8}, strides["one.weight"])

	y, ok := call(t, m, "forward", x).(*torch.Tensor)
	require.True(t, ok)
	assert.Equal(t, []int64{8 * 18 * 20, 1, 20 * 8, 8}, y.Strides())
	plain, err := y.Contiguous()
	require.NoError(t, err)
	t.Cleanup(func() { plain.Close() })
	d, err := torch.Compare(plain, want)
	require.NoError(t, err)
	assert.Zero(t, d.Different, "%+v", d)
	assert.NotZero(t, floats(t, want)[17])
}

func TestCUDAGraphsNeedCUDA(t *testing.T) {
	_, err := jit.Load(modulePath(t, "wide"), jit.LoadOptions{CUDAGraphs: true})
	require.ErrorIs(t, err, torch.ErrInvalidArgument)
	assert.ErrorContains(t, err, "LoadOptions.CUDAGraphs: got device cpu, want a CUDA device")
}

// TestCUDAGraphs replays methods for inputs of several shapes from several goroutines: the bits of calls without
// graphs, in results that later calls do not change.
func TestCUDAGraphs(t *testing.T) {
	testmain.RequireCUDA(t)
	cuda := torch.Device{Type: "cuda"}
	dir := convolutions(t)
	plain := loadConvolutions(t, dir, jit.LoadOptions{Device: cuda})
	graphs := loadConvolutions(t, dir, jit.LoadOptions{Device: cuda, CUDAGraphs: true})
	type pair struct{ want, got *torch.Tensor }
	pairs := make(chan pair, 64)
	var running sync.WaitGroup
	for g := range 4 {
		running.Go(func() {
			for k := range 8 {
				x, err := normal(t, uint64(10*g+k), 1, 3, 24+int64(k%3), 24).To(cuda)
				if !assert.NoError(t, err) {
					return
				}
				want, err := plain.Forward(t.Context(), x)
				assert.NoError(t, err)
				got, err := graphs.Forward(t.Context(), x)
				assert.NoError(t, err)
				x.Close()
				w, _ := want.(*torch.Tensor)
				y, _ := got.(*torch.Tensor)
				pairs <- pair{w, y}
			}
		})
	}
	running.Wait()
	close(pairs)
	seen := map[string]bool{}
	for p := range pairs {
		d, err := torch.Compare(p.want, p.got)
		require.NoError(t, err)
		assert.Zero(t, d.Different, "%+v", d)
		there, err := p.got.To(torch.CPU)
		require.NoError(t, err)
		seen[fmt.Sprint(floats(t, there)[:4])] = true
		torch.CloseAll(p.want, p.got, there)
	}
	assert.Len(t, seen, 32, "every input has an answer of its own")

	// More kinds of input than are recorded, a change of the module, and a method that cannot be recorded.
	for n := range int64(20) {
		x, err := normal(t, 1, 1, 3, 8+n, 8).To(cuda)
		require.NoError(t, err)
		_, ok := call(t, graphs, "forward", x).(*torch.Tensor)
		assert.True(t, ok)
		x.Close()
	}
	x, err := normal(t, 1, 1, 3, 8, 8).To(cuda)
	require.NoError(t, err)
	t.Cleanup(func() { x.Close() })
	require.NoError(t, graphs.CastTo(torch.Float64))
	wide, err := x.CastTo(torch.Float64)
	require.NoError(t, err)
	t.Cleanup(func() { wide.Close() })
	y, ok := call(t, graphs, "forward", wide).(*torch.Tensor)
	require.True(t, ok)
	assert.Equal(t, torch.Float64, y.DType())
	_, err = graphs.Call(t.Context(), "waits", x)
	assert.ErrorContains(t, err, "record waits as a CUDA graph")
	assert.ErrorContains(t, err, "load the module without CUDAGraphs")
	_, ok = call(t, graphs, "forward", wide).(*torch.Tensor)
	assert.True(t, ok, "the process goes on")
}
