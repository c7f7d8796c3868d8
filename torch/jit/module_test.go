package jit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
)

func TestMethods(t *testing.T) {
	m := load(t, "methods")
	x := tensorOf(t, []float32{1, 2, 3, 4}, 2, 2)

	var names []string
	for _, info := range m.Methods() {
		names = append(names, info.Name)
		assert.False(t, info.Stateful, info.Name)
		assert.True(t, m.HasMethod(info.Name))
	}
	assert.ElementsMatch(t, []string{"forward", "scaled", "pick", "blocks"}, names)
	assert.False(t, m.HasMethod("missing"))

	scaled, err := m.Method("scaled")
	require.NoError(t, err)
	schema := scaled.Info().Schema
	for _, part := range []string{"scaled(", "Tensor x", "float scale=0.5", "int offset=1", "-> Tensor"} {
		assert.Contains(t, schema, part)
	}
	for _, c := range []struct {
		args []any
		want []float32
	}{
		{[]any{x}, []float32{1.5, 2, 2.5, 3}},
		{[]any{x, 2}, []float32{3, 5, 7, 9}},
		{[]any{x, 2.0, 0}, []float32{2, 4, 6, 8}},
	} {
		out, err := scaled.Call(t.Context(), c.args...)
		require.NoError(t, err)
		assert.Equal(t, c.want, floats(t, out))
		torch.CloseAll(out)
	}
	assert.Equal(t, []float32{7, 10, 15, 22}, floats(t, call(t, m, "forward", x)))
	assert.Equal(t, []float32{3, 4}, floats(t, call(t, m, "pick", x, 1)))
	assert.Equal(t, []float32{3, 4}, floats(t, call(t, m, "pick", x, -1)))
	blocks, ok := call(t, m, "blocks", x, []int{2, 0}).([]*torch.Tensor)
	require.True(t, ok)
	require.Len(t, blocks, 2)
	assert.Equal(t, []float32{2, 4, 6, 8}, floats(t, blocks[0]))
	assert.Equal(t, []float32{0, 0, 0, 0}, floats(t, blocks[1]))
}

// TestStateful reads which methods write the module: those that set an attribute or change one in
// place, not those that only read or change their arguments.
func TestStateful(t *testing.T) {
	for name, want := range map[string]map[string]bool{
		"counter":    {"forward": true, "count": false, "reset": true},
		"methods":    {"forward": false, "scaled": false, "pick": false, "blocks": false},
		"memory":     {"forward": false, "add_": false, "alias": false},
		"attributes": {"forward": false},
		"detections": {"forward": false},
		"slow":       {"forward": false},
	} {
		for _, info := range load(t, name).Methods() {
			assert.Equal(t, want[info.Name], info.Stateful, "%s.%s", name, info.Name)
		}
	}
	m := state(t)
	want := map[string]bool{
		"forward": false, "in_place": true, "through_view": true, "through_helper": true, "through_branch": true,
		"through_loop": true, "list_append": true, "nested": true, "own_tensor": false, "argument": false, "object": false,
		"object_of_state": true, "copy_first": false, "relu_on_result": false,
	}
	for _, info := range m.Methods() {
		if expect, ok := want[info.Name]; ok {
			assert.Equal(t, expect, info.Stateful, info.Name)
			delete(want, info.Name)
		}
	}
	assert.Empty(t, want, "methods that the module does not have")
}

func TestAttributes(t *testing.T) {
	m := load(t, "attributes")
	types := map[string]string{}
	for _, a := range m.Attributes() {
		types[a.Name] = a.Type
	}
	for name, kind := range map[string]string{
		"flag": "bool", "count": "int", "ratio": "float", "name": "str", "sizes": "int[]", "table": "Dict(str, int)", "nothing": "int?",
	} {
		assert.Equal(t, kind, types[name], name)
	}
	assert.Contains(t, types["linear"], "Linear")

	for name, want := range map[string]any{
		"flag": true, "count": int64(7), "ratio": 0.25, "name": "attributes", "sizes": []int64{2, 3, 4},
		"table": map[string]any{"a": int64(1), "b": int64(2)}, "nothing": nil,
	} {
		got, err := m.Attribute(name)
		require.NoError(t, err, name)
		assert.Equal(t, want, got, name)
	}
	for name, value := range map[string]any{
		"flag": false, "count": int64(3), "ratio": 2.5, "name": "ü", "sizes": []int64{}, "table": map[string]any{"z": int64(26)}, "nothing": int64(5),
	} {
		require.NoError(t, m.SetAttribute(name, value), name)
		got, err := m.Attribute(name)
		require.NoError(t, err, name)
		assert.Equal(t, value, got, name)
	}
	// The code sees it.
	x := tensorOf(t, []float32{1, 2}, 1, 2)
	assert.Equal(t, []float32{3, 6}, floats(t, call(t, m, "forward", x)))

	_, err := m.Attribute("missing")
	assert.ErrorIs(t, err, torch.ErrNotFound)
	assert.ErrorContains(t, err, `got "missing"`)
	assert.ErrorIs(t, m.SetAttribute("missing", 1), torch.ErrNotFound)
	err = m.SetAttribute("count", "three")
	assert.ErrorIs(t, err, torch.ErrInvalidArgument)
	assert.ErrorContains(t, err, "got str, want int")
	_, err = m.Attribute("linear")
	assert.ErrorIs(t, err, torch.ErrValue, "a submodule is no value of Go")
}

func TestParametersAndBuffers(t *testing.T) {
	m := load(t, "dtypes")
	parameters, err := m.NamedParameters()
	require.NoError(t, err)
	buffers, err := m.NamedBuffers()
	require.NoError(t, err)
	var names []string
	for _, p := range parameters {
		names = append(names, p.Name+" "+p.Tensor.DType().String())
		assert.True(t, p.Tensor.RequiresGrad())
		p.Tensor.Close()
	}
	assert.Equal(t, []string{"p_float16 float16", "p_bfloat16 bfloat16", "p_float32 float32", "p_float64 float64"}, names)
	assert.Len(t, buffers, 10)
	for _, b := range buffers {
		assert.Equal(t, "b_"+b.Tensor.DType().String(), b.Name)
		b.Tensor.Close()
	}

	// They share the module's memory, and live without it.
	m = load(t, "attributes")
	parameters, err = m.NamedParameters()
	require.NoError(t, err)
	require.Len(t, parameters, 2)
	assert.Equal(t, "linear.weight", parameters[0].Name, "Python's order")
	assert.Equal(t, "linear.bias", parameters[1].Name)
	weight := parameters[0].Tensor
	require.NoError(t, torch.WithData(weight, func(w []float32) error {
		assert.Equal(t, []float32{1, 0, 0, 1}, w)
		w[0] = 10
		return nil
	}))
	x := tensorOf(t, []float32{1, 2}, 1, 2)
	assert.Equal(t, []float32{70, 14}, floats(t, call(t, m, "forward", x)))
	m.Close()
	assert.Equal(t, []float32{10, 0, 0, 1}, floats(t, weight))
	for _, p := range parameters {
		p.Tensor.Close()
	}
}

func TestTrainAndEval(t *testing.T) {
	m := load(t, "norm")
	x := tensorOf(t, []float32{1, 2, 5, 8}, 2, 2)
	assert.False(t, m.Training())
	eval := floats(t, call(t, m, "forward", x))
	assert.InDeltaSlice(t, []float32{0, 0, 2, 2}, eval, 1e-4)

	require.NoError(t, m.Train(true))
	assert.True(t, m.Training())
	training, err := m.Attribute("training")
	require.NoError(t, err)
	assert.Equal(t, true, training)
	require.NoError(t, torch.ManualSeed(3))
	trained := floats(t, call(t, m, "forward", x))
	for _, v := range trained { // normalised by the batch, then dropped or doubled
		assert.Contains(t, []float64{0, -2, 2}, float64(int(v*1000+copysign(0.5, v)))/1000, "%v", trained)
	}
	// Batch statistics went into the running ones.
	buffers, err := m.NamedBuffers()
	require.NoError(t, err)
	for _, b := range buffers {
		if strings.HasSuffix(b.Name, "running_mean") {
			assert.InDeltaSlice(t, []float32{0.9*1 + 0.1*3, 0.9*2 + 0.1*5}, floats(t, b.Tensor), 1e-6)
		}
		b.Tensor.Close()
	}
	require.NoError(t, m.Eval())
	assert.False(t, m.Training())
	assert.NotEqual(t, eval, floats(t, call(t, m, "forward", x)))
}

func copysign(v float64, sign float32) float32 {
	if sign < 0 {
		return -float32(v)
	}
	return float32(v)
}

func TestCastTo(t *testing.T) {
	m := load(t, "methods")
	require.NoError(t, m.CastTo(torch.BFloat16))
	parameters, err := m.NamedParameters()
	require.NoError(t, err)
	assert.Equal(t, torch.BFloat16, parameters[0].Tensor.DType())
	parameters[0].Tensor.Close()

	x := tensorOf(t, []float32{1, 2, 3, 4}, 2, 2)
	_, err = m.Forward(t.Context(), x)
	assert.ErrorIs(t, err, torch.ErrDType)
	b, err := x.CastTo(torch.BFloat16)
	require.NoError(t, err)
	defer b.Close()
	out, ok := call(t, m, "forward", b).(*torch.Tensor)
	require.True(t, ok)
	assert.Equal(t, torch.BFloat16, out.DType())
	assert.Equal(t, []float32{7, 10, 15, 22}, floats(t, out))

	assert.ErrorIs(t, m.CastTo(torch.Int64), torch.ErrDType)
	require.NoError(t, m.To(torch.CPU))
	assert.ErrorIs(t, m.To(torch.Device{Type: "cuda"}), torch.ErrCUDANotLoaded)
	assert.ErrorIs(t, m.To(torch.Device{Type: "tpu"}), torch.ErrDevice)

	half, err := jit.Load(modulePath(t, "methods"), jit.LoadOptions{DType: torch.Float64})
	require.NoError(t, err)
	defer half.Close()
	_, err = half.Forward(t.Context(), x)
	assert.ErrorIs(t, err, torch.ErrDType)
	_, err = jit.Load(modulePath(t, "methods"), jit.LoadOptions{DType: torch.Int8})
	assert.ErrorIs(t, err, torch.ErrDType)
	_, err = jit.Load(modulePath(t, "methods"), jit.LoadOptions{Device: torch.Device{Type: "cuda"}})
	assert.ErrorIs(t, err, torch.ErrCUDANotLoaded)
}

// TestClone proves that a clone has parameters, buffers and attributes of its own.
func TestClone(t *testing.T) {
	m := load(t, "counter")
	x := tensorOf(t, []float32{1, 2})
	assert.Equal(t, []float32{3}, floats(t, call(t, m, "forward", x)))

	c, err := m.Clone()
	require.NoError(t, err)
	defer c.Close()
	assert.Equal(t, m.Methods(), c.Methods())
	assert.Equal(t, []float32{6}, floats(t, call(t, c, "forward", x)), "the state goes along")
	assert.Equal(t, []float32{9}, floats(t, call(t, c, "forward", x)))
	assert.Equal(t, int64(1), call(t, m, "count"))
	assert.Equal(t, int64(3), call(t, c, "count"))
	assert.Equal(t, []float32{6}, floats(t, call(t, m, "forward", x)))
	call(t, c, "reset")
	assert.Equal(t, int64(2), call(t, m, "count"))
	m.Close()
	assert.Equal(t, []float32{3}, floats(t, call(t, c, "forward", x)))

	// In place, too.
	a := load(t, "attributes")
	b, err := a.Clone()
	require.NoError(t, err)
	defer b.Close()
	parameters, err := b.NamedParameters()
	require.NoError(t, err)
	for _, p := range parameters {
		require.NoError(t, torch.WithData(p.Tensor, func(w []float32) error { w[0] = 99; return nil }))
		p.Tensor.Close()
	}
	row := tensorOf(t, []float32{1, 2}, 1, 2)
	assert.Equal(t, []float32{7, 14}, floats(t, call(t, a, "forward", row)))
	assert.NotEqual(t, []float32{7, 14}, floats(t, call(t, b, "forward", row)))
}

// TestStateIsSerialised calls a module that counts from many goroutines: no call is lost.
func TestStateIsSerialised(t *testing.T) {
	m := load(t, "counter")
	x := tensorOf(t, []float32{1})
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 25 {
				y, err := m.Forward(context.Background(), x)
				if !assert.NoError(t, err) {
					return
				}
				torch.CloseAll(y)
			}
		})
	}
	group.Wait()
	assert.Equal(t, int64(200), call(t, m, "count"))
	assert.Equal(t, []float32{201}, floats(t, call(t, m, "forward", x)))
}

func TestSaveAndLoad(t *testing.T) {
	m := load(t, "counter")
	x := tensorOf(t, []float32{1, 2})
	call(t, m, "forward", x)
	extra := map[string]string{"torchvit.json": `{"format":1}`, "binary": "\x00\xff\x00", "dir/note.txt": "Grüße", "empty": ""}
	path := filepath.Join(t.TempDir(), "saved.pt")
	require.NoError(t, m.Save(path, extra))
	data, err := m.Bytes(extra)
	require.NoError(t, err)
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, entries, 1, "no scratch file is left")

	options := jit.LoadOptions{ExtraFiles: []string{"torchvit.json", "binary", "dir/note.txt", "empty", "missing"}}
	for name, open := range map[string]func() (*jit.Module, error){
		"file":  func() (*jit.Module, error) { return jit.Load(path, options) },
		"bytes": func() (*jit.Module, error) { return jit.LoadBytes(data, options) },
	} {
		again, err := open()
		require.NoError(t, err, name)
		clear(data[:0])
		assert.Equal(t, []float32{6}, floats(t, call(t, again, "forward", x)), "%s: state is saved", name)
		for file, want := range extra {
			got, ok := again.ExtraFile(file)
			assert.Equal(t, want, got, "%s: %s", name, file)
			assert.Equal(t, want != "", ok, "%s: %s", name, file)
		}
		_, ok := again.ExtraFile("missing")
		assert.False(t, ok)
		again.Close()
	}
	err = m.Save(filepath.Join(t.TempDir(), "no", "such", "folder.pt"), nil)
	assert.ErrorIs(t, err, os.ErrNotExist)

	// What Python wrote.
	m, err = jit.Load(modulePath(t, "extra"), jit.LoadOptions{ExtraFiles: []string{"labels.json", "note.txt"}})
	require.NoError(t, err)
	defer m.Close()
	labels, ok := m.ExtraFile("labels.json")
	assert.True(t, ok)
	assert.Equal(t, `["cat","dog"]`, labels)
	note, _ := m.ExtraFile("note.txt")
	assert.Equal(t, "Grüße\n", note)
}

// TestLoadedBytesAreNotKept overwrites the bytes after loading.
func TestLoadedBytesAreNotKept(t *testing.T) {
	data, err := os.ReadFile(modulePath(t, "methods"))
	require.NoError(t, err)
	m, err := jit.LoadBytes(data, jit.LoadOptions{})
	require.NoError(t, err)
	defer m.Close()
	for i := range data {
		data[i] = 0xff
	}
	x := tensorOf(t, []float32{1, 2, 3, 4}, 2, 2)
	assert.Equal(t, []float32{7, 10, 15, 22}, floats(t, call(t, m, "forward", x)))
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	_, err := jit.Load(filepath.Join(dir, "missing.pt"), jit.LoadOptions{})
	assert.ErrorIs(t, err, os.ErrNotExist)
	_, err = jit.Load(dir, jit.LoadOptions{})
	assert.ErrorIs(t, err, jit.ErrNotTorchScript)
	for _, text := range []string{"", "x", "not a zip file", strings.Repeat("\x00", 4096), "PK\x03\x04"} {
		_, err = jit.Load(write("bad.pt", text), jit.LoadOptions{})
		assert.True(t, errors.Is(err, jit.ErrNotTorchScript) || errors.Is(err, jit.ErrCorrupt), "%q: %v", text, err)
		assert.NotContains(t, err.Error(), "\n")
		_, err = jit.LoadBytes([]byte(text), jit.LoadOptions{})
		assert.Error(t, err)
		_, err = jit.LoadBytes([]byte(text), jit.LoadOptions{Unchecked: true})
		assert.Error(t, err)
		_, err = jit.Load(filepath.Join(dir, "bad.pt"), jit.LoadOptions{Unchecked: true})
		assert.Error(t, err)
		assert.NotContains(t, err.Error(), "\n")
	}
	_, err = jit.LoadBytes(nil, jit.LoadOptions{Unchecked: true})
	assert.ErrorIs(t, err, jit.ErrNotTorchScript)
}

// TestScriptErrors fails inside TorchScript code: one line for people, the stack for those who look, and
// a kind for programs.
func TestScriptErrors(t *testing.T) {
	m := load(t, "raises")
	x := tensorOf(t, []float32{-1, 2, 3})
	_, err := m.Forward(t.Context(), x)
	require.Error(t, err)
	assert.ErrorIs(t, err, torch.ErrScript)
	assert.Contains(t, err.Error(), "negative value at depth 3")
	assert.NotContains(t, err.Error(), "\n")
	e, ok := errors.AsType[*torch.Error](err)
	require.True(t, ok)
	assert.Equal(t, "forward", e.Op)
	for _, part := range []string{"Traceback of TorchScript", "make_modules.py", "in forward", "<--- HERE", "negative value at depth 3"} {
		assert.Contains(t, e.Detail, part)
	}
	full := fmt.Sprintf("%+v", err)
	assert.True(t, strings.HasPrefix(full, err.Error()+"\n"), full)
	assert.Contains(t, full, "Traceback of TorchScript")
	assert.Equal(t, err.Error(), fmt.Sprintf("%v", err))

	for _, c := range []struct {
		method string
		args   []any
		kind   error
		text   string
	}{
		{"shapes", []any{tensorOf(t, []float32{1, 2, 3, 4}, 2, 2)}, torch.ErrShape, "mat1 and mat2 shapes cannot be multiplied (2x2 and 7x5)"},
		{"check", []any{x}, torch.ErrScript, "want a matrix"},
		{"index", []any{[]int{1, 2}, 5}, torch.ErrInvalidArgument, "list index out of range"},
		{"unicode", []any{x}, torch.ErrScript, "größer als erlaubt ✗"},
	} {
		_, err := m.Call(t.Context(), c.method, c.args...)
		assert.ErrorIs(t, err, c.kind, c.method)
		assert.ErrorContains(t, err, c.text)
		assert.NotContains(t, err.Error(), "\n", c.method)
		e, ok := errors.AsType[*torch.Error](err)
		require.True(t, ok)
		assert.Contains(t, e.Detail, "Traceback of TorchScript", c.method)
	}
	// The module works as before.
	assert.Equal(t, []float32{2}, floats(t, call(t, m, "forward", tensorOf(t, []float32{4}))))
}

// TestWrongTensors gives tensors of the wrong shape, dtype and device to a real layer.
func TestWrongTensors(t *testing.T) {
	m := load(t, "methods")
	for _, shape := range [][]int64{{3}, {2, 3}, {0, 3}, {1, 2, 3}} {
		x, err := torch.Zeros(shape, torch.TensorOptions{})
		require.NoError(t, err)
		_, err = m.Forward(t.Context(), x)
		assert.ErrorIs(t, err, torch.ErrShape, "%v", shape)
		x.Close()
	}
	for _, dtype := range []torch.DType{torch.Float64, torch.Int64, torch.Bool, torch.Float16, torch.BFloat16, torch.Uint8} {
		x, err := torch.Zeros([]int64{2, 2}, torch.TensorOptions{DType: dtype})
		require.NoError(t, err)
		_, err = m.Forward(t.Context(), x)
		assert.ErrorIs(t, err, torch.ErrDType, "%s", dtype)
		x.Close()
	}
}

func TestOperatorLibrary(t *testing.T) {
	m := load(t, "nms")
	boxes := tensorOf(t, []float32{0, 0, 10, 10, 1, 1, 10, 10, 20, 20, 30, 30}, 3, 4)
	scores := tensorOf(t, []float32{0.5, 0.9, 0.1})
	kept, ok := call(t, m, "forward", boxes, scores, 0.5).(*torch.Tensor)
	require.True(t, ok)
	got, err := torch.CopyData[int64](kept)
	require.NoError(t, err)
	assert.Equal(t, []int64{1, 2}, got)
}

// TestInferenceAndGradients runs under inference mode unless gradients are asked for.
func TestInferenceAndGradients(t *testing.T) {
	m := load(t, "methods")
	x := tensorOf(t, []float32{1, 2, 3, 4}, 2, 2)
	out, ok := call(t, m, "forward", x).(*torch.Tensor)
	require.True(t, ok)
	assert.True(t, out.IsInference())
	assert.False(t, out.RequiresGrad())
	forward, err := m.Method("forward")
	require.NoError(t, err)
	for mode, grad := range map[torch.Mode]bool{torch.NoGrad: false, torch.Grad: true} {
		v, err := forward.CallWith(t.Context(), torch.CallOptions{Mode: mode}, x)
		require.NoError(t, err)
		y, ok := v.(*torch.Tensor)
		require.True(t, ok)
		assert.False(t, y.IsInference())
		assert.Equal(t, grad, y.RequiresGrad())
		y.Close()
	}
	v, err := forward.CallWith(t.Context(), torch.CallOptions{Autocast: torch.BFloat16}, x)
	require.NoError(t, err)
	y, ok := v.(*torch.Tensor)
	require.True(t, ok)
	assert.Equal(t, torch.BFloat16, y.DType())
	y.Close()
	again, ok := call(t, m, "forward", x).(*torch.Tensor)
	require.True(t, ok)
	assert.Equal(t, torch.Float32, again.DType(), "autocast ended with its call")
	_, err = forward.CallWith(t.Context(), torch.CallOptions{Mode: 9}, x)
	assert.ErrorIs(t, err, torch.ErrInvalidArgument)
}

func TestClosedAndNilModules(t *testing.T) {
	m := load(t, "identity")
	x := tensorOf(t, []float32{1})
	forward, err := m.Method("forward")
	require.NoError(t, err)
	require.NoError(t, m.Close())
	require.NoError(t, m.Close(), "closing again has no effect")
	var none *jit.Module
	require.NoError(t, none.Close())
	var closer io.Closer = none
	require.NoError(t, closer.Close())

	for name, f := range map[string]func(m *jit.Module) error{
		"Forward":         func(m *jit.Module) error { _, err := m.Forward(t.Context(), x); return err },
		"Call":            func(m *jit.Module) error { _, err := m.Call(t.Context(), "forward", x); return err },
		"NamedParameters": func(m *jit.Module) error { _, err := m.NamedParameters(); return err },
		"NamedBuffers":    func(m *jit.Module) error { _, err := m.NamedBuffers(); return err },
		"Attribute":       func(m *jit.Module) error { _, err := m.Attribute("training"); return err },
		"SetAttribute":    func(m *jit.Module) error { return m.SetAttribute("training", true) },
		"Train":           func(m *jit.Module) error { return m.Train(true) },
		"Eval":            func(m *jit.Module) error { return m.Eval() },
		"To":              func(m *jit.Module) error { return m.To(torch.CPU) },
		"CastTo":          func(m *jit.Module) error { return m.CastTo(torch.Float64) },
		"Clone":           func(m *jit.Module) error { _, err := m.Clone(); return err },
		"Bytes":           func(m *jit.Module) error { _, err := m.Bytes(nil); return err },
		"Save":            func(m *jit.Module) error { return m.Save(filepath.Join(t.TempDir(), "x"), nil) },
	} {
		assert.ErrorIs(t, f(m), torch.ErrClosed, name)
		assert.ErrorIs(t, f(none), torch.ErrInvalidArgument, name)
	}
	_, err = forward.Call(t.Context(), x)
	assert.ErrorIs(t, err, torch.ErrClosed)
	_, err = none.Method("forward")
	assert.ErrorIs(t, err, torch.ErrInvalidArgument)
	assert.Nil(t, none.Methods())
	assert.Nil(t, none.Attributes())
	assert.False(t, none.HasMethod("forward"))
	assert.False(t, none.Training())

	open := load(t, "identity")
	gone := tensorOf(t, []float32{1})
	gone.Close()
	_, err = open.Forward(t.Context(), gone)
	assert.ErrorIs(t, err, torch.ErrClosed)
	assert.ErrorContains(t, err, "argument 0")
	_, err = load(t, "lists").Forward(t.Context(), []*torch.Tensor{x, gone})
	assert.ErrorIs(t, err, torch.ErrClosed)
}
