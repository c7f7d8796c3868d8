package loss_test

import (
	"context"
	"fmt"
	"log"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/loss"
)

// The loss of two photos and three classes, and its gradient: softmax minus target, over the number of photos.
func Example() {
	ctx := context.Background()
	var scope torch.Scope
	defer scope.Close()
	own := func(t *torch.Tensor, err error) *torch.Tensor {
		if err != nil {
			log.Fatal(err)
		}
		scope.Track(t)
		return t
	}
	logits := own(torch.NewTensor([]float32{2, 1, 0, 0, 0, 3}, 2, 3))
	classes := own(torch.NewTensor([]int64{0, 2}))
	if err := logits.SetRequiresGrad(true); err != nil {
		log.Fatal(err)
	}
	value := own(loss.CrossEntropy(ctx, logits, classes, loss.CrossEntropyOptions{}))
	if err := torch.Backward(ctx, value, torch.BackwardOptions{}); err != nil {
		log.Fatal(err)
	}
	number, err := value.Item()
	if err != nil {
		log.Fatal(err)
	}
	gradient, err := torch.CopyData[float32](own(logits.Grad()))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.4f\n%.3f\n", number, gradient)
	// Output:
	// 0.2513
	// [-0.167 0.122 0.045 0.023 0.023 -0.045]
}
