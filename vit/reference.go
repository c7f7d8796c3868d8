package vit

import (
	"context"
	"errors"
	"fmt"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/npy"
)

const (
	// referenceBy is what a reference says of who computed it.
	referenceBy = "torchvit"
	// referenceWarmup is how often a call runs before its answer counts: TorchScript's executor settles within
	// the first.
	referenceWarmup = 3
	// referenceTolerance is that of scripts/modelfile.py, for another machine.
	referenceTolerance = 1e-4
)

// MakeReference computes the reference of a model file that is about to be written: the answers of calls, whose
// inputs are arrays, on the CPU in float32. It gives what torchvit.json says of them and all arrays, the inputs
// among them; Verify replays both. The model must be one that was loaded anew, as the file will be.
func (m *Model) MakeReference(ctx context.Context, calls []ReferenceCall, inputs *npy.Zip) (*Reference, *npy.Zip, error) {
	info, err := torch.RuntimeInfo()
	if err != nil {
		return nil, nil, err
	}
	ref := &Reference{
		By: referenceBy, Torch: baseVersion(info.Version), Threads: 1, DType: torch.Float32.String(),
		CPUVendor: cpuVendor(), CPUCapability: info.CPUCapability, ATol: referenceTolerance, RTol: referenceTolerance,
	}
	if len(info.LaneThreads) > 0 {
		ref.Threads = int(info.LaneThreads[0])
	}
	arrays := &npy.Zip{}
	for k, call := range calls {
		for _, name := range (&Reference{Calls: []ReferenceCall{{Inputs: call.Inputs}}}).Arrays() {
			if a := inputs.Get(name); a != nil {
				arrays.Add(name, a)
			}
		}
		outputs, err := m.answer(ctx, k, call, inputs, arrays)
		if err != nil {
			return nil, nil, fmt.Errorf("reference: %s: %w", call.Method, err)
		}
		call.Outputs = outputs
		ref.Calls = append(ref.Calls, call)
	}
	return ref, arrays, nil
}

// answer makes call k and adds its answer to arrays; it gives the names of its outputs.
func (m *Model) answer(ctx context.Context, k int, call ReferenceCall, inputs, arrays *npy.Zip) ([]string, error) {
	var scope torch.Scope
	defer scope.Close()
	own := torch.Own(&scope)
	args := make([]any, len(call.Inputs))
	for i, in := range call.Inputs {
		var err error
		if args[i], _, err = m.referenceInput(ctx, &scope, in, inputs); err != nil {
			return nil, fmt.Errorf("input %d: %w", i, err)
		}
	}
	var answer any
	for range referenceWarmup + 1 {
		torch.CloseAll(answer)
		var err error
		if answer, err = m.Call(ctx, call.Method, args...); err != nil {
			return nil, err
		}
	}
	scope.Track(answer)
	var names []string
	for _, o := range Outputs(answer) {
		t, err := plainTensor(o.Value, torch.Float32, own)
		if v, is := o.Value.(*torch.Tensor); is {
			t, err = v, nil
		}
		if err != nil {
			return nil, err
		}
		if t == nil {
			continue
		}
		a, err := t.Numpy()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.Name, err)
		}
		arrays.Add(OutputArray(k, o.Name), a)
		names = append(names, o.Name)
	}
	if names == nil {
		return nil, errors.New("got no tensors and no numbers")
	}
	return names, nil
}
