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

	answers, err := model.Classify(context.Background(), 3, "testdata/scenes/single_2.jpg")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, class := range answers[0] { // the first photo's classes, best first
		fmt.Printf("%s %.4f\n", class.Label, class.Score)
	}
	// Output:
	// Pullover 0.7243
	// Shirt 0.0832
	// T-shirt/top 0.0696
}
