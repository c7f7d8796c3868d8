package loader

import (
	"fmt"
	"sync/atomic"

	"github.com/torchvit/torchvit/coco"
	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
)

// pending is a batch in preparation. Workers write to its places; the one that writes the last finishes it.
type pending struct {
	*run
	size  transforms.Size // of Images
	index []int
	batch *Batch
	errs  []error
	left  atomic.Int32
	err   error
	done  chan struct{}
}

func (r *run) pending(step int, size transforms.Size, index []int) *pending {
	return &pending{run: r, size: size, index: index, batch: &Batch{Step: step}, done: make(chan struct{})}
}

// allocate makes the tensors that all images share.
func (p *pending) allocate() error {
	n := len(p.index)
	b := p.batch
	b.Index, b.Views, p.errs = append([]int(nil), p.index...), make([]transforms.View, n), make([]error, n)
	p.left.Store(int32(n))
	if n == 0 {
		return nil
	}
	list := func() []*torch.Tensor { return make([]*torch.Tensor, n) }
	count, h, w := int64(n), int64(p.size.Height), int64(p.size.Width)
	var err error
	if p.o.List {
		b.List = list()
	} else if b.Images, err = torch.Empty([]int64{count, p.channels(), h, w}, torch.TensorOptions{PinMemory: p.o.PinMemory}); err != nil {
		return err
	}
	integers := torch.TensorOptions{DType: torch.Int64}
	if p.o.Targets&Classes != 0 {
		if b.Classes, err = torch.Empty([]int64{count}, integers); err != nil {
			return err
		}
	}
	if p.o.Targets&Masks != 0 {
		if b.Masks, err = torch.Empty([]int64{count, h, w}, integers); err != nil {
			return err
		}
	}
	if p.o.Targets&Boxes != 0 {
		b.Boxes, b.Labels = list(), list()
	}
	if p.o.Targets&InstanceMasks != 0 {
		b.InstanceMasks = list()
	}
	return nil
}

func (l *Loader) channels() int64 {
	if len(l.o.Spec.Mean) == 1 {
		return 1
	}
	return 3
}

// prepare decodes one image and writes it, and what is true of it, to its place.
func (p *pending) prepare(place int) error {
	i := p.index[place]
	img := &p.set.Images[i]
	s, kept, err := p.sample(i, img)
	if err != nil {
		return err
	}
	if !kept {
		defer s.image.Close()
	}
	photo := transforms.Size{Height: s.image.Height(), Width: s.image.Width()}
	view, color, err := p.view(p.epoch, i, photo)
	if err != nil {
		return err
	}
	b := p.batch
	b.Views[place] = view
	size := view.Size()
	channels := p.channels()
	if p.o.List {
		t, err := torch.Empty([]int64{channels, int64(size.Height), int64(size.Width)}, torch.TensorOptions{PinMemory: p.o.PinMemory})
		if err != nil {
			return err
		}
		b.List[place] = t
		err = torch.WithData(t, func(dst []float32) error { return p.pipeline.WriteView(p.ctx, s.image, view, color, dst) })
		if err != nil {
			return err
		}
	} else {
		if size != p.size {
			return fmt.Errorf("%w: got %d x %d pixels, want the %d x %d of the data set or of its header", torch.ErrShape, size.Width, size.Height, p.size.Width, p.size.Height)
		}
		err = part(b.Images, place, len(p.index), func(dst []float32) error {
			return p.pipeline.WriteView(p.ctx, s.image, view, color, dst)
		})
		if err != nil {
			return err
		}
	}
	if b.Classes != nil {
		err := part(b.Classes, place, len(p.index), func(dst []int64) error {
			dst[0] = int64(p.class(img.Class))
			return nil
		})
		if err != nil {
			return err
		}
	}
	if b.Masks != nil {
		err := part(b.Masks, place, len(p.index), func(dst []int64) error {
			return transforms.ViewMask(view, s.mask.Classes, photo, Ignored, dst)
		})
		if err != nil {
			return err
		}
	}
	if b.Boxes != nil {
		return p.objects(img, photo, view, place)
	}
	return nil
}

// part runs f on one of the n equal parts of a tensor.
func part[T torch.Element](t *torch.Tensor, place, n int, f func(dst []T) error) error {
	return torch.WithData(t, func(data []T) error {
		m := len(data) / n
		return f(data[place*m : (place+1)*m])
	})
}

// sample decodes an image and reads its mask. kept tells that the cache owns it.
func (p *pending) sample(i int, img *dataset.Image) (s *sample, kept bool, err error) {
	if s := p.cache.get(i); s != nil {
		return s, true, nil
	}
	s = &sample{}
	if s.image, err = p.pipeline.Load(p.ctx, img.Path); err != nil {
		return nil, false, err
	}
	w, h := s.image.Width(), s.image.Height()
	if p.o.Targets&^Classes != 0 && img.Width > 0 && img.Height > 0 && (w != img.Width || h != img.Height) {
		err = fmt.Errorf("%w: got %d x %d pixels, want the data set's %d x %d", torch.ErrShape, w, h, img.Width, img.Height)
	} else if p.o.Targets&Masks != 0 {
		s.mask, err = p.mask(img, s.image)
	}
	if err != nil {
		s.image.Close()
		return nil, false, err
	}
	return s, p.cache.put(i, s), nil
}

// mask reads or makes the mask of an image.
func (l *Loader) mask(img *dataset.Image, photo *transforms.Image) (m *dataset.Mask, err error) {
	if img.Mask != "" {
		m, err = dataset.ReadMask(img.Mask, l.values)
	} else {
		sized := *img
		if sized.Width == 0 || sized.Height == 0 {
			sized.Width, sized.Height = photo.Width(), photo.Height()
		}
		m, err = sized.Semantic(l.o.background(), l.class)
	}
	if err == nil && (m.Width != photo.Width() || m.Height != photo.Height()) {
		err = fmt.Errorf("%w: got a mask of %d x %d pixels, want the photo's %d x %d", torch.ErrShape, m.Width, m.Height, photo.Width(), photo.Height())
	}
	return m, err
}

// objects writes the boxes that the view leaves, with their labels and masks. Crowds are left out.
func (p *pending) objects(img *dataset.Image, photo transforms.Size, view transforms.View, place int) (err error) {
	size := view.Size()
	var boxes []float32
	var labels []int64
	var masks []uint8
	var pixels []uint8
	for k, o := range img.Objects {
		class := p.class(o.Class)
		if o.Crowd || class < 0 {
			continue
		}
		box, visible := view.Box([4]float32{float32(o.Box.X1), float32(o.Box.Y1), float32(o.Box.X2), float32(o.Box.Y2)})
		if !p.o.Augment.SanitizeBoundingBoxes.Keep(box, visible, size) {
			continue
		}
		boxes, labels = append(boxes, box[:]...), append(labels, int64(class))
		if p.o.Targets&InstanceMasks == 0 {
			continue
		}
		outline, err := coco.Segmentation{Polygons: o.Polygons, Mask: o.Mask}.RLE(photo.Height, photo.Width)
		if err == nil {
			if pixels == nil {
				pixels = make([]uint8, photo.Height*photo.Width)
			}
			err = outline.DecodeInto(pixels)
		}
		if err != nil {
			return fmt.Errorf("object %d (%s): %w", k+1, o.Label, err)
		}
		n := len(masks)
		masks = append(masks, make([]uint8, size.Height*size.Width)...)
		if err := transforms.ViewMask(view, pixels, photo, 0, masks[n:]); err != nil {
			return err
		}
	}
	b, n := p.batch, int64(len(labels))
	if b.Boxes[place], err = torch.NewTensor(boxes, n, 4); err != nil {
		return err
	}
	if b.Labels[place], err = torch.NewTensor(labels, n); err != nil {
		return err
	}
	if b.InstanceMasks != nil {
		b.InstanceMasks[place], err = torch.NewTensor(masks, n, int64(size.Height), int64(size.Width))
	}
	return err
}

// finish closes up a batch whose images are all prepared or failed.
func (p *pending) finish() {
	defer close(p.done)
	var good []int
	for k, err := range p.errs {
		switch {
		case err == nil:
			good = append(good, k)
		case p.skippable(err):
			p.skip(p.index[k], err)
		default:
			p.err = err
			return
		}
	}
	if len(good) < len(p.index) {
		p.err = p.batch.keep(good)
	}
}

// keep leaves only those images in the batch, in order.
func (b *Batch) keep(good []int) (err error) {
	n := len(b.Index)
	for _, list := range []*[]*torch.Tensor{&b.List, &b.Boxes, &b.Labels, &b.InstanceMasks} {
		if *list == nil {
			continue
		}
		kept := make([]*torch.Tensor, len(good))
		for to, from := range good {
			kept[to], (*list)[from] = (*list)[from], nil
		}
		torch.CloseAll(*list)
		*list = kept
	}
	if err := shrink[float32](&b.Images, n, good); err != nil {
		return err
	}
	if err := shrink[int64](&b.Classes, n, good); err != nil {
		return err
	}
	if err := shrink[int64](&b.Masks, n, good); err != nil {
		return err
	}
	index, views := make([]int, len(good)), make([]transforms.View, len(good))
	for to, from := range good {
		index[to], views[to] = b.Index[from], b.Views[from]
	}
	b.Index, b.Views = index, views
	return nil
}

// shrink moves those of a tensor's n parts to its beginning and leaves them.
func shrink[T torch.Element](t **torch.Tensor, n int, good []int) error {
	if *t == nil {
		return nil
	}
	err := torch.WithData(*t, func(data []T) error {
		m := len(data) / n
		for to, from := range good {
			copy(data[to*m:(to+1)*m], data[from*m:(from+1)*m])
		}
		return nil
	})
	if err != nil {
		return err
	}
	less, err := (*t).Narrow(0, 0, int64(len(good)))
	if err != nil {
		return err
	}
	(*t).Close()
	*t = less
	return nil
}
