package dataset

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/torchvit/torchvit/coco"
)

// ReadCOCO reads a JSON file of COCO's instances. Images are in the folder images, or, where that is "", in the
// first of these that has the first image: the file's folder, and beside it or one above it the folders named as
// the file ends (val2017 for instances_val2017.json), below images or not, or images.
//
// Set.IDs are the categories' ids. Objects keep their areas, outlines, masks and crowds: see Set.COCO.
func ReadCOCO(path, images string, o Options) (*Set, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fileError(path, err)
	}
	data, err := coco.ReadDatasetFile(path)
	if err != nil {
		return nil, cocoError(path, err)
	}
	s := &Set{Kind: COCO}
	class := map[int64]int{}
	for i, c := range data.Categories {
		class[c.ID] = i
		s.Classes = append(s.Classes, c.Name)
		s.IDs = append(s.IDs, c.ID)
	}
	if images == "" && len(data.Images) > 0 {
		if images, err = cocoImages(path, data.Images[0].FileName); err != nil {
			return nil, err
		}
	}
	f := finder{o: o}
	at := map[int64]int{}
	for _, image := range data.Images {
		if image.FileName == "" {
			return nil, wrong(path, 0, ErrFormat, "image %d has no file_name", image.ID)
		}
		file := filepath.Join(images, filepath.FromSlash(image.FileName))
		there, err := f.here(file, path, 0)
		if err != nil {
			return nil, err
		}
		if there {
			at[image.ID] = len(s.Images)
			s.Images = append(s.Images, Image{Path: file, ID: image.ID, Width: image.Width, Height: image.Height, Class: -1})
		}
	}
	s.Missing = f.missing
	for _, a := range data.Annotations {
		i, ok := at[a.ImageID]
		if !ok {
			continue // of an image that was left out
		}
		c := class[a.CategoryID]
		s.Images[i].Objects = append(s.Images[i].Objects, Object{
			Label: s.Classes[c], Class: c, Box: Box{a.Box[0], a.Box[1], a.Box[0] + a.Box[2], a.Box[1] + a.Box[3]},
			Polygons: a.Segmentation.Polygons, Mask: a.Segmentation.Mask, Area: a.Area, Crowd: a.Crowd, annotation: &a,
		})
	}
	return s, nil
}

// cocoError names the file once.
func cocoError(path string, err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return fileError(path, err)
	}
	return &Error{Path: path, Err: cocoFormat{err, strings.TrimPrefix(err.Error(), path+": ")}}
}

// cocoFormat is an error of package coco that counts as ErrFormat.
type cocoFormat struct {
	error
	text string
}

func (c cocoFormat) Error() string        { return c.text }
func (c cocoFormat) Unwrap() error        { return c.error }
func (c cocoFormat) Is(target error) bool { return target == ErrFormat }

// cocoImages looks for the folder of the images.
func cocoImages(path, first string) (string, error) {
	dir := filepath.Dir(path)
	stem := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	part := stem[strings.LastIndexByte(stem, '_')+1:]
	var places []string
	for _, base := range []string{dir, filepath.Dir(dir)} {
		places = append(places, base, filepath.Join(base, part), filepath.Join(base, "images", part), filepath.Join(base, "images"))
	}
	for _, place := range places {
		if info, err := os.Stat(filepath.Join(place, filepath.FromSlash(first))); err == nil && info.Mode().IsRegular() {
			return place, nil
		}
	}
	return "", wrong(path, 0, ErrMissing, "%s in none of %s", first, strings.Join(places, ", "))
}

// readCOCO reads a file, or the file of a folder.
func readCOCO(path string, o Options) (*Set, error) {
	file := o.Annotations
	if file == "" {
		file = path
		info, err := os.Stat(path)
		if err != nil {
			return nil, fileError(path, err)
		}
		if info.IsDir() {
			if file, err = cocoFile(path, o.Split); err != nil {
				return nil, err
			}
		}
	}
	images := o.Images
	if images == "" && o.Annotations != "" {
		images = path // DATASET is the images' folder then
		if info, err := os.Stat(path); err != nil || !info.IsDir() {
			images = ""
		}
	}
	return ReadCOCO(file, images, o)
}

// cocoFile chooses the JSON file of a folder.
func cocoFile(path, split string) (string, error) {
	files, err := cocoFiles(path)
	if err != nil {
		return "", err
	}
	instances := slices.DeleteFunc(slices.Clone(files), func(f string) bool { return !strings.Contains(filepath.Base(f), "instances") })
	if len(instances) > 0 {
		files = instances // beside captions and keypoints
	}
	if len(files) > 1 || split != "" {
		for _, name := range splitNames(split) {
			for _, f := range files {
				if strings.Contains(strings.TrimSuffix(filepath.Base(f), ".json"), name) {
					return f, nil
				}
			}
		}
	}
	switch {
	case len(files) == 1 && split == "":
		return files[0], nil
	case len(files) == 0:
		return "", wrong(path, 0, ErrMissing, "want annotations/*.json")
	case split != "":
		return "", wrong(path, 0, ErrSplit, "got %s and the split %s, want the name of one of them", strings.Join(files, ", "), split)
	}
	return "", wrong(path, 0, ErrKind, "got %s, want the name of one of them", strings.Join(files, ", "))
}

// COCO makes COCO's ground truth of the set, for coco.Evaluate, whatever its kind. Categories have Set.IDs, else
// 1, 2, 3...; annotations of other kinds are numbered from 1.
//
// An object's area is the one of COCO's file, else its outlines' or mask's pixels, else its box's. Pascal VOC's
// difficult objects become crowds: what is found there is neither right nor wrong.
func (s *Set) COCO() (*coco.Dataset, error) {
	d := &coco.Dataset{}
	names := s.Classes
	if len(names) == 0 {
		for _, img := range s.Images {
			for _, o := range img.Objects {
				for len(names) <= o.Class {
					names = append(names, strconv.Itoa(len(names)))
				}
			}
		}
	}
	id := func(class int) int64 {
		if class < len(s.IDs) {
			return s.IDs[class]
		}
		return int64(class + 1)
	}
	for c, name := range names {
		d.Categories = append(d.Categories, coco.Category{ID: id(c), Name: name})
	}
	for _, img := range s.Images {
		d.Images = append(d.Images, coco.Image{ID: img.ID, FileName: img.Path, Height: img.Height, Width: img.Width})
		for _, o := range img.Objects {
			if o.annotation != nil {
				d.Annotations = append(d.Annotations, *o.annotation)
				continue
			}
			b := o.Box
			a := coco.Annotation{
				ID: int64(len(d.Annotations) + 1), ImageID: img.ID, CategoryID: id(o.Class),
				Box: coco.Box{b.X1, b.Y1, b.X2 - b.X1, b.Y2 - b.Y1}, Area: o.Area, Crowd: o.Crowd || o.Difficult,
				Segmentation: coco.Segmentation{Polygons: o.Polygons, Mask: o.Mask},
			}
			switch {
			case a.Area > 0:
			case o.Mask != nil || len(o.Polygons) > 0:
				mask, err := a.Segmentation.RLE(img.Height, img.Width)
				if err != nil {
					return nil, &Error{Path: img.Path, Err: err}
				}
				a.Area = float64(mask.Area())
			default:
				a.Area = a.Box[2] * a.Box[3]
			}
			d.Annotations = append(d.Annotations, a)
		}
	}
	return d, d.Validate()
}

// Semantic makes a mask of an image's objects, as torchvision's references do of COCO's: every pixel has the class
// that classes gives for its object's, and background where none lies;
// pixels of more than one object are Ignored. Crowds are left out, and so are objects whose class is below 0;
// what is Ignored stays so.
func (img *Image) Semantic(background uint8, classes func(class int) int) (*Mask, error) {
	if img.Width <= 0 || img.Height <= 0 {
		return nil, wrong(img.Path, 0, ErrFormat, "got no width and height, want those of a mask")
	}
	m := &Mask{img.Width, img.Height, slices.Repeat([]uint8{background}, img.Width*img.Height)}
	seen := make([]bool, len(m.Classes))
	for i, o := range img.Objects {
		class := classes(o.Class)
		if o.Crowd || class < 0 {
			continue
		}
		if class > 255 {
			return nil, wrong(img.Path, 0, ErrClass, "got class %d, want at most 255", class)
		}
		mask, err := coco.Segmentation{Polygons: o.Polygons, Mask: o.Mask}.RLE(img.Height, img.Width)
		if err != nil {
			return nil, wrong(img.Path, 0, ErrFormat, "object %d (%s): %v", i+1, o.Label, err)
		}
		pixels, err := mask.Decode()
		if err != nil {
			return nil, &Error{Path: img.Path, Err: err}
		}
		for p, set := range pixels {
			switch {
			case set == 0:
			case seen[p]:
				m.Classes[p] = Ignored
			default:
				m.Classes[p], seen[p] = uint8(class), true
			}
		}
	}
	return m, nil
}
