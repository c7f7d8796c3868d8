package coco

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/torchvit/torchvit/internal/whole"
)

// ErrData says that ground truth or results are not what COCO's formats ask for. Its text names the entry.
var ErrData = errors.New("not COCO data")

// Dataset is COCO's ground truth of instances, as in instances_val2017.json. [ReadDataset] gives one that is
// valid; one made by hand is checked where it is used, or with [Dataset.Validate]. Nothing in this package
// changes it.
type Dataset struct {
	Images      []Image
	Annotations []Annotation
	Categories  []Category
}

// Image is one photo. Height and Width are in pixels; 0 where the file does not say, which is enough for
// boxes and not for polygons.
type Image struct {
	ID            int64
	FileName      string
	Height, Width int
}

// Category is one class of things. COCO's own IDs go from 1 to 90 with gaps.
type Category struct {
	ID                  int64
	Name, Supercategory string
}

// Annotation is one object of an image.
type Annotation struct {
	// ID is unique in the data set. Count from 1: as in pycocotools, a detection that matches an
	// annotation of ID 0 counts as one that matches nothing.
	ID, ImageID, CategoryID int64
	Box                     Box
	// Area is in pixels, the object's own, which is less than its box's: it decides whether the object is
	// small, medium or large.
	Area float64
	// Crowd marks a group of objects that were not told apart.
	Crowd        bool
	Segmentation Segmentation
}

// Segmentation is the pixels of an object: Polygons or Mask, or none of both.
type Segmentation struct {
	// Polygons are the object's parts, each [x0, y0, x1, y1, ...], as [FromPolygons] takes them.
	Polygons [][]float64
	Mask     *RLE
}

// RLE gives the object's mask at the size of its image (COCO.annToRLE). The error is [ErrRLE] where there
// is no segmentation, where it is broken, and where a mask has another size.
func (s Segmentation) RLE(height, width int) (RLE, error) {
	switch {
	case s.Mask != nil:
		if s.Mask.Height != height || s.Mask.Width != width {
			return RLE{}, fmt.Errorf("%w: got one of size [%d %d], want the image's [%d %d]",
				ErrRLE, s.Mask.Height, s.Mask.Width, height, width)
		}
		return *s.Mask, s.Mask.Validate()
	case len(s.Polygons) > 0:
		if height <= 0 || width <= 0 {
			return RLE{}, fmt.Errorf("%w: got polygons in an image of size [%d %d], want its size", ErrRLE, height, width)
		}
		return FromPolygons(s.Polygons, height, width)
	}
	return RLE{}, fmt.Errorf("%w: got no segmentation, want polygons or run lengths", ErrRLE)
}

// UnmarshalJSON reads a list of polygons, which may be empty, or an object with run lengths.
func (s *Segmentation) UnmarshalJSON(text []byte) error {
	var out Segmentation
	switch {
	case len(text) > 0 && text[0] == '[':
		var err error
		if out.Polygons, err = parsePolygons(text); err != nil {
			return err
		}
	case len(text) > 0 && text[0] == '{':
		out.Mask = &RLE{}
		if err := out.Mask.UnmarshalJSON(text); err != nil {
			return err
		}
	case string(text) != "null":
		return fmt.Errorf("%w: got segmentation %.40s, want a list of polygons or an object with size and counts", ErrRLE, text)
	}
	*s = out
	return nil
}

// parsePolygons reads a list of lists of numbers, nil for an empty one. The text is a JSON value, as
// encoding/json hands it over; most of a file are these numbers, and this takes half the time of its way.
func parsePolygons(text []byte) ([][]float64, error) {
	var out [][]float64
	var flat []float64 // of the polygon at hand
	depth := 0
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == ',':
			i++
		case c == '[':
			if depth++; depth > 2 {
				return nil, fmt.Errorf("%w: got a list in polygon %d, want numbers", ErrRLE, len(out))
			}
			flat = flat[:0]
			i++
		case c == ']':
			if depth == 2 {
				out = append(out, slices.Clone(flat))
			}
			depth--
			i++
		case depth != 2 || c != '-' && (c < '0' || c > '9'):
			return nil, fmt.Errorf("%w: got %.20q among the polygons, want lists of numbers", ErrRLE, text[i:])
		default:
			n := 1
			for i+n < len(text) && strings.IndexByte("0123456789+-.eE", text[i+n]) >= 0 {
				n++
			}
			v, err := strconv.ParseFloat(string(text[i:i+n]), 64)
			if err != nil {
				return nil, fmt.Errorf("%w: polygon %d: %w", ErrRLE, len(out), err)
			}
			flat = append(flat, v)
			i += n
		}
	}
	return out, nil
}

// Validate checks that IDs are unique, that annotations name images and categories of the data set, and
// that boxes, areas and sizes are numbers and not negative. Segmentations are checked where a mask is
// made of one. The error is [ErrData].
func (d *Dataset) Validate() error {
	_, err := d.index()
	return err
}

// index has where images and categories stand, by their IDs.
type index struct{ images, categories map[int64]int }

func (d *Dataset) index() (index, error) {
	x := index{make(map[int64]int, len(d.Images)), make(map[int64]int, len(d.Categories))}
	for i, image := range d.Images {
		if j, ok := x.images[image.ID]; ok {
			return x, fmt.Errorf("%w: images %d and %d have the same id %d", ErrData, j, i, image.ID)
		}
		if image.Height < 0 || image.Width < 0 {
			return x, fmt.Errorf("%w: image %d (id %d): got size [%d %d]", ErrData, i, image.ID, image.Height, image.Width)
		}
		x.images[image.ID] = i
	}
	for i, category := range d.Categories {
		if j, ok := x.categories[category.ID]; ok {
			return x, fmt.Errorf("%w: categories %d and %d have the same id %d", ErrData, j, i, category.ID)
		}
		x.categories[category.ID] = i
	}
	seen := make(map[int64]int, len(d.Annotations))
	for i := range d.Annotations {
		a := &d.Annotations[i]
		fail := func(format string, args ...any) error {
			return fmt.Errorf("%w: annotation %d (id %d): %s", ErrData, i, a.ID, fmt.Sprintf(format, args...))
		}
		if j, ok := seen[a.ID]; ok {
			return x, fail("annotation %d has the same id", j)
		}
		seen[a.ID] = i
		if _, ok := x.images[a.ImageID]; !ok {
			return x, fail("got image_id %d, which no image has", a.ImageID)
		}
		if _, ok := x.categories[a.CategoryID]; !ok {
			return x, fail("got category_id %d, which no category has", a.CategoryID)
		}
		if !a.Box.finite() || a.Box[2] < 0 || a.Box[3] < 0 {
			return x, fail("got bbox %v, want finite x, y, width and height, the last two not negative", a.Box)
		}
		if !(a.Area >= 0) || math.IsInf(a.Area, 0) {
			return x, fail("got area %v, want a number that is not negative", a.Area)
		}
	}
	return x, nil
}

func (b Box) finite() bool {
	for _, v := range b {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return false
		}
	}
	return true
}

// UnmarshalJSON reads a list of four numbers.
func (b *Box) UnmarshalJSON(text []byte) error {
	var values []float64
	if err := json.Unmarshal(text, &values); err != nil {
		return err
	}
	if len(values) != 4 {
		return fmt.Errorf("bbox: got %d values, want x, y, width and height", len(values))
	}
	*b = Box(values)
	return nil
}

// ReadDatasetFile reads a file as [ReadDataset] does.
func ReadDatasetFile(path string) (*Dataset, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	d, err := ReadDataset(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// ReadDataset reads COCO's JSON of instances: an object with images, categories and, but for a set without
// ground truth, annotations. It keeps what [Dataset] has room for and skips the rest, entry by entry, so
// it needs little more memory than the data set itself. Polygons and both forms of run lengths are read.
// Iscrowd may be missing; id, image_id, category_id, bbox and area may not. The error is [ErrData] for
// anything that is not so, for JSON that is broken, and for what [Dataset.Validate] finds.
func ReadDataset(r io.Reader) (*Dataset, error) {
	d := &Dataset{}
	dec := json.NewDecoder(bufio.NewReaderSize(r, 1<<16))
	if err := delimiter(dec, '{', "an object with images, annotations and categories"); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, broken(dec, err)
		}
		key, _ := token.(string) // the decoder lets no other token stand here
		switch key {
		case "images", "annotations", "categories":
			if seen[key] {
				return nil, fmt.Errorf("%w: %s stand there twice", ErrData, key)
			}
			seen[key] = true
		}
		switch key {
		case "images":
			err = list(dec, key, func(f *imageFields) error {
				if f.ID == nil {
					return missing("id")
				}
				d.Images = append(d.Images, Image{*f.ID, f.FileName, f.Height, f.Width})
				return nil
			})
		case "categories":
			err = list(dec, key, func(f *categoryFields) error {
				if f.ID == nil {
					return missing("id")
				}
				d.Categories = append(d.Categories, Category{*f.ID, f.Name, f.Supercategory})
				return nil
			})
		case "annotations":
			err = list(dec, key, func(f *annotationFields) error {
				a, err := f.annotation()
				d.Annotations = append(d.Annotations, a)
				return err
			})
		default:
			err = skip(dec)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := finish(dec); err != nil {
		return nil, err
	}
	for _, key := range []string{"images", "categories"} {
		if !seen[key] {
			return nil, fmt.Errorf("%w: got no %s, want an object with images, annotations and categories", ErrData, key)
		}
	}
	return d, d.Validate()
}

type imageFields struct {
	ID       *int64 `json:"id"`
	FileName string `json:"file_name"`
	Height   int    `json:"height"`
	Width    int    `json:"width"`
}

type categoryFields struct {
	ID            *int64 `json:"id"`
	Name          string `json:"name"`
	Supercategory string `json:"supercategory"`
}

type annotationFields struct {
	ID           *int64       `json:"id"`
	ImageID      *int64       `json:"image_id"`
	CategoryID   *int64       `json:"category_id"`
	Box          *Box         `json:"bbox"`
	Area         *float64     `json:"area"`
	Crowd        *flag        `json:"iscrowd"`
	Segmentation Segmentation `json:"segmentation"`
}

func (f *annotationFields) annotation() (a Annotation, err error) {
	switch {
	case f.ID == nil:
		return a, missing("id")
	case f.ImageID == nil:
		return a, missing("image_id")
	case f.CategoryID == nil:
		return a, missing("category_id")
	case f.Box == nil:
		return a, missing("bbox")
	case f.Area == nil:
		return a, missing("area")
	}
	return Annotation{
		ID: *f.ID, ImageID: *f.ImageID, CategoryID: *f.CategoryID,
		Box: *f.Box, Area: *f.Area, Crowd: f.Crowd != nil && bool(*f.Crowd), Segmentation: f.Segmentation,
	}, nil
}

func missing(key string) error { return fmt.Errorf("got no %s", key) }

// flag is 0 or 1, or false or true.
type flag bool

func (f *flag) UnmarshalJSON(text []byte) error {
	switch string(text) {
	case "0", "false":
		*f = false
	case "1", "true":
		*f = true
	default:
		return fmt.Errorf("iscrowd: got %.40s, want 0 or 1", text)
	}
	return nil
}

// list decodes the entries of a list and hands each over. Errors name the entry.
func list[T any](dec *json.Decoder, name string, add func(*T) error) error {
	if err := delimiter(dec, '[', name+" as a list"); err != nil {
		return err
	}
	for i := 0; dec.More(); i++ {
		var entry T
		err := dec.Decode(&entry)
		if err == nil {
			err = add(&entry)
		}
		if err != nil {
			return fmt.Errorf("%w: entry %d of %s, before byte %d: %w", ErrData, i, name, dec.InputOffset(), unexpected(err))
		}
	}
	if _, err := dec.Token(); err != nil {
		return broken(dec, err)
	}
	return nil
}

// skip reads one value, of which it keeps nothing.
func skip(dec *json.Decoder) error {
	for depth := 0; ; {
		token, err := dec.Token()
		if err != nil {
			return broken(dec, err)
		}
		switch token {
		case json.Delim('['), json.Delim('{'):
			depth++
		case json.Delim(']'), json.Delim('}'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

func delimiter(dec *json.Decoder, want json.Delim, what string) error {
	token, err := dec.Token()
	if err != nil {
		return broken(dec, err)
	}
	if token != want {
		return fmt.Errorf("%w: got %v before byte %d, want %s", ErrData, token, dec.InputOffset(), what)
	}
	return nil
}

// finish reads the end of the outermost value, behind which nothing may follow.
func finish(dec *json.Decoder) error {
	if _, err := dec.Token(); err != nil {
		return broken(dec, err)
	}
	return end(dec)
}

// end wants the end of the input.
func end(dec *json.Decoder) error {
	if token, err := dec.Token(); err == nil {
		return fmt.Errorf("%w: got %v after the end, before byte %d", ErrData, token, dec.InputOffset())
	} else if !errors.Is(err, io.EOF) {
		return broken(dec, err)
	}
	return nil
}

func broken(dec *json.Decoder, err error) error {
	return fmt.Errorf("%w: byte %d: %w", ErrData, dec.InputOffset(), unexpected(err))
}

// unexpected makes an end of the file within the data an error that is not taken for a good end.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// WriteDatasetFile writes a file as [WriteDataset] does, whole or not at all.
func WriteDatasetFile(path string, d *Dataset) error {
	return whole.Write(path, func(w io.Writer) error { return WriteDataset(w, d) })
}

// WriteDataset writes COCO's JSON of instances. Masks of crowds are written as lists of counts, as COCO's
// are, and others as strings. The error is that of [Dataset.Validate], [ErrRLE] for a mask that is not
// valid, or w's.
func WriteDataset(w io.Writer, d *Dataset) error {
	if err := d.Validate(); err != nil {
		return err
	}
	buf := bufio.NewWriterSize(w, 1<<16)
	var line []byte
	head := `{"images":[`
	put := func(i int) error {
		separator := ",\n"
		if i == 0 {
			separator, head = head, ""
		}
		if _, err := buf.WriteString(separator); err != nil {
			return err
		}
		_, err := buf.Write(line)
		return err
	}
	// next opens a list, after one that had n entries.
	next := func(n int, key string) {
		if n == 0 {
			key = head + key
		}
		head = key
	}

	for i, image := range d.Images {
		line = appendInt(line[:0], `{"id":`, image.ID)
		line = appendString(line, `,"file_name":`, image.FileName)
		line = appendInt(line, `,"height":`, int64(image.Height))
		line = appendInt(line, `,"width":`, int64(image.Width))
		line = append(line, '}')
		if err := put(i); err != nil {
			return err
		}
	}
	next(len(d.Images), "],\n\"categories\":[")
	for i, category := range d.Categories {
		line = appendInt(line[:0], `{"id":`, category.ID)
		line = appendString(line, `,"name":`, category.Name)
		line = appendString(line, `,"supercategory":`, category.Supercategory)
		line = append(line, '}')
		if err := put(i); err != nil {
			return err
		}
	}
	next(len(d.Categories), "],\n\"annotations\":[")
	for i := range d.Annotations {
		a := &d.Annotations[i]
		line = appendInt(line[:0], `{"id":`, a.ID)
		line = appendInt(line, `,"image_id":`, a.ImageID)
		line = appendInt(line, `,"category_id":`, a.CategoryID)
		line = appendFloats(append(line, `,"bbox":`...), a.Box[:])
		line = appendFloat(append(line, `,"area":`...), a.Area)
		crowd := int64(0)
		if a.Crowd {
			crowd = 1
		}
		line = appendInt(line, `,"iscrowd":`, crowd)
		line = append(line, `,"segmentation":`...)
		var err error
		if line, err = a.Segmentation.appendJSON(line, a.Crowd); err != nil {
			return fmt.Errorf("annotation %d (id %d): %w", i, a.ID, err)
		}
		line = append(line, '}')
		if err := put(i); err != nil {
			return err
		}
	}
	next(len(d.Annotations), "]}\n")
	if _, err := buf.WriteString(head); err != nil {
		return err
	}
	return buf.Flush()
}

func (s Segmentation) appendJSON(dst []byte, crowd bool) ([]byte, error) {
	if s.Mask != nil {
		if err := s.Mask.Validate(); err != nil {
			return dst, err
		}
		if crowd {
			return Uncompressed(*s.Mask).appendJSON(dst), nil
		}
		return s.Mask.AppendJSON(dst), nil
	}
	dst = append(dst, '[')
	for i, polygon := range s.Polygons {
		for _, v := range polygon {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return dst, fmt.Errorf("%w: got polygon %d with %v", ErrRLE, i, v)
			}
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendFloats(dst, polygon)
	}
	return append(dst, ']'), nil
}

func appendInt(dst []byte, key string, v int64) []byte {
	return strconv.AppendInt(append(dst, key...), v, 10)
}

func appendString(dst []byte, key, v string) []byte {
	text, _ := json.Marshal(v) // strings always can
	return append(append(dst, key...), text...)
}

func appendFloats(dst []byte, values []float64) []byte {
	dst = append(dst, '[')
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendFloat(dst, v)
	}
	return append(dst, ']')
}

// appendFloat gives the shortest text that reads as v again; v is finite.
func appendFloat(dst []byte, v float64) []byte {
	format := byte('f')
	if a := math.Abs(v); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, v, format, -1, 64)
}
