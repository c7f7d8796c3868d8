package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"image"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/torchvit/torchvit/torch/npy"
	"github.com/torchvit/torchvit/vit"
)

// attendFlags are the flags of attend as they were typed.
type attendFlags struct {
	blocks, heads, query, pixel string
	token                       int
	rollout                     bool
	fusion                      string
	discard, mass               float64
	out, colorMap               string
	smooth                      bool
	describing                  *describing
}

func newAttendCommand(a *app) *cobra.Command {
	o := &attendFlags{}
	cmd := &cobra.Command{
		Use:   "attend MODEL IMAGE...",
		Short: "Show what a ViT looks at",
		Long: "attend prints, for each head of a block, the range of the class token's attention to the patches\n" +
			"and the patch (row,column) that gets most. --head mean brings the heads together, --rollout the\n" +
			"blocks too; --query, --pixel and --token look from another token than the class token. --mask keeps\n" +
			"the patches that together hold a share of the attention, as DINO's figures do.\n\n" +
			"With --out it writes the maps as pictures and as .npy: for several maps a sheet of all and their\n" +
			"mean over the photo, for one map the map itself and the photo under it; and each mask as PNG.",
		Example: "  torchvit attend vit_tiny.pt cat.jpg --out pictures    # cat.attention.png, cat.attention-mean.jpg,\n" +
			"                                                       # cat.attention.npy\n" +
			"  torchvit attend vit_tiny.pt cat.jpg --block 5 --json\n" +
			"  torchvit attend vit_tiny.pt cat.jpg --rollout --mask 0.6 --out pictures",
		Args:              modelAndImages,
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			options, err := o.options(cmd)
			if err != nil {
				return err
			}
			return a.attend(cmd.Context(), args[0], args[1:], options, o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.blocks, "block", "-1", "`blocks` from 0, negative ones from the last: 5, 3,7,-1 or all (with --rollout: all)")
	flags.StringVar(&o.heads, "head", "all", "`heads` from 0: 2, 0,1,5, all, or mean")
	flags.BoolVar(&o.rollout, "rollout", false, "attention rollout through the blocks (Abnar and Zuidema)")
	flags.StringVar(&o.fusion, "fusion", "mean", "how rollout brings heads together: `mean`, max or min")
	flags.Float64Var(&o.discard, "discard", 0, "`share` of the lowest weights of each block that rollout leaves out")
	flags.StringVar(&o.query, "query", "", "look from the patch in `ROW,COL` of the grid")
	flags.StringVar(&o.pixel, "pixel", "", "look from the patch at `X,Y` in the photo")
	flags.IntVar(&o.token, "token", 0, "look from that `prefix` token: 0 is the class token, then distillation or registers")
	flags.Float64Var(&o.mass, "mask", 0, "keep the patches that hold that `share` of the attention; DINO's is 0.6")
	flags.StringVar(&o.out, "out", "", "`folder` for the pictures and weights")
	flags.StringVar(&o.colorMap, "colormap", "viridis", "`colours` of the pictures: viridis or inferno")
	flags.BoolVar(&o.smooth, "smooth", false, "interpolate between patches in the pictures")
	for flag, values := range map[string][]string{
		"colormap": {"viridis", "inferno"}, "fusion": {"mean", "max", "min"}, "head": {"all", "mean"}, "block": {"all"},
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	cmd.MarkFlagsMutuallyExclusive("query", "pixel", "token")
	o.describing = a.describeFlags(cmd)
	a.precisionFlag(cmd)
	return cmd
}

// options reads the flags. Blocks "all" is left to the command, which knows the model.
func (o *attendFlags) options(cmd *cobra.Command) (vit.AttendOptions, error) {
	given := cmd.Flags().Changed
	a := vit.AttendOptions{KeepMass: o.mass}
	if err := oneOf("colormap", o.colorMap, "viridis", "inferno"); err != nil {
		return a, err
	}
	if err := oneOf("fusion", o.fusion, "mean", "max", "min"); err != nil {
		return a, err
	}
	var err error
	if o.blocks != "all" && (given("block") || !o.rollout) {
		if a.Blocks, err = integers("block", o.blocks, "numbers or all"); err != nil {
			return a, err
		}
	}
	switch o.heads {
	case "all":
	case "mean":
		a.Mean = true
	default:
		if a.Heads, err = integers("head", o.heads, "numbers, all or mean"); err != nil {
			return a, err
		}
		for i, h := range a.Heads {
			if h < 0 || slices.Index(a.Heads, h) != i {
				return a, usagef("--head %s: want different heads from 0", o.heads)
			}
		}
	}
	switch {
	case o.rollout && given("head") && o.heads != "all":
		return a, usagef("--rollout --head %s: want one of them; rollout brings all heads together (--fusion)", o.heads)
	case o.rollout:
		a.Rollout = &vit.RolloutOptions{HeadFusion: o.fusion, DiscardRatio: o.discard}
	case given("fusion") || given("discard"):
		return a, usagef("--fusion and --discard: want --rollout with them")
	}
	if !(o.discard >= 0 && o.discard < 1) {
		return a, usagef("--discard %v: want 0 or more and less than 1", o.discard)
	}
	if given("mask") && !(o.mass > 0 && o.mass <= 1) {
		return a, usagef("--mask %v: want more than 0, up to 1", o.mass)
	}
	a.Query = vit.TokenQuery(o.token)
	for flag, value := range map[string]string{"query": o.query, "pixel": o.pixel} {
		if !given(flag) {
			continue
		}
		pair, err := integers(flag, value, "two numbers")
		if err != nil {
			return a, err
		}
		if len(pair) != 2 {
			return a, usagef("--%s %s: want two numbers", flag, value)
		}
		a.Query = vit.PatchQuery(pair[0], pair[1])
		if flag == "pixel" {
			a.Query = vit.PixelQuery(pair[0], pair[1])
		}
	}
	return a, nil
}

// integers reads a list of whole numbers.
func integers(flag, text, want string) ([]int, error) {
	var list []int
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil {
			return nil, usagef("--%s %s: want %s", flag, text, want)
		}
		list = append(list, n)
	}
	return list, nil
}

// attendAnswer is one line of `attend --json`. Of one block it holds block and heads, of several the blocks.
type attendAnswer struct {
	Image string `json:"image"`
	// Query is the token that looks, where it is not the class token.
	Query string `json:"query,omitempty"`
	*attendBlock
	Blocks []*attendBlock `json:"blocks,omitempty"`
}

// attendBlock is the maps of one block; block is left out for rollout.
type attendBlock struct {
	Block *int         `json:"block,omitempty"`
	Heads []attendHead `json:"heads"`
}

type attendHead struct {
	// Head is left out where Map is "mean" or "rollout".
	Head   *int   `json:"head,omitempty"`
	Map    string `json:"map,omitempty"`
	Min    number `json:"min"`
	Max    number `json:"max"`
	ArgMax [2]int `json:"argmax"` // row, column
	// Mask is how many patches --mask keeps.
	Mask *int `json:"mask,omitempty"`

	name string
}

func (t *attendAnswer) print(w io.Writer) error {
	fmt.Fprintln(w, t.Image)
	blocks := t.Blocks
	if t.attendBlock != nil {
		blocks = []*attendBlock{t.attendBlock}
	}
	for _, b := range blocks {
		for _, h := range b.Heads {
			parts := []string{h.name, "min " + h.Min.String(), "max " + h.Max.String(), fmt.Sprintf("argmax %d,%d", h.ArgMax[0], h.ArgMax[1])}
			if b.Block != nil {
				parts = slices.Insert(parts, 0, fmt.Sprintf("block %d", *b.Block))
			}
			if h.Mask != nil {
				parts = append(parts, fmt.Sprintf("mask %d", *h.Mask))
			}
			fmt.Fprintln(w, "  "+strings.Join(parts, "  "))
		}
	}
	return nil
}

func newAttendAnswer(path string, blocks []*vit.AttentionMaps, query vit.Query) *attendAnswer {
	answer := &attendAnswer{Image: path}
	if query != vit.TokenQuery(0) {
		answer.Query = query.String()
	}
	for _, maps := range blocks {
		b := newAttendBlock(maps)
		if len(blocks) == 1 {
			answer.attendBlock = b
			break
		}
		answer.Blocks = append(answer.Blocks, b)
	}
	return answer
}

func newAttendBlock(maps *vit.AttentionMaps) *attendBlock {
	b := &attendBlock{Heads: []attendHead{}}
	if maps.Block != vit.RolloutBlock {
		b.Block = &maps.Block
	}
	for i := range maps.Heads {
		values := maps.Head(i)
		low, high, at := values[0], values[0], 0
		for i, v := range values {
			low = min(low, v)
			if v > high {
				high, at = v, i
			}
		}
		h := attendHead{Min: number(low), Max: number(high), ArgMax: [2]int{at / maps.Columns, at % maps.Columns}, name: maps.Name(i)}
		if i < len(maps.HeadIndex) {
			h.Head = &maps.HeadIndex[i]
		} else {
			h.Map = h.name
		}
		if mask := maps.HeadMask(i); mask != nil {
			n := 0
			for _, kept := range mask {
				if kept {
					n++
				}
			}
			h.Mask = &n
		}
		b.Heads = append(b.Heads, h)
	}
	return b
}

func (a *app) attend(ctx context.Context, path string, photos []string, o vit.AttendOptions, f *attendFlags) error {
	device, err := a.open()
	if err != nil {
		return err
	}
	options, err := f.describing.options(path, vit.TaskAttention, device)
	if err != nil {
		return err
	}
	model, err := vit.Load(path, options)
	if err != nil {
		return err
	}
	defer model.Close()
	if err := model.Need("attend", vit.TaskClassification, vit.TaskSegmentation); err != nil {
		return err
	}
	if err := checkAttend(&o, f, model.Metadata().Tokens); err != nil {
		return err
	}
	pics, err := newPictures(f.out, photos)
	if err != nil {
		return err
	}
	return a.eachImage(ctx, photos, func(ctx context.Context, path string) (found, error) {
		photo, err := openPhoto(ctx, path)
		if err != nil {
			return found{}, err
		}
		defer photo.Close()
		maps, err := model.AttendWith(ctx, o, photo)
		if err != nil {
			return found{}, err
		}
		answer := found{answer: newAttendAnswer(path, maps[0], o.Query)}
		if pics == nil {
			return answer, nil
		}
		img, err := photo.RGBA()
		if err != nil {
			return found{}, err
		}
		d := &attentionDrawing{pics: pics, path: path, photo: img, maps: maps[0], tokens: model.Metadata().Tokens, query: o.Query, flags: f}
		answer.files, err = d.write()
		return answer, err
	})
}

// checkAttend checks blocks and heads against the model, and makes a list of all blocks.
func checkAttend(o *vit.AttendOptions, f *attendFlags, t *vit.Tokens) error {
	if t == nil {
		return nil // the model says what is missing
	}
	for _, b := range o.Blocks {
		if t.Depth > 0 && (b >= t.Depth || b < -t.Depth) {
			return usagef("--block %s: want %d to %d, the model has %d blocks", f.blocks, -t.Depth, t.Depth-1, t.Depth)
		}
	}
	for _, h := range o.Heads {
		if t.NumHeads > 0 && h >= t.NumHeads {
			return usagef("--head %s: want 0 to %d, the model has %d heads", f.heads, t.NumHeads-1, t.NumHeads)
		}
	}
	if f.blocks == "all" && o.Rollout == nil {
		if t.Depth == 0 {
			return usagef("--block all: nothing says how many blocks the model has, want --depth with it")
		}
		for b := range t.Depth {
			o.Blocks = append(o.Blocks, b)
		}
	}
	return nil
}

// attentionDrawing writes the maps of one photo.
type attentionDrawing struct {
	pics   *pictures
	path   string
	photo  *image.RGBA
	maps   []*vit.AttentionMaps
	tokens *vit.Tokens
	query  vit.Query
	flags  *attendFlags
	files  []string
}

func (d *attentionDrawing) write() ([]string, error) {
	steps := []func() error{d.sheet, d.mean, d.weights, d.masks}
	if len(d.maps) == 1 && d.maps[0].Heads == 1 {
		steps[0], steps[1] = d.alone, d.over
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return d.files, nil
}

func (d *attentionDrawing) options() vit.HeatMapOptions {
	return vit.HeatMapOptions{
		ColorMap: d.flags.colorMap, Smooth: d.flags.smooth, Region: d.maps[0].Region(), Mark: d.maps[0].QueryPatch(d.tokens),
	}
}

// image writes one picture.
func (d *attentionDrawing) image(suffix string, img image.Image, err error) error {
	if err != nil {
		return err
	}
	file, err := d.pics.image(d.path, suffix, img)
	d.files = append(d.files, file)
	return err
}

// sheet is a page of all maps.
func (d *attentionDrawing) sheet() error {
	first := d.maps[0]
	what := "attention of "
	if first.HeadIndex == nil {
		what = "mean attention of "
	}
	o := vit.HeatMapSheetOptions{HeatMapOptions: d.options(), Title: what + d.looking()}
	if len(d.maps) == 1 {
		o.Title += fmt.Sprintf(", block %d", first.Block)
	} else {
		o.NoMean = true // of different blocks
	}
	var values []float32
	for _, m := range d.maps {
		values = append(values, m.Values...)
		o.Masks = append(o.Masks, m.Mask...)
		for i := range m.Heads {
			switch name := m.Name(i); {
			case len(d.maps) == 1:
				o.Names = append(o.Names, name)
			case m.HeadIndex == nil:
				o.Names = append(o.Names, fmt.Sprintf("block %d", m.Block))
			default:
				o.Names = append(o.Names, fmt.Sprintf("block %d, %s", m.Block, name))
			}
		}
	}
	if len(o.Names) > 40 {
		o.TileSize = 224
	}
	page, err := vit.HeatMapSheet(d.photo, values, len(o.Names), first.Rows, first.Columns, o)
	return d.image(".attention.png", page, err)
}

// looking names the token that looks.
func (d *attentionDrawing) looking() string {
	if d.query == vit.TokenQuery(0) {
		return "the class token"
	}
	return d.query.String()
}

// mean is the mean of a block's heads over the photo.
func (d *attentionDrawing) mean() error {
	if len(d.maps) > 1 {
		return nil
	}
	m, o := d.maps[0], d.options()
	o.InPlace = true // nothing else is drawn on the photo
	img, err := vit.OverlayHeatMap(d.photo, m.Mean(), m.Rows, m.Columns, o)
	return d.image(".attention-mean.jpg", img, err)
}

// alone is the only map as it is, at the size that it has on the photo.
func (d *attentionDrawing) alone() error {
	m, o := d.maps[0], d.options()
	o.Width, o.Height = o.Region.Dx(), o.Region.Dy()
	img, err := vit.HeatMap(m.Values, m.Rows, m.Columns, o)
	return d.image(".attention.png", img, err)
}

// over is the only map over the photo.
func (d *attentionDrawing) over() error {
	m, o := d.maps[0], d.options()
	o.Mask, o.InPlace = m.Mask, true
	img, err := vit.OverlayHeatMap(d.photo, m.Values, m.Rows, m.Columns, o)
	return d.image(".attention-"+strings.ReplaceAll(m.Name(0), " ", "")+".jpg", img, err)
}

// weights writes the values: (maps, rows, columns), and for several blocks (blocks, maps, rows, columns).
func (d *attentionDrawing) weights() error {
	m := d.maps[0]
	weights := &npy.Array{DType: "f4", Shape: []int64{int64(m.Heads), int64(m.Rows), int64(m.Columns)}}
	if len(d.maps) > 1 {
		weights.Shape = slices.Insert(weights.Shape, 0, int64(len(d.maps)))
	}
	for _, m := range d.maps {
		for _, v := range m.Values {
			weights.Data = binary.LittleEndian.AppendUint32(weights.Data, math.Float32bits(v))
		}
	}
	file := d.pics.path(d.path, ".attention.npy")
	if err := npy.WriteFile(file, weights); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	d.files = append(d.files, file)
	return nil
}

// masks writes the masks, one file each.
func (d *attentionDrawing) masks() error {
	for _, m := range d.maps {
		for i := range m.Heads {
			mask := m.HeadMask(i)
			if mask == nil {
				return nil
			}
			suffix := ".attention-mask"
			if len(d.maps) > 1 {
				suffix += fmt.Sprintf("-block%d", m.Block)
			}
			if m.Heads > 1 {
				suffix += "-" + strings.ReplaceAll(m.Name(i), " ", "")
			}
			img, err := vit.AttentionMask(mask, m.Rows, m.Columns, d.photo.Rect.Size(), m.Region())
			if err := d.image(suffix+".png", img, err); err != nil {
				return err
			}
		}
	}
	return nil
}
