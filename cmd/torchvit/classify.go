package main

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"io"

	"github.com/spf13/cobra"

	"github.com/torchvit/torchvit/internal/annotate"
	"github.com/torchvit/torchvit/vit"
)

func newClassifyCommand(a *app) *cobra.Command {
	var o classifyOptions
	cmd := &cobra.Command{
		Use:   "classify MODEL IMAGE...",
		Short: "Name what photos show",
		Long: "classify prints the most probable classes of each photo, best first: rank, label, score. It runs\n" +
			"the photos one at a time; `scripts/parity.py classify` prints the same from Python.",
		Example: "  torchvit classify vit_tiny.pt cat.jpg dog.png\n" +
			"  torchvit classify vit_tiny.pt *.jpg --top 1 --json\n" +
			"  torchvit classify vit_tiny.pt cat.jpg --out pictures   # pictures/cat.classes.jpg\n" +
			"  torchvit classify bare.pt cat.jpg --size 224 --mean imagenet --labels imagenet\n" +
			"  diff <(torchvit classify --threads 1 M I) <(python scripts/parity.py classify M I)",
		Args:              modelAndImages,
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.top < 1 {
				return usagef("--top %d: want 1 or more", o.top)
			}
			if err := oneOf("format", o.format, "text", "json", "hf"); err != nil {
				return err
			}
			return a.classify(cmd.Context(), args[0], args[1:], o)
		},
	}
	cmd.Flags().IntVar(&o.top, "top", 5, "classes to show for each photo")
	cmd.Flags().StringVar(&o.out, "out", "", "`folder` for the photos with their classes written on them")
	cmd.Flags().StringVar(&o.format, "format", "text", "`form` of the answer: text, json (as --json), or hf, for each photo the JSON list of Hugging Face's pipeline")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"text", "json", "hf"}, cobra.ShellCompDirectiveNoFileComp))
	o.describing = a.describeFlags(cmd)
	a.precisionFlag(cmd)
	return cmd
}

type classifyOptions struct {
	top         int
	out, format string
	describing  *describing
}

// classifyAnswer is one line of `classify --json`.
type classifyAnswer struct {
	Image   string           `json:"image"`
	Classes []classifyResult `json:"classes"`
}

type classifyResult struct {
	Label string `json:"label"`
	Score number `json:"score"`
}

// huggingFaceClasses is the answer of the pipeline "image-classification".
type huggingFaceClasses []classifyResult

func (c huggingFaceClasses) print(w io.Writer) error { return printLine(w, c) }

func (c *classifyAnswer) print(w io.Writer) error {
	fmt.Fprintln(w, c.Image)
	for i, class := range c.Classes {
		fmt.Fprintf(w, "  %d  %s  %s\n", i+1, class.Label, class.Score)
	}
	return nil
}

func (a *app) classify(ctx context.Context, path string, photos []string, o classifyOptions) error {
	device, err := a.open()
	if err != nil {
		return err
	}
	options, err := o.describing.options(path, vit.TaskClassification, device)
	if err != nil {
		return err
	}
	model, err := vit.Load(path, options)
	if err != nil {
		return err
	}
	defer model.Close()
	if err := model.Need("classify", vit.TaskClassification); err != nil {
		return err
	}
	pics, err := newPictures(o.out, photos)
	if err != nil {
		return err
	}
	return a.eachImage(ctx, photos, func(ctx context.Context, path string) (found, error) {
		photo, err := openPhoto(ctx, path)
		if err != nil {
			return found{}, err
		}
		defer photo.Close()
		classes, err := model.Classify(ctx, o.top, photo)
		if err != nil {
			return found{}, err
		}
		answer := &classifyAnswer{Image: path, Classes: []classifyResult{}}
		for _, c := range classes[0] {
			answer.Classes = append(answer.Classes, classifyResult{c.Label, number(c.Score)})
		}
		f := found{answer: answer}
		switch o.format {
		case "json":
			f.answer = jsonLine{answer}
		case "hf":
			f.answer = huggingFaceClasses(answer.Classes)
		}
		if pics == nil {
			return f, nil
		}
		img, err := photo.RGBA()
		if err != nil {
			return found{}, err
		}
		if err := drawClasses(img, answer.Classes); err != nil {
			return found{}, err
		}
		file, err := pics.image(path, ".classes.jpg", img)
		f.files = []string{file}
		return f, err
	})
}

// drawClasses writes the classes into the photo's lower left corner, the best one on top; as many as
// there is room for.
func drawClasses(img *image.RGBA, classes []classifyResult) error {
	b := img.Rect
	scale := annotate.ScaleFor(b.Dx(), b.Dy())
	text, err := annotate.NewText(scale.Text, true, nil)
	if err != nil {
		return err
	}
	gap := max(1, scale.Pad/2)
	height := text.PlateSize("", scale.Pad).Y
	rows := min(len(classes), max(1, (b.Dy()-gap)/(height+gap)))
	for i, class := range classes[:rows] {
		line := text.Fit(fmt.Sprintf("%.1f%%  %s", 100*float64(class.Score), class.Label), b.Dx()-2*scale.Pad-2*gap)
		at := image.Pt(b.Min.X+gap, b.Max.Y-(rows-i)*(height+gap))
		plate := color.RGBA{40, 40, 40, 255}
		if i == 0 {
			plate = annotate.Distinct(0)
		}
		text.DrawPlate(img, image.Rectangle{Min: at, Max: at.Add(text.PlateSize(line, scale.Pad))}, scale.Pad, line, plate)
	}
	return nil
}
