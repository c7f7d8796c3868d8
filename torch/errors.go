package torch

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/cgo/install"
)

// Errors to test for with errors.Is.
var (
	// ErrNotInstalled: no libtorch was found or no shim was built; the message says what to type.
	ErrNotInstalled = install.ErrNotInstalled
	// ErrConfigured: Init came after the first use of libtorch.
	ErrConfigured = errors.New("libtorch is in use already")
	// ErrClosed: the tensor or module was closed.
	ErrClosed = errors.New("closed")
	// ErrInvalidArgument: arguments that no schema takes.
	ErrInvalidArgument = errors.New("invalid argument")
	// ErrShape: sizes that do not fit.
	ErrShape = errors.New("wrong shape")
	// ErrDType: a data type that does not fit.
	ErrDType = errors.New("wrong dtype")
	// ErrDevice: a device that is not there or does not fit.
	ErrDevice = errors.New("wrong device")
	// ErrCUDANotLoaded: CUDA was asked for in a process that loaded libtorch for the CPU.
	ErrCUDANotLoaded = fmt.Errorf("%w: CUDA is not loaded", ErrDevice)
	// ErrOutOfMemory: libtorch could not allocate.
	ErrOutOfMemory = errors.New("out of memory")
	// ErrIO: a file could not be read or written.
	ErrIO = errors.New("input or output failed")
	// ErrNotFound: no operator, method or attribute of that name.
	ErrNotFound = errors.New("not found")
	// ErrValue: a value of TorchScript that has no place in Go.
	ErrValue = errors.New("unsupported value")
	// ErrUnsupported: libtorch does not implement the operation for these inputs.
	ErrUnsupported = errors.New("not supported")
	// ErrScript: TorchScript code raised an exception.
	ErrScript = errors.New("exception in TorchScript")
	// ErrAutograd: a tensor without a graph, a graph that is gone, or a tensor of inference mode where
	// gradients are asked for.
	ErrAutograd = errors.New("no gradient")
	// ErrPrecision: what a module's or the process's precision does not allow.
	ErrPrecision = errors.New("wrong precision")
	// ErrLayout: the tensor's memory cannot be seen as a slice.
	ErrLayout = errors.New("wrong memory layout")
)

var sentinels = map[cgo.Code]error{
	cgo.InvalidArgument: ErrInvalidArgument,
	cgo.Shape:           ErrShape,
	cgo.DType:           ErrDType,
	cgo.Device:          ErrDevice,
	cgo.OutOfMemory:     ErrOutOfMemory,
	cgo.IO:              ErrIO,
	cgo.NotFound:        ErrNotFound,
	cgo.Value:           ErrValue,
	cgo.Unsupported:     ErrUnsupported,
	cgo.Script:          ErrScript,
	cgo.Autograd:        ErrAutograd,
	cgo.NotLoaded:       ErrNotInstalled,
}

// Error is what libtorch said. Its text is one line; %+v and Detail give libtorch's full text, with the
// TorchScript stack. errors.Is finds the sentinel that Code stands for.
type Error struct {
	// Op is the call that failed, such as "forward" or "aten::softmax".
	Op string
	// Message is one line.
	Message string
	// Detail is libtorch's full text.
	Detail string

	sentinel error
}

func (e *Error) Error() string {
	if e.Op == "" {
		return e.Message
	}
	return e.Op + ": " + e.Message
}

// Unwrap gives the sentinel error, or nil where libtorch's text fits none.
func (e *Error) Unwrap() error { return e.sentinel }

// Format prints the full text for %+v.
func (e *Error) Format(f fmt.State, verb rune) {
	text := e.Error()
	if verb == 'v' && f.Flag('+') && e.Detail != "" && e.Detail != e.Message {
		text += "\n" + e.Detail
	}
	_, _ = io.WriteString(f, text)
}

// WrapStatus turns an error of package cgo into an *Error. For packages that call cgo themselves.
func WrapStatus(op string, err error) error {
	if err == nil {
		return nil
	}
	status, ok := errors.AsType[*cgo.Status](err)
	if !ok {
		return fmt.Errorf("%s: %w", op, err)
	}
	// The shim names the operator or method at the start of some messages itself.
	message := strings.TrimPrefix(status.Message, op+": ")
	return &Error{Op: op, Message: message, Detail: status.Detail, sentinel: sentinels[status.Code]}
}
