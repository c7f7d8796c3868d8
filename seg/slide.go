package seg

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// The rules of [Slide].
const (
	// SlideMMSeg is mmsegmentation's slide_inference (mmseg/models/segmentors/encoder_decoder.py): windows
	// from the top left, one stride apart, the last ones shifted back into the photo; the sum of the logits
	// over how many windows a pixel lies in. A side of the photo that is shorter than the window makes a
	// shorter window, padded at the right or the bottom with 0 after normalisation: to a multiple of
	// input.multiple_of where the model takes other sizes (input.dynamic), else to the window.
	SlideMMSeg = "mmseg"
	// SlideSegmenter is Segmenter's inference (segm/model/utils.py): a photo whose shorter side is shorter
	// than the window, which is square, is resized bilinearly after normalisation; the mean of the logits is
	// resized to the photo's size, and the class is the highest of the softmax.
	SlideSegmenter = "segmenter"
)

// Slide says how a photo is seen through windows that overlap, each at the model's own size. The zero value
// works for a file that names its input's size.
type Slide struct {
	// Rule is SlideMMSeg or SlideSegmenter; "" is SlideMMSeg.
	Rule string
	// Window is [H, W], or [S] for a square, in pixels of the resized photo; nil is the file's input.size.
	// Both are multiples of input.multiple_of; where the file is not dynamic they are input.size.
	Window []int
	// Stride is [H, W] or [S]: from one window to the next, at most the window; nil is two thirds of the
	// window, as mmsegmentation's 341 for 512.
	Stride []int
	// MaxBatch is how many windows run at once; 0 is 1 for SlideMMSeg and 4 for SlideSegmenter, as the
	// projects have it. Other batches can change the last bits.
	MaxBatch int
	// Resize is what becomes of the photo before; the zero value is the file's own rule where that keeps the
	// photo's shape and there is no crop, else the shorter side to the window's. transforms.RuleNone leaves
	// the photo as large as it is.
	Resize transforms.ResizeSpec
}

// sliding is a Slide with every number known.
type sliding struct {
	segmenter        bool
	windowH, windowW int
	strideH, strideW int
	batch            int
	// padH and padW are what a shorter side is padded to a multiple of; 0 is to the window.
	padMultiple int
	resize      transforms.ResizeSpec
}

func (s *Slide) plan(meta *vit.Metadata) (*sliding, error) {
	bad := func(format string, args ...any) (*sliding, error) {
		return nil, fmt.Errorf("slide: %w: %s", torch.ErrInvalidArgument, fmt.Sprintf(format, args...))
	}
	p := &sliding{segmenter: s.Rule == SlideSegmenter, batch: s.MaxBatch}
	if s.Rule != "" && s.Rule != SlideMMSeg && s.Rule != SlideSegmenter {
		return bad("rule: got %q, want %s or %s", s.Rule, SlideMMSeg, SlideSegmenter)
	}
	in := &meta.Input
	fixed := !in.Dynamic && len(in.Size) > 0
	window := s.Window
	if window == nil {
		window = in.Size
	}
	switch {
	case len(window) == 0:
		return bad("window: got none, and the file names no input.size; want a size")
	case len(window) > 2 || window[0] < 1 || window[len(window)-1] < 1:
		return bad("window: got %v, want [H, W] or [S] in pixels", window)
	}
	p.windowH, p.windowW = window[0], window[len(window)-1]
	if m := max(in.MultipleOf, 1); p.windowH%m != 0 || p.windowW%m != 0 {
		return bad("window: got %d x %d, want multiples of input.multiple_of, %d", p.windowW, p.windowH, m)
	}
	if fixed && (p.windowH != in.Size[0] || p.windowW != in.Size[len(in.Size)-1]) {
		return bad("window: got %d x %d, want the %d x %d that the file takes, or input.dynamic (--multiple-of)", p.windowW, p.windowH, in.Size[len(in.Size)-1], in.Size[0])
	}
	if p.segmenter && p.windowH != p.windowW {
		return bad("window: got %d x %d, want a square for %s", p.windowW, p.windowH, SlideSegmenter)
	}
	switch {
	case s.Stride == nil:
		p.strideH, p.strideW = max(p.windowH*2/3, 1), max(p.windowW*2/3, 1)
	case len(s.Stride) == 0 || len(s.Stride) > 2:
		return bad("stride: got %v, want [H, W] or [S] in pixels", s.Stride)
	default:
		p.strideH, p.strideW = s.Stride[0], s.Stride[len(s.Stride)-1]
	}
	if p.strideH < 1 || p.strideW < 1 || p.strideH > p.windowH || p.strideW > p.windowW {
		return bad("stride: got %d x %d, want 1 to the window's %d x %d", p.strideW, p.strideH, p.windowW, p.windowH)
	}
	if p.segmenter && p.strideH != p.strideW {
		return bad("stride: got %d x %d, want the same both ways for %s", p.strideW, p.strideH, SlideSegmenter)
	}
	switch {
	case p.batch < 0:
		return bad("batch: got %d windows, want 1 or more, or 0 for the rule's own", p.batch)
	case p.batch == 0 && p.segmenter:
		p.batch = 4
	case p.batch == 0:
		p.batch = 1
	}
	if !fixed {
		p.padMultiple = max(in.MultipleOf, 1)
	}
	p.resize = s.Resize
	if p.resize.Rule == "" && len(p.resize.Size) == 0 {
		p.resize = transforms.ResizeSpec{Rule: transforms.RuleShortestEdge, Size: []int{min(p.windowH, p.windowW)}}
		if own := meta.Preprocess; keepsShape(own.Resize.Rule) && (own.Crop.Rule == "" || own.Crop.Rule == transforms.CropNone) {
			p.resize = own.Resize
		}
	}
	return p, nil
}

// keepsShape tells whether a rule scales both sides alike, or nearly so.
func keepsShape(rule string) bool {
	switch rule {
	case transforms.RuleExact, transforms.RuleLetterbox:
		return false
	}
	return true
}

// span is one window.
type span struct{ y0, y1, x0, x1 int }

// spans are the windows over a photo of that size, in the order in which they are added up.
func (p *sliding) spans(height, width int) []span {
	rows, columns := p.along(height, p.windowH, p.strideH), p.along(width, p.windowW, p.strideW)
	list := make([]span, 0, len(rows)*len(columns))
	for _, y := range rows {
		for _, x := range columns {
			list = append(list, span{y[0], y[1], x[0], x[1]})
		}
	}
	return list
}

// along gives the windows' beginnings and ends along one side.
func (p *sliding) along(side, window, stride int) [][2]int {
	var list [][2]int
	if p.segmenter {
		for a := 0; a < side-window; a += stride {
			list = append(list, [2]int{a, a + window})
		}
		return append(list, [2]int{side - window, side})
	}
	for i := range max(side-window+stride-1, 0)/stride + 1 {
		end := min(i*stride+window, side)
		list = append(list, [2]int{max(end-window, 0), end})
	}
	return list
}

// forwardFunc runs the model on pixels (B, 3, H, W).
type forwardFunc func(ctx context.Context, pixels *torch.Tensor) (*torch.Tensor, error)

// logits gives the logits (1, C, h, w) of pixels (1, 3, h, w), which SlideSegmenter may have resized.
func (p *sliding) logits(c *chain, forward forwardFunc, pixels *torch.Tensor) *torch.Tensor {
	if c.Err != nil {
		return nil
	}
	h, w := size(pixels)
	height, width := h, w
	if p.segmenter {
		if height, width = p.atLeastWindow(h, w); height != h || width != w {
			pixels = c.bilinear(pixels, height, width)
		}
	} else if height, width = p.padded(h, p.windowH), p.padded(w, p.windowW); height != h || width != w {
		pixels = c.Call("aten::constant_pad_nd", pixels, []int{0, width - w, 0, height - h}, 0)
	}
	var sum, count *torch.Tensor
	spans := p.spans(height, width)
	for len(spans) > 0 && c.Err == nil {
		n := min(p.batch, len(spans))
		p.add(c, forward, pixels, spans[:n], height, width, &sum, &count)
		spans = spans[n:]
	}
	mean := c.Call("aten::div.Tensor", sum, count)
	if !p.segmenter && (height != h || width != w) {
		return c.window(mean, 0, h, 0, w)
	}
	return mean
}

// padded is what a side is padded to.
func (p *sliding) padded(side, window int) int {
	switch {
	case side >= window:
		return side
	case p.padMultiple == 0:
		return window
	}
	return (side + p.padMultiple - 1) / p.padMultiple * p.padMultiple
}

// atLeastWindow is Segmenter's resize.
func (p *sliding) atLeastWindow(h, w int) (height, width int) {
	switch {
	case min(h, w) >= p.windowH:
		return h, w
	case h < w:
		return p.windowH, int(float64(w) / float64(h) * float64(p.windowH))
	}
	return int(float64(h) / float64(w) * float64(p.windowH)), p.windowH
}

// add runs some windows and adds their logits to the sum, and one to the count of their pixels.
func (p *sliding) add(c *chain, forward forwardFunc, pixels *torch.Tensor, spans []span, height, width int, sum, count **torch.Tensor) {
	part := newChain(c.Ctx)
	defer func() {
		part.Close()
		if c.Err == nil {
			c.Err = part.Err
		}
	}()
	windows := make([]*torch.Tensor, len(spans))
	for i, s := range spans {
		windows[i] = part.window(pixels, s.y0, s.y1, s.x0, s.x1)
	}
	batch := windows[0]
	if len(windows) > 1 {
		batch = part.Call("aten::cat", windows, 0)
	}
	if part.Err != nil {
		return
	}
	out := part.Own(forward(c.Ctx, batch))
	if part.Err != nil {
		return
	}
	kind, err := kindOf(out, len(spans))
	if err == nil && kind != vit.OutputSegmentationLogits {
		err = fmt.Errorf("slide: %w: the model gives classes, want logits, which can be averaged", vit.ErrOutput)
	}
	if err != nil {
		part.Err = err
		return
	}
	out = part.Cast(out, torch.Float32)
	if h, w := size(out); h != spans[0].y1-spans[0].y0 || w != spans[0].x1-spans[0].x0 {
		out = part.bilinear(out, spans[0].y1-spans[0].y0, spans[0].x1-spans[0].x0)
	}
	if *sum == nil {
		*sum = c.Call("aten::new_zeros", out, []int64{1, out.Shape()[1], int64(height), int64(width)})
		*count = c.Call("aten::new_zeros", out, []int{1, 1, height, width})
		if c.Err != nil {
			return
		}
	}
	for i, s := range spans {
		part.Call("aten::add_.Tensor", part.window(*sum, s.y0, s.y1, s.x0, s.x1), part.Call("aten::slice.Tensor", out, 0, i, i+1, 1))
		part.Call("aten::add_.Scalar", part.window(*count, s.y0, s.y1, s.x0, s.x1), 1)
	}
}
