package loader

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
)

func TestMain(m *testing.M) { testmain.Run(m, torch.Config{Device: "cpu"}) }

// scenes are the test scenes, with boxes and outlines.
func scenes(t testing.TB) *dataset.Set {
	t.Helper()
	set, err := dataset.ReadCOCO(filepath.Join(testmain.Root(t), "testdata", "scenes", "instances.json"), "", dataset.Options{})
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(set.Images), 8)
	return set
}

var half = transforms.Spec{Mean: []float64{0.5, 0.5, 0.5}, Std: []float64{0.5, 0.5, 0.5}}

// augmented are options with all that is random.
func augmented() Options {
	return Options{
		BatchSize: 3, Shuffle: true, Seed: 7, Spec: half, Targets: Boxes | Masks | InstanceMasks,
		Augment: Augment{
			RandomResizedCrop: &transforms.RandomResizedCrop{Size: transforms.Size{Height: 96, Width: 128}, Scale: [2]float64{0.3, 1}},
			HorizontalFlip:    0.5,
			ColorJitter: &transforms.ColorJitter{
				Brightness: []float64{0.4}, Contrast: []float64{0.4}, Saturation: []float64{0.4}, Hue: []float64{0.1},
			},
		},
	}
}

// content is a batch as plain values.
type content struct {
	Step                            int
	Index                           []int
	Shapes                          [][]int64
	Images, Boxes                   []float32
	Classes, Masks, Labels, Objects []int64
	Instances                       []uint8
	Views                           []transforms.View
}

func values[T torch.Element](t testing.TB, tensors ...*torch.Tensor) (all []T) {
	t.Helper()
	for _, x := range tensors {
		if x != nil {
			v, err := torch.CopyData[T](x)
			require.NoError(t, err)
			all = append(all, v...)
		}
	}
	return all
}

func contentOf(t testing.TB, b *Batch) content {
	t.Helper()
	c := content{
		Step: b.Step, Index: b.Index, Views: b.Views,
		Images:  values[float32](t, append(slices.Clone(b.List), b.Images)...),
		Classes: values[int64](t, b.Classes), Masks: values[int64](t, b.Masks),
		Boxes: values[float32](t, b.Boxes...), Labels: values[int64](t, b.Labels...),
		Instances: values[uint8](t, b.InstanceMasks...),
	}
	for _, x := range append(slices.Clone(b.List), b.Images, b.Masks) {
		if x != nil {
			c.Shapes = append(c.Shapes, x.Shape())
		}
	}
	for _, x := range b.Labels {
		c.Objects = append(c.Objects, x.Size(0))
	}
	return c
}

// epoch gives all batches of one.
func epoch(t testing.TB, l *Loader, number, from int) (all []content) {
	t.Helper()
	for b, err := range l.Batches(t.Context(), number, from) {
		require.NoError(t, err)
		all = append(all, contentOf(t, b))
		b.Close()
	}
	return all
}

func newLoader(t testing.TB, set *dataset.Set, o Options) *Loader {
	t.Helper()
	l, err := New(set, o)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// steady waits for goroutines that are ending and wants no more than there were.
func steady(t testing.TB, before int) {
	t.Helper()
	for range 200 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	stacks := make([]byte, 1<<16)
	t.Fatalf("got %d goroutines, want %d:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
}

// TestWorkers gives the same bytes with one worker and with eight, with a cache and without, and from any step on;
// other bytes in another epoch and with another seed.
func TestWorkers(t *testing.T) {
	set := scenes(t)
	before := runtime.NumGoroutine()
	o := augmented()
	o.Workers = 1
	want := epoch(t, newLoader(t, set, o), 3, 0)
	require.Len(t, want, (len(set.Images)+2)/3)
	seen := map[int]int{}
	objects := 0
	for i, c := range want {
		require.Equal(t, i, c.Step)
		for _, index := range c.Index {
			seen[index]++
		}
		objects += len(c.Labels)
		require.Greater(t, spread(c.Images), float32(0.5))
	}
	require.Len(t, seen, len(set.Images))
	require.Greater(t, objects, 8)
	// Every image has numbers of its own.
	drawn := map[transforms.View]bool{}
	for i := range 50 {
		v, _, err := newLoader(t, set, o).view(3, i, transforms.Size{Height: 200, Width: 200})
		require.NoError(t, err)
		drawn[v] = true
	}
	require.Greater(t, len(drawn), 45)

	o.Workers, o.Prefetch, o.Cache = 8, 5, 64<<20
	l := newLoader(t, set, o)
	require.Equal(t, want, epoch(t, l, 3, 0))
	require.Equal(t, want, epoch(t, l, 3, 0), "from the cache")
	require.Len(t, l.cache.samples, len(set.Images))
	require.Equal(t, want[2:], epoch(t, l, 3, 2))
	require.Empty(t, epoch(t, l, 3, l.Len()))

	other := epoch(t, l, 4, 0)
	require.NotEqual(t, want[0].Index, other[0].Index)
	require.NotEqual(t, want[0].Images, other[0].Images)
	o.Seed++
	require.NotEqual(t, want[0].Images, epoch(t, newLoader(t, set, o), 3, 0)[0].Images)

	// A cache takes what fits.
	o.Seed--
	o.Cache = l.cache.samples[0].bytes() + l.cache.samples[1].bytes()
	small := newLoader(t, set, o)
	require.Equal(t, want, epoch(t, small, 3, 0))
	require.Equal(t, want, epoch(t, small, 3, 0))
	require.NotEmpty(t, small.cache.samples)
	require.Less(t, len(small.cache.samples), 5)
	require.GreaterOrEqual(t, small.cache.left, int64(0))

	// An image's augmentation does not depend on its place in the epoch.
	o.Shuffle, o.BatchSize = false, 1
	alone := epoch(t, newLoader(t, set, o), 3, want[1].Index[0])[0]
	require.Equal(t, want[1].Images[:len(alone.Images)], alone.Images)
	steady(t, before)
}

func spread(v []float32) float32 { return slices.Max(v) - slices.Min(v) }

// TestTargets compares boxes and both kinds of masks of augmented scenes with each other: each object's mask lies
// within its box, touches it, and has its label in the mask of all.
func TestTargets(t *testing.T) {
	set := scenes(t)
	o := augmented()
	o.Labels = append([]string{"background"}, set.Classes...)
	var objects, labelled, cut, ignored int
	for number := range 3 {
		for b, err := range newLoader(t, set, o).Batches(t.Context(), number, 0) {
			require.NoError(t, err)
			c := contentOf(t, b)
			b.Close()
			n, k := 96*128, 0
			for i, index := range c.Index {
				mask := c.Masks[i*n : (i+1)*n]
				present := map[string]bool{}
				for _, object := range set.Images[index].Objects {
					present[object.Label] = true
				}
				for range c.Objects[i] {
					box, label, instance := c.Boxes[4*k:4*k+4], c.Labels[k], c.Instances[k*n:(k+1)*n]
					k++
					objects++
					require.True(t, present[o.Labels[label]], "%s is not in %s", o.Labels[label], set.Images[index].Path)
					x0, y0, x1, y1, area := 128, 96, 0, 0, 0
					for p, on := range instance {
						if on == 0 {
							continue
						}
						x, y := p%128, p/128
						x0, y0, x1, y1, area = min(x0, x), min(y0, y), max(x1, x+1), max(y1, y+1), area+1
						switch mask[p] {
						case label:
							labelled++
						case Ignored:
							ignored++
						default:
							t.Fatalf("got class %d at (%d, %d), want %d", mask[p], x, y, label)
						}
					}
					if area == 0 { // only a corner of the box is seen
						continue
					}
					const near = 3 // nearest pixels of a part that was made larger
					got := [4]float32{float32(x0), float32(y0), float32(x1), float32(y1)}
					for j := range 2 {
						require.GreaterOrEqual(t, got[j], box[j]-near)
						require.LessOrEqual(t, got[j+2], box[j+2]+near)
					}
					if x0 == 0 || y0 == 0 || x1 == 128 || y1 == 96 {
						cut++
						continue
					}
					for j := range 4 {
						require.InDelta(t, box[j], got[j], near, "object %d of %s: %v", k, set.Images[index].Path, c.Views[i])
					}
				}
			}
		}
	}
	require.Greater(t, objects, 20)
	require.Greater(t, labelled, 20*200)
	require.Greater(t, cut, 3)
	require.Less(t, ignored, labelled/2)
}

// TestEvaluation gives what a transforms.Pipeline gives, in the set's order, in batches of one size.
func TestEvaluation(t *testing.T) {
	set := scenes(t)
	spec := half
	spec.Resize = transforms.ResizeSpec{Rule: transforms.RuleShortestEdge, Size: []int{64}, MultipleOf: 8}
	p, err := transforms.NewPipeline(spec, transforms.Options{})
	require.NoError(t, err)
	// Sizes come from the set or, without them, from the files.
	bare := *set
	bare.Images = slices.Clone(set.Images)
	for i := range bare.Images {
		bare.Images[i].Width, bare.Images[i].Height = 0, 0
	}
	for _, s := range []*dataset.Set{set, &bare} {
		l := newLoader(t, s, Options{BatchSize: 4, Spec: spec})
		steps, images, sizes := map[int]int{}, []int{}, map[string]bool{}
		for b, err := range l.Batches(t.Context(), 0, 0) {
			require.NoError(t, err)
			steps[b.Step] += b.Len()
			images = append(images, b.Index...)
			sizes[fmt.Sprint(b.Images.Shape()[2:])] = true
			var sources []transforms.Source
			for _, i := range b.Index {
				sources = append(sources, set.Images[i].Path)
			}
			want, geometry, err := p.Apply(t.Context(), sources...)
			require.NoError(t, err)
			require.Equal(t, values[float32](t, want), values[float32](t, b.Images))
			want.Close()
			for k, v := range b.Views {
				require.Equal(t, transforms.ViewOf(geometry[k]), v)
				require.Equal(t, int64(len(set.Images[b.Index[k]].Objects)), b.Labels[k].Size(0))
			}
			b.Close()
		}
		require.Greater(t, len(sizes), 1, "the scenes have several sizes")
		require.Len(t, steps, l.Len())
		for step, n := range steps {
			require.Equal(t, min(4, len(set.Images)-4*step), n)
		}
		slices.Sort(images)
		require.Equal(t, l.items, images)
	}
}

// TestList gives images of their own sizes, as torchvision's detectors take them.
func TestList(t *testing.T) {
	set := scenes(t)
	l := newLoader(t, set, Options{BatchSize: 5, List: true})
	n := 0
	for b, err := range l.Batches(t.Context(), 0, 0) {
		require.NoError(t, err)
		require.Nil(t, b.Images)
		require.Len(t, b.List, b.Len())
		for k, i := range b.Index {
			img := set.Images[i]
			require.Equal(t, []int64{3, int64(img.Height), int64(img.Width)}, b.List[k].Shape())
			var want []float32
			var labels []int64
			for _, o := range img.Objects {
				want = append(want, float32(o.Box.X1), float32(o.Box.Y1), float32(o.Box.X2), float32(o.Box.Y2))
				labels = append(labels, set.IDs[o.Class])
			}
			require.Equal(t, want, values[float32](t, b.Boxes[k]))
			require.Equal(t, labels, values[int64](t, b.Labels[k]))
			pixels := values[float32](t, b.List[k])
			require.True(t, slices.Min(pixels) >= 0 && slices.Max(pixels) <= 1 && spread(pixels) > 0.5)
			n++
		}
		b.Close()
	}
	require.Equal(t, len(set.Images), n)
}

// TestMasks reads masks from files, whose values the classes change, and leaves out crowds and classes.
func TestMasks(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		r := image.Rect(0, 0, 12, 8)
		photo, mask := image.NewNRGBA(r), image.NewGray(r)
		for p := range mask.Pix {
			mask.Pix[p] = []byte{0, 1, 2, 255}[p%4]
			photo.SetNRGBA(p%12, p/12, color.NRGBA{byte(60 * (p % 4)), byte(20 * i), 9, 255})
		}
		for folder, img := range map[string]image.Image{"images": photo, "masks": mask} {
			require.NoError(t, os.MkdirAll(filepath.Join(dir, folder), 0o755))
			f, err := os.Create(filepath.Join(dir, folder, fmt.Sprintf("%d.png", i)))
			require.NoError(t, err)
			require.NoError(t, png.Encode(f, img))
			require.NoError(t, f.Close())
		}
	}
	set, err := dataset.Read(dir, "", dataset.Options{})
	require.NoError(t, err)
	require.Equal(t, dataset.Masks, set.Kind)
	check := func(o Options, want ...int64) {
		t.Helper()
		o.BatchSize = 3
		c := epoch(t, newLoader(t, set, o), 0, 0)[0]
		require.Equal(t, []int64{3, 8, 12}, c.Shapes[1])
		for p, v := range c.Masks {
			require.Equal(t, want[p%4], v)
			require.Equal(t, float32(60*(p%4))/255, c.Images[p/96*3*96+p%96])
		}
	}
	check(Options{}, 0, 1, 2, 255)
	check(Options{MaskOptions: dataset.MaskOptions{ReduceZeroLabel: true}}, 255, 0, 1, 255)
	set.Classes = []string{"sky", "sea", "sand"}
	check(Options{Labels: []string{"Sand", "Sky", "Sea"}}, 1, 2, 0, 255)
	check(Options{Classes: []int{-1, 7, 3}}, 255, 7, 3, 255)

	// Objects that are crowds, or of classes that are left out, are in no box and no mask.
	coco := *scenes(t)
	coco.Images = coco.Images[:1]
	img := &coco.Images[0]
	img.Objects = slices.Clone(img.Objects)
	require.GreaterOrEqual(t, len(img.Objects), 2)
	img.Objects[0].Crowd = true
	o := Options{Targets: Masks | InstanceMasks, Classes: make([]int, len(coco.Classes))}
	for i := range o.Classes {
		o.Classes[i] = i + 1
	}
	out := img.Objects[1].Class
	o.Classes[out] = -1
	left, present := 0, map[int64]bool{0: true, Ignored: true}
	for _, object := range img.Objects[1:] {
		if object.Class != out {
			left++
			present[int64(object.Class+1)] = true
		}
	}
	c := epoch(t, newLoader(t, &coco, o), 0, 0)[0]
	require.Len(t, c.Labels, left)
	require.Len(t, c.Instances, left*img.Width*img.Height)
	for _, v := range c.Masks {
		require.True(t, present[v], "got class %d", v)
	}

	// An image of another size than the set says is an error.
	img.Width++
	for b, err := range newLoader(t, &coco, o).Batches(t.Context(), 0, 0) {
		require.Nil(t, b)
		require.ErrorIs(t, err, torch.ErrShape)
	}
}

// TestBreak leaves no goroutine and no tensor when a loop ends early or is cancelled, at any moment.
func TestBreak(t *testing.T) {
	set := scenes(t)
	before := runtime.NumGoroutine()
	o := augmented()
	o.Workers, o.Prefetch = 4, 3
	l := newLoader(t, set, o)
	for stop := range l.Len() {
		for b, err := range l.Batches(t.Context(), 0, 0) {
			require.NoError(t, err)
			b.Close()
			if b.Step == stop {
				break
			}
		}
	}
	why := errors.New("enough")
	for stop := range l.Len() {
		ctx, cancel := context.WithCancelCause(t.Context())
		var last error
		for b, err := range l.Batches(ctx, 0, 0) {
			last = err
			if err != nil {
				continue
			}
			if b.Step == stop {
				cancel(why)
			}
			b.Close()
		}
		if stop < l.Len()-1 || last != nil {
			require.ErrorIs(t, last, why)
		}
		cancel(nil)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	count := 0
	for b, err := range l.Batches(cancelled, 0, 0) {
		require.Nil(t, b)
		require.ErrorIs(t, err, context.Canceled)
		count++
	}
	require.Equal(t, 1, count)
	steady(t, before)
}

// writeFolder makes a set of classes: small pictures, grey and odd ones among them.
func writeFolder(t testing.TB, classes []string, each int) string {
	t.Helper()
	dir := t.TempDir()
	for c, class := range classes {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, class), 0o755))
		for i := range each {
			var img image.Image
			r := image.Rect(0, 0, 20+7*i, 31-i)
			if i%3 == 2 {
				grey := image.NewGray(r)
				for p := range grey.Pix {
					grey.Pix[p] = byte(p*3 + c)
				}
				img = grey
			} else {
				rgb := image.NewNRGBA(r)
				for p := range r.Dx() * r.Dy() {
					rgb.SetNRGBA(p%r.Dx(), p/r.Dx(), color.NRGBA{byte(90 * c), byte(p), byte(40 * i), 255})
				}
				img = rgb
			}
			f, err := os.Create(filepath.Join(dir, class, fmt.Sprintf("%d.png", i)))
			require.NoError(t, err)
			require.NoError(t, png.Encode(f, img))
			require.NoError(t, f.Close())
		}
	}
	return dir
}

// TestFolder gives classes by the model's labels, whatever their order.
func TestFolder(t *testing.T) {
	dir := writeFolder(t, []string{"Ankle boot", "Coat", "T-shirt_top"}, 4)
	set, err := dataset.ReadFolder(dir, dataset.Options{})
	require.NoError(t, err)
	o := Options{
		BatchSize: 5, Spec: half, Labels: []string{"T-shirt/top", "Trouser", "Coat", "ankle boot"},
		Augment: Augment{RandomResizedCrop: &transforms.RandomResizedCrop{Size: transforms.Size{Height: 16, Width: 24}}},
	}
	l := newLoader(t, set, o)
	require.Equal(t, 3, l.Len())
	want := map[int]int64{0: 3, 1: 2, 2: 0}
	seen := 0
	for _, c := range epoch(t, l, 0, 0) {
		require.Equal(t, []int64{int64(len(c.Index)), 3, 16, 24}, c.Shapes[0])
		for k, i := range c.Index {
			require.Equal(t, want[set.Images[i].Class], c.Classes[k])
			seen++
		}
	}
	require.Equal(t, 12, seen)

	o.DropLast = true
	l = newLoader(t, set, o)
	require.Equal(t, 2, l.Len())
	require.Len(t, epoch(t, l, 0, 0), 2)

	// Grey models get grey images.
	o.Spec = transforms.Spec{Mean: []float64{0.5}, Std: []float64{0.5}}
	require.Equal(t, []int64{5, 1, 16, 24}, epoch(t, newLoader(t, set, o), 0, 0)[0].Shapes[0])

	// A class that is left out takes its images with it.
	o.Classes = []int{0, -1, 2}
	l = newLoader(t, set, o)
	require.Equal(t, 8, l.Images())

	o.Classes, o.Labels = nil, []string{"Coat", "Trouser"}
	_, err = New(set, o)
	require.ErrorIs(t, err, dataset.ErrClass)
	require.ErrorContains(t, err, "2 of the data set's 3 classes are none of the model's labels: Ankle boot, T-shirt_top")
}

// TestErrors names the file of an image that cannot be read, and leaves it out where that is asked for.
func TestErrors(t *testing.T) {
	before := runtime.NumGoroutine()
	dir := writeFolder(t, []string{"a", "b"}, 6)
	damaged := []string{filepath.Join(dir, "a", "2.png"), filepath.Join(dir, "b", "0.png")}
	data, err := os.ReadFile(damaged[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(damaged[0], data[:len(data)/2], 0o644)) // the header is whole
	require.NoError(t, os.WriteFile(damaged[1], []byte("no image"), 0o644))
	set, err := dataset.ReadFolder(dir, dataset.Options{})
	require.NoError(t, err)
	gone := filepath.Join(dir, "b", "5.png")
	require.NoError(t, os.Remove(gone))

	for _, size := range []transforms.Size{{Height: 20, Width: 20}, {}} { // of one size, and of the images' own
		o := Options{BatchSize: 4, Size: size, Workers: 3}
		var first error
		for b, err := range newLoader(t, set, o).Batches(t.Context(), 0, 0) {
			if err != nil {
				first = err
				continue
			}
			b.Close()
		}
		require.ErrorIs(t, first, transforms.ErrDecode)
		e, ok := errors.AsType[*Error](first)
		require.True(t, ok)
		require.Equal(t, damaged[0], e.Path)
		require.Equal(t, 2, e.Index)

		o.SkipErrors = true
		l := newLoader(t, set, o)
		var index []int
		for _, c := range epoch(t, l, 0, 0) {
			index = append(index, c.Index...)
			pixels := 0
			for _, s := range c.Shapes {
				pixels += int(s[0] * s[1] * s[2] * s[3])
			}
			require.Len(t, c.Images, pixels)
			for k, i := range c.Index {
				require.Equal(t, int64(set.Images[i].Class), c.Classes[k])
				alone := epoch(t, newLoader(t, set, Options{Size: size, SkipErrors: true}), 0, i)[0]
				n := len(c.Images) / len(c.Index)
				require.Equal(t, alone.Images, c.Images[k*n:(k+1)*n])
			}
		}
		slices.Sort(index)
		require.Equal(t, []int{0, 1, 3, 4, 5, 7, 8, 9, 10}, index)
		skipped := l.Skipped()
		require.Len(t, skipped, 3)
		require.EqualError(t, skipped[2], gone+": no such file or directory")
		require.ErrorContains(t, skipped[1], damaged[1]+": unknown image format")
	}
	// Nothing is left.
	only := *set
	only.Images = []dataset.Image{set.Images[2], set.Images[6]}
	var last error
	for b, err := range newLoader(t, &only, Options{SkipErrors: true, Size: transforms.Size{Height: 8, Width: 8}}).Batches(t.Context(), 0, 0) {
		require.Nil(t, b)
		last = err
	}
	require.ErrorContains(t, last, "every image was left out")
	steady(t, before)
}

// TestOptions gives errors for what makes no sense.
func TestOptions(t *testing.T) {
	set := scenes(t)
	size := transforms.Size{Height: 8, Width: 8}
	for i, o := range []Options{
		{BatchSize: -1},
		{Workers: -1},
		{Prefetch: -1},
		{Cache: -1},
		{Targets: 64},
		{Targets: Classes},
		{List: true, Targets: Masks},
		{Size: transforms.Size{Height: 8}},
		{Classes: []int{1}},
		{Labels: []string{"Zebra"}},
		{Classes: make([]int, len(set.Classes)), Labels: []string{}, Augment: Augment{HorizontalFlip: math.NaN()}},
		{Augment: Augment{RandomResizedCrop: &transforms.RandomResizedCrop{}}},
		{Augment: Augment{RandomResizedCrop: &transforms.RandomResizedCrop{Size: size}, ScaleJitter: &transforms.ScaleJitter{TargetSize: size}}},
		{Augment: Augment{ColorJitter: &transforms.ColorJitter{Hue: []float64{2}}}},
		{Augment: Augment{SanitizeBoundingBoxes: transforms.SanitizeBoundingBoxes{MinVisible: -1}}},
		{Spec: transforms.Spec{Mean: []float64{1, 2}}},
	} {
		_, err := New(set, o)
		require.Error(t, err, "case %d", i)
	}
	_, err := New(&dataset.Set{}, Options{})
	require.ErrorIs(t, err, torch.ErrInvalidArgument)
	for _, from := range [][2]int{{0, -1}, {-1, 0}} {
		for b, err := range newLoader(t, set, Options{}).Batches(t.Context(), from[0], from[1]) {
			require.Nil(t, b)
			require.ErrorIs(t, err, torch.ErrInvalidArgument)
		}
	}
}
