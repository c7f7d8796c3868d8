// Package torch gives libtorch's tensors and operators to Go: Python's own numbers, and no copies.
//
// A [Tensor] owns memory that the garbage collector does not see. Close it, or track it in a [Scope];
// the collector's cleanup is only the net below that. A tensor that a call takes is borrowed; a tensor
// that a call gives is the caller's.
//
// Memory crosses as a pointer, both ways: [FromSlice] gives libtorch a Go slice, [WithData] gives Go a
// slice over libtorch's memory. [Call] runs any operator by name.
//
// libtorch is opened at the first use, once per process, after [Init] or with the defaults. Where
// `torchvit setup` has not run, that first use gives [ErrNotInstalled].
package torch
