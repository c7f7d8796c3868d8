package transforms

import (
	"context"
	"fmt"
	"image"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/torchvit/torchvit/torch"
)

// Source is a photo: the path of an image file (string), the bytes of one ([]byte), an image.Image, or an
// *Image of uint8, which stays the caller's.
type Source any

// Options say how a Pipeline treats photos. The zero value does what Pillow 13 does.
type Options struct {
	// DecodeOptions are for paths and bytes; ApplyEXIF and MaxPixels among them. Mode follows from the
	// Spec.
	DecodeOptions
	// Decoder decodes paths and bytes; nil is ExactDecoder.
	Decoder Decoder
	// PassOrder is that of Pillow's resize.
	PassOrder PassOrder
	// Workers is how many photos of a call are prepared at once; 0 is GOMAXPROCS.
	Workers int
	// PinMemory makes batches in page-locked memory, for a CUDA device.
	PinMemory bool
}

// Pipeline does all that a Spec says at once: it decodes into libtorch's memory and writes the resized,
// cropped and normalised pixels straight into their place in a batch. Only the window that the crop
// keeps is computed; the bits are those of doing one step after the other. Safe for many goroutines.
type Pipeline struct {
	spec    Spec
	options Options
	how     resizing
	table   []float32
}

// NewPipeline makes a pipeline; a spec that makes no sense gives ErrSpec.
func NewPipeline(spec Spec, o Options) (*Pipeline, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	table, err := spec.table()
	if err != nil {
		return nil, err
	}
	if o.Decoder == nil {
		o.Decoder = ExactDecoder{}
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	o.Mode = RGB
	if spec.channels() == 1 {
		o.Mode = Gray
	}
	how := spec.resizing()
	how.order = o.PassOrder
	return &Pipeline{spec: spec, options: o, how: how, table: table}, nil
}

// Spec is what the pipeline was made from.
func (p *Pipeline) Spec() Spec { return p.spec }

// Plan is what becomes of a photo of that size.
func (p *Pipeline) Plan(photo Size) (Geometry, error) {
	g, err := p.spec.Plan(photo)
	if err == nil {
		err = p.options.check("output", g.OutputHeight, g.OutputWidth)
	}
	if err == nil && p.spec.Backend == Torch { // torch makes the whole, not only the window
		err = p.options.check("resized image", g.ResizedHeight, g.ResizedWidth)
	}
	return g, err
}

// Batch is photos whose tensors have one size.
type Batch struct {
	// Pixels is (B, C, H, W) of float32 on the CPU, which the caller closes.
	Pixels *torch.Tensor
	// Geometry tells for each photo how it was resized, cropped and padded.
	Geometry []Geometry
	// Index is the place of each photo among those that were given.
	Index []int
}

// Apply prepares photos as one batch (B, C, H, W) of float32 on the CPU, which the caller closes. Photos
// that come out at different sizes give ErrSizes; use Batches for them.
func (p *Pipeline) Apply(ctx context.Context, images ...Source) (*torch.Tensor, []Geometry, error) {
	if len(images) == 0 {
		return nil, nil, fmt.Errorf("preprocess: %w: got no images, want at least one", ErrSource)
	}
	batches, err := p.Batches(ctx, 0, images...)
	if err != nil {
		return nil, nil, err
	}
	if len(batches) > 1 {
		a, b := batches[0].Geometry[0], batches[1].Geometry[0]
		for _, batch := range batches {
			batch.Pixels.Close()
		}
		return nil, nil, fmt.Errorf("preprocess: %w: got %d x %d for image %d and %d x %d for image %d, want one size for a batch",
			ErrSizes, a.OutputHeight, a.OutputWidth, batches[0].Index[0], b.OutputHeight, b.OutputWidth, batches[1].Index[0])
	}
	return batches[0].Pixels, batches[0].Geometry, nil
}

// Batches prepares photos in batches of one size each, of at most maxBatch photos (0: no limit), ordered
// by their first photo. The caller closes each Pixels.
func (p *Pipeline) Batches(ctx context.Context, maxBatch int, images ...Source) ([]Batch, error) {
	if maxBatch <= 0 {
		maxBatch = max(1, len(images))
	}
	if size, fixed := p.spec.OutputSize(); fixed {
		if err := p.options.check("output", size.Height, size.Width); err != nil {
			return nil, fmt.Errorf("preprocess: %w", err)
		}
		var groups [][]int
		for i := range images {
			if i%maxBatch == 0 {
				groups = append(groups, nil)
			}
			groups[len(groups)-1] = append(groups[len(groups)-1], i)
		}
		return p.fill(ctx, groups, func(int) Size { return size }, func(i int) (*Image, error) { return p.Load(ctx, images[i]) })
	}

	// The sizes are known only after decoding.
	loaded := make([]*Image, len(images))
	defer func() {
		for _, img := range loaded {
			img.Close()
		}
	}()
	sizes := make([]Size, len(images))
	err := p.parallel(ctx, len(images), func(i int) error {
		img, err := p.Load(ctx, images[i])
		if err != nil {
			return failed(i, err)
		}
		loaded[i] = img
		g, err := p.Plan(Size{img.Height(), img.Width()})
		sizes[i] = Size{g.OutputHeight, g.OutputWidth}
		return failed(i, err)
	})
	if err != nil {
		return nil, err
	}
	var groups [][]int
	open := map[Size]int{} // the group that still takes images of that size
	for i, size := range sizes {
		g, ok := open[size]
		if !ok || len(groups[g]) == maxBatch {
			g = len(groups)
			open[size] = g
			groups = append(groups, nil)
		}
		groups[g] = append(groups[g], i)
	}
	return p.fill(ctx, groups, func(i int) Size { return sizes[i] }, func(i int) (*Image, error) { return loaded[i].alias() })
}

// fill makes the batches of the groups and writes the images into them.
func (p *Pipeline) fill(ctx context.Context, groups [][]int, size func(i int) Size, get func(i int) (*Image, error)) (batches []Batch, err error) {
	defer func() {
		if err != nil {
			for _, b := range batches {
				b.Pixels.Close()
			}
			batches = nil
		}
	}()
	channels := p.spec.channels()
	for _, group := range groups {
		s := size(group[0])
		pixels, err := torch.Empty([]int64{int64(len(group)), int64(channels), int64(s.Height), int64(s.Width)},
			torch.TensorOptions{PinMemory: p.options.PinMemory})
		if err != nil {
			return batches, err
		}
		batch := Batch{Pixels: pixels, Geometry: make([]Geometry, len(group)), Index: group}
		batches = append(batches, batch)
		n := channels * s.Height * s.Width
		err = torch.WithData(pixels, func(dst []float32) error {
			return p.parallel(ctx, len(group), func(k int) error {
				img, err := get(group[k])
				if err != nil {
					return failed(group[k], err)
				}
				defer img.Close()
				batch.Geometry[k], err = p.write(ctx, img, dst[k*n:(k+1)*n])
				return failed(group[k], err)
			})
		})
		if err != nil {
			return batches, err
		}
	}
	return batches, nil
}

// failed says which image an error is about.
func failed(i int, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("image %d: %w", i, err)
}

// Write prepares an image and writes it at place i of a batch (B, C, H, W) of float32 on the CPU. H and W
// must be those that Plan gives.
func (p *Pipeline) Write(ctx context.Context, img *Image, batch *torch.Tensor, i int) (Geometry, error) {
	shape := batch.Shape()
	g, err := p.Plan(Size{img.Height(), img.Width()})
	if err != nil {
		return g, err
	}
	want := []int64{0, int64(p.spec.channels()), int64(g.OutputHeight), int64(g.OutputWidth)}
	if len(shape) != 4 || shape[1] != want[1] || shape[2] != want[2] || shape[3] != want[3] || i < 0 || int64(i) >= shape[0] {
		return g, fmt.Errorf("preprocess: %w: got place %d of a batch of %v, want (B, %d, %d, %d)", torch.ErrShape, i, shape, want[1], want[2], want[3])
	}
	n := int(want[1] * want[2] * want[3])
	err = torch.WithData(batch, func(dst []float32) error {
		_, err := p.write(ctx, img, dst[i*n:(i+1)*n])
		return err
	})
	return g, err
}

// write prepares one image into dst, (C, H, W).
func (p *Pipeline) write(ctx context.Context, img *Image, dst []float32) (Geometry, error) {
	g, err := p.Plan(Size{img.Height(), img.Width()})
	if err != nil {
		return g, err
	}
	if p.spec.channels() == 1 && img.Channels() == 3 {
		if img, err = img.grey(); err != nil {
			return g, err
		}
		defer img.Close()
	}
	how := p.how
	if how.backend == Torch {
		if img, err = how.apply(ctx, img, Size{g.ResizedHeight, g.ResizedWidth}); err != nil {
			return g, err
		}
		defer img.Close()
		how.filter = Nearest // nothing is left to resize
	}
	if err := takeLight(ctx); err != nil {
		return g, err
	}
	defer leaveLight()
	if err := toFloat(img, g, how, p.spec.fill(), p.table, dst); err != nil {
		return g, err
	}
	if p.spec.ChannelOrder == "BGR" {
		n := len(dst) / 3
		for i, red := range dst[:n] {
			dst[i], dst[2*n+i] = dst[2*n+i], red
		}
	}
	return g, nil
}

// Load decodes a source as the pipeline does, which the caller closes: for photos that are prepared more than
// once, or whose size has to be known first. Paths and bytes come as RGB, or grey for a model of grey images.
func (p *Pipeline) Load(ctx context.Context, src Source) (*Image, error) {
	switch s := src.(type) {
	case string:
		return open(ctx, s, p.options.Decoder, p.options.DecodeOptions)
	case []byte:
		return p.options.Decoder.Decode(ctx, s, p.options.DecodeOptions)
	case *Image:
		if s == nil {
			break
		}
		return s.alias()
	case image.Image:
		return FromImage(s)
	}
	return nil, fmt.Errorf("%w: got %T, want a path, bytes, an image.Image or a *transforms.Image", ErrSource, src)
}

// parallel runs f(0) to f(n-1), some at once, and gives the error of the lowest i that failed.
func (p *Pipeline) parallel(ctx context.Context, n int, f func(i int) error) error {
	workers := min(p.options.Workers, n)
	if workers <= 1 {
		for i := range n {
			if err := f(i); err != nil {
				return err
			}
		}
		return nil
	}
	var next atomic.Int64
	var stop atomic.Bool
	errs := make([]error, n)
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for !stop.Load() {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if errs[i] = f(i); errs[i] != nil {
					stop.Store(true)
				}
			}
		})
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}
