package torch_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/torchvit/torchvit/torch"
)

// The snippets of docs/lifecycle.md and docs/from-gotorch.md.

func Example_close() {
	x, err := torch.NewTensor([]float32{1, 2, 3, 4}, 2, 2)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer x.Close() // again, or on nil: no effect

	x.Close()
	_, err = x.Clone()
	fmt.Println(errors.Is(err, torch.ErrClosed))
	// Output: true
}

func ExampleScope() {
	softmaxOfSum := func(x *torch.Tensor) (*torch.Tensor, error) {
		var scope torch.Scope
		defer scope.Close() // frees what own tracked
		own := torch.Own(&scope)

		sum, err := own(x.Sum(0))
		if err != nil {
			return nil, err
		}
		out, err := own(sum.Softmax(-1))
		if err != nil {
			return nil, err
		}
		return scope.Keep(out), nil // now the caller's
	}

	x, err := torch.NewTensor([]float32{1, 2, 3, 3, 2, 1}, 2, 3)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer x.Close()
	y, err := softmaxOfSum(x)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer y.Close()
	fmt.Println(y)
	// Output: tensor([0.3333, 0.3333, 0.3333])
}

func ExampleWithData() {
	x, err := torch.Empty([]int64{2, 2}, torch.TensorOptions{DType: torch.Float32})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer x.Close()
	err = torch.WithData(x, func(data []float32) error {
		for i := range data {
			data[i] = float32(i) // libtorch's own memory
		}
		return nil
	})
	fmt.Println(x, err)
	// Output:
	// tensor([[0., 1.],
	//         [2., 3.]]) <nil>
}

func ExampleData() {
	x, err := torch.Ones([]int64{3}, torch.TensorOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	data, err := torch.Data[float32](x) // from here on only Close frees x
	if err != nil {
		fmt.Println(err)
		return
	}
	data[0] = 5
	fmt.Println(x)
	x.Close() // data must not be used from here on
	// Output: tensor([5., 1., 1.])
}

func ExampleFromSlice() {
	pixels := []float32{1, 2, 3, 4}
	x, err := torch.FromSlice(pixels, 2, 2) // shares, and pins, the slice
	if err != nil {
		fmt.Println(err)
		return
	}
	defer x.Close()
	pixels[0] = 9
	fmt.Println(x)
	// Output:
	// tensor([[9., 2.],
	//         [3., 4.]])
}

func Example_view() {
	x, err := torch.NewTensor([]float32{1, 2, 3, 4, 5, 6}, 2, 3)
	if err != nil {
		fmt.Println(err)
		return
	}
	row, err := x.Select(0, 1) // x[1]: a view
	if err != nil {
		fmt.Println(err)
		return
	}
	defer row.Close()
	fmt.Println(row.DataPtr() == x.DataPtr()+3*4)
	x.Close() // the memory lives on: row uses it
	fmt.Println(row)
	// Output:
	// true
	// tensor([4., 5., 6.])
}

func ExampleCall() {
	x, err := torch.NewTensor([]float32{3, 1, 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer x.Close()
	out, err := torch.Call(context.Background(), "aten::topk", x, 2) // torch.topk(x, 2)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer torch.CloseAll(out)
	best := out.(torch.Tuple)
	fmt.Println(best[0], best[1])
	// Output: tensor([3., 2.]) tensor([0, 2])
}

func ExampleError() {
	x, err := torch.Ones([]int64{2, 3}, torch.TensorOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer x.Close()
	_, err = x.MM(x)
	fmt.Println(errors.Is(err, torch.ErrShape))
	if e, ok := errors.AsType[*torch.Error](err); ok {
		fmt.Println(e.Op) // e.Message is one line, e.Detail libtorch's full text
	}
	// Output:
	// true
	// aten::mm
}
