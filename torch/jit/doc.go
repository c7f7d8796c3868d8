// Package jit loads TorchScript files and runs their methods with Python's own numbers.
//
// [Load] is torch.jit.load behind a check of the archive; [Module.Forward] and [Module.Call] map every
// value of TorchScript to Go and back. Calls run in inference mode, inside one call of C, on one of the
// process's lanes.
//
// The trap: results own memory that the garbage collector does not see. Close them, or track them in a
// [torch.Scope].
package jit
