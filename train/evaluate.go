package train

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/torchvit/torchvit/coco"
	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/det"
	"github.com/torchvit/torchvit/internal/ordered"
	"github.com/torchvit/torchvit/seg"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// each runs work on every image and add on its answers, in order; while the model runs on one image, the next is
// decoded.
func each[T any](ctx context.Context, images []dataset.Image, done func(int), work func(ctx context.Context, img dataset.Image) (T, error), add func(img dataset.Image, answer T) error) error {
	named := func(img dataset.Image, err error) error {
		if err == nil || ctx.Err() != nil || strings.Contains(err.Error(), img.Path) {
			return err
		}
		return fmt.Errorf("%s: %w", img.Path, err)
	}
	n := 0
	return ordered.Each(ctx, slices.Values(images), 2, func(ctx context.Context, img dataset.Image) (T, error) {
		answer, err := work(ctx, img)
		return answer, named(img, err)
	}, func(img dataset.Image, answer T) error {
		err := named(img, add(img, answer))
		if n++; err == nil && done != nil {
			done(n)
		}
		return err
	}, nil)
}

func (c classification) Evaluate(ctx context.Context, m *Model, d *Data, done func(int)) ([]Metric, error) {
	answers, err := m.Answers()
	if err != nil {
		return nil, err
	}
	model := &vit.VisionTransformer{Model: answers}
	n := len(m.meta.Labels)
	k := 5
	var metrics *vit.ClassificationMetrics
	if n > 0 {
		metrics = vit.NewClassificationMetrics(n, k)
	}
	err = each(ctx, d.Set.Images, done, func(ctx context.Context, img dataset.Image) ([]vit.Class, error) {
		ranked, err := model.Classify(ctx, math.MaxInt32, img.Path)
		if err != nil {
			return nil, err
		}
		return ranked[0], nil
	}, func(img dataset.Image, ranked []vit.Class) error {
		truth := d.class(img.Class)
		if truth == dataset.LeftOut {
			return nil
		}
		if metrics == nil {
			metrics = vit.NewClassificationMetrics(len(ranked), k)
		}
		order := make([]int, len(ranked))
		for i, class := range ranked {
			order[i] = class.Index
		}
		return metrics.Add(truth, order)
	})
	if err != nil {
		return nil, err
	}
	if metrics == nil {
		return []Metric{{"top-1", math.NaN()}}, nil
	}
	out := []Metric{{"top-1", metrics.TopK(1)}}
	if most := metrics.Most(); most > 1 {
		out = append(out, Metric{fmt.Sprintf("top-%d", most), metrics.TopK(most)})
	}
	return out, nil
}

func (s segmentation) Evaluate(ctx context.Context, m *Model, d *Data, done func(int)) ([]Metric, error) {
	answers, err := m.Answers()
	if err != nil {
		return nil, err
	}
	segment, err := s.segmenter(answers)
	if err != nil {
		return nil, err
	}
	n := len(m.labels())
	if n == 0 {
		n = 256
	}
	metrics, err := seg.NewMetrics(seg.MetricsOptions{Classes: min(n, 256), Ignore: []uint8{dataset.Ignored}})
	if err != nil {
		return nil, err
	}
	type measured struct{ predicted, labels *seg.ClassMap }
	values := d.maskOptions()
	err = each(ctx, d.Set.Images, done, func(ctx context.Context, img dataset.Image) (out measured, err error) {
		var mask *dataset.Mask
		if img.Mask != "" {
			mask, err = dataset.ReadMask(img.Mask, values)
		} else {
			mask, err = img.Semantic(m.backgroundOf(d), func(c int) int { return d.counted(d.class(c)) })
		}
		if err != nil {
			return out, err
		}
		if out.labels, err = seg.NewClassMap(mask.Width, mask.Height, mask.Classes); err != nil {
			return out, err
		}
		maps, err := segment(ctx, img.Path)
		if err != nil {
			return out, err
		}
		defer seg.CloseAll(maps)
		out.predicted = maps[0].ClassMap
		return out, nil
	}, func(_ dataset.Image, x measured) error { return metrics.Add(x.predicted, x.labels) })
	if err != nil {
		return nil, err
	}
	scores := metrics.Scores()
	return []Metric{{"mIoU", scores.MeanIoU}, {"aAcc", scores.PixelAccuracy}}, nil
}

// segmenter gives the class maps of photos.
func (s segmentation) segmenter(answers *vit.Model) (func(context.Context, ...transforms.Source) ([]*seg.Segmentation, error), error) {
	if f, ok := s.features.(*tokens); ok {
		model := &seg.CustomSegmentationModel{ViT: f.vit, SegmentationHead: &seg.SegmentationHead{Model: answers}}
		return func(ctx context.Context, photos ...transforms.Source) ([]*seg.Segmentation, error) {
			return model.SegmentWith(ctx, seg.SegmentOptions{}, photos...)
		}, nil
	}
	model := &seg.VisionTransformerForSegmentation{VisionTransformer: &vit.VisionTransformer{Model: answers}}
	return func(ctx context.Context, photos ...transforms.Source) ([]*seg.Segmentation, error) {
		return model.SegmentWith(ctx, seg.SegmentOptions{}, photos...)
	}, nil
}

func (detection) Evaluate(ctx context.Context, m *Model, d *Data, done func(int)) ([]Metric, error) {
	return evaluateDetector(ctx, m, d, det.DetectOptions{Threshold: -1}, done)
}

func (grid) Evaluate(ctx context.Context, m *Model, d *Data, done func(int)) ([]Metric, error) {
	o := det.DetectOptions{Threshold: 0.001} // ultralytics' val
	if t := m.meta.Thresholds; t == nil || t.IoU == nil {
		o.IoU = 0.7
	}
	return evaluateDetector(ctx, m, d, o, done)
}

// evaluateDetector measures COCO's AP.
func evaluateDetector(ctx context.Context, m *Model, d *Data, o det.DetectOptions, done func(int)) ([]Metric, error) {
	answers, err := m.Answers()
	if err != nil {
		return nil, err
	}
	truth, err := d.Set.COCO()
	if err != nil {
		return nil, err
	}
	category, left := map[int]int64{}, map[int64]bool{}
	for i, c := range truth.Categories {
		class := d.class(i)
		if class == dataset.LeftOut {
			left[c.ID] = true
			continue
		}
		if other, twice := category[class]; twice {
			return nil, fmt.Errorf("%w: the model's class %d is the data set's categories %d and %d, want one", ErrClasses, class, other, c.ID)
		}
		category[class] = c.ID
	}
	truth.Annotations = slices.DeleteFunc(truth.Annotations, func(a coco.Annotation) bool { return left[a.CategoryID] })
	model := &det.Detector{Model: answers}
	var results []coco.Result
	var seen []int64
	err = each(ctx, d.Set.Images, done, func(ctx context.Context, img dataset.Image) ([]det.Detection, error) {
		found, err := model.Detect(ctx, o, img.Path)
		if err != nil {
			return nil, err
		}
		return found[0], nil
	}, func(img dataset.Image, found []det.Detection) error {
		seen = append(seen, img.ID)
		for _, x := range found {
			id, ok := category[x.LabelID]
			if !ok {
				continue
			}
			left, top, w, h := x.Box.XYWH()
			results = append(results, coco.Result{
				ImageID: img.ID, CategoryID: id, Score: float64(x.Score),
				Box: &coco.Box{float64(left), float64(top), float64(w), float64(h)}, Mask: x.Mask,
			})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	result, err := coco.Evaluate(truth, results, coco.EvalOptions{Type: coco.BBox, ImageIDs: seen})
	if err != nil {
		return nil, err
	}
	s := result.Stats
	out := []Metric{{"AP", known(s.AP)}, {"AP50", known(s.AP50)}, {"AP75", known(s.AP75)}}
	if !outlined(truth, results) {
		return out, nil
	}
	if result, err = coco.Evaluate(truth, results, coco.EvalOptions{Type: coco.Segm, ImageIDs: seen}); err != nil {
		return nil, err
	}
	return append(out, Metric{"mask AP", known(result.Stats.AP)}), nil
}

// outlined tells whether there are masks on both sides.
func outlined(truth *coco.Dataset, results []coco.Result) bool {
	return len(results) > 0 && !slices.ContainsFunc(results, func(r coco.Result) bool { return r.Mask == nil }) &&
		!slices.ContainsFunc(truth.Annotations, func(a coco.Annotation) bool {
			return a.Segmentation.Mask == nil && len(a.Segmentation.Polygons) == 0
		})
}

// known makes NaN of COCO's -1, which says that there is nothing to average.
func known(v float64) float64 {
	if v < 0 {
		return math.NaN()
	}
	return v
}
