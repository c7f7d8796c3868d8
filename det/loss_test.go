package det_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/det"
	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/torch/loss"
	"github.com/torchvit/torchvit/torch/npy"
)

// lossReference is what one part of testdata/losses.py wrote.
type lossReference[Case any] struct {
	cases  []Case
	arrays *npy.Zip
	files  map[string][]byte
}

type gridCase struct {
	Name                          string
	Height, Width, Images, Levels int
	Anchors                       [][][2]float64
	DType                         string
	Options                       struct {
		Box        *float64 `json:"box_weight"`
		Objectness *float64 `json:"objectness_weight"`
		Class      *float64 `json:"class_weight"`
		Balance    []float64
	}
}

type detectorCase struct {
	Name   string
	Losses [][]string
}

var (
	pythonGrids     = pythonLosses[gridCase]("grids")
	pythonDetectors = pythonLosses[detectorCase]("detectors")
)

func pythonLosses[Case any](part string) func() (*lossReference[Case], error) {
	return sync.OnceValues(func() (*lossReference[Case], error) {
		dir, err := os.MkdirTemp("", "losses")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		info, err := torch.RuntimeInfo()
		if err != nil {
			return nil, err
		}
		testmain.RunPython(pythonTest, "det/testdata/losses.py", part, "--out", dir, "--threads", strconv.Itoa(info.LaneThreads[0]))
		text, err := os.ReadFile(filepath.Join(dir, "cases.json"))
		if err != nil {
			return nil, err
		}
		r := &lossReference[Case]{files: map[string][]byte{}}
		if err := json.Unmarshal(text, &r.cases); err != nil {
			return nil, err
		}
		models, err := filepath.Glob(filepath.Join(dir, "*.pt"))
		if err != nil {
			return nil, err
		}
		for _, path := range models {
			if r.files[strings.TrimSuffix(filepath.Base(path), ".pt")], err = os.ReadFile(path); err != nil {
				return nil, err
			}
		}
		r.arrays, err = npy.ReadZipFile(filepath.Join(dir, "arrays.npz"))
		return r, err
	})
}

func grids(t testing.TB) *lossReference[gridCase] {
	t.Helper()
	pythonTest = t
	r, err := pythonGrids()
	require.NoError(t, err)
	return r
}

func detectors(t testing.TB) *lossReference[detectorCase] {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: exports and trains detectors in Python")
	}
	pythonTest = t
	r, err := pythonDetectors()
	require.NoError(t, err)
	return r
}

func owned(t testing.TB) func(x *torch.Tensor, err error) *torch.Tensor {
	return func(x *torch.Tensor, err error) *torch.Tensor {
		t.Helper()
		require.NoError(t, err)
		t.Cleanup(func() { x.Close() })
		return x
	}
}

// tensor is one of Python's arrays.
func (r *lossReference[Case]) tensor(t testing.TB, format string, args ...any) *torch.Tensor {
	t.Helper()
	name := fmt.Sprintf(format, args...)
	a := r.arrays.Get(name)
	require.NotNil(t, a, name)
	return owned(t)(torch.FromNumpy(a))
}

// same compares bits.
func (r *lossReference[Case]) same(t testing.TB, got *torch.Tensor, format string, args ...any) {
	t.Helper()
	name := fmt.Sprintf(format, args...)
	a, err := got.Numpy() // bfloat16 as Python wrote it
	require.NoError(t, err, name)
	want := r.arrays.Get(name)
	require.NotNil(t, want, name)
	require.Equal(t, want.Shape, a.Shape, name)
	if string(a.Data) == string(want.Data) {
		return
	}
	d, err := torch.Compare(owned(t)(torch.FromNumpy(a)), r.tensor(t, "%s", name))
	require.NoError(t, err)
	t.Errorf("%s: %v", name, d)
}

// TestGridLossHasPythonsBits compares the loss, its parts and the gradient of every level.
func TestGridLossHasPythonsBits(t *testing.T) {
	r := grids(t)
	require.Len(t, r.cases, 9)
	for _, c := range r.cases {
		t.Run(c.Name, func(t *testing.T) {
			dtype, err := torch.ParseDType(c.DType)
			require.NoError(t, err)
			var levels, boxes, labels []*torch.Tensor
			for i := range c.Levels {
				level := owned(t)(r.tensor(t, "%s.level.%d", c.Name, i).CastTo(dtype))
				require.NoError(t, level.SetRequiresGrad(true))
				levels = append(levels, level)
			}
			for i := range c.Images {
				boxes = append(boxes, r.tensor(t, "%s.boxes.%d", c.Name, i))
				labels = append(labels, r.tensor(t, "%s.labels.%d", c.Name, i))
			}
			total, parts, err := det.GridLoss(t.Context(), levels, boxes, labels, det.GridLossOptions{
				Anchors: c.Anchors, Height: c.Height, Width: c.Width,
				BoxWeight: c.Options.Box, ObjectnessWeight: c.Options.Objectness, ClassWeight: c.Options.Class,
				Balance: c.Options.Balance,
			})
			require.NoError(t, err)
			defer torch.CloseAll(total, parts)
			require.NoError(t, torch.Backward(t.Context(), total, torch.BackwardOptions{}))
			r.same(t, total, "%s.loss", c.Name)
			require.Len(t, parts, 3)
			for name, part := range parts {
				r.same(t, part, "%s.%s", c.Name, name)
				assert.False(t, part.RequiresGrad())
				value, err := part.Item()
				require.NoError(t, err)
				if c.Name == "none" && name != "objectness" {
					assert.Zero(t, value, name)
				} else {
					assert.Positive(t, value, name)
				}
			}
			for i, level := range levels {
				r.same(t, owned(t)(level.Grad()), "%s.grad.%d", c.Name, i)
			}
		})
	}
}

func TestGridLossErrors(t *testing.T) {
	zeros := func(dtype torch.DType, shape ...int64) *torch.Tensor {
		return owned(t)(torch.Zeros(shape, torch.TensorOptions{DType: dtype}))
	}
	level, boxes := zeros(torch.Float32, 1, 16, 4, 4), zeros(torch.Float32, 2, 4)
	label := owned(t)(torch.NewTensor([]int64{1, 3}))
	o := det.GridLossOptions{Anchors: [][][2]float64{{{8, 8}, {16, 16}}}, Height: 32, Width: 32}
	for _, c := range []struct {
		levels, boxes, labels []*torch.Tensor
		change                func(o *det.GridLossOptions)
		kind                  error
		text                  string
	}{
		{text: "got 0 levels and anchors of 1, want as many, one or more", kind: torch.ErrShape},
		{
			levels: []*torch.Tensor{level}, change: func(o *det.GridLossOptions) { o.Height = 0 },
			text: "got an input of 32 x 0 pixels, want a width and a height", kind: torch.ErrInvalidArgument,
		},
		{
			levels: []*torch.Tensor{level}, change: func(o *det.GridLossOptions) { o.Balance = []float64{1, 2} },
			text: "got 2 balances, want one for each of 1 levels", kind: torch.ErrInvalidArgument,
		},
		{
			levels: []*torch.Tensor{level}, kind: torch.ErrShape,
			text: "got level 0 of [1 16 4 4] with 2 anchors, and boxes of 0 images, want (B, anchors*(5+C), h, w) and B",
		},
		{levels: []*torch.Tensor{nil}, text: "got a nil tensor as level 0", kind: torch.ErrInvalidArgument},
		{
			levels: []*torch.Tensor{zeros(torch.Int64, 1, 16, 4, 4)}, boxes: []*torch.Tensor{boxes},
			text: "got level 0 of int64, want floats", kind: torch.ErrDType,
		},
		{
			levels: []*torch.Tensor{level}, boxes: []*torch.Tensor{boxes},
			text: "got boxes of 1 images and labels of 0, want as many", kind: torch.ErrShape,
		},
		{
			levels: []*torch.Tensor{level}, boxes: []*torch.Tensor{boxes}, labels: []*torch.Tensor{nil},
			text: "image 0: invalid argument: got nil boxes or labels", kind: torch.ErrInvalidArgument,
		},
		{
			levels: []*torch.Tensor{level}, boxes: []*torch.Tensor{boxes}, labels: []*torch.Tensor{zeros(torch.Int64, 3)},
			text: "image 0: wrong shape: got boxes of [2 4] and labels of [3], want (n, 4) and (n)", kind: torch.ErrShape,
		},
		{
			levels: []*torch.Tensor{level}, boxes: []*torch.Tensor{boxes}, labels: []*torch.Tensor{zeros(torch.Int32, 2)},
			text: "image 0: wrong dtype: got boxes of float32 and labels of int32, want floats and int64", kind: torch.ErrDType,
		},
		{
			levels: []*torch.Tensor{level}, boxes: []*torch.Tensor{boxes}, labels: []*torch.Tensor{label},
			text: "image 0: box 1: class out of range: got the label 3, want 0 to 2", kind: loss.ErrClass,
		},
	} {
		options := o
		if c.change != nil {
			c.change(&options)
		}
		_, _, err := det.GridLoss(t.Context(), c.levels, c.boxes, c.labels, options)
		require.ErrorIs(t, err, c.kind, c.text)
		require.ErrorContains(t, err, c.text)
	}
}

// trainable loads one of testdata/losses.py's detectors in training mode.
func trainable(t testing.TB, data []byte) (forward *jit.Method, params []jit.NamedTensor, module *jit.Module) {
	t.Helper()
	module, err := jit.LoadBytes(data, jit.LoadOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { module.Close() })
	require.NoError(t, module.Train(true))
	params, err = module.NamedParameters()
	require.NoError(t, err)
	t.Cleanup(func() {
		for _, p := range params {
			p.Tensor.Close()
		}
	})
	for _, p := range params {
		require.NoError(t, p.Tensor.SetRequiresGrad(true))
	}
	forward, err = module.Method("forward")
	require.NoError(t, err)
	return forward, params, module
}

// TestTrainingLossesHavePythonsBits runs Faster R-CNN, Mask R-CNN and RetinaNet for three steps: each loss and
// the gradient of each parameter.
func TestTrainingLossesHavePythonsBits(t *testing.T) {
	r := detectors(t)
	require.Len(t, r.cases, 3)
	for _, c := range r.cases {
		t.Run(c.Name, func(t *testing.T) {
			forward, params, _ := trainable(t, r.files[c.Name])
			for step, names := range c.Losses {
				key := fmt.Sprintf("%s.%d", c.Name, step)
				images, targets := r.batch(t, key)
				require.NoError(t, torch.ManualSeed(uint64(10+step)))
				got, err := det.TrainingLosses(t.Context(), forward, images, targets, torch.InvalidDType)
				require.NoError(t, err)
				require.Len(t, got, len(names))
				require.GreaterOrEqual(t, len(names), 2)
				var terms []loss.Term
				for _, name := range names {
					r.same(t, got[name], "%s.%s", key, name)
					terms = append(terms, loss.Term{Loss: got[name], Weight: 1})
				}
				sum := owned(t)(loss.Sum(t.Context(), terms...))
				torch.CloseAll(got)
				require.NoError(t, torch.Backward(t.Context(), sum, torch.BackwardOptions{}))
				trained := 0
				for _, p := range params {
					g, err := p.Tensor.Grad()
					require.NoError(t, err)
					if r.arrays.Get(key+".grad."+p.Name) == nil {
						assert.Nil(t, g, p.Name)
						continue
					}
					require.NotNil(t, g, p.Name)
					r.same(t, g, "%s.grad.%s", key, p.Name)
					v, err := torch.CallWith(t.Context(), torch.CallOptions{Mode: torch.NoGrad}, "aten::zero_", g)
					require.NoError(t, err)
					torch.CloseAll(v, g)
					trained++
				}
				assert.Greater(t, trained, 40)
			}
		})
	}
}

// batch is the two images of a step and what they show.
func (r *lossReference[Case]) batch(t testing.TB, key string) (images []*torch.Tensor, targets []det.Target) {
	t.Helper()
	for i := range 2 {
		images = append(images, r.tensor(t, "%s.image.%d", key, i))
		target := det.Target{Boxes: r.tensor(t, "%s.boxes.%d", key, i), Labels: r.tensor(t, "%s.labels.%d", key, i)}
		if strings.HasPrefix(key, "mask_rcnn") {
			target.Masks = r.tensor(t, "%s.masks.%d", key, i)
		}
		targets = append(targets, target)
	}
	return images, targets
}

// TestTrainingLossesOfWhatCannotBeTrained: traced, frozen, in evaluation mode, without parameters that learn.
func TestTrainingLossesOfWhatCannotBeTrained(t *testing.T) {
	r := detectors(t)
	images, targets := r.batch(t, "faster_rcnn.0")
	run := func(forward det.Forward, change func(images []*torch.Tensor, targets []det.Target)) error {
		images, targets := append([]*torch.Tensor(nil), images...), append([]det.Target(nil), targets...)
		if change != nil {
			change(images, targets)
		}
		got, err := det.TrainingLosses(t.Context(), forward, images, targets, torch.InvalidDType)
		torch.CloseAll(got)
		return err
	}
	traced, _, _ := trainable(t, r.files["traced"])
	err := run(traced, nil)
	require.ErrorIs(t, err, det.ErrNotTrainable)
	require.ErrorContains(t, err, "want forward(images, targets)")
	frozen, err := jit.LoadBytes(r.files["frozen"], jit.LoadOptions{})
	require.NoError(t, err)
	defer frozen.Close()
	method, err := frozen.Method("forward")
	require.NoError(t, err)
	err = run(method, nil)
	require.ErrorIs(t, err, det.ErrNotTrainable)
	require.ErrorContains(t, err, "got no losses")
	forward, params, module := trainable(t, r.files["faster_rcnn"])
	require.NoError(t, module.Train(false))
	err = run(forward, nil)
	require.ErrorIs(t, err, det.ErrNotTrainable)
	require.ErrorContains(t, err, "got no losses")
	require.NoError(t, module.Train(true))
	require.NoError(t, run(forward, nil))
	require.NoError(t, run(forward, func(images []*torch.Tensor, targets []det.Target) { // of inference mode
		for i := range images {
			images[i] = owned(t)(torch.CallTensor(t.Context(), "aten::clone", images[i]))
			targets[i].Boxes = owned(t)(torch.CallTensor(t.Context(), "aten::clone", targets[i].Boxes))
			targets[i].Labels = owned(t)(torch.CallTensor(t.Context(), "aten::clone", targets[i].Labels))
		}
	}))
	for _, p := range params {
		require.NoError(t, p.Tensor.SetRequiresGrad(false))
	}
	err = run(forward, nil)
	require.ErrorIs(t, err, det.ErrNotTrainable)
	require.ErrorContains(t, err, "got losses without gradients")
	for _, c := range []struct {
		change func(images []*torch.Tensor, targets []det.Target)
		kind   error
		text   string
	}{
		{
			func(_ []*torch.Tensor, t []det.Target) { t[1].Labels = t[1].Boxes }, torch.ErrShape,
			"image 1: wrong shape: got boxes of [3 4] and labels of [3 4], want (n, 4) and (n)",
		},
		{
			func(_ []*torch.Tensor, targets []det.Target) {
				targets[0].Labels = owned(t)(torch.NewTensor([]int64{1, -1, 1}))
			},
			loss.ErrClass, "image 0: class out of range: got the label -1, want 0 or more",
		},
		{
			func(images []*torch.Tensor, targets []det.Target) { images[0] = targets[0].Boxes }, torch.ErrShape,
			"image 0: wrong shape: got float32 of [3 4], want floats of (3, H, W)",
		},
		{
			func(_ []*torch.Tensor, targets []det.Target) { targets[0].Masks = targets[0].Boxes }, torch.ErrShape,
			"image 0: wrong shape: got masks of float32 [3 4], want uint8 [3 64 64]",
		},
		{
			func(_ []*torch.Tensor, targets []det.Target) {
				targets[0].Boxes = owned(t)(torch.Zeros([]int64{3, 4}, torch.TensorOptions{}))
			},
			torch.ErrScript, "All bounding boxes should have positive height and width",
		},
	} {
		err := run(forward, c.change)
		require.ErrorIs(t, err, c.kind, c.text)
		require.ErrorContains(t, err, c.text)
	}
	_, err = det.TrainingLosses(t.Context(), forward, images, targets[:1], torch.InvalidDType)
	require.ErrorIs(t, err, torch.ErrShape)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = det.TrainingLosses(done, forward, images, targets, torch.InvalidDType)
	require.ErrorIs(t, err, context.Canceled)
}
