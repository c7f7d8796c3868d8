package transforms

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
)

var imagenet = `"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]`

// specs are descriptions as they stand in model files.
var specs = []string{
	`{"backend":"pil","resize":{"rule":"shortest_edge","size":[256]},"interpolation":"bilinear","crop":{"rule":"center","size":[224,224]},` + imagenet + `,"normalize":"torchvision"}`,
	`{"backend":"pil","resize":{"rule":"shortest_edge","size":[248],"max_size":0,"multiple_of":0},"interpolation":"bicubic","antialias":true,"crop":{"rule":"center","size":[224,224]},"mean":[0.5,0.5,0.5],"std":[0.5,0.5,0.5],"normalize":"fused"}`,
	`{"backend":"pil","resize":{"rule":"exact","size":[224,224]},"interpolation":"lanczos","crop":{"rule":"none"},` + imagenet + `,"normalize":"torchvision"}`,
	`{"backend":"pil","resize":{"rule":"exact","size":[518,500],"multiple_of":14},"interpolation":"hamming","crop":{"rule":"none"},` + imagenet + `,"normalize":"torchvision"}`,
	`{"backend":"pil","resize":{"rule":"longest_edge","size":[320],"multiple_of":16},"interpolation":"box","crop":{"rule":"none"},` + imagenet + `,"normalize":"torchvision"}`,
	`{"backend":"pil","resize":{"rule":"shortest_edge","size":[300],"max_size":350},"interpolation":"nearest","crop":{"rule":"none"},` + imagenet + `,"normalize":"torchvision"}`,
	`{"backend":"pil","resize":{"rule":"letterbox","size":[320,416]},"interpolation":"bilinear","crop":{"rule":"none"},"normalize":"none"}`,
	`{"backend":"torch","antialias":false,"resize":{"rule":"letterbox","size":[320,416]},"interpolation":"bilinear","crop":{"rule":"none"},"normalize":"none"}`,
	`{"channel_order":"BGR","resize":{"rule":"shortest_edge","size":[100]},"crop":{"rule":"center","size":[130,90],"fill":[3,130,250]},"mean":[0.1,0.45,0.9],"std":[0.2,0.5,0.7]}`,
	`{"channel_order":"BGR","backend":"torch","resize":{"rule":"exact","size":[60,90]},"crop":{"rule":"none"},"mean":[0.1,0.45,0.9],"std":[0.2,0.5,0.7],"normalize":"fused"}`,
	`{"backend":"pil","resize":{"rule":"letterbox","size":[321,416],"multiple_of":32},"interpolation":"bilinear","crop":{"rule":"center","size":[300,301]},` + imagenet + `,"normalize":"torchvision"}`,
	`{"backend":"pil","resize":{"rule":"none"},"crop":{"rule":"none"},"normalize":"none"}`,
	`{"backend":"pil","resize":{"rule":"none","multiple_of":16},"interpolation":"bicubic","crop":{"rule":"none"},` + imagenet + `,"normalize":"torchvision"}`,
	`{"backend":"pil","resize":{"rule":"none"},"crop":{"rule":"center","size":[511,701]},` + imagenet + `,"normalize":"torchvision"}`,
	`{"backend":"torch","resize":{"rule":"shortest_edge","size":[256]},"interpolation":"bilinear","antialias":true,"crop":{"rule":"center","size":[224,224]},` + imagenet + `,"normalize":"torchvision"}`,
	`{"backend":"torch","resize":{"rule":"exact","size":[224,224]},"interpolation":"bicubic","antialias":true,"crop":{"rule":"none"},` + imagenet + `,"normalize":"fused"}`,
	`{"backend":"torch","resize":{"rule":"exact","size":[224,300]},"interpolation":"bilinear","antialias":false,"crop":{"rule":"none"},` + imagenet + `,"normalize":"torchvision"}`,
}

func parseSpec(t testing.TB, text string) Spec {
	t.Helper()
	var s Spec
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&s))
	return s
}

// TestPipelinePython compares, from file to tensor, with scripts/preprocess.py, bit for bit.
func TestPipelinePython(t *testing.T) {
	var files [][]byte
	for _, name := range append([]string{"formats/jpeg_422.jpg", "formats/webp_rgba.webp", "formats/png_palette.png", "formats/jpeg_1x1.jpg"}, photos...) {
		files = append(files, photo(t, name))
	}
	compared := 0
	for _, text := range specs {
		var answer struct{ Shapes [][]int64 }
		want := ask(t, object{"op": "preprocess", "spec": json.RawMessage(text)}, &answer, files...)
		p, err := NewPipeline(parseSpec(t, text), Options{})
		require.NoError(t, err, text)
		var sources []Source
		for _, f := range files {
			sources = append(sources, f)
		}
		batches, err := p.Batches(t.Context(), 3, sources...)
		require.NoError(t, err, text)
		seen := 0
		for _, b := range batches {
			data, err := torch.CopyData[float32](b.Pixels)
			require.NoError(t, err)
			require.LessOrEqual(t, len(b.Index), 3)
			n := len(data) / len(b.Index)
			for k, i := range b.Index {
				require.Equal(t, answer.Shapes[i], b.Pixels.Shape()[1:], text)
				require.Zero(t, differingBits(data[k*n:(k+1)*n], floats(want[i])), "file %d: %s", i, text)
				g, err := p.Plan(Size{b.Geometry[k].Height, b.Geometry[k].Width})
				require.NoError(t, err)
				require.Equal(t, g, b.Geometry[k])
				seen++
			}
			compared += len(data)
			b.Pixels.Close()
		}
		require.Equal(t, len(files), seen)
	}
	t.Logf("%d specs, %d files each, %d floats compared, 0 differ", len(specs), len(files), compared)
}

// TestPillow12 gives other bits, those of the older order (TestResizePillow compares them).
func TestPillow12(t *testing.T) {
	tall := image.NewNRGBA(image.Rect(0, 0, 64, 600))
	for i := range tall.Pix {
		tall.Pix[i] = byte(i * i >> 3)
	}
	s := Spec{Resize: ResizeSpec{Rule: RuleExact, Size: []int{50, 50}}, Interpolation: Bicubic}
	var results [][]float32
	for _, order := range []PassOrder{Pillow13, Pillow12} {
		p, err := NewPipeline(s, Options{PassOrder: order})
		require.NoError(t, err)
		batch, _, err := p.Apply(t.Context(), tall)
		require.NoError(t, err)
		data, err := torch.CopyData[float32](batch)
		require.NoError(t, err)
		results = append(results, data)
		batch.Close()
	}
	require.NotZero(t, differingBits(results[0], results[1]))
}

// TestSteps compares Compose with torchvision's Compose of the same transforms.
func TestSteps(t *testing.T) {
	img, err := Decode(t.Context(), photo(t, "rocket.jpg"), DecodeOptions{})
	require.NoError(t, err)
	defer img.Close()
	for name, chain := range map[string]Compose{
		"classify": {
			Resize{Size: []int{256}},
			CenterCrop{Size: []int{224}},
			ToTensor{},
			Normalize{Mean: []float64{0.485, 0.456, 0.406}, Std: []float64{0.229, 0.224, 0.225}},
		},
		"pad":   {Pad{Left: 3, Top: 5, Right: 7, Bottom: 11, Fill: 9}, CenterCrop{Size: []int{600, 700}}, ToTensor{}},
		"float": {ToTensor{}, Resize{Size: []int{97, 101}, Interpolation: Bicubic, Backend: Torch}, CenterCrop{Size: []int{120, 64}}, Pad{Left: 1, Top: 2, Right: 3, Bottom: 4, Fill: 2}},
	} {
		var answer struct{ Shape []int64 }
		want := ask(t, object{"op": "steps", "chain": name, "source": []int{img.Height(), img.Width()}}, &answer, rgb(t, img))[0]
		out, err := chain.Apply(t.Context(), img)
		require.NoError(t, err, name)
		tensor, err := out.Tensor()
		require.NoError(t, err)
		require.Equal(t, answer.Shape, tensor.Shape(), name)
		got, err := torch.CopyData[float32](tensor)
		require.NoError(t, err)
		require.Zero(t, differingBits(got, floats(want)), name)
		tensor.Close()
		out.Close()
	}
	_, err = Normalize{Mean: []float64{0, 0, 0}, Std: []float64{1, 1, 1}}.Apply(t.Context(), img)
	require.ErrorIs(t, err, torch.ErrDType)
	_, err = Pad{Left: -1000}.Apply(t.Context(), img)
	require.ErrorIs(t, err, ErrSpec)
}

// TestStepsGeometry: the steps tell of the same window as the pipeline.
func TestStepsGeometry(t *testing.T) {
	img, err := Decode(t.Context(), photo(t, "rocket.jpg"), DecodeOptions{})
	require.NoError(t, err)
	defer img.Close()
	out, err := Compose{Resize{Size: []int{256}}, CenterCrop{Size: []int{224}}, ToTensor{}}.Apply(t.Context(), img)
	require.NoError(t, err)
	defer out.Close()
	s := Spec{Resize: ResizeSpec{Rule: RuleShortestEdge, Size: []int{256}}, Crop: CropSpec{Rule: CropCenter, Size: []int{224}}}
	want, err := s.Plan(Size{img.Height(), img.Width()})
	require.NoError(t, err)
	require.Equal(t, want, out.Geometry())
}

func TestSources(t *testing.T) {
	s := parseSpec(t, specs[0])
	p, err := NewPipeline(s, Options{Workers: 4})
	require.NoError(t, err)
	data := photo(t, "chelsea.png")
	m, err := png.Decode(bytes.NewReader(data))
	require.NoError(t, err)
	img, err := Decode(t.Context(), data, DecodeOptions{})
	require.NoError(t, err)
	defer img.Close()
	batch, geometry, err := p.Apply(t.Context(), photoPath(t, "chelsea.png"), data, m, img)
	require.NoError(t, err)
	defer batch.Close()
	require.Equal(t, []int64{4, 3, 224, 224}, batch.Shape())
	values, err := torch.CopyData[float32](batch)
	require.NoError(t, err)
	n := len(values) / 4
	for k := 1; k < 4; k++ {
		require.Zero(t, differingBits(values[:n], values[k*n:(k+1)*n]), "source %d", k)
		require.Equal(t, geometry[0], geometry[k])
	}
	require.Positive(t, img.pixels.NumEl(), "a source stays the caller's")

	for _, bad := range []Source{nil, 3, (*Image)(nil), []string{"a"}} {
		_, _, err := p.Apply(t.Context(), data, bad)
		require.ErrorIs(t, err, ErrSource)
		require.ErrorContains(t, err, "image 1")
	}
	_, _, err = p.Apply(t.Context())
	require.ErrorIs(t, err, ErrSource)
	_, _, err = p.Apply(t.Context(), data, data[:1000], data)
	require.ErrorIs(t, err, ErrDecode)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = p.Apply(ctx, data, data)
	require.ErrorIs(t, err, context.Canceled)

	free, err := NewPipeline(Spec{}, Options{})
	require.NoError(t, err)
	_, _, err = free.Apply(t.Context(), data, photo(t, "coffee.jpg"))
	require.ErrorIs(t, err, ErrSizes)
}

// TestWrite puts images into places of a batch that is there already.
func TestWrite(t *testing.T) {
	p, err := NewPipeline(parseSpec(t, specs[0]), Options{})
	require.NoError(t, err)
	batch, err := torch.Zeros([]int64{3, 3, 224, 224}, torch.TensorOptions{})
	require.NoError(t, err)
	defer batch.Close()
	img, err := Open(t.Context(), photoPath(t, "coffee.jpg"), DecodeOptions{})
	require.NoError(t, err)
	defer img.Close()
	at := batch.DataPtr()
	_, err = p.Write(t.Context(), img, batch, 1)
	require.NoError(t, err)
	require.Equal(t, at, batch.DataPtr())
	one, _, err := p.Apply(t.Context(), img)
	require.NoError(t, err)
	defer one.Close()
	want, err := torch.CopyData[float32](one)
	require.NoError(t, err)
	got, err := torch.CopyData[float32](batch)
	require.NoError(t, err)
	n := len(want)
	require.Zero(t, differingBits(got[n:2*n], want))
	zeros := make([]float32, n)
	require.Zero(t, differingBits(got[:n], zeros))
	require.Zero(t, differingBits(got[2*n:], zeros))
	for _, i := range []int{-1, 3} {
		_, err = p.Write(t.Context(), img, batch, i)
		require.ErrorIs(t, err, torch.ErrShape)
	}
}

// TestGreyModel: one mean means one channel, as Pillow's convert("L").
func TestGreyModel(t *testing.T) {
	p, err := NewPipeline(Spec{Mean: []float64{0.1307}, Std: []float64{0.3081}}, Options{})
	require.NoError(t, err)
	data := photo(t, "coffee.jpg")
	batch, _, err := p.Apply(t.Context(), data)
	require.NoError(t, err)
	defer batch.Close()
	require.Equal(t, []int64{1, 1, 400, 600}, batch.Shape())
	got, err := torch.CopyData[float32](batch)
	require.NoError(t, err)
	for i, v := range pillowDecode(t, false, "L", data)[0].Pixels {
		if want := (float32(v)/255 - float32(0.1307)) / float32(0.3081); got[i] != want {
			require.Equal(t, want, got[i])
		}
	}
}

// TestManyGoroutines: one pipeline, many callers, equal answers.
func TestManyGoroutines(t *testing.T) {
	p, err := NewPipeline(parseSpec(t, specs[1]), Options{})
	require.NoError(t, err)
	var sources []Source
	for _, name := range photos {
		sources = append(sources, photoPath(t, name))
	}
	first, _, err := p.Apply(t.Context(), sources...)
	require.NoError(t, err)
	defer first.Close()
	var wait sync.WaitGroup
	errs := make(chan error, 16)
	for range 16 {
		wait.Go(func() {
			batch, _, err := p.Apply(t.Context(), sources...)
			if err == nil {
				defer batch.Close()
				var same bool
				if same, err = torch.Equal(first, batch); err == nil && !same {
					err = fmt.Errorf("another answer")
				}
			}
			errs <- err
		})
	}
	wait.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
}

// TestFlatMemory prepares photos, good and bad, until memory would have grown.
func TestFlatMemory(t *testing.T) {
	p, err := NewPipeline(parseSpec(t, specs[0]), Options{})
	require.NoError(t, err)
	var good [][]byte
	for _, name := range []string{"coffee.jpg", "chelsea.png", "formats/webp_rgba.webp", "formats/gif_animated.gif"} {
		good = append(good, photo(t, name))
	}
	round := func() {
		for i, data := range good {
			batch, _, err := p.Apply(t.Context(), data, good[(i+1)%len(good)])
			require.NoError(t, err)
			batch.Close()
			_, _, err = p.Apply(t.Context(), data, data[:len(data)/2])
			require.Error(t, err)
		}
	}
	for range 20 {
		round()
	}
	runtime.GC()
	before := torch.MemoryStats()
	for range 60 {
		round()
	}
	runtime.GC()
	after := torch.MemoryStats()
	require.Equal(t, before.Live, after.Live)
	require.Less(t, after.Resident-before.Resident, int64(24<<20))
	t.Logf("480 batches: resident memory %+d KB", (after.Resident-before.Resident)>>10)
}

func TestImageRGBA(t *testing.T) {
	photo, err := Open(t.Context(), "../testdata/images/chelsea.png", DecodeOptions{})
	require.NoError(t, err)
	defer photo.Close()
	whole, err := photo.RGBA()
	require.NoError(t, err)
	again, err := FromImage(whole)
	require.NoError(t, err)
	defer again.Close()
	want, err := photo.Tensor()
	require.NoError(t, err)
	defer want.Close()
	got, err := again.Tensor()
	require.NoError(t, err)
	defer got.Close()
	equal, err := torch.Equal(got, want)
	require.NoError(t, err)
	require.True(t, equal)

	grey, err := torch.NewTensor([]uint8{1, 2, 3, 4, 5, 6}, 1, 2, 3)
	require.NoError(t, err)
	defer grey.Close()
	small, err := FromTensor(grey)
	require.NoError(t, err)
	defer small.Close()
	img, err := small.RGBA()
	require.NoError(t, err)
	require.Equal(t, color.RGBA{R: 6, G: 6, B: 6, A: 255}, img.RGBAAt(2, 1))

	float, err := torch.Zeros([]int64{3, 2, 2}, torch.TensorOptions{})
	require.NoError(t, err)
	defer float.Close()
	other, err := FromTensor(float)
	require.NoError(t, err)
	defer other.Close()
	_, err = other.RGBA()
	require.ErrorIs(t, err, torch.ErrDType)
}
