package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/coco"
	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

func garments(t *testing.T, name string) string {
	t.Helper()
	return filepath.Join(testmain.Root(t), "testdata", "models", "garments_"+name+".pt")
}

func scenes(t *testing.T, name string) string {
	t.Helper()
	return filepath.Join(testmain.Root(t), "testdata", "scenes", name)
}

// nullable is a number or null, which is NaN.
type nullable float64

func (n *nullable) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		*n = nullable(math.NaN())
		return nil
	}
	return json.Unmarshal(text, (*float64)(n))
}

// evaluated is what eval --json prints.
type evaluated struct {
	Kind, Task string
	Images     int
	Missing    int
	Metrics    map[string]nullable
	Classes    []struct {
		Label   string
		Count   int
		Metrics map[string]nullable
	}
}

func evalJSON(t *testing.T, args ...string) (e evaluated) {
	t.Helper()
	stdout, _ := ok(t, append([]string{"eval", "--json"}, args...)...)
	require.NoError(t, json.Unmarshal([]byte(stdout), &e), stdout)
	return e
}

const evalReference = "cmd/torchvit/testdata/eval_reference.py"

// nontrivial demands figures that could be wrong: most between 0 and 1, and not all the same.
func nontrivial(t *testing.T, values ...float64) {
	t.Helper()
	inside, distinct := 0, map[float64]bool{}
	for _, v := range values {
		if v > 0 && v < 1 {
			inside++
			distinct[v] = true
		}
	}
	require.Greater(t, inside, len(values)/2, "%v", values)
	require.GreaterOrEqual(t, len(distinct), min(len(values), 6), "%v", values)
}

// TestEvalIsPythons runs the three models over the scenes, here and in Python, and compares all figures.
func TestEvalIsPythons(t *testing.T) {
	testmain.NotShort(t)
	var want struct {
		Detection struct {
			Results []map[string]any
			Stats   []float64
			Classes map[string]float64
		}
		Segmentation struct {
			AAcc, MIoU, MAcc, MDice, MFscore, MPrecision, MRecall nullable
			IoU, Acc, Dice                                        []nullable
			Torchvision                                           struct {
				Matrix []int64
				Mean   nullable
			}
			Torchmetrics struct {
				MeanIoU nullable `json:"mean_iou"`
			}
		}
		Classification struct{ Top1, Top2 float64 }
	}
	// Some of the truth is wrong, so that a good model is not right about everything.
	truth, err := os.ReadFile(scenes(t, "singles.csv"))
	require.NoError(t, err)
	rows := strings.Split(strings.TrimSpace(string(truth)), "\n")
	for i, row := range rows[1:] {
		name, label, _ := strings.Cut(row, ",")
		if i < 3 {
			_, label, _ = strings.Cut(rows[i+4], ",")
		}
		rows[i+1] = scenes(t, name) + "," + label
	}
	singles := filepath.Join(t.TempDir(), "singles.csv")
	require.NoError(t, os.WriteFile(singles, []byte(strings.Join(rows, "\n")+"\n"), 0o666))
	require.NoError(t, json.Unmarshal([]byte(testmain.RunPython(t, "-W", "ignore", evalReference, "--singles", singles)), &want))
	out := t.TempDir()
	same := func(what string, want, got nullable) {
		if math.IsNaN(float64(want)) {
			assert.True(t, math.IsNaN(float64(got)), what)
			return
		}
		assert.InDelta(t, float64(want), float64(got), 1e-9, what)
	}

	e := evalJSON(t, garments(t, "faster_rcnn"), scenes(t, "instances.json"), "--out", filepath.Join(out, "det"))
	require.Len(t, want.Detection.Stats, 12)
	for i, name := range cocoNames {
		v := nullable(want.Detection.Stats[i])
		if v == -1 {
			v = nullable(math.NaN())
		}
		same(name, v, e.Metrics["bbox "+name])
	}
	nontrivial(t, want.Detection.Stats...)
	require.Len(t, e.Classes, len(want.Detection.Classes))
	for _, c := range e.Classes {
		same(c.Label, nullable(want.Detection.Classes[c.Label]), c.Metrics["bbox AP"])
	}
	// The detections themselves are Python's, to the bit.
	text, err := os.ReadFile(filepath.Join(out, "det", "detections.json"))
	require.NoError(t, err)
	var found []map[string]any
	require.NoError(t, json.Unmarshal(text, &found))
	assert.Greater(t, len(found), 60)
	assert.Equal(t, want.Detection.Results, found)

	s := want.Segmentation
	for _, args := range [][]string{
		{scenes(t, ""), "--masks", scenes(t, "masks"), "--out", filepath.Join(out, "seg")},
		{scenes(t, "instances.json"), "--batch", "1"},
	} {
		e = evalJSON(t, append([]string{garments(t, "segmentation")}, args...)...)
		assert.Equal(t, 34, e.Images)
		for name, v := range map[string]nullable{
			"mIoU": s.MIoU, "mAcc": s.MAcc, "aAcc": s.AAcc, "mDice": s.MDice, "mFscore": s.MFscore, "mPrecision": s.MPrecision, "mRecall": s.MRecall,
			"mIoU (torchvision)": s.Torchvision.Mean,
		} {
			same(name, v, e.Metrics[name])
		}
		same("MulticlassJaccardIndex", s.Torchmetrics.MeanIoU, e.Metrics["mIoU"])
		var ious []float64
		require.Len(t, e.Classes, len(s.IoU))
		for i, c := range e.Classes {
			same(c.Label, s.IoU[i], c.Metrics["IoU"])
			same(c.Label, s.Acc[i], c.Metrics["accuracy"])
			same(c.Label, s.Dice[i], c.Metrics["Dice"])
			ious = append(ious, float64(s.IoU[i]))
		}
		nontrivial(t, ious...)
	}

	e = evalJSON(t, garments(t, "vit"), singles, "--top", "2", "--out", filepath.Join(out, "cls"))
	same("top-1", nullable(want.Classification.Top1), e.Metrics["top-1"])
	same("top-2", nullable(want.Classification.Top2), e.Metrics["top-2"])
	nontrivial(t, want.Classification.Top1)

	// The predictions cover each photo once.
	results, err := coco.ReadResultsFile(filepath.Join(out, "seg", "segmentations.json"))
	require.NoError(t, err)
	assert.Greater(t, len(results), 30)
	area := 0
	for _, r := range results {
		area += r.Mask.Area()
	}
	total := 0
	for _, n := range s.Torchvision.Matrix {
		total += int(n)
	}
	assert.Equal(t, total, area)

	for name, rows := range map[string]int{"det": 12, "seg": 12, "cls": 11} {
		f, err := os.Open(filepath.Join(out, name, "confusion.csv"))
		require.NoError(t, err)
		table, err := csv.NewReader(f).ReadAll()
		f.Close()
		require.NoError(t, err)
		assert.Len(t, table, rows)
		f, err = os.Open(filepath.Join(out, name, "confusion.png"))
		require.NoError(t, err)
		_, err = png.Decode(f)
		f.Close()
		require.NoError(t, err)
		text, err := os.ReadFile(filepath.Join(out, name, "results.json"))
		require.NoError(t, err)
		assert.True(t, json.Valid(text))
		text, err = os.ReadFile(filepath.Join(out, name, "classes.csv"))
		require.NoError(t, err)
		assert.Regexp(t, `^class,count,`, string(text))
	}
}

// TestEvalOfOtherKinds writes the scenes as Pascal VOC and as YOLO: the same boxes give the same figures.
func TestEvalOfOtherKinds(t *testing.T) {
	want := evalJSON(t, garments(t, "faster_rcnn"), scenes(t, "instances.json"), "--limit", "12")
	set, err := dataset.Read(scenes(t, "instances.json"), "", dataset.Options{})
	require.NoError(t, err)
	dir := t.TempDir()
	voc, yolo := filepath.Join(dir, "voc"), filepath.Join(dir, "yolo")
	for _, d := range []string{"voc/Annotations", "voc/JPEGImages", "yolo/images", "yolo/labels"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.FromSlash(d)), 0o777))
	}
	for _, img := range set.Images[:12] {
		name := filepath.Base(img.Path)
		stem := strings.TrimSuffix(name, ".jpg")
		require.NoError(t, os.Symlink(img.Path, filepath.Join(voc, "JPEGImages", name)))
		require.NoError(t, os.Symlink(img.Path, filepath.Join(yolo, "images", name)))
		require.NoError(t, dataset.WriteVOC(filepath.Join(voc, "Annotations", stem+".xml"), img, dataset.VOCOptions{}))
		require.NoError(t, dataset.WriteYOLO(filepath.Join(yolo, "labels", stem+".txt"), img, dataset.YOLOOptions{}))
	}
	names, err := json.Marshal(set.Classes)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(yolo, "data.yaml"), []byte("val: images\nnames: "+string(names)+"\n"), 0o666))
	for kind, path := range map[string]string{"voc": voc, "yolo": yolo} {
		e := evalJSON(t, garments(t, "faster_rcnn"), path)
		assert.Equal(t, kind, e.Kind)
		for _, name := range []string{"AP", "AP50", "AP75", "AR1", "AR10", "AR100"} { // areas are their boxes'
			assert.InDelta(t, float64(want.Metrics["bbox "+name]), float64(e.Metrics["bbox "+name]), 1e-9, "%s %s", kind, name)
		}
	}

	// A class that is left out is neither missed nor found.
	e := evalJSON(t, garments(t, "faster_rcnn"), voc, "--classes", "Ankle boot=,shirt=Shirt")
	assert.Len(t, e.Classes, len(want.Classes)-1)
	for _, c := range e.Classes {
		assert.NotEqual(t, "Ankle boot", c.Label)
	}
	line := fails(t, exitUsage, "eval", garments(t, "faster_rcnn"), voc, "--classes", "Ankle boot=Boots")
	assert.Contains(t, line, "the model has no label Boots")
	e = evalJSON(t, garments(t, "faster_rcnn"), voc, "--limit", "3", "--threshold", "0.5", "--batch", "2")
	assert.Equal(t, 3, e.Images)
}

func TestEvalText(t *testing.T) {
	e := evalJSON(t, garments(t, "vit"), scenes(t, "singles.csv"))
	stdout, stderr := ok(t, "eval", garments(t, "vit"), scenes(t, "singles.csv"))
	assert.Regexp(t, fmt.Sprintf(`top-1 +%.4f\n`, float64(e.Metrics["top-1"])), stdout)
	assert.Empty(t, stderr)
	for line := range strings.SplitSeq(strings.TrimSpace(stdout), "\n") {
		assert.LessOrEqual(t, len(line), 140)
	}
}

func TestEvalRefuses(t *testing.T) {
	dir := t.TempDir()
	folders := filepath.Join(dir, "folders")
	for _, name := range []string{"Sneaker", "wombat", "T-SHIRT top"} {
		require.NoError(t, os.MkdirAll(filepath.Join(folders, name), 0o777))
		require.NoError(t, os.Symlink(scenes(t, "single_1.jpg"), filepath.Join(folders, name, "a.jpg")))
	}
	broken := filepath.Join(dir, "broken.csv")
	require.NoError(t, os.WriteFile(broken, []byte("broken.csv,Sneaker\n"), 0o666))
	many := filepath.Join(dir, "many") // a YOLO data set without names
	require.NoError(t, os.MkdirAll(filepath.Join(many, "images"), 0o777))
	require.NoError(t, os.MkdirAll(filepath.Join(many, "labels"), 0o777))
	require.NoError(t, os.Symlink(scenes(t, "single_1.jpg"), filepath.Join(many, "images", "a.jpg")))
	require.NoError(t, os.WriteFile(filepath.Join(many, "labels", "a.txt"), []byte("999999 0.5 0.5 0.2 0.2\n"), 0o666))
	out := filepath.Join(dir, "out")
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{exitUsage, "want a model file and a data set", []string{garments(t, "vit")}},
		{exitUsage, "--dataset imagenet: want one of", []string{garments(t, "vit"), folders, "--dataset", "imagenet"}},
		{exitUsage, "--batch 0: want 1 or more", []string{garments(t, "vit"), folders, "--batch", "0"}},
		{exitUsage, "--ignore-index 256", []string{garments(t, "vit"), folders, "--ignore-index", "256"}},
		{exitUsage, "--mask-values 3:4", []string{garments(t, "vit"), folders, "--mask-values", "3:4"}},
		{exitUsage, "--threshold 1.5: want 0 to 1", []string{garments(t, "vit"), folders, "--threshold", "1.5"}},
		{exitUsage, "the data set has no class zebra", []string{garments(t, "vit"), folders, "--classes", "zebra=Bag"}},
		{exitError, "no data set recognised", []string{garments(t, "vit"), t.TempDir()}},
		{exitError, "missing", []string{garments(t, "vit"), filepath.Join(dir, "nothing")}},
		{exitError, `1 of the data set's 3 classes are none of the model's labels: wombat; say --classes "wombat=LABEL"`, []string{garments(t, "vit"), folders}},
		{exitError, "has no boxes", []string{garments(t, "faster_rcnn"), folders}},
		{exitError, "has no masks", []string{garments(t, "segmentation"), folders}},
		{exitError, "has no classes of images", []string{garments(t, "vit"), scenes(t, "instances.json")}},
		{exitError, "broken.csv", []string{garments(t, "vit"), broken, "--out", out}},
		{exitError, "got a data set of 1000000 classes, want at most 20000", []string{garments(t, "faster_rcnn"), many}},
		{exitError, "gives nothing to measure", []string{garments(t, "segmentation_head"), folders}},
	} {
		assert.Contains(t, fails(t, c.code, append([]string{"eval"}, c.args...)...), c.want)
	}
	left, err := os.ReadDir(out)
	require.NoError(t, err)
	assert.Empty(t, left, "nothing half-written")
	e := evalJSON(t, garments(t, "vit"), folders, "--classes", "wombat=")
	assert.Equal(t, []string{"T-shirt/top", "Sneaker"}, []string{e.Classes[0].Label, e.Classes[1].Label})
	e = evalJSON(t, garments(t, "vit"), folders, "--classes", "index")
	assert.Equal(t, "T-shirt/top", e.Classes[0].Label, "by place")
}

func TestMatchClasses(t *testing.T) {
	set := func(classes ...string) *dataset.Set { return &dataset.Set{Classes: classes} }
	got, err := matchClasses(set("traffic_light", "CRANE", "tench"), []string{"tench, Tinca tinca", "crane", "crane, bird", "traffic light"}, nil)
	require.NoError(t, err)
	assert.Equal(t, []int{3, 1, 0}, got, "a name as it stands goes before one of several")
	_, err = matchClasses(set("crane"), []string{"crane, machine", "crane, bird"}, nil)
	require.ErrorIs(t, err, dataset.ErrClass, "two labels of that name")
	got, err = matchClasses(set("n01440764", "n01443537"), []string{"tench", "goldfish"}, nil)
	require.NoError(t, err)
	assert.Equal(t, []int{0, 1}, got, "ImageNet's folders")
	got, err = matchClasses(&dataset.Set{Classes: []string{"person", "toothbrush"}, IDs: []int64{1, 90}}, nil, nil)
	require.NoError(t, err)
	assert.Equal(t, []int{1, 90}, got, "COCO's ids, where the model has no labels")
	got, err = matchClasses(set(), []string{"a"}, nil)
	require.NoError(t, err)
	assert.Nil(t, got)
	got, err = matchClasses(set("x", "y"), []string{"a", "b"}, []string{"x=b", "y="})
	require.NoError(t, err)
	assert.Equal(t, []int{1, dataset.LeftOut}, got)
	_, err = matchClasses(set("x", "y"), []string{"a"}, []string{"index"})
	require.ErrorContains(t, err, "y is number 1, and the model has 1 labels")
}

// stub is an evaluation without a model.
type stub struct {
	counted []string
	running atomic.Int32
	most    atomic.Int32
	fail    error
	stop    func()
}

func (s *stub) run(ctx context.Context, images []dataset.Image, photos []transforms.Source) (any, error) {
	s.most.Store(max(s.most.Load(), s.running.Add(1)))
	defer s.running.Add(-1)
	var names []string
	for i, img := range images {
		if photos[i].(*transforms.Image).Width() == 0 {
			return nil, errors.New("no photo")
		}
		names = append(names, img.Path)
	}
	return names, ctx.Err()
}

func (s *stub) add(_ []dataset.Image, answers any) error {
	s.counted = append(s.counted, answers.([]string)...)
	if len(s.counted) > 6 {
		if s.stop != nil {
			s.stop()
		}
		return s.fail
	}
	return nil
}
func (s *stub) report(*evalReport) error       { return nil }
func (s *stub) write(string) ([]string, error) { return nil, nil }
func (s *stub) Close() error                   { return nil }

func TestEachBatch(t *testing.T) {
	photos := photoFiles(t)
	var images []dataset.Image
	for i := range 23 {
		images = append(images, dataset.Image{Path: photos[i%len(photos)], ID: int64(i)})
	}
	var want []string
	for _, img := range images {
		want = append(want, img.Path)
	}
	a := &app{stderr: &strings.Builder{}}
	s := &stub{}
	require.NoError(t, a.eachBatch(t.Context(), images, 3, s))
	assert.Equal(t, want, s.counted, "in order")
	assert.LessOrEqual(t, s.most.Load(), int32(2))

	s = &stub{fail: errors.New("no good")}
	require.ErrorContains(t, a.eachBatch(t.Context(), images, 1, s), "no good")
	assert.Len(t, s.counted, 7)
	assert.Zero(t, s.running.Load(), "no work is left behind")

	// Ctrl-C in the middle.
	ctx, cancel := context.WithCancel(t.Context())
	s = &stub{stop: cancel}
	require.ErrorIs(t, a.eachBatch(ctx, images, 1, s), context.Canceled)
	assert.Less(t, len(s.counted), len(images))
	assert.Zero(t, s.running.Load())
	require.NoError(t, a.eachBatch(t.Context(), nil, 4, &stub{}))

	images[9].Path = scenes(t, "README.md")
	require.ErrorContains(t, a.eachBatch(t.Context(), images, 2, &stub{}), "README.md")
}

func TestEvalStopsWithoutFiles(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out := t.TempDir()
	var stdout, stderr strings.Builder
	code := run(ctx, []string{"eval", garments(t, "vit"), scenes(t, "singles.csv"), "--out", out}, strings.NewReader(""), &stdout, &stderr)
	assert.Equal(t, exitError, code)
	assert.Equal(t, "torchvit: interrupted\n", stderr.String())
	assert.Empty(t, stdout.String())
	left, err := os.ReadDir(out)
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestMaskOptions(t *testing.T) {
	o, err := (&datasetFlags{maskValues: "255=1, 3=0", reduceZero: true}).maskOptions()
	require.NoError(t, err)
	assert.True(t, o.ReduceZeroLabel)
	assert.Equal(t, []uint8{1, 0, 7}, []uint8{o.Map[255], o.Map[3], o.Map[7]})
	o, err = (&datasetFlags{maskValues: "cityscapes"}).maskOptions()
	require.NoError(t, err)
	assert.Equal(t, dataset.CityscapesTrainIDs(), o.Map)
	assert.Equal(t, []uint8{}, (&datasetFlags{ignore: []int{-1}}).ignored())
	assert.Equal(t, []uint8{0, 255}, (&datasetFlags{ignore: []int{0, 255}}).ignored())
}

// TestEvalOfMasks measures masks against ground truth that is made of them: some shifted, some left out.
func TestEvalOfMasks(t *testing.T) {
	testmain.NotShort(t)
	e := &detectionEvaluation{set: &dataset.Set{}}
	truth := &coco.Dataset{Categories: []coco.Category{{ID: 3, Name: "cat"}, {ID: 7, Name: "dog"}}}
	for i := range 6 {
		img := dataset.Image{ID: int64(i + 1), Width: 120, Height: 90}
		e.set.Images = append(e.set.Images, img)
		truth.Images = append(truth.Images, coco.Image{ID: img.ID, Height: 90, Width: 120})
		for k := range 4 {
			box := coco.Box{float64(5 + 25*k), float64(4 + 9*i), float64(14 + k + i), float64(20 - i)}
			mask, err := coco.FromBox(box, 90, 120)
			require.NoError(t, err)
			truth.Annotations = append(truth.Annotations, coco.Annotation{
				ID: int64(len(truth.Annotations) + 1), ImageID: img.ID, CategoryID: []int64{3, 7}[k%2], Box: box, Area: float64(mask.Area()),
				Segmentation: coco.Segmentation{Mask: &mask},
			})
			if (i+k)%5 == 0 {
				continue
			}
			moved := coco.Box{box[0] + float64((i*k)%7), box[1] + float64(i%4), box[2], box[3]}
			mask, err = coco.FromBox(moved, 90, 120)
			require.NoError(t, err)
			loose := coco.Box{moved[0] - 1, moved[1], moved[2] + 2, moved[3] + 1}
			e.results = append(e.results, coco.Result{ImageID: img.ID, CategoryID: []int64{3, 7}[(k+i/4)%2], Score: 1 / float64(2+i+3*k), Box: &loose, Mask: &mask})
		}
	}
	e.truth = truth
	dir := t.TempDir()
	gt, dt := filepath.Join(dir, "gt.json"), filepath.Join(dir, "dt.json")
	require.NoError(t, coco.WriteDatasetFile(gt, truth))
	require.NoError(t, coco.WriteResultsFile(dt, e.results))
	r := &evalReport{Metrics: map[string]vit.Float{}}
	require.NoError(t, e.report(r))
	var want map[string]struct {
		Stats   []float64
		Classes map[string]float64
	}
	text := testmain.RunPython(t, "-W", "ignore", evalReference, "--detections", dt, "--truth", gt, "--kind", "bbox", "--kind", "segm")
	require.NoError(t, json.Unmarshal([]byte(text), &want))
	require.Len(t, r.Figures, 24)
	for i, f := range r.Figures {
		kind := []string{"bbox", "segm"}[i/12]
		v := want[kind].Stats[i%12]
		if v == -1 {
			assert.True(t, math.IsNaN(f.value))
			continue
		}
		assert.InDelta(t, v, f.value, 1e-9, f.name)
	}
	nontrivial(t, slices.DeleteFunc(append(want["bbox"].Stats, want["segm"].Stats...), func(v float64) bool { return v == -1 })...)
	assert.NotEqual(t, want["bbox"].Stats[0], want["segm"].Stats[0])
	require.Len(t, r.Classes, 2)
	assert.InDelta(t, want["segm"].Classes["dog"], float64(r.Classes[1].Metrics["segm AP"]), 1e-9)
}
