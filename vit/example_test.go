package vit_test

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/vit"
)

// A ViT's tokens go into a decoder of one's own, a TorchScript file, without leaving libtorch. This one
// takes the tokens of the last block, prefix tokens first, and the size of its answer.
func ExampleFeatureExtractor() {
	ctx := context.Background()
	extractor, err := vit.LoadFeatureExtractor("../testdata/models/garments_vit.pt", vit.FeatureOptions{
		Format: vit.FormatNLC, KeepPrefix: true, Norm: true,
	}, vit.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer extractor.Close()
	decoder, err := jit.Load("../testdata/models/garments_segmentation_head.pt", jit.LoadOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer decoder.Close()

	found, err := extractor.Extract(ctx, 0, "../testdata/scenes/scene_1.jpg")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer found[0].Close()
	logits, err := decoder.Forward(ctx, found[0].Maps[0], 128, 160)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer torch.CloseAll(logits)
	fmt.Println(found[0].Maps[0].Shape(), "to", logits.(*torch.Tensor).Shape())
	// Output:
	// [1 321 192] to [1 11 128 160]
}
