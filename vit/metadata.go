package vit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/torchvit/torchvit/transforms"
)

// ErrMetadata is wrapped by the errors for a description that is not valid.
var ErrMetadata = errors.New("invalid metadata")

// MetadataFormat is the format of torchvit.json that this package reads.
const MetadataFormat = 1

// The tasks of a model file.
const (
	TaskClassification   = "classification"
	TaskSegmentation     = "segmentation"
	TaskSegmentationHead = "segmentation_head"
	TaskDetection        = "detection"
	// TaskFeatures is that of a file that gives feature maps only, as a traced backbone.
	TaskFeatures = "features"
)

// The kinds of output of forward. B photos, C classes.
const (
	// OutputLogits is (B, C).
	OutputLogits = "logits"
	// OutputSegmentationLogits is (B, C, h, w) at any size, from the grid of the patches to the input's;
	// C = 1 is a binary mask.
	OutputSegmentationLogits = "segmentation_logits"
	// OutputClassMap is (B, H, W) or (B, 1, H, W), class ids in place of logits.
	OutputClassMap = "class_map"
	// OutputHeadLogits is (B, C, height, width) of a segmentation head on tokens.
	OutputHeadLogits = "head_logits"
	// OutputDetections is torchvision's: for each photo a dict of boxes (N, 4) xyxy in pixels of the input,
	// labels (N), scores (N) and perhaps masks (N, 1, H, W); scripted files give (losses, that list).
	OutputDetections = "detections"
	// OutputSetPrediction is DETR's and YOLOS': logits (B, Q, C+1), whose last class is "no object", and
	// boxes (B, Q, 4), cxcywh as shares of the input.
	OutputSetPrediction = "set_prediction"
	// OutputSetPredictionSigmoid is that of Deformable DETR and RT-DETR: logits (B, Q, C), each class for
	// itself, and the same boxes.
	OutputSetPredictionSigmoid = "set_prediction_sigmoid"
	// OutputYOLO is ultralytics' (B, 4+C, A): cxcywh in pixels of the input, then the classes' scores.
	OutputYOLO = "yolo"
	// OutputYOLOEnd2End is (B, N, 6): xyxy in pixels of the input, score, class.
	OutputYOLOEnd2End = "yolo_end2end"
	// OutputYOLOGrid is a list of (B, anchors*(5+C), h, w), one for each level, before any sigmoid: YOLOv5's
	// grid of x, y, w, h, objectness and classes for each of output.anchors.
	OutputYOLOGrid = "yolo_grid"
	// OutputFeatures is a tensor, or a tuple or list of them: tokens (B, N, D) or maps (B, D, h, w).
	OutputFeatures = "features"
)

// The layouts of forward's input.
const (
	// LayoutBatch is one tensor (B, 3, H, W).
	LayoutBatch = "batch"
	// LayoutList is a list of tensors (3, H, W) of any sizes, as torchvision's detectors take it.
	LayoutList = "list"
)

// What turns logits into scores.
const (
	ActivationSoftmax = "softmax"
	ActivationSigmoid = "sigmoid"
	ActivationNone    = "none"
)

// Metadata is what a model file says of itself, as torchvit.json: see docs/model-files.md. Only Format and Task
// are always there; the zero value of another part means that it is not known.
type Metadata struct {
	// Format is MetadataFormat.
	Format int `json:"format"`
	// Task is one of the Task constants.
	Task string `json:"task"`
	// Architecture is the model's name, as timm's vit_tiny_patch16_224.
	Architecture string `json:"architecture,omitempty"`
	// Torch is the version of PyTorch that wrote the file.
	Torch string `json:"torch,omitempty"`
	// Input is what forward takes.
	Input InputSpec `json:"input"`
	// Preprocess makes that of a photo.
	Preprocess transforms.Spec `json:"preprocess"`
	// Tokens is how the ViT cuts its input, nil where there is none or it is not known.
	Tokens *Tokens `json:"tokens,omitempty"`
	// Output is what forward gives.
	Output OutputSpec `json:"output"`
	// Labels names the classes by index.
	Labels []string `json:"labels,omitempty"`
	// Palette is a colour, red, green and blue, for each of Labels.
	Palette [][3]uint8 `json:"palette,omitempty"`
	// Thresholds are those that the model was tuned for.
	Thresholds *Thresholds `json:"thresholds,omitempty"`
	// Training says how the weights were made, nil where nobody wrote it down. Nothing depends on it.
	Training *Training `json:"training,omitempty"`
	// Reference says what torchvit verify replays.
	Reference *Reference `json:"reference,omitempty"`
}

// Training is the "training" part of [Metadata]. What does not apply is left out.
type Training struct {
	// By is the program that trained.
	By string `json:"by,omitempty"`
	// From is the model file that training started from, Weights another one whose parameters it took.
	From    string `json:"from,omitempty"`
	Weights string `json:"weights,omitempty"`
	// Data is the data set, Images the number of its images, Validation what Value was measured on.
	Data       string `json:"data,omitempty"`
	Images     int    `json:"images,omitempty"`
	Validation string `json:"validation,omitempty"`
	// Epochs ran, each over all images, and made Steps steps of the optimizer, each of BatchSize images.
	Epochs    int `json:"epochs,omitempty"`
	Steps     int `json:"steps,omitempty"`
	BatchSize int `json:"batch_size,omitempty"`
	// Optimizer, Schedule and Precision by name: adamw, cosine, bfloat16.
	Optimizer   string  `json:"optimizer,omitempty"`
	LR          float64 `json:"lr,omitempty"`
	WeightDecay float64 `json:"weight_decay,omitempty"`
	LayerDecay  float64 `json:"layer_decay,omitempty"`
	Schedule    string  `json:"schedule,omitempty"`
	Precision   string  `json:"precision,omitempty"`
	// Freeze tells what stayed as it was, Head which part of the head began anew.
	Freeze string `json:"freeze,omitempty"`
	Head   string `json:"head,omitempty"`
	Seed   int64  `json:"seed,omitempty"`
	// Epoch, from 1, is the one whose weights the file has: the best one by Metric, whose Value is that of
	// the metric or, where there is no metric, the loss.
	Epoch  int     `json:"epoch,omitempty"`
	Metric string  `json:"metric,omitempty"`
	Value  float64 `json:"value,omitempty"`
}

// InputSpec is the "input" part of [Metadata].
type InputSpec struct {
	// Size is [H, W] in pixels.
	Size []int `json:"size,omitempty"`
	// MultipleOf divides the sides of every input; 0 and 1 mean any.
	MultipleOf int `json:"multiple_of,omitempty"`
	// Dynamic tells that other sizes than Size work.
	Dynamic bool `json:"dynamic,omitempty"`
	// ChannelOrder is "RGB"; "" is the same.
	ChannelOrder string `json:"channel_order,omitempty"`
	// Layout is LayoutBatch or LayoutList; "" is LayoutList for OutputDetections and LayoutBatch for the rest.
	Layout string `json:"layout,omitempty"`
	// Blocks are, for a segmentation head, the blocks of the ViT whose tokens (B, N, D) before the final norm
	// it takes, as a list; none means that it takes one tensor, the tokens after the final norm.
	Blocks []int `json:"blocks,omitempty"`
}

// Tokens is the "tokens" part of [Metadata]. A number of 0 is not known, except Prefix.
type Tokens struct {
	// PatchSize is [H, W] in pixels.
	PatchSize []int `json:"patch_size"`
	// Prefix is the number of tokens before the patches: class, distillation, registers.
	Prefix   int `json:"prefix"`
	NumHeads int `json:"num_heads,omitempty"`
	Depth    int `json:"depth,omitempty"`
	EmbedDim int `json:"embed_dim,omitempty"`
}

// OutputSpec is the "output" part of [Metadata].
type OutputSpec struct {
	// Kind is one of the Output constants that the task has; "" is found out from the answer.
	Kind string `json:"kind,omitempty"`
	// Leaves are the places in forward's answer that count, as [Outputs] names them: "out.0", "out.logits".
	// None means that they are found by their form.
	Leaves []string `json:"leaves,omitempty"`
	// Activation turns the logits of a classification into scores: ActivationSoftmax, which is also "",
	// ActivationSigmoid for classes that do not exclude each other, or ActivationNone where they are scores.
	Activation string `json:"activation,omitempty"`
	// Anchors are those of OutputYOLOGrid: for each level, width and height in pixels of the input.
	Anchors [][][2]float64 `json:"anchors,omitempty"`
}

// Thresholds is the "thresholds" part of [Metadata].
type Thresholds struct {
	// Score, 0 to 1, is below the scores of the detections that count.
	Score *float64 `json:"score,omitempty"`
	// IoU, 0 to 1, is that of non-maximum suppression where torchvit does it: two boxes that overlap more
	// count as one.
	IoU *float64 `json:"iou,omitempty"`
	// Mask, 0 to 1, is below the pixels of a binary mask that count.
	Mask *float64 `json:"mask,omitempty"`
}

// Reference is the "reference" part of [Metadata]: calls that Python made when it exported the file, whose
// inputs and answers are in torchvit.reference.npz.
type Reference struct {
	// By is the program that computed the answers where that is not Python's PyTorch: "torchvit".
	By    string `json:"by,omitempty"`
	Torch string `json:"torch"`
	// Threads is torch.get_num_threads().
	Threads int `json:"threads"`
	// DType is float32, bfloat16 or float16.
	DType string `json:"dtype"`
	// CPUVendor is vendor_id of /proc/cpuinfo, CPUCapability what torch.backends.cpu.get_cpu_capability() gave.
	CPUVendor     string `json:"cpu_vendor"`
	CPUCapability string `json:"cpu_capability"`
	// ATol and RTol are the tolerances on another machine, as of torch.allclose.
	ATol  float64         `json:"atol"`
	RTol  float64         `json:"rtol"`
	Calls []ReferenceCall `json:"calls"`
}

// ReferenceCall is one call of a [Reference].
type ReferenceCall struct {
	// Method is the method's name.
	Method string           `json:"method"`
	Inputs []ReferenceInput `json:"inputs"`
	// Outputs are the names of the answer's tensors by their place: out, out.0, out.1.0.boxes.
	Outputs []string `json:"outputs"`
}

// ReferenceInput is one argument of a [ReferenceCall]: exactly one of its fields is set. Tensor, Tensors and
// Image are names of arrays.
type ReferenceInput struct {
	// Tensor is one tensor.
	Tensor string `json:"tensor,omitempty"`
	// Tensors is a list of tensors.
	Tensors []string `json:"tensors,omitempty"`
	// Image is an encoded image file (uint8), which the preprocess turned into a batch of one, or into a list
	// of one tensor for a detector.
	Image string `json:"image,omitempty"`
	// Int is an integer.
	Int *int64 `json:"int,omitempty"`
	// Ints is a list of integers; nil is none, empty is the empty list.
	Ints []int64 `json:"ints,omitzero"`
}

// OutputArray is the name in torchvit.reference.npz of an output of call k: "c0.out.1".
func OutputArray(k int, output string) string { return "c" + strconv.Itoa(k) + "." + output }

// Arrays lists the names of all arrays that the reference needs, inputs and outputs, in order.
func (r *Reference) Arrays() []string {
	var names []string
	for k, call := range r.Calls {
		for _, in := range call.Inputs {
			for _, name := range append([]string{in.Tensor, in.Image}, in.Tensors...) {
				if name != "" {
					names = append(names, name)
				}
			}
		}
		for _, out := range call.Outputs {
			names = append(names, OutputArray(k, out))
		}
	}
	return names
}

const (
	maxMetadata = 16 << 20
	maxPixels   = 1 << 16
	maxText     = 1 << 10
	maxLabels   = 1 << 20
	maxNesting  = 32
)

// ParseMetadata reads torchvit.json, strictly: an unknown or repeated key, a value of the wrong type or out
// of range is an ErrMetadata, one line that names the field, what was got and what was wanted.
func ParseMetadata(text []byte) (*Metadata, error) {
	fail := func(err error) (*Metadata, error) { return nil, fmt.Errorf("%w: %w", ErrMetadata, err) }
	if len(text) > maxMetadata {
		return fail(fmt.Errorf("got %d bytes, want at most %d", len(text), maxMetadata))
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if !utf8.Valid(text) {
		return fail(errors.New("got bytes that are not UTF-8, want JSON"))
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := checkJSON(d, reflect.TypeFor[Metadata](), "", 0); err != nil {
		return fail(err)
	}
	end := d.InputOffset()
	m := &Metadata{}
	if err := json.Unmarshal(text[:end], m); err != nil {
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return fail(fmt.Errorf("%s: got %s, want %s", e.Field, e.Value, kindName(e.Type)))
		}
		return fail(err)
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fail(fmt.Errorf("got more text after the JSON object, at byte %d", end))
	}
	return m, nil
}

// checkJSON walks the next value beside the type that it will be decoded to. encoding/json takes keys in any
// case, takes the last of two, fills up short arrays and lets null stand for anything.
func checkJSON(d *json.Decoder, t reflect.Type, path string, depth int) error {
	at := func(path string) string {
		if path == "" {
			return "torchvit.json"
		}
		return path
	}
	if depth > maxNesting {
		return fmt.Errorf("%s: got values nested deeper than %d", at(path), maxNesting)
	}
	token, err := d.Token()
	if err != nil {
		return jsonError(err, d.InputOffset())
	}
	if t.Kind() == reflect.Pointer {
		if token == nil {
			return nil
		}
		t = t.Elem()
	}
	want := func(got string) error { return fmt.Errorf("%s: got %s, want %s", at(path), got, kindName(t)) }
	switch v := token.(type) {
	case nil:
		return want("null")
	case bool:
		if t.Kind() != reflect.Bool {
			return want(strconv.FormatBool(v))
		}
	case json.Number:
		return checkNumber(v, t, want)
	case string:
		if t.Kind() != reflect.String {
			return want("the string " + quote(v))
		}
	case json.Delim:
		switch {
		case v == '{' && t.Kind() == reflect.Struct:
			return checkObject(d, t, path, depth)
		case v == '[' && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array):
			n := 0
			for ; d.More(); n++ {
				if err := checkJSON(d, t.Elem(), fmt.Sprintf("%s[%d]", path, n), depth+1); err != nil {
					return err
				}
			}
			if _, err := d.Token(); err != nil {
				return jsonError(err, d.InputOffset())
			}
			if t.Kind() == reflect.Array && n != t.Len() {
				return want(fmt.Sprintf("a list of %d", n))
			}
		case v == '{':
			return want("an object")
		default:
			return want("a list")
		}
	}
	return nil
}

func checkNumber(v json.Number, t reflect.Type, want func(string) error) error {
	var err error
	switch t.Kind() {
	case reflect.Int, reflect.Int64:
		_, err = strconv.ParseInt(v.String(), 10, t.Bits())
	case reflect.Uint8:
		_, err = strconv.ParseUint(v.String(), 10, 8)
	case reflect.Float64:
		_, err = strconv.ParseFloat(v.String(), 64)
	default:
		err = strconv.ErrSyntax
	}
	if err != nil {
		return want("the number " + clip(v.String(), 40))
	}
	return nil
}

func checkObject(d *json.Decoder, t reflect.Type, path string, depth int) error {
	fields := make(map[string]reflect.Type, t.NumField())
	var names []string
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields[name] = f.Type
		names = append(names, name)
	}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return jsonError(err, d.InputOffset())
		}
		key, _ := token.(string)
		sub := key
		if path != "" {
			sub = path + "." + key
		}
		f, ok := fields[key]
		switch {
		case !ok:
			return fmt.Errorf("%s: got an unknown key, want %s", quote(sub), strings.Join(names, ", "))
		case f == nil:
			return fmt.Errorf("%s: got the key twice", sub)
		}
		fields[key] = nil
		if err := checkJSON(d, f, sub, depth+1); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return jsonError(err, d.InputOffset())
	}
	return nil
}

func jsonError(err error, offset int64) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("got the end of the text at byte %d, want a whole JSON object", offset)
	}
	return fmt.Errorf("got no JSON at byte %d: %w", offset, err)
}

func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Uint8:
		return "a whole number of 0 to 255"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list"
	case reflect.Array:
		return fmt.Sprintf("a list of %d", t.Len())
	case reflect.Pointer:
		return kindName(t.Elem())
	}
	return "an object"
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}

// quote shows text from a file in one short line.
func quote(s string) string { return strconv.QuoteToASCII(clip(s, 60)) }

var (
	torchVersion = regexp.MustCompile(`^[0-9]+\.[0-9]+(\.[0-9]+)?[-+.0-9A-Za-z]{0,40}$`)
	methodName   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,200}$`)
	outputName   = regexp.MustCompile(`^out(\.[^.]+)*$`)
	outputKinds  = map[string][]string{
		TaskClassification:   {OutputLogits},
		TaskSegmentation:     {OutputSegmentationLogits, OutputClassMap},
		TaskSegmentationHead: {OutputHeadLogits},
		TaskDetection: {
			OutputDetections, OutputSetPrediction, OutputSetPredictionSigmoid,
			OutputYOLO, OutputYOLOEnd2End, OutputYOLOGrid,
		},
		TaskFeatures: {OutputFeatures},
	}
)

// OutputKinds are the kinds of output of all tasks.
func OutputKinds() []string {
	var kinds []string
	for _, task := range []string{TaskClassification, TaskSegmentation, TaskSegmentationHead, TaskDetection, TaskFeatures} {
		kinds = append(kinds, outputKinds[task]...)
	}
	return kinds
}

// Validate gives an ErrMetadata for a description that does not hold together, with the first field that is
// wrong.
func (m *Metadata) Validate() error {
	if err := m.validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrMetadata, err)
	}
	return nil
}

func (m *Metadata) validate() error {
	if m.Format != MetadataFormat {
		hint := ""
		if m.Format > MetadataFormat {
			hint = ": a newer torchvit wrote it"
		}
		return fmt.Errorf("format: got %d, want %d%s", m.Format, MetadataFormat, hint)
	}
	kinds, ok := outputKinds[m.Task]
	if !ok {
		return fmt.Errorf("task: got %s, want classification, segmentation, segmentation_head, detection or features", quote(m.Task))
	}
	if err := plainText("architecture", m.Architecture); err != nil {
		return err
	}
	if m.Torch != "" && !torchVersion.MatchString(m.Torch) {
		return fmt.Errorf("torch: got %s, want a version such as 2.15.0", quote(m.Torch))
	}
	if m.Output.Kind != "" && !slices.Contains(kinds, m.Output.Kind) {
		return fmt.Errorf("output.kind: got %s, want %s for task %s", quote(m.Output.Kind), strings.Join(kinds, " or "), m.Task)
	}
	for _, check := range []func() error{m.Input.validate, m.Output.validate, m.validatePreprocess, m.Tokens.validate, m.validateClasses, m.Training.validate, m.Reference.validate} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// plainText refuses text that would not print in one line.
func plainText(path, s string) error {
	if len(s) > maxText {
		return fmt.Errorf("%s: got a text of %d bytes, want at most %d", path, len(s), maxText)
	}
	if !utf8.ValidString(s) || strings.IndexFunc(s, unicode.IsControl) >= 0 {
		return fmt.Errorf("%s: got %s, want text without control characters", path, quote(s))
	}
	return nil
}

func inRange(path string, got, low, high int) error {
	if got < low || got > high {
		return fmt.Errorf("%s: got %d, want %d to %d", path, got, low, high)
	}
	return nil
}

func sides(path string, size []int, high int) error {
	if len(size) != 2 {
		return fmt.Errorf("%s: got %d numbers, want 2 (height and width)", path, len(size))
	}
	for i, v := range size {
		if err := inRange(fmt.Sprintf("%s[%d]", path, i), v, 1, high); err != nil {
			return err
		}
	}
	return nil
}

func (in *InputSpec) validate() error {
	if in.Size != nil {
		if err := sides("input.size", in.Size, maxPixels); err != nil {
			return err
		}
	}
	if err := inRange("input.multiple_of", in.MultipleOf, 0, maxPixels); err != nil {
		return err
	}
	for i, v := range in.Size {
		if in.MultipleOf > 1 && v%in.MultipleOf != 0 {
			return fmt.Errorf("input.size[%d]: got %d, want a multiple of input.multiple_of, %d", i, v, in.MultipleOf)
		}
	}
	if in.ChannelOrder != "" && in.ChannelOrder != "RGB" {
		return fmt.Errorf("input.channel_order: got %s, want \"RGB\"", quote(in.ChannelOrder))
	}
	if in.Layout != "" && in.Layout != LayoutBatch && in.Layout != LayoutList {
		return fmt.Errorf("input.layout: got %s, want \"batch\" or \"list\"", quote(in.Layout))
	}
	for i, v := range in.Blocks {
		if err := inRange(fmt.Sprintf("input.blocks[%d]", i), v, 0, 1<<12); err != nil {
			return err
		}
	}
	return nil
}

func (o *OutputSpec) validate() error {
	for i, name := range o.Leaves {
		at := fmt.Sprintf("output.leaves[%d]", i)
		if !outputName.MatchString(name) {
			return fmt.Errorf("%s: got %s, want out or a place in it, as out.1.0.boxes", at, quote(name))
		}
		if err := plainText(at, name); err != nil {
			return err
		}
	}
	switch o.Activation {
	case "", ActivationSoftmax, ActivationSigmoid, ActivationNone:
	default:
		return fmt.Errorf("output.activation: got %s, want softmax, sigmoid or none", quote(o.Activation))
	}
	for i, level := range o.Anchors {
		for j, anchor := range level {
			for _, v := range anchor {
				if !(v > 0 && v <= maxPixels) {
					return fmt.Errorf("output.anchors[%d][%d]: got %v, want a width and a height of 0 to %d", i, j, anchor, maxPixels)
				}
			}
		}
	}
	if o.Kind == OutputYOLOGrid && len(o.Anchors) == 0 {
		return fmt.Errorf("output.anchors: got none, want those of each level for %s", OutputYOLOGrid)
	}
	return nil
}

// Layout is the layout of forward's input: Input.Layout, or that of the kind of output.
func (m *Metadata) Layout() string {
	switch {
	case m.Input.Layout != "":
		return m.Input.Layout
	case m.Task == TaskDetection && (m.Output.Kind == "" || m.Output.Kind == OutputDetections):
		return LayoutList
	}
	return LayoutBatch
}

func (m *Metadata) validatePreprocess() error {
	for name, values := range map[string][]float64{"mean": m.Preprocess.Mean, "std": m.Preprocess.Std} {
		for i, v := range values {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return fmt.Errorf("preprocess.%s[%d]: got %v, want a finite number", name, i, v)
			}
		}
	}
	if err := m.Preprocess.Validate(); err != nil {
		return fmt.Errorf("preprocess: %w", err)
	}
	return nil
}

func (t *Tokens) validate() error {
	if t == nil {
		return nil
	}
	if err := sides("tokens.patch_size", t.PatchSize, maxPixels); err != nil {
		return err
	}
	for _, f := range []struct {
		path      string
		got, high int
	}{
		{"tokens.prefix", t.Prefix, 1 << 12},
		{"tokens.num_heads", t.NumHeads, 1 << 12},
		{"tokens.depth", t.Depth, 1 << 12},
		{"tokens.embed_dim", t.EmbedDim, 1 << 20},
	} {
		if err := inRange(f.path, f.got, 0, f.high); err != nil {
			return err
		}
	}
	return nil
}

func (m *Metadata) validateClasses() error {
	if len(m.Labels) > maxLabels {
		return fmt.Errorf("labels: got %d, want at most %d", len(m.Labels), maxLabels)
	}
	for i, label := range m.Labels {
		if err := plainText(fmt.Sprintf("labels[%d]", i), label); err != nil {
			return err
		}
	}
	if len(m.Palette) > 0 && len(m.Labels) > 0 && len(m.Palette) != len(m.Labels) {
		return fmt.Errorf("palette: got %d colours, want one for each of the %d labels", len(m.Palette), len(m.Labels))
	}
	if t := m.Thresholds; t != nil {
		for _, f := range []struct {
			path string
			got  *float64
		}{{"thresholds.score", t.Score}, {"thresholds.iou", t.IoU}, {"thresholds.mask", t.Mask}} {
			if f.got != nil && !(*f.got >= 0 && *f.got <= 1) {
				return fmt.Errorf("%s: got %v, want 0 to 1", f.path, *f.got)
			}
		}
	}
	return nil
}

func (t *Training) validate() error {
	if t == nil {
		return nil
	}
	for _, f := range []struct{ path, text string }{
		{"by", t.By},
		{"from", t.From},
		{"weights", t.Weights},
		{"data", t.Data},
		{"validation", t.Validation},
		{"optimizer", t.Optimizer},
		{"schedule", t.Schedule},
		{"precision", t.Precision},
		{"freeze", t.Freeze},
		{"head", t.Head},
		{"metric", t.Metric},
	} {
		if err := plainText("training."+f.path, f.text); err != nil {
			return err
		}
	}
	return nil
}

func (r *Reference) validate() error {
	if r == nil {
		return nil
	}
	if err := plainText("reference.by", r.By); err != nil {
		return err
	}
	if !torchVersion.MatchString(r.Torch) {
		return fmt.Errorf("reference.torch: got %s, want a version such as 2.15.0", quote(r.Torch))
	}
	if err := inRange("reference.threads", r.Threads, 1, 1<<12); err != nil {
		return err
	}
	if !slices.Contains([]string{"float32", "bfloat16", "float16"}, r.DType) {
		return fmt.Errorf("reference.dtype: got %s, want float32, bfloat16 or float16", quote(r.DType))
	}
	for path, s := range map[string]string{"reference.cpu_vendor": r.CPUVendor, "reference.cpu_capability": r.CPUCapability} {
		if err := plainText(path, s); err != nil {
			return err
		}
	}
	for path, v := range map[string]float64{"reference.atol": r.ATol, "reference.rtol": r.RTol} {
		if !(v >= 0 && v <= 1) {
			return fmt.Errorf("%s: got %v, want 0 to 1", path, v)
		}
	}
	if len(r.Calls) == 0 {
		return errors.New("reference.calls: got none, want at least one")
	}
	for i := range r.Calls {
		if err := r.Calls[i].validate(fmt.Sprintf("reference.calls[%d]", i)); err != nil {
			return err
		}
	}
	return nil
}

func (c *ReferenceCall) validate(path string) error {
	if !methodName.MatchString(c.Method) {
		return fmt.Errorf("%s.method: got %s, want a method's name", path, quote(c.Method))
	}
	if len(c.Inputs) == 0 {
		return fmt.Errorf("%s.inputs: got none, want at least one", path)
	}
	for i := range c.Inputs {
		if err := c.Inputs[i].validate(fmt.Sprintf("%s.inputs[%d]", path, i)); err != nil {
			return err
		}
	}
	if len(c.Outputs) == 0 {
		return fmt.Errorf("%s.outputs: got none, want at least one", path)
	}
	for i, name := range c.Outputs {
		at := fmt.Sprintf("%s.outputs[%d]", path, i)
		if !outputName.MatchString(name) {
			return fmt.Errorf("%s: got %s, want out or a place in it, as out.1.0.boxes", at, quote(name))
		}
		if err := plainText(at, name); err != nil {
			return err
		}
		if slices.Index(c.Outputs, name) != i {
			return fmt.Errorf("%s: got %s twice", at, quote(name))
		}
	}
	return nil
}

func (in *ReferenceInput) validate(path string) error {
	kinds := 0
	for _, set := range []bool{in.Tensor != "", in.Tensors != nil, in.Image != "", in.Int != nil, in.Ints != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		return fmt.Errorf("%s: got %d kinds of input, want one of tensor, tensors, image, int and ints", path, kinds)
	}
	if in.Tensors != nil && len(in.Tensors) == 0 {
		return fmt.Errorf("%s.tensors: got none, want at least one", path)
	}
	for _, name := range append([]string{in.Tensor, in.Image}, in.Tensors...) {
		if err := plainText(path, name); err != nil {
			return err
		}
	}
	if slices.Contains(in.Tensors, "") {
		return fmt.Errorf("%s.tensors: got an empty name, want an array's", path)
	}
	return nil
}
