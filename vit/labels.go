package vit

import (
	"embed"
	"errors"
	"fmt"
	"strings"
)

// ErrLabelSet says that no list of labels has the name that was asked for.
var ErrLabelSet = errors.New("no such list of labels")

// One name a line, by class id from 0. imagenet, coco91 and voc are those of torchvision.models._meta
// (BSD 3-clause), the others those of mmsegmentation's class_names.py (Apache-2.0) and of panopticapi's
// panoptic_coco_categories.json (BSD 2-clause).
//
//go:embed labels/*.txt
var labelFiles embed.FS

// LabelSetNames are the names that [LabelSet] knows.
func LabelSetNames() []string {
	return []string{"ade20k", "cityscapes", "coco", "coco-panoptic", "coco-stuff", "coco91", "imagenet", "voc"}
}

// LabelSet gives the names of a data set's classes by class id, for files that do not name theirs:
//
//   - "imagenet": ImageNet-1k's 1000, as torchvision names them
//   - "ade20k": ADE20K's 150, without a background
//   - "cityscapes": Cityscapes' 19 by train id
//   - "voc": Pascal VOC's 21, "background" first
//   - "coco": COCO's 80 things, numbered from 0 without gaps
//   - "coco91": the same by COCO's own category ids, 0 to 90, as torchvision's detectors give them:
//     "__background__" first, "N/A" for ids that COCO does not use
//   - "coco-panoptic": 80 things, then 53 kinds of stuff
//   - "coco-stuff": 80 things, then 91 kinds of stuff
//
// The list is the caller's. The error is [ErrLabelSet].
func LabelSet(name string) ([]string, error) {
	for _, known := range LabelSetNames() {
		if name != known {
			continue
		}
		text, err := labelFiles.ReadFile("labels/" + name + ".txt")
		if err != nil {
			return nil, fmt.Errorf("label set %s: %w", name, err)
		}
		return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"), nil
	}
	return nil, fmt.Errorf("label set: %w: got %q, want one of %s", ErrLabelSet, name, strings.Join(LabelSetNames(), ", "))
}
