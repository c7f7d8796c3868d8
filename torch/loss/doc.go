// Package loss holds the losses of training, as sequences of libtorch's operators: the bits, of value and
// gradient, of torch.nn.functional and of torchvision.ops.
//
// Every function records gradients where its first tensor asks for them, with autocast off; bfloat16 and
// float16 are cast to float32 first. It gives a tensor of no dimensions, or one for each element with
// ReductionNone, that the caller closes; [torch.Backward] takes it from there. The caller closes the arguments as
// well, at any time: a graph keeps what it needs. Targets may come from inference mode.
//
// Errors are torch.ErrShape, torch.ErrDType, torch.ErrInvalidArgument for nil tensors and options out of range,
// and [ErrClass].
package loss
