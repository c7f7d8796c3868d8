package coco

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// small keeps a fuzz target from making masks of gigabytes, which are valid.
func small(height, width int) bool { return height <= 1<<10 && width <= 1<<10 }

func FuzzParseRLE(f *testing.F) {
	f.Add("5220003", 4, 5)
	f.Add("221O", 2, 3)
	f.Add("PPPPPPPPPPP0", 1, 1)
	f.Add("", 0, 7)
	f.Fuzz(func(t *testing.T, text string, height, width int) {
		m, err := ParseRLE(text, height, width)
		if err != nil {
			require.ErrorIs(t, err, ErrRLE)
			return
		}
		require.NoError(t, m.Validate())
		back, err := ParseRLE(m.String(), height, width)
		require.NoError(t, err)
		require.Equal(t, m, back)
		if !small(height, width) {
			return
		}
		mask, err := m.Decode()
		require.NoError(t, err)
		again, err := Encode(mask, height, width)
		require.NoError(t, err)
		require.True(t, m.Equal(again))
		require.Equal(t, m.Area(), again.Area())
		require.Equal(t, m.Box(), again.Box())
		polygons, err := m.Polygons()
		require.NoError(t, err)
		drawn, err := FromPolygons(polygons, height, width)
		require.NoError(t, err)
		require.True(t, m.Equal(drawn))
	})
}

func FuzzRLEJSON(f *testing.F) {
	f.Add([]byte(`{"size":[2,3],"counts":"221O"}`))
	f.Add([]byte(`{"size":[2,3],"counts":[2,2,1,1]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var m RLE
		if json.Unmarshal(text, &m) != nil {
			return
		}
		again, err := json.Marshal(m)
		require.NoError(t, err)
		var back RLE
		require.NoError(t, json.Unmarshal(again, &back))
		require.True(t, m.Equal(back))
	})
}

func FuzzFromPolygons(f *testing.F) {
	f.Add(0.0, 0.0, 5.5, 0.0, 3.25, 9.0, 10, 10)
	f.Add(-1e8, 3.0, 1e8, 4.0, 0.0, -1e8, 7, 300)
	f.Fuzz(func(t *testing.T, x0, y0, x1, y1, x2, y2 float64, height, width int) {
		if !small(height, width) {
			return
		}
		m, err := FromPolygons([][]float64{{x0, y0, x1, y1, x2, y2}}, height, width)
		if err != nil {
			require.ErrorIs(t, err, ErrRLE)
			return
		}
		require.NoError(t, m.Validate())
	})
}

func FuzzReadDataset(f *testing.F) {
	f.Add([]byte(instances))
	f.Add([]byte(`{"images":[],"categories":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := ReadDataset(bytes.NewReader(text))
		if err != nil {
			require.ErrorIs(t, err, ErrData)
			return
		}
		for _, a := range d.Annotations {
			for _, image := range d.Images {
				if image.ID != a.ImageID || !small(image.Height, image.Width) {
					continue
				}
				if m, err := a.Segmentation.RLE(image.Height, image.Width); err == nil {
					require.NoError(t, m.Validate())
				}
			}
		}
		var out bytes.Buffer
		require.NoError(t, WriteDataset(&out, d))
		back, err := ReadDataset(&out)
		require.NoError(t, err)
		require.Equal(t, d, back)
	})
}

func FuzzReadResults(f *testing.F) {
	f.Add([]byte(`[{"image_id":42,"category_id":18,"score":0.236,"bbox":[258.15,41.29,348.26,243.78]}]`))
	f.Add([]byte(`[{"image_id":1,"category_id":2,"score":1,"bbox":[],"segmentation":{"size":[2,3],"counts":"221O"}}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		results, err := ReadResults(bytes.NewReader(text))
		if err != nil {
			require.ErrorIs(t, err, ErrData)
			return
		}
		again, err := json.Marshal(results)
		require.NoError(t, err)
		if results == nil {
			again = []byte("[]")
		}
		back, err := ReadResults(bytes.NewReader(again))
		require.NoError(t, err)
		require.Equal(t, results, back)
	})
}
