// Loaderbench is Go's half of scripts/bench_loader.py: epochs of a loader, without a model. It reads lines
// "TASK EPOCH" and prints the seconds that an epoch took and the mean of its pixels.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/loader"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "loaderbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	if len(args) != 5 {
		return fmt.Errorf("got %d arguments, want FOLDER COCO.json SIZE WORKERS BATCH", len(args))
	}
	var numbers [3]int
	for i := range numbers {
		if numbers[i], err = strconv.Atoi(args[2+i]); err != nil {
			return err
		}
	}
	size := transforms.Size{Height: numbers[0], Width: numbers[0]}
	folder, err := dataset.ReadFolder(args[0], dataset.Options{})
	if err != nil {
		return err
	}
	scenes, err := dataset.ReadCOCO(args[1], "", dataset.Options{})
	if err != nil {
		return err
	}
	half := []float64{0.5, 0.5, 0.5}
	o := loader.Options{
		BatchSize: numbers[2], Workers: numbers[1], Shuffle: true, Spec: transforms.Spec{Mean: half, Std: half}, Size: size,
		Augment: loader.Augment{RandomResizedCrop: &transforms.RandomResizedCrop{}, HorizontalFlip: 0.5},
	}
	loaders := map[string]*loader.Loader{}
	add := func(task string, set *dataset.Set) {
		if err == nil {
			loaders[task], err = loader.New(set, o)
		}
	}
	add("classify", folder)
	o.Augment.ColorJitter = &transforms.ColorJitter{
		Brightness: []float64{0.4}, Contrast: []float64{0.4}, Saturation: []float64{0.4}, Hue: []float64{0.1},
	}
	add("jitter", folder)
	o.Augment = loader.Augment{ScaleJitter: &transforms.ScaleJitter{}, HorizontalFlip: 0.5}
	o.Targets = loader.Boxes | loader.Masks
	add("scale", scenes)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var task string
		var epoch int
		if _, err := fmt.Sscan(lines.Text(), &task, &epoch); err != nil || loaders[task] == nil {
			return fmt.Errorf("got the line %q, want TASK EPOCH", lines.Text())
		}
		start, mean, images := time.Now(), 0.0, 0
		for b, err := range loaders[task].Batches(ctx, epoch, 0) {
			if err != nil {
				return err
			}
			m, err := meanOf(b.Images)
			mean, images = mean+m*float64(b.Len()), images+b.Len()
			b.Close()
			if err != nil {
				return err
			}
		}
		fmt.Println(time.Since(start).Seconds(), images, mean/float64(images))
	}
	return lines.Err()
}

// meanOf is what the model stands for: it reads all pixels.
func meanOf(t *torch.Tensor) (float64, error) {
	mean, err := t.Mean()
	if err != nil {
		return 0, err
	}
	defer mean.Close()
	v, err := mean.Item()
	if err != nil {
		return 0, err
	}
	return v.(float64), nil
}
