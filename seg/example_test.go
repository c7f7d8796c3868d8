package seg_test

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/seg"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// A photo is seen at twice the model's size, through windows that overlap, as mmsegmentation does it.
func ExampleVisionTransformerForSegmentation_SegmentWith() {
	model, err := seg.Load("../testdata/models/garments_segmentation.pt", vit.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer model.Close()

	answers, err := model.SegmentWith(context.Background(), seg.SegmentOptions{
		Slide: &seg.Slide{Resize: transforms.ResizeSpec{Rule: transforms.RuleShortestEdge, Size: []int{256}}},
	}, "../testdata/scenes/scene_2.jpg")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer seg.CloseAll(answers)

	segments, err := answers[0].Segments(seg.Labels(model.Metadata()))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range segments { // each with its mask as COCO's run lengths
		if s.Share > 0.01 {
			fmt.Printf("%s: %.0f %%\n", s.Label, 100*s.Share)
		}
	}
	// Output:
	// background: 80 %
	// T-shirt/top: 4 %
	// Dress: 2 %
	// Sandal: 4 %
	// Shirt: 8 %
}

// A ViT and a head in two files: the tokens between them never leave libtorch.
func ExampleCustomSegmentationModel() {
	meta, err := vit.ReadMetadata("../testdata/models/garments_vit.pt")
	if err != nil {
		fmt.Println(err)
		return
	}
	backbone, err := vit.Load("../testdata/models/garments_vit.pt", vit.Options{Metadata: seg.WholePhoto(meta)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer backbone.Close()
	head, err := seg.LoadHead("../testdata/models/garments_segmentation_head.pt", vit.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer head.Close()

	model := seg.CustomSegmentationModel{ViT: backbone, SegmentationHead: head}
	maps, err := model.Segment(context.Background(), "../testdata/scenes/scene_1.jpg", "../testdata/scenes/scene_2.jpg")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range maps {
		fmt.Printf("%d x %d: %.0f %% %s\n", m.Width, m.Height, 100*m.Shares()[0], head.Label(0))
	}
	// Output:
	// 320 x 256: 75 % background
	// 256 x 256: 84 % background
}
