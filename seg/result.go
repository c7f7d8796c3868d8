package seg

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// DefaultThreshold is the probability above which a pixel of a binary mask counts, where neither the options
// nor the file (thresholds.mask) give one.
const DefaultThreshold = 0.5

// Segmentation is the answer for one photo, at its own size. The caller closes it.
type Segmentation struct {
	// ClassMap is the class of every pixel: the first of the highest logits; for a model of one channel 1
	// where sigmoid(logit) > threshold, else 0.
	*ClassMap
	// Logits is (C, H, W) float32 where they were asked for, else nil.
	Logits *torch.Tensor
	// Probabilities is (C, H, W) float32, 0 to 1, where they were asked for: softmax over the classes, or
	// sigmoid for a model of one channel; with augmentation the mean of the views.
	Probabilities *torch.Tensor
}

// Close closes the tensors. It always returns nil.
func (s *Segmentation) Close() error {
	if s != nil {
		torch.CloseAll(s.Logits, s.Probabilities)
	}
	return nil
}

// CloseAll closes segmentations.
func CloseAll(answers []*Segmentation) {
	for _, a := range answers {
		a.Close()
	}
}

// ClassMaps turns a model's output into class maps at the photos' own sizes.
//
// Logits (B, C, h, w) of any size are resized bilinearly in float32 (align_corners False, no antialias), then
// argmax, as Hugging Face's post_process_semantic_segmentation; a single channel is a binary mask,
// sigmoid > DefaultThreshold. Whole numbers (B, h, w) or (B, 1, h, w) of 0 to 255 are classes already, and are
// resized with F.interpolate's nearest where their size is another.
//
// Where the preprocess padded the photo (a letterbox), logits are first resized to the padded size, and the
// padding is cut off, as mmsegmentation does. The errors are [vit.ErrOutput] for an output of another kind
// or with more than 256 classes, and torch.ErrUnsupported where the preprocess cropped parts of the photo off.
func ClassMaps(ctx context.Context, output *torch.Tensor, geometry []transforms.Geometry) ([]*ClassMap, error) {
	answers, err := results{threshold: DefaultThreshold}.of(ctx, output, geometry)
	if err != nil {
		return nil, err
	}
	maps := make([]*ClassMap, len(answers))
	for i, a := range answers {
		maps[i] = a.ClassMap
	}
	return maps, nil
}

// results says what is made of a model's output.
type results struct {
	threshold             float64
	logits, probabilities bool
}

// of gives the answers for a batch.
func (r results) of(ctx context.Context, output *torch.Tensor, geometry []transforms.Geometry) (answers []*Segmentation, err error) {
	kind, err := kindOf(output, len(geometry))
	if err != nil {
		return nil, err
	}
	answers = make([]*Segmentation, len(geometry))
	defer func() {
		if err != nil {
			CloseAll(answers)
			answers = nil
		}
	}()
	for b, g := range geometry {
		if answers[b], err = r.one(ctx, output, kind, b, g); err != nil {
			return answers, err
		}
	}
	return answers, nil
}

func (r results) one(ctx context.Context, output *torch.Tensor, kind string, b int, g transforms.Geometry) (*Segmentation, error) {
	c := newChain(ctx)
	defer c.Close()
	// logits[b].unsqueeze(0), whose strides are what tells the kernels the layout of channels_last logits.
	photo := c.Call("aten::unsqueeze", c.Call("aten::select.int", output, 0, b), 0)
	if kind == vit.OutputClassMap {
		return r.ofClasses(c, photo, g)
	}
	return r.ofLogits(c, c.toPhoto(c.Cast(photo, torch.Float32), g))
}

// kindOf checks the form of a model's output for n photos: logits or classes.
func kindOf(t *torch.Tensor, n int) (kind string, err error) {
	shape, dtype := t.Shape(), t.DType()
	batch := len(shape) > 0 && shape[0] == int64(n)
	switch {
	case batch && !dtype.IsFloatingPoint() && (len(shape) == 3 || len(shape) == 4 && shape[1] == 1):
		return vit.OutputClassMap, nil
	case batch && dtype.IsFloatingPoint() && len(shape) == 4 && shape[1] >= 1 && shape[1] <= 256:
		return vit.OutputSegmentationLogits, nil
	case batch && dtype.IsFloatingPoint() && len(shape) == 4 && shape[1] > 256:
		return "", fmt.Errorf("class map: %w: got %d classes, want at most 256: a class map holds uint8; run the model with Forward and use the logits", vit.ErrOutput, shape[1])
	}
	return "", fmt.Errorf("class map: %w: got a tensor of %s %v, want logits (%d, C, h, w) of floats, or classes (%d, h, w) or (%d, 1, h, w) of integers", vit.ErrOutput, dtype, shape, n, n, n)
}

// toPhoto takes logits (1, C, h, w) of what the model saw to the photo's size.
func (c *chain) toPhoto(t *torch.Tensor, g transforms.Geometry) *torch.Tensor {
	if c.visible(g); c.Err != nil {
		return nil
	}
	if !g.Whole() {
		if h, w := size(t); h != g.OutputHeight || w != g.OutputWidth {
			t = c.bilinear(t, g.OutputHeight, g.OutputWidth)
		}
		x0, y0, x1, y1 := g.Visible()
		t = c.window(t, y0, y1, x0, x1)
	}
	return c.bilinear(t, g.Height, g.Width)
}

// visible refuses a preprocess that hides parts of the photo.
func (c *chain) visible(g transforms.Geometry) {
	x0, y0, x1, y1 := g.Visible()
	if c.Err == nil && (x1-x0 != g.ResizedWidth || y1-y0 != g.ResizedHeight) {
		c.Err = fmt.Errorf("class map: %w: the preprocess crops %d x %d pixels out of %d x %d, so that the model does not see the rest; want preprocess.crop.rule none, which seg.WholePhoto makes of the metadata",
			torch.ErrUnsupported, g.OutputWidth, g.OutputHeight, g.ResizedWidth, g.ResizedHeight)
	}
}

// ofClasses is the answer for classes (1, h, w) or (1, 1, h, w).
func (r results) ofClasses(c *chain, t *torch.Tensor, g transforms.Geometry) (*Segmentation, error) {
	if c.visible(g); c.Err != nil {
		return nil, c.Err
	}
	if r.logits || r.probabilities {
		return nil, fmt.Errorf("segment: %w: the model gives classes, so there are no logits or probabilities", vit.ErrOutput)
	}
	h, w := size(t)
	t = c.Call("aten::reshape", t, []int{1, 1, h, w})
	if t = c.Cast(t, torch.Int64); c.Err != nil {
		return nil, c.Err
	}
	for _, limit := range []string{"aten::min", "aten::max"} {
		v, err := c.item(c.Call(limit, t))
		if err != nil {
			return nil, err
		}
		if v < 0 || v > 255 {
			return nil, fmt.Errorf("class map: %w: got class %d, want 0 to 255: a class map holds uint8", vit.ErrOutput, v)
		}
	}
	t = c.Cast(t, torch.Uint8)
	if !g.Whole() {
		if h != g.OutputHeight || w != g.OutputWidth {
			t = c.nearest(t, g.OutputHeight, g.OutputWidth)
		}
		x0, y0, x1, y1 := g.Visible()
		t = c.window(t, y0, y1, x0, x1)
		h, w = y1-y0, x1-x0
	}
	if h != g.Height || w != g.Width {
		t = c.nearest(t, g.Height, g.Width)
	}
	m, err := c.classMap(t)
	if err != nil {
		return nil, err
	}
	return &Segmentation{ClassMap: m}, nil
}

func (c *chain) item(t *torch.Tensor) (int64, error) {
	if c.Err != nil {
		return 0, c.Err
	}
	v, err := t.Item()
	if err != nil {
		return 0, err
	}
	i, _ := v.(int64)
	return i, nil
}

// ofLogits is the answer for logits (1, C, H, W) at the photo's size.
func (r results) ofLogits(c *chain, logits *torch.Tensor) (*Segmentation, error) {
	if c.Err != nil {
		return nil, c.Err
	}
	binary := logits.Shape()[1] == 1
	var probabilities, classes *torch.Tensor
	if binary || r.probabilities {
		probabilities = c.probabilities(logits)
	}
	if binary {
		classes = c.Call("aten::gt.Scalar", probabilities, r.threshold)
	} else {
		classes = c.argmax(logits)
	}
	return r.answer(c, classes, logits, probabilities)
}

// ofProbabilities is the answer for probabilities (1, C, H, W) at the photo's size.
func (r results) ofProbabilities(c *chain, probabilities *torch.Tensor) (*Segmentation, error) {
	if c.Err != nil {
		return nil, c.Err
	}
	var classes *torch.Tensor
	if probabilities.Shape()[1] == 1 {
		classes = c.Call("aten::gt.Scalar", probabilities, r.threshold)
	} else {
		classes = c.argmax(probabilities)
	}
	return r.answer(c, classes, nil, probabilities)
}

func (r results) answer(c *chain, classes, logits, probabilities *torch.Tensor) (*Segmentation, error) {
	m, err := c.classMap(c.Cast(classes, torch.Uint8))
	if err != nil {
		return nil, err
	}
	s := &Segmentation{ClassMap: m}
	if r.logits {
		s.Logits = c.Keep(c.Call("aten::select.int", logits, 0, 0))
	}
	if r.probabilities {
		s.Probabilities = c.Keep(c.Call("aten::select.int", probabilities, 0, 0))
	}
	if c.Err != nil {
		s.Close()
		return nil, c.Err
	}
	return s, nil
}

// probabilities are those of logits (1, C, H, W).
func (c *chain) probabilities(logits *torch.Tensor) *torch.Tensor {
	if c.Err != nil {
		return nil
	}
	if logits.Shape()[1] == 1 {
		return c.Lane("aten::sigmoid", logits)
	}
	return c.Lane("aten::softmax.int", logits, 1, nil)
}

// argmax is torch.argmax over the classes of (1, C, H, W), the first of the highest. The indices of max are
// the same, in a third of the time.
func (c *chain) argmax(t *torch.Tensor) *torch.Tensor {
	_, indices := c.Pair("aten::max.dim", t, 1, false)
	return indices
}

// classMap reads classes (..., H, W) of uint8.
func (c *chain) classMap(t *torch.Tensor) (*ClassMap, error) {
	if c.Err != nil {
		return nil, c.Err
	}
	h, w := size(t)
	classes, err := torch.CopyData[uint8](t)
	if err != nil {
		return nil, err
	}
	return NewClassMap(w, h, classes)
}

// pick takes the tensor that counts out of a model's answer to an input of that shape and closes the others.
func pick(m *vit.Model, answer any, input []int64) (*torch.Tensor, error) {
	_, leaves, err := m.Recognize(answer, input)
	if err != nil {
		torch.CloseAll(answer)
		return nil, err
	}
	found, _ := leaves[0].Value.(*torch.Tensor)
	torch.Tensors(answer, func(t *torch.Tensor) {
		if t != found {
			t.Close()
		}
	})
	if found == nil {
		return nil, fmt.Errorf("segment: %w: got %s for %s, want a tensor of logits", vit.ErrOutput, vit.Form(leaves[0].Value), leaves[0].Name)
	}
	return found, nil
}
