package dataset

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Recognize tells which kind of data set a folder or file is, by its files' names: see Kind. The error is
// ErrKind, with what was looked for.
func Recognize(path string) (Kind, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fileError(path, err)
	}
	if !info.IsDir() {
		switch strings.ToLower(filepath.Ext(path)) {
		case ".json":
			return COCO, nil
		case ".csv", ".tsv", ".tab", ".txt":
			return List, nil
		case ".yaml", ".yml":
			return YOLO, nil
		}
		return "", wrong(path, 0, ErrKind, "want a folder, or a file .json (COCO), .yaml (YOLO), .csv or .tsv (a list)")
	}
	has := func(names ...string) bool {
		for _, name := range names {
			if info, err := os.Stat(filepath.Join(path, name)); err != nil || !info.IsDir() {
				return false
			}
		}
		return true
	}
	switch {
	case has("JPEGImages", "Annotations"), has("JPEGImages", "SegmentationClass"):
		return VOC, nil
	case has("leftImg8bit", "gtFine"):
		return Masks, nil
	}
	if config, err := yoloConfig(path); err != nil {
		return "", err
	} else if config != "" {
		return YOLO, nil
	}
	if files, err := cocoFiles(path); err != nil {
		return "", err
	} else if len(files) > 0 {
		return COCO, nil
	}
	for _, folder := range []string{"labels", "masks", "annotations"} {
		if !has("images", folder) {
			continue
		}
		switch endingBelow(filepath.Join(path, folder)) {
		case ".txt":
			return YOLO, nil
		case ".png":
			return Masks, nil
		}
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", fileError(path, err)
	}
	for _, e := range entries {
		if isFolder(path, e) && isImage("x"+endingBelow(filepath.Join(path, e.Name()))) {
			return Folder, nil
		}
	}
	return "", wrong(path, 0, ErrKind, "got none of: a folder of images for each class; annotations/*.json (COCO); JPEGImages and Annotations (VOC); "+
		"data.yaml, or images and labels (YOLO); images and masks")
}

// endingBelow is the ending of the first file below a folder that has one, in lower case.
func endingBelow(dir string) (ending string) {
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			ending = strings.ToLower(filepath.Ext(path))
			if e.Name() == "classes.txt" {
				return nil
			}
			return fs.SkipAll
		}
		return nil
	})
	return ending
}

// cocoFiles are the JSON files that a folder's annotations may be: annotations/*.json, else those of the folder
// itself that are named as annotations are.
func cocoFiles(dir string) ([]string, error) {
	for _, pattern := range []string{"annotations/*.json", "instances*.json", "_annotations.coco.json", "annotations*.json"} {
		files, err := filepath.Glob(filepath.Join(globQuote(dir), filepath.FromSlash(pattern)))
		if err != nil {
			return nil, fileError(dir, err)
		}
		if len(files) > 0 {
			return files, nil
		}
	}
	return nil, nil
}

// Read reads a data set of any kind; "" is the one that Recognize finds.
func Read(path string, kind Kind, o Options) (*Set, error) {
	if kind == "" {
		var err error
		switch {
		case o.Annotations != "":
			kind = COCO
		case o.Masks != "":
			kind = Masks
		default:
			if kind, err = Recognize(path); err != nil {
				return nil, err
			}
		}
	}
	switch kind {
	case Folder:
		return ReadFolder(path, o)
	case List:
		return ReadList(path, o.Images, o)
	case VOC:
		return ReadVOC(path, o)
	case YOLO:
		return ReadYOLO(path, o)
	case COCO:
		return readCOCO(path, o)
	case Masks:
		images, masks, err := maskFolders(path, o)
		if err != nil {
			return nil, err
		}
		return ReadMasks(images, masks, o)
	}
	return nil, wrong(path, 0, ErrKind, "got the kind %q, want %s", kind, strings.Join(kindNames(), ", "))
}

// Kinds lists every kind.
func Kinds() []Kind { return []Kind{Folder, List, COCO, VOC, YOLO, Masks} }

func kindNames() (names []string) {
	for _, k := range Kinds() {
		names = append(names, string(k))
	}
	return names
}

// maskFolders finds the images and the masks of a folder.
func maskFolders(path string, o Options) (images, masks string, err error) {
	choose := func(given string, names ...string) (string, error) {
		if given != "" {
			return given, nil
		}
		for _, name := range names {
			folder := filepath.Join(path, name)
			if info, err := os.Stat(folder); err != nil || !info.IsDir() {
				continue
			}
			for _, split := range splitNames(o.Split) {
				if info, err := os.Stat(filepath.Join(folder, split)); err == nil && info.IsDir() {
					return filepath.Join(folder, split), nil
				}
			}
			if o.Split != "" {
				return "", wrong(filepath.Join(folder, o.Split), 0, ErrSplit, "want the folder of that split")
			}
			return folder, nil
		}
		return "", wrong(path, 0, ErrMissing, "want the folder %s", strings.Join(names, " or "))
	}
	images, err = choose(o.Images, "images", "leftImg8bit", "img_dir")
	if errors.Is(err, ErrMissing) && o.Masks != "" {
		images, err = path, nil // the images' folder itself
	}
	if err != nil {
		return "", "", err
	}
	masks, err = choose(o.Masks, "masks", "annotations", "labels", "gtFine", "ann_dir")
	return images, masks, err
}
