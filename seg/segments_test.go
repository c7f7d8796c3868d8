package seg_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/coco"
	"github.com/torchvit/torchvit/seg"
)

func TestSegments(t *testing.T) {
	m, err := seg.NewClassMap(4, 3, []uint8{
		0, 0, 2, 2,
		0, 2, 2, 1,
		0, 9, 1, 1,
	})
	require.NoError(t, err)
	segments, err := m.Segments([]string{"sky", "sea", "sand"})
	require.NoError(t, err)
	require.Len(t, segments, 4)
	pixels := 0
	for _, s := range segments {
		pixels += s.Pixels
		assert.Equal(t, s.Pixels, s.Mask.Area())
		require.NoError(t, s.Mask.Validate())
	}
	assert.Equal(t, 12, pixels)
	assert.Equal(t, []string{"sky", "sea", "sand", "class 9"}, []string{segments[0].Label, segments[1].Label, segments[2].Label, segments[3].Label})
	assert.Equal(t, 9, segments[3].Class)
	assert.Equal(t, []uint32{0, 4, 8}, segments[0].Mask.Counts, "the first pixel is set, and it goes down the columns")
	assert.Equal(t, []uint32{8, 1, 1, 2}, segments[1].Mask.Counts)
	assert.InDelta(t, 1.0/3, segments[2].Share, 1e-15)
	polygons, err := segments[3].Mask.Polygons()
	require.NoError(t, err)
	assert.Equal(t, [][]float64{{1, 2, 2, 2, 2, 3, 1, 3}}, polygons)
}

// Every class of a map has the mask that coco.Encode makes of class == map.
func TestMaskIsCocos(t *testing.T) {
	for _, size := range [][3]int{{1, 1, 1}, {1, 9, 3}, {9, 1, 3}, {37, 23, 5}, {64, 70, 256}} {
		m := randomMap(t, size[0], size[1], size[2])
		segments, err := m.Segments(nil)
		require.NoError(t, err)
		for class := range 256 {
			set := make([]bool, len(m.Classes))
			for i, c := range m.Classes {
				set[i] = int(c) == class
			}
			want, err := coco.Encode(set, m.Height, m.Width)
			require.NoError(t, err)
			got, err := m.Mask(uint8(class))
			require.NoError(t, err)
			require.True(t, want.Equal(got), "%v class %d: got %v, want %v", size, class, got.Counts, want.Counts)
			require.Equal(t, want.String(), got.String())
			if len(segments) > 0 && segments[0].Class == class {
				require.True(t, want.Equal(segments[0].Mask))
				segments = segments[1:]
			}
		}
		require.Empty(t, segments)
	}
	_, err := (&seg.ClassMap{Width: 2, Height: 2, Classes: make([]uint8, 3)}).Segments(nil)
	require.ErrorIs(t, err, seg.ErrSize)
	_, err = (&seg.ClassMap{}).Mask(1)
	require.ErrorIs(t, err, seg.ErrSize)
}

func BenchmarkSegments(b *testing.B) {
	ids := make([]uint8, 1920*1080)
	for i := range ids {
		ids[i] = uint8(i%1920/97 + i/1920/120)
	}
	m, err := seg.NewClassMap(1920, 1080, ids)
	require.NoError(b, err)
	for b.Loop() {
		if _, err := m.Segments(nil); err != nil {
			b.Fatal(err)
		}
	}
}
