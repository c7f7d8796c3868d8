package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/torchvit/torchvit/dataset"
)

// datasetFlags say how a data set is read and what its classes are.
type datasetFlags struct {
	kind       string
	o          dataset.Options
	classes    []string
	ignore     []int
	reduceZero bool
	maskValues string
	given      func(string) bool
}

// add adds the flags to a command.
func (f *datasetFlags) add(cmd *cobra.Command) {
	f.given = cmd.Flags().Changed
	flags := cmd.Flags()
	kinds := make([]string, 0, 6)
	for _, k := range dataset.Kinds() {
		kinds = append(kinds, string(k))
	}
	flags.StringVar(&f.kind, "dataset", "", "`kind` of the data set, where it is not recognised: "+strings.Join(kinds, ", "))
	flags.StringVar(&f.o.Images, "images", "", "`folder` of the images, where the data set does not tell")
	flags.StringVar(&f.o.Masks, "masks", "", "`folder` of the masks, PNG files named as the images")
	flags.StringVar(&f.o.Annotations, "annotations", "", "COCO's `file` of instances; DATASET may then be the images' folder")
	flags.StringVar(&f.o.Split, "split", "", "`part` of the data set (default: val where there is one)")
	flags.StringVar(&f.o.ImageSuffix, "image-suffix", "", "`end` of the images' names, where masks are named otherwise")
	flags.StringVar(&f.o.MaskSuffix, "mask-suffix", "", "`end` of the masks' names (default: .png)")
	flags.BoolVar(&f.o.SkipMissing, "skip-missing", false, "leave images out that are not there")
	flags.StringSliceVar(&f.classes, "classes", nil, "`NAME=LABEL,...`: the model's label (or number) of the data set's classes, nothing to leave one out; or index (by place) or id (COCO's ids)")
	flags.IntSliceVar(&f.ignore, "ignore-index", []int{dataset.Ignored}, "`values` of a mask's pixels that do not count; -1 ignores none")
	flags.BoolVar(&f.reduceZero, "reduce-zero-label", false, "a mask's 0 does not count, 1 is the first class (ADE20K)")
	flags.StringVar(&f.maskValues, "mask-values", "", "what a mask's values mean: cityscapes (labelIds), or `VALUE=CLASS,...`, all others as they are (255=1 for black and white)")
	_ = cmd.RegisterFlagCompletionFunc("dataset", cobra.FixedCompletions(kinds, cobra.ShellCompDirectiveNoFileComp))
}

// checkDataset checks the flags.
func (f *datasetFlags) checkDataset() error {
	if f.kind != "" && !slices.Contains(dataset.Kinds(), dataset.Kind(f.kind)) {
		return usagef("--dataset %s: want one of %v", f.kind, dataset.Kinds())
	}
	for _, v := range f.ignore {
		if v < -1 || v > 255 {
			return usagef("--ignore-index %d: want 0 to 255, or -1 for none", v)
		}
	}
	_, err := f.maskOptions()
	return err
}

// maskOptions says what the values of masks mean.
func (f *datasetFlags) maskOptions() (dataset.MaskOptions, error) {
	o := dataset.MaskOptions{ReduceZeroLabel: f.reduceZero}
	switch f.maskValues {
	case "":
		return o, nil
	case "cityscapes":
		o.Map = dataset.CityscapesTrainIDs()
		return o, nil
	}
	o.Map = new([256]uint8)
	for i := range o.Map {
		o.Map[i] = uint8(i)
	}
	for text := range strings.SplitSeq(f.maskValues, ",") {
		from, to, _ := strings.Cut(text, "=")
		v, err1 := strconv.ParseUint(strings.TrimSpace(from), 10, 8)
		class, err2 := strconv.ParseUint(strings.TrimSpace(to), 10, 8)
		if err1 != nil || err2 != nil {
			return o, usagef("--mask-values %s: want cityscapes or VALUE=CLASS,... with numbers of 0 to 255", f.maskValues)
		}
		o.Map[v] = uint8(class)
	}
	return o, nil
}

// ignored are the labels that do not count; empty, not nil, for none.
func (f *datasetFlags) ignored() []uint8 {
	out := []uint8{}
	for _, v := range f.ignore {
		if v >= 0 {
			out = append(out, uint8(v))
		}
	}
	return out
}

// matchClasses is dataset.Set.Match; what is wrong with --classes is about usage.
func matchClasses(set *dataset.Set, labels, given []string) ([]int, error) {
	classes, err := set.Match(labels, given...)
	if errors.Is(err, dataset.ErrGiven) {
		return nil, usagef("--%v", err)
	}
	return classes, err
}
