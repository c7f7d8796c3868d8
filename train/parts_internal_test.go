package train

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/loader"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
)

// The number of blocks is the same with and without a norm behind them.
func TestBlocks(t *testing.T) {
	names := []string{"patch_embed.proj.weight", "blocks.0.norm1.weight", "blocks.1.norm1.weight", "norm.weight", "head.weight"}
	of := func(names []string) int {
		var list []jit.NamedTensor
		for _, name := range names {
			list = append(list, jit.NamedTensor{Name: name})
		}
		m := &Model{}
		m.parameters, m.root = divide(list)
		return m.blocks()
	}
	assert.Equal(t, 2, of(names))
	assert.Equal(t, 2, of(append(names[:3:3], "head.weight")))
	assert.Zero(t, of([]string{"head.weight"}))
}

// TestAHeadLearnsFromWhatItsViTWillSee wants the pixels of training to be those of an answer.
func TestAHeadLearnsFromWhatItsViTWillSee(t *testing.T) {
	head, err := Load("testdata/head.pt", LoadOptions{})
	require.NoError(t, err)
	defer head.Close()
	f, err := newTokens(head, "testdata/vit.pt")
	require.NoError(t, err)
	defer f.vit.Close()
	photo := "../testdata/images/chelsea.png"
	set := &dataset.Set{Kind: dataset.COCO, Images: []dataset.Image{{Path: photo, Class: -1, Objects: []dataset.Object{
		{Class: 1, Box: dataset.Box{X1: 50, Y1: 60, X2: 200, Y2: 220}, Polygons: [][]float64{{50, 60, 200, 60, 200, 220, 50, 220}}},
	}}}}
	task := segmentation{features: f}
	batches, err := (&Data{Set: set}).Loader(head, task, loader.Options{BatchSize: 1})
	require.NoError(t, err)
	defer batches.Close()
	for b, err := range batches.Batches(t.Context(), 0, 0) {
		require.NoError(t, err)
		got, err := torch.CopyData[float32](b.Images)
		require.NoError(t, err)
		b.Close()
		inputs, err := f.vit.Prepare(t.Context(), 1, photo)
		require.NoError(t, err)
		require.Len(t, inputs, 1)
		want, err := torch.CopyData[float32](inputs[0].Pixels)
		require.NoError(t, err)
		inputs[0].Pixels.Close()
		assert.Equal(t, want, got)
	}
}

func TestClassesGiven(t *testing.T) {
	set := &dataset.Set{Classes: []string{"cat", "dog", "wombat", "Great Dane"}}
	for _, c := range []struct{ given, want []string }{
		{nil, set.Classes},
		{[]string{"wombat="}, []string{"cat", "dog", "Great Dane"}},
		{[]string{"great_dane=dog", "0=feline"}, []string{"feline", "dog", "wombat"}},
		{[]string{"index"}, set.Classes},
	} {
		got, err := classesGiven(set, c.given)
		require.NoError(t, err)
		assert.Equal(t, c.want, got)
	}
	_, err := classesGiven(set, []string{"bat=x"})
	require.ErrorIs(t, err, dataset.ErrGiven)
}

// TestPixelsOfOutlines wants the model's classes, and Ignored where they do not count, whatever the data set's kind.
func TestPixelsOfOutlines(t *testing.T) {
	m, err := Load("testdata/segmentation.pt", LoadOptions{})
	require.NoError(t, err)
	defer m.Close()
	square := func(class int, x, y float64) dataset.Object {
		return dataset.Object{Class: class, Box: dataset.Box{X1: x, Y1: y, X2: x + 100, Y2: y + 100}, Polygons: [][]float64{{x, y, x + 100, y, x + 100, y + 100, x, y + 100}}}
	}
	for _, kind := range []dataset.Kind{dataset.COCO, dataset.YOLO} {
		set := &dataset.Set{Kind: kind, Classes: []string{"green", "red"}, Images: []dataset.Image{
			{Path: "../testdata/images/chelsea.png", Class: -1, Objects: []dataset.Object{square(0, 10, 20), square(1, 200, 150)}},
		}}
		for _, ignore := range []uint8{dataset.Ignored, 0, 1} {
			data, err := m.Data(set)
			require.NoError(t, err)
			data.Ignore = []uint8{ignore}
			// red is the model's 1, green its 2.
			want := map[int64]bool{0: true, 1: true, 2: true}
			if ignore != dataset.Ignored {
				delete(want, int64(ignore))
				want[dataset.Ignored] = true
			}
			batches, err := data.Loader(m, segmentation{}, loader.Options{BatchSize: 1})
			require.NoError(t, err)
			for b, err := range batches.Batches(t.Context(), 0, 0) {
				require.NoError(t, err)
				pixels, err := torch.CopyData[int64](b.Masks)
				require.NoError(t, err)
				b.Close()
				got := map[int64]bool{}
				for _, p := range pixels {
					got[p] = true
				}
				assert.Equal(t, want, got, "%s, ignored %d", kind, ignore)
			}
			batches.Close()
		}
	}
}
