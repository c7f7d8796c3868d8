package loader_test

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/loader"
	"github.com/torchvit/torchvit/transforms"
)

// An epoch of scenes with boxes and masks, cropped, mirrored and recoloured at random.
func ExampleLoader() {
	ctx := context.Background()
	set, err := dataset.ReadCOCO("../testdata/scenes/instances.json", "", dataset.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	l, err := loader.New(set, loader.Options{
		BatchSize: 4,
		Shuffle:   true,
		Seed:      1,
		Spec:      transforms.Spec{Mean: []float64{0.5, 0.5, 0.5}, Std: []float64{0.5, 0.5, 0.5}},
		Size:      transforms.Size{Height: 128, Width: 128},
		Targets:   loader.Boxes | loader.Masks,
		Augment: loader.Augment{
			RandomResizedCrop: &transforms.RandomResizedCrop{Scale: [2]float64{0.4, 1}},
			HorizontalFlip:    0.5,
			ColorJitter:       &transforms.ColorJitter{Brightness: []float64{0.3}, Saturation: []float64{0.3}},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	for batch, err := range l.Batches(ctx, 0, 0) {
		if err != nil {
			fmt.Println(err)
			return
		}
		if batch.Step == 0 {
			fmt.Println(batch.Images.Shape(), batch.Masks.Shape(), len(batch.Boxes))
		}
		batch.Close()
	}
	// Output: [4 3 128 128] [4 128 128] 4
}
