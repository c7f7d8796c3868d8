package det

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// FasterRCNN is a scripted torchvision Faster R-CNN, here over the features of a ViT. It takes photos in
// their own sizes; it resizes and normalises inside.
//
// Scripted torchvision detectors differ from the eager Python model for about half of all image sizes,
// because TorchScript computes the resize factor in float32. The parity that this package keeps is
// with Python's torch.jit.load of the same file.
type FasterRCNN struct {
	*vit.Model
}

// Load loads a model file whose task is detection.
func Load(path string, o vit.Options) (*FasterRCNN, error) {
	m, err := vit.LoadModel(path, o)
	if err != nil {
		return nil, err
	}
	if err := m.Need("detect", vit.TaskDetection); err != nil {
		m.Close()
		return nil, err
	}
	return &FasterRCNN{m}, nil
}

// Output is a detector's answer for one photo, best score first. The caller closes it.
type Output struct {
	// Boxes is (N, 4) float32: xyxy in pixels of the tensor that went in.
	Boxes *torch.Tensor
	// Labels is (N) int64: indices into the file's labels.
	Labels *torch.Tensor
	// Scores is (N) float32, 0 to 1.
	Scores *torch.Tensor
}

// Close closes the tensors. It always returns nil.
func (o *Output) Close() error {
	if o != nil {
		torch.CloseAll(o.Boxes, o.Labels, o.Scores)
	}
	return nil
}

// Forward runs the detector on photos (3, H, W) of any sizes, RGB floats of 0 to 1, in one pass.
func (d *FasterRCNN) Forward(ctx context.Context, images []*torch.Tensor) ([]*Output, error) {
	v, err := d.Call(ctx, "forward", images)
	if err != nil {
		return nil, err
	}
	outputs, err := parseOutputs(v, len(images))
	if err != nil {
		torch.CloseAll(v)
		return nil, err
	}
	pair, _ := v.(torch.Tuple)
	torch.CloseAll(pair[0]) // the losses, which inference leaves empty
	return outputs, nil
}

// parseOutputs reads (losses, detections), what scripted torchvision detectors give.
func parseOutputs(v any, n int) ([]*Output, error) {
	fail := func(got any) error {
		return fmt.Errorf("detect: %w: got %T, want a tuple of losses and %d dicts of boxes, labels and scores", vit.ErrOutput, got, n)
	}
	pair, ok := v.(torch.Tuple)
	if !ok || len(pair) != 2 {
		return nil, fail(v)
	}
	found, ok := pair[1].(torch.List)
	if !ok || len(found) != n {
		return nil, fail(pair[1])
	}
	outputs := make([]*Output, n)
	for i, f := range found {
		dict, _ := f.(map[string]any)
		o := &Output{}
		for name, place := range map[string]**torch.Tensor{"boxes": &o.Boxes, "labels": &o.Labels, "scores": &o.Scores} {
			t, ok := dict[name].(*torch.Tensor)
			if !ok {
				return nil, fail(f)
			}
			*place = t
		}
		outputs[i] = o
	}
	return outputs, nil
}

// DetectOptions filter detections. The zero value takes the file's threshold, else 0.5.
type DetectOptions struct {
	// Threshold drops detections with a lower score: 0 to 1. Below 0 nothing is dropped.
	Threshold float32
}

// Detect finds objects in each photo: boxes in the photo's own pixels, best score first. All photos run
// in one pass.
func (d *FasterRCNN) Detect(ctx context.Context, o DetectOptions, images ...transforms.Source) ([][]Detection, error) {
	inputs, err := d.Prepare(ctx, 1, images...)
	if err != nil {
		return nil, err
	}
	defer vit.CloseInputs(inputs)
	var scope torch.Scope
	defer scope.Close()
	pixels := make([]*torch.Tensor, len(images))
	geometry := make([]transforms.Geometry, len(images))
	for _, in := range inputs {
		photo, err := torch.Own(&scope)(torch.CallTensor(ctx, "aten::select.int", in.Pixels, 0, 0))
		if err != nil {
			return nil, err
		}
		pixels[in.Index[0]], geometry[in.Index[0]] = photo, in.Geometry[0]
	}
	outputs, err := d.Forward(ctx, pixels)
	if err != nil {
		return nil, err
	}
	threshold := o.Threshold
	if threshold == 0 {
		threshold = 0.5
		if t := d.Metadata().Thresholds; t != nil && t.Score != nil {
			threshold = float32(*t.Score)
		}
	}
	answers := make([][]Detection, len(images))
	for i, out := range outputs {
		if answers[i], err = d.detections(out, geometry[i], threshold); err != nil {
			break
		}
	}
	for _, out := range outputs {
		out.Close()
	}
	return answers, err
}

func (d *FasterRCNN) detections(out *Output, g transforms.Geometry, threshold float32) ([]Detection, error) {
	boxes, err := floats(out.Boxes)
	if err != nil {
		return nil, err
	}
	scores, err := floats(out.Scores)
	if err != nil {
		return nil, err
	}
	labels, err := torch.CopyData[int64](out.Labels)
	if err != nil {
		return nil, err
	}
	if len(boxes) != 4*len(scores) || len(labels) != len(scores) {
		return nil, fmt.Errorf("detect: %w: got %d box sides, %d labels and %d scores, want 4 to 1 to 1", vit.ErrOutput, len(boxes), len(labels), len(scores))
	}
	var found []Detection
	for i, score := range scores {
		if score < threshold {
			continue
		}
		b := Box{boxes[4*i], boxes[4*i+1], boxes[4*i+2], boxes[4*i+3]}
		b.X1, b.Y1 = g.ToPhoto(b.X1, b.Y1)
		b.X2, b.Y2 = g.ToPhoto(b.X2, b.Y2)
		found = append(found, Detection{Box: b, Label: d.Label(int(labels[i])), LabelID: int(labels[i]), Score: score})
	}
	return found, nil
}

// floats copies a floating tensor's elements as float32.
func floats(t *torch.Tensor) ([]float32, error) {
	f, err := t.CastTo(torch.Float32)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return torch.CopyData[float32](f)
}
