//go:build cgo

package cgo

/*
#include "calls.h"

#cgo noescape tv_backward
#cgo nocallback tv_backward
#cgo noescape tv_gradients
#cgo nocallback tv_gradients
#cgo noescape tv_tensor_grad
#cgo nocallback tv_tensor_grad
#cgo noescape tv_tensor_set_requires_grad
#cgo nocallback tv_tensor_set_requires_grad
#cgo noescape tv_rng_state
#cgo nocallback tv_rng_state
#cgo noescape tv_set_rng_state
#cgo nocallback tv_set_rng_state
*/
import "C"

// Backward wraps tv_backward: nodes are a list of roots and a list of their gradients.
func Backward(nodes []Node, retainGraph, createGraph bool, mode Mode) error {
	p, n := nodePointer(nodes)
	return check(C.tv_backward(p, n, flag(retainGraph), flag(createGraph), mode.c()))
}

// Gradients wraps tv_gradients: nodes are a list of outputs, one of inputs, and one of the outputs'
// gradients.
func Gradients(nodes []Node, retainGraph, createGraph, allowUnused bool, mode Mode) (Values, error) {
	var v *C.tv_values
	p, n := nodePointer(nodes)
	st := C.tv_gradients(p, n, flag(retainGraph), flag(createGraph), flag(allowUnused), mode.c(), &v)
	return newValues(v, st)
}

// TensorGrad wraps tv_tensor_grad: nil where there is none.
func TensorGrad(t Tensor) (Tensor, error) {
	var out *C.tv_tensor
	st := C.tv_tensor_grad(t.c(), &out)
	return newTensor(out, st)
}

// TensorSetRequiresGrad wraps tv_tensor_set_requires_grad.
func TensorSetRequiresGrad(t Tensor, on bool) error {
	return check(C.tv_tensor_set_requires_grad(t.c(), flag(on)))
}

// RNGState wraps tv_rng_state.
func RNGState() (Tensor, error) {
	var out *C.tv_tensor
	st := C.tv_rng_state(&out)
	return newTensor(out, st)
}

// SetRNGState wraps tv_set_rng_state.
func SetRNGState(state Tensor) error { return check(C.tv_set_rng_state(state.c())) }
