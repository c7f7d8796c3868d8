package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/train"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// trainFlags are the flags of train.
type trainFlags struct {
	datasetFlags
	data, val                             string
	valSplit, valImages, valMasks, valAnn string
	limit, cache                          int
	train                                 train.Options
	head, initHead                        string
	freeze, precision, trainSize, augment string
	describing                            *describing
}

func newTrainCommand(a *app) *cobra.Command {
	f := &trainFlags{}
	cmd := &cobra.Command{
		Use:   "train MODEL --data DATASET --out TUNED",
		Short: "Fine-tune a model file on a data set",
		Long: "train fine-tunes a model file, of classification, segmentation or detection, on a data set, and writes a\n" +
			"model file that every other command takes. After each epoch it measures the model on --val and keeps the\n" +
			"best one in --out; the run's folder holds the checkpoint, steps.csv, epochs.csv and curves.png. A run that\n" +
			"was stopped, even by kill -9, goes on with the same command and --resume, and ends with the same weights,\n" +
			"bit for bit. Ctrl-C finishes the step and keeps the checkpoint. docs/training-go.md has more.\n\n" +
			"Data sets are recognised as by eval. Where the data set's classes are not the model's, --init-head=classes\n" +
			"gives the model new outputs for them, and --classes says which are which.",
		Example: "  torchvit train vit.pt --data photos/train --val photos/val --init-head --freeze vit --unfreeze-at 3 --out tuned.pt\n" +
			"  torchvit train segmentation.pt --data scenes --split train --val scenes --val-split val --epochs 5 --lr 1e-3 --out tuned.pt\n" +
			"  torchvit train segmentation.pt --weights vit.pt --init-head --data scenes --val scenes --layer-decay 0.75 --out tuned.pt\n" +
			"  torchvit train detector.pt --data data.yaml --init-head=classes --precision bfloat16 --early-stop 3 --val data.yaml --out tuned.pt\n" +
			"  torchvit train vit.pt --head head.pt --data VOC2012 --out tuned_head.pt\n" +
			"  torchvit train ... --resume                    # the same flags: goes on where the run was stopped",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("train: got %d arguments, want a model file", len(args))
			}
			return nil
		},
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return a.train(cmd.Context(), args[0], f)
		},
	}
	o := &f.train
	flags := cmd.Flags()
	flags.StringVar(&f.data, "data", "", "data `set` to train on")
	flags.StringVar(&f.val, "val", "", "data `set` to measure on after each epoch")
	flags.StringVar(&o.Out, "out", "", "model `file` to write")
	flags.StringVar(&o.RunDir, "run-dir", "", "`folder` of the checkpoint and the curves (default: that of --out, with .run)")
	flags.BoolVar(&o.Resume, "resume", false, "go on from the run's checkpoint, with the same flags; --epochs may be more")
	flags.IntVar(&o.Epochs, "epochs", 10, "`times` over all images")
	flags.IntVar(&o.BatchSize, "batch-size", 16, "`images` of a batch")
	flags.IntVar(&o.Accumulate, "accumulate", 1, "`batches` of a step: their gradients are added up")
	flags.Float64Var(&o.LR, "lr", 1e-4, "learning `rate` at its height")
	flags.StringVar(&o.Optimizer, "optimizer", train.OptimizerAdamW, strings.Join(train.Optimizers(), ", "))
	flags.Float64Var(&o.WeightDecay, "weight-decay", 0, "`decay` of the weights; biases, norms, tokens and positions have none (default: 0.05 for adamw)")
	flags.Float64Var(&o.Momentum, "momentum", 0.9, "`momentum` of sgd")
	flags.StringVar(&o.Schedule, "schedule", train.ScheduleCosine, "course of the rate: "+strings.Join(train.Schedules(), ", "))
	flags.IntVar(&o.Warmup, "warmup", 0, "`steps` in which the rate rises")
	flags.Float64Var(&o.LayerDecay, "layer-decay", 1, "`factor` of the rate from each block of the ViT to the one before it, as 0.75")
	flags.Float64Var(&o.ClipGradNorm, "clip-grad-norm", 0, "largest `norm` of all gradients together (default: any)")
	flags.StringVar(&f.precision, "precision", "float32", "float32, or bfloat16: the forward in autocast, weights in float32 (slow without AVX512_BF16)")
	flags.Float64Var(&o.LabelSmoothing, "label-smoothing", 0, "`share` of a target that is spread over all classes")
	flags.Float64Var(&o.Dice, "dice", 0, "`weight` of the Dice loss that is added in segmentation")
	flags.StringVar(&f.freeze, "freeze", "none", "what stays as it is: none, vit, or blocks:N, the first N blocks and what stands before them")
	flags.IntVar(&o.Unfreeze, "unfreeze-at", 0, "`epoch` from which all is learned (default: never)")
	flags.StringVar(&f.initHead, "init-head", "", "begin anew with the head: all of it, or =`classes`, the layers that give the classes; it gets the data set's classes")
	flags.Lookup("init-head").NoOptDefVal = string(train.HeadAll)
	flags.StringVar(&o.Weights, "weights", "", "model `file` whose ViT, and what else fits, MODEL takes the weights of first")
	flags.StringVar(&f.head, "head", "", "model `file` of a segmentation head to train; MODEL is then a ViT's, which stays as it is")
	flags.StringVar(&f.augment, "augment", "none", "what is done to images at random: flip, crop, scale, color, comma-separated, as flip,crop=0.5:1,color=0.2")
	flags.StringVar(&f.trainSize, "train-size", "", "`HxW` of the images in training (default: what the model's preprocess gives)")
	flags.IntVar(&o.Workers, "workers", 0, "goroutines that prepare images (default: one for each processor)")
	flags.IntVar(&f.cache, "cache", 0, "`MB` of decoded images to keep between epochs")
	flags.IntVar(&f.limit, "limit", 0, "most `images` to train on, the first ones (default: all)")
	flags.BoolVar(&o.SkipErrors, "skip-errors", false, "leave out images of --data that cannot be read; the first ends the run else")
	flags.IntVar(&o.EvalLimit, "val-limit", 0, "most `images` to measure on, the first ones (default: all)")
	flags.IntVar(&o.EvalEvery, "eval-every", 1, "`epochs` between measurements, and without --val between writings of --out")
	flags.IntVar(&o.EarlyStop, "early-stop", 0, "`measurements` without a better one after which training ends (default: never)")
	flags.IntVar(&o.SaveEvery, "save-every", 0, "`steps` after which the checkpoint is saved, besides after each epoch")
	flags.Int64Var(&o.Seed, "seed", 0, "`seed` of all random numbers")
	f.add(cmd)
	flags.Lookup("split").Usage = "`part` of --data (default: train where there is one)"
	flags.StringVar(&f.valSplit, "val-split", "", "`part` of --val (default: val where there is one)")
	flags.StringVar(&f.valImages, "val-images", "", "`folder` of the images of --val")
	flags.StringVar(&f.valMasks, "val-masks", "", "`folder` of the masks of --val")
	flags.StringVar(&f.valAnn, "val-annotations", "", "COCO's `file` of the instances of --val")
	f.describing = a.describeFlags(cmd)
	flags.Lookup("task").Usage = "`task` of a file that does not say it: classification, segmentation or detection"
	for name, values := range map[string][]string{
		"optimizer": train.Optimizers(), "schedule": train.Schedules(), "precision": {"float32", "bfloat16"},
		"freeze": {"none", "vit", "blocks:"}, "init-head": {"all", "classes"}, "augment": {"none", "flip", "flip,crop", "flip,crop,color", "flip,scale"},
	} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	return cmd
}

// check checks the flags, and makes the options of those that are text.
func (f *trainFlags) check() error {
	o := &f.train
	for _, v := range []struct{ flag, value string }{{"data", f.data}, {"out", o.Out}} {
		if v.value == "" {
			return usagef("train: want --%s", v.flag)
		}
	}
	for _, v := range []struct {
		name         string
		value, least int
	}{
		{"epochs", o.Epochs, 1},
		{"batch-size", o.BatchSize, 1},
		{"accumulate", o.Accumulate, 1},
		{"warmup", o.Warmup, 0},
		{"unfreeze-at", o.Unfreeze, 1},
		{"workers", o.Workers, 1},
		{"cache", f.cache, 0},
		{"limit", f.limit, 1},
		{"val-limit", o.EvalLimit, 1},
		{"eval-every", o.EvalEvery, 1},
		{"early-stop", o.EarlyStop, 1},
		{"save-every", o.SaveEvery, 1},
	} {
		if f.given(v.name) && v.value < v.least {
			return usagef("--%s %d: want %d or more", v.name, v.value, v.least)
		}
	}
	if o.EarlyStop > 0 && f.val == "" {
		return usagef("--early-stop: want --val too, which it is measured on")
	}
	// Zeros are defaults in train.Options.
	if f.given("weight-decay") && o.WeightDecay == 0 {
		o.WeightDecay = -1 // none
	}
	if f.given("momentum") && o.Momentum == 0 {
		o.Momentum = -1 // none
	}
	for _, v := range []struct {
		name  string
		value float64
	}{{"lr", o.LR}, {"layer-decay", o.LayerDecay}} {
		if v.value == 0 {
			return usagef("--%s 0: want more than 0", v.name)
		}
	}
	var err error
	if o.Freeze, err = train.ParseFreeze(f.freeze); err != nil {
		return usagef("--freeze %s: want none, vit or blocks:N", f.freeze)
	}
	if o.Augment, err = train.ParseAugment(f.augment); err != nil {
		return usagef("--%v", err)
	}
	switch f.precision {
	case "float32":
	case "bfloat16":
		o.Precision = torch.BFloat16
	default:
		return usagef("--precision %s: want float32 or bfloat16", f.precision)
	}
	if f.given("init-head") {
		if err := oneOf("init-head", f.initHead, string(train.HeadClasses), string(train.HeadAll)); err != nil {
			return err
		}
		o.Head = train.HeadPart(f.initHead)
	}
	if err := oneOf("optimizer", o.Optimizer, train.Optimizers()...); err != nil {
		return err
	}
	if err := oneOf("schedule", o.Schedule, train.Schedules()...); err != nil {
		return err
	}
	if f.trainSize != "" {
		size, err := parseSize("train-size", f.trainSize)
		if err != nil {
			return err
		}
		size = square(size)
		o.Size = transforms.Size{Height: size[0], Width: size[1]}
	}
	o.Cache = int64(f.cache) << 20
	return f.checkDataset()
}

// read reads the data sets.
func (f *trainFlags) read(task string) (set, val *dataset.Set, err error) {
	f.o.Segmentation = task == vit.TaskSegmentation || task == vit.TaskSegmentationHead
	// Of a data set with parts, the one that is named, else the first of wanted; never one of others in its place.
	read := func(path string, o dataset.Options, wanted, others []string) (set *dataset.Set, err error) {
		kind := dataset.Kind(f.kind)
		if o.Split != "" {
			return dataset.Read(path, kind, o)
		}
		for _, o.Split = range wanted {
			if set, err = dataset.Read(path, kind, o); !errors.Is(err, dataset.ErrSplit) {
				return set, err
			}
		}
		for _, o.Split = range others {
			if _, err := dataset.Read(path, kind, o); !errors.Is(err, dataset.ErrSplit) {
				return nil, fmt.Errorf("%w: got a part %s and none named %s, want one, or its name", dataset.ErrSplit, o.Split, wanted[0])
			}
		}
		o.Split = ""
		return dataset.Read(path, kind, o)
	}
	if set, err = read(f.data, f.o, []string{"train"}, []string{"val", "test"}); err != nil {
		return nil, nil, fmt.Errorf("--data: %w", err)
	}
	if set.Kind == dataset.Folder && !slices.ContainsFunc(set.Classes, func(c string) bool {
		return !slices.Contains([]string{"train", "val", "valid", "validation", "test"}, c)
	}) {
		return nil, nil, fmt.Errorf("--data: %s: %w: got the parts %s, want the folder of one", f.data, dataset.ErrClass, strings.Join(set.Classes, ", "))
	}
	if f.limit > 0 {
		set.Images = set.Images[:min(f.limit, len(set.Images))]
	}
	if f.val == "" {
		return set, nil, nil
	}
	o := f.o
	o.Split, o.Images, o.Masks, o.Annotations = f.valSplit, f.valImages, f.valMasks, f.valAnn
	if val, err = read(f.val, o, []string{"val", "test"}, []string{"train"}); err != nil {
		return nil, nil, fmt.Errorf("--val: %w", err)
	}
	return set, val, nil
}

func (a *app) train(ctx context.Context, path string, f *trainFlags) error {
	device, err := a.open()
	if err != nil {
		return err
	}
	o := f.train
	if f.head != "" {
		o.ViT, path = path, f.head
	}
	options, err := f.describing.options(path, "", device)
	if err != nil {
		return err
	}
	o.Metadata, o.Device = options.Metadata, device
	if o.Head != train.HeadKept && f.given("labels") {
		o.Labels = options.Metadata.Labels
	}
	set, val, err := f.read(options.Metadata.Task)
	if err != nil {
		return err
	}
	if o.Masks, err = f.maskOptions(); err != nil {
		return err
	}
	o.Ignore, o.Classes = f.ignored(), f.classes
	o.Data, o.Validation = f.data, f.val
	display := a.newTrainDisplay(set, val, o.EvalLimit)
	o.Progress = display.event
	result, err := train.Run(ctx, path, set, val, o)
	display.finish()
	switch {
	case errors.Is(err, train.ErrStopped):
		fmt.Fprintf(a.stderr, "%s; the same command with --resume goes on\n", oneLine(err))
		return err
	case errors.Is(err, dataset.ErrGiven):
		return usagef("--%v", err)
	case err != nil:
		return fmt.Errorf("train: %w", err)
	}
	if a.json {
		return a.printJSON(result)
	}
	return printTrainResult(a.stdout, result)
}

// metricsText is "mIoU 0.4123, aAcc 0.8120".
func metricsText(metrics []train.Metric) string {
	parts := make([]string, len(metrics))
	for i, m := range metrics {
		parts[i] = m.Name + " " + fraction(m.Value)
	}
	return strings.Join(parts, ", ")
}

func printTrainResult(w io.Writer, r *train.Result) error {
	for _, note := range r.Notes {
		fmt.Fprintln(w, "note: "+note)
	}
	how := ""
	if r.StoppedEarly {
		how = ", stopped early"
	}
	fmt.Fprintf(w, "%s: %d epochs, %d steps in %s%s; %s of %s parameters learned\n", r.Model, r.Epochs, r.Steps,
		time.Duration(r.Seconds*float64(time.Second)).Round(100*time.Millisecond), how, grouped(r.Learned), grouped(r.Parameters))
	if r.BestEpoch == 0 && len(r.Best) > 0 {
		_, err := fmt.Fprintf(w, "  the weights from before training: no epoch was better than %s\n", metricsText(r.Start))
		return err
	}
	if len(r.Best) == 0 {
		_, err := fmt.Fprintf(w, "  the weights of epoch %d: loss %.4f\n", r.BestEpoch, r.Loss)
		return err
	}
	_, err := fmt.Fprintf(w, "  the weights of epoch %d: %s (before: %s)\n", r.BestEpoch, metricsText(r.Best), metricsText(r.Start))
	return err
}

// trainDisplay shows how far training is on stderr: a bar on a terminal, a line now and then elsewhere, and a line
// for each epoch on both.
type trainDisplay struct {
	w           io.Writer
	terminal    bool
	bar         *progressbar.ProgressBar
	images, val int
	loss        float64
	metric      string
	last        time.Time // of the last line
	epoch       time.Time // its begin
}

// lineEvery is how often a line is written where there is no terminal.
const lineEvery = 10 * time.Second

func (a *app) newTrainDisplay(set, val *dataset.Set, limit int) *trainDisplay {
	d := &trainDisplay{w: a.stderr, images: len(set.Images), last: time.Now(), epoch: time.Now()}
	if val != nil {
		d.val = len(val.Images)
		if limit > 0 {
			d.val = min(d.val, limit)
		}
	}
	if f, ok := a.stderr.(*os.File); ok {
		d.terminal = term.IsTerminal(int(f.Fd()))
	}
	return d
}

func (d *trainDisplay) event(e train.Event) {
	switch e.Kind {
	case train.EventStart:
		text := fmt.Sprintf("%d images, %d epochs of %d steps", d.images, e.Epochs, e.Steps/max(1, e.Epochs))
		if d.val > 0 {
			text += fmt.Sprintf(", measured on %d images", d.val)
		}
		if e.Step > 0 {
			text += fmt.Sprintf(", going on after step %d", e.Step)
		}
		d.line("%s; %s parameters are learned", text, grouped(e.Learned))
		d.epoch = time.Now()
		d.open(e)
	case train.EventStep:
		// A mean of the last steps: single ones jump.
		if d.loss == 0 {
			d.loss = e.Loss
		}
		d.loss = 0.9*d.loss + 0.1*e.Loss
		text := fmt.Sprintf("epoch %d/%d, loss %.4f%s, %.0f images/s, %s left", e.Epoch, e.Epochs, d.loss, d.metric, e.Rate, e.Remaining.Round(time.Second))
		d.show(text, e.Step, fmt.Sprintf("step %d of %d: %s", e.Step, e.Steps, text))
	case train.EventEvaluating:
		text := fmt.Sprintf("measuring, %d of %d images", e.Done, e.Total)
		d.show(text, -1, text)
	case train.EventEpoch:
		if len(e.Metrics) > 0 {
			d.metric = ", " + metricsText(e.Metrics[:1])
		}
		if e.Epoch == 0 {
			d.line("before: %s", metricsText(e.Metrics))
			d.epoch = time.Now()
			return
		}
		text := fmt.Sprintf("epoch %d/%d: loss %.4f", e.Epoch, e.Epochs, e.Loss)
		if len(e.Metrics) > 0 {
			text += ", " + metricsText(e.Metrics)
		}
		if e.Better {
			text += " (best)"
		}
		d.line("%s, %s", text, time.Since(d.epoch).Round(100*time.Millisecond))
		d.epoch = time.Now()
	}
}

// show draws the bar, or writes the line where it is time to.
func (d *trainDisplay) show(text string, step int, line string) {
	switch {
	case d.bar != nil:
		d.bar.Describe(text)
		if step >= 0 {
			_ = d.bar.Set(step)
		}
	case !d.terminal && time.Since(d.last) > lineEvery:
		d.line("%s", line)
	}
}

func (d *trainDisplay) open(e train.Event) {
	if !d.terminal {
		return
	}
	d.bar = progressbar.NewOptions(max(1, e.Steps),
		progressbar.OptionSetWriter(d.w),
		progressbar.OptionSetPredictTime(false),
		progressbar.OptionSetWidth(20),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)
	_ = d.bar.Set(e.Step)
}

// line writes a line above the bar.
func (d *trainDisplay) line(format string, args ...any) {
	if d.bar != nil {
		_ = d.bar.Clear()
	}
	fmt.Fprintf(d.w, format+"\n", args...)
	d.last = time.Now()
}

func (d *trainDisplay) finish() {
	if d.bar != nil {
		_ = d.bar.Clear()
	}
}
