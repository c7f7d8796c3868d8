package dataset

import (
	"errors"
	"fmt"
	"image"
	_ "image/gif"  // formats whose size is read
	_ "image/jpeg" //
	_ "image/png"  //
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	_ "golang.org/x/image/bmp"  //
	_ "golang.org/x/image/tiff" //
	_ "golang.org/x/image/webp" //
)

// ReadYOLO reads ultralytics' form: a data.yaml, or the folder that holds one, whose path, train, val and test
// name folders of images (or text files that list images), and whose names are the classes. The labels of
// .../images/NAME.jpg are in .../labels/NAME.txt; an image without that file holds no object. A folder
// without data.yaml is images and labels, with SPLIT below them or not, and classes.txt for the names.
func ReadYOLO(path string, o Options) (*Set, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fileError(path, err)
	}
	s := &Set{Kind: YOLO}
	var places []string
	config := path
	if info.IsDir() {
		if config, err = yoloConfig(path); err != nil {
			return nil, err
		}
	}
	if config == "" {
		places, s.Classes, err = yoloFolders(path, o.Split)
	} else {
		places, s.Classes, err = readYOLOConfig(config, o.Split)
	}
	if err != nil {
		return nil, err
	}
	f := finder{o: o}
	for _, place := range places {
		if err := s.addYOLO(place, &f); err != nil {
			return nil, err
		}
	}
	if len(s.Images) == 0 {
		return nil, wrong(path, 0, ErrFormat, "got no image in %s", strings.Join(places, ", "))
	}
	s.Missing = f.missing
	s.number()
	return s, nil
}

// yoloConfig finds the YAML file of a folder: data.yaml, or the only one; "" where there is none.
func yoloConfig(dir string) (string, error) {
	if _, err := os.Stat(filepath.Join(dir, "data.yaml")); err == nil {
		return filepath.Join(dir, "data.yaml"), nil
	}
	var found []string
	for _, pattern := range []string{"*.yaml", "*.yml"} {
		names, _ := filepath.Glob(filepath.Join(globQuote(dir), pattern)) // the pattern is valid
		found = append(found, names...)
	}
	switch len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0], nil
	}
	return "", wrong(dir, 0, ErrKind, "got %s, want data.yaml or one of them named", strings.Join(found, ", "))
}

// globQuote makes a path stand for itself in a pattern.
func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// yoloFolders are the image folders where no YAML file says.
func yoloFolders(dir, split string) (places, classes []string, err error) {
	images := filepath.Join(dir, "images")
	place := ""
	for _, name := range splitNames(split) {
		for _, folder := range []string{filepath.Join(images, name), filepath.Join(dir, name, "images")} {
			if info, err := os.Stat(folder); place == "" && err == nil && info.IsDir() {
				place = folder
			}
		}
	}
	if place == "" {
		if split != "" {
			return nil, nil, wrong(filepath.Join(images, split), 0, ErrSplit, "want the images of that split")
		}
		place = images
	}
	for _, name := range []string{"classes.txt", filepath.Join("labels", "classes.txt")} {
		text, err := readText(filepath.Join(dir, name), maxAnnotation)
		if errors.Is(err, ErrMissing) {
			continue
		} else if err != nil {
			return nil, nil, err
		}
		return []string{place}, lines(text), nil
	}
	return []string{place}, nil, nil
}

// readYOLOConfig reads the places of a split's images and the names of the classes.
func readYOLOConfig(path, split string) (places, classes []string, err error) {
	text, err := readText(path, maxAnnotation)
	if err != nil {
		return nil, nil, err
	}
	root, parts, classes, err := parseYOLOConfig(text, path)
	if err != nil {
		return nil, nil, err
	}
	names := splitNames(split)
	if split == "" {
		names = append(names, "train")
	}
	for _, name := range names {
		if len(parts[name]) == 0 {
			continue
		}
		for _, place := range parts[name] {
			places = append(places, yoloPlace(filepath.Dir(path), root, place))
		}
		return places, classes, nil
	}
	return nil, nil, wrong(path, 0, ErrFormat, "got no %s, want the folder of its images", strings.Join(names, ", "))
}

// yoloPlace finds what data.yaml names, by ultralytics' rules: relative to its path, which is relative to the
// file; a "../" that leads nowhere, which Roboflow writes, is dropped.
func yoloPlace(base, root, place string) string {
	root, place = filepath.FromSlash(root), filepath.FromSlash(place)
	if !filepath.IsAbs(root) {
		root = filepath.Join(base, root)
		if _, err := os.Stat(root); err != nil {
			root = base
		}
	}
	if filepath.IsAbs(place) {
		return place
	}
	full := filepath.Join(root, place)
	if rest, up := strings.CutPrefix(place, ".."+string(filepath.Separator)); up {
		if _, err := os.Stat(full); err != nil {
			return filepath.Join(root, rest)
		}
	}
	return full
}

// stringsOrOne is a list of strings, or one.
type stringsOrOne []string

// UnmarshalYAML reads either.
func (s *stringsOrOne) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.SequenceNode {
		return n.Decode((*[]string)(s))
	}
	if n.Tag == "!!null" {
		return nil
	}
	*s = make([]string, 1)
	return n.Decode(&(*s)[0])
}

// parseYOLOConfig reads data.yaml; path is for errors.
func parseYOLOConfig(text []byte, path string) (root string, parts map[string][]string, classes []string, err error) {
	var c struct {
		Path  string       `yaml:"path"`
		Train stringsOrOne `yaml:"train"`
		Val   stringsOrOne `yaml:"val"`
		Valid stringsOrOne `yaml:"validation"`
		Test  stringsOrOne `yaml:"test"`
		NC    *int         `yaml:"nc"`
		Names yaml.Node    `yaml:"names"`
	}
	if err := yaml.Unmarshal(text, &c); err != nil {
		return "", nil, nil, wrong(path, 0, ErrFormat, "%s", strings.Join(strings.Fields(err.Error()), " "))
	}
	parts = map[string][]string{"train": c.Train, "val": c.Val, "validation": c.Valid, "test": c.Test}
	node := &c.Names
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	switch node.Kind {
	case yaml.SequenceNode:
		err = node.Decode(&classes)
	case yaml.MappingNode:
		byID := map[int]string{}
		if err = node.Decode(&byID); err != nil {
			break
		}
		for id := range len(byID) {
			name, ok := byID[id]
			if !ok {
				return "", nil, nil, wrong(path, node.Line, ErrFormat, "got names without %d, want all of 0 to %d", id, len(byID)-1)
			}
			classes = append(classes, name)
		}
	case 0:
		if c.NC == nil || *c.NC < 1 || *c.NC > 1e6 {
			return "", nil, nil, wrong(path, 0, ErrFormat, "got no names, want the classes")
		}
		for i := range *c.NC {
			classes = append(classes, "class_"+strconv.Itoa(i)) // ultralytics' names
		}
	default:
		return "", nil, nil, wrong(path, node.Line, ErrFormat, "got names that are neither a list nor a map")
	}
	if err != nil {
		return "", nil, nil, wrong(path, node.Line, ErrFormat, "names: %s", strings.Join(strings.Fields(err.Error()), " "))
	}
	if c.NC != nil && *c.NC != len(classes) {
		return "", nil, nil, wrong(path, node.Line, ErrFormat, "got %d names and nc: %d", len(classes), *c.NC)
	}
	return c.Path, parts, classes, nil
}

// addYOLO reads the images of a folder or of a text file, in ultralytics' order: sorted by path.
func (s *Set) addYOLO(place string, f *finder) error {
	info, err := os.Stat(place)
	if err != nil {
		return fileError(place, err)
	}
	type found struct {
		path string
		line int
	}
	var images []found
	list := ""
	if info.IsDir() {
		files, err := walk(place, nil)
		if err != nil {
			return err
		}
		for _, file := range files {
			if isImage(file) {
				images = append(images, found{path: file})
			}
		}
	} else {
		text, err := readText(place, maxText)
		if err != nil {
			return err
		}
		list = place
		for i, row := range lines(text) {
			if row == "" {
				continue
			}
			if row = filepath.FromSlash(row); !filepath.IsAbs(row) {
				row = filepath.Join(filepath.Dir(place), row)
			}
			images = append(images, found{row, i + 1})
		}
	}
	slices.SortStableFunc(images, func(a, b found) int { return strings.Compare(a.path, b.path) })
	for _, image := range images {
		there, err := f.here(image.path, list, image.line)
		if err != nil {
			return err
		}
		if !there {
			continue
		}
		img := Image{Path: image.path, Class: -1}
		if img.Width, img.Height, err = imageSize(image.path); err != nil {
			return err
		}
		labels := yoloLabels(image.path)
		text, err := readText(labels, maxAnnotation)
		if err != nil && !errors.Is(err, ErrMissing) {
			return err
		}
		if img.Objects, err = ParseYOLO(text, labels, s.Classes, img.Width, img.Height); err != nil {
			return err
		}
		s.Images = append(s.Images, img)
	}
	return nil
}

// yoloLabels is the label file of an image: the last images folder of its path becomes labels.
func yoloLabels(image string) string {
	separator := string(filepath.Separator)
	from, to := separator+"images"+separator, separator+"labels"+separator
	path := strings.TrimSuffix(image, filepath.Ext(image)) + ".txt"
	if i := strings.LastIndex(path, from); i >= 0 {
		return path[:i] + to + path[i+len(from):]
	}
	if rest, ok := strings.CutPrefix(path, "images"+separator); ok {
		return "labels" + separator + rest
	}
	return path
}

// imageSize reads the head of an image file.
func imageSize(path string) (width, height int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, fileError(path, err)
	}
	defer f.Close()
	c, _, err := image.DecodeConfig(f)
	if err != nil {
		return 0, 0, wrong(path, 0, ErrFormat, "got no image whose size can be read: %v", err)
	}
	return c.Width, c.Height, nil
}

// ParseYOLO reads the labels of one image of that size: a line for each object, its class and then the box's
// centre x, centre y, width and height, or the points of its outline, as shares of the image's sides; in files
// that a detector wrote the score follows. A line that stands there twice counts once, as in ultralytics.
// Classes may be nil: any class is taken, and labels are its number. Path is for errors.
func ParseYOLO(text []byte, path string, classes []string, width, height int) ([]Object, error) {
	var objects []Object
	seen := map[string]bool{}
	line := 0
	for row := range strings.Lines(string(text)) {
		line++
		fields := strings.Fields(row)
		if len(fields) == 0 {
			continue
		}
		key := strings.Join(fields, " ")
		if seen[key] {
			continue
		}
		seen[key] = true
		o, err := parseYOLOLine(fields, classes, float64(width), float64(height))
		if err != nil {
			return nil, &Error{path, line, err}
		}
		objects = append(objects, o)
	}
	return objects, nil
}

func parseYOLOLine(fields, classes []string, width, height float64) (o Object, err error) {
	values := make([]float64, len(fields))
	for i, field := range fields {
		v, err := strconv.ParseFloat(field, 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return o, fmt.Errorf("%w: got %q, want a number", ErrFormat, field)
		}
		values[i] = v
	}
	if len(values) < 5 {
		return o, fmt.Errorf("%w: got %s, want class x y width height", ErrFormat, plural(len(values), "number"))
	}
	if values[0] != math.Trunc(values[0]) || values[0] < 0 || values[0] > 1e6 {
		return o, fmt.Errorf("%w: got class %s, want an integer from 0", ErrFormat, fields[0])
	}
	o.Class = int(values[0])
	switch {
	case len(classes) == 0:
		o.Label = strconv.Itoa(o.Class)
	case o.Class < len(classes):
		o.Label = classes[o.Class]
	default:
		return o, fmt.Errorf("%w: got class %d, want 0 to %d", ErrClass, o.Class, len(classes)-1)
	}
	values = values[1:]
	if len(values)%2 == 1 {
		o.Score = values[len(values)-1]
		values = values[:len(values)-1]
	}
	for i, v := range values {
		if v < -0.01 || v > 1.01 { // ultralytics' bounds
			return o, fmt.Errorf("%w: got %s, want a share of the image from 0 to 1", ErrFormat, fields[i+1])
		}
	}
	if len(values) == 4 {
		x, y, w, h := values[0]*width, values[1]*height, values[2]*width, values[3]*height
		if values[2] < 0 || values[3] < 0 {
			return o, fmt.Errorf("%w: got a box of %gx%g", ErrFormat, values[2], values[3])
		}
		o.Box = Box{x - w/2, y - h/2, x + w/2, y + h/2}
		return o, nil
	}
	for i := range values {
		if i%2 == 0 {
			values[i] *= width
		} else {
			values[i] *= height
		}
	}
	o.Polygons = [][]float64{values}
	o.Box = BoxOf(o.Polygons)
	return o, nil
}
