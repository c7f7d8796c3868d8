package vit_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/vit"
)

// tensors makes tensors that differ from one another and closes them with the test.
type tensors struct{ t *testing.T }

func (m tensors) of(dtype torch.DType, shape ...int64) *torch.Tensor {
	m.t.Helper()
	n := int64(1)
	for _, v := range shape {
		n *= v
	}
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(i%251)/7 - 3
	}
	x, err := torch.NewTensor(values, shape...)
	require.NoError(m.t, err)
	m.t.Cleanup(func() { x.Close() })
	if dtype == torch.Float32 {
		return x
	}
	y, err := x.CastTo(dtype)
	require.NoError(m.t, err)
	m.t.Cleanup(func() { y.Close() })
	return y
}

func (m tensors) f(shape ...int64) *torch.Tensor { return m.of(torch.Float32, shape...) }
func (m tensors) i(shape ...int64) *torch.Tensor { return m.of(torch.Int64, shape...) }

func (m tensors) shares(shape ...int64) *torch.Tensor {
	x := m.f(shape...)
	y, err := x.Sigmoid()
	require.NoError(m.t, err)
	m.t.Cleanup(func() { y.Close() })
	return y
}

func TestRecognize(t *testing.T) {
	m := tensors{t}
	photo := func(n int64, masks bool) map[string]any {
		d := map[string]any{"boxes": m.f(n, 4), "labels": m.i(n), "scores": m.f(n)}
		if masks {
			d["masks"] = m.f(n, 1, 32, 48)
		}
		return d
	}
	count, err := m.i(3).Select(0, 1) // without a dimension
	require.NoError(t, err)
	defer count.Close()
	input := []int64{2, 3, 32, 48}
	for name, c := range map[string]struct {
		task   string
		answer any
		kind   string
		leaves []string
	}{
		"logits":                 {vit.TaskClassification, m.f(2, 10), vit.OutputLogits, []string{"out"}},
		"DeiT's tuple":           {vit.TaskClassification, torch.Tuple{m.f(2, 10), m.f(2, 10), m.f(2, 10)}, vit.OutputLogits, []string{"out.0"}},
		"logits and attention":   {vit.TaskClassification, torch.Tuple{m.f(2, 3, 7, 7), m.f(2, 10)}, vit.OutputLogits, []string{"out.1"}},
		"dict of logits":         {vit.TaskClassification, map[string]any{"hidden": m.f(2, 5), "logits": m.f(2, 10)}, vit.OutputLogits, []string{"out.logits"}},
		"half":                   {vit.TaskClassification, m.of(torch.BFloat16, 2, 10), vit.OutputLogits, []string{"out"}},
		"token logits":           {vit.TaskSegmentation, m.f(2, 5, 2, 3), vit.OutputSegmentationLogits, []string{"out"}},
		"quarter logits":         {vit.TaskSegmentation, torch.Tuple{m.f(2, 5, 8, 12)}, vit.OutputSegmentationLogits, []string{"out.0"}},
		"one channel":            {vit.TaskSegmentation, m.f(2, 1, 32, 48), vit.OutputSegmentationLogits, []string{"out"}},
		"torchvision's dict":     {vit.TaskSegmentation, map[string]any{"aux": m.f(2, 5, 32, 48), "out": m.f(2, 5, 32, 48)}, vit.OutputSegmentationLogits, []string{"out.out"}},
		"transformers' dict":     {vit.TaskSegmentation, map[string]any{"attentions": m.f(2, 3, 8, 8), "logits": m.f(2, 5, 8, 12)}, vit.OutputSegmentationLogits, []string{"out.logits"}},
		"class map":              {vit.TaskSegmentation, m.i(2, 32, 48), vit.OutputClassMap, []string{"out"}},
		"classes and a count":    {vit.TaskSegmentation, torch.Tuple{count, m.i(2, 32, 48)}, vit.OutputClassMap, []string{"out.1"}},
		"class map of bytes":     {vit.TaskSegmentation, m.of(torch.Uint8, 2, 1, 32, 48), vit.OutputClassMap, []string{"out"}},
		"head":                   {vit.TaskSegmentationHead, m.f(2, 5, 32, 48), vit.OutputHeadLogits, []string{"out"}},
		"scripted detector":      {vit.TaskDetection, torch.Tuple{map[string]any{}, torch.List{photo(3, false), photo(0, false)}}, vit.OutputDetections, []string{"out.1.0.boxes", "out.1.0.labels", "out.1.0.scores", "out.1.1.boxes", "out.1.1.labels", "out.1.1.scores"}},
		"list of dicts":          {vit.TaskDetection, torch.List{photo(2, true)}, vit.OutputDetections, []string{"out.0.boxes", "out.0.labels", "out.0.scores", "out.0.masks"}},
		"one dict":               {vit.TaskDetection, photo(4, false), vit.OutputDetections, []string{"out.boxes", "out.labels", "out.scores"}},
		"traced detector":        {vit.TaskDetection, torch.Tuple{m.f(4, 4), m.i(4), m.f(4)}, vit.OutputDetections, []string{"out.0", "out.1", "out.2"}},
		"traced mask detector":   {vit.TaskDetection, torch.Tuple{m.f(4), m.f(4, 4), m.f(4, 1, 32, 48), m.i(4)}, vit.OutputDetections, []string{"out.1", "out.3", "out.0", "out.2"}},
		"traced, nothing found":  {vit.TaskDetection, torch.Tuple{m.f(0, 4), m.i(0), m.f(0)}, vit.OutputDetections, []string{"out.0", "out.1", "out.2"}},
		"DETR":                   {vit.TaskDetection, torch.Tuple{m.f(2, 9, 92), m.f(2, 9, 4)}, vit.OutputSetPrediction, []string{"out.0", "out.1"}},
		"boxes first":            {vit.TaskDetection, torch.Tuple{m.f(2, 9, 4), m.f(2, 9, 92), m.f(2, 9, 16)}, vit.OutputSetPrediction, []string{"out.1", "out.0"}},
		"YOLOS with its tokens":  {vit.TaskDetection, torch.Tuple{m.f(2, 9, 92), m.f(2, 9, 4), m.f(2, 22, 16)}, vit.OutputSetPrediction, []string{"out.0", "out.1"}},
		"three classes":          {vit.TaskDetection, torch.Tuple{m.f(2, 9, 4), m.shares(2, 9, 4)}, vit.OutputSetPrediction, []string{"out.0", "out.1"}},
		"three classes, turned":  {vit.TaskDetection, torch.Tuple{m.shares(2, 9, 4), m.f(2, 9, 4)}, vit.OutputSetPrediction, []string{"out.1", "out.0"}},
		"DETR's dict":            {vit.TaskDetection, map[string]any{"aux": m.f(2, 9, 4), "pred_boxes": m.f(2, 9, 4), "pred_logits": m.f(2, 9, 7)}, vit.OutputSetPrediction, []string{"out.pred_logits", "out.pred_boxes"}},
		"YOLO":                   {vit.TaskDetection, m.f(2, 7, 126), vit.OutputYOLO, []string{"out"}},
		"YOLO with its levels":   {vit.TaskDetection, torch.Tuple{m.f(2, 7, 126), []*torch.Tensor{m.f(2, 67, 8, 12), m.f(2, 67, 4, 6)}}, vit.OutputYOLO, []string{"out.0"}},
		"YOLO without NMS":       {vit.TaskDetection, m.f(2, 300, 6), vit.OutputYOLOEnd2End, []string{"out"}},
		"YOLO of two classes":    {vit.TaskDetection, m.f(2, 6, 126), vit.OutputYOLO, []string{"out"}},
		"levels of a grid":       {vit.TaskDetection, []*torch.Tensor{m.f(2, 24, 8, 12), m.f(2, 24, 4, 6)}, vit.OutputYOLOGrid, []string{"out.0", "out.1"}},
		"tokens":                 {vit.TaskFeatures, torch.Tuple{m.f(2, 7, 16), m.f(2, 16)}, vit.OutputFeatures, []string{"out.0"}},
		"maps":                   {vit.TaskFeatures, []*torch.Tensor{m.f(2, 16, 4, 6), m.f(2, 16, 2, 3)}, vit.OutputFeatures, []string{"out.0", "out.1"}},
		"logits beside integers": {vit.TaskClassification, torch.Tuple{int64(5), nil, m.i(2, 10), m.f(2, 10)}, vit.OutputLogits, []string{"out.3"}},
	} {
		kind, leaves, err := vit.Recognize(c.task, c.answer, input)
		if name == "list of dicts" || name == "one dict" || c.kind == vit.OutputDetections {
			kind, leaves, err = vit.Recognize(c.task, c.answer, nil)
		}
		require.NoError(t, err, name)
		require.Equal(t, c.kind, kind, name)
		require.Equal(t, c.leaves, leaves, name)
	}
}

func TestRecognizeSaysWhatItGot(t *testing.T) {
	m := tensors{t}
	for name, c := range map[string]struct {
		task   string
		answer any
		says   []string
	}{
		"a number":                {vit.TaskClassification, int64(3), []string{"got an int", "--output-kind", "--leaves", "logits"}},
		"nothing":                 {vit.TaskSegmentation, nil, []string{"got none"}},
		"classes for detection":   {vit.TaskDetection, torch.Tuple{m.f(2, 10), m.f(2, 10)}, []string{"got a tuple of (tensor float32 [2, 10], tensor float32 [2, 10])", "set_prediction", "out.0, out.1"}},
		"tokens for segmentation": {vit.TaskSegmentation, m.f(2, 9, 5), []string{"tensor float32 [2, 9, 5]", "class_map"}},
		"another batch":           {vit.TaskClassification, m.f(1, 10), []string{"[1, 10]"}},
		"MaskFormer":              {vit.TaskSegmentation, torch.Tuple{m.f(2, 9, 5), m.f(2, 9, 8, 8)}, []string{"MaskFormer"}},
		"YOLO for masks":          {vit.TaskDetection, torch.Tuple{m.f(2, 39, 126), m.f(2, 32, 8, 8)}, []string{"YOLO for masks"}},
		"an old YOLO":             {vit.TaskDetection, m.f(2, 126, 8), []string{"[2, 126, 8]"}},
		"lists":                   {vit.TaskDetection, torch.Tuple{[]int64{1}, []string{"a"}, []bool{}, []float64{2}, map[int64]any{3: "x"}, true, 1.5}, []string{"a list of 1 ints", "a dict of {3: a string}"}},
		"many":                    {vit.TaskDetection, torch.List(make([]any, 50)), []string{"... (50)"}},
		"no such task":            {"dancing", nil, []string{"dancing"}},
	} {
		_, _, err := vit.Recognize(c.task, c.answer, []int64{2, 3, 32, 48})
		if name == "no such task" {
			require.ErrorIs(t, err, vit.ErrTask)
		} else {
			require.ErrorIs(t, err, vit.ErrOutput, name)
		}
		require.NotContains(t, err.Error(), "\n")
		for _, says := range c.says {
			require.ErrorContains(t, err, says, name)
		}
	}
}

func TestModelRecognizes(t *testing.T) {
	m := tensors{t}
	answer := torch.Tuple{m.f(2, 9, 4), m.f(2, 9, 7), m.f(2, 9, 5)}
	model := func(o vit.OutputSpec) *vit.Model {
		meta := describe(vit.TaskDetection)
		meta.Labels, meta.Output = nil, o // the leaves have different numbers of classes
		model, err := vit.NewModel(&fake{}, "fake.pt", vit.Options{Metadata: meta})
		require.NoError(t, err)
		t.Cleanup(func() { model.Close() })
		return model
	}
	names := func(leaves []vit.Output) (n []string) {
		for _, l := range leaves {
			n = append(n, l.Name)
		}
		return n
	}
	kind, leaves, err := model(vit.OutputSpec{}).Recognize(answer, nil)
	require.NoError(t, err)
	require.Equal(t, vit.OutputSetPrediction, kind)
	require.Equal(t, []string{"out.1", "out.0"}, names(leaves))
	require.Same(t, answer[1], leaves[0].Value)

	kind, leaves, err = model(vit.OutputSpec{Kind: vit.OutputSetPredictionSigmoid}).Recognize(answer, nil)
	require.NoError(t, err)
	require.Equal(t, vit.OutputSetPredictionSigmoid, kind)
	require.Equal(t, []string{"out.1", "out.0"}, names(leaves))

	kind, leaves, err = model(vit.OutputSpec{Leaves: []string{"out.2", "out.0"}}).Recognize(answer, nil)
	require.NoError(t, err)
	require.Equal(t, vit.OutputSetPrediction, kind)
	require.Equal(t, []string{"out.2", "out.0"}, names(leaves), "recognised among the leaves that were named")

	kind, leaves, err = model(vit.OutputSpec{Kind: vit.OutputYOLO, Leaves: []string{"out.2"}}).Recognize(answer, nil)
	require.NoError(t, err)
	require.Equal(t, vit.OutputYOLO, kind, "who names both is believed")
	require.Equal(t, []string{"out.2"}, names(leaves))

	_, _, err = model(vit.OutputSpec{Leaves: []string{"out.3"}}).Recognize(answer, nil)
	require.ErrorIs(t, err, vit.ErrOutput)
	require.ErrorContains(t, err, "want a leaf out.3")
	require.ErrorContains(t, err, "out.0, out.1, out.2")
	_, _, err = model(vit.OutputSpec{Kind: vit.OutputDetections}).Recognize(answer, nil)
	require.ErrorIs(t, err, vit.ErrOutput)
	require.ErrorContains(t, err, "want detections as output.kind says")

	leaves, err = model(vit.OutputSpec{}).Leaves(answer)
	require.NoError(t, err)
	require.Equal(t, []string{"out.0", "out.1", "out.2"}, names(leaves))
}

// TestLabelsAreOneForEachClass gives each kind of logits with labels that fit and with one too few.
func TestLabelsAreOneForEachClass(t *testing.T) {
	m := tensors{t}
	labels := []string{"cat", "dog", "bird"}
	for name, c := range map[string]struct {
		task, kind string
		answer     any
		fits       int
	}{
		"logits":              {vit.TaskClassification, "", m.f(2, 3), 3},
		"segmentation":        {vit.TaskSegmentation, "", m.f(2, 3, 8, 8), 3},
		"a binary mask":       {vit.TaskSegmentation, "", m.f(2, 1, 8, 8), 1},
		"a binary mask's two": {vit.TaskSegmentation, "", m.f(2, 1, 8, 8), 2},
		"set predictions":     {vit.TaskDetection, "", torch.Tuple{m.f(2, 9, 4), m.shares(2, 9, 4)}, 3},
		"sigmoid ones":        {vit.TaskDetection, vit.OutputSetPredictionSigmoid, torch.Tuple{m.f(2, 9, 3), m.shares(2, 9, 4)}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			for n := range len(labels) + 1 {
				meta := &vit.Metadata{Format: 1, Task: c.task, Labels: labels[:n], Output: vit.OutputSpec{Kind: c.kind}}
				model, err := vit.NewModel(&fake{}, "fake.pt", vit.Options{Metadata: meta})
				require.NoError(t, err)
				_, leaves, err := model.Recognize(c.answer, []int64{2, 3, 32, 32})
				if n == 0 || n == c.fits || strings.HasPrefix(name, "a binary") && n < 3 {
					require.NoError(t, err, "%d labels", n)
					assert.NotEmpty(t, leaves)
					continue
				}
				require.ErrorIs(t, err, vit.ErrOutput)
				require.ErrorContains(t, err, fmt.Sprintf("fake.pt: unexpected output: got %d labels for tensor float32", n))
			}
		})
	}
}
