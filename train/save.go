package train

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"strings"

	"github.com/torchvit/torchvit/internal/whole"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/torch/npy"
	"github.com/torchvit/torchvit/vit"
)

// by is the program that trains.
const by = "torchvit"

// Save writes the model with its present weights as a model file, whole or not at all: in evaluation mode, with
// metadata, training as its part of that, and a fresh reference, whose inputs are those of the file that was
// loaded, else one of noise. Further extra files stay. Every part of this module takes the file, and so does
// torch.jit.load.
func (m *Model) Save(ctx context.Context, path string, training *vit.Training) error {
	if err := m.save(ctx, path, training); err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	return nil
}

func (m *Model) save(ctx context.Context, path string, training *vit.Training) error {
	r, err := m.refresh()
	if err != nil {
		return err
	}
	meta := m.meta
	meta.Format = vit.MetadataFormat
	meta.Training = training
	info, err := torch.RuntimeInfo()
	if err != nil {
		return err
	}
	meta.Torch, _, _ = strings.Cut(info.Version, "+")
	extra := maps.Clone(m.extra)
	module, model, err := m.cpuCopy(r)
	if err != nil {
		return err
	}
	defer model.Close()
	var arrays *npy.Zip
	if meta.Reference, arrays, err = m.makeReference(ctx, model); err != nil {
		return err
	}
	if extra[vit.ReferenceFile], err = packed(arrays); err != nil {
		return err
	}
	if err := meta.Validate(); err != nil {
		return err
	}
	text, err := json.MarshalIndent(&meta, "", " ")
	if err != nil {
		return err
	}
	extra[vit.MetadataFile] = string(text)
	data, err := module.Bytes(extra)
	if err != nil {
		return err
	}
	f, err := whole.Create(path)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

// packed is a compressed npz.
func packed(arrays *npy.Zip) (string, error) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range arrays.Names() {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name + ".npy", Method: zip.Deflate})
		if err == nil {
			err = npy.Write(w, arrays.Get(name))
		}
		if err != nil {
			return "", err
		}
	}
	err := z.Close()
	return b.String(), err
}

// noise is an input in -2..2 with 64 levels, always the same, so that it compresses well.
func noise(shape ...int64) (*torch.Tensor, error) {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	values := make([]float32, n)
	x := uint64(1)
	for i := range values {
		x = x*6364136223846793005 + 1442695040888963407 // Knuth's MMIX
		values[i] = float32(int64(x>>58)-32) / 16
	}
	return torch.NewTensor(values, shape...)
}

// calls are those of the reference: the file's, else forward on noise.
func (m *Model) calls(inputs *npy.Zip) ([]vit.ReferenceCall, error) {
	if r := m.meta.Reference; r != nil && m.reference != nil {
		for _, name := range m.reference.Names() {
			inputs.Add(name, m.reference.Get(name))
		}
		return r.Calls, nil
	}
	height, width := m.inputSize()
	t, err := noise(3, height, width)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	call := vit.ReferenceCall{Method: "forward", Inputs: []vit.ReferenceInput{{Tensors: []string{"c0.in0.0"}}}}
	name := "c0.in0.0"
	if m.meta.Layout() != vit.LayoutList {
		name = "c0.in0"
		call.Inputs[0] = vit.ReferenceInput{Tensor: name}
		batch, err := t.Unsqueeze(0)
		if err != nil {
			return nil, err
		}
		defer batch.Close()
		t = batch
	}
	a, err := t.Numpy()
	if err != nil {
		return nil, err
	}
	inputs.Add(name, a)
	return []vit.ReferenceCall{call}, nil
}

// cpuCopy is a replica as its file will be loaded, and the model that owns it: files of a CUDA device's tensors
// would want such a device.
func (m *Model) cpuCopy(r *replica) (*jit.Module, *vit.Model, error) {
	file, err := r.module.Bytes(nil)
	if err != nil {
		return nil, nil, err
	}
	module, err := jit.LoadBytes(file, jit.LoadOptions{Unchecked: true})
	if err != nil {
		return nil, nil, err
	}
	meta := m.meta
	model, err := vit.NewModel(module, m.name, vit.Options{Metadata: &meta})
	if err != nil {
		module.Close()
		return nil, nil, err
	}
	return module, model, nil
}

// makeReference computes the reference of a model.
func (m *Model) makeReference(ctx context.Context, model *vit.Model) (*vit.Reference, *npy.Zip, error) {
	inputs := &npy.Zip{}
	calls, err := m.calls(inputs)
	if err != nil {
		return nil, nil, err
	}
	return model.MakeReference(ctx, calls, inputs)
}

// gone tells whether a file is not there.
func gone(path string) bool {
	_, err := os.Stat(path)
	return err != nil
}
