package loader

import (
	"errors"
	"io/fs"
	"strings"
)

// Error is what is wrong with one image.
type Error struct {
	// Index is the image's place in the set, Path its file.
	Index int
	Path  string
	Err   error
}

// Error is one line that names the file once.
func (e *Error) Error() string {
	if p, ok := errors.AsType[*fs.PathError](e.Err); ok && p.Path == e.Path {
		return e.Path + ": " + p.Err.Error()
	}
	return e.Path + ": " + strings.TrimPrefix(e.Err.Error(), e.Path+": ")
}

// Unwrap gives what is wrong there.
func (e *Error) Unwrap() error { return e.Err }
