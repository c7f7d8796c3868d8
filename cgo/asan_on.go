//go:build cgo && asan

package cgo

// AddressSanitizer finds the C++ functions that it watches, such as the one that throws, when the program
// starts, and libtorch brings libstdc++ only later.

// #cgo linux LDFLAGS: -Wl,--push-state,--no-as-needed -lstdc++ -Wl,--pop-state
import "C"

// ASan says that the program was built with -asan, and needs a shim built with it too.
const ASan = true
