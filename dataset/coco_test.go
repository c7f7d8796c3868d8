package dataset_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/coco"
	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/internal/testmain"
)

const scenesFile = "../testdata/scenes/instances.json"

func TestReadCOCO(t *testing.T) {
	s, err := dataset.Read(scenesFile, "", dataset.Options{})
	require.NoError(t, err)
	assert.Equal(t, dataset.COCO, s.Kind)
	require.Len(t, s.Classes, 10)
	assert.Equal(t, "Ankle boot", s.Classes[9])
	assert.Equal(t, int64(10), s.IDs[9])
	require.Len(t, s.Images, 34)
	assert.FileExists(t, s.Images[33].Path)
	objects := 0
	for _, img := range s.Images {
		objects += len(img.Objects)
		for _, o := range img.Objects {
			assert.Equal(t, s.Classes[o.Class], o.Label)
			assert.Greater(t, o.Area, 100.0)
			assert.Less(t, o.Area, (o.Box.X2-o.Box.X1)*(o.Box.Y2-o.Box.Y1))
		}
	}
	// What was read is what COCO's own reader gives.
	want, err := coco.ReadDatasetFile(scenesFile)
	require.NoError(t, err)
	got, err := s.COCO()
	require.NoError(t, err)
	assert.Equal(t, want.Annotations, got.Annotations)
	assert.Equal(t, want.Categories, got.Categories)
	assert.Len(t, got.Annotations, objects)
}

// TestSemantic compares the masks made of objects with those that the scenes came with.
func TestSemantic(t *testing.T) {
	s, err := dataset.Read(scenesFile, "", dataset.Options{})
	require.NoError(t, err)
	for _, img := range s.Images {
		got, err := img.Semantic(0, func(class int) int { return class + 1 })
		require.NoError(t, err)
		name := filepath.Base(img.Path)
		want, err := dataset.ReadMask("../testdata/scenes/masks/"+name[:len(name)-4]+".png", dataset.MaskOptions{})
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}

	square := func(x, y float64) [][]float64 { return [][]float64{{x, y, x + 4, y, x + 4, y + 4, x, y + 4}} }
	img := dataset.Image{Width: 10, Height: 8, Objects: []dataset.Object{
		{Class: 0, Polygons: square(0, 0)},
		{Class: 1, Polygons: square(2, 2)},
		{Class: 2, Polygons: square(6, 4)},
		{Class: 0, Polygons: square(5, 0), Crowd: true},
	}}
	m, err := img.Semantic(7, func(class int) int { return []int{3, 4, -1}[class] })
	require.NoError(t, err)
	at := func(x, y int) uint8 { return m.Classes[y*10+x] }
	assert.Equal(t, []uint8{3, 4, 255, 7, 7}, []uint8{at(0, 0), at(5, 5), at(3, 3), at(7, 6), at(6, 1)})
	_, err = (&dataset.Image{}).Semantic(0, nil)
	require.ErrorIs(t, err, dataset.ErrFormat)
}

func TestCOCOOfOtherKinds(t *testing.T) {
	s := &dataset.Set{Kind: dataset.YOLO, Images: []dataset.Image{{ID: 1, Width: 20, Height: 10, Path: "a.jpg", Objects: []dataset.Object{
		{Class: 2, Box: dataset.Box{X1: 1, Y1: 2, X2: 5, Y2: 9}},
		{Class: 0, Box: dataset.Box{X2: 8, Y2: 4}, Polygons: [][]float64{{0, 0, 8, 0, 0, 4}}},
		{Class: 0, Box: dataset.Box{X2: 8, Y2: 4}, Difficult: true},
	}}}}
	d, err := s.COCO()
	require.NoError(t, err)
	require.Len(t, d.Categories, 3, "as many as are met")
	assert.Equal(t, coco.Category{ID: 3, Name: "2"}, d.Categories[2])
	assert.Equal(t, coco.Box{1, 2, 4, 7}, d.Annotations[0].Box)
	assert.Equal(t, 28.0, d.Annotations[0].Area)
	assert.InDelta(t, 16, d.Annotations[1].Area, 4, "the outline's")
	assert.True(t, d.Annotations[2].Crowd, "difficult")
	assert.Equal(t, int64(3), d.Annotations[2].ID)
}

func TestCOCOPlaces(t *testing.T) {
	dir := t.TempDir()
	text := `{"images":[{"id":5,"file_name":"a.jpg","width":4,"height":4}],"annotations":[],"categories":[{"id":1,"name":"cat"}]}`
	put(t, dir, map[string]string{
		"annotations/instances_val2017.json": text, "annotations/instances_train2017.json": text, "annotations/captions_val2017.json": "{}",
		"val2017/a.jpg": "", "images/train2017/a.jpg": "",
	})
	s, err := dataset.Read(dir, "", dataset.Options{})
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(dir, "val2017", "a.jpg"), s.Images[0].Path)
	assert.Equal(t, int64(5), s.Images[0].ID)
	s, err = dataset.Read(dir, "", dataset.Options{Split: "train"})
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(dir, "images", "train2017", "a.jpg"), s.Images[0].Path)
	_, err = dataset.Read(dir, "", dataset.Options{Split: "test"})
	require.ErrorIs(t, err, dataset.ErrSplit)
	_, err = dataset.Read(dir, "", dataset.Options{Images: t.TempDir()})
	require.ErrorIs(t, err, dataset.ErrMissing)
	require.ErrorContains(t, err, "instances_val2017.json: missing: ")
	s, err = dataset.Read(filepath.Join(dir, "val2017"), "", dataset.Options{Annotations: filepath.Join(dir, "annotations", "instances_val2017.json")})
	require.NoError(t, err)
	assert.Len(t, s.Images, 1)

	put(t, dir, map[string]string{"annotations/instances_val2017.json": `{"images":[{"id":5}]}`})
	_, err = dataset.Read(dir, "", dataset.Options{})
	require.ErrorIs(t, err, dataset.ErrFormat)
	require.ErrorIs(t, err, coco.ErrData)
	var e *dataset.Error
	require.ErrorAs(t, err, &e)
	assert.Equal(t, filepath.Join(dir, "annotations", "instances_val2017.json"), e.Path)
}

// TestScenesAgree holds the forms of the scenes' truth against each other: boxes, areas, masks and what the
// photos of one garment show.
func TestScenesAgree(t *testing.T) {
	s, err := dataset.Read(scenesFile, "", dataset.Options{})
	require.NoError(t, err)
	singles, err := dataset.Read("../testdata/scenes/singles.csv", "", dataset.Options{})
	require.NoError(t, err)
	require.Len(t, singles.Images, 10)
	alone := map[string]string{}
	for _, img := range singles.Images {
		alone[filepath.Base(img.Path)] = singles.Classes[img.Class]
	}
	several := 0
	for _, img := range s.Images {
		for _, o := range img.Objects {
			require.NotNil(t, o.Mask)
			b := o.Mask.Box()
			assert.Equal(t, dataset.Box{X1: b[0], Y1: b[1], X2: b[0] + b[2], Y2: b[1] + b[3]}, o.Box)
			assert.EqualValues(t, o.Mask.Area(), o.Area)
		}
		name := filepath.Base(img.Path)
		if len(img.Objects) > 1 {
			several++
			assert.NotContains(t, alone, name)
			continue
		}
		assert.Equal(t, alone[name], img.Objects[0].Label)
		delete(alone, name)
	}
	assert.Equal(t, 24, several)
	assert.Empty(t, alone)
}

// TestScenesAreSound runs the check of the data set's maker: exact masks and boxes, nothing shared by the
// splits, and the same bytes from the same seed.
func TestScenesAreSound(t *testing.T) {
	testmain.NotShort(t)
	out := testmain.RunPython(t, "scripts/check_scenes.py")
	assert.Regexp(t, `^test: 82 garments; `, out)
}
