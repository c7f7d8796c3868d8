package coco

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
)

// ErrOption says that an option is out of its range.
var ErrOption = errors.New("bad option")

// IoUType says what of a detection and an object is laid over each other.
type IoUType uint8

const (
	BBox IoUType = iota // their boxes
	Segm                // their masks
)

// String is COCO's name: "bbox" or "segm".
func (t IoUType) String() string {
	switch t {
	case BBox:
		return "bbox"
	case Segm:
		return "segm"
	}
	return fmt.Sprintf("IoUType(%d)", uint8(t))
}

// AreaRange is a range of areas in pixels, both ends within it. Objects outside are ignored, and so are
// detections outside that match nothing.
type AreaRange struct {
	Name     string
	Min, Max float64
}

// EvalOptions say how [Evaluate] works, as pycocotools' Params do. The zero value is COCO's evaluation of
// boxes. Fields that are nil have COCO's values.
type EvalOptions struct {
	Type IoUType
	// IoUThresholds are 0.5 to 0.95 in steps of 0.05.
	IoUThresholds []float64
	// RecallThresholds are where precision is read: 0 to 1 in steps of 0.01.
	RecallThresholds []float64
	// MaxDetections are 1, 10 and 100: how many detections of an image and a category count, the best ones.
	MaxDetections []int
	// Areas are "all", "small" (to 32*32), "medium" (to 96*96) and "large". Stats look for these names.
	Areas []AreaRange
	// ImageIDs and CategoryIDs are all of the ground truth.
	ImageIDs, CategoryIDs []int64
	// ClassAgnostic lets a detection match an object of any category (useCats=0), as for proposals.
	ClassAgnostic bool
	// Matches keeps who matched whom in EvalResult.Matches.
	Matches bool
}

// EvalResult is what [Evaluate] finds.
type EvalResult struct {
	Type             IoUType
	IoUThresholds    []float64   // T
	RecallThresholds []float64   // R
	CategoryIDs      []int64     // K, rising; one, -1, where ClassAgnostic
	Areas            []AreaRange // A
	MaxDetections    []int       // M, rising
	ImageIDs         []int64     // rising

	// Precision and Scores have the shape [T, R, K, A, M], the last index running fastest, and Recall has
	// [T, K, A, M]: the precision and the score at which a recall is reached, and the highest recall. All
	// are -1 where there is no object to find.
	Precision, Scores, Recall []float64

	Stats Stats
	// PerCategory are the same numbers of each category alone, in the order of CategoryIDs.
	PerCategory []Stats
	// UnknownCategory counts the results that were left out because their category is not evaluated. A large
	// number often means that a model's labels were not mapped to the data set's IDs.
	UnknownCategory int
	// Matches are pycocotools' evalImgs: by category, area and image, without those where there is neither
	// object nor detection. They are there where the options ask for them.
	Matches []ImageMatches
}

// ImageMatches is who matched whom in one image, for one category and one range of areas (pycocotools'
// evaluateImg). D detections, G objects, T thresholds.
type ImageMatches struct {
	ImageID, CategoryID int64
	Area                int   // which of EvalResult.Areas
	Detections          []int // D indexes of the results, the best first
	Annotations         []int // G indexes of Dataset.Annotations, those that are ignored last
	// DetectionMatch has T rows of D: the index in Dataset.Annotations, -1 for none. AnnotationMatch has T
	// rows of G: the index of the result, -1 for none.
	DetectionMatch, AnnotationMatch []int
	DetectionIgnored                []bool // T rows of D
	AnnotationIgnored               []bool // G
}

// At is the place in Precision and Scores, and [EvalResult.RecallAt] that in Recall.
func (r *EvalResult) At(threshold, recall, category, area, detections int) int {
	a, m := len(r.Areas), len(r.MaxDetections)
	return (((threshold*len(r.RecallThresholds)+recall)*len(r.CategoryIDs)+category)*a+area)*m + detections
}

// RecallAt is the place in Recall.
func (r *EvalResult) RecallAt(threshold, category, area, detections int) int {
	return ((threshold*len(r.CategoryIDs)+category)*len(r.Areas)+area)*len(r.MaxDetections) + detections
}

// linspace is numpy's.
func linspace(start, stop float64, n int) []float64 {
	out := make([]float64, n)
	step := (stop - start) / float64(n-1)
	for i := range out {
		out[i] = float64(float64(i)*step) + start
	}
	out[n-1] = stop
	return out
}

// complete fills in COCO's values and checks the rest.
func (o EvalOptions) complete(gt *Dataset, x index) (EvalOptions, error) {
	if o.Type > Segm {
		return o, fmt.Errorf("%w: got type %v, want bbox or segm", ErrOption, o.Type)
	}
	if o.IoUThresholds == nil {
		o.IoUThresholds = linspace(.5, .95, 10)
	}
	if o.RecallThresholds == nil {
		o.RecallThresholds = linspace(0, 1, 101)
	}
	if o.MaxDetections == nil {
		o.MaxDetections = []int{1, 10, 100}
	}
	if o.Areas == nil {
		o.Areas = []AreaRange{{"all", 0, 1e10}, {"small", 0, 1024}, {"medium", 1024, 9216}, {"large", 9216, 1e10}}
	}
	for name, list := range map[string][]float64{"IoU": o.IoUThresholds, "recall": o.RecallThresholds} {
		for _, v := range list {
			if !(v >= 0 && v <= 1) {
				return o, fmt.Errorf("%w: got %s threshold %v, want 0 to 1", ErrOption, name, v)
			}
		}
	}
	for _, a := range o.Areas {
		if !(a.Min <= a.Max) {
			return o, fmt.Errorf("%w: got area %q from %v to %v", ErrOption, a.Name, a.Min, a.Max)
		}
	}
	if len(o.IoUThresholds) == 0 || len(o.RecallThresholds) == 0 || len(o.Areas) == 0 || len(o.MaxDetections) == 0 {
		return o, fmt.Errorf("%w: got an empty list of thresholds, areas or numbers of detections, want nil or some", ErrOption)
	}
	o.MaxDetections = slices.Sorted(slices.Values(o.MaxDetections))
	if o.MaxDetections[0] < 1 {
		return o, fmt.Errorf("%w: got at most %d detections, want 1 or more", ErrOption, o.MaxDetections[0])
	}

	ids := func(name string, ids []int64, all map[int64]int) ([]int64, error) {
		if ids == nil {
			for id := range all {
				ids = append(ids, id)
			}
		}
		ids = slices.Compact(slices.Sorted(slices.Values(ids)))
		for _, id := range ids {
			if _, ok := all[id]; !ok {
				return nil, fmt.Errorf("%w: got %s %d to evaluate, which the ground truth does not have", ErrData, name, id)
			}
		}
		return ids, nil
	}
	var err error
	if o.ImageIDs, err = ids("image", o.ImageIDs, x.images); err != nil {
		return o, err
	}
	o.CategoryIDs, err = ids("category", o.CategoryIDs, x.categories)
	return o, err
}

// Evaluate compares results with ground truth as pycocotools' COCOeval does (evaluate, accumulate and
// summarize), and gives the same numbers to the bit. Neither is changed.
//
// Detections are taken by falling score, those of one score in the order of dt. Each takes the object
// that it overlaps most, of those left; crowds and objects outside the range of areas are ignored, with
// the detections on them. As in pycocotools, a detection's area is its box's where the first result has
// a box, also for masks, and its mask's elsewhere; results without a mask stand for their boxes' pixels.
//
// The error is [ErrData] for ground truth or results that are not valid, which it names, and for results of
// images that the ground truth does not have; [ErrRLE] comes with it where masks are needed and one is
// broken or not of its image's size. [ErrOption] is for the options.
func Evaluate(gt *Dataset, dt []Result, options EvalOptions) (*EvalResult, error) {
	x, err := gt.index()
	if err != nil {
		return nil, err
	}
	o, err := options.complete(gt, x)
	if err != nil {
		return nil, err
	}
	for i := range dt {
		r := &dt[i]
		err := r.validate()
		if err == nil {
			err = r.like(&dt[0])
		}
		if err != nil {
			return nil, fmt.Errorf("%w: result %d: %w", ErrData, i, err)
		}
		if _, ok := x.images[r.ImageID]; !ok {
			return nil, fmt.Errorf("%w: result %d: got image_id %d, which no image has", ErrData, i, r.ImageID)
		}
	}

	e := &evaluation{gt: gt, dt: dt, EvalOptions: o}
	e.group()
	if err := e.prepare(x); err != nil {
		return nil, err
	}
	e.least = math.Inf(1)
	for _, t := range o.IoUThresholds {
		e.least = min(e.least, lowered(t))
	}
	parallel(len(e.pairs), 16, func() func(int) {
		var m matcher
		return func(i int) { m.match(e, &e.pairs[i]) }
	})
	return e.accumulate(), nil
}

// lowered is the threshold that an overlap must reach.
func lowered(threshold float64) float64 { return min(threshold, 1-1e-10) }

// evaluation is one under way.
type evaluation struct {
	gt *Dataset
	dt []Result
	EvalOptions
	least   float64
	unknown int

	// pairs are of one category and one image, where there is anything, ordered by both.
	pairs []pair
	// Of boxes: gtBox and dtBox. Of masks: gtShape and dtShape. Both by the place in gt and dt.
	dtBox            []Box
	gtShape, dtShape []shape
	dtArea           []float64
}

// pair is one category of one image.
type pair struct {
	category, image int // places in the options' lists
	gt, dt          []place
	// state has, for each detection from the best on, areas times thresholds of found, missed or ignored.
	state []uint8
	// objects counts, for each area, the objects that are not ignored.
	objects []int
	matches []ImageMatches // one for each area
}

const (
	falsePositive = iota
	truePositive
	ignored
)

// place is where an annotation or a result belongs: its pair's category and image, its own category, and
// its index.
type place struct{ category, image, own, index int }

func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.category, b.category), cmp.Compare(a.image, b.image),
		cmp.Compare(a.own, b.own), cmp.Compare(a.index, b.index))
}

func (e *evaluation) group() {
	where := func(ids []int64) map[int64]int {
		m := make(map[int64]int, len(ids))
		for i, id := range ids {
			m[id] = i
		}
		return m
	}
	images, categories := where(e.ImageIDs), where(e.CategoryIDs)
	find := func(dst []place, image, category int64, index int) []place {
		i, inside := images[image]
		c, known := categories[category]
		if !inside || !known {
			return dst
		}
		p := place{c, i, c, index}
		if e.ClassAgnostic {
			p.category = 0
		}
		return append(dst, p)
	}
	gts, dts := make([]place, 0, len(e.gt.Annotations)), make([]place, 0, len(e.dt))
	for i := range e.gt.Annotations {
		gts = find(gts, e.gt.Annotations[i].ImageID, e.gt.Annotations[i].CategoryID, i)
	}
	for i := range e.dt {
		dts = find(dts, e.dt[i].ImageID, e.dt[i].CategoryID, i)
		if _, known := categories[e.dt[i].CategoryID]; !known {
			e.unknown++
		}
	}
	slices.SortFunc(gts, comparePlaces)
	slices.SortFunc(dts, comparePlaces)
	for len(gts) > 0 || len(dts) > 0 {
		first := place{category: math.MaxInt}
		if len(gts) > 0 {
			first = gts[0]
		}
		if len(dts) > 0 && (dts[0].category < first.category ||
			dts[0].category == first.category && dts[0].image < first.image) {
			first = dts[0]
		}
		p := pair{category: first.category, image: first.image}
		p.gt, gts = cut(gts, first)
		p.dt, dts = cut(dts, first)
		e.pairs = append(e.pairs, p)
	}
}

// cut splits off the places at the front that are of first's category and image.
func cut(places []place, first place) (front, rest []place) {
	n := 0
	for n < len(places) && places[n].category == first.category && places[n].image == first.image {
		n++
	}
	return places[:n:n], places[n:]
}

// prepare finds boxes, masks and areas.
func (e *evaluation) prepare(x index) error {
	e.dtArea = make([]float64, len(e.dt))
	if e.Type == BBox {
		e.dtBox = make([]Box, len(e.dt))
	} else {
		e.gtShape, e.dtShape = make([]shape, len(e.gt.Annotations)), make([]shape, len(e.dt))
	}
	boxes := len(e.dt) > 0 && e.dt[0].Box != nil
	size := func(id int64) (height, width int, err error) {
		i := x.images[id]
		image := &e.gt.Images[i]
		if image.Height <= 0 || image.Width <= 0 {
			return 0, 0, fmt.Errorf("%w: image %d (id %d): got size [%d %d], which masks need",
				ErrData, i, id, image.Height, image.Width)
		}
		return image.Height, image.Width, nil
	}
	// The first error by its index, so that each run gives the same one.
	var failed firstError
	parallel(len(e.pairs), 16, func() func(int) {
		return func(i int) {
			p := &e.pairs[i]
			for _, g := range p.gt {
				if e.Type == BBox {
					break
				}
				a := &e.gt.Annotations[g.index]
				height, width, err := size(a.ImageID)
				var mask RLE
				if err == nil {
					if mask, err = a.Segmentation.RLE(height, width); err != nil {
						err = fmt.Errorf("%w: annotation %d (id %d): %w", ErrData, g.index, a.ID, err)
					}
				}
				if err != nil {
					failed.set(g.index, err)
					return
				}
				e.gtShape[g.index] = newShape(mask)
			}
			for _, d := range p.dt {
				r := &e.dt[d.index]
				var mask RLE
				if e.Type == Segm {
					height, width, err := size(r.ImageID)
					if err == nil {
						s := Segmentation{Mask: r.Mask}
						if r.Mask == nil {
							s.Polygons = [][]float64{r.Box.polygon()}
						}
						if mask, err = s.RLE(height, width); err != nil {
							err = fmt.Errorf("%w: result %d: %w", ErrData, d.index, err)
						}
					}
					if err != nil {
						failed.set(len(e.gt.Annotations)+d.index, err)
						return
					}
					e.dtShape[d.index] = newShape(mask)
				} else if r.Box != nil {
					e.dtBox[d.index] = *r.Box
				} else {
					e.dtBox[d.index] = r.Mask.Box()
				}
				if boxes {
					e.dtArea[d.index] = float64(r.Box[2] * r.Box[3])
				} else {
					e.dtArea[d.index] = float64(r.Mask.Area())
				}
			}
		}
	})
	return failed.err
}

// firstError keeps the error of the least index.
type firstError struct {
	mu    sync.Mutex
	index int
	err   error
}

func (f *firstError) set(index int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil || index < f.index {
		f.index, f.err = index, err
	}
}

// parallel calls the functions that start gives, one for each goroutine, with 0 to n-1, batch by batch.
func parallel(n, batch int, start func() func(int)) {
	workers := min(runtime.GOMAXPROCS(0), (n+batch-1)/batch)
	var next atomic.Int64
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			f := start()
			for {
				from := int(next.Add(int64(batch))) - batch
				if from >= n {
					return
				}
				for i := from; i < min(from+batch, n); i++ {
					f(i)
				}
			}
		})
	}
	wait.Wait()
}

// matcher has what match needs again for each pair.
type matcher struct {
	overlaps   []float64
	order      []int
	candidates []candidate
	ends       []int
	ignored    []bool
	taken      []bool
}

// candidate is an object, by its place in the pair, that a detection overlaps enough for some threshold.
type candidate struct {
	object  int
	overlap float64
}

// match decides on a pair's detections, for each area and threshold.
func (m *matcher) match(e *evaluation, p *pair) {
	slices.SortStableFunc(p.dt, func(a, b place) int { return cmp.Compare(e.dt[b.index].Score, e.dt[a.index].Score) })
	if most := e.MaxDetections[len(e.MaxDetections)-1]; len(p.dt) > most {
		p.dt = p.dt[:most]
	}
	nD, nG, nT, nA := len(p.dt), len(p.gt), len(e.IoUThresholds), len(e.Areas)
	m.overlaps = m.overlaps[:0]
	for _, d := range p.dt {
		for _, g := range p.gt {
			a := &e.gt.Annotations[g.index]
			if e.Type == BBox {
				m.overlaps = append(m.overlaps, boxOverlap(e.dtBox[d.index], a.Box, a.Crowd))
			} else {
				m.overlaps = append(m.overlaps, e.dtShape[d.index].overlap(&e.gtShape[g.index], a.Crowd))
			}
		}
	}
	p.state = make([]uint8, nD*nA*nT)
	p.objects = make([]int, nA)
	for a, area := range e.Areas {
		// Objects that are ignored come last.
		m.ignored, m.order = m.ignored[:0], m.order[:0]
		for i, g := range p.gt {
			object := &e.gt.Annotations[g.index]
			out := object.Crowd || object.Area < area.Min || object.Area > area.Max
			m.ignored = append(m.ignored, out)
			if !out {
				m.order = append(m.order, i)
			}
		}
		p.objects[a] = len(m.order)
		for i, out := range m.ignored {
			if out {
				m.order = append(m.order, i)
			}
		}
		m.candidates, m.ends = m.candidates[:0], m.ends[:0]
		for d := range nD {
			for _, g := range m.order {
				if v := m.overlaps[d*nG+g]; v >= e.least {
					m.candidates = append(m.candidates, candidate{g, v})
				}
			}
			m.ends = append(m.ends, len(m.candidates))
		}
		var keep *ImageMatches
		if e.Matches {
			p.matches = append(p.matches, m.newMatches(e, p, a))
			keep = &p.matches[a]
		}
		for t, threshold := range e.IoUThresholds {
			m.taken = append(m.taken[:0], make([]bool, nG)...)
			start := 0
			for d, end := range m.ends {
				best := m.best(e, p, m.candidates[start:end], lowered(threshold))
				start = end
				state := uint8(falsePositive)
				if best >= 0 {
					m.taken[best] = true
					switch {
					case m.ignored[best]:
						state = ignored
					case e.gt.Annotations[p.gt[best].index].ID != 0:
						state = truePositive
					}
				}
				if v := e.dtArea[p.dt[d].index]; state == falsePositive && (v < area.Min || v > area.Max) {
					state = ignored
				}
				p.state[(d*nA+a)*nT+t] = state
				if keep == nil {
					continue
				}
				keep.DetectionIgnored[t*nD+d] = state == ignored
				if best >= 0 {
					keep.DetectionMatch[t*nD+d] = p.gt[best].index
					keep.AnnotationMatch[t*nG+slices.Index(m.order, best)] = p.dt[d].index
				}
			}
		}
	}
}

// best is the object that a detection takes, -1 for none: the one that it overlaps most, the later one of
// equals, where one that is not ignored goes before those that are. A crowd can be taken again.
func (m *matcher) best(e *evaluation, p *pair, candidates []candidate, overlap float64) int {
	best := -1
	for _, c := range candidates {
		if m.taken[c.object] && !e.gt.Annotations[p.gt[c.object].index].Crowd {
			continue
		}
		if best >= 0 && !m.ignored[best] && m.ignored[c.object] {
			break
		}
		if c.overlap < overlap {
			continue
		}
		best, overlap = c.object, c.overlap
	}
	return best
}

func (m *matcher) newMatches(e *evaluation, p *pair, area int) ImageMatches {
	none := func(n int) []int { return slices.Repeat([]int{-1}, n) }
	nT := len(e.IoUThresholds)
	k := ImageMatches{
		ImageID: e.ImageIDs[p.image], CategoryID: -1, Area: area,
		DetectionMatch: none(nT * len(p.dt)), AnnotationMatch: none(nT * len(p.gt)),
		DetectionIgnored: make([]bool, nT*len(p.dt)),
	}
	if !e.ClassAgnostic {
		k.CategoryID = e.CategoryIDs[p.category]
	}
	for _, d := range p.dt {
		k.Detections = append(k.Detections, d.index)
	}
	for _, g := range m.order {
		k.Annotations = append(k.Annotations, p.gt[g].index)
		k.AnnotationIgnored = append(k.AnnotationIgnored, m.ignored[g])
	}
	return k
}

func (e *evaluation) accumulate() *EvalResult {
	r := &EvalResult{
		Type: e.Type, IoUThresholds: e.IoUThresholds, RecallThresholds: e.RecallThresholds,
		CategoryIDs: e.CategoryIDs, Areas: e.Areas, MaxDetections: e.MaxDetections, ImageIDs: e.ImageIDs,
		UnknownCategory: e.unknown,
	}
	if e.ClassAgnostic {
		r.CategoryIDs = []int64{-1}
	}
	nK := len(r.CategoryIDs)
	n := len(r.IoUThresholds) * nK * len(r.Areas) * len(r.MaxDetections)
	r.Recall = slices.Repeat([]float64{-1}, n)
	r.Precision = slices.Repeat([]float64{-1}, n*len(r.RecallThresholds))
	r.Scores = slices.Clone(r.Precision)

	// The pairs of each category.
	starts := make([]int, nK+1)
	for _, p := range e.pairs {
		starts[p.category+1]++
	}
	for k := range nK {
		starts[k+1] += starts[k]
	}
	parallel(nK, 1, func() func(int) {
		var c curves
		return func(k int) { c.draw(r, k, e.pairs[starts[k]:starts[k+1]], e.dt) }
	})
	if e.Matches {
		for k := range nK {
			for a := range r.Areas {
				for i := starts[k]; i < starts[k+1]; i++ {
					r.Matches = append(r.Matches, e.pairs[i].matches[a])
				}
			}
		}
	}
	r.Stats = r.stats(0, nK)
	r.PerCategory = make([]Stats, nK)
	for k := range nK {
		r.PerCategory[k] = r.stats(k, k+1)
	}
	return r
}

// curves has what draw needs again for each category.
type curves struct {
	detections []ranked
	found      []curve // areas * thresholds * numbers of detections
}

// ranked is a detection of a category: its score, its rank in its image, and its states.
type ranked struct {
	score float64
	rank  int
	state []uint8
}

// curve counts along the detections and notes the precision and the score at each object found. Between
// them precision falls, and no recall is reached.
type curve struct {
	wrong     float64
	precision []float64
	scores    []float64
}

// draw fills in precision and recall of category k.
func (c *curves) draw(r *EvalResult, k int, pairs []pair, dt []Result) {
	nT, nA, nM := len(r.IoUThresholds), len(r.Areas), len(r.MaxDetections)
	objects := make([]int, nA)
	c.detections = c.detections[:0]
	for i := range pairs {
		p := &pairs[i]
		for a, n := range p.objects {
			objects[a] += n
		}
		for d, at := range p.dt {
			c.detections = append(c.detections,
				ranked{dt[at.index].Score, d, p.state[d*nA*nT : (d+1)*nA*nT]})
		}
	}
	slices.SortStableFunc(c.detections, func(a, b ranked) int { return cmp.Compare(b.score, a.score) })

	if c.found == nil {
		c.found = make([]curve, nA*nT*nM)
	}
	for i := range c.found {
		f := &c.found[i]
		f.wrong, f.precision, f.scores = 0, f.precision[:0], f.scores[:0]
	}
	const epsilon = 0x1p-52 // numpy.spacing(1)
	firstOf := make([]float64, nM)
	some := make([]bool, nM)
	for _, d := range c.detections {
		m0 := 0
		for m0 < nM && d.rank >= r.MaxDetections[m0] {
			m0++
		}
		for m := m0; m < nM; m++ {
			if !some[m] {
				some[m], firstOf[m] = true, d.score
			}
		}
		for i, state := range d.state {
			if state == ignored {
				continue
			}
			for m := m0; m < nM; m++ {
				f := &c.found[i*nM+m]
				if state == falsePositive {
					f.wrong++
					continue
				}
				right := float64(len(f.precision) + 1)
				f.precision = append(f.precision, right/(f.wrong+right+epsilon))
				f.scores = append(f.scores, d.score)
			}
		}
	}

	for a := range nA {
		if objects[a] == 0 {
			continue
		}
		n := float64(objects[a])
		for t := range nT {
			for m := range nM {
				f := &c.found[(a*nT+t)*nM+m]
				r.Recall[r.RecallAt(t, k, a, m)] = float64(len(f.precision)) / n
				for i := len(f.precision) - 1; i > 0; i-- {
					f.precision[i-1] = max(f.precision[i-1], f.precision[i])
				}
				reached := true
				for i, threshold := range r.RecallThresholds {
					precision, score := 0., 0.
					j := sort.Search(len(f.precision), func(j int) bool { return float64(j+1)/n >= threshold })
					first := threshold <= 0 && some[m] // the first detection is enough, right or wrong
					// After one that is not reached no other is, as in pycocotools: it matters out of order.
					reached = reached && (first || j < len(f.precision))
					if reached && j < len(f.precision) {
						precision, score = f.precision[j], f.scores[j]
					}
					if reached && first {
						score = firstOf[m]
					}
					at := r.At(t, i, k, a, m)
					r.Precision[at], r.Scores[at] = precision, score
				}
			}
		}
	}
}
