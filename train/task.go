package train

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/det"
	"github.com/torchvit/torchvit/loader"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/loss"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// Task is what a model learns.
type Task interface {
	// Targets are what a batch must hold, and whether its images come as a list.
	Targets() (targets loader.Targets, list bool)
	// Loss runs the model on a batch in training mode and gives the loss, whose Total the caller closes.
	Loss(ctx context.Context, m *Model, b *loader.Batch) (*Loss, error)
	// Evaluate measures the model's present weights on data, as `torchvit eval` does, and gives the metric that
	// counts first; more is better. done, if not nil, is told how many images are done.
	Evaluate(ctx context.Context, m *Model, d *Data, done func(images int)) ([]Metric, error)
}

// Loss is what a model is trained to make small.
type Loss struct {
	// Total has no dimensions and records gradients.
	Total *torch.Tensor
	// Parts are what Total is the sum of, where that is more than one number.
	Parts []Part
}

// Part is a part of a loss.
type Part struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
}

// TaskOptions are those of the losses; see [Options].
type TaskOptions struct {
	LabelSmoothing float64
	Dice           float64
}

// TaskOf is the task of a model by its metadata: classification, segmentation, and detection with torchvision's
// scripted detectors or a YOLO grid. Other kinds of output have no loss here: vit.ErrTask.
func TaskOf(m *Model, o TaskOptions) (Task, error) {
	meta := &m.meta
	switch {
	case meta.Task == vit.TaskClassification:
		if meta.Output.Activation != "" && meta.Output.Activation != vit.ActivationSoftmax {
			return nil, fmt.Errorf("%s: %w: got classes with the activation %s, want softmax: one class for each image", m.name, vit.ErrTask, meta.Output.Activation)
		}
		return classification{o}, nil
	case meta.Task == vit.TaskSegmentation && meta.Output.Kind != vit.OutputClassMap:
		return segmentation{o: o}, nil
	case meta.Task == vit.TaskDetection && meta.Output.Kind == vit.OutputYOLOGrid:
		return grid{meta.Output.Anchors}, nil
	case meta.Task == vit.TaskDetection && (meta.Output.Kind == vit.OutputDetections || meta.Output.Kind == ""):
		masks := slices.ContainsFunc(m.parameters, func(p Parameter) bool { return strings.Contains(p.Name, "mask_predictor.") })
		return detection{masks}, nil
	}
	kind := meta.Output.Kind
	if kind == "" {
		kind = "unknown"
	}
	return nil, fmt.Errorf("%s: %w: a file of the task %s with the output %s is not trained here, want classification, segmentation with logits, torchvision's scripted detectors or %s",
		m.name, vit.ErrTask, meta.Task, kind, vit.OutputYOLOGrid)
}

// pixels brings a batch's images to the model's device.
func (m *Model) pixels(t *torch.Tensor, own func(*torch.Tensor, error) (*torch.Tensor, error)) (*torch.Tensor, error) {
	if !m.device.IsCUDA() || t == nil {
		return t, nil
	}
	return own(t.ToNonBlocking(m.device))
}

// logits picks the tensor that counts of forward's answer, in float32: losses of bfloat16 lose too much.
func (m *Model) logits(ctx context.Context, scope *torch.Scope, answer any) (*torch.Tensor, error) {
	scope.Track(answer)
	t, ok := answer.(*torch.Tensor)
	if !ok {
		leaves := vit.Outputs(answer)
		names := m.meta.Output.Leaves
		for _, leaf := range leaves {
			if x, is := leaf.Value.(*torch.Tensor); is && x.DType().IsFloatingPoint() && (len(names) == 0 || names[0] == leaf.Name) {
				t = x
				break
			}
		}
		if t == nil {
			return nil, fmt.Errorf("forward: %w: got %T, want a tensor of logits", vit.ErrOutput, answer)
		}
	}
	if t.DType() == torch.Float32 {
		return t, nil
	}
	return torch.Own(scope)(record(ctx, "aten::to.dtype", t, torch.Float32))
}

// record runs an operator with gradients.
func record(ctx context.Context, name string, args ...any) (*torch.Tensor, error) {
	v, err := torch.CallWith(ctx, torch.CallOptions{Mode: torch.Grad}, name, args...)
	if err != nil {
		return nil, err
	}
	t, ok := v.(*torch.Tensor)
	if !ok {
		torch.CloseAll(v)
		return nil, fmt.Errorf("%s: %w: got %T, want one tensor", name, torch.ErrValue, v)
	}
	return t, nil
}

// Value reads the number in a loss.
func value(t *torch.Tensor) (float64, error) {
	v, err := t.Item()
	if err != nil {
		return 0, err
	}
	f, ok := v.(float64)
	if !ok {
		return 0, fmt.Errorf("loss: %w: got %T, want a float", torch.ErrValue, v)
	}
	return f, nil
}

// classification learns one class for each image.
type classification struct{ o TaskOptions }

func (classification) Targets() (loader.Targets, bool) { return loader.Classes, false }

func (c classification) Loss(ctx context.Context, m *Model, b *loader.Batch) (*Loss, error) {
	var scope torch.Scope
	defer scope.Close()
	own := torch.Own(&scope)
	x, err := m.pixels(b.Images, own)
	if err != nil {
		return nil, err
	}
	classes, err := m.pixels(b.Classes, own)
	if err != nil {
		return nil, err
	}
	answer, err := m.Forward(ctx, x)
	if err != nil {
		return nil, err
	}
	logits, err := m.logits(ctx, &scope, answer)
	if err != nil {
		return nil, err
	}
	total, err := loss.CrossEntropy(ctx, logits, classes, loss.CrossEntropyOptions{LabelSmoothing: c.o.LabelSmoothing})
	if err != nil {
		return nil, err
	}
	return &Loss{Total: total}, nil
}

// segmentation learns a class for each pixel: cross-entropy, and Dice where it is asked for; for one output, a
// binary mask, binary cross-entropy. features, if not nil, is the frozen ViT of a head in a file of its own.
type segmentation struct {
	o        TaskOptions
	features features
}

func (segmentation) Targets() (loader.Targets, bool) { return loader.Masks, false }

func (s segmentation) Loss(ctx context.Context, m *Model, b *loader.Batch) (*Loss, error) {
	var scope torch.Scope
	defer scope.Close()
	own := torch.Own(&scope)
	x, err := m.pixels(b.Images, own)
	if err != nil {
		return nil, err
	}
	masks, err := m.pixels(b.Masks, own)
	if err != nil {
		return nil, err
	}
	args := []any{x}
	if s.features != nil {
		if args, err = s.features.of(ctx, &scope, x); err != nil {
			return nil, err
		}
	}
	answer, err := m.Forward(ctx, args...)
	if err != nil {
		return nil, err
	}
	logits, err := m.logits(ctx, &scope, answer)
	if err != nil {
		return nil, err
	}
	got, want := logits.Shape(), masks.Shape()
	if len(got) != 4 {
		return nil, fmt.Errorf("forward: %w: got logits of %v, want (B, classes, h, w)", vit.ErrOutput, got)
	}
	if !slices.Equal(got[2:], want[1:]) {
		if logits, err = own(record(ctx, "aten::upsample_bilinear2d.vec", logits, want[1:], false, nil)); err != nil {
			return nil, err
		}
	}
	if got[1] == 1 {
		if s.o.Dice > 0 || s.o.LabelSmoothing > 0 {
			return nil, fmt.Errorf("dice, label smoothing: %w: got a binary mask, which is learned with binary cross-entropy alone", ErrOptions)
		}
		total, err := binary(ctx, &scope, logits, masks)
		return &Loss{Total: total}, err
	}
	ignore := int64(dataset.Ignored)
	cross, err := loss.CrossEntropy(ctx, logits, masks, loss.CrossEntropyOptions{IgnoreIndex: &ignore, LabelSmoothing: s.o.LabelSmoothing})
	if err != nil {
		return nil, err
	}
	ce, err := value(cross)
	if err == nil && ce != ce { // the mean of no pixels
		cross.Close()
		ce = 0
		cross, err = loss.CrossEntropy(ctx, logits, masks, loss.CrossEntropyOptions{
			IgnoreIndex: &ignore, LabelSmoothing: s.o.LabelSmoothing, Reduction: loss.ReductionSum,
		})
	}
	if err != nil || s.o.Dice == 0 {
		return &Loss{Total: cross}, err
	}
	scope.Track(cross)
	dice, err := own(loss.Dice(ctx, logits, masks, loss.DiceOptions{IgnoreIndex: &ignore}))
	if err != nil {
		return nil, err
	}
	total, err := loss.Sum(ctx, loss.Term{Loss: cross, Weight: 1}, loss.Term{Loss: dice, Weight: s.o.Dice})
	if err != nil {
		return nil, err
	}
	d, err := value(dice)
	return &Loss{Total: total, Parts: []Part{{"cross_entropy", ce}, {"dice", d}}}, err
}

// binary is the binary cross-entropy of logits (B, 1, H, W) and masks (B, H, W) of 0 and 1, where pixels count.
func binary(ctx context.Context, scope *torch.Scope, logits, masks *torch.Tensor) (*torch.Tensor, error) {
	own := torch.Own(scope)
	flat, err := own(record(ctx, "aten::squeeze.dim", logits, 1))
	if err != nil {
		return nil, err
	}
	counts, err := own(record(ctx, "aten::ne.Scalar", masks, int64(dataset.Ignored)))
	if err != nil {
		return nil, err
	}
	truth, err := own(record(ctx, "aten::eq.Scalar", masks, 1))
	if err != nil {
		return nil, err
	}
	weight, err := own(counts.CastTo(torch.Float32))
	if err != nil {
		return nil, err
	}
	sum, err := own(loss.BCEWithLogits(ctx, flat, truth, loss.BCEWithLogitsOptions{Weight: weight, Reduction: loss.ReductionSum}))
	if err != nil {
		return nil, err
	}
	n, err := own(weight.Sum())
	if err != nil {
		return nil, err
	}
	pixels, err := value(n)
	if err != nil {
		return nil, err
	}
	return loss.Sum(ctx, loss.Term{Loss: sum, Weight: 1 / max(pixels, 1)})
}

// detection learns with the losses that torchvision's scripted detectors give in training mode; with masks for a
// Mask R-CNN.
type detection struct{ masks bool }

func (d detection) Targets() (loader.Targets, bool) {
	if d.masks {
		return loader.Boxes | loader.InstanceMasks, true
	}
	return loader.Boxes, true
}

func (d detection) Loss(ctx context.Context, m *Model, b *loader.Batch) (*Loss, error) {
	var scope torch.Scope
	defer scope.Close()
	own := torch.Own(&scope)
	images := make([]*torch.Tensor, len(b.List))
	targets := make([]det.Target, len(b.List))
	for i := range b.List {
		var err error
		if images[i], err = m.pixels(b.List[i], own); err != nil {
			return nil, err
		}
		if targets[i].Boxes, err = m.pixels(b.Boxes[i], own); err != nil {
			return nil, err
		}
		if targets[i].Labels, err = m.pixels(b.Labels[i], own); err != nil {
			return nil, err
		}
		if d.masks {
			if targets[i].Masks, err = m.pixels(b.InstanceMasks[i], own); err != nil {
				return nil, err
			}
		}
	}
	losses, err := det.TrainingLosses(ctx, m.forward, images, targets, m.precision)
	if err != nil {
		return nil, err
	}
	out := &Loss{}
	var terms []loss.Term
	for _, name := range slices.Sorted(maps.Keys(losses)) {
		t := losses[name]
		scope.Track(t)
		v, err := value(t)
		if err != nil {
			return nil, err
		}
		terms = append(terms, loss.Term{Loss: t, Weight: 1})
		out.Parts = append(out.Parts, Part{name, v})
	}
	out.Total, err = loss.Sum(ctx, terms...)
	return out, err
}

// grid learns a YOLO grid.
type grid struct{ anchors [][][2]float64 }

func (grid) Targets() (loader.Targets, bool) { return loader.Boxes, false }

func (g grid) Loss(ctx context.Context, m *Model, b *loader.Batch) (*Loss, error) {
	var scope torch.Scope
	defer scope.Close()
	x, err := m.pixels(b.Images, torch.Own(&scope))
	if err != nil {
		return nil, err
	}
	answer, err := m.Forward(ctx, x)
	if err != nil {
		return nil, err
	}
	scope.Track(answer)
	var levels []*torch.Tensor
	torch.Tensors(answer, func(t *torch.Tensor) { levels = append(levels, t) })
	shape := x.Shape()
	total, parts, err := det.GridLoss(ctx, levels, b.Boxes, b.Labels, det.GridLossOptions{
		Anchors: g.anchors, Height: int(shape[2]), Width: int(shape[3]),
	})
	if err != nil {
		return nil, err
	}
	out := &Loss{Total: total}
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		scope.Track(parts[name])
		v, err := value(parts[name])
		if err != nil {
			total.Close()
			return nil, err
		}
		out.Parts = append(out.Parts, Part{name, v})
	}
	return out, nil
}

// features are what a segmentation head in a file of its own takes.
type features interface {
	// of gives the arguments of the head's forward for pixels.
	of(ctx context.Context, scope *torch.Scope, pixels *torch.Tensor) ([]any, error)
	// spec is how photos become pixels.
	spec() transforms.Spec
}
