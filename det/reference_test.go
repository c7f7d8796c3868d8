package det_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/det"
	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/npy"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

func TestMain(m *testing.M) { testmain.Run(m, torch.Config{Device: "cpu"}) }

// pythonAnswers is what testdata/decode.py wrote, once for the test binary.
var pythonAnswers = sync.OnceValues(func() (*reference, error) {
	dir, err := os.MkdirTemp("", "det")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	info, err := torch.RuntimeInfo()
	if err != nil {
		return nil, err
	}
	testmain.RunPython(pythonTest, "det/testdata/decode.py", "--out", dir, "--threads", strconv.Itoa(info.LaneThreads[0]))
	text, err := os.ReadFile(filepath.Join(dir, "cases.json"))
	if err != nil {
		return nil, err
	}
	r := &reference{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, err
	}
	arrays, err := npy.ReadZipFile(filepath.Join(dir, "arrays.npz"))
	if err != nil {
		return nil, err
	}
	r.arrays = arrays.Map()
	r.list, err = os.ReadFile(filepath.Join(dir, "list.pt"))
	return r, err
})

// pythonTest is the test that runs Python first, whose failure it is.
var pythonTest testing.TB

func python(t testing.TB) *reference {
	t.Helper()
	pythonTest = t
	r, err := pythonAnswers()
	require.NoError(t, err)
	return r
}

type reference struct {
	Photos []string
	Cases  []struct {
		Name, Kind string
		Input      []int
		Letterbox  bool
		Labels     int
		Anchors    [][][2]float64
		DType      string
		Options    det.DetectOptions
		Leaves     int
	}
	Suppression []struct {
		Key          string
		IoU          []float64
		NMS, Batched [][]int
		Soft         []struct {
			Method     det.SoftMethod
			IoU, Sigma float64
			Low        float32
			ByLabel    bool `json:"by_label"`
			Order      []int
			Scores     string
		}
	}
	Masks []struct {
		Rule      string
		Input     []int
		Threshold float32
		Answers   []struct {
			Key    string
			Counts []string
			Size   []int
		}
	}
	arrays map[string]*npy.Array
	list   []byte // a trace that takes one photo
}

func (r *reference) tensor(t testing.TB, name string) *torch.Tensor {
	t.Helper()
	require.Contains(t, r.arrays, name)
	x, err := torch.FromNumpy(r.arrays[name])
	require.NoError(t, err)
	return x
}

func values[T torch.Element](t testing.TB, r *reference, name string) []T {
	t.Helper()
	x := r.tensor(t, name)
	defer x.Close()
	v, err := torch.CopyData[T](x)
	require.NoError(t, err)
	return v
}

// fake is a runtime whose forward is a function.
type fake struct {
	forward func(arg any) (any, error)
	calls   int
}

func (f *fake) Call(_ context.Context, _ string, args ...any) (any, error) {
	f.calls++
	return f.forward(args[0])
}
func (f *fake) HasMethod(name string) bool { return name == "forward" }
func (f *fake) Close() error               { return nil }

// detector makes one on a function; edit changes what it says of itself.
func detector(t testing.TB, forward func(arg any) (any, error), edit func(*vit.Metadata)) (*det.Detector, *fake) {
	t.Helper()
	meta := &vit.Metadata{Format: 1, Task: vit.TaskDetection, Architecture: "fake"}
	meta.Preprocess.Normalize = transforms.NormalizeNone
	edit(meta)
	require.NoError(t, meta.Validate())
	f := &fake{forward: forward}
	m, err := vit.NewModel(f, "fake.pt", vit.Options{Metadata: meta})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return &det.Detector{Model: m}, f
}

func photos(t testing.TB, names ...string) []transforms.Source {
	t.Helper()
	list := make([]transforms.Source, len(names))
	for i, name := range names {
		list[i] = filepath.Join(testmain.Root(t), "testdata", "images", name)
	}
	return list
}

func classNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("class-%d", i)
	}
	return names
}

// TestDecodingIsPythons feeds answers of every kind and compares what is found in the photos, bit for bit.
func TestDecodingIsPythons(t *testing.T) {
	r := python(t)
	total := 0
	for _, c := range r.Cases {
		t.Run(c.Name, func(t *testing.T) {
			d, f := detector(t, func(arg any) (any, error) {
				shape := arg.(*torch.Tensor).Shape()
				require.Equal(t, []int64{int64(len(r.Photos)), 3, int64(c.Input[0]), int64(c.Input[1])}, shape)
				answer := torch.Tuple{}
				for i := range c.Leaves {
					leaf := r.tensor(t, fmt.Sprintf("%s.leaf%d", c.Name, i))
					if c.DType == "bfloat16" {
						cast, err := leaf.CastTo(torch.BFloat16)
						require.NoError(t, err)
						leaf.Close()
						leaf = cast
					}
					answer = append(answer, leaf)
				}
				return answer, nil
			}, func(m *vit.Metadata) {
				m.Output.Kind, m.Output.Anchors, m.Labels = c.Kind, c.Anchors, classNames(c.Labels)
				m.Preprocess.Resize = transforms.ResizeSpec{Rule: transforms.RuleExact, Size: c.Input}
				if c.Letterbox {
					m.Preprocess.Resize.Rule = transforms.RuleLetterbox
				}
			})
			found, err := d.Detect(t.Context(), c.Options, photos(t, r.Photos...)...)
			require.NoError(t, err)
			require.Equal(t, 1, f.calls)
			for i, list := range found {
				prefix := fmt.Sprintf("%s.%d.", c.Name, i)
				boxes, scores := values[float32](t, r, prefix+"boxes"), values[float32](t, r, prefix+"scores")
				labels := values[int64](t, r, prefix+"labels")
				require.Len(t, list, len(scores))
				require.GreaterOrEqual(t, len(list), 5)
				for j, one := range list {
					got := []float32{one.Box.X1, one.Box.Y1, one.Box.X2, one.Box.Y2, one.Score}
					want := append(boxes[4*j:4*j+4:4*j+4], scores[j])
					for k := range got {
						require.Equal(t, math.Float32bits(want[k]), math.Float32bits(got[k]), "photo %d, detection %d: got %v, want %v", i, j, got, want)
					}
					require.Equal(t, labels[j], int64(one.LabelID))
					require.Equal(t, fmt.Sprintf("class-%d", labels[j]), one.Label)
					total++
				}
			}
		})
	}
	require.Greater(t, total, 10000)
	t.Logf("%d detections have Python's bits", total)
}

func TestSuppressionIsTorchvisions(t *testing.T) {
	r := python(t)
	for _, c := range r.Suppression {
		flat, scores := values[float32](t, r, c.Key+".boxes"), values[float32](t, r, c.Key+".scores")
		boxes, labels := make([]det.Box, len(scores)), make([]int, len(scores))
		for i, label := range values[int64](t, r, c.Key+".labels") {
			boxes[i], labels[i] = det.Box{X1: flat[4*i], Y1: flat[4*i+1], X2: flat[4*i+2], Y2: flat[4*i+3]}, int(label)
		}
		for i, iou := range c.IoU {
			got, err := det.NonMaximumSuppression(t.Context(), boxes, scores, iou)
			require.NoError(t, err)
			require.Equal(t, c.NMS[i], got, "%s, %v", c.Key, iou)
			got, err = det.BatchedNMS(t.Context(), boxes, scores, labels, iou)
			require.NoError(t, err)
			require.Equal(t, c.Batched[i], got, "%s, %v", c.Key, iou)
		}
		for _, s := range c.Soft {
			var by []int
			if s.ByLabel {
				by = labels
			}
			before := append([]float32(nil), scores...)
			order, lowered, err := det.SoftNMS(boxes, scores, by, det.SoftOptions{Method: s.Method, IoU: s.IoU, Sigma: s.Sigma, MinScore: s.Low})
			require.NoError(t, err)
			require.Equal(t, s.Order, order, "%s, %+v", c.Key, s)
			require.Equal(t, values[float32](t, r, s.Scores), lowered)
			require.Equal(t, before, scores, "the scores given are not changed")
		}
	}
}

func TestMasksArePycocotools(t *testing.T) {
	r := python(t)
	runs := 0
	for _, c := range r.Masks {
		d, _ := detector(t, func(any) (any, error) {
			var answer torch.List
			for _, a := range c.Answers {
				one := objects(t, len(a.Counts), 0)
				one["masks"] = r.tensor(t, a.Key)
				answer = append(answer, one)
			}
			return answer, nil
		}, func(m *vit.Metadata) {
			if c.Rule != "" {
				m.Input.Layout = vit.LayoutBatch
				m.Preprocess.Resize = transforms.ResizeSpec{Rule: c.Rule, Size: c.Input}
			}
			if c.Rule == "crop" {
				m.Preprocess.Resize = transforms.ResizeSpec{Rule: transforms.RuleExact, Size: []int{80, 112}}
				m.Preprocess.Crop = transforms.CropSpec{Rule: transforms.CropCenter, Size: c.Input}
			}
		})
		// The last of the five scores falls below the threshold.
		found, err := d.Detect(t.Context(), det.DetectOptions{Threshold: 0.6, MaskThreshold: c.Threshold}, photos(t, r.Photos...)...)
		require.NoError(t, err)
		for i, a := range c.Answers {
			require.Len(t, found[i], 4)
			for j, one := range found[i] {
				require.NotNil(t, one.Mask)
				require.NoError(t, one.Mask.Validate())
				require.Equal(t, a.Size, []int{one.Mask.Height, one.Mask.Width})
				require.Equal(t, a.Counts[j], one.Mask.String(), "%s %v, photo %d", c.Rule, c.Threshold, i)
				runs += len(one.Mask.Counts)
			}
		}
	}
	require.Greater(t, runs, 10000)
}

// TestTraceOfOnePhoto: a real trace refuses a list of two, and then gets them one by one.
func TestTraceOfOnePhoto(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list.pt")
	require.NoError(t, os.WriteFile(path, python(t).list, 0o644))
	d, err := det.Load(path, vit.Options{Metadata: &vit.Metadata{
		Format: 1, Task: vit.TaskDetection, Input: vit.InputSpec{Layout: vit.LayoutList},
		Preprocess: transforms.Spec{Normalize: transforms.NormalizeNone},
	}})
	require.NoError(t, err)
	defer d.Close()
	names := []string{"coffee.jpg", "rocket.jpg", "astronaut.jpg"}
	o := det.DetectOptions{Threshold: -1}
	together, err := d.Detect(t.Context(), o, photos(t, names...)...)
	require.NoError(t, err)
	for i, name := range names {
		alone, err := d.Detect(t.Context(), o, photos(t, name)...)
		require.NoError(t, err)
		require.Len(t, alone[0], 5)
		require.Equal(t, alone[0], together[i])
	}
	require.NotEqual(t, together[0], together[1])
}
