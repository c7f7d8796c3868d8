//go:build !unix

package install

import (
	"context"
	"errors"
)

func lock(context.Context, string, func()) (func(), error) {
	return nil, errors.ErrUnsupported
}
