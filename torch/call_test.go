package torch_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/torch"
)

func TestCallChoosesTheOverload(t *testing.T) {
	x := tensor(t, []float32{1, 2, 3, 4}, 2, 2)
	for _, c := range []struct {
		name string
		args []any
		want string
	}{
		{"aten::add", []any{x, x}, "tensor([[2., 4.],\n        [6., 8.]])"},
		{"aten::add", []any{x, 1}, "tensor([[2., 3.],\n        [4., 5.]])"},
		{"aten::add", []any{x, 0.5}, "tensor([[1.5000, 2.5000],\n        [3.5000, 4.5000]])"},
		{"aten::add", []any{x, x, torch.Kwargs{"alpha": 10}}, "tensor([[11., 22.],\n        [33., 44.]])"},
		{"aten::add", []any{1, 2}, "3"},
		{"aten::add", []any{1.5, 2}, "3.5"},
		{"aten::add", []any{"a", "b"}, "ab"},
		{"aten::softmax", []any{x, -1, nil}, "tensor([[0.2689, 0.7311],\n        [0.2689, 0.7311]])"},
		{"aten::softmax", []any{x, 0}, "tensor([[0.1192, 0.1192],\n        [0.8808, 0.8808]])"},
		{"aten::softmax", []any{x, -1, torch.Float64}, "tensor([[0.2689, 0.7311],\n        [0.2689, 0.7311]], dtype=torch.float64)"},
		{"aten::softmax", []any{x, torch.Kwargs{"dim": -1, "dtype": nil}}, "tensor([[0.2689, 0.7311],\n        [0.2689, 0.7311]])"},
		{"aten::sum", []any{x}, "tensor(10.)"},
		{"aten::sum", []any{x, torch.Kwargs{"dtype": torch.Int64}}, "tensor(10)"},
		{"aten::sum", []any{x, 1}, "tensor([3., 7.])"},
		{"aten::sum", []any{x, []int64{0}}, "tensor([4., 6.])"},
		{"aten::sum", []any{x, []int{1}, true}, "tensor([[3.],\n        [7.]])"},
		{"aten::sum", []any{x, []int{1}, torch.Kwargs{"keepdim": true}}, "tensor([[3.],\n        [7.]])"},
		{"aten::max", []any{x}, "tensor(4.)"},
		{"aten::max", []any{x, 1}, "[tensor([2., 4.]) tensor([1, 1])]"},
		{"aten::max", []any{x, x}, "tensor([[1., 2.],\n        [3., 4.]])"},
		{"aten::any", []any{x}, "tensor(True)"},
		{"aten::std", []any{x}, "tensor(1.2910)"},
		{"aten::std", []any{x, torch.Kwargs{"correction": 0}}, "tensor(1.1180)"},
		{"aten::mul", []any{x, true}, "tensor([[1., 2.],\n        [3., 4.]])"},
		{"aten::to", []any{x, torch.Float64}, "tensor([[1., 2.],\n        [3., 4.]], dtype=torch.float64)"},
		{"aten::to", []any{x, torch.CPU, torch.Int32}, "tensor([[1, 2],\n        [3, 4]], dtype=torch.int32)"},
		{"aten::zeros", []any{[]int{2}, torch.Kwargs{"dtype": torch.Int16, "device": torch.CPU}}, "tensor([0, 0], dtype=torch.int16)"},
		{"aten::zeros", []any{[]int{}}, "tensor(0.)"},
		{"aten::arange", []any{3}, "tensor([0, 1, 2])"},
		{"aten::arange", []any{1, 3}, "tensor([1, 2])"},
		{"aten::avg_pool2d", []any{own(t)(x.View(1, 1, 2, 2)), 2}, "tensor([[[[2.5000]]]])"},
		{"aten::index", []any{x, []any{tensor(t, []int64{1})}}, "tensor([[3., 4.]])"},
		{"aten::index", []any{x, []any{nil, tensor(t, []int64{1})}}, "tensor([[2.],\n        [4.]])"},
		{"aten::where", []any{own(t)(x.Gt(2)), x, 0}, "tensor([[0., 0.],\n        [3., 4.]])"},
		{"aten::layer_norm", []any{x, []int{2}}, "tensor([[-1.0000,  1.0000],\n        [-1.0000,  1.0000]])"},
		{"aten::clamp", []any{x, nil, 3}, "tensor([[1., 2.],\n        [3., 3.]])"},
		{"aten::size", []any{x}, "[2 2]"},
		{"aten::size", []any{x, -1}, "2"},
		{"aten::item", []any{own(t)(x.Sum())}, "10"},
		{"aten::split", []any{x, 1}, "[tensor([[1., 2.]]) tensor([[3., 4.]])]"},
		{"aten::cat", []any{[]*torch.Tensor{x, x}, 1}, "tensor([[1., 2., 1., 2.],\n        [3., 4., 3., 4.]])"},
		{"torchvision::nms", []any{tensor(t, []float32{0, 0, 2, 2, 0, 0, 2, 1.9}, 2, 4), tensor(t, []float32{0.1, 0.9}), 0.5}, "tensor([1])"},
	} {
		v, err := torch.Call(t.Context(), c.name, c.args...)
		if assert.NoError(t, err, "%s %v", c.name, c.args) {
			assert.Equal(t, c.want, fmt.Sprint(v), "%s %v", c.name, c.args)
		}
		torch.CloseAll(v)
	}
}

// TestCallErrors: an ambiguity lists the overloads, a misfit the reason for each, an unknown name itself.
func TestCallErrors(t *testing.T) {
	ctx := t.Context()
	x := tensor(t, []float32{1, 2, 3, 4}, 2, 2)
	fails := func(name string, kind error, text string, args ...any) *torch.Error {
		t.Helper()
		v, err := torch.Call(ctx, name, args...)
		assert.Nil(t, v)
		require.Error(t, err, "%s %v", name, args)
		assert.ErrorIs(t, err, kind, "%v", err)
		assert.ErrorContains(t, err, text)
		assert.NotContains(t, err.Error(), "\n")
		e, _ := errors.AsType[*torch.Error](err)
		return e
	}
	fails("aten::std", torch.ErrInvalidArgument, "these arguments fit several overloads, name one of aten::std.dim, aten::std.correction", x, []int{1})
	v, err := torch.CallTensor(ctx, "aten::std.dim", x, []int{1})
	require.NoError(t, err)
	assert.Equal(t, "tensor([0.7071, 0.7071])", v.String())
	v.Close()

	e := fails("aten::softmax", torch.ErrInvalidArgument, "aten::softmax: no overload takes these arguments; aten::softmax.int: got 4 positional arguments, want at most 3", x, "x", "y", "z")
	for _, part := range []string{"aten::softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor: got 4 positional arguments, want at most 3"} {
		assert.Contains(t, e.Detail, part)
	}
	e = fails("aten::add", torch.ErrInvalidArgument, "no overload takes these arguments", x, []float32{1})
	assert.Contains(t, e.Detail, "aten::add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor: argument other: got list, want Tensor")
	fails("aten::relu", torch.ErrInvalidArgument, "aten::relu: no overload takes these arguments; aten::relu: argument self: got nothing, want Tensor")
	fails("aten::relu", torch.ErrInvalidArgument, "argument self: got int, want Tensor", 1)
	fails("aten::relu", torch.ErrInvalidArgument, "got 2 positional arguments, want at most 1", x, x)
	fails("aten::relu", torch.ErrInvalidArgument, "got an unknown argument other", x, torch.Kwargs{"other": x})
	fails("aten::relu", torch.ErrInvalidArgument, "argument self: got it twice", x, torch.Kwargs{"self": x})
	fails("aten::relu", torch.ErrValue, "argument 0: unsupported value: got struct {}", struct{}{})
	fails("aten::add", torch.ErrValue, "argument alpha: unsupported value", x, x, torch.Kwargs{"alpha": struct{}{}})
	fails("aten::zeros", torch.ErrInvalidArgument, "no overload", []int{2}, torch.Kwargs{"device": "nowhere"})
	for _, name := range []string{"aten::no_such_operator", "aten::softmax.no_such_overload", "mylib::op"} {
		fails(name, torch.ErrNotFound, name)
	}
	for _, name := range []string{"", "softmax", "::", "aten::", "::softmax", "aten:softmax"} {
		fails(name, torch.ErrInvalidArgument, "want namespace::name")
	}
	closed := tensor(t, []float32{1})
	closed.Close()
	fails("aten::add", torch.ErrClosed, "argument 1", x, closed)
	fails("aten::add", torch.ErrClosed, "argument alpha", x, x, torch.Kwargs{"alpha": closed})

	fails("aten::mm", torch.ErrShape, "mat1 and mat2 shapes cannot be multiplied (2x2 and 1x3)", x, tensor(t, []float32{1, 2, 3}, 1, 3))
	fails("aten::add", torch.ErrShape, "must match the size", x, tensor(t, []float32{1, 2, 3}))
	fails("aten::view", torch.ErrShape, "invalid for input of size 4", x, []int{3})
	fails("aten::sum", torch.ErrShape, "Dimension out of range", x, 5)
	fails("aten::select", torch.ErrInvalidArgument, "out of range", x, 0, 9)
	fails("aten::mm", torch.ErrDType, "dtype", x, own(t)(x.CastTo(torch.Float64)))
	fails("aten::index_select", torch.ErrDType, "index_select", x, 0, tensor(t, []float32{1}))
	fails("aten::bitwise_not", torch.ErrUnsupported, "not implemented for 'Float'", x)
	if !cgo.ASan { // which ends the process
		fails("aten::empty", torch.ErrOutOfMemory, "", []int64{1 << 50})
	}

	_, err = torch.CallTensor(ctx, "aten::max", x, 1)
	assert.ErrorIs(t, err, torch.ErrValue)
	assert.ErrorContains(t, err, "got torch.Tuple, want one tensor")
	_, err = torch.Schemas("aten::no_such_operator")
	assert.ErrorIs(t, err, torch.ErrNotFound)
	schemas, err := torch.Schemas("aten::softmax")
	require.NoError(t, err)
	assert.Contains(t, strings.Split(schemas, "\n"), "aten::softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor")
	assert.ErrorIs(t, torch.LoadLibrary("/no/such/library.so"), torch.ErrIO)
}

// TestCallInPlace gives back another owner of the same tensor.
func TestCallInPlace(t *testing.T) {
	x := tensor(t, []float32{1, 2})
	y := own(t)(torch.CallTensor(t.Context(), "aten::add_", x, 1))
	assert.Equal(t, x.DataPtr(), y.DataPtr())
	assert.Equal(t, "tensor([2., 3.])", x.String())
	out := own(t)(torch.Empty([]int64{2}, torch.TensorOptions{}))
	z := own(t)(torch.CallTensor(t.Context(), "aten::mul", x, x, torch.Kwargs{"out": out}))
	assert.Equal(t, out.DataPtr(), z.DataPtr())
	assert.Equal(t, "tensor([4., 9.])", out.String())
}

// TestModes: a call's mode and autocast end with it.
func TestModes(t *testing.T) {
	ctx := t.Context()
	x := tensor(t, []float32{1, 2, 3, 4}, 2, 2)
	call := func(o torch.CallOptions) *torch.Tensor {
		t.Helper()
		v, err := torch.CallWith(ctx, o, "aten::mm", x, x)
		require.NoError(t, err)
		y, ok := v.(*torch.Tensor)
		require.True(t, ok)
		return own(t)(y, nil)
	}
	assert.True(t, call(torch.CallOptions{}).IsInference())
	v, err := torch.CallWith(ctx, torch.CallOptions{Mode: torch.Grad}, "aten::requires_grad_", x, true)
	require.NoError(t, err)
	torch.CloseAll(v)
	assert.True(t, call(torch.CallOptions{Mode: torch.Grad}).RequiresGrad())
	assert.False(t, call(torch.CallOptions{Mode: torch.NoGrad}).RequiresGrad())
	assert.False(t, call(torch.CallOptions{Mode: torch.NoGrad}).IsInference())
	assert.Equal(t, torch.BFloat16, call(torch.CallOptions{Autocast: torch.BFloat16}).DType())
	assert.Equal(t, torch.Float32, call(torch.CallOptions{}).DType())
	_, err = torch.CallWith(ctx, torch.CallOptions{Mode: 7}, "aten::mm", x, x)
	assert.ErrorIs(t, err, torch.ErrInvalidArgument)

	// Gradients through Call alone.
	loss := own(t)(call(torch.CallOptions{Mode: torch.Grad}), nil)
	v, err = torch.CallWith(ctx, torch.CallOptions{Mode: torch.Grad}, "aten::sum", loss)
	require.NoError(t, err)
	sum, ok := v.(*torch.Tensor)
	require.True(t, ok)
	defer sum.Close()
	assert.Equal(t, "tensor(54., requires_grad=True)", sum.String())
}

func TestCallHonoursTheContext(t *testing.T) {
	x := tensor(t, []float32{1})
	cause := errors.New("the client went away")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	_, err := torch.Call(ctx, "aten::relu", x)
	assert.ErrorIs(t, err, context.Canceled)
	assert.ErrorIs(t, err, cause)
	past, stop := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer stop()
	_, err = torch.Call(past, "aten::relu", x)
	assert.ErrorIs(t, err, context.DeadlineExceeded)
}
