package torch

import (
	"context"
	"fmt"
)

// The operators that most code asks for, as thin forms of Call. Each gives a new tensor that the caller
// closes; views (Select, Narrow, View, Transpose and so on) share the memory and keep it alive. Where
// PyTorch takes a tensor or a number, other is a *Tensor, an int or a float64. Any other operator, and
// any other argument, is there by name with Call; a context and options with Call and CallWith.

func (t *Tensor) op(name string, args ...any) (*Tensor, error) {
	return CallTensor(context.Background(), name, append([]any{t}, args...)...)
}

// Views.

// Select is Tensor.select: the slice at index of that dimension, without it.
func (t *Tensor) Select(dim, index int64) (*Tensor, error) {
	return t.op("aten::select.int", dim, index)
}

// Narrow is Tensor.narrow: length indices of that dimension from start on.
func (t *Tensor) Narrow(dim, start, length int64) (*Tensor, error) {
	return t.op("aten::narrow", dim, start, length)
}

// Slice is t[..., start:end:step] in that dimension; negative indices count from the end.
func (t *Tensor) Slice(dim, start, end, step int64) (*Tensor, error) {
	return t.op("aten::slice.Tensor", dim, start, end, step)
}

// View is Tensor.view. One size may be -1.
func (t *Tensor) View(shape ...int64) (*Tensor, error) { return t.op("aten::view", shape) }

// Reshape is torch.reshape: a view where the strides allow it, else a copy. One size may be -1.
func (t *Tensor) Reshape(shape ...int64) (*Tensor, error) { return t.op("aten::reshape", shape) }

// Permute is torch.permute.
func (t *Tensor) Permute(dims ...int64) (*Tensor, error) { return t.op("aten::permute", dims) }

// Transpose is torch.transpose.
func (t *Tensor) Transpose(dim0, dim1 int64) (*Tensor, error) {
	return t.op("aten::transpose.int", dim0, dim1)
}

// Flatten is torch.flatten; Flatten(0, -1) flattens all.
func (t *Tensor) Flatten(start, end int64) (*Tensor, error) {
	return t.op("aten::flatten.using_ints", start, end)
}

// Squeeze is torch.squeeze: without dims, every dimension of size 1 goes.
func (t *Tensor) Squeeze(dims ...int64) (*Tensor, error) {
	if len(dims) == 0 {
		return t.op("aten::squeeze")
	}
	return t.op("aten::squeeze.dims", dims)
}

// Unsqueeze is torch.unsqueeze.
func (t *Tensor) Unsqueeze(dim int64) (*Tensor, error) { return t.op("aten::unsqueeze", dim) }

// Expand is Tensor.expand; -1 keeps a size.
func (t *Tensor) Expand(shape ...int64) (*Tensor, error) { return t.op("aten::expand", shape) }

// Index is t[i, j, ...]: one index for each of the first dimensions.
func (t *Tensor) Index(indices ...int64) (*Tensor, error) {
	if t == nil {
		return nil, fmt.Errorf("index: %w: got a nil tensor", ErrInvalidArgument)
	}
	out, err := t.Alias()
	for _, i := range indices {
		if err != nil {
			return nil, err
		}
		var next *Tensor
		next, err = out.Select(0, i)
		out.Close()
		out = next
	}
	return out, err
}

// IndexSelect is torch.index_select; index is a tensor of int64.
func (t *Tensor) IndexSelect(dim int64, index *Tensor) (*Tensor, error) {
	return t.op("aten::index_select", dim, index)
}

// Item is Tensor.item: the value of a tensor of one element, as a bool, int64 or float64.
func (t *Tensor) Item() (any, error) { return Call(context.Background(), "aten::item", t) }

// Arithmetic and comparison, with broadcasting.

// Add is torch.add.
func (t *Tensor) Add(other any) (*Tensor, error) { return t.op("aten::add", other) }

// Sub is torch.sub.
func (t *Tensor) Sub(other any) (*Tensor, error) { return t.op("aten::sub", other) }

// Mul is torch.mul.
func (t *Tensor) Mul(other any) (*Tensor, error) { return t.op("aten::mul", other) }

// Div is torch.div: integers give floats.
func (t *Tensor) Div(other any) (*Tensor, error) { return t.op("aten::div", other) }

// Pow is torch.pow.
func (t *Tensor) Pow(exponent any) (*Tensor, error) { return t.op("aten::pow", exponent) }

// Eq is torch.eq: a tensor of bools.
func (t *Tensor) Eq(other any) (*Tensor, error) { return t.op("aten::eq", other) }

// Ne is torch.ne.
func (t *Tensor) Ne(other any) (*Tensor, error) { return t.op("aten::ne", other) }

// Lt is torch.lt.
func (t *Tensor) Lt(other any) (*Tensor, error) { return t.op("aten::lt", other) }

// Le is torch.le.
func (t *Tensor) Le(other any) (*Tensor, error) { return t.op("aten::le", other) }

// Gt is torch.gt.
func (t *Tensor) Gt(other any) (*Tensor, error) { return t.op("aten::gt", other) }

// Ge is torch.ge.
func (t *Tensor) Ge(other any) (*Tensor, error) { return t.op("aten::ge", other) }

// MatMul is torch.matmul.
func (t *Tensor) MatMul(other *Tensor) (*Tensor, error) { return t.op("aten::matmul", other) }

// MM is torch.mm: two matrices.
func (t *Tensor) MM(other *Tensor) (*Tensor, error) { return t.op("aten::mm", other) }

// Elementwise functions.

// Abs is torch.abs.
func (t *Tensor) Abs() (*Tensor, error) { return t.op("aten::abs") }

// Neg is torch.neg.
func (t *Tensor) Neg() (*Tensor, error) { return t.op("aten::neg") }

// Exp is torch.exp.
func (t *Tensor) Exp() (*Tensor, error) { return t.op("aten::exp") }

// Log is torch.log.
func (t *Tensor) Log() (*Tensor, error) { return t.op("aten::log") }

// Sqrt is torch.sqrt.
func (t *Tensor) Sqrt() (*Tensor, error) { return t.op("aten::sqrt") }

// Clamp is torch.clamp.
func (t *Tensor) Clamp(lowest, highest float64) (*Tensor, error) {
	return t.op("aten::clamp", lowest, highest)
}

// Relu is torch.relu.
func (t *Tensor) Relu() (*Tensor, error) { return t.op("aten::relu") }

// LeakyRelu is torch.nn.functional.leaky_relu.
func (t *Tensor) LeakyRelu(slope float64) (*Tensor, error) { return t.op("aten::leaky_relu", slope) }

// Gelu is torch.nn.functional.gelu, in its exact form.
func (t *Tensor) Gelu() (*Tensor, error) { return t.op("aten::gelu") }

// Sigmoid is torch.sigmoid.
func (t *Tensor) Sigmoid() (*Tensor, error) { return t.op("aten::sigmoid") }

// Tanh is torch.tanh.
func (t *Tensor) Tanh() (*Tensor, error) { return t.op("aten::tanh") }

// Softmax is torch.softmax.
func (t *Tensor) Softmax(dim int64) (*Tensor, error) { return t.op("aten::softmax.int", dim, nil) }

// LogSoftmax is torch.log_softmax.
func (t *Tensor) LogSoftmax(dim int64) (*Tensor, error) {
	return t.op("aten::log_softmax.int", dim, nil)
}

// Reductions: without dims, over all elements.

// Sum is torch.sum.
func (t *Tensor) Sum(dims ...int64) (*Tensor, error) {
	if len(dims) == 0 {
		return t.op("aten::sum")
	}
	return t.op("aten::sum.dim_IntList", dims)
}

// Mean is torch.mean.
func (t *Tensor) Mean(dims ...int64) (*Tensor, error) {
	if len(dims) == 0 {
		return t.op("aten::mean")
	}
	return t.op("aten::mean.dim", dims)
}

// Max is torch.max over all elements.
func (t *Tensor) Max() (*Tensor, error) { return t.op("aten::max") }

// Min is torch.min over all elements.
func (t *Tensor) Min() (*Tensor, error) { return t.op("aten::min") }

// Argmax is torch.argmax over one dimension.
func (t *Tensor) Argmax(dim int64, keepDim bool) (*Tensor, error) {
	return t.op("aten::argmax", dim, keepDim)
}

// Argmin is torch.argmin over one dimension.
func (t *Tensor) Argmin(dim int64, keepDim bool) (*Tensor, error) {
	return t.op("aten::argmin", dim, keepDim)
}

// TopK is torch.topk: the k largest of one dimension, largest first, and where they are. The caller
// closes both.
func (t *Tensor) TopK(k, dim int64) (values, indices *Tensor, err error) {
	out, err := Call(context.Background(), "aten::topk", t, k, dim)
	if err != nil {
		return nil, nil, err
	}
	pair, _ := out.(Tuple)
	if len(pair) == 2 {
		values, _ = pair[0].(*Tensor)
		indices, _ = pair[1].(*Tensor)
	}
	if values == nil || indices == nil {
		CloseAll(out)
		return nil, nil, fmt.Errorf("aten::topk: %w: got %T, want two tensors", ErrValue, out)
	}
	return values, indices, nil
}

// Several tensors.

// Stack is torch.stack: in a new dimension.
func Stack(tensors []*Tensor, dim int64) (*Tensor, error) {
	return CallTensor(context.Background(), "aten::stack", tensors, dim)
}

// Cat is torch.cat: along a dimension.
func Cat(tensors []*Tensor, dim int64) (*Tensor, error) {
	return CallTensor(context.Background(), "aten::cat", tensors, dim)
}

// New tensors. The options' dtype defaults to float32, as in Empty.

func create(name string, o TensorOptions, args ...any) (*Tensor, error) {
	if _, _, err := o.Device.Codes(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	dtype := o.DType
	if dtype == InvalidDType {
		dtype = Float32
	}
	args = append(args, Kwargs{"dtype": dtype, "device": o.Device, "pin_memory": o.PinMemory})
	// Not under inference mode: an ordinary tensor can be written in place and trained.
	v, err := CallWith(context.Background(), CallOptions{Mode: NoGrad}, name, args...)
	if err != nil {
		return nil, err
	}
	t, ok := v.(*Tensor)
	if !ok {
		CloseAll(v)
		return nil, fmt.Errorf("%s: %w: got %T, want one tensor", name, ErrValue, v)
	}
	return t, nil
}

// RandN is torch.randn: normal numbers from the generator that ManualSeed seeds.
func RandN(shape []int64, o TensorOptions) (*Tensor, error) { return create("aten::randn", o, shape) }

// Rand is torch.rand: uniform numbers in [0, 1).
func Rand(shape []int64, o TensorOptions) (*Tensor, error) { return create("aten::rand", o, shape) }

// Arange is torch.arange(start, end, step).
func Arange(start, end, step float64, o TensorOptions) (*Tensor, error) {
	return create("aten::arange.start_step", o, start, end, step)
}

// Eye is torch.eye(n).
func Eye(n int64, o TensorOptions) (*Tensor, error) { return create("aten::eye", o, n) }
