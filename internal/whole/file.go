// Package whole writes files whole or not at all, so that no reader ever sees half of one and an error leaves
// what stood there before.
package whole

import (
	"bufio"
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// File is a file under way: it lies beside its path, and takes its place at the end. A symbolic link is followed,
// and an existing file's permissions are kept. A device or a pipe, as /dev/stdout, is written directly.
type File struct {
	*bufio.Writer
	path   string
	f      *os.File // nil after Commit and Abort
	direct bool
	quick  bool // does not wait for the disk
}

// randomLen is the length of what the name of a file under way ends in.
const randomLen = 12

// Create starts a file. Call Commit at the end, and Abort (deferred, say) so that nothing is left where Commit is
// not reached. The error for a folder is fs.ErrExist.
func Create(path string) (*File, error) {
	w := &File{path: path}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		w.path = target
	}
	mode := fs.FileMode(0)
	if info, err := os.Stat(w.path); err == nil {
		if info.IsDir() {
			return nil, fmt.Errorf("write %s: %w: it is a folder", path, fs.ErrExist)
		}
		mode, w.direct = info.Mode().Perm(), !info.Mode().IsRegular()
	}
	var err error
	if w.direct {
		w.f, err = os.OpenFile(w.path, os.O_WRONLY, 0)
	} else {
		dir, name := filepath.Split(w.path)
		// Not os.CreateTemp: it makes files that only the owner can read.
		w.f, err = os.OpenFile(dir+"."+name+"."+rand.Text()[:randomLen], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	}
	if err != nil {
		return nil, err
	}
	w.Writer = bufio.NewWriterSize(w.f, 1<<16)
	if mode != 0 && !w.direct {
		if err := w.f.Chmod(mode); err != nil {
			w.Abort()
			return nil, err
		}
	}
	return w, nil
}

// Done tells whether Commit or Abort was called.
func (w *File) Done() bool { return w.f == nil }

// Commit puts the file at its path. After an error nothing has changed there.
func (w *File) Commit() error {
	if w.f == nil {
		return fmt.Errorf("write %s: %w", w.path, os.ErrClosed)
	}
	defer w.Abort() // nothing where all went well
	err := w.Flush()
	if err == nil && !w.direct && !w.quick {
		// Without this a power cut soon after could leave an empty file under the new name.
		err = w.f.Sync()
	}
	if err = errors.Join(err, w.f.Close()); err != nil {
		return err
	}
	if !w.direct {
		if err := os.Rename(w.f.Name(), w.path); err != nil {
			return err
		}
	}
	w.f = nil
	return nil
}

// Abort leaves what stood at the path before. After Commit it does nothing.
func (w *File) Abort() {
	if w.f == nil {
		return
	}
	_ = w.f.Close() // may be closed already
	if !w.direct {
		_ = os.Remove(w.f.Name())
	}
	w.f = nil
}

// Write makes the file path of what write writes. It does not wait for the disk, as Commit does: a picture or an
// answer that a power cut takes can be made again, and the wait is a tenth of a small picture's time.
func Write(path string, write func(io.Writer) error) error {
	f, err := Create(path)
	if err != nil {
		return err
	}
	f.quick = true
	defer f.Abort()
	if err := write(f.Writer); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return f.Commit()
}

// Writable tells, as the error of Create, whether a file could be written, and leaves nothing behind.
func Writable(path string) error {
	f, err := Create(path)
	if err != nil {
		return err
	}
	f.Abort()
	return nil
}

// Sweep removes what a process that was killed while it wrote path has left beside it.
func Sweep(path string) error {
	dir, name := filepath.Split(path)
	entries, err := os.ReadDir(cmp.Or(dir, "."))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if rest, ok := strings.CutPrefix(e.Name(), "."+name+"."); ok && len(rest) == randomLen && e.Type().IsRegular() {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
