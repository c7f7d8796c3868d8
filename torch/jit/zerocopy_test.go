package jit_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
)

// TestPointersThroughAModule follows a slice into a module and out again: one address all the way.
func TestPointersThroughAModule(t *testing.T) {
	m := load(t, "identity")
	data := []float32{1, 2, 3, 4}
	x, err := torch.FromSlice(data, 2, 2)
	require.NoError(t, err)
	y, ok := call(t, m, "forward", x).(*torch.Tensor)
	require.True(t, ok)
	x.Close()
	assert.Equal(t, uintptr(unsafe.Pointer(&data[0])), y.DataPtr())
	require.NoError(t, torch.WithData(y, func(out []float32) error {
		assert.Same(t, &data[0], &out[0])
		out[3] = 40
		return nil
	}))
	assert.Equal(t, float32(40), data[3])
	assert.Same(t, &data[0], &must(torch.Data[float32](y))[0])

	// Memory of libtorch, through two modules, and a module that gives views.
	z, err := torch.Full([]int64{2, 3}, 2, torch.TensorOptions{})
	require.NoError(t, err)
	defer z.Close()
	second := load(t, "tuple")
	between, ok := call(t, m, "forward", z).(*torch.Tensor)
	require.True(t, ok)
	pair, ok := call(t, second, "forward", between).(torch.Tuple)
	require.True(t, ok)
	first, ok := pair[0].(*torch.Tensor)
	require.True(t, ok)
	assert.Equal(t, z.DataPtr(), first.DataPtr())

	views, ok := call(t, load(t, "memory"), "forward", z).(torch.Tuple)
	require.True(t, ok)
	turned, ok := views[0].(*torch.Tensor)
	require.True(t, ok)
	assert.Equal(t, z.DataPtr(), turned.DataPtr())
	assert.Equal(t, []int64{1, 3}, turned.Strides())
	tail, ok := views[1].(*torch.Tensor)
	require.True(t, ok)
	assert.Equal(t, z.DataPtr()+4, tail.DataPtr())
	expanded, ok := views[2].(*torch.Tensor)
	require.True(t, ok)
	assert.Equal(t, []int64{0, 1}, expanded.Strides())
	assert.Equal(t, []float32{2, 2, 2}, floats(t, expanded))
	empty, ok := views[3].(*torch.Tensor)
	require.True(t, ok)
	assert.Equal(t, []int64{0, 3}, empty.Shape())

	// A method that works in place works in Go's memory.
	_ = call(t, load(t, "memory"), "add_", z, 5.0)
	assert.Equal(t, []float32{7, 7, 7, 7, 7, 7}, floats(t, z))
	own := []float32{1, 1}
	o, err := torch.FromSlice(own)
	require.NoError(t, err)
	defer o.Close()
	_ = call(t, load(t, "memory"), "add_", o, 1)
	assert.Equal(t, []float32{2, 2}, own)
	two, ok := call(t, load(t, "memory"), "alias", o).(torch.Tuple)
	require.True(t, ok)
	a, b := two[0].(*torch.Tensor), two[1].(*torch.Tensor)
	a.Close()
	assert.Equal(t, []float32{2, 2}, floats(t, b), "each has a handle of its own")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestModuleKeepsTheSlice puts a tensor over a Go slice into an attribute of a module: the slice stays
// pinned after the tensor is closed, until the module lets it go.
func TestModuleKeepsTheSlice(t *testing.T) {
	for name, release := range map[string]func(m interface{ Close() error }, set func(any)){
		"close":   func(m interface{ Close() error }, _ func(any)) { m.Close() },
		"replace": func(_ interface{ Close() error }, set func(any)) { set(tensorOf(t, []float32{0})) },
	} {
		t.Run(name, func(t *testing.T) {
			m := load(t, "counter")
			before := torch.MemoryStats().Live.Pins
			var freed atomic.Bool
			func() {
				data := make([]float32, 1024) // not a size class for tiny objects
				for i := range data {
					data[i] = 7
				}
				runtime.AddCleanup(&data[0], func(struct{}) { freed.Store(true) }, struct{}{})
				x, err := torch.FromSlice(data)
				require.NoError(t, err)
				require.NoError(t, m.SetAttribute("total", x))
				x.Close()
			}()
			for range 3 {
				runtime.GC()
				time.Sleep(time.Millisecond)
			}
			assert.Equal(t, before+1, torch.MemoryStats().Live.Pins)
			assert.False(t, freed.Load())
			v, err := m.Attribute("total")
			require.NoError(t, err)
			total, ok := v.(*torch.Tensor)
			require.True(t, ok)
			for _, f := range floats(t, total) {
				require.Equal(t, float32(7), f)
			}
			total.Close()

			release(m, func(v any) { require.NoError(t, m.SetAttribute("total", v)) })
			assert.Equal(t, before, torch.MemoryStats().Live.Pins)
			for range 500 {
				if runtime.GC(); freed.Load() {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			assert.True(t, freed.Load(), "unpinned and collected")
		})
	}
}

// TestForwardAllocations: at most four allocations of Go a call, whatever the size of the data.
func TestForwardAllocations(t *testing.T) {
	m := load(t, "identity")
	forward, err := m.Method("forward")
	require.NoError(t, err)
	big, err := torch.Zeros([]int64{1 << 22}, torch.TensorOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { big.Close() })
	x := tensorOf(t, []float32{1, 2, 3, 4}, 2, 2)
	ctx := context.Background()
	testmain.Measure(t)
	for name, f := range map[string]func() (any, error){
		"Forward":     func() (any, error) { return m.Forward(ctx, x) },
		"Forward big": func() (any, error) { return m.Forward(ctx, big) },
		"Method.Call": func() (any, error) { return forward.Call(ctx, x) },
	} {
		allocs := testing.AllocsPerRun(200, func() {
			y, err := f()
			if err != nil {
				t.Fatal(err)
			}
			y.(*torch.Tensor).Close()
		})
		t.Logf("%s: %.0f allocations", name, allocs)
		if !cgo.ASan { // which moves variables to the heap
			assert.LessOrEqual(t, allocs, 4.0, name)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const n = 100
	for range n {
		torch.CloseAll(must(m.Forward(ctx, big)))
	}
	runtime.ReadMemStats(&after)
	assert.Less(t, (after.TotalAlloc-before.TotalAlloc)/n, uint64(1024), "bytes a call")
}
