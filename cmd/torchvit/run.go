package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/torch/npy"
	"github.com/torchvit/torchvit/vit"
)

type runOptions struct {
	method string
	inputs []string
	output string
	dtype  string
}

func newRunCommand(a *app) *cobra.Command {
	o := runOptions{}
	cmd := &cobra.Command{
		Use:   "run MODEL",
		Short: "Run any method on raw tensors",
		Long: "run calls a method of any TorchScript file in eval mode. Each --input is the next argument:\n\n" +
			"  x.npy                  a tensor\n" +
			"  [a.npy,b.npy]          a list of tensors\n" +
			"  16000  0.5             a number\n" +
			"  true  null             a bool, None\n" +
			"  '\"text\"'               a string, in JSON's quotes\n" +
			"  [2,5]  {\"k\":1}         a list, a dict\n\n" +
			"The answer's arrays are named by their place: out for a tensor, out.0 for an item of a tuple or\n" +
			"list, out.1.0.boxes further down. Numbers become arrays without dimensions. bfloat16, which npy\n" +
			"cannot hold, is written as float32. Without --output a summary is printed.",
		Example: "  torchvit run vit.pt --input x.npy --output y.npz\n" +
			"  torchvit run vit.pt --method forward_blocks --input x.npy --input [2,5] --output blocks.npz\n" +
			"  torchvit run detector.pt --input '[a.npy,b.npy]' --output found.npz\n" +
			"  torchvit run vit.pt --input x.npy --dtype bfloat16",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.run(cmd, args[0], o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.method, "method", "forward", "`name` of the method; torchvit inspect MODEL lists them")
	flags.StringArrayVar(&o.inputs, "input", nil, "next argument, a `value`: FILE.npy, [A.npy,B.npy], or JSON")
	flags.StringVar(&o.output, "output", "", "write the answer's arrays to this .npz `file`")
	flags.StringVar(&o.dtype, "dtype", "", "cast the module's and the inputs' floating tensors to this `type`: float32, bfloat16, float16, float64")
	completeDType(cmd)
	a.precisionFlag(cmd)
	return cmd
}

func (a *app) run(cmd *cobra.Command, path string, o runOptions) error {
	dtype, err := floatingDType(o.dtype)
	if err != nil {
		return err
	}
	inputs := make([]input, len(o.inputs))
	for i, text := range o.inputs {
		if inputs[i], err = parseInput(text); err != nil {
			return err
		}
	}
	if err := checkOutput(o.output, ".npz"); err != nil {
		return err
	}
	device, err := a.open()
	if err != nil {
		return err
	}
	var scope torch.Scope
	defer scope.Close()
	args := make([]any, len(inputs))
	for i, in := range inputs {
		if args[i], err = in.load(&scope, device, dtype); err != nil {
			return fmt.Errorf("--input %s: %w", o.inputs[i], err)
		}
	}
	module, err := jit.Load(path, jit.LoadOptions{Device: device, DType: dtype, Precision: a.precision, Note: a.note(path)})
	if err != nil {
		return err
	}
	defer module.Close()
	if err := module.Eval(); err != nil {
		return err
	}
	method, err := module.Method(o.method)
	if err != nil {
		return fmt.Errorf("%s: --method: %w", path, err)
	}
	answer, err := method.Call(cmd.Context(), args...)
	if err != nil {
		return fmt.Errorf("%s: %w (%s)", path, err, callText(method.Info().Schema, args))
	}
	scope.Track(answer)
	outputs := vit.Outputs(answer)
	if o.output != "" {
		if err := writeOutputs(o.output, outputs); err != nil {
			return err
		}
	}
	return a.printOutputs(cmd.OutOrStdout(), outputs, o.output == "")
}

// checkOutput finds what is wrong with --output before any work is done.
func checkOutput(path, ending string) error {
	if path == "" {
		return nil
	}
	if !strings.HasSuffix(path, ending) {
		return usagef("--output %s: want a name that ends in %s", path, ending)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
		return fmt.Errorf("--output %s: there is no folder %s", path, filepath.Dir(path))
	}
	return nil
}

// callText says what a method takes and what it got.
func callText(schema string, args []any) string {
	text := plainSchema(schema) + "; got "
	if len(args) == 0 {
		return text + "no --input"
	}
	cast := false
	torch.Tensors(args, func(t *torch.Tensor) {
		dtype := t.DType()
		cast = cast || dtype.IsFloatingPoint() && dtype != torch.Float32
	})
	if text += argsText(args); cast {
		text += "; --dtype float32 would cast"
	}
	return text
}

func argsText(args []any) string {
	texts := make([]string, len(args))
	for i, arg := range args {
		switch arg := arg.(type) {
		case *torch.Tensor:
			texts[i] = arg.DType().String() + " " + shapeText(arg.Shape())
		case []*torch.Tensor:
			list := make([]any, len(arg))
			for k, t := range arg {
				list[k] = t
			}
			texts[i] = "[" + argsText(list) + "]"
		default:
			texts[i] = fmt.Sprint(arg)
		}
	}
	return strings.Join(texts, ", ")
}

// floatingDType reads --dtype, "" being none.
func floatingDType(name string) (torch.DType, error) {
	if name == "" {
		return torch.InvalidDType, nil
	}
	dtype, err := torch.ParseDType(name)
	if err != nil || !dtype.IsFloatingPoint() {
		return dtype, usagef("--dtype %s: want float32, bfloat16, float16 or float64", name)
	}
	return dtype, nil
}

// input is one argument as it was typed: files to load, or a value.
type input struct {
	files []string
	list  bool
	value any
}

// parseInput reads an argument without touching files.
func parseInput(text string) (input, error) {
	text = strings.TrimSpace(text)
	if strings.HasSuffix(text, ".npy") {
		return input{files: []string{text}}, nil
	}
	if inner, ok := strings.CutPrefix(text, "["); ok && strings.HasSuffix(text, "]") {
		parts := strings.Split(strings.TrimSuffix(inner, "]"), ",")
		files := 0
		for i := range parts {
			parts[i] = strings.TrimSpace(parts[i])
			// In quotes it is as good: ["a.npy", "b.npy"].
			if s, err := strconv.Unquote(parts[i]); err == nil {
				parts[i] = s
			}
			if strings.HasSuffix(parts[i], ".npy") {
				files++
			}
		}
		if files == len(parts) {
			return input{files: parts, list: true}, nil
		}
		if files > 0 {
			return input{}, usagef("--input %s: want .npy files only, or a JSON list", text)
		}
	}
	value, err := parseJSON(text)
	if err != nil {
		return input{}, usagef("--input %s: want a .npy file, [a.npy,b.npy], or JSON (16000, 0.5, true, null, '\"text\"', [2,5]): %v", text, err)
	}
	return input{value: value}, nil
}

// parseJSON reads one JSON value; numbers without a point or an exponent are ints.
func parseJSON(text string) (any, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("got more after the value")
	}
	return plainJSON(v)
}

func plainJSON(v any) (any, error) {
	switch v := v.(type) {
	case json.Number:
		if !strings.ContainsAny(v.String(), ".eE") {
			return strconv.ParseInt(v.String(), 10, 64)
		}
		return v.Float64()
	case []any:
		out := make(torch.List, len(v))
		for i, x := range v {
			var err error
			if out[i], err = plainJSON(x); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		for k, x := range v {
			var err error
			if v[k], err = plainJSON(x); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// load gives the argument for a call; its tensors belong to the scope.
func (in input) load(scope *torch.Scope, device torch.Device, dtype torch.DType) (any, error) {
	if in.files == nil {
		return in.value, nil
	}
	own := torch.Own(scope)
	tensors := make([]*torch.Tensor, len(in.files))
	for i, path := range in.files {
		array, err := npy.ReadFile(path)
		if err != nil {
			return nil, err
		}
		t, err := own(torch.FromNumpy(array))
		if err != nil {
			return nil, err
		}
		if dtype != torch.InvalidDType && t.DType().IsFloatingPoint() {
			if t, err = own(t.CastTo(dtype)); err != nil {
				return nil, err
			}
		}
		if device.IsCUDA() {
			if t, err = own(t.To(device)); err != nil {
				return nil, err
			}
		}
		tensors[i] = t
	}
	if in.list {
		return tensors, nil
	}
	return tensors[0], nil
}

// writeOutputs writes tensors and numbers; strings and None have no place in an npz.
func writeOutputs(path string, outputs []vit.Output) error {
	arrays := &npy.Zip{}
	for _, o := range outputs {
		array, err := outputArray(o.Value)
		if err != nil {
			return fmt.Errorf("%s: %w", o.Name, err)
		}
		if array != nil {
			arrays.Add(o.Name, array)
		}
	}
	if arrays.Len() == 0 {
		return fmt.Errorf("--output %s: the answer holds neither tensors nor numbers", path)
	}
	return npy.WriteZipFile(path, arrays)
}

func outputArray(v any) (*npy.Array, error) {
	var t *torch.Tensor
	var err error
	switch v := v.(type) {
	case *torch.Tensor:
		return v.Numpy()
	case bool:
		t, err = torch.NewTensor([]bool{v}, []int64{}...)
	case int64:
		t, err = torch.NewTensor([]int64{v}, []int64{}...)
	case float64:
		t, err = torch.NewTensor([]float64{v}, []int64{}...)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer t.Close()
	return t.Numpy()
}

// outputInfo is one line of `run --json`.
type outputInfo struct {
	Name  string  `json:"name"`
	DType string  `json:"dtype,omitempty"`
	Shape []int64 `json:"shape,omitempty"`
	Value any     `json:"value,omitempty"` // of what is no tensor
}

// printOutputs lists the outputs, with what tensors hold where values is true.
func (a *app) printOutputs(w io.Writer, outputs []vit.Output, values bool) error {
	list := make([]outputInfo, len(outputs))
	for i, o := range outputs {
		list[i] = outputInfo{Name: o.Name, Value: o.Value}
		if t, ok := o.Value.(*torch.Tensor); ok {
			list[i] = outputInfo{Name: o.Name, DType: t.DType().String(), Shape: t.Shape()}
		}
	}
	if a.json {
		return a.printJSON(map[string]any{"outputs": list})
	}
	for i, o := range outputs {
		switch v := o.Value.(type) {
		case *torch.Tensor:
			fmt.Fprintf(w, "%s  %s  %s\n", o.Name, list[i].DType, shapeText(list[i].Shape))
			if values {
				fmt.Fprintln(w, "  "+strings.ReplaceAll(v.String(), "\n", "\n  "))
			}
		case string:
			fmt.Fprintf(w, "%s  str  %q\n", o.Name, v)
		case nil:
			fmt.Fprintf(w, "%s  None\n", o.Name)
		default:
			fmt.Fprintf(w, "%s  %s  %v\n", o.Name, pythonType(v), v)
		}
	}
	return nil
}

func pythonType(v any) string {
	switch v.(type) {
	case bool:
		return "bool"
	case int64:
		return "int"
	case float64:
		return "float"
	}
	return fmt.Sprintf("%T", v)
}
