package coco

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// scene says what a random data set is like.
type scene struct {
	images, categories int
	objects            int // at most, of an image
	wrong              int // detections of nothing at most, of an image
	side               float64
	ties               float64 // scores are multiples of it
	masks              bool
	zero               bool // an annotation of ID 0
}

// blob is a polygon with n corners around a box's middle.
func blob(r *rand.Rand, box Box, n int) []float64 {
	var points []float64
	for i := range n {
		sin, cos := math.Sincos(2 * math.Pi * float64(i) / float64(n))
		f := 0.6 + 0.4*r.Float64()
		x, y := box[0]+box[2]/2*(1+f*cos), box[1]+box[3]/2*(1+f*sin)
		points = append(points, math.Round(x*100)/100, math.Round(y*100)/100)
	}
	return points
}

func jitter(r *rand.Rand, values []float64, by float64) []float64 {
	out := slices.Clone(values)
	for i := range out {
		out[i] += by * (r.Float64()*2 - 1)
	}
	return out
}

// random makes ground truth and results: objects of all sizes, crowds, images without anything, with objects
// alone and with detections alone, categories that nothing is of, scores that come more than once, and
// detections that are near, far off, twice there and of a category that does not exist.
func (s scene) random(t testing.TB, r *rand.Rand) (*Dataset, []Result) {
	t.Helper()
	gt := &Dataset{}
	for _, i := range r.Perm(s.categories) {
		gt.Categories = append(gt.Categories, Category{ID: int64(3*i + 2), Name: fmt.Sprint("thing ", i)})
	}
	category := func() int64 { // some are rare, some are absent
		return gt.Categories[int(math.Pow(r.Float64(), 2)*float64(s.categories)*0.9)].ID
	}
	var dt []Result
	id := int64(1)
	if s.zero {
		id = 0
	}
	for _, i := range r.Perm(s.images) {
		image := Image{
			ID: int64(i)*7 + 1, FileName: fmt.Sprintf("%d.jpg", i),
			Height: int(s.side * (0.6 + 0.4*r.Float64())), Width: int(s.side * (0.6 + 0.4*r.Float64())),
		}
		gt.Images = append(gt.Images, image)
		height, width := float64(image.Height), float64(image.Width)
		box := func() Box {
			// Sides from a few pixels to the whole image.
			w, h := width*math.Pow(r.Float64(), 2)+2, height*math.Pow(r.Float64(), 2)+2
			return Box{
				math.Round((r.Float64()*(width-2))*100) / 100, math.Round((r.Float64()*(height-2))*100) / 100,
				math.Round(w*100) / 100, math.Round(h*100) / 100,
			}
		}
		detect := func(b Box, points []float64, c int64, score float64) {
			if s.ties > 0 {
				score = math.Round(score/s.ties) * s.ties
			}
			d := Result{ImageID: image.ID, CategoryID: c, Score: score, Box: &b}
			if s.masks {
				m, err := FromPolygons([][]float64{points}, image.Height, image.Width)
				require.NoError(t, err)
				d.Mask = &m
			}
			dt = append(dt, d)
		}
		kind := r.IntN(8)
		if kind > 0 { // objects
			for range r.IntN(s.objects + 1) {
				a := Annotation{ID: id, ImageID: image.ID, CategoryID: category(), Box: box(), Crowd: r.IntN(8) == 0}
				id += 1 + int64(r.IntN(3))
				points := blob(r, a.Box, 4+r.IntN(9))
				a.Area = math.Round(a.Box[2]*a.Box[3]*(0.4+0.6*r.Float64())*10) / 10
				if s.masks {
					m, err := FromPolygons([][]float64{points}, image.Height, image.Width)
					require.NoError(t, err)
					a.Area = float64(m.Area())
					switch {
					case a.Crowd || r.IntN(3) == 0:
						a.Segmentation.Mask = &m
					case r.IntN(3) == 0:
						a.Segmentation.Polygons = [][]float64{points, blob(r, box(), 5)}
					default:
						a.Segmentation.Polygons = [][]float64{points}
					}
				}
				gt.Annotations = append(gt.Annotations, a)
				for kind > 1 && r.IntN(4) > 0 { // found, more than once where the dice say so
					by := math.Pow(r.Float64(), 2) * 0.3 * min(a.Box[2], a.Box[3])
					b := Box(jitter(r, a.Box[:], by))
					b[2], b[3] = math.Abs(b[2]), math.Abs(b[3])
					c := a.CategoryID
					if r.IntN(10) == 0 {
						c = category()
					}
					if r.IntN(6) == 0 {
						b = a.Box
					}
					detect(b, jitter(r, points, by), c, r.Float64())
				}
			}
		}
		for range r.IntN(s.wrong + 1) {
			b := box()
			c := category()
			if r.IntN(20) == 0 {
				c = 1
			}
			detect(b, blob(r, b, 6), c, r.Float64()*0.7)
		}
	}
	r.Shuffle(len(gt.Annotations), func(i, j int) {
		gt.Annotations[i], gt.Annotations[j] = gt.Annotations[j], gt.Annotations[i]
	})
	r.Shuffle(len(dt), func(i, j int) { dt[i], dt[j] = dt[j], dt[i] })
	return gt, dt
}

// evalCase is one case of evaluate.py.
type evalCase struct {
	GT         string      `json:"gt"`
	DT         string      `json:"dt"`
	Type       string      `json:"type"`
	IoU        []float64   `json:"iou,omitempty"`
	Recall     []float64   `json:"recall,omitempty"`
	Max        []int       `json:"max,omitempty"`
	Areas      []AreaRange `json:"areas,omitempty"`
	Images     []int64     `json:"images,omitempty"`
	Categories []int64     `json:"categories,omitempty"`
	Agnostic   bool        `json:"agnostic,omitempty"`
	Bench      bool        `json:"bench,omitempty"`
}

type evalAnswer struct {
	IoU, Recalls              []float64
	Shape                     []int
	Precision, Scores, Recall []float64
	Stats                     []float64
	Text                      string
	Matches                   []struct {
		Image, Category      int64
		Area                 [2]float64
		DtIds, GtIds         []int64
		DtMatches, GtMatches []int64
		DtIgnore, GtIgnore   []bool
	}
	Seconds float64
}

// writeCase writes both files, which Python reads.
func writeCase(t testing.TB, gt *Dataset, dt []Result, o EvalOptions) evalCase {
	t.Helper()
	dir := t.TempDir()
	c := evalCase{
		GT: filepath.Join(dir, "gt.json"), DT: filepath.Join(dir, "dt.json"), Type: o.Type.String(),
		IoU: o.IoUThresholds, Recall: o.RecallThresholds, Max: o.MaxDetections, Areas: o.Areas,
		Images: o.ImageIDs, Categories: o.CategoryIDs, Agnostic: o.ClassAgnostic,
	}
	require.NoError(t, WriteDatasetFile(c.GT, gt))
	require.NoError(t, WriteResultsFile(c.DT, dt))
	return c
}

// requireFloats wants equal bits and names the first that differ: arrays are too long to print.
func requireFloats(t *testing.T, want, got []float64, name string) {
	t.Helper()
	require.Len(t, got, len(want), name)
	for i := range want {
		require.True(t, want[i] == got[i], "%s at %d: got %v, want %v", name, i, got[i], want[i])
	}
}

func TestEvaluateIsLikePycocotools(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	type input struct {
		name    string
		gt      *Dataset
		dt      []Result
		options EvalOptions
	}
	var inputs []input
	add := func(name string, s scene, o EvalOptions, change func(*Result)) {
		gt, dt := s.random(t, r)
		for i := range dt {
			if change != nil {
				change(&dt[i])
			}
		}
		inputs = append(inputs, input{name, gt, dt, o})
	}
	boxes := scene{images: 40, categories: 5, objects: 12, wrong: 8, side: 400, ties: 0.05}
	masks := scene{images: 20, categories: 4, objects: 8, wrong: 5, side: 420, ties: 0.05, masks: true}
	noBox := func(d *Result) { d.Box = nil }
	noMask := func(d *Result) { d.Mask = nil }

	add("boxes", boxes, EvalOptions{}, nil)
	add("boxes, no ties", scene{images: 60, categories: 12, objects: 8, wrong: 4, side: 500}, EvalOptions{}, nil)
	add("boxes, one score", scene{images: 20, categories: 2, objects: 10, wrong: 9, side: 300, ties: 5}, EvalOptions{}, nil)
	add("many of an image", scene{images: 4, categories: 1, objects: 90, wrong: 200, side: 640, ties: 0.01}, EvalOptions{}, nil)
	add("a small set", scene{images: 3, categories: 3, objects: 3, wrong: 2, side: 200}, EvalOptions{}, nil)
	add("an annotation of ID 0", scene{images: 2, categories: 1, objects: 4, wrong: 0, side: 300, zero: true}, EvalOptions{}, nil)
	add("boxes without categories", boxes, EvalOptions{ClassAgnostic: true}, nil)
	add("masks", masks, EvalOptions{Type: Segm}, noBox)
	add("masks, no ties", scene{images: 25, categories: 7, objects: 6, wrong: 4, side: 300, masks: true}, EvalOptions{Type: Segm}, noBox)
	add("masks with boxes", masks, EvalOptions{Type: Segm}, nil)
	add("boxes of masks", masks, EvalOptions{}, noBox)
	add("masks of boxes", masks, EvalOptions{Type: Segm}, noMask)
	add("masks without categories", masks, EvalOptions{Type: Segm, ClassAgnostic: true}, noBox)
	add("other parameters", boxes, EvalOptions{
		IoUThresholds: []float64{0.3, 0.5, 0.62, 1}, RecallThresholds: []float64{0, 0.1, 0.5, 0.9, 1},
		MaxDetections: []int{30, 2, 7, 1},
		Areas:         []AreaRange{{"all", 0, 1e10}, {"tiny", 0, 100}, {"odd", 500, 2500}},
	}, nil)
	add("a part", boxes, EvalOptions{
		ImageIDs: []int64{1, 15, 8, 8, 71, 78, 85, 92, 22}, CategoryIDs: []int64{14, 2, 5},
	}, nil)
	add("recall in disorder", boxes, EvalOptions{RecallThresholds: []float64{0.5, 0.1, 0.95, 0.2, 0}}, nil)

	cases := make([]evalCase, len(inputs))
	for i, in := range inputs {
		cases[i] = writeCase(t, in.gt, in.dt, in.options)
	}
	var answers []evalAnswer
	runPython(t, "evaluate.py", cases, &answers)
	require.Len(t, answers, len(cases))

	unknown, different := 0, map[float64]bool{}
	for i, in := range inputs {
		want := answers[i]
		in.options.Matches = true
		// From the files, as Python.
		gt, err := ReadDatasetFile(cases[i].GT)
		require.NoError(t, err)
		require.Equal(t, in.gt, gt)
		dt, err := ReadResultsFile(cases[i].DT)
		require.NoError(t, err)
		require.Equal(t, in.dt, dt)
		got, err := Evaluate(gt, dt, in.options)
		require.NoError(t, err, in.name)
		require.Equal(t, in.gt, gt, "not changed")
		require.Equal(t, in.dt, dt, "not changed")

		require.Equal(t, want.IoU, got.IoUThresholds, in.name)
		require.Equal(t, want.Recalls, got.RecallThresholds, in.name)
		require.Equal(t, want.Shape, []int{
			len(got.IoUThresholds), len(got.RecallThresholds), len(got.CategoryIDs), len(got.Areas), len(got.MaxDetections),
		}, in.name)
		requireFloats(t, want.Recall, got.Recall, in.name+": Recall")
		requireFloats(t, want.Precision, got.Precision, in.name+": Precision")
		requireFloats(t, want.Scores, got.Scores, in.name+": Scores")
		if len(want.Stats) > 0 {
			values := got.Stats.Values()
			require.Equal(t, want.Stats, values[:], in.name)
			require.Equal(t, want.Text, got.String(), in.name)
			for _, v := range values {
				different[v] = true
			}
		}
		require.Len(t, got.PerCategory, len(got.CategoryIDs))
		unknown += got.UnknownCategory

		require.Len(t, got.Matches, len(want.Matches), in.name)
		for j, w := range want.Matches {
			g := got.Matches[j]
			require.Equal(t, w.Image, g.ImageID)
			require.Equal(t, w.Category, g.CategoryID)
			require.Equal(t, w.Area, [2]float64{got.Areas[g.Area].Min, got.Areas[g.Area].Max})
			annotation := func(indexes []int) []int64 {
				out := []int64{}
				for _, i := range indexes {
					if i < 0 {
						out = append(out, 0)
						continue
					}
					out = append(out, gt.Annotations[i].ID)
				}
				return out
			}
			detection := func(indexes []int) []int64 {
				out := []int64{}
				for _, i := range indexes {
					out = append(out, int64(i)+1)
				}
				return out
			}
			require.Equal(t, w.DtIds, detection(g.Detections), in.name)
			require.Equal(t, w.GtIds, annotation(g.Annotations), in.name)
			require.Equal(t, w.DtMatches, annotation(g.DetectionMatch), in.name)
			require.Equal(t, w.GtMatches, detection(g.AnnotationMatch), in.name)
			require.Equal(t, w.DtIgnore, append([]bool{}, g.DetectionIgnored...), in.name)
			require.Equal(t, w.GtIgnore, append([]bool{}, g.AnnotationIgnored...), in.name)
		}
	}
	assert.Positive(t, unknown)
	assert.Greater(t, len(different), 100, "the numbers must not be all alike")
	assert.NotContains(t, answers[0].Stats, -1.)
	assert.NotContains(t, answers[7].Stats, -1.)
}

func TestEvaluateOfNothing(t *testing.T) {
	gt := &Dataset{
		Images:     []Image{{ID: 1, Height: 100, Width: 100}},
		Categories: []Category{{ID: 1}, {ID: 2}},
		Annotations: []Annotation{
			{ID: 1, ImageID: 1, CategoryID: 1, Box: Box{0, 0, 50, 50}, Area: 2500},
		},
	}
	// No detection at all: pycocotools cannot load that; nothing is found.
	r, err := Evaluate(gt, nil, EvalOptions{})
	require.NoError(t, err)
	assert.Equal(t, Stats{0, 0, 0, -1, 0, -1, 0, 0, 0, -1, 0, -1}, r.Stats)
	assert.Equal(t, -1., r.PerCategory[1].AP)
	assert.Equal(t, []int64{1, 2}, r.CategoryIDs)
	for range 3 { // one and the same each time
		again, err := Evaluate(gt, nil, EvalOptions{})
		require.NoError(t, err)
		require.Equal(t, r, again)
	}
	r, err = Evaluate(&Dataset{}, nil, EvalOptions{Type: Segm, Matches: true})
	require.NoError(t, err)
	assert.Equal(t, -1., r.Stats.AP)
	assert.Empty(t, r.Matches)
	r, err = Evaluate(gt, nil, EvalOptions{MaxDetections: []int{5}})
	require.NoError(t, err)
	assert.Equal(t, Stats{0, 0, 0, -1, 0, -1, 0, -1, -1, -1, 0, -1}, r.Stats)
	assert.Equal(t, 12, strings.Count(r.String(), "\n"))
}

func TestEvaluateErrors(t *testing.T) {
	mask := RLE{Height: 4, Width: 5, Counts: []uint32{5, 2, 13}}
	gt := func() *Dataset {
		return &Dataset{
			Images:     []Image{{ID: 1, Height: 4, Width: 5}, {ID: 2}},
			Categories: []Category{{ID: 1}},
			Annotations: []Annotation{
				{ID: 5, ImageID: 1, CategoryID: 1, Box: Box{1, 1, 1, 2}, Area: 2, Segmentation: Segmentation{Mask: &mask}},
			},
		}
	}
	good := Result{ImageID: 1, CategoryID: 1, Score: 0.5, Box: &Box{1, 1, 1, 2}, Mask: &mask}
	r, err := Evaluate(gt(), []Result{good}, EvalOptions{Type: Segm})
	require.NoError(t, err)
	require.InDelta(t, 1, r.Stats.AP, 1e-9)

	for want, change := range map[string]func(*Dataset, *[]Result, *EvalOptions){
		"annotation 1 (id 5): annotation 0 has the same id": func(gt *Dataset, _ *[]Result, _ *EvalOptions) {
			gt.Annotations = append(gt.Annotations, gt.Annotations[0])
		},
		"result 1: got image_id 9, which no image has": func(_ *Dataset, dt *[]Result, _ *EvalOptions) {
			bad := good
			bad.ImageID = 9
			*dt = append(*dt, bad)
		},
		"result 1: got score NaN": func(_ *Dataset, dt *[]Result, _ *EvalOptions) {
			bad := good
			bad.Score = math.NaN()
			*dt = append(*dt, bad)
		},
		"result 1: got no bbox": func(_ *Dataset, dt *[]Result, _ *EvalOptions) {
			bad := good
			bad.Box = nil
			*dt = append(*dt, bad)
		},
		"result 0: not a mask: got one of size [5 4], want the image's [4 5]": func(_ *Dataset, dt *[]Result, _ *EvalOptions) {
			(*dt)[0].Mask = &RLE{Height: 5, Width: 4, Counts: []uint32{20}}
		},
		"result 0: not a mask: got counts that sum up to 21": func(_ *Dataset, dt *[]Result, _ *EvalOptions) {
			(*dt)[0].Mask = &RLE{Height: 4, Width: 5, Counts: []uint32{21}}
		},
		"annotation 0 (id 5): not a mask: got no segmentation": func(gt *Dataset, _ *[]Result, _ *EvalOptions) {
			gt.Annotations[0].Segmentation = Segmentation{}
		},
		"annotation 0 (id 5): not a mask: got polygon 1 of 4 values": func(gt *Dataset, _ *[]Result, _ *EvalOptions) {
			gt.Annotations[0].Segmentation = Segmentation{Polygons: [][]float64{{0, 0, 1, 1, 2, 0}, {1, 2, 3, 4}}}
		},
		"image 1 (id 2): got size [0 0], which masks need": func(_ *Dataset, dt *[]Result, _ *EvalOptions) {
			(*dt)[0].ImageID = 2
		},
		"got image 3 to evaluate":           func(_ *Dataset, _ *[]Result, o *EvalOptions) { o.ImageIDs = []int64{3} },
		"got category 3 to evaluate":        func(_ *Dataset, _ *[]Result, o *EvalOptions) { o.CategoryIDs = []int64{3} },
		"bad option: got type IoUType(7)":   func(_ *Dataset, _ *[]Result, o *EvalOptions) { o.Type = 7 },
		"bad option: got IoU threshold 1.5": func(_ *Dataset, _ *[]Result, o *EvalOptions) { o.IoUThresholds = []float64{1.5} },
		"got recall threshold NaN":          func(_ *Dataset, _ *[]Result, o *EvalOptions) { o.RecallThresholds = []float64{math.NaN()} },
		"got at most 0 detections":          func(_ *Dataset, _ *[]Result, o *EvalOptions) { o.MaxDetections = []int{10, 0} },
		`got area "x" from 5 to 4`:          func(_ *Dataset, _ *[]Result, o *EvalOptions) { o.Areas = []AreaRange{{"x", 5, 4}} },
		"got an empty list":                 func(_ *Dataset, _ *[]Result, o *EvalOptions) { o.Areas = []AreaRange{} },
		"images 0 and 2 have the same id 1": func(gt *Dataset, _ *[]Result, _ *EvalOptions) { gt.Images = append(gt.Images, gt.Images[0]) },
	} {
		gt, dt, o := gt(), []Result{good}, EvalOptions{Type: Segm}
		change(gt, &dt, &o)
		_, err := Evaluate(gt, dt, o)
		require.ErrorContains(t, err, want)
		if !errors.Is(err, ErrOption) {
			assert.ErrorIs(t, err, ErrData, want)
		}
	}
}
