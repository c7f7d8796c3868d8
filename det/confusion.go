package det

import (
	"fmt"
	"slices"

	"github.com/torchvit/torchvit/vit"
)

// Truth is one object that is there.
type Truth struct {
	Box     Box
	LabelID int
}

// ConfusionOptions say which detections count and when they meet an object. The zero value works.
type ConfusionOptions struct {
	// Threshold drops detections with a lower score; 0 is 0.3, supervision's. Below 0 nothing is dropped.
	Threshold float32
	// IoU is what a detection and an object must overlap by more than; 0 is 0.5.
	IoU float64
}

// ConfusionMatrix counts which objects a detector took for what, over a data set: a matrix whose last row and
// column stand for the background, of which the row counts detections where no object is, and the column objects
// that were not found. It is supervision's ConfusionMatrix, with Box.IoU's float32 overlaps: of all pairs that
// overlap enough, whatever their classes, those of the same class come first, then those that overlap more; each
// detection and each object is taken once.
type ConfusionMatrix struct {
	*vit.ConfusionMatrix
	o ConfusionOptions
}

// NewConfusionMatrix prepares for that many classes, without the background.
func NewConfusionMatrix(classes int, o ConfusionOptions) *ConfusionMatrix {
	if o.Threshold == 0 {
		o.Threshold = 0.3
	}
	if o.IoU == 0 {
		o.IoU = 0.5
	}
	return &ConfusionMatrix{vit.NewConfusionMatrix(max(classes, 0) + 1), o}
}

// Background is the number of the background's row and column.
func (m *ConfusionMatrix) Background() int { return m.Classes - 1 }

// Add counts the objects of one image. The error is vit.ErrClass.
func (m *ConfusionMatrix) Add(found []Detection, truth []Truth) error {
	background := m.Background()
	for _, t := range truth {
		if t.LabelID < 0 || t.LabelID >= background {
			return fmt.Errorf("det: confusion matrix: %w: got an object of class %d, want 0 to %d", vit.ErrClass, t.LabelID, background-1)
		}
	}
	kept := make([]Detection, 0, len(found))
	for _, d := range found {
		if d.Score < m.o.Threshold {
			continue
		}
		if d.LabelID < 0 || d.LabelID >= background {
			return fmt.Errorf("det: confusion matrix: %w: got a detection of class %d, want 0 to %d", vit.ErrClass, d.LabelID, background-1)
		}
		kept = append(kept, d)
	}
	type pair struct {
		truth, found int
		same         bool
		iou          float32
	}
	var pairs []pair
	for i, t := range truth {
		for j, d := range kept {
			if iou := t.Box.IoU(d.Box); float64(iou) > m.o.IoU {
				pairs = append(pairs, pair{i, j, t.LabelID == d.LabelID, iou})
			}
		}
	}
	slices.SortStableFunc(pairs, func(a, b pair) int {
		switch {
		case a.same != b.same && a.same, a.same == b.same && a.iou > b.iou:
			return -1
		case a.same != b.same, a.iou < b.iou:
			return 1
		}
		return 0
	})
	truthTaken, foundTaken := make([]bool, len(truth)), make([]bool, len(kept))
	for _, p := range pairs {
		if !truthTaken[p.truth] && !foundTaken[p.found] {
			truthTaken[p.truth], foundTaken[p.found] = true, true
			m.Counts[truth[p.truth].LabelID*m.Classes+kept[p.found].LabelID]++
		}
	}
	for i, t := range truth {
		if !truthTaken[i] {
			m.Counts[t.LabelID*m.Classes+background]++
		}
	}
	for j, d := range kept {
		if !foundTaken[j] {
			m.Counts[background*m.Classes+d.LabelID]++
		}
	}
	return nil
}
