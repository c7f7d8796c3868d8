//go:build cgo

package cgo

/*
#include "calls.h"

#cgo noescape tv_values_read
#cgo nocallback tv_values_read
#cgo noescape tv_values_free
#cgo nocallback tv_values_free
#cgo noescape tv_operator_find
#cgo nocallback tv_operator_find
#cgo noescape tv_operator_schemas
#cgo nocallback tv_operator_schemas
#cgo noescape tv_operator_call
#cgo nocallback tv_operator_call
#cgo noescape tv_module_load
#cgo nocallback tv_module_load
#cgo noescape tv_module_free
#cgo nocallback tv_module_free
#cgo noescape tv_module_describe
#cgo nocallback tv_module_describe
#cgo noescape tv_module_call
#cgo nocallback tv_module_call
#cgo noescape tv_module_tensors
#cgo nocallback tv_module_tensors
#cgo noescape tv_module_get_attribute
#cgo nocallback tv_module_get_attribute
#cgo noescape tv_module_set_attribute
#cgo nocallback tv_module_set_attribute
#cgo noescape tv_module_train
#cgo nocallback tv_module_train
#cgo noescape tv_module_to
#cgo nocallback tv_module_to
#cgo noescape tv_module_channels_last
#cgo nocallback tv_module_channels_last
#cgo noescape tv_module_rewrite
#cgo nocallback tv_module_rewrite
#cgo noescape tv_module_clone
#cgo nocallback tv_module_clone
#cgo noescape tv_module_save
#cgo nocallback tv_module_save
#cgo noescape tv_bench_module_call
#cgo nocallback tv_bench_module_call
#cgo noescape tv_bench_operator_call
#cgo nocallback tv_bench_operator_call
*/
import "C"

import "unsafe"

func (m Module) c() *C.tv_module     { return (*C.tv_module)(m.p) }
func (v Values) c() *C.tv_values     { return (*C.tv_values)(v.p) }
func (o Operator) c() *C.tv_operator { return (*C.tv_operator)(o.p) }

func nodePointer(nodes []Node) (*C.tv_node, C.int32_t) {
	return (*C.tv_node)(unsafe.Pointer(unsafe.SliceData(nodes))), C.int32_t(len(nodes))
}

func textPointer(text []byte) (*C.char, C.int64_t) {
	return (*C.char)(unsafe.Pointer(unsafe.SliceData(text))), C.int64_t(len(text))
}

// ValuesRead wraps tv_values_read: nodes and text lie in the shim's memory until ValuesFree, and the
// tensors in them belong to the caller from here on.
func ValuesRead(v Values) (nodes []Node, text string) {
	var p *C.tv_node
	var n, m C.int64_t
	var s *C.char
	C.tv_values_read(v.c(), &p, &n, &s, &m)
	return unsafe.Slice((*Node)(unsafe.Pointer(p)), n), unsafe.String((*byte)(unsafe.Pointer(s)), m)
}

// ValuesFree wraps tv_values_free.
func ValuesFree(v Values) { C.tv_values_free(v.c()) }

func newValues(v *C.tv_values, s *C.tv_status) (Values, error) {
	if s != nil {
		return Values{}, takeStatus(s)
	}
	return Values{unsafe.Pointer(v)}, nil
}

// OperatorFind wraps tv_operator_find.
func OperatorFind(name string) (Operator, error) {
	var out *C.tv_operator
	p, n := str(name)
	if err := check(C.tv_operator_find(p, n, &out)); err != nil {
		return Operator{}, err
	}
	return Operator{unsafe.Pointer(out)}, nil
}

// OperatorSchemas wraps tv_operator_schemas: one schema a line.
func OperatorSchemas(op Operator) (string, error) {
	var b *C.tv_buffer
	if err := check(C.tv_operator_schemas(op.c(), &b)); err != nil {
		return "", err
	}
	return string(takeBuffer(b)), nil
}

// OperatorCall wraps tv_operator_call: nargs positional values and then nkwargs pairs of name and
// value. A result of one plain node is in out and more is nil.
func OperatorCall(op Operator, nodes []Node, nargs, nkwargs int, text []byte, mode Mode, out *Node) (more Values, err error) {
	var v *C.tv_values
	p, n := nodePointer(nodes)
	s, m := textPointer(text)
	st := C.tv_operator_call(op.c(), p, n, C.int32_t(nargs), C.int32_t(nkwargs), s, m, mode.c(), (*C.tv_node)(unsafe.Pointer(out)), &v)
	return newValues(v, st)
}

// ModuleLoad wraps tv_module_load: from the file at path, or from data where path is "". extra is a
// list of names of extra files; what was found is a dict of strings.
func ModuleLoad(path string, data []byte, deviceType, deviceIndex int32, extra []Node, text []byte) (Module, Values, error) {
	var out *C.tv_module
	var found *C.tv_values
	p, n := str(path)
	if path == "" {
		p = nil
	}
	e, en := nodePointer(extra)
	s, m := textPointer(text)
	st := C.tv_module_load(p, n, unsafe.Pointer(unsafe.SliceData(data)), C.int64_t(len(data)), C.int32_t(deviceType), C.int32_t(deviceIndex), e, en, s, m, &found, &out)
	if st != nil {
		return Module{}, Values{}, takeStatus(st)
	}
	return Module{unsafe.Pointer(out)}, Values{unsafe.Pointer(found)}, nil
}

// ModuleFree wraps tv_module_free.
func ModuleFree(m Module) { C.tv_module_free(m.c()) }

// ModuleDescribe wraps tv_module_describe.
func ModuleDescribe(m Module) (Values, error) {
	var v *C.tv_values
	st := C.tv_module_describe(m.c(), &v)
	return newValues(v, st)
}

// ModuleCall wraps tv_module_call. A result of one plain node is in out and more is nil.
func ModuleCall(m Module, method int32, nodes []Node, nargs int, text []byte, mode Mode, out *Node) (more Values, err error) {
	var v *C.tv_values
	p, n := nodePointer(nodes)
	s, k := textPointer(text)
	st := C.tv_module_call(m.c(), C.int32_t(method), p, n, C.int32_t(nargs), s, k, mode.c(), (*C.tv_node)(unsafe.Pointer(out)), &v)
	return newValues(v, st)
}

// ModuleTensors wraps tv_module_tensors: parameters, or buffers.
func ModuleTensors(m Module, buffers bool) (Values, error) {
	var v *C.tv_values
	st := C.tv_module_tensors(m.c(), flag(buffers), &v)
	return newValues(v, st)
}

// ModuleGetAttribute wraps tv_module_get_attribute.
func ModuleGetAttribute(m Module, name string) (Values, error) {
	var v *C.tv_values
	p, n := str(name)
	st := C.tv_module_get_attribute(m.c(), p, n, &v)
	return newValues(v, st)
}

// ModuleSetAttribute wraps tv_module_set_attribute.
func ModuleSetAttribute(m Module, name string, nodes []Node, text []byte) error {
	p, n := str(name)
	v, k := nodePointer(nodes)
	s, l := textPointer(text)
	return check(C.tv_module_set_attribute(m.c(), p, n, v, k, s, l))
}

// ModuleTrain wraps tv_module_train.
func ModuleTrain(m Module, on bool) error { return check(C.tv_module_train(m.c(), flag(on))) }

// ModuleTo wraps tv_module_to; dtype 0 and deviceType -1 leave them as they are.
func ModuleTo(m Module, dtype, deviceType, deviceIndex int32, mode Mode) error {
	return check(C.tv_module_to(m.c(), C.int32_t(dtype), C.int32_t(deviceType), C.int32_t(deviceIndex), mode.c()))
}

// ModuleChannelsLast wraps tv_module_channels_last.
func ModuleChannelsLast(m Module, mode Mode) error {
	return check(C.tv_module_channels_last(m.c(), mode.c()))
}

// ModuleRewrite wraps tv_module_rewrite.
func ModuleRewrite(m Module, bfloat16 bool, mode Mode) (Values, error) {
	var v *C.tv_values
	var b C.int32_t
	if bfloat16 {
		b = 1
	}
	st := C.tv_module_rewrite(m.c(), b, mode.c(), &v)
	return newValues(v, st)
}

// ModuleClone wraps tv_module_clone.
func ModuleClone(m Module) (Module, error) {
	var out *C.tv_module
	if err := check(C.tv_module_clone(m.c(), &out)); err != nil {
		return Module{}, err
	}
	return Module{unsafe.Pointer(out)}, nil
}

// ModuleSave wraps tv_module_save: extra is a dict of strings.
func ModuleSave(m Module, extra []Node, text []byte) ([]byte, error) {
	var b *C.tv_buffer
	p, n := nodePointer(extra)
	s, k := textPointer(text)
	if err := check(C.tv_module_save(m.c(), p, n, s, k, &b)); err != nil {
		return nil, err
	}
	return takeBuffer(b), nil
}

// BenchModuleCall wraps tv_bench_module_call: seconds for n calls made from C++.
func BenchModuleCall(m Module, method int32, input Tensor, mode Mode, n int) (float64, error) {
	var s C.double
	err := check(C.tv_bench_module_call(m.c(), C.int32_t(method), input.c(), mode.c(), C.int64_t(n), &s))
	return float64(s), err
}

// BenchOperatorCall wraps tv_bench_operator_call: seconds for n calls made from C++.
func BenchOperatorCall(op Operator, nodes []Node, nargs int, text []byte, mode Mode, n int) (float64, error) {
	var seconds C.double
	p, k := nodePointer(nodes)
	s, m := textPointer(text)
	err := check(C.tv_bench_operator_call(op.c(), p, k, C.int32_t(nargs), s, m, mode.c(), C.int64_t(n), &seconds))
	return float64(seconds), err
}
