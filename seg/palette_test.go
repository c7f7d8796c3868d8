package seg_test

import (
	"crypto/sha256"
	"encoding/hex"
	"image"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/seg"
	"github.com/torchvit/torchvit/vit"
)

func TestPalettesOfDataSets(t *testing.T) {
	for name, want := range map[string]struct {
		n           int
		first, last [3]uint8
		// sum is the SHA-256 of the bytes as the source has them.
		sum string
	}{
		"ade20k": {
			150,
			[3]uint8{120, 120, 120},
			[3]uint8{92, 0, 255},
			"ce475c9151035eff51f4cf27fd7d906959b1480f6d15b9423ae2417c1b23a0ed",
		},
		"cityscapes": {
			19,
			[3]uint8{128, 64, 128},
			[3]uint8{119, 11, 32},
			"5af5a8d200c61cb3450a5ffb818ebcfc6c0b49d8b79f832e872fc6bbd4151c9e",
		},
		"coco-panoptic": {
			133,
			[3]uint8{220, 20, 60},
			[3]uint8{250, 141, 255},
			"efcc320916d0acb3f51547ec72e0c0218aafc04dc222894062fb087f5233dbc2",
		},
		"coco-stuff": {
			171,
			[3]uint8{0, 192, 64},
			[3]uint8{64, 64, 0},
			"788e8126c601896b7808a3149920f372dc670d0c3792625f354ede8b10bce4dc",
		},
		"coco":   {80, [3]uint8{220, 20, 60}, [3]uint8{191, 162, 208}, ""},
		"coco91": {91, [3]uint8{}, [3]uint8{191, 162, 208}, ""},
	} {
		p, err := seg.PaletteByName(name)
		require.NoError(t, err)
		require.Len(t, p, want.n, name)
		assert.Equal(t, want.first, p[0], name)
		assert.Equal(t, want.last, p[want.n-1], name)
		if want.sum != "" {
			h := sha256.New()
			for _, c := range p {
				h.Write(c[:])
			}
			assert.Equal(t, want.sum, hex.EncodeToString(h.Sum(nil)), name)
		}
		labels, err := vit.LabelSet(name)
		require.NoError(t, err)
		assert.Len(t, labels, len(p), "a name for each colour of %s", name)

		p[0] = [3]uint8{1, 2, 3}
		again, err := seg.PaletteByName(name)
		require.NoError(t, err)
		assert.Equal(t, want.first, again[0], "the palette is a copy")
	}
}

func TestCOCOsCategoriesKeepTheirColour(t *testing.T) {
	things, err := seg.PaletteByName("coco")
	require.NoError(t, err)
	byID, err := seg.PaletteByName("coco91")
	require.NoError(t, err)
	names, err := vit.LabelSet("coco")
	require.NoError(t, err)
	namesByID, err := vit.LabelSet("coco91")
	require.NoError(t, err)
	colors := map[string][3]uint8{}
	for i, name := range names {
		colors[name] = things[i]
	}
	unused := 0
	for id, name := range namesByID {
		if name == "N/A" || name == "__background__" {
			assert.Equal(t, [3]uint8{}, byID[id], "%d", id)
			unused++
			continue
		}
		assert.Equal(t, colors[name], byID[id], name)
	}
	assert.Equal(t, 11, unused)
}

func TestPaletteNames(t *testing.T) {
	for _, name := range seg.PaletteNames() {
		p, err := seg.PaletteByName(name)
		require.NoError(t, err)
		assert.NotEmpty(t, p)
	}
	voc, err := seg.PaletteByName("voc")
	require.NoError(t, err)
	assert.Equal(t, seg.VOCPalette(), voc)
	_, err = seg.PaletteByName("rainbow")
	require.ErrorIs(t, err, seg.ErrPalette)
	assert.ErrorContains(t, err, `got "rainbow", want one of ade20k, cityscapes`)
}

func TestOverlayInPlace(t *testing.T) {
	photo := image.NewRGBA(image.Rect(0, 0, 40, 30))
	for i := range photo.Pix {
		photo.Pix[i] = uint8(i * 7 / 3)
		if i%4 == 3 {
			photo.Pix[i] = 255
		}
	}
	m, err := seg.NewClassMap(40, 30, make([]uint8, 40*30))
	require.NoError(t, err)
	for i := range m.Classes {
		m.Classes[i] = uint8(i / 13 % 5)
	}
	opts := seg.OverlayOptions{NoLegend: true, Alpha: 0.3, Transparent: []uint8{2}}
	before := append([]uint8{}, photo.Pix...)
	want, err := seg.Overlay(photo, m, opts)
	require.NoError(t, err)
	require.Equal(t, before, photo.Pix)
	opts.InPlace = true
	got, err := seg.Overlay(photo, m, opts)
	require.NoError(t, err)
	assert.Same(t, photo, got)
	assert.Equal(t, want.Pix, got.Pix)
	assert.NotEqual(t, before, got.Pix)

	// With alpha, or with another origin, there is a copy.
	photo.Pix[3] = 9
	got, err = seg.Overlay(photo, m, opts)
	require.NoError(t, err)
	assert.NotSame(t, photo, got)
}
