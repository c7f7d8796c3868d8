package coco

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// wholeFile is a file that is written whole or not at all: beside the path, and moved there at the end. A
// symbolic link is followed and an existing file's permissions are kept.
type wholeFile struct {
	*bufio.Writer
	path string
	f    *os.File // nil after commit and abort
}

func createWhole(path string) (*wholeFile, error) {
	mode := fs.FileMode(0)
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if info, err := os.Stat(path); err == nil {
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("write %s: %w: it is no regular file", path, fs.ErrExist)
		}
		mode = info.Mode().Perm()
	}
	var salt [6]byte
	_, _ = rand.Read(salt[:]) // never fails
	dir, name := filepath.Split(path)
	// Not os.CreateTemp: it makes files that only the owner can read.
	f, err := os.OpenFile(dir+"."+name+"."+hex.EncodeToString(salt[:]), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, err
	}
	w := &wholeFile{Writer: bufio.NewWriterSize(f, 1<<16), path: path, f: f}
	if mode != 0 {
		if err := f.Chmod(mode); err != nil {
			w.abort()
			return nil, err
		}
	}
	return w, nil
}

// commit puts the file at its path. After an error nothing has changed there.
func (w *wholeFile) commit() error {
	if w.f == nil {
		return fmt.Errorf("write %s: %w", w.path, os.ErrClosed)
	}
	// Without Sync a crash soon after could leave an empty file under the new name.
	if err := errors.Join(w.Flush(), w.f.Sync()); err != nil {
		w.abort()
		return err
	}
	if err := w.f.Close(); err != nil {
		w.abort()
		return err
	}
	if err := os.Rename(w.f.Name(), w.path); err != nil {
		w.abort()
		return err
	}
	w.f = nil
	return nil
}

// abort leaves what stood at the path before. After commit it does nothing.
func (w *wholeFile) abort() {
	if w.f == nil {
		return
	}
	_ = w.f.Close() // may be closed already
	_ = os.Remove(w.f.Name())
	w.f = nil
}
