package det_test

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/det"
	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

func tensor[T torch.Element](t testing.TB, data []T, shape ...int64) *torch.Tensor {
	t.Helper()
	x, err := torch.NewTensor(data, shape...)
	require.NoError(t, err)
	return x
}

// objects are one photo's boxes, labels and scores: n boxes from offset on, with falling scores.
func objects(t testing.TB, n int, offset float32) map[string]any {
	t.Helper()
	var boxes, scores []float32
	var labels []int64
	for i := range n {
		x := offset + float32(i)
		boxes = append(boxes, x, x+1, x+20, x+30)
		labels = append(labels, int64(i%3))
		scores = append(scores, 0.95-float32(i)*0.1)
	}
	return map[string]any{
		"boxes": tensor(t, boxes, int64(n), 4), "labels": tensor(t, labels), "scores": tensor(t, scores),
	}
}

func asTuple(o map[string]any, keys ...string) torch.Tuple {
	var out torch.Tuple
	for _, k := range keys {
		out = append(out, o[k])
	}
	return out
}

// xs are the left edges of what was found.
func xs(list []det.Detection) (out []float32) {
	for _, d := range list {
		out = append(out, d.Box.X1)
	}
	return out
}

func TestEveryFormOfTorchvisionsAnswer(t *testing.T) {
	named := func(m *vit.Metadata) { m.Labels = []string{"cat", "dog", "bird"} }
	kind := func(m *vit.Metadata) { named(m); m.Output.Kind = vit.OutputDetections }
	batch := func(m *vit.Metadata) {
		named(m)
		m.Input.Layout = vit.LayoutBatch
		m.Preprocess.Resize = transforms.ResizeSpec{Rule: transforms.RuleExact, Size: []int{64, 64}}
	}
	n := func(arg any) int {
		if list, ok := arg.([]*torch.Tensor); ok {
			return len(list)
		}
		return int(arg.(*torch.Tensor).Size(0))
	}
	many := func(arg any) (list torch.List) {
		for i := range n(arg) {
			list = append(list, objects(t, 6, float32(100*i)))
		}
		return list
	}
	// A trace gives the photo's own answer; the photos are told apart by their widths.
	alone := func(arg any, keys ...string) any {
		list, ok := arg.([]*torch.Tensor)
		offset := float32(0)
		if ok && list[0].Size(2) == 37 { // tiny.png
			offset = 100
		}
		return asTuple(objects(t, 6, offset), keys...)
	}
	for _, c := range []struct {
		name    string
		edit    func(*vit.Metadata)
		calls   int
		forward func(arg any) (any, error)
		same    bool // both photos get one answer
	}{
		{"losses and list", named, 1, func(arg any) (any, error) { return torch.Tuple{map[string]any{}, many(arg)}, nil }, false},
		{"named kind", kind, 1, func(arg any) (any, error) { return torch.Tuple{map[string]any{}, many(arg)}, nil }, false},
		{"list", named, 1, func(arg any) (any, error) { return many(arg), nil }, false},
		{"batch", batch, 1, func(arg any) (any, error) { return many(arg), nil }, false},
		{"tuple of a batch", batch, 3, func(arg any) (any, error) { return alone(arg, "boxes", "labels", "scores"), nil }, true},
		{"trace of one", named, 3, func(arg any) (any, error) {
			if got := n(arg); got != 1 {
				return nil, fmt.Errorf("forward: Expected 1 elements in a list but found %d", got)
			}
			return alone(arg, "scores", "boxes", "labels"), nil
		}, false},
		{"trace of the first", named, 3, func(arg any) (any, error) { return alone(arg, "labels", "scores", "boxes"), nil }, false},
		{"dict", named, 3, func(arg any) (any, error) {
			one := alone(arg, "boxes", "labels", "scores").(torch.Tuple)
			return map[string]any{"boxes": one[0], "labels": one[1], "scores": one[2]}, nil
		}, false},
		{"leaves by name", func(m *vit.Metadata) {
			kind(m)
			m.Output.Leaves = []string{"out.3", "out.1", "out.2"}
		}, 3, func(arg any) (any, error) {
			return append(torch.Tuple{"noise"}, alone(arg, "labels", "scores", "boxes").(torch.Tuple)...), nil
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, f := detector(t, c.forward, c.edit)
			found, err := d.Detect(t.Context(), det.DetectOptions{Threshold: 0.7}, photos(t, "coffee.jpg", "tiny.png")...)
			require.NoError(t, err)
			require.Equal(t, c.calls, f.calls)
			require.Len(t, found[0], 3)
			require.Len(t, found[1], 3)
			sx := float32(1)
			if d.Metadata().Layout() == vit.LayoutBatch {
				sx = 600.0 / 64
			}
			assert.Equal(t, []float32{0, sx, 2 * sx}, xs(found[0]))
			if !c.same && sx == 1 {
				assert.Equal(t, []float32{100, 101, 102}, xs(found[1]))
			}
			assert.Equal(t, []string{"cat", "dog", "bird"}, []string{found[1][0].Label, found[1][1].Label, found[1][2].Label})
			if c.calls == 3 { // it is known from then on
				_, err = d.Detect(t.Context(), det.DetectOptions{}, photos(t, "coffee.jpg", "tiny.png")...)
				require.NoError(t, err)
				assert.Equal(t, 5, f.calls)
			}
		})
	}
}

// TestLists: a list layout takes all photos in one pass, at most MaxBatch; no photos are none.
func TestLists(t *testing.T) {
	var passes []int
	d, f := detector(t, func(arg any) (any, error) {
		list := arg.([]*torch.Tensor)
		passes = append(passes, len(list))
		var answer torch.List
		for _, x := range list {
			answer = append(answer, objects(t, 2, float32(x.Size(2))))
		}
		return answer, nil
	}, func(m *vit.Metadata) { m.Output.Kind = vit.OutputDetections })
	names := []string{"coffee.jpg", "tiny.png", "astronaut.jpg"}
	want, err := d.Detect(t.Context(), det.DetectOptions{}, photos(t, names...)...)
	require.NoError(t, err)
	require.Equal(t, float32(512), want[2][0].Box.X1)
	got, err := d.Detect(t.Context(), det.DetectOptions{MaxBatch: 2}, photos(t, names...)...)
	require.NoError(t, err)
	assert.Equal(t, want, got)
	assert.Equal(t, []int{3, 2, 1}, passes)

	none, err := d.Detect(t.Context(), det.DetectOptions{})
	require.NoError(t, err)
	assert.Empty(t, none)
	outputs, err := d.Forward(t.Context(), nil)
	require.NoError(t, err)
	assert.Empty(t, outputs)
	assert.Equal(t, 3, f.calls)
}

// TestMixedSizes: a batch layout groups photos by shape, and the answers come in the order of the photos.
func TestMixedSizes(t *testing.T) {
	var shapes [][]int64
	d, _ := detector(t, func(arg any) (any, error) {
		x := arg.(*torch.Tensor)
		shapes = append(shapes, x.Shape())
		b := x.Size(0)
		// The box's width tells the tensor's, and its height the place in the batch.
		var logits, boxes []float32
		for i := range b {
			logits = append(logits, 3, 0, 0, 1, 0, 5)
			boxes = append(boxes, 0.5, 0.5, float32(x.Size(3))/1024, float32(i+1)/8, 0.5, 0.5, 1, 1)
		}
		return torch.Tuple{tensor(t, logits, b, 2, 3), tensor(t, boxes, b, 2, 4)}, nil
	}, func(m *vit.Metadata) {
		m.Input.Layout = vit.LayoutBatch // the kind is recognised
		m.Preprocess.Resize = transforms.ResizeSpec{Rule: transforms.RuleShortestEdge, Size: []int{32}}
	})
	names := []string{"coffee.jpg", "astronaut.jpg", "chelsea.png", "panorama.jpg"} // 3:2, 1:1, 3:2, 4:1
	found, err := d.Detect(t.Context(), det.DetectOptions{}, photos(t, names...)...)
	require.NoError(t, err)
	assert.ElementsMatch(t, [][]int64{{2, 3, 32, 48}, {1, 3, 32, 32}, {1, 3, 32, 128}}, shapes)
	widths := []float32{600 * 48.0 / 1024, 512 * 32.0 / 1024, 300 * 48.0 / 1024, 484 * 128.0 / 1024}
	heights := []float32{400 / 8, 512 / 8, 200 * 2 / 8, 121.0 / 8}
	for i, list := range found {
		require.Len(t, list, 1, "the other query is no object")
		assert.InDelta(t, widths[i], list[0].Box.Width(), 1e-3, names[i])
		assert.InDelta(t, heights[i], list[0].Box.Height(), 1e-3, names[i])
		assert.Equal(t, "class 0", list[0].Label)
	}

	shapes = nil
	one, err := d.Detect(t.Context(), det.DetectOptions{MaxBatch: 1}, photos(t, names...)...)
	require.NoError(t, err)
	assert.Len(t, shapes, 4)
	assert.Equal(t, found[:2], one[:2]) // the fake tells places in a batch apart

	// Forward does the same with tensors, and gives every query.
	var images []*torch.Tensor
	for _, w := range []int64{48, 32, 48} {
		x, err := torch.Zeros([]int64{3, 32, w}, torch.TensorOptions{})
		require.NoError(t, err)
		defer x.Close()
		images = append(images, x)
	}
	outputs, err := d.Forward(t.Context(), images)
	require.NoError(t, err)
	for i, out := range outputs {
		boxes, err := torch.CopyData[float32](out.Boxes)
		require.NoError(t, err)
		require.Len(t, boxes, 8)
		w := float32(images[i].Size(2))
		assert.Equal(t, w*w/1024, boxes[2]-boxes[0])
		assert.Equal(t, 32*float32(i/2+1)/8, boxes[3]-boxes[1])
		assert.Equal(t, []int64{2}, out.Scores.Shape())
		assert.Equal(t, torch.Int64, out.Labels.DType())
		out.Close()
	}
}

// TestCroppedSetPrediction: boxes are shares of what the model saw.
func TestCroppedSetPrediction(t *testing.T) {
	d, _ := detector(t, func(any) (any, error) {
		return torch.Tuple{tensor(t, []float32{9, 0}, 1, 1, 2), tensor(t, []float32{0.5, 0.5, 0.5, 1}, 1, 1, 4)}, nil
	}, func(m *vit.Metadata) {
		m.Output.Kind = vit.OutputSetPrediction
		m.Preprocess.Resize = transforms.ResizeSpec{Rule: transforms.RuleExact, Size: []int{200, 300}} // half of it
		m.Preprocess.Crop = transforms.CropSpec{Rule: transforms.CropCenter, Size: []int{100, 100}}
	})
	found, err := d.Detect(t.Context(), det.DetectOptions{}, photos(t, "coffee.jpg")...)
	require.NoError(t, err)
	require.Len(t, found[0], 1)
	assert.Equal(t, det.Box{X1: 2 * (100 + 25), Y1: 2 * 50, X2: 2 * (100 + 75), Y2: 2 * 150}, found[0][0].Box)
}

func TestNothingFound(t *testing.T) {
	grid := [][][2]float64{{{10, 10}}}
	for kind, answer := range map[string]func() any{
		vit.OutputDetections: func() any { return torch.Tuple{map[string]any{}, torch.List{objects(t, 0, 0)}} },
		vit.OutputSetPrediction: func() any {
			return torch.Tuple{tensor(t, []float32{0, 0, 9}, 1, 1, 3), tensor(t, []float32{0.5, 0.5, 1, 1}, 1, 1, 4)}
		},
		vit.OutputSetPredictionSigmoid: func() any {
			return torch.Tuple{tensor(t, []float32{-9, -8}, 1, 1, 2), tensor(t, []float32{0.5, 0.5, 1, 1}, 1, 1, 4)}
		},
		vit.OutputYOLO:        func() any { return tensor(t, []float32{20, 20, 9, 9, 0.01, 0.02}, 1, 6, 1) },
		vit.OutputYOLOEnd2End: func() any { return tensor(t, []float32{1, 1, 9, 9, 0.01, 1}, 1, 1, 6) },
		vit.OutputYOLOGrid:    func() any { return []*torch.Tensor{tensor(t, []float32{0, 0, 0, 0, -9, 3, 2}, 1, 7, 1, 1)} },
	} {
		t.Run(kind, func(t *testing.T) {
			d, _ := detector(t, func(any) (any, error) { return answer(), nil }, func(m *vit.Metadata) {
				m.Output.Kind = kind
				m.Preprocess.Resize = transforms.ResizeSpec{Rule: transforms.RuleExact, Size: []int{32, 32}}
				if kind == vit.OutputYOLOGrid {
					m.Output.Anchors = grid
				}
			})
			for _, o := range []det.DetectOptions{{}, {NMS: det.NMSClass}, {NMS: det.NMSAgnostic}, {SoftNMS: det.SoftLinear}, {MultiLabel: true}} {
				found, err := d.Detect(t.Context(), o, photos(t, "tiny.png")...)
				require.NoError(t, err)
				require.Len(t, found, 1)
				assert.Empty(t, found[0])
			}
			if kind == vit.OutputDetections {
				return
			}
			// Without a threshold the candidate is there.
			found, err := d.Detect(t.Context(), det.DetectOptions{Threshold: -1}, photos(t, "tiny.png")...)
			require.NoError(t, err)
			assert.NotEmpty(t, found[0])
		})
	}
	d, f := detector(t, nil, func(*vit.Metadata) {})
	found, err := d.Detect(t.Context(), det.DetectOptions{})
	require.NoError(t, err)
	assert.Empty(t, found)
	assert.Zero(t, f.calls)
}

func TestAnswersThatAreNoDetections(t *testing.T) {
	zeros := func(shape ...int64) *torch.Tensor {
		x, err := torch.Zeros(shape, torch.TensorOptions{})
		require.NoError(t, err)
		return x
	}
	short := objects(t, 3, 0)
	short["scores"].(*torch.Tensor).Close()
	short["scores"] = zeros(2)
	for _, c := range []struct {
		kind, want string
		answer     any
	}{
		{"", "tensor float32 [1, 10]", zeros(1, 10)},
		{"", "a tuple of (a string, an int)", torch.Tuple{"x", int64(3)}},
		{vit.OutputDetections, "boxes", torch.List{short}},
		{vit.OutputDetections, "none", nil},
		{vit.OutputSetPrediction, "[1, 5, 3]", torch.Tuple{zeros(1, 5, 3), zeros(1, 5, 3)}},
		{vit.OutputSetPrediction, "[2, 5, 3]", torch.Tuple{zeros(2, 5, 3), zeros(2, 5, 4)}},
		{vit.OutputSetPredictionSigmoid, "[1, 6, 4]", torch.Tuple{zeros(1, 5, 3), zeros(1, 6, 4)}},
		{vit.OutputYOLO, "[1, 4, 100]", zeros(1, 4, 100)},
		{vit.OutputYOLO, "[1, 5, 100]", zeros(1, 5, 100)}, // three labels
		{vit.OutputYOLOEnd2End, "[1, 100, 7]", zeros(1, 100, 7)},
		{vit.OutputYOLOGrid, "[1, 16, 8, 8]", []*torch.Tensor{zeros(1, 16, 8, 8)}}, // one level of two
		{vit.OutputYOLOGrid, "[1, 17, 8, 8]", []*torch.Tensor{zeros(1, 16, 8, 8), zeros(1, 17, 8, 8)}},
	} {
		t.Run(c.kind+c.want, func(t *testing.T) {
			defer torch.CloseAll(c.answer)
			d, _ := detector(t, func(any) (any, error) { return c.answer, nil }, func(m *vit.Metadata) {
				m.Output.Kind, m.Labels = c.kind, classNames(3)
				if c.kind == vit.OutputYOLOGrid {
					m.Output.Anchors = [][][2]float64{{{1, 2}, {3, 4}}, {{5, 6}, {7, 8}}}
				}
			})
			_, err := d.Detect(t.Context(), det.DetectOptions{}, photos(t, "tiny.png")...)
			require.ErrorIs(t, err, vit.ErrOutput)
			assert.ErrorContains(t, err, c.want)
			assert.NotContains(t, err.Error(), "\n")
		})
	}
	boom := errors.New("boom")
	d, f := detector(t, func(any) (any, error) { return nil, boom }, func(*vit.Metadata) {})
	_, err := d.Detect(t.Context(), det.DetectOptions{}, photos(t, "tiny.png", "coffee.jpg")...)
	require.ErrorIs(t, err, boom)
	assert.Equal(t, 1, f.calls)
	_, err = d.ForwardBatch(t.Context(), nil)
	require.ErrorIs(t, err, torch.ErrShape)
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	d, f := detector(t, nil, func(m *vit.Metadata) { m.Labels = []string{"cat", "dog", "7"} })
	nan := math.NaN()
	for _, c := range []struct {
		o    det.DetectOptions
		want string
	}{
		{det.DetectOptions{MaxBatch: -1}, "batch: got -1"},
		{det.DetectOptions{Threshold: 1.5}, "threshold: got 1.5, want at most 1"},
		{det.DetectOptions{Threshold: float32(nan)}, "threshold: got NaN"},
		{det.DetectOptions{ClassThresholds: map[string]float32{"cat": -1}}, "threshold of cat: got -1, want 0 to 1"},
		{det.DetectOptions{ClassThresholds: map[string]float32{"cow": 0.5}}, `the class "cow", want one of its labels (cat, dog, 7) or an index of 0 to 2`},
		{det.DetectOptions{Classes: []string{"3"}}, `the class "3"`},
		{det.DetectOptions{IoU: nan}, "IoU: got NaN, want 0 to 1"},
		{det.DetectOptions{MaskThreshold: 2}, "mask threshold: got 2, want 0 to 1"},
		{det.DetectOptions{NMS: "hard"}, `NMS: got "hard", want none, class or agnostic`},
		{det.DetectOptions{SoftNMS: "cubic"}, `soft-NMS: got "cubic", want linear or gaussian`},
		{det.DetectOptions{SoftNMS: det.SoftLinear, NMS: det.NMSNone}, "got none with soft-NMS"},
		{det.DetectOptions{SoftNMS: det.SoftGaussian, Sigma: -1}, "sigma: got -1"},
	} {
		_, err := d.Detect(t.Context(), c.o, photos(t, "tiny.png")...)
		require.ErrorIs(t, err, torch.ErrInvalidArgument, c.want)
		assert.ErrorContains(t, err, c.want)
	}
	assert.Zero(t, f.calls)
	for _, f := range []func() error{
		func() error {
			_, err := det.NonMaximumSuppression(t.Context(), make([]det.Box, 2), nil, 0.5)
			return err
		},
		func() error {
			_, err := det.BatchedNMS(t.Context(), make([]det.Box, 1), make([]float32, 1), nil, 0.5)
			return err
		},
		func() error { _, _, err := det.SoftNMS(make([]det.Box, 1), nil, nil, det.SoftOptions{}); return err },
		func() error { _, _, err := det.SoftNMS(nil, nil, nil, det.SoftOptions{}); return err },
	} {
		require.ErrorIs(t, f(), torch.ErrInvalidArgument)
	}
}

// TestThresholdsAndClasses: what the file says, what the call says, and the rule for scores that are equal.
func TestThresholdsAndClasses(t *testing.T) {
	score, iou := 0.75, 0.9
	nan := float32(math.NaN())
	boxes := []float32{0, 0, 20, 20, 1, 0, 21, 20, 2, 0, 22, 20, 3, 0, 23, 20, 4, 0, 24, 20}
	scores, labels := []float32{0.5, 0.75, nan, 0.875, 0.25}, []int64{0, 1, 2, 1, 2}
	meta := func(m *vit.Metadata) {
		m.Labels = []string{"cat", "dog", "bird"}
		m.Thresholds = &vit.Thresholds{Score: &score, IoU: &iou}
	}
	d, _ := detector(t, func(any) (any, error) {
		return asTuple(map[string]any{"boxes": tensor(t, boxes, 5, 4), "labels": tensor(t, labels), "scores": tensor(t, scores)}, "boxes", "labels", "scores"), nil
	}, meta)
	end, _ := detector(t, func(any) (any, error) {
		var rows []float32
		for i, s := range scores {
			rows = append(append(rows, boxes[4*i:4*i+4]...), s, float32(labels[i]))
		}
		return tensor(t, rows, 1, 5, 6), nil
	}, func(m *vit.Metadata) { meta(m); m.Output.Kind = vit.OutputYOLOEnd2End })
	for _, c := range []struct {
		o         det.DetectOptions
		list, end []float32
	}{
		{det.DetectOptions{}, []float32{3, 1}, []float32{3}}, // 0.75 equals the file's threshold
		{det.DetectOptions{Threshold: 0.5}, []float32{3, 1, 0}, []float32{3, 1}},
		{det.DetectOptions{Threshold: -1}, []float32{3, 1, 0, 4}, []float32{3, 1, 0, 4}},
		{det.DetectOptions{Threshold: -1, MaxDetections: 2}, []float32{3, 1}, []float32{3, 1}},
		{det.DetectOptions{Threshold: -1, Classes: []string{"bird", "0"}}, []float32{0, 4}, []float32{0, 4}},
		{det.DetectOptions{ClassThresholds: map[string]float32{"2": 0.2, "cat": 0.4}}, []float32{3, 1, 0, 4}, []float32{3, 0, 4}},
		{det.DetectOptions{Threshold: -1, ClassThresholds: map[string]float32{"dog": 0.8}}, []float32{3, 0, 4}, []float32{3, 0, 4}},
		// Boxes 3 and 1 overlap by 18 of 22, 3 and 4 as 1 and 0 by 19 of 21: the file's 0.9 lies between.
		{det.DetectOptions{Threshold: -1, NMS: det.NMSAgnostic}, []float32{3, 1}, []float32{3, 1}},
		{det.DetectOptions{Threshold: -1, NMS: det.NMSClass, IoU: 0.8}, []float32{3, 0, 4}, []float32{3, 0, 4}},
	} {
		for i, detector := range []*det.Detector{d, end} {
			found, err := detector.Detect(t.Context(), c.o, photos(t, "coffee.jpg")...)
			require.NoError(t, err)
			assert.Equal(t, [][]float32{c.list, c.end}[i], xs(found[0]), "%+v", c.o)
		}
	}
	// Soft: the box that overlaps most falls furthest, below the threshold, and is dropped.
	found, err := d.Detect(t.Context(), det.DetectOptions{Threshold: 0.2, SoftNMS: det.SoftLinear, NMS: det.NMSAgnostic, IoU: 0.5}, photos(t, "coffee.jpg")...)
	require.NoError(t, err)
	require.Equal(t, []float32{3}, xs(found[0]))
	found, err = d.Detect(t.Context(), det.DetectOptions{Threshold: 0.1, SoftNMS: det.SoftLinear, IoU: 0.5}, photos(t, "coffee.jpg")...)
	require.NoError(t, err)
	require.Equal(t, []float32{3, 0, 4, 1}, xs(found[0]))
	assert.InDelta(t, 0.75*(1-18.0/22), found[0][3].Score, 1e-6)
}

func TestLoadWantsADetector(t *testing.T) {
	_, err := det.Load(filepath.Join(testmain.Root(t), "testdata", "generated", "segmentation_head.pt"), vit.Options{})
	require.ErrorIs(t, err, vit.ErrTask)
}

// TestClassesAreFarApart: ultralytics moves the boxes of a class by 7680 pixels, so that no class meets another.
func TestClassesAreFarApart(t *testing.T) {
	d, _ := detector(t, func(any) (any, error) { // the second is the first, 768 pixels further left and up
		return tensor(t, []float32{868, 100, 868, 100, 40, 40, 40, 40, 0.9, 0, 0, 0.8}, 1, 6, 2), nil
	}, func(m *vit.Metadata) { m.Output.Kind, m.Labels = vit.OutputYOLO, classNames(2) })
	found, err := d.Detect(t.Context(), det.DetectOptions{}, photos(t, "panorama.jpg")...)
	require.NoError(t, err)
	require.Len(t, found[0], 2)
}
