//go:build !asan

package jit_test

const asan = false
