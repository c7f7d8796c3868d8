package det_test

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/det"
	"github.com/torchvit/torchvit/vit"
)

// Only some classes count, one of them from a lower score on, and boxes of different classes suppress each other.
func ExampleDetector_Detect() {
	detector, err := det.Load("../testdata/models/garments_faster_rcnn.pt", vit.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer detector.Close()

	found, err := detector.Detect(context.Background(), det.DetectOptions{
		Threshold:       0.3,
		ClassThresholds: map[string]float32{"Bag": 0.2},
		Classes:         []string{"Bag", "Trouser", "Dress", "Ankle boot"},
		NMS:             det.NMSAgnostic,
		MaxDetections:   20,
	}, "../testdata/scenes/scene_15.jpg")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, d := range found[0] {
		fmt.Printf("%s %.2f, %.0f x %.0f pixels\n", d.Label, d.Score, d.Box.Width(), d.Box.Height())
	}
	// Output:
	// Trouser 0.98, 54 x 116 pixels
	// Bag 0.68, 98 x 122 pixels
	// Ankle boot 0.51, 197 x 113 pixels
}

// Soft-NMS leaves the box that overlaps, with a lower score.
func ExampleSoftNMS() {
	boxes := []det.Box{{X1: 0, Y1: 0, X2: 10, Y2: 10}, {X1: 0, Y1: 0, X2: 10, Y2: 5}, {X1: 20, Y1: 0, X2: 30, Y2: 10}}
	order, scores, err := det.SoftNMS(boxes, []float32{0.9, 0.8, 0.5}, nil, det.SoftOptions{Method: det.SoftLinear})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(order, scores)
	// Output: [0 2 1] [0.9 0.5 0.4]
}
