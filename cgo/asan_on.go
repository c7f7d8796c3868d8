//go:build cgo && asan

package cgo

/*
// AddressSanitizer finds the C++ functions that it watches, such as the one that throws, when the program
// starts, and libtorch brings libstdc++ only later.
#cgo linux LDFLAGS: -Wl,--push-state,--no-as-needed -lstdc++ -Wl,--pop-state

// GCC 12's LeakSanitizer guesses where a library's thread-local variables lie, and crashes at exit where
// it is wrong.
const char* __asan_default_options(void);
const char* __asan_default_options(void) { return "intercept_tls_get_addr=0"; }
*/
import "C"

// ASan says that the program was built with -asan, and needs a shim built with it too.
const ASan = true
