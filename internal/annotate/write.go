package annotate

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrImageFormat says that a picture cannot be written in the format that the
// file's name asks for.
var ErrImageFormat = errors.New("image format cannot be written")

// JPEGQuality is the quality of the JPEG files that WriteImage writes.
const JPEGQuality = 92

// WriteImage writes img to path as PNG (.png) or JPEG (.jpg, .jpeg), whole or not
// at all, as [WriteFile] does. The error is [ErrImageFormat] for other names.
func WriteImage(path string, img image.Image) error {
	var encode func(io.Writer) error
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".png":
		encode = func(w io.Writer) error { return EncodePNG(w, img) }
	case ".jpg", ".jpeg":
		encode = func(w io.Writer) error { return jpeg.Encode(w, img, &jpeg.Options{Quality: JPEGQuality}) }
	default:
		return fmt.Errorf("%w: got %q, want a name that ends in .png, .jpg or .jpeg", ErrImageFormat, path)
	}
	return WriteFile(path, encode)
}

// WriteFile makes the file path from what write writes, whole or not at all: the
// bytes go to a temporary file in the same folder, which takes path's place at the
// end. On an error what stood at path before still stands there. A symbolic link
// is followed, and an existing file's permissions are kept. A device or a pipe, as
// /dev/stdout, is written directly.
func WriteFile(path string, write func(io.Writer) error) (err error) {
	mode := fs.FileMode(0)
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if info, err := os.Stat(path); err == nil {
		if info.IsDir() {
			return fmt.Errorf("write %s: %w: it is a folder", path, fs.ErrExist)
		}
		if !info.Mode().IsRegular() {
			return writeDirectly(path, write)
		}
		mode = info.Mode().Perm()
	}

	var salt [6]byte
	_, _ = rand.Read(salt[:]) // never fails
	dir, name := filepath.Split(path)
	// Not os.CreateTemp: it makes files that only the owner can read.
	f, err := os.OpenFile(dir+"."+name+"."+hex.EncodeToString(salt[:]), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // may be closed already
			_ = os.Remove(f.Name())
		}
	}()
	if mode != 0 {
		if err := f.Chmod(mode); err != nil {
			return err
		}
	}
	buf := bufio.NewWriter(f)
	if err := write(buf); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := buf.Flush(); err != nil {
		return err
	}
	// Without this a crash soon after could leave an empty file under the new name.
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func writeDirectly(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
	}
	return f.Close()
}
