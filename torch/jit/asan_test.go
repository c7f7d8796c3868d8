//go:build asan

package jit_test

// asan keeps freed memory for a while, and so the resident set grows.
const asan = true
