package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"image"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/torchvit/torchvit/coco"
	"github.com/torchvit/torchvit/internal/annotate"
	"github.com/torchvit/torchvit/internal/whole"
	"github.com/torchvit/torchvit/seg"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// segmentFlags are the flags of segment.
type segmentFlags struct {
	head, out, palette, format, masks  string
	slide, window, stride, slideResize string
	slideBatch                         int
	threshold                          float64
	classes                            []string
	o                                  seg.SegmentOptions
	describing                         *describing
}

var (
	segmentFormats = []string{"text", "json", "hf", "coco"}
	segmentMasks   = []string{"png", "rle", "polygon"}
)

func newSegmentCommand(a *app) *cobra.Command {
	f := &segmentFlags{}
	cmd := &cobra.Command{
		Use:   "segment MODEL IMAGE...",
		Short: "Give every pixel of photos a class",
		Long: "segment prints the classes of each photo with their pixels and their share, at the photo's own\n" +
			"size. MODEL gives logits of any size, those of one channel being a binary mask, or classes. With\n" +
			"--head MODEL is a ViT's file and HEAD a segmentation head's (CustomSegmentationModel); where the ViT's\n" +
			"preprocess crops, the whole photo is resized to the crop's size instead. With --out it writes the class\n" +
			"map as an indexed PNG, whose pixels are the class ids, and the photo with the classes painted over it\n" +
			"and a legend.\n\n" +
			"Large photos are seen through windows (--slide) as mmsegmentation or Segmenter does it; --scales and\n" +
			"--flip average over sizes and mirrored photos. A class is a label of the file, or its number.\n\n" +
			"Formats: text; json, a line for each photo, with --masks also where each class is; hf, a line for each\n" +
			"photo as the image-segmentation pipeline of transformers gives it, score null and mask a black and white\n" +
			"PNG in base64, or with --masks png its path; coco, one JSON list of results with compressed run lengths:\n" +
			"category_id is the class's number, score 1 as in cocostuffapi, and image_id the number that the photo's\n" +
			"name is, as 000000000139.jpg, or, where not all names are numbers, its place among the photos, from 1.",
		Example: "  torchvit segment segmentation.pt street.jpg --out pictures   # street.mask.png, street.overlay.jpg\n" +
			"  torchvit segment vit.pt street.jpg --head head.pt --json\n" +
			"  torchvit segment segmentation.pt large.jpg --slide mmseg --slide-resize none --window 512\n" +
			"  torchvit segment segmentation.pt street.jpg --scales 0.5,0.75,1,1.25,1.5,1.75 --flip\n" +
			"  torchvit segment segmentation.pt *.jpg --classes road,car --format coco > results.json",
		Args:              modelAndImages,
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.options(cmd, a.json); err != nil {
				return err
			}
			colours, err := parsePalette(f.palette)
			if err != nil {
				return err
			}
			return a.segment(cmd.Context(), args[0], args[1:], f, colours)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.head, "head", "", "model `file` of a segmentation head; MODEL is then a ViT's")
	flags.StringVar(&f.out, "out", "", "`folder` for class maps and pictures")
	flags.StringVar(&f.format, "format", "text", "`form` of the answer: "+strings.Join(segmentFormats, ", "))
	flags.StringVar(&f.masks, "masks", "", "`form` of each class's mask: png (files in --out), rle (COCO's) or polygon")
	flags.StringSliceVar(&f.classes, "classes", nil, "`classes` that are named and painted, with commas (default: all)")
	flags.Float64Var(&f.threshold, "threshold", 0, "`probability` above which a pixel of a binary mask counts (default: the file's, else 0.5)")
	flags.Float64SliceVar(&f.o.Scales, "scales", nil, "`sizes` of the photo to average over, with commas, 1 being the usual one")
	flags.BoolVar(&f.o.Flip, "flip", false, "average over the mirrored photo too")
	flags.StringVar(&f.slide, "slide", "", "see the photo through windows, by the `rule` of mmseg or segmenter")
	flags.StringVar(&f.window, "window", "", "`HxW` or side of the windows (default: the file's input)")
	flags.StringVar(&f.stride, "stride", "", "`HxW` or side from one window to the next (default: two thirds of the window)")
	flags.IntVar(&f.slideBatch, "window-batch", 0, "`windows` at once (default: mmseg 1, segmenter 4)")
	flags.StringVar(&f.slideResize, "slide-resize", "", "shorter `side` of the photo under the windows, or none for its own size (default: the file's rule, else the window)")
	paletteFlag(cmd, &f.palette)
	f.describing = a.describeFlags(cmd)
	for name, values := range map[string][]string{"format": segmentFormats, "masks": segmentMasks, "slide": {seg.SlideMMSeg, seg.SlideSegmenter}} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	a.precisionFlag(cmd)
	return cmd
}

// options checks the flags and fills f.o. json tells that --json was given.
func (f *segmentFlags) options(cmd *cobra.Command, json bool) error {
	given := cmd.Flags().Changed
	if err := oneOf("format", f.format, segmentFormats...); err != nil {
		return err
	}
	if json && !given("format") {
		f.format = "json"
	}
	if given("masks") {
		if err := oneOf("masks", f.masks, segmentMasks...); err != nil {
			return err
		}
	}
	switch {
	case json && f.format != "json":
		return usagef("--json with --format %s: want one of them", f.format)
	case f.masks == "png" && f.out == "":
		return usagef("--masks png: want --out, the folder for its files")
	case (f.masks == "rle" || f.masks == "polygon") && f.format != "json":
		return usagef("--masks %s with --format %s: want --format json", f.masks, f.format)
	case given("threshold") && !(f.threshold >= 0 && f.threshold <= 1):
		return usagef("--threshold %v: want 0 to 1", f.threshold)
	}
	if given("threshold") {
		f.o.Threshold = &f.threshold
	}
	for _, scale := range f.o.Scales {
		if !(scale > 0) || math.IsInf(scale, 0) {
			return usagef("--scales %v: want numbers above 0", scale)
		}
	}
	if given("slide") {
		return f.sliding(given)
	}
	for _, name := range []string{"window", "stride", "window-batch", "slide-resize"} {
		if given(name) {
			return usagef("--%s: want --slide too", name)
		}
	}
	return nil
}

// sliding reads the flags of windows.
func (f *segmentFlags) sliding(given func(string) bool) error {
	if err := oneOf("slide", f.slide, seg.SlideMMSeg, seg.SlideSegmenter); err != nil {
		return err
	}
	slide := &seg.Slide{Rule: f.slide, MaxBatch: f.slideBatch}
	f.o.Slide = slide
	if given("window-batch") && f.slideBatch < 1 {
		return usagef("--window-batch %d: want 1 or more", f.slideBatch)
	}
	for _, side := range []struct {
		name, value string
		to          *[]int
	}{{"window", f.window, &slide.Window}, {"stride", f.stride, &slide.Stride}} {
		if !given(side.name) {
			continue
		}
		var err error
		if *side.to, err = parseSize(side.name, side.value); err != nil {
			return err
		}
	}
	switch {
	case f.slideResize == "none":
		slide.Resize = transforms.ResizeSpec{Rule: transforms.RuleNone}
	case given("slide-resize"):
		side, err := strconv.Atoi(f.slideResize)
		if err != nil || side < 1 || side > 1<<16 {
			return usagef("--slide-resize %s: want none, or the shorter side in pixels", f.slideResize)
		}
		slide.Resize = transforms.ResizeSpec{Rule: transforms.RuleShortestEdge, Size: []int{side}}
	}
	return nil
}

// segmentAnswer is one line of `segment --json`.
type segmentAnswer struct {
	Image   string         `json:"image"`
	Width   int            `json:"width"`
	Height  int            `json:"height"`
	Classes []segmentClass `json:"classes"`
}

type segmentClass struct {
	Label  string `json:"label"`
	Pixels int    `json:"pixels"`
	Share  number `json:"share"`
	// Mask is the path of a PNG, or COCO's run lengths.
	Mask     any         `json:"mask,omitempty"`
	Polygons [][]float64 `json:"polygons,omitempty"`
}

func (s *segmentAnswer) print(w io.Writer) error {
	fmt.Fprintln(w, s.Image)
	for _, c := range s.Classes {
		fmt.Fprintf(w, "  %s  %d  %s\n", c.Label, c.Pixels, c.Share)
	}
	return nil
}

// huggingFaceMask is one class in the answer of the pipeline "image-segmentation".
type huggingFaceMask struct {
	Score *number `json:"score"` // none: the classes are those of pixels
	Label string  `json:"label"`
	Mask  string  `json:"mask"`
}

// segmenter is a segmentation model of either kind, with what pictures need.
type segmenter struct {
	segment func(ctx context.Context, o seg.SegmentOptions, images ...transforms.Source) ([]*seg.Segmentation, error)
	labels  []string
	palette seg.Palette
	closers []io.Closer
	// shown are the classes that --classes names; nil means all.
	shown map[int]bool
}

func (s *segmenter) Close() {
	for _, c := range s.closers {
		c.Close()
	}
}

func (s *segmenter) shows(class int) bool { return s.shown == nil || s.shown[class] }

func loadSegmenter(path string, f *segmentFlags, o vit.Options) (*segmenter, error) {
	if f.head == "" {
		model, err := seg.Load(path, o)
		if err != nil {
			return nil, err
		}
		return newSegmenter(f, model.SegmentWith, model.Metadata(), model.Palette(), model)
	}
	o.Metadata = seg.WholePhoto(o.Metadata)
	model, err := vit.Load(path, o)
	if err != nil {
		return nil, err
	}
	headOptions := vit.Options{Device: o.Device, DType: o.DType, Precision: o.Precision}
	if o.Note != nil {
		headOptions.Note = func(note string) { o.Note("--head " + f.head + ": " + note) }
	}
	h, err := seg.LoadHead(f.head, headOptions)
	if err != nil {
		model.Close()
		return nil, fmt.Errorf("--head: %w", err)
	}
	custom := &seg.CustomSegmentationModel{ViT: model, SegmentationHead: h}
	return newSegmenter(f, custom.SegmentWith, h.Metadata(), h.Palette(), model, h)
}

func newSegmenter(f *segmentFlags, segment func(context.Context, seg.SegmentOptions, ...transforms.Source) ([]*seg.Segmentation, error),
	meta *vit.Metadata, palette seg.Palette, closers ...io.Closer,
) (*segmenter, error) {
	s := &segmenter{segment: segment, labels: seg.Labels(meta), palette: palette, closers: closers}
	if f.classes == nil {
		return s, nil
	}
	s.shown = map[int]bool{}
	for _, name := range f.classes {
		found := false
		for id, label := range s.labels {
			if label == name {
				s.shown[id], found = true, true
			}
		}
		if id, err := strconv.Atoi(name); !found && err == nil && id >= 0 && id < 256 {
			s.shown[id], found = true, true
		}
		if !found {
			s.Close()
			return nil, usagef("--classes %s: want labels of the file, or numbers of 0 to 255; labels are %s", name, shortList(s.labels, 20))
		}
	}
	return s, nil
}

// shortList joins the first names.
func shortList(names []string, most int) string {
	switch {
	case len(names) == 0:
		return "not in the file"
	case len(names) > most:
		return strings.Join(names[:most], ", ") + fmt.Sprintf(", ... (%d)", len(names))
	}
	return strings.Join(names, ", ")
}

func (a *app) segment(ctx context.Context, path string, photos []string, f *segmentFlags, colours seg.Palette) error {
	device, err := a.open()
	if err != nil {
		return err
	}
	task := vit.TaskSegmentation
	if f.head != "" {
		task = vit.TaskClassification
	}
	options, err := f.describing.options(path, task, device)
	if err != nil {
		return err
	}
	model, err := loadSegmenter(path, f, options)
	if err != nil {
		return err
	}
	defer model.Close()
	if colours != nil {
		model.palette = colours
	}
	if len(model.labels) > 0 && isBackground(model.labels[0]) && len(model.palette) > 0 {
		// What is nothing has no colour of its own.
		model.palette = append(seg.Palette{{}}, model.palette[1:]...)
	}
	pics, err := newPictures(f.out, photos)
	if err != nil {
		return err
	}
	results, ids := []coco.Result{}, cocoImageIDs(photos)
	err = a.eachImage(ctx, photos, func(ctx context.Context, path string) (found, error) {
		photo, err := openPhoto(ctx, path)
		if err != nil {
			return found{}, err
		}
		defer photo.Close()
		answers, err := model.segment(ctx, f.o, photo)
		if err != nil {
			return found{}, err
		}
		defer seg.CloseAll(answers)
		m := answers[0].ClassMap
		segments, err := m.Segments(model.labels)
		if err != nil {
			return found{}, err
		}
		var out found
		masks := map[int]string{} // paths by class
		if pics != nil {
			if out.files, err = model.write(pics, path, photo, m); err != nil {
				return found{}, err
			}
			if f.masks == "png" {
				for _, s := range segments {
					if !model.shows(s.Class) {
						continue
					}
					file := pics.path(path, fmt.Sprintf(".%d%s.png", s.Class, fileName(s.Label)))
					if err := whole.Write(file, func(w io.Writer) error { return annotate.EncodePNG(w, maskImage(m, s.Class)) }); err != nil {
						return found{}, fmt.Errorf("--out: %w", err)
					}
					masks[s.Class] = file
					out.files = append(out.files, file)
				}
			}
		}
		out.answer, err = f.answer(path, m, segments, model, masks, &results, ids[path])
		return out, err
	})
	if err == nil && f.format == "coco" {
		err = printLine(a.stdout, results)
	}
	return err
}

// answer puts a photo's segments into a format's form.
func (f *segmentFlags) answer(path string, m *seg.ClassMap, segments []seg.Segment, model *segmenter, masks map[int]string, all *[]coco.Result, id int64) (printer, error) {
	hf, results := []huggingFaceMask{}, &cocoAnswer{all: all}
	answer := &segmentAnswer{Image: path, Width: m.Width, Height: m.Height, Classes: []segmentClass{}}
	for _, s := range segments {
		if !model.shows(s.Class) {
			continue
		}
		class := segmentClass{Label: s.Label, Pixels: s.Pixels, Share: number(s.Share)}
		switch {
		case f.format == "hf":
			mask := masks[s.Class]
			if f.masks == "" {
				var file bytes.Buffer
				if err := annotate.EncodePNG(&file, maskImage(m, s.Class)); err != nil {
					return nil, err
				}
				mask = base64.StdEncoding.EncodeToString(file.Bytes())
			}
			hf = append(hf, huggingFaceMask{Label: s.Label, Mask: mask})
		case f.format == "coco":
			results.list = append(results.list, coco.Result{ImageID: id, CategoryID: int64(s.Class), Score: 1, Mask: &s.Mask})
		case f.masks == "png":
			class.Mask = masks[s.Class]
		case f.masks == "rle":
			class.Mask = s.Mask
		case f.masks == "polygon":
			var err error
			if class.Polygons, err = s.Mask.Polygons(); err != nil {
				return nil, err
			}
		}
		answer.Classes = append(answer.Classes, class)
	}
	switch f.format {
	case "hf":
		return jsonLine{hf}, nil
	case "coco":
		return results, nil
	case "json":
		return jsonLine{answer}, nil
	}
	return answer, nil
}

// maskImage is white where the class map has the class, else black: what the pipeline of transformers gives.
func maskImage(m *seg.ClassMap, class int) *image.Gray {
	img := image.NewGray(image.Rect(0, 0, m.Width, m.Height))
	for i, c := range m.Classes {
		if int(c) == class {
			img.Pix[i] = 255
		}
	}
	return img
}

// fileName is a label as a part of a file's name.
func fileName(label string) string {
	name := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, label)
	if len(name) > 64 {
		name = name[:64]
	}
	return "-" + strings.ToValidUTF8(name, "")
}

// write writes the class map and the overlay of a photo.
func (s *segmenter) write(pics *pictures, path string, photo *transforms.Image, m *seg.ClassMap) ([]string, error) {
	mask := pics.path(path, ".mask.png")
	if err := m.WritePNG(mask, s.palette); err != nil {
		return nil, fmt.Errorf("--out: %w", err)
	}
	img, err := photo.RGBA()
	if err != nil {
		return nil, err
	}
	overlay, err := seg.Overlay(img, m, s.overlayOptions())
	if err != nil {
		return nil, err
	}
	file, err := pics.image(path, ".overlay.jpg", overlay)
	return []string{mask, file}, err
}

// overlayOptions paints the classes that are shown but the background, where the file names one.
func (s *segmenter) overlayOptions() seg.OverlayOptions {
	o := seg.OverlayOptions{InPlace: true, Palette: s.palette, Labels: s.labels}
	if len(s.labels) > 0 && isBackground(s.labels[0]) {
		o.Transparent = []uint8{0}
	}
	for class := range 256 {
		if !s.shows(class) {
			o.Hidden = append(o.Hidden, uint8(class))
		}
	}
	return o
}

// paletteFlag adds --palette to a command.
func paletteFlag(cmd *cobra.Command, palette *string) {
	names := append([]string{"file"}, seg.PaletteNames()...)
	cmd.Flags().StringVar(palette, "palette", "file", "`colours` of the pictures: file (the model file's), "+strings.Join(names[1:], ", "))
	_ = cmd.RegisterFlagCompletionFunc("palette", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
}

// parsePalette reads --palette; nil is the model file's.
func parsePalette(name string) (seg.Palette, error) {
	if name == "file" {
		return nil, nil
	}
	p, err := seg.PaletteByName(name)
	if err != nil {
		return nil, usagef("--palette %s: want file, %s", name, strings.Join(seg.PaletteNames(), ", "))
	}
	return p, nil
}

func isBackground(label string) bool {
	return label == "background" || label == "__background__"
}
