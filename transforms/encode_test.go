package transforms

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
)

// gradient is a picture with an origin of its own, smooth enough for JPEG.
func gradient(w, h int) *image.RGBA {
	m := image.NewRGBA(image.Rect(7, 5, 7+w, 5+h))
	for y := range h {
		for x := range w {
			m.SetRGBA(7+x, 5+y, color.RGBA{uint8(255 * x / w), uint8(255 * y / h), uint8((x + y) % 256), 255})
		}
	}
	return m
}

func TestJPEGIsTorchvisions(t *testing.T) {
	sizes := []image.Point{{1, 1}, {3, 17}, {64, 48}, {333, 250}}
	for _, size := range sizes {
		m := gradient(size.X, size.Y)
		pixels := make([]byte, 0, 3*size.X*size.Y)
		for i := 0; i < len(m.Pix); i += 4 {
			pixels = append(pixels, m.Pix[i:i+3]...)
		}
		for _, quality := range []int{30, 92} {
			want := ask(t, object{"op": "encode_jpeg", "height": size.Y, "width": size.X, "quality": quality}, nil, pixels)[0]
			var got bytes.Buffer
			require.NoError(t, EncodeJPEG(t.Context(), &got, m, quality))
			require.Equal(t, want, got.Bytes(), "%v at %d", size, quality)
		}
	}
}

func TestJPEGWithoutTorchvision(t *testing.T) {
	encodeOperator = "image::not_there"
	defer func() { encodeOperator = "image::encode_jpeg" }()
	m := gradient(40, 30)
	var got, want bytes.Buffer
	require.NoError(t, EncodeJPEG(t.Context(), &got, m, 80))
	require.NoError(t, jpeg.Encode(&want, m, &jpeg.Options{Quality: 80}))
	require.Equal(t, want.Bytes(), got.Bytes())
}

func TestEncodeOtherKindsOfPictures(t *testing.T) {
	gray := image.NewGray(image.Rect(0, 0, 32, 32))
	for i := range gray.Pix {
		gray.Pix[i] = uint8(i / 4)
	}
	var file bytes.Buffer
	require.NoError(t, EncodeJPEG(t.Context(), &file, gray, 95))
	back, err := jpeg.Decode(&file)
	require.NoError(t, err)
	assert.Equal(t, image.Pt(32, 32), back.Bounds().Size())
	r, g, b, _ := back.At(16, 20).RGBA()
	for _, v := range []uint32{r, g, b} {
		assert.InDelta(t, gray.GrayAt(16, 20).Y, v>>8, 8)
	}

	file.Reset()
	require.NoError(t, EncodePNG(&file, gray))
	back, err = png.Decode(&file)
	require.NoError(t, err)
	assert.Equal(t, gray.Pix, back.(*image.Gray).Pix)

	require.ErrorIs(t, EncodeJPEG(t.Context(), &file, gray, 0), torch.ErrInvalidArgument)
	require.ErrorIs(t, EncodeJPEG(t.Context(), &file, image.NewRGBA(image.Rectangle{}), 90), torch.ErrInvalidArgument)
}
