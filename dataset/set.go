package dataset

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/torchvit/torchvit/coco"
)

// Kind is a form that data sets have.
type Kind string

// The kinds of data sets.
const (
	// Folder is torchvision's ImageFolder: a folder of images for each class.
	Folder Kind = "folder"
	// List is a CSV or TSV file of path and class.
	List Kind = "list"
	// COCO is a JSON file of instances beside a folder of images.
	COCO Kind = "coco"
	// VOC is Pascal VOC's JPEGImages, Annotations, SegmentationClass and ImageSets.
	VOC Kind = "voc"
	// YOLO is a folder of images and one of text files, with data.yaml.
	YOLO Kind = "yolo"
	// Masks is a folder of images and one of PNG masks.
	Masks Kind = "masks"
)

// Set is a data set: what is known of each of its images.
type Set struct {
	Kind Kind
	// Classes names the classes. Empty where the files have no names (masks).
	Classes []string
	// IDs are the ids of Classes in the files, where they are not 0, 1, 2...: COCO's category ids.
	IDs []int64
	// Images are in the order of the files, or sorted by name where the order is a folder's.
	Images []Image
	// Missing are the images that Options.SkipMissing left out.
	Missing []string
}

// Image is one image of a data set.
type Image struct {
	// Path is the image's file.
	Path string
	// ID is COCO's image id; in other data sets the place from 1.
	ID int64
	// Width and Height in pixels; 0 where the files do not say.
	Width, Height int
	// Class is the image's class, an index into Set.Classes; -1 where it has none.
	Class int
	// Objects are what a detector should find.
	Objects []Object
	// Mask is the file that gives every pixel a class; "" where there is none.
	Mask string
}

// Object is one object in an image, or one that a detector found.
type Object struct {
	// Label is the class's name.
	Label string
	// Class is its index in Set.Classes.
	Class int
	Box   Box
	// Polygons are outlines in pixels, x and y in turn: the object is what any of them holds.
	Polygons [][]float64
	// Mask is the object's pixels, where they are given so.
	Mask *coco.RLE
	// Area is COCO's, in pixels; 0 where the files do not say.
	Area float64
	// Score is a detection's, 0 to 1.
	Score float64
	// Difficult and Truncated are Pascal VOC's marks, Crowd is COCO's iscrowd.
	Difficult, Truncated, Crowd bool

	// annotation is what COCO's file has.
	annotation *coco.Annotation
}

// Box is a rectangle, xyxy in pixels: X1 and Y1 are the left and top edge, X2 and Y2 the right and bottom
// one, so that an image is (0, 0, width, height).
type Box struct{ X1, Y1, X2, Y2 float64 }

// BoxOf is the smallest box around outlines.
func BoxOf(polygons [][]float64) (b Box) {
	first := true
	for _, p := range polygons {
		for i := 0; i+1 < len(p); i += 2 {
			if first {
				b, first = Box{p[i], p[i+1], p[i], p[i+1]}, false
			}
			b.X1, b.Y1 = min(b.X1, p[i]), min(b.Y1, p[i+1])
			b.X2, b.Y2 = max(b.X2, p[i]), max(b.Y2, p[i+1])
		}
	}
	return b
}

// Options say how data sets are read. The zero value works.
type Options struct {
	// SkipMissing leaves images out that are not there, and names them in Set.Missing, where else the first
	// one is an ErrMissing.
	SkipMissing bool
	// Split chooses among the parts that VOC (ImageSets/*/SPLIT.txt) and YOLO (data.yaml's SPLIT) have; ""
	// is val where there is one, else the only one or all images.
	Split string
	// Segmentation reads VOC's masks in place of its boxes.
	Segmentation bool
	// Images and Masks are the folders, Annotations the file, where they are not where Read looks for them.
	Images, Masks, Annotations string
	// ImageSuffix and MaskSuffix are the ends of the names of images and masks, as mmsegmentation's img_suffix
	// and seg_map_suffix. "" for both pairs NAME.* with NAME.png, and Cityscapes' NAME_leftImg8bit.png with
	// NAME_gtFine_labelIds.png.
	ImageSuffix, MaskSuffix string
}

// Extensions are the endings of image files that torchvision.datasets.folder takes, in any case.
func Extensions() []string {
	return []string{".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
}

func isImage(name string) bool {
	return slices.Contains(Extensions(), strings.ToLower(filepath.Ext(name)))
}

// maxText bounds what is read of one text file of a data set: labels of millions of images fit.
const maxText = 1 << 30

// readText reads a whole file, at most limit bytes of it.
func readText(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fileError(path, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, fileError(path, err)
	case int64(len(text)) > limit:
		return nil, wrong(path, 0, ErrFormat, "got more than %d bytes", limit)
	}
	return text, nil
}

// fileError makes an Error of one of the system's, whose text names the path already.
func fileError(path string, err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		err = e.Err
	}
	if errors.Is(err, fs.ErrNotExist) {
		return &Error{Path: path, Err: ErrMissing}
	}
	return &Error{Path: path, Err: err}
}

// finder looks for the images of a data set.
type finder struct {
	o       Options
	missing []string
}

// here tells whether the image is there; a missing one is noted, or an error at that place of the files.
// A link counts as what it leads to.
func (f *finder) here(path, from string, line int) (bool, error) {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.Mode().IsRegular():
		return true, nil
	case err == nil:
		return false, wrong(path, 0, ErrFormat, "got %s, want an image file", modeName(info.Mode()))
	case !errors.Is(err, fs.ErrNotExist):
		return false, fileError(path, err)
	case f.o.SkipMissing:
		f.missing = append(f.missing, path)
		return false, nil
	}
	what := path
	if target, err := os.Readlink(path); err == nil {
		what = path + ", a link to " + target
	}
	if from == "" {
		return false, &Error{Path: what, Err: ErrMissing}
	}
	return false, wrong(from, line, ErrMissing, "%s", what)
}

func modeName(m fs.FileMode) string {
	if m.IsDir() {
		return "a folder"
	}
	return "no regular file"
}

// number gives images their ids.
func (s *Set) number() {
	for i := range s.Images {
		s.Images[i].ID = int64(i + 1)
	}
}

// ClassIndex finds classes by name.
func (s *Set) ClassIndex() map[string]int {
	index := make(map[string]int, len(s.Classes))
	for i, name := range s.Classes {
		if _, twice := index[name]; !twice {
			index[name] = i
		}
	}
	return index
}
