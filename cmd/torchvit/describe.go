package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// describing are the flags that describe a model file, for files that do not describe themselves. They win
// over what a file says.
type describing struct {
	app *app
	cmd *cobra.Command

	task, size, resize, resizeSize, crop, interpolation, backend string
	mean, std, normalize, channelOrder, layout, labels           string
	kind, activation, leaves, patchSize                          string
	resizeMax, multipleOf, prefixTokens, depth                   int
}

// describeFlags adds them to a command; options gives what they say when the command runs.
func (a *app) describeFlags(cmd *cobra.Command) *describing {
	d := &describing{app: a, cmd: cmd}
	flags := cmd.Flags()
	text := func(p *string, name, usage string, completions ...string) {
		flags.StringVar(p, name, "", usage)
		if completions != nil {
			_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(completions, cobra.ShellCompDirectiveNoFileComp))
		}
	}
	text(&d.task, "task", "the model's `task` where the file does not say it (default: the command's)",
		vit.TaskClassification, vit.TaskSegmentation, vit.TaskSegmentationHead, vit.TaskDetection, vit.TaskFeatures)
	text(&d.size, "size", "`HxW` of the model's input, to which photos are resized or cropped")
	text(&d.resize, "resize", "`rule` of the resize: exact, shortest_edge, longest_edge, letterbox, detr, yolos, cover, contain, max_edges, dpt or none (default: exact)",
		transforms.RuleExact, transforms.RuleShortestEdge, transforms.RuleLongestEdge, transforms.RuleLetterbox, transforms.RuleDETR,
		transforms.RuleYOLOS, transforms.RuleCover, transforms.RuleContain, transforms.RuleMax, transforms.RuleDPT, transforms.RuleNone)
	text(&d.resizeSize, "resize-size", "`HxW` or side of the resize, where it is not --size")
	flags.IntVar(&d.resizeMax, "resize-max", 0, "longest `side` after the resize, for shortest_edge, detr and yolos")
	text(&d.crop, "crop", "`rule` of the crop to --size after the resize: center, center_floor (Hugging Face's) or none",
		transforms.CropCenter, transforms.CropCenterFloor, transforms.CropNone)
	text(&d.interpolation, "interpolation", "`filter` of the resize: bilinear, bicubic, nearest, lanczos, ... (default: bilinear)",
		"bilinear", "bicubic", "nearest", "nearest-exact", "lanczos", "box", "hamming")
	text(&d.backend, "backend", "whose resize: `pil` (default) or torch", string(transforms.PIL), string(transforms.Torch))
	text(&d.mean, "mean", "`mean` of the channels, of levels 0 to 1: numbers, or imagenet, inception or clip, which give --std too", "imagenet", "inception", "clip")
	text(&d.std, "std", "`deviation` of the channels, like --mean", "imagenet", "inception", "clip")
	text(&d.normalize, "normalize", "`arithmetic` from bytes to floats: torchvision (default), torchvision_v2, fused (Hugging Face's) or none (0 to 1)",
		string(transforms.NormalizeTorchvision), string(transforms.NormalizeV2), string(transforms.NormalizeFused), string(transforms.NormalizeNone))
	text(&d.channelOrder, "channel-order", "`order` of the channels: RGB (default) or BGR", "RGB", "BGR")
	text(&d.layout, "layout", "forward's `input`: batch (a tensor) or list (of tensors)", vit.LayoutBatch, vit.LayoutList)
	text(&d.labels, "labels", "`file` with the classes' names, one a line or JSON, or a set: "+strings.Join(vit.LabelSetNames(), ", "))
	text(&d.kind, "output-kind", "`kind` of forward's answer, where its form does not tell: set_prediction_sigmoid, yolo, ...", vit.OutputKinds()...)
	text(&d.activation, "activation", "what makes scores of a classifier's logits: `softmax` (default), sigmoid or none",
		vit.ActivationSoftmax, vit.ActivationSigmoid, vit.ActivationNone)
	text(&d.leaves, "leaves", "`places` of the tensors that count in forward's answer: out.0,out.1")
	text(&d.patchSize, "patch-size", "`HxW` or side of the ViT's patches")
	flags.IntVar(&d.prefixTokens, "prefix-tokens", 0, "`tokens` before those of the patches: class, distillation, registers")
	flags.IntVar(&d.depth, "depth", 0, "`blocks` of the ViT")
	flags.IntVar(&d.multipleOf, "multiple-of", 0, "the model takes inputs of other sizes than --size too, whose sides this `number` divides")
	return d
}

// options reads what is known of the model file and gives vit.Options with it as Metadata. task, a task or
// vit.TaskAttention, is what the command is for: that of a file of which nothing says it. A file that lacks
// what its task needs is an error that says which flags give it.
func (d *describing) options(path, task string, device torch.Device) (vit.Options, error) {
	o := vit.Options{Device: device, Precision: d.app.precision, Note: d.app.note(path)}
	known, err := vit.Describe(path)
	if err != nil {
		return o, err
	}
	if err := d.set(known); err != nil {
		return o, err
	}
	o.Task = task
	if task == vit.TaskAttention {
		o.Task = vit.TaskClassification
	}
	if o.Metadata, err = known.Metadata(o.Task); err != nil {
		return o, err
	}
	if err := known.Need(o.Metadata.Task); err != nil {
		return o, err
	}
	// A file that describes itself and has no tokens gives no attention, whatever the flags say.
	if task == vit.TaskAttention && known.Source("task") != vit.MetadataFile {
		err = known.Need(task)
	}
	return o, err
}

func (d *describing) given(name string) bool { return d.cmd.Flags().Changed(name) }

// set gives the flags to a description.
func (d *describing) set(known *vit.Description) error {
	for _, step := range []func(*vit.Description) error{d.setTask, d.setResize, d.setLevels, d.setTokens, d.setLabels} {
		if err := step(known); err != nil {
			return err
		}
	}
	return nil
}

// oneOf checks a flag's value.
func oneOf(flag, value string, values ...string) error {
	if slices.Contains(values, value) {
		return nil
	}
	return usagef("--%s %s: want %s or %s", flag, value, strings.Join(values[:len(values)-1], ", "), values[len(values)-1])
}

func (d *describing) setTask(known *vit.Description) error {
	for _, f := range []struct {
		flag, field, value string
		values             []string
		change             func(*vit.Metadata)
	}{
		{
			"task", "task", d.task,
			[]string{vit.TaskClassification, vit.TaskSegmentation, vit.TaskSegmentationHead, vit.TaskDetection, vit.TaskFeatures},
			func(m *vit.Metadata) { m.Task = d.task },
		},
		{"layout", "input.layout", d.layout, []string{vit.LayoutBatch, vit.LayoutList}, func(m *vit.Metadata) { m.Input.Layout = d.layout }},
		{"output-kind", "output.kind", d.kind, vit.OutputKinds(), func(m *vit.Metadata) { m.Output.Kind = d.kind }},
		{
			"activation", "output.activation", d.activation,
			[]string{vit.ActivationSoftmax, vit.ActivationSigmoid, vit.ActivationNone},
			func(m *vit.Metadata) { m.Output.Activation = d.activation },
		},
		{"leaves", "output.leaves", d.leaves, nil, func(m *vit.Metadata) { m.Output.Leaves = strings.Split(strings.ReplaceAll(d.leaves, " ", ""), ",") }},
	} {
		if !d.given(f.flag) {
			continue
		}
		if f.values != nil {
			if err := oneOf(f.flag, f.value, f.values...); err != nil {
				return err
			}
		}
		known.Set("--"+f.flag, f.field, f.change)
	}
	if d.given("multiple-of") {
		if d.multipleOf < 1 {
			return usagef("--multiple-of %d: want 1 or more", d.multipleOf)
		}
		known.Set("--multiple-of", "input.multiple_of", func(m *vit.Metadata) { m.Input.MultipleOf = d.multipleOf })
		known.Set("--multiple-of", "input.dynamic", func(m *vit.Metadata) { m.Input.Dynamic = true })
	}
	return nil
}

// parseSize reads HxW, or one side.
func parseSize(flag, value string) ([]int, error) {
	var size []int
	for part := range strings.SplitSeq(value, "x") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 1 || n > 1<<16 || len(size) == 2 {
			return nil, usagef("--%s %s: want HEIGHTxWIDTH, such as 224x224, or one side", flag, value)
		}
		size = append(size, n)
	}
	return size, nil
}

func square(size []int) []int { return []int{size[0], size[len(size)-1]} }

func oneEdge(rule string) bool {
	switch rule {
	case transforms.RuleShortestEdge, transforms.RuleLongestEdge, transforms.RuleDETR, transforms.RuleYOLOS:
		return true
	}
	return false
}

// setResize makes the resize and the crop out of --size, --resize, --resize-size, --resize-max and --crop. What
// is not said stays as the file has it; a file of which nothing is known stretches photos to --size.
func (d *describing) setResize(known *vit.Description) error {
	var size, resizeSize []int
	var err error
	if d.given("size") {
		if size, err = parseSize("size", d.size); err != nil {
			return err
		}
		size = square(size)
		known.Set("--size", "input.size", func(m *vit.Metadata) { m.Input.Size = size })
	}
	if d.given("resize-size") {
		if resizeSize, err = parseSize("resize-size", d.resizeSize); err != nil {
			return err
		}
	}
	meta := known.Known()
	spec := meta.Preprocess
	if d.given("crop") {
		switch err := oneOf("crop", d.crop, transforms.CropCenter, transforms.CropCenterFloor, transforms.CropNone); {
		case err != nil:
			return err
		case d.crop == transforms.CropNone:
			spec.Crop = transforms.CropSpec{Rule: transforms.CropNone}
		case size == nil && spec.Crop.Size == nil:
			return usagef("--crop %s: want the crop's --size too", d.crop)
		default:
			spec.Crop.Rule = d.crop
		}
		known.Set("--crop", "preprocess.crop", func(m *vit.Metadata) { m.Preprocess.Crop = spec.Crop })
	}
	crops := spec.Crop.Rule != "" && spec.Crop.Rule != transforms.CropNone
	// A crop to another size keeps its share of the photo.
	scale := func(old int) int { return old }
	if crops && size != nil {
		if was := spec.Crop.Size; len(was) > 0 {
			scale = func(old int) int { return max(1, (old*size[0]+was[0]/2)/was[0]) }
		}
		spec.Crop.Size = size
		known.Set("--size", "preprocess.crop", func(m *vit.Metadata) { m.Preprocess.Crop = spec.Crop })
	}
	source := ""
	for _, flag := range []string{"resize-max", "size", "resize-size", "resize"} {
		if d.given(flag) {
			source = "--" + flag
		}
	}
	unsaid := known.Source("preprocess") == ""
	if source == "" && unsaid && len(meta.Input.Size) == 2 && (d.given("mean") || d.given("normalize")) {
		size, source = meta.Input.Size, known.Source("input.size")
	}
	if source == "" {
		return nil
	}
	r := spec.Resize
	switch {
	case d.given("resize"):
		r = transforms.ResizeSpec{Rule: d.resize}
	case unsaid && (crops || len(resizeSize) == 1):
		r.Rule = transforms.RuleShortestEdge
	case r.Rule == "" || r.Rule == transforms.RuleNone:
		r.Rule = transforms.RuleExact
	}
	target := resizeSize
	if target == nil && size != nil && (!crops || len(r.Size) == 0) {
		target = size
	}
	switch {
	case r.Rule == transforms.RuleNone:
		r = transforms.ResizeSpec{Rule: transforms.RuleNone}
	case target != nil && oneEdge(r.Rule):
		r.Size = []int{min(target[0], target[len(target)-1])}
	case target != nil:
		r.Size = square(target)
	case len(r.Size) == 0:
		return usagef("%s: want --size or --resize-size too", source)
	case size != nil:
		scaled := make([]int, len(r.Size))
		for i, v := range r.Size {
			scaled[i] = scale(v)
		}
		r.Size = scaled
	}
	if d.given("resize-max") {
		r.MaxSize = d.resizeMax
	}
	known.Set(source, "preprocess.resize", func(m *vit.Metadata) { m.Preprocess.Resize = r })
	return nil
}

// levels are means and deviations by name.
var levels = map[string]struct{ mean, std []float64 }{
	"imagenet":  {[]float64{0.485, 0.456, 0.406}, []float64{0.229, 0.224, 0.225}},
	"inception": {[]float64{0.5, 0.5, 0.5}, []float64{0.5, 0.5, 0.5}},
	"clip":      {[]float64{0.48145466, 0.4578275, 0.40821073}, []float64{0.26862954, 0.26130258, 0.27577711}},
}

// parseLevels reads three numbers, or one for all channels.
func parseLevels(flag, value string) ([]float64, error) {
	var numbers []float64
	for part := range strings.SplitSeq(value, ",") {
		v, err := strconv.ParseFloat(strings.TrimSpace(part), 64)
		if err != nil {
			return nil, usagef("--%s %s: want imagenet, inception, clip, one number or three with commas", flag, value)
		}
		numbers = append(numbers, v)
	}
	switch len(numbers) {
	case 1:
		return []float64{numbers[0], numbers[0], numbers[0]}, nil
	case 3:
		return numbers, nil
	}
	return nil, usagef("--%s %s: got %d numbers, want one or three", flag, value, len(numbers))
}

func (d *describing) setLevels(known *vit.Description) error {
	spec := known.Known().Preprocess
	set := func(flag, field string, change func(*transforms.Spec)) {
		known.Set("--"+flag, "preprocess."+field, func(m *vit.Metadata) { change(&m.Preprocess) })
	}
	mean, std := spec.Mean, spec.Std
	var err error
	if d.given("mean") {
		if named, ok := levels[d.mean]; ok {
			mean, std = named.mean, named.std
		} else if mean, err = parseLevels("mean", d.mean); err != nil {
			return err
		}
	}
	if d.given("std") {
		if named, ok := levels[d.std]; ok {
			std = named.std
		} else if std, err = parseLevels("std", d.std); err != nil {
			return err
		}
	}
	if d.given("mean") || d.given("std") {
		if mean == nil || std == nil {
			return usagef("--mean and --std: want both")
		}
		set("mean", "mean", func(s *transforms.Spec) { s.Mean, s.Std = mean, std })
		set("mean", "normalize", func(s *transforms.Spec) {
			if s.Normalize == transforms.NormalizeNone {
				s.Normalize = transforms.NormalizeTorchvision
			}
		})
	}
	if d.given("normalize") {
		if err := oneOf("normalize", d.normalize, string(transforms.NormalizeTorchvision), string(transforms.NormalizeV2),
			string(transforms.NormalizeFused), string(transforms.NormalizeNone)); err != nil {
			return err
		}
		if d.normalize != string(transforms.NormalizeNone) && mean == nil {
			return usagef("--normalize %s: want --mean and --std too", d.normalize)
		}
		set("normalize", "normalize", func(s *transforms.Spec) {
			s.Normalize = transforms.Normalization(d.normalize)
			if d.normalize == string(transforms.NormalizeNone) {
				s.Mean, s.Std = nil, nil
			}
		})
	}
	if d.given("interpolation") {
		set("interpolation", "interpolation", func(s *transforms.Spec) { s.Interpolation = transforms.Interpolation(d.interpolation) })
	}
	if d.given("backend") {
		if err := oneOf("backend", d.backend, string(transforms.PIL), string(transforms.Torch)); err != nil {
			return err
		}
		set("backend", "backend", func(s *transforms.Spec) { s.Backend = transforms.Backend(d.backend) })
	}
	if d.given("channel-order") {
		if err := oneOf("channel-order", d.channelOrder, "RGB", "BGR"); err != nil {
			return err
		}
		set("channel-order", "channel_order", func(s *transforms.Spec) { s.ChannelOrder = d.channelOrder })
	}
	return nil
}

func (d *describing) setTokens(known *vit.Description) error {
	if d.given("patch-size") {
		size, err := parseSize("patch-size", d.patchSize)
		if err != nil {
			return err
		}
		known.Set("--patch-size", "tokens.patch_size", func(m *vit.Metadata) { m.Tokens.PatchSize = square(size) })
	}
	for _, f := range []struct {
		flag, field string
		value       int
		change      func(*vit.Metadata)
	}{
		{"prefix-tokens", "tokens.prefix", d.prefixTokens, func(m *vit.Metadata) { m.Tokens.Prefix = d.prefixTokens }},
		{"depth", "tokens.depth", d.depth, func(m *vit.Metadata) { m.Tokens.Depth = d.depth }},
	} {
		if !d.given(f.flag) {
			continue
		}
		if f.value < 0 {
			return usagef("--%s %d: want 0 or more", f.flag, f.value)
		}
		known.Set("--"+f.flag, f.field, f.change)
	}
	return nil
}

func (d *describing) setLabels(known *vit.Description) error {
	if !d.given("labels") {
		return nil
	}
	labels, err := readLabels(d.labels)
	if err != nil {
		return fmt.Errorf("--labels: %w", err)
	}
	known.Set("--labels", "labels", func(m *vit.Metadata) {
		m.Labels = labels
		if len(m.Palette) != len(labels) {
			m.Palette = nil // it was for other classes
		}
	})
	return nil
}

// readLabels takes the name of a set, or a file of names: one a line, a JSON list, or a JSON object of names
// by number, such as id2label.
func readLabels(name string) ([]string, error) {
	if slices.Contains(vit.LabelSetNames(), name) {
		return vit.LabelSet(name)
	}
	text, err := os.ReadFile(name)
	if os.IsNotExist(err) {
		return nil, fmt.Errorf("%w; sets are %s", err, strings.Join(vit.LabelSetNames(), ", "))
	}
	if err != nil {
		return nil, err
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if start := bytes.TrimSpace(text); len(start) > 0 && (start[0] == '[' || start[0] == '{') {
		labels, err := vit.ParseLabels(json.RawMessage(start))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return labels, nil
	}
	labels := strings.Split(strings.TrimRight(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n"), "\n")
	if len(labels) == 1 && labels[0] == "" {
		return nil, fmt.Errorf("%s: got no names", name)
	}
	return labels, nil
}
