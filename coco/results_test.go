package coco

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestResultsBothWays(t *testing.T) {
	mask := RLE{Height: 1, Width: 56, Counts: []uint32{44, 12}} // with a backslash in its text
	results := []Result{
		{ImageID: 42, CategoryID: 18, Score: 0.236, Box: &Box{258.15, 41.29, 348.26, 243.78}},
		{ImageID: 73, CategoryID: 11, Score: float64(float32(0.9)), Box: &Box{61, 22.75, 504, 1e-7}, Mask: &mask},
		{ImageID: -1, CategoryID: 1 << 60, Score: -2.5, Box: &Box{}},
	}
	path := filepath.Join(t.TempDir(), "results.json")
	require.NoError(t, WriteResultsFile(path, results))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, `[{"image_id":42,"category_id":18,"bbox":[258.15,41.29,348.26,243.78],"score":0.236},
{"image_id":73,"category_id":11,"bbox":[61,22.75,504,1e-07],"segmentation":{"size":[1,56],"counts":"\\1<"},"score":0.8999999761581421},
{"image_id":-1,"category_id":1152921504606846976,"bbox":[0,0,0,0],"score":-2.5}]
`, string(text))
	back, err := ReadResultsFile(path)
	require.NoError(t, err)
	assert.Equal(t, results, back)
	marshaled, err := json.Marshal(results)
	require.NoError(t, err)
	back, err = ReadResults(bytes.NewReader(marshaled))
	require.NoError(t, err)
	assert.Equal(t, results, back)

	// An empty box is none, and counts may be a list.
	back, err = ReadResults(strings.NewReader(
		`[{"image_id":1,"category_id":2,"score":1,"bbox":[],"segmentation":{"size":[1,56],"counts":[44,12]}}]`))
	require.NoError(t, err)
	assert.Equal(t, []Result{{ImageID: 1, CategoryID: 2, Score: 1, Mask: &mask}}, back)

	require.NoError(t, WriteResultsFile(path, nil))
	back, err = ReadResultsFile(path)
	require.NoError(t, err)
	assert.Empty(t, back)

	// A reader may stop.
	n := 0
	for r, err := range Results(bytes.NewReader(marshaled)) {
		require.NoError(t, err)
		assert.Equal(t, int64(42), r.ImageID)
		n++
		break
	}
	assert.Equal(t, 1, n)
}

func TestResultsErrors(t *testing.T) {
	const good = `{"image_id":1,"category_id":2,"score":0.5,"bbox":[1,2,3,4]}`
	for text, want := range map[string]string{
		`{}`:               "want results as a list",
		``:                 "unexpected EOF",
		`[` + good:         "unexpected EOF",
		`[` + good + `,`:   "unexpected EOF",
		`[` + good + `]]`:  "invalid character",
		`[` + good + `][]`: "after the end",
		`[` + good + `,{"image_id":1,"category_id":2,"bbox":[1,2,3,4]}]`:                                     "entry 1 of results, before byte 108: got no score",
		`[{"category_id":2,"score":0.5,"bbox":[1,2,3,4]}]`:                                                   "got no image_id",
		`[{"image_id":1,"score":0.5,"bbox":[1,2,3,4]}]`:                                                      "got no category_id",
		`[{"image_id":1,"category_id":2,"score":0.5}]`:                                                       "neither bbox nor segmentation",
		`[{"image_id":1,"category_id":2,"score":0.5,"bbox":[1,2,3]}]`:                                        "got 3 values",
		`[{"image_id":1,"category_id":2,"score":0.5,"bbox":"b"}]`:                                            "bbox",
		`[{"image_id":1,"category_id":2,"score":"x","bbox":[1,2,3,4]}]`:                                      "cannot unmarshal string",
		`[{"image_id":1,"category_id":2,"score":0.5,"segmentation":[[1,2,3,4,5,6]]}]`:                        "not a mask",
		`[{"image_id":1,"category_id":2,"score":0.5,"segmentation":{"size":[1,5],"counts":"6"}}]`:            "sum up to 6 and more, want 5",
		`[` + good + `,{"image_id":1,"category_id":2,"score":1,"segmentation":{"size":[1,6],"counts":"6"}}]`: "got no bbox, want one as the first",
		`[{"image_id":1,"category_id":2,"score":1,"segmentation":{"size":[1,6],"counts":"6"}},` + good + `]`: "got no segmentation, want one as the first",
	} {
		_, err := ReadResults(strings.NewReader(text))
		if assert.ErrorIs(t, err, ErrData, text) {
			assert.ErrorContains(t, err, want, text)
		}
	}
	_, err := ReadResultsFile(filepath.Join(t.TempDir(), "none.json"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestResultFileIsWholeOrNotThere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "results.json")
	require.NoError(t, os.WriteFile(path, []byte("before"), 0o640))
	content := func() string {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(text)
	}

	f, err := CreateResults(path)
	require.NoError(t, err)
	good := Result{ImageID: 1, CategoryID: 2, Score: 0.5, Box: &Box{1, 2, 3, 4}}
	for _, bad := range []Result{
		{ImageID: 1, CategoryID: 2, Score: math.NaN(), Box: &Box{}},
		{ImageID: 1, CategoryID: 2, Score: 1},
		{ImageID: 1, CategoryID: 2, Score: 1, Box: &Box{math.Inf(1)}},
		{ImageID: 1, CategoryID: 2, Score: 1, Mask: &RLE{Height: 1, Width: 1}},
	} {
		assert.ErrorContains(t, f.Write(bad), "result 0: ")
	}
	require.NoError(t, f.Write(good))
	assert.ErrorContains(t, f.Write(Result{ImageID: 1, CategoryID: 2, Mask: &RLE{}}), "result 1: ")
	f.Abort()
	f.Abort()
	require.ErrorIs(t, f.Write(good), os.ErrClosed)
	assert.Equal(t, "before", content())

	f, err = CreateResults(path)
	require.NoError(t, err)
	require.NoError(t, f.Write(good))
	require.NoError(t, f.Write(good))
	assert.Equal(t, "before", content())
	require.NoError(t, f.Close())
	f.Abort()
	line := `{"image_id":1,"category_id":2,"bbox":[1,2,3,4],"score":0.5}`
	assert.Equal(t, "["+line+",\n"+line+"]\n", content())
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o640), info.Mode().Perm())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, left, 1)

	_, err = CreateResults(dir)
	require.ErrorIs(t, err, fs.ErrExist)
	_, err = CreateResults(filepath.Join(dir, "no", "folder.json"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}
