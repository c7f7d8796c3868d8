//go:build !cgo

package install

const cgoEnabled = false
