package train

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// tokens are those of a ViT that stays as it is.
type tokens struct {
	vit    *vit.VisionTransformer
	call   caller
	blocks []int
}

// caller is what a module offers for calls with options.
type caller interface {
	CallWith(ctx context.Context, o torch.CallOptions, args ...any) (any, error)
}

// newTokens loads the ViT of a head in a file of its own.
func newTokens(head *Model, path string) (*tokens, error) {
	if head.meta.Task != vit.TaskSegmentationHead {
		return nil, fmt.Errorf("%s: %w: got a file of the task %s, want a %s beside the ViT's", head.name, vit.ErrTask, head.meta.Task, vit.TaskSegmentationHead)
	}
	model, err := vit.Load(path, vit.Options{Device: head.device})
	if err != nil {
		return nil, err
	}
	t := &tokens{vit: model, blocks: head.meta.Input.Blocks}
	method := "forward_features"
	if len(t.blocks) > 0 {
		method = "forward_blocks"
	}
	module, ok := model.Runtime().(*jit.Module)
	if !ok || !module.HasMethod(method) {
		model.Close()
		return nil, fmt.Errorf("%s: %w: it has no method %s; `scripts/export.py` makes a file that has", path, vit.ErrNoMethod, method)
	}
	if t.call, err = module.Method(method); err != nil {
		model.Close()
		return nil, err
	}
	return t, nil
}

func (t *tokens) spec() transforms.Spec { return t.vit.Metadata().Preprocess }

func (t *tokens) of(ctx context.Context, scope *torch.Scope, pixels *torch.Tensor) ([]any, error) {
	args := []any{pixels}
	if len(t.blocks) > 0 {
		args = append(args, t.blocks)
	}
	// Not in inference mode: the head's graph keeps the tokens.
	answer, err := t.call.CallWith(ctx, torch.CallOptions{Mode: torch.NoGrad}, args...)
	if err != nil {
		return nil, err
	}
	scope.Track(answer)
	shape := pixels.Shape()
	if len(t.blocks) > 0 {
		return []any{answer, shape[2], shape[3]}, nil
	}
	pair, _ := answer.(torch.Tuple)
	if len(pair) == 0 {
		return nil, fmt.Errorf("forward_features: %w: got %T, want a tuple that begins with the tokens", vit.ErrOutput, answer)
	}
	return []any{pair[0], shape[2], shape[3]}, nil
}
