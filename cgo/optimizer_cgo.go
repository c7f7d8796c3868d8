//go:build cgo

package cgo

/*
#include "calls.h"

#cgo noescape tv_optimizer_new
#cgo nocallback tv_optimizer_new
#cgo noescape tv_optimizer_free
#cgo nocallback tv_optimizer_free
#cgo noescape tv_optimizer_step
#cgo nocallback tv_optimizer_step
#cgo noescape tv_optimizer_zero_grad
#cgo nocallback tv_optimizer_zero_grad
#cgo noescape tv_optimizer_state
#cgo nocallback tv_optimizer_state
#cgo noescape tv_optimizer_set_state
#cgo nocallback tv_optimizer_set_state
#cgo noescape tv_clip_grad_norm
#cgo nocallback tv_clip_grad_norm
#cgo noescape tv_clip_grad_value
#cgo nocallback tv_clip_grad_value
*/
import "C"

import "unsafe"

// The Go mirror is as large as the C struct; a difference does not compile.
var (
	_ [unsafe.Sizeof(C.tv_group{}) - unsafe.Sizeof(Group{})]byte
	_ [unsafe.Sizeof(Group{}) - unsafe.Sizeof(C.tv_group{})]byte
)

func (o Optimizer) c() *C.tv_optimizer { return (*C.tv_optimizer)(o.p) }

// OptimizerNew wraps tv_optimizer_new: nodes are a list of tensors.
func OptimizerNew(kind int32, nodes []Node) (Optimizer, error) {
	var out *C.tv_optimizer
	p, n := nodePointer(nodes)
	if err := check(C.tv_optimizer_new(C.int32_t(kind), p, n, &out)); err != nil {
		return Optimizer{}, err
	}
	return Optimizer{unsafe.Pointer(out)}, nil
}

// OptimizerFree wraps tv_optimizer_free.
func OptimizerFree(o Optimizer) { C.tv_optimizer_free(o.c()) }

// OptimizerStep wraps tv_optimizer_step.
func OptimizerStep(o Optimizer, groups []Group, mode Mode) error {
	p := (*C.tv_group)(unsafe.Pointer(unsafe.SliceData(groups)))
	return check(C.tv_optimizer_step(o.c(), p, C.int32_t(len(groups)), mode.c()))
}

// OptimizerZeroGrad wraps tv_optimizer_zero_grad.
func OptimizerZeroGrad(o Optimizer) error { return check(C.tv_optimizer_zero_grad(o.c())) }

// OptimizerState wraps tv_optimizer_state: four tensors or none for each parameter.
func OptimizerState(o Optimizer) (Values, error) {
	var v *C.tv_values
	st := C.tv_optimizer_state(o.c(), &v)
	return newValues(v, st)
}

// OptimizerSetState wraps tv_optimizer_set_state.
func OptimizerSetState(o Optimizer, nodes []Node, mode Mode) error {
	p, n := nodePointer(nodes)
	return check(C.tv_optimizer_set_state(o.c(), p, n, mode.c()))
}

// ClipGradNorm wraps tv_clip_grad_norm: nodes are a list of tensors.
func ClipGradNorm(nodes []Node, maxNorm float64, mode Mode) (float64, error) {
	var norm C.double
	p, n := nodePointer(nodes)
	err := check(C.tv_clip_grad_norm(p, n, C.double(maxNorm), mode.c(), &norm))
	return float64(norm), err
}

// ClipGradValue wraps tv_clip_grad_value.
func ClipGradValue(nodes []Node, value float64, mode Mode) error {
	p, n := nodePointer(nodes)
	return check(C.tv_clip_grad_value(p, n, C.double(value), mode.c()))
}
