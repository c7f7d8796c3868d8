package det

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/torchvit/torchvit/torch"
)

// NMS says which boxes suppress each other.
type NMS string

// The kinds of suppression.
const (
	// NMSDefault is the kind of output's own: NMSClass for OutputYOLO and OutputYOLOGrid, else NMSNone,
	// as torchvision's detectors suppress inside the file and set predictions need none.
	NMSDefault NMS = ""
	// NMSNone suppresses nothing.
	NMSNone NMS = "none"
	// NMSClass compares boxes of one class: torchvision.ops.batched_nms; for OutputYOLO ultralytics' way,
	// which moves the boxes of class c by 7680*c pixels.
	NMSClass NMS = "class"
	// NMSAgnostic compares all boxes: torchvision.ops.nms.
	NMSAgnostic NMS = "agnostic"
)

// DetectOptions say which detections count. The zero value takes the file's thresholds, else what Python does
// for the kind of output.
//
// In order: of each candidate the best class (MultiLabel: every class), threshold, class filter,
// suppression, at most MaxDetections.
type DetectOptions struct {
	// MaxBatch is how many photos run at once; 0 does not limit them.
	MaxBatch int
	// Threshold, 0 to 1, drops what has a lower score; 0 is the file's thresholds.score, else 0.5, of the
	// YOLO kinds 0.25. Below 0 nothing is dropped. A score that equals it stays for OutputDetections and goes
	// for the other kinds, as transformers and ultralytics have it.
	Threshold float32
	// ClassThresholds replace Threshold for classes, by label, or by index as text ("17").
	ClassThresholds map[string]float32
	// Classes are those that count, by label or by index as text; none: all.
	Classes []string
	// NMS says which boxes suppress each other.
	NMS NMS
	// IoU, 0 to 1: boxes that overlap more with one of a higher score are suppressed. 0 is the file's
	// thresholds.iou, else 0.45 for the YOLO kinds and 0.5 for others.
	IoU float64
	// SoftNMS lowers the scores of overlapping boxes in place of dropping them; NMSDefault is NMSClass then.
	// What falls below its threshold is dropped. See [SoftNMS].
	SoftNMS SoftMethod
	// Sigma of SoftGaussian; 0 is 0.5.
	Sigma float64
	// MaxDetections limits the detections of a photo, the best ones; 0 is 300 for the YOLO kinds, else no
	// limit, and so is a number below 0.
	MaxDetections int
	// TopK is transformers' top_k for OutputSetPredictionSigmoid: how many of queries times classes are looked
	// at. 0 is the number of queries, as RT-DETR; Deformable DETR takes 100.
	TopK int
	// MultiLabel gives a detection for each class of a candidate that reaches its threshold: ultralytics'
	// multi_label, for OutputYOLO and OutputYOLOGrid.
	MultiLabel bool
	// MaskThreshold, 0 to 1, is below the probabilities of a mask's pixels; 0 is the file's thresholds.mask,
	// else 0.5.
	MaskThreshold float32
}

// filter is DetectOptions with classes as indices.
type filter struct {
	o                DetectOptions
	classes          map[int]bool
	thresholds       map[int]float32
	score, iou, mask *float64 // the file's
}

func (d *Detector) newFilter(o DetectOptions) (*filter, error) {
	f := &filter{o: o, thresholds: map[int]float32{}}
	if t := d.Metadata().Thresholds; t != nil {
		f.score, f.iou, f.mask = t.Score, t.IoU, t.Mask
	}
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("detect: %w: %w", torch.ErrInvalidArgument, err)
	}
	for _, name := range o.Classes {
		ids, err := d.classes(name)
		if err != nil {
			return nil, err
		}
		if f.classes == nil {
			f.classes = map[int]bool{}
		}
		for _, id := range ids {
			f.classes[id] = true
		}
	}
	for name, t := range o.ClassThresholds {
		ids, err := d.classes(name)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			f.thresholds[id] = t
		}
	}
	return f, nil
}

func (o *DetectOptions) validate() error {
	share := func(what string, v float64) error {
		if v >= 0 && v <= 1 {
			return nil
		}
		return fmt.Errorf("%s: got %v, want 0 to 1", what, v)
	}
	if o.MaxBatch < 0 {
		return fmt.Errorf("batch: got %d photos, want 1 or more, or 0 for no limit", o.MaxBatch)
	}
	if !(o.Threshold <= 1) {
		return fmt.Errorf("threshold: got %v, want at most 1", o.Threshold)
	}
	for name, t := range o.ClassThresholds {
		if err := share("threshold of "+name, float64(t)); err != nil {
			return err
		}
	}
	if err := cmp.Or(share("IoU", o.IoU), share("mask threshold", float64(o.MaskThreshold))); err != nil {
		return err
	}
	switch o.NMS {
	case NMSDefault, NMSNone, NMSClass, NMSAgnostic:
	default:
		return fmt.Errorf("NMS: got %q, want none, class or agnostic", string(o.NMS))
	}
	if o.SoftNMS != SoftNone && o.NMS == NMSNone {
		return fmt.Errorf("NMS: got none with soft-NMS, want class or agnostic")
	}
	return SoftOptions{Method: o.SoftNMS, IoU: o.IoU, Sigma: o.Sigma}.validate()
}

// classes gives the indices of the classes of that name, else of that index.
func (d *Detector) classes(name string) ([]int, error) {
	labels := d.Metadata().Labels
	var ids []int
	for id, label := range labels {
		if label == name {
			ids = append(ids, id)
		}
	}
	if ids != nil {
		return ids, nil
	}
	if id, err := strconv.Atoi(name); err == nil && id >= 0 && (len(labels) == 0 || id < len(labels)) {
		return []int{id}, nil
	}
	want := "an index, as the file has no labels"
	if n := len(labels); n > 0 {
		want = fmt.Sprintf("one of its labels (%s) or an index of 0 to %d", shorten(labels), n-1)
	}
	return nil, fmt.Errorf("detect: %w: got the class %q, want %s", torch.ErrInvalidArgument, name, want)
}

// shorten lists labels in one short line.
func shorten(labels []string) string {
	const shown = 8
	if len(labels) > shown {
		labels = append(slices.Clip(labels[:shown]), "...")
	}
	return strings.Join(labels, ", ")
}

// settings are a filter's for one kind of output.
type settings struct {
	*filter
	kind      *kind
	threshold float32
	floor     float64 // the lowest of all thresholds
	limit     int
	nms       NMS
	maxIoU    float64
	maskAbove float32
}

func (f *filter) settings(k *kind) *settings {
	s := &settings{filter: f, kind: k, threshold: f.o.Threshold, limit: f.o.MaxDetections, nms: f.o.NMS}
	or := func(given float64, file *float64, fallback float64) float64 {
		switch {
		case given != 0:
			return given
		case file != nil:
			return *file
		}
		return fallback
	}
	s.threshold = float32(or(float64(f.o.Threshold), f.score, float64(k.threshold)))
	s.maxIoU = or(f.o.IoU, f.iou, k.iou)
	s.maskAbove = float32(or(float64(f.o.MaskThreshold), f.mask, 0.5))
	if s.limit == 0 {
		s.limit = k.limit
	}
	if s.nms == NMSDefault {
		s.nms = k.nms
		if f.o.SoftNMS != SoftNone && s.nms == NMSNone {
			s.nms = NMSClass
		}
	}
	s.floor = float64(s.threshold)
	for _, t := range f.thresholds {
		s.floor = min(s.floor, float64(t))
	}
	return s
}

// counts tells whether a score is high enough for its class. NaN never is.
func (s *settings) counts(label int, score float32) bool {
	t, ok := s.thresholds[label]
	if !ok {
		t = s.threshold
	}
	switch {
	case t < 0:
		return score == score
	case s.kind.reaches:
		return score >= t
	}
	return score > t
}

// candidate is one that counts: index is its place in the output.
type candidate struct {
	box   Box
	label int
	score float32
	index int
}

// choose applies the options to an output, best score first.
func (s *settings) choose(ctx context.Context, out *Output) ([]candidate, error) {
	list, err := candidates(out)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(c candidate) bool {
		return !s.counts(c.label, c.score) || s.classes != nil && !s.classes[c.label]
	})
	if s.nms != NMSNone {
		if list, err = s.suppress(ctx, list); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(list, func(a, b candidate) int { return cmp.Compare(b.score, a.score) })
	if s.limit > 0 && len(list) > s.limit {
		list = list[:s.limit]
	}
	return list, nil
}

// candidates copies an output.
func candidates(out *Output) ([]candidate, error) {
	boxes, err := torch.CopyData[float32](out.Boxes)
	if err != nil {
		return nil, err
	}
	scores, err := torch.CopyData[float32](out.Scores)
	if err != nil {
		return nil, err
	}
	labels, err := torch.CopyData[int64](out.Labels)
	if err != nil {
		return nil, err
	}
	list := make([]candidate, len(scores))
	for i := range list {
		b := boxes[4*i : 4*i+4]
		list[i] = candidate{Box{b[0], b[1], b[2], b[3]}, int(labels[i]), scores[i], i}
	}
	return list, nil
}
