package torchvit_test

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/vit"
)

// The example of README.md: a garment on a photo that training never saw.
func Example() {
	model, err := vit.Load("testdata/models/garments_vit.pt", vit.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer model.Close()

	answers, err := model.Classify(context.Background(), 3, "testdata/scenes/single_1.jpg")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, class := range answers[0] { // the first photo's classes, best first
		fmt.Printf("%s %.4f\n", class.Label, class.Score)
	}
	// Output:
	// Sneaker 0.5225
	// Sandal 0.3530
	// Ankle boot 0.0845
}
