package optim_test

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/torch/optim"
)

// A training loop: the module, which is a linear layer times 7, learns to turn a point by 90 degrees.
func ExampleNewAdamW() {
	ctx, training := context.Background(), torch.CallOptions{Mode: torch.Grad}
	train := func(module *jit.Module, x, y *torch.Tensor) (first, last float64, err error) {
		if err := module.Train(true); err != nil {
			return 0, 0, err
		}
		forward, err := module.Method("forward")
		if err != nil {
			return 0, 0, err
		}
		params, err := module.NamedParameters() // they share the module's memory
		if err != nil {
			return 0, 0, err
		}
		defer closeAll(params)
		optimizer, err := optim.NewAdamW(optim.Parameters(params), optim.AdamOptions{LR: 0.05})
		if err != nil {
			return 0, 0, err
		}
		defer optimizer.Close()
		schedule := optim.LinearWarmup(10, 0.1, optim.Cosine(190, 0))

		step := func(i int) (value float64, err error) {
			optimizer.ScaleLR(schedule(i))
			out, err := forward.CallWith(ctx, training, x)
			if err != nil {
				return 0, err
			}
			defer torch.CloseAll(out)
			loss, err := torch.CallWith(ctx, training, "aten::mse_loss", out, y)
			if err != nil {
				return 0, err
			}
			defer torch.CloseAll(loss)
			if err := torch.Backward(ctx, loss.(*torch.Tensor), torch.BackwardOptions{}); err != nil {
				return 0, err
			}
			if _, err := optim.ClipGradNorm(ctx, params, 10); err != nil {
				return 0, err
			}
			if err := optimizer.Step(ctx); err != nil {
				return 0, err
			}
			if err := optimizer.ZeroGrad(); err != nil {
				return 0, err
			}
			v, err := loss.(*torch.Tensor).Item()
			value, _ = v.(float64)
			return value, err
		}
		for i := range 200 {
			if last, err = step(i); err != nil {
				return 0, 0, err
			}
			if i == 0 {
				first = last
			}
		}
		return first, last, nil
	}

	module, err := jit.Load(filepath.Join("..", "..", "testdata", "modules", "attributes.pt"), jit.LoadOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer module.Close()
	x, err := torch.NewTensor([]float32{1, 0, 0, 1, 1, 1, -2, 1}, 4, 2)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer x.Close()
	y, err := torch.NewTensor([]float32{0, 1, -1, 0, -1, 1, -1, -2}, 4, 2)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer y.Close()

	first, last, err := train(module, x, y)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.1f, and in the end less than 0.01: %t\n", first, last < 0.01)
	// Output: 56.2, and in the end less than 0.01: true
}

func closeAll(params []optim.Param) {
	for _, p := range params {
		p.Tensor.Close()
	}
}
