package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/internal/annotate"
	"github.com/torchvit/torchvit/internal/ordered"
	"github.com/torchvit/torchvit/internal/whole"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// evalFlags are the flags of eval.
type evalFlags struct {
	datasetFlags
	batch, limit, top, max int
	threshold              float32
	iou                    float64
	head, out              string
	describing             *describing
}

func newEvalCommand(a *app) *cobra.Command {
	f := &evalFlags{}
	cmd := &cobra.Command{
		Use:   "eval MODEL DATASET",
		Short: "Measure a model on a data set",
		Long: "eval runs a model over a data set and measures its answers: top-1 and top-k accuracy of a classifier,\n" +
			"mIoU, mean accuracy, Dice and pixel accuracy of a segmentation model, COCO's twelve numbers for the boxes\n" +
			"and masks of a detector. docs/eval.md has the conventions, which are those of torchmetrics,\n" +
			"mmsegmentation and pycocotools.\n\n" +
			"DATASET is recognised: a folder of images for each class; a CSV or TSV list of path and class; COCO's\n" +
			"instances (a JSON file, or a folder with annotations/*.json); Pascal VOC; YOLO (data.yaml, or images and\n" +
			"labels); images and masks (PNG files whose pixels are classes).\n\n" +
			"The data set's classes are the model's labels of the same name, whatever the case; --classes gives others.\n" +
			"With --out it writes confusion.png, confusion.csv, classes.csv, results.json, and in the form of COCO's\n" +
			"results detections.json of a detector or segmentations.json of a segmentation model.",
		Example: "  torchvit eval vit_tiny.pt imagenet/val\n" +
			"  torchvit eval segmentation.pt ADEChallengeData2016 --reduce-zero-label --out results\n" +
			"  torchvit eval segmentation.pt VOCdevkit/VOC2012 --json\n" +
			"  torchvit eval detector.pt coco/annotations/instances_val2017.json --images coco/val2017 --limit 500\n" +
			"  torchvit eval detector.pt data.yaml --classes pedestrian=person,tram=",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("eval: got %d arguments, want a model file and a data set", len(args))
			}
			return nil
		},
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return a.eval(cmd.Context(), args[0], args[1], f)
		},
	}
	flags := cmd.Flags()
	f.add(cmd)
	flags.IntVar(&f.batch, "batch", 1, "`images` in a forward; more may change the last bits")
	flags.IntVar(&f.limit, "limit", 0, "most `images`, the first ones (default: all)")
	flags.IntVar(&f.top, "top", 5, "`k` of a classifier's top-k accuracy")
	flags.Float32Var(&f.threshold, "threshold", 0, "lowest `score` of a detection (default: of a YOLO 0.001, else what the file gives, as AP wants low ones too)")
	flags.Float64Var(&f.iou, "iou", 0, "`overlap` from which a YOLO's boxes suppress each other (default: the file's, else 0.7)")
	flags.IntVar(&f.max, "max", 0, "most `detections` of an image (default: 300 of a YOLO, else what the file gives; COCO counts 100 of a class)")
	flags.StringVar(&f.head, "head", "", "model `file` of a segmentation head; MODEL is then a ViT's")
	flags.StringVar(&f.out, "out", "", "`folder` for the confusion matrix, figures of each class and detections")
	f.describing = a.describeFlags(cmd)
	cmd.Flags().Lookup("task").Usage = "`task` of a file that does not say it: classification, segmentation or detection"
	a.precisionFlag(cmd)
	return cmd
}

// check checks the flags.
func (f *evalFlags) check() error {
	for _, v := range []struct {
		name         string
		value, least int
	}{{"batch", f.batch, 1}, {"limit", f.limit, 1}, {"top", f.top, 1}, {"max", f.max, 1}} {
		if f.given(v.name) && v.value < v.least {
			return usagef("--%s %d: want %d or more", v.name, v.value, v.least)
		}
	}
	for name, v := range map[string]float64{"threshold": float64(f.threshold), "iou": f.iou} {
		if f.given(name) && !(v >= 0 && v <= 1) {
			return usagef("--%s %v: want 0 to 1", name, v)
		}
	}
	return f.checkDataset()
}

// evaluation is the measuring of one task.
type evaluation interface {
	// run gives the answers for a batch of images; it runs on several goroutines.
	run(ctx context.Context, images []dataset.Image, photos []transforms.Source) (any, error)
	// add counts the answers of a batch, in the order of the images.
	add(images []dataset.Image, answers any) error
	// report says what was measured.
	report(r *evalReport) error
	// write writes the task's files into a folder.
	write(dir string) ([]string, error)
	Close() error
}

// evalReport is what eval prints.
type evalReport struct {
	Model   string  `json:"model"`
	Dataset string  `json:"dataset"`
	Kind    string  `json:"kind"`
	Task    string  `json:"task"`
	Images  int     `json:"images"`
	Missing int     `json:"missing,omitempty"`
	Seconds float64 `json:"seconds"`
	// Ignored are the pixels of masks that did not count.
	Ignored int64 `json:"ignored_pixels,omitempty"`
	// Note is what looks wrong.
	Note string `json:"note,omitempty"`
	// Figures are the main ones, by name, 0 to 1.
	Figures []figure `json:"-"`
	// Metrics are Figures for JSON.
	Metrics map[string]vit.Float `json:"metrics"`
	// Columns are the names of the figures of each class.
	Columns []string      `json:"-"`
	Classes []classFigure `json:"classes"`
}

type figure struct {
	name  string
	value float64
}

type classFigure struct {
	Label   string               `json:"label"`
	Count   int64                `json:"count"`
	Metrics map[string]vit.Float `json:"metrics"`
	values  []float64
}

// addClass notes the figures of a class, in the order of Columns.
func (r *evalReport) addClass(label string, count int64, values ...float64) {
	c := classFigure{Label: label, Count: count, Metrics: map[string]vit.Float{}, values: values}
	for i, v := range values {
		c.Metrics[r.Columns[i]] = vit.Float(v)
	}
	r.Classes = append(r.Classes, c)
}

// fraction writes a figure with four digits; "-" where there is none.
func fraction(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return strconv.FormatFloat(v, 'f', 4, 64)
}

func (r *evalReport) print(w io.Writer) error {
	fmt.Fprintf(w, "%s on %s (%s): %d images in %.1f s\n", r.Model, r.Dataset, r.Kind, r.Images, r.Seconds)
	if r.Missing > 0 {
		fmt.Fprintf(w, "%d images are missing and left out\n", r.Missing)
	}
	if r.Ignored > 0 {
		fmt.Fprintf(w, "%s pixels are ignored\n", grouped(r.Ignored))
	}
	if r.Note != "" {
		fmt.Fprintln(w, "note: "+r.Note)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range r.Figures {
		fmt.Fprintf(t, "  %s\t%s\n", f.name, fraction(f.value))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "class\tcount\t%s\t\n", strings.Join(r.Columns, "\t"))
	for _, c := range r.Classes {
		fmt.Fprintf(t, "%s\t%d\t", c.Label, c.Count)
		for _, v := range c.values {
			fmt.Fprintf(t, "%s\t", fraction(v))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// writeClasses writes the figures of each class as CSV, with all digits.
func (r *evalReport) writeClasses(w io.Writer) error {
	out := csv.NewWriter(w)
	if err := out.Write(append([]string{"class", "count"}, r.Columns...)); err != nil {
		return err
	}
	for _, c := range r.Classes {
		row := []string{c.Label, strconv.FormatInt(c.Count, 10)}
		for _, v := range c.values {
			text := ""
			if !math.IsNaN(v) {
				text = strconv.FormatFloat(v, 'g', -1, 64)
			}
			row = append(row, text)
		}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

func (a *app) eval(ctx context.Context, path, data string, f *evalFlags) error {
	device, err := a.open()
	if err != nil {
		return err
	}
	options, err := f.describing.options(path, "", device)
	if err != nil {
		return err
	}
	task := options.Metadata.Task
	if f.head != "" {
		task = vit.TaskSegmentation
	}
	f.o.Segmentation = task == vit.TaskSegmentation
	set, err := dataset.Read(data, dataset.Kind(f.kind), f.o)
	if err != nil {
		return err
	}
	if f.limit > 0 && f.limit < len(set.Images) {
		set.Images = set.Images[:f.limit]
	}
	var e evaluation
	switch task {
	case vit.TaskClassification:
		e, err = newClassification(path, set, f, options)
	case vit.TaskSegmentation:
		e, err = newSegmentationEvaluation(path, set, f, options)
	case vit.TaskDetection:
		e, err = newDetectionEvaluation(path, set, f, options)
	default:
		err = fmt.Errorf("%s: %w: a file of the task %s gives nothing to measure, want %s, %s or %s", path, vit.ErrTask, task,
			vit.TaskClassification, vit.TaskSegmentation, vit.TaskDetection)
	}
	if err != nil {
		return err
	}
	defer e.Close()
	if f.out != "" {
		if err := os.MkdirAll(f.out, 0o777); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	start := time.Now()
	if err := a.eachBatch(ctx, set.Images, f.batch, e); err != nil {
		return err
	}
	report := &evalReport{
		Model: filepath.Base(path), Dataset: data, Kind: string(set.Kind), Task: task, Images: len(set.Images), Missing: len(set.Missing),
		Seconds: math.Round(time.Since(start).Seconds()*1000) / 1000, Metrics: map[string]vit.Float{}, Classes: []classFigure{},
	}
	if err := e.report(report); err != nil {
		return err
	}
	for _, x := range report.Figures {
		report.Metrics[x.name] = vit.Float(x.value)
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	var files []string
	if f.out != "" {
		if files, err = report.write(f.out, e); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	if a.json {
		err = a.printJSON(report)
	} else {
		err = report.print(a.stdout)
	}
	for _, file := range files {
		fmt.Fprintln(a.stderr, "wrote "+file)
	}
	return err
}

// write writes the files of --out.
func (r *evalReport) write(dir string, e evaluation) ([]string, error) {
	files, err := e.write(dir)
	if err != nil {
		return files, err
	}
	classes, results := filepath.Join(dir, "classes.csv"), filepath.Join(dir, "results.json")
	if err := whole.Write(classes, r.writeClasses); err != nil {
		return files, err
	}
	files = append(files, classes)
	if err := whole.Write(results, func(w io.Writer) error { return printLine(w, r) }); err != nil {
		return files, err
	}
	return append(files, results), nil
}

// eachBatch runs an evaluation over all images. While the model runs on one batch, the photos of the next are
// decoded and prepared: there is one goroutine more than there are lanes.
func (a *app) eachBatch(ctx context.Context, images []dataset.Image, size int, e evaluation) error {
	bar := a.newProgress(len(images), "images")
	defer bar.finish()
	named := func(batch []dataset.Image, err error) error {
		if err != nil && len(batch) == 1 {
			return inImage(batch[0].Path, err)
		}
		return err
	}
	return ordered.Each(ctx, slices.Chunk(images, size), max(a.lanes, 1)+1,
		func(ctx context.Context, batch []dataset.Image) (any, error) {
			answers, err := runBatch(ctx, batch, e)
			return answers, named(batch, err)
		}, func(batch []dataset.Image, answers any) error {
			bar.add(len(batch))
			return named(batch, e.add(batch, answers))
		}, nil)
}

// runBatch decodes the photos of a batch and runs the model.
func runBatch(ctx context.Context, batch []dataset.Image, e evaluation) (any, error) {
	photos := make([]transforms.Source, len(batch))
	for i, img := range batch {
		photo, err := openPhoto(ctx, img.Path)
		if err != nil {
			return nil, inImage(img.Path, err)
		}
		defer photo.Close()
		photos[i] = photo
	}
	return e.run(ctx, batch, photos)
}

// writeConfusion writes confusion.png and confusion.csv.
func writeConfusion(dir, title string, m *vit.ConfusionMatrix, labels []string) ([]string, error) {
	img, err := m.Draw(vit.ConfusionOptions{Labels: labels, Title: title})
	if err != nil {
		return nil, err
	}
	picture, table := filepath.Join(dir, "confusion.png"), filepath.Join(dir, "confusion.csv")
	if err := annotate.WriteImage(picture, img); err != nil {
		return nil, err
	}
	if err := whole.Write(table, func(w io.Writer) error { return m.WriteCSV(w, labels) }); err != nil {
		return []string{picture}, err
	}
	return []string{picture, table}, nil
}

// classLabel is the name of a class of the model.
func classLabel(labels []string, class int) string {
	if class < len(labels) {
		return cmp.Or(labels[class], "class "+strconv.Itoa(class))
	}
	return "class " + strconv.Itoa(class)
}
