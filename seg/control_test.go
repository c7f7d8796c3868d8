package seg_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/seg"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// fake is a runtime without a module.
type fake map[string]func(args []any) (any, error)

func (f fake) Call(_ context.Context, method string, args ...any) (any, error) {
	return f[method](args)
}
func (f fake) HasMethod(name string) bool { return f[name] != nil }
func (f fake) Close() error               { return nil }

func fakeModel(t *testing.T, meta *vit.Metadata, methods fake) *vit.Model {
	t.Helper()
	m, err := vit.NewModel(methods, "fake.pt", vit.Options{Metadata: meta})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

func describe(task string) *vit.Metadata {
	return &vit.Metadata{
		Format: 1, Task: task,
		Input:      vit.InputSpec{Size: []int{16, 16}, MultipleOf: 4, Dynamic: true},
		Preprocess: transforms.Spec{Resize: transforms.ResizeSpec{Rule: "none"}},
		Labels:     []string{"low", "middle", "high"},
	}
}

func fakeSegmenter(t *testing.T, meta *vit.Metadata, forward func(x *torch.Tensor) (any, error)) *seg.VisionTransformerForSegmentation {
	m := fakeModel(t, meta, fake{"forward": func(args []any) (any, error) { return forward(args[0].(*torch.Tensor)) }})
	return &seg.VisionTransformerForSegmentation{VisionTransformer: &vit.VisionTransformer{Model: m}}
}

// threeLevels gives logits whose class says how bright a pixel is.
func threeLevels(x *torch.Tensor) (any, error) {
	s := x.Shape()
	var values []float32
	err := torch.WithData(x, func(pixels []float32) error {
		plane := int(s[2] * s[3])
		for b := range int(s[0]) {
			for class := range 3 {
				for _, v := range pixels[b*3*plane : b*3*plane+plane] {
					values = append(values, -float32(math.Abs(float64(v)-float64(class)/2)))
				}
			}
		}
		return nil
	})
	if err != nil { // a window is a view with gaps
		dense, err := x.Contiguous()
		if err != nil {
			return nil, err
		}
		defer dense.Close()
		return threeLevels(dense)
	}
	return torch.NewTensor(values, s[0], 3, s[2], s[3])
}

// stripes is a photo of columns 0, 128 and 255, each width pixels wide, in turn.
func stripes(t *testing.T, height, width, stripe int) *transforms.Image {
	t.Helper()
	bytes := make([]uint8, 0, 3*height*width)
	for range 3 * height {
		for x := range width {
			bytes = append(bytes, []uint8{0, 128, 255}[x/stripe%3])
		}
	}
	tensor, err := torch.NewTensor(bytes, 3, int64(height), int64(width))
	require.NoError(t, err)
	defer tensor.Close()
	photo, err := transforms.FromTensor(tensor)
	require.NoError(t, err)
	t.Cleanup(func() { photo.Close() })
	return photo
}

func TestMixedSizesShareBatches(t *testing.T) {
	var seen [][]int64
	s := fakeSegmenter(t, describe(vit.TaskSegmentation), func(x *torch.Tensor) (any, error) {
		seen = append(seen, x.Shape())
		return threeLevels(x)
	})
	wide, tall := stripes(t, 8, 12, 2), stripes(t, 12, 8, 3)
	maps, err := s.Segment(t.Context(), wide, tall, wide, wide)
	require.NoError(t, err)
	assert.Equal(t, [][]int64{{3, 3, 8, 12}, {1, 3, 12, 8}}, seen)
	for i, photo := range []*transforms.Image{wide, tall, wide, wide} {
		require.Equal(t, [2]int{photo.Width(), photo.Height()}, [2]int{maps[i].Width, maps[i].Height}, "the order is the photos'")
	}
	assert.Equal(t, []uint8{0, 0, 0, 1, 1, 1, 2, 2}, maps[1].Classes[:8])
	assert.Equal(t, maps[0].Classes, maps[3].Classes)

	seen = nil
	answers, err := s.SegmentWith(t.Context(), seg.SegmentOptions{MaxBatch: 2, Probabilities: true, Logits: true}, wide, tall, wide, wide)
	require.NoError(t, err)
	assert.Equal(t, [][]int64{{2, 3, 8, 12}, {1, 3, 12, 8}, {1, 3, 8, 12}}, seen)
	assert.Equal(t, maps[3].Classes, answers[3].Classes)
	assert.Equal(t, []int64{3, 12, 8}, answers[1].Probabilities.Shape())
	assert.Equal(t, []int64{3, 12, 8}, answers[1].Logits.Shape())
	seg.CloseAll(answers)
	seg.CloseAll(answers) // again

	none, err := s.Segment(t.Context())
	require.NoError(t, err)
	assert.Empty(t, none)
}

func TestWindowsOfBothRules(t *testing.T) {
	var seen []string
	s := fakeSegmenter(t, describe(vit.TaskSegmentation), func(x *torch.Tensor) (any, error) {
		seen = append(seen, fmt.Sprint(x.Shape()))
		return threeLevels(x)
	})
	photo, small := stripes(t, 20, 50, 7), stripes(t, 9, 30, 4)
	for _, c := range []struct {
		name  string
		photo *transforms.Image
		slide seg.Slide
		want  []string
	}{
		{"mmseg: 2 x 5 windows, the last shifted back", photo, seg.Slide{}, times("[1 3 16 16]", 10)},
		{"three at once", photo, seg.Slide{MaxBatch: 3}, append(times("[3 3 16 16]", 3), "[1 3 16 16]")},
		{"no overlap", photo, seg.Slide{Stride: []int{16}}, times("[1 3 16 16]", 8)},
		{"a window of its own shape", photo, seg.Slide{Window: []int{20, 32}, Stride: []int{20, 30}}, times("[1 3 20 32]", 2)},
		{"lower than the window: padded to a multiple", small, seg.Slide{}, times("[1 3 12 16]", 3)},
		{"segmenter: four at once", photo, seg.Slide{Rule: seg.SlideSegmenter}, append(times("[4 3 16 16]", 2), "[2 3 16 16]")},
		{"segmenter: enlarged to the window", small, seg.Slide{Rule: seg.SlideSegmenter, MaxBatch: 1, Stride: []int{16}}, times("[1 3 16 16]", 4)},
		{"shorter side first", photo, seg.Slide{Resize: transforms.ResizeSpec{Rule: "shortest_edge", Size: []int{16}}}, times("[1 3 16 16]", 4)},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen = nil
			answers, err := s.SegmentWith(t.Context(), seg.SegmentOptions{Slide: &c.slide}, c.photo)
			require.NoError(t, err)
			assert.Equal(t, c.want, seen)
			assert.Equal(t, 3, classesIn(answers[0].ClassMap))
			if c.photo == photo && c.slide.Resize.Rule == "" {
				whole, err := s.Segment(t.Context(), photo)
				require.NoError(t, err)
				assert.Equal(t, whole[0].Classes, answers[0].Classes, "the windows' mean is what each of them says")
			}
		})
	}
}

func times(s string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = s
	}
	return list
}

func TestViewsOfAugmentation(t *testing.T) {
	var seen []string
	meta := describe(vit.TaskSegmentation)
	s := fakeSegmenter(t, meta, func(x *torch.Tensor) (any, error) {
		seen = append(seen, fmt.Sprint(x.Shape()[2:]))
		return threeLevels(x)
	})
	photo := stripes(t, 20, 40, 7)
	answers, err := s.SegmentWith(t.Context(), seg.SegmentOptions{Scales: []float64{0.5, 1.35}, Flip: true}, photo)
	require.NoError(t, err)
	// 20 * 1.35 + 0.5 and 40 * 1.35 + 0.5 are 27 and 54; the nearest multiples of 4, halves to even, 28 and 56.
	assert.Equal(t, []string{"[8 20]", "[8 20]", "[28 56]", "[28 56]"}, seen)
	assert.Equal(t, 3, classesIn(answers[0].ClassMap))

	seen = nil
	_, err = s.SegmentWith(t.Context(), seg.SegmentOptions{Scales: seg.AugmentScales(), Slide: &seg.Slide{MaxBatch: 100}}, photo)
	require.NoError(t, err)
	// Windows need no multiples, but a side below the window is padded to one: 10 to 12, 15 to 16.
	assert.Equal(t, []string{"[12 16]", "[16 16]", "[16 16]", "[16 16]", "[16 16]", "[16 16]"}, seen)
}

func TestThresholdOfBinaryMasks(t *testing.T) {
	// sigmoid of -1, 0, 0.5 and 2 is 0.27, 0.5, 0.62 and 0.88.
	forward := func(*torch.Tensor) (any, error) { return torch.NewTensor([]float32{-1, 0, 0.5, 2}, 1, 1, 1, 4) }
	meta := describe(vit.TaskSegmentation)
	meta.Labels = []string{"crack"}
	photo := stripes(t, 1, 4, 1)
	for _, c := range []struct {
		file, option *float64
		want         []uint8
	}{
		{nil, nil, []uint8{0, 0, 1, 1}}, // a half is not above a half
		{new(0.7), nil, []uint8{0, 0, 0, 1}},
		{new(0.7), new(0.2), []uint8{1, 1, 1, 1}},
		{nil, new(0.0), []uint8{1, 1, 1, 1}},
		{nil, new(1.0), []uint8{0, 0, 0, 0}},
	} {
		meta.Thresholds = &vit.Thresholds{Mask: c.file}
		s := fakeSegmenter(t, meta, forward)
		answers, err := s.SegmentWith(t.Context(), seg.SegmentOptions{Threshold: c.option}, photo)
		require.NoError(t, err)
		assert.Equal(t, c.want, answers[0].Classes)
		assert.Equal(t, []string{"background", "crack", "class 2"}, []string{s.Label(0), s.Label(1), s.Label(2)})
		assert.Equal(t, [3]uint8{}, seg.Palette(s.Palette())[0], "the background is black")
	}
}

func TestOptionErrors(t *testing.T) {
	fixed := describe(vit.TaskSegmentation)
	fixed.Input.Dynamic = false
	unknown := describe(vit.TaskSegmentation)
	unknown.Input = vit.InputSpec{}
	forward := func(*torch.Tensor) (any, error) { t.Fatal("got a forward, want none"); return nil, nil }
	slide := func(s seg.Slide) seg.SegmentOptions { return seg.SegmentOptions{Slide: &s} }
	for _, c := range []struct {
		meta *vit.Metadata
		o    seg.SegmentOptions
		want string
	}{
		{nil, seg.SegmentOptions{Threshold: new(1.5)}, "threshold: got 1.5"},
		{nil, seg.SegmentOptions{Threshold: new(math.NaN())}, "threshold: got NaN"},
		{nil, seg.SegmentOptions{Scales: []float64{1, 0}}, "scales: got [1 0]"},
		{nil, seg.SegmentOptions{Scales: []float64{math.Inf(1)}}, "scales"},
		{nil, seg.SegmentOptions{Flip: true, Logits: true}, "want Probabilities"},
		{fixed, seg.SegmentOptions{Scales: []float64{2}}, "want scale 1, Slide, or input.dynamic"},
		{nil, slide(seg.Slide{Rule: "tiles"}), `rule: got "tiles", want mmseg or segmenter`},
		{unknown, slide(seg.Slide{}), "names no input.size"},
		{nil, slide(seg.Slide{Window: []int{}}), "window: got none"},
		{nil, slide(seg.Slide{Window: []int{16, 16, 16}}), "window: got [16 16 16]"},
		{nil, slide(seg.Slide{Window: []int{-16}}), "window: got [-16]"},
		{nil, slide(seg.Slide{Window: []int{18}}), "multiples of input.multiple_of, 4"},
		{fixed, slide(seg.Slide{Window: []int{32}}), "want the 16 x 16 that the file takes"},
		{nil, slide(seg.Slide{Rule: "segmenter", Window: []int{16, 32}}), "want a square"},
		{nil, slide(seg.Slide{Rule: "segmenter", Stride: []int{8, 4}}), "the same both ways"},
		{nil, slide(seg.Slide{Stride: []int{}}), "stride: got []"},
		{nil, slide(seg.Slide{Stride: []int{17}}), "stride: got 17 x 17, want 1 to the window's 16 x 16"},
		{nil, slide(seg.Slide{Stride: []int{0}}), "stride"},
		{nil, slide(seg.Slide{MaxBatch: -1}), "batch: got -1"},
	} {
		if c.meta == nil {
			c.meta = describe(vit.TaskSegmentation)
		}
		s := fakeSegmenter(t, c.meta, forward)
		_, err := s.SegmentWith(t.Context(), c.o, stripes(t, 9, 9, 2))
		require.ErrorIs(t, err, torch.ErrInvalidArgument, c.want)
		require.ErrorContains(t, err, c.want)
	}
	s := fakeSegmenter(t, describe(vit.TaskSegmentation), forward)
	_, err := s.SegmentWith(t.Context(), slide(seg.Slide{Resize: transforms.ResizeSpec{Rule: "shrink"}}), stripes(t, 9, 9, 2))
	require.ErrorIs(t, err, transforms.ErrSpec)
	_, err = s.SegmentWith(t.Context(), seg.SegmentOptions{Flip: true}, "no such photo.jpg")
	require.ErrorContains(t, err, "image 0: ")
}

// constant gives a forward of a tensor of that form, whatever goes in.
func constant[T torch.Element](value T, shape ...int64) func(*torch.Tensor) (any, error) {
	return func(*torch.Tensor) (any, error) {
		n := int64(1)
		for _, v := range shape {
			n *= v
		}
		values := []T{}
		for range n {
			values = append(values, value)
		}
		return torch.NewTensor(values, shape...)
	}
}

func TestOutputErrors(t *testing.T) {
	boom := errors.New("boom")
	cropped := describe(vit.TaskSegmentation)
	cropped.Preprocess.Crop = transforms.CropSpec{Rule: "center", Size: []int{8, 4}}
	nameless := describe(vit.TaskSegmentation)
	nameless.Labels = nil
	for _, c := range []struct {
		name    string
		forward func(*torch.Tensor) (any, error)
		meta    *vit.Metadata
		o       seg.SegmentOptions
		is      error
		want    string
	}{
		{"other labels", constant(float32(1), 1, 4, 2, 2), nil, seg.SegmentOptions{}, vit.ErrOutput, "got 3 labels for tensor float32 [1, 4, 2, 2], want one for each of 4 classes"},
		{"too many classes", constant(float32(1), 1, 300, 2, 2), nameless, seg.SegmentOptions{}, vit.ErrOutput, "300 classes, want at most 256"},
		{"a class above 255", constant(int64(256), 1, 8, 8), nil, seg.SegmentOptions{}, vit.ErrOutput, "got class 256"},
		{"a class below 0", constant(int32(-1), 1, 8, 8), nil, seg.SegmentOptions{}, vit.ErrOutput, "got class -1"},
		{"no logits", constant(float32(1), 1, 5), nil, seg.SegmentOptions{}, vit.ErrOutput, "tensor float32 [1, 5]"},
		{"another batch", constant(float32(1), 2, 3, 2, 2), nil, seg.SegmentOptions{}, vit.ErrOutput, "2, 3, 2, 2"},
		{"probabilities of classes", constant(int64(2), 1, 8, 8), nil, seg.SegmentOptions{Probabilities: true}, vit.ErrOutput, "no logits or probabilities"},
		{"windows of classes", constant(int64(2), 1, 16, 16), nil, seg.SegmentOptions{Slide: &seg.Slide{}}, vit.ErrOutput, "want logits"},
		{"a mirrored class map", constant(int64(2), 1, 8, 8), nil, seg.SegmentOptions{Flip: true}, vit.ErrOutput, "want logits"},
		{"a crop", constant(float32(1), 1, 3, 8, 4), cropped, seg.SegmentOptions{}, torch.ErrUnsupported, "crops 4 x 8 pixels out of 20 x 20"},
		{"a crop that names the fix", constant(int64(1), 1, 8, 4), cropped, seg.SegmentOptions{}, torch.ErrUnsupported, "seg.WholePhoto"},
		{"a crop, mirrored", constant(float32(1), 1, 3, 8, 4), cropped, seg.SegmentOptions{Flip: true}, torch.ErrUnsupported, "crops"},
		{"a model that fails", func(*torch.Tensor) (any, error) { return nil, boom }, nil, seg.SegmentOptions{}, boom, "boom"},
		{"windows that fail", failAfter(3, boom), nil, seg.SegmentOptions{Slide: &seg.Slide{}}, boom, "boom"},
		{"a view that fails", failAfter(2, boom), nil, seg.SegmentOptions{Flip: true, Scales: []float64{1, 2}}, boom, "boom"},
		{"a photo that fails", failAfter(1, boom), nil, seg.SegmentOptions{MaxBatch: 1, Logits: true}, boom, "boom"},
		{"windows of other classes", changing(), nil, seg.SegmentOptions{Slide: &seg.Slide{}}, torch.ErrShape, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.meta == nil {
				c.meta = describe(vit.TaskSegmentation)
			}
			s := fakeSegmenter(t, c.meta, c.forward)
			photo := stripes(t, 20, 20, 3)
			images := []transforms.Source{photo, photo}
			if c.o.MaxBatch == 0 {
				images = images[:1]
			}
			_, err := s.SegmentWith(t.Context(), c.o, images...)
			if c.is == torch.ErrShape {
				require.Error(t, err) // libtorch's own words
				return
			}
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func failAfter(n int, err error) func(*torch.Tensor) (any, error) {
	return func(x *torch.Tensor) (any, error) {
		if n--; n < 0 {
			return nil, err
		}
		return threeLevels(x)
	}
}

// changing gives three classes at first and then four.
func changing() func(*torch.Tensor) (any, error) {
	n := int64(2)
	return func(x *torch.Tensor) (any, error) {
		n++
		return constant(float32(n), 1, n, 16, 16)(x)
	}
}

func TestACancelledCallEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := fakeSegmenter(t, describe(vit.TaskSegmentation), func(x *torch.Tensor) (any, error) {
		defer cancel()
		return threeLevels(x)
	})
	_, err := s.SegmentWith(ctx, seg.SegmentOptions{Slide: &seg.Slide{}}, stripes(t, 40, 40, 3))
	require.ErrorIs(t, err, context.Canceled)
}

func TestHeadsTakeWhatTheyAskFor(t *testing.T) {
	var asked []int
	blocks := fakeModel(t, describe(vit.TaskClassification), fake{
		"forward_features": func([]any) (any, error) {
			tokens, err := torch.NewTensor([]float32{7}, 1, 1, 1)
			if err != nil {
				return nil, err
			}
			attention, err := torch.NewTensor([]float32{1}, 1, 1, 1, 1)
			return torch.Tuple{tokens, attention}, err
		},
		"forward_blocks": func(args []any) (any, error) {
			asked = args[1].([]int)
			var list []*torch.Tensor
			for _, b := range asked {
				tokens, err := torch.NewTensor([]float32{float32(b)}, 1, 1, 1)
				if err != nil {
					return nil, err
				}
				list = append(list, tokens)
			}
			return list, nil
		},
	})
	v := &vit.VisionTransformer{Model: blocks}
	var got []float32
	head := func(meta *vit.Metadata) *seg.SegmentationHead {
		return &seg.SegmentationHead{Model: fakeModel(t, meta, fake{"forward": func(args []any) (any, error) {
			got = nil
			torch.Tensors(args[0], func(x *torch.Tensor) {
				v, err := torch.CopyData[float32](x)
				require.NoError(t, err)
				got = append(got, v...)
			})
			require.Equal(t, []any{20, 24}, args[1:], "height and width in pixels")
			return torch.NewTensor([]float32{0, 1, 2}, 1, 3, 1, 1)
		}})}
	}
	photo := stripes(t, 20, 24, 3)

	last := &seg.CustomSegmentationModel{ViT: v, SegmentationHead: head(describe(vit.TaskSegmentationHead))}
	maps, err := last.Segment(t.Context(), photo)
	require.NoError(t, err)
	assert.Equal(t, []float32{7}, got, "the tokens after the norm, as one tensor")
	assert.Equal(t, uint8(2), maps[0].At(5, 5))
	assert.Nil(t, asked)

	deep := describe(vit.TaskSegmentationHead)
	deep.Input.Blocks = []int{2, 0, 5, 11}
	deep.Thresholds = &vit.Thresholds{Mask: new(0.9)}
	four := &seg.CustomSegmentationModel{ViT: v, SegmentationHead: head(deep)}
	_, err = four.Segment(t.Context(), photo)
	require.NoError(t, err)
	assert.Equal(t, []int{2, 0, 5, 11}, asked)
	assert.Equal(t, []float32{2, 0, 5, 11}, got, "in the head's order")

	// Any other source of feature maps.
	extractor := features{v.Model, 4}
	any := &seg.CustomSegmentationModel{ViT: seg.FromFeatures(extractor), SegmentationHead: head(deep)}
	_, err = any.Segment(t.Context(), photo)
	require.NoError(t, err)
	assert.Equal(t, []float32{0, 1, 2, 3}, got)
	any.SegmentationHead = head(describe(vit.TaskSegmentationHead))
	_, err = any.Segment(t.Context(), photo)
	require.ErrorIs(t, err, vit.ErrOutput)
	require.ErrorContains(t, err, "got 4 feature maps, want the 1")
	any.ViT = seg.FromFeatures(features{v.Model, 1})
	_, err = any.Segment(t.Context(), photo)
	require.NoError(t, err)
	assert.Equal(t, []float32{0}, got)

	x, err := torch.NewTensor([]float32{1}, 1, 1, 1)
	require.NoError(t, err)
	defer x.Close()
	_, err = head(deep).Forward(t.Context(), []*torch.Tensor{x}, 20, 24)
	require.ErrorIs(t, err, torch.ErrShape)
	require.ErrorContains(t, err, "got 1 features, want 4")
	_, err = last.Forward(t.Context(), x)
	require.ErrorIs(t, err, torch.ErrShape)
}

// features gives n maps, numbered.
type features struct {
	*vit.Model
	n int
}

func (f features) Forward(context.Context, *torch.Tensor) ([]*torch.Tensor, error) {
	var maps []*torch.Tensor
	for i := range f.n {
		m, err := torch.NewTensor([]float32{float32(i)}, 1, 1, 1)
		if err != nil {
			return nil, err
		}
		maps = append(maps, m)
	}
	return maps, nil
}

func TestLoadErrors(t *testing.T) {
	_, err := seg.Load("../testdata/models/garments_vit.pt", vit.Options{})
	require.ErrorIs(t, err, vit.ErrTask)
	_, err = seg.LoadHead("../testdata/models/garments_segmentation.pt", vit.Options{})
	require.ErrorIs(t, err, vit.ErrTask)
	_, err = seg.Load("no such file.pt", vit.Options{})
	require.Error(t, err)
}
