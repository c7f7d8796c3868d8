package vit

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// ErrClass says that a class is not one of those that are counted.
var ErrClass = errors.New("no such class")

// ConfusionMatrix counts what was taken for what. The zero value has no classes: use NewConfusionMatrix.
type ConfusionMatrix struct {
	// Classes is the number of classes.
	Classes int
	// Counts are Classes x Classes numbers: a row for each true class, in it one for each predicted class.
	Counts []int64
}

// NewConfusionMatrix makes a matrix of zeros.
func NewConfusionMatrix(classes int) *ConfusionMatrix {
	classes = max(classes, 0)
	return &ConfusionMatrix{classes, make([]int64, classes*classes)}
}

// Add counts one prediction. The error is ErrClass.
func (m *ConfusionMatrix) Add(truth, predicted int) error {
	if truth < 0 || truth >= m.Classes || predicted < 0 || predicted >= m.Classes {
		return fmt.Errorf("confusion matrix: %w: got %d taken for %d, want 0 to %d", ErrClass, truth, predicted, m.Classes-1)
	}
	m.Counts[truth*m.Classes+predicted]++
	return nil
}

// Merge adds the counts of another matrix of as many classes; ErrClass where it has others.
func (m *ConfusionMatrix) Merge(o *ConfusionMatrix) error {
	if o.Classes != m.Classes {
		return fmt.Errorf("confusion matrix: %w: got one of %d classes, want %d", ErrClass, o.Classes, m.Classes)
	}
	for i, n := range o.Counts {
		m.Counts[i] += n
	}
	return nil
}

// At is how often a class was taken for another.
func (m *ConfusionMatrix) At(truth, predicted int) int64 { return m.Counts[truth*m.Classes+predicted] }

// Row is the row of a true class; not a copy.
func (m *ConfusionMatrix) Row(truth int) []int64 {
	return m.Counts[truth*m.Classes : (truth+1)*m.Classes]
}

// Sums are, for each class, how often it was right (the diagonal), how often it was there (the sum of its row)
// and how often it was predicted (the sum of its column).
func (m *ConfusionMatrix) Sums() (correct, truths, predictions []int64) {
	correct, truths, predictions = make([]int64, m.Classes), make([]int64, m.Classes), make([]int64, m.Classes)
	for t := range m.Classes {
		for p, n := range m.Row(t) {
			truths[t] += n
			predictions[p] += n
		}
		correct[t] = m.At(t, t)
	}
	return correct, truths, predictions
}

// Total is the number of predictions.
func (m *ConfusionMatrix) Total() (n int64) {
	for _, c := range m.Counts {
		n += c
	}
	return n
}

// Accuracy is the share of predictions that are right, NaN where there are none: torchmetrics'
// MulticlassAccuracy(average="micro").
func (m *ConfusionMatrix) Accuracy() float64 {
	var right int64
	for t := range m.Classes {
		right += m.At(t, t)
	}
	return float64(right) / float64(m.Total())
}

// ClassAccuracy is each class's share that was found (its recall): MulticlassAccuracy(average=None); but NaN, not
// 0, for a class that was never there.
func (m *ConfusionMatrix) ClassAccuracy() []float64 {
	correct, truths, _ := m.Sums()
	return shares(correct, truths)
}

// Precision is, of what was predicted as each class, the share that is right: torchmetrics'
// MulticlassPrecision(average=None); but NaN, not 0, for a class that was never predicted.
func (m *ConfusionMatrix) Precision() []float64 {
	correct, _, predictions := m.Sums()
	return shares(correct, predictions)
}

func shares(part, of []int64) []float64 {
	out := make([]float64, len(part))
	for i := range out {
		out[i] = float64(part[i]) / float64(of[i])
	}
	return out
}

// MeanOf is the mean of the values that are not NaN, numpy.nanmean; NaN where there are none.
func MeanOf(values []float64) float64 {
	sum, n := 0.0, 0
	for _, v := range values {
		if !math.IsNaN(v) {
			sum += v
			n++
		}
	}
	return sum / float64(n)
}

// ClassificationMetrics measures a classifier over a data set, image by image. It is not safe for concurrent
// use: give each goroutine its own and Merge them.
type ClassificationMetrics struct {
	// Confusion counts the best class of each image.
	Confusion *ConfusionMatrix
	// ranks[k] is how often the true class was the k-th best, from 0.
	ranks []int64
	// found[class][k] are the same for each true class.
	found []int64
}

// NewClassificationMetrics prepares for that many classes and for top-1 to top-most.
func NewClassificationMetrics(classes, most int) *ClassificationMetrics {
	most = max(1, min(most, classes))
	return &ClassificationMetrics{NewConfusionMatrix(classes), make([]int64, most), make([]int64, max(classes, 0)*most)}
}

// Most is the greatest k of TopK.
func (m *ClassificationMetrics) Most() int { return len(m.ranks) }

// Add counts one image: its true class, and the classes that were predicted, best first, of which the first
// Most count. The error is ErrClass.
func (m *ClassificationMetrics) Add(truth int, ranked []int) error {
	if len(ranked) == 0 {
		return fmt.Errorf("metrics: %w: got no prediction", ErrClass)
	}
	if err := m.Confusion.Add(truth, ranked[0]); err != nil {
		return err
	}
	if k := slices.Index(ranked[:min(len(ranked), len(m.ranks))], truth); k >= 0 {
		m.ranks[k]++
		m.found[truth*len(m.ranks)+k]++
	}
	return nil
}

// Merge adds what another counted of as many classes and ranks; ErrClass where those differ.
func (m *ClassificationMetrics) Merge(o *ClassificationMetrics) error {
	if len(o.ranks) != len(m.ranks) {
		return fmt.Errorf("metrics: %w: got metrics of top %d, want top %d", ErrClass, len(o.ranks), len(m.ranks))
	}
	if err := m.Confusion.Merge(o.Confusion); err != nil {
		return err
	}
	for i, n := range o.ranks {
		m.ranks[i] += n
	}
	for i, n := range o.found {
		m.found[i] += n
	}
	return nil
}

// TopK is the share of images whose true class is among the k best: torchmetrics'
// MulticlassAccuracy(average="micro", top_k=k). NaN where no image was added; k is at most Most.
func (m *ClassificationMetrics) TopK(k int) float64 {
	var n int64
	for _, c := range m.ranks[:min(max(k, 0), len(m.ranks))] {
		n += c
	}
	return float64(n) / float64(m.Confusion.Total())
}

// ClassTopK is TopK of the images of each true class, NaN for classes without images.
func (m *ClassificationMetrics) ClassTopK(k int) []float64 {
	k = min(max(k, 0), len(m.ranks))
	out := make([]float64, m.Confusion.Classes)
	_, truths, _ := m.Confusion.Sums()
	for class := range out {
		var n int64
		for _, c := range m.found[class*len(m.ranks):][:k] {
			n += c
		}
		out[class] = float64(n) / float64(truths[class])
	}
	return out
}

// Rank gives the k best of scores, best first, of equal ones the one that comes first; NaN counts as the
// greatest, as torch.topk has it.
func Rank(scores []float32, k int) []int {
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := scores[a], scores[b]
		switch {
		case x > y, x != x && y == y:
			return -1
		case x < y, x == x && y != y:
			return 1
		}
		return 0
	})
	return order[:min(max(k, 0), len(order))]
}
