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

// begin starts the run, or takes up the state of one that was stopped.
func (r *run) begin(saved *state) error {
	now := r.identity()
	if saved == nil {
		r.state = &state{Format: checkpointFormat, Options: now}
	} else {
		if err := saved.same(now); err != nil {
			return err
		}
		if (saved.BestEpoch > 0 || len(saved.Best) > 0) && gone(r.o.Out) {
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
		// What training does not make better stays as it is.
		r.state.Start, r.state.Best = metrics, metrics
		if err := r.saveModel(ctx); err != nil {
			return err
		}
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
	finish := func() error {
		if w.seen == 0 {
			s.Batch = w.to
		} else if err := r.stepAndPause(ctx, work, &w); err != nil {
			return err
		}
		w = r.window()
		return nil
	}
	for b, err := range r.loader.Batches(work, s.Epoch, s.Batch) {
		if err != nil {
			return err
		}
		// Images were left out, so that a window was not filled.
		for b.Step >= w.to && err == nil {
			err = finish()
		}
		if err == nil {
			err = r.learn(work, b, &w)
		}
		b.Close()
		if err == nil && w.seen == w.images {
			err = finish()
		}
		if err != nil {
			return err
		}
	}
	if w.seen > 0 {
		if err := finish(); err != nil {
			return err
		}
	}
	s.EpochLoss = s.LossSum / float64(max(1, s.Images))
	s.Epoch++
	s.Batch, s.LossSum, s.Images, s.Measured = 0, 0, 0, false
	return r.save(ctx)
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
		return r.diverged("loss", number)
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

// diverged is the error where a number that training needs is not finite. Nothing has been written since the last
// one that was.
func (r *run) diverged(what string, number float64) error {
	return fmt.Errorf("%w: the %s is %v in step %d; want a lower lr (it is %.3g), warmup or clip grad norm", ErrDiverged, what, number, r.state.Step+1, r.lr())
}

// finite tells whether the parameters are finite numbers, before a file is written of them.
func (r *run) finite(ctx context.Context) error {
	for _, p := range r.model.Learned() {
		norm, err := torch.CallWith(ctx, torch.CallOptions{Mode: torch.NoGrad}, "aten::norm.Scalar", p.Tensor, 2)
		if err != nil {
			return err
		}
		number, err := value(norm.(*torch.Tensor))
		torch.CloseAll(norm)
		if err != nil {
			return err
		}
		if math.IsNaN(number) || math.IsInf(number, 0) {
			return r.diverged("norm of "+p.Name, number)
		}
	}
	return nil
}

// lr is the rate of the head in the next step.
func (r *run) lr() float64 { return r.o.LR * r.schedule(r.state.Step) }

// step is one of the optimizer.
func (r *run) step(ctx context.Context, w *window) error {
	s := r.state
	if err := r.withoutLeftOut(w); err != nil {
		return err
	}
	most := r.o.ClipGradNorm
	if most == 0 {
		most = math.MaxFloat64 // measures, and scales by 1
	}
	norm, err := optim.ClipGradNorm(ctx, r.model.Learned(), most)
	if err != nil {
		return err
	}
	// A finite loss may have gradients that are not.
	if math.IsNaN(norm) || math.IsInf(norm, 0) {
		return r.diverged("norm of the gradients", norm)
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
	s.LossSum += w.loss * float64(w.seen)
	s.Images += w.seen
	e.Rate, e.Remaining = r.clock.tick(w.seen, r.total()-s.Step, r.measurements())
	e.Step, e.Epoch = s.Step, s.Epoch+1
	r.records.step(e)
	r.tell(e)
	return nil
}

// withoutLeftOut makes the mean of a window one over the images that were not left out.
func (r *run) withoutLeftOut(w *window) error {
	if w.seen == w.images {
		return nil
	}
	part := float64(w.images) / float64(w.seen)
	w.loss *= part
	for i := range w.parts {
		w.parts[i].Value *= part
	}
	for _, p := range r.model.Learned() {
		g, err := p.Tensor.Grad()
		if err != nil {
			return err
		}
		if g == nil {
			continue
		}
		err = noGrad("aten::mul_.Scalar", g, part)
		g.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *run) stepAndPause(ctx, work context.Context, w *window) error {
	if err := r.step(work, w); err != nil {
		return err
	}
	return r.pause(ctx)
}

// pause saves the checkpoint between two steps where it is time to, and ends the run where ctx has ended.
func (r *run) pause(ctx context.Context) error {
	s := r.state
	stop := ctx.Err() != nil
	if !stop && (r.o.SaveEvery == 0 || s.Step%r.o.SaveEvery != 0) {
		return nil
	}
	if err := r.save(ctx); err != nil {
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
		if err := r.saveModel(ctx); err != nil {
			return err
		}
	}
	r.records.epoch(e, r.seconds())
	s.Measured = true
	if err := r.save(ctx); err != nil {
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

// saveModel writes the present weights to Options.Out.
func (r *run) saveModel(ctx context.Context) error {
	if err := r.model.Save(context.WithoutCancel(ctx), r.o.Out, r.training()); err != nil {
		return err
	}
	r.tell(Event{Kind: EventSaved, Epoch: r.state.Epoch, Step: r.state.Step, Path: r.o.Out})
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
func (r *run) save(ctx context.Context) error {
	if err := r.finite(context.WithoutCancel(ctx)); err != nil {
		return err
	}
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
	if r.o.Device.IsCUDA() {
		// The state is the CPU's; the device's numbers must not be those of the beginning again.
		if err := torch.ManualSeed(uint64(r.o.Seed) + uint64(r.state.Step)<<32); err != nil {
			return err
		}
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
	if errs := r.loader.Skipped(); len(errs) > 0 {
		r.notes = append(r.notes, fmt.Sprintf("%d images were left out: %v", len(errs), errs[0]))
	}
	out := &Result{
		Model: r.o.Out, RunDir: r.o.RunDir, Epochs: s.Epoch, Steps: s.Step, Start: s.Start, BestEpoch: s.BestEpoch, Best: s.Best,
		Loss: s.EpochLoss, StoppedEarly: s.Stopped, Learned: r.learned, Seconds: math.Round(time.Since(r.start).Seconds()*1000) / 1000, Notes: r.notes,
	}
	for _, p := range r.model.parameters {
		out.Parameters += p.Tensor.NumEl()
	}
	return out
}
