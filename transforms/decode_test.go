package transforms

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
)

// TestDecodePillow compares every kind of file with Image.open(f).convert("RGB").
func TestDecodePillow(t *testing.T) {
	check := func(t *testing.T, names []string, data [][]byte, mode ColorMode, pillowMode string) {
		t.Helper()
		want := pillowDecode(t, false, pillowMode, data...)
		compared := 0
		for i, name := range names {
			require.Empty(t, want[i].Error, name)
			img, err := Decode(t.Context(), data[i], DecodeOptions{Mode: mode})
			require.NoError(t, err, name)
			require.Equal(t, [2]int{want[i].Height, want[i].Width}, [2]int{img.Height(), img.Width()}, name)
			require.Zero(t, differingBytes(rgb(t, img), want[i].Pixels), name)
			img.Close()
			compared += len(want[i].Pixels)
		}
		t.Logf("%d files, %d bytes compared, 0 differ", len(names), compared)
	}
	t.Run("testdata", func(t *testing.T) {
		names := append(formatFiles(t), photos...)
		var data [][]byte
		for _, name := range names {
			data = append(data, photo(t, name))
		}
		check(t, names, data, RGB, "RGB")
		check(t, names, data, Gray, "L")
	})
	for _, group := range []string{"png", "gif", "saved"} {
		t.Run(group, func(t *testing.T) {
			names, data := files(t, group)
			check(t, names, data, RGB, "RGB")
		})
	}
}

func TestApplyEXIF(t *testing.T) {
	names, data := files(t, "oriented")
	for _, exif := range []bool{true, false} {
		want := pillowDecode(t, exif, "RGB", data...)
		for i, name := range names {
			img, err := Decode(t.Context(), data[i], DecodeOptions{ApplyEXIF: exif})
			require.NoError(t, err, name)
			require.Equal(t, [2]int{want[i].Height, want[i].Width}, [2]int{img.Height(), img.Width()}, name)
			require.Zero(t, differingBytes(rgb(t, img), want[i].Pixels), "%s, EXIF %v", name, exif)
			img.Close()
		}
	}
}

// TestGoDecoder: exact where formats are lossless, other bits for JPEG, and nothing switches silently.
func TestGoDecoder(t *testing.T) {
	for name, exact := range map[string]bool{
		"chelsea.png": true, "formats/gif_single.gif": true, "formats/bmp_rgb.bmp": true, "formats/tiff_lzw.tif": true,
		"coffee.jpg": false, "formats/jpeg_cmyk.jpg": false, "formats/webp_lossy.webp": false,
	} {
		want := pillowDecode(t, false, "RGB", photo(t, name))[0]
		img, err := GoDecoder{}.Decode(t.Context(), photo(t, name), DecodeOptions{})
		require.NoError(t, err, name)
		require.Equal(t, exact, differingBytes(rgb(t, img), want.Pixels) == 0, name)
		img.Close()
	}
	_, err := GoDecoder{}.Decode(t.Context(), photo(t, "formats/webp_animated.webp"), DecodeOptions{})
	require.ErrorIs(t, err, ErrUnsupported)
}

// TestNoDecoder: without torchvision's library JPEG and WebP are an error that says what to do; the
// other formats work.
func TestNoDecoder(t *testing.T) {
	defer func(name string) { decodeOperator = name }(decodeOperator)
	decodeOperator = "image::not_there"
	for _, name := range []string{"coffee.jpg", "formats/webp_lossy.webp", "formats/webp_animated.webp"} {
		_, err := Decode(t.Context(), photo(t, name), DecodeOptions{})
		require.ErrorIs(t, err, ErrNoDecoder)
		require.ErrorContains(t, err, "torchvit setup")
		require.ErrorContains(t, err, "GoDecoder")
		require.NotContains(t, err.Error(), "\n")
	}
	for _, name := range []string{"chelsea.png", "formats/gif_single.gif", "formats/bmp_rgb.bmp", "formats/tiff_lzw.tif"} {
		img, err := Decode(t.Context(), photo(t, name), DecodeOptions{})
		require.NoError(t, err)
		img.Close()
	}
}

// TestTruncated cuts every kind of file at many places: an error, and never an image with a grey rest.
// Where bytes after the last pixel are missing the whole image may come, as from Pillow.
func TestTruncated(t *testing.T) {
	cut, refused := 0, 0
	for _, name := range append(formatFiles(t), photos...) {
		data := photo(t, name)
		whole, err := Decode(t.Context(), data, DecodeOptions{})
		require.NoError(t, err)
		want := rgb(t, whole)
		whole.Close()
		step := max(1, len(data)/60)
		for n := 0; n < len(data); n += step {
			cut++
			img, err := Decode(t.Context(), data[:n], DecodeOptions{})
			if err != nil {
				refused++
				require.True(t, errors.Is(err, ErrDecode) || errors.Is(err, ErrFormat), "%s cut at %d: %v", name, n, err)
				require.NotContains(t, err.Error(), "\n")
				continue
			}
			require.Zero(t, differingBytes(rgb(t, img), want), "%s cut at %d of %d gives another image", name, n, len(data))
			img.Close()
		}
	}
	require.Greater(t, refused, cut*9/10)
	t.Logf("%d cuts, %d refused, the others gave all pixels", cut, refused)
}

// TestDamagedPNG flips bits of every byte, on which torchvision's own PNG decoder ends the process: an
// error, or the right pixels where the byte has nothing to do with them.
func TestDamagedPNG(t *testing.T) {
	for _, name := range []string{"formats/png_rgb.png", "formats/png_palette.png"} {
		data := photo(t, name)
		whole, err := Decode(t.Context(), data, DecodeOptions{})
		require.NoError(t, err)
		want := rgb(t, whole)
		whole.Close()
		refused := 0
		for i := range data {
			bad := bytes.Clone(data)
			bad[i] ^= 0x55
			img, err := Decode(t.Context(), bad, DecodeOptions{})
			if err != nil {
				refused++
				continue
			}
			require.Zero(t, differingBytes(rgb(t, img), want), "%s with another byte %d", name, i)
			img.Close()
		}
		require.Greater(t, refused, len(data)/2)
		t.Logf("%s: %d damaged files, %d refused, the others gave the right pixels", name, len(data), refused)
	}
}

// bomb is the header of a file that claims 60,000 x 60,000 pixels.
func bombs() map[string][]byte {
	var b bytes.Buffer
	_ = png.Encode(&b, image.NewGray(image.Rect(0, 0, 2, 2)))
	pngFile := b.Bytes()
	binary.BigEndian.PutUint32(pngFile[16:], 60000)
	binary.BigEndian.PutUint32(pngFile[20:], 60000)
	fixChecksum(pngFile)
	bmpFile := make([]byte, 54)
	copy(bmpFile, "BM")
	binary.LittleEndian.PutUint32(bmpFile[10:], 54)
	binary.LittleEndian.PutUint32(bmpFile[14:], 40)
	binary.LittleEndian.PutUint32(bmpFile[18:], 60000)
	binary.LittleEndian.PutUint32(bmpFile[22:], 60000)
	bmpFile[26], bmpFile[28] = 1, 24
	webpFile := []byte("RIFF\x16\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\x5f\xea\x00\x5f\xea\x00")
	gifFile := []byte("GIF89a\x60\xea\x60\xea\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00;")
	return map[string][]byte{
		"png": pngFile, "bmp": bmpFile, "webp": webpFile, "gif": gifFile,
		"jpeg": []byte("\xff\xd8\xff\xc0\x00\x11\x08\xea\x60\xea\x60\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00\xff\xda\x00\x02"),
		"tiff": tiffHeader(60000, 60000),
	}
}

func fixChecksum(file []byte) {
	copy(file[29:], binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(file[12:29])))
}

func tiffHeader(width, height uint32) []byte {
	b := []byte("II*\x00\x08\x00\x00\x00")
	entries := [][3]uint32{{256, 4, width}, {257, 4, height}, {258, 3, 8}, {259, 3, 1}, {262, 3, 1}, {273, 4, 8}, {277, 3, 1}, {278, 4, height}, {279, 4, 1}}
	b = binary.LittleEndian.AppendUint16(b, uint16(len(entries)))
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, 1)
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return binary.LittleEndian.AppendUint32(b, 0)
}

func TestBombs(t *testing.T) {
	before := torch.MemoryStats().Resident
	for name, data := range bombs() {
		for _, d := range []Decoder{ExactDecoder{}, GoDecoder{}} {
			_, err := d.Decode(t.Context(), data, DecodeOptions{})
			require.ErrorIs(t, err, ErrTooLarge, name)
			size, ok := errors.AsType[*SizeError](err)
			require.True(t, ok, name)
			require.Equal(t, [2]int{60000, 60000}, [2]int{size.Height, size.Width}, name)
			require.Equal(t, int64(DefaultMaxPixels), size.Limit)
			require.ErrorContains(t, err, "60000 x 60000")
		}
	}
	require.Less(t, torch.MemoryStats().Resident-before, int64(64<<20))

	data := photo(t, "coffee.jpg")
	_, err := Decode(t.Context(), data, DecodeOptions{MaxPixels: 400*600 - 1})
	require.ErrorIs(t, err, ErrTooLarge)
	for _, limit := range []int64{400 * 600, -1} {
		img, err := Decode(t.Context(), data, DecodeOptions{MaxPixels: limit})
		require.NoError(t, err)
		img.Close()
	}

	// A small photo whose resize would be a bomb.
	strip, err := FromImage(image.NewGray(image.Rect(0, 0, 60000, 1)))
	require.NoError(t, err)
	defer strip.Close()
	_, err = Resize{Size: []int{2000}}.Apply(t.Context(), strip)
	require.ErrorIs(t, err, ErrTooLarge)
	p, err := NewPipeline(Spec{Resize: ResizeSpec{Rule: RuleShortestEdge, Size: []int{2000}}}, Options{})
	require.NoError(t, err)
	_, _, err = p.Apply(t.Context(), strip)
	require.ErrorIs(t, err, ErrTooLarge)
}

func TestNotAnImage(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string][]byte{"empty": nil, "text": []byte("hello, this is no image"), "short": {0xff, 0xd8}} {
		_, err := Decode(t.Context(), data, DecodeOptions{})
		require.ErrorIs(t, err, ErrFormat, name)
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		_, err = Open(t.Context(), path, DecodeOptions{})
		require.ErrorIs(t, err, ErrFormat, name)
		require.ErrorContains(t, err, path)
	}
	_, err := Open(t.Context(), filepath.Join(dir, "missing.jpg"), DecodeOptions{})
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Open(t.Context(), dir, DecodeOptions{})
	require.Error(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Decode(ctx, photo(t, "coffee.jpg"), DecodeOptions{})
	require.ErrorIs(t, err, context.Canceled)
	_, err = Decode(ctx, photo(t, "chelsea.png"), DecodeOptions{})
	require.ErrorIs(t, err, context.Canceled)
}

// TestNoCopy: the decoder's memory is the image's and the tensor's, and an image.Image is not copied.
func TestNoCopy(t *testing.T) {
	for _, name := range []string{"coffee.jpg", "chelsea.png", "formats/webp_lossy.webp"} {
		img, err := Decode(t.Context(), photo(t, name), DecodeOptions{})
		require.NoError(t, err)
		tensor, err := img.Tensor()
		require.NoError(t, err)
		require.Equal(t, img.pixels.DataPtr(), tensor.DataPtr())
		require.Equal(t, []int64{3, int64(img.Height()), int64(img.Width())}, tensor.Shape())
		require.Equal(t, []int64{1, int64(3 * img.Width()), 3}, tensor.Strides())
		again, err := FromTensor(tensor)
		require.NoError(t, err)
		require.Equal(t, tensor.DataPtr(), again.pixels.DataPtr())
		img.Close()
		require.Equal(t, torch.Uint8, tensor.DType(), "the tensor outlives the image")
		_, err = img.Tensor()
		require.ErrorIs(t, err, ErrClosed)
		again.Close()
		tensor.Close()
	}
	nrgba := image.NewNRGBA(image.Rect(-3, 2, 40, 50))
	for i := range nrgba.Pix {
		nrgba.Pix[i] = byte(i * 7)
	}
	part := nrgba.SubImage(image.Rect(5, 6, 30, 33)).(*image.NRGBA)
	img, err := FromImage(part)
	require.NoError(t, err)
	defer img.Close()
	require.NoError(t, torch.WithData(img.pixels, func(b []byte) error {
		require.Same(t, &part.Pix[0], &b[0])
		return nil
	}))
	tensor, err := img.Tensor()
	require.NoError(t, err)
	defer tensor.Close()
	values, err := torch.CopyData[uint8](tensor)
	require.NoError(t, err)
	i := 0
	for c := range 3 {
		for y := 6; y < 33; y++ {
			for x := 5; x < 30; x++ {
				v := part.NRGBAAt(x, y)
				require.Equal(t, [...]byte{v.R, v.G, v.B}[c], values[i])
				i++
			}
		}
	}
}

func TestFromImage(t *testing.T) {
	r := image.Rect(1, 2, 12, 9)
	fill := func(pix []byte) {
		for i := range pix {
			pix[i] = byte(i*37 + i/5)
		}
	}
	grey, grey16 := image.NewGray(r), image.NewGray16(r)
	rgba, nrgba64 := image.NewRGBA(r), image.NewNRGBA64(r)
	ycc := image.NewYCbCr(r, image.YCbCrSubsampleRatio420)
	cmyk := image.NewCMYK(r)
	paletted := image.NewPaletted(r, color.Palette{color.NRGBA{1, 2, 3, 255}, color.NRGBA{200, 100, 50, 20}})
	for _, pix := range [][]byte{grey.Pix, grey16.Pix, nrgba64.Pix, ycc.Y, ycc.Cb, ycc.Cr, cmyk.Pix} {
		fill(pix)
	}
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			rgba.SetRGBA(x, y, color.RGBA{byte(x), byte(y), byte(x + y), byte(100 + x)})
			paletted.SetColorIndex(x, y, uint8((x+y)%2))
		}
	}
	for name, m := range map[string]image.Image{"grey": grey, "grey16": grey16, "nrgba64": nrgba64, "ycbcr": ycc, "cmyk": cmyk, "paletted": paletted} {
		img, err := FromImage(m)
		require.NoError(t, err, name)
		got := rgb(t, img)
		i := 0
		for y := r.Min.Y; y < r.Max.Y; y++ {
			for x := r.Min.X; x < r.Max.X; x++ {
				c := color.NRGBAModel.Convert(m.At(x, y)).(color.NRGBA)
				require.Equal(t, []byte{c.R, c.G, c.B}, got[i:i+3], "%s at (%d, %d)", name, x, y)
				i += 3
			}
		}
		img.Close()
	}
	// Premultiplied, by Pillow's division.
	img, err := FromImage(rgba)
	require.NoError(t, err)
	c := rgba.RGBAAt(5, 5)
	at := ((5-r.Min.Y)*r.Dx() + 5 - r.Min.X) * 3
	require.Equal(t, byte(255*int(c.B)/int(c.A)), rgb(t, img)[at+2])
	img.Close()
	for _, bad := range []image.Image{nil, image.NewGray(image.Rectangle{})} {
		_, err := FromImage(bad)
		require.ErrorIs(t, err, ErrSource)
	}
}

func TestInspect(t *testing.T) {
	names := append(formatFiles(t), photos...)
	var data [][]byte
	for _, name := range names {
		data = append(data, photo(t, name))
	}
	for i, want := range pillowDecode(t, false, "RGB", data...) {
		info, err := Inspect(data[i])
		require.NoError(t, err, names[i])
		require.Equal(t, [2]int{want.Height, want.Width}, [2]int{info.Height, info.Width}, names[i])
		ext := strings.TrimPrefix(filepath.Ext(names[i]), ".")
		require.Equal(t, map[string]Format{"jpg": JPEG, "png": PNG, "webp": WebP, "gif": GIF, "bmp": BMP, "tif": TIFF}[ext], info.Format)
	}
	info, err := Inspect(photo(t, "formats/jpeg_exif6.jpg"))
	require.NoError(t, err)
	require.Equal(t, 6, info.Orientation)
}

// FuzzDecode: bytes give an image or an error, never both, and never a crash.
func FuzzDecode(f *testing.F) {
	for _, name := range append(formatFiles(f), "chelsea.png") {
		data, err := os.ReadFile(photoPath(f, name))
		require.NoError(f, err)
		f.Add(data)
	}
	for _, data := range bombs() {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// A small limit keeps the memory of the run flat.
		o := DecodeOptions{MaxPixels: 1 << 20, ApplyEXIF: len(data)%2 == 0}
		img, err := Decode(t.Context(), data, o)
		if (img == nil) == (err == nil) {
			t.Fatalf("got image %v and error %v, want one of them", img, err)
		}
		if err != nil {
			return
		}
		defer img.Close()
		info, err := Inspect(data)
		if err != nil || info.Height*info.Width != img.Height()*img.Width() {
			t.Fatalf("got %d x %d pixels and header %+v (%v)", img.Width(), img.Height(), info, err)
		}
	})
}

// TestOpenKeepsItsMemory: photos that follow are read and decompressed in the memory of those before.
func TestOpenKeepsItsMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("under the race detector a sync.Pool forgets at random: not with -short")
	}
	for _, name := range []string{"rocket.jpg", "chelsea.png"} {
		path := filepath.Join(testmain.Root(t), "testdata", "images", name)
		info, err := os.Stat(path)
		require.NoError(t, err)
		open := func() {
			img, err := Open(t.Context(), path, DecodeOptions{})
			require.NoError(t, err)
			img.Close()
		}
		open()
		const n = 20
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range n {
			open()
		}
		runtime.ReadMemStats(&after)
		// Most of the rest are the stacks that tests keep of handles.
		assert.Less(t, (after.TotalAlloc-before.TotalAlloc)/n, uint64(info.Size())*2/3, "%s: bytes a photo", name)
	}
}
