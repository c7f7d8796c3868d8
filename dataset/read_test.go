package dataset_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/dataset"
)

// put writes files below a folder: text, or "jpg WxH" for an image of that size.
func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
	}
}

func putImage(t *testing.T, path string, w, h int) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, jpeg.Encode(f, image.NewGray(image.Rect(0, 0, w, h)), nil))
}

func putPNG(t *testing.T, path string, img image.Image) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, png.Encode(f, img))
}

func TestReadFolder(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{
		"dog/b.JPG": "", "dog/a.png": "", "dog/z/k.webp": "", "dog/z-1/c.tiff": "", "dog/z/deep/q.bmp": "", "dog/notes.txt": "",
		"cat/1.jpeg": "", "Zebra/10.ppm": "", "Zebra/9.pgm": "", "Zebra/.jpg": "", "readme.md": "", "elsewhere/x/1.jpg": "",
	})
	require.NoError(t, os.Rename(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "..", filepath.Base(dir)+"-other")))
	t.Cleanup(func() { os.RemoveAll(dir + "-other") })
	require.NoError(t, os.Symlink(dir+"-other", filepath.Join(dir, "linked")))
	var want struct {
		Classes []string
		Samples [][2]any
	}
	python(t, &want, nil, "folder", dir)
	s, err := dataset.ReadFolder(dir, dataset.Options{})
	require.NoError(t, err)
	assert.Equal(t, want.Classes, s.Classes)
	assert.Equal(t, []string{"Zebra", "cat", "dog", "linked"}, s.Classes)
	require.Len(t, s.Images, len(want.Samples))
	require.Len(t, s.Images, 10)
	for i, img := range s.Images {
		assert.Equal(t, want.Samples[i][0], img.Path)
		assert.EqualValues(t, want.Samples[i][1], img.Class)
		assert.Equal(t, int64(i+1), img.ID)
	}
	kind, err := dataset.Recognize(dir)
	require.NoError(t, err)
	assert.Equal(t, dataset.Folder, kind)
}

func TestFolderFaults(t *testing.T) {
	dir := t.TempDir()
	_, err := dataset.ReadFolder(dir, dataset.Options{})
	require.ErrorIs(t, err, dataset.ErrFormat)
	put(t, dir, map[string]string{"cat/a.jpg": "", "dog/notes.txt": ""})
	_, err = dataset.ReadFolder(dir, dataset.Options{})
	require.ErrorContains(t, err, filepath.Join(dir, "dog")+": not of the expected form: got no image for this class")

	// A link that leads nowhere names what it should lead to.
	require.NoError(t, os.Symlink("/no/such.jpg", filepath.Join(dir, "dog", "gone.jpg")))
	_, err = dataset.ReadFolder(dir, dataset.Options{})
	require.ErrorIs(t, err, dataset.ErrMissing)
	require.ErrorContains(t, err, "gone.jpg, a link to /no/such.jpg: missing")
	s, err := dataset.ReadFolder(dir, dataset.Options{SkipMissing: true})
	require.NoError(t, err)
	assert.Equal(t, []string{filepath.Join(dir, "dog", "gone.jpg")}, s.Missing)
	assert.Len(t, s.Images, 1)

	require.NoError(t, os.Symlink(dir, filepath.Join(dir, "cat", "round")))
	_, err = dataset.ReadFolder(dir, dataset.Options{})
	require.ErrorContains(t, err, "a link to a folder above it")
	_, err = dataset.ReadFolder(filepath.Join(dir, "nothing"), dataset.Options{})
	require.ErrorIs(t, err, dataset.ErrMissing)
}

func TestReadList(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{
		"i/a.jpg": "", "i/b, c.jpg": "", "i/d.jpg": "",
		"plain.csv":  "i/a.jpg,tabby cat\n\"i/b, c.jpg\", dog\ni/d.jpg,tabby cat\n",
		"named.tsv":  "split\tlabel\timage\nval\tdog\ti/a.jpg\nval\t\"cat\ti/d.jpg\n",
		"ids.csv":    "\ufeffpath,label\r\ni/a.jpg,7\r\ni/d.jpg,0\r\n",
		"short.csv":  "i/a.jpg,cat\ni/d.jpg\n",
		"quote.csv":  "i/a.jpg,cat\n\"i/d.jpg,dog\n",
		"absent.csv": "i/a.jpg,cat\ni/gone.jpg,dog\n",
		"empty.csv":  "path,label\n",
	})
	s, err := dataset.ReadList(filepath.Join(dir, "plain.csv"), "", dataset.Options{})
	require.NoError(t, err)
	assert.Equal(t, []string{"dog", "tabby cat"}, s.Classes)
	require.Len(t, s.Images, 3)
	assert.Equal(t, filepath.Join(dir, "i", "b, c.jpg"), s.Images[1].Path)
	assert.Equal(t, []int{1, 0, 1}, []int{s.Images[0].Class, s.Images[1].Class, s.Images[2].Class})

	s, err = dataset.ReadList(filepath.Join(dir, "named.tsv"), "", dataset.Options{})
	require.NoError(t, err)
	assert.Equal(t, []string{"\"cat", "dog"}, s.Classes)
	assert.Equal(t, filepath.Join(dir, "i", "a.jpg"), s.Images[0].Path)

	s, err = dataset.ReadList(filepath.Join(dir, "ids.csv"), "", dataset.Options{})
	require.NoError(t, err)
	assert.Empty(t, s.Classes)
	assert.Equal(t, []int{7, 0}, []int{s.Images[0].Class, s.Images[1].Class})

	for name, want := range map[string]string{
		"short.csv": "short.csv:2: not of the expected form: got 1 field", "quote.csv": "quote.csv:",
		"absent.csv": "absent.csv:2: missing: ", "empty.csv": "got no line",
	} {
		_, err := dataset.ReadList(filepath.Join(dir, name), "", dataset.Options{})
		require.ErrorContains(t, err, want)
	}
	s, err = dataset.ReadList(filepath.Join(dir, "absent.csv"), "", dataset.Options{SkipMissing: true})
	require.NoError(t, err)
	assert.Equal(t, []string{filepath.Join(dir, "i", "gone.jpg")}, s.Missing)
}

const vocXML = `<annotation>
	<filename>street.jpg</filename>
	<size><width>500</width><height>375</height><depth>3</depth></size>
	<object><name>dog</name><pose>Left</pose><truncated>1</truncated><difficult>1</difficult>
		<bndbox><xmax>500</xmax><xmin>1</xmin><ymin>1</ymin><ymax>375</ymax></bndbox>
		<part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>20</xmax><ymax>20</ymax></bndbox></part>
	</object>
	<object><name>car</name><bndbox><xmin>45.7</xmin><ymin>8</ymin><xmax>90</xmax><ymax>8</ymax></bndbox></object>
</annotation>
`

func TestParseVOC(t *testing.T) {
	img, err := dataset.ParseVOC([]byte(vocXML), "street.xml")
	require.NoError(t, err)
	assert.Equal(t, dataset.Image{Path: "street.jpg", Width: 500, Height: 375, Class: -1, Objects: []dataset.Object{
		{Label: "dog", Box: dataset.Box{X2: 500, Y2: 375}, Truncated: true, Difficult: true},
		{Label: "car", Box: dataset.Box{X1: 44.7, Y1: 7, X2: 90, Y2: 8}},
	}}, img)
	for want, text := range map[string]string{
		"a.xml:3: not of the expected form: got xmin \"x\" of a car, want pixels": "<annotation>\n<object><name>car</name>\n<bndbox><xmin>x</xmin></bndbox></object></annotation>",
		"a.xml:2: not of the expected form: object 1 (car) has no bndbox":         "<annotation>\n<object><name>car</name></object></annotation>",
		"object 1 has no name": "<annotation><object/></annotation>",
		"a.xml:1: not of the expected form: got a car from (9, 1) to (3, 2)":      "<annotation><object><name>car</name><bndbox><xmin>9</xmin><ymin>1</ymin><xmax>3</xmax><ymax>2</ymax></bndbox></object></annotation>",
		"a.xml:1: not of the expected form: got <html>, want <annotation>":        "<html></html>",
		"a.xml:2: not of the expected form: got width \"wide\", want pixels":      "<annotation>\n<size><width>wide</width></size></annotation>",
		"a.xml:1: not of the expected form: got difficult \"maybe\", want 0 or 1": "<annotation><object><name>c</name><difficult>maybe</difficult></object></annotation>",
		"a.xml:2: not of the expected form: ":                                     "<annotation>\n<object></annotation>",
	} {
		_, err := dataset.ParseVOC([]byte(text), "a.xml")
		require.ErrorIs(t, err, dataset.ErrFormat)
		require.ErrorContains(t, err, want)
	}
}

func TestReadVOC(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{
		"Annotations/one.xml": vocXML, "Annotations/two.xml": vocXML, "Annotations/three.xml": "<annotation/>",
		"JPEGImages/one.jpg": "", "JPEGImages/two.PNG": "", "JPEGImages/three.jpg": "",
	})
	s, err := dataset.ReadVOC(dir, dataset.Options{})
	require.NoError(t, err)
	assert.Len(t, s.Images, 3, "without lists all")
	put(t, dir, map[string]string{"ImageSets/Main/val.txt": "two  1\n\none -1\n", "ImageSets/Main/train.txt": "three\nfour\n"})
	s, err = dataset.Read(dir, "", dataset.Options{})
	require.NoError(t, err)
	assert.Equal(t, []string{"car", "dog"}, s.Classes)
	require.Len(t, s.Images, 2)
	assert.Equal(t, filepath.Join(dir, "JPEGImages", "two.PNG"), s.Images[0].Path)
	assert.Equal(t, 1, s.Images[0].Objects[0].Class)
	assert.Equal(t, 0, s.Images[0].Objects[1].Class)

	_, err = dataset.ReadVOC(dir, dataset.Options{Split: "train"})
	require.ErrorIs(t, err, dataset.ErrMissing)
	require.ErrorContains(t, err, "train.txt:2: missing: "+filepath.Join(dir, "Annotations", "four.xml"))
	_, err = dataset.ReadVOC(dir, dataset.Options{Split: "minival"})
	require.ErrorIs(t, err, dataset.ErrMissing)

	putPNG(t, filepath.Join(dir, "SegmentationClass", "one.png"), image.NewGray(image.Rect(0, 0, 3, 2)))
	put(t, dir, map[string]string{"class_names.txt": "__ignore__\n_background_\ncar\n"})
	s, err = dataset.ReadVOC(dir, dataset.Options{Segmentation: true})
	require.NoError(t, err)
	assert.Equal(t, []string{"_background_", "car"}, s.Classes)
	require.Len(t, s.Images, 1)
	assert.Equal(t, filepath.Join(dir, "SegmentationClass", "one.png"), s.Images[0].Mask)
}

// TestVOCRoundTrip reads what was written: boxes at whole pixels come back.
func TestVOCRoundTrip(t *testing.T) {
	img := street
	img.Objects = []dataset.Object{
		{Label: "car", Box: dataset.Box{X1: 3, Y1: 4, X2: 30, Y2: 44}, Score: 0.5},
		{Label: "dog", Box: dataset.Box{X1: 0, Y1: 0, X2: 500, Y2: 375}, Score: 0.25, Difficult: true, Truncated: true},
		{Label: "dog", Box: dataset.Box{X1: 499, Y1: 374, X2: 500, Y2: 375}, Score: 0.125},
	}
	path := filepath.Join(t.TempDir(), "a.xml")
	require.NoError(t, dataset.WriteVOC(path, img, dataset.VOCOptions{Scores: true}))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	got, err := dataset.ParseVOC(text, path)
	require.NoError(t, err)
	assert.Equal(t, img.Objects, got.Objects)
	assert.Equal(t, []int{500, 375}, []int{got.Width, got.Height})
}

func TestReadYOLO(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string][2]int{"images/val/a.jpg": {200, 100}, "images/val/b.jpg": {64, 48}, "images/val/sub/c.jpg": {30, 50}, "images/train/t.jpg": {8, 8}} {
		putImage(t, filepath.Join(dir, filepath.FromSlash(name)), size[0], size[1])
	}
	put(t, dir, map[string]string{
		"data.yaml":            "path: .\ntrain: images/train\nval: images/val\nnc: 3\nnames:\n  0: cat\n  1: dog\n  2: traffic light\n",
		"labels/val/a.txt":     "0 0.5 0.5 0.25 0.5\n2 0.1 0.2 0.05 0.1\n2 0.1 0.2 0.05 0.1\n",
		"labels/val/sub/c.txt": "1 0.1 0.1 0.5 0.2 0.4 0.9\n",
	})
	s, err := dataset.Read(dir, "", dataset.Options{})
	require.NoError(t, err)
	assert.Equal(t, dataset.YOLO, s.Kind)
	assert.Equal(t, []string{"cat", "dog", "traffic light"}, s.Classes)
	require.Len(t, s.Images, 3)
	assert.Equal(t, []dataset.Object{
		{Label: "cat", Class: 0, Box: dataset.Box{X1: 75, Y1: 25, X2: 125, Y2: 75}},
		{Label: "traffic light", Class: 2, Box: dataset.Box{X1: 15, Y1: 15, X2: 25, Y2: 25}},
	}, s.Images[0].Objects, "a line counts once")
	assert.Empty(t, s.Images[1].Objects, "an image without labels holds nothing")
	require.Len(t, s.Images[2].Objects, 1)
	assert.InDeltaSlice(t, []float64{3, 5, 15, 10, 12, 45}, s.Images[2].Objects[0].Polygons[0], 1e-12)
	assert.InDelta(t, 45, s.Images[2].Objects[0].Box.Y2, 1e-12)

	var theirs struct {
		Classes []string
		Images  map[string]struct {
			XYXY    [][4]float64
			ClassID []int `json:"class_id"`
		}
	}
	python(t, &theirs, nil, "yolo", filepath.Join(dir, "images", "val"), filepath.Join(dir, "labels", "val"), filepath.Join(dir, "data.yaml"))
	assert.Equal(t, theirs.Classes, s.Classes)
	require.Len(t, theirs.Images["a.jpg"].XYXY, 3)
	for i, o := range s.Images[0].Objects {
		want := theirs.Images["a.jpg"].XYXY[i]
		assert.InDeltaSlice(t, want[:], []float64{o.Box.X1, o.Box.Y1, o.Box.X2, o.Box.Y2}, 1e-4)
		assert.Equal(t, theirs.Images["a.jpg"].ClassID[i], o.Class)
	}

	// What is written is read again.
	labels := filepath.Join(dir, "labels", "train", "t.txt")
	require.NoError(t, os.MkdirAll(filepath.Dir(labels), 0o777))
	require.NoError(t, dataset.WriteYOLO(labels, s.Images[2], dataset.YOLOOptions{Polygons: true}))
	again, err := dataset.ReadYOLO(dir, dataset.Options{Split: "train"})
	require.NoError(t, err)
	require.Len(t, again.Images, 1)
	require.Len(t, again.Images[0].Objects, 1)
	assert.InDeltaSlice(t, []float64{0.8, 0.8, 4, 1.6, 3.2, 7.2}, again.Images[0].Objects[0].Polygons[0], 1e-5)
}

func TestYOLOForms(t *testing.T) {
	dir := t.TempDir()
	putImage(t, filepath.Join(dir, "train", "images", "a.jpg"), 10, 10)
	put(t, dir, map[string]string{
		"data.yaml":              "train: ../train/images\nval: \nnames: [cat, dog]\nnc: 2\nroboflow: {project: x}\n",
		"train/labels/a.txt":     "1 0.5 0.5 1 1 0.25\n",
		"list.yaml":              "val: some.txt\nnames: [cat, dog]\n",
		"some.txt":               "train/images/a.jpg\ntrain/images/gone.jpg\n",
		"plain/classes.txt":      "cat\ndog\n",
		"plain/labels/val/a.txt": "0 0.5 0.5 1 1\n",
	})
	putImage(t, filepath.Join(dir, "plain", "images", "val", "a.jpg"), 4, 4)
	s, err := dataset.ReadYOLO(dir, dataset.Options{})
	require.NoError(t, err)
	assert.Equal(t, []dataset.Object{{Label: "dog", Class: 1, Box: dataset.Box{X2: 10, Y2: 10}, Score: 0.25}}, s.Images[0].Objects)
	_, err = dataset.ReadYOLO(filepath.Join(dir, "list.yaml"), dataset.Options{})
	require.ErrorIs(t, err, dataset.ErrMissing)
	require.ErrorContains(t, err, "some.txt:2: ")
	s, err = dataset.ReadYOLO(filepath.Join(dir, "list.yaml"), dataset.Options{SkipMissing: true})
	require.NoError(t, err)
	assert.Len(t, s.Images, 1)
	assert.Len(t, s.Missing, 1)
	s, err = dataset.Read(filepath.Join(dir, "plain"), "", dataset.Options{})
	require.NoError(t, err)
	assert.Equal(t, "cat", s.Images[0].Objects[0].Label)
	for text, want := range map[string]string{
		"0 0.5 0.5 1\n":                  "a.txt:1: not of the expected form: got 4 numbers",
		"0 0.5 0.5 1 1\n5 0.5 0.5 1 1\n": "a.txt:2: unknown class: got class 5, want 0 to 1",
		"\n0.5 0.5 0.5 1 1\n":            "a.txt:2: not of the expected form: got class 0.5",
		"0 200 0.5 1 1\n":                "got 200, want a share of the image",
		"0 0.5 nan 1 1\n":                "got \"nan\", want a number",
		"0 0.5 0.5 -0.001 1\n":           "got a box of -0.001x1",
		"cat 0.5 0.5 1 1\n":              "got \"cat\", want a number",
	} {
		_, err := dataset.ParseYOLO([]byte(text), "a.txt", []string{"cat", "dog"}, 10, 10)
		require.ErrorContains(t, err, want)
	}
	for text, want := range map[string]string{
		"names: {0: a, 2: b}\nval: x\n": "got names without 1", "nc: 2\nnames: [a]\n": "got 1 names and nc: 2", "val: [": "yaml",
		"val: x\n": "got no names", "names: 3\n": "neither a list nor a map", "names: [a]\n": "got no val",
	} {
		put(t, dir, map[string]string{"bad.yaml": text})
		_, err := dataset.ReadYOLO(filepath.Join(dir, "bad.yaml"), dataset.Options{})
		require.ErrorIs(t, err, dataset.ErrFormat)
		require.ErrorContains(t, err, want)
	}
}

func TestReadMask(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(3, 5))
	r := image.Rect(0, 0, 37, 21)
	var paths []string
	save := func(name string, img image.Image) {
		paths = append(paths, filepath.Join(dir, name))
		putPNG(t, paths[len(paths)-1], img)
	}
	for _, colors := range []int{256, 16, 4, 2} { // 8, 4, 2 and 1 bit in a pixel
		p := image.NewPaletted(r, nil)
		for i := range colors {
			p.Palette = append(p.Palette, color.RGBA{uint8(i), uint8(255 - i), 7, 255})
		}
		for i := range p.Pix {
			p.Pix[i] = uint8(rng.IntN(colors))
		}
		save("palette"+string(rune('a'+colors%26))+".png", p)
	}
	gray, wide := image.NewGray(r), image.NewGray16(r)
	for i := range gray.Pix {
		gray.Pix[i] = uint8(rng.IntN(256))
		wide.Pix[2*i+1] = uint8(rng.IntN(256))
	}
	save("gray.png", gray)
	save("wide.png", wide)
	save("part.png", gray.SubImage(image.Rect(3, 2, 20, 11)))
	paths = append(paths, "../testdata/images/formats/png_1bit.png", "../testdata/images/formats/png_palette.png", "../testdata/images/formats/png_grey.png")
	var want []struct {
		Shape []int
		Sum   int
		CRC   uint32
	}
	python(t, &want, nil, append([]string{"masks"}, paths...)...)
	for i, path := range paths {
		m, err := dataset.ReadMask(path, dataset.MaskOptions{})
		require.NoError(t, err)
		assert.Equal(t, want[i].Shape, []int{m.Height, m.Width}, path)
		sum, crc := 0, crc32.NewIEEE()
		for _, v := range m.Classes {
			sum += int(v)
			require.NoError(t, binary.Write(crc, binary.LittleEndian, int64(v)))
		}
		assert.Equal(t, want[i].Sum, sum, path)
		assert.Equal(t, want[i].CRC, crc.Sum32(), path)
		assert.Positive(t, sum)
	}

	m, err := dataset.ReadMask(paths[4], dataset.MaskOptions{ReduceZeroLabel: true})
	require.NoError(t, err)
	for i, v := range gray.Pix {
		if v != 255 {
			v-- // numpy: label[label == 0] = 255; label = label - 1; label[label == 254] = 255
		}
		require.Equal(t, v, m.Classes[i])
	}
	m, err = dataset.ReadMask(paths[4], dataset.MaskOptions{Map: dataset.CityscapesTrainIDs()})
	require.NoError(t, err)
	trainIDs := map[uint8]uint8{7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
	mapped := 0
	for i, v := range gray.Pix {
		id, ok := trainIDs[v]
		if !ok {
			id = 255
		} else {
			mapped++
		}
		require.Equal(t, id, m.Classes[i])
	}
	assert.Greater(t, mapped, 20)

	wide.Pix[0] = 1
	save("big.png", wide)
	_, err = dataset.ReadMask(paths[len(paths)-1], dataset.MaskOptions{})
	require.ErrorContains(t, err, "at (0, 0), want at most 255")
	_, err = dataset.ReadMask("../testdata/images/formats/png_rgb.png", dataset.MaskOptions{})
	require.ErrorContains(t, err, "a picture of colours, want a mask with a palette or in grey")
	_, err = dataset.ReadMask("../testdata/images/rocket.jpg", dataset.MaskOptions{})
	require.ErrorIs(t, err, dataset.ErrFormat)
}

func TestReadMasks(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{
		"images/validation/a.jpg": "", "images/validation/b/c.png": "", "annotations/validation/a.png": "", "annotations/validation/b/c.png": "",
		"images/training/x.jpg": "",
	})
	s, err := dataset.Read(dir, "", dataset.Options{})
	require.NoError(t, err)
	require.Len(t, s.Images, 2)
	assert.Equal(t, filepath.Join(dir, "annotations", "validation", "b", "c.png"), s.Images[1].Mask)
	put(t, dir, map[string]string{"annotations/validation/extra.png": ""})
	_, err = dataset.Read(dir, "", dataset.Options{})
	require.ErrorIs(t, err, dataset.ErrMissing)
	require.ErrorContains(t, err, "extra.png: missing: its image")
	s, err = dataset.Read(dir, "", dataset.Options{SkipMissing: true})
	require.NoError(t, err)
	assert.Len(t, s.Missing, 1)
	put(t, dir, map[string]string{"images/validation/lonely.jpg": ""})
	_, err = dataset.Read(dir, "", dataset.Options{SkipMissing: true})
	require.ErrorContains(t, err, "lonely.jpg: missing: its mask")
	_, err = dataset.Read(dir, "", dataset.Options{Split: "testing"})
	require.ErrorIs(t, err, dataset.ErrMissing)

	inside := t.TempDir()
	put(t, inside, map[string]string{"a.png": "", "masks/a.png": ""})
	s, err = dataset.Read(inside, "", dataset.Options{Masks: filepath.Join(inside, "masks")})
	require.NoError(t, err)
	require.Len(t, s.Images, 1)
	assert.Equal(t, filepath.Join(inside, "a.png"), s.Images[0].Path)

	city := t.TempDir()
	put(t, city, map[string]string{
		"leftImg8bit/val/ulm/ulm_1_leftImg8bit.png": "", "gtFine/val/ulm/ulm_1_gtFine_labelIds.png": "", "gtFine/val/ulm/ulm_1_gtFine_color.png": "",
	})
	s, err = dataset.Read(city, "", dataset.Options{})
	require.NoError(t, err)
	require.Len(t, s.Images, 1)
	assert.Equal(t, filepath.Join(city, "gtFine", "val", "ulm", "ulm_1_gtFine_labelIds.png"), s.Images[0].Mask)
}

func TestRecognizeRefuses(t *testing.T) {
	dir := t.TempDir()
	_, err := dataset.Recognize(dir)
	require.ErrorIs(t, err, dataset.ErrKind)
	put(t, dir, map[string]string{"a.zip": "", "one.yaml": "", "two.yaml": ""})
	_, err = dataset.Recognize(filepath.Join(dir, "a.zip"))
	require.ErrorIs(t, err, dataset.ErrKind)
	_, err = dataset.Recognize(dir)
	require.ErrorContains(t, err, "one.yaml")
	_, err = dataset.Recognize(filepath.Join(dir, "nothing"))
	require.ErrorIs(t, err, dataset.ErrMissing)
	_, err = dataset.Read(dir, "odd", dataset.Options{})
	require.ErrorIs(t, err, dataset.ErrKind)
}

func FuzzParseVOC(f *testing.F) {
	f.Add([]byte(vocXML))
	f.Add([]byte("<annotation><object><name>a</name><bndbox/></object></annotation>"))
	f.Fuzz(func(t *testing.T, text []byte) {
		img, err := dataset.ParseVOC(text, "a.xml")
		if err != nil {
			require.ErrorIs(t, err, dataset.ErrFormat)
			return
		}
		for _, o := range img.Objects {
			require.Less(t, o.Box.X1, o.Box.X2)
			require.Less(t, o.Box.Y1, o.Box.Y2)
			require.NotEmpty(t, o.Label)
		}
		if img.Width > 0 && img.Height > 0 {
			require.NoError(t, dataset.EncodeVOC(io.Discard, img, dataset.VOCOptions{Scores: true}))
		}
	})
}

func FuzzParseYOLO(f *testing.F) {
	f.Add("0 0.5 0.5 0.25 0.5\n2 0.1 0.2 0.05 0.1 0.9\n1 0.1 0.1 0.5 0.2 0.4 0.9\n")
	f.Fuzz(func(t *testing.T, text string) {
		objects, err := dataset.ParseYOLO([]byte(text), "a.txt", nil, 640, 480)
		if err != nil {
			require.Contains(t, err.Error(), "a.txt:")
			return
		}
		require.NoError(t, dataset.EncodeYOLO(io.Discard, dataset.Image{Width: 640, Height: 480, Objects: objects}, dataset.YOLOOptions{Polygons: true}))
	})
}

func FuzzDecodeMask(f *testing.F) {
	r := image.Rect(0, 0, 5, 3)
	for _, img := range []image.Image{image.NewGray(r), image.NewGray16(r), image.NewPaletted(r, color.Palette{color.Black, color.White}), image.NewNRGBA(r)} {
		var text bytes.Buffer
		require.NoError(f, png.Encode(&text, img))
		f.Add(text.Bytes())
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 24 && (binary.BigEndian.Uint32(text[16:]) > 512 || binary.BigEndian.Uint32(text[20:]) > 512) {
			t.Skip("more than 512 pixels a side: decoding would take the time of thousands of small ones")
		}
		m, err := dataset.DecodeMask(bytes.NewReader(text), "a.png", dataset.MaskOptions{ReduceZeroLabel: true})
		if err != nil {
			require.ErrorIs(t, err, dataset.ErrFormat)
			return
		}
		require.Len(t, m.Classes, m.Width*m.Height)
	})
}

// FuzzReadText feeds data.yaml and lists.
func FuzzReadText(f *testing.F) {
	f.Add("names: [a, b]\nval: images\n")
	f.Add("path,label\na.jpg,cat\n")
	f.Add("names: &x {0: a}\nval: *x\n")
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		put(t, dir, map[string]string{"data.yaml": text, "list.csv": text, "list.tsv": text})
		for _, name := range []string{"data.yaml", "list.csv", "list.tsv"} {
			_, err := dataset.Read(filepath.Join(dir, name), "", dataset.Options{SkipMissing: true})
			if err != nil {
				var e *dataset.Error
				require.ErrorAs(t, err, &e)
			}
		}
	})
}

// A part that is asked for and not there is told from files that are missing.
func TestReadSplit(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
	}
	write("annotations/instances_val.json", `{"images": [{"id": 1, "file_name": "a.jpg", "width": 4, "height": 4}], "annotations": [], "categories": []}`)
	_, err := dataset.Read(dir, dataset.COCO, dataset.Options{Split: "train"})
	require.ErrorIs(t, err, dataset.ErrSplit)
	assert.ErrorContains(t, err, "instances_val.json and the split train")
	_, err = dataset.Read(dir, dataset.COCO, dataset.Options{Split: "val"})
	require.ErrorIs(t, err, dataset.ErrMissing)
	require.NotErrorIs(t, err, dataset.ErrSplit)
}
