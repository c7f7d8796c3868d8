package torch_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
)

// collect runs the garbage collector until done, for at most five seconds.
func collect(done func() bool) bool {
	for range 500 {
		runtime.GC()
		if done() {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

func TestCloseIsIdempotentAndNilSafe(t *testing.T) {
	before := torch.MemoryStats().Live
	x, err := torch.NewTensor([]float32{1, 2})
	require.NoError(t, err)
	assert.Equal(t, before.Tensors+1, torch.MemoryStats().Live.Tensors)
	for range 3 {
		require.NoError(t, x.Close())
		assert.Equal(t, before, torch.MemoryStats().Live)
	}
	var none *torch.Tensor
	require.NoError(t, none.Close())
	var closer io.Closer = none
	require.NoError(t, closer.Close())
	torch.CloseAll(nil, none, []*torch.Tensor{nil, x}, torch.Tuple{x, nil}, map[string]any{"x": x})
}

// TestUseAfterClose tries everything on a closed tensor and on a nil one: errors, never a crash.
func TestUseAfterClose(t *testing.T) {
	closed, err := torch.NewTensor([]float32{1, 2})
	require.NoError(t, err)
	closed.Close()
	open := tensor(t, []float32{1, 2})
	discard := func(_ any, err error) error { return err }
	uses := map[string]func(x *torch.Tensor) error{
		"To":         func(x *torch.Tensor) error { return discard(x.To(torch.CPU)) },
		"CastTo":     func(x *torch.Tensor) error { return discard(x.CastTo(torch.Float64)) },
		"Contiguous": func(x *torch.Tensor) error { return discard(x.Contiguous()) },
		"Clone":      func(x *torch.Tensor) error { return discard(x.Clone()) },
		"Alias":      func(x *torch.Tensor) error { return discard(x.Alias()) },
		"CopyFrom":   func(x *torch.Tensor) error { return x.CopyFrom(open) },
		"CopyTo":     func(x *torch.Tensor) error { return open.CopyFrom(x) },
		"Equal":      func(x *torch.Tensor) error { return discard(torch.Equal(x, open)) },
		"Equal2":     func(x *torch.Tensor) error { return discard(torch.Equal(open, x)) },
		"AllClose":   func(x *torch.Tensor) error { return discard(torch.AllClose(x, open, 0, 0)) },
		"Compare":    func(x *torch.Tensor) error { return discard(torch.Compare(open, x)) },
		"WithData":   func(x *torch.Tensor) error { return torch.WithData(x, func([]float32) error { return nil }) },
		"Data":       func(x *torch.Tensor) error { return discard(torch.Data[float32](x)) },
		"CopyData":   func(x *torch.Tensor) error { return discard(torch.CopyData[float32](x)) },
		"ToDLPack":   func(x *torch.Tensor) error { return discard(x.ToDLPack()) },
		"Numpy":      func(x *torch.Tensor) error { return discard(x.Numpy()) },
		"SaveNpy":    func(x *torch.Tensor) error { return torch.SaveNpy(filepath.Join(t.TempDir(), "x"), x) },
		"Grad":       func(x *torch.Tensor) error { return discard(x.Grad()) },
		"Detach":     func(x *torch.Tensor) error { return discard(x.Detach()) },
		"Backward":   func(x *torch.Tensor) error { return torch.Backward(t.Context(), x, torch.BackwardOptions{}) },
		"SetGrad":    func(x *torch.Tensor) error { return x.SetRequiresGrad(true) },
		"SetRNG":     func(x *torch.Tensor) error { return torch.SetRNGState(x) },
		"Use":        func(x *torch.Tensor) error { _, _, err := x.Use(); return err },
	}
	for name, use := range uses {
		assert.ErrorIs(t, use(closed), torch.ErrClosed, name)
		assert.ErrorIs(t, use(nil), torch.ErrInvalidArgument, name)
	}
	assert.ErrorIs(t, discard(torch.Gradients(t.Context(), []*torch.Tensor{open}, []*torch.Tensor{closed}, torch.GradientsOptions{})), torch.ErrClosed)
	assert.ErrorIs(t, discard(closed.Add(open)), torch.ErrClosed)
	assert.ErrorIs(t, discard(open.Add(closed)), torch.ErrClosed)
	assert.ErrorIs(t, discard(torch.Stack([]*torch.Tensor{open, closed}, 0)), torch.ErrClosed)
	for _, x := range []*torch.Tensor{closed, nil} {
		assert.Nil(t, x.Shape())
		assert.Nil(t, x.Strides())
		assert.Equal(t, -1, x.Dim())
		assert.Equal(t, int64(-1), x.NumEl())
		assert.Equal(t, int64(-1), x.Size(0))
		assert.Equal(t, torch.InvalidDType, x.DType())
		assert.Equal(t, torch.CPU, x.Device())
		assert.False(t, x.IsContiguous() || x.RequiresGrad() || x.IsInference())
		assert.Zero(t, x.DataPtr())
		assert.Contains(t, x.LogValue().String(), map[bool]string{true: "nil", false: "closed"}[x == nil])
	}
}

// TestCloseRacesWithUse closes tensors while many goroutines use them: each use succeeds or says closed,
// and the memory lives until the last user is done.
func TestCloseRacesWithUse(t *testing.T) {
	rounds := 200
	if testing.Short() {
		rounds = 50
	}
	for range rounds {
		x, err := torch.Full([]int64{64}, 3, torch.TensorOptions{})
		require.NoError(t, err)
		start := make(chan struct{})
		var group sync.WaitGroup
		for i := range 8 {
			group.Go(func() {
				<-start
				var err error
				switch i % 4 {
				case 0:
					var y *torch.Tensor
					if y, err = x.Add(1); err == nil {
						y.Close()
					}
				case 1:
					err = torch.WithData(x, func(data []float32) error {
						runtime.Gosched()
						for _, v := range data {
							if v != 3 {
								return errors.New("the memory was freed")
							}
						}
						return nil
					})
				case 2:
					x.Shape()
					var y *torch.Tensor
					if y, err = x.Alias(); err == nil {
						y.Close()
					}
				case 3:
					x.Close()
				}
				if err != nil {
					assert.ErrorIs(t, err, torch.ErrClosed)
				}
			})
		}
		close(start)
		group.Wait()
		_, err = x.Clone()
		require.ErrorIs(t, err, torch.ErrClosed)
	}
}

// TestCollectorFreesDroppedTensors drops tensors without Close: the cleanup frees them, and gives back
// the slices under them.
func TestCollectorFreesDroppedTensors(t *testing.T) {
	before := torch.MemoryStats().Live
	const n = 20
	var slices atomic.Int64 // collected
	func() {
		for range n {
			_, err := torch.Zeros([]int64{100}, torch.TensorOptions{})
			require.NoError(t, err)
			data := make([]float64, 1000)
			runtime.AddCleanup(&data[0], func(struct{}) { slices.Add(1) }, struct{}{})
			_, err = torch.FromSlice(data)
			require.NoError(t, err)
		}
		// The collector may have begun already.
		assert.LessOrEqual(t, torch.MemoryStats().Live.Tensors, before.Tensors+2*n)
	}()
	assert.True(t, collect(func() bool { return torch.MemoryStats().Live == before }), "%s", torch.MemoryStats().Live)
	assert.True(t, collect(func() bool { return slices.Load() == n }), "%d", slices.Load())
	assert.Equal(t, 2*n, testmain.Forget(), "the table notes each")
}

// TestPinOutlivesTheTensor closes the tensor while a view of it lives on: the slice stays pinned until
// the view is closed, and is let go then.
func TestPinOutlivesTheTensor(t *testing.T) {
	before := torch.MemoryStats().Live.Pins
	var freed atomic.Bool
	view := func() *torch.Tensor {
		data := make([]int32, 1000)
		for i := range data {
			data[i] = int32(i)
		}
		runtime.AddCleanup(&data[0], func(struct{}) { freed.Store(true) }, struct{}{})
		x, err := torch.FromSlice(data, 10, 100)
		require.NoError(t, err)
		defer x.Close()
		v, err := x.Select(0, 9)
		require.NoError(t, err)
		return v
	}()
	for range 3 {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	assert.False(t, freed.Load(), "pinned: the view uses it")
	assert.Equal(t, before+1, torch.MemoryStats().Live.Pins)
	require.NoError(t, torch.WithData(view, func(data []int32) error {
		for i, v := range data {
			assert.Equal(t, int32(900+i), v)
		}
		return nil
	}))
	view.Close()
	assert.Equal(t, before, torch.MemoryStats().Live.Pins)
	assert.True(t, collect(freed.Load))
}

// TestPinsUnderLoad makes and drops many pinned tensors from many goroutines.
func TestPinsUnderLoad(t *testing.T) {
	before := torch.MemoryStats().Live
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			var scope torch.Scope
			defer scope.Close()
			for i := range 200 {
				data := []int64{int64(g), int64(i)}
				x, err := torch.FromSlice(data)
				if !assert.NoError(t, err) {
					return
				}
				scope.Track(x)
				y, err := x.Add(1)
				if !assert.NoError(t, err) {
					return
				}
				assert.NoError(t, torch.WithData(y, func(sum []int64) error {
					if sum[0] != int64(g)+1 || sum[1] != int64(i)+1 {
						t.Errorf("got %v, want %v plus 1", sum, data)
					}
					return nil
				}))
				y.Close()
				if i%100 == 99 { // more than one drain takes
					scope.Close()
				}
			}
		})
	}
	group.Wait()
	assert.Equal(t, before, torch.MemoryStats().Live)
}

// TestWithDataKeepsTheTensor collects garbage inside the callback, where the call is all that refers to
// the tensor.
func TestWithDataKeepsTheTensor(t *testing.T) {
	before := torch.MemoryStats().Live.Tensors
	x, err := torch.Full([]int64{1000}, 7, torch.TensorOptions{})
	require.NoError(t, err)
	testmain.Forget()
	err = torch.WithData(x, func(data []float32) error {
		for range 3 {
			runtime.GC()
			time.Sleep(time.Millisecond)
		}
		assert.Equal(t, before+1, torch.MemoryStats().Live.Tensors)
		for _, v := range data {
			if v != 7 {
				return errors.New("the memory was freed")
			}
		}
		return nil
	})
	require.NoError(t, err)
	assert.True(t, collect(func() bool { return torch.MemoryStats().Live.Tensors == before }))
	assert.Equal(t, 1, testmain.Forget())

	// What the callback says comes back, and a panic leaves the tensor closable.
	y := tensor(t, []float32{1})
	stop := errors.New("stop")
	assert.ErrorIs(t, torch.WithData(y, func([]float32) error { return stop }), stop)
	assert.Panics(t, func() { _ = torch.WithData(y, func([]float32) error { panic("here") }) })
	y.Close()
	assert.Equal(t, before, torch.MemoryStats().Live.Tensors)
}

// TestCloseInsideWithData takes effect when the callback returns.
func TestCloseInsideWithData(t *testing.T) {
	before := torch.MemoryStats().Live.Tensors
	x := tensor(t, []float32{1, 2})
	require.NoError(t, torch.WithData(x, func(data []float32) error {
		x.Close()
		assert.Equal(t, before+1, torch.MemoryStats().Live.Tensors)
		assert.Equal(t, []float32{1, 2}, data)
		_, err := x.Clone()
		assert.ErrorIs(t, err, torch.ErrClosed)
		return nil
	}))
	assert.Equal(t, before, torch.MemoryStats().Live.Tensors)
}

func TestScope(t *testing.T) {
	before := torch.MemoryStats().Live.Tensors
	var scope torch.Scope
	require.NoError(t, scope.Close(), "an empty one")
	a := must(torch.NewTensor([]float32{1}))
	b := must(torch.NewTensor([]float32{2}))
	c := must(torch.NewTensor([]float32{3}))
	scope.Track(a, torch.Tuple{b, nil, map[string]any{"c": c}}, nil)
	assert.Same(t, b, scope.Keep(b))
	require.NoError(t, scope.Close())
	assert.Equal(t, before+1, torch.MemoryStats().Live.Tensors)
	assert.Nil(t, a.Shape())
	assert.NotNil(t, b.Shape())
	assert.Nil(t, c.Shape())
	b.Close()

	// It can be used again, from many goroutines.
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 20 {
				x, err := torch.Own(&scope)(torch.Zeros([]int64{1}, torch.TensorOptions{}))
				assert.NoError(t, err)
				scope.Keep(x)
				scope.Track(x)
			}
		})
	}
	group.Wait()
	assert.Equal(t, before+160, torch.MemoryStats().Live.Tensors)
	scope.Close()
	assert.Equal(t, before, torch.MemoryStats().Live.Tensors)
	_, err := torch.Own(&scope)(torch.Zeros([]int64{-1}, torch.TensorOptions{}))
	assert.ErrorIs(t, err, torch.ErrShape)
}

// TestErrorsLeaveNothing makes calls that fail in every place.
func TestErrorsLeaveNothing(t *testing.T) {
	before := torch.MemoryStats().Live
	x := must(torch.NewTensor([]float32{1, 2}))
	data := []float32{1, 2, 3}
	for range 10 {
		_, err := torch.FromSlice(data, 2)
		require.Error(t, err)
		_, err = torch.FromSlice(data, -3)
		require.Error(t, err)
		_, err = torch.FromSlice(data, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3)
		require.Error(t, err)
		_, err = torch.Call(context.Background(), "aten::mm", x, x)
		require.Error(t, err)
		_, err = torch.Call(context.Background(), "aten::nothing", x)
		require.Error(t, err)
		_, err = torch.CallTensor(context.Background(), "aten::max", x, 0)
		require.Error(t, err)
		_, err = torch.Call(context.Background(), "aten::cat", []any{x, struct{}{}})
		require.Error(t, err)
	}
	x.Close()
	assert.Equal(t, before, torch.MemoryStats().Live)
}

// TestLeakTable runs tests in a child that leave handles behind: the binary fails and names where each
// was made.
func TestLeakTable(t *testing.T) {
	if os.Getenv("TORCHVIT_LEAVE") != "" {
		t.Skip("in the child")
	}
	for name, c := range map[string]struct{ leave, want string }{
		"open":    {"open", "tensor is still open; made at"},
		"dropped": {"dropped", "tensor was not closed, and freed by the garbage collector; made at"},
		// Data disowns: the collector leaves the tensor alone, and the table reports it.
		"disowned": {"disowned", "tensor is still open; made at"},
		"nothing":  {"nothing", ""},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLeaveBehind$", "-test.v")
			cmd.Env = append(os.Environ(), "TORCHVIT_LEAVE="+c.leave)
			out, err := cmd.CombinedOutput()
			if c.want == "" {
				require.NoError(t, err, "%s", out)
				return
			}
			assert.Equal(t, 99, cmd.ProcessState.ExitCode(), "%s", out)
			assert.Contains(t, string(out), c.want)
			assert.Contains(t, string(out), "leaveBehind", "the stack names the function")
		})
	}
}

var kept *torch.Tensor

// TestLeaveBehind is the child of TestLeakTable.
func TestLeaveBehind(t *testing.T) {
	leave := os.Getenv("TORCHVIT_LEAVE")
	if leave == "" {
		t.Skip("runs in a child of TestLeakTable")
	}
	leaveBehind(t, leave)
}

func leaveBehind(t *testing.T, leave string) {
	x, err := torch.NewTensor([]float32{1, 2, 3})
	require.NoError(t, err)
	switch leave {
	case "open":
		kept = x
	case "dropped":
	case "disowned":
		data, err := torch.Data[float32](x)
		require.NoError(t, err)
		p := unsafe.SliceData(data)
		x = nil
		for range 5 {
			runtime.GC()
			time.Sleep(time.Millisecond)
		}
		assert.Equal(t, int64(1), torch.MemoryStats().Live.Tensors, "not freed by the collector")
		assert.Equal(t, []float32{1, 2, 3}, unsafe.Slice(p, 3))
	default:
		x.Close()
	}
}

// TestDataThenClose is the other half of Data: Close frees a disowned tensor.
func TestDataThenClose(t *testing.T) {
	before := torch.MemoryStats().Live.Tensors
	x := must(torch.NewTensor([]float32{1, 2, 3}))
	data := must(torch.Data[float32](x))
	again := must(torch.Data[float32](x))
	assert.Same(t, &data[0], &again[0])
	data[1] = 9
	assert.Equal(t, "tensor([1., 9., 3.])", x.String())
	x.Close()
	assert.Equal(t, before, torch.MemoryStats().Live.Tensors)
}
