package transforms

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/torch"
)

type resizeCase struct {
	Source [3]int
	Size   [2]int
	Filter int32
	Box    [4]float32
	Order  int32
}

// lay writes H x W x C pixels in another memory layout.
func lay(r *rand.Rand, pixels []byte, h, w, c int) ([]byte, cgo.ImageLayout) {
	l := interleaved(h, w, c)
	switch r.IntN(4) {
	case 0:
		l = planar(h, w, c)
	case 1: // gaps between rows
		l.StrideRow += int64(r.IntN(50))
	case 2: // RGBX
		if c == 3 {
			l.StrideRow, l.StridePixel = int64(4*w), 4
		}
	case 3: // columns first
		if r.IntN(4) == 0 {
			l.StrideRow, l.StridePixel, l.StrideChannel = int64(c), int64(h*c), 1
		}
	}
	n := int64(h-1)*l.StrideRow + int64(w-1)*l.StridePixel + int64(c-1)*l.StrideChannel + 1
	if l.StridePixel == 4 && c == 3 {
		n++
	}
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(r.Uint32())
	}
	i := 0
	for y := range int64(h) {
		for x := range int64(w) {
			for k := range int64(c) {
				out[y*l.StrideRow+x*l.StridePixel+k*l.StrideChannel] = pixels[i]
				i++
			}
		}
	}
	return out, l
}

// TestResizePillow compares random cases of every filter, size, layout and box with Pillow: whole and a
// random window, on the vector and on the portable kernels.
func TestResizePillow(t *testing.T) {
	const cases = 720
	var answer struct{ Cases []resizeCase }
	blobs := ask(t, object{"op": "resize_cases", "seed": 11, "count": cases}, &answer)
	require.Len(t, answer.Cases, cases)
	r := rand.New(rand.NewPCG(5, 6))
	compared, filters := 0, map[int32]int{}
	for i, c := range answer.Cases {
		src, want := blobs[2*i], blobs[2*i+1]
		h, w, ch := c.Size[0], c.Size[1], c.Source[2]
		memory, layout := lay(r, src, c.Source[0], c.Source[1], ch)
		for kernel := range int32(2) {
			plan := cgo.ImagePlan{
				Height: int64(h), Width: int64(w), WindowHeight: int64(h), WindowWidth: int64(w),
				Box: c.Box, Filter: c.Filter, PassOrder: c.Order, Kernel: kernel,
			}
			if ch == 2 || ch == 4 {
				plan.Premultiply = 1
			}
			got := make([]byte, h*w*ch)
			stride := cgo.ImageStride{Row: int64(w * ch), Pixel: int64(ch), Channel: 1}
			require.NoError(t, cgo.ImageResize(memory, &layout, &plan, got, stride))
			require.Zero(t, differingBytes(got, want), "case %d kernel %d: %+v", i, kernel, c)
			compared += len(got)

			// A window that may stick out, planar.
			wh, ww := 1+r.IntN(h+5), 1+r.IntN(w+5)
			top, left := r.IntN(h+4)-4, r.IntN(w+4)-4
			plan.Top, plan.Left, plan.WindowHeight, plan.WindowWidth = int64(top), int64(left), int64(wh), int64(ww)
			plan.Fill = [4]uint8{114, 113, 112, 111}
			got = make([]byte, wh*ww*ch)
			stride = cgo.ImageStride{Row: int64(ww), Pixel: 1, Channel: int64(wh * ww)}
			require.NoError(t, cgo.ImageResize(memory, &layout, &plan, got, stride))
			for k := range ch {
				for y := range wh {
					for x := range ww {
						value := plan.Fill[k]
						if sy, sx := top+y, left+x; sy >= 0 && sy < h && sx >= 0 && sx < w {
							value = want[(sy*w+sx)*ch+k]
						}
						if got[(k*wh+y)*ww+x] != value {
							require.Equal(t, value, got[(k*wh+y)*ww+x], "case %d kernel %d window (%d, %d) %d x %d at (%d, %d, %d): %+v", i, kernel, top, left, wh, ww, k, y, x, c)
						}
					}
				}
			}
			compared += len(got)
		}
		filters[c.Filter]++
	}
	require.Len(t, filters, 6)
	t.Logf("%d cases, %d bytes compared, 0 differ; cases per filter: %v", cases, compared, filters)
}

// TestResizeRefuses checks that what would leave the slices is an error and not a crash.
func TestResizeRefuses(t *testing.T) {
	good := cgo.ImagePlan{Height: 4, Width: 4, WindowHeight: 4, WindowWidth: 4, Filter: 2}
	layout := interleaved(8, 8, 3)
	src, dst := make([]byte, 192), make([]byte, 48)
	stride := cgo.ImageStride{Row: 12, Pixel: 3, Channel: 1}
	require.NoError(t, cgo.ImageResize(src, &layout, &good, dst, stride))
	for name, change := range map[string]func(l *cgo.ImageLayout, p *cgo.ImagePlan, src, dst *[]byte, s *cgo.ImageStride){
		"short source":    func(_ *cgo.ImageLayout, _ *cgo.ImagePlan, src, _ *[]byte, _ *cgo.ImageStride) { *src = (*src)[:191] },
		"no source":       func(_ *cgo.ImageLayout, _ *cgo.ImagePlan, src, _ *[]byte, _ *cgo.ImageStride) { *src = nil },
		"short target":    func(_ *cgo.ImageLayout, _ *cgo.ImagePlan, _, dst *[]byte, _ *cgo.ImageStride) { *dst = (*dst)[:47] },
		"no height":       func(l *cgo.ImageLayout, _ *cgo.ImagePlan, _, _ *[]byte, _ *cgo.ImageStride) { l.Height = 0 },
		"huge height":     func(l *cgo.ImageLayout, _ *cgo.ImagePlan, _, _ *[]byte, _ *cgo.ImageStride) { l.Height = 1 << 60 },
		"huge stride":     func(l *cgo.ImageLayout, _ *cgo.ImagePlan, _, _ *[]byte, _ *cgo.ImageStride) { l.StrideRow = 1 << 62 },
		"negative stride": func(l *cgo.ImageLayout, _ *cgo.ImagePlan, _, _ *[]byte, _ *cgo.ImageStride) { l.StrideRow = -24 },
		"five channels":   func(l *cgo.ImageLayout, _ *cgo.ImagePlan, _, _ *[]byte, _ *cgo.ImageStride) { l.Channels = 5 },
		"large window":    func(_ *cgo.ImageLayout, p *cgo.ImagePlan, _, _ *[]byte, _ *cgo.ImageStride) { p.WindowHeight = 5 },
		"filter 6":        func(_ *cgo.ImageLayout, p *cgo.ImagePlan, _, _ *[]byte, _ *cgo.ImageStride) { p.Filter = 6 },
		"filter -1":       func(_ *cgo.ImageLayout, p *cgo.ImagePlan, _, _ *[]byte, _ *cgo.ImageStride) { p.Filter = -1 },
		"empty box": func(_ *cgo.ImageLayout, p *cgo.ImagePlan, _, _ *[]byte, _ *cgo.ImageStride) {
			p.Box = [4]float32{3, 3, 3, 5}
		},
		"box outside": func(_ *cgo.ImageLayout, p *cgo.ImagePlan, _, _ *[]byte, _ *cgo.ImageStride) {
			p.Box = [4]float32{0, 0, 9, 8}
		},
		"box not a number": func(_ *cgo.ImageLayout, p *cgo.ImagePlan, _, _ *[]byte, _ *cgo.ImageStride) {
			var zero float32
			p.Box = [4]float32{0, 0, zero / zero, 8}
		},
		"alpha of RGB": func(_ *cgo.ImageLayout, p *cgo.ImagePlan, _, _ *[]byte, _ *cgo.ImageStride) { p.Premultiply = 1 },
	} {
		l, p, s, a, b := layout, good, stride, src, dst
		change(&l, &p, &a, &b, &s)
		require.Error(t, cgo.ImageResize(a, &l, &p, b, s), name)
	}
	require.Error(t, cgo.ImageToFloat(src, &layout, &good, make([]float32, 767), make([]float32, 48), stride), "short table")
}

// TestResizeTorch compares the backend torch with torchvision v2's resize of tensors.
func TestResizeTorch(t *testing.T) {
	whole, err := Decode(t.Context(), photo(t, "coffee.jpg"), DecodeOptions{})
	require.NoError(t, err)
	defer whole.Close()
	// A small image that becomes large: libtorch's threads then work on more than was given.
	small, err := CenterCrop{Size: []int{40, 50}}.Apply(t.Context(), whole)
	require.NoError(t, err)
	defer small.Close()
	_, err = Resize{Size: []int{224}, Backend: Torch, Interpolation: Lanczos, NoAntialias: true}.Apply(t.Context(), whole)
	require.ErrorIs(t, err, ErrSpec)

	compared := 0
	check := func(img, floatImage *Image, pixels []byte, size []int, filter Interpolation, antialias, float bool) {
		want := ask(t, object{
			"op": "torch_resize", "source": []int{img.Height(), img.Width()}, "size": size,
			"filter": filter, "antialias": antialias, "float": float,
		}, nil, pixels)[0]
		source := img
		if float {
			source = floatImage
		}
		out, err := Resize{Size: size, Backend: Torch, Interpolation: filter, NoAntialias: !antialias}.Apply(t.Context(), source)
		require.NoError(t, err)
		defer out.Close()
		tensor, err := out.Tensor()
		require.NoError(t, err)
		defer tensor.Close()
		require.Equal(t, []int64{3, int64(size[0]), int64(size[1])}, tensor.Shape())
		differ := 0
		if float {
			got, err := torch.CopyData[float32](tensor)
			require.NoError(t, err)
			differ = differingBits(got, floats(want))
		} else {
			got, err := torch.CopyData[uint8](tensor)
			require.NoError(t, err)
			differ = differingBytes(got, want)
		}
		require.Zero(t, differ, "%s antialias %v float %v from %d x %d to %v", filter, antialias, float, img.Height(), img.Width(), size)
		compared += len(want)
	}
	for _, img := range []*Image{whole, small} {
		pixels := rgb(t, img)
		floatImage, err := ToTensor{}.Apply(t.Context(), img)
		require.NoError(t, err)
		defer floatImage.Close()
		for _, filter := range []Interpolation{Nearest, NearestExact, Bilinear, Bicubic, Lanczos} {
			for _, antialias := range []bool{true, false} {
				for _, size := range [][]int{{224, 224}, {97, 640}, {500, 731}} {
					if filter != Lanczos || antialias {
						check(img, floatImage, pixels, size, filter, antialias, false)
						check(img, floatImage, pixels, size, filter, antialias, true)
					}
				}
			}
		}
	}
	t.Logf("%d bytes compared, 0 differ", compared)
}

// TestResizeSameSize shares the memory.
func TestResizeSameSize(t *testing.T) {
	img, err := Decode(t.Context(), photo(t, "chelsea.png"), DecodeOptions{})
	require.NoError(t, err)
	defer img.Close()
	out, err := Resize{Size: []int{img.Height(), img.Width()}}.Apply(t.Context(), img)
	require.NoError(t, err)
	defer out.Close()
	require.Equal(t, img.pixels.DataPtr(), out.pixels.DataPtr())
	require.True(t, bytes.Equal(rgb(t, img), rgb(t, out)))
}
