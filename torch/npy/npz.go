package npy

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/torchvit/torchvit/internal/whole"
)

const (
	maxZipEntries = 1 << 16
	// Deflate packs at most 1032 bytes into one.
	maxDeflate = 1032
)

// Zip is the content of an .npz file: arrays with names, in order. The zero
// value is empty and ready to use.
type Zip struct {
	names  []string
	arrays map[string]*Array
}

// Add appends an array, or replaces the one of that name.
func (z *Zip) Add(name string, a *Array) {
	if z.arrays == nil {
		z.arrays = make(map[string]*Array)
	}
	if _, ok := z.arrays[name]; !ok {
		z.names = append(z.names, name)
	}
	z.arrays[name] = a
}

// Names returns the names of the arrays, in the order of the file or of Add.
func (z *Zip) Names() []string { return append([]string(nil), z.names...) }

// Get returns the array of that name, or nil.
func (z *Zip) Get(name string) *Array { return z.arrays[name] }

// Len returns the number of arrays.
func (z *Zip) Len() int { return len(z.names) }

// Map returns the arrays by name; the map is the caller's.
func (z *Zip) Map() map[string]*Array {
	m := make(map[string]*Array, len(z.arrays))
	maps.Copy(m, z.arrays)
	return m
}

// ReadZip reads an .npz file of size bytes, stored or compressed. Checksums
// are verified, and members that are no arrays are an error.
func ReadZip(r io.ReaderAt, size int64) (*Zip, error) {
	zr, err := zip.NewReader(r, size)
	if err != nil {
		return nil, invalid("got no zip archive, want an .npz file: %v", err)
	}
	if len(zr.File) > maxZipEntries {
		return nil, invalid("got %d members, want at most %d", len(zr.File), maxZipEntries)
	}
	out := &Zip{}
	var packed uint64
	for _, f := range zr.File {
		name, ok := strings.CutSuffix(f.Name, ".npy")
		if !ok || name == "" || !utf8.ValidString(name) {
			return nil, invalid("got member %q, want names that end in .npy", clip(f.Name))
		}
		if out.Get(name) != nil {
			return nil, invalid("got member %q twice", clip(f.Name))
		}
		// Members that share their bytes would unpack to more than the file holds.
		if packed += f.CompressedSize64; f.CompressedSize64 > uint64(size) || packed > uint64(size) {
			return nil, invalid("got members of %d bytes in a file of %d, which cannot be", packed, size)
		}
		a, err := readMember(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", clip(name), err)
		}
		out.Add(name, a)
	}
	return out, nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

func readMember(f *zip.File) (*Array, error) {
	if f.UncompressedSize64/maxDeflate > f.CompressedSize64 || (f.Method == zip.Store && f.UncompressedSize64 != f.CompressedSize64) {
		return nil, invalid("got %d bytes packed into %d, which cannot be", f.UncompressedSize64, f.CompressedSize64)
	}
	rc, err := f.Open()
	if err != nil {
		return nil, memberError(err)
	}
	defer rc.Close() //nolint:errcheck // only read from
	// What is stored is there to be read; what is packed is unpacked step by step.
	a, err := read(rc, int64(f.UncompressedSize64), f.Method == zip.Store)
	if err != nil {
		return nil, memberError(err)
	}
	// archive/zip compares the checksum when it meets the end.
	if n, err := io.Copy(io.Discard, rc); err != nil || n != 0 {
		if err == nil {
			err = invalid("got %d bytes after the array, want none", n)
		}
		return nil, memberError(err)
	}
	return a, nil
}

// memberError gives the errors of archive/zip this package's kind.
func memberError(err error) error {
	for _, e := range []error{zip.ErrChecksum, zip.ErrFormat, zip.ErrAlgorithm} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", ErrFormat, err)
		}
	}
	return err
}

// ReadZipFile reads the .npz file at path.
func ReadZipFile(path string) (*Zip, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("npy: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read from
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("npy: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("npy: %s: got no regular file, want an .npz file", path)
	}
	z, err := ReadZip(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return z, nil
}

// WriteZip writes the arrays to w as an .npz file, uncompressed as numpy.savez
// does. The same arrays give the same bytes.
func WriteZip(w io.Writer, z *Zip) error {
	for _, name := range z.names {
		if err := checkMember(name, z.arrays[name]); err != nil {
			return err
		}
	}
	zw := zip.NewWriter(w)
	for _, name := range z.names {
		f, err := zw.CreateHeader(&zip.FileHeader{Name: name + ".npy", Method: zip.Store})
		if err == nil {
			err = Write(f, z.arrays[name])
		}
		if err != nil {
			return fmt.Errorf("npy: %s: %w", name, err)
		}
	}
	if err := zw.Close(); err != nil {
		return fmt.Errorf("npy: writing: %w", err)
	}
	return nil
}

func checkMember(name string, a *Array) error {
	if name == "" || !utf8.ValidString(name) || strings.ContainsAny(name, "\\\x00") || name[0] == '/' || strings.HasPrefix(name, "../") || strings.Contains(name, "/../") {
		return fmt.Errorf("npy: got array name %q, want a plain one", clip(name))
	}
	if a == nil {
		return fmt.Errorf("npy: %s: got no array", name)
	}
	if err := a.Validate(); err != nil {
		return fmt.Errorf("npy: %s: %w", name, err)
	}
	return nil
}

// WriteZipFile writes the arrays to path as an .npz file, whole or not at all.
func WriteZipFile(path string, z *Zip) error {
	for _, name := range z.names {
		if err := checkMember(name, z.arrays[name]); err != nil {
			return err
		}
	}
	if err := whole.Write(path, func(w io.Writer) error { return WriteZip(w, z) }); err != nil {
		return fmt.Errorf("npy: %w", err)
	}
	return nil
}
