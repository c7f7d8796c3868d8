package main

import (
	"context"
	"fmt"
	"math"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// classification measures a classifier.
type classification struct {
	model   *vit.VisionTransformer
	set     *dataset.Set
	classes []int // of the data set's, the model's
	labels  []string
	top     int
	metrics *vit.ClassificationMetrics // made with the first answer
	title   string
}

func newClassification(path string, set *dataset.Set, f *evalFlags, o vit.Options) (evaluation, error) {
	for _, img := range set.Images {
		if img.Class < 0 {
			return nil, fmt.Errorf("%s: %w: a data set of the kind %s has no classes of images, which a classifier is measured on; want folder or list", img.Path, dataset.ErrKind, set.Kind)
		}
	}
	model, err := vit.Load(path, o)
	if err != nil {
		return nil, err
	}
	c := &classification{model: model, set: set, top: f.top, labels: model.Metadata().Labels}
	if err = model.Need("eval", vit.TaskClassification); err == nil {
		c.classes, err = matchClasses(set, c.labels, f.classes)
	}
	if err != nil {
		model.Close()
		return nil, err
	}
	return c, nil
}

func (c *classification) Close() error { return c.model.Close() }

func (c *classification) run(ctx context.Context, _ []dataset.Image, photos []transforms.Source) (any, error) {
	k := c.top
	if len(c.labels) == 0 {
		k = math.MaxInt32 // their number tells how many classes there are
	}
	return c.model.Classify(ctx, k, photos...)
}

func (c *classification) add(images []dataset.Image, answers any) error {
	for i, ranked := range answers.([][]vit.Class) {
		if c.metrics == nil {
			n := len(c.labels)
			if n == 0 {
				n = len(ranked)
			}
			c.metrics = vit.NewClassificationMetrics(n, c.top)
		}
		truth := images[i].Class
		if c.classes != nil {
			if truth = c.classes[truth]; truth == dataset.LeftOut {
				continue
			}
		}
		order := make([]int, len(ranked))
		for j, class := range ranked {
			order[j] = class.Index
		}
		if err := c.metrics.Add(truth, order); err != nil {
			return inImage(images[i].Path, err)
		}
	}
	return nil
}

func (c *classification) report(r *evalReport) error {
	if c.metrics == nil {
		c.metrics = vit.NewClassificationMetrics(max(len(c.labels), 1), c.top)
	}
	m := c.metrics
	accuracy, precision := m.Confusion.ClassAccuracy(), m.Confusion.Precision()
	r.Figures = append(r.Figures, figure{"top-1", m.TopK(1)})
	r.Columns = []string{"accuracy", "precision"}
	var top []float64
	if k := m.Most(); k > 1 {
		r.Figures = append(r.Figures, figure{fmt.Sprintf("top-%d", k), m.TopK(k)})
		r.Columns = append(r.Columns, fmt.Sprintf("top-%d", k))
		top = m.ClassTopK(k)
	}
	r.Figures = append(r.Figures, figure{"mean class accuracy", vit.MeanOf(accuracy)})
	_, truths, _ := m.Confusion.Sums()
	for class, n := range truths {
		if n == 0 {
			continue
		}
		values := []float64{accuracy[class], precision[class]}
		if top != nil {
			values = append(values, top[class])
		}
		r.addClass(classLabel(c.labels, class), n, values...)
	}
	c.title = fmt.Sprintf("%s on %s: top-1 %s", r.Model, r.Dataset, fraction(m.TopK(1)))
	return nil
}

func (c *classification) write(dir string) ([]string, error) {
	return writeConfusion(dir, c.title, c.metrics.Confusion, c.labels)
}
