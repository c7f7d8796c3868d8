package main

import (
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/torchvit/torchvit/internal/annotate"
	"github.com/torchvit/torchvit/internal/ordered"
	"github.com/torchvit/torchvit/internal/whole"
	"github.com/torchvit/torchvit/transforms"
)

// found is what a command found in one photo.
type found struct {
	answer printer
	files  []string // pictures written
}

// printer is an answer: text for people, and as a value for JSON.
type printer interface{ print(w io.Writer) error }

// eachImage runs work on every image, and prints the answers in the order of the images. While the models of all
// lanes run, the next photo is decoded. The first error ends it; what came before has been printed.
func (a *app) eachImage(ctx context.Context, paths []string, work func(ctx context.Context, path string) (found, error)) error {
	bar := a.answerProgress(len(paths), "images")
	defer bar.finish()
	return ordered.Each(ctx, slices.Values(paths), min(max(a.lanes, 1)+1, len(paths)),
		func(ctx context.Context, path string) (found, error) {
			f, err := work(ctx, path)
			if err != nil {
				return f, inImage(path, err)
			}
			return f, nil
		}, func(path string, f found) error {
			if err := a.printAnswer(f.answer); err != nil {
				return err
			}
			for _, file := range f.files {
				fmt.Fprintln(a.stderr, "wrote "+file)
			}
			bar.add(1)
			return nil
		}, nil)
}

// answerProgress is newProgress for work that prints its answers one by one: on a terminal they show how far
// it is, and a bar would stand among them.
func (a *app) answerProgress(total int, what string) *progress {
	bar := a.newProgress(total, what)
	if f, ok := a.stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		bar.w = nil
	}
	return bar
}

// inImage names the image in an error that does not.
func inImage(path string, err error) error {
	if errors.Is(err, context.Canceled) || strings.Contains(err.Error(), path) {
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}

// pictures is the folder of --out: it names the files that come from each photo.
type pictures struct {
	dir   string
	stems map[string]string
}

// newPictures makes the folder; nil where dir is "". A file is named after its
// photo without the ending; where two photos would share that name, after the
// whole name, and else with a number.
func newPictures(dir string, photos []string) (*pictures, error) {
	if dir == "" {
		return nil, nil
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("--out: %w", err)
	}
	p := &pictures{dir: dir, stems: map[string]string{}}
	stem := func(path string) string {
		base := filepath.Base(path)
		if s := strings.TrimSuffix(base, filepath.Ext(base)); s != "" {
			return s
		}
		return base
	}
	count, counted := map[string]int{}, map[string]bool{}
	for _, path := range photos {
		if !counted[path] {
			counted[path] = true
			count[stem(path)]++
		}
	}
	taken := map[string]bool{}
	for _, path := range photos {
		if _, named := p.stems[path]; named {
			continue // the same photo again gives the same files
		}
		name := stem(path)
		if count[name] > 1 {
			name = filepath.Base(path)
		}
		for n, base := 2, name; taken[name]; n++ {
			name = fmt.Sprintf("%s-%d", base, n)
		}
		p.stems[path], taken[name] = name, true
	}
	return p, nil
}

// path is the place of one file of a photo.
func (p *pictures) path(photo, suffix string) string {
	return filepath.Join(p.dir, p.stems[photo]+suffix)
}

// image writes a picture of a photo, whole or not at all, and gives its place.
func (p *pictures) image(photo, suffix string, img image.Image) (string, error) {
	path := p.path(photo, suffix)
	write := func(w io.Writer) error { return transforms.EncodePNG(w, img) }
	if filepath.Ext(path) == ".jpg" {
		write = func(w io.Writer) error {
			return transforms.EncodeJPEG(context.Background(), w, img, annotate.JPEGQuality)
		}
	}
	if err := whole.Write(path, write); err != nil {
		return "", fmt.Errorf("--out: %w", err)
	}
	return path, nil
}

// openPhoto decodes an image file as Pillow does, once for the model and for the pictures. The caller
// closes it.
func openPhoto(ctx context.Context, path string) (*transforms.Image, error) {
	return transforms.Open(ctx, path, transforms.DecodeOptions{})
}

// modelAndImages wants MODEL IMAGE...
func modelAndImages(cmd *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return usagef("%s: want a model file and one image or more", cmd.Name())
	case 1:
		return usagef("%s %s: want one image or more after the model file", cmd.Name(), args[0])
	}
	return nil
}

// completeModel completes the first argument with model files, the others with any file.
func completeModel(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return []string{"pt", "pth", "ts"}, cobra.ShellCompDirectiveFilterFileExt
	}
	return nil, cobra.ShellCompDirectiveDefault
}

// completeDType completes --dtype.
func completeDType(cmd *cobra.Command) {
	_ = cmd.RegisterFlagCompletionFunc("dtype", cobra.FixedCompletions([]string{"float32", "bfloat16", "float16", "float64"}, cobra.ShellCompDirectiveNoFileComp))
}
