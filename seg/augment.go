package seg

import (
	"cmp"
	"context"
	"fmt"
	"math"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// AugmentScales are mmsegmentation's and Segmenter's scales of test-time augmentation.
func AugmentScales() []float64 { return []float64{0.5, 0.75, 1, 1.25, 1.5, 1.75} }

// SegmentOptions say how photos are segmented. The zero value gives what Segment gives.
type SegmentOptions struct {
	// MaxBatch is how many photos of one size run at once; 0 does not limit them. With Slide, Scales or Flip
	// photos run one by one.
	MaxBatch int
	// Threshold, 0 to 1, is for models of one channel; nil is the file's thresholds.mask, else
	// DefaultThreshold. A pixel counts above it.
	Threshold *float64
	// Logits and Probabilities keep those tensors at the photo's size.
	Logits, Probabilities bool
	// Slide sees the photo through windows; nil shows the model the whole photo.
	Slide *Slide
	// Scales and Flip are test-time augmentation, as mmsegmentation's SegTTAModel: the photo is segmented at
	// each scale of its usual size, and mirrored too with Flip; the probabilities' mean counts. nil is the
	// usual size alone. AugmentScales has those of the papers.
	//
	// Each scale is resized from the photo with the file's own resize (Pillow's or torch's filter), to
	// int(side*scale + 0.5) as mmcv's rescale_size, and to the nearest multiple of input.multiple_of where no
	// windows slide. (mmsegmentation itself resizes with OpenCV.)
	Scales []float64
	Flip   bool
}

// segmenter is a model of either kind.
type segmenter struct {
	Preparer
	forward forwardFunc
}

// job is SegmentOptions with everything known.
type job struct {
	results
	maxBatch int
	slide    *sliding
	scales   []float64
	flips    []bool
	// mean tells that the answer comes from the mean of probabilities.
	mean bool
}

func (s segmenter) job(o *SegmentOptions) (*job, error) {
	meta := s.Metadata()
	j := &job{
		results:  results{threshold: DefaultThreshold, logits: o.Logits, probabilities: o.Probabilities},
		maxBatch: o.MaxBatch, scales: o.Scales, flips: []bool{false},
	}
	if meta.Thresholds != nil && meta.Thresholds.Mask != nil {
		j.threshold = *meta.Thresholds.Mask
	}
	if o.Threshold != nil {
		j.threshold = *o.Threshold
	}
	if !(j.threshold >= 0 && j.threshold <= 1) {
		return nil, fmt.Errorf("segment: %w: threshold: got %v, want 0 to 1", torch.ErrInvalidArgument, j.threshold)
	}
	if len(j.scales) == 0 {
		j.scales = []float64{1}
	}
	for _, scale := range j.scales {
		if !(scale > 0) || math.IsInf(scale, 0) {
			return nil, fmt.Errorf("segment: %w: scales: got %v, want numbers above 0", torch.ErrInvalidArgument, j.scales)
		}
		if scale != 1 && o.Slide == nil && !meta.Input.Dynamic && len(meta.Input.Size) > 0 {
			return nil, fmt.Errorf("segment: %w: scales: got %v for a file that takes inputs of %v only, want scale 1, Slide, or input.dynamic (--multiple-of)", torch.ErrInvalidArgument, j.scales, meta.Input.Size)
		}
	}
	if o.Flip {
		j.flips = []bool{false, true}
	}
	if o.Slide != nil {
		var err error
		if j.slide, err = o.Slide.plan(meta); err != nil {
			return nil, err
		}
	}
	augmented := len(j.scales)*len(j.flips) > 1
	j.mean = augmented || j.slide != nil && j.slide.segmenter
	if augmented && j.logits {
		return nil, fmt.Errorf("segment: %w: got Logits with Scales or Flip, which average probabilities; want Probabilities", torch.ErrInvalidArgument)
	}
	return j, nil
}

func (s segmenter) segment(ctx context.Context, o SegmentOptions, images []transforms.Source) (answers []*Segmentation, err error) {
	j, err := s.job(&o)
	if err != nil {
		return nil, err
	}
	answers = make([]*Segmentation, len(images))
	defer func() {
		if err != nil {
			CloseAll(answers)
			answers = nil
		}
	}()
	if j.slide == nil && !j.mean && j.scales[0] == 1 {
		return answers, s.batches(ctx, j, images, answers)
	}
	for i, image := range images {
		if answers[i], err = s.views(ctx, j, image); err != nil {
			return answers, fmt.Errorf("image %d: %w", i, err)
		}
	}
	return answers, nil
}

// batches runs photos of one size together.
func (s segmenter) batches(ctx context.Context, j *job, images []transforms.Source, answers []*Segmentation) error {
	inputs, err := s.Prepare(ctx, j.maxBatch, images...)
	if err != nil {
		return err
	}
	defer vit.CloseInputs(inputs)
	for _, in := range inputs {
		output, err := s.forward(ctx, in.Pixels)
		if err != nil {
			return err
		}
		found, err := j.of(ctx, output, in.Geometry)
		output.Close()
		if err != nil {
			return err
		}
		for i, index := range in.Index {
			answers[index] = found[i]
		}
	}
	return nil
}

// views runs one photo at every scale, both ways round.
func (s segmenter) views(ctx context.Context, j *job, image transforms.Source) (*Segmentation, error) {
	photo, err := s.OpenPhoto(ctx, image)
	if err != nil {
		return nil, err
	}
	defer photo.Close()
	c := newChain(ctx)
	defer c.Close()
	var sum *torch.Tensor
	for _, scale := range j.scales {
		answer, err := s.scale(c, j, photo, scale, &sum)
		if err != nil || answer != nil {
			return answer, err
		}
	}
	c.Call("aten::div_.Scalar", sum, len(j.scales)*len(j.flips))
	return j.ofProbabilities(c, sum)
}

// scale adds a scale's probabilities to the sum, or gives the answer of the only view.
func (s segmenter) scale(c *chain, j *job, photo *transforms.Image, scale float64, sum **torch.Tensor) (*Segmentation, error) {
	spec, err := s.spec(j, transforms.Size{Height: photo.Height(), Width: photo.Width()}, scale)
	if err != nil {
		return nil, err
	}
	inputs, err := s.PrepareAs(c.Ctx, spec, 1, photo)
	if err != nil {
		return nil, err
	}
	defer vit.CloseInputs(inputs)
	for _, flip := range j.flips {
		view := newChain(c.Ctx)
		logits := s.view(view, j, inputs[0], flip)
		if !j.mean {
			defer view.Close()
			return j.ofLogits(view, logits)
		}
		probabilities := view.probabilities(logits)
		if *sum == nil && view.Err == nil {
			*sum = c.Call("aten::new_zeros", probabilities, probabilities.Shape())
		}
		if c.Err == nil {
			view.Call("aten::add_.Tensor", *sum, probabilities)
		}
		view.Close()
		if err := cmp.Or(c.Err, view.Err); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// view gives the logits (1, C, H, W) of one view at the photo's size.
func (s segmenter) view(c *chain, j *job, in vit.Input, flip bool) *torch.Tensor {
	mirror := func(t *torch.Tensor) *torch.Tensor {
		if !flip {
			return t
		}
		return c.Call("aten::flip", t, []int{3})
	}
	g := in.Geometry[0]
	pixels := mirror(in.Pixels)
	switch {
	case j.slide == nil:
		if c.Err != nil {
			return nil
		}
		out := c.Own(s.forward(c.Ctx, pixels))
		if c.Err != nil {
			return nil
		}
		kind, err := kindOf(out, 1)
		if err == nil && kind != vit.OutputSegmentationLogits {
			err = fmt.Errorf("segment: %w: the model gives classes, want logits, whose probabilities can be averaged", vit.ErrOutput)
		}
		if err != nil {
			c.Err = err
			return nil
		}
		return c.toPhoto(mirror(c.Cast(out, torch.Float32)), g)
	case j.slide.segmenter: // which mirrors at the photo's size
		return mirror(c.bilinear(j.slide.logits(c, s.forward, pixels), g.Height, g.Width))
	}
	return c.toPhoto(mirror(j.slide.logits(c, s.forward, pixels)), g)
}

// spec is the preprocess of a photo at a scale.
func (s segmenter) spec(j *job, photo transforms.Size, scale float64) (transforms.Spec, error) {
	meta := s.Metadata()
	spec := meta.Preprocess
	multiple := max(spec.Resize.MultipleOf, meta.Input.MultipleOf)
	if j.slide != nil {
		spec.Resize, spec.Crop = j.slide.resize, transforms.CropSpec{}
		multiple = 0
	}
	if scale == 1 {
		return spec, nil
	}
	if err := spec.Validate(); err != nil {
		return spec, err
	}
	g, err := spec.Plan(photo)
	if err != nil {
		return spec, err
	}
	scaled := func(h, w int) []int {
		f := func(side int) int { return max(int(float64(float64(side)*scale)+0.5), 1) }
		to := transforms.Size{Height: f(h), Width: f(w)}
		if multiple > 1 {
			to = transforms.MultipleOf(to, multiple)
		}
		return []int{to.Height, to.Width}
	}
	if spec.Resize.Rule == transforms.RuleLetterbox {
		spec.Resize = transforms.ResizeSpec{Rule: transforms.RuleLetterbox, Size: scaled(g.OutputHeight, g.OutputWidth)}
	} else {
		spec.Resize = transforms.ResizeSpec{Rule: transforms.RuleExact, Size: scaled(g.ResizedHeight, g.ResizedWidth)}
	}
	return spec, nil
}
