package coco

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// VOCObject is one object of Pascal VOC's ground truth, of the class at hand. VOC's corners are pixels
// counted from 1, both of which belong to the object: Box is [xmin-1, ymin-1, xmax-xmin+1, ymax-ymin+1].
type VOCObject struct {
	Image     int64 // any number that tells images apart
	Box       Box
	Difficult bool // counts neither as missed nor as found
}

// VOCDetection is one detection of the class at hand.
type VOCDetection struct {
	Image int64
	Box   Box
	Score float64
}

// VOCOptions say how [VOCAveragePrecision] works. The zero value is VOC's from 2010 on.
type VOCOptions struct {
	// IoUThreshold is the least overlap of a detection with its object; 0 is VOC's 0.5.
	IoUThreshold float64
	// ElevenPoints takes the mean of the precision at the recalls 0, 0.1 to 1, VOC's way until 2009. Else it
	// is the area under the curve, once the precision is made to fall.
	ElevenPoints bool
}

// VOCResult is the curve of one class, along the detections by falling score, and what it comes to.
type VOCResult struct {
	AP float64 // 0 to 1; NaN where there is no object that is not difficult
	// Precision and Recall are those of the detections up to each.
	Precision, Recall []float64
	Objects           int // that are not difficult
}

// VOCAveragePrecision evaluates the detections of one class as Pascal VOC's development kit does
// (VOCevaldet): each detection, by falling score, those of one score in their order, is held against the
// object of its image that it overlaps most. It is right where the overlap reaches the threshold and no
// detection before it took the object, is left out where the object is difficult, and is wrong else. The
// mean over classes is VOC's mAP.
//
// The error is [ErrData] for numbers that are not finite, and [ErrOption].
func VOCAveragePrecision(objects []VOCObject, detections []VOCDetection, options VOCOptions) (VOCResult, error) {
	threshold := options.IoUThreshold
	if threshold == 0 {
		threshold = 0.5
	}
	if !(threshold > 0 && threshold <= 1) {
		return VOCResult{}, fmt.Errorf("%w: got IoU threshold %v, want 0 to 1", ErrOption, threshold)
	}
	r := VOCResult{AP: math.NaN()}
	ofImage := map[int64][]int{}
	for i, o := range objects {
		if !o.Box.finite() {
			return r, fmt.Errorf("%w: object %d: got box %v, want finite numbers", ErrData, i, o.Box)
		}
		ofImage[o.Image] = append(ofImage[o.Image], i)
		if !o.Difficult {
			r.Objects++
		}
	}
	for i, d := range detections {
		if !d.Box.finite() || math.IsNaN(d.Score) || math.IsInf(d.Score, 0) {
			return r, fmt.Errorf("%w: detection %d: got box %v with score %v, want finite numbers", ErrData, i, d.Box, d.Score)
		}
	}
	order := slices.Clone(detections)
	slices.SortStableFunc(order, func(a, b VOCDetection) int { return cmp.Compare(b.Score, a.Score) })

	taken := make([]bool, len(objects))
	right, wrong := 0., 0.
	for _, d := range order {
		most, best := 0., -1
		for _, i := range ofImage[d.Image] {
			if v := boxOverlap(d.Box, objects[i].Box, false); v > most {
				most, best = v, i
			}
		}
		switch {
		case best < 0 || most < threshold:
			wrong++
		case objects[best].Difficult:
		case taken[best]:
			wrong++
		default:
			taken[best] = true
			right++
		}
		r.Recall = append(r.Recall, right/float64(r.Objects))
		r.Precision = append(r.Precision, right/max(right+wrong, 0x1p-52))
	}
	if r.Objects == 0 {
		return r, nil
	}
	// The best precision at each recall or a higher one.
	falling := slices.Clone(r.Precision)
	for i := len(falling) - 1; i > 0; i-- {
		falling[i-1] = max(falling[i-1], falling[i])
	}
	r.AP = 0
	if options.ElevenPoints {
		for i := range 11 {
			// numpy.arange(0, 1.1, 0.1), whose 0.3 is a bit more.
			if at, _ := slices.BinarySearch(r.Recall, float64(i)*0.1); at < len(falling) {
				r.AP += falling[at] / 11
			}
		}
		return r, nil
	}
	before := 0.
	for i, recall := range r.Recall {
		r.AP += float64((recall - before) * falling[i])
		before = recall
	}
	return r, nil
}
