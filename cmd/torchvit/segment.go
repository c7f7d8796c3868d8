package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/torchvit/torchvit/seg"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

func newSegmentCommand(a *app) *cobra.Command {
	var head, out, palette string
	cmd := &cobra.Command{
		Use:   "segment MODEL IMAGE...",
		Short: "Give every pixel of photos a class",
		Long: "segment prints the classes of each photo with their pixels and their share, at the photo's own\n" +
			"size. With --head MODEL is a ViT's file and HEAD a segmentation head's (CustomSegmentationModel);\n" +
			"where the ViT's preprocess crops, the whole photo is resized to the crop's size instead. With --out\n" +
			"it writes the class map as an indexed PNG, whose pixels are the class ids, and the photo with the\n" +
			"classes painted over it and a legend.",
		Example: "  torchvit segment segmentation.pt street.jpg --out pictures   # street.mask.png, street.overlay.jpg\n" +
			"  torchvit segment vit.pt street.jpg --head head.pt --json",
		Args:              modelAndImages,
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			colours, err := parsePalette(palette)
			if err != nil {
				return err
			}
			return a.segment(cmd.Context(), args[0], head, args[1:], out, colours)
		},
	}
	cmd.Flags().StringVar(&head, "head", "", "model `file` of a segmentation head; MODEL is then a ViT's")
	cmd.Flags().StringVar(&out, "out", "", "`folder` for class maps and pictures")
	paletteFlag(cmd, &palette)
	return cmd
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
}

func (s *segmentAnswer) print(w io.Writer) error {
	fmt.Fprintln(w, s.Image)
	for _, c := range s.Classes {
		fmt.Fprintf(w, "  %s  %d  %s\n", c.Label, c.Pixels, c.Share)
	}
	return nil
}

func newSegmentAnswer(path string, m *seg.ClassMap, label func(int) string) *segmentAnswer {
	answer := &segmentAnswer{Image: path, Width: m.Width, Height: m.Height, Classes: []segmentClass{}}
	shares := m.Shares()
	for id, n := range m.Counts() {
		if n > 0 {
			answer.Classes = append(answer.Classes, segmentClass{label(id), n, number(shares[id])})
		}
	}
	return answer
}

// segmenter is a segmentation model of either kind, with what pictures need.
type segmenter struct {
	segment func(ctx context.Context, images ...transforms.Source) ([]*seg.ClassMap, error)
	label   func(int) string
	meta    *vit.Metadata
	palette seg.Palette
	closers []io.Closer
}

func (s *segmenter) Close() {
	for _, c := range s.closers {
		c.Close()
	}
}

func loadSegmenter(path, head string, o vit.Options) (*segmenter, error) {
	if head == "" {
		model, err := seg.Load(path, o)
		if err != nil {
			return nil, err
		}
		return &segmenter{model.Segment, model.Label, model.Metadata(), model.Palette(), []io.Closer{model}}, nil
	}
	meta, err := vit.ReadMetadata(path)
	if err != nil {
		return nil, err
	}
	vitOptions := o
	vitOptions.Metadata = seg.WholePhoto(meta)
	model, err := vit.Load(path, vitOptions)
	if err != nil {
		return nil, err
	}
	h, err := seg.LoadHead(head, o)
	if err != nil {
		model.Close()
		return nil, fmt.Errorf("--head: %w", err)
	}
	custom := &seg.CustomSegmentationModel{ViT: model, SegmentationHead: h}
	return &segmenter{custom.Segment, h.Label, h.Metadata(), h.Palette(), []io.Closer{model, h}}, nil
}

func (a *app) segment(ctx context.Context, path, head string, photos []string, out string, colours seg.Palette) error {
	device, err := a.open()
	if err != nil {
		return err
	}
	model, err := loadSegmenter(path, head, vit.Options{Device: device})
	if err != nil {
		return err
	}
	defer model.Close()
	if colours != nil {
		model.palette = colours
	}
	if len(model.meta.Labels) > 0 && isBackground(model.meta.Labels[0]) && len(model.palette) > 0 {
		// What is nothing has no colour of its own.
		model.palette = append(seg.Palette{{}}, model.palette[1:]...)
	}
	pics, err := newPictures(out, photos)
	if err != nil {
		return err
	}
	return a.eachImage(ctx, photos, func(ctx context.Context, path string) (found, error) {
		photo, err := openPhoto(ctx, path)
		if err != nil {
			return found{}, err
		}
		defer photo.Close()
		maps, err := model.segment(ctx, photo)
		if err != nil {
			return found{}, err
		}
		f := found{answer: newSegmentAnswer(path, maps[0], model.label)}
		if pics == nil {
			return f, nil
		}
		mask := pics.path(path, ".mask.png")
		if err := maps[0].WritePNG(mask, model.palette); err != nil {
			return found{}, fmt.Errorf("--out: %w", err)
		}
		img, err := photo.RGBA()
		if err != nil {
			return found{}, err
		}
		overlay, err := seg.Overlay(img, maps[0], overlayOptions(model))
		if err != nil {
			return found{}, err
		}
		file, err := pics.image(path, ".overlay.jpg", overlay)
		f.files = []string{mask, file}
		return f, err
	})
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

// overlayOptions paints all classes but the background, where the file names one.
func overlayOptions(s *segmenter) seg.OverlayOptions {
	o := seg.OverlayOptions{Palette: s.palette, Labels: s.meta.Labels}
	if len(o.Labels) > 0 && isBackground(o.Labels[0]) {
		o.Transparent = []uint8{0}
	}
	return o
}

func isBackground(label string) bool {
	return label == "background" || label == "__background__"
}
