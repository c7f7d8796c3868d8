package optim

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/torch"
)

// ClipGradNorm is torch.nn.utils.clip_grad_norm_ of order 2: where the norm of all gradients together is
// above maxNorm, it scales them down to it, in place. It gives the norm before that, 0 where nothing has a
// gradient. A norm that is not finite spoils the gradients, as in Python: look at it before a step.
//
// It is the norm of the parameters' norms in the order given: Python's bits want Python's order. It waits
// for a lane until ctx ends.
func ClipGradNorm(ctx context.Context, params []Param, maxNorm float64) (float64, error) {
	if !(maxNorm >= 0) {
		return 0, fmt.Errorf("clip grad norm: %w: got %v, want 0 and more", torch.ErrInvalidArgument, maxNorm)
	}
	var norm float64
	err := onGrads(ctx, "clip grad norm", params, func(nodes []cgo.Node, mode cgo.Mode) (err error) {
		norm, err = cgo.ClipGradNorm(nodes, maxNorm, mode)
		return err
	})
	return norm, err
}

// ClipGradValue is torch.nn.utils.clip_grad_value_: every element of a gradient is clamped to -value to
// value, in place. It waits for a lane until ctx ends.
func ClipGradValue(ctx context.Context, params []Param, value float64) error {
	if !(value >= 0) {
		return fmt.Errorf("clip grad value: %w: got %v, want 0 and more", torch.ErrInvalidArgument, value)
	}
	return onGrads(ctx, "clip grad value", params, func(nodes []cgo.Node, mode cgo.Mode) error {
		return cgo.ClipGradValue(nodes, value, mode)
	})
}

func onGrads(ctx context.Context, op string, params []Param, f func(nodes []cgo.Node, mode cgo.Mode) error) error {
	tensors := make([]*torch.Tensor, len(params))
	for i, p := range params {
		if p.Tensor == nil {
			return fmt.Errorf("%s: %w: parameter %q: got a nil tensor", op, torch.ErrInvalidArgument, p.Name)
		}
		tensors[i] = p.Tensor
	}
	_, err := torch.Invoke(ctx, op, noGrad, []any{tensors}, func(nodes []cgo.Node, _ []byte, mode cgo.Mode, _ *cgo.Node) (cgo.Values, error) {
		return cgo.Values{}, f(nodes, mode)
	})
	return err
}
