package train

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/loader"
	"github.com/torchvit/torchvit/seg"
	"github.com/torchvit/torchvit/vit"
)

// Data is a data set as a model sees it.
type Data struct {
	Set *dataset.Set
	// Classes is the model's class for each of the set's, dataset.LeftOut for what does not count; nil where the
	// set's are the model's.
	Classes []int
	// Masks say what the values of mask files mean, before Classes; Ignore are those that do not count after
	// Classes.
	Masks  dataset.MaskOptions
	Ignore []uint8
}

// background tells whether a label is that of where nothing is.
func background(label string) bool { return label == "background" || label == "__background__" }

// labelsFor are the labels of a model whose head is made for a data set.
func (m *Model) labelsFor(set *dataset.Set, given []string) ([]string, error) {
	labels, err := classesGiven(set, given)
	if err != nil {
		return nil, err
	}
	if len(labels) == 0 {
		return nil, fmt.Errorf("%w: the data set does not name its classes; give the labels of the result", ErrClasses)
	}
	switch {
	case background(labels[0]):
	case m.meta.Task == vit.TaskDetection && (m.meta.Output.Kind == "" || m.meta.Output.Kind == vit.OutputDetections):
		labels = append([]string{"__background__"}, labels...)
	case (m.meta.Task == vit.TaskSegmentation || m.meta.Task == vit.TaskSegmentationHead) &&
		(set.Kind == dataset.COCO || len(m.meta.Labels) > 0 && background(m.meta.Labels[0])):
		labels = append([]string{"background"}, labels...)
	}
	return labels, nil
}

// Data matches a data set's classes with the model's labels: see [dataset.Set.Match]. Where they are others, the
// error is ErrClasses.
func (m *Model) Data(set *dataset.Set, given ...string) (*Data, error) {
	labels := m.labels()
	if len(labels) == 0 && len(given) == 0 && m.meta.Output.Kind == vit.OutputYOLOGrid {
		given = []string{"index"} // a grid's classes count from 0, COCO's ids from 1
	}
	classes, err := set.Match(labels, given...)
	if errors.Is(err, dataset.ErrClass) {
		return nil, fmt.Errorf("%w: %w; or --init-head=classes gives the model new outputs for the data set's own classes (train.Options.Head)", ErrClasses, err)
	}
	if err != nil {
		return nil, err
	}
	return &Data{Set: set, Classes: classes, Ignore: []uint8{dataset.Ignored}}, nil
}

// class is the model's class for one of the set's.
func (d *Data) class(c int) int {
	if d.Classes == nil || c < 0 || c >= len(d.Classes) {
		return c
	}
	return d.Classes[c]
}

// counted is Ignored for a pixel's class that does not count.
func (d *Data) counted(class int) int {
	if class >= 0 && class <= dataset.Ignored && slices.Contains(d.Ignore, uint8(class)) {
		return dataset.Ignored
	}
	return class
}

// maskOptions reads masks' files into the model's classes.
func (d *Data) maskOptions() dataset.MaskOptions {
	o := d.Masks
	table := new([256]uint8)
	for v := range table {
		class := uint8(v)
		if o.Map != nil {
			class = o.Map[v]
		}
		if d.Classes != nil && int(class) < len(d.Classes) {
			if c := d.Classes[class]; c < 0 || c > dataset.Ignored {
				class = dataset.Ignored
			} else {
				class = uint8(c)
			}
		}
		if slices.Contains(d.Ignore, class) {
			class = dataset.Ignored
		}
		table[v] = class
	}
	o.Map = table
	return o
}

// labels are the model's; of a binary mask, the background's comes first.
func (m *Model) labels() []string {
	if m.meta.Task == vit.TaskSegmentation || m.meta.Task == vit.TaskSegmentationHead {
		return seg.Labels(&m.meta)
	}
	return m.meta.Labels
}

// backgroundOf is the class of pixels without an object, in masks that are made of outlines.
func (m *Model) backgroundOf(d *Data) uint8 {
	if labels := m.labels(); len(labels) > 0 && background(labels[0]) {
		return uint8(d.counted(0))
	}
	return dataset.Ignored
}

// classesGiven are a data set's classes as Options.Classes name them and leave them out: those that a new head is
// made for. The error is dataset.ErrGiven.
func classesGiven(set *dataset.Set, given []string) ([]string, error) {
	names, of := slices.Clone(set.Classes), dataset.NamesOf(set.Classes)
	for _, text := range given {
		name, label, ok := strings.Cut(text, "=")
		if !ok { // index or id: by place
			return names, nil
		}
		class, ok := of.Find(name)
		if n, err := strconv.Atoi(name); !ok && err == nil && n >= 0 && n < len(names) {
			class, ok = n, true
		}
		if !ok {
			return nil, fmt.Errorf("classes %s: %w: the data set has no class %s", text, dataset.ErrGiven, name)
		}
		names[class] = label
	}
	var out []string
	for _, name := range names {
		if name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// Loader makes a loader of the data for a model's task: o is completed with the model's preprocess, the targets
// and the classes.
func (d *Data) Loader(m *Model, task Task, o loader.Options) (*loader.Loader, error) {
	o.Spec = m.meta.Preprocess
	if s, ok := task.(segmentation); ok && s.features != nil {
		o.Spec = s.features.spec() // the ViT sees the photos
	}
	o.Targets, o.List = task.Targets()
	o.Classes = slices.Clone(d.Classes)
	o.Labels = nil
	if d.Classes == nil && len(d.Set.Classes) > 0 { // by place: they are the model's
		o.Classes = make([]int, len(d.Set.Classes))
		for i := range o.Classes {
			o.Classes[i] = i
		}
	}
	if o.Targets&loader.Masks != 0 {
		o.MaskOptions = d.maskOptions()
		if slices.ContainsFunc(d.Set.Images, func(img dataset.Image) bool { return img.Mask != "" }) {
			o.Classes = nil // the table has them in it
		}
		for i, c := range o.Classes {
			o.Classes[i] = d.counted(c)
		}
		b := m.backgroundOf(d)
		o.Background = &b
	}
	return loader.New(d.Set, o)
}
