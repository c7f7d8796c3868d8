// Package cgo is the only package that says import "C". It finds nothing and decides nothing: it opens
// libtorch and the shim with dlopen, resolves every function of shim/shim.h, and gives one Go function
// per C function. Code above it never meets a C type.
//
// A handle (Tensor, Module, Operator, ...) is a bare pointer to an object of the shim. Nothing here
// counts, closes or keeps alive: packages torch and torch/jit own that. Every error is a *Status.
//
// The forwarders in calls.c, the version handshake in shim/abi.h and the stubs for builds without cgo
// are made from shim/shim.h by `go generate`; a test fails when they are stale.
package cgo

//go:generate go run ./gen
