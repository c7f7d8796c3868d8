// Package parity compares the outputs of model files, from photo file to answer, with Python's of the
// same file, on the same machine, in the same run: equal bits.
package parity

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/det"
	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/seg"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/npy"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// The number of intra-op threads is one for the process, so each number has processes of its own, which
// these variables start.
const (
	threadsVariable = "TORCHVIT_PARITY_THREADS"
	shareVariable   = "TORCHVIT_PARITY_SHARE"
	folderVariable  = "TORCHVIT_PARITY_FOLDER"
)

func TestMain(m *testing.M) {
	threads, err := strconv.Atoi(os.Getenv(threadsVariable))
	if err != nil { // the parent: it never opens libtorch
		os.Exit(m.Run())
	}
	testmain.Run(m, torch.Config{Device: "cpu", IntraOpThreads: threads})
}

// parityCase is one of parity.py's cases.
type parityCase struct {
	ID      string   `json:"id"`
	Model   string   `json:"model"`
	Head    string   `json:"head,omitempty"`
	Images  []string `json:"images"`
	Size    []int    `json:"size,omitempty"`
	Method  string   `json:"method"`
	Args    []any    `json:"args,omitempty"`
	Threads int      `json:"threads"`
	DType   string   `json:"dtype"`
	Warmup  int      `json:"warmup"`
}

var photos = []string{
	"testdata/images/astronaut.jpg", "testdata/images/chelsea.png",
	"testdata/images/coffee.jpg", "testdata/images/rocket.jpg",
}

// shapes are photos of every shape: portrait, panorama, 37x23 pixels, grey, with a palette, CMYK.
var shapes = []string{
	"testdata/images/portrait.jpg", "testdata/images/panorama.jpg", "testdata/images/tiny.png",
	"testdata/images/grey.jpg", "testdata/images/palette.png", "testdata/images/cmyk.jpg",
}

const generated = "testdata/generated/"

// families are the segmentation models, heads and detectors that go from a photo of every shape to the answer.
var families = []struct {
	model, head string
	// together: the photos make one pass, as a list or because they are letterboxed.
	together bool
}{
	{model: "segmentation"},
	{model: "segmentation_transposed"},
	{model: "segmentation_progressive"},
	{model: "segmentation_fcn"},  // logits for each patch
	{model: "segmentation_unet"}, // a quarter of the size
	{model: "segmentation_setr_pup"},
	{model: "segmentation_mask_transformer"},
	{model: "segmentation_registers"}, // timm, patch 14, U-Net
	{model: "segmentation_class_map"},
	{model: "segmentation_binary"},
	{model: "vit_reference", head: "segmentation_head"},
	{model: "vit_distilled_small", head: "segmentation_head_transposed"},
	{model: "vit_distilled_small", head: "segmentation_head_progressive"},
	{model: "vit_registers_small", head: "segmentation_head_fcn"},
	{model: "vit_registers_small", head: "segmentation_head_unet"},
	{model: "vit_distilled_small", head: "segmentation_head_setr_pup"},
	{model: "vit_registers_small", head: "segmentation_head_mask_transformer"},
	{model: "detection", together: true},
	{model: "detection_mask_rcnn", together: true},
	{model: "detection_retinanet", together: true},
	{model: "detection_yolo_grid", together: true},
	{model: "detection_yolo", together: true},
	{model: "detection_yolo_end2end", together: true},
	{model: "detection_set_prediction"},
	{model: "detection_set_prediction_sigmoid"},
}

// cases is what the project promises. Logits, tokens, attention, segmentation logits and detections come in
// every combination of threads, batch and dtype; the other methods in two of them.
func cases() []parityCase {
	var all []parityCase
	add := func(c parityCase, name string, every bool) {
		for _, threads := range []int{1, 2} {
			for _, batch := range []int{1, 4} {
				for _, dtype := range []string{"float32", "bfloat16"} {
					corner := threads == 1 && batch == 4 && dtype == "float32" || threads == 2 && batch == 1 && dtype == "bfloat16"
					if !every && !corner {
						continue
					}
					c := c
					// TorchScript records in its first run and optimises in the second.
					c.Threads, c.DType, c.Warmup = threads, dtype, 1
					c.Images = photos[:batch]
					if batch == 1 { // another photo for every thread count
						c.Images = photos[threads : threads+1]
					}
					c.ID = fmt.Sprintf("%s-t%d-b%d-%s", name, threads, batch, dtype)
					all = append(all, c)
				}
			}
		}
	}
	methods := func(model, name string, depth int, size []int) {
		c := parityCase{Model: generated + model + ".pt", Size: size}
		for _, m := range []struct {
			method string
			args   []any
			every  bool
		}{
			{"forward", nil, true},
			{"forward_features", nil, true},
			{"forward_with_attention", nil, false},
			{"forward_blocks", []any{[]int{0, depth - 1}}, false},
			{"attention", []any{-1}, false},
		} {
			c.Method, c.Args = m.method, m.args
			add(c, name+"-"+m.method, m.every)
		}
	}
	methods("vit_reference", "reference", 4, []int{224, 224})
	methods("vit_reference", "reference-160x192", 4, []int{160, 192})
	methods("vit_tiny_patch16_224", "tiny", 12, nil)
	methods("deit_tiny_distilled_patch16_224", "deit", 12, nil)
	methods("vit_little_patch16_reg4_gap_256", "registers-gap", 4, nil)
	methods("vit_small_patch14_dinov2", "patch14", 4, nil)
	methods("vit_small_patch14_reg4_dinov2", "registers", 4, nil)
	methods("segmentation", "segmentation", 4, []int{192, 256})
	add(parityCase{Model: generated + "vit_reference.pt", Head: generated + "segmentation_head.pt", Size: []int{224, 320}, Method: "forward"}, "custom", true)
	add(parityCase{Model: generated + "detection.pt", Method: "forward"}, "detection", true)
	return append(all, shapeCases()...)
}

// shapeCases: each of families on each of shapes with one and two threads, photo by photo and where possible
// together; one photo in bfloat16.
func shapeCases() (all []parityCase) {
	for _, f := range families {
		name := cmp.Or(f.head, f.model)
		for _, threads := range []int{1, 2} {
			add := func(photo, dtype string, images ...string) {
				c := parityCase{
					ID:    fmt.Sprintf("%s-%s-t%d-%s", name, photo, threads, dtype),
					Model: generated + f.model + ".pt", Method: "forward",
					Images: images, Threads: threads, DType: dtype,
				}
				if f.head != "" {
					c.Head = generated + f.head + ".pt"
				}
				all = append(all, c)
			}
			for _, path := range shapes {
				base := filepath.Base(path)
				add(strings.TrimSuffix(base, filepath.Ext(base)), "float32", path)
			}
			if f.together {
				add("together", "float32", shapes...)
			}
			if threads == 2 {
				add("portrait", "bfloat16", shapes[0])
			}
		}
	}
	return all
}

// shares is how many processes share the cases of a number of threads. Reading photos, loading modules and most
// operators use one core, so they run side by side.
const shares = 2

// share gives those of the cases that one process runs: a model's follow each other.
func share(threads, k int) (own []parityCase) {
	models := map[string]int{}
	for _, c := range cases() {
		name := c.Model + " " + c.Head
		if _, ok := models[name]; !ok {
			models[name] = len(models)
		}
		if c.Threads == threads && models[name]%shares == k {
			own = append(own, c)
		}
	}
	return own
}

// TestParity runs Python and then Go for each number of threads.
func TestParity(t *testing.T) {
	if os.Getenv(threadsVariable) != "" {
		t.Skip("the parent's test")
	}
	if testing.Short() {
		t.Skip("-short: the forwards of all models run without the race detector and sanitizers only")
	}
	// Both sides inherit it. Threads that spin for each other stand still where the processor is shared.
	t.Setenv("OMP_WAIT_POLICY", "passive")
	total := 0
	for _, threads := range []int{1, 2} {
		for k := range shares {
			own := share(threads, k)
			total += len(own)
			t.Run(fmt.Sprintf("%d-threads-%d", threads, k), func(t *testing.T) {
				t.Parallel()
				parity(t, threads, k, own)
			})
		}
	}
	require.Len(t, cases(), total)
}

func parity(t *testing.T, threads, k int, own []parityCase) {
	dir := t.TempDir()
	list, err := json.Marshal(own)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cases.json"), list, 0o644))
	testmain.RunPython(t, "scripts/parity.py", "dump", "--cases", filepath.Join(dir, "cases.json"), "--out", dir)
	cmd := exec.Command(os.Args[0], "-test.run=^TestParityOf", "-test.v")
	cmd.Env = append(os.Environ(), fmt.Sprint(threadsVariable, "=", threads), fmt.Sprint(shareVariable, "=", k), folderVariable+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := strings.Count(string(out), "    --- PASS: TestParityOfCases/"); got != len(own) {
		t.Fatalf("got %d cases that passed, want %d\n%s", got, len(own), out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "summary:") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// TestParityOfCases runs in a child process.
func TestParityOfCases(t *testing.T) {
	threads, err := strconv.Atoi(os.Getenv(threadsVariable))
	if err != nil {
		t.Skip("a child of TestParity runs it")
	}
	k, err := strconv.Atoi(os.Getenv(shareVariable))
	require.NoError(t, err)
	dir := os.Getenv(folderVariable)
	t.Chdir(testmain.Root(t))
	var elements, outputs int
	var loaded model
	defer func() { loaded.close() }()
	for _, c := range share(threads, k) {
		t.Run(c.ID, func(t *testing.T) {
			python, err := npy.ReadZipFile(filepath.Join(dir, c.ID+".npz"))
			require.NoError(t, err)
			want := python.Map()
			loaded.load(t, c)
			got := loaded.run(t, c)
			n, err := compare(want, got)
			require.NoError(t, err)
			require.NoError(t, substance(c, got))
			elements, outputs = elements+n, outputs+len(got)
		})
	}
	t.Logf("summary: %d threads: %d arrays with %d elements have Python's bits, on %s/%s", threads, outputs, elements, runtime.GOOS, runtime.GOARCH)
}

// model holds the files of the running case.
type model struct {
	key  string
	vit  *vit.VisionTransformer
	head *seg.SegmentationHead
}

func (m *model) close() {
	if m.vit != nil {
		m.vit.Close()
	}
	if m.head != nil {
		m.head.Close()
	}
	*m = model{}
}

// load loads the case's files unless they are those of the case before.
func (m *model) load(t *testing.T, c parityCase) {
	key := fmt.Sprint(c.Model, c.Head, c.Size, c.DType)
	if key == m.key {
		return
	}
	m.close()
	dtype, err := torch.ParseDType(c.DType)
	require.NoError(t, err)
	meta, err := vit.ReadMetadata(c.Model)
	require.NoError(t, err)
	if c.Head != "" && c.Size == nil {
		meta = seg.WholePhoto(meta)
	}
	if c.Size != nil {
		meta.Preprocess.Resize = transforms.ResizeSpec{Rule: "exact", Size: c.Size}
		meta.Preprocess.Crop = transforms.CropSpec{Rule: "none"}
	}
	m.vit, err = vit.Load(c.Model, vit.Options{DType: dtype, Metadata: meta})
	require.NoError(t, err)
	if c.Head != "" {
		m.head, err = seg.LoadHead(c.Head, vit.Options{DType: dtype})
		require.NoError(t, err)
	}
	m.key = key
}

// run gives every array of the case under parity.py's names.
func (m *model) run(t *testing.T, c parityCase) map[string]*npy.Array {
	ctx := t.Context()
	var scope torch.Scope
	defer scope.Close()
	sources := make([]transforms.Source, len(c.Images))
	for i, path := range c.Images {
		sources[i] = path
	}
	meta := m.vit.Metadata()
	list := meta.Layout() == vit.LayoutList
	limit := 0
	if list {
		limit = 1
	}
	inputs, err := m.vit.Prepare(ctx, limit, sources...)
	require.NoError(t, err)
	defer vit.CloseInputs(inputs)

	got := map[string]*npy.Array{}
	put := func(name string, tensor *torch.Tensor) {
		a, err := tensor.Numpy()
		require.NoError(t, err)
		got[name] = a
	}
	var args []any
	if list {
		images := make([]*torch.Tensor, len(inputs))
		for i, in := range inputs {
			images[in.Index[0]], err = torch.CallTensor(ctx, "aten::select.int", in.Pixels, 0, 0)
			require.NoError(t, err)
			scope.Track(images[in.Index[0]])
			put(fmt.Sprintf("in0.%d", in.Index[0]), images[in.Index[0]])
			require.Zero(t, i-in.Index[0])
		}
		args = []any{images}
	} else {
		require.Len(t, inputs, 1, "the photos make one batch")
		put("in0", inputs[0].Pixels)
		args = append([]any{inputs[0].Pixels}, c.Args...)
	}
	var answer any
	for range c.Warmup + 1 {
		torch.CloseAll(answer)
		if m.head != nil {
			custom := seg.CustomSegmentationModel{ViT: m.vit, SegmentationHead: m.head}
			answer, err = custom.Forward(ctx, inputs[0].Pixels)
		} else {
			answer, err = m.vit.Call(ctx, c.Method, args...)
		}
		require.NoError(t, err)
	}
	scope.Track(answer)
	for _, o := range vit.Outputs(answer) {
		if tensor, ok := o.Value.(*torch.Tensor); ok {
			put(o.Name, tensor)
		}
	}

	if c.Method != "forward" && c.Method != "forward_with_attention" {
		return got
	}
	if meta.Task == vit.TaskDetection {
		require.NoError(t, m.detect(ctx, sources, got))
		return got
	}
	logits, _ := answer.(*torch.Tensor)
	if c.Method == "forward_with_attention" {
		logits, _ = answer.(torch.Tuple)[0].(*torch.Tensor)
	}
	if logits == nil {
		return got
	}
	switch {
	case m.head != nil || meta.Task == vit.TaskSegmentation:
		classes, err := m.segment(ctx, sources)
		require.NoError(t, err)
		for i, cm := range classes {
			name := "class_map"
			if len(classes) > 1 {
				name = fmt.Sprintf("class_map.%d", i)
			}
			got[name] = &npy.Array{DType: "u1", Shape: []int64{int64(cm.Height), int64(cm.Width)}, Data: cm.Classes}
		}
	case meta.Task == vit.TaskClassification:
		best, err := m.vit.TopK(ctx, logits, 5)
		require.NoError(t, err)
		var scores []float32
		var indices []int64
		for _, row := range best {
			for _, class := range row {
				scores, indices = append(scores, class.Score), append(indices, int64(class.Index))
			}
		}
		k := int64(len(best[0]))
		for name, tensor := range map[string]func() (*torch.Tensor, error){
			"topk_scores":  func() (*torch.Tensor, error) { return torch.NewTensor(scores, int64(len(best)), k) },
			"topk_indices": func() (*torch.Tensor, error) { return torch.NewTensor(indices, int64(len(best)), k) },
		} {
			made, err := tensor()
			require.NoError(t, err)
			put(name, made)
			made.Close()
		}
	}
	return got
}

// segment is the way from photos to class maps that a program takes.
func (m *model) segment(ctx context.Context, photos []transforms.Source) ([]*seg.ClassMap, error) {
	if m.head != nil {
		custom := seg.CustomSegmentationModel{ViT: m.vit, SegmentationHead: m.head}
		return custom.Segment(ctx, photos...)
	}
	whole := seg.VisionTransformerForSegmentation{VisionTransformer: m.vit}
	return whole.Segment(ctx, photos...)
}

// detect is the way from photos to detections that a program takes, under parity.py's names.
func (m *model) detect(ctx context.Context, photos []transforms.Source, got map[string]*npy.Array) error {
	detector := det.Detector{Model: m.vit.Model}
	answers, err := detector.Detect(ctx, det.DetectOptions{}, photos...)
	if err != nil {
		return err
	}
	for i, found := range answers {
		n := int64(len(found))
		boxes, labels := &npy.Array{DType: "f4", Shape: []int64{n, 4}}, &npy.Array{DType: "i8", Shape: []int64{n}}
		scores, masks := &npy.Array{DType: "f4", Shape: []int64{n}}, &npy.Array{DType: "u1"}
		for _, d := range found {
			for _, v := range []float32{d.Box.X1, d.Box.Y1, d.Box.X2, d.Box.Y2} {
				boxes.Data = binary.LittleEndian.AppendUint32(boxes.Data, math.Float32bits(v))
			}
			labels.Data = binary.LittleEndian.AppendUint64(labels.Data, uint64(d.LabelID))
			scores.Data = binary.LittleEndian.AppendUint32(scores.Data, math.Float32bits(d.Score))
			if d.Mask != nil {
				pixels, err := d.Mask.Decode()
				if err != nil {
					return err
				}
				masks.Shape = []int64{n, int64(d.Mask.Height), int64(d.Mask.Width)}
				masks.Data = append(masks.Data, pixels...)
			}
		}
		name := fmt.Sprintf("found.%d.", i)
		got[name+"boxes"], got[name+"labels"], got[name+"scores"] = boxes, labels, scores
		if masks.Shape != nil {
			got[name+"masks"] = masks
		}
	}
	return nil
}

// compare demands that every array of Python is there, with the same bits.
func compare(want, got map[string]*npy.Array) (elements int, err error) {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		w := want[name]
		if name == "image_sizes" || strings.HasPrefix(name, "features") {
			continue // facts about the case, not outputs of Go's calls
		}
		g, ok := got[name]
		switch {
		case !ok:
			return 0, fmt.Errorf("%s: Python has it, Go has only %v", name, slices.Sorted(maps.Keys(got)))
		case w.DType != g.DType || !slices.Equal(w.Shape, g.Shape):
			return 0, fmt.Errorf("%s: got %s%v, want %s%v", name, g.DType, g.Shape, w.DType, w.Shape)
		case string(w.Data) != string(g.Data):
			different := 0
			size := len(w.Data) / max(1, int(w.Len()))
			for i := 0; i < len(w.Data); i += size {
				if string(w.Data[i:i+size]) != string(g.Data[i:i+size]) {
					different++
				}
			}
			return 0, fmt.Errorf("%s: %d of %d elements differ from Python's", name, different, w.Len())
		}
		elements += int(w.Len())
	}
	if len(got) == 0 {
		return 0, fmt.Errorf("nothing was compared")
	}
	return elements, nil
}

// substance refuses answers on which a comparison would say nothing.
func substance(c parityCase, got map[string]*npy.Array) error {
	for name, a := range got {
		if strings.HasPrefix(name, "class_map") {
			want := 3
			if strings.Contains(c.Model, "binary") {
				want = 2
			}
			if n := distinct(a); n < want {
				return fmt.Errorf("%s: got %d classes, want at least %d", name, n, want)
			}
		}
		if strings.HasPrefix(name, "out") && a.Len() > 1 && distinct(a) < 2 {
			return fmt.Errorf("%s: got one value only", name)
		}
	}
	if !strings.Contains(c.Model, "detection") {
		return nil
	}
	minScores := 10
	if c.DType == "bfloat16" {
		minScores = 5 // bfloat16 has 8 bits, so scores of different boxes coincide
	}
	for i := range c.Images {
		name := fmt.Sprintf("found.%d.", i)
		boxes, scores, labels := got[name+"boxes"], got[name+"scores"], got[name+"labels"]
		if boxes == nil || scores == nil || labels == nil {
			return fmt.Errorf("photo %d: got no boxes, scores or labels", i)
		}
		if boxes.Shape[0] < 10 || distinct(scores) < minScores || distinct(labels) < 3 {
			return fmt.Errorf("photo %d: got %d boxes, %d scores and %d labels, want at least 10, %d and 3", i, boxes.Shape[0], distinct(scores), distinct(labels), minScores)
		}
		if strings.Contains(c.Model, "mask") {
			if masks := got[name+"masks"]; masks == nil || distinct(masks) != 2 {
				return fmt.Errorf("photo %d: got no masks of 0 and 1", i)
			}
		}
	}
	return nil
}

// distinct is the number of different elements.
func distinct(a *npy.Array) int {
	seen := map[string]bool{}
	size := len(a.Data) / max(1, int(a.Len()))
	for i := 0; i+size <= len(a.Data) && len(seen) < 64; i += size {
		seen[string(a.Data[i:i+size])] = true
	}
	return len(seen)
}

// TestComparisonsCanFail breaks what the parity test compares and sees it fail.
func TestComparisonsCanFail(t *testing.T) {
	array := func(values ...byte) *npy.Array {
		return &npy.Array{DType: "u1", Shape: []int64{int64(len(values))}, Data: values}
	}
	same := map[string]*npy.Array{"out": array(1, 2, 3)}
	_, err := compare(same, map[string]*npy.Array{"out": array(1, 2, 3)})
	require.NoError(t, err)
	_, err = compare(same, map[string]*npy.Array{"out": array(1, 2, 4)})
	require.ErrorContains(t, err, "1 of 3 elements differ")
	_, err = compare(same, map[string]*npy.Array{})
	require.ErrorContains(t, err, "Python has it")
	require.Error(t, substance(parityCase{ID: "x"}, map[string]*npy.Array{"out": array(0, 0, 0)}))
	require.Error(t, substance(parityCase{ID: "x"}, map[string]*npy.Array{"class_map": array(1, 2, 2)}))
	require.Error(t, substance(parityCase{Model: "detection.pt", Images: photos[:1]}, map[string]*npy.Array{"out.0": array(1, 2)}))
}
