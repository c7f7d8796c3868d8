package transforms

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSizeRules compares every rule with Python for many photos, among them all the halves on which
// roundings part.
func TestSizeRules(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var photos [][5]int // height, width, size, what max_size is above it, multiple
	for range 1500 {
		photos = append(photos, [5]int{1 + r.IntN(700), 1 + r.IntN(700), 1 + r.IntN(500), 1 + r.IntN(400), 1 + r.IntN(64)})
	}
	for d := range 40 { // differences of every remainder
		photos = append(photos, [5]int{224 + d, 224 + 2*d, 224, 1 + d, 16}, [5]int{224 - d, 224 + d, 224, 3, 14}, [5]int{8*d + 4, 16*d + 8, 32, 8, 16})
	}
	for _, p := range [][2]int{{427, 640}, {375, 500}, {425, 640}, {480, 640}, {1080, 1920}, {720, 1280}, {3, 1000}} {
		photos = append(photos, [5]int{p[0], p[1], 256, 100, 32}, [5]int{p[1], p[0], 248, 533, 16}, [5]int{p[0], p[1], 650, 683, 16})
	}
	var answer struct{ Sizes [][]int }
	ask(t, object{"op": "sizes", "photos": photos}, &answer)
	require.Len(t, answer.Sizes, len(photos))
	for i, p := range photos {
		photo, s, m, multiple := Size{p[0], p[1]}, p[2], p[2]+p[3], p[4]
		var got []int
		add := func(s Size) { got = append(got, s.Height, s.Width) }
		add(ShortestEdge(photo, s, 0))
		add(ShortestEdge(photo, s, m))
		add(DETREdges(photo, s, m))
		add(LetterboxSize(photo, Size{s, m}))
		top, left := LetterboxOffset(photo, Size{s, m})
		got = append(got, top, left)
		add(MultipleOf(photo, multiple))
		top, left = CenterCropWindow(photo, Size{s, m})
		got = append(got, top, left)
		top, left = FloorCropWindow(photo, Size{s, s})
		got = append(got, max(0, top), max(0, left), TimmSize(s, 0.875))
		add(YOLOSEdges(photo, s, m, 16))
		add(Cover(photo, Size{s, m}))
		add(Contain(photo, Size{s, m}))
		add(MaxEdges(photo, Size{s, m}))
		add(DPTSize(photo, Size{s, m}, multiple))
		require.Equal(t, answer.Sizes[i], got, "photo %v", p)
	}
	t.Logf("%d photos, 16 rules, all equal", len(photos))
}

func TestTables(t *testing.T) {
	for _, stats := range [][2][]float64{
		{{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}},
		{{0.5, 0.5, 0.5}, {0.5, 0.5, 0.5}},
		{{0.48145466, 0.4578275, 0.40821073}, {0.26862954, 0.26130258, 0.27577711}},
		{{0, 0.1, 1}, {1, 0.001, 3}},
	} {
		var answer struct{ Names []Normalization }
		blobs := ask(t, object{"op": "tables", "mean": stats[0], "std": stats[1]}, &answer)
		require.Len(t, answer.Names, 4)
		distinct := map[string]bool{}
		for i, name := range answer.Names {
			got, err := name.table(stats[0], stats[1], 3)
			require.NoError(t, err)
			require.Zero(t, differingBits(got, floats(blobs[i])), "%s %v", name, stats)
			distinct[string(blobs[i])] = true
		}
		require.Len(t, distinct, 4, "the four forms differ")
	}
	_, err := NormalizeTorchvision.table([]float64{1, 2}, []float64{1, 2}, 3)
	require.ErrorIs(t, err, ErrSpec)
	_, err = NormalizeTorchvision.table([]float64{1, 2, 3}, []float64{1, 0, 2}, 3)
	require.ErrorIs(t, err, ErrSpec)
	_, err = Normalization("other").table([]float64{1, 2, 3}, []float64{1, 1, 2}, 3)
	require.ErrorIs(t, err, ErrSpec)
}

func TestGeometry(t *testing.T) {
	s := Spec{Resize: ResizeSpec{Rule: RuleShortestEdge, Size: []int{256}}, Crop: CropSpec{Rule: CropCenter, Size: []int{224, 224}}}
	g, err := s.Plan(Size{400, 600})
	require.NoError(t, err)
	require.Equal(t, Geometry{Height: 400, Width: 600, ResizedHeight: 256, ResizedWidth: 384, Top: 16, Left: 80, OutputHeight: 224, OutputWidth: 224}, g)
	require.False(t, g.Whole())
	x, y := g.ToPhoto(0, 0)
	require.Equal(t, [2]float32{125, 25}, [2]float32{x, y})
	x, y = g.FromPhoto(x, y)
	require.Equal(t, [2]float32{0, 0}, [2]float32{x, y})

	box := Spec{Resize: ResizeSpec{Rule: RuleLetterbox, Size: []int{640, 640}}}
	g, err = box.Plan(Size{400, 600})
	require.NoError(t, err)
	require.Equal(t, Geometry{Height: 400, Width: 600, ResizedHeight: 427, ResizedWidth: 640, Top: -106, OutputHeight: 640, OutputWidth: 640}, g)
	x0, y0, x1, y1 := g.Visible()
	require.Equal(t, [4]int{0, 106, 640, 533}, [4]int{x0, y0, x1, y1})

	var none Spec
	g, err = none.Plan(Size{7, 9})
	require.NoError(t, err)
	require.True(t, g.Whole())
	x, y = g.ToPhoto(3.14159, 2.71828)
	require.Equal(t, [2]float32{3.14159, 2.71828}, [2]float32{x, y}, "exact without a resize")
}

func TestSpecRefuses(t *testing.T) {
	for name, s := range map[string]Spec{
		"rule":             {Resize: ResizeSpec{Rule: "other"}},
		"no size":          {Resize: ResizeSpec{Rule: RuleExact}},
		"two edges":        {Resize: ResizeSpec{Rule: RuleShortestEdge, Size: []int{1, 2}}},
		"size 0":           {Resize: ResizeSpec{Rule: RuleExact, Size: []int{0, 2}}},
		"huge size":        {Resize: ResizeSpec{Rule: RuleExact, Size: []int{1 << 30, 2}}},
		"max below size":   {Resize: ResizeSpec{Rule: RuleShortestEdge, Size: []int{10}, MaxSize: 10}},
		"max of exact":     {Resize: ResizeSpec{Rule: RuleExact, Size: []int{1, 2}, MaxSize: 9}},
		"multiple":         {Resize: ResizeSpec{MultipleOf: -1}},
		"crop fill":        {Crop: CropSpec{Rule: CropCenter, Size: []int{3}, Fill: []int{1, 2}}},
		"crop fill 256":    {Crop: CropSpec{Rule: CropCenter, Size: []int{3}, Fill: []int{1, 2, 256}}},
		"backend":          {Backend: "cv2"},
		"filter":           {Interpolation: "area"},
		"box by torch":     {Backend: Torch, Interpolation: Box},
		"exact by pillow":  {Interpolation: NearestExact},
		"lanczos no alias": {Backend: Torch, Interpolation: Lanczos, Antialias: new(false)},
		"crop rule":        {Crop: CropSpec{Rule: "top"}},
		"crop size":        {Crop: CropSpec{Rule: CropCenter}},
		"crop of box":      {Resize: ResizeSpec{Rule: RuleLetterbox, Size: []int{10, 10}}, Crop: CropSpec{Rule: CropCenter, Size: []int{11, 5}}},
		"mean":             {Mean: []float64{1, 2}, Std: []float64{1, 2}},
		"only mean":        {Mean: []float64{1, 2, 3}},
		"std 0":            {Mean: []float64{1, 2, 3}, Std: []float64{1, 2, 0}},
		"no mean":          {Normalize: NormalizeTorchvision},
		"normalize":        {Normalize: "l2", Mean: []float64{1, 2, 3}, Std: []float64{1, 2, 3}},
	} {
		require.ErrorIs(t, s.Validate(), ErrSpec, name)
		_, err := NewPipeline(s, Options{})
		require.ErrorIs(t, err, ErrSpec, name)
		require.NotContains(t, err.Error(), "\n")
	}
	require.NoError(t, (&Spec{}).Validate())
}
