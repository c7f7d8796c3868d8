package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/torchvit/torchvit/coco"
	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/seg"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// segmentationEvaluation measures a segmentation model.
type segmentationEvaluation struct {
	model   *segmenter
	set     *dataset.Set
	classes []int // of the data set's, the model's
	masks   dataset.MaskOptions
	ignore  []uint8
	metrics *seg.Metrics
	title   string
	keep    bool // the predictions, for write
	results []coco.Result
}

func newSegmentationEvaluation(path string, set *dataset.Set, f *evalFlags, o vit.Options) (evaluation, error) {
	for _, img := range set.Images {
		if img.Mask == "" && set.Kind != dataset.COCO {
			return nil, fmt.Errorf("%s: %w: a data set of the kind %s has no masks, which a segmentation model is measured on; want masks, voc or coco", img.Path, dataset.ErrKind, set.Kind)
		}
	}
	masks, err := f.maskOptions()
	if err != nil {
		return nil, err
	}
	model, err := loadSegmenter(path, &segmentFlags{head: f.head}, o)
	if err != nil {
		return nil, err
	}
	e := &segmentationEvaluation{model: model, set: set, masks: masks, ignore: f.ignored(), keep: f.out != ""}
	if err := e.prepare(f); err != nil {
		model.Close()
		return nil, err
	}
	return e, nil
}

func (e *segmentationEvaluation) prepare(f *evalFlags) (err error) {
	if e.classes, err = matchClasses(e.set, e.model.labels, f.classes); err != nil {
		return err
	}
	if e.classes != nil && e.set.Kind != dataset.COCO {
		// Values of masks become the model's classes.
		table := new([256]uint8)
		for v := range table {
			class := uint8(v)
			if e.masks.Map != nil {
				class = e.masks.Map[v]
			}
			switch {
			case int(class) >= len(e.classes):
			case e.classes[class] == dataset.LeftOut:
				class = dataset.Ignored
			default:
				class = uint8(e.classes[class])
			}
			table[v] = class
		}
		e.masks.Map = table
	}
	n := len(e.model.labels)
	if n == 0 {
		n = 256 // as many as are met
	}
	e.metrics, err = seg.NewMetrics(seg.MetricsOptions{Classes: min(n, 256), Ignore: e.ignore})
	return err
}

func (e *segmentationEvaluation) Close() error {
	e.model.Close()
	return nil
}

// measured is a prediction and what is true, and the prediction as masks where they are kept.
type measured struct {
	predicted, labels *seg.ClassMap
	segments          []seg.Segment
}

func (e *segmentationEvaluation) run(ctx context.Context, images []dataset.Image, photos []transforms.Source) (any, error) {
	out := make([]measured, len(images))
	for i, img := range images {
		mask, err := e.mask(img)
		if err != nil {
			return nil, err
		}
		if out[i].labels, err = seg.NewClassMap(mask.Width, mask.Height, mask.Classes); err != nil {
			return nil, inImage(img.Path, err)
		}
	}
	answers, err := e.model.segment(ctx, seg.SegmentOptions{}, photos...)
	if err != nil {
		return nil, err
	}
	defer seg.CloseAll(answers)
	for i, a := range answers {
		out[i].predicted = a.ClassMap
		if !e.keep {
			continue
		}
		if out[i].segments, err = a.Segments(e.model.labels); err != nil {
			return nil, inImage(images[i].Path, err)
		}
	}
	return out, nil
}

// mask is what is true of an image.
func (e *segmentationEvaluation) mask(img dataset.Image) (*dataset.Mask, error) {
	if img.Mask != "" {
		return dataset.ReadMask(img.Mask, e.masks)
	}
	background := uint8(dataset.Ignored)
	if labels := e.model.labels; len(labels) > 0 && isBackground(labels[0]) {
		background = 0
	}
	return img.Semantic(background, func(class int) int {
		if e.classes == nil {
			return class
		}
		return e.classes[class]
	})
}

func (e *segmentationEvaluation) add(images []dataset.Image, answers any) error {
	for i, m := range answers.([]measured) {
		if err := e.metrics.Add(m.predicted, m.labels); err != nil {
			return inImage(images[i].Path, err)
		}
		for _, s := range m.segments {
			e.results = append(e.results, coco.Result{ImageID: images[i].ID, CategoryID: int64(s.Class), Score: 1, Mask: &s.Mask})
		}
	}
	return nil
}

// confusion is the matrix of the classes that the model has, or that were met where its file does not name them.
func (e *segmentationEvaluation) confusion() *vit.ConfusionMatrix {
	m := e.metrics.Confusion
	if len(e.model.labels) > 0 {
		return m
	}
	_, truths, predictions := m.Sums()
	n := 1
	for c := range m.Classes {
		if truths[c]+predictions[c] > 0 {
			n = c + 1
		}
	}
	small := vit.NewConfusionMatrix(n)
	for t := range n {
		copy(small.Row(t), m.Row(t)[:n])
	}
	return small
}

func (e *segmentationEvaluation) report(r *evalReport) error {
	e.metrics.Confusion = e.confusion()
	s := e.metrics.Scores()
	r.Ignored = e.metrics.Ignored
	if len(s.Classes) == 2 && s.Classes[1].Labels == 0 && r.Ignored > 0 {
		r.Note = fmt.Sprintf("no label is 1 (%s), and %s pixels are ignored: masks in black and white want --mask-values 255=1", classLabel(e.model.labels, 1), grouped(r.Ignored))
	}
	r.Figures = []figure{
		{"mIoU", s.MeanIoU},
		{"mIoU (torchvision)", s.MeanIoUTorchvision},
		{"aAcc", s.PixelAccuracy},
		{"mAcc", s.MeanAccuracy},
		{"mDice", s.MeanDice},
		{"mFscore", s.MeanFScore},
		{"mPrecision", s.MeanPrecision},
		{"mRecall", s.MeanRecall},
	}
	r.Columns = []string{"IoU", "accuracy", "Dice", "precision"}
	for c, x := range s.Classes {
		if x.Labels+x.Predicted > 0 {
			r.addClass(classLabel(e.model.labels, c), x.Labels, x.IoU, x.Accuracy, x.Dice, x.Precision)
		}
	}
	e.title = fmt.Sprintf("%s on %s: mIoU %s", r.Model, r.Dataset, fraction(s.MeanIoU))
	return nil
}

func (e *segmentationEvaluation) write(dir string) ([]string, error) {
	files, err := writeConfusion(dir, e.title, e.metrics.Confusion, e.model.labels)
	if err != nil {
		return files, err
	}
	path := filepath.Join(dir, "segmentations.json")
	if err := coco.WriteResultsFile(path, e.results); err != nil {
		return files, err
	}
	return append(files, path), nil
}
