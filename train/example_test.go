package train_test

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/loader"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/optim"
	"github.com/torchvit/torchvit/train"
	"github.com/torchvit/torchvit/vit"
)

// photos writes a data set of three images, one of each class, into a new folder.
func photos() (string, error) {
	dir, err := os.MkdirTemp("", "photos")
	if err != nil {
		return "", err
	}
	for i, class := range []string{"red", "green", "blue"} {
		img := image.NewNRGBA(image.Rect(0, 0, 32, 32))
		for p := range 32 * 32 {
			img.SetNRGBA(p%32, p/32, [3]color.NRGBA{{200, 0, 0, 255}, {0, 200, 0, 255}, {0, 0, 200, 255}}[i])
		}
		if err := os.Mkdir(filepath.Join(dir, class), 0o777); err != nil {
			return "", err
		}
		f, err := os.Create(filepath.Join(dir, class, "1.png"))
		if err != nil {
			return "", err
		}
		if err := errors.Join(png.Encode(f, img), f.Close()); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// A loop of one's own, of the pieces that Run is made of.
func Example() {
	if err := loop(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// top-1 1.00
	// tuned by me from vit.pt
}

func loop(ctx context.Context) error {
	dir, err := photos()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	set, err := dataset.Read(dir, "", dataset.Options{})
	if err != nil {
		return err
	}

	m, err := train.Load(filepath.Join("testdata", "vit.pt"), train.LoadOptions{})
	if err != nil {
		return err
	}
	defer m.Close()
	task, err := train.TaskOf(m, train.TaskOptions{LabelSmoothing: 0.1})
	if err != nil {
		return err
	}
	data, err := m.Data(set)
	if err != nil {
		return err
	}
	batches, err := data.Loader(m, task, loader.Options{BatchSize: 3, Shuffle: true, Seed: 1})
	if err != nil {
		return err
	}
	defer batches.Close()
	optimizer, err := optim.NewAdamW(optim.Parameters(m.Learned()), optim.AdamOptions{LR: 3e-3})
	if err != nil {
		return err
	}
	defer optimizer.Close()

	for epoch := range 10 {
		for b, err := range batches.Batches(ctx, epoch, 0) {
			if err != nil {
				return err
			}
			l, err := task.Loss(ctx, m, b)
			b.Close()
			if err != nil {
				return err
			}
			err = torch.Backward(ctx, l.Total, torch.BackwardOptions{})
			l.Total.Close()
			if err = errors.Join(err, optimizer.Step(ctx), optimizer.ZeroGrad()); err != nil {
				return err
			}
		}
	}
	metrics, err := task.Evaluate(ctx, m, data, nil)
	if err != nil {
		return err
	}
	fmt.Printf("%s %.2f\n", metrics[0].Name, metrics[0].Value)

	out := filepath.Join(dir, "tuned.pt")
	if err := m.Save(ctx, out, &vit.Training{By: "me", From: m.Name()}); err != nil {
		return err
	}
	meta, err := vit.ReadMetadata(out)
	if err != nil {
		return err
	}
	fmt.Println("tuned by", meta.Training.By, "from", meta.Training.From)
	return nil
}
