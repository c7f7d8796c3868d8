// Command nocgo is built with CGO_ENABLED=0 by a test: it prints whether calls say that libtorch is not
// there.
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
)

func main() {
	_, err := torch.NewTensor([]float32{1})
	fmt.Println(errors.Is(err, torch.ErrNotInstalled), err)
	_, err = torch.Call(context.Background(), "aten::relu")
	fmt.Println(errors.Is(err, torch.ErrNotInstalled), err)
	_, err = jit.LoadBytes([]byte("x"), jit.LoadOptions{Unchecked: true})
	fmt.Println(errors.Is(err, torch.ErrNotInstalled), err)
	fmt.Println(!torch.IsCUDAAvailable())
}
