package coco

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// instances is a small file as COCO's: the three forms of a segmentation, and fields that are skipped.
const instances = `{
 "info": {"year": 2017, "deep": [[{"a": "]"}]]},
 "licenses": [{"id": 1}],
 "images": [
  {"license": 4, "file_name": "000000397133.jpg", "height": 4, "width": 6, "id": 397133},
  {"file_name": "é/b.jpg", "id": 7, "height": 2, "width": 3}],
 "annotations": [
  {"segmentation": [[0, 0, 3, 0, 3, 2, 0, 2], [4.5, 1, 6, 1, 6, 3.25]], "num_keypoints": 0, "area": 7.5,
   "iscrowd": 0, "keypoints": [1, 2], "image_id": 397133, "bbox": [0, 0, 6.0, 3.25], "category_id": 1, "id": 82},
  {"segmentation": {"counts": [2, 2, 1, 1], "size": [2, 3]}, "area": 3, "iscrowd": 1, "image_id": 7,
   "bbox": [1, 0, 2, 2], "category_id": 90, "id": 900100},
  {"segmentation": {"counts": "221O", "size": [2, 3]}, "area": 3, "image_id": 7,
   "bbox": [1, 0, 2, 2], "category_id": 1, "id": 3},
  {"segmentation": [], "area": 0.25, "iscrowd": false, "image_id": 7,
   "bbox": [1e-3, 0, 2.5e2, 0], "category_id": 1, "id": -4}
 ],
 "categories": [{"supercategory": "person", "id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}]
}`

func TestReadDataset(t *testing.T) {
	d, err := ReadDataset(strings.NewReader(instances))
	require.NoError(t, err)
	mask := RLE{Height: 2, Width: 3, Counts: []uint32{2, 2, 1, 1}}
	want := &Dataset{
		Images: []Image{{397133, "000000397133.jpg", 4, 6}, {7, "é/b.jpg", 2, 3}},
		Annotations: []Annotation{
			{
				ID: 82, ImageID: 397133, CategoryID: 1, Box: Box{0, 0, 6, 3.25}, Area: 7.5,
				Segmentation: Segmentation{Polygons: [][]float64{{0, 0, 3, 0, 3, 2, 0, 2}, {4.5, 1, 6, 1, 6, 3.25}}},
			},
			{
				ID: 900100, ImageID: 7, CategoryID: 90, Box: Box{1, 0, 2, 2}, Area: 3, Crowd: true,
				Segmentation: Segmentation{Mask: &mask},
			},
			{ID: 3, ImageID: 7, CategoryID: 1, Box: Box{1, 0, 2, 2}, Area: 3, Segmentation: Segmentation{Mask: &mask}},
			{ID: -4, ImageID: 7, CategoryID: 1, Box: Box{0.001, 0, 250, 0}, Area: 0.25},
		},
		Categories: []Category{{1, "person", "person"}, {90, "toothbrush", ""}},
	}
	assert.Equal(t, want, d)

	m, err := d.Annotations[1].Segmentation.RLE(2, 3)
	require.NoError(t, err)
	assert.Equal(t, mask, m)
	m, err = d.Annotations[0].Segmentation.RLE(4, 6)
	require.NoError(t, err)
	assert.Equal(t, 7, m.Area(), "6 of the first, 1 of the second")
	_, err = d.Annotations[1].Segmentation.RLE(3, 3)
	require.ErrorIs(t, err, ErrRLE)
	assert.ErrorContains(t, err, "got one of size [2 3], want the image's [3 3]")
	_, err = d.Annotations[3].Segmentation.RLE(2, 3)
	require.ErrorIs(t, err, ErrRLE)
	_, err = d.Annotations[0].Segmentation.RLE(0, 0)
	require.ErrorIs(t, err, ErrRLE)

	var out bytes.Buffer
	require.NoError(t, WriteDataset(&out, d))
	assert.True(t, json.Valid(out.Bytes()), out.String())
	assert.Contains(t, out.String(), `"counts":[2,2,1,1]`)
	assert.Contains(t, out.String(), `"counts":"221O"`)
	back, err := ReadDataset(&out)
	require.NoError(t, err)
	assert.Equal(t, want, back)

	path := filepath.Join(t.TempDir(), "gt.json")
	require.NoError(t, WriteDatasetFile(path, d))
	back, err = ReadDatasetFile(path)
	require.NoError(t, err)
	assert.Equal(t, want, back)

	// Every list may be empty, and a set without ground truth has no annotations.
	for _, part := range []*Dataset{
		{Images: want.Images},
		{Categories: want.Categories},
		{Images: want.Images, Categories: want.Categories},
		{},
	} {
		out.Reset()
		require.NoError(t, WriteDataset(&out, part))
		back, err := ReadDataset(&out)
		require.NoError(t, err)
		assert.Equal(t, part, back)
	}
	back, err = ReadDataset(strings.NewReader(`{"images":[],"categories":[]}`))
	require.NoError(t, err)
	assert.Equal(t, &Dataset{}, back)
}

func TestReadDatasetErrors(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{`"id": 900100}`, `"id": 82}`, "annotation 1 (id 82): annotation 0 has the same id"},
		{`"image_id": 397133`, `"image_id": 5`, "annotation 0 (id 82): got image_id 5, which no image has"},
		{`"category_id": 90`, `"category_id": 91`, "annotation 1 (id 900100): got category_id 91"},
		{`"id": 7,`, `"id": 397133,`, "images 0 and 1 have the same id 397133"},
		{`{"id": 90,`, `{"id": 1,`, "categories 0 and 1 have the same id 1"},
		{`[0, 0, 6.0, 3.25]`, `[0, 0, 6.0]`, "entry 0 of annotations, before byte"},
		{`[0, 0, 6.0, 3.25]`, `[0, 0, -6, 3.25]`, "got bbox [0 0 -6 3.25]"},
		{`[0, 0, 6.0, 3.25]`, `[0, 0, "6", 3.25]`, "cannot unmarshal string"},
		{`"area": 7.5,`, ``, "entry 0 of annotations, before byte 467: got no area"},
		{`"area": 7.5`, `"area": -7.5`, "got area -7.5"},
		{`"area": 7.5`, `"area": 1e999`, "1e999"},
		{`"area": 7.5`, `"area": NaN`, "invalid character 'N'"},
		{`"iscrowd": 1`, `"iscrowd": 2`, "iscrowd: got 2, want 0 or 1"},
		{`"image_id": 7,`, `"image_id": "7",`, "cannot unmarshal string"},
		{`"image_id": 7,`, `"image_id": 7.5,`, "cannot unmarshal number 7.5"},
		{`"counts": "221O"`, `"counts": "221"`, "entry 2 of annotations"},
		{`"counts": [2, 2, 1, 1]`, `"counts": [2, 2, 1, 2]`, "sum up to 7, want 6"},
		{`[[0, 0, 3, 0, 3, 2, 0, 2], [4.5, 1, 6, 1, 6, 3.25]]`, `[0, 0, 3, 0, 3, 2]`, "polygons"},
		{`[[0, 0, 3, 0, 3, 2, 0, 2], [4.5, 1, 6, 1, 6, 3.25]]`, `7`, "got segmentation 7"},
		{`"height": 4`, `"height": -4`, "image 0 (id 397133): got size [-4 6]"},
		{`"id": 397133}`, `"no": 1}`, "entry 0 of images"},
		{`"images": [`, `"pictures": [`, "got no images"},
		{`"images": [`, `"images": 7, "x": [`, "want images as a list"},
		{`"licenses": [{"id": 1}]`, `"categories": []`, "categories stand there twice"},
		{`"name": "toothbrush"}]`, `"name": "toothbrush"}`, "byte 1014: invalid character '}'"},
		{"\"toothbrush\"}]\n}", "\"toothbrush\"}]\n}{", "after the end"},
		{"{\n \"info\"", "[{\n \"info\"", "want an object"},
		{`"deep": [[{"a": "]"}]]`, `"deep": [[{"a": "]"}]`, "invalid character"},
	} {
		require.Contains(t, instances, c.old)
		_, err := ReadDataset(strings.NewReader(strings.Replace(instances, c.old, c.new, 1)))
		if assert.ErrorIs(t, err, ErrData, "%s", c.new) {
			assert.ErrorContains(t, err, c.want, "%s", c.new)
			assert.NotContains(t, err.Error(), "\n")
		}
	}
	// Every cut is an error, and none of them a good end.
	for n := range len(instances) - 1 {
		_, err := ReadDataset(strings.NewReader(instances[:n]))
		require.ErrorIs(t, err, ErrData, "%d", n)
		require.False(t, errors.Is(err, io.EOF), "%d: %v", n, err)
	}
	_, err := ReadDatasetFile(filepath.Join(t.TempDir(), "none.json"))
	require.ErrorIs(t, err, fs.ErrNotExist)

	for _, a := range []Annotation{
		{ID: 1, ImageID: 1, CategoryID: 1, Box: Box{math.NaN(), 0, 1, 1}},
		{ID: 1, ImageID: 1, CategoryID: 1, Area: math.Inf(1)},
		{ID: 1, ImageID: 1, CategoryID: 1, Segmentation: Segmentation{Polygons: [][]float64{{math.NaN()}}}},
		{ID: 1, ImageID: 1, CategoryID: 1, Segmentation: Segmentation{Mask: &RLE{Height: 7, Width: 7}}},
	} {
		d := &Dataset{Images: []Image{{ID: 1}}, Categories: []Category{{ID: 1}}, Annotations: []Annotation{a}}
		path := filepath.Join(t.TempDir(), "gt.json")
		err := WriteDatasetFile(path, d)
		assert.True(t, errors.Is(err, ErrData) || errors.Is(err, ErrRLE), "%v", err)
		left, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		assert.Empty(t, left)
	}
}
