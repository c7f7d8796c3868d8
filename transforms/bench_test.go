package transforms

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/torch"
)

// beside reports Pillow's time of the same work in the same run, and how often faster this is.
func beside(b *testing.B, request object, blobs ...[]byte) {
	b.Helper()
	var answer struct{ Seconds float64 }
	request["op"] = "speed"
	ask(b, request, &answer, blobs...)
	mine := b.Elapsed().Seconds() / float64(b.N)
	b.ReportMetric(answer.Seconds*1e3, "python-ms/op")
	b.ReportMetric(answer.Seconds/mine, "x-python")
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
					for b.Loop() {
						if err := cgo.ImageResize(pixels, &layout, &plan, dst, cgo.ImageStride{Row: 672, Pixel: 3, Channel: 1}); err != nil {
							b.Fatal(err)
						}
					}
					beside(b, object{"what": "resize", "source": []int{source.Height, source.Width, 3}, "size": []int{224, 224}, "filter": filter}, pixels)
				})
			}
		}
	}
}

// BenchmarkDecode compares with Image.open(f).convert("RGB").
func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"coffee.jpg", "chelsea.png", "formats/webp_lossy.webp", "formats/gif_single.gif"} {
		b.Run(name, func(b *testing.B) {
			data := photo(b, name)
			for b.Loop() {
				img, err := Decode(b.Context(), data, DecodeOptions{})
				if err != nil {
					b.Fatal(err)
				}
				img.Close()
			}
			beside(b, object{"what": "decode"}, data)
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
	for b.Loop() {
		if _, err := p.Write(b.Context(), img, batch, 0); err != nil {
			b.Fatal(err)
		}
	}
	beside(b, object{"what": "prepare", "source": []int{400, 600, 3}, "spec": json.RawMessage(specs[1])}, rgb(b, img))
}
