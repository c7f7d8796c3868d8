package annotate_test

import (
	"bytes"
	"image"
	_ "image/jpeg"
	_ "image/png"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/image/draw"

	"github.com/torchvit/torchvit/coco"
	"github.com/torchvit/torchvit/det"
	"github.com/torchvit/torchvit/internal/annotate"
	"github.com/torchvit/torchvit/seg"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// The benchmarks draw on a photo of 1920x1080. scripts/bench_drawing.py runs them beside Python's ways to
// draw the same things, on the photo that TORCHVIT_BENCH_PHOTO names.
const width, height = 1920, 1080

func benchPhoto(b *testing.B) *image.RGBA {
	b.Helper()
	path := os.Getenv("TORCHVIT_BENCH_PHOTO")
	if path == "" {
		path = "../../testdata/images/coffee.jpg"
	}
	f, err := os.Open(path)
	require.NoError(b, err)
	defer f.Close()
	photo, _, err := image.Decode(f)
	require.NoError(b, err)
	out := image.NewRGBA(image.Rect(0, 0, width, height))
	draw.CatmullRom.Scale(out, out.Rect, photo, photo.Bounds(), draw.Src, nil)
	return out
}

// benchClasses are 40 rectangles of 21 classes.
func benchClasses(b *testing.B) *seg.ClassMap {
	b.Helper()
	m, err := seg.NewClassMap(width, height, make([]uint8, width*height))
	require.NoError(b, err)
	for i := range 40 {
		x0, y0 := i*577%width, i*331%height
		for y := y0; y < min(height, y0+100+i*97%400); y++ {
			for x := x0; x < min(width, x0+100+i*61%400); x++ {
				m.Classes[y*width+x] = uint8(i % 21)
			}
		}
	}
	return m
}

// benchDetections are 50 boxes, with discs in them as masks or without.
func benchDetections(b *testing.B, masks bool) []det.Detection {
	b.Helper()
	labels, err := vit.LabelSet("coco")
	require.NoError(b, err)
	var dets []det.Detection
	pixels := make([]uint8, width*height)
	for i := range 50 {
		x, y, side := i*577%1500, i*331%760, 60+i*53%260
		d := det.Detection{
			Box:   det.BoxFromXYWH(float32(x), float32(y), float32(side), float32(side)),
			Label: labels[i], LabelID: i, Score: 0.5 + float32(i)/100,
		}
		if masks {
			clear(pixels)
			for v := range side {
				for u := range side {
					if dx, dy := 2*u-side, 2*v-side; dx*dx+dy*dy < side*side {
						pixels[(y+v)*width+x+u] = 1
					}
				}
			}
			mask, err := coco.Encode(pixels, height, width)
			require.NoError(b, err)
			d.Mask = &mask
		}
		dets = append(dets, d)
	}
	return dets
}

func BenchmarkDrawing(b *testing.B) {
	photo, classes := benchPhoto(b), benchClasses(b)
	palette, err := seg.PaletteByName("voc")
	require.NoError(b, err)
	labels, err := vit.LabelSet("voc")
	require.NoError(b, err)
	boxes, masks := benchDetections(b, false), benchDetections(b, true)
	values := make([]float32, 14*14)
	for i := range values {
		values[i] = float32(i * 37 % 196)
	}
	overlay, err := seg.Overlay(photo, classes, seg.OverlayOptions{Palette: palette, NoLegend: true})
	require.NoError(b, err)
	// What is drawn in place is drawn over and over.
	canvas := annotate.Opaque(photo)
	var file bytes.Buffer
	for _, c := range []struct {
		name string
		f    func() error
	}{
		{"overlay", func() error {
			_, err := seg.Overlay(photo, classes, seg.OverlayOptions{Palette: palette, NoLegend: true})
			return err
		}},
		{"overlay_in_place", func() error {
			_, err := seg.Overlay(canvas, classes, seg.OverlayOptions{Palette: palette, NoLegend: true, InPlace: true})
			return err
		}},
		{"overlay_legend", func() error {
			_, err := seg.Overlay(photo, classes, seg.OverlayOptions{Palette: palette, Labels: labels})
			return err
		}},
		{"boxes", func() error { _, err := det.Draw(photo, boxes, det.DrawOptions{}); return err }},
		{"boxes_in_place", func() error { _, err := det.Draw(canvas, boxes, det.DrawOptions{InPlace: true}); return err }},
		{"masks", func() error {
			_, err := det.Draw(photo, masks, det.DrawOptions{NoBoxes: true, NoLabels: true, NoScores: true})
			return err
		}},
		{"heatmap", func() error {
			_, err := vit.OverlayHeatMap(photo, values, 14, 14, vit.HeatMapOptions{})
			return err
		}},
		{"heatmap_in_place", func() error {
			_, err := vit.OverlayHeatMap(canvas, values, 14, 14, vit.HeatMapOptions{InPlace: true})
			return err
		}},
		{"heatmap_smooth", func() error {
			_, err := vit.OverlayHeatMap(photo, values, 14, 14, vit.HeatMapOptions{Smooth: true})
			return err
		}},
		{"png", func() error { return annotate.EncodePNG(&file, overlay) }},
		{"png_mask", func() error { return classes.EncodePNG(&file, palette) }},
		{"jpeg", func() error { return transforms.EncodeJPEG(b.Context(), &file, overlay, annotate.JPEGQuality) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			if err := c.f(); err != nil { // the first call of some prepares more than its own work
				b.Fatal(err)
			}
			start := processor()
			for b.Loop() {
				file.Reset()
				if err := c.f(); err != nil {
					b.Fatal(err)
				}
			}
			// Of all threads: what a busy machine hardly changes.
			b.ReportMetric(float64((processor()-start).Microseconds())/1e3/float64(b.N), "cpu-ms/op")
			if file.Len() > 0 {
				b.ReportMetric(float64(file.Len()), "bytes")
			}
		})
	}
}

// processor is the processor time that this process has used.
func processor() time.Duration {
	var use syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &use) // never fails with these arguments
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
