package dataset

import (
	"bufio"
	"encoding/binary"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Ignored is the class of pixels that do not count, by custom.
const Ignored = 255

// Mask is the class of every pixel, row by row from the top left.
type Mask struct {
	Width, Height int
	Classes       []uint8
}

// MaskOptions say what the values of a mask's pixels mean. The zero value takes them as classes.
type MaskOptions struct {
	// ReduceZeroLabel is mmsegmentation's reduce_zero_label, for ADE20K: 0 becomes Ignored, 1 becomes 0, 2
	// becomes 1 and so on; Ignored stays.
	ReduceZeroLabel bool
	// Map gives each value its class, after ReduceZeroLabel; nil changes nothing. See CityscapesTrainIDs.
	Map *[256]uint8
}

// CityscapesTrainIDs maps the ids of Cityscapes' labelIds files to the 19 classes that models are trained on;
// all else is Ignored. The table is that of cityscapesScripts' labels.py.
func CityscapesTrainIDs() *[256]uint8 {
	var m [256]uint8
	for i := range m {
		m[i] = Ignored
	}
	for class, id := range []int{7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33} {
		m[id] = uint8(class)
	}
	return &m
}

// maxMaskPixels bounds what is decoded of one mask: Pillow's limit for images, twice over.
const maxMaskPixels = 2 * 89_478_485

// ReadMask reads a mask from a PNG: the indices of one with a palette, the values of a grey one, of one bit
// 0 and 1, as numpy.array(PIL.Image.open(path)) has them. A coloured picture, or a value above 255 in one of
// 16 bits, is an error.
func ReadMask(path string, o MaskOptions) (*Mask, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fileError(path, err)
	}
	defer f.Close()
	return DecodeMask(f, path, o)
}

// DecodeMask is ReadMask of what is open already; path is for errors.
func DecodeMask(r io.Reader, path string, o MaskOptions) (*Mask, error) {
	b := bufio.NewReader(r)
	const depthAt = 24 // in the header that every PNG begins with
	head, _ := b.Peek(depthAt + 1)
	if len(head) <= depthAt || string(head[:8]) != "\x89PNG\r\n\x1a\n" {
		return nil, wrong(path, 0, ErrFormat, "got no PNG, want a mask with a palette or in grey")
	}
	if w, h := binary.BigEndian.Uint32(head[16:]), binary.BigEndian.Uint32(head[20:]); uint64(w)*uint64(h) > maxMaskPixels {
		return nil, wrong(path, 0, ErrFormat, "got a mask of %dx%d, want at most %d pixels", w, h, maxMaskPixels)
	}
	depth := head[depthAt]
	img, err := png.Decode(b)
	if err != nil {
		return nil, wrong(path, 0, ErrFormat, "%v", err)
	}
	m := &Mask{Width: img.Bounds().Dx(), Height: img.Bounds().Dy()}
	switch p := img.(type) {
	case *image.Paletted:
		m.Classes = packed(p.Pix, p.Stride, m.Width, m.Height)
	case *image.Gray:
		m.Classes = packed(p.Pix, p.Stride, m.Width, m.Height)
		if depth == 1 {
			for i, v := range m.Classes {
				m.Classes[i] = v & 1
			}
		}
	case *image.Gray16:
		m.Classes = make([]uint8, m.Width*m.Height)
		for i := range m.Classes {
			x, y := i%m.Width, i/m.Width
			v := p.Gray16At(x, y).Y
			if v > 255 {
				return nil, wrong(path, 0, ErrFormat, "got the class %d at (%d, %d), want at most 255", v, x, y)
			}
			m.Classes[i] = uint8(v)
		}
	default:
		return nil, wrong(path, 0, ErrFormat, "got a picture of %s, want a mask with a palette or in grey", modelName(img.ColorModel()))
	}
	o.apply(m.Classes)
	return m, nil
}

func modelName(m color.Model) string {
	switch m {
	case color.NRGBAModel, color.NRGBA64Model:
		return "colours with alpha"
	}
	return "colours"
}

// packed gives the pixels without what stands between rows.
func packed(pix []uint8, stride, width, height int) []uint8 {
	if stride == width {
		return pix[:width*height]
	}
	out := make([]uint8, 0, width*height)
	for y := range height {
		out = append(out, pix[y*stride:y*stride+width]...)
	}
	return out
}

func (o MaskOptions) apply(classes []uint8) {
	if !o.ReduceZeroLabel && o.Map == nil {
		return
	}
	var table [256]uint8
	for i := range table {
		v := uint8(i)
		if o.ReduceZeroLabel && v != Ignored {
			v-- // 0 becomes 255
		}
		if o.Map != nil {
			v = o.Map[v]
		}
		table[i] = v
	}
	for i, v := range classes {
		classes[i] = table[v]
	}
}

// cityscapes are the ends of Cityscapes' names.
var cityscapes = [2]string{"_leftImg8bit.png", "_gtFine_labelIds.png"}

// ReadMasks reads a folder of images and one of masks, PNG files, that have the same folders and names inside.
// An image without a mask, or a mask without an image, is ErrMissing. Options.ImageSuffix and MaskSuffix name
// the ends of the names where they differ.
func ReadMasks(images, masks string, o Options) (*Set, error) {
	files, err := walk(images, nil)
	if err != nil {
		return nil, err
	}
	maskFiles, err := walk(masks, nil)
	if err != nil {
		return nil, err
	}
	imageSuffix, maskSuffix := o.ImageSuffix, o.MaskSuffix
	ends := func(suffix string) func(string) bool {
		return func(name string) bool { return strings.HasSuffix(name, suffix) }
	}
	if imageSuffix == "" && maskSuffix == "" && slices.ContainsFunc(files, ends(cityscapes[0])) && slices.ContainsFunc(maskFiles, ends(cityscapes[1])) {
		imageSuffix, maskSuffix = cityscapes[0], cityscapes[1]
	}
	if maskSuffix == "" {
		maskSuffix = ".png"
	}
	byName := map[string]string{}
	for _, file := range maskFiles {
		if name, ok := strings.CutSuffix(relative(masks, file), maskSuffix); ok {
			byName[name] = file
		}
	}
	s := &Set{Kind: Masks}
	f := finder{o: o}
	for _, file := range files {
		if filepath.IsLocal(relative(masks, file)) {
			continue // the masks' folder lies in that of the images
		}
		name, ok := relative(images, file), false
		if imageSuffix != "" {
			name, ok = strings.CutSuffix(name, imageSuffix)
		} else if ok = isImage(name); ok {
			name = strings.TrimSuffix(name, filepath.Ext(name))
		}
		if !ok {
			continue
		}
		mask, ok := byName[name]
		if !ok {
			return nil, wrong(file, 0, ErrMissing, "its mask %s", filepath.Join(masks, name+maskSuffix))
		}
		there, err := f.here(file, "", 0)
		if err != nil {
			return nil, err
		}
		delete(byName, name)
		if there {
			s.Images = append(s.Images, Image{Path: file, Class: -1, Mask: mask})
		}
	}
	if len(s.Images) == 0 {
		return nil, wrong(images, 0, ErrFormat, "got no image that ends in %s", strings.Join(imageEnds(imageSuffix), ", "))
	}
	for _, mask := range maskFiles { // in their order
		name, ok := strings.CutSuffix(relative(masks, mask), maskSuffix)
		if _, left := byName[name]; !ok || !left {
			continue
		}
		image := filepath.Join(images, name) + imageEnds(imageSuffix)[0]
		if !o.SkipMissing {
			return nil, wrong(mask, 0, ErrMissing, "its image %s", image)
		}
		f.missing = append(f.missing, image)
	}
	s.Missing = f.missing
	s.number()
	return s, nil
}

func imageEnds(suffix string) []string {
	if suffix != "" {
		return []string{suffix}
	}
	return Extensions()
}

func relative(dir, file string) string {
	if r, err := filepath.Rel(dir, file); err == nil {
		return r
	}
	return file
}
