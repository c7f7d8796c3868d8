//go:build unix

package train

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lock makes this process the only one that is at work in a folder. The kernel frees the lock when the process
// ends, however it ends.
func lock(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("run folder: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return func() { _ = f.Close() }, nil
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: another process is training in %s", ErrRun, dir)
	}
	return nil, fmt.Errorf("run folder: lock %s: %w", dir, err)
}
