package vit

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/transforms"
)

// Errors to test for with errors.Is.
var (
	// ErrTask: the file was made for another task.
	ErrTask = errors.New("wrong task")
	// ErrNoMethod: the file has no such method.
	ErrNoMethod = errors.New("no such method")
	// ErrNoMetadata: the file does not describe itself, and nothing else does.
	ErrNoMetadata = errors.New("no metadata")
	// ErrOutput: the model's answer is not of the kind that the task needs.
	ErrOutput = errors.New("unexpected output")
)

// Runtime is what a task needs of a model: *jit.Module is one.
type Runtime interface {
	// Call runs a method; arguments and result as of jit.Module.Forward.
	Call(ctx context.Context, method string, args ...any) (any, error)
	// HasMethod reports whether there is a method of that name.
	HasMethod(name string) bool
	// Close frees the model.
	Close() error
}

// Options say how a model file is loaded. The zero value loads it to the CPU as it is.
type Options struct {
	Device torch.Device
	// DType casts parameters and inputs; InvalidDType leaves the file's float32.
	DType torch.DType
	// Precision chooses the kernels: jit.LoadOptions.Precision.
	Precision torch.Precision
	// ChannelsLast is jit.LoadOptions.ChannelsLast.
	ChannelsLast bool
	// CUDAGraphs is jit.LoadOptions.CUDAGraphs.
	CUDAGraphs bool
	// Note is jit.LoadOptions.Note.
	Note func(note string)
	// Metadata stands in for what the file says of itself.
	Metadata *Metadata
	// Task is the task of a file of which nothing says it; one that says another keeps that.
	Task string
	// Transforms sets how photos are decoded: EXIF orientation, Pillow's version, limits.
	Transforms transforms.Options
}

// MetadataFile and ReferenceFile are the extra files in a model file.
const (
	MetadataFile  = "torchvit.json"
	ReferenceFile = "torchvit.reference.npz"
)

// Model is a model file at work: a runtime and what is known of it. The tasks are built on it.
type Model struct {
	runtime  Runtime
	name     string
	meta     *Metadata
	device   torch.Device
	dtype    torch.DType
	pipeline *transforms.Pipeline
	decoding transforms.Options
	needs    error // what is missing to prepare photos
}

// LoadModel loads a model file for any task. Without Options.Metadata the file is known by what [Describe]
// finds; where that does not say how photos are prepared the model takes tensors only.
func LoadModel(path string, o Options) (*Model, error) {
	var needs error
	if o.Metadata == nil {
		d, err := Describe(path)
		if err != nil {
			return nil, err
		}
		if o.Metadata, err = d.Metadata(o.Task); err != nil {
			return nil, err
		}
		needs = d.Need(o.Metadata.Task)
	}
	module, err := jit.Load(path, jit.LoadOptions{
		Device: o.Device, DType: o.DType, Precision: o.Precision, ChannelsLast: o.ChannelsLast, CUDAGraphs: o.CUDAGraphs, Note: o.Note,
	})
	if err != nil {
		return nil, err
	}
	if err := module.Eval(); err != nil {
		module.Close()
		return nil, err
	}
	m, err := NewModel(module, filepath.Base(path), o)
	if err != nil {
		module.Close()
		return nil, err
	}
	m.needs = needs
	return m, nil
}

// ReadMetadata reads what is known of a model file, without libtorch: [Describe] says where it looks.
// ErrNoMetadata where nothing says what the file's task is.
func ReadMetadata(path string) (*Metadata, error) {
	d, err := Describe(path)
	if err != nil {
		return nil, err
	}
	return d.Metadata("")
}

// NewModel builds a model on any runtime, which it closes with itself. o.Metadata is needed.
func NewModel(runtime Runtime, name string, o Options) (*Model, error) {
	if o.Metadata == nil {
		return nil, fmt.Errorf("model %s: %w", name, ErrNoMetadata)
	}
	// So that a photo is on its way to the device while the next one is decoded.
	o.Transforms.PinMemory = o.Transforms.PinMemory || o.Device.IsCUDA()
	pipeline, err := transforms.NewPipeline(o.Metadata.Preprocess, o.Transforms)
	if err != nil {
		return nil, fmt.Errorf("model %s: preprocess: %w", name, err)
	}
	return &Model{runtime: runtime, name: name, meta: o.Metadata, device: o.Device, dtype: o.DType, pipeline: pipeline, decoding: o.Transforms}, nil
}

// Close frees the model. It always returns nil.
func (m *Model) Close() error {
	if m != nil {
		m.runtime.Close()
	}
	return nil
}

// Metadata is what is known of the file. Not to be changed.
func (m *Model) Metadata() *Metadata { return m.meta }

// Runtime is the runnable module, for methods that this package does not know.
func (m *Model) Runtime() Runtime { return m.runtime }

// Label is labels[index], or "class INDEX" where the file has none.
func (m *Model) Label(index int) string {
	if index >= 0 && index < len(m.meta.Labels) {
		return m.meta.Labels[index]
	}
	return fmt.Sprintf("class %d", index)
}

// Need gives ErrTask unless the file was made for one of the tasks.
func (m *Model) Need(what string, tasks ...string) error {
	if slices.Contains(tasks, m.meta.Task) {
		return nil
	}
	return fmt.Errorf("%s: %w: got %s, a file for %s, want one for %s (`scripts/export.py --help` makes one)", what, ErrTask, m.name, m.meta.Task, strings.Join(tasks, " or "))
}

// Call runs a method of the file; ErrNoMethod where it has none of that name.
func (m *Model) Call(ctx context.Context, method string, args ...any) (any, error) {
	if !m.runtime.HasMethod(method) {
		return nil, fmt.Errorf("%s: %w: %s has no method %s; `scripts/export.py` makes a file that has", method, ErrNoMethod, m.name, method)
	}
	return m.runtime.Call(ctx, method, args...)
}

// Tensor runs a method that gives one tensor, which is the caller's.
func (m *Model) Tensor(ctx context.Context, method string, args ...any) (*torch.Tensor, error) {
	v, err := m.Call(ctx, method, args...)
	if err != nil {
		return nil, err
	}
	t, ok := v.(*torch.Tensor)
	if !ok {
		torch.CloseAll(v)
		return nil, fmt.Errorf("%s: %w: got %T, want one tensor", method, ErrOutput, v)
	}
	return t, nil
}

// Pair runs a method that gives two tensors, which are the caller's.
func (m *Model) Pair(ctx context.Context, method string, args ...any) (first, second *torch.Tensor, err error) {
	v, err := m.Call(ctx, method, args...)
	if err != nil {
		return nil, nil, err
	}
	if pair, ok := v.(torch.Tuple); ok && len(pair) == 2 {
		a, ok1 := pair[0].(*torch.Tensor)
		b, ok2 := pair[1].(*torch.Tensor)
		if ok1 && ok2 {
			return a, b, nil
		}
	}
	torch.CloseAll(v)
	return nil, nil, fmt.Errorf("%s: %w: got %T, want a tuple of two tensors", method, ErrOutput, v)
}

// Input is a photo as the model sees it.
type Input struct {
	// Pixels is (B, 3, H, W) on the model's device in the model's dtype.
	Pixels *torch.Tensor
	// Geometry tells for each photo of the batch how it was resized, cropped and padded.
	Geometry []transforms.Geometry
	// Index is the place of each photo of the batch among the images that were given.
	Index []int
}

// Prepare runs the file's preprocess on photos: exactly what Forward would get. Photos whose tensors
// have one shape share a batch, up to maxBatch photos (0: no limit). The caller closes the inputs. Where
// nothing says how photos are prepared the error is ErrNoMetadata.
func (m *Model) Prepare(ctx context.Context, maxBatch int, images ...transforms.Source) ([]Input, error) {
	if m.needs != nil {
		return nil, m.needs
	}
	return m.prepare(ctx, m.pipeline, maxBatch, images)
}

// PrepareAs is Prepare with another preprocess than the file's, as for other sizes of a photo.
func (m *Model) PrepareAs(ctx context.Context, spec transforms.Spec, maxBatch int, images ...transforms.Source) ([]Input, error) {
	pipeline, err := transforms.NewPipeline(spec, m.decoding)
	if err != nil {
		return nil, fmt.Errorf("model %s: preprocess: %w", m.name, err)
	}
	return m.prepare(ctx, pipeline, maxBatch, images)
}

// OpenPhoto decodes a photo as Prepare does. The caller closes it; Prepare and PrepareAs take it as a source.
func (m *Model) OpenPhoto(ctx context.Context, photo transforms.Source) (*transforms.Image, error) {
	return m.pipeline.Load(ctx, photo)
}

func (m *Model) prepare(ctx context.Context, pipeline *transforms.Pipeline, maxBatch int, images []transforms.Source) ([]Input, error) {
	batches, err := pipeline.Batches(ctx, maxBatch, images...)
	if err != nil {
		return nil, err
	}
	inputs := make([]Input, 0, len(batches))
	for i, b := range batches {
		pixels, err := m.adopt(b.Pixels)
		if err != nil {
			for _, rest := range batches[i+1:] {
				rest.Pixels.Close()
			}
			CloseInputs(inputs)
			return nil, err
		}
		inputs = append(inputs, Input{Pixels: pixels, Geometry: b.Geometry, Index: b.Index})
	}
	return inputs, nil
}

// adopt brings a tensor to the model's device and dtype, closing t where it makes another.
func (m *Model) adopt(t *torch.Tensor) (*torch.Tensor, error) {
	for _, step := range []func(*torch.Tensor) (*torch.Tensor, error){
		func(t *torch.Tensor) (*torch.Tensor, error) {
			if !m.device.IsCUDA() {
				return nil, nil
			}
			return t.ToNonBlocking(m.device)
		},
		func(t *torch.Tensor) (*torch.Tensor, error) {
			if m.dtype == torch.InvalidDType || m.dtype == torch.Float32 {
				return nil, nil
			}
			return t.CastTo(m.dtype)
		},
	} {
		next, err := step(t)
		if err != nil {
			t.Close()
			return nil, err
		}
		if next != nil {
			t.Close()
			t = next
		}
	}
	return t, nil
}

// CloseInputs closes the pixels of inputs.
func CloseInputs(inputs []Input) {
	for _, in := range inputs {
		in.Pixels.Close()
	}
}
