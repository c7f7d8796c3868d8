package jit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// ErrNotTorchScript is the kind of error for a file that is something else
// than TorchScript: a state dict, an exported program, a picture.
var ErrNotTorchScript = errors.New("not a TorchScript file")

// ErrCorrupt is the kind of error for a TorchScript file that is damaged,
// truncated or changed after torch wrote it.
var ErrCorrupt = errors.New("damaged TorchScript file")

// ArchiveError says what is wrong with a file, in one line.
type ArchiveError struct {
	// Kind is [ErrNotTorchScript] or [ErrCorrupt]; errors.Is finds it.
	Kind error
	// Record is the entry within the archive, empty for the file as a whole.
	Record string
	// Reason says what was got and what was wanted.
	Reason string
	// Hint says what to do, and may be empty.
	Hint string
}

// Error returns kind, record, reason and hint as one line.
func (e *ArchiveError) Error() string {
	var b strings.Builder
	b.WriteString("jit: ")
	b.WriteString(e.Kind.Error())
	if e.Record != "" {
		b.WriteString(": ")
		b.WriteString(strings.Trim(strconv.Quote(clip(e.Record)), `"`))
	}
	b.WriteString(": ")
	b.WriteString(e.Reason)
	if e.Hint != "" {
		b.WriteString("; ")
		b.WriteString(e.Hint)
	}
	return b.String()
}

// Unwrap returns the kind.
func (e *ArchiveError) Unwrap() error { return e.Kind }

// Archive is a TorchScript file whose structure has been checked. It reads
// from the io.ReaderAt that it was made from, which must stay open and
// unchanged while it is used. Its methods may be called at the same time from
// several goroutines.
type Archive struct {
	name    string
	version int
	zip     *zipArchive
	records map[string]*zipEntry // by name below the top folder
	root    string               // the module's class
	closer  io.Closer
}

const (
	exportHint = "export the model with torch.jit.script(model).save(path), or with scripts/export.py"

	// libtorch 2.15 reads these versions of the archive (caffe2/serialize/versions.h).
	minArchiveVersion = 1
	maxArchiveVersion = 10
)

// CheckArchive reads a TorchScript file of size bytes, as torch.jit.save
// writes it, and returns an error unless it is whole: every byte of the zip is
// accounted for, every checksum is right, the pickles in it hold values of the
// types that the code declares and tensors that lie within their storages, and
// the records are those that torch hashed into the file's serialization id.
//
// It needs no libtorch and runs nothing from the file. The error is an
// [*ArchiveError] of kind [ErrNotTorchScript] or [ErrCorrupt], or a wrapped
// error of r.
//
// What passes has the very contents that torch wrote. Two things are beyond the
// check. A bit of compressed source text may change so that it unpacks to the
// same bytes all the same, which harms nothing. And a file that was changed with
// care, its serialization id included, is a file like any other: the reference
// that scripts/export.py puts into a model file, and torchvit verify replays, is
// the proof against that.
func CheckArchive(r io.ReaderAt, size int64) (*Archive, error) {
	if size < 0 {
		return nil, fmt.Errorf("jit: archive: got size %d, want 0 or more", size)
	}
	if err := sniff(r, size); err != nil {
		return nil, err
	}
	z, err := openZip(r, size)
	if err != nil {
		return nil, err
	}
	a := &Archive{zip: z}
	if err := a.index(); err != nil {
		return nil, err
	}
	if err := z.checkRatios(); err != nil {
		return nil, err
	}
	if err := z.verifyChecksums(); err != nil {
		return nil, err
	}
	if err := a.checkSerializationID(); err != nil {
		return nil, err
	}
	if err := a.checkContent(); err != nil {
		return nil, err
	}
	for _, e := range z.entries {
		e.unpacked = nil
	}
	return a, nil
}

// CheckBytes is [CheckArchive] for a file in memory. The archive refers to b,
// which must not change while it is used.
func CheckBytes(b []byte) (*Archive, error) {
	return CheckArchive(bytes.NewReader(b), int64(len(b)))
}

// OpenArchive opens and checks the file at path, and keeps it open until
// [Archive.Close].
func OpenArchive(path string) (*Archive, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("jit: archive: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("got a %s, want a regular file", describeMode(info.Mode()))
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("jit: archive: %s: %w", path, err)
	}
	a, err := CheckArchive(f, info.Size())
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	a.closer = f
	return a, nil
}

func describeMode(m os.FileMode) string {
	if m.IsDir() {
		return "folder"
	}
	return "special file"
}

// Close closes the file of [OpenArchive]. It is a no-op on nil, on an archive
// from [CheckArchive] or [CheckBytes], and the second time.
func (a *Archive) Close() error {
	if a == nil || a.closer == nil {
		return nil
	}
	c := a.closer
	a.closer = nil
	return c.Close()
}

// Name returns the archive's top folder, which torch names after the file that
// it first wrote.
func (a *Archive) Name() string { return a.name }

// Version returns the version of the archive format.
func (a *Archive) Version() int { return a.version }

// Size returns the size of the file in bytes.
func (a *Archive) Size() int64 { return a.zip.size }

// ExtraFiles returns the sorted names of the extra files in the archive, as
// they were given to torch.jit.save(_extra_files=...).
func (a *Archive) ExtraFiles() []string {
	var names []string
	for name := range a.records {
		if extra, ok := strings.CutPrefix(name, "extra/"); ok {
			names = append(names, extra)
		}
	}
	slices.Sort(names)
	return names
}

// ReadExtra returns the content of an extra file. The error wraps
// [os.ErrNotExist] when the archive has none of that name.
func (a *Archive) ReadExtra(name string) ([]byte, error) {
	e := a.records["extra/"+name]
	if e == nil {
		return nil, fmt.Errorf("jit: archive: extra file %q: %w", name, os.ErrNotExist)
	}
	return a.zip.read(e, uint64(a.zip.size)+maxDeflateTotal)
}

// sniff recognises files that are no zip archive at all.
func sniff(r io.ReaderAt, size int64) error {
	if size == 0 {
		return &ArchiveError{Kind: ErrNotTorchScript, Reason: "got an empty file of 0 bytes", Hint: "was it written, or downloaded, to the end?"}
	}
	var buf [512]byte
	z := &zipArchive{r: r, size: size}
	b := buf[:min(size, int64(len(buf)))]
	if err := z.readFull(b, 0, "first bytes"); err != nil {
		return err
	}
	what, hint := "", exportHint
	switch {
	case bytes.HasPrefix(b, []byte("PK\x03\x04")):
		return nil
	case bytes.HasPrefix(b, []byte("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19")):
		what = "a file of torch.save in its old format (a state dict or a pickled module)"
	case len(b) > 2 && b[0] == 0x80 && b[1] >= 2 && b[1] <= 5:
		what = "a raw Python pickle"
	case len(b) > 9 && binary.LittleEndian.Uint64(b) <= uint64(size)-8 && b[8] == '{':
		what, hint = "a safetensors file, which holds weights and no code", "load it into the model in Python and "+exportHint
	case len(b) > 3 && b[0] == 0x08 && b[1] > 0 && b[1] < 32 && strings.IndexByte("\x12\x1a\x22\x2a\x30\x3a\x42", b[2]) >= 0:
		what, hint = "an ONNX model, as far as its first bytes tell", "export the PyTorch model that it came from: "+exportHint
	case bytes.HasPrefix(b, []byte("PK\x05\x06")) && size == zipEndLen:
		what = "an empty zip archive"
	case bytes.HasPrefix(b, []byte("PYTORCH1")):
		what = "a file of a PyTorch preview release"
	case len(b) > 8 && string(b[4:8]) == "PTMF":
		what = "a TorchScript file for mobile devices (flatbuffer)"
	case len(b) > 8 && string(b[4:6]) == "ET" && b[6] >= '0' && b[6] <= '9':
		what = "an ExecuTorch program"
	case len(b) > 8 && string(b[4:8]) == "TFL3":
		what = "a TensorFlow Lite model"
	case bytes.HasPrefix(b, []byte("GGUF")):
		what = "a GGUF file"
	case bytes.HasPrefix(b, []byte("\x89HDF")):
		what = "an HDF5 file"
	case bytes.HasPrefix(b, []byte("\x7fELF")):
		what = "a shared library or a program"
	case bytes.HasPrefix(b, []byte("\x93NUMPY")):
		what = "a NumPy array"
	case bytes.HasPrefix(b, []byte("\x1f\x8b")), bytes.HasPrefix(b, []byte("\xfd7zXZ")), bytes.HasPrefix(b, []byte("7z\xbc\xaf")), bytes.HasPrefix(b, []byte("\x28\xb5\x2f\xfd")), len(b) > 262 && string(b[257:262]) == "ustar":
		what, hint = "a packed file", "unpack it first"
	case bytes.HasPrefix(b, []byte("version https://git-lfs")):
		what, hint = "a Git LFS pointer and not the file itself", "run git lfs pull"
	case isMarkup(b):
		what, hint = "a web page", "the download has failed"
	case hasZipEnd(z):
		return corrupt("", "got % x at the start, want a zip entry (50 4b 03 04)", b[:min(4, len(b))])
	default:
		what = fmt.Sprintf("%d bytes that start with % x", size, b[:min(8, len(b))])
	}
	return &ArchiveError{Kind: ErrNotTorchScript, Reason: "got " + what + ", want a zip archive of torch.jit.save", Hint: hint}
}

func isMarkup(b []byte) bool {
	s := strings.ToLower(string(bytes.TrimLeft(b[:min(64, len(b))], " \t\r\n\ufeff")))
	return strings.HasPrefix(s, "<!doctype") || strings.HasPrefix(s, "<html") || strings.HasPrefix(s, "<?xml")
}

func hasZipEnd(z *zipArchive) bool {
	var b [4]byte
	return z.size >= zipEndLen && z.readFull(b[:], uint64(z.size)-zipEndLen, "end") == nil && binary.LittleEndian.Uint32(b[:]) == zipEndSig
}

// index finds the top folder, and tells TorchScript from the other archives of
// PyTorch.
func (a *Archive) index() error {
	z := a.zip
	if len(z.entries) == 0 {
		return &ArchiveError{Kind: ErrNotTorchScript, Reason: "got a zip archive without entries", Hint: exportHint}
	}
	first, _, found := strings.Cut(z.entries[0].name, "/")
	a.name, a.records = first, make(map[string]*zipEntry, len(z.entries))
	oneFolder := found
	for _, e := range z.entries {
		rest, ok := strings.CutPrefix(e.name, first+"/")
		if !ok {
			oneFolder = false
			break
		}
		a.records[rest] = e
	}
	if !oneFolder {
		return &ArchiveError{Kind: ErrNotTorchScript, Reason: "got " + a.describeForeign(z.entries[0].name) + ", want one folder with data.pkl, constants.pkl and code/", Hint: exportHint}
	}
	has := func(name string) bool { return a.records[name] != nil }
	folder := func(prefix string) bool {
		for name := range a.records {
			if strings.HasPrefix(name, prefix) {
				return true
			}
		}
		return false
	}
	what, hint := "", exportHint
	switch {
	case folder("data/aotinductor/"):
		what = "an AOTInductor package (.pt2)"
	case has("archive_format"), has("serialized_exported_program.json"), has("models/model.json"), folder("data/weights/"):
		what = "a program of torch.export (.pt2)"
	case has(".data/extern_modules"), has(".data/python_version"):
		what = "a package of torch.package"
	case has("model.json") && !has("data.pkl"):
		what, hint = "a TorchScript file of PyTorch before 1.4", "load it in an old PyTorch and save it again"
	case has("data.pkl") && !has("constants.pkl") && !folder("code/"):
		what = a.describeSave()
	case !has("data.pkl") && !has("constants.pkl") && !folder("code/"):
		what = "a zip archive without data.pkl and code/"
	}
	if what != "" {
		return &ArchiveError{Kind: ErrNotTorchScript, Reason: "got " + what + ", want TorchScript", Hint: hint}
	}
	for _, name := range []string{"data.pkl", "constants.pkl"} {
		if !has(name) {
			return corrupt(name, "got an archive without it, want it")
		}
	}
	if !has("version") && !has(".data/version") {
		return corrupt("version", "got an archive without it, want it")
	}
	if has("version") && has(".data/version") {
		return corrupt("version", "got version and .data/version, want one of them")
	}
	if !folder("code/") {
		return corrupt("code/", "got an archive without code, want it")
	}
	return nil
}

// describeForeign names archives that do not have one top folder.
func (a *Archive) describeForeign(first string) string {
	switch {
	case first == "[Content_Types].xml" || first == "mimetype":
		return "an office document"
	case strings.HasSuffix(first, ".npy"):
		return "a NumPy archive (.npz)"
	case strings.HasSuffix(first, ".keras") || first == "metadata.json" || first == "config.json":
		return "a model of another library"
	}
	return fmt.Sprintf("a zip archive that starts with %q", clip(first))
}

// describeSave tells a state dict from a pickled module by the names that its
// pickle uses.
func (a *Archive) describeSave() string {
	b, err := a.zip.read(a.records["data.pkl"], maxPickleSize)
	if err != nil {
		return "a file of torch.save"
	}
	for _, own := range []string{"collections", "torch._utils", "torch", "builtins", "numpy", "argparse"} {
		b = bytes.ReplaceAll(b, []byte("c"+own+"\n"), nil)
	}
	if bytes.Contains(b, []byte("_modules")) && bytes.Contains(b, []byte("_parameters")) {
		return "a module pickled by torch.save(model), whose code is not in the file"
	}
	return "a file of torch.save (a state dict or checkpoint), which holds weights and no code"
}

// checkSerializationID compares the archive with the fingerprint that torch
// put into it: the CRC-32 of all records, combined in the order of writing.
// Zip tools that change a record and mend its checksum leave it as it was.
func (a *Archive) checkSerializationID() error {
	const record = ".data/serialization_id"
	id := a.records[record]
	if id == nil {
		return nil // before torch 2.1
	}
	text, err := a.zip.read(id, 64)
	if err != nil {
		return err
	}
	if len(text) != 40 || len(bytes.Trim(text, "0123456789")) != 0 {
		return corrupt(record, "got %d bytes, want 40 digits", len(text))
	}
	var sum uint64
	after := false
	for _, e := range a.zip.entries {
		switch {
		case e == id:
			after = true
		case after:
			// A tool may add extra files to a finished archive, and nothing else.
			if !strings.HasPrefix(e.name, a.name+"/extra/") {
				return corrupt(strings.TrimPrefix(e.name, a.name+"/"), "got the record after the serialization id, which torch writes last")
			}
		case e.size > 0:
			sum ^= uint64(e.crc) + 0x9e3779b9 + sum<<6 + sum>>2
		}
	}
	if want := fmt.Sprintf("%020d", sum); string(text[20:]) != want {
		return &ArchiveError{
			Kind: ErrCorrupt, Record: record, Reason: fmt.Sprintf("got %s, want %s for these records (a record was changed after torch wrote the file)", text[20:], want),
			Hint: "export the model again",
		}
	}
	return nil
}

// checkContent checks every record below the zip level.
func (a *Archive) checkContent() error {
	if err := a.checkVersion(); err != nil {
		return err
	}
	if e := a.records["byteorder"]; e != nil {
		b, err := a.zip.read(e, 16)
		if err != nil {
			return err
		}
		if string(b) != "little" {
			return corrupt("byteorder", "got %q, want \"little\"", b)
		}
	} else if a.records[".data/serialization_id"] != nil {
		return corrupt("byteorder", "got an archive without it, want it")
	}
	code, debug, err := a.readCode()
	if err != nil {
		return err
	}
	if err := a.checkPickles(code); err != nil {
		return err
	}
	return a.checkDebugTables(code, debug)
}

func (a *Archive) checkVersion() error {
	record := "version"
	if a.records[record] == nil {
		record = ".data/version"
	}
	b, err := a.zip.read(a.records[record], 64)
	if err != nil {
		return err
	}
	v, err := strconv.Atoi(strings.TrimSuffix(string(b), "\n"))
	if err != nil || v < minArchiveVersion {
		return corrupt(record, "got %q, want a number from %d to %d", b, minArchiveVersion, maxArchiveVersion)
	}
	if v > maxArchiveVersion {
		return &ArchiveError{
			Kind: ErrCorrupt, Record: record, Reason: fmt.Sprintf("got version %d, want at most %d", v, maxArchiveVersion),
			Hint: "a newer PyTorch may have written the file: export it with the pinned one",
		}
	}
	a.version = v
	return nil
}

// readCode reads the sources, and returns the names of the debug tables. It
// also refuses records that TorchScript does not have.
func (a *Archive) readCode() (*scriptCode, []string, error) {
	code := &scriptCode{classes: make(map[string]*scriptClass), lengths: make(map[string]int)}
	var sources, debug []string
	for name := range a.records {
		switch {
		case strings.HasPrefix(name, "extra/"), strings.HasPrefix(name, "data/"), strings.HasPrefix(name, "constants/"), strings.HasPrefix(name, "traced_inputs/"):
		case strings.HasPrefix(name, "code/") && strings.HasSuffix(name, ".py"):
			sources = append(sources, name)
		case strings.HasPrefix(name, "code/") && strings.HasSuffix(name, ".py.debug_pkl"):
			debug = append(debug, name)
		default:
			switch name {
			case "data.pkl", "constants.pkl", "version", "byteorder", "traced_inputs.pkl", "bytecode.pkl", "mobile_debug_handles.pkl",
				".data/version", ".data/serialization_id", ".format_version", ".storage_alignment":
			default:
				return nil, nil, corrupt(name, "got a record that TorchScript does not have")
			}
		}
	}
	slices.Sort(sources)
	slices.Sort(debug)
	for _, name := range sources {
		module := strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(name, "code/"), ".py"), "/", ".")
		if !pickleIdentifier.MatchString(module) {
			return nil, nil, corrupt(name, "got module %q, want Python names", clip(module))
		}
		b, err := a.zip.read(a.records[name], maxSourceSize)
		if err != nil {
			return nil, nil, err
		}
		if !utf8.Valid(b) {
			return nil, nil, corrupt(name, "got text that is not UTF-8")
		}
		if err := code.addSource(name, module, string(b)); err != nil {
			return nil, nil, err
		}
	}
	return code, debug, nil
}

// checkPickles walks data.pkl, constants.pkl and traced_inputs.pkl.
func (a *Archive) checkPickles(code *scriptCode) error {
	for _, name := range []string{"constants", "data", "traced_inputs"} {
		e := a.records[name+".pkl"]
		if e == nil {
			continue // traced_inputs: only some traces have it
		}
		b, err := a.zip.read(e, maxPickleSize)
		if err != nil {
			return err
		}
		w := &pickleWalker{record: name + ".pkl", code: code}
		if name == "traced_inputs" {
			w.code = nil // example inputs of a trace, which libtorch does not read
		}
		n, err := w.walk(b)
		if err != nil {
			return err
		}
		if err := w.plainValue(n); err != nil {
			return corrupt(w.record, "%v", err)
		}
		switch {
		case name == "data" && n.kind != pickleObject:
			return corrupt(w.record, "got %s, want a module", n.brief())
		case name == "data" && code.classes[n.str].isPlain():
			return corrupt(w.record, "got an object of %s, want a module", n.str)
		case name == "constants" && n.kind != pickleTuple:
			return corrupt(w.record, "got %s, want a tuple", n.brief())
		}
		if name == "data" {
			a.root = n.str
		}
		if err := a.checkStorages(name, w.storages); err != nil {
			return err
		}
	}
	return nil
}

func (cls *scriptClass) isPlain() bool { return cls == nil || cls.base != "Module" }

// checkStorages compares the storages that a pickle claims with the records
// that hold them: as many, in the order of writing, each as long as it says.
func (a *Archive) checkStorages(folder string, storages []*pickleStore) error {
	for i, s := range storages {
		record := folder + "/" + s.key
		e := a.records[record]
		if e == nil {
			return corrupt(record, "got an archive without it, want the %d bytes of a tensor", s.numel*s.width)
		}
		// A trace's inputs are described, their bytes are left out.
		if folder == "traced_inputs" && e.size == 0 {
			continue
		}
		if want := s.numel * s.width; e.size < want || e.size-want >= s.width {
			return corrupt(record, "got %d bytes, want %d for %d elements of type %s", e.size, want, s.numel, s.dtype)
		}
		if i > 0 && a.records[folder+"/"+storages[i-1].key].header > e.header {
			return corrupt(record, "got it before %s, want the order of writing", storages[i-1].key)
		}
	}
	count := 0
	for name := range a.records {
		if strings.HasPrefix(name, folder+"/") {
			count++
		}
	}
	if count != len(storages) {
		return corrupt(folder+"/", "got %d records, want the %d that %s.pkl names", count, len(storages), folder)
	}
	return nil
}

// checkDebugTables walks the tables of source positions, of which large models
// have hundreds.
func (a *Archive) checkDebugTables(code *scriptCode, names []string) error {
	errs := make([]error, len(names))
	var next atomic.Int64
	work := func() {
		for {
			i := int(next.Add(1) - 1)
			if i >= len(names) {
				return
			}
			errs[i] = a.checkDebugTable(code, names[i])
		}
	}
	var group sync.WaitGroup
	for range min(4, runtime.GOMAXPROCS(0), len(names)) {
		group.Go(work)
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *Archive) checkDebugTable(code *scriptCode, name string) error {
	length, ok := code.lengths[strings.TrimSuffix(name, ".debug_pkl")]
	if !ok {
		return corrupt(name, "got a debug table without its source")
	}
	b, err := a.zip.read(a.records[name], maxPickleSize)
	if err != nil {
		return err
	}
	w := &pickleWalker{record: name, noTensors: true, text: true}
	n, err := w.walk(b)
	if err != nil {
		return err
	}
	return checkDebugTable(name, n, length)
}
