package torch

import (
	"fmt"

	"github.com/torchvit/torchvit/torch/npy"
)

// LoadNpy is torch.from_numpy(numpy.load(path)): a tensor from a .npy file, in memory of libtorch. The
// caller closes it.
func LoadNpy(path string) (*Tensor, error) {
	a, err := npy.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load npy: %w", err)
	}
	return FromNumpy(a)
}

// SaveNpy is numpy.save(path, t.numpy()), whole or not at all; bfloat16 is written as float32.
func SaveNpy(path string, t *Tensor) error {
	a, err := t.Numpy()
	if err != nil {
		return fmt.Errorf("save npy: %w", err)
	}
	if err := npy.WriteFile(path, a); err != nil {
		return fmt.Errorf("save npy: %w", err)
	}
	return nil
}

// LoadNpz reads a .npz file: a tensor for each array, by name, in memory of libtorch. The caller closes
// them, CloseAll all at once.
func LoadNpz(path string) (map[string]*Tensor, error) {
	z, err := npy.ReadZipFile(path)
	if err != nil {
		return nil, fmt.Errorf("load npz: %w", err)
	}
	tensors := make(map[string]*Tensor, z.Len())
	for _, name := range z.Names() {
		t, err := FromNumpy(z.Get(name))
		if err != nil {
			CloseAll(tensors)
			return nil, fmt.Errorf("load npz: %s: %w", name, err)
		}
		tensors[name] = t
	}
	return tensors, nil
}

// SaveNpz is numpy.savez(path, **tensors), sorted by name, whole or not at all; bfloat16 is written as
// float32.
func SaveNpz(path string, tensors map[string]*Tensor) error {
	var z npy.Zip
	for _, name := range sortedKeys(tensors) {
		a, err := tensors[name].Numpy()
		if err != nil {
			return fmt.Errorf("save npz: %s: %w", name, err)
		}
		z.Add(name, a)
	}
	if err := npy.WriteZipFile(path, &z); err != nil {
		return fmt.Errorf("save npz: %w", err)
	}
	return nil
}
