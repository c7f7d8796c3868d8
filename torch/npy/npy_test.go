package npy_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	npyio "github.com/sbinet/npyio/npy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch/npy"
)

const writeCases = `
import json, sys, pathlib, numpy as np
out = pathlib.Path(sys.argv[1]); rng = np.random.default_rng(7); cases = []
codes = ["?", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]
shapes = [(), (1,), (7,), (0,), (3, 4), (2, 0, 3), (2, 3, 4, 5), (1,) * 32, (100000,)]
for code in codes:
    for shape in shapes:
        for order in "CF":
            for end in "<>":
                dt = np.dtype(code).newbyteorder(end)
                n = int(np.prod(shape, dtype=np.int64))
                raw = rng.integers(0, 256, n * dt.itemsize, dtype=np.uint8)
                if code == "?":
                    raw &= 1
                a = np.frombuffer(raw.tobytes(), dtype=dt).reshape(shape)
                a = np.asarray(a, order=order)
                version = [(1, 0), (2, 0), (3, 0)][len(cases) % 3]
                name = f"{len(cases)}.npy"
                with open(out / name, "wb") as f:
                    np.lib.format.write_array(f, a, version=version)
                little = a.astype(dt.newbyteorder("<")) if dt.kind in "biu?" else np.frombuffer(
                    (a.tobytes() if end == "<" or dt.itemsize == 1 else a.byteswap().tobytes()), dtype=dt.newbyteorder("<")).reshape(shape)
                np.save(out / f"{len(cases)}.want.npy", np.asarray(little, order="F" if np.isfortran(a) else "C"))
                cases.append({"file": name, "dtype": np.dtype(code).str.lstrip("|<>="), "shape": list(shape),
                              "fortran": bool(np.isfortran(a)), "hex": little.tobytes().hex() if n < 200 else "",
                              "sum": int(__import__("zlib").crc32(little.tobytes()))})
(out / "cases.json").write_text(json.dumps(cases))
names = {c["file"]: np.load(out / c["file"]) for c in cases[:40]}
np.savez(out / "stored.npz", **names)
np.savez_compressed(out / "packed.npz", **names)
`

// TestNumPyRoundTrip reads what NumPy wrote, in every dtype, order, byte order
// and format version, bit for bit, and writes the very bytes that NumPy writes.
func TestNumPyRoundTrip(t *testing.T) {
	py, dir := testmain.Python(t), t.TempDir()
	got, err := exec.Command(py, "-c", writeCases, dir).CombinedOutput()
	require.NoError(t, err, "%s", got)
	var cases []struct {
		File    string
		DType   string
		Shape   []int64
		Fortran bool
		Hex     string
		Sum     uint32
	}
	b, err := os.ReadFile(filepath.Join(dir, "cases.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &cases))
	require.Len(t, cases, 9*9*2*2)
	for _, c := range cases {
		a, err := npy.ReadFile(filepath.Join(dir, c.File))
		require.NoError(t, err, c.File)
		assert.Equal(t, c.DType, a.DType, c.File)
		assert.Equal(t, c.Shape, append([]int64{}, a.Shape...), c.File)
		assert.Equal(t, c.Fortran, a.Fortran, c.File)
		require.NoError(t, a.Validate(), c.File)
		rows := a.RowMajor()
		assert.False(t, rows.Fortran)
		assert.Equal(t, c.Sum, crc32.ChecksumIEEE(rows.Data), c.File)
		if c.Hex != "" {
			assert.Equal(t, c.Hex, fmt.Sprintf("%x", rows.Data), c.File)
		}
		var w bytes.Buffer
		require.NoError(t, npy.Write(&w, a))
		want, err := os.ReadFile(filepath.Join(dir, strings.TrimSuffix(c.File, ".npy")+".want.npy"))
		require.NoError(t, err)
		assert.True(t, bytes.Equal(want, w.Bytes()), "%s: got %d bytes, want NumPy's %d:\n%q\n%q", c.File, w.Len(), len(want), head(w.Bytes()), head(want))
		again, err := npy.Read(iotest.OneByteReader(bytes.NewReader(w.Bytes()[:min(w.Len(), 4096)])))
		if w.Len() <= 4096 {
			require.NoError(t, err)
			assert.Equal(t, a, again)
		}
	}
	for _, name := range []string{"stored.npz", "packed.npz"} {
		z, err := npy.ReadZipFile(filepath.Join(dir, name))
		require.NoError(t, err, name)
		require.Equal(t, 40, z.Len())
		for i, c := range cases[:40] {
			assert.Equal(t, strings.TrimSuffix(z.Names()[i], ".npy"), strings.TrimSuffix(c.File, ".npy"))
			assert.Equal(t, c.Sum, crc32.ChecksumIEEE(z.Get(z.Names()[i]).RowMajor().Data), c.File)
		}
		require.NoError(t, npy.WriteZipFile(filepath.Join(dir, "go.npz"), z))
		got, err := exec.Command(py, "-c", `
import sys, numpy as np
a, b = np.load(sys.argv[1]), np.load(sys.argv[2])
assert a.files == b.files and len(a.files) == 40
for k in a.files:
    x, y = a[k], b[k]
    x = x.astype(x.dtype.newbyteorder("<")) if x.dtype.kind in "biu" else x
    assert x.shape == y.shape and np.isfortran(x) == np.isfortran(y), k
    assert (x if x.dtype.byteorder != ">" else x.byteswap()).tobytes() == y.tobytes(), k
`, filepath.Join(dir, name), filepath.Join(dir, "go.npz")).CombinedOutput()
		require.NoError(t, err, "%s", got)
	}
}

func head(b []byte) []byte { return b[:min(len(b), 140)] }

// TestAgainstNpyio reads our files with github.com/sbinet/npyio, an independent
// implementation.
func TestAgainstNpyio(t *testing.T) {
	want := []float32{1, -0.5, float32(math.Inf(1)), 3e-42}
	a := &npy.Array{DType: "f4", Shape: []int64{4}}
	for _, f := range want {
		a.Data = binary.LittleEndian.AppendUint32(a.Data, math.Float32bits(f))
	}
	var b bytes.Buffer
	require.NoError(t, npy.Write(&b, a))
	var got []float32
	require.NoError(t, npyio.Read(bytes.NewReader(b.Bytes()), &got))
	assert.Equal(t, want, got)

	b.Reset()
	require.NoError(t, npyio.Write(&b, []int64{1, -2, 1 << 40}))
	i, err := npy.Read(&b)
	require.NoError(t, err)
	assert.Equal(t, "i8", i.DType)
	assert.Equal(t, []int64{3}, i.Shape)
	assert.Equal(t, int64(-2), int64(binary.LittleEndian.Uint64(i.Data[8:])))
}

// file makes a .npy file by hand.
func file(version byte, dict string, data []byte) []byte {
	b := []byte("\x93NUMPY")
	b = append(b, version, 0)
	if version == 1 {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(dict)))
	} else {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(dict)))
	}
	return append(append(b, dict...), data...)
}

func TestHeaders(t *testing.T) {
	four := []byte{1, 2, 3, 4}
	for _, dict := range []string{
		"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n",
		`{"shape":(1,),"descr":"=f4","fortran_order":False}`,
		"{ 'fortran_order' : True ,\n 'shape' : ( 1L , ) , 'descr' : 'f4' , }   \n",
		"{'descr': '<f4', 'fortran_order': False, 'shape': (), }",
		"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }",
	} {
		for version := byte(1); version <= 3; version++ {
			a, err := npy.Read(bytes.NewReader(file(version, dict, four)))
			require.NoError(t, err, dict)
			assert.Equal(t, "f4", a.DType)
			assert.Equal(t, four, a.Data)
		}
	}
	// What follows the array stays in the reader.
	r := bytes.NewReader(append(file(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }\n", []byte{5, 6}), 7, 8))
	_, err := npy.Read(r)
	require.NoError(t, err)
	assert.Equal(t, 2, r.Len())
}

func TestBadInput(t *testing.T) {
	dict := func(descr, order, shape string) string {
		return "{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }\n"
	}
	many := "(" + strings.Repeat("1, ", 65) + ")"
	for name, c := range map[string]struct {
		in   []byte
		want string
	}{
		"empty":            {nil, "magic: got 0 bytes, want 8"},
		"short":            {[]byte("\x93NUMPY\x01"), "magic: got 7 bytes"},
		"other file":       {[]byte("PK\x03\x04aaaaaaaa"), "want 93 4e 55 4d 50 59"},
		"version":          {file(4, dict("'<f4'", "False", "(1,)"), nil), "format version 4.0"},
		"header missing":   {file(1, dict("'<f4'", "False", "(1,)"), nil)[:30], "header: got 20 bytes"},
		"header too long":  {append([]byte("\x93NUMPY\x02\x00"), 0xff, 0xff, 0xff, 0xff), "got a header of 4294967295 bytes"},
		"not text":         {file(1, "{'descr': '\xff'}", nil), "not text"},
		"no dict":          {file(1, "[]", nil), "want a dict"},
		"unknown key":      {file(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}", nil), `got key "x"`},
		"key twice":        {file(1, "{'descr': '<f4', 'descr': '<f4', 'shape': (1,)}", nil), `got key "descr"`},
		"key missing":      {file(1, "{'descr': '<f4', 'shape': (1,)}", nil), "fortran_order false"},
		"no colon":         {file(1, "{'descr' '<f4'}", nil), "want ':'"},
		"no comma":         {file(1, "{'descr': '<f4' 'shape': (1,)}", nil), "want ',' or '}'"},
		"trailing":         {file(1, dict("'<f4'", "False", "(1,)")+"x", []byte{0, 0, 0, 0}), "want the end"},
		"order":            {file(1, dict("'<f4'", "Maybe", "(1,)"), nil), "want True or False"},
		"shape no tuple":   {file(1, dict("'<f4'", "False", "3"), nil), "want a tuple"},
		"shape int":        {file(1, dict("'<f4'", "False", "(3)"), nil), "(3,) for one dimension"},
		"negative":         {file(1, dict("'<f4'", "False", "(-1,)"), nil), "want a size of 0 or more"},
		"huge dim":         {file(1, dict("'<f4'", "False", "(99999999999999999999,)"), nil), "want a size of 0 or more"},
		"overflow":         {file(1, dict("'<f4'", "False", "(4611686018427387904, 4)"), nil), "larger than 2^63"},
		"overflow, empty":  {file(1, dict("'<f4'", "False", "(4611686018427387904, 4, 0)"), nil), "larger than 2^63"},
		"dimensions":       {file(1, dict("'<f4'", "False", many), nil), "more than 64 dimensions"},
		"string":           {file(1, dict("'<U3'", "False", "(1,)"), make([]byte, 12)), `got dtype "<U3"`},
		"object":           {file(1, dict("'|O'", "False", "(1,)"), []byte("\x80\x04.")), "an object array"},
		"bfloat16":         {file(1, dict("'|V2'", "False", "(1,)"), []byte{0, 0}), "write it as float32"},
		"complex":          {file(1, dict("'<c8'", "False", "(1,)"), make([]byte, 8)), `got dtype "<c8"`},
		"structured":       {file(1, dict("[('a', '<f4')]", "False", "(1,)"), make([]byte, 4)), "structured arrays are not supported"},
		"no order":         {file(1, dict("'|f4'", "False", "(1,)"), make([]byte, 4)), "without byte order"},
		"bool of 2":        {file(1, dict("'|b1'", "False", "(2,)"), []byte{1, 2}), "got bool 2 at element 1"},
		"truncated":        {file(1, dict("'<f4'", "False", "(2,)"), make([]byte, 7)), "got 7 bytes of data, want 8"},
		"claims terabytes": {file(1, dict("'<f8'", "False", "(1000000, 1000000)"), make([]byte, 80)), "got 80 bytes of data, want 8000000000000"},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := npy.Read(bytes.NewReader(c.in))
			runtime.ReadMemStats(&after)
			require.ErrorIs(t, err, npy.ErrFormat)
			require.ErrorContains(t, err, c.want)
			assert.NotContains(t, err.Error(), "\n")
			assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(8<<20), "allocated on the word of a header")
		})
	}
	t.Run("reader fails", func(t *testing.T) {
		broken := errors.New("broken pipe")
		_, err := npy.Read(iotest.ErrReader(broken))
		require.ErrorIs(t, err, broken)
		require.NotErrorIs(t, err, npy.ErrFormat)
	})
	t.Run("bytes after the array", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a.npy")
		require.NoError(t, os.WriteFile(path, file(1, dict("'|u1'", "False", "(1,)"), []byte{1, 2}), 0o600))
		_, err := npy.ReadFile(path)
		require.ErrorIs(t, err, npy.ErrFormat)
		require.ErrorContains(t, err, "got 2 bytes after the header, want 1")
		_, err = npy.ReadFile(path + ".missing")
		require.ErrorIs(t, err, os.ErrNotExist)
	})
}

func TestWriteErrors(t *testing.T) {
	for name, a := range map[string]*npy.Array{
		"dtype":    {DType: "V2", Shape: []int64{1}, Data: []byte{0, 0}},
		"length":   {DType: "f4", Shape: []int64{2}, Data: make([]byte, 4)},
		"negative": {DType: "f4", Shape: []int64{-1}},
		"bool":     {DType: "b1", Shape: []int64{1}, Data: []byte{3}},
	} {
		path := filepath.Join(t.TempDir(), "x.npy")
		require.Error(t, npy.Write(io.Discard, a), name)
		require.Error(t, npy.WriteFile(path, a), name)
		_, err := os.Stat(path)
		require.ErrorIs(t, err, os.ErrNotExist, name)
		z := &npy.Zip{}
		z.Add("x", a)
		require.Error(t, npy.WriteZip(io.Discard, z), name)
	}
	for _, name := range []string{"", "/a", "../a", "a\\b", "\xff"} {
		z := &npy.Zip{}
		z.Add(name, &npy.Array{DType: "u1", Shape: []int64{1}, Data: []byte{1}})
		require.ErrorContains(t, npy.WriteZip(io.Discard, z), "array name", name)
	}
	broken := errors.New("disk full")
	a := &npy.Array{DType: "u1", Shape: []int64{1}, Data: []byte{1}}
	require.ErrorIs(t, npy.Write(failWriter{broken}, a), broken)
}

type failWriter struct{ err error }

func (w failWriter) Write([]byte) (int, error) { return 0, w.err }

// TestWriteFileWhole replaces a file only by a whole one, leaves nothing else
// behind, and follows links.
func TestWriteFileWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.npy")
	a := &npy.Array{DType: "u1", Shape: []int64{3}, Data: []byte{1, 2, 3}}
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	require.NoError(t, npy.WriteFile(path, a))
	got, err := npy.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, a, got)

	link := filepath.Join(dir, "link.npy")
	require.NoError(t, os.Symlink("a.npy", link))
	a.Data[0] = 9
	require.NoError(t, npy.WriteFile(link, a))
	info, err := os.Lstat(link)
	require.NoError(t, err)
	assert.NotZero(t, info.Mode()&os.ModeSymlink)
	got, err = npy.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, a, got)

	require.Error(t, npy.WriteFile(dir, a), "a folder")
	require.ErrorIs(t, npy.WriteFile(filepath.Join(dir, "none", "a.npy"), a), os.ErrNotExist)
	require.NoError(t, npy.WriteFile(os.DevNull, a))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 2, "only the file and the link")
}

func TestZip(t *testing.T) {
	z := &npy.Zip{}
	z.Add("c0.in0", &npy.Array{DType: "f4", Shape: []int64{2}, Data: make([]byte, 8)})
	z.Add("c0.out.1.0.boxes", &npy.Array{DType: "i8", Shape: nil, Data: make([]byte, 8)})
	z.Add("c0.in0", &npy.Array{DType: "u1", Shape: []int64{0}, Data: []byte{}})
	var b, again bytes.Buffer
	require.NoError(t, npy.WriteZip(&b, z))
	require.NoError(t, npy.WriteZip(&again, z))
	assert.Equal(t, b.Bytes(), again.Bytes(), "the same arrays give the same bytes")
	got, err := npy.ReadZip(bytes.NewReader(b.Bytes()), int64(b.Len()))
	require.NoError(t, err)
	assert.Equal(t, []string{"c0.in0", "c0.out.1.0.boxes"}, got.Names())
	assert.Equal(t, "u1", got.Get("c0.in0").DType)
	assert.Nil(t, got.Get("c0"))
	assert.Len(t, got.Map(), 2)
	assert.Empty(t, got.Get("c0.out.1.0.boxes").Shape)

	// A flipped bit is found by the checksum, or stands in a field of the zip
	// that says nothing about the arrays.
	found := 0
	for i := range b.Len() {
		bad := bytes.Clone(b.Bytes())
		bad[i] ^= 0x10
		z, err := npy.ReadZip(bytes.NewReader(bad), int64(len(bad)))
		if err != nil {
			found++
			continue
		}
		require.Equal(t, got.Len(), z.Len(), "byte %d", i)
		for j, n := range z.Names() {
			require.Equal(t, got.Get(got.Names()[j]), z.Get(n), "byte %d", i)
		}
	}
	assert.Greater(t, found, b.Len()/2)
}

func TestBadZip(t *testing.T) {
	member := func(name string, body []byte, extra string) []byte {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		f, err := w.Create(name)
		require.NoError(t, err)
		_, err = f.Write(append(body, extra...))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return b.Bytes()
	}
	var body bytes.Buffer
	require.NoError(t, npy.Write(&body, &npy.Array{DType: "u1", Shape: []int64{2}, Data: []byte{1, 2}}))
	good := member("a.npy", body.Bytes(), "")
	_, err := npy.ReadZip(bytes.NewReader(good), int64(len(good)))
	require.NoError(t, err)
	for name, c := range map[string]struct {
		in   []byte
		want string
	}{
		"empty":     {nil, "no zip archive"},
		"not a zip": {[]byte(strings.Repeat("x", 100)), "no zip archive"},
		"cut":       {good[:len(good)-4], "no zip archive"},
		"name":      {member("a.txt", body.Bytes(), ""), "names that end in .npy"},
		"no name":   {member(".npy", body.Bytes(), ""), "names that end in .npy"},
		"trailing":  {member("a.npy", body.Bytes(), "x"), "bytes after the header"},
		"no array":  {member("a.npy", []byte("hello, this is text"), ""), "want 93 4e"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := npy.ReadZip(bytes.NewReader(c.in), int64(len(c.in)))
			require.ErrorIs(t, err, npy.ErrFormat)
			require.ErrorContains(t, err, c.want)
		})
	}
	t.Run("checksum", func(t *testing.T) {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		f, err := w.CreateRaw(&zip.FileHeader{Name: "a.npy", Method: zip.Store, CRC32: 1, CompressedSize64: uint64(body.Len()), UncompressedSize64: uint64(body.Len())})
		require.NoError(t, err)
		_, err = f.Write(body.Bytes())
		require.NoError(t, err)
		require.NoError(t, w.Close())
		_, err = npy.ReadZip(bytes.NewReader(b.Bytes()), int64(b.Len()))
		require.ErrorIs(t, err, zip.ErrChecksum)
		require.ErrorIs(t, err, npy.ErrFormat)
	})
}

func TestRowMajor(t *testing.T) {
	a := &npy.Array{DType: "u1", Shape: []int64{2, 3}, Fortran: true, Data: []byte{0, 3, 1, 4, 2, 5}}
	assert.Equal(t, []byte{0, 1, 2, 3, 4, 5}, a.RowMajor().Data)
	c := &npy.Array{DType: "u1", Shape: []int64{2}, Data: []byte{1, 2}}
	assert.Same(t, c, c.RowMajor())
}

func FuzzReadNpy(f *testing.F) {
	for _, dict := range []string{
		"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n", "{'descr': '>i2', 'fortran_order': True, 'shape': (), }",
		"{'descr': '|b1', 'fortran_order': False, 'shape': (0, 99999999), }", "{'shape': (9999999999999,), 'descr': '<f8', 'fortran_order': False}",
	} {
		for version := byte(1); version <= 3; version++ {
			f.Add(file(version, dict, make([]byte, 8)))
		}
	}
	var b bytes.Buffer
	z := &npy.Zip{}
	z.Add("a", &npy.Array{DType: "f8", Shape: []int64{1}, Data: make([]byte, 8)})
	require.NoError(f, npy.WriteZip(&b, z))
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		if a, err := npy.Read(bytes.NewReader(in)); err == nil {
			checkArray(t, a)
		} else if !errors.Is(err, npy.ErrFormat) {
			t.Fatalf("another error than ErrFormat: %v", err)
		}
		if z, err := npy.ReadZip(bytes.NewReader(in), int64(len(in))); err == nil {
			for _, name := range z.Names() {
				checkArray(t, z.Get(name))
			}
		}
	})
}

// checkArray states what holds for every array that was read.
func checkArray(t *testing.T, a *npy.Array) {
	t.Helper()
	if err := a.Validate(); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := npy.Write(&b, a); err != nil {
		t.Fatal(err)
	}
	again, err := npy.Read(&b)
	if err != nil || !bytes.Equal(again.Data, a.Data) || again.DType != a.DType || again.Fortran != a.Fortran {
		t.Fatalf("round trip: %+v, %+v, %v", a, again, err)
	}
	if rows := a.RowMajor(); len(rows.Data) != len(a.Data) {
		t.Fatalf("RowMajor: got %d bytes, want %d", len(rows.Data), len(a.Data))
	}
}

func BenchmarkRead(b *testing.B) {
	var f bytes.Buffer
	n := int64(3 * 224 * 224)
	if err := npy.Write(&f, &npy.Array{DType: "f4", Shape: []int64{1, 3, 224, 224}, Data: make([]byte, 4*n)}); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(4 * n)
	for b.Loop() {
		if _, err := npy.Read(bytes.NewReader(f.Bytes())); err != nil {
			b.Fatal(err)
		}
	}
}
