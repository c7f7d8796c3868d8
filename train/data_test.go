package train_test

import (
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/dataset"
)

// The classes of the tiny models, and of the scenes: squares of these colours on grey.
var (
	classes = []string{"red", "green", "blue"}
	colors  = []color.RGBA{{220, 30, 30, 255}, {30, 200, 40, 255}, {40, 60, 230, 255}}
)

const side = 32

// square is one object of a scene.
type square struct{ class, x, y, size int }

// paint makes a scene of one or two squares apart from each other; the first one's class is given.
func paint(r *rand.Rand, n, class int) (*image.RGBA, []square) {
	img := image.NewRGBA(image.Rect(0, 0, side, side))
	grey := uint8(90 + r.IntN(70))
	draw.Draw(img, img.Bounds(), image.NewUniform(color.RGBA{grey, grey, grey, 255}), image.Point{}, draw.Src)
	var objects []square
	for i := range n {
		s := square{class: class % len(classes), size: 10 + r.IntN(5)}
		class = r.IntN(len(classes))
		s.x, s.y = i*side/2+r.IntN(side/2-s.size+1), r.IntN(side-s.size+1)
		draw.Draw(img, image.Rect(s.x, s.y, s.x+s.size, s.y+s.size), image.NewUniform(colors[s.class]), image.Point{}, draw.Src)
		objects = append(objects, s)
	}
	return img, objects
}

func writePNG(t testing.TB, path string, img image.Image) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, png.Encode(f, img))
}

// folders is a data set of a folder for each class: n squares.
func folders(t testing.TB, n int, seed uint64) *dataset.Set {
	t.Helper()
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range n {
		img, objects := paint(r, 1, i)
		writePNG(t, filepath.Join(dir, classes[objects[0].class], fmt.Sprintf("%03d.png", i)), img)
	}
	set, err := dataset.Read(dir, dataset.Folder, dataset.Options{})
	require.NoError(t, err)
	require.ElementsMatch(t, classes, set.Classes)
	return set
}

// scenes is a data set of COCO's instances, with outlines: n scenes of two squares; names are the categories.
func scenes(t testing.TB, n int, seed uint64, names ...string) *dataset.Set {
	t.Helper()
	if names == nil {
		names = classes
	}
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(seed, 1))
	type object map[string]any
	var images, annotations, categories []object
	for i, name := range names {
		categories = append(categories, object{"id": i + 1, "name": name})
	}
	for i := range n {
		img, objects := paint(r, 2, i)
		file := fmt.Sprintf("%03d.png", i)
		writePNG(t, filepath.Join(dir, file), img)
		images = append(images, object{"id": i + 1, "file_name": file, "width": side, "height": side})
		for _, s := range objects {
			x, y, w := s.x, s.y, s.size
			annotations = append(annotations, object{
				"id": len(annotations) + 1, "image_id": i + 1, "category_id": s.class + 1, "iscrowd": 0, "area": w * w,
				"bbox": []int{x, y, w, w}, "segmentation": [][]int{{x, y, x + w, y, x + w, y + w, x, y + w}},
			})
		}
	}
	text, err := json.Marshal(object{"images": images, "annotations": annotations, "categories": categories})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "instances.json"), text, 0o666))
	set, err := dataset.Read(dir, dataset.COCO, dataset.Options{})
	require.NoError(t, err)
	return set
}

// masks is a data set of images and masks without names: 0 is the background.
func masks(t testing.TB, n int, seed uint64) *dataset.Set {
	t.Helper()
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(seed, 2))
	for i := range n {
		img, objects := paint(r, 2, i)
		mask := image.NewGray(img.Bounds())
		for _, s := range objects {
			draw.Draw(mask, image.Rect(s.x, s.y, s.x+s.size, s.y+s.size), image.NewUniform(color.Gray{uint8(s.class + 1)}), image.Point{}, draw.Src)
		}
		writePNG(t, filepath.Join(dir, "images", fmt.Sprintf("%03d.png", i)), img)
		writePNG(t, filepath.Join(dir, "masks", fmt.Sprintf("%03d.png", i)), mask)
	}
	set, err := dataset.Read(dir, dataset.Masks, dataset.Options{})
	require.NoError(t, err)
	return set
}
