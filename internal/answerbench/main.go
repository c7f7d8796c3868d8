// Answerbench is Go's half of scripts/bench_answers.py: the way from a photo's file to the files of the
// answer, with a stored output in place of the model's. It reads "TASK PHOTO" lines and prints seconds.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/torchvit/torchvit/coco"
	"github.com/torchvit/torchvit/det"
	"github.com/torchvit/torchvit/internal/annotate"
	"github.com/torchvit/torchvit/internal/whole"
	"github.com/torchvit/torchvit/seg"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/npy"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "answerbench:", err)
		os.Exit(1)
	}
}

// stored stands in for a module: every method gives what it holds.
type stored struct{ answer func() (any, error) }

func (s stored) Call(context.Context, string, ...any) (any, error) { return s.answer() }
func (s stored) HasMethod(string) bool                             { return true }
func (s stored) Close() error                                      { return nil }

// bench holds what is the same for every photo.
type bench struct {
	out     string
	folder  string
	outputs map[string]map[string]*torch.Tensor // by photo and name
}

func run(ctx context.Context, args []string) (err error) {
	if len(args) != 2 {
		return fmt.Errorf("got %d arguments, want the folder of the photos and one for the answers", len(args))
	}
	b := &bench{folder: args[0], out: args[1], outputs: map[string]map[string]*torch.Tensor{}}
	defer func() {
		for _, tensors := range b.outputs {
			for _, t := range tensors {
				t.Close()
			}
		}
		if n := torch.MemoryStats().Live.Total(); n != 0 && err == nil {
			err = fmt.Errorf("%d handles were left", n)
		}
	}()
	tasks := map[string]func(context.Context, string, map[string]*torch.Tensor) error{
		"classify": b.classify, "attend": b.attend, "segment": b.segment,
		"detect": b.detect, "instances": b.instances,
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		task, photo, _ := strings.Cut(lines.Text(), " ")
		work, ok := tasks[task]
		if !ok {
			return fmt.Errorf("got task %q", task)
		}
		tensors, err := b.load(photo)
		if err != nil {
			return err
		}
		start := time.Now()
		if err := work(ctx, filepath.Join(b.folder, "photo-"+photo+".jpg"), tensors); err != nil {
			return fmt.Errorf("%s %s: %w", task, photo, err)
		}
		fmt.Println(time.Since(start).Seconds())
	}
	return lines.Err()
}

// load reads the stored outputs for a photo once.
func (b *bench) load(photo string) (map[string]*torch.Tensor, error) {
	if tensors, ok := b.outputs[photo]; ok {
		return tensors, nil
	}
	file, err := npy.ReadZipFile(filepath.Join(b.folder, photo+".npz"))
	if err != nil {
		return nil, err
	}
	tensors := map[string]*torch.Tensor{}
	b.outputs[photo] = tensors
	for name, array := range file.Map() {
		if tensors[name], err = torch.FromNumpy(array); err != nil {
			return nil, err
		}
	}
	return tensors, nil
}

func imagenet(resize transforms.ResizeSpec, filter transforms.Interpolation, crop transforms.CropSpec) transforms.Spec {
	return transforms.Spec{
		Resize: resize, Interpolation: filter, Crop: crop,
		Mean: []float64{0.485, 0.456, 0.406}, Std: []float64{0.229, 0.224, 0.225},
	}
}

func classifier() *vit.Metadata {
	return &vit.Metadata{
		Format: vit.MetadataFormat, Task: vit.TaskClassification,
		Preprocess: imagenet(
			transforms.ResizeSpec{Rule: transforms.RuleShortestEdge, Size: []int{256}}, transforms.Bicubic,
			transforms.CropSpec{Rule: transforms.CropCenter, Size: []int{224, 224}}),
		Tokens: &vit.Tokens{PatchSize: []int{16, 16}, Prefix: 1, NumHeads: 12, Depth: 12},
	}
}

func model(meta *vit.Metadata, answer func() (any, error)) (*vit.Model, error) {
	return vit.NewModel(stored{answer}, "stored", vit.Options{Metadata: meta})
}

func alias(t *torch.Tensor) func() (any, error) {
	return func() (any, error) { return t.Alias() }
}

func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o666)
}

func (b *bench) classify(ctx context.Context, photo string, stored map[string]*torch.Tensor) error {
	m, err := model(classifier(), alias(stored["logits"]))
	if err != nil {
		return err
	}
	v := vit.VisionTransformer{Model: m}
	answers, err := v.Classify(ctx, 5, photo)
	if err != nil {
		return err
	}
	return writeJSON(filepath.Join(b.out, "classify.json"), answers[0])
}

func (b *bench) attend(ctx context.Context, path string, stored map[string]*torch.Tensor) error {
	m, err := model(classifier(), alias(stored["attention"]))
	if err != nil {
		return err
	}
	photo, err := transforms.Open(ctx, path, transforms.DecodeOptions{})
	if err != nil {
		return err
	}
	defer photo.Close()
	v := vit.VisionTransformer{Model: m}
	maps, err := v.Attend(ctx, -1, photo)
	if err != nil {
		return err
	}
	img, err := photo.RGBA()
	if err != nil {
		return err
	}
	a := maps[0]
	weights := &npy.Array{DType: "f4", Shape: []int64{int64(a.Heads), int64(a.Rows), int64(a.Columns)}}
	for _, v := range a.Values {
		weights.Data = binary.LittleEndian.AppendUint32(weights.Data, math.Float32bits(v))
	}
	if err := npy.WriteFile(filepath.Join(b.out, "attend.npy"), weights); err != nil {
		return err
	}
	drawn, err := vit.OverlayHeatMap(img, a.Mean(), a.Rows, a.Columns, vit.HeatMapOptions{InPlace: true})
	if err != nil {
		return err
	}
	return b.picture(ctx, "attend.jpg", drawn)
}

func (b *bench) segment(ctx context.Context, path string, stored map[string]*torch.Tensor) error {
	labels := make([]string, stored["segmentation"].Size(1))
	for i := range labels {
		labels[i] = fmt.Sprintf("class %d", i)
	}
	m, err := model(&vit.Metadata{
		Format: vit.MetadataFormat, Task: vit.TaskSegmentation, Labels: labels,
		Preprocess: imagenet(
			transforms.ResizeSpec{Rule: transforms.RuleShortestEdge, Size: []int{512}, MultipleOf: 16},
			transforms.Bilinear, transforms.CropSpec{}),
	}, alias(stored["segmentation"]))
	if err != nil {
		return err
	}
	photo, err := transforms.Open(ctx, path, transforms.DecodeOptions{})
	if err != nil {
		return err
	}
	defer photo.Close()
	v := seg.VisionTransformerForSegmentation{VisionTransformer: &vit.VisionTransformer{Model: m}}
	maps, err := v.Segment(ctx, photo)
	if err != nil {
		return err
	}
	counts := maps[0].Counts()
	if err := writeJSON(filepath.Join(b.out, "segment.json"), counts[:len(labels)]); err != nil {
		return err
	}
	palette := seg.DistinctPalette(len(labels))
	if err := maps[0].WritePNG(filepath.Join(b.out, "segment.mask.png"), palette); err != nil {
		return err
	}
	img, err := photo.RGBA()
	if err != nil {
		return err
	}
	drawn, err := seg.Overlay(img, maps[0], seg.OverlayOptions{InPlace: true, Palette: palette, Labels: labels})
	if err != nil {
		return err
	}
	return b.picture(ctx, "segment.jpg", drawn)
}

func (b *bench) detect(ctx context.Context, path string, stored map[string]*torch.Tensor) error {
	return b.found(ctx, "detect", path, stored, det.DetectOptions{Threshold: 0.5}, "boxes", "labels", "scores")
}

func (b *bench) instances(ctx context.Context, path string, stored map[string]*torch.Tensor) error {
	return b.found(ctx, "instances", path, stored, det.DetectOptions{Threshold: -1}, "boxes", "labels", "scores", "masks")
}

// found is detection: a dict of the stored tensors, cut to as many boxes as there are masks.
func (b *bench) found(ctx context.Context, name, path string, stored map[string]*torch.Tensor, o det.DetectOptions, parts ...string) error {
	n := stored["boxes"].Size(0)
	if len(parts) > 3 {
		n = stored["masks"].Size(0)
	}
	m, err := model(&vit.Metadata{Format: vit.MetadataFormat, Task: vit.TaskDetection, Output: vit.OutputSpec{Kind: vit.OutputDetections}},
		func() (any, error) {
			dict := map[string]any{}
			for _, part := range parts {
				t, err := torch.CallTensor(ctx, "aten::slice.Tensor", stored[part], 0, 0, n, 1)
				if err != nil {
					return nil, err
				}
				dict[part] = t
			}
			return torch.Tuple{map[string]any{}, torch.List{dict}}, nil
		})
	if err != nil {
		return err
	}
	photo, err := transforms.Open(ctx, path, transforms.DecodeOptions{})
	if err != nil {
		return err
	}
	defer photo.Close()
	detections, err := (&det.Detector{Model: m}).Detect(ctx, o, photo)
	if err != nil {
		return err
	}
	results := make([]coco.Result, 0, len(detections[0]))
	for _, d := range detections[0] {
		x, y, w, h := d.Box.XYWH()
		results = append(results, coco.Result{
			ImageID: 1, CategoryID: int64(d.LabelID), Score: float64(d.Score),
			Box: &coco.Box{float64(x), float64(y), float64(w), float64(h)}, Mask: d.Mask,
		})
	}
	if err := writeJSON(filepath.Join(b.out, name+".json"), results); err != nil {
		return err
	}
	img, err := photo.RGBA()
	if err != nil {
		return err
	}
	drawn, err := det.Draw(img, detections[0], det.DrawOptions{InPlace: true})
	if err != nil {
		return err
	}
	return b.picture(ctx, name+".jpg", drawn)
}

// picture writes a JPEG as the commands do.
func (b *bench) picture(ctx context.Context, name string, img image.Image) error {
	return whole.Write(filepath.Join(b.out, name), func(w io.Writer) error {
		return transforms.EncodeJPEG(ctx, w, img, annotate.JPEGQuality)
	})
}
