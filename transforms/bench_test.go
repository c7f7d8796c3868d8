package transforms

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/torch"
)

// compare runs f as a benchmark and reports the best run beside the best of Python's, which does the
// same work in the same run on one thread: the best, because other processes only ever add time.
func compare(b *testing.B, f func() error, request object, blobs ...[]byte) {
	b.Helper()
	best := time.Duration(math.MaxInt64)
	for b.Loop() {
		start := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		best = min(best, time.Since(start))
	}
	var answer struct{ Seconds float64 }
	request["op"] = "speed"
	ask(b, request, &answer, blobs...)
	b.ReportMetric(best.Seconds()*1e3, "best-ms")
	b.ReportMetric(answer.Seconds*1e3, "python-best-ms")
	b.ReportMetric(answer.Seconds/best.Seconds(), "x-python")
}

// BenchmarkResize compares with Image.resize, one thread each.
func BenchmarkResize(b *testing.B) {
	img, err := Decode(b.Context(), photo(b, "coffee.jpg"), DecodeOptions{})
	require.NoError(b, err)
	defer img.Close()
	for _, source := range []Size{{1080, 1920}, {400, 600}} {
		large, err := Resize{Size: []int{source.Height, source.Width}, Interpolation: Bicubic}.Apply(b.Context(), img)
		require.NoError(b, err)
		pixels := rgb(b, large)
		large.Close()
		layout := interleaved(source.Height, source.Width, 3)
		for filter, name := range []string{"nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"} {
			for kernel, kernelName := range []string{"fastest", "portable"} {
				b.Run(fmt.Sprintf("%dx%d/%s/%s", source.Width, source.Height, name, kernelName), func(b *testing.B) {
					plan := cgo.ImagePlan{Height: 224, Width: 224, WindowHeight: 224, WindowWidth: 224, Filter: int32(filter), Kernel: int32(kernel)}
					dst := make([]byte, 224*224*3)
					compare(b, func() error {
						return cgo.ImageResize(pixels, &layout, &plan, dst, cgo.ImageStride{Row: 672, Pixel: 3, Channel: 1})
					}, object{"what": "resize", "source": []int{source.Height, source.Width, 3}, "size": []int{224, 224}, "filter": filter}, pixels)
				})
			}
		}
	}
}

// BenchmarkDecode compares with Image.open(f).convert("RGB").
func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"coffee.jpg", "rocket.jpg", "formats/jpeg_1x1.jpg", "chelsea.png", "formats/webp_lossy.webp", "formats/gif_single.gif"} {
		b.Run(name, func(b *testing.B) {
			data := photo(b, name)
			compare(b, func() error {
				img, err := Decode(b.Context(), data, DecodeOptions{})
				img.Close()
				return err
			}, object{"what": "decode"}, data)
		})
	}
}

// BenchmarkPrepare compares what comes after decoding, into a batch, with torchvision's transforms.
func BenchmarkPrepare(b *testing.B) {
	img, err := Decode(b.Context(), photo(b, "coffee.jpg"), DecodeOptions{})
	require.NoError(b, err)
	defer img.Close()
	p, err := NewPipeline(parseSpec(b, specs[1]), Options{})
	require.NoError(b, err)
	batch, err := torch.Empty([]int64{1, 3, 224, 224}, torch.TensorOptions{})
	require.NoError(b, err)
	defer batch.Close()
	b.ReportAllocs()
	compare(b, func() error {
		_, err := p.Write(b.Context(), img, batch, 0)
		return err
	}, object{"what": "prepare", "source": []int{400, 600, 3}, "spec": json.RawMessage(specs[1])}, rgb(b, img))
}
