package vit

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/torch/npy"
)

var (
	// ErrNoReference: the file holds no answers of Python's to compare with.
	ErrNoReference = errors.New("no reference")
	// ErrMismatch: the answers are not those of the reference.
	ErrMismatch = errors.New("does not match its reference")
)

// VerifyReport says how a model file's answers compare with the reference that Python put into it.
type VerifyReport struct {
	// Model is the file.
	Model string `json:"model"`
	// By is the program that computed the reference where that is not Python's PyTorch.
	By string `json:"by,omitempty"`
	// OK is true where every output is as the mode demands.
	OK bool `json:"ok"`
	// Exact tells that equal bits were demanded, else the tolerance |got - want| <= atol + rtol * |want|.
	Exact bool `json:"exact"`
	// Why says which conditions of equal bits hold here, or do not.
	Why string `json:"why"`
	// ATol and RTol are the file's tolerances.
	ATol float64 `json:"atol"`
	RTol float64 `json:"rtol"`
	// Calls are the reference's calls, in order.
	Calls []VerifyCall `json:"calls"`
}

// VerifyCall is one call of a method.
type VerifyCall struct {
	Method string `json:"method"`
	// Inputs describes the arguments: "float32 [1, 3, 224, 224]", "photo 512 x 384", "3".
	Inputs  []string       `json:"inputs"`
	Outputs []VerifyOutput `json:"outputs"`
}

// VerifyOutput is one tensor or number of an answer, compared with the reference's.
type VerifyOutput struct {
	Name  string  `json:"name"`
	DType string  `json:"dtype"`
	Shape []int64 `json:"shape"`
	OK    bool    `json:"ok"`
	// NumEl counts the elements, Different those whose bits differ.
	NumEl     int64 `json:"numel"`
	Different int64 `json:"different"`
	// MaxAbs and MaxULP are the largest difference, absolute and in units in the last place. MaxAbs is
	// not finite where one of the two is NaN or infinite.
	MaxAbs Float  `json:"max_abs"`
	MaxULP uint64 `json:"max_ulp"`
	// Problem says what is wrong where the two could not be compared.
	Problem string `json:"problem,omitempty"`
}

// Float is a float64 that JSON holds as null where it is not finite.
type Float float64

// MarshalJSON writes the number, or null.
func (f Float) MarshalJSON() ([]byte, error) {
	text := fmt.Appendf(nil, "%g", float64(f))
	if bytes.ContainsAny(text, "NI") {
		return []byte("null"), nil
	}
	return text, nil
}

// Err is nil where the report is OK, else an ErrMismatch that names the first output that differs.
func (r *VerifyReport) Err() error {
	if r.OK {
		return nil
	}
	for i, c := range r.Calls {
		for _, o := range c.Outputs {
			if o.OK {
				continue
			}
			what := o.Problem
			if what == "" {
				what = fmt.Sprintf("%d of %d elements differ, by at most %.3g and %d ULP", o.Different, o.NumEl, o.MaxAbs, o.MaxULP)
			}
			return fmt.Errorf("verify %s: %w: call %d, %s, %s: %s", r.Model, ErrMismatch, i, c.Method, o.Name, what)
		}
	}
	return fmt.Errorf("verify %s: %w: nothing was compared", r.Model, ErrMismatch)
}

// Verify replays the reference of a model file: calls that Python made when it exported the file, on the
// inputs stored beside their answers, photos included, which go through decoding and preprocess here.
//
// It demands equal bits where torch's version, the processor's maker and instruction set, the number of
// threads, the device, the dtype and the precision are the reference's, and the file's tolerance elsewhere; the report
// says which and why. For equal bits the process must use the reference's number of threads:
// torch.Config.IntraOpThreads, which ReferenceThreads tells before libtorch is opened.
//
// The error is nil where the replay ran, whatever it found: see [VerifyReport.OK] and [VerifyReport.Err].
// Errors: torch.ErrPrecision for PrecisionBFloat16, ErrNoMetadata and ErrNoReference where there is nothing to replay, those of loading, those of
// a call, such as a method that is missing.
func Verify(ctx context.Context, path string, o Options) (*VerifyReport, error) {
	if o.Precision == torch.PrecisionBFloat16 {
		return nil, fmt.Errorf("verify %s: %w: got bfloat16, want exact or fast: the file's tolerance is float32's; `torchvit eval` measures what bfloat16 costs", path, torch.ErrPrecision)
	}
	meta, arrays, err := readReference(path)
	if err != nil {
		return nil, err
	}
	ref := meta.Reference
	dtype, err := torch.ParseDType(cmp.Or(ref.DType, "float32"))
	if err != nil {
		return nil, fmt.Errorf("verify %s: reference.dtype: %w", path, err)
	}
	r := &VerifyReport{Model: path, By: ref.By, ATol: ref.ATol, RTol: ref.RTol}
	info, err := torch.RuntimeInfo()
	if err != nil {
		return nil, err
	}
	ran := dtype
	if o.DType != torch.InvalidDType {
		ran = o.DType
	}
	r.Exact, r.Why = conditions(ref, info, o, dtype, ran)
	if ran != torch.Float32 {
		o.DType = ran
	}
	model, err := LoadModel(path, o)
	if err != nil {
		return nil, err
	}
	defer model.Close()
	r.OK = true
	for i, call := range ref.Calls {
		c, err := replay(ctx, model, r, i, call, arrays)
		if err != nil {
			return nil, fmt.Errorf("verify %s: call %d: %w", path, i, err)
		}
		for _, out := range c.Outputs {
			r.OK = r.OK && out.OK
		}
		r.Calls = append(r.Calls, c)
	}
	return r, nil
}

// ReferenceThreads is the number of intra-op threads that the reference was computed with, read without
// libtorch; 0 where the file does not say.
func ReferenceThreads(path string) (int, error) {
	meta, err := ReadMetadata(path)
	if err != nil {
		return 0, err
	}
	if meta.Reference == nil {
		return 0, noReference(path)
	}
	return meta.Reference.Threads, nil
}

func noReference(path string) error {
	return fmt.Errorf("verify %s: %w: the file holds no answers of Python's to compare with; `scripts/export.py` writes them", path, ErrNoReference)
}

// readReference reads and checks all that the replay needs.
func readReference(path string) (*Metadata, *npy.Zip, error) {
	meta, err := ReadMetadata(path)
	if err != nil {
		return nil, nil, err
	}
	if meta.Reference == nil || len(meta.Reference.Calls) == 0 {
		return nil, nil, noReference(path)
	}
	archive, err := jit.OpenArchive(path)
	if err != nil {
		return nil, nil, fmt.Errorf("verify: %w", err)
	}
	defer archive.Close()
	text, err := archive.ReadExtra(ReferenceFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, noReference(path)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("verify %s: %w", path, err)
	}
	arrays, err := npy.ReadZip(bytes.NewReader(text), int64(len(text)))
	if err != nil {
		return nil, nil, fmt.Errorf("verify %s: %s: %w", path, ReferenceFile, err)
	}
	return meta, arrays, nil
}

// conditions says whether equal bits can be demanded.
func conditions(ref *Reference, info torch.Info, o Options, want, ran torch.DType) (exact bool, why string) {
	var same, differ []string
	check := func(what, want, got string) {
		if want == got {
			same = append(same, what+" "+got)
		} else {
			differ = append(differ, fmt.Sprintf("%s: reference %s, here %s", what, cmp.Or(want, "unknown"), cmp.Or(got, "unknown")))
		}
	}
	check("torch", baseVersion(ref.Torch), baseVersion(info.Version))
	check("processor", ref.CPUVendor, cpuVendor())
	check("kernels for", ref.CPUCapability, info.CPUCapability)
	threads := ""
	for _, n := range info.LaneThreads {
		if t := fmt.Sprint(n); threads == "" {
			threads = t
		} else if t != threads {
			threads = strings.Trim(fmt.Sprint(info.LaneThreads), "[]")
			break
		}
	}
	check("threads", fmt.Sprint(ref.Threads), threads)
	check("device", "cpu", o.Device.String())
	check("dtype", want.String(), ran.String())
	check("precision", torch.PrecisionExact.String(), o.Precision.String())
	if len(differ) > 0 {
		return false, strings.Join(differ, "; ")
	}
	return true, strings.Join(same, ", ")
}

// baseVersion leaves out the build: 2.15.0 of 2.15.0+cu132.
func baseVersion(v string) string {
	base, _, _ := strings.Cut(v, "+")
	return base
}

// cpuVendor is vendor_id of /proc/cpuinfo, or "".
func cpuVendor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "vendor_id" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// replay makes one call and compares what it gives.
func replay(ctx context.Context, m *Model, r *VerifyReport, index int, call ReferenceCall, arrays *npy.Zip) (VerifyCall, error) {
	c := VerifyCall{Method: call.Method}
	if len(call.Outputs) == 0 {
		return c, fmt.Errorf("%w: %s names no outputs", ErrNoReference, call.Method)
	}
	var scope torch.Scope
	defer scope.Close()
	args := make([]any, len(call.Inputs))
	for i, in := range call.Inputs {
		arg, text, err := m.referenceInput(ctx, &scope, in, arrays)
		if err != nil {
			return c, fmt.Errorf("%s: input %d: %w", call.Method, i, err)
		}
		args[i] = arg
		c.Inputs = append(c.Inputs, text)
	}
	answer, err := m.Call(ctx, call.Method, args...)
	if err != nil {
		return c, err
	}
	scope.Track(answer)
	got := map[string]any{}
	for _, o := range Outputs(answer) {
		if o.Value != nil {
			got[o.Name] = o.Value
		}
	}
	for _, name := range call.Outputs {
		out, err := r.compare(ctx, name, got[name], arrays.Get(OutputArray(index, name)))
		if err != nil {
			return c, fmt.Errorf("%s: %s: %w", call.Method, name, err)
		}
		delete(got, name)
		c.Outputs = append(c.Outputs, out)
	}
	for name := range got {
		c.Outputs = append(c.Outputs, VerifyOutput{Name: name, Problem: "the reference has no such output"})
	}
	return c, nil
}

// referenceInput gives one argument and how it is shown; its tensors belong to the scope.
func (m *Model) referenceInput(ctx context.Context, scope *torch.Scope, in ReferenceInput, arrays *npy.Zip) (any, string, error) {
	own := torch.Own(scope)
	tensor := func(name string) (*torch.Tensor, error) {
		array := arrays.Get(name)
		if array == nil {
			return nil, fmt.Errorf("%w: %s has no array %s", ErrNoReference, ReferenceFile, name)
		}
		t, err := torch.FromNumpy(array)
		if err != nil {
			return nil, err
		}
		if t.DType().IsFloatingPoint() {
			t, err = m.adopt(t)
		}
		return own(t, err)
	}
	show := func(t *torch.Tensor) string { return fmt.Sprintf("%s %s", t.DType(), listText(t.Shape())) }
	switch {
	case in.Image != "":
		array := arrays.Get(in.Image)
		if array == nil || array.DType != "u1" {
			return nil, "", fmt.Errorf("%w: %s has no bytes of an image %s", ErrNoReference, ReferenceFile, in.Image)
		}
		inputs, err := m.Prepare(ctx, 1, array.Data)
		if err != nil {
			return nil, "", err
		}
		scope.Track(inputs[0].Pixels)
		g := inputs[0].Geometry[0]
		text := fmt.Sprintf("photo %d x %d", g.Width, g.Height)
		if m.meta.Layout() != LayoutList {
			return inputs[0].Pixels, text, nil
		}
		photo, err := own(torch.CallTensor(ctx, "aten::select.int", inputs[0].Pixels, 0, 0))
		return []*torch.Tensor{photo}, text, err
	case in.Tensor != "":
		t, err := tensor(in.Tensor)
		if err != nil {
			return nil, "", err
		}
		return t, show(t), nil
	case in.Tensors != nil:
		list := make([]*torch.Tensor, len(in.Tensors))
		texts := make([]string, len(in.Tensors))
		for i, name := range in.Tensors {
			t, err := tensor(name)
			if err != nil {
				return nil, "", err
			}
			list[i], texts[i] = t, show(t)
		}
		return list, "[" + strings.Join(texts, ", ") + "]", nil
	case in.Int != nil:
		return *in.Int, fmt.Sprint(*in.Int), nil
	case in.Ints != nil:
		return in.Ints, listText(in.Ints), nil
	}
	return nil, "", fmt.Errorf("%w: an input that is neither tensor, tensors, image, int nor ints", ErrNoReference)
}

// compare holds one value of an answer against the reference's.
func (r *VerifyReport) compare(ctx context.Context, name string, got any, want *npy.Array) (VerifyOutput, error) {
	out := VerifyOutput{Name: name}
	if want == nil {
		return out, fmt.Errorf("%w: %s has no array for it", ErrNoReference, ReferenceFile)
	}
	var scope torch.Scope
	defer scope.Close()
	own := torch.Own(&scope)
	b, err := own(torch.FromNumpy(want))
	if err != nil {
		return out, err
	}
	out.DType, out.Shape, out.NumEl = b.DType().String(), b.Shape(), b.NumEl()
	a, err := plainTensor(got, b.DType(), own)
	if err != nil {
		return out, err
	}
	if a == nil {
		out.Problem = fmt.Sprintf("got %T, want %s %s", got, b.DType(), listText(b.Shape()))
		return out, nil
	}
	d, err := torch.Compare(a, b)
	if errors.Is(err, torch.ErrShape) || errors.Is(err, torch.ErrDType) {
		out.Problem = fmt.Sprintf("got %s %s, want %s %s", a.DType(), listText(a.Shape()), b.DType(), listText(b.Shape()))
		return out, nil
	}
	if err != nil {
		return out, err
	}
	out.Different, out.MaxAbs, out.MaxULP = d.Different, Float(d.MaxAbs), d.MaxULP
	out.OK = d.Different == 0
	if !out.OK && !r.Exact && b.DType().IsFloatingPoint() {
		out.OK, err = torch.AllClose(a, b, r.RTol, r.ATol)
	}
	return out, err
}

// plainTensor gives a value of an answer as a tensor on the CPU, widened from bfloat16 where the reference
// holds float32; nil for what is none.
func plainTensor(v any, want torch.DType, own func(*torch.Tensor, error) (*torch.Tensor, error)) (*torch.Tensor, error) {
	scalar := []int64{}
	switch v := v.(type) {
	case *torch.Tensor:
		t, err := own(v.To(torch.CPU))
		if err == nil && t.DType() != want && t.DType().IsFloatingPoint() && want.IsFloatingPoint() {
			t, err = own(t.CastTo(want))
		}
		return t, err
	case bool:
		return own(torch.NewTensor([]bool{v}, scalar...))
	case int64:
		return own(torch.NewTensor([]int64{v}, scalar...))
	case float64:
		return own(torch.NewTensor([]float64{v}, scalar...))
	}
	return nil, nil
}

func listText(list []int64) string {
	return strings.ReplaceAll(fmt.Sprint(list), " ", ", ")
}

// String is the report in one line.
func (r *VerifyReport) String() string {
	outputs := 0
	for _, c := range r.Calls {
		outputs += len(c.Outputs)
	}
	mode := "equal bits"
	if !r.Exact {
		mode = fmt.Sprintf("atol %g, rtol %g", r.ATol, r.RTol)
	}
	verdict := "verified"
	if !r.OK {
		verdict = "FAILED"
	}
	if r.By != "" {
		mode += ", computed by " + r.By
	}
	return fmt.Sprintf("%s: %s: %d outputs of %d calls, %s", filepath.Base(r.Model), verdict, outputs, len(r.Calls), mode)
}
