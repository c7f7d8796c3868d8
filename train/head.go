package train

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/vit"
)

// HeadPart is a part of a model's head.
type HeadPart string

// The parts of a head that begin anew.
const (
	// HeadKept is none of it.
	HeadKept HeadPart = ""
	// HeadClasses are the layers whose outputs are the classes: the last ones.
	HeadClasses HeadPart = "classes"
	// HeadAll is everything outside the ViT.
	HeadAll HeadPart = "all"
)

// layer is a module with a weight, and perhaps a bias, that is given other outputs.
type layer struct {
	name         string
	weight, bias *Parameter
	dim          int   // of weight, that of the outputs
	each         int64 // outputs for each class
	more         int64 // outputs besides those of classes, in each group
	groups       int64
}

// out is the number of outputs for n classes.
func (l layer) out(n int64) int64 { return l.groups * (l.more + l.each*n) }

// InitHead gives a part of the head new weights, and outputs for as many classes as labels has; nil keeps the
// number and the names. Weights are those of torch.nn's reset_parameters: Kaiming's uniform numbers for linear
// layers and convolutions, ones and zeros for norms, from the generator of torch.ManualSeed.
//
// Labels are those of the model: for a Faster R-CNN, and for a segmentation model that has one, the background
// comes first. A head whose layers cannot be told, or whose code has the number of classes written into it, is
// ErrHead.
func (m *Model) InitHead(ctx context.Context, part HeadPart, labels []string) error {
	switch part {
	case HeadClasses, HeadAll:
	case HeadKept:
		return nil
	default:
		return fmt.Errorf("head: %w: got %q, want classes or all", ErrOptions, part)
	}
	layers, err := m.classLayers(ctx)
	if err != nil && (part == HeadClasses || labels != nil) {
		return err
	}
	if m.copy != nil { // its shapes are the old ones
		m.copy.close()
		m.copy = nil
	}
	done := map[string]bool{}
	for _, l := range layers {
		n := (l.weight.Tensor.Size(l.dim)/l.groups - l.more) / l.each
		if labels != nil {
			n = int64(len(labels))
		}
		if err := l.reset(m, n); err != nil {
			return fmt.Errorf("head: %s: %w", l.name, err)
		}
		done[l.name] = true
	}
	if part == HeadAll {
		if err := m.resetHead(done); err != nil {
			return err
		}
	}
	if err := m.list(); err != nil { // what is known of replaced tensors is old
		return err
	}
	if labels != nil {
		if n := len(labels); n != len(m.meta.Labels) {
			m.meta.Palette = nil
		}
		m.meta.Labels = slices.Clone(labels)
		if slices.ContainsFunc(m.module.Attributes(), func(a jit.AttributeInfo) bool { return a.Name == "num_classes" && a.Type == "int" }) {
			if err := m.module.SetAttribute("num_classes", len(labels)); err != nil {
				return fmt.Errorf("head: %w", err)
			}
		}
		return m.tryHead(ctx, int64(len(labels)))
	}
	return nil
}

// modules groups the head's parameters by the module that has them, in the order of their names.
func (m *Model) modules() (names []string, byName map[string]map[string]*Parameter) {
	byName = map[string]map[string]*Parameter{}
	for i := range m.parameters {
		p := &m.parameters[i]
		if p.ViT {
			continue
		}
		module, leaf := "", p.Name
		if dot := strings.LastIndexByte(p.Name, '.'); dot >= 0 {
			module, leaf = p.Name[:dot], p.Name[dot+1:]
		}
		if byName[module] == nil {
			byName[module] = map[string]*Parameter{}
			names = append(names, module)
		}
		byName[module][leaf] = p
	}
	slices.Sort(names)
	return names, byName
}

// exportAdvice says what to do where a head cannot be replaced.
const exportAdvice = "make a file with that head in Python: `scripts/export.py` and its --labels, or scripts/reference_files.py"

// classLayers finds the layers whose outputs are the classes.
func (m *Model) classLayers(ctx context.Context) ([]layer, error) {
	names, modules := m.modules()
	add := func(list []layer, name string, dim int, each, more, groups int64) []layer {
		p := modules[name]
		return append(list, layer{name, p["weight"], p["bias"], dim, each, more, groups})
	}
	var layers []layer
	switch {
	case m.meta.Task == vit.TaskDetection && m.meta.Output.Kind == vit.OutputYOLOGrid:
		anchors := m.meta.Output.Anchors
		for _, name := range names {
			p := modules[name]
			level := len(layers)
			if p["weight"] == nil || level >= len(anchors) || !strings.Contains("."+name, ".predict.") {
				continue
			}
			if a := int64(len(anchors[level])); p["weight"].Tensor.Size(0)%a == 0 {
				layers = add(layers, name, 0, 1, 5, a)
			}
		}
		if len(layers) != len(anchors) {
			layers = nil
		}
	case m.meta.Task == vit.TaskDetection:
		n := int64(0)
		for _, name := range names {
			if w := modules[name]["weight"]; w != nil && strings.HasSuffix(name, "cls_score") {
				n = w.Tensor.Size(0)
				layers = add(layers, name, 0, 1, 0, 1)
			}
		}
		for _, name := range names {
			w := modules[name]["weight"]
			switch {
			case w == nil || n == 0:
			case strings.HasSuffix(name, "bbox_pred") && w.Tensor.Size(0) == 4*n:
				layers = add(layers, name, 0, 4, 0, 1)
			case strings.HasSuffix(name, "mask_fcn_logits") && w.Tensor.Size(0) == n:
				layers = add(layers, name, 0, 1, 0, 1)
			}
		}
	case m.meta.Task == vit.TaskClassification || m.meta.Task == vit.TaskSegmentation || m.meta.Task == vit.TaskSegmentationHead:
		n, err := m.outputs(ctx)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			w, b := modules[name]["weight"], modules[name]["bias"]
			switch {
			case w == nil || w.Tensor.Dim() < 2:
			case w.Tensor.Size(0) == n && (b == nil || b.Tensor.NumEl() == n):
				layers = add(layers, name, 0, 1, 0, 1)
			case w.Tensor.Dim() == 4 && w.Tensor.Size(1) == n && b != nil && b.Tensor.NumEl() == n: // transposed
				layers = add(layers, name, 1, 1, 0, 1)
			}
		}
	}
	if len(layers) == 0 {
		return nil, fmt.Errorf("head: %w: %s, a file for %s (%s), has no layers that are known to give its classes; %s",
			ErrHead, m.name, m.meta.Task, m.meta.Architecture, exportAdvice)
	}
	return layers, nil
}

// outputs is the number of classes of what forward gives.
func (m *Model) outputs(ctx context.Context) (int64, error) {
	shape, err := m.tryForward(ctx)
	if err != nil {
		return 0, err
	}
	if len(shape) < 2 {
		return 0, fmt.Errorf("head: %w: forward of %s gives %v, want (B, classes, ...)", ErrHead, m.name, shape)
	}
	return shape[1], nil
}

// tryForward runs forward on zeros and gives the shape of what counts.
func (m *Model) tryForward(ctx context.Context) ([]int64, error) {
	answers, err := m.Answers()
	if err != nil {
		return nil, err
	}
	var scope torch.Scope
	defer scope.Close()
	own := torch.Own(&scope)
	height, width := m.inputSize()
	var args []any
	if m.meta.Task == vit.TaskSegmentationHead {
		args, err = m.zeroFeatures(own, height, width)
	} else {
		var x *torch.Tensor
		x, err = own(torch.Zeros([]int64{1, 3, height, width}, torch.TensorOptions{Device: m.device}))
		args = []any{x}
	}
	if err != nil {
		return nil, err
	}
	answer, err := answers.Call(ctx, "forward", args...)
	if err != nil {
		return nil, err
	}
	scope.Track(answer)
	if t, ok := answer.(*torch.Tensor); ok {
		return t.Shape(), nil
	}
	_, leaves, err := answers.Recognize(answer, []int64{1, 3, height, width})
	if err != nil {
		return nil, err
	}
	t, _ := leaves[0].Value.(*torch.Tensor)
	return t.Shape(), nil
}

// zeroFeatures are the arguments of a segmentation head.
func (m *Model) zeroFeatures(own func(*torch.Tensor, error) (*torch.Tensor, error), height, width int64) ([]any, error) {
	t := m.meta.Tokens
	if t == nil || len(t.PatchSize) != 2 || t.EmbedDim == 0 {
		return nil, fmt.Errorf("head: %w: %s does not say its patch size and embed_dim", ErrHead, m.name)
	}
	n := int64(t.Prefix) + height/int64(t.PatchSize[0])*(width/int64(t.PatchSize[1]))
	tokens, err := own(torch.Zeros([]int64{1, n, int64(t.EmbedDim)}, torch.TensorOptions{Device: m.device}))
	if err != nil {
		return nil, err
	}
	if blocks := len(m.meta.Input.Blocks); blocks > 0 {
		return []any{slices.Repeat([]*torch.Tensor{tokens}, blocks), height, width}, nil
	}
	return []any{tokens, height, width}, nil
}

// inputSize is a size that forward takes.
func (m *Model) inputSize() (height, width int64) {
	if s := m.meta.Input.Size; len(s) == 2 {
		return int64(s[0]), int64(s[1])
	}
	if size, ok := m.meta.Preprocess.OutputSize(); ok {
		return int64(size.Height), int64(size.Width)
	}
	side := int64(224)
	if k := int64(m.meta.Input.MultipleOf); k > 1 {
		side = max(k, side/k*k)
	}
	return side, side
}

// tryHead checks that forward works with its new outputs.
func (m *Model) tryHead(ctx context.Context, n int64) error {
	if m.meta.Task == vit.TaskDetection {
		return nil // the number of classes is not seen in its answer
	}
	got, err := m.outputs(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("head: %w: %s has the number of classes in its code; %s: %w", ErrHead, m.name, exportAdvice, err)
	case got != n:
		return fmt.Errorf("head: %w: %s gives %d classes with a head of %d; %s", ErrHead, m.name, got, n, exportAdvice)
	}
	return nil
}

// reset gives a layer outputs for n classes and new weights.
func (l layer) reset(m *Model, n int64) error {
	shape := l.weight.Tensor.Shape()
	shape[l.dim] = l.out(n)
	if err := replace(l.weight.Tensor, shape); err != nil {
		return err
	}
	if l.bias != nil {
		if err := replace(l.bias.Tensor, []int64{l.out(n)}); err != nil {
			return err
		}
	}
	return resetLayer(l.weight, l.bias)
}

// resetHead gives all that is outside the ViT, and not done, new weights.
func (m *Model) resetHead(done map[string]bool) error {
	names, modules := m.modules()
	for _, name := range names {
		if done[name] {
			continue
		}
		parameters := modules[name]
		weight, bias := parameters["weight"], parameters["bias"]
		if err := resetLayer(weight, bias); err != nil {
			return fmt.Errorf("head: %s: %w", name, err)
		}
		for leaf, p := range parameters {
			if leaf == "weight" || leaf == "bias" {
				continue
			}
			if p.Tensor.Dim() < 2 {
				return fmt.Errorf("head: %w: %s is neither weight nor bias; its first values are not known", ErrHead, p.Name)
			}
			// timm's way with embeddings and projections.
			if err := noGrad("aten::normal_", p.Tensor, 0.0, 0.02); err != nil {
				return fmt.Errorf("head: %s: %w", p.Name, err)
			}
		}
	}
	for _, b := range m.buffers {
		value := 0.0
		switch {
		case m.inViT(b.Name):
			continue
		case strings.HasSuffix(b.Name, "running_var"):
			value = 1
		case !strings.HasSuffix(b.Name, "running_mean") && !strings.HasSuffix(b.Name, "num_batches_tracked"):
			continue
		}
		if err := noGrad("aten::fill_.Scalar", b.Tensor, value); err != nil {
			return fmt.Errorf("head: %s: %w", b.Name, err)
		}
	}
	return nil
}

// resetLayer is reset_parameters of torch.nn's Linear, convolutions, and norms.
func resetLayer(weight, bias *Parameter) error {
	if weight == nil || weight.Tensor.Dim() < 2 {
		if weight != nil {
			if err := noGrad("aten::fill_.Scalar", weight.Tensor, 1.0); err != nil {
				return err
			}
		}
		if bias != nil {
			return noGrad("aten::fill_.Scalar", bias.Tensor, 0.0)
		}
		return nil
	}
	// torch counts size(1) of every weight, also of transposed ones.
	fanIn := weight.Tensor.NumEl() / max(1, weight.Tensor.Size(0))
	bound := 1 / math.Sqrt(float64(max(1, fanIn))) // kaiming_uniform_(a=sqrt(5))
	for _, p := range []*Parameter{weight, bias} {
		if p == nil {
			continue
		}
		if err := noGrad("aten::uniform_", p.Tensor, -bound, bound); err != nil {
			return err
		}
	}
	return nil
}

// replace gives a tensor, where modules have it too, new memory of that shape.
func replace(t *torch.Tensor, shape []int64) error {
	if slices.Equal(t.Shape(), shape) {
		return nil
	}
	grad := t.RequiresGrad()
	if err := t.SetRequiresGrad(false); err != nil {
		return err
	}
	fresh, err := torch.Zeros(shape, torch.TensorOptions{DType: t.DType(), Device: t.Device()})
	if err != nil {
		return err
	}
	defer fresh.Close()
	if err := noGrad("aten::set_.source_Tensor", t, fresh); err != nil {
		return err
	}
	return t.SetRequiresGrad(grad)
}
