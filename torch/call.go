package torch

import (
	"context"
	"fmt"
	"sync"

	"github.com/torchvit/torchvit/cgo"
)

// Mode is how a call treats gradients.
type Mode int32

const (
	// Inference is torch.inference_mode: the default, and the fastest. Its results can never be used by
	// autograd.
	Inference Mode = Mode(cgo.ModeInference)
	// NoGrad is torch.no_grad.
	NoGrad Mode = Mode(cgo.ModeNoGrad)
	// Grad records the graph: torch.enable_grad.
	Grad Mode = Mode(cgo.ModeGrad)
)

// CallOptions say how one call runs. The zero value is inference without autocast.
type CallOptions struct {
	Mode Mode
	// Autocast is the dtype of torch.autocast, InvalidDType for none.
	Autocast DType
	// OnCaller runs the call on the calling thread whatever its size, so that it never waits for a lane.
	// For operators that open no parallel region, such as decoders; GOMAXPROCS of them run at once.
	OnCaller bool
	// OnLane runs the call on a lane whatever its size. For operators whose result is much larger than
	// their arguments, such as upsampling: it is fast there, and as some kernels' last bits depend on the
	// number of threads, the bits are those of Python with as many threads as the lane has.
	OnLane bool
}

// place finds where a call runs: on a lane, waiting for one, or on the calling thread. done must be
// called when the call is over.
func place(ctx context.Context, o CallOptions, onLane bool) (mode cgo.Mode, done func(), err error) {
	mode = cgo.Mode{Mode: int32(o.Mode), Autocast: int32(o.Autocast), Lane: -1}
	if ctx.Err() != nil {
		return mode, nil, ended(ctx)
	}
	if !onLane {
		if err := takeLight(ctx); err != nil {
			return mode, nil, err
		}
		return mode, leaveLight, nil
	}
	if mode.Lane, err = takeLane(ctx); err != nil {
		return mode, nil, err
	}
	return mode, laneReturns[mode.Lane%int32(len(laneReturns))].get(mode.Lane), nil
}

// ended is the error of a context that is done: errors.Is finds context.Canceled or
// context.DeadlineExceeded, and the cause where one was given.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == nil || cause == err {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}

func leaveLight() { <-loaded.light }

// laneReturn makes the function that returns a lane once, not once per call.
type laneReturn struct {
	once sync.Once
	f    func()
}

func (r *laneReturn) get(lane int32) func() {
	if int(lane) >= len(laneReturns) {
		return func() { loaded.lanes.put(lane) }
	}
	r.once.Do(func() { r.f = func() { loaded.lanes.put(lane) } })
	return r.f
}

var laneReturns [64]laneReturn

// Invoke encodes the arguments as nodes, waits for a lane, runs call there and decodes its result. For
// packages that wrap the shim, such as torch/jit. Everything a call gives belongs to the caller.
func Invoke(ctx context.Context, op string, o CallOptions, args []any, call func(nodes []cgo.Node, text []byte, mode cgo.Mode, out *cgo.Node) (cgo.Values, error)) (any, error) {
	if err := ensure(); err != nil {
		return nil, err
	}
	drainPins()
	e := newEncoder()
	defer e.release()
	for i, a := range args {
		if err := e.value(a, 0); err != nil {
			return nil, fmt.Errorf("%s: argument %d: %w", op, i, err)
		}
	}
	mode, done, err := place(ctx, o, true)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	e.nodes = append(e.nodes, cgo.Node{}) // the result's place, in memory that is there already
	out := &e.nodes[len(e.nodes)-1]
	more, err := call(e.nodes[:len(e.nodes)-1], e.text, mode, out)
	done()
	if err != nil {
		return nil, WrapStatus(op, err)
	}
	if more.IsNil() && out.Kind == cgo.KindTensor {
		return newTensor(out.Tensor, out.I), nil
	}
	return decodeResult(out, more), nil
}

// EncodeNodes writes values as nodes for one call of package cgo; no tensor may be among them. For
// packages that wrap the shim.
func EncodeNodes(values ...any) (nodes []cgo.Node, text []byte, err error) {
	e := &encoder{}
	for _, v := range values {
		if err := e.value(v, 0); err != nil {
			return nil, nil, err
		}
	}
	if len(e.held) > 0 {
		for _, t := range e.held {
			t.h.Release()
		}
		return nil, nil, fmt.Errorf("%w: got a tensor, want plain values", ErrValue)
	}
	return e.nodes, e.text, nil
}

// WithNodes writes values, tensors too, as nodes that are valid while f runs. For packages that wrap the
// shim.
func WithNodes(f func(nodes []cgo.Node, text []byte) error, values ...any) error {
	e := newEncoder()
	defer e.release()
	for _, v := range values {
		if err := e.value(v, 0); err != nil {
			return err
		}
	}
	return f(e.nodes, e.text)
}

var operators sync.Map // name to cgo.Operator

func findOperator(name string) (cgo.Operator, error) {
	if op, ok := operators.Load(name); ok {
		return op.(cgo.Operator), nil
	}
	if err := ensure(); err != nil {
		return cgo.Operator{}, err
	}
	op, err := cgo.OperatorFind(name)
	if err != nil {
		return op, withNotes(WrapStatus("call", err))
	}
	operators.Store(name, op)
	return op, nil
}

// withNotes adds why a library of operators is missing to an error about a missing operator.
func withNotes(err error) error {
	if len(loaded.notes) == 0 {
		return err
	}
	return fmt.Errorf("%w (%s)", err, loaded.notes[0])
}

// Call runs any operator that libtorch or a loaded library registers, by name: Call(ctx,
// "aten::softmax", x, -1, nil) is torch.ops.aten.softmax(x, -1, None). The overload follows from the
// arguments; where several fit equally, the error lists them, and "aten::softmax.int" names one.
// A Kwargs as the last argument holds arguments by name. A DType stands for an int, a Device for
// a Device.
//
// Work on more than 32768 elements runs on a lane, for which the call waits until ctx ends; a running
// operator cannot be interrupted. The result is the caller's: a *Tensor, a plain value, or a Tuple.
func Call(ctx context.Context, name string, args ...any) (any, error) {
	return CallWith(ctx, CallOptions{}, name, args...)
}

// CallWith is Call with options.
func CallWith(ctx context.Context, o CallOptions, name string, args ...any) (any, error) {
	op, err := findOperator(name)
	if err != nil {
		return nil, err
	}
	drainPins()
	e := newEncoder()
	defer e.release()
	positional := args
	var kwargs Kwargs
	if n := len(args); n > 0 {
		if k, ok := args[n-1].(Kwargs); ok {
			positional, kwargs = args[:n-1], k
		}
	}
	for i, a := range positional {
		if err := e.value(a, 0); err != nil {
			return nil, fmt.Errorf("%s: argument %d: %w", name, i, err)
		}
	}
	if len(kwargs) > 0 {
		for _, k := range sortedKeys(kwargs) {
			e.string(k)
			if err := e.value(kwargs[k], 0); err != nil {
				return nil, fmt.Errorf("%s: argument %s: %w", name, k, err)
			}
		}
	}
	mode, done, err := place(ctx, o, o.OnLane || e.numel > heavy && !o.OnCaller)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	e.nodes = append(e.nodes, cgo.Node{})
	out := &e.nodes[len(e.nodes)-1]
	more, err := cgo.OperatorCall(op, e.nodes[:len(e.nodes)-1], len(positional), len(kwargs), e.text, mode, out)
	done()
	if err != nil {
		return nil, WrapStatus(name, err)
	}
	if more.IsNil() && out.Kind == cgo.KindTensor {
		return newTensor(out.Tensor, out.I), nil
	}
	return decodeResult(out, more), nil
}

// CallTensor is Call for operators that give one tensor.
func CallTensor(ctx context.Context, name string, args ...any) (*Tensor, error) {
	v, err := Call(ctx, name, args...)
	if err != nil {
		return nil, err
	}
	t, ok := v.(*Tensor)
	if !ok {
		CloseAll(v)
		return nil, fmt.Errorf("%s: %w: got %T, want one tensor", name, ErrValue, v)
	}
	return t, nil
}

// Schemas gives the schemas of an operator's overloads, one a line.
func Schemas(name string) (string, error) {
	op, err := findOperator(name)
	if err != nil {
		return "", err
	}
	s, err := cgo.OperatorSchemas(op)
	return s, WrapStatus("schemas", err)
}

// OperatorSeconds runs an operator n times from C++ on the same arguments, on the calling thread, and
// gives the seconds: what a call costs without Go. For benchmarks.
func OperatorSeconds(ctx context.Context, name string, n int, args ...any) (float64, error) {
	op, err := findOperator(name)
	if err != nil {
		return 0, err
	}
	e := newEncoder()
	defer e.release()
	for i, a := range args {
		if err := e.value(a, 0); err != nil {
			return 0, fmt.Errorf("%s: argument %d: %w", name, i, err)
		}
	}
	mode, done, err := place(ctx, CallOptions{}, false)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	defer done()
	seconds, err := cgo.BenchOperatorCall(op, e.nodes, len(args), e.text, mode, n)
	return seconds, WrapStatus(name, err)
}
