package main

import (
	"context"
	"fmt"
	"image"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/torchvit/torchvit/coco"
	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/det"
	"github.com/torchvit/torchvit/seg"
	"github.com/torchvit/torchvit/vit"
)

// detectFlags are the flags of detect.
type detectFlags struct {
	o              det.DetectOptions
	threshold      float32
	classThreshold []string
	nms, soft      string
	iou            float64
	maskThreshold  float32
	format         string
	out, palette   string
	describing     *describing

	imageIDs map[string]int64
	results  []coco.Result
}

func newDetectCommand(a *app) *cobra.Command {
	f := &detectFlags{}
	cmd := &cobra.Command{
		Use:   "detect MODEL IMAGE...",
		Short: "Find objects in photos",
		Long: "detect prints the objects of each photo, best score first: rank, label, score, and the box's left,\n" +
			"top, right and bottom edge in the photo's own pixels. MODEL is a detector of any kind: torchvision's,\n" +
			"DETR, YOLOS, RT-DETR, YOLO.\n\n" +
			"Scores below the threshold go first, then other classes than --classes, then boxes that overlap with\n" +
			"better ones (--nms), then what is more than --max. A class is a label of the file, or its number.\n\n" +
			"Formats: text; json, a line for each photo; hf, as the object-detection pipeline of transformers gives\n" +
			"it, a line for each photo; coco, one list of results for all photos, with masks where the model has\n" +
			"some; yolo (the outlines of masks, else boxes) and voc, the text and a file for each photo in --out.\n" +
			"COCO's image_id is the number that the photo's name is (000000000139.jpg) where all names are numbers,\n" +
			"else its place from 1; category_id is the class's number in the model.",
		Example: "  torchvit detect detector.pt street.jpg --out pictures   # pictures/street.detections.jpg\n" +
			"  torchvit detect detector.pt street.jpg --threshold 0.8 --json\n" +
			"  torchvit detect detector.pt street.jpg --classes car,bus --class-threshold bus=0.3 --nms agnostic\n" +
			"  torchvit detect detector.pt photos/*.jpg --threshold 0.001 --format coco > results.json\n" +
			"  torchvit detect detector.pt photos/*.jpg --format voc --out Annotations\n" +
			"  torchvit detect bare.torchscript street.jpg --output-kind yolo --size 640 --resize letterbox --labels coco",
		Args:              modelAndImages,
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.options(cmd); err != nil {
				return err
			}
			colours, err := parsePalette(f.palette)
			if err != nil {
				return err
			}
			return a.detect(cmd.Context(), args[0], args[1:], f, colours)
		},
	}
	flags := cmd.Flags()
	flags.Float32Var(&f.threshold, "threshold", 0, "lowest `score` (default: the file's, else 0.5, of a YOLO 0.25)")
	flags.StringArrayVar(&f.classThreshold, "class-threshold", nil, "`CLASS=SCORE`: lowest score of a class; may be given again")
	flags.StringSliceVar(&f.o.Classes, "classes", nil, "`classes` that count, with commas (default: all)")
	flags.IntVar(&f.o.MaxDetections, "max", 0, "most `objects` in a photo (default: 300 of a YOLO, else no limit)")
	flags.StringVar(&f.nms, "nms", "", "boxes that suppress each other: `none`, class (those of one class) or agnostic (all) (default: class for a YOLO, else none)")
	flags.Float64Var(&f.iou, "iou", 0, "`overlap` from which boxes suppress each other (default: the file's, else 0.45 of a YOLO, 0.5)")
	flags.StringVar(&f.soft, "soft-nms", "", "lower the scores of overlapping boxes in place of dropping them: `linear` or gaussian")
	flags.Float64Var(&f.o.Sigma, "sigma", 0, "`width` of --soft-nms gaussian (default: 0.5)")
	flags.IntVar(&f.o.TopK, "top-k", 0, "RT-DETR and Deformable DETR: most `candidates` of queries times classes (default: as many as queries)")
	flags.BoolVar(&f.o.MultiLabel, "multi-label", false, "YOLO: an object for each class that reaches the threshold")
	flags.Float32Var(&f.maskThreshold, "mask-threshold", 0, "lowest `probability` of a mask's pixels (default: the file's, else 0.5)")
	flags.StringVar(&f.format, "format", "text", "`form` of the answer: "+strings.Join(detectFormats, ", "))
	flags.StringVar(&f.out, "out", "", "`folder` for the photos with boxes drawn on them, or for the files of --format yolo and voc")
	paletteFlag(cmd, &f.palette)
	f.describing = a.describeFlags(cmd)
	for name, values := range map[string][]string{
		"nms": {"none", "class", "agnostic"}, "soft-nms": {"linear", "gaussian"}, "format": detectFormats,
	} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	a.precisionFlag(cmd)
	return cmd
}

// detectFormats are the values of --format.
var detectFormats = []string{"text", "json", "hf", "coco", "yolo", "voc"}

// options checks the flags and fills f.o. There 0 stands for the file's own, so that a 0 of the command line
// becomes the number next to it.
func (f *detectFlags) options(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	for name, v := range map[string]float64{"threshold": float64(f.threshold), "iou": f.iou, "mask-threshold": float64(f.maskThreshold)} {
		if given(name) && !(v >= 0 && v <= 1) {
			return usagef("--%s %v: want 0 to 1", name, v)
		}
	}
	if given("threshold") {
		if f.o.Threshold = f.threshold; f.threshold == 0 {
			f.o.Threshold = -1
		}
	}
	if given("iou") {
		f.o.IoU = max(f.iou, math.SmallestNonzeroFloat64)
	}
	if given("mask-threshold") {
		f.o.MaskThreshold = max(f.maskThreshold, math.SmallestNonzeroFloat32)
	}
	for _, text := range f.classThreshold {
		at := strings.LastIndexByte(text, '=')
		score, err := strconv.ParseFloat(text[at+1:], 32)
		if at < 1 || err != nil || !(score >= 0 && score <= 1) {
			return usagef("--class-threshold %s: want CLASS=SCORE, with a score of 0 to 1", text)
		}
		if f.o.ClassThresholds == nil {
			f.o.ClassThresholds = map[string]float32{}
		}
		f.o.ClassThresholds[text[:at]] = float32(score)
	}
	for _, v := range []struct {
		name, value string
		values      []string
	}{
		{"nms", f.nms, []string{"", "none", "class", "agnostic"}},
		{"soft-nms", f.soft, []string{"", "linear", "gaussian"}},
		{"format", f.format, detectFormats},
	} {
		if !slices.Contains(v.values, v.value) || given(v.name) && v.value == "" {
			return usagef("--%s %s: want %s", v.name, v.value, strings.TrimPrefix(strings.Join(v.values, ", "), ", "))
		}
	}
	f.o.NMS, f.o.SoftNMS = det.NMS(f.nms), det.SoftMethod(f.soft)
	switch {
	case f.soft != "" && f.nms == "none":
		return usagef("--soft-nms %s with --nms none: want class or agnostic", f.soft)
	case given("max") && f.o.MaxDetections < 1:
		return usagef("--max %d: want 1 or more", f.o.MaxDetections)
	case given("top-k") && f.o.TopK < 1:
		return usagef("--top-k %d: want 1 or more", f.o.TopK)
	case given("sigma") && f.soft != string(det.SoftGaussian):
		return usagef("--sigma: want --soft-nms gaussian too")
	case given("sigma") && !(f.o.Sigma > 0):
		return usagef("--sigma %v: want a number above 0", f.o.Sigma)
	case (f.format == "yolo" || f.format == "voc") && f.out == "":
		return usagef("--format %s: want --out, the folder for its files", f.format)
	}
	return nil
}

// detectAnswer is one line of `detect --json`.
type detectAnswer struct {
	Image      string         `json:"image"`
	Width      int            `json:"width"`
	Height     int            `json:"height"`
	Detections []detectResult `json:"detections"`
}

type detectResult struct {
	Score number    `json:"score"`
	Label string    `json:"label"`
	Box   detectBox `json:"box"`
}

type detectBox struct {
	XMin number `json:"xmin"`
	YMin number `json:"ymin"`
	XMax number `json:"xmax"`
	YMax number `json:"ymax"`
}

func (d *detectAnswer) print(w io.Writer) error {
	fmt.Fprintln(w, d.Image)
	for i, r := range d.Detections {
		fmt.Fprintf(w, "  %d  %s  %s  %s  %s  %s  %s\n", i+1, r.Label, r.Score, r.Box.XMin, r.Box.YMin, r.Box.XMax, r.Box.YMax)
	}
	return nil
}

// hfAnswer is what the object-detection pipeline of transformers gives for a photo: whole pixels, cut towards
// 0 as Tensor.int does.
type hfAnswer []hfResult

type hfResult struct {
	Score float64 `json:"score"`
	Label string  `json:"label"`
	Box   hfBox   `json:"box"`
}

type hfBox struct {
	XMin int `json:"xmin"`
	YMin int `json:"ymin"`
	XMax int `json:"xmax"`
	YMax int `json:"ymax"`
}

// cocoAnswer is a photo's part of COCO's results, which are one list for all photos.
type cocoAnswer struct {
	all  *[]coco.Result
	list []coco.Result
}

func (c *cocoAnswer) print(io.Writer) error {
	*c.all = append(*c.all, c.list...)
	return nil
}

func cocoResults(image int64, list []det.Detection) (results []coco.Result) {
	for _, d := range list {
		x, y, w, h := d.Box.XYWH()
		results = append(results, coco.Result{
			ImageID: image, CategoryID: int64(d.LabelID), Score: float64(d.Score), Mask: d.Mask,
			Box: &coco.Box{float64(x), float64(y), float64(w), float64(h)},
		})
	}
	return results
}

// cocoImageIDs gives each photo the number that its name is, where all are, else its place from 1.
func cocoImageIDs(photos []string) map[string]int64 {
	numbers, places := map[string]int64{}, map[string]int64{}
	for i, path := range photos {
		name := filepath.Base(path)
		id, err := strconv.ParseInt(strings.TrimSuffix(name, filepath.Ext(name)), 10, 64)
		if err == nil {
			numbers[path] = id
		}
		if places[path] == 0 {
			places[path] = int64(i) + 1
		}
	}
	if len(numbers) == len(places) {
		return numbers
	}
	return places
}

// answer puts detections into a format's form. size is the photo's, width and height.
func (f *detectFlags) answer(path string, size image.Point, list []det.Detection) printer {
	switch f.format {
	case "coco":
		return &cocoAnswer{&f.results, cocoResults(f.imageIDs[path], list)}
	case "hf":
		answer := hfAnswer{}
		for _, d := range list {
			b := hfBox{int(d.Box.X1), int(d.Box.Y1), int(d.Box.X2), int(d.Box.Y2)}
			answer = append(answer, hfResult{float64(d.Score), d.Label, b})
		}
		return jsonLine{answer}
	}
	answer := &detectAnswer{Image: path, Width: size.X, Height: size.Y, Detections: []detectResult{}}
	for _, d := range list {
		b := detectBox{number(d.Box.X1), number(d.Box.Y1), number(d.Box.X2), number(d.Box.Y2)}
		answer.Detections = append(answer.Detections, detectResult{number(d.Score), d.Label, b})
	}
	if f.format == "json" {
		return jsonLine{answer}
	}
	return answer
}

// file writes the file of --format yolo or voc for a photo.
func (f *detectFlags) file(pics *pictures, path string, size image.Point, list []det.Detection) (string, error) {
	img := dataset.Image{Path: path, Width: size.X, Height: size.Y}
	for _, d := range list {
		b := dataset.Box{X1: float64(d.Box.X1), Y1: float64(d.Box.Y1), X2: float64(d.Box.X2), Y2: float64(d.Box.Y2)}
		object := dataset.Object{Label: d.Label, Class: d.LabelID, Box: b, Score: float64(d.Score)}
		if d.Mask != nil {
			outlines, err := d.Mask.Polygons()
			if err != nil {
				return "", err
			}
			object.Polygons = outlines
		}
		img.Objects = append(img.Objects, object)
	}
	if f.format == "yolo" {
		file := pics.path(path, ".txt")
		return file, dataset.WriteYOLO(file, img, dataset.YOLOOptions{Polygons: true})
	}
	file := pics.path(path, ".xml")
	return file, dataset.WriteVOC(file, img, dataset.VOCOptions{Scores: true})
}

func (a *app) detect(ctx context.Context, path string, photos []string, f *detectFlags, colours seg.Palette) error {
	device, err := a.open()
	if err != nil {
		return err
	}
	options, err := f.describing.options(path, vit.TaskDetection, device)
	if err != nil {
		return err
	}
	model, err := det.Load(path, options)
	if err != nil {
		return err
	}
	defer model.Close()
	if colours == nil {
		colours = model.Metadata().Palette
	}
	pics, err := newPictures(f.out, photos)
	if err != nil {
		return err
	}
	if f.format == "coco" {
		f.imageIDs, f.results, a.json = cocoImageIDs(photos), []coco.Result{}, false
	}
	err = a.eachImage(ctx, photos, func(ctx context.Context, path string) (found, error) {
		photo, err := openPhoto(ctx, path)
		if err != nil {
			return found{}, err
		}
		defer photo.Close()
		detections, err := model.Detect(ctx, f.o, photo)
		if err != nil {
			return found{}, err
		}
		size := image.Pt(photo.Width(), photo.Height())
		answer := f.answer(path, size, detections[0])
		var file string
		switch {
		case pics == nil:
			return found{answer: answer}, nil
		case f.format == "yolo" || f.format == "voc":
			if file, err = f.file(pics, path, size, detections[0]); err != nil {
				return found{}, fmt.Errorf("--out: %w", err)
			}
			return found{answer, []string{file}}, nil
		}
		img, err := photo.RGBA()
		if err != nil {
			return found{}, err
		}
		drawn, err := det.Draw(img, detections[0], det.DrawOptions{InPlace: true, Palette: colours})
		if err != nil {
			return found{}, err
		}
		file, err = pics.image(path, ".detections.jpg", drawn)
		return found{answer, []string{file}}, err
	})
	if err != nil || f.format != "coco" {
		return err
	}
	return printLine(a.stdout, f.results)
}
