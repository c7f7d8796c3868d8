package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// inspection is what `inspect --json` prints.
type inspection struct {
	File           string          `json:"file"`
	Bytes          int64           `json:"bytes"`
	ArchiveVersion int             `json:"archive_version"`
	ExtraFiles     []extraFile     `json:"extra_files"`
	Metadata       json.RawMessage `json:"metadata"` // null where there is none
	// The rest needs libtorch; Note says why it is missing.
	Methods    []method   `json:"methods,omitempty"`
	Parameters *tensorSum `json:"parameters,omitempty"`
	Buffers    *tensorSum `json:"buffers,omitempty"`
	Training   bool       `json:"training,omitempty"`
	Note       string     `json:"note,omitempty"`

	meta *vit.Metadata
}

type extraFile struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

type method struct {
	Name     string `json:"name"`
	Schema   string `json:"schema"`
	Stateful bool   `json:"stateful"`
}

// tensorSum adds up parameters or buffers.
type tensorSum struct {
	Count   int64        `json:"count"` // elements
	Bytes   int64        `json:"bytes"`
	DTypes  []string     `json:"dtypes"`
	Tensors []tensorInfo `json:"tensors"`
}

type tensorInfo struct {
	Name  string  `json:"name"`
	DType string  `json:"dtype"`
	Shape []int64 `json:"shape"`
}

func newInspectCommand(a *app) *cobra.Command {
	var tensors bool
	cmd := &cobra.Command{
		Use:   "inspect MODEL",
		Short: "Say what is in a model file: metadata, methods, parameters",
		Long: "inspect checks a TorchScript file (structure, sizes, checksums) and prints what it says of itself,\n" +
			"its methods with their schemas, its parameters and buffers, and its extra files. Without libtorch\n" +
			"it prints what can be read from the archive alone.",
		Example: "  torchvit inspect vit_tiny.pt\n" +
			"  torchvit inspect vit_tiny.pt --tensors          # every parameter and buffer\n" +
			"  torchvit inspect vit_tiny.pt --json | jq .methods[].schema",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := inspectArchive(args[0])
			if err != nil {
				return err
			}
			failed := in.load(a, args[0])
			if errors.Is(failed, torch.ErrNotInstalled) {
				in.Note, failed = "methods, parameters and buffers need libtorch: "+oneLine(failed), nil
			}
			if failed != nil {
				in.Note = oneLine(failed)
			}
			if a.json {
				err = a.printJSON(in)
			} else {
				err = in.print(cmd.OutOrStdout(), tensors)
			}
			return errors.Join(err, failed)
		},
	}
	cmd.Flags().BoolVar(&tensors, "tensors", false, "list every parameter and buffer")
	return cmd
}

// inspectArchive reads what needs no libtorch.
func inspectArchive(path string) (*inspection, error) {
	archive, err := jit.OpenArchive(path)
	if err != nil {
		return nil, err
	}
	defer archive.Close()
	in := &inspection{File: path, Bytes: archive.Size(), ArchiveVersion: archive.Version(), ExtraFiles: []extraFile{}}
	for _, name := range archive.ExtraFiles() {
		content, err := archive.ReadExtra(name)
		if err != nil {
			return nil, err
		}
		in.ExtraFiles = append(in.ExtraFiles, extraFile{name, int64(len(content))})
	}
	text, err := archive.ReadExtra(vit.MetadataFile)
	if errors.Is(err, os.ErrNotExist) {
		text, err = os.ReadFile(path + ".json")
	}
	if errors.Is(err, os.ErrNotExist) {
		return in, nil // any TorchScript file can be looked at
	}
	if err != nil {
		return nil, err
	}
	if in.meta, err = vit.ParseMetadata(text); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	in.Metadata = text
	return in, nil
}

// load adds what libtorch knows.
func (in *inspection) load(a *app, path string) error {
	if _, err := a.open(); err != nil {
		return err
	}
	module, err := jit.Load(path, jit.LoadOptions{})
	if err != nil {
		return err
	}
	defer module.Close()
	for _, m := range module.Methods() {
		in.Methods = append(in.Methods, method(m))
	}
	in.Training = module.Training()
	if in.Parameters, err = sum(module.NamedParameters()); err != nil {
		return err
	}
	in.Buffers, err = sum(module.NamedBuffers())
	return err
}

func sum(tensors []jit.NamedTensor, err error) (*tensorSum, error) {
	if err != nil {
		return nil, err
	}
	s := &tensorSum{DTypes: []string{}, Tensors: []tensorInfo{}}
	for _, t := range tensors {
		dtype, n := t.Tensor.DType(), t.Tensor.NumEl()
		s.Count += n
		s.Bytes += n * int64(dtype.Size())
		if !slices.Contains(s.DTypes, dtype.String()) {
			s.DTypes = append(s.DTypes, dtype.String())
		}
		s.Tensors = append(s.Tensors, tensorInfo{t.Name, dtype.String(), t.Tensor.Shape()})
		t.Tensor.Close()
	}
	return s, nil
}

func (s *tensorSum) String() string {
	if len(s.Tensors) == 0 {
		return "none"
	}
	return fmt.Sprintf("%s in %d tensors, %s of %s", grouped(s.Count), len(s.Tensors), bytesText(s.Bytes), strings.Join(s.DTypes, ", "))
}

func (in *inspection) print(w io.Writer, tensors bool) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(tw, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	line("file", "%s (%s, TorchScript archive version %d, checksums right)", in.File, bytesText(in.Bytes), in.ArchiveVersion)
	if in.meta == nil {
		line("metadata", "none: only inspect, run and bench know what to do with the file; `scripts/export.py` makes one that describes itself")
	} else {
		printMetadata(line, in.meta)
	}
	for i, f := range in.ExtraFiles {
		line(first(i, "extra files"), "%s (%s)", f.Name, bytesText(f.Bytes))
	}
	for i, m := range in.Methods {
		note := ""
		if m.Stateful {
			note = "   (writes attributes: its calls run one after the other)"
		}
		line(first(i, "methods"), "%s%s", plainSchema(m.Schema), note)
	}
	for _, s := range []struct {
		name string
		sum  *tensorSum
	}{{"parameters", in.Parameters}, {"buffers", in.Buffers}} {
		if s.sum == nil {
			continue
		}
		line(s.name, "%s", s.sum)
		if tensors {
			for _, t := range s.sum.Tensors {
				line("", "%s  %s %s", t.Name, t.DType, shapeText(t.Shape))
			}
		}
	}
	if in.Training {
		line("mode", "training: dropout and batch statistics are at work unless Eval is called")
	}
	if in.Note != "" {
		line("note", "%s", in.Note)
	}
	return tw.Flush()
}

// first is the name for the first line of several.
func first(i int, name string) string {
	if i > 0 {
		return ""
	}
	return name
}

// plainSchema leaves the module itself out of a method's schema.
func plainSchema(schema string) string {
	open := strings.IndexByte(schema, '(')
	if open < 0 || !strings.HasPrefix(schema[open+1:], "__torch__.") {
		return schema
	}
	end := strings.IndexAny(schema[open:], ",)")
	if end < 0 {
		return schema
	}
	rest := schema[open+end:]
	return schema[:open+1] + strings.TrimPrefix(strings.TrimPrefix(rest, ","), " ")
}

func printMetadata(line func(name, format string, args ...any), m *vit.Metadata) {
	line("task", "%s", m.Task)
	line("architecture", "%s", m.Architecture)
	if m.Torch != "" {
		line("torch", "%s", m.Torch)
	}
	if s := m.Input.Size; len(s) == 2 {
		more := ""
		switch {
		case m.Input.Dynamic && m.Input.MultipleOf > 1:
			more = fmt.Sprintf(", other sizes too, of multiples of %d", m.Input.MultipleOf)
		case m.Input.Dynamic:
			more = ", any other size too"
		}
		line("input", "%d x %d (height x width), RGB%s", s[0], s[1], more)
	}
	line("preprocess", "%s", preprocessText(m.Preprocess))
	if t := m.Tokens; t != nil {
		line("tokens", "patches of %d x %d, %d prefix token(s), embed_dim %d, %d blocks of %d heads", t.PatchSize[0], t.PatchSize[1], t.Prefix, t.EmbedDim, t.Depth, t.NumHeads)
	}
	if len(m.Labels) > 0 {
		const shown = 8
		text := strings.Join(m.Labels[:min(shown, len(m.Labels))], ", ")
		if len(m.Labels) > shown {
			text += ", ..."
		}
		line("labels", "%d: %s", len(m.Labels), text)
	}
	if m.Thresholds != nil && m.Thresholds.Score != nil {
		line("threshold", "score %g", *m.Thresholds.Score)
	}
	if r := m.Reference; r != nil {
		line("reference", "%d calls by torch %s with %d thread(s), %s, on %s with %s; `torchvit verify` replays them", len(r.Calls), r.Torch, r.Threads, r.DType, r.CPUVendor, r.CPUCapability)
	} else {
		line("reference", "none: `torchvit verify` has nothing to replay")
	}
}

// preprocessText says in one line what becomes of a photo.
func preprocessText(s transforms.Spec) string {
	var steps []string
	sizes := func(size []int) string {
		if len(size) == 2 {
			return fmt.Sprintf("%d x %d", size[0], size[1])
		}
		return strings.Trim(fmt.Sprint(size), "[]")
	}
	if r := s.Resize; r.Rule != "" && r.Rule != transforms.RuleNone {
		backend, filter := cmp.Or(s.Backend, transforms.PIL), cmp.Or(s.Interpolation, transforms.Bilinear)
		step := fmt.Sprintf("resize %s to %s", strings.ReplaceAll(r.Rule, "_", " "), sizes(r.Size))
		if r.MaxSize > 0 {
			step += fmt.Sprintf(", at most %d", r.MaxSize)
		}
		if r.MultipleOf > 1 {
			step += fmt.Sprintf(", multiples of %d", r.MultipleOf)
		}
		steps = append(steps, fmt.Sprintf("%s (%s, %s)", step, filter, backend))
	}
	if c := s.Crop; c.Rule != "" && c.Rule != transforms.CropNone {
		steps = append(steps, fmt.Sprintf("crop %s %s", strings.ReplaceAll(c.Rule, "_", " "), sizes(c.Size)))
	}
	switch s.Normalize {
	case transforms.NormalizeNone:
		steps = append(steps, "0..1")
	default:
		steps = append(steps, fmt.Sprintf("mean %v, std %v", s.Mean, s.Std))
	}
	return strings.Join(steps, "; ")
}
