package train

import (
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/loader"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// Options say how [Run] trains. Out is needed; the zero value of the rest works.
type Options struct {
	// Out is the model file to write: that of the best epoch by the metric, and of the weights before the first
	// step where none is better; without a validation set that of the last epoch. It is there from the first
	// measurement on.
	Out string
	// RunDir is the folder of the checkpoint, the curves and their figures; "" is Out without its ending, with
	// ".run".
	RunDir string
	// Resume goes on from RunDir's checkpoint, with the same options and data; where there is none yet it begins.
	// Epochs may be more: the schedule is then, from where it goes on, that of so many. Without it a folder that holds a checkpoint is an ErrRun.
	Resume bool
	// SaveEvery saves the checkpoint each so many steps too, and not only after each epoch; 0 does not.
	SaveEvery int

	// Epochs, each over all images, 10 by default.
	Epochs int
	// BatchSize is the number of images of a batch, 16 by default, of which Accumulate (1) make a step.
	BatchSize, Accumulate int
	// Optimizer is OptimizerAdamW by default.
	Optimizer string
	// LR is the learning rate at its height, 1e-4 by default. WeightDecay is 0.05 by default for AdamW and 0 for
	// the others; below 0 is none. Biases, norms, tokens and position embeddings have none. Momentum is SGD's,
	// 0.9 by default; below 0 is none.
	LR, WeightDecay, Momentum float64
	// LayerDecay, 0 to 1, is the factor of the rate from each block of the ViT to the one before it; 0 and 1 are
	// none.
	LayerDecay float64
	// Schedule is ScheduleCosine by default, after Warmup steps in which the rate rises linearly.
	Schedule string
	Warmup   int
	// ClipGradNorm is the largest norm of all gradients together; 0 does not clip.
	ClipGradNorm float64
	// Precision is that of the forward: BFloat16, or InvalidDType for float32.
	Precision torch.DType
	// LabelSmoothing of the cross-entropy, and Dice, the weight of the Dice loss that is added to it in
	// segmentation.
	LabelSmoothing, Dice float64

	// Freeze is what stays as it is; before the epoch Unfreeze, from 1, where that is not 0. As with PyTorch's
	// requires_grad, what is frozen has its dropout, and batch norms count on.
	Freeze   Freeze
	Unfreeze int
	// Head is the part of the head that begins anew. With HeadClasses and HeadAll the result has the data set's
	// classes, or Labels; without, the data set's classes must be among the model's.
	Head HeadPart
	// Weights is a model file whose parameters the model takes first: see [Model.LoadWeights].
	Weights string
	// Labels are the classes of the result, with Head; nil: the data set's, behind the background where the model
	// has one.
	Labels []string
	// Classes say what the names do not: see [dataset.Set.Match].
	Classes []string
	// ViT is the model file of the ViT whose tokens a segmentation head in a file of its own is trained on.
	ViT string

	// Size is that of the images in training; zero is that of the model's preprocess. Augment is done to them.
	Size    transforms.Size
	Augment loader.Augment
	// Masks say what the values of mask files mean; Ignore are those that do not count, nil: 255.
	Masks  dataset.MaskOptions
	Ignore []uint8
	// Workers prepare images, 0 is GOMAXPROCS; Cache is how many bytes of decoded images they keep.
	Workers int
	Cache   int64

	// SkipErrors leaves out images to train on that cannot be read, of which Result.Notes tells; else the first ends the run.
	SkipErrors bool

	// EvalEvery is how many epochs pass between measurements, and where there is no validation set between
	// writings of Out; 1 by default. After the last epoch there is always one.
	// EvalLimit is the most images of a measurement, the first ones; 0 takes all.
	EvalEvery, EvalLimit int
	// EarlyStop ends training after so many measurements without a better metric; 0 does not.
	EarlyStop int

	// Seed is that of all random numbers.
	Seed int64
	// Device is where the model is.
	Device torch.Device
	// Metadata stands in for what the model file says of itself.
	Metadata *vit.Metadata
	// Data and Validation name the data sets in the result's metadata.
	Data, Validation string
	// Progress, if not nil, is told what happens, on Run's goroutine, which waits for it.
	Progress func(Event)
}

// The optimizers.
const (
	OptimizerAdamW = "adamw"
	OptimizerAdam  = "adam"
	OptimizerSGD   = "sgd"
)

// The schedules.
const (
	// ScheduleCosine falls to 0 at the last step, along half a cosine.
	ScheduleCosine = "cosine"
	// SchedulePoly falls to 0 at the last step, as (1 - step/steps)^0.9.
	SchedulePoly = "poly"
	// ScheduleStep is a tenth after each third of the steps.
	ScheduleStep = "step"
	// ScheduleConstant stays.
	ScheduleConstant = "constant"
)

// Optimizers and Schedules are the names that Options takes.
func Optimizers() []string { return []string{OptimizerAdamW, OptimizerAdam, OptimizerSGD} }

// Schedules are the names that Options takes.
func Schedules() []string {
	return []string{ScheduleCosine, SchedulePoly, ScheduleStep, ScheduleConstant}
}

// Result says what came of a run.
type Result struct {
	// Model is the file that was written, RunDir the folder of the run.
	Model  string `json:"model"`
	RunDir string `json:"run_dir"`
	// Epochs and Steps that ran in all, those before a resume too.
	Epochs int `json:"epochs"`
	Steps  int `json:"steps"`
	// Start are the metrics before the first step, Best those of the epoch BestEpoch, whose weights the file has:
	// from 1, 0 where no epoch was better than Start. None without a validation set.
	Start     []Metric `json:"start,omitempty"`
	BestEpoch int      `json:"best_epoch"`
	Best      []Metric `json:"best,omitempty"`
	// Loss is the mean loss of the last epoch.
	Loss float64 `json:"loss"`
	// StoppedEarly tells that Options.EarlyStop ended it.
	StoppedEarly bool `json:"stopped_early,omitempty"`
	// Learned counts the elements of the parameters that were learned in the last epoch, of Parameters in all.
	Learned    int64 `json:"learned"`
	Parameters int64 `json:"parameters"`
	// Seconds that this process took.
	Seconds float64 `json:"seconds"`
	// Notes are about what may be a surprise, one line each.
	Notes []string `json:"notes,omitempty"`
}

// EventKind says what an Event is about.
type EventKind int

// The kinds of events.
const (
	// EventStart comes before the first step: Steps, Step where a run goes on.
	EventStart EventKind = iota
	// EventStep comes after each step.
	EventStep
	// EventEvaluating comes while a data set is measured: Done of Total images.
	EventEvaluating
	// EventEpoch comes after each epoch, with its mean Loss, and Metrics where it was measured; epoch 0 is the
	// measurement before the first step.
	EventEpoch
	// EventSaved comes after a file was written whole: Path.
	EventSaved
)

// Event is something that happened in training. What does not apply is zero.
type Event struct {
	Kind EventKind
	// Epoch counts from 1, of Epochs; Step, from 1, those of the optimizer in all epochs, of Steps.
	Epoch, Epochs, Step, Steps int
	// Loss is that of the step or the mean of the epoch, Parts what it is the sum of.
	Loss  float64
	Parts []Part
	// LR is the learning rate of the head, GradNorm the norm before clipping.
	LR, GradNorm float64
	// Rate is images in a second, Remaining the time that the rest will take at that.
	Rate      float64
	Remaining time.Duration
	// Metrics are those of the measurement; Better tells that they are the best so far.
	Metrics []Metric
	Better  bool
	// Done images of Total.
	Done, Total int
	Path        string
	// Learned counts the elements of parameters that are learned.
	Learned int64
}

// Metric is a figure of a measurement: the first of several is the one that counts, and more is better.
type Metric struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
}

// MarshalJSON writes null for a value that is not finite.
func (m Metric) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Name  string    `json:"name"`
		Value vit.Float `json:"value"`
	}{m.Name, vit.Float(m.Value)})
}

// UnmarshalJSON reads null as NaN.
func (m *Metric) UnmarshalJSON(text []byte) error {
	var v struct {
		Name  string   `json:"name"`
		Value *float64 `json:"value"`
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	m.Name, m.Value = v.Name, math.NaN()
	if v.Value != nil {
		m.Value = *v.Value
	}
	return nil
}

// prepare checks the options and puts in the defaults.
func (o *Options) prepare() error {
	if o.Out == "" {
		return fmt.Errorf("out: %w: got none, want the model file to write", ErrOptions)
	}
	if o.RunDir == "" {
		o.RunDir = strings.TrimSuffix(o.Out, filepath.Ext(o.Out)) + ".run"
	}
	for _, v := range []struct {
		name  string
		value *int
		other int
	}{
		{"epochs", &o.Epochs, 10},
		{"batch size", &o.BatchSize, 16},
		{"accumulate", &o.Accumulate, 1},
		{"eval every", &o.EvalEvery, 1},
		{"save every", &o.SaveEvery, 0},
		{"warmup", &o.Warmup, 0},
		{"unfreeze", &o.Unfreeze, 0},
		{"eval limit", &o.EvalLimit, 0},
		{"early stop", &o.EarlyStop, 0},
		{"workers", &o.Workers, runtime.GOMAXPROCS(0)},
	} {
		if *v.value < 0 {
			return fmt.Errorf("%s: %w: got %d, want 0 or more", v.name, ErrOptions, *v.value)
		}
		if *v.value == 0 {
			*v.value = v.other
		}
	}
	if o.Optimizer == "" {
		o.Optimizer = OptimizerAdamW
	}
	if o.Schedule == "" {
		o.Schedule = ScheduleCosine
	}
	if err := oneOf("optimizer", o.Optimizer, Optimizers()); err != nil {
		return err
	}
	if err := oneOf("schedule", o.Schedule, Schedules()); err != nil {
		return err
	}
	if o.Momentum == 0 {
		o.Momentum = 0.9
	}
	if o.LR == 0 {
		o.LR = 1e-4
	}
	if o.WeightDecay == 0 && o.Optimizer == OptimizerAdamW {
		o.WeightDecay = 0.05
	}
	o.WeightDecay, o.Momentum = max(o.WeightDecay, 0), max(o.Momentum, 0)
	if o.LayerDecay == 0 {
		o.LayerDecay = 1
	}
	for _, v := range []struct {
		name             string
		value, low, high float64
	}{
		{"lr", o.LR, math.SmallestNonzeroFloat64, 1e3},
		{"weight decay", o.WeightDecay, 0, 1e3},
		{"momentum", o.Momentum, 0, 1},
		{"layer decay", o.LayerDecay, math.SmallestNonzeroFloat64, 1},
		{"clip grad norm", o.ClipGradNorm, 0, math.MaxFloat64},
		{"label smoothing", o.LabelSmoothing, 0, 1},
		{"dice", o.Dice, 0, math.MaxFloat64},
	} {
		if !(v.value >= v.low && v.value <= v.high) {
			return fmt.Errorf("%s: %w: got %v, want %s", v.name, ErrOptions, v.value, rangeText(v.low, v.high))
		}
	}
	switch {
	case o.Unfreeze > 0 && o.Freeze == (Freeze{}):
		return fmt.Errorf("unfreeze: %w: got epoch %d and nothing that is frozen", ErrOptions, o.Unfreeze)
	case o.Labels != nil && o.Head == HeadKept:
		return fmt.Errorf("labels: %w: got %d and a head that is kept, want Head for other outputs", ErrOptions, len(o.Labels))
	case o.Cache < 0:
		return fmt.Errorf("cache: %w: got %d bytes, want 0 or more", ErrOptions, o.Cache)
	}
	if o.Ignore == nil {
		o.Ignore = []uint8{dataset.Ignored}
	}
	return nil
}

func rangeText(low, high float64) string {
	switch {
	case high == math.MaxFloat64:
		return "0 or more"
	case low > 0:
		return fmt.Sprintf("above 0, at most %v", high)
	}
	return fmt.Sprintf("%v to %v", low, high)
}

func oneOf(name, value string, values []string) error {
	if slices.Contains(values, value) {
		return nil
	}
	return fmt.Errorf("%s: %w: got %q, want %s", name, ErrOptions, value, strings.Join(values, ", "))
}
