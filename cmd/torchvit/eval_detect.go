package main

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"

	"github.com/torchvit/torchvit/coco"
	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/det"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// detectionEvaluation measures a detector.
type detectionEvaluation struct {
	model     *det.Detector
	set       *dataset.Set
	o         det.DetectOptions
	truth     *coco.Dataset
	category  map[int]int64 // of the model's classes, the data set's category
	class     map[int64]int // of the data set's categories, their place
	left      map[int]bool  // the data set's classes that do not count
	results   []coco.Result
	confusion *det.ConfusionMatrix // by the data set's classes
	title     string
}

func newDetectionEvaluation(path string, set *dataset.Set, f *evalFlags, o vit.Options) (evaluation, error) {
	if set.Kind == dataset.Folder || set.Kind == dataset.List || set.Kind == dataset.Masks {
		return nil, fmt.Errorf("%w: a data set of the kind %s has no boxes, which a detector is measured on; want coco, voc or yolo", dataset.ErrKind, set.Kind)
	}
	model, err := det.Load(path, o)
	if err != nil {
		return nil, err
	}
	e := &detectionEvaluation{model: model, set: set, o: f.detectOptions(model.Metadata())}
	if err := e.prepare(f.classes); err != nil {
		model.Close()
		return nil, err
	}
	return e, nil
}

// detectOptions are those of a measurement: AP wants detections of low scores too, so that what the model's own
// threshold would drop stays.
func (f *evalFlags) detectOptions(m *vit.Metadata) det.DetectOptions {
	o := det.DetectOptions{Threshold: -1, MaxDetections: f.max, IoU: f.iou}
	switch m.Output.Kind {
	case vit.OutputYOLO, vit.OutputYOLOEnd2End, vit.OutputYOLOGrid:
		o.Threshold = 0.001 // ultralytics' val
		if o.IoU == 0 && (m.Thresholds == nil || m.Thresholds.IoU == nil) {
			o.IoU = 0.7
		}
	}
	if f.given("threshold") {
		if o.Threshold = f.threshold; f.threshold == 0 {
			o.Threshold = -1
		}
	}
	if f.given("iou") {
		o.IoU = max(f.iou, math.SmallestNonzeroFloat64)
	}
	return o
}

// mostCategories bounds the confusion matrix, which has a number for each pair: labels without names may be any.
const mostCategories = 20_000

func (e *detectionEvaluation) prepare(given []string) error {
	labels := e.model.Metadata().Labels
	classes, err := matchClasses(e.set, labels, given)
	if err != nil {
		return err
	}
	if e.truth, err = e.set.COCO(); err != nil {
		return err
	}
	e.category, e.class, e.left = map[int]int64{}, map[int64]int{}, map[int]bool{}
	for i, c := range e.truth.Categories {
		class := i
		if classes != nil {
			class = classes[i]
		}
		e.class[c.ID] = i
		if class == dataset.LeftOut {
			e.left[i] = true
			continue
		}
		if other, twice := e.category[class]; twice {
			return fmt.Errorf("--classes: %w: the model's %s is the data set's categories %d and %d, want one", vit.ErrClass, classLabel(labels, class), other, c.ID)
		}
		e.category[class] = c.ID
	}
	e.truth.Annotations = slices.DeleteFunc(e.truth.Annotations, func(a coco.Annotation) bool { return e.left[e.class[a.CategoryID]] })
	if n := len(e.truth.Categories); n > mostCategories {
		return fmt.Errorf("%w: got a data set of %d classes, want at most %d", vit.ErrClass, n, mostCategories)
	}
	e.confusion = det.NewConfusionMatrix(len(e.truth.Categories), det.ConfusionOptions{})
	return nil
}

func (e *detectionEvaluation) Close() error { return e.model.Close() }

func (e *detectionEvaluation) run(ctx context.Context, _ []dataset.Image, photos []transforms.Source) (any, error) {
	return e.model.Detect(ctx, e.o, photos...)
}

func (e *detectionEvaluation) add(images []dataset.Image, answers any) error {
	for i, list := range answers.([][]det.Detection) {
		img := images[i]
		var found []det.Detection
		for _, d := range list {
			category, ok := e.category[d.LabelID]
			if !ok {
				continue // a class that the data set does not have
			}
			x, y, w, h := d.Box.XYWH()
			e.results = append(e.results, coco.Result{
				ImageID: img.ID, CategoryID: category, Score: float64(d.Score),
				Box: &coco.Box{float64(x), float64(y), float64(w), float64(h)}, Mask: d.Mask,
			})
			d.LabelID = e.class[category]
			found = append(found, d)
		}
		var truth []det.Truth
		for _, o := range img.Objects {
			if o.Crowd || o.Difficult || e.left[o.Class] {
				continue
			}
			b := o.Box
			truth = append(truth, det.Truth{Box: det.Box{X1: float32(b.X1), Y1: float32(b.Y1), X2: float32(b.X2), Y2: float32(b.Y2)}, LabelID: o.Class})
		}
		if err := e.confusion.Add(found, truth); err != nil {
			return inImage(img.Path, err)
		}
	}
	return nil
}

// cocoNames are the twelve numbers, in pycocotools' order.
var cocoNames = [12]string{"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"}

// types are what is measured: boxes, and masks where both sides have them.
func (e *detectionEvaluation) types() []coco.IoUType {
	types := []coco.IoUType{coco.BBox}
	masks := len(e.results) > 0
	for _, r := range e.results {
		masks = masks && r.Mask != nil
	}
	for _, a := range e.truth.Annotations {
		masks = masks && (a.Segmentation.Mask != nil || len(a.Segmentation.Polygons) > 0)
	}
	if masks {
		types = append(types, coco.Segm)
	}
	return types
}

func (e *detectionEvaluation) report(r *evalReport) error {
	// COCO's evaluation looks at the images that were seen.
	seen := make([]int64, len(e.set.Images))
	for i, img := range e.set.Images {
		seen[i] = img.ID
	}
	counts := map[int64]int64{}
	for _, a := range e.truth.Annotations {
		if !a.Crowd {
			counts[a.CategoryID]++
		}
	}
	values := map[int64][]float64{} // of each category
	for _, t := range e.types() {
		result, err := coco.Evaluate(e.truth, e.results, coco.EvalOptions{Type: t, ImageIDs: seen})
		if err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
		for i, v := range result.Stats.Values() {
			r.Figures = append(r.Figures, figure{t.String() + " " + cocoNames[i], none(v)})
		}
		r.Columns = append(r.Columns, t.String()+" AP", t.String()+" AP50", t.String()+" AR100")
		for k, s := range result.PerCategory {
			id := result.CategoryIDs[k]
			values[id] = append(values[id], none(s.AP), none(s.AP50), none(s.AR100))
		}
	}
	for _, c := range e.truth.Categories {
		if n := counts[c.ID]; n > 0 {
			r.addClass(c.Name, n, values[c.ID]...)
		}
	}
	e.title = fmt.Sprintf("%s on %s: AP %s", r.Model, r.Dataset, fraction(r.Figures[0].value))
	return nil
}

// none makes NaN of COCO's -1, which says that there is nothing to average.
func none(v float64) float64 {
	if v < 0 {
		return math.NaN()
	}
	return v
}

func (e *detectionEvaluation) write(dir string) ([]string, error) {
	labels := make([]string, 0, len(e.truth.Categories)+1)
	for _, c := range e.truth.Categories {
		labels = append(labels, c.Name)
	}
	labels = append(labels, "background")
	files, err := writeConfusion(dir, e.title, e.confusion.ConfusionMatrix, labels)
	if err != nil {
		return files, err
	}
	path := filepath.Join(dir, "detections.json")
	if err := coco.WriteResultsFile(path, e.results); err != nil {
		return files, err
	}
	return append(files, path), nil
}
