package torch

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/cgo"
)

// BackwardOptions say how Backward runs. The zero value is Tensor.backward().
type BackwardOptions struct {
	// Gradient is the root's own gradient, of its shape. Nil stands for 1, for a root of one element.
	Gradient *Tensor
	// RetainGraph keeps the graph for another Backward. Without it the graph's memory is given back.
	RetainGraph bool
}

// Backward is Tensor.backward: it adds the gradients of root to those of the leaves that it was made of,
// which Grad then gives. Root must come from calls in mode Grad; one of mode Inference or NoGrad has no
// graph and gives ErrAutograd. It waits for a lane until ctx ends and runs there to its end. Two calls may
// not add to the same leaves at once.
//
// Root and leaves stay the caller's; nothing is closed.
func Backward(ctx context.Context, root *Tensor, o BackwardOptions) error {
	if root == nil {
		return fmt.Errorf("backward: %w: got a nil tensor", ErrInvalidArgument)
	}
	args := []any{[]*Tensor{root}, []*Tensor{o.Gradient}}
	_, err := Invoke(ctx, "backward", CallOptions{Mode: Grad}, args, func(nodes []cgo.Node, _ []byte, mode cgo.Mode, _ *cgo.Node) (cgo.Values, error) {
		return cgo.Values{}, cgo.Backward(nodes, o.RetainGraph, false, mode)
	})
	return err
}

// GradientsOptions say how Gradients runs. The zero value is torch.autograd.grad(outputs, inputs).
type GradientsOptions struct {
	// Gradients are the outputs' own gradients, one for each; nil, or a nil among them, stands for 1.
	Gradients []*Tensor
	// RetainGraph keeps the graph for another call.
	RetainGraph bool
	// CreateGraph makes the result differentiable, and keeps the graph.
	CreateGraph bool
	// AllowUnused gives nil for an input that the outputs do not depend on, in place of ErrAutograd.
	AllowUnused bool
}

// Gradients is torch.autograd.grad: the gradients of the sum of outputs with respect to each input. The
// leaves' own gradients stay as they are. The caller closes the result.
func Gradients(ctx context.Context, outputs, inputs []*Tensor, o GradientsOptions) ([]*Tensor, error) {
	for _, list := range [][]*Tensor{outputs, inputs} {
		if len(list) == 0 {
			return nil, fmt.Errorf("gradients: %w: got no tensors", ErrInvalidArgument)
		}
		for _, t := range list {
			if t == nil {
				return nil, fmt.Errorf("gradients: %w: got a nil tensor", ErrInvalidArgument)
			}
		}
	}
	given := o.Gradients
	if given == nil {
		given = make([]*Tensor, len(outputs))
	}
	if len(given) != len(outputs) {
		return nil, fmt.Errorf("gradients: %w: got %d gradients for %d outputs", ErrInvalidArgument, len(given), len(outputs))
	}
	args := []any{outputs, inputs, given}
	v, err := Invoke(ctx, "gradients", CallOptions{Mode: Grad}, args, func(nodes []cgo.Node, _ []byte, mode cgo.Mode, _ *cgo.Node) (cgo.Values, error) {
		return cgo.Gradients(nodes, o.RetainGraph || o.CreateGraph, o.CreateGraph, o.AllowUnused, mode)
	})
	if err != nil {
		return nil, err
	}
	out, _ := v.([]*Tensor)
	return out, nil
}

// Grad is Tensor.grad: what Backward added up, which shares the memory; the caller closes it. Nil, and no
// error, where there is none. An optimizer's ZeroGrad takes it off the tensor, and what was given before
// keeps its values.
func (t *Tensor) Grad() (*Tensor, error) {
	raw, err := t.acquire("grad")
	if err != nil {
		return nil, err
	}
	defer t.h.Release()
	out, err := cgo.TensorGrad(raw)
	if err != nil || out.IsNil() {
		return nil, WrapStatus("grad", err)
	}
	return newTensor(out, t.size), nil
}

// SetRequiresGrad is Tensor.requires_grad_: whether calls in mode Grad record what they do with the tensor.
// Freeze a parameter with false. A result of a call in mode Inference gives ErrAutograd; Clone it first.
func (t *Tensor) SetRequiresGrad(on bool) error {
	raw, err := t.acquire("requires_grad")
	if err != nil {
		return err
	}
	defer t.h.Release()
	return WrapStatus("requires_grad", cgo.TensorSetRequiresGrad(raw, on))
}

// Detach is Tensor.detach: the same memory without a graph. The caller closes it.
func (t *Tensor) Detach() (*Tensor, error) {
	if t == nil {
		return nil, fmt.Errorf("detach: %w: got a nil tensor", ErrInvalidArgument)
	}
	v, err := CallWith(context.Background(), CallOptions{Mode: NoGrad}, "aten::detach", t)
	if err != nil {
		return nil, err
	}
	return v.(*Tensor), nil
}

// RNGState is torch.get_rng_state: the state of the CPU's generator, which ManualSeed seeds, as a tensor of
// uint8. The caller closes it.
func RNGState() (*Tensor, error) {
	if err := ensure(); err != nil {
		return nil, err
	}
	raw, err := cgo.RNGState()
	if err != nil {
		return nil, WrapStatus("rng state", err)
	}
	var m cgo.Meta
	if err := cgo.TensorMeta(raw, &m); err != nil {
		cgo.TensorFree(raw)
		return nil, WrapStatus("rng state", err)
	}
	return newTensor(raw, m.NumEl), nil
}

// SetRNGState is torch.set_rng_state: random numbers go on from there.
func SetRNGState(state *Tensor) error {
	raw, err := state.acquire("set rng state")
	if err != nil {
		return err
	}
	defer state.h.Release()
	return WrapStatus("set rng state", cgo.SetRNGState(raw))
}
