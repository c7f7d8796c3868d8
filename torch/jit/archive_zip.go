package jit

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// A zip reader of our own, because archive/zip trusts the central directory
// alone: it never compares it with the local headers, and skips whatever lies
// between the entries. libtorch's reader uses both copies, so a file in which
// they differ has two meanings. Here every byte of the file must be accounted
// for: headers that agree field by field, data whose checksum is right,
// padding as torch writes it, and nothing in between.

const (
	zipLocalSig      = 0x04034b50
	zipCentralSig    = 0x02014b50
	zipDescriptorSig = 0x08074b50
	zipEndSig        = 0x06054b50
	zip64EndSig      = 0x06064b50
	zip64LocatorSig  = 0x07064b50

	zipLocalLen     = 30
	zipCentralLen   = 46
	zipEndLen       = 22
	zip64EndLen     = 56
	zip64LocatorLen = 20

	zipStored  = 0
	zipDeflate = 8

	zipFlagDescriptor = 0x0008
	// Bits 1 and 2 state the deflate effort, bit 11 says that names are UTF-8.
	zipFlagsKnown = zipFlagDescriptor | 0x0006 | 0x0800

	zipExtraZip64   = 0x0001
	zipExtraPadding = 0x4246 // "FB", filled with 'Z': torch aligns data to 64 bytes

	maxZipEntries   = 1 << 20
	maxZipDirectory = 256 << 20
	maxZipName      = 4096

	// Deflate cannot do better than 1032:1; source text and pickles, the only
	// things that torch compresses, stay under 50:1.
	maxDeflateRatio   = 200
	smallDeflateEntry = 1 << 20
	maxDeflateTotal   = 1 << 30
)

// zipEntry is one member of the archive, as both headers describe it.
type zipEntry struct {
	name       string
	method     uint16
	flags      uint16
	needed     uint16
	madeBy     uint16
	time, date uint16
	crc        uint32
	size       uint64 // uncompressed
	packed     uint64 // as stored in the file
	header     uint64 // offset of the local header
	data       uint64 // offset of the first data byte

	// unpacked is a deflated entry's content, kept from the verification of its
	// checksum until the end of the check.
	unpacked []byte
}

// zipArchive is the parsed directory, in the order of the directory.
type zipArchive struct {
	r       io.ReaderAt
	size    int64
	entries []*zipEntry // by offset
	kept    atomic.Int64
}

func corrupt(record, format string, args ...any) error {
	return &ArchiveError{Kind: ErrCorrupt, Record: record, Reason: fmt.Sprintf(format, args...)}
}

// readFull reads len(b) bytes at off. A short read is damage, any other error
// is the reader's own.
func (z *zipArchive) readFull(b []byte, off uint64, what string) error {
	if off > uint64(z.size) || uint64(len(b)) > uint64(z.size)-off {
		return corrupt("", "%s: got end of file at byte %d, want %d bytes at %d (truncated?)", what, z.size, len(b), off)
	}
	n, err := z.r.ReadAt(b, int64(off))
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return corrupt("", "%s: got %d bytes at %d, want %d (the file shrank while it was read)", what, n, off, len(b))
	}
	return fmt.Errorf("jit: reading archive: %s: %w", what, err)
}

// zipWriterKnown tells whether "version made by" (host system, zip version) is
// that of a writer in use: miniz in torch (0), Python, Go, Info-ZIP, Windows,
// macOS. None is one bit away from torch's.
func zipWriterKnown(v uint16) bool {
	switch v & 0xff {
	case 0:
		return v == 0
	case 10, 20, 21, 23, 30, 31, 45, 51, 63:
	default:
		return false
	}
	switch v >> 8 {
	case 0, 3, 10, 19:
		return true
	}
	return false
}

func zipNeededKnown(v uint16) bool { return v == 0 || v == 10 || v == 20 || v == 45 }

func openZip(r io.ReaderAt, size int64) (*zipArchive, error) {
	z := &zipArchive{r: r, size: size}
	end, dirOff, dirLen, count, err := z.readEnd()
	if err != nil {
		return nil, err
	}
	if dirLen > maxZipDirectory || count > maxZipEntries {
		return nil, corrupt("", "directory: got %d entries in %d bytes, want at most %d in %d", count, dirLen, maxZipEntries, maxZipDirectory)
	}
	if dirOff > end || end-dirOff != dirLen {
		return nil, corrupt("", "directory: got %d bytes at %d, want them to end at %d", dirLen, dirOff, end)
	}
	// An entry takes at least a header in the directory and one before its data.
	if count > dirLen/zipCentralLen || count > dirOff/zipLocalLen {
		return nil, corrupt("", "directory: got %d entries, more than %d bytes can hold", count, size)
	}
	dir := make([]byte, dirLen)
	if err := z.readFull(dir, dirOff, "directory"); err != nil {
		return nil, err
	}
	if err := z.parseDirectory(dir, count); err != nil {
		return nil, err
	}
	if err := z.checkLayout(dirOff); err != nil {
		return nil, err
	}
	return z, nil
}

// readEnd finds the end record, and the zip64 one before it, and returns where
// the end records start and where the directory is.
func (z *zipArchive) readEnd() (end, dirOff, dirLen, count uint64, err error) {
	fail := func(err error) (uint64, uint64, uint64, uint64, error) { return 0, 0, 0, 0, err }
	if z.size < zipEndLen {
		return fail(corrupt("", "got %d bytes, want a zip archive of at least %d (truncated?)", z.size, zipEndLen))
	}
	var e [zipEndLen]byte
	end = uint64(z.size) - zipEndLen
	if err := z.readFull(e[:], end, "end record"); err != nil {
		return fail(err)
	}
	le := binary.LittleEndian
	if got := le.Uint32(e[0:]); got != zipEndSig {
		return fail(corrupt("", "got no zip end record in the last %d bytes, want one (truncated, or followed by something else)", zipEndLen))
	}
	if le.Uint16(e[4:]) != 0 || le.Uint16(e[6:]) != 0 || le.Uint16(e[20:]) != 0 {
		return fail(corrupt("", "end record: got disk %d of %d and a comment of %d bytes, want 0, 0 and 0", le.Uint16(e[4:]), le.Uint16(e[6:]), le.Uint16(e[20:])))
	}
	here, total := uint64(le.Uint16(e[8:])), uint64(le.Uint16(e[10:]))
	dirLen, dirOff = uint64(le.Uint32(e[12:])), uint64(le.Uint32(e[16:]))
	if here != total {
		return fail(corrupt("", "end record: got %d entries on this disk, want all %d", here, total))
	}
	count = total
	if end < zip64LocatorLen {
		return end, dirOff, dirLen, count, nil
	}
	var l [zip64LocatorLen]byte
	if err := z.readFull(l[:], end-zip64LocatorLen, "zip64 locator"); err != nil {
		return fail(err)
	}
	if le.Uint32(l[0:]) != zip64LocatorSig {
		// The directory must then reach to the end record, which the caller checks.
		return end, dirOff, dirLen, count, nil
	}
	at := le.Uint64(l[8:])
	if le.Uint32(l[4:]) != 0 || le.Uint32(l[16:]) != 1 {
		return fail(corrupt("", "zip64 locator: got disk %d of %d, want 0 of 1", le.Uint32(l[4:]), le.Uint32(l[16:])))
	}
	if end < zip64LocatorLen+zip64EndLen || at != end-zip64LocatorLen-zip64EndLen {
		return fail(corrupt("", "zip64 locator: got end record at %d, want %d", at, int64(end)-zip64LocatorLen-zip64EndLen))
	}
	var e64 [zip64EndLen]byte
	if err := z.readFull(e64[:], at, "zip64 end record"); err != nil {
		return fail(err)
	}
	if le.Uint32(e64[0:]) != zip64EndSig || le.Uint64(e64[4:]) != zip64EndLen-12 {
		return fail(corrupt("", "zip64 end record: got signature %#08x and length %d, want %#08x and %d", le.Uint32(e64[0:]), le.Uint64(e64[4:]), zip64EndSig, zip64EndLen-12))
	}
	switch le.Uint16(e64[12:]) {
	case 0x031e, 0x002d, 0x032d, 0x003f: // miniz, Python and Go, Info-ZIP, 7-Zip
	default:
		return fail(corrupt("", "zip64 end record: got writer %#04x, want a known one", le.Uint16(e64[12:])))
	}
	if le.Uint16(e64[14:]) != 45 {
		return fail(corrupt("", "zip64 end record: got version %d, want 45", le.Uint16(e64[14:])))
	}
	if le.Uint32(e64[16:]) != 0 || le.Uint32(e64[20:]) != 0 || le.Uint64(e64[24:]) != le.Uint64(e64[32:]) {
		return fail(corrupt("", "zip64 end record: got disk %d of %d with %d of %d entries, want one disk with all", le.Uint32(e64[16:]), le.Uint32(e64[20:]), le.Uint64(e64[24:]), le.Uint64(e64[32:])))
	}
	count64, dirLen64, dirOff64 := le.Uint64(e64[32:]), le.Uint64(e64[40:]), le.Uint64(e64[48:])
	for _, f := range []struct {
		name         string
		short, limit uint64
		long         uint64
	}{{"entries", count, 0xffff, count64}, {"directory size", dirLen, 0xffffffff, dirLen64}, {"directory offset", dirOff, 0xffffffff, dirOff64}} {
		if f.short != f.long && f.short != f.limit {
			return fail(corrupt("", "end records disagree on %s: got %d and %d", f.name, f.short, f.long))
		}
	}
	return at, dirOff64, dirLen64, count64, nil
}

func (z *zipArchive) parseDirectory(dir []byte, count uint64) error {
	le := binary.LittleEndian
	z.entries = make([]*zipEntry, 0, count)
	names := make(map[string]struct{}, count)
	for i := range count {
		if len(dir) < zipCentralLen {
			return corrupt("", "directory: got %d entries, want %d", i, count)
		}
		h := dir[:zipCentralLen]
		if got := le.Uint32(h); got != zipCentralSig {
			return corrupt("", "directory entry %d: got signature %#08x, want %#08x", i, got, zipCentralSig)
		}
		e := &zipEntry{
			madeBy: le.Uint16(h[4:]), needed: le.Uint16(h[6:]), flags: le.Uint16(h[8:]), method: le.Uint16(h[10:]),
			time: le.Uint16(h[12:]), date: le.Uint16(h[14:]), crc: le.Uint32(h[16:]),
			packed: uint64(le.Uint32(h[20:])), size: uint64(le.Uint32(h[24:])), header: uint64(le.Uint32(h[42:])),
		}
		nameLen, extraLen, commentLen := int(le.Uint16(h[28:])), int(le.Uint16(h[30:])), int(le.Uint16(h[32:]))
		if len(dir)-zipCentralLen < nameLen+extraLen+commentLen {
			return corrupt("", "directory entry %d: got %d bytes left, want %d", i, len(dir)-zipCentralLen, nameLen+extraLen+commentLen)
		}
		e.name = string(dir[zipCentralLen : zipCentralLen+nameLen])
		extra := dir[zipCentralLen+nameLen : zipCentralLen+nameLen+extraLen]
		dir = dir[zipCentralLen+nameLen+extraLen+commentLen:]
		if err := checkZipName(e.name); err != nil {
			return err
		}
		if _, ok := names[e.name]; ok {
			return corrupt(e.name, "got the name twice, want every name once")
		}
		names[e.name] = struct{}{}
		if commentLen != 0 || le.Uint16(h[34:]) != 0 {
			return corrupt(e.name, "directory: got a comment of %d bytes and disk %d, want 0 and 0", commentLen, le.Uint16(h[34:]))
		}
		if !zipWriterKnown(e.madeBy) || !zipNeededKnown(e.needed) {
			return corrupt(e.name, "directory: got zip versions %#04x and %#04x, want known ones", e.madeBy, e.needed)
		}
		internal, external := le.Uint16(h[36:]), le.Uint32(h[38:])
		if err := checkZipAttributes(e, internal, external); err != nil {
			return err
		}
		if e.flags&^zipFlagsKnown != 0 {
			return corrupt(e.name, "got zip flags %#04x, want at most %#04x (encrypted or patched archives are not supported)", e.flags, zipFlagsKnown)
		}
		if e.method != zipStored && e.method != zipDeflate {
			return corrupt(e.name, "got compression method %d, want 0 (stored) or 8 (deflate)", e.method)
		}
		if err := e.centralExtra(extra); err != nil {
			return err
		}
		if e.method == zipStored && e.size != e.packed {
			return corrupt(e.name, "stored entry: got sizes %d and %d, want equal ones", e.packed, e.size)
		}
		z.entries = append(z.entries, e)
	}
	if len(dir) != 0 {
		return corrupt("", "directory: got %d bytes after the last entry, want none", len(dir))
	}
	return nil
}

func checkZipName(name string) error {
	if name == "" || len(name) > maxZipName || !utf8.ValidString(name) {
		return corrupt("", "got an entry name of %d bytes that is empty, too long or not UTF-8", len(name))
	}
	if strings.ContainsAny(name, "\\\x00\n\r") || name[0] == '/' {
		return corrupt(name, "got an absolute name or one with control characters, want a relative path with /")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." {
			return corrupt(name, "got a path with an empty, . or .. part, want a plain relative path")
		}
	}
	return nil
}

func checkZipAttributes(e *zipEntry, internal uint16, external uint32) error {
	const (
		regular, kind     = 0o100000, 0o170000 // of the Unix mode in the upper half
		directory, volume = 0x10, 0x08
	)
	mode := external >> 16
	ok := internal <= 1 && (mode&kind == regular || mode&kind == 0) && external&(directory|volume) == 0
	if e.madeBy == 0 { // miniz without a clock, that is torch
		ok = internal == 0 && external == 0 && e.time == 0 && e.date == 0
	}
	if !ok {
		return corrupt(e.name, "directory: got attributes %#x and %#x, want a regular file's", internal, external)
	}
	return nil
}

// centralExtra takes sizes and offset of 4 GiB and more from the zip64 field.
func (e *zipEntry) centralExtra(extra []byte) error {
	var want []*uint64
	for _, p := range []*uint64{&e.size, &e.packed, &e.header} {
		if *p == 0xffffffff {
			want = append(want, p)
		}
	}
	return e.eachExtra(extra, func(id uint16, body []byte) error {
		if id != zipExtraZip64 {
			return nil
		}
		if len(body) != 8*len(want) {
			return corrupt(e.name, "directory: got a zip64 field of %d bytes, want %d", len(body), 8*len(want))
		}
		for _, p := range want {
			*p = binary.LittleEndian.Uint64(body)
			body = body[8:]
		}
		want = nil
		return nil
	})
}

func (e *zipEntry) eachExtra(extra []byte, f func(id uint16, body []byte) error) error {
	for len(extra) > 0 {
		if len(extra) < 4 {
			return corrupt(e.name, "got %d stray bytes in an extra field, want 4 or more", len(extra))
		}
		id, n := binary.LittleEndian.Uint16(extra), int(binary.LittleEndian.Uint16(extra[2:]))
		if len(extra)-4 < n {
			return corrupt(e.name, "got an extra field of %d bytes, want at most %d", n, len(extra)-4)
		}
		switch id {
		case zipExtraZip64, zipExtraPadding, 0x5455, 0x7875, 0x000a: // times and owners
		default:
			return corrupt(e.name, "got extra field %#04x, want a known one", id)
		}
		if err := f(id, extra[4:4+n]); err != nil {
			return err
		}
		extra = extra[4+n:]
	}
	return nil
}

// checkLayout compares each local header with the directory, and demands that
// the entries fill the file from byte 0 to the directory without gap or overlap.
func (z *zipArchive) checkLayout(dirOff uint64) error {
	slices.SortStableFunc(z.entries, func(a, b *zipEntry) int {
		switch {
		case a.header < b.header:
			return -1
		case a.header > b.header:
			return 1
		}
		return 0
	})
	var at uint64
	buf := make([]byte, 0, 4096)
	for i, e := range z.entries {
		next := dirOff
		if i+1 < len(z.entries) {
			next = z.entries[i+1].header
		}
		if e.header != at {
			return corrupt(e.name, "got its header at byte %d, want %d (gap, overlap or bytes before the archive)", e.header, at)
		}
		if next < at || next > dirOff || next-at < zipLocalLen {
			return corrupt(e.name, "got room for %d bytes at %d, want a header and %d bytes of data", int64(next)-int64(at), at, e.packed)
		}
		if err := z.checkLocal(e, next, &buf); err != nil {
			return err
		}
		at = next
	}
	if at != dirOff {
		return corrupt("", "got the directory at byte %d, want %d", dirOff, at)
	}
	return nil
}

func (z *zipArchive) checkLocal(e *zipEntry, next uint64, buf *[]byte) error {
	le := binary.LittleEndian
	var h [zipLocalLen]byte
	if err := z.readFull(h[:], e.header, "local header"); err != nil {
		return err
	}
	if got := le.Uint32(h[0:]); got != zipLocalSig {
		return corrupt(e.name, "local header: got signature %#08x, want %#08x", got, zipLocalSig)
	}
	for _, f := range []struct {
		what      string
		got, want uint16
	}{
		{"version", le.Uint16(h[4:]), e.needed},
		{"flags", le.Uint16(h[6:]), e.flags},
		{"compression method", le.Uint16(h[8:]), e.method},
		{"time", le.Uint16(h[10:]), e.time},
		{"date", le.Uint16(h[12:]), e.date},
		{"name length", le.Uint16(h[26:]), uint16(len(e.name))},
	} {
		if f.got != f.want {
			return corrupt(e.name, "local header disagrees with the directory on %s: got %d, want %d", f.what, f.got, f.want)
		}
	}
	extraLen := uint64(le.Uint16(h[28:]))
	e.data = e.header + zipLocalLen + uint64(len(e.name)) + extraLen
	if e.data > next || e.packed > next-e.data {
		return corrupt(e.name, "got %d bytes of data at %d, want them to end by %d (overlap or out of range)", e.packed, e.data, next)
	}
	tail := next - e.data - e.packed
	*buf = append((*buf)[:0], make([]byte, uint64(len(e.name))+extraLen)...)
	if err := z.readFull(*buf, e.header+zipLocalLen, "local header"); err != nil {
		return err
	}
	if got := string((*buf)[:len(e.name)]); got != e.name {
		return corrupt(e.name, "local header disagrees with the directory on the name: got %q", got)
	}
	crc, packed, size := le.Uint32(h[14:]), uint64(le.Uint32(h[18:])), uint64(le.Uint32(h[22:]))
	var zip64 bool
	err := e.eachExtra((*buf)[len(e.name):], func(id uint16, body []byte) error {
		switch id {
		case zipExtraPadding:
			if len(bytes.Trim(body, "Z")) != 0 {
				return corrupt(e.name, "padding: got other bytes than Z, want Z")
			}
		case zipExtraZip64:
			zip64 = true
			// Writers that stream put zeros here, and some put the offset behind.
			if len(body) < 16 {
				return nil
			}
			if size == 0xffffffff {
				size = le.Uint64(body)
			}
			if packed == 0xffffffff {
				packed = le.Uint64(body[8:])
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	same := crc == e.crc && packed == e.packed && size == e.size
	if e.flags&zipFlagDescriptor == 0 {
		if !same || tail != 0 {
			return corrupt(e.name, "local header disagrees with the directory: got checksum %08x, sizes %d and %d, then %d bytes, want %08x, %d, %d and 0",
				crc, packed, size, tail, e.crc, e.packed, e.size)
		}
		return nil
	}
	// With a descriptor after the data the local fields are zero until then.
	zero := crc == 0 && (packed == 0 || zip64) && (size == 0 || zip64)
	if !same && !zero {
		return corrupt(e.name, "local header disagrees with the directory: got checksum %08x, sizes %d and %d, want zeros, or %08x, %d, %d",
			crc, packed, size, e.crc, e.packed, e.size)
	}
	return z.checkDescriptor(e, tail)
}

func (z *zipArchive) checkDescriptor(e *zipEntry, tail uint64) error {
	le := binary.LittleEndian
	// Checksum and two sizes of 4 or 8 bytes, with or without a signature.
	if tail != 12 && tail != 16 && tail != 20 && tail != 24 {
		return corrupt(e.name, "got %d bytes after the data, want a data descriptor of 12 to 24", tail)
	}
	var d [24]byte
	if err := z.readFull(d[:tail], e.data+e.packed, "data descriptor"); err != nil {
		return err
	}
	b := d[:tail]
	if tail == 16 || tail == 24 {
		if got := le.Uint32(b); got != zipDescriptorSig {
			return corrupt(e.name, "data descriptor: got signature %#08x, want %#08x", got, zipDescriptorSig)
		}
		b = b[4:]
	}
	crc := le.Uint32(b)
	var packed, size uint64
	if b = b[4:]; len(b) == 8 {
		packed, size = uint64(le.Uint32(b)), uint64(le.Uint32(b[4:]))
	} else {
		packed, size = le.Uint64(b), le.Uint64(b[8:])
	}
	if crc != e.crc || packed != e.packed || size != e.size {
		return corrupt(e.name, "data descriptor disagrees with the directory: got checksum %08x, sizes %d and %d, want %08x, %d and %d",
			crc, packed, size, e.crc, e.packed, e.size)
	}
	return nil
}

// checkRatios refuses archives that would unpack to far more than they hold.
func (z *zipArchive) checkRatios() error {
	var total uint64
	for _, e := range z.entries {
		if e.method != zipDeflate {
			continue
		}
		if e.size > smallDeflateEntry && e.size/maxDeflateRatio > e.packed {
			return corrupt(e.name, "got %d bytes packed into %d, want at most %d to 1", e.size, e.packed, maxDeflateRatio)
		}
		if total += e.size; total > maxDeflateTotal {
			return corrupt(e.name, "got more than %d bytes in compressed entries, want less", maxDeflateTotal)
		}
	}
	return nil
}

// crcChunk is what one worker checks at a time: large tensors are cut, so that
// a file made of one big tensor is checked by all workers too.
const crcChunk = 8 << 20

// verifyChecksums reads every entry and compares its CRC-32 and size with the
// directory, with a few goroutines for large archives.
func (z *zipArchive) verifyChecksums() error {
	type chunk struct {
		e        *zipEntry
		part     int
		off, len uint64
	}
	var chunks []chunk
	parts := make(map[*zipEntry][]uint32)
	for _, e := range z.entries {
		if e.method == zipDeflate {
			chunks = append(chunks, chunk{e: e})
			continue
		}
		n := int((e.size + crcChunk - 1) / crcChunk)
		parts[e] = make([]uint32, n)
		for i := range n {
			off := uint64(i) * crcChunk
			chunks = append(chunks, chunk{e, i, off, min(crcChunk, e.size-off)})
		}
	}
	workers := 1
	if z.size > crcChunk/2 {
		workers = min(4, runtime.GOMAXPROCS(0))
	}
	var (
		next  atomic.Int64
		stop  atomic.Bool
		errs  = make([]error, len(chunks))
		group sync.WaitGroup
	)
	work := func() {
		var buf []byte
		for !stop.Load() {
			i := int(next.Add(1) - 1)
			if i >= len(chunks) {
				return
			}
			c := chunks[i]
			if c.e.method == zipDeflate {
				errs[i] = z.verifyDeflated(c.e)
			} else {
				if buf == nil {
					buf = make([]byte, min(256<<10, max(1, uint64(z.size))))
				}
				parts[c.e][c.part], errs[i] = z.crcRange(c.e, c.off, c.len, buf)
			}
			if errs[i] != nil {
				stop.Store(true)
			}
		}
	}
	if workers == 1 {
		work()
	} else {
		for range workers {
			group.Go(work)
		}
		group.Wait()
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	for _, e := range z.entries {
		if e.method == zipDeflate {
			continue
		}
		var crc uint32
		for i, p := range parts[e] {
			crc = crcConcat(crc, p, min(crcChunk, e.size-uint64(i)*crcChunk))
		}
		if crc != e.crc {
			return corrupt(e.name, "got checksum %08x, want %08x", crc, e.crc)
		}
	}
	return nil
}

func (z *zipArchive) crcRange(e *zipEntry, off, n uint64, buf []byte) (uint32, error) {
	var crc uint32
	for n > 0 {
		b := buf[:min(n, uint64(len(buf)))]
		if err := z.readFull(b, e.data+off, e.name); err != nil {
			return 0, err
		}
		crc = crc32.Update(crc, crc32.IEEETable, b)
		off += uint64(len(b))
		n -= uint64(len(b))
	}
	return crc, nil
}

// maxKept bounds the unpacked entries that are kept during a check.
const maxKept = 64 << 20

func (z *zipArchive) verifyDeflated(e *zipEntry) error {
	if z.kept.Add(int64(e.size)) > maxKept {
		return z.inflate(e, io.Discard)
	}
	var b bytes.Buffer
	if e.size <= smallDeflateEntry {
		b.Grow(int(e.size) + bytes.MinRead)
	}
	if err := z.inflate(e, &b); err != nil {
		return err
	}
	e.unpacked = b.Bytes()
	return nil
}

// inflate unpacks a deflated entry to w, and checks that its length, checksum
// and last bit are right.
func (z *zipArchive) inflate(e *zipEntry, w io.Writer) error {
	packed := make([]byte, e.packed)
	if err := z.readFull(packed, e.data, e.name); err != nil {
		return err
	}
	crc, err := inflateTo(packed, e.size, w)
	if err != nil {
		return corrupt(e.name, "got data that does not unpack to %d bytes: %v", e.size, err)
	}
	if crc != e.crc {
		return corrupt(e.name, "got checksum %08x, want %08x", crc, e.crc)
	}
	// The stream ends within a byte. The unused bits are not part of the data and
	// no checksum covers them, so that damage there shows only in this way: if the
	// stream means the same without the highest bit that is set, it was unused.
	if n := len(packed); n > 0 && packed[n-1] != 0 {
		top := byte(0x80)
		for packed[n-1]&top == 0 {
			top >>= 1
		}
		packed[n-1] &^= top
		if crc, err := inflateTo(packed, e.size, io.Discard); err == nil && crc == e.crc {
			return corrupt(e.name, "got bits after the end of the compressed data, want zeros")
		}
	}
	return nil
}

type inflater interface {
	io.Reader
	flate.Resetter
}

var inflaters = sync.Pool{New: func() any { return flate.NewReader(bytes.NewReader(nil)) }}

func inflateTo(packed []byte, size uint64, w io.Writer) (uint32, error) {
	f := inflaters.Get().(inflater)
	defer inflaters.Put(f)
	in := bytes.NewReader(packed)
	if err := f.Reset(in, nil); err != nil {
		return 0, err
	}
	sum := crc32.NewIEEE()
	n, err := io.Copy(io.MultiWriter(w, sum), io.LimitReader(f, int64(size)+1))
	switch {
	case err != nil:
		return 0, err
	case uint64(n) != size:
		return 0, fmt.Errorf("got %d bytes or more", n)
	case in.Len() != 0:
		return 0, fmt.Errorf("%d bytes follow the end", in.Len())
	}
	return sum.Sum32(), nil
}

// read returns the content of an entry of at most limit bytes. Its checksum is
// verified once more, because the file may have changed since the check.
func (z *zipArchive) read(e *zipEntry, limit uint64) ([]byte, error) {
	if e.size > limit {
		return nil, corrupt(e.name, "got %d bytes, want at most %d", e.size, limit)
	}
	if e.method == zipDeflate {
		if e.unpacked != nil {
			return e.unpacked, nil
		}
		var b bytes.Buffer
		// Grown as data arrives: the size in the header is not to be trusted alone.
		if err := z.inflate(e, &b); err != nil {
			return nil, err
		}
		return b.Bytes(), nil
	}
	b := make([]byte, e.size)
	if err := z.readFull(b, e.data, e.name); err != nil {
		return nil, err
	}
	if crc := crc32.ChecksumIEEE(b); crc != e.crc {
		return nil, corrupt(e.name, "got checksum %08x, want %08x", crc, e.crc)
	}
	return b, nil
}

// crcConcat returns the CRC-32 of A followed by B, from crc(A), crc(B) and
// len(B), as zlib's crc32_combine does: appending zero bytes to A is a linear
// map over GF(2), applied by repeated squaring.
func crcConcat(a, b uint32, lenB uint64) uint32 {
	if a == 0 || lenB == 0 {
		return a ^ b
	}
	var even, odd [32]uint32
	odd[0] = crc32.IEEE // one zero bit
	for i := 1; i < 32; i++ {
		odd[i] = 1 << (i - 1)
	}
	times := func(m *[32]uint32, v uint32) (r uint32) {
		for i := 0; v != 0; i, v = i+1, v>>1 {
			if v&1 != 0 {
				r ^= m[i]
			}
		}
		return r
	}
	square := func(dst, src *[32]uint32) {
		for i := range dst {
			dst[i] = times(src, src[i])
		}
	}
	square(&even, &odd) // two zero bits
	square(&odd, &even) // four
	for {
		square(&even, &odd)
		if lenB&1 != 0 {
			a = times(&even, a)
		}
		if lenB >>= 1; lenB == 0 {
			break
		}
		square(&odd, &even)
		if lenB&1 != 0 {
			a = times(&odd, a)
		}
		if lenB >>= 1; lenB == 0 {
			break
		}
	}
	return a ^ b
}
