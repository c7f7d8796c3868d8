package dataset

import (
	"errors"
	"fmt"
	"strconv"
)

// Errors to test for with errors.Is. All come inside an [Error].
var (
	// ErrFormat: a file does not hold what its kind of data set asks for.
	ErrFormat = errors.New("not of the expected form")
	// ErrMissing: a file that the data set names is not there.
	ErrMissing = errors.New("missing")
	// ErrSplit: a data set has no part of the name that Options.Split asks for. It is an ErrMissing.
	ErrSplit = fmt.Errorf("part %w", ErrMissing)
	// ErrClass: a class that the data set does not have.
	ErrClass = errors.New("unknown class")
	// ErrKind: not a data set that can be recognised.
	ErrKind = errors.New("no data set recognised")
)

// Error says where a data set is wrong.
type Error struct {
	// Path is the file or folder.
	Path string
	// Line counts from 1; 0 where the whole file is meant.
	Line int
	Err  error
}

// Error is one line: "labels.csv:12: not of the expected form: got 1 field, want path,label".
func (e *Error) Error() string {
	if e.Line > 0 {
		return e.Path + ":" + strconv.Itoa(e.Line) + ": " + e.Err.Error()
	}
	return e.Path + ": " + e.Err.Error()
}

// Unwrap gives what is wrong there.
func (e *Error) Unwrap() error { return e.Err }

// wrong makes an Error that wraps the sentinel.
func wrong(path string, line int, sentinel error, format string, args ...any) error {
	return &Error{path, line, fmt.Errorf("%w: %s", sentinel, fmt.Sprintf(format, args...))}
}

// plural is "1 field", "2 fields".
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
