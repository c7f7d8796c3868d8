package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"image"
	"io"
	"math"

	"github.com/spf13/cobra"

	"github.com/torchvit/torchvit/torch/npy"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

type attendOptions struct {
	block    int
	out      string
	colorMap string
	smooth   bool
}

func newAttendCommand(a *app) *cobra.Command {
	o := attendOptions{}
	cmd := &cobra.Command{
		Use:   "attend MODEL IMAGE...",
		Short: "Show what a ViT looks at",
		Long: "attend prints, for each head of a block, the range of the class token's attention to the patches\n" +
			"and the patch (row,column) that gets most. With --out it writes a sheet of all heads, their mean\n" +
			"over the photo, and the weights (heads, rows, columns) as .npy.",
		Example: "  torchvit attend vit_tiny.pt cat.jpg --out pictures    # cat.attention.png, cat.attention-mean.jpg,\n" +
			"                                                       # cat.attention.npy\n" +
			"  torchvit attend vit_tiny.pt cat.jpg --block 5 --json",
		Args:              modelAndImages,
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.attend(cmd.Context(), args[0], args[1:], o)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&o.block, "block", -1, "block from 0; negative ones count from the last")
	flags.StringVar(&o.out, "out", "", "`folder` for the pictures and weights")
	flags.StringVar(&o.colorMap, "colormap", "viridis", "`colours` of the pictures: viridis or inferno")
	flags.BoolVar(&o.smooth, "smooth", false, "interpolate between patches in the pictures")
	_ = cmd.RegisterFlagCompletionFunc("colormap", cobra.FixedCompletions([]string{"viridis", "inferno"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// attendAnswer is one line of `attend --json`.
type attendAnswer struct {
	Image string       `json:"image"`
	Block int          `json:"block"`
	Heads []attendHead `json:"heads"`
}

type attendHead struct {
	Head   int    `json:"head"`
	Min    number `json:"min"`
	Max    number `json:"max"`
	ArgMax [2]int `json:"argmax"` // row, column
}

func (t *attendAnswer) print(w io.Writer) error {
	fmt.Fprintln(w, t.Image)
	for _, h := range t.Heads {
		fmt.Fprintf(w, "  block %d  head %d  min %s  max %s  argmax %d,%d\n", t.Block, h.Head, h.Min, h.Max, h.ArgMax[0], h.ArgMax[1])
	}
	return nil
}

func newAttendAnswer(path string, maps *vit.AttentionMaps) *attendAnswer {
	answer := &attendAnswer{Image: path, Block: maps.Block, Heads: []attendHead{}}
	for h := range maps.Heads {
		values := maps.Head(h)
		low, high, at := values[0], values[0], 0
		for i, v := range values {
			low = min(low, v)
			if v > high {
				high, at = v, i
			}
		}
		answer.Heads = append(answer.Heads, attendHead{h, number(low), number(high), [2]int{at / maps.Columns, at % maps.Columns}})
	}
	return answer
}

func (a *app) attend(ctx context.Context, path string, photos []string, o attendOptions) error {
	if o.colorMap != "viridis" && o.colorMap != "inferno" {
		return usagef("--colormap %s: want viridis or inferno", o.colorMap)
	}
	device, err := a.open()
	if err != nil {
		return err
	}
	model, err := vit.Load(path, vit.Options{Device: device})
	if err != nil {
		return err
	}
	defer model.Close()
	if err := model.Need("attend", vit.TaskClassification, vit.TaskSegmentation); err != nil {
		return err
	}
	if t := model.Metadata().Tokens; t != nil && (o.block >= t.Depth || o.block < -t.Depth) {
		return usagef("--block %d: want %d to %d, the model has %d blocks", o.block, -t.Depth, t.Depth-1, t.Depth)
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
		maps, err := model.Attend(ctx, o.block, photo)
		if err != nil {
			return found{}, err
		}
		f := found{answer: newAttendAnswer(path, maps[0])}
		if pics == nil {
			return f, nil
		}
		img, err := photo.RGBA()
		if err != nil {
			return found{}, err
		}
		f.files, err = drawAttention(pics, path, img, maps[0], o)
		return f, err
	})
}

// drawAttention writes the sheet, the mean over the photo, and the weights.
func drawAttention(pics *pictures, path string, photo *image.RGBA, maps *vit.AttentionMaps, o attendOptions) ([]string, error) {
	opts := vit.HeatMapOptions{ColorMap: o.colorMap, Smooth: o.smooth, Region: regionOf(maps.Geometry)}
	sheet, err := vit.HeatMapSheet(photo, maps.Values, maps.Heads, maps.Rows, maps.Columns, vit.HeatMapSheetOptions{
		HeatMapOptions: opts,
		Title:          fmt.Sprintf("attention of the class token, block %d", maps.Block),
	})
	if err != nil {
		return nil, err
	}
	mean, err := vit.OverlayHeatMap(photo, maps.Mean(), maps.Rows, maps.Columns, opts)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, p := range []struct {
		suffix string
		img    image.Image
	}{{".attention.png", sheet}, {".attention-mean.jpg", mean}} {
		file, err := pics.image(path, p.suffix, p.img)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	weights := &npy.Array{DType: "f4", Shape: []int64{int64(maps.Heads), int64(maps.Rows), int64(maps.Columns)}}
	for _, v := range maps.Values {
		weights.Data = binary.LittleEndian.AppendUint32(weights.Data, math.Float32bits(v))
	}
	file := pics.path(path, ".attention.npy")
	if err := npy.WriteFile(file, weights); err != nil {
		return nil, fmt.Errorf("--out: %w", err)
	}
	return append(files, file), nil
}

// regionOf is the part of the photo that the model saw, in the photo's pixels.
func regionOf(g transforms.Geometry) image.Rectangle {
	x0, y0, x1, y1 := g.Visible()
	left, top := g.ToPhoto(float32(x0), float32(y0))
	right, bottom := g.ToPhoto(float32(x1), float32(y1))
	near := func(v float32) int { return int(math.Round(float64(v))) }
	return image.Rect(near(left), near(top), near(right), near(bottom)).Intersect(image.Rect(0, 0, g.Width, g.Height))
}
