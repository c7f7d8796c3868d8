package det

import (
	"context"
	"errors"

	"github.com/torchvit/torchvit/internal/sequence"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/vit"
)

// kind is how one kind of output is read, and what its Python does by default.
type kind struct {
	// decode reads the answer of a batch; see errForm and errAlone.
	decode func(ctx context.Context, leaves []*torch.Tensor, r *request) ([]*Output, error)
	// form is what decode wants, for errors.
	form string
	// relative boxes are shares of the photo's sides.
	relative bool
	// clip boxes to the photo.
	clip bool
	// reaches keeps scores that equal the threshold; else they must be above it.
	reaches bool
	// threshold, iou, nms and limit are the defaults of DetectOptions.
	threshold float32
	iou       float64
	nms       NMS
	limit     int
	// offset per class in pixels for suppression by class, 0 for that of torchvision's batched_nms.
	offset float32
}

// kinds are the kinds of output of detectors, decoded in float32 whatever the model's dtype. The defaults are
// those of torchvision, transformers and ultralytics.
var kinds = map[string]*kind{
	vit.OutputDetections: {
		decode: detections, reaches: true, threshold: 0.5, iou: 0.5, nms: NMSNone,
		form: "boxes (N, 4), labels (N), scores (N) and perhaps masks (N, 1, H, W) for each photo",
	},
	vit.OutputSetPrediction: {
		decode: setPrediction, relative: true, threshold: 0.5, iou: 0.5, nms: NMSNone,
		form: "logits (B, Q, C+1) and boxes (B, Q, 4)",
	},
	vit.OutputSetPredictionSigmoid: {
		decode: setPredictionSigmoid, relative: true, threshold: 0.5, iou: 0.5, nms: NMSNone,
		form: "logits (B, Q, C) and boxes (B, Q, 4)",
	},
	vit.OutputYOLO: {
		decode: yolo, clip: true, threshold: 0.25, iou: 0.45, nms: NMSClass, limit: 300, offset: 7680,
		form: "(B, 4+C, A) with C the number of labels",
	},
	vit.OutputYOLOGrid: {
		decode: yoloGrid, clip: true, threshold: 0.25, iou: 0.45, nms: NMSClass, limit: 300,
		form: "(B, anchors*(5+C), h, w) for each level of output.anchors",
	},
	vit.OutputYOLOEnd2End: {
		decode: yoloEnd2End, clip: true, threshold: 0.25, iou: 0.45, nms: NMSNone, limit: 300,
		form: "(B, N, 6)",
	},
}

// maxCandidates is ultralytics' max_nms: only the best of a YOLO's candidates are compared.
const maxCandidates = 30000

var (
	// errForm: the leaves do not have the kind's form.
	errForm = errors.New("form")
	// errAlone: the answer is for one photo, and there were more.
	errAlone = errors.New("one photo at a time")
)

// request is what a decoder needs to know beside the answer.
type request struct {
	// n photos, height and width of the tensors of a batch in pixels.
	n             int
	height, width int64
	// targets are the sizes (H, W) that relative boxes are shares of; none: the tensors'.
	targets [][2]int
	// floor is below the scores that are wanted; negative: all are wanted. It is a float32.
	floor float64
	// multiLabel gives a candidate for each class that reaches floor, not only for the best one.
	multiLabel bool
	// topK of OutputSetPredictionSigmoid; 0: as many as queries.
	topK int
	// labels is the number of classes, 0 where it is not known.
	labels  int
	anchors [][][2]float64
}

// all asks for every candidate.
func all(*kind, int, int) request { return request{floor: -1} }

// ops is a sequence of operators with those that decoding needs.
type ops struct{ sequence.Calls }

func newOps(ctx context.Context) *ops { return &ops{sequence.Calls{Ctx: ctx}} }

func (o *ops) cpu(t *torch.Tensor) *torch.Tensor {
	if o.Err != nil || !t.Device().IsCUDA() {
		return t
	}
	return o.Own(t.To(torch.CPU))
}

// slice is t[..., from:to] of a dimension.
func (o *ops) slice(t *torch.Tensor, dim, from, to int) *torch.Tensor {
	return o.View("aten::slice.Tensor", t, dim, from, to, 1)
}

// corners is transformers' center_to_corners_format and ultralytics' xywh2xyxy: cxcywh to xyxy.
func (o *ops) corners(boxes *torch.Tensor) *torch.Tensor {
	boxes = o.Cast(boxes, torch.Float32)
	center := o.slice(boxes, -1, 0, 2)
	half := o.Call("aten::mul.Scalar", o.slice(boxes, -1, 2, 4), 0.5)
	low, high := o.Call("aten::sub.Tensor", center, half), o.Call("aten::add.Tensor", center, half)
	if o.Err != nil {
		return nil
	}
	return o.Call("aten::cat", []*torch.Tensor{low, high}, -1)
}

// output makes one that outlives o and the answer.
func (o *ops) output(boxes, labels, scores, masks *torch.Tensor) *Output {
	out := &Output{}
	for _, part := range []struct {
		place **torch.Tensor
		t     *torch.Tensor
		dtype torch.DType
	}{
		{&out.Boxes, boxes, torch.Float32},
		{&out.Labels, labels, torch.Int64},
		{&out.Scores, scores, torch.Float32},
	} {
		if o.Err == nil {
			*part.place, o.Err = part.t.CastTo(part.dtype)
		}
	}
	if o.Err == nil && masks != nil {
		out.Masks, o.Err = masks.Alias()
	}
	if o.Err != nil {
		out.Close()
		return nil
	}
	return out
}

// each makes the output of every photo of a batch.
func (r *request) each(ctx context.Context, whole func(o *ops), photo func(o *ops, b int) *Output) ([]*Output, error) {
	o := newOps(ctx)
	defer o.Close()
	whole(o)
	outputs := make([]*Output, r.n)
	for b := range outputs {
		outputs[b] = photo(o, b)
	}
	if o.Err != nil {
		closeOutputs(outputs)
		return nil, o.Err
	}
	return outputs, nil
}

// detections reads torchvision's boxes, labels, scores and masks, photo by photo in any order. An answer for
// one photo that was to be for more is errAlone.
func detections(ctx context.Context, leaves []*torch.Tensor, r *request) ([]*Output, error) {
	var groups []Output
	for _, t := range leaves {
		var place func(*Output) **torch.Tensor
		switch dims := t.Dim(); {
		case dims == 2 && t.Size(1) == 4:
			place = func(o *Output) **torch.Tensor { return &o.Boxes }
		case dims == 4 && t.Size(1) == 1:
			place = func(o *Output) **torch.Tensor { return &o.Masks }
		case dims == 1 && t.DType().IsFloatingPoint():
			place = func(o *Output) **torch.Tensor { return &o.Scores }
		case dims == 1:
			place = func(o *Output) **torch.Tensor { return &o.Labels }
		default:
			return nil, errForm
		}
		if len(groups) == 0 || *place(&groups[len(groups)-1]) != nil {
			groups = append(groups, Output{})
		}
		*place(&groups[len(groups)-1]) = t
	}
	for _, g := range groups {
		if g.Boxes == nil || g.Labels == nil || g.Scores == nil {
			return nil, errForm
		}
		n := g.Boxes.Size(0)
		if g.Labels.Size(0) != n || g.Scores.Size(0) != n || g.Masks != nil && g.Masks.Size(0) != n {
			return nil, errForm
		}
	}
	if len(groups) == 1 && r.n > 1 {
		return nil, errAlone
	}
	if len(groups) != r.n {
		return nil, errForm
	}
	return r.each(ctx, func(*ops) {}, func(o *ops, b int) *Output {
		g := groups[b]
		return o.output(g.Boxes, g.Labels, g.Scores, g.Masks)
	})
}

// setForm checks logits (B, Q, C) and boxes (B, Q, 4).
func (r *request) setForm(leaves []*torch.Tensor, classes int64) bool {
	if len(leaves) != 2 || leaves[0].Dim() != 3 || leaves[1].Dim() != 3 {
		return false
	}
	logits, boxes := leaves[0].Shape(), leaves[1].Shape()
	return logits[0] == int64(r.n) && boxes[0] == logits[0] && boxes[1] == logits[1] && boxes[2] == 4 && logits[2] >= classes
}

// onTargets multiplies boxes (B, Q, 4), xyxy as shares, with the sides of what they are shares of.
func (o *ops) onTargets(boxes *torch.Tensor, r *request) *torch.Tensor {
	sides := make([]float32, 0, 4*r.n)
	for b := range r.n {
		h, w := float32(r.height), float32(r.width)
		if r.targets != nil {
			h, w = float32(r.targets[b][0]), float32(r.targets[b][1])
		}
		sides = append(sides, w, h, w, h)
	}
	return o.Call("aten::mul.Tensor", boxes, o.constant(sides, boxes, int64(r.n), 1, 4))
}

// constant is a tensor of numbers on the device of like.
func (o *ops) constant(values []float32, like *torch.Tensor, shape ...int64) *torch.Tensor {
	if o.Err != nil {
		return nil
	}
	t := o.Own(torch.NewTensor(values, shape...))
	if o.Err != nil {
		return nil
	}
	return o.Own(t.To(like.Device()))
}

// setPrediction is transformers' post_process_object_detection of DETR and YOLOS.
func setPrediction(ctx context.Context, leaves []*torch.Tensor, r *request) ([]*Output, error) {
	if !r.setForm(leaves, 2) {
		return nil, errForm
	}
	var boxes, scores, labels *torch.Tensor
	return r.each(ctx, func(o *ops) {
		probabilities := o.Call("aten::softmax.int", o.Cast(leaves[0], torch.Float32), -1, nil)
		scores, labels = o.Pair("aten::max.dim", o.slice(probabilities, -1, 0, -1), -1, false)
		boxes = o.onTargets(o.corners(leaves[1]), r)
	}, func(o *ops, b int) *Output {
		return o.output(o.row(boxes, b), o.row(labels, b), o.row(scores, b), nil)
	})
}

func (o *ops) row(t *torch.Tensor, b int) *torch.Tensor { return o.View("aten::select.int", t, 0, b) }

// setPredictionSigmoid is transformers' post_process_object_detection of Deformable DETR and RT-DETR.
func setPredictionSigmoid(ctx context.Context, leaves []*torch.Tensor, r *request) ([]*Output, error) {
	if !r.setForm(leaves, 1) {
		return nil, errForm
	}
	queries, classes := leaves[0].Size(1), leaves[0].Size(2)
	k := queries
	if r.topK > 0 {
		k = min(int64(r.topK), queries*classes)
	}
	var boxes, scores, labels *torch.Tensor
	return r.each(ctx, func(o *ops) {
		probabilities := o.Call("aten::flatten.using_ints", o.Call("aten::sigmoid", o.Cast(leaves[0], torch.Float32)), 1, -1)
		var index *torch.Tensor
		scores, index = o.Pair("aten::topk", probabilities, k, 1)
		labels = o.Call("aten::remainder.Scalar", index, classes)
		query := o.View("aten::unsqueeze", o.Call("aten::floor_divide.Scalar", index, classes), -1)
		boxes = o.Call("aten::gather", o.corners(leaves[1]), 1, o.View("aten::expand", query, []int64{-1, -1, 4}))
		boxes = o.onTargets(boxes, r)
	}, func(o *ops, b int) *Output {
		return o.output(o.row(boxes, b), o.row(labels, b), o.row(scores, b), nil)
	})
}

// wanted makes the output of boxes (A, 4), cxcywh, and the scores of their classes (A, C): of the best class,
// or with multiLabel of every class, as ultralytics' non_max_suppression. Scores below r.floor are left out.
func (o *ops) wanted(boxes, classes *torch.Tensor, r *request) *Output {
	if r.floor >= 0 { // most are below it, and finding the best class of all costs more than this
		best := o.Call("aten::amax", classes, []int{1})
		places := o.places(o.Call("aten::ge.Scalar", best, r.floor), 0)
		boxes, classes = o.Call("aten::index_select", boxes, 0, places), o.Call("aten::index_select", classes, 0, places)
	}
	if r.multiLabel && r.floor >= 0 {
		reach := o.Call("aten::ge.Scalar", classes, r.floor)
		boxes = o.Call("aten::index_select", boxes, 0, o.places(reach, 0))
		return o.output(o.corners(boxes), o.places(reach, 1), o.Call("aten::masked_select", classes, reach), nil)
	}
	scores, labels := o.Pair("aten::max.dim", classes, 1, false)
	return o.output(o.corners(boxes), labels, scores, nil)
}

// places are the indices in one dimension of the elements that are true, row by row.
func (o *ops) places(mask *torch.Tensor, dim int) *torch.Tensor {
	return o.View("aten::select.int", o.Call("aten::nonzero", mask), 1, dim)
}

// yolo reads ultralytics' (B, 4+C, A). Rows after those of the labels, such as the coefficients of masks, are
// passed over.
func yolo(ctx context.Context, leaves []*torch.Tensor, r *request) ([]*Output, error) {
	if len(leaves) != 1 || leaves[0].Dim() != 3 || leaves[0].Size(0) != int64(r.n) || leaves[0].Size(1) < int64(4+max(r.labels, 1)) {
		return nil, errForm
	}
	last := int(leaves[0].Size(1))
	if r.labels > 0 {
		last = 4 + r.labels
	}
	var answer *torch.Tensor
	return r.each(ctx, func(o *ops) {
		answer = o.View("aten::transpose.int", o.Cast(leaves[0], torch.Float32), 1, 2)
	}, func(o *ops, b int) *Output {
		one := o.row(answer, b) // (A, 4+C)
		return o.wanted(o.slice(one, 1, 0, 4), o.slice(one, 1, 4, last), r)
	})
}

// yoloEnd2End reads (B, N, 6): xyxy, score, class.
func yoloEnd2End(ctx context.Context, leaves []*torch.Tensor, r *request) ([]*Output, error) {
	if len(leaves) != 1 || leaves[0].Dim() != 3 || leaves[0].Size(0) != int64(r.n) || leaves[0].Size(2) != 6 {
		return nil, errForm
	}
	return r.each(ctx, func(*ops) {}, func(o *ops, b int) *Output {
		one := o.row(leaves[0], b)
		column := func(i int) *torch.Tensor { return o.View("aten::select.int", one, 1, i) }
		return o.output(o.slice(one, 1, 0, 4), column(5), column(4), nil)
	})
}

// yoloGrid decodes YOLOv5's levels, (B, anchors*(5+C), h, w) each: y is the sigmoid, the centre is
// (2*y - 0.5 + cell) * stride, the size (2*y)^2 * anchor, the score objectness times class. Candidates come
// level by level, anchor by anchor, row by row.
func yoloGrid(ctx context.Context, leaves []*torch.Tensor, r *request) ([]*Output, error) {
	if len(leaves) == 0 || len(leaves) != len(r.anchors) {
		return nil, errForm
	}
	fields := int64(0)
	for i, t := range leaves {
		anchors := int64(len(r.anchors[i]))
		if t.Dim() != 4 || t.Size(0) != int64(r.n) || anchors == 0 || t.Size(1)%anchors != 0 || t.Size(1)/anchors < 6 || t.Size(2) == 0 || t.Size(3) == 0 {
			return nil, errForm
		}
		if got := t.Size(1) / anchors; fields != 0 && got != fields {
			return nil, errForm
		}
		fields = t.Size(1) / anchors
	}
	var boxes, classes *torch.Tensor
	return r.each(ctx, func(o *ops) {
		var levels, scores []*torch.Tensor
		for i, t := range leaves {
			box, score := o.gridLevel(t, r, r.anchors[i], fields)
			levels, scores = append(levels, box), append(scores, score)
		}
		if o.Err == nil {
			boxes, classes = o.Call("aten::cat", levels, 1), o.Call("aten::cat", scores, 1)
		}
	}, func(o *ops, b int) *Output {
		return o.wanted(o.row(boxes, b), o.row(classes, b), r)
	})
}

// gridLevel gives boxes (B, A*h*w, 4), cxcywh in pixels of the input, and scores (B, A*h*w, C).
func (o *ops) gridLevel(t *torch.Tensor, r *request, anchors [][2]float64, fields int64) (boxes, scores *torch.Tensor) {
	a, h, w := int64(len(anchors)), t.Size(2), t.Size(3)
	// A cell's index and an anchor's sides are exact in float32.
	cells := make([]float32, 0, 2*h*w)
	for y := range h {
		for x := range w {
			cells = append(cells, float32(x), float32(y))
		}
	}
	sides := make([]float32, 0, 2*a)
	for _, s := range anchors {
		sides = append(sides, float32(s[0]), float32(s[1]))
	}
	strides := []float32{float32(float64(r.width) / float64(w)), float32(float64(r.height) / float64(h))}

	y := o.Cast(t, torch.Float32)
	y = o.Call("aten::reshape", y, []int64{int64(r.n), a, fields, h, w})
	y = o.Call("aten::sigmoid", o.View("aten::permute", y, []int64{0, 1, 3, 4, 2}))
	center := o.Call("aten::sub.Scalar", o.Call("aten::mul.Scalar", o.slice(y, -1, 0, 2), 2), 0.5)
	center = o.Call("aten::add.Tensor", center, o.constant(cells, t, 1, 1, h, w, 2))
	center = o.Call("aten::mul.Tensor", center, o.constant(strides, t, 2))
	size := o.Call("aten::pow.Tensor_Scalar", o.Call("aten::mul.Scalar", o.slice(y, -1, 2, 4), 2), 2)
	size = o.Call("aten::mul.Tensor", size, o.constant(sides, t, 1, a, 1, 1, 2))
	score := o.Call("aten::mul.Tensor", o.slice(y, -1, 4, 5), o.slice(y, -1, 5, int(fields)))
	if o.Err != nil {
		return nil, nil
	}
	boxes = o.Call("aten::cat", []*torch.Tensor{center, size}, -1)
	return o.Call("aten::reshape", boxes, []int64{int64(r.n), -1, 4}), o.Call("aten::reshape", score, []int64{int64(r.n), -1, fields - 5})
}
