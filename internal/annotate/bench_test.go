package annotate

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/image/draw"
)

// large is a photo of 1920x1080, and classes for it in rectangles, as scripts/bench_drawing.py has them.
func large(b *testing.B) (*image.RGBA, []uint8) {
	b.Helper()
	f, err := os.Open(filepath.Join("..", "..", "testdata", "images", "coffee.jpg"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	photo, err := jpeg.Decode(f)
	if err != nil {
		b.Fatal(err)
	}
	out := image.NewRGBA(image.Rect(0, 0, 1920, 1080))
	draw.CatmullRom.Scale(out, out.Rect, photo, photo.Bounds(), draw.Src, nil)
	classes := make([]uint8, 1920*1080)
	for i := range 40 {
		x0, y0 := i*577%1920, i*331%1080
		for y := y0; y < min(1080, y0+100+i*97%400); y++ {
			for x := x0; x < min(1920, x0+100+i*61%400); x++ {
				classes[y*1920+x] = uint8(i % 21)
			}
		}
	}
	return out, classes
}

func BenchmarkOpaque(b *testing.B) {
	photo, _ := large(b)
	for b.Loop() {
		Opaque(photo)
	}
}

func BenchmarkEncodePNG(b *testing.B) {
	photo, classes := large(b)
	mask := &image.Paletted{Pix: classes, Stride: 1920, Rect: photo.Rect, Palette: make(color.Palette, 256)}
	for i := range mask.Palette {
		mask.Palette[i] = color.RGBA{uint8(i), uint8(i * 7), 0, 255}
	}
	for name, img := range map[string]image.Image{"photo": photo, "mask": mask} {
		b.Run(name, func(b *testing.B) {
			var buf bytes.Buffer
			for b.Loop() {
				buf.Reset()
				if err := EncodePNG(&buf, img); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(buf.Len()), "bytes")
		})
	}
}

func BenchmarkEncodeJPEG(b *testing.B) {
	photo, _ := large(b)
	var buf bytes.Buffer
	for b.Loop() {
		buf.Reset()
		if err := jpeg.Encode(&buf, photo, &jpeg.Options{Quality: JPEGQuality}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(buf.Len()), "bytes")
}

func BenchmarkText(b *testing.B) {
	photo, _ := large(b)
	text, err := NewText(20, true, nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		text.Draw(photo, image.Pt(100, 100), "dining table 0.93", color.RGBA{A: 255})
	}
}
