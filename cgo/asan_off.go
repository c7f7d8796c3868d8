//go:build !cgo || !asan

package cgo

// ASan says that the program was built with -asan, and needs a shim built with it too.
const ASan = false
