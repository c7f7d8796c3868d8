package train

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"time"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/loader"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/loss"
	"github.com/torchvit/torchvit/torch/npy"
	"github.com/torchvit/torchvit/torch/optim"
	"github.com/torchvit/torchvit/vit"
)

// Run fine-tunes a model file on a data set, measuring on another one, which may be nil, and writes the tuned file
// to Options.Out. The run's folder holds the checkpoint, from which a later Run with Resume goes on: its weights
// are bit for bit those of a run that was never stopped, with the same data, options and number of threads.
//
// Where ctx ends, the step under way is finished, the checkpoint written, and the error is ErrStopped, with the
// context's. Other errors: ErrOptions, ErrClasses, ErrHead, ErrFrozen, ErrRun, ErrDiverged, and those of loading
// the model and reading the data.
func Run(ctx context.Context, model string, set, val *dataset.Set, o Options) (*Result, error) {
	start := time.Now()
	if err := o.prepare(); err != nil {
		return nil, err
	}
	saved, arrays, unlock, err := o.openRunDir()
	if err != nil {
		return nil, err
	}
	defer unlock()
	r := &run{o: o, from: filepath.Base(model), start: start}
	defer r.close()
	if err := r.open(ctx, model, set, val); err != nil {
		return nil, err
	}
	if err := r.begin(saved); err != nil {
		return nil, err
	}
	if saved != nil {
		if err := r.restore(arrays); err != nil {
			return nil, fmt.Errorf("resume: %w", err)
		}
	}
	if err := r.train(ctx); err != nil {
		return nil, err
	}
	return r.result(), nil
}

// run is a run at work.
type run struct {
	o         Options
	from      string
	start     time.Time
	before    float64 // seconds before a resume
	model     *Model
	task      Task
	frozen    *vit.VisionTransformer // of a head in a file of its own
	set, val  *Data
	loader    *loader.Loader
	optimizer *optim.Optimizer
	schedule  optim.Schedule
	state     *state
	records   *records
	learned   int64
	notes     []string
	clock     clock
}

func (r *run) close() {
	r.loader.Close()
	if r.optimizer != nil {
		r.optimizer.Close()
	}
	if r.frozen != nil {
		r.frozen.Close()
	}
	r.model.Close()
}

// open loads the model, gives it its head and classes, and makes the loader and the optimizer.
func (r *run) open(ctx context.Context, path string, set, val *dataset.Set) error {
	o := &r.o
	// The head's first values, dropout and the detectors' samplers take their numbers from here.
	if err := torch.ManualSeed(uint64(o.Seed)); err != nil {
		return err
	}
	var err error
	if r.model, err = Load(path, LoadOptions{Device: o.Device, Precision: o.Precision, Metadata: o.Metadata}); err != nil {
		return err
	}
	if o.Weights != "" {
		missing, err := r.model.LoadWeights(o.Weights)
		if err != nil {
			return err
		}
		if len(missing) > 0 {
			r.notes = append(r.notes, fmt.Sprintf("%s has not %d of the ViT's parameters, which stay as %s has them: %s", filepath.Base(o.Weights), len(missing), r.from, missing[0]))
		}
	}
	if err := r.openHead(ctx, set); err != nil {
		return err
	}
	if r.task, err = r.openTask(ctx); err != nil {
		return err
	}
	if r.set, err = r.data(set); err != nil {
		return err
	}
	if val != nil {
		if n := o.EvalLimit; n > 0 && n < len(val.Images) {
			few := *val
			few.Images = few.Images[:n]
			val = &few
		}
		if r.val, err = r.data(val); err != nil {
			return fmt.Errorf("validation: %w", err)
		}
	}
	r.loader, err = r.set.Loader(r.model, r.task, loader.Options{
		BatchSize: o.BatchSize, Workers: o.Workers, Shuffle: true, Seed: uint64(o.Seed), Size: o.Size, Augment: o.Augment,
		Cache: o.Cache, PinMemory: o.Device.IsCUDA(),
	})
	if err != nil {
		return err
	}
	return r.openOptimizer()
}

// openHead makes the part of the head new that is to be.
func (r *run) openHead(ctx context.Context, set *dataset.Set) error {
	if r.o.Head == HeadKept {
		return nil
	}
	labels := r.o.Labels
	if labels == nil && r.o.Classes == nil && len(set.Classes) > 0 {
		// Labels that the classes are among stay, in their order.
		if _, err := set.Match(r.model.labels()); err != nil || len(r.model.meta.Labels) == 0 {
			if labels, err = r.model.labelsFor(set); err != nil {
				return err
			}
		}
	}
	return r.model.InitHead(ctx, r.o.Head, labels)
}

// openTask makes the task, with the frozen ViT of a head in a file of its own.
func (r *run) openTask(ctx context.Context) (Task, error) {
	task := r.model.meta.Task
	switch {
	case r.o.Dice > 0 && task != vit.TaskSegmentation && task != vit.TaskSegmentationHead:
		return nil, fmt.Errorf("dice: %w: got %v and a file of the task %s, want segmentation", ErrOptions, r.o.Dice, task)
	case r.o.LabelSmoothing > 0 && task == vit.TaskDetection:
		return nil, fmt.Errorf("label smoothing: %w: got %v and a file of the task %s, want classification or segmentation", ErrOptions, r.o.LabelSmoothing, task)
	}
	o := TaskOptions{LabelSmoothing: r.o.LabelSmoothing, Dice: r.o.Dice}
	if r.o.ViT == "" {
		return TaskOf(r.model, o)
	}
	f, err := newTokens(r.model, r.o.ViT)
	if err != nil {
		return nil, err
	}
	r.frozen = f.vit
	return segmentation{o: o, features: f}, nil
}

func (r *run) data(set *dataset.Set) (*Data, error) {
	d, err := r.model.Data(set, r.o.Classes...)
	if err != nil {
		return nil, err
	}
	d.Masks, d.Ignore = r.o.Masks, r.o.Ignore
	return d, nil
}

// stepsOf is the number of the optimizer's steps in an epoch.
func (r *run) stepsOf() int { return (r.loader.Len() + r.o.Accumulate - 1) / r.o.Accumulate }

func (r *run) total() int { return r.stepsOf() * r.o.Epochs }

// openOptimizer makes the optimizer of all parameters: frozen ones have no gradients, and are not changed.
func (r *run) openOptimizer() error {
	o := &r.o
	if err := r.model.Freeze(Freeze{}); err != nil {
		return err
	}
	layers := map[string]int{}
	depth := r.model.blocks()
	for _, p := range r.model.parameters {
		layers[p.Name] = min(p.Block+1, depth) // what follows the blocks learns as the last one
		if !p.ViT {
			layers[p.Name] = depth + 1
		}
	}
	groups, err := optim.LayerDecay(r.model.Learned(), optim.LayerDecayOptions{
		LR: o.LR, WeightDecay: &o.WeightDecay, Decay: o.LayerDecay, Layer: func(name string) int { return layers[name] },
	})
	if err != nil {
		return err
	}
	switch o.Optimizer {
	case OptimizerSGD:
		r.optimizer, err = optim.NewSGD(groups, optim.SGDOptions{LR: o.LR, Momentum: o.Momentum})
	case OptimizerAdam:
		r.optimizer, err = optim.NewAdam(groups, optim.AdamOptions{LR: o.LR})
	default:
		r.optimizer, err = optim.NewAdamW(groups, optim.AdamOptions{LR: o.LR})
	}
	if err != nil {
		return err
	}
	rest := max(1, r.total()-o.Warmup)
	var schedule optim.Schedule
	switch o.Schedule {
	case SchedulePoly:
		schedule = optim.Polynomial(rest, 0.9)
	case ScheduleStep:
		schedule = optim.StepDecay(max(1, (rest+2)/3), 0.1)
	case ScheduleConstant:
		schedule = optim.Constant()
	default:
		schedule = optim.Cosine(rest, 0)
	}
	if o.Warmup > 0 {
		schedule = optim.LinearWarmup(o.Warmup, 1/float64(o.Warmup+1), schedule)
	}
	r.schedule = schedule
	return nil
}

// identity are the options that the weights depend on.
func (r *run) identity() map[string]any {
	o := &r.o
	return map[string]any{
		"model": r.from, "weights": filepath.Base(o.Weights), "images": r.loader.Images(), "batch size": o.BatchSize, "accumulate": o.Accumulate,
		"optimizer": o.Optimizer, "lr": o.LR, "weight decay": o.WeightDecay, "momentum": o.Momentum, "layer decay": o.LayerDecay,
		"schedule": o.Schedule, "warmup": o.Warmup, "clip grad norm": o.ClipGradNorm, "precision": o.Precision.String(),
		"label smoothing": o.LabelSmoothing, "dice": o.Dice, "freeze": o.Freeze.String(), "unfreeze": o.Unfreeze, "head": string(o.Head),
		"labels": r.model.meta.Labels, "size": o.Size, "augment": o.Augment, "seed": o.Seed, "validation": r.val != nil,
	}
}

// begin starts the run, or takes up the state of one that was stopped.
func (r *run) begin(saved *state) error {
	now := r.identity()
	if saved == nil {
		r.state = &state{Format: checkpointFormat, Options: now}
	} else {
		if err := saved.same(now); err != nil {
			return err
		}
		if saved.BestEpoch > 0 && gone(r.o.Out) {
			return fmt.Errorf("resume: %w: %s, the model of epoch %d, is gone", ErrRun, r.o.Out, saved.BestEpoch)
		}
		r.state, r.before = saved, saved.Seconds
	}
	var err error
	epochs := r.state.Epoch
	if !r.state.Measured {
		epochs--
	}
	r.records, err = openRecords(r.o.RunDir, r.state.Step, max(0, epochs))
	return err
}

// unfreeze lets all be learned from the epoch on, from 0, that Options.Unfreeze says.
func (r *run) unfreeze(epoch int) error {
	f := r.o.Freeze
	if r.o.Unfreeze > 0 && epoch+1 >= r.o.Unfreeze {
		f = Freeze{}
	}
	if err := r.model.Freeze(f); err != nil {
		return err
	}
	r.learned = count(r.model.Learned())
	return nil
}

// train is the run from where it is to its end.
func (r *run) train(ctx context.Context) error {
	epoch := r.state.Epoch
	if r.due() {
		epoch--
	}
	if err := r.unfreeze(epoch); err != nil {
		return err
	}
	r.tell(Event{Kind: EventStart, Step: r.state.Step})
	if r.state.Step == 0 && r.state.Epoch == 0 && r.val != nil {
		metrics, err := r.measure(ctx, 0)
		if err != nil {
			return err
		}
		r.state.Start = metrics
		e := Event{Kind: EventEpoch, Metrics: metrics, Loss: math.NaN(), Learned: r.learned}
		r.records.epoch(e, r.seconds())
		r.tell(e)
	}
	for !r.finished() {
		if !r.due() {
			if err := r.unfreeze(r.state.Epoch); err != nil {
				return err
			}
			if err := r.epoch(ctx); err != nil {
				return err
			}
		}
		if err := r.measureEpoch(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) finished() bool {
	return !r.due() && (r.state.Stopped || r.state.Epoch >= r.o.Epochs)
}

// due tells that the last epoch is whole and not measured yet.
func (r *run) due() bool { return r.state.Epoch > 0 && r.state.Batch == 0 && !r.state.Measured }

// epoch trains for the rest of an epoch.
func (r *run) epoch(ctx context.Context) error {
	s := r.state
	r.clock.begin()
	// A step that has begun is finished, whatever becomes of ctx.
	work := context.WithoutCancel(ctx)
	w := r.window()
	for b, err := range r.loader.Batches(work, s.Epoch, s.Batch) {
		if err != nil {
			return err
		}
		err = r.learn(work, b, &w)
		b.Close()
		if err != nil {
			return err
		}
		if w.seen < w.images {
			continue
		}
		if err := r.step(work, &w); err != nil {
			return err
		}
		if err := r.pause(ctx); err != nil {
			return err
		}
		w = r.window()
	}
	s.EpochLoss = s.LossSum / float64(max(1, s.Images))
	s.Epoch++
	s.Batch, s.LossSum, s.Images, s.Measured = 0, 0, 0, false
	return r.save()
}

// window is the steps of the loader that make one of the optimizer: up to to, of images in all, of which seen have
// been learned from; loss is their mean so far.
type window struct {
	to, images, seen int
	loss             float64
	parts            []Part
}

func (r *run) window() window {
	from := r.state.Batch
	to := min(from+r.o.Accumulate, r.loader.Len())
	return window{to: to, images: min(to*r.o.BatchSize, r.loader.Images()) - from*r.o.BatchSize}
}

// learn adds the gradients of a batch, as its share of the window.
func (r *run) learn(ctx context.Context, b *loader.Batch, w *window) error {
	l, err := r.task.Loss(ctx, r.model, b)
	if err != nil {
		return err
	}
	defer l.Total.Close()
	number, err := value(l.Total)
	if err != nil {
		return err
	}
	share := float64(b.Len()) / float64(w.images)
	w.seen += b.Len()
	w.loss += number * share
	for i, p := range l.Parts {
		if i == len(w.parts) {
			w.parts = append(w.parts, Part{Name: p.Name})
		}
		w.parts[i].Value += p.Value * share
	}
	if math.IsNaN(number) || math.IsInf(number, 0) {
		return fmt.Errorf("%w: the loss is %v in step %d; want a lower lr (it is %.3g), warmup or clip grad norm", ErrDiverged, number, r.state.Step+1, r.lr())
	}
	if !l.Total.RequiresGrad() {
		return fmt.Errorf("%w: the loss of %s has no gradient: its code was traced without one", ErrFrozen, r.model.name)
	}
	root := l.Total
	if share != 1 {
		if root, err = loss.Sum(ctx, loss.Term{Loss: l.Total, Weight: share}); err != nil {
			return err
		}
		defer root.Close()
	}
	return torch.Backward(ctx, root, torch.BackwardOptions{})
}

// lr is the rate of the head in the next step.
func (r *run) lr() float64 { return r.o.LR * r.schedule(r.state.Step) }

// step is one of the optimizer.
func (r *run) step(ctx context.Context, w *window) error {
	s := r.state
	norm := math.NaN()
	if r.o.ClipGradNorm > 0 {
		var err error
		if norm, err = optim.ClipGradNorm(ctx, r.model.Learned(), r.o.ClipGradNorm); err != nil {
			return err
		}
	}
	e := Event{Kind: EventStep, Loss: w.loss, Parts: w.parts, LR: r.lr(), GradNorm: norm}
	r.optimizer.ScaleLR(r.schedule(s.Step))
	if err := r.optimizer.Step(ctx); err != nil {
		return err
	}
	if err := r.optimizer.ZeroGrad(); err != nil {
		return err
	}
	s.Step++
	s.Batch = w.to
	s.LossSum += w.loss * float64(w.images)
	s.Images += w.images
	e.Rate, e.Remaining = r.clock.tick(w.images, r.total()-s.Step, r.measurements())
	e.Step, e.Epoch = s.Step, s.Epoch+1
	r.records.step(e)
	r.tell(e)
	return nil
}

// pause saves the checkpoint between two steps where it is time to, and ends the run where ctx has ended.
func (r *run) pause(ctx context.Context) error {
	s := r.state
	stop := ctx.Err() != nil
	if !stop && (r.o.SaveEvery == 0 || s.Step%r.o.SaveEvery != 0) {
		return nil
	}
	if err := r.save(); err != nil {
		return err
	}
	if !stop {
		return nil
	}
	return r.stopped(ctx)
}

func (r *run) stopped(ctx context.Context) error {
	return fmt.Errorf("%w after step %d of %d: %s is there to go on from: %w", ErrStopped, r.state.Step, r.total(), filepath.Join(r.o.RunDir, CheckpointFile), context.Cause(ctx))
}

// measurements are those that are still to come.
func (r *run) measurements() int {
	if r.val == nil {
		return 0
	}
	done := r.state.Epoch
	return (r.o.Epochs+r.o.EvalEvery-1)/r.o.EvalEvery - done/r.o.EvalEvery
}

// measure evaluates the present weights.
func (r *run) measure(ctx context.Context, epoch int) ([]Metric, error) {
	begin := time.Now()
	metrics, err := r.task.Evaluate(ctx, r.model, r.val, func(done int) {
		r.tell(Event{Kind: EventEvaluating, Epoch: epoch, Done: done, Total: len(r.val.Set.Images)})
	})
	if err != nil {
		if ctx.Err() != nil && epoch > 0 {
			return nil, r.stopped(ctx)
		}
		return nil, err
	}
	r.clock.measuring = time.Since(begin)
	return metrics, nil
}

// measureEpoch measures the epoch that has just ended, where it is time to, and keeps the best model.
func (r *run) measureEpoch(ctx context.Context) error {
	if !r.due() {
		return nil
	}
	s := r.state
	e := Event{Kind: EventEpoch, Epoch: s.Epoch, Step: s.Step, Loss: s.EpochLoss, LR: r.lr(), Learned: r.learned}
	now := s.Epoch%r.o.EvalEvery == 0 || s.Epoch >= r.o.Epochs
	keep := now && r.val == nil
	if now && r.val != nil {
		metrics, err := r.measure(ctx, s.Epoch)
		if err != nil {
			return err
		}
		e.Metrics = metrics
		// NaN is no better than anything.
		keep = s.Best == nil || metrics[0].Value > s.Best[0].Value || math.IsNaN(s.Best[0].Value) && !math.IsNaN(metrics[0].Value)
		e.Better = keep
		if keep {
			s.Best, s.Worse = metrics, 0
		} else {
			s.Worse++
			s.Stopped = r.o.EarlyStop > 0 && s.Worse >= r.o.EarlyStop
		}
	}
	if keep {
		s.BestEpoch = s.Epoch
		if err := r.model.Save(context.WithoutCancel(ctx), r.o.Out, r.training()); err != nil {
			return err
		}
		r.tell(Event{Kind: EventSaved, Epoch: s.Epoch, Step: s.Step, Path: r.o.Out})
	}
	r.records.epoch(e, r.seconds())
	s.Measured = true
	if err := r.save(); err != nil {
		return err
	}
	if err := r.records.draw(filepath.Base(r.o.Out)); err != nil {
		return err
	}
	r.tell(e)
	if ctx.Err() != nil && !r.finished() {
		return r.stopped(ctx)
	}
	return nil
}

// training is what the file says of how it was made.
func (r *run) training() *vit.Training {
	o, s := &r.o, r.state
	t := &vit.Training{
		By: by, From: r.from, Weights: name(o.Weights), Data: o.Data, Images: r.loader.Images(), Validation: o.Validation,
		Epochs: s.Epoch, Steps: s.Step, BatchSize: o.BatchSize * o.Accumulate, Optimizer: o.Optimizer, LR: o.LR, WeightDecay: o.WeightDecay,
		Schedule: o.Schedule, Precision: torch.Float32.String(), Head: string(o.Head), Seed: o.Seed, Epoch: s.BestEpoch,
		Metric: "loss", Value: s.EpochLoss,
	}
	if o.LayerDecay != 1 {
		t.LayerDecay = o.LayerDecay
	}
	if o.Precision != torch.InvalidDType {
		t.Precision = o.Precision.String()
	}
	if o.Freeze != (Freeze{}) {
		t.Freeze = o.Freeze.String()
		if o.Unfreeze > 0 {
			t.Freeze += fmt.Sprintf(" before epoch %d", o.Unfreeze)
		}
	}
	if len(s.Best) > 0 && !math.IsNaN(s.Best[0].Value) {
		t.Metric, t.Value = s.Best[0].Name, s.Best[0].Value
	}
	return t
}

// name is the base name of a path, "" of none.
func name(path string) string {
	if path == "" {
		return ""
	}
	return filepath.Base(path)
}

func (r *run) seconds() float64 { return r.before + time.Since(r.start).Seconds() }

// save writes the tables and then the checkpoint.
func (r *run) save() error {
	if err := r.records.write(); err != nil {
		return err
	}
	tensors := r.model.state()
	optimizer, err := r.optimizer.State()
	defer closeMap(optimizer)
	if err != nil {
		return err
	}
	for name, t := range optimizer {
		tensors["optimizer/"+name] = t
	}
	rng, err := torch.RNGState()
	if err != nil {
		return err
	}
	defer rng.Close()
	tensors["rng"] = rng
	r.state.Seconds = math.Round(r.seconds()*1000) / 1000
	path := filepath.Join(r.o.RunDir, CheckpointFile)
	if err := r.state.write(path, tensors); err != nil {
		return err
	}
	r.tell(Event{Kind: EventSaved, Epoch: r.state.Epoch, Step: r.state.Step, Path: path})
	return nil
}

// restore takes the tensors of a checkpoint.
func (r *run) restore(z *npy.Zip) error {
	all, err := part(z, "")
	if err != nil {
		return err
	}
	defer closeMap(all)
	if err := r.model.loadState(all); err != nil {
		return err
	}
	optimizer := map[string]*torch.Tensor{}
	for name, t := range all {
		if short, ok := strings.CutPrefix(name, "optimizer/"); ok {
			optimizer[short] = t
		}
	}
	if err := r.optimizer.LoadState(optimizer); err != nil {
		return err
	}
	if all["rng"] == nil {
		return fmt.Errorf("%w: the checkpoint has no state of the generator", ErrRun)
	}
	return torch.SetRNGState(all["rng"])
}

func (r *run) tell(e Event) {
	if r.o.Progress == nil {
		return
	}
	e.Epochs, e.Steps, e.Learned = r.o.Epochs, r.total(), r.learned
	r.o.Progress(e)
}

func (r *run) result() *Result {
	s := r.state
	out := &Result{
		Model: r.o.Out, RunDir: r.o.RunDir, Epochs: s.Epoch, Steps: s.Step, Start: s.Start, BestEpoch: s.BestEpoch, Best: s.Best,
		Loss: s.EpochLoss, StoppedEarly: s.Stopped, Learned: r.learned, Seconds: math.Round(time.Since(r.start).Seconds()*1000) / 1000, Notes: r.notes,
	}
	for _, p := range r.model.parameters {
		out.Parameters += p.Tensor.NumEl()
	}
	return out
}

// clock tells how fast steps are.
type clock struct {
	at        []time.Time // of the last steps' ends
	images    []int
	measuring time.Duration // the last measurement
}

const clockSteps = 20

// begin forgets what was before: a measurement, say.
func (c *clock) begin() { c.at, c.images = append(c.at[:0], time.Now()), append(c.images[:0], 0) }

// tick notes a step and gives images in a second and the time for the steps and measurements that remain.
func (c *clock) tick(images, steps, measurements int) (rate float64, remaining time.Duration) {
	c.at, c.images = append(c.at, time.Now()), append(c.images, images)
	if n := len(c.at) - clockSteps - 1; n > 0 {
		c.at, c.images = c.at[n:], c.images[n:]
	}
	sum := 0
	for _, n := range c.images[1:] {
		sum += n
	}
	took := c.at[len(c.at)-1].Sub(c.at[0])
	remaining = took/time.Duration(len(c.at)-1)*time.Duration(steps) + c.measuring*time.Duration(measurements)
	return float64(sum) / max(took.Seconds(), 1e-9), remaining
}
