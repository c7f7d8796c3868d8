package det

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/torchvit/torchvit/internal/sequence"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/loss"
)

// ErrNotTrainable: the model gives no losses that could train it.
var ErrNotTrainable = errors.New("cannot be trained")

// Target is what one image shows.
type Target struct {
	// Boxes (n, 4) of floats, xyxy in pixels of the image, and Labels (n) of int64. torchvision's detectors have
	// label 0 for the background.
	Boxes, Labels *torch.Tensor
	// Masks (n, H, W) of uint8, which Mask R-CNN needs; nil for the others.
	Masks *torch.Tensor
}

// Forward is a model's method forward, such as a *jit.Method of a module in training mode.
type Forward interface {
	CallWith(ctx context.Context, o torch.CallOptions, args ...any) (any, error)
}

// TrainingLosses runs a scripted detector of torchvision in training mode, forward(images, targets) -> (losses,
// detections), on images (3, H, W) of 0 to 1, and gives its losses by name: Faster R-CNN's loss_classifier,
// loss_box_reg, loss_objectness and loss_rpn_box_reg, Mask R-CNN's also loss_mask, RetinaNet's classification and
// bbox_regression. Their sum is what Python trains with; the samplers take torch's random numbers. The losses
// record gradients, and the caller closes them. autocast is the dtype of torch.autocast, InvalidDType for none.
//
// ErrNotTrainable: the file takes no targets (a trace), gives no losses (frozen, or in evaluation mode), or none of
// its parameters requires a gradient. Boxes and labels are checked as GridLoss checks them; boxes without an area
// are an error of torchvision's, torch.ErrScript.
func TrainingLosses(ctx context.Context, forward Forward, images []*torch.Tensor, targets []Target, autocast torch.DType) (map[string]*torch.Tensor, error) {
	losses, err := trainingLosses(ctx, forward, images, targets, autocast)
	if err != nil {
		return nil, fmt.Errorf("training losses: %w", err)
	}
	return losses, nil
}

func trainingLosses(ctx context.Context, forward Forward, images []*torch.Tensor, targets []Target, autocast torch.DType) (map[string]*torch.Tensor, error) {
	if len(images) == 0 || len(images) != len(targets) {
		return nil, fmt.Errorf("%w: got %d images and %d targets, want as many, one or more", torch.ErrShape, len(images), len(targets))
	}
	c := &sequence.Calls{Ctx: ctx, Mode: torch.NoGrad}
	defer c.Close()
	list := make([]map[string]*torch.Tensor, len(targets))
	inputs := make([]*torch.Tensor, len(images))
	for i, t := range targets {
		if shape := images[i].Shape(); len(shape) != 3 || shape[0] != 3 || !images[i].DType().IsFloatingPoint() {
			return nil, fmt.Errorf("image %d: %w: got %s of %v, want floats of (3, H, W)", i, torch.ErrShape, images[i].DType(), shape)
		}
		_, ids, err := boxesOf(t.Boxes, t.Labels)
		if err != nil {
			return nil, fmt.Errorf("image %d: %w", i, err)
		}
		if len(ids) > 0 && slices.Min(ids) < 0 {
			return nil, fmt.Errorf("image %d: %w: got the label %d, want 0 or more", i, loss.ErrClass, slices.Min(ids))
		}
		list[i] = map[string]*torch.Tensor{"boxes": normal(c, t.Boxes), "labels": normal(c, t.Labels)}
		if t.Masks != nil {
			want := []int64{int64(len(ids)), images[i].Size(1), images[i].Size(2)}
			if got := t.Masks.Shape(); !slices.Equal(got, want) || t.Masks.DType() != torch.Uint8 {
				return nil, fmt.Errorf("image %d: %w: got masks of %s %v, want uint8 %v", i, torch.ErrShape, t.Masks.DType(), got, want)
			}
			list[i]["masks"] = normal(c, t.Masks)
		}
		inputs[i] = normal(c, images[i])
	}
	if c.Err != nil {
		return nil, c.Err
	}
	answer, err := forward.CallWith(ctx, torch.CallOptions{Mode: torch.Grad, Autocast: autocast}, inputs, list)
	if err != nil {
		if errors.Is(err, torch.ErrInvalidArgument) || strings.Contains(err.Error(), "Unknown keyword argument") {
			return nil, fmt.Errorf("%w: want forward(images, targets), which a traced file has not: %w", ErrNotTrainable, err)
		}
		return nil, err
	}
	var losses map[string]any
	pair, _ := answer.(torch.Tuple)
	if len(pair) == 2 {
		losses, _ = pair[0].(map[string]any)
	}
	fail := func(format string, args ...any) (map[string]*torch.Tensor, error) {
		torch.CloseAll(answer)
		return nil, fmt.Errorf("%w: %s", ErrNotTrainable, fmt.Sprintf(format, args...))
	}
	if len(losses) == 0 {
		return fail("got no losses, want a file that is scripted, not frozen, and in training mode")
	}
	trained := false
	out := map[string]*torch.Tensor{}
	for _, name := range slices.Sorted(maps.Keys(losses)) {
		t, ok := losses[name].(*torch.Tensor)
		if !ok || t.NumEl() != 1 {
			return fail("got the loss %s as %T, want one number", name, losses[name])
		}
		trained = trained || t.RequiresGrad()
		out[name] = t
	}
	if !trained {
		return fail("got losses without gradients, want parameters that require them")
	}
	torch.CloseAll(pair[1])
	return out, nil
}

// normal is a tensor that autograd may keep: one of inference mode is copied.
func normal(c *sequence.Calls, t *torch.Tensor) *torch.Tensor {
	if !t.IsInference() {
		return t
	}
	return c.Call("aten::clone", t)
}
