package train

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/torch/npy"
	"github.com/torchvit/torchvit/vit"
)

// Model is a model file in training: its module, whose parameters record gradients, and what is known of the
// file. A copy of it, with the same weights, answers questions in between: see [Model.Answers]. For one goroutine.
type Model struct {
	module     *jit.Module
	forward    *jit.Method
	name       string
	root       string
	meta       vit.Metadata
	device     torch.Device
	precision  torch.DType
	parameters []Parameter
	buffers    []jit.NamedTensor
	reference  *npy.Zip          // the file's, for its inputs
	extra      map[string]string // further extra files, which Save keeps
	copy       *replica
}

// LoadOptions say how a model is loaded for training. The zero value does it on the CPU, in float32.
type LoadOptions struct {
	Device torch.Device
	// Precision is the dtype of autocast in the forward: BFloat16, or InvalidDType for none. Parameters,
	// gradients and the optimizer stay float32. A processor without AVX512_BF16 or AMX emulates bfloat16,
	// which took 13 times as long as float32.
	Precision torch.DType
	// Metadata stands in for what the file says of itself.
	Metadata *vit.Metadata
}

// Load reads a model file for training: every parameter is learned until [Model.Freeze] says otherwise. A file
// that holds no parameters, as torch.jit.freeze makes them, is ErrFrozen. The caller closes the model.
func Load(path string, o LoadOptions) (*Model, error) {
	m := &Model{name: filepath.Base(path), device: o.Device, precision: o.Precision, extra: map[string]string{}}
	if o.Precision != torch.InvalidDType && o.Precision != torch.BFloat16 {
		return nil, fmt.Errorf("precision: %w: got %s, want float32 or bfloat16", ErrOptions, o.Precision)
	}
	if o.Metadata != nil {
		m.meta = *o.Metadata
	} else {
		known, err := vit.ReadMetadata(path)
		if err != nil {
			return nil, err
		}
		m.meta = *known
	}
	if err := m.readExtra(path); err != nil {
		return nil, err
	}
	module, err := jit.Load(path, jit.LoadOptions{Device: o.Device})
	if err != nil {
		return nil, err
	}
	m.module = module
	if err := m.prepare(); err != nil {
		m.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// readExtra keeps what Save writes again.
func (m *Model) readExtra(path string) error {
	archive, err := jit.OpenArchive(path)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	defer archive.Close()
	for _, name := range archive.ExtraFiles() {
		if name == vit.MetadataFile {
			continue
		}
		text, err := archive.ReadExtra(name)
		if err != nil {
			return fmt.Errorf("load %s: %w", path, err)
		}
		if name != vit.ReferenceFile {
			m.extra[name] = string(text)
		} else if m.reference, err = npy.ReadZip(bytes.NewReader(text), int64(len(text))); err != nil {
			return fmt.Errorf("load %s: %s: %w", path, name, err)
		}
	}
	return nil
}

// list reads the parameters and buffers anew.
func (m *Model) list() (err error) {
	m.forget()
	tensors, err := m.module.NamedParameters()
	m.parameters, m.root = divide(tensors)
	if err != nil {
		return err
	}
	m.buffers, err = m.module.NamedBuffers()
	return err
}

func (m *Model) forget() {
	for _, p := range m.parameters {
		p.Tensor.Close()
	}
	closeNamed(m.buffers)
	m.parameters, m.buffers = nil, nil
}

func (m *Model) prepare() (err error) {
	if err := m.list(); err != nil {
		return err
	}
	if !slices.ContainsFunc(m.parameters, func(p Parameter) bool { return p.Tensor.DType().IsFloatingPoint() }) {
		return fmt.Errorf("%w: the file holds no parameters, as torch.jit.freeze and tracing with constants leave none; want one that torch.jit.script or scripts/export.py made", ErrFrozen)
	}
	for _, p := range m.parameters {
		if dtype := p.Tensor.DType(); dtype.IsFloatingPoint() && dtype != torch.Float32 {
			return fmt.Errorf("%w: %s is %s, want float32 (bfloat16 is an option of training)", ErrFrozen, p.Name, dtype)
		}
	}
	if m.forward, err = m.module.Method("forward"); err != nil {
		return err
	}
	if err := m.module.Train(true); err != nil {
		return err
	}
	return m.Freeze(Freeze{})
}

// Close frees the model. It always returns nil.
func (m *Model) Close() error {
	if m == nil {
		return nil
	}
	m.copy.close()
	m.copy = nil
	m.forget()
	return m.module.Close()
}

// Name is the base name of the file.
func (m *Model) Name() string { return m.name }

// Metadata is what is known of the model; its labels are those of the result. Not to be changed.
func (m *Model) Metadata() *vit.Metadata { return &m.meta }

// Device is where the model is.
func (m *Model) Device() torch.Device { return m.device }

// Parameters are the parameters, in the order of the module. They share the module's memory and belong to the model.
func (m *Model) Parameters() []Parameter { return slices.Clone(m.parameters) }

// Forward runs the file's forward in training mode, records gradients, and computes in the precision of
// LoadOptions. Arguments and result are those of [jit.Module.Forward].
func (m *Model) Forward(ctx context.Context, args ...any) (any, error) {
	return m.forward.CallWith(ctx, torch.CallOptions{Mode: torch.Grad, Autocast: m.precision}, args...)
}

// LoadWeights takes parameters and buffers of another model file: those of the same name and shape; and of the
// ViT those that have the same name below it, so that a detector or a segmentation model starts from a
// classifier's ViT. It gives the names of what this model's ViT has and the file has not, or in another shape;
// where nothing of the ViT is there, the error is ErrOptions. It comes before [Model.InitHead], as heads of other
// shapes are left as they are.
func (m *Model) LoadWeights(path string) (missing []string, err error) {
	other, err := jit.Load(path, jit.LoadOptions{})
	if err != nil {
		return nil, err
	}
	defer other.Close()
	parameters, err := other.NamedParameters()
	defer closeNamed(parameters)
	if err != nil {
		return nil, err
	}
	buffers, err := other.NamedBuffers()
	defer closeNamed(buffers)
	if err != nil {
		return nil, err
	}
	byName := map[string]*torch.Tensor{}
	for _, t := range slices.Concat(parameters, buffers) {
		byName[t.Name] = t.Tensor
	}
	_, root := divide(parameters)
	take := func(name, own string, t *torch.Tensor) (bool, error) {
		from := byName[name]
		if from == nil {
			if below, ok := strings.CutPrefix(own, m.root); ok {
				from = byName[root+below]
			}
		}
		if from == nil || !slices.Equal(from.Shape(), t.Shape()) {
			return false, nil
		}
		return true, t.CopyFrom(from)
	}
	taken := 0
	for _, p := range m.parameters {
		own := ""
		if p.ViT {
			own = p.Name
		}
		ok, err := take(p.Name, own, p.Tensor)
		switch {
		case err != nil:
			return nil, fmt.Errorf("weights %s: %s: %w", path, p.Name, err)
		case ok && p.ViT:
			taken++
		case !ok && p.ViT:
			missing = append(missing, p.Name)
		}
	}
	for _, b := range m.buffers {
		if _, err := take(b.Name, b.Name, b.Tensor); err != nil {
			return nil, fmt.Errorf("weights %s: %s: %w", path, b.Name, err)
		}
	}
	if taken == 0 {
		return nil, fmt.Errorf("weights %s: %w: no parameter of the ViT of %s is there by name and shape", path, ErrOptions, m.name)
	}
	return missing, nil
}

func closeNamed(tensors []jit.NamedTensor) {
	for _, t := range tensors {
		t.Tensor.Close()
	}
}

// replica is a module of its own with a model's weights, in evaluation mode.
type replica struct {
	module             *jit.Module
	parameters, buffer []jit.NamedTensor
}

func (r *replica) close() {
	if r == nil {
		return
	}
	closeNamed(r.parameters)
	closeNamed(r.buffer)
	r.module.Close()
}

// refresh makes the replica where there is none, and gives it the present weights. It has a compiled code of its
// own, so that what TorchScript's executor learns of evaluation does not slow training.
func (m *Model) refresh() (*replica, error) {
	if m.copy == nil {
		data, err := m.module.Bytes(nil)
		if err != nil {
			return nil, err
		}
		r := &replica{}
		// What libtorch has just written needs no check.
		if r.module, err = jit.LoadBytes(data, jit.LoadOptions{Device: m.device, Unchecked: true}); err != nil {
			return nil, err
		}
		r.parameters, err = r.module.NamedParameters()
		if err == nil {
			r.buffer, err = r.module.NamedBuffers()
		}
		for _, p := range r.parameters {
			if err == nil {
				err = p.Tensor.SetRequiresGrad(false)
			}
		}
		if err == nil {
			err = r.module.Eval()
		}
		if err != nil {
			r.close()
			return nil, err
		}
		m.copy = r
		return r, nil
	}
	for i, p := range m.copy.parameters {
		if err := p.Tensor.CopyFrom(m.parameters[i].Tensor); err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	for i, b := range m.copy.buffer {
		if err := b.Tensor.CopyFrom(m.buffers[i].Tensor); err != nil {
			return nil, fmt.Errorf("%s: %w", b.Name, err)
		}
	}
	return m.copy, nil
}

// borrowed is a module that somebody else closes.
type borrowed struct{ *jit.Module }

func (borrowed) Close() error { return nil }

// Answers is the model with its present weights in evaluation mode, for answers: the tasks' own types, as
// seg.VisionTransformerForSegmentation, embed it. It is valid until the next call of Answers, Save or Close, and
// need not be closed.
func (m *Model) Answers() (*vit.Model, error) {
	r, err := m.refresh()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.name, err)
	}
	meta := m.meta
	return vit.NewModel(borrowed{r.module}, m.name, vit.Options{Device: m.device, Metadata: &meta})
}

// state gives all that training changes in the model, by name. The tensors are the model's.
func (m *Model) state() map[string]*torch.Tensor {
	out := make(map[string]*torch.Tensor, len(m.parameters)+len(m.buffers))
	for _, p := range m.parameters {
		out["parameters/"+p.Name] = p.Tensor
	}
	for _, b := range m.buffers {
		out["buffers/"+b.Name] = b.Tensor
	}
	return out
}

// loadState writes what state gave, all of it or an error.
func (m *Model) loadState(state map[string]*torch.Tensor) error {
	own := m.state()
	for _, name := range slices.Sorted(maps.Keys(own)) {
		t := state[name]
		if t == nil {
			return fmt.Errorf("%w: got no %s, want what %s has", ErrRun, name, m.name)
		}
		if !slices.Equal(t.Shape(), own[name].Shape()) || t.DType() != own[name].DType() {
			return fmt.Errorf("%w: %s: got %s %v, want %s %v", ErrRun, name, t.DType(), t.Shape(), own[name].DType(), own[name].Shape())
		}
		if err := own[name].CopyFrom(t); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
