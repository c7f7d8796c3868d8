package det

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// Detector is a model file that finds objects, of any kind of output: the scripted detectors of torchvision,
// their traces, DETR and YOLOS, Deformable DETR and RT-DETR, YOLO. The kind is output.kind of the file's
// metadata, else it is recognised from the first answer.
//
// Scripted torchvision detectors differ from the eager Python model for about half of all image sizes,
// because TorchScript computes the resize factor in float32. The parity that this package keeps is
// with Python's torch.jit.load of the same file.
type Detector struct {
	*vit.Model
	// alone: the file takes one photo at a time, as traces of torchvision's detectors do.
	alone atomic.Bool
}

// Load loads a model file whose task is detection, or of which nothing says the task.
func Load(path string, o vit.Options) (*Detector, error) {
	if o.Task == "" {
		o.Task = vit.TaskDetection
	}
	m, err := vit.LoadModel(path, o)
	if err != nil {
		return nil, err
	}
	if err := m.Need("detect", vit.TaskDetection); err != nil {
		m.Close()
		return nil, err
	}
	return &Detector{Model: m}, nil
}

// Output is what a detector says of one photo. The caller closes it.
type Output struct {
	// Boxes is (N, 4) float32: xyxy in pixels of the tensor that went in.
	Boxes *torch.Tensor
	// Labels is (N) int64: indices into the file's labels.
	Labels *torch.Tensor
	// Scores is (N) float32, 0 to 1.
	Scores *torch.Tensor
	// Masks is (N, 1, H, W), probabilities for the tensor's pixels, in the file's dtype; nil where the file
	// gives none.
	Masks *torch.Tensor
}

// Close closes the tensors. It always returns nil.
func (o *Output) Close() error {
	if o != nil {
		torch.CloseAll(o.Boxes, o.Labels, o.Scores, o.Masks)
	}
	return nil
}

// Forward runs the detector on photos (3, H, W) of any sizes, as the file's preprocess leaves them, and
// decodes the answer: every candidate with its best class, before any threshold or suppression, in the
// file's order. A file of the list layout gets all photos in one pass, one of the batch layout those of one
// shape together.
//
// OutputDetections has been through both inside the file, best score first; OutputYOLO has thousands of
// candidates; OutputSetPredictionSigmoid has the best Q of Q queries times C classes, best first, as
// transformers' RT-DETR.
func (d *Detector) Forward(ctx context.Context, images []*torch.Tensor) ([]*Output, error) {
	if d.Metadata().Layout() == vit.LayoutList {
		outputs, _, err := d.pass(ctx, photos{list: images}, all)
		return outputs, err
	}
	var groups [][]int
	byShape := map[string]int{}
	for i, image := range images {
		shape := fmt.Sprint(image.Shape())
		g, ok := byShape[shape]
		if !ok {
			g = len(groups)
			byShape[shape], groups = g, append(groups, nil)
		}
		groups[g] = append(groups[g], i)
	}
	outputs := make([]*Output, len(images))
	for _, group := range groups {
		same := make([]*torch.Tensor, len(group))
		for i, index := range group {
			same[i] = images[index]
		}
		pixels, err := torch.Stack(same, 0)
		if err == nil {
			var some []*Output
			some, err = d.ForwardBatch(ctx, pixels)
			pixels.Close()
			for i, o := range some {
				outputs[group[i]] = o
			}
		}
		if err != nil {
			closeOutputs(outputs)
			return nil, err
		}
	}
	return outputs, nil
}

// ForwardBatch is Forward for photos of one shape, (B, 3, H, W).
func (d *Detector) ForwardBatch(ctx context.Context, pixels *torch.Tensor) ([]*Output, error) {
	if shape := pixels.Shape(); len(shape) != 4 {
		return nil, fmt.Errorf("detect: %w: got pixels of %v, want (B, 3, H, W)", torch.ErrShape, shape)
	}
	if d.Metadata().Layout() == vit.LayoutList {
		var scope torch.Scope
		defer scope.Close()
		images := make([]*torch.Tensor, pixels.Size(0))
		for i := range images {
			image, err := torch.Own(&scope)(pixels.Select(0, int64(i)))
			if err != nil {
				return nil, err
			}
			images[i] = image
		}
		return d.Forward(ctx, images)
	}
	outputs, _, err := d.pass(ctx, photos{pixels: pixels}, all)
	return outputs, err
}

func closeOutputs(outputs []*Output) {
	for _, o := range outputs {
		o.Close()
	}
}

// photos are the input of one pass, in either layout.
type photos struct {
	list   []*torch.Tensor // (3, H, W) each
	pixels *torch.Tensor   // (B, 3, H, W)
}

func (p photos) len() int {
	if p.pixels != nil {
		return int(p.pixels.Size(0))
	}
	return len(p.list)
}

func (p photos) arg() any {
	if p.pixels != nil {
		return p.pixels
	}
	return p.list
}

// shape is that of a batch, nil for a list.
func (p photos) shape() []int64 {
	if p.pixels != nil {
		return p.pixels.Shape()
	}
	return nil
}

// size is the height and width of photo i's tensor.
func (p photos) size(i int) (height, width int64) {
	t := p.pixels
	if t == nil {
		t = p.list[i]
	}
	return t.Size(-2), t.Size(-1)
}

func (p photos) one(i int) (one photos, release func(), err error) {
	if p.pixels == nil {
		return photos{list: p.list[i : i+1]}, func() {}, nil
	}
	t, err := p.pixels.Narrow(0, int64(i), 1)
	return photos{pixels: t}, func() { t.Close() }, err
}

// pass runs forward once and decodes its answer. wanted tells for a kind of output what of the answer of
// photos from to from+n-1 is wanted. Without photos nothing runs, and the kind is nil.
func (d *Detector) pass(ctx context.Context, in photos, wanted func(k *kind, from, n int) request) ([]*Output, *kind, error) {
	if in.len() == 0 {
		return nil, nil, nil
	}
	if d.alone.Load() && in.len() > 1 {
		return d.eachAlone(ctx, in, wanted)
	}
	outputs, k, err := d.run(ctx, in, func(k *kind) request { return wanted(k, 0, in.len()) })
	if err == errAlone || err != nil && in.pixels == nil && in.len() > 1 && isUnpack(err) {
		d.alone.Store(true)
		return d.eachAlone(ctx, in, wanted)
	}
	return outputs, k, err
}

// isUnpack tells the error of a trace that takes a list of another length.
func isUnpack(err error) bool { return strings.Contains(err.Error(), "elements in a list but found") }

func (d *Detector) eachAlone(ctx context.Context, in photos, wanted func(k *kind, from, n int) request) (outputs []*Output, k *kind, err error) {
	for i := range in.len() {
		one, release, err := in.one(i)
		if err == nil {
			var some []*Output
			some, k, err = d.run(ctx, one, func(k *kind) request { return wanted(k, i, 1) })
			release()
			outputs = append(outputs, some...)
		}
		if err != nil {
			closeOutputs(outputs)
			return nil, nil, err
		}
	}
	return outputs, k, nil
}

func (d *Detector) run(ctx context.Context, in photos, wanted func(k *kind) request) ([]*Output, *kind, error) {
	answer, err := d.Call(ctx, "forward", in.arg())
	if err != nil {
		return nil, nil, err
	}
	defer torch.CloseAll(answer)
	fail := func(err error) ([]*Output, *kind, error) {
		if err == errAlone {
			return nil, nil, err
		}
		return nil, nil, fmt.Errorf("detect: %w", err)
	}
	name, leaves, err := d.Recognize(answer, in.shape())
	if err != nil {
		return fail(err)
	}
	k, ok := kinds[name]
	if !ok {
		return fail(fmt.Errorf("%w: got the kind %s, want one of detection", vit.ErrOutput, name))
	}
	r := wanted(k)
	r.n = in.len()
	r.height, r.width = in.size(0)
	r.labels, r.anchors = len(d.Metadata().Labels), d.Metadata().Output.Anchors
	tensors := make([]*torch.Tensor, len(leaves))
	for i, leaf := range leaves {
		t, ok := leaf.Value.(*torch.Tensor)
		if !ok {
			return fail(fmt.Errorf("%w: got %s, want tensors for %s", vit.ErrOutput, vit.Form(answer), name))
		}
		tensors[i] = t
	}
	outputs, err := k.decode(ctx, tensors, &r)
	if err == errForm {
		err = fmt.Errorf("%w: got %s for %d photos of %s, want %s", vit.ErrOutput, vit.Form(answer), r.n, sizeText(in), k.form)
	}
	if err != nil {
		return fail(err)
	}
	return outputs, k, nil
}

func sizeText(in photos) string {
	h, w := in.size(0)
	return fmt.Sprintf("%d x %d pixels", w, h)
}

// Detect finds objects in each photo: boxes in the photo's own pixels, best score first, of equal ones in the
// file's order. A file of the list layout gets all photos in one pass, one of the batch layout those whose
// tensors have one shape together. See [DetectOptions] for what is left out.
//
// Boxes go back to the photo as Python takes them: of set predictions as shares of the photo's sides
// (transformers), of a letterbox without its border and divided by its gain (ultralytics' scale_boxes), else in
// proportion. Those of the YOLO kinds are clipped to the photo.
func (d *Detector) Detect(ctx context.Context, o DetectOptions, images ...transforms.Source) ([][]Detection, error) {
	f, err := d.newFilter(o)
	if err != nil {
		return nil, err
	}
	list := d.Metadata().Layout() == vit.LayoutList
	limit := o.MaxBatch
	if list {
		limit = 1
	}
	inputs, err := d.Prepare(ctx, limit, images...)
	if err != nil {
		return nil, err
	}
	defer vit.CloseInputs(inputs)
	answers := make([][]Detection, len(images))
	if !list {
		for _, in := range inputs {
			if err := d.detect(ctx, f, photos{pixels: in.Pixels}, in.Geometry, in.Index, answers); err != nil {
				return nil, err
			}
		}
		return answers, nil
	}
	var scope torch.Scope
	defer scope.Close()
	pixels := make([]*torch.Tensor, len(images))
	geometry := make([]transforms.Geometry, len(images))
	index := make([]int, len(images))
	for _, in := range inputs {
		photo, err := torch.Own(&scope)(torch.CallTensor(ctx, "aten::select.int", in.Pixels, 0, 0))
		if err != nil {
			return nil, err
		}
		i := in.Index[0]
		pixels[i], geometry[i], index[i] = photo, in.Geometry[0], i
	}
	for from, step := 0, cmp.Or(o.MaxBatch, len(images)); from < len(images); from += step {
		to := min(from+step, len(images))
		if err := d.detect(ctx, f, photos{list: pixels[from:to]}, geometry[from:to], index[from:to], answers); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// detect runs one pass and puts what it finds in photo i to answers[index[i]].
func (d *Detector) detect(ctx context.Context, f *filter, in photos, geometry []transforms.Geometry, index []int, answers [][]Detection) error {
	outputs, k, err := d.pass(ctx, in, func(k *kind, from, n int) request {
		s := f.settings(k)
		r := request{floor: s.floor, multiLabel: f.o.MultiLabel, topK: f.o.TopK}
		for _, g := range geometry[from : from+n] {
			r.targets = append(r.targets, target(g))
		}
		return r
	})
	if err != nil || k == nil {
		return err
	}
	defer closeOutputs(outputs)
	s := f.settings(k)
	for i, out := range outputs {
		found, err := s.choose(ctx, out)
		if err != nil {
			return fmt.Errorf("detect: %w", err)
		}
		g := geometry[i]
		if answers[index[i]], err = d.detections(ctx, s, out, found, g); err != nil {
			return fmt.Errorf("detect: %w", err)
		}
	}
	return nil
}

// target is the size that a set prediction's boxes are shares of, the photo's where the model saw all of it
// and nothing else.
func target(g transforms.Geometry) (size [2]int) {
	if g.Whole() {
		return [2]int{g.Height, g.Width}
	}
	return [2]int{g.OutputHeight, g.OutputWidth}
}

// detections takes candidates back to the photo.
func (d *Detector) detections(ctx context.Context, s *settings, out *Output, found []candidate, g transforms.Geometry) ([]Detection, error) {
	back := d.toPhoto(g)
	if s.kind.relative && g.Whole() {
		back = func(b Box) Box { return b } // target has done it
	}
	masks, err := s.masks(ctx, out, found, g)
	if err != nil {
		return nil, err
	}
	var list []Detection
	for i, c := range found {
		b := back(c.box)
		if s.kind.clip {
			b = b.Clip(g.Width, g.Height)
		}
		one := Detection{Box: b, Label: d.Label(c.label), LabelID: c.label, Score: c.score}
		if masks != nil {
			one.Mask = masks[i]
		}
		list = append(list, one)
	}
	return list, nil
}

// toPhoto is how boxes in pixels of the tensor go back to the photo.
func (d *Detector) toPhoto(g transforms.Geometry) func(Box) Box {
	resize := d.Metadata().Preprocess.Resize
	if resize.Rule != transforms.RuleLetterbox {
		return func(b Box) Box {
			b.X1, b.Y1 = g.ToPhoto(b.X1, b.Y1)
			b.X2, b.Y2 = g.ToPhoto(b.X2, b.Y2)
			return b
		}
	}
	height, width := resize.Size[0], resize.Size[len(resize.Size)-1]
	gain := float32(min(float64(height)/float64(g.Height), float64(width)/float64(g.Width)))
	left, top := float32(-g.Left), float32(-g.Top)
	return func(b Box) Box {
		return Box{(b.X1 - left) / gain, (b.Y1 - top) / gain, (b.X2 - left) / gain, (b.Y2 - top) / gain}
	}
}
