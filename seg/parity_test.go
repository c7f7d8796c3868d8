package seg_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/seg"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/npy"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

const referenceScript = "seg/testdata/reference.py"

// madeModels is the folder of the small model files that Python makes once for the test binary.
var madeModels struct {
	sync.Once
	dir string
}

// madeModel is the path of one of them.
func madeModel(t testing.TB, name string) string {
	t.Helper()
	madeModels.Do(func() {
		dir, err := os.MkdirTemp("", "torchvit-seg")
		require.NoError(t, err)
		testmain.RunPython(t, referenceScript, "models", dir)
		madeModels.dir = dir
	})
	require.NotEmpty(t, madeModels.dir)
	return filepath.Join(madeModels.dir, name+".pt")
}

// photos have every shape: square, wide, portrait, panorama, tiny, grey, with a palette, CMYK.
func photos(t testing.TB, names ...string) []string {
	if len(names) == 0 {
		names = []string{
			"astronaut.jpg", "chelsea.png", "portrait.jpg", "panorama.jpg", "tiny.png", "grey.jpg", "palette.png", "cmyk.jpg",
		}
	}
	paths := make([]string, len(names))
	for i, name := range names {
		paths[i] = filepath.Join(testmain.Root(t), "testdata", "images", name)
	}
	return paths
}

// slideCase is a Slide as Python's side reads it.
type slideCase struct {
	Rule   string                `json:"rule"`
	Window []int                 `json:"window"`
	Stride []int                 `json:"stride"`
	Batch  int                   `json:"batch"`
	Resize transforms.ResizeSpec `json:"resize"`
}

// parityCase is one case of testdata/reference.py.
type parityCase struct {
	ID        string     `json:"id"`
	Model     string     `json:"model,omitempty"`
	Head      string     `json:"head,omitempty"`
	Images    []string   `json:"images,omitempty"`
	Batch     bool       `json:"batch,omitempty"`
	Classes   bool       `json:"classes,omitempty"`
	Slide     *slideCase `json:"slide,omitempty"`
	Scales    []float64  `json:"scales,omitempty"`
	Flip      bool       `json:"flip,omitempty"`
	Threshold float64    `json:"threshold"`
	Logits    string     `json:"logits,omitempty"`
	// Preprocess stands in for the file's.
	Preprocess *transforms.Spec `json:"preprocess,omitempty"`
	Sizes      [][2]int         `json:"sizes,omitempty"`

	options seg.SegmentOptions
	// atLeast is how many classes a photo must have, so that the comparison says something.
	atLeast int
}

// python answers the cases: the arrays of each by name.
func python(t *testing.T, cases []parityCase) []map[string]*npy.Array {
	t.Helper()
	testmain.NotShort(t)
	dir := t.TempDir()
	list, err := json.Marshal(cases)
	require.NoError(t, err)
	path := filepath.Join(dir, "cases.json")
	require.NoError(t, os.WriteFile(path, list, 0o600))
	testmain.RunPython(t, referenceScript, "answers", path, dir)
	answers := make([]map[string]*npy.Array, len(cases))
	for i, c := range cases {
		file, err := npy.ReadZipFile(filepath.Join(dir, c.ID+".npz"))
		require.NoError(t, err)
		answers[i] = file.Map()
	}
	return answers
}

// sameBits compares an answer for photo i with Python's arrays and gives how many elements it compared.
func sameBits(want map[string]*npy.Array, i int, got *seg.Segmentation) (elements int, err error) {
	arrays := map[string]*npy.Array{
		"class_map": {DType: "u1", Shape: []int64{int64(got.Height), int64(got.Width)}, Data: got.Classes},
	}
	for name, tensor := range map[string]*torch.Tensor{"logits": got.Logits, "probabilities": got.Probabilities} {
		if tensor != nil {
			if arrays[name], err = tensor.Numpy(); err != nil {
				return 0, err
			}
		}
	}
	for name, g := range arrays {
		w := want[fmt.Sprintf("%s.%d", name, i)]
		switch {
		case w == nil:
			return 0, fmt.Errorf("Python has no %s of photo %d", name, i)
		case !slices.Equal(w.Shape, g.Shape) || w.DType != g.DType:
			return 0, fmt.Errorf("%s of photo %d: got %s %v, want %s %v", name, i, g.DType, g.Shape, w.DType, w.Shape)
		case string(w.Data) != string(g.Data):
			item, differ := int(w.ItemSize()), 0
			for k := 0; k < len(w.Data); k += item {
				if string(w.Data[k:k+item]) != string(g.Data[k:k+item]) {
					differ++
				}
			}
			return 0, fmt.Errorf("%s of photo %d: %d of %d elements differ from Python's", name, i, differ, w.Len())
		}
		elements += int(w.Len())
	}
	return elements, nil
}

func classesIn(m *seg.ClassMap) int {
	n := 0
	for _, count := range m.Counts() {
		if count > 0 {
			n++
		}
	}
	return n
}

// TestTheFirstOfEqualLogitsWins compares ties, infinities and numbers that are none with argmax.
func TestTheFirstOfEqualLogitsWins(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	special := []float32{0, 1, 1, 2, 2, 2, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN())}
	for _, s := range [][]int{{2, 3, 3}, {3, 17, 19}, {21, 40, 33}, {150, 9, 70}} {
		for kinds := 6; kinds <= len(special); kinds++ {
			values := make([]float32, s[0]*s[1]*s[2])
			for i := range values {
				values[i] = special[rng.IntN(kinds)]
			}
			logits, err := torch.NewTensor(values, 1, int64(s[0]), int64(s[1]), int64(s[2]))
			require.NoError(t, err)
			// Of a photo of the same size, bilinear changes no number but those beside infinities.
			resized, err := torch.CallTensor(t.Context(), "aten::upsample_bilinear2d", logits, s[1:], false, nil, nil)
			require.NoError(t, err)
			want, err := torch.CallTensor(t.Context(), "aten::argmax", resized, 1, false)
			require.NoError(t, err)
			classes, err := torch.CopyData[int64](want)
			require.NoError(t, err)
			g := transforms.Geometry{Height: s[1], Width: s[2], ResizedHeight: 8, ResizedWidth: 8, OutputHeight: 8, OutputWidth: 8}
			maps, err := seg.ClassMaps(t.Context(), logits, []transforms.Geometry{g})
			require.NoError(t, err)
			for i, c := range classes {
				require.Equal(t, int(c), int(maps[0].Classes[i]), "%v, pixel %d", s, i)
			}
			torch.CloseAll(logits, resized, want)
		}
	}
}

// structured makes logits of coarse blobs with noise on them, so that every class has regions and edges.
func structured(seed uint64, b, c, h, w int) []float32 {
	rng := rand.New(rand.NewPCG(seed, 1))
	coarse := make([]float32, b*c*16)
	for i := range coarse {
		coarse[i] = float32(rng.NormFloat64())
	}
	out := make([]float32, 0, b*c*h*w)
	for k := range b * c {
		for y := range h {
			for x := range w {
				out = append(out, 3*coarse[k*16+y*4/h*4+x*4/w]+float32(rng.NormFloat64()))
			}
		}
	}
	return out
}

func TestPostprocessingIsHuggingFaces(t *testing.T) {
	var cases []parityCase
	var given [][]float32
	shapes := [][]int{{1, 3, 7, 9}, {2, 21, 14, 14}, {3, 150, 16, 24}, {2, 5, 56, 31}, {1, 256, 5, 6}, {2, 171, 12, 20}}
	for i, s := range shapes {
		c := parityCase{ID: fmt.Sprint("post", i), Logits: filepath.Join(t.TempDir(), "logits.npy"), atLeast: 3}
		for b := range s[0] {
			c.Sizes = append(c.Sizes, [2]int{61 + 37*i + b, 113 - 17*i})
		}
		c.Sizes[0] = [2]int{s[2], s[3]} // not resized
		values := structured(uint64(i), s[0], s[1], s[2], s[3])
		tensor, err := torch.NewTensor(values, int64(s[0]), int64(s[1]), int64(s[2]), int64(s[3]))
		require.NoError(t, err)
		a, err := tensor.Numpy()
		require.NoError(t, err)
		require.NoError(t, npy.WriteFile(c.Logits, a))
		tensor.Close()
		given, cases = append(given, values), append(cases, c)
	}
	want := python(t, cases)
	elements := 0
	for i, c := range cases {
		s := shapes[i]
		logits, err := torch.NewTensor(given[i], int64(s[0]), int64(s[1]), int64(s[2]), int64(s[3]))
		require.NoError(t, err)
		defer logits.Close()
		geometry := make([]transforms.Geometry, s[0])
		for b, size := range c.Sizes {
			geometry[b] = transforms.Geometry{
				Height: size[0], Width: size[1], ResizedHeight: 32, ResizedWidth: 48, OutputHeight: 32, OutputWidth: 48,
			}
		}
		maps, err := seg.ClassMaps(t.Context(), logits, geometry)
		require.NoError(t, err)
		for b, m := range maps {
			require.GreaterOrEqual(t, classesIn(m), c.atLeast)
			n, err := sameBits(want[i], b, &seg.Segmentation{ClassMap: m})
			require.NoError(t, err)
			elements += n
		}
	}
	t.Logf("%d pixels have the classes of transformers' post_process_semantic_segmentation", elements)
}

func TestSegmentationIsPythons(t *testing.T) {
	root := testmain.Root(t)
	garments := filepath.Join(root, "testdata", "models", "garments_segmentation.pt")
	reference := filepath.Join(root, "testdata", "generated", "segmentation.pt")
	scenes := make([]string, 0, 6)
	for _, number := range []int{2, 3, 5, 6, 8, 9} { // of three or four garments
		scenes = append(scenes, filepath.Join(root, "testdata", "scenes", fmt.Sprintf("scene_%d.jpg", number)))
	}
	few := []string{"portrait.jpg", "panorama.jpg", "tiny.png", "grey.jpg", "palette.png", "cmyk.jpg"}
	near := transforms.ResizeSpec{Rule: "shortest_edge", Size: []int{48}, MultipleOf: 8}
	none := transforms.ResizeSpec{Rule: "none"}
	// One photo at a time, as Python's side runs them: another batch can change the last bits.
	everything := seg.SegmentOptions{MaxBatch: 1, Logits: true, Probabilities: true}
	probabilities := seg.SegmentOptions{MaxBatch: 1, Probabilities: true}
	var cases []parityCase
	add := func(id, model string, atLeast int, images []string, o seg.SegmentOptions, change func(*parityCase)) {
		c := parityCase{ID: id, Model: model, Images: images, Scales: o.Scales, Flip: o.Flip, Threshold: 0.5, options: o, atLeast: atLeast}
		if c.Scales == nil {
			c.Scales = []float64{1}
		}
		if change != nil {
			change(&c)
		}
		cases = append(cases, c)
	}
	// slide sets both sides' windows; Go's Resize stays the file's own where own says so.
	slide := func(rule string, window, stride []int, batch int, resize transforms.ResizeSpec, own bool) func(*parityCase) {
		return func(c *parityCase) {
			c.Slide = &slideCase{rule, window, stride, batch, resize}
			c.options.Slide = &seg.Slide{Rule: rule, Window: window, Stride: stride, MaxBatch: batch, Resize: resize}
			if own {
				c.options.Slide.Resize = transforms.ResizeSpec{}
			}
		}
	}
	// Kinds of output.
	for _, name := range []string{"tokens", "full", "out_aux", "pair", "permuted", "letterbox"} {
		add(name, madeModel(t, name), 3, photos(t), everything, nil)
	}
	add("binary", madeModel(t, "binary"), 2, photos(t), everything, func(c *parityCase) { c.Threshold = 0.4 })
	high := everything
	high.Threshold = new(0.62)
	add("binary-high", madeModel(t, "binary"), 2, photos(t), high, func(c *parityCase) { c.Threshold = 0.62 })
	for _, name := range []string{"classes", "classes_channel"} {
		add(name, madeModel(t, name), 3, photos(t), seg.SegmentOptions{}, func(c *parityCase) { c.Classes = true })
	}
	add("batch", madeModel(t, "out_aux"), 3, photos(t), seg.SegmentOptions{}, func(c *parityCase) { c.Batch = true })
	add("reference", reference, 3, photos(t, few...), everything, nil)
	add("garments", garments, 3, scenes, everything, nil)
	// Windows.
	add("mmseg", madeModel(t, "tokens"), 3, photos(t, few...), everything, slide("mmseg", []int{48, 64}, []int{32, 24}, 1, none, false))
	add("mmseg-batch", madeModel(t, "tokens"), 3, photos(t, few...), probabilities, slide("mmseg", []int{48, 64}, []int{32, 42}, 3, none, false))
	add("mmseg-own", madeModel(t, "tokens"), 3, photos(t, few...), everything, slide("mmseg", []int{48, 48}, []int{24, 32}, 1, near, true))
	add("mmseg-fixed", madeModel(t, "fixed"), 3, photos(t, few...), everything, slide("mmseg", []int{48, 64}, []int{32, 42}, 1, none, false))
	add("mmseg-binary", madeModel(t, "binary"), 2, photos(t, few...), everything, func(c *parityCase) {
		slide("mmseg", []int{64, 64}, []int{40, 40}, 1, none, false)(c)
		c.Threshold = 0.4
	})
	add("segmenter", madeModel(t, "tokens"), 3, photos(t, few...), probabilities, slide("segmenter", []int{64, 64}, []int{40, 40}, 4, none, false))
	add("segmenter-dense", madeModel(t, "full"), 3, photos(t, few...), probabilities, slide("segmenter", []int{48, 48}, []int{48, 48}, 2, near, true))
	add("segmenter-default", madeModel(t, "out_aux"), 3, photos(t, few...), probabilities, func(c *parityCase) {
		// The file's rule stretches, so that the shorter side goes to the window's.
		slide("segmenter", []int{64, 64}, []int{42, 42}, 4, transforms.ResizeSpec{Rule: "shortest_edge", Size: []int{64}}, true)(c)
		c.options.Slide.Stride, c.options.Slide.MaxBatch = nil, 0
	})
	add("garments-mmseg", garments, 3, scenes, probabilities, slide("mmseg", []int{128, 128}, []int{85, 85}, 1, transforms.ResizeSpec{Rule: "shortest_edge", Size: []int{160}}, false))
	add("garments-segmenter", garments, 3, scenes[:3], probabilities, slide("segmenter", []int{128, 128}, []int{96, 96}, 4, transforms.ResizeSpec{Rule: "shortest_edge", Size: []int{144}}, false))
	// Augmentation.
	augmented := func(scales []float64, flip bool) seg.SegmentOptions {
		return seg.SegmentOptions{Probabilities: true, Scales: scales, Flip: flip}
	}
	all := seg.AugmentScales()
	add("augmented", madeModel(t, "tokens"), 3, photos(t, few...), augmented(all, true), nil)
	add("flip", madeModel(t, "pair"), 3, photos(t, few...), augmented(nil, true), nil)
	add("one-scale", madeModel(t, "out_aux"), 3, photos(t, few...), augmented([]float64{1.5}, false), nil)
	add("augmented-letterbox", madeModel(t, "letterbox"), 3, photos(t, few...), augmented([]float64{0.75, 1, 1.3}, true), nil)
	add("augmented-binary", madeModel(t, "binary"), 2, photos(t, few...), augmented(all, true), func(c *parityCase) { c.Threshold = 0.4 })
	add("augmented-mmseg", madeModel(t, "tokens"), 3, photos(t, few...), augmented([]float64{0.5, 1, 1.75}, true), slide("mmseg", []int{48, 64}, []int{32, 24}, 1, near, true))
	add("augmented-segmenter", madeModel(t, "tokens"), 3, photos(t, few...), augmented(all, true), slide("segmenter", []int{48, 48}, []int{32, 32}, 4, near, true))
	add("permuted-augmented", madeModel(t, "permuted"), 3, photos(t, few...), augmented([]float64{0.75, 1}, true), nil)
	add("permuted-mmseg", madeModel(t, "permuted"), 3, photos(t, few...), everything, slide("mmseg", []int{64, 64}, []int{32, 64}, 2, none, false))
	add("permuted-segmenter", madeModel(t, "permuted"), 3, photos(t, few...), probabilities, slide("segmenter", []int{64, 64}, []int{48, 48}, 3, none, false))
	add("permuted-batch", madeModel(t, "permuted"), 3, photos(t, "portrait.jpg", "portrait.jpg"), seg.SegmentOptions{}, func(c *parityCase) { c.Batch = true })
	add("garments-augmented", garments, 3, scenes[:3], augmented([]float64{0.75, 1.25}, true), nil)
	// A head in a file of its own.
	add("head", filepath.Join(root, "testdata", "generated", "vit_reference.pt"), 3, photos(t, few...), everything, func(c *parityCase) {
		c.Head = filepath.Join(root, "testdata", "generated", "segmentation_head.pt")
		meta, err := vit.ReadMetadata(c.Model)
		require.NoError(t, err)
		c.Preprocess = &seg.WholePhoto(meta).Preprocess
	})
	blocks := func(c *parityCase) { c.Head = madeModel(t, "unet") }
	add("head-blocks", madeModel(t, "vit"), 3, photos(t, few...), everything, blocks)
	add("head-blocks-windows", madeModel(t, "vit"), 3, photos(t, few...), augmented([]float64{1, 1.5}, true), func(c *parityCase) {
		slide("mmseg", []int{64, 64}, []int{40, 40}, 1, transforms.ResizeSpec{Rule: "shortest_edge", Size: []int{72}}, false)(c)
		blocks(c)
	})

	want := python(t, cases)
	elements := 0
	for i, c := range cases {
		t.Run(c.ID, func(t *testing.T) {
			sources := make([]transforms.Source, len(c.Images))
			for k, path := range c.Images {
				sources[k] = path
			}
			segment := load(t, c)
			found, err := segment(c.options, sources...)
			require.NoError(t, err)
			defer seg.CloseAll(found)
			require.Len(t, found, len(c.Images))
			enough := 0
			for k, f := range found {
				if classesIn(f.ClassMap) >= c.atLeast {
					enough++
				}
				n, err := sameBits(want[i], k, f)
				require.NoError(t, err)
				elements += n
			}
			require.GreaterOrEqual(t, enough, (len(found)+1)/2, "photos with at least %d classes", c.atLeast)
		})
	}
	t.Logf("%d cases, %d elements have Python's bits", len(cases), elements)
}

// load opens the files of a case.
func load(t *testing.T, c parityCase) func(o seg.SegmentOptions, images ...transforms.Source) ([]*seg.Segmentation, error) {
	t.Helper()
	type answers = []*seg.Segmentation
	if c.Head == "" {
		m, err := seg.Load(c.Model, vit.Options{})
		require.NoError(t, err)
		t.Cleanup(func() { m.Close() })
		return func(o seg.SegmentOptions, images ...transforms.Source) (answers, error) {
			return m.SegmentWith(t.Context(), o, images...)
		}
	}
	meta, err := vit.ReadMetadata(c.Model)
	require.NoError(t, err)
	v, err := vit.Load(c.Model, vit.Options{Metadata: seg.WholePhoto(meta)})
	require.NoError(t, err)
	h, err := seg.LoadHead(c.Head, vit.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { v.Close(); h.Close() })
	custom := &seg.CustomSegmentationModel{ViT: v, SegmentationHead: h}
	return func(o seg.SegmentOptions, images ...transforms.Source) (answers, error) {
		return custom.SegmentWith(t.Context(), o, images...)
	}
}

// TestComparisonsCanFail breaks what sameBits compares and sees it fail.
func TestComparisonsCanFail(t *testing.T) {
	m := randomMap(t, 6, 5, 4)
	array := &npy.Array{DType: "u1", Shape: []int64{5, 6}, Data: slices.Clone(m.Classes)}
	want := map[string]*npy.Array{"class_map.0": array}
	n, err := sameBits(want, 0, &seg.Segmentation{ClassMap: m})
	require.NoError(t, err)
	require.Equal(t, 30, n)
	_, err = sameBits(want, 1, &seg.Segmentation{ClassMap: m})
	require.ErrorContains(t, err, "Python has no class_map of photo 1")
	array.Data[7] ^= 1
	_, err = sameBits(want, 0, &seg.Segmentation{ClassMap: m})
	require.ErrorContains(t, err, "1 of 30 elements differ")
	array.Shape = []int64{6, 5}
	_, err = sameBits(want, 0, &seg.Segmentation{ClassMap: m})
	require.ErrorContains(t, err, "got u1 [5 6], want u1 [6 5]")
}
