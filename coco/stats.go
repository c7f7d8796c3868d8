package coco

import (
	"fmt"
	"slices"
	"strings"
)

// Stats are the twelve numbers of COCO's evaluation, -1 where there is nothing to average: no object of
// that size, or no such threshold or area in the options.
type Stats struct {
	// AP is the mean precision over recalls, thresholds and categories; AP50 and AP75 are those at the
	// thresholds 0.5 and 0.75, and the next three those of small, medium and large objects. All are with
	// the largest number of detections (100).
	AP, AP50, AP75, APSmall, APMedium, APLarge float64
	// AR1, AR10 and AR100 are the mean of the highest recalls over thresholds and categories, with the
	// first, second and third number of detections; the next three, with the largest.
	AR1, AR10, AR100, ARSmall, ARMedium, ARLarge float64
}

// Values are the numbers in pycocotools' order (COCOeval.stats), which is that of the fields.
func (s Stats) Values() [12]float64 {
	return [12]float64{
		s.AP, s.AP50, s.AP75, s.APSmall, s.APMedium, s.APLarge,
		s.AR1, s.AR10, s.AR100, s.ARSmall, s.ARMedium, s.ARLarge,
	}
}

// String is what COCOeval.summarize prints, but that the categories are those of the result.
func (r *EvalResult) String() string {
	largest := r.MaxDetections[len(r.MaxDetections)-1]
	limits := [12]int{largest, largest, largest, largest, largest, largest, 0, 0, 0, largest, largest, largest}
	for i := range min(3, len(r.MaxDetections)) {
		limits[6+i] = r.MaxDetections[i]
	}
	all := fmt.Sprintf("%.2f:%.2f", r.IoUThresholds[0], r.IoUThresholds[len(r.IoUThresholds)-1])
	thresholds := [12]string{1: "0.50", 2: "0.75"}
	areas := [12]string{3: "small", 4: "medium", 5: "large", 9: "small", 10: "medium", 11: "large"}
	var out strings.Builder
	for i, v := range r.Stats.Values() {
		title, threshold, area := "Average Precision  (AP)", thresholds[i], areas[i]
		if i >= 6 {
			title = "Average Recall     (AR)"
		}
		if threshold == "" {
			threshold = all
		}
		if area == "" {
			area = "all"
		}
		fmt.Fprintf(&out, " %s @[ IoU=%-9s | area=%6s | maxDets=%3d ] = %.3f\n", title, threshold, area, limits[i], v)
	}
	return out.String()
}

// stats averages over categories first to before last.
func (r *EvalResult) stats(first, last int) Stats {
	largest := len(r.MaxDetections) - 1
	thresholds := func(want float64) []int {
		var out []int
		for t, v := range r.IoUThresholds {
			if want < 0 || v == want {
				out = append(out, t)
			}
		}
		return out
	}
	area := func(name string) int {
		return slices.IndexFunc(r.Areas, func(a AreaRange) bool { return a.Name == name })
	}
	var values []float64
	keep := func(v float64) {
		if v > -1 {
			values = append(values, v)
		}
	}
	precision := func(threshold float64, name string) float64 {
		values = values[:0]
		a := area(name)
		for _, t := range thresholds(threshold) {
			for i := range r.RecallThresholds {
				for k := first; a >= 0 && k < last; k++ {
					keep(r.Precision[r.At(t, i, k, a, largest)])
				}
			}
		}
		return mean(values)
	}
	recall := func(name string, m int) float64 {
		values = values[:0]
		a := area(name)
		for t := range r.IoUThresholds {
			for k := first; a >= 0 && m <= largest && k < last; k++ {
				keep(r.Recall[r.RecallAt(t, k, a, m)])
			}
		}
		return mean(values)
	}
	return Stats{
		AP: precision(-1, "all"), AP50: precision(.5, "all"), AP75: precision(.75, "all"),
		APSmall: precision(-1, "small"), APMedium: precision(-1, "medium"), APLarge: precision(-1, "large"),
		AR1: recall("all", 0), AR10: recall("all", 1), AR100: recall("all", 2),
		ARSmall: recall("small", largest), ARMedium: recall("medium", largest), ARLarge: recall("large", largest),
	}
}

// mean is numpy's, to the bit; -1 of nothing.
func mean(values []float64) float64 {
	if len(values) == 0 {
		return -1
	}
	return sum(values) / float64(len(values))
}

// sum adds pairwise as numpy does: eight sums side by side in blocks of at most 128, which are halved
// down to.
func sum(v []float64) float64 {
	n := len(v)
	switch {
	case n < 8:
		s := 0.
		for _, x := range v {
			s += x
		}
		return s
	case n <= 128:
		r := [8]float64(v)
		i := 8
		for ; i+8 <= n; i += 8 {
			for j, x := range v[i : i+8] {
				r[j] += x
			}
		}
		s := ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]))
		for _, x := range v[i:] {
			s += x
		}
		return s
	}
	half := n / 2
	half -= half % 8
	return sum(v[:half]) + sum(v[half:])
}
