package jit

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/internal/handle"
	"github.com/torchvit/torchvit/torch"
)

// all is the weight of a call that needs a module for itself; any other call weighs 1.
const all = 1 << 30

// Module is a torch.jit.ScriptModule. Calls may come from many goroutines: methods that only read run
// side by side, as far as lanes allow; methods that write attributes, calls in training mode, and
// changes of the module wait for each other.
type Module struct {
	h       handle.Handle[cgo.Module]
	name    string
	methods []MethodInfo
	index   map[string]int32
	attrs   []AttributeInfo
	extra   map[string]string
	busy    *semaphore.Weighted
	train   atomic.Bool

	precision torch.Precision
	rewritten Rewritten
	graphs    *graphs // nil without LoadOptions.CUDAGraphs
}

// MethodInfo describes a method.
type MethodInfo struct {
	// Name, such as "forward".
	Name string
	// Schema as TorchScript writes it: "forward(__torch__.Net self, Tensor x) -> Tensor".
	Schema string
	// Stateful says that the method's code writes attributes of the module, so that its calls run one
	// after the other.
	Stateful bool
}

// AttributeInfo describes an attribute: parameters, buffers, submodules and plain values.
type AttributeInfo struct{ Name, Type string }

// LoadOptions say how a module is loaded. The zero value loads to the CPU as the file is.
type LoadOptions struct {
	// Device is where parameters and buffers go.
	Device torch.Device
	// DType casts floating parameters and buffers after loading; InvalidDType leaves them.
	DType torch.DType
	// Precision chooses the kernels. Anything but PrecisionExact rewrites the module: it is in evaluation
	// mode and can be called without gradients, and nothing else: its parameters cannot be read, moved or saved
	// (ErrPrecision). CPU only, and not together with DType. A module whose code is not understood runs as it is;
	// Module.Rewritten tells.
	Precision torch.Precision
	// Note is called with what Rewritten().Note says, where it says something: that nothing was done, and why, or
	// that it is slower than it looks.
	Note func(note string)
	// ChannelsLast puts weights of 4 dimensions, those of convolutions, into the memory format channels_last, as
	// Module.to(memory_format=torch.channels_last) does: convolutions in half precision are quicker so on CUDA.
	ChannelsLast bool
	// CUDAGraphs records a method as a CUDA graph when it is first called with an input of its shape and dtype, and
	// replays it from then on: the work of many small kernels starts at once. It is for calls in inference mode with
	// one tensor on CUDA as the only argument. Others run as without it: methods with more arguments or a list (detectors),
	// those that write attributes, and those of the 17th kind of input and on. A method that waits for the device cannot be
	// recorded, which is an error. A recording holds memory of the device until the module changes or goes; results are
	// copies. ErrInvalidArgument where Device is the CPU.
	CUDAGraphs bool
	// ExtraFiles names extra files to read; ExtraFile gives their content.
	ExtraFiles []string
	// Unchecked leaves out the check of structure and checksums. libtorch's own reader can crash the
	// process on a damaged file.
	Unchecked bool
}

// Load reads a TorchScript file: torch.jit.load. The file is checked first (structure, sizes,
// checksums), so a damaged one gives ErrCorrupt and anything else that is not TorchScript
// ErrNotTorchScript. A TorchScript file is a program: load only files that you trust. The caller closes
// the module.
func Load(path string, o LoadOptions) (*Module, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	if info.IsDir() {
		return nil, fmt.Errorf("load %s: %w: got a folder, want a TorchScript file", path, ErrNotTorchScript)
	}
	if !o.Unchecked {
		if _, err := CheckArchive(f, info.Size()); err != nil {
			return nil, fmt.Errorf("load %s: %w", path, err)
		}
	}
	name := path
	if runtime.GOOS == "linux" {
		// The file that was checked, even where another one has its name by now.
		name = "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	}
	return load(filepath.Base(path), name, nil, o)
}

// LoadBytes is Load from memory, which is not used after it returns.
func LoadBytes(data []byte, o LoadOptions) (*Module, error) {
	if !o.Unchecked {
		if _, err := CheckBytes(data); err != nil {
			return nil, fmt.Errorf("load: %w", err)
		}
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("load: %w: got no bytes", ErrNotTorchScript)
	}
	return load("module", "", data, o)
}

func load(name, path string, data []byte, o LoadOptions) (*Module, error) {
	if err := torch.Ensure(); err != nil {
		return nil, err
	}
	kind, index, err := o.Device.Codes()
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", name, err)
	}
	if err := checkPrecision(o); err != nil {
		return nil, fmt.Errorf("load %s: %w", name, err)
	}
	if o.CUDAGraphs && !o.Device.IsCUDA() {
		return nil, fmt.Errorf("load %s: %w: LoadOptions.CUDAGraphs: got device %s, want a CUDA device", name, torch.ErrInvalidArgument, o.Device)
	}
	extra, text, err := torch.EncodeNodes(o.ExtraFiles)
	if err != nil {
		return nil, err
	}
	raw, found, err := cgo.ModuleLoad(path, data, kind, index, extra, text)
	if err != nil {
		err = torch.WrapStatus("load "+name, err)
		if strings.Contains(err.Error(), "Unknown builtin op: torchvision::") {
			return nil, fmt.Errorf("%w: the file uses torchvision's operators and they are not loaded; run `torchvit doctor`", err)
		}
		return nil, err
	}
	files, _ := torch.DecodeValues(found).(map[string]any)
	if o.ChannelsLast {
		if err := cgo.ModuleChannelsLast(raw, cgo.Mode{Mode: cgo.ModeNoGrad, Lane: -1}); err != nil {
			cgo.ModuleFree(raw)
			return nil, torch.WrapStatus("load "+name+": channels last", err)
		}
	}
	rewritten, err := rewrite(name, raw, o.Precision)
	if err != nil {
		cgo.ModuleFree(raw)
		return nil, err
	}
	var recorded *graphs
	if o.CUDAGraphs {
		recorded = &graphs{}
	}
	m, err := newModule(name, raw, recorded)
	if err != nil {
		return nil, err
	}
	m.precision, m.rewritten = o.Precision, rewritten
	if o.Note != nil && rewritten.Note != "" {
		o.Note(rewritten.Note)
	}
	m.extra = map[string]string{}
	for k, v := range files {
		m.extra[k], _ = v.(string)
	}
	if o.DType != torch.InvalidDType {
		if err := m.CastTo(o.DType); err != nil {
			m.Close()
			return nil, err
		}
	}
	return m, nil
}

func newModule(name string, raw cgo.Module, g *graphs) (*Module, error) {
	m := &Module{name: name, index: map[string]int32{}, busy: semaphore.NewWeighted(all), graphs: g}
	m.h.Init(raw, "module "+name, func(raw cgo.Module) {
		g.drop() // when the last call is done
		cgo.ModuleFree(raw)
	})
	if err := m.describe(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *Module) describe() error {
	values, err := cgo.ModuleDescribe(m.raw())
	if err != nil {
		return torch.WrapStatus("describe "+m.name, err)
	}
	parts, _ := torch.DecodeValues(values).(torch.Tuple)
	if len(parts) != 3 {
		return fmt.Errorf("describe %s: %w: got %d parts, want 3", m.name, torch.ErrValue, len(parts))
	}
	methods, _ := parts[0].(torch.List)
	for i, p := range methods {
		t, _ := p.(torch.Tuple)
		info := MethodInfo{}
		info.Name, _ = t[0].(string)
		info.Schema, _ = t[1].(string)
		info.Stateful, _ = t[2].(bool)
		m.methods = append(m.methods, info)
		m.index[info.Name] = int32(i)
	}
	attrs, _ := parts[1].(torch.List)
	for _, p := range attrs {
		t, _ := p.(torch.Tuple)
		info := AttributeInfo{}
		info.Name, _ = t[0].(string)
		info.Type, _ = t[1].(string)
		m.attrs = append(m.attrs, info)
	}
	training, _ := parts[2].(bool)
	m.train.Store(training)
	return nil
}

// raw is the handle during construction, when nobody else can close it.
func (m *Module) raw() cgo.Module {
	raw, _ := m.h.Acquire()
	m.h.Release()
	return raw
}

func errNil(op string) error {
	return fmt.Errorf("%s: %w: got a nil module", op, torch.ErrInvalidArgument)
}

func (m *Module) acquire(op string) (cgo.Module, error) {
	if m == nil {
		return cgo.Module{}, errNil(op)
	}
	raw, ok := m.h.Acquire()
	if !ok {
		return cgo.Module{}, fmt.Errorf("%s: module %s: %w", op, m.name, torch.ErrClosed)
	}
	return raw, nil
}

// Close frees the module, at once or when the calls that use it are done. Closing again, or a nil
// module, has no effect. Tensors that the module gave stay valid. It always returns nil.
func (m *Module) Close() error {
	if m != nil {
		m.h.Close()
	}
	return nil
}

// Methods lists the methods of the module itself, without those of its submodules.
func (m *Module) Methods() []MethodInfo {
	if m == nil {
		return nil
	}
	return slices.Clone(m.methods)
}

// HasMethod reports whether there is a method of that name.
func (m *Module) HasMethod(name string) bool {
	if m == nil {
		return false
	}
	_, ok := m.index[name]
	return ok
}

// Attributes lists parameters, buffers, submodules and plain values of the module itself.
func (m *Module) Attributes() []AttributeInfo {
	if m == nil {
		return nil
	}
	return slices.Clone(m.attrs)
}

// ExtraFile gives an extra file that LoadOptions.ExtraFiles named; false where it is not there or empty.
func (m *Module) ExtraFile(name string) (string, bool) {
	if m == nil {
		return "", false
	}
	s, ok := m.extra[name]
	return s, ok && s != ""
}

// Method is a method of a module.
type Method struct {
	m    *Module
	info MethodInfo
	i    int32
}

// Method finds a method; ErrNotFound names those that there are.
func (m *Module) Method(name string) (*Method, error) {
	if m == nil {
		return nil, errNil(name)
	}
	i, ok := m.index[name]
	if !ok {
		names := make([]string, len(m.methods))
		for k, info := range m.methods {
			names[k] = info.Name
		}
		return nil, fmt.Errorf("method: %w: got %q, want one of %s", torch.ErrNotFound, name, strings.Join(names, ", "))
	}
	return &Method{m, m.methods[i], i}, nil
}

// Forward runs the method "forward" in inference mode. Arguments are *torch.Tensor, bool, int, float,
// string, nil, torch.Tuple, slices (a List) and maps (a Dict), nested as the schema asks. The result is
// the caller's: a *torch.Tensor, bool, int64, float64, string, nil, torch.Tuple, []*torch.Tensor,
// []int64 and so on, torch.List, map[string]any or map[int64]any.
//
// The call waits for a lane until ctx ends; a running forward cannot be interrupted. An error in the
// module's code is a *torch.Error whose Detail holds the TorchScript stack.
func (m *Module) Forward(ctx context.Context, args ...any) (any, error) {
	return m.Call(ctx, "forward", args...)
}

// Call is Forward for any method, by name.
func (m *Module) Call(ctx context.Context, method string, args ...any) (any, error) {
	if m == nil {
		return nil, errNil(method)
	}
	i, ok := m.index[method]
	if !ok {
		_, err := m.Method(method)
		return nil, err
	}
	return m.call(ctx, i, torch.CallOptions{}, args)
}

// Call runs the method as Forward does.
func (f *Method) Call(ctx context.Context, args ...any) (any, error) {
	return f.m.call(ctx, f.i, torch.CallOptions{}, args)
}

// CallWith is Call with options: gradients, autocast.
func (f *Method) CallWith(ctx context.Context, o torch.CallOptions, args ...any) (any, error) {
	return f.m.call(ctx, f.i, o, args)
}

// Info describes the method.
func (f *Method) Info() MethodInfo { return f.info }

func (m *Module) call(ctx context.Context, i int32, o torch.CallOptions, args []any) (any, error) {
	op := m.methods[i].Name
	raw, err := m.acquire(op)
	if err != nil {
		return nil, err
	}
	defer m.h.Release()
	if m.precision != torch.PrecisionExact && (o.Mode == torch.Grad || o.Autocast != torch.InvalidDType) {
		return nil, fmt.Errorf("%s: %w: got a call with gradients or autocast of a module with precision %s, want exact", op, torch.ErrPrecision, m.precision)
	}
	weight := int64(1)
	if m.methods[i].Stateful || m.train.Load() {
		weight = all
	} else if x := graphInput(args); m.graphs != nil && x != nil && o == (torch.CallOptions{}) {
		return m.replay(ctx, raw, i, x)
	}
	if err := m.wait(ctx, op, weight); err != nil {
		return nil, err
	}
	defer m.busy.Release(weight)
	return m.run(ctx, raw, i, o, args)
}

// wait is for a turn, which m.busy.Release(weight) ends.
func (m *Module) wait(ctx context.Context, op string, weight int64) error {
	err := m.busy.Acquire(ctx, weight)
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && cause != err {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return fmt.Errorf("%s: waiting for module %s: %w", op, m.name, err)
}

func (m *Module) run(ctx context.Context, raw cgo.Module, i int32, o torch.CallOptions, args []any) (any, error) {
	op := m.methods[i].Name
	return torch.Invoke(ctx, op, o, args, func(nodes []cgo.Node, text []byte, mode cgo.Mode, out *cgo.Node) (cgo.Values, error) {
		return cgo.ModuleCall(raw, i, nodes, len(args), text, mode, out)
	})
}

// change runs f with the module to itself, and drops what was recorded of it.
func (m *Module) change(op string, f func(raw cgo.Module) error) error {
	return m.alone(op, func(raw cgo.Module) error {
		m.graphs.drop()
		return f(raw)
	})
}

// alone runs f while nothing else uses the module.
func (m *Module) alone(op string, f func(raw cgo.Module) error) error {
	raw, err := m.acquire(op)
	if err != nil {
		return err
	}
	defer m.h.Release()
	if err := m.busy.Acquire(context.Background(), all); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	defer m.busy.Release(all)
	return torch.WrapStatus(op, f(raw))
}

// NamedTensor is a parameter or buffer.
type NamedTensor struct {
	Name   string
	Tensor *torch.Tensor
}

func (m *Module) tensors(op string, buffers bool) ([]NamedTensor, error) {
	if err := m.needExact(op); err != nil {
		return nil, err
	}
	var out []NamedTensor
	err := m.alone(op, func(raw cgo.Module) error {
		values, err := cgo.ModuleTensors(raw, buffers)
		if err != nil {
			return err
		}
		named, _ := torch.DecodeValues(values).(torch.List)
		for _, v := range named {
			pair, _ := v.(torch.Tuple)
			name, _ := pair[0].(string)
			tensor, _ := pair[1].(*torch.Tensor)
			out = append(out, NamedTensor{name, tensor})
		}
		return nil
	})
	return out, err
}

// NamedParameters gives the parameters, submodules' too, in the order of Python's named_parameters: the
// order in which the module declares them. A parameter that several submodules share comes once, under its
// first name. They share the module's memory; the caller closes them.
func (m *Module) NamedParameters() ([]NamedTensor, error) { return m.tensors("parameters", false) }

// NamedBuffers gives the buffers, submodules' too, in the order of Python's named_buffers. They share the
// module's memory; the caller closes them.
func (m *Module) NamedBuffers() ([]NamedTensor, error) { return m.tensors("buffers", true) }

// Attribute reads an attribute of the module itself.
func (m *Module) Attribute(name string) (any, error) {
	if err := m.needExact("attribute " + name); err != nil {
		return nil, err
	}
	var v any
	err := m.alone("attribute "+name, func(raw cgo.Module) error {
		values, err := cgo.ModuleGetAttribute(raw, name)
		if err == nil {
			v = torch.DecodeValues(values)
		}
		return err
	})
	return v, err
}

// SetAttribute writes an attribute of the module itself; the value must fit its type.
func (m *Module) SetAttribute(name string, value any) error {
	if err := m.needExact("attribute " + name); err != nil {
		return err
	}
	return m.change("attribute "+name, func(raw cgo.Module) error {
		return torch.WithNodes(func(nodes []cgo.Node, text []byte) error {
			return cgo.ModuleSetAttribute(raw, name, nodes, text)
		}, value)
	})
}

// Train sets training mode, as Module.train does. A loaded file has the mode that it was saved in.
func (m *Module) Train(on bool) error {
	if on || m == nil {
		if err := m.needExact("train"); err != nil {
			return err
		}
	} else if m.precision != torch.PrecisionExact {
		return nil // it is in evaluation mode
	}
	return m.change("train", func(raw cgo.Module) error {
		if err := cgo.ModuleTrain(raw, on); err != nil {
			return err
		}
		m.train.Store(on)
		return nil
	})
}

// Eval is Train(false).
func (m *Module) Eval() error { return m.Train(false) }

// Training reports whether the module is in training mode.
func (m *Module) Training() bool { return m != nil && m.train.Load() }

// To moves parameters and buffers to the device, in place.
func (m *Module) To(device torch.Device) error {
	if err := m.needExact("to " + device.String()); err != nil {
		return err
	}
	kind, index, err := device.Codes()
	if err != nil {
		return fmt.Errorf("to: %w", err)
	}
	return m.change("to "+device.String(), func(raw cgo.Module) error {
		return cgo.ModuleTo(raw, 0, kind, index, cgo.Mode{Mode: cgo.ModeNoGrad, Lane: -1})
	})
}

// CastTo casts floating parameters and buffers, in place: Module.to(dtype).
func (m *Module) CastTo(dtype torch.DType) error {
	if err := m.needExact("to " + dtype.String()); err != nil {
		return err
	}
	if !dtype.IsFloatingPoint() {
		return fmt.Errorf("to: %w: got %s, want a floating dtype", torch.ErrDType, dtype)
	}
	return m.change("to "+dtype.String(), func(raw cgo.Module) error {
		return cgo.ModuleTo(raw, int32(dtype), -1, 0, cgo.Mode{Mode: cgo.ModeNoGrad, Lane: -1})
	})
}

// Clone is a copy with its own parameters, buffers and attributes. The caller closes it.
func (m *Module) Clone() (*Module, error) {
	var out cgo.Module
	err := m.alone("clone", func(raw cgo.Module) (err error) {
		out, err = cgo.ModuleClone(raw)
		return err
	})
	if err != nil {
		return nil, err
	}
	var recorded *graphs
	if m.graphs != nil {
		recorded = &graphs{}
	}
	c, err := newModule(m.name, out, recorded)
	if err != nil {
		return nil, err
	}
	c.extra, c.precision, c.rewritten = m.extra, m.precision, m.rewritten
	return c, nil
}

// Bytes serialises the module with those extra files: torch.jit.save.
func (m *Module) Bytes(extraFiles map[string]string) ([]byte, error) {
	if err := m.needExact("save"); err != nil {
		return nil, err
	}
	nodes, text, err := torch.EncodeNodes(extraFiles)
	if err != nil {
		return nil, err
	}
	var out []byte
	err = m.alone("save", func(raw cgo.Module) (err error) {
		out, err = cgo.ModuleSave(raw, nodes, text)
		return err
	})
	return out, err
}

// Save writes the module with those extra files, whole or not at all.
func (m *Module) Save(path string, extraFiles map[string]string) error {
	data, err := m.Bytes(extraFiles)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".torchvit-*")
	if err != nil {
		return fmt.Errorf("save: %w", err)
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(data); err != nil {
		f.Close()
		return fmt.Errorf("save: %w", err)
	}
	if err := f.Chmod(0o644); err != nil {
		f.Close()
		return fmt.Errorf("save: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return nil
}

// Seconds runs a method of one tensor n times from C++, on a lane, and gives the seconds: what a call
// costs without Go. For benchmarks.
func (f *Method) Seconds(ctx context.Context, x *torch.Tensor, n int) (float64, error) {
	raw, err := f.m.acquire(f.info.Name)
	if err != nil {
		return 0, err
	}
	defer f.m.h.Release()
	var seconds float64
	_, err = torch.Invoke(ctx, f.info.Name, torch.CallOptions{}, []any{x}, func(nodes []cgo.Node, _ []byte, mode cgo.Mode, _ *cgo.Node) (cgo.Values, error) {
		var err error
		seconds, err = cgo.BenchModuleCall(raw, f.i, nodes[0].Tensor, mode, n)
		return cgo.Values{}, err
	})
	return seconds, err
}
