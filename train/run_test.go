package train_test

import (
	"context"
	"encoding/csv"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/train"
	"github.com/torchvit/torchvit/vit"
)

func model(name string) string { return filepath.Join("testdata", name+".pt") }

// weights are a file's parameters and buffers by name.
func weights(t testing.TB, path string) map[string][]float32 {
	t.Helper()
	m, err := jit.Load(path, jit.LoadOptions{})
	require.NoError(t, err)
	defer m.Close()
	out := map[string][]float32{}
	for _, list := range []func() ([]jit.NamedTensor, error){m.NamedParameters, m.NamedBuffers} {
		tensors, err := list()
		require.NoError(t, err)
		for _, x := range tensors {
			if x.Tensor.DType() == torch.Float32 {
				out[x.Name], err = torch.CopyData[float32](x.Tensor)
				require.NoError(t, err)
			}
			x.Tensor.Close()
		}
	}
	require.NotEmpty(t, out)
	return out
}

// changed are the names of what differs.
func changed(t testing.TB, a, b map[string][]float32) (names []string) {
	t.Helper()
	require.Len(t, b, len(a))
	for name := range a {
		if !assert.ObjectsAreEqual(a[name], b[name]) {
			names = append(names, name)
		}
	}
	return names
}

// losses are the loss of every step, and metrics the first metric of every epoch.
type history struct {
	losses  []float64
	metrics []float64
	epochs  []float64
}

func (h *history) event(e train.Event) {
	switch e.Kind {
	case train.EventStep:
		h.losses = append(h.losses, e.Loss)
	case train.EventEpoch:
		if len(e.Metrics) > 0 {
			h.metrics = append(h.metrics, e.Metrics[0].Value)
		}
		if e.Epoch > 0 {
			h.epochs = append(h.epochs, e.Loss)
		}
	}
}

// tune runs and gives what happened.
func tune(t testing.TB, name string, set, val *dataset.Set, o train.Options) (*train.Result, *history) {
	t.Helper()
	h := &history{}
	if o.Out == "" {
		o.Out = filepath.Join(t.TempDir(), "tuned.pt")
	}
	if val == nil {
		o.EvalEvery = 100 // the file is written once
	}
	o.Progress = h.event
	r, err := train.Run(t.Context(), model(name), set, val, o)
	require.NoError(t, err)
	return r, h
}

// verified checks that the written file is one that every command takes.
func verified(t testing.TB, r *train.Result) *vit.Metadata {
	t.Helper()
	report, err := vit.Verify(t.Context(), r.Model, vit.Options{})
	require.NoError(t, err)
	require.NoError(t, report.Err())
	assert.True(t, report.Exact, report.Why)
	assert.Equal(t, "torchvit", report.By)
	meta, err := vit.ReadMetadata(r.Model)
	require.NoError(t, err)
	require.NotNil(t, meta.Training)
	return meta
}

func TestEveryTaskLearns(t *testing.T) {
	for _, c := range []struct {
		name, metric  string
		set, val      *dataset.Set
		o             train.Options
		before, after float64 // the metric is at most, and at least
		falls         float64 // the last epoch's loss over the first one's, at most
	}{
		{"vit", "top-1", folders(t, 48, 1), folders(t, 24, 2), train.Options{Epochs: 12, LR: 1e-3, BatchSize: 4, EvalEvery: 4}, 0.7, 0.9, 0.65},
		{"segmentation", "mIoU", scenes(t, 32, 1), scenes(t, 8, 2), train.Options{Epochs: 4, LR: 5e-3, BatchSize: 4, Dice: 0.5, EvalEvery: 2}, 0.2, 0.4, 0.7},
		{"progressive", "mIoU", masks(t, 32, 1), masks(t, 8, 2), train.Options{Epochs: 5, LR: 2e-2, BatchSize: 4, ClipGradNorm: 5, EvalEvery: 2}, 0.2, 0.25, 0.85},
		{"faster_rcnn", "AP", scenes(t, 32, 1), scenes(t, 8, 2), train.Options{Epochs: 4, LR: 4e-3, BatchSize: 4, Warmup: 4, EvalEvery: 2}, 0.01, 0.03, 0.75},
		{"mask_rcnn", "AP", scenes(t, 12, 1), scenes(t, 4, 2), train.Options{Epochs: 2, LR: 4e-3, BatchSize: 4, EvalEvery: 2}, 0.01, 0, 0.95},
		{"yolo", "AP", scenes(t, 32, 1), scenes(t, 8, 2), train.Options{Epochs: 4, LR: 8e-3, BatchSize: 4, EvalEvery: 2}, 0.02, 0.08, 0.75},
	} {
		t.Run(c.name, func(t *testing.T) {
			if testing.Short() && c.metric == "AP" {
				t.Skip("TorchScript takes seconds to compile a detector's training")
			}
			r, h := tune(t, c.name, c.set, c.val, c.o)
			t.Logf("losses %.3f metrics %.3f", h.epochs, h.metrics)
			require.Len(t, h.epochs, c.o.Epochs)
			assert.Less(t, h.epochs[len(h.epochs)-1], c.falls*h.epochs[0])
			require.Len(t, r.Best, len(r.Start))
			assert.Equal(t, c.metric, r.Best[0].Name)
			assert.LessOrEqual(t, r.Start[0].Value, c.before)
			assert.GreaterOrEqual(t, r.Best[0].Value, c.after)
			if c.name == "mask_rcnn" {
				assert.Equal(t, "mask AP", r.Best[len(r.Best)-1].Name)
			}
			meta := verified(t, r)
			assert.Equal(t, c.metric, meta.Training.Metric)
			assert.InDelta(t, r.Best[0].Value, meta.Training.Value, 0)
			assert.Equal(t, c.name+".pt", meta.Training.From)
		})
	}
}

func runDir(out string) string { return strings.TrimSuffix(out, ".pt") + ".run" }

func readCSV(t testing.TB, path string) [][]string {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	require.NoError(t, err)
	return rows
}

// TestRunFolder looks at what a run leaves.
func TestRunFolder(t *testing.T) {
	set := folders(t, 20, 1)
	o := train.Options{Out: filepath.Join(t.TempDir(), "new", "tuned.pt"), Epochs: 2, BatchSize: 8, Accumulate: 2, ClipGradNorm: 1, LR: 1e-3}
	require.NoError(t, os.Mkdir(filepath.Dir(o.Out), 0o777))
	val := folders(t, 6, 2)
	r, h := tune(t, "vit", set, val, o)
	assert.Equal(t, 4, r.Steps, "two batches of 8 and one of 4 an epoch make two steps")
	dir := runDir(o.Out)
	assert.Equal(t, dir, r.RunDir)
	steps := readCSV(t, filepath.Join(dir, train.StepsFile))
	assert.Equal(t, []string{"step", "epoch", "lr", "loss", "grad_norm", "images_per_second"}, steps[0])
	require.Len(t, steps, 1+4)
	assert.Equal(t, []string{"4", "2"}, steps[4][:2])
	// Half a cosine over four steps, which the optimizer has had: the checkpoint holds its last rate.
	for i, want := range []float64{1, 0.853553391, 0.5, 0.146446609} {
		lr, err := strconv.ParseFloat(steps[1+i][2], 64)
		require.NoError(t, err)
		assert.InDelta(t, want*1e-3, lr, 1e-10)
	}
	checkpoint, err := torch.LoadNpz(filepath.Join(dir, train.CheckpointFile))
	require.NoError(t, err)
	defer func() {
		for _, x := range checkpoint {
			x.Close()
		}
	}()
	rates, err := torch.CopyData[float64](checkpoint["optimizer/lr"])
	require.NoError(t, err)
	for _, rate := range rates {
		assert.InDelta(t, 0.146446609e-3, rate, 1e-10)
	}
	epochs := readCSV(t, filepath.Join(dir, train.EpochsFile))
	assert.Equal(t, []string{"epoch", "step", "loss", "top-1", "top-3", "learned", "seconds"}, epochs[0])
	require.Len(t, epochs, 1+3, "the measurement before the first step, and two epochs")
	assert.Equal(t, []string{"0", "0", ""}, epochs[1][:3])
	// An epoch's loss is the mean over its images.
	assert.InDelta(t, (h.losses[0]*16+h.losses[1]*4)/20, h.epochs[0], 1e-12)
	f, err := os.Open(filepath.Join(dir, train.CurvesFile))
	require.NoError(t, err)
	defer f.Close()
	img, err := png.Decode(f)
	require.NoError(t, err)
	assert.Equal(t, image.Rect(0, 0, 800, 800), img.Bounds())
	// Something is drawn in each half, in the curves' own colours.
	for y := range 2 {
		colors := map[color.Color]int{}
		for p := range 800 * 400 {
			colors[img.At(p%800, 400*y+p/800)]++
		}
		assert.Greater(t, len(colors), 20)
		assert.Less(t, colors[color.RGBA{255, 255, 255, 255}], 800*400*98/100)
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	assert.Equal(t, []string{train.CurvesFile, train.EpochsFile, train.CheckpointFile, train.StepsFile}, names)

	_, err = train.Run(t.Context(), model("vit"), set, nil, o)
	require.ErrorIs(t, err, train.ErrRun)
	assert.ErrorContains(t, err, "holds a run already")
	o.Resume, o.LR = true, 2e-3
	_, err = train.Run(t.Context(), model("vit"), set, val, o)
	require.ErrorIs(t, err, train.ErrRun)
	assert.ErrorContains(t, err, "got lr 0.002, and the run that is there has 0.001")
	o.LR = 1e-3
	_, err = train.Run(t.Context(), model("vit"), folders(t, 20, 3), val, o)
	require.NoError(t, err, "the same names and classes")
	_, err = train.Run(t.Context(), model("vit"), set, set, o)
	require.ErrorIs(t, err, train.ErrRun)
	assert.ErrorContains(t, err, "got validation ")
	moved := *set
	moved.Images = slices.Clone(set.Images)
	moved.Images[0], moved.Images[19] = moved.Images[19], moved.Images[0]
	_, err = train.Run(t.Context(), model("vit"), &moved, val, o)
	require.ErrorIs(t, err, train.ErrRun)
	assert.ErrorContains(t, err, "got data ")
	again, err := train.Run(t.Context(), model("vit"), set, val, o)
	require.NoError(t, err, "a run that is over has nothing left to do")
	assert.Equal(t, r.Best, again.Best)
}

func TestOnlyWhatIsNotFrozenChanges(t *testing.T) {
	set := scenes(t, 12, 1)
	before := weights(t, model("segmentation"))
	for freeze, want := range map[string]func(name string) bool{
		"vit": func(name string) bool { return strings.HasPrefix(name, "segmentation_head.") },
		"blocks:1": func(name string) bool {
			return strings.HasPrefix(name, "segmentation_head.") || strings.HasPrefix(name, "blocks.1.") || strings.HasPrefix(name, "norm.")
		},
		"none": func(string) bool { return true },
	} {
		f, err := train.ParseFreeze(freeze)
		require.NoError(t, err)
		r, _ := tune(t, "segmentation", set, nil, train.Options{Epochs: 1, BatchSize: 6, LR: 1e-3, Freeze: f})
		got := map[string]bool{}
		for _, name := range changed(t, before, weights(t, r.Model)) {
			got[name] = true
		}
		for name := range before {
			assert.Equal(t, want(name), got[name], "%s: %s", freeze, name)
		}
		assert.Equal(t, freeze, f.String())
	}
	// Frozen in the first epoch, learned in the second.
	o := train.Options{Epochs: 2, BatchSize: 6, LR: 1e-3, Freeze: train.Freeze{ViT: true}, Unfreeze: 2}
	r, _ := tune(t, "segmentation", set, nil, o)
	assert.Len(t, changed(t, before, weights(t, r.Model)), len(before))
	assert.Equal(t, "vit before epoch 2", verified(t, r).Training.Freeze)
	assert.Equal(t, r.Parameters, r.Learned)
}

func TestAccumulatedBatchesAreOneLargeBatch(t *testing.T) {
	set := folders(t, 22, 1)
	o := train.Options{Epochs: 3, BatchSize: 8, LR: 1e-3}
	_, want := tune(t, "vit", set, nil, o)
	o.BatchSize, o.Accumulate = 2, 4
	_, got := tune(t, "vit", set, nil, o)
	require.Len(t, got.losses, len(want.losses))
	require.Len(t, got.losses, 9)
	for i := range want.losses {
		// Sums of another order: the last bits differ.
		assert.InEpsilon(t, want.losses[i], got.losses[i], 1e-4, "step %d", i)
	}
}

func TestEarlyStopAndBest(t *testing.T) {
	set, val := folders(t, 8, 1), folders(t, 8, 2)
	// A rate that changes next to nothing: no epoch is better than the start, which the file keeps.
	r, h := tune(t, "vit", set, val, train.Options{Epochs: 9, BatchSize: 8, LR: 1e-12, EarlyStop: 2})
	assert.True(t, r.StoppedEarly)
	assert.Equal(t, 2, r.Epochs)
	assert.Equal(t, 0, r.BestEpoch)
	assert.Equal(t, r.Start, r.Best)
	assert.Len(t, h.epochs, 2)
	assert.Equal(t, 0, verified(t, r).Training.Epoch)
	assert.Empty(t, changed(t, weights(t, model("vit")), weights(t, r.Model)))
	// Measured each second epoch, and at the end.
	_, h = tune(t, "vit", set, val, train.Options{Epochs: 5, BatchSize: 8, LR: 1e-12, EvalEvery: 2, EvalLimit: 4})
	assert.Len(t, h.metrics, 1+3)
}

// TestWeightsThatDiverged are not written, even where the loss was finite.
func TestWeightsThatDiverged(t *testing.T) {
	dir := t.TempDir()
	o := train.Options{Out: filepath.Join(dir, "x.pt"), Optimizer: train.OptimizerSGD, LR: 1e3, WeightDecay: 1e3, Momentum: -1, Epochs: 9, BatchSize: 8}
	_, err := train.Run(t.Context(), model("vit"), folders(t, 8, 1), nil, o)
	require.ErrorIs(t, err, train.ErrDiverged)
	finite := func(name string, w []float32) {
		for _, x := range w {
			require.False(t, math.IsNaN(float64(x)) || math.IsInf(float64(x), 0), name)
		}
	}
	// The first epoch, of one step, is still finite.
	for name, w := range weights(t, o.Out) {
		finite(name, w)
	}
	saved, err := torch.LoadNpz(filepath.Join(runDir(o.Out), train.CheckpointFile))
	require.NoError(t, err)
	require.Contains(t, saved, "parameters/head.weight")
	for name, x := range saved {
		if x.DType() == torch.Float32 {
			w, err := torch.CopyData[float32](x)
			require.NoError(t, err)
			finite(name, w)
		}
		x.Close()
	}
}

// TestBadImages are an error, or left out and told.
func TestBadImages(t *testing.T) {
	set := folders(t, 9, 1)
	broken := filepath.Join(t.TempDir(), "broken.png")
	require.NoError(t, os.WriteFile(broken, []byte("no image"), 0o666))
	bad := *set
	bad.Images = slices.Clone(set.Images)
	// A whole batch, and one of another, of steps of two batches.
	for _, i := range []int{0, 1, 4} {
		bad.Images[i].Path = broken
	}
	o := train.Options{Out: filepath.Join(t.TempDir(), "x.pt"), Epochs: 2, BatchSize: 1, Accumulate: 2, LR: 1e-3}
	_, err := train.Run(t.Context(), model("vit"), &bad, nil, o)
	require.ErrorContains(t, err, broken)
	o.Out, o.SkipErrors = "", true
	r, h := tune(t, "vit", &bad, nil, o)
	require.Len(t, r.Notes, 1)
	assert.Contains(t, r.Notes[0], "3 images were left out: ")
	assert.Contains(t, r.Notes[0], broken)
	assert.GreaterOrEqual(t, len(h.losses), 6, "no more than two steps had both of their images left out")
	assert.Equal(t, len(h.losses), r.Steps)
	// A step's mean, and its gradient, is over the images that are there.
	two := *set
	two.Images = []dataset.Image{bad.Images[0], set.Images[3]}
	one := *set
	one.Images = set.Images[3:4]
	o = train.Options{Epochs: 1, BatchSize: 2, LR: 0.1, Optimizer: train.OptimizerSGD, SkipErrors: true}
	r, h = tune(t, "vit", &two, nil, o)
	expected, alone := tune(t, "vit", &one, nil, o)
	assert.InDelta(t, alone.losses[0], h.losses[0], 1e-12)
	assert.Empty(t, changed(t, weights(t, expected.Model), weights(t, r.Model)))
	o = train.Options{Epochs: 2, BatchSize: 1, SkipErrors: true, Accumulate: 2, LR: 1e-3}
	o.SkipErrors, o.Accumulate, o.LR = false, 1, 1e-12
	good := *set
	good.Images = append(slices.Clone(set.Images[2:4]), set.Images[5:]...)
	_, want := tune(t, "vit", &good, nil, o)
	o.SkipErrors = true
	_, got := tune(t, "vit", &bad, nil, o)
	assert.InDelta(t, want.epochs[0], got.epochs[0], 1e-5)
}

func TestNewClasses(t *testing.T) {
	other := scenes(t, 16, 1, "apple", "lime", "plum", "none of these")
	_, err := train.Run(t.Context(), model("segmentation"), other, nil, train.Options{Out: filepath.Join(t.TempDir(), "x.pt")})
	require.ErrorIs(t, err, train.ErrClasses)
	require.ErrorIs(t, err, dataset.ErrClass)
	assert.ErrorContains(t, err, "--init-head=classes")
	for _, c := range []struct {
		name, background string
		part             train.HeadPart
	}{
		{"segmentation", "background", train.HeadClasses},
		{"segmentation", "background", train.HeadAll},
		{"progressive", "background", train.HeadAll},
		{"faster_rcnn", "__background__", train.HeadClasses},
		{"yolo", "", train.HeadAll},
	} {
		r, h := tune(t, c.name, other, nil, train.Options{Epochs: 2, BatchSize: 8, LR: 3e-3, Head: c.part})
		meta := verified(t, r)
		want := []string{"apple", "lime", "plum", "none of these"}
		if c.background != "" {
			want = append([]string{c.background}, want...)
		}
		assert.Equal(t, want, meta.Labels, c.name)
		assert.Equal(t, string(c.part), meta.Training.Head)
		assert.Less(t, h.epochs[1], h.epochs[0], "%s %s", c.name, c.part)
	}
	// By hand: two of the classes are one.
	r, _ := tune(t, "segmentation", other, nil, train.Options{
		Epochs: 1, BatchSize: 8, Head: train.HeadClasses, Labels: []string{"background", "round", "other"},
		Classes: []string{"apple=round", "lime=round", "plum=other", "none of these="},
	})
	assert.Equal(t, []string{"background", "round", "other"}, verified(t, r).Labels)

	// Some of the model's own classes.
	some := *folders(t, 9, 1)
	some.Classes = some.Classes[:2]
	some.Images = slices.DeleteFunc(slices.Clone(some.Images), func(img dataset.Image) bool { return img.Class == 2 })
	r, _ = tune(t, "vit", &some, nil, train.Options{Epochs: 1, BatchSize: 8, Head: train.HeadClasses})
	assert.Equal(t, some.Classes, verified(t, r).Labels)

	_, err = train.Run(t.Context(), model("baked"), folders(t, 6, 1), nil, train.Options{
		Out: filepath.Join(t.TempDir(), "x.pt"), Head: train.HeadClasses, Labels: []string{"red", "green", "blue", "more"},
	})
	require.ErrorIs(t, err, train.ErrHead)
	assert.ErrorContains(t, err, "scripts/export.py")
}

// TestHeadOfADetector keeps what does not give the classes.
func TestHeadOfADetector(t *testing.T) {
	if testing.Short() {
		t.Skip("TorchScript takes seconds to compile a detector's training")
	}
	set := scenes(t, 16, 1, "apple", "lime", "plum", "none of these")
	before := weights(t, model("faster_rcnn"))
	r, _ := tune(t, "faster_rcnn", set, nil, train.Options{Epochs: 1, BatchSize: 8, LR: 1e-12, WeightDecay: -1, Head: train.HeadClasses})
	after := weights(t, r.Model)
	for name, w := range after {
		near := len(w) == len(before[name])
		for i := range w {
			near = near && math.Abs(float64(w[i]-before[name][i])) < 1e-6
		}
		assert.Equal(t, !strings.HasPrefix(name, "roi_heads.box_predictor."), near, name)
	}
	assert.Len(t, after["roi_heads.box_predictor.bbox_pred.bias"], 5*4)
	assert.Equal(t, []string{"__background__", "apple", "lime", "plum", "none of these"}, verified(t, r).Labels)
	// The same classes: new weights, the same outputs.
	r, _ = tune(t, "segmentation", scenes(t, 8, 1), nil, train.Options{Epochs: 1, BatchSize: 8, LR: 1e-12, WeightDecay: -1, Head: train.HeadClasses})
	assert.Equal(t, []string{"background", "red", "green", "blue"}, verified(t, r).Labels)
	assert.NotEqual(t, weights(t, model("segmentation"))["segmentation_head.weight"], weights(t, r.Model)["segmentation_head.weight"])
}

// TestWeights starts from the ViT of another file.
func TestWeights(t *testing.T) {
	set := scenes(t, 8, 1)
	from := weights(t, model("vit"))
	for name, prefix := range map[string]string{"segmentation": "", "yolo": "vit."} {
		r, _ := tune(t, name, set, nil, train.Options{Epochs: 1, BatchSize: 8, LR: 1e-12, Weights: model("vit"), Freeze: train.Freeze{ViT: true}, Head: train.HeadAll})
		got := weights(t, r.Model)
		for own, w := range from {
			if !strings.HasPrefix(own, "head.") {
				assert.Equal(t, w, got[prefix+own], "%s: %s", name, own)
			}
		}
		assert.Equal(t, "vit.pt", verified(t, r).Training.Weights)
	}
	_, err := train.Run(t.Context(), model("segmentation"), set, nil, train.Options{Out: filepath.Join(t.TempDir(), "x.pt"), Weights: model("head")})
	require.ErrorIs(t, err, train.ErrOptions)
}

func TestHeadInAFileOfItsOwn(t *testing.T) {
	before := weights(t, model("vit"))
	r, h := tune(t, "head", scenes(t, 32, 1), scenes(t, 8, 2), train.Options{Epochs: 4, LR: 2e-2, BatchSize: 8, ViT: model("vit")})
	assert.Less(t, h.epochs[3], 0.8*h.epochs[0])
	assert.Greater(t, r.Best[0].Value, r.Start[0].Value)
	assert.Equal(t, vit.TaskSegmentationHead, verified(t, r).Task)
	assert.Empty(t, changed(t, before, weights(t, model("vit"))))
	_, err := train.Run(t.Context(), model("segmentation"), scenes(t, 4, 1), nil, train.Options{Out: filepath.Join(t.TempDir(), "x.pt"), ViT: model("vit")})
	require.ErrorIs(t, err, vit.ErrTask)
}

func TestBFloat16AndOptimizers(t *testing.T) {
	set := folders(t, 24, 1)
	for _, o := range []train.Options{
		{Precision: torch.BFloat16, LR: 3e-3},
		{Optimizer: train.OptimizerSGD, LR: 0.1, Schedule: train.SchedulePoly},
		{Optimizer: train.OptimizerAdam, LR: 3e-3, Schedule: train.ScheduleStep, Warmup: 3},
		{LayerDecay: 0.5, LR: 5e-3, Schedule: train.ScheduleConstant},
	} {
		o.Epochs, o.BatchSize = 3, 8
		r, h := tune(t, "vit", set, nil, o)
		assert.Less(t, h.epochs[2], h.epochs[0], "%+v", o)
		meta := verified(t, r)
		assert.Equal(t, "loss", meta.Training.Metric)
		assert.InDelta(t, r.Loss, meta.Training.Value, 0)
		for _, w := range weights(t, r.Model) {
			assert.False(t, math.IsNaN(float64(w[0])))
		}
	}
}

func TestErrors(t *testing.T) {
	set, val := folders(t, 4, 1), folders(t, 4, 2)
	out := filepath.Join(t.TempDir(), "x.pt")
	for _, c := range []struct {
		name string
		set  *dataset.Set
		o    train.Options
		want error
		text string
	}{
		{"vit", set, train.Options{}, train.ErrOptions, "want the model file to write"},
		{"vit", set, train.Options{Out: out, Optimizer: "lion"}, train.ErrOptions, `got "lion", want adamw, adam, sgd`},
		{"vit", set, train.Options{Out: out, Schedule: "zigzag"}, train.ErrOptions, `got "zigzag", want cosine`},
		{"vit", set, train.Options{Out: out, LR: -1}, train.ErrOptions, "lr: wrong option: got -1"},
		{"vit", set, train.Options{Out: out, LR: math.NaN()}, train.ErrOptions, "got NaN"},
		{"vit", set, train.Options{Out: out, LayerDecay: 1.5}, train.ErrOptions, "layer decay"},
		{"vit", set, train.Options{Out: out, Epochs: -1}, train.ErrOptions, "epochs: wrong option: got -1"},
		{"vit", set, train.Options{Out: out, Precision: torch.Float16}, train.ErrOptions, "want float32 or bfloat16"},
		{"vit", set, train.Options{Out: out, Dice: 1}, train.ErrOptions, "dice: wrong option: got 1 and a file of the task classification, want segmentation"},
		{"vit", set, train.Options{Out: out, Freeze: train.Freeze{Blocks: 9}}, train.ErrOptions, "the ViT has 2 blocks"},
		{"vit", set, train.Options{Out: out, Unfreeze: 2}, train.ErrOptions, "nothing that is frozen"},
		{"vit", set, train.Options{Out: out, Labels: classes}, train.ErrOptions, "want Head"},
		{"vit", set, train.Options{Out: out, Head: "tail"}, train.ErrOptions, `got "tail", want classes or all`},
		{"vit", scenes(t, 2, 1), train.Options{Out: out}, dataset.ErrKind, "has no class"},
		{"segmentation", set, train.Options{Out: out}, dataset.ErrKind, "has no mask"},
		{"frozen", set, train.Options{Out: out}, train.ErrFrozen, "the file holds no parameters"},
		{"head", scenes(t, 2, 1), train.Options{Out: out}, vit.ErrTask, "is not trained here"},
		{"none", set, train.Options{Out: out}, os.ErrNotExist, "none.pt"},
		{"vit", set, train.Options{Out: out, LR: 1e3, Optimizer: "sgd", Momentum: 0.99, Epochs: 50}, train.ErrDiverged, "want a lower lr"},
	} {
		c.o.RunDir = t.TempDir()
		_, err := train.Run(t.Context(), model(c.name), c.set, val, c.o)
		require.ErrorIs(t, err, c.want, "%s %+v", c.name, c.o)
		require.ErrorContains(t, err, c.text)
		assert.NotContains(t, err.Error(), "\n")
	}
	// What cannot be written is said at once, and leaves no folder.
	for _, o := range []train.Options{
		{Out: filepath.Join(t.TempDir(), "none", "x.pt")},
		{Out: t.TempDir()},
		{Out: out, RunDir: out + "/x.run"},
	} {
		o.Progress = func(train.Event) { t.Error("it began") }
		if o.RunDir != "" {
			require.NoError(t, os.WriteFile(out, nil, 0o666))
		}
		_, err := train.Run(t.Context(), model("vit"), set, nil, o)
		require.Error(t, err)
		assert.NoDirExists(t, runDir(o.Out))
	}
	require.NoError(t, os.Remove(out))
	_, err := train.Run(t.Context(), model("none"), set, nil, train.Options{Out: out})
	require.ErrorIs(t, err, os.ErrNotExist)
	assert.NoDirExists(t, runDir(out))
	assert.NoFileExists(t, out)
}

func TestParse(t *testing.T) {
	for _, text := range []string{"head", "blocks:0", "blocks:x", "blocks:"} {
		_, err := train.ParseFreeze(text)
		require.ErrorIs(t, err, train.ErrOptions, text)
	}
	a, err := train.ParseAugment("flip, crop=0.5:0.9,color=0.2")
	require.NoError(t, err)
	assert.InDelta(t, 0.5, a.HorizontalFlip, 0)
	assert.Equal(t, [2]float64{0.5, 0.9}, a.RandomResizedCrop.Scale)
	assert.Equal(t, []float64{0.2}, a.ColorJitter.Saturation)
	for _, text := range []string{"flop", "flip=x", "crop=1", "color=1:2", "scale=1:2:3", "flip=-1"} {
		_, err := train.ParseAugment(text)
		require.ErrorIs(t, err, train.ErrOptions, text)
	}
}

// TestStop ends a run with its context, and goes on.
func TestStop(t *testing.T) {
	set := folders(t, 24, 1)
	o := train.Options{Epochs: 3, BatchSize: 8, LR: 1e-3, Seed: 5}
	whole, want := tune(t, "dropout", set, nil, o)

	o.Out = filepath.Join(t.TempDir(), "tuned.pt")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h := &history{}
	o.Progress = func(e train.Event) {
		h.event(e)
		if e.Kind == train.EventStep && e.Step == 5 {
			cancel()
		}
	}
	_, err := train.Run(ctx, model("dropout"), set, nil, o)
	require.ErrorIs(t, err, train.ErrStopped)
	require.ErrorIs(t, err, context.Canceled)
	assert.Len(t, h.losses, 5, "the step under way is the last")
	o.Resume, o.Progress = true, h.event
	r, err := train.Run(t.Context(), model("dropout"), set, nil, o)
	require.NoError(t, err)
	assert.Equal(t, want.losses, h.losses, "bit for bit, dropout too")
	assert.Empty(t, changed(t, weights(t, whole.Model), weights(t, r.Model)))
	assert.Equal(t, 9, r.Steps)
	// More epochs.
	o.Epochs = 4
	r, err = train.Run(t.Context(), model("dropout"), set, nil, o)
	require.NoError(t, err)
	assert.Equal(t, 12, r.Steps)
}
