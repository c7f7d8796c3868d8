package vit

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
)

// VisionTransformer is a ViT. Its methods mirror the Python class of scripts/models: B photos, N tokens
// of embed_dim D, H heads.
type VisionTransformer struct {
	*Model
}

// Load loads a model file whose task is classification, or any other that holds a ViT.
func Load(path string, o Options) (*VisionTransformer, error) {
	m, err := LoadModel(path, o)
	if err != nil {
		return nil, err
	}
	return &VisionTransformer{m}, nil
}

// Forward gives the logits (B, num_classes) of pixels (B, 3, H, W).
func (v *VisionTransformer) Forward(ctx context.Context, pixels *torch.Tensor) (*torch.Tensor, error) {
	return v.Tensor(ctx, "forward", pixels)
}

// ForwardFeatures gives the tokens after the final norm (B, N, D), prefix tokens first, and the last
// block's attention weights after the softmax (B, heads, N, N).
func (v *VisionTransformer) ForwardFeatures(ctx context.Context, pixels *torch.Tensor) (tokens, attention *torch.Tensor, err error) {
	return v.Pair(ctx, "forward_features", pixels)
}

// ForwardWithAttention gives the logits and the last block's attention (B, heads, N, N) from one pass.
func (v *VisionTransformer) ForwardWithAttention(ctx context.Context, pixels *torch.Tensor) (logits, attention *torch.Tensor, err error) {
	return v.Pair(ctx, "forward_with_attention", pixels)
}

// ForwardBlocks gives the tokens (B, N, D) that leave the named blocks, before the final norm: timm's
// forward_intermediates.
func (v *VisionTransformer) ForwardBlocks(ctx context.Context, pixels *torch.Tensor, blocks ...int) ([]*torch.Tensor, error) {
	out, err := v.Call(ctx, "forward_blocks", pixels, append([]int{}, blocks...))
	if err != nil {
		return nil, err
	}
	tokens, ok := out.([]*torch.Tensor)
	if !ok || len(tokens) != len(blocks) {
		torch.CloseAll(out)
		return nil, fmt.Errorf("forward_blocks: %w: got %T, want %d tensors", ErrOutput, out, len(blocks))
	}
	return tokens, nil
}

// Attention gives a block's attention weights after the softmax (B, heads, N, N). A negative block
// counts from the last.
func (v *VisionTransformer) Attention(ctx context.Context, pixels *torch.Tensor, block int) (*torch.Tensor, error) {
	return v.Tensor(ctx, "attention", pixels, block)
}

// Class is one answer of a classification.
type Class struct {
	// Index is the class's place among the logits.
	Index int `json:"index"`
	// Label is its name.
	Label string `json:"label"`
	// Score is its probability, 0 to 1: softmax over the logits in float32, or what output.activation says.
	Score float32 `json:"score"`
}

// Classify gives the k most probable classes of each photo, best first, equal scores by index. Photos
// whose tensors have one shape run as one batch.
func (v *VisionTransformer) Classify(ctx context.Context, k int, images ...transforms.Source) ([][]Class, error) {
	if err := v.Need("classify", TaskClassification); err != nil {
		return nil, err
	}
	if k < 1 {
		return nil, fmt.Errorf("classify: %w: got the %d best classes, want 1 or more", torch.ErrInvalidArgument, k)
	}
	inputs, err := v.Prepare(ctx, 0, images...)
	if err != nil {
		return nil, err
	}
	defer CloseInputs(inputs)
	answers := make([][]Class, len(images))
	for _, in := range inputs {
		classes, err := v.classify(ctx, in.Pixels, k)
		if err != nil {
			return nil, err
		}
		for i, index := range in.Index {
			answers[index] = classes[i]
		}
	}
	return answers, nil
}

// classify finds the logits in forward's answer: a tensor, or one in a tuple or dict.
func (v *VisionTransformer) classify(ctx context.Context, pixels *torch.Tensor, k int) ([][]Class, error) {
	answer, err := v.Call(ctx, "forward", pixels)
	if err != nil {
		return nil, err
	}
	defer torch.CloseAll(answer)
	_, leaves, err := v.Recognize(answer, pixels.Shape())
	if err != nil {
		return nil, fmt.Errorf("classify: %w", err)
	}
	logits, ok := leaves[0].Value.(*torch.Tensor)
	if !ok {
		return nil, fmt.Errorf("classify: %w: got %s for %s, want logits (B, num_classes)", ErrOutput, Form(leaves[0].Value), leaves[0].Name)
	}
	return v.TopK(ctx, logits, k)
}

// TopK gives the k most probable classes for logits (B, num_classes): softmax in float32, or what
// output.activation says, best first, equal scores by index.
func (v *VisionTransformer) TopK(ctx context.Context, logits *torch.Tensor, k int) ([][]Class, error) {
	shape := logits.Shape()
	if len(shape) != 2 || shape[1] < 1 {
		return nil, fmt.Errorf("top k: %w: got logits of %v, want (B, num_classes)", torch.ErrShape, shape)
	}
	scores, err := v.scores(ctx, logits)
	if err != nil {
		return nil, err
	}
	defer scores.Close()
	values, err := torch.CopyData[float32](scores)
	if err != nil {
		return nil, err
	}
	n := int(shape[1])
	answers := make([][]Class, shape[0])
	for b := range answers {
		row := values[b*n : (b+1)*n]
		for _, i := range Rank(row, k) {
			answers[b] = append(answers[b], Class{Index: i, Label: v.Label(i), Score: row[i]})
		}
	}
	return answers, nil
}

// scores makes float32 scores of logits.
func (v *VisionTransformer) scores(ctx context.Context, logits *torch.Tensor) (*torch.Tensor, error) {
	if a := v.meta.Output.Activation; a == "" || a == ActivationSoftmax {
		return torch.CallTensor(ctx, "aten::softmax", logits, -1, torch.Float32)
	}
	scores, err := logits.CastTo(torch.Float32)
	if err != nil || v.meta.Output.Activation == ActivationNone {
		return scores, err
	}
	defer scores.Close()
	return torch.CallTensor(ctx, "aten::sigmoid", scores)
}
