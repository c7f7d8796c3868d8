package dataset

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ReadFolder reads a folder with a folder of images for each class, in torchvision's ImageFolder's order:
// classes sorted by name, in each the folders sorted by path and their files by name. Links are followed. As
// in Python, a class without an image is an error.
func ReadFolder(path string, o Options) (*Set, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fileError(path, err)
	}
	s := &Set{Kind: Folder}
	for _, e := range entries {
		if isFolder(path, e) {
			s.Classes = append(s.Classes, e.Name())
		}
	}
	if len(s.Classes) == 0 {
		return nil, wrong(path, 0, ErrFormat, "got no folder inside, want one for each class")
	}
	slices.Sort(s.Classes)
	f := finder{o: o}
	for class, name := range s.Classes {
		files, err := walk(filepath.Join(path, name), nil)
		if err != nil {
			return nil, err
		}
		before := len(s.Images)
		for _, file := range files {
			if !isImage(file) {
				continue
			}
			there, err := f.here(file, "", 0)
			if err != nil {
				return nil, err
			}
			if there {
				s.Images = append(s.Images, Image{Path: file, Class: class})
			}
		}
		if len(s.Images) == before && !o.SkipMissing {
			return nil, wrong(filepath.Join(path, name), 0, ErrFormat, "got no image for this class, want one that ends in %s", strings.Join(Extensions(), ", "))
		}
	}
	s.Missing = f.missing
	s.number()
	return s, nil
}

// isFolder tells whether an entry of a folder is one, also through a link.
func isFolder(dir string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	info, err := os.Stat(filepath.Join(dir, e.Name()))
	return err == nil && info.IsDir()
}

// walk lists the files below a folder in the order of Python's sorted(os.walk(dir, followlinks=True)):
// folders by path, the files of each by name. A link to a folder above itself, where Python would go round
// in circles, is an error.
func walk(dir string, above []string) ([]string, error) {
	folders, err := subfolders(dir, above)
	if err != nil {
		return nil, err
	}
	slices.Sort(folders)
	var files []string
	for _, folder := range folders {
		entries, err := os.ReadDir(folder) // sorted by name
		if err != nil {
			return nil, fileError(folder, err)
		}
		for _, e := range entries {
			if !isFolder(folder, e) {
				files = append(files, filepath.Join(folder, e.Name()))
			}
		}
	}
	return files, nil
}

func subfolders(dir string, above []string) ([]string, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fileError(dir, err)
	}
	if slices.Contains(above, real) {
		return nil, wrong(dir, 0, ErrFormat, "got a link to a folder above it")
	}
	above = append(slices.Clip(above), real)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fileError(dir, err)
	}
	all := []string{dir}
	for _, e := range entries {
		if isFolder(dir, e) {
			below, err := subfolders(filepath.Join(dir, e.Name()), above)
			if err != nil {
				return nil, err
			}
			all = append(all, below...)
		}
	}
	return all, nil
}

// The names that a list's columns have, where its first line names them.
var (
	pathColumns  = []string{"path", "file", "filename", "file_name", "filepath", "image", "image_path", "img", "imageid", "image_id", "id"}
	classColumns = []string{"label", "class", "class_name", "category", "target", "classname", "label_name", "y"}
)

// ReadList reads a CSV or TSV file (by its ending, .csv, else .tsv, .tab or .txt) with an image's path and
// its class in each line. A first line may name the columns (path, file, image...; label, class,
// category...), which then stand in any order beside others. Paths are relative to images, or to the list's
// folder where images is "".
//
// Classes are sorted by name. Where all are integers they are the classes' indices, and Set.Classes is empty.
func ReadList(path, images string, o Options) (*Set, error) {
	text, err := readText(path, maxText)
	if err != nil {
		return nil, err
	}
	if images == "" {
		images = filepath.Dir(path)
	}
	rows, err := parseList(text, path)
	if err != nil {
		return nil, err
	}
	s := &Set{Kind: List}
	numeric := true
	for _, r := range rows {
		if n, err := strconv.Atoi(r.class); err != nil || n < 0 {
			numeric = false
		}
		s.Classes = append(s.Classes, r.class)
	}
	slices.Sort(s.Classes)
	s.Classes = slices.Compact(s.Classes)
	index := s.ClassIndex()
	if numeric {
		s.Classes = nil
	}
	f := finder{o: o}
	for _, r := range rows {
		img := Image{Path: r.path, Class: index[r.class]}
		if numeric {
			img.Class, _ = strconv.Atoi(r.class)
		}
		if !filepath.IsAbs(img.Path) {
			img.Path = filepath.Join(images, filepath.FromSlash(img.Path))
		}
		there, err := f.here(img.Path, path, r.line)
		if err != nil {
			return nil, err
		}
		if there {
			s.Images = append(s.Images, img)
		}
	}
	s.Missing = f.missing
	s.number()
	return s, nil
}

type listRow struct {
	path, class string
	line        int
}

// parseList reads the lines; path is for errors, and its ending tells CSV from the rest.
func parseList(text []byte, path string) ([]listRow, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	first, _, _ := bytes.Cut(text, []byte("\n"))
	tabs := strings.ToLower(filepath.Ext(path)) != ".csv" && bytes.ContainsRune(first, '\t')
	records := csvRecords(text, path)
	if tabs {
		records = tsvRecords(text)
	}
	pathColumn, classColumn := 0, 1
	var rows []listRow
	header := true
	for r, err := range records {
		if err != nil {
			return nil, err
		}
		if header {
			header = false
			if p, c := column(r.fields, pathColumns), column(r.fields, classColumns); p >= 0 && c >= 0 {
				pathColumn, classColumn = p, c
				continue
			}
		}
		if len(r.fields) <= max(pathColumn, classColumn) {
			return nil, wrong(path, r.line, ErrFormat, "got %s, want a path and a class", plural(len(r.fields), "field"))
		}
		row := listRow{strings.TrimSpace(r.fields[pathColumn]), strings.TrimSpace(r.fields[classColumn]), r.line}
		if row.path == "" || row.class == "" {
			return nil, wrong(path, r.line, ErrFormat, "got an empty field, want a path and a class")
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return nil, wrong(path, 0, ErrFormat, "got no line with a path and a class")
	}
	return rows, nil
}

type record struct {
	fields []string
	line   int
}

func csvRecords(text []byte, path string) iter.Seq2[record, error] {
	r := csv.NewReader(bytes.NewReader(text))
	r.FieldsPerRecord = -1
	r.ReuseRecord = true
	return func(yield func(record, error) bool) {
		for {
			fields, err := r.Read()
			var bad *csv.ParseError
			switch {
			case errors.Is(err, io.EOF):
				return
			case errors.As(err, &bad):
				yield(record{}, wrong(path, bad.Line, ErrFormat, "%v", bad.Err))
				return
			case err != nil:
				yield(record{}, fileError(path, err))
				return
			}
			line, _ := r.FieldPos(0)
			if !yield(record{fields, line}, nil) {
				return
			}
		}
	}
}

// tsvRecords cuts lines at tabs: TSV has no quotes.
func tsvRecords(text []byte) iter.Seq2[record, error] {
	return func(yield func(record, error) bool) {
		line := 0
		for row := range strings.Lines(string(text)) {
			line++
			if row = strings.TrimRight(row, "\r\n"); row != "" && !yield(record{strings.Split(row, "\t"), line}, nil) {
				return
			}
		}
	}
}

// column finds the column with one of the names; -1 where there is none.
func column(fields, names []string) int {
	return slices.IndexFunc(fields, func(f string) bool { return slices.Contains(names, strings.ToLower(strings.TrimSpace(f))) })
}
