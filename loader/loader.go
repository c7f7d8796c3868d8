package loader

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"slices"
	"sync"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
)

// Loader gives the batches of a data set. Safe for many goroutines.
type Loader struct {
	set      *dataset.Set
	o        Options
	pipeline *transforms.Pipeline
	// classes is Options.classes; values are what masks' files are read with.
	classes []int
	values  dataset.MaskOptions
	// items are the places of the images that are used.
	items []int
	// fixed is the size of all images; zero where they differ.
	fixed transforms.Size
	cache *cache

	mu      sync.Mutex
	sizes   map[int]transforms.Size // of photos whose header was read
	skipped map[int]error
}

// New makes a loader. The set stays the caller's and is not to be changed.
func New(set *dataset.Set, o Options) (*Loader, error) {
	if set == nil || len(set.Images) == 0 {
		return nil, wrong("got no images, want a data set with at least one")
	}
	if o.Targets == 0 {
		o.Targets = have(set)
	}
	fixed, err := o.prepare()
	if err != nil {
		return nil, err
	}
	if o.List {
		fixed = transforms.Size{}
	}
	pipeline, err := transforms.NewPipeline(o.Spec, transforms.Options{DecodeOptions: o.DecodeOptions, Decoder: o.Decoder})
	if err != nil {
		return nil, fmt.Errorf("loader: %w", err)
	}
	l := &Loader{
		set: set, o: o, pipeline: pipeline, values: o.MaskOptions, fixed: fixed, cache: newCache(o.Cache),
		sizes: map[int]transforms.Size{}, skipped: map[int]error{},
	}
	if l.classes, err = o.classes(set); err != nil {
		return nil, err
	}
	if l.classes != nil {
		l.values.Map = l.maskTable()
	}
	for i := range set.Images {
		use, err := l.use(&set.Images[i])
		if err != nil {
			return nil, err
		}
		if use {
			l.items = append(l.items, i)
		}
	}
	if len(l.items) == 0 {
		return nil, wrong("got no image of the model's classes, want at least one")
	}
	return l, nil
}

// maskTable takes the values of masks' files to the model's classes.
func (l *Loader) maskTable() *[256]uint8 {
	table := new([256]uint8)
	for v := range table {
		class := uint8(v)
		if m := l.o.MaskOptions.Map; m != nil {
			class = m[v]
		}
		if int(class) < len(l.classes) {
			if c := l.classes[class]; c < 0 || c > Ignored {
				class = Ignored
			} else {
				class = uint8(c)
			}
		}
		table[v] = class
	}
	return table
}

// class is the model's class for one of the set's, below 0 for one that is left out.
func (l *Loader) class(c int) int {
	if l.classes == nil || c < 0 || c >= len(l.classes) {
		return c
	}
	return l.classes[c]
}

// use tells whether an image is used, and wants it to have what the targets ask for.
func (l *Loader) use(img *dataset.Image) (bool, error) {
	without := func(what string) error {
		return fmt.Errorf("loader: %w: %s has no %s, and the targets want it", dataset.ErrKind, img.Path, what)
	}
	if l.o.Targets&Classes != 0 {
		if img.Class < 0 {
			return false, without("class")
		}
		if l.class(img.Class) < 0 {
			return false, nil
		}
	}
	// In other kinds of sets an image without objects shows background.
	bare := len(img.Objects) == 0 && slices.Contains([]dataset.Kind{dataset.Folder, dataset.List, dataset.Masks}, l.set.Kind)
	if l.o.Targets&Boxes != 0 && bare {
		return false, without("box")
	}
	if l.o.Targets&InstanceMasks != 0 && !outlined(img.Objects) {
		return false, without("outline of each object")
	}
	if l.o.Targets&Masks != 0 && img.Mask == "" && (bare || l.set.Kind == dataset.VOC || !outlined(img.Objects)) {
		return false, without("mask")
	}
	return true, nil
}

// outlined tells whether every object that counts has an outline or mask.
func outlined(objects []dataset.Object) bool {
	for _, o := range objects {
		if o.Mask == nil && len(o.Polygons) == 0 && !o.Crowd {
			return false
		}
	}
	return true
}

// Images is the number of images of an epoch.
func (l *Loader) Images() int { return len(l.items) }

// Len is the number of steps of an epoch.
func (l *Loader) Len() int {
	n := len(l.items) / l.o.BatchSize
	if len(l.items)%l.o.BatchSize != 0 && !l.o.DropLast {
		n++
	}
	return n
}

// Close gives the cache back; it comes after the loops over Batches. Batches stay. Closing again, or a nil loader, has no effect. It always returns nil.
func (l *Loader) Close() error {
	if l != nil {
		l.cache.close()
	}
	return nil
}

// Skipped are the errors of images that Options.SkipErrors left out so far, one for each, in the set's order.
func (l *Loader) Skipped() (errs []error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.set.Images {
		if err, ok := l.skipped[i]; ok {
			errs = append(errs, err)
		}
	}
	return errs
}

func (l *Loader) skip(i int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.skipped[i] = err
}

// The streams of random numbers; see Options.Seed.
const (
	orderStream   = 1
	augmentStream = 2
)

func (l *Loader) random(epoch, index int, stream uint64) *rand.Rand {
	var seed [32]byte
	for i, v := range []uint64{l.o.Seed, uint64(epoch), uint64(index), stream} {
		binary.LittleEndian.PutUint64(seed[8*i:], v)
	}
	return rand.New(rand.NewChaCha8(seed))
}

// order gives the places of an epoch's images, in its order.
func (l *Loader) order(epoch int) []int {
	if !l.o.Shuffle {
		return l.items
	}
	order := slices.Clone(l.items)
	l.random(epoch, 0, orderStream).Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
	return order
}

// view draws what an image shows in an epoch, and in which colours.
func (l *Loader) view(epoch, index int, photo transforms.Size) (v transforms.View, c *transforms.ColorParams, err error) {
	a := &l.o.Augment
	r := l.random(epoch, index, augmentStream)
	switch {
	case a.RandomResizedCrop != nil:
		v = a.RandomResizedCrop.Params(r, photo)
	case a.ScaleJitter != nil:
		v = a.ScaleJitter.Params(r, photo)
	case a.RandomShortestSize != nil:
		v = a.RandomShortestSize.Params(r, photo)
	case l.o.Size != (transforms.Size{}):
		s := l.o.Size
		v = transforms.ViewOf(transforms.Geometry{
			Height: photo.Height, Width: photo.Width, ResizedHeight: s.Height, ResizedWidth: s.Width,
			OutputHeight: s.Height, OutputWidth: s.Width,
		})
	default:
		v, err = l.pipeline.View(photo)
	}
	if a.HorizontalFlip > 0 {
		v.Flip = transforms.RandomHorizontalFlip{P: a.HorizontalFlip}.Params(r)
	}
	if a.ColorJitter != nil {
		p := a.ColorJitter.Params(r)
		c = &p
	}
	return v, c, err
}

// Batches gives the batches of an epoch from step from on; what lies before is neither read nor drawn. Each batch
// belongs to the caller. After an error, ctx's among them, there are no more. When the loop ends, however, no
// goroutine and no tensor of the loader's is left.
func (l *Loader) Batches(ctx context.Context, epoch, from int) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		if from < 0 || epoch < 0 {
			yield(nil, wrong("got epoch %d from step %d, want 0 or more", epoch, from))
			return
		}
		inner, cancel := context.WithCancel(ctx)
		r := &run{
			Loader: l, ctx: inner, epoch: epoch,
			tasks: make(chan task), queue: make(chan *pending, l.o.Prefetch),
		}
		defer func() {
			cancel()
			r.wait.Wait()
			for p := range r.queue { // the producer closed it
				p.batch.Close()
			}
		}()
		r.wait.Go(func() { r.produce(from) })
		for range l.o.Workers {
			r.wait.Go(r.work)
		}
		given, empty := 0, 0
		for {
			p, more := (*pending)(nil), false
			select {
			case <-ctx.Done():
			case p, more = <-r.queue:
			}
			if p != nil {
				select {
				case <-ctx.Done():
				case <-p.done:
				}
			}
			switch {
			case ctx.Err() != nil:
				if p != nil {
					cancel()
					r.wait.Wait()
					p.batch.Close()
				}
				yield(nil, fmt.Errorf("loader: %w", context.Cause(ctx)))
				return
			case !more:
				if from == 0 && given == 0 && empty > 0 {
					yield(nil, fmt.Errorf("loader: every image was left out; the first: %w", l.Skipped()[0]))
				}
				return
			case p.err != nil:
				cancel()
				r.wait.Wait()
				p.batch.Close()
				yield(nil, p.err)
				return
			case p.batch.Len() == 0:
				empty++
				p.batch.Close()
				continue
			}
			given++
			if !yield(p.batch, nil) {
				return
			}
		}
	}
}

// run is one epoch's loop.
type run struct {
	*Loader
	ctx   context.Context
	epoch int
	wait  sync.WaitGroup
	tasks chan task
	// queue holds the batches that are prepared or in preparation, in order.
	queue chan *pending
}

// task is one image of a batch.
type task struct {
	*pending
	place int
}

// produce queues the batches and hands out their images.
func (r *run) produce(from int) {
	defer close(r.tasks)
	defer close(r.queue)
	order := r.order(r.epoch)
	for step := from; step < r.Len(); step++ {
		start := step * r.o.BatchSize
		indices := order[start:min(start+r.o.BatchSize, len(order))]
		for _, p := range r.split(step, indices) {
			select {
			case <-r.ctx.Done():
				return
			case r.queue <- p:
			}
			if p.err == nil {
				p.err = p.allocate()
			}
			if stop := p.err != nil; stop || len(p.index) == 0 { // no worker will finish it
				close(p.done)
				if stop {
					return
				}
			}
			for k := range p.index {
				select {
				case <-r.ctx.Done():
					return
				case r.tasks <- task{p, k}:
				}
			}
		}
	}
}

// split makes the batches of a step: one, or one for each size that its images come out at.
func (r *run) split(step int, indices []int) []*pending {
	if r.o.List || r.fixed != (transforms.Size{}) {
		return []*pending{r.pending(step, r.fixed, indices)}
	}
	var groups []*pending
	bySize := map[transforms.Size]*pending{}
	for _, i := range indices {
		size, err := r.photoSize(i)
		if err == nil {
			var v transforms.View
			v, _, err = r.view(r.epoch, i, size)
			size = v.Size()
		}
		if err != nil {
			if err = r.fail(i, err); !r.skippable(err) {
				p := r.pending(step, r.fixed, nil)
				p.err = err
				return append(groups, p)
			}
			r.skip(i, err)
			continue
		}
		p := bySize[size]
		if p == nil {
			p = r.pending(step, size, nil)
			bySize[size], groups = p, append(groups, p)
		}
		p.index = append(p.index, i)
	}
	if len(groups) == 0 { // all were left out
		groups = append(groups, r.pending(step, r.fixed, nil))
	}
	return groups
}

// photoSize reads an image's size from its header, where the set does not say it. No image is decoded.
func (l *Loader) photoSize(i int) (transforms.Size, error) {
	img := &l.set.Images[i]
	if img.Width > 0 && img.Height > 0 {
		return transforms.Size{Height: img.Height, Width: img.Width}, nil
	}
	l.mu.Lock()
	size, ok := l.sizes[i]
	l.mu.Unlock()
	if ok {
		return size, nil
	}
	info, err := inspect(img.Path)
	if err != nil {
		return size, err
	}
	size = transforms.Size{Height: info.Height, Width: info.Width}
	if info.Orientation >= 5 && (l.o.DecodeOptions.ApplyEXIF || info.Format == transforms.TIFF) {
		size.Height, size.Width = size.Width, size.Height
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sizes[i] = size
	return size, nil
}

// inspect reads a file's header: its beginning, and all of it where that is not enough.
func inspect(path string) (info transforms.Info, err error) {
	f, err := os.Open(path)
	if err != nil {
		return info, err
	}
	defer f.Close()
	const most = 16 << 10
	head := make([]byte, most)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return info, err
	}
	if info, err = transforms.Inspect(head[:n]); err == nil || n < most {
		return info, err
	}
	rest, err := io.ReadAll(f)
	if err != nil {
		return info, err
	}
	return transforms.Inspect(append(head, rest...))
}

// work prepares images until there are no more.
func (r *run) work() {
	for {
		select {
		case <-r.ctx.Done():
			return
		case t, more := <-r.tasks:
			if !more {
				return
			}
			t.errs[t.place] = r.fail(t.index[t.place], t.prepare(t.place))
			if t.left.Add(-1) == 0 {
				t.finish()
			}
		}
	}
}

// fail names the file in an error that does not.
func (l *Loader) fail(i int, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Index: i, Path: l.set.Images[i].Path, Err: err}
}

// skippable tells whether an error is one image's own. Errors of the program's surroundings would be every image's.
func (r *run) skippable(err error) bool {
	if !r.o.SkipErrors || r.ctx.Err() != nil {
		return false
	}
	for _, e := range []error{transforms.ErrNoDecoder, torch.ErrNotInstalled, torch.ErrOutOfMemory} {
		if errors.Is(err, e) {
			return false
		}
	}
	return true
}
