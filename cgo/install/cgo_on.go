//go:build cgo

package install

const cgoEnabled = true
