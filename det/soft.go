package det

import (
	"fmt"
	"math"

	"github.com/torchvit/torchvit/torch"
)

// SoftMethod is how soft-NMS lowers a score.
type SoftMethod string

// The methods of soft-NMS.
const (
	// SoftNone is none: overlapping boxes are dropped.
	SoftNone SoftMethod = ""
	// SoftLinear multiplies the score with 1 - IoU where that IoU is not below the threshold.
	SoftLinear SoftMethod = "linear"
	// SoftGaussian multiplies it with exp(-IoU*IoU / sigma).
	SoftGaussian SoftMethod = "gaussian"
)

// SoftOptions are the options of [SoftNMS].
type SoftOptions struct {
	// Method is SoftLinear or SoftGaussian.
	Method SoftMethod
	// IoU, 0 to 1, is the threshold of SoftLinear; 0 is 0.3, as in the paper.
	IoU float64
	// Sigma of SoftGaussian, above 0; 0 is 0.5, as in the paper.
	Sigma float64
	// MinScore drops a box whose score falls below it, before it can lower others.
	MinScore float32
}

func (o SoftOptions) validate() error {
	switch o.Method {
	case SoftNone, SoftLinear, SoftGaussian:
	default:
		return fmt.Errorf("soft-NMS: got %q, want linear or gaussian", string(o.Method))
	}
	if !(o.IoU >= 0 && o.IoU <= 1) {
		return fmt.Errorf("soft-NMS: IoU: got %v, want 0 to 1", o.IoU)
	}
	if !(o.Sigma >= 0) || math.IsInf(o.Sigma, 1) {
		return fmt.Errorf("soft-NMS: sigma: got %v, want a number above 0", o.Sigma)
	}
	return nil
}

// SoftNMS is Bodla et al., "Soft-NMS: improving object detection with one line of code" (ICCV 2017): it takes
// the box with the best score, lowers the scores of the boxes that overlap with it, and goes on with the best of
// the rest. It gives the indices of the boxes in that order and the score that each had when it was taken.
//
// Boxes with different labels leave each other alone; nil labels compare all. Of equal scores the first counts.
// Overlaps and scores are float32, as Box.IoU; the factor is computed in float64 and the product rounded.
func SoftNMS(boxes []Box, scores []float32, labels []int, o SoftOptions) (indices []int, lowered []float32, err error) {
	if len(scores) != len(boxes) || labels != nil && len(labels) != len(boxes) {
		return nil, nil, fmt.Errorf("soft-NMS: %w: got %d boxes, %d scores and %d labels, want as many", torch.ErrInvalidArgument, len(boxes), len(scores), len(labels))
	}
	if err := o.validate(); err != nil || o.Method == SoftNone {
		if err == nil {
			err = fmt.Errorf("soft-NMS: got no method, want linear or gaussian")
		}
		return nil, nil, fmt.Errorf("%w: %w", torch.ErrInvalidArgument, err)
	}
	if o.IoU == 0 {
		o.IoU = 0.3
	}
	if o.Sigma == 0 {
		o.Sigma = 0.5
	}
	type entry struct {
		index int
		score float32
	}
	var rest []entry
	for i, s := range scores {
		if s >= o.MinScore { // no NaN
			rest = append(rest, entry{i, s})
		}
	}
	for len(rest) > 0 {
		best := 0
		for i, e := range rest {
			if e.score > rest[best].score {
				best = i
			}
		}
		taken := rest[best]
		indices, lowered = append(indices, taken.index), append(lowered, taken.score)
		left := rest[:0]
		for i, e := range rest {
			if i == best {
				continue
			}
			if labels == nil || labels[e.index] == labels[taken.index] {
				e.score = o.lower(e.score, float64(boxes[e.index].IoU(boxes[taken.index])))
			}
			if e.score >= o.MinScore {
				left = append(left, e)
			}
		}
		rest = left
	}
	return indices, lowered, nil
}

func (o SoftOptions) lower(score float32, iou float64) float32 {
	factor := 1.0
	switch {
	case o.Method == SoftGaussian:
		factor = math.Exp(-float64(iou*iou) / o.Sigma)
	case iou >= o.IoU:
		factor = 1 - iou
	}
	return float32(float64(score) * factor)
}
