package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/npy"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

func newPreprocessCommand(a *app) *cobra.Command {
	var model, output string
	var describing *describing
	cmd := &cobra.Command{
		Use:   "preprocess IMAGE... --model MODEL --output x.npy",
		Short: "Write the tensor that a model would see",
		Long: "preprocess decodes photos and resizes, crops and normalises them as the model file says, and writes\n" +
			"exactly what forward would get: float32 (B, 3, H, W) for B photos of one size, or (3, H, W) for the\n" +
			"photo of a detector, whose forward takes a list of such tensors. The model is not run.",
		Example: "  torchvit preprocess cat.jpg --model vit_tiny.pt --output x.npy\n" +
			"  torchvit run vit_tiny.pt --input x.npy --output y.npz\n" +
			"  torchvit preprocess cat.jpg --model bare.pt --size 384 --mean 0.5 --std 0.5 --output x.npy\n" +
			"  torchvit preprocess street.jpg --model detector.pt --output street.npy\n" +
			"  torchvit run detector.pt --input [street.npy]",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case model == "":
				return usagef("--model: want the model file whose preprocess to follow")
			case output == "":
				return usagef("--output: want the .npy file to write")
			}
			if err := checkOutput(output, ".npy"); err != nil {
				return err
			}
			return a.preprocess(cmd.Context(), args, model, output, describing)
		},
	}
	describing = a.describeFlags(cmd)
	cmd.Flags().StringVar(&model, "model", "", "model `file`")
	cmd.Flags().StringVar(&output, "output", "", ".npy `file` to write")
	_ = cmd.MarkFlagFilename("model", "pt", "pth", "ts")
	return cmd
}

func (a *app) preprocess(ctx context.Context, photos []string, model, output string, d *describing) error {
	options, err := d.options(model, vit.TaskClassification, torch.CPU)
	if err != nil {
		return err
	}
	meta := options.Metadata
	pipeline, err := transforms.NewPipeline(meta.Preprocess, transforms.Options{})
	if err != nil {
		return fmt.Errorf("%s: %w", model, err)
	}
	detection := meta.Layout() == vit.LayoutList
	if detection && len(photos) > 1 {
		return usagef("%s is a detector, which takes photos of any size one by one: want one IMAGE, got %d", model, len(photos))
	}
	if _, err := a.open(); err != nil {
		return err
	}
	sources := make([]transforms.Source, len(photos))
	for i, path := range photos {
		sources[i] = path
	}
	pixels, _, err := pipeline.Apply(ctx, sources...)
	if errors.Is(err, transforms.ErrSizes) {
		return fmt.Errorf("%w (preprocess these photos one by one)", err)
	}
	if err != nil {
		return err
	}
	defer pixels.Close()
	if detection {
		one, err := torch.CallTensor(ctx, "aten::select.int", pixels, 0, 0)
		if err != nil {
			return err
		}
		defer one.Close()
		pixels = one
	}
	array, err := pixels.Numpy()
	if err != nil {
		return err
	}
	if err := npy.WriteFile(output, array); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"output": output, "dtype": "float32", "shape": array.Shape})
	}
	_, err = fmt.Fprintf(a.stdout, "%s  float32  %s\n", output, shapeText(array.Shape))
	return err
}
