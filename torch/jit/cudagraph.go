package jit

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/internal/handle"
	"github.com/torchvit/torchvit/torch"
)

const (
	maxGraphs   = 16
	graphWarmup = 3 // the executor profiles, then optimizes, then is done: as many as torch.cuda.make_graphed_callables
)

// graphs holds the methods of a module that were recorded.
type graphs struct {
	mu       sync.Mutex
	recorded []*graph
}

// graph is a method recorded for one kind of input.
type graph struct {
	method int32
	shape  []int64
	dtype  torch.DType
	device torch.Device

	h      handle.Handle[cgo.CUDAGraph]
	output any // what a replay writes
	busy   *semaphore.Weighted
}

// graphInput is the argument of a call that can be recorded, nil for other calls.
func graphInput(args []any) *torch.Tensor {
	if len(args) != 1 {
		return nil
	}
	x, ok := args[0].(*torch.Tensor)
	if !ok || x == nil || !x.Device().IsCUDA() {
		return nil
	}
	return x
}

// find gives the graph for an input, or nil, and whether there is room for another.
func (g *graphs) find(method int32, x *torch.Tensor) (found *graph, room bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.recorded {
		if r.method == method && r.dtype == x.DType() && r.device == x.Device() && slices.Equal(r.shape, x.Shape()) {
			return r, true
		}
	}
	return nil, len(g.recorded) < maxGraphs
}

// drop frees what was recorded: it would not see a change of the module.
func (g *graphs) drop() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.recorded {
		r.close()
	}
	g.recorded = nil
}

func (r *graph) close() {
	r.h.Close()
	torch.CloseAll(r.output)
}

// replay is a call through a graph, recorded where there is none yet.
func (m *Module) replay(ctx context.Context, raw cgo.Module, i int32, x *torch.Tensor) (any, error) {
	op := m.methods[i].Name
	if found, room := m.graphs.find(i, x); found == nil && room {
		if err := m.record(ctx, raw, i, x); err != nil {
			return nil, err
		}
	}
	if err := m.wait(ctx, op, 1); err != nil {
		return nil, err
	}
	defer m.busy.Release(1)
	r, _ := m.graphs.find(i, x)
	if r == nil { // no room, or the module was changed meanwhile
		return m.run(ctx, raw, i, torch.CallOptions{}, []any{x})
	}
	if err := r.busy.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("%s: waiting for its CUDA graph: %w", op, err)
	}
	defer r.busy.Release(1)
	g, ok := r.h.Acquire()
	if !ok {
		return nil, fmt.Errorf("%s: module %s: %w", op, m.name, torch.ErrClosed)
	}
	defer r.h.Release()
	// Both go to one stream, in this order: nothing waits for the device here.
	if _, err := torch.Invoke(ctx, op, torch.CallOptions{}, []any{x}, func(nodes []cgo.Node, _ []byte, mode cgo.Mode, _ *cgo.Node) (cgo.Values, error) {
		return cgo.Values{}, cgo.CUDAGraphReplay(g, nodes[0].Tensor, mode)
	}); err != nil {
		return nil, err
	}
	return cloned(ctx, r.output)
}

// record runs the method alone and keeps its graph.
func (m *Module) record(ctx context.Context, raw cgo.Module, i int32, x *torch.Tensor) error {
	op := "record " + m.methods[i].Name + " as a CUDA graph"
	if err := m.wait(ctx, op, all); err != nil {
		return err
	}
	defer m.busy.Release(all)
	if found, room := m.graphs.find(i, x); found != nil || !room {
		return nil
	}
	r := &graph{method: i, shape: x.Shape(), dtype: x.DType(), device: x.Device(), busy: semaphore.NewWeighted(1)}
	input, err := torch.CallTensor(ctx, "aten::clone", x)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	var recording bool
	r.output, err = torch.Invoke(ctx, op, torch.CallOptions{}, []any{input}, func(nodes []cgo.Node, _ []byte, mode cgo.Mode, out *cgo.Node) (cgo.Values, error) {
		g, more, failed, err := cgo.CUDAGraphCapture(raw, i, nodes[0].Tensor, graphWarmup, mode, out)
		if recording = failed; err == nil {
			r.h.Init(g, op, cgo.CUDAGraphFree)
		}
		return more, err
	})
	input.Close() // the graph holds it
	switch {
	case err != nil && recording:
		return fmt.Errorf("%w; a method that waits for the device cannot be recorded: load the module without CUDAGraphs", err)
	case err != nil:
		return err
	}
	m.graphs.mu.Lock()
	defer m.graphs.mu.Unlock()
	m.graphs.recorded = append(m.graphs.recorded, r)
	return nil
}

// cloned is a value with copies of its tensors, as the next replay writes over them.
func cloned(ctx context.Context, v any) (any, error) {
	switch v := v.(type) {
	case *torch.Tensor:
		return torch.CallTensor(ctx, "aten::clone", v)
	case torch.Tuple:
		out, err := clones(ctx, v)
		return torch.Tuple(out), err
	case torch.List:
		out, err := clones(ctx, v)
		return torch.List(out), err
	case []*torch.Tensor:
		return clones(ctx, v)
	case map[string]any:
		return clonedMap(ctx, v)
	case map[int64]any:
		return clonedMap(ctx, v)
	}
	return v, nil
}

func clonedMap[K comparable](ctx context.Context, m map[K]any) (map[K]any, error) {
	out := make(map[K]any, len(m))
	for k, item := range m {
		c, err := cloned(ctx, item)
		if err != nil {
			torch.CloseAll(out)
			return nil, err
		}
		out[k] = c
	}
	return out, nil
}

func clones[T any](ctx context.Context, items []T) ([]T, error) {
	out := make([]T, 0, len(items))
	for _, item := range items {
		c, err := cloned(ctx, item)
		if err != nil {
			for _, done := range out {
				torch.CloseAll(done)
			}
			return nil, err
		}
		t, _ := c.(T)
		out = append(out, t)
	}
	return out, nil
}
