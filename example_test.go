package torchvit_test

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/vit"
)

// The example of README.md. `make models` makes the file: vit_tiny_patch16_224 with seeded weights, and
// so with classes that mean nothing.
func Example() {
	model, err := vit.Load("testdata/generated/vit_tiny_patch16_224.pt", vit.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer model.Close()

	answers, err := model.Classify(context.Background(), 3, "testdata/images/coffee.jpg")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, class := range answers[0] { // the first photo's classes, best first
		fmt.Printf("%s %.4f\n", class.Label, class.Score)
	}
	// Output:
	// barbell 0.0131
	// crane 0.0121
	// web site 0.0113
}
