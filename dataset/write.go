package dataset

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strconv"

	"github.com/torchvit/torchvit/internal/whole"
)

// VOCOptions say how Pascal VOC's XML is written. The zero value works.
type VOCOptions struct {
	// Scores adds each object's score as <score>, which Pascal VOC does not have and its readers pass over.
	Scores bool
}

// WriteVOC writes the annotation of one image, Annotations/NAME.xml, whole or not at all: see EncodeVOC.
func WriteVOC(path string, img Image, o VOCOptions) error {
	if err := checkVOC(img); err != nil {
		return &Error{Path: path, Err: err}
	}
	return whole.Write(path, func(w io.Writer) error { return EncodeVOC(w, img, o) })
}

func checkVOC(img Image) error {
	if img.Width <= 0 || img.Height <= 0 {
		return fmt.Errorf("%w: got an image of %dx%d, want its size", ErrFormat, img.Width, img.Height)
	}
	return checkObjects(img.Objects)
}

func checkObjects(objects []Object) error {
	for i, object := range objects {
		for _, v := range [4]float64{object.Box.X1, object.Box.Y1, object.Box.X2, object.Box.Y2} {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return fmt.Errorf("%w: object %d has the box %v", ErrFormat, i, object.Box)
			}
		}
	}
	return nil
}

// EncodeVOC writes the annotation of one image as Pascal VOC's XML. Coordinates are whole pixels that count
// from 1, both ends included: a box over a whole image of 500x375 is 1, 1, 500, 375. Boxes are rounded to
// pixels (half away from 0) and cut at the image's borders; one that is less than a pixel wide becomes a pixel.
func EncodeVOC(w io.Writer, img Image, o VOCOptions) error {
	if err := checkVOC(img); err != nil {
		return err
	}
	a := vocAnnotation{Folder: filepath.Base(filepath.Dir(img.Path)), Filename: filepath.Base(img.Path)}
	a.Size.Width, a.Size.Height, a.Size.Depth = img.Width, img.Height, 3
	for _, object := range img.Objects {
		x1, x2 := vocSpan(object.Box.X1, object.Box.X2, img.Width)
		y1, y2 := vocSpan(object.Box.Y1, object.Box.Y2, img.Height)
		v := vocObject{
			Name: object.Label, Pose: "Unspecified", Truncated: bit(object.Truncated), Difficult: bit(object.Difficult),
			Box: vocBox{x1, y1, x2, y2},
		}
		if o.Scores {
			v.Score = strconv.FormatFloat(object.Score, 'g', -1, 32)
		}
		a.Objects = append(a.Objects, v)
	}
	e := xml.NewEncoder(w)
	e.Indent("", "\t")
	if err := e.Encode(a); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// vocSpan is one side of a box: the first and the last pixel, from 1.
func vocSpan(low, high float64, size int) (first, last int) {
	cut := func(v float64) int { return int(math.Round(min(max(v, 0), float64(size)))) }
	first, last = min(cut(low), size-1)+1, cut(high)
	return first, max(first, last)
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

type vocAnnotation struct {
	XMLName  xml.Name `xml:"annotation"`
	Folder   string   `xml:"folder"`
	Filename string   `xml:"filename"`
	Size     struct {
		Width  int `xml:"width"`
		Height int `xml:"height"`
		Depth  int `xml:"depth"`
	} `xml:"size"`
	Segmented int         `xml:"segmented"`
	Objects   []vocObject `xml:"object"`
}

type vocObject struct {
	Name      string `xml:"name"`
	Pose      string `xml:"pose"`
	Truncated int    `xml:"truncated"`
	Difficult int    `xml:"difficult"`
	Box       vocBox `xml:"bndbox"`
	Score     string `xml:"score,omitempty"`
}

type vocBox struct {
	XMin int `xml:"xmin"`
	YMin int `xml:"ymin"`
	XMax int `xml:"xmax"`
	YMax int `xml:"ymax"`
}

// YOLOOptions say how YOLO's text is written. The zero value works.
type YOLOOptions struct {
	// Scores ends each line with the score, as ultralytics' save_conf.
	Scores bool
	// Polygons writes the outlines of objects that have some (three points or more), in place of their boxes.
	// The points of an object of several outlines follow one another, as the format knows but one outline:
	// ultralytics' masks2segments.
	Polygons bool
}

// WriteYOLO writes the objects of one image, labels/NAME.txt, whole or not at all: see EncodeYOLO.
func WriteYOLO(path string, img Image, o YOLOOptions) error {
	if err := checkYOLO(img); err != nil {
		return &Error{Path: path, Err: err}
	}
	return whole.Write(path, func(w io.Writer) error { return EncodeYOLO(w, img, o) })
}

func checkYOLO(img Image) error {
	if img.Width <= 0 || img.Height <= 0 {
		return fmt.Errorf("%w: got an image of %dx%d, want its size", ErrFormat, img.Width, img.Height)
	}
	for i, object := range img.Objects {
		if object.Class < 0 {
			return fmt.Errorf("%w: object %d (%s) has class %d", ErrClass, i, object.Label, object.Class)
		}
	}
	return checkObjects(img.Objects)
}

// EncodeYOLO writes a line for each object: the class's index, then the box's centre, width and height as
// shares of the image's, six digits each (%g), as ultralytics' save_txt writes them.
func EncodeYOLO(w io.Writer, img Image, o YOLOOptions) error {
	if err := checkYOLO(img); err != nil {
		return err
	}
	width, height := float64(img.Width), float64(img.Height)
	b := bufio.NewWriter(w)
	var line []byte
	for _, object := range img.Objects {
		line = strconv.AppendInt(line[:0], int64(object.Class), 10)
		put := func(v float64) { line = strconv.AppendFloat(append(line, ' '), v, 'g', 6, 64) }
		if o.Polygons && points(object.Polygons) >= 3 {
			for _, p := range object.Polygons {
				for i := 0; i+1 < len(p); i += 2 {
					put(p[i] / width)
					put(p[i+1] / height)
				}
			}
		} else {
			x := object.Box
			put((x.X1 + x.X2) / 2 / width)
			put((x.Y1 + x.Y2) / 2 / height)
			put((x.X2 - x.X1) / width)
			put((x.Y2 - x.Y1) / height)
		}
		if o.Scores {
			put(object.Score)
		}
		b.Write(append(line, '\n'))
	}
	return b.Flush()
}

func points(polygons [][]float64) (n int) {
	for _, p := range polygons {
		n += len(p) / 2
	}
	return n
}
