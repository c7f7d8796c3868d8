package det

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/torchvit/torchvit/torch"
)

// NonMaximumSuppression is torchvision.ops.nms: the indices of the boxes that stay, best score first, of equal
// ones the first. A box goes where it overlaps with a better one that stays by more than iou. Boxes and scores
// are as many; the error is torch.ErrInvalidArgument otherwise, and torch's own where torchvision's library of
// operators is not there.
func NonMaximumSuppression(ctx context.Context, boxes []Box, scores []float32, iou float64) ([]int, error) {
	if len(boxes) != len(scores) {
		return nil, fmt.Errorf("nms: %w: got %d boxes and %d scores, want as many", torch.ErrInvalidArgument, len(boxes), len(scores))
	}
	if len(boxes) == 0 {
		return nil, nil
	}
	var scope torch.Scope
	defer scope.Close()
	own := torch.Own(&scope)
	sides := make([]float32, 0, 4*len(boxes))
	for _, b := range boxes {
		sides = append(sides, b.X1, b.Y1, b.X2, b.Y2)
	}
	b, err := own(torch.NewTensor(sides, int64(len(boxes)), 4))
	if err != nil {
		return nil, err
	}
	s, err := own(torch.NewTensor(scores))
	if err != nil {
		return nil, err
	}
	keep, err := own(torch.CallTensor(ctx, "torchvision::nms", b, s, iou))
	if err != nil {
		return nil, err
	}
	places, err := torch.CopyData[int64](keep)
	if err != nil {
		return nil, err
	}
	indices := make([]int, len(places))
	for i, p := range places {
		indices[i] = int(p)
	}
	return indices, nil
}

// manyBoxes is from how many boxes on batched_nms goes class by class.
const manyBoxes = 1000

// BatchedNMS is torchvision.ops.batched_nms on the CPU: NonMaximumSuppression among the boxes of each label.
// Like torchvision it moves the boxes of each label apart, which can round an overlap, and goes label by label
// for more than 1000 boxes.
func BatchedNMS(ctx context.Context, boxes []Box, scores []float32, labels []int, iou float64) ([]int, error) {
	if len(labels) != len(boxes) || len(scores) != len(boxes) {
		return nil, fmt.Errorf("nms: %w: got %d boxes, %d scores and %d labels, want as many", torch.ErrInvalidArgument, len(boxes), len(scores), len(labels))
	}
	if len(boxes) > manyBoxes {
		return nmsByLabel(ctx, boxes, scores, labels, iou)
	}
	highest := float32(math.Inf(-1))
	for _, b := range boxes {
		highest = max(highest, b.X1, b.Y1, b.X2, b.Y2)
	}
	return NonMaximumSuppression(ctx, apart(boxes, labels, highest+1), scores, iou)
}

// apart moves the boxes of label l by l*offset.
func apart(boxes []Box, labels []int, offset float32) []Box {
	moved := make([]Box, len(boxes))
	for i, b := range boxes {
		o := float32(float32(labels[i]) * offset)
		moved[i] = Box{b.X1 + o, b.Y1 + o, b.X2 + o, b.Y2 + o}
	}
	return moved
}

func nmsByLabel(ctx context.Context, boxes []Box, scores []float32, labels []int, iou float64) ([]int, error) {
	groups := map[int][]int{}
	for i, l := range labels {
		groups[l] = append(groups[l], i)
	}
	var all []int
	for _, group := range groups {
		b, s := make([]Box, len(group)), make([]float32, len(group))
		for j, i := range group {
			b[j], s[j] = boxes[i], scores[i]
		}
		keep, err := NonMaximumSuppression(ctx, b, s, iou)
		if err != nil {
			return nil, err
		}
		for _, j := range keep {
			all = append(all, group[j])
		}
	}
	slices.Sort(all)
	return byScore(all, scores), nil
}

// byScore sorts indices, best score first, of equal ones the first.
func byScore(indices []int, scores []float32) []int {
	slices.SortStableFunc(indices, func(a, b int) int {
		switch {
		case scores[a] > scores[b]:
			return -1
		case scores[a] < scores[b]:
			return 1
		}
		return 0
	})
	return indices
}

// suppress drops what overlaps, as the options say.
func (s *settings) suppress(ctx context.Context, list []candidate) ([]candidate, error) {
	boxes, scores, labels := make([]Box, len(list)), make([]float32, len(list)), make([]int, len(list))
	order := make([]int, len(list))
	for i, c := range list {
		order[i], scores[i] = i, c.score
	}
	if len(list) > maxCandidates {
		order = byScore(order, scores)[:maxCandidates]
	}
	boxes, scores, labels = boxes[:len(order)], scores[:len(order)], labels[:len(order)]
	for i, place := range order {
		c := list[place]
		boxes[i], scores[i], labels[i] = c.box, c.score, c.label
	}
	if s.nms == NMSAgnostic {
		clear(labels)
	}
	var keep []int
	var err error
	switch {
	case s.o.SoftNMS != SoftNone:
		// A threshold below 0 drops nothing, and no score is below 0.
		o := SoftOptions{Method: s.o.SoftNMS, IoU: s.maxIoU, Sigma: s.o.Sigma, MinScore: float32(max(s.floor, 0))}
		keep, scores, err = SoftNMS(boxes, scores, labels, o)
	case s.nms == NMSAgnostic:
		keep, err = NonMaximumSuppression(ctx, boxes, scores, s.maxIoU)
	case s.kind.offset > 0:
		keep, err = NonMaximumSuppression(ctx, apart(boxes, labels, s.kind.offset), scores, s.maxIoU)
	default:
		keep, err = BatchedNMS(ctx, boxes, scores, labels, s.maxIoU)
	}
	if err != nil {
		return nil, err
	}
	stay := make([]candidate, 0, len(keep))
	for i, k := range keep {
		c := list[order[k]]
		if s.o.SoftNMS != SoftNone {
			if c.score = scores[i]; !s.counts(c.label, c.score) {
				continue
			}
		}
		stay = append(stay, c)
	}
	return stay, nil
}
