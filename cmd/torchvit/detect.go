package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/torchvit/torchvit/det"
	"github.com/torchvit/torchvit/seg"
	"github.com/torchvit/torchvit/vit"
)

func newDetectCommand(a *app) *cobra.Command {
	var threshold float32
	var out, palette string
	cmd := &cobra.Command{
		Use:   "detect MODEL IMAGE...",
		Short: "Find objects in photos",
		Long: "detect prints the objects of each photo, best score first: rank, label, score, and the box's left,\n" +
			"top, right and bottom edge in the photo's own pixels.",
		Example: "  torchvit detect detector.pt street.jpg --out pictures   # pictures/street.detections.jpg\n" +
			"  torchvit detect detector.pt street.jpg --threshold 0.8 --json",
		Args:              modelAndImages,
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			o := det.DetectOptions{}
			if cmd.Flags().Changed("threshold") {
				if !(threshold >= 0 && threshold <= 1) {
					return usagef("--threshold %v: want 0 to 1", threshold)
				}
				if o.Threshold = threshold; threshold == 0 {
					o.Threshold = -1 // 0 stands for the file's own
				}
			}
			colours, err := parsePalette(palette)
			if err != nil {
				return err
			}
			return a.detect(cmd.Context(), args[0], args[1:], o, out, colours)
		},
	}
	cmd.Flags().Float32Var(&threshold, "threshold", 0, "lowest `score` (default: the file's, else 0.5)")
	cmd.Flags().StringVar(&out, "out", "", "`folder` for the photos with boxes drawn on them")
	paletteFlag(cmd, &palette)
	return cmd
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

func (a *app) detect(ctx context.Context, path string, photos []string, o det.DetectOptions, out string, colours seg.Palette) error {
	device, err := a.open()
	if err != nil {
		return err
	}
	model, err := det.Load(path, vit.Options{Device: device})
	if err != nil {
		return err
	}
	defer model.Close()
	if colours == nil {
		colours = model.Metadata().Palette
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
		detections, err := model.Detect(ctx, o, photo)
		if err != nil {
			return found{}, err
		}
		answer := &detectAnswer{Image: path, Width: photo.Width(), Height: photo.Height(), Detections: []detectResult{}}
		for _, d := range detections[0] {
			b := detectBox{number(d.Box.X1), number(d.Box.Y1), number(d.Box.X2), number(d.Box.Y2)}
			answer.Detections = append(answer.Detections, detectResult{number(d.Score), d.Label, b})
		}
		if pics == nil {
			return found{answer: answer}, nil
		}
		img, err := picture(photo)
		if err != nil {
			return found{}, err
		}
		drawn, err := det.Draw(img, detections[0], det.DrawOptions{Palette: colours})
		if err != nil {
			return found{}, err
		}
		file, err := pics.image(path, ".detections.jpg", drawn)
		return found{answer, []string{file}}, err
	})
}
