package transforms_test

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/transforms"
)

// A batch of photos, as timm would prepare them.
func ExamplePipeline() {
	ctx := context.Background()
	spec, err := transforms.SpecFromTimm([]byte(`{"input_size": [3, 224, 224], "crop_pct": 0.9, "interpolation": "bicubic"}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	pipeline, err := transforms.NewPipeline(spec, transforms.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	pixels, geometry, err := pipeline.Apply(ctx, "../testdata/images/coffee.jpg", "../testdata/images/chelsea.png")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pixels.Close()
	fmt.Println(pixels.Shape())
	fmt.Println(geometry[0].ResizedHeight, geometry[0].ResizedWidth, geometry[0].Top, geometry[0].Left)
	// Output:
	// [2 3 224 224]
	// 248 372 12 74
}

// The same steps one by one, as in torchvision.
func ExampleCompose() {
	ctx := context.Background()
	photo, err := transforms.Open(ctx, "../testdata/images/coffee.jpg", transforms.DecodeOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer photo.Close()
	steps := transforms.Compose{
		transforms.Resize{Size: []int{256}},
		transforms.CenterCrop{Size: []int{224}},
		transforms.ToTensor{},
		transforms.Normalize{Mean: []float64{0.485, 0.456, 0.406}, Std: []float64{0.229, 0.224, 0.225}},
	}
	out, err := steps.Apply(ctx, photo)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer out.Close()
	tensor, err := out.Tensor()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tensor.Close()
	fmt.Println(tensor.Shape(), tensor.DType())
	// Output: [3 224 224] float32
}
