package vit_test

import (
	"encoding/csv"
	"image/color"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/vit"
)

func randomMatrix(classes int) *vit.ConfusionMatrix {
	m := vit.NewConfusionMatrix(classes)
	rng := rand.New(rand.NewPCG(1, uint64(classes)))
	for range classes * 50 {
		truth := rng.IntN(classes)
		predicted := truth
		if rng.IntN(3) == 0 {
			predicted = rng.IntN(classes)
		}
		if truth != 1 {
			_ = m.Add(truth, predicted)
		}
	}
	return m
}

func TestDrawConfusion(t *testing.T) {
	white := color.RGBA{255, 255, 255, 255}
	for _, n := range []int{3, 21, 45, 150, 700} {
		m := randomMatrix(n)
		img, err := m.Draw(vit.ConfusionOptions{Title: "title", Labels: []string{"a", "", "a name that is much too long to stand beside its row in full"}})
		require.NoError(t, err)
		assert.True(t, img.Opaque())
		assert.Less(t, img.Rect.Dx(), 3500)
		again, err := m.Draw(vit.ConfusionOptions{Title: "title"})
		require.NoError(t, err)
		assert.NotEqual(t, img.Pix, again.Pix, "names are drawn")
		colours := map[color.RGBA]int{}
		for y := range img.Rect.Dy() {
			for x := range img.Rect.Dx() {
				colours[img.RGBAAt(x, y)]++
			}
		}
		dark := 0
		for c, count := range colours {
			if c != white && c.B > c.R+60 {
				dark += count
			}
		}
		cells := n * img.Rect.Dx() * img.Rect.Dx() / (n * n) / 4
		assert.Greater(t, dark, cells, "the diagonal")
		assert.Greater(t, colours[color.RGBA{236, 236, 236, 255}], cells/4, "the row of a class that was never there")
	}
	empty, err := vit.NewConfusionMatrix(0).Draw(vit.ConfusionOptions{})
	require.NoError(t, err)
	assert.Positive(t, empty.Rect.Dx())
	_, err = randomMatrix(3).Draw(vit.ConfusionOptions{Font: []byte("no font")})
	require.ErrorContains(t, err, "not a TrueType or OpenType font")
}

func TestConfusionLeavesAbsentClassesOut(t *testing.T) {
	m := vit.NewConfusionMatrix(1000)
	require.NoError(t, m.Add(3, 700))
	few, err := m.Draw(vit.ConfusionOptions{})
	require.NoError(t, err)
	all, err := m.Draw(vit.ConfusionOptions{All: true})
	require.NoError(t, err)
	assert.Less(t, few.Rect.Dx(), 500)
	assert.Greater(t, all.Rect.Dx(), 2000)
}

func TestWriteConfusionCSV(t *testing.T) {
	m := randomMatrix(4)
	var text strings.Builder
	require.NoError(t, m.WriteCSV(&text, []string{"a, b", "", "c\"d"}))
	rows, err := csv.NewReader(strings.NewReader(text.String())).ReadAll()
	require.NoError(t, err)
	assert.Equal(t, []string{"true\\predicted", "a, b", "1", "c\"d", "3"}, rows[0])
	require.Len(t, rows, 5)
	assert.Equal(t, []string{"1", "0", "0", "0", "0"}, rows[2])
	assert.NotEqual(t, "0", rows[1][1])
}
