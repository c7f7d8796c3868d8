package dataset

import (
	"bytes"
	"encoding/xml"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxAnnotation bounds the file of one image.
const maxAnnotation = 64 << 20

// ReadVOC reads a folder of Pascal VOC's form, as VOCdevkit/VOC2012: the images that ImageSets/Main/SPLIT.txt
// lists, with the objects of Annotations, or, with Options.Segmentation, those of
// ImageSets/Segmentation/SPLIT.txt with their masks in SegmentationClass. Without ImageSets it is every image
// that has an annotation or a mask.
//
// Classes are the names found, sorted; those of masks are in class_names.txt, if there is one.
func ReadVOC(path string, o Options) (*Set, error) {
	annotations, ending, part := "Annotations", ".xml", "Main"
	if o.Segmentation {
		annotations, ending, part = "SegmentationClass", ".png", "Segmentation"
	}
	annotations = filepath.Join(path, annotations)
	names, list, err := vocNames(path, part, annotations, ending, o.Split)
	if err != nil {
		return nil, err
	}
	s := &Set{Kind: VOC}
	f := finder{o: o}
	for _, n := range names {
		img := Image{Class: -1}
		source := filepath.Join(annotations, filepath.FromSlash(n.name)+ending)
		if !o.Segmentation {
			text, err := readText(source, maxAnnotation)
			if err != nil {
				return nil, listed(err, list, n.line)
			}
			if img, err = ParseVOC(text, source); err != nil {
				return nil, err
			}
		} else if _, err := os.Stat(source); err != nil {
			return nil, listed(fileError(source, err), list, n.line)
		} else {
			img.Mask = source
		}
		img.Path = vocImage(filepath.Join(path, "JPEGImages"), filepath.FromSlash(n.name), img.Path)
		from, line := list, n.line
		if list == "" {
			from, line = source, 0
		}
		there, err := f.here(img.Path, from, line)
		if err != nil {
			return nil, err
		}
		if there {
			s.Images = append(s.Images, img)
		}
	}
	if len(s.Images) == 0 {
		return nil, wrong(path, 0, ErrFormat, "got no image with an annotation")
	}
	s.Missing = f.missing
	s.number()
	if o.Segmentation {
		s.Classes, err = vocMaskClasses(path)
		return s, err
	}
	s.classify()
	return s, nil
}

// classify makes Classes of the labels of the objects, sorted by name.
func (s *Set) classify() {
	for _, img := range s.Images {
		for _, object := range img.Objects {
			s.Classes = append(s.Classes, object.Label)
		}
	}
	slices.Sort(s.Classes)
	s.Classes = slices.Compact(s.Classes)
	index := s.ClassIndex()
	for _, img := range s.Images {
		for i := range img.Objects {
			img.Objects[i].Class = index[img.Objects[i].Label]
		}
	}
}

// listed adds the line of a list that named a missing file.
func listed(err error, list string, line int) error {
	var e *Error
	if list != "" && errors.Is(err, ErrMissing) && errors.As(err, &e) {
		return wrong(list, line, ErrMissing, "%s", e.Path)
	}
	return err
}

type vocName struct {
	name string
	line int
}

// vocNames are the names of the images of a split, and the list that they come from.
func vocNames(path, part, annotations, ending, split string) ([]vocName, string, error) {
	folder := filepath.Join(path, "ImageSets", part)
	list := ""
	for _, name := range splitNames(split) {
		if _, err := os.Stat(filepath.Join(folder, name+".txt")); err == nil {
			list = filepath.Join(folder, name+".txt")
			break
		}
	}
	if list == "" {
		if split != "" {
			return nil, "", wrong(filepath.Join(folder, split+".txt"), 0, ErrSplit, "want the list of that split")
		}
		entries, err := os.ReadDir(annotations)
		if err != nil {
			return nil, "", fileError(annotations, err)
		}
		var names []vocName
		for _, e := range entries {
			if name, ok := strings.CutSuffix(e.Name(), ending); ok {
				names = append(names, vocName{name: name})
			}
		}
		return names, "", nil
	}
	text, err := readText(list, maxText)
	if err != nil {
		return nil, "", err
	}
	var names []vocName
	line := 0
	for row := range strings.Lines(string(text)) {
		line++
		if fields := strings.Fields(row); len(fields) > 0 {
			names = append(names, vocName{fields[0], line})
		}
	}
	return names, list, nil
}

// splitNames are the names that a split may have.
func splitNames(split string) []string {
	switch split {
	case "":
		return []string{"val", "valid", "validation", "test"}
	case "val", "valid", "validation":
		return []string{split, "val", "valid", "validation"}
	}
	return []string{split}
}

// vocImage is the file of an image: NAME.jpg, NAME with another ending, or the annotation's own name.
func vocImage(folder, name, filename string) string {
	first := filepath.Join(folder, name+".jpg")
	for _, ending := range Extensions() {
		for _, e := range []string{ending, strings.ToUpper(ending)} {
			if _, err := os.Stat(filepath.Join(folder, name+e)); err == nil {
				return filepath.Join(folder, name+e)
			}
		}
	}
	if filename != "" && filepath.IsLocal(filename) {
		if _, err := os.Stat(filepath.Join(folder, filename)); err == nil {
			return filepath.Join(folder, filename)
		}
	}
	return first
}

// vocMaskClasses reads the names that labelme's converter writes; Pascal VOC's own folders have none.
func vocMaskClasses(path string) ([]string, error) {
	text, err := readText(filepath.Join(path, "class_names.txt"), maxAnnotation)
	if errors.Is(err, ErrMissing) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	names := lines(text)
	if len(names) > 0 && names[0] == "__ignore__" {
		names = names[1:] // its id is -1, 255 in a file
	}
	return names, nil
}

// lines are the lines of a text without the spaces around them; empty ones at its end are left out.
func lines(text []byte) []string {
	var out []string
	for row := range strings.Lines(strings.TrimRight(string(text), " \t\r\n")) {
		out = append(out, strings.TrimSpace(row))
	}
	return out
}

// vocText is the text of an element and its line.
type vocText struct {
	text string
	line int
}

// UnmarshalXML reads the text.
func (v *vocText) UnmarshalXML(d *xml.Decoder, start xml.StartElement) error {
	v.line, _ = d.InputPos()
	if err := d.DecodeElement(&v.text, &start); err != nil {
		return err
	}
	v.text = strings.TrimSpace(v.text)
	return nil
}

type vocReadObject struct {
	Name      vocText  `xml:"name"`
	Truncated vocText  `xml:"truncated"`
	Difficult vocText  `xml:"difficult"`
	Box       *vocEnds `xml:"bndbox"`
	Score     vocText  `xml:"score"`
}

type vocEnds struct {
	XMin vocText `xml:"xmin"`
	YMin vocText `xml:"ymin"`
	XMax vocText `xml:"xmax"`
	YMax vocText `xml:"ymax"`
}

// ParseVOC reads the XML of one image; path is for errors. Pascal VOC's pixels count from 1 with both ends
// included: xmin 1 and xmax 500 are the edges 0 and 500. Image.Path is the <filename> of the text.
func ParseVOC(text []byte, path string) (Image, error) {
	var a struct {
		XMLName  xml.Name
		Filename string `xml:"filename"`
		Size     struct {
			Width  vocText `xml:"width"`
			Height vocText `xml:"height"`
		} `xml:"size"`
		Objects []vocReadObject `xml:"object"`
	}
	d := xml.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&a); err != nil {
		line, _ := d.InputPos()
		var syntax *xml.SyntaxError
		if errors.As(err, &syntax) {
			return Image{}, wrong(path, syntax.Line, ErrFormat, "%s", syntax.Msg)
		}
		return Image{}, wrong(path, line, ErrFormat, "%v", err)
	}
	if a.XMLName.Local != "annotation" {
		return Image{}, wrong(path, 1, ErrFormat, "got <%s>, want <annotation>", a.XMLName.Local)
	}
	img := Image{Path: strings.TrimSpace(a.Filename), Class: -1}
	var err error
	size := func(name string, v vocText) int {
		if v.text == "" || err != nil {
			return 0
		}
		n, e := strconv.Atoi(v.text)
		if e != nil || n < 0 {
			err = wrong(path, v.line, ErrFormat, "got %s %q, want pixels", name, v.text)
		}
		return n
	}
	img.Width, img.Height = size("width", a.Size.Width), size("height", a.Size.Height)
	flag := func(name string, v vocText) bool {
		switch strings.ToLower(v.text) {
		case "", "0", "false":
			return false
		case "1", "true":
			return true
		}
		if err == nil {
			err = wrong(path, v.line, ErrFormat, "got %s %q, want 0 or 1", name, v.text)
		}
		return false
	}
	for i, object := range a.Objects {
		o := Object{
			Label: object.Name.text, Truncated: flag("truncated", object.Truncated), Difficult: flag("difficult", object.Difficult),
		}
		switch {
		case err != nil:
		case o.Label == "":
			err = wrong(path, object.Name.line, ErrFormat, "object %d has no name", i+1)
		case object.Box == nil:
			err = wrong(path, object.Name.line, ErrFormat, "object %d (%s) has no bndbox", i+1, o.Label)
		default:
			o.Box, err = object.Box.box(path, o.Label)
		}
		if err == nil && object.Score.text != "" {
			if o.Score, err = strconv.ParseFloat(object.Score.text, 64); err != nil || math.IsNaN(o.Score) {
				err = wrong(path, object.Score.line, ErrFormat, "got score %q, want a number", object.Score.text)
			}
		}
		if err != nil {
			return Image{}, err
		}
		img.Objects = append(img.Objects, o)
	}
	return img, err
}

func (e *vocEnds) box(path, label string) (Box, error) {
	var v [4]float64
	for i, end := range []struct {
		name string
		vocText
	}{{"xmin", e.XMin}, {"ymin", e.YMin}, {"xmax", e.XMax}, {"ymax", e.YMax}} {
		n, err := strconv.ParseFloat(end.text, 64)
		if err != nil || math.IsNaN(n) || math.Abs(n) > 1e9 {
			return Box{}, wrong(path, end.line, ErrFormat, "got %s %q of a %s, want pixels", end.name, end.text, label)
		}
		v[i] = n
	}
	b := Box{v[0] - 1, v[1] - 1, v[2], v[3]}
	if b.X1 >= b.X2 || b.Y1 >= b.Y2 {
		return Box{}, wrong(path, e.XMin.line, ErrFormat, "got a %s from (%g, %g) to (%g, %g), want xmin <= xmax and ymin <= ymax", label, v[0], v[1], v[2], v[3])
	}
	return b, nil
}
