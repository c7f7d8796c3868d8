package train

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/loader"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/optim"
	"github.com/torchvit/torchvit/vit"
)

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
		Cache: o.Cache, PinMemory: o.Device.IsCUDA(), SkipErrors: o.SkipErrors,
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
	if labels == nil && len(set.Classes) > 0 {
		var err error
		if labels, err = r.model.labelsFor(set, r.o.Classes); err != nil {
			return err
		}
		// The same labels stay in the model's order.
		if slices.Equal(slices.Sorted(slices.Values(labels)), slices.Sorted(slices.Values(r.model.meta.Labels))) {
			labels = nil
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
	identity := map[string]any{
		"model": r.from, "weights": filepath.Base(o.Weights), "images": r.loader.Images(), "batch size": o.BatchSize, "accumulate": o.Accumulate,
		"optimizer": o.Optimizer, "lr": o.LR, "weight decay": o.WeightDecay, "momentum": o.Momentum, "layer decay": o.LayerDecay,
		"schedule": o.Schedule, "warmup": o.Warmup, "clip grad norm": o.ClipGradNorm, "precision": o.Precision.String(),
		"label smoothing": o.LabelSmoothing, "dice": o.Dice, "freeze": o.Freeze.String(), "unfreeze": o.Unfreeze, "head": string(o.Head),
		"labels": r.model.meta.Labels, "size": o.Size, "augment": o.Augment, "seed": o.Seed, "validation": "",
		"vit": name(o.ViT), "classes": o.Classes, "masks": o.Masks, "ignored values": o.Ignore, "val limit": o.EvalLimit, "skip errors": o.SkipErrors,
		"data": fingerprint(r.set.Set),
	}
	if r.val != nil {
		identity["validation"] = fingerprint(r.val.Set)
	}
	return identity
}

// fingerprint is a hash of what a data set's files say: the images' names, classes, boxes and outlines, and the
// names of masks. What is in the images is not looked at.
func fingerprint(set *dataset.Set) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q\n", set.Classes)
	for _, img := range set.Images {
		fmt.Fprintf(h, "%q %d %q\n", filepath.Base(img.Path), img.Class, name(img.Mask))
		for _, object := range img.Objects {
			fmt.Fprintln(h, object.Class, object.Box, object.Polygons, object.Crowd)
			if object.Mask != nil {
				fmt.Fprintln(h, *object.Mask)
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
