package seg

import (
	"fmt"
	"math"

	"github.com/torchvit/torchvit/vit"
)

// MetricsOptions say what is counted.
type MetricsOptions struct {
	// Classes is the number of classes, 1 to 256.
	Classes int
	// Ignore are the labels of pixels that do not count, whatever is predicted there. Nil is 255 alone; an empty
	// list, not nil, ignores none.
	Ignore []uint8
	// ReduceZeroLabel is mmsegmentation's reduce_zero_label, of the labels, not of what is predicted: 0 becomes
	// 255, 1 becomes 0, and so on. Ignore counts after it.
	ReduceZeroLabel bool
}

// Metrics measures a segmentation model over a whole data set, image by image: a confusion matrix of pixels. It
// is not safe for concurrent use: give each goroutine its own and Merge them.
type Metrics struct {
	// Confusion counts pixels; its rows are the labels.
	Confusion *vit.ConfusionMatrix
	// Ignored is the number of pixels that did not count.
	Ignored int64
	// row is each label's row, or ignoredRow or noRow.
	row [256]int
}

const (
	ignoredRow = -1
	noRow      = -2
)

// NewMetrics prepares for a data set.
func NewMetrics(o MetricsOptions) (*Metrics, error) {
	if o.Classes < 1 || o.Classes > 256 {
		return nil, fmt.Errorf("seg: metrics: %w: got %d classes, want 1 to 256", vit.ErrClass, o.Classes)
	}
	m := &Metrics{Confusion: vit.NewConfusionMatrix(o.Classes)}
	ignore := o.Ignore
	if ignore == nil {
		ignore = []uint8{255}
	}
	var ignored [256]bool
	for _, v := range ignore {
		ignored[v] = true
	}
	for label := range m.row {
		class := uint8(label)
		if o.ReduceZeroLabel && class != 255 {
			class--
		}
		switch {
		case ignored[class]:
			m.row[label] = ignoredRow
		case int(class) < o.Classes:
			m.row[label] = int(class)
		default:
			m.row[label] = noRow
		}
	}
	return m, nil
}

// Add counts one image's prediction against its labels. The errors are ErrSize, and vit.ErrClass for a label or
// a prediction that is neither a class nor ignored; then nothing of the image is counted.
func (m *Metrics) Add(predicted, labels *ClassMap) error {
	for _, c := range []*ClassMap{predicted, labels} {
		if err := c.check(); err != nil {
			return err
		}
	}
	if predicted.Width != labels.Width || predicted.Height != labels.Height {
		return fmt.Errorf("seg: metrics: %w: got a prediction of %dx%d, want the labels' %dx%d", ErrSize, predicted.Width, predicted.Height, labels.Width, labels.Height)
	}
	n := m.Confusion.Classes
	var pairs [256 * 256]int64
	for i, label := range labels.Classes {
		pairs[int(label)<<8|int(predicted.Classes[i])]++
	}
	var predictions [256]int64 // that count
	for label, row := range m.row {
		var sum int64
		for p, count := range pairs[label<<8 : label<<8+256] {
			sum += count
			if row >= 0 {
				predictions[p] += count
			}
		}
		if row == noRow && sum > 0 {
			return fmt.Errorf("seg: metrics: %w: got %d pixels with the label %d, want 0 to %d or one to ignore", vit.ErrClass, sum, label, n-1)
		}
	}
	for p := n; p < 256; p++ {
		if predictions[p] > 0 {
			return fmt.Errorf("seg: metrics: %w: got %d pixels predicted as %d, want 0 to %d", vit.ErrClass, predictions[p], p, n-1)
		}
	}
	for label, row := range m.row {
		for p, count := range pairs[label<<8 : label<<8+256] {
			switch {
			case row == ignoredRow:
				m.Ignored += count
			case row >= 0 && p < n:
				m.Confusion.Counts[row*n+p] += count
			}
		}
	}
	return nil
}

// Merge adds what another counted of as many classes.
func (m *Metrics) Merge(o *Metrics) error {
	if err := m.Confusion.Merge(o.Confusion); err != nil {
		return err
	}
	m.Ignored += o.Ignored
	return nil
}

// ClassScores are the figures of one class, 0 to 1. I pixels are of the class and predicted so, L are of the
// class, P predicted so. A figure without a base (0/0) is NaN.
type ClassScores struct {
	// IoU is I / (L+P-I): torchmetrics' MulticlassJaccardIndex(average=None), where 0/0 is 0.
	IoU float64
	// Accuracy is I / L, mmsegmentation's Acc and Recall: torchmetrics' MulticlassAccuracy(average=None).
	Accuracy float64
	// Precision is I / P.
	Precision float64
	// Dice is 2I / (L+P): mmsegmentation's Dice, and torchmetrics' segmentation.DiceScore(average=None,
	// aggregation_level="global").
	Dice float64
	// FScore is 2*Precision*Accuracy / (Precision+Accuracy) by mmsegmentation's formula: the same as Dice, but
	// NaN where both are 0.
	FScore float64
	// Labels and Predicted are L and P.
	Labels, Predicted int64
}

// Scores are the figures of a data set, 0 to 1.
//
// The means are mmsegmentation's (IoUMetric: numpy.nanmean over the classes that have a figure). torchvision's
// reference script takes the plain mean, which is NaN where a class is neither in the labels nor predicted.
// mmsegmentation adds up in float32 and rounds to two decimals of a percentage; here nothing is rounded.
type Scores struct {
	// PixelAccuracy is the share of pixels that are right: aAcc, torchvision's "global correct".
	PixelAccuracy float64
	// MeanIoU is mIoU over the classes that are in the labels or predicted, as also
	// MulticlassJaccardIndex(average="macro").
	MeanIoU float64
	// MeanIoUTorchvision is torchvision's "mean IoU": NaN where a class is absent.
	MeanIoUTorchvision float64
	// MeanAccuracy is mAcc over the classes in the labels.
	MeanAccuracy float64
	// MeanDice, MeanFScore, MeanPrecision and MeanRecall are mDice, mFscore, mPrecision and mRecall.
	MeanDice, MeanFScore, MeanPrecision, MeanRecall float64
	// Classes are the figures of each class.
	Classes []ClassScores
}

// Scores computes the figures of what was counted.
func (m *Metrics) Scores() Scores {
	correct, labels, predicted := m.Confusion.Sums()
	s := Scores{PixelAccuracy: m.Confusion.Accuracy(), Classes: make([]ClassScores, len(correct))}
	sum := 0.0
	for c := range s.Classes {
		i, l, p := float64(correct[c]), float64(labels[c]), float64(predicted[c])
		x := ClassScores{
			IoU: i / (l + p - i), Accuracy: i / l, Precision: i / p, Dice: 2 * i / (l + p),
			Labels: labels[c], Predicted: predicted[c],
		}
		x.FScore = 2 * (x.Precision * x.Accuracy) / (x.Precision + x.Accuracy)
		s.Classes[c] = x
		sum += x.IoU
	}
	s.MeanIoUTorchvision = sum / float64(len(s.Classes))
	mean := func(figure func(ClassScores) float64) float64 {
		values := make([]float64, len(s.Classes))
		for c, x := range s.Classes {
			values[c] = figure(x)
		}
		return vit.MeanOf(values)
	}
	s.MeanIoU = mean(func(x ClassScores) float64 { return x.IoU })
	s.MeanAccuracy = mean(func(x ClassScores) float64 { return x.Accuracy })
	s.MeanDice = mean(func(x ClassScores) float64 { return x.Dice })
	s.MeanFScore = mean(func(x ClassScores) float64 { return x.FScore })
	s.MeanPrecision = mean(func(x ClassScores) float64 { return x.Precision })
	s.MeanRecall = s.MeanAccuracy
	return s
}

// Present is the number of classes that are in the labels or were predicted.
func (s Scores) Present() (n int) {
	for _, c := range s.Classes {
		if !math.IsNaN(c.IoU) {
			n++
		}
	}
	return n
}
