package loader

import (
	"fmt"
	"runtime"
	"slices"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
)

// Targets are what a batch holds beside images, or-ed together.
type Targets uint

const (
	// Classes is one class for each image.
	Classes Targets = 1 << iota
	// Boxes are the objects' boxes and labels.
	Boxes
	// Masks is the class of every pixel: of a mask's file, else of the objects' outlines.
	Masks
	// InstanceMasks is a mask for each of Boxes, of its object's outline.
	InstanceMasks
)

// Ignored is the class of pixels that do not count: dataset.Ignored.
const Ignored = dataset.Ignored

// Options say what a Loader makes of a data set. The zero value gives batches of one image in the order of the set.
type Options struct {
	// BatchSize is the number of images of a batch; 0 is 1.
	BatchSize int
	// Workers is how many goroutines prepare images; 0 is GOMAXPROCS.
	Workers int
	// Prefetch is how many batches are prepared ahead of the one that is being used; 0 is 2.
	Prefetch int
	// Shuffle puts the images into another order each epoch: a Fisher-Yates permutation.
	Shuffle bool
	// DropLast leaves out an epoch's last batch where it is smaller.
	DropLast bool
	// Seed is that of all that is random. Each epoch's order, and each image's augmentation in an epoch, has a
	// generator of its own: math/rand/v2's ChaCha8 with, as four little-endian uint64, the Seed, the epoch, the
	// image's place in the set (0 for the order) and 1 for the order or 2 for an augmentation.
	Seed uint64

	// Spec is the model file's preprocess: how bytes become floats, and the size where nothing else gives it.
	Spec transforms.Spec
	// Size, if not zero, is that of all images, in place of the Spec's resize and crop: they are stretched to it,
	// or augmented to it.
	Size transforms.Size
	// Augment is done to images, masks and boxes. Leave it out for evaluation.
	Augment Augment

	// Targets are what is wanted beside images; 0 is what the set has: Classes, Boxes, or Masks of files.
	Targets Targets
	// Labels are the model's labels.
	Labels []string
	// Classes is the model's class for each of the set's classes, as dataset.Set.Match gives it; below 0 it is left
	// out: its images of Classes, its objects of Boxes and Masks, and its pixels in masks' files become Ignored.
	// nil is set.Match(Labels), which wants all classes among the labels.
	Classes []int
	// MaskOptions say what the pixels of masks' files mean, before Classes.
	MaskOptions dataset.MaskOptions
	// Background is the class of pixels where no object is, in masks made of outlines; nil is 0, or Ignored
	// where Labels do not begin with a background.
	Background *uint8

	// List gives images as Batch.List, each of its own size.
	List bool
	// SkipErrors leaves out images that cannot be read or prepared, where else the first ends the epoch. See
	// Loader.Skipped.
	SkipErrors bool
	// Cache is how many bytes of decoded images and masks are kept between epochs, as many as fit; 0 keeps none.
	Cache int64
	// DecodeOptions and Decoder are as for a transforms.Pipeline.
	DecodeOptions transforms.DecodeOptions
	Decoder       transforms.Decoder
	// PinMemory makes Batch.Images in page-locked memory, for a CUDA device.
	PinMemory bool
}

// Augment is what is done to images at random, in this order; the zero value does nothing. Of the first three there
// may be one.
type Augment struct {
	// RandomResizedCrop crops; its Size may be zero where Options.Size or the Spec gives one.
	RandomResizedCrop *transforms.RandomResizedCrop
	// ScaleJitter scales, and crops or pads; its TargetSize may be zero likewise.
	ScaleJitter *transforms.ScaleJitter
	// RandomShortestSize scales; batches have different sizes.
	RandomShortestSize *transforms.RandomShortestSize
	// HorizontalFlip is the probability to mirror.
	HorizontalFlip float64
	// ColorJitter changes the colours of what is shown, not of padding.
	ColorJitter *transforms.ColorJitter
	// SanitizeBoundingBoxes says which boxes stay; its zero value, torchvision's, holds without augmentation too.
	SanitizeBoundingBoxes transforms.SanitizeBoundingBoxes
}

// prepare checks the options and puts in the defaults. fixed is the size of all images, zero for none.
func (o *Options) prepare() (fixed transforms.Size, err error) {
	for name, v := range map[string]*int{"batch size": &o.BatchSize, "workers": &o.Workers, "prefetch": &o.Prefetch} {
		if *v < 0 {
			return fixed, wrong("%s: got %d, want 0 or more", name, *v)
		}
	}
	if o.BatchSize == 0 {
		o.BatchSize = 1
	}
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Prefetch == 0 {
		o.Prefetch = 2
	}
	if o.Cache < 0 {
		return fixed, wrong("cache: got %d bytes, want 0 or more", o.Cache)
	}
	if o.List && o.Targets&Masks != 0 {
		return fixed, wrong("got List with Masks, which are one tensor; want InstanceMasks or no List")
	}
	if o.Targets&^(Classes|Boxes|Masks|InstanceMasks) != 0 {
		return fixed, wrong("targets: got %b, want Classes, Boxes, Masks and InstanceMasks", o.Targets)
	}
	if o.Targets&InstanceMasks != 0 {
		o.Targets |= Boxes
	}
	if o.Size != (transforms.Size{}) {
		if o.Size.Height < 1 || o.Size.Width < 1 {
			return fixed, wrong("size: got %+v, want both sides above 0", o.Size)
		}
		fixed = o.Size
	} else if size, ok := o.Spec.OutputSize(); ok {
		fixed = size
	}
	return o.Augment.prepare(fixed)
}

func (a *Augment) prepare(fixed transforms.Size) (transforms.Size, error) {
	var checks []error
	sizes := 0
	if a.RandomResizedCrop != nil {
		t := *a.RandomResizedCrop
		if t.Size == (transforms.Size{}) {
			t.Size = fixed
		}
		if t.Size == (transforms.Size{}) {
			return fixed, noSize("random resized crop")
		}
		fixed, a.RandomResizedCrop = t.Size, &t
		checks, sizes = append(checks, t.Validate()), sizes+1
	}
	if a.ScaleJitter != nil {
		t := *a.ScaleJitter
		if t.TargetSize == (transforms.Size{}) {
			t.TargetSize = fixed
		}
		if t.TargetSize == (transforms.Size{}) {
			return fixed, noSize("scale jitter")
		}
		fixed, a.ScaleJitter = t.TargetSize, &t
		checks, sizes = append(checks, t.Validate()), sizes+1
	}
	if a.RandomShortestSize != nil {
		fixed = transforms.Size{}
		checks, sizes = append(checks, a.RandomShortestSize.Validate()), sizes+1
	}
	if sizes > 1 {
		return fixed, wrong("augment: got %d of RandomResizedCrop, ScaleJitter and RandomShortestSize, want one", sizes)
	}
	if !(a.HorizontalFlip >= 0 && a.HorizontalFlip <= 1) {
		return fixed, wrong("augment: horizontal flip: got %v, want 0 to 1", a.HorizontalFlip)
	}
	if a.ColorJitter != nil {
		checks = append(checks, a.ColorJitter.Validate())
	}
	for _, err := range append(checks, a.SanitizeBoundingBoxes.Validate()) {
		if err != nil {
			return fixed, fmt.Errorf("loader: augment: %w", err)
		}
	}
	return fixed, nil
}

func noSize(name string) error {
	return wrong("augment: %s: got no size, and the model's preprocess gives none to all images; want Options.Size (--train-size HxW)", name)
}

func wrong(format string, args ...any) error {
	return fmt.Errorf("loader: %w: %s", torch.ErrInvalidArgument, fmt.Sprintf(format, args...))
}

// have is what the set has.
func have(set *dataset.Set) (t Targets) {
	for _, img := range set.Images {
		if img.Class >= 0 {
			t |= Classes
		}
		if len(img.Objects) > 0 {
			t |= Boxes
		}
		if img.Mask != "" {
			t |= Masks
		}
	}
	return t
}

// classes gives the model's class for each of the set's; nil where they are the same.
func (o *Options) classes(set *dataset.Set) ([]int, error) {
	if o.Classes == nil {
		classes, err := set.Match(o.Labels)
		if err != nil {
			return nil, fmt.Errorf("loader: %w", err)
		}
		return classes, nil
	}
	if len(o.Classes) != len(set.Classes) {
		return nil, wrong("classes: got %d, want one for each of the set's %d", len(o.Classes), len(set.Classes))
	}
	for i, c := range o.Classes {
		if len(o.Labels) > 0 && c >= len(o.Labels) {
			return nil, fmt.Errorf("loader: %w: got class %d for %s, and the model has %d labels", dataset.ErrClass, c, set.Classes[i], len(o.Labels))
		}
	}
	return slices.Clone(o.Classes), nil
}

func (o *Options) background() uint8 {
	if o.Background != nil {
		return *o.Background
	}
	if len(o.Labels) > 0 && o.Labels[0] != "background" && o.Labels[0] != "__background__" {
		return Ignored
	}
	return 0
}
