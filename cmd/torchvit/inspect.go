package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
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
	File           string      `json:"file"`
	Bytes          int64       `json:"bytes"`
	ArchiveVersion int         `json:"archive_version"`
	ExtraFiles     []extraFile `json:"extra_files"`
	// Metadata is what is known as a whole, null where nothing says what the file's task is; Sources says for
	// each part who gave it, Missing for each task what it lacks.
	Metadata *vit.Metadata            `json:"metadata"`
	Sources  map[string]string        `json:"sources"`
	Missing  map[string][]vit.Missing `json:"missing"`
	Notes    []string                 `json:"notes,omitempty"`
	// The rest needs libtorch; Note says why it is missing.
	Methods    []method   `json:"methods,omitempty"`
	Parameters *tensorSum `json:"parameters,omitempty"`
	Buffers    *tensorSum `json:"buffers,omitempty"`
	Training   bool       `json:"training,omitempty"`
	Note       string     `json:"note,omitempty"`

	known *vit.Description
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
		Long: "inspect checks a TorchScript file (structure, sizes, checksums) and prints what is known of it and\n" +
			"who says so, what a task lacks and what gives it, its methods with their schemas, its parameters and\n" +
			"buffers, and its extra files. Without libtorch it prints what can be read from the files alone.\n\n" +
			"What others write is read too: ultralytics' config.txt inside, and beside the file config.json of\n" +
			"timm or transformers, preprocessor_config.json and MODEL.json (docs/model-files.md).",
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
	if in.known, err = vit.Describe(path); err != nil {
		return nil, err
	}
	in.Sources, in.Notes = map[string]string{}, in.known.Notes
	for _, field := range in.known.Fields() {
		in.Sources[field] = in.known.Source(field)
	}
	if in.Metadata, err = in.known.Metadata(""); err != nil && !errors.Is(err, vit.ErrNoMetadata) {
		return nil, err
	}
	in.Missing = map[string][]vit.Missing{}
	for _, task := range in.tasks() {
		in.Missing[task] = append([]vit.Missing{}, in.known.Missing(task)...)
	}
	return in, nil
}

// tasks are those that the file may be for: its own, else all that take photos.
func (in *inspection) tasks() []string {
	if in.Metadata == nil {
		return []string{vit.TaskClassification, vit.TaskSegmentation, vit.TaskDetection, vit.TaskAttention}
	}
	switch in.Metadata.Task {
	case vit.TaskClassification, vit.TaskSegmentation:
		return []string{in.Metadata.Task, vit.TaskAttention}
	}
	return []string{in.Metadata.Task}
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
	if in.Metadata == nil {
		line("metadata", "none that says what the file's task is")
	}
	in.printKnown(line)
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
	in.printMissing(line)
	for i, note := range in.Notes {
		line(first(i, "not used"), "%s", note)
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

// printKnown prints what is known of the file; who said it stands behind what torchvit.json does not say.
func (in *inspection) printKnown(line func(name, format string, args ...any)) {
	m := in.known.Known()
	known := func(name, text string, fields ...string) {
		var sources []string
		given := false
		for _, field := range fields {
			source := in.known.Source(field)
			given = given || source != ""
			if source != "" && source != vit.MetadataFile && !slices.Contains(sources, source) {
				sources = append(sources, source)
			}
		}
		if !given {
			return
		}
		if len(sources) > 0 {
			text += "   (" + strings.Join(sources, ", ") + ")"
		}
		line(name, "%s", text)
	}
	known("task", m.Task, "task")
	known("architecture", m.Architecture, "architecture")
	known("torch", m.Torch, "torch")
	if s := m.Input.Size; len(s) == 2 {
		text := fmt.Sprintf("%d x %d (height x width), %s", s[0], s[1], cmp.Or(m.Preprocess.ChannelOrder, "RGB"))
		switch {
		case m.Input.Dynamic && m.Input.MultipleOf > 1:
			text += fmt.Sprintf(", other sizes too, of multiples of %d", m.Input.MultipleOf)
		case m.Input.Dynamic:
			text += ", any other size too"
		}
		known("input", text, "input.size")
	}
	known("layout", map[string]string{
		vit.LayoutBatch: "one tensor (B, 3, H, W)", vit.LayoutList: "a list of tensors (3, H, W)",
	}[m.Input.Layout], "input.layout")
	if b := m.Input.Blocks; len(b) > 0 {
		known("takes", fmt.Sprintf("the tokens of blocks %s", strings.Trim(fmt.Sprint(b), "[]")), "input.blocks")
	}
	known("preprocess", preprocessText(m.Preprocess), "preprocess")
	if t := m.Tokens; t != nil && len(t.PatchSize) == 2 {
		parts := []string{fmt.Sprintf("patches of %d x %d, %d prefix token(s)", t.PatchSize[0], t.PatchSize[1], t.Prefix)}
		if t.EmbedDim > 0 {
			parts = append(parts, fmt.Sprintf("embed_dim %d", t.EmbedDim))
		}
		switch {
		case t.Depth > 0 && t.NumHeads > 0:
			parts = append(parts, fmt.Sprintf("%d blocks of %d heads", t.Depth, t.NumHeads))
		case t.Depth > 0:
			parts = append(parts, fmt.Sprintf("%d blocks", t.Depth))
		}
		known("tokens", strings.Join(parts, ", "), "tokens.patch_size")
	}
	output := m.Output.Kind
	if len(m.Output.Leaves) > 0 {
		output = strings.TrimPrefix(output+" in "+strings.Join(m.Output.Leaves, ", "), " ")
	}
	if a := m.Output.Activation; a != "" && a != vit.ActivationSoftmax {
		output = strings.TrimPrefix(output+", scores by "+a, ", ")
	}
	if output != "" {
		known("output", output, "output.kind", "output.leaves", "output.activation")
	}
	if len(m.Labels) > 0 {
		const shown = 8
		text := strings.Join(m.Labels[:min(shown, len(m.Labels))], ", ")
		if len(m.Labels) > shown {
			text += ", ..."
		}
		known("labels", fmt.Sprintf("%d: %s", len(m.Labels), text), "labels")
	}
	if t := m.Thresholds; t != nil {
		var limits []string
		for _, l := range []struct {
			name  string
			value *float64
		}{{"score", t.Score}, {"iou", t.IoU}, {"mask", t.Mask}} {
			if l.value != nil {
				limits = append(limits, fmt.Sprintf("%s %g", l.name, *l.value))
			}
		}
		known("thresholds", strings.Join(limits, ", "), "thresholds.score", "thresholds.iou", "thresholds.mask")
	}
	if t := m.Training; t != nil {
		known("training", trainingText(t), "training")
	}
	switch r := m.Reference; {
	case r != nil:
		line("reference", "%d calls by %s %s with %d thread(s), %s, on %s with %s; `torchvit verify` replays them", len(r.Calls), strings.TrimPrefix(r.By+" with torch", " with "), r.Torch, r.Threads, r.DType, r.CPUVendor, r.CPUCapability)
	case in.Metadata != nil:
		line("reference", "none: `torchvit verify` has nothing to replay")
	}
}

// trainingText says in one line how the weights were made.
func trainingText(t *vit.Training) string {
	var parts []string
	add := func(format, value string) {
		if value != "" {
			parts = append(parts, fmt.Sprintf(format, value))
		}
	}
	add("from %s", t.From)
	add("with the weights of %s", t.Weights)
	data := t.Data
	if data != "" && t.Images > 0 {
		data = fmt.Sprintf("%s (%d images)", data, t.Images)
	}
	add("on %s", data)
	if t.Epochs > 0 {
		parts = append(parts, fmt.Sprintf("%d epochs", t.Epochs))
	}
	add("%s", t.Optimizer)
	add("seed %s", strconv.FormatInt(t.Seed, 10))
	if t.Metric != "" {
		parts = append(parts, fmt.Sprintf("%s %.4f after epoch %d", t.Metric, t.Value, t.Epoch))
	}
	add("by %s", t.By)
	return strings.Join(parts, ", ")
}

// printMissing says for each task what it lacks and what gives it.
func (in *inspection) printMissing(line func(name, format string, args ...any)) {
	type lack struct {
		vit.Missing
		tasks []string
	}
	var list []*lack
	for _, task := range in.tasks() {
		if task == vit.TaskAttention && in.Methods != nil && !slices.ContainsFunc(in.Methods, func(m method) bool { return m.Name == "attention" }) {
			continue // `scripts/export.py` makes a file that has it, and that describes itself
		}
		for _, m := range in.Missing[task] {
			at := slices.IndexFunc(list, func(l *lack) bool { return l.Missing == m })
			if at < 0 {
				at = len(list)
				list = append(list, &lack{Missing: m})
			}
			list[at].tasks = append(list[at].tasks, task)
		}
	}
	for i, l := range list {
		give := fmt.Sprintf("%s in %s.json", l.Field, filepath.Base(in.File))
		if l.Flags != "" {
			give = l.Flags + ", or " + give
		}
		use := "nice to know"
		if l.Needed {
			use = "needed"
		}
		line(first(i, "missing"), "%s (%s for %s): %s", l.Why, use, strings.Join(l.tasks, ", "), give)
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
		if s.Mean == nil {
			steps = append(steps, "0..1")
			break
		}
		steps = append(steps, fmt.Sprintf("mean %v, std %v", s.Mean, s.Std))
	}
	if s.ChannelOrder == "BGR" {
		steps = append(steps, "BGR")
	}
	return strings.Join(steps, "; ")
}
