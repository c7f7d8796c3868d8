package jit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
)

var children = map[string]func() error{
	"threads":   threadsChild,
	"memory":    memoryChild,
	"precision": precisionChild,
}

const modulesName = "MODULES"

func childModule(name string) (*jit.Module, error) {
	return jit.Load(filepath.Join(os.Getenv(modulesName), name+".pt"), jit.LoadOptions{})
}

// osThreads counts the threads of this process.
func osThreads() (int, error) {
	entries, err := os.ReadDir("/proc/self/task")
	return len(entries), err
}

// threadsChild counts OS threads after one caller, and after 64 that call at once.
func threadsChild() error {
	lanes, err := strconv.Atoi(os.Getenv("LANES"))
	if err != nil {
		return err
	}
	intra, err := strconv.Atoi(os.Getenv("INTRA"))
	if err != nil {
		return err
	}
	if err := torch.Init(torch.Config{Device: "cpu", Lanes: lanes, IntraOpThreads: intra}); err != nil {
		return err
	}
	m, err := childModule("slow") // products of 256 x 256 matrices: parallel regions
	if err != nil {
		return err
	}
	defer m.Close()
	ctx := context.Background()
	caller := func(n int) error {
		for range n {
			x, err := torch.RandN([]int64{256, 256}, torch.TensorOptions{})
			if err != nil {
				return err
			}
			y, err := m.Forward(ctx, x, 2)
			if err == nil {
				// Light and heavy calls of the tensor package, too.
				var z *torch.Tensor
				if z, err = y.(*torch.Tensor).Clone(); err == nil {
					z.Close()
				}
				torch.CloseAll(y)
			}
			x.Close()
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err := caller(4 * lanes); err != nil {
		return err
	}
	one, err := osThreads()
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	errs := make([]error, 64)
	for i := range errs {
		group.Go(func() { errs[i] = caller(5) })
	}
	group.Wait()
	many, err := osThreads()
	if err != nil {
		return err
	}
	return errors.Join(errors.Join(errs...), json.NewEncoder(os.Stdout).Encode([2]int{one, many}))
}

// TestThreads: 64 goroutines that call Forward leave at most 4 + lanes x intra-op threads more OS threads
// than one caller does. Without lanes it was 132.
func TestThreads(t *testing.T) {
	for _, c := range []struct{ lanes, intra int }{{1, 2}, {2, 2}, {3, 1}} {
		var n [2]int
		out := testmain.RunChild(t, "threads", modulesName+"="+filepath.Dir(modulePath(t, "slow")),
			"LANES="+strconv.Itoa(c.lanes), "INTRA="+strconv.Itoa(c.intra))
		require.NoError(t, json.Unmarshal([]byte(out), &n))
		t.Logf("%d lanes of %d threads: %d OS threads with one caller, %d with 64", c.lanes, c.intra, n[0], n[1])
		assert.LessOrEqual(t, n[1]-n[0], 4+c.lanes*c.intra)
	}
}

// TestLanesKeepTheirThreads: lane 0 has two intra-op threads and lane 1 has one, before and after work
// from many goroutines on both.
func TestLanesKeepTheirThreads(t *testing.T) {
	m := load(t, "slow")
	x, err := torch.RandN([]int64{64, 64}, torch.TensorOptions{})
	require.NoError(t, err)
	defer x.Close()
	check := func() {
		t.Helper()
		for lane, want := range []int{2, 1} {
			n, err := torch.LaneThreadCount(t.Context(), lane)
			require.NoError(t, err)
			assert.Equal(t, want, n, "lane %d", lane)
		}
	}
	check()
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			for k := range 10 {
				y, err := m.Forward(t.Context(), x, 2)
				if assert.NoError(t, err) {
					torch.CloseAll(y)
				}
				if k%5 == 4 { // asks while others work, from many goroutines at once
					n, err := torch.LaneThreadCount(t.Context(), i%2)
					assert.NoError(t, err)
					assert.Equal(t, 2-i%2, n)
				}
			}
		})
	}
	group.Wait()
	check()
}

// occupy holds every lane with calls that wait for release, and gives it.
func occupy(t *testing.T) (release func()) {
	t.Helper()
	gate := make(chan struct{})
	var started, done sync.WaitGroup
	for range 2 {
		started.Add(1)
		done.Go(func() {
			_, err := torch.Invoke(context.Background(), "occupy", torch.CallOptions{}, nil,
				func([]cgo.Node, []byte, cgo.Mode, *cgo.Node) (cgo.Values, error) {
					started.Done()
					<-gate
					return cgo.Values{}, nil
				})
			assert.NoError(t, err)
		})
	}
	started.Wait()
	var once sync.Once
	release = func() { once.Do(func() { close(gate); done.Wait() }) }
	t.Cleanup(release)
	return release
}

// TestContextWhileWaiting cancels calls that wait for a lane, and for a module that is in use.
func TestContextWhileWaiting(t *testing.T) {
	m := load(t, "identity")
	counter := load(t, "counter")
	x := tensorOf(t, []float32{1})
	big, err := torch.Zeros([]int64{1 << 16}, torch.TensorOptions{})
	require.NoError(t, err)
	defer big.Close()

	release := occupy(t)
	for name, wait := range map[string]func(ctx context.Context) error{
		"forward":    func(ctx context.Context) error { _, err := m.Forward(ctx, x); return err },
		"stateful":   func(ctx context.Context) error { _, err := counter.Forward(ctx, x); return err },
		"heavy call": func(ctx context.Context) error { _, err := torch.Call(ctx, "aten::relu", big); return err },
		"question":   func(ctx context.Context) error { _, err := torch.LaneThreadCount(ctx, 0); return err },
	} {
		cause := errors.New("the client went away")
		ctx, cancel := context.WithCancelCause(t.Context())
		result := make(chan error, 1)
		go func() { result <- wait(ctx) }()
		select {
		case err := <-result:
			t.Fatalf("%s: got %v while every lane is in use", name, err)
		case <-time.After(5 * time.Millisecond):
		}
		start := time.Now()
		cancel(cause)
		err := <-result
		assert.Less(t, time.Since(start), 2*time.Second, name)
		assert.ErrorIs(t, err, context.Canceled, name)
		assert.ErrorIs(t, err, cause, name)

		late, stop := context.WithTimeout(t.Context(), time.Millisecond)
		assert.ErrorIs(t, wait(late), context.DeadlineExceeded, name)
		stop()
	}
	// Light calls do not wait for a lane.
	y, err := x.Add(1)
	require.NoError(t, err)
	y.Close()

	// A call in a module with state waits for the one before it.
	first := make(chan error, 1)
	go func() {
		y, err := counter.Forward(context.Background(), x)
		torch.CloseAll(y)
		first <- err
	}()
	for { // until the first one holds the module
		ctx, stop := context.WithTimeout(t.Context(), time.Millisecond)
		_, err := counter.Forward(ctx, x)
		stop()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		if strings.Contains(err.Error(), "waiting for module counter") {
			break
		}
	}
	release()
	require.NoError(t, <-first)
	torch.CloseAll(call(t, m, "forward", x))
}

// memoryChild runs 20,000 forwards, every tenth with a wrong shape, and watches the resident set.
func memoryChild() error {
	if err := torch.Init(torch.Config{Device: "cpu"}); err != nil {
		return err
	}
	m, err := childModule("methods")
	if err != nil {
		return err
	}
	ctx := context.Background()
	data := make([]float32, 4)
	run := func(n int) error {
		for i := range n {
			if i%10 == 9 {
				x, err := torch.NewTensor([]float32{1, 2, 3}, 1, 3)
				if err != nil {
					return err
				}
				_, err = m.Forward(ctx, x)
				x.Close()
				if !errors.Is(err, torch.ErrShape) {
					return fmt.Errorf("got %w, want ErrShape", err)
				}
				continue
			}
			x, err := torch.FromSlice(data, 2, 2)
			if err != nil {
				return err
			}
			y, err := m.Forward(ctx, x)
			x.Close()
			if err != nil {
				return err
			}
			torch.CloseAll(y)
		}
		return nil
	}
	resident := func() int64 { return torch.MemoryStats().Resident }
	if err := run(3000); err != nil {
		return err
	}
	runtime.GC()
	before := resident()
	peak := before
	for range 20 {
		if err := run(1000); err != nil {
			return err
		}
		peak = max(peak, resident())
	}
	m.Close()
	live := torch.MemoryStats().Live
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"before": before, "peak": peak, "live": live.Total(), "text": live.String()})
}

// TestMemoryIsFlat: 20,000 forwards with errors among them keep the resident set within 5 MB after a
// warm-up, and leave no object of the shim.
func TestMemoryIsFlat(t *testing.T) {
	var got struct {
		Before, Peak, Live int64
		Text               string
	}
	out := testmain.RunChild(t, "memory", modulesName+"="+filepath.Dir(modulePath(t, "slow")))
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	t.Logf("resident: %.1f MB after the warm-up, %.2f MB more at peak", float64(got.Before)/1e6, float64(got.Peak-got.Before)/1e6)
	assert.Zero(t, got.Live, got.Text)
	if !cgo.ASan && !race { // they keep memory of their own
		assert.Less(t, got.Peak-got.Before, int64(5e6))
	}
}
