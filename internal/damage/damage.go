// Package damage makes damaged copies of TorchScript files for tests: as a bad disk or a broken download
// leaves them, and as a tool does that changes a record and writes the archive anew with valid checksums.
package damage

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// Case is a damaged file.
type Case struct {
	// Name says what was done.
	Name string
	Data []byte
}

// Bytes yields n copies of a file that differ from it: cut off, empty, random, with bits flipped, blocks
// zeroed, moved, doubled or left out, and with bytes before or after. The same seed gives the same copies.
func Bytes(seed uint64, good []byte, n int) iter.Seq[Case] {
	r := rand.New(rand.NewPCG(seed, 1))
	at := func(n int) int { return r.IntN(max(1, n)) }
	block := func() (from, to int) {
		from = at(len(good))
		return from, min(len(good), from+1+at(1+at(len(good))))
	}
	kinds := []func() (string, []byte){
		func() (string, []byte) { k := at(len(good)); return fmt.Sprintf("cut to %d", k), good[:k] },
		func() (string, []byte) {
			b, i, bit := bytes.Clone(good), at(len(good)), r.IntN(8)
			b[i] ^= 1 << bit
			return fmt.Sprintf("bit %d of byte %d flipped", bit, i), b
		},
		func() (string, []byte) {
			b, k := bytes.Clone(good), 2+at(30)
			for range k {
				b[at(len(b))] ^= byte(1 + at(255))
			}
			return fmt.Sprintf("%d bytes changed", k), b
		},
		func() (string, []byte) {
			b := bytes.Clone(good)
			from, to := block()
			clear(b[from:to])
			return fmt.Sprintf("bytes %d to %d zeroed", from, to), b
		},
		func() (string, []byte) {
			from, to := block()
			return fmt.Sprintf("bytes %d to %d left out", from, to), slices.Concat(good[:from], good[to:])
		},
		func() (string, []byte) {
			from, to := block()
			return fmt.Sprintf("bytes %d to %d doubled", from, to), slices.Concat(good[:to], good[from:])
		},
		func() (string, []byte) {
			b := bytes.Clone(good)
			from, to := block()
			copy(b[at(len(b)):], good[from:to])
			return fmt.Sprintf("bytes %d to %d moved", from, to), b
		},
		func() (string, []byte) {
			k := 1 + at(100)
			return fmt.Sprintf("%d bytes before", k), slices.Concat(random(r, k), good)
		},
		func() (string, []byte) {
			k := 1 + at(100)
			return fmt.Sprintf("%d bytes behind", k), slices.Concat(good, random(r, k))
		},
		func() (string, []byte) { k := at(4096); return fmt.Sprintf("%d random bytes", k), random(r, k) },
		func() (string, []byte) {
			k := at(4096)
			return fmt.Sprintf("%d random bytes like a zip", k), slices.Concat([]byte("PK\x03\x04"), random(r, k))
		},
		func() (string, []byte) { return "empty", nil },
	}
	return func(yield func(Case) bool) {
		for i := 0; i < n; {
			name, data := kinds[i%len(kinds)]()
			if bytes.Equal(data, good) {
				continue
			}
			i++
			if !yield(Case{name, data}) {
				return
			}
		}
	}
}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// Record is a member of the archive, without the top folder in its name.
type Record struct {
	Name string
	Data []byte
}

// Records takes a file apart, in the order of its bytes.
func Records(t testing.TB, file []byte) []Record {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	var out []Record
	for _, f := range z.File {
		rc, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(rc)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(f.Name, "/")
		out = append(out, Record{name, data})
	}
	return out
}

const serializationID = ".data/serialization_id"

// Zip puts records together again, with checksums that are right. Mend also makes the serialization id
// right, in which torch keeps the checksums of all records.
func Zip(t testing.TB, records []Record, mend bool) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	sum := uint64(0)
	for _, r := range records {
		data := r.Data
		switch {
		case r.Name == serializationID && mend:
			data = fmt.Appendf(nil, "%020d%020d", 1, sum)
		case len(data) > 0:
			sum ^= uint64(crc32.ChecksumIEEE(data)) + 0x9e3779b9 + sum<<6 + sum>>2
		}
		f, err := w.CreateHeader(&zip.FileHeader{Name: "model/" + r.Name, Method: zip.Store})
		if err == nil {
			_, err = f.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Rezipped yields n copies of a file in which one record is damaged, renamed or missing, or two are
// exchanged, and all checksums are right; with mend the serialization id too. The damage is of the kind
// that hurts a reader most: opcodes and numbers of the pickles, lines and words of the code.
func Rezipped(t testing.TB, seed uint64, good []byte, n int, mend bool) iter.Seq[Case] {
	t.Helper()
	records := Records(t, good)
	m := &mutator{rand.New(rand.NewPCG(seed, 2))}
	return func(yield func(Case) bool) {
		for i := 0; i < n; {
			name, damaged := m.archive(records)
			if slices.EqualFunc(damaged, records, func(a, b Record) bool { return a.Name == b.Name && bytes.Equal(a.Data, b.Data) }) {
				continue
			}
			i++
			if !yield(Case{name, Zip(t, damaged, mend)}) {
				return
			}
		}
	}
}

type mutator struct{ r *rand.Rand }

func (m *mutator) n(n int) int { return m.r.IntN(max(1, n)) }

func pick[T any](m *mutator, list []T) T { return list[m.r.IntN(len(list))] }

func (m *mutator) archive(records []Record) (string, []Record) {
	out := slices.Clone(records)
	if m.n(8) == 0 {
		return m.structure(out)
	}
	var want func(name string) bool
	var change func([]byte) []byte
	switch m.n(7) {
	case 0, 1, 2:
		want = func(name string) bool { return name == "data.pkl" || name == "constants.pkl" }
		change = pick(m, []func([]byte) []byte{m.opcodes, m.opcodes, m.opcodes, m.bytes, m.chunk})
	case 3:
		want = func(name string) bool { return strings.HasSuffix(name, ".debug_pkl") }
		change = pick(m, []func([]byte) []byte{m.opcodes, m.bytes, m.chunk})
	case 4, 5:
		want = func(name string) bool { return strings.HasSuffix(name, ".py") }
		change = pick(m, []func([]byte) []byte{m.words, m.lines, m.bytes, m.chunk})
	default:
		want = func(name string) bool { return name != serializationID }
		change = pick(m, []func([]byte) []byte{m.bytes, m.chunk})
	}
	var at []int
	for i, r := range out {
		if want(r.Name) && len(r.Data) > 0 {
			at = append(at, i)
		}
	}
	if len(at) == 0 {
		return m.structure(out)
	}
	i := pick(m, at)
	out[i].Data = change(bytes.Clone(out[i].Data))
	return out[i].Name, out
}

func (m *mutator) structure(out []Record) (string, []Record) {
	i, j := m.n(len(out)), m.n(len(out))
	name := out[i].Name
	switch m.n(5) {
	case 0:
		return name + " missing", slices.Delete(out, i, i+1)
	case 1:
		out[i].Data, out[j].Data = out[j].Data, out[i].Data
		return name + " exchanged with " + out[j].Name, out
	case 2:
		out[i].Data = out[i].Data[:m.n(len(out[i].Data))]
		return name + " shortened", out
	case 3:
		out[i].Data = slices.Concat(out[i].Data, make([]byte, 1+m.n(64)))
		return name + " lengthened", out
	}
	out[i].Name = name[:len(name)-1] + string(rune('0'+m.n(10)))
	return name + " renamed", out
}

func (m *mutator) bytes(b []byte) []byte {
	for range 1 + m.n(4) {
		if len(b) == 0 {
			break
		}
		i := m.n(len(b))
		switch m.n(5) {
		case 0:
			b[i] ^= 1 << m.n(8)
		case 1:
			b[i] = byte(m.n(256))
		case 2:
			b = slices.Insert(b, i, byte(m.n(256)))
		case 3:
			b = slices.Delete(b, i, i+1)
		default:
			b[i] = pick(m, []byte("0123456789()[]{},.:=-\n \"_qhXKt)]}(Rbu"))
		}
	}
	return b
}

func (m *mutator) chunk(b []byte) []byte {
	from := m.n(len(b))
	to := min(len(b), from+1+m.n(200))
	switch m.n(4) {
	case 0:
		return slices.Delete(b, from, to)
	case 1:
		return slices.Concat(b[:to], b[from:])
	case 2:
		return b[:from]
	}
	at := m.n(len(b))
	return slices.Concat(b[:at], b[from:to], b[at:])
}

func (m *mutator) lines(b []byte) []byte {
	lines := bytes.SplitAfter(b, []byte("\n"))
	i, j := m.n(len(lines)), m.n(len(lines))
	switch m.n(3) {
	case 0:
		lines = slices.Delete(lines, i, i+1)
	case 1:
		lines = slices.Insert(lines, j, lines[i])
	default:
		lines[i], lines[j] = lines[j], lines[i]
	}
	return bytes.Join(lines, nil)
}

var scriptTypes = []string{"Tensor", "int", "float", "bool", "str", "NoneType", "Any", "number", "complex", "Device", "List[int]", "Optional[Tensor]", "Dict[str, int]"}

// words exchanges, leaves out and doubles words of the code, and puts other types and numbers.
func (m *mutator) words(b []byte) []byte {
	var words []string
	class := func(c byte) int {
		switch {
		case c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			return 1
		case c == ' ':
			return 2
		}
		return 0
	}
	for i := 0; i < len(b); {
		j := i + 1
		for j < len(b) && class(b[i]) != 0 && class(b[j]) == class(b[i]) {
			j++
		}
		words = append(words, string(b[i:j]))
		i = j
	}
	for range 1 + m.n(3) {
		i := m.n(len(words))
		switch m.n(5) {
		case 0:
			words[i] = pick(m, words)
		case 1:
			words[i] = ""
		case 2:
			words = slices.Insert(words, i, pick(m, words))
		case 3:
			words[i] = pick(m, scriptTypes)
		default:
			words[i] = fmt.Sprint(pick(m, numbers))
		}
	}
	return []byte(strings.Join(words, ""))
}

var numbers = []int64{0, 1, -1, 3, 7, 255, 256, 65535, 65536, 1 << 31, -1 << 31, 1 << 40, math.MaxInt64, math.MinInt64}

func pickleInt(v int64) []byte {
	switch {
	case v >= 0 && v < 1<<8:
		return []byte{'K', byte(v)}
	case v >= 0 && v < 1<<16:
		return binary.LittleEndian.AppendUint16([]byte{'M'}, uint16(v))
	case v >= math.MinInt32 && v <= math.MaxInt32:
		return binary.LittleEndian.AppendUint32([]byte{'J'}, uint32(v))
	}
	return binary.LittleEndian.AppendUint64([]byte{0x8a, 8}, uint64(v))
}

// split cuts a pickle into its opcodes with their arguments.
func split(b []byte) (ops [][]byte) {
	for len(b) > 0 {
		n := 1
		switch b[0] {
		case 0x80, 'K', 'q', 'h':
			n = 2
		case 'M':
			n = 3
		case 'J', 'r', 'j':
			n = 5
		case 'G':
			n = 9
		case 0x8a:
			n = 10
		case 'X':
			if len(b) >= 5 {
				n = 5 + int(binary.LittleEndian.Uint32(b[1:]))
			}
		case 'c':
			for k := 0; k < 2; n++ {
				if n >= len(b) || b[n] == '\n' {
					k++
				}
			}
		}
		if n > len(b) || n < 1 {
			n = len(b)
		}
		ops, b = append(ops, b[:n]), b[n:]
	}
	return ops
}

// opcodes leaves out, doubles and exchanges opcodes, and changes numbers, memo entries, constants and names.
func (m *mutator) opcodes(b []byte) []byte {
	ops := split(b)
	of := func(codes string) (int, bool) {
		var at []int
		for i, op := range ops {
			if i > 0 && strings.IndexByte(codes, op[0]) >= 0 {
				at = append(at, i)
			}
		}
		if len(at) == 0 {
			return 0, false
		}
		return pick(m, at), true
	}
	for range 1 + m.n(3) {
		if len(ops) < 2 {
			break
		}
		i, j := 1+m.n(len(ops)-1), 1+m.n(len(ops)-1)
		switch m.n(8) {
		case 0:
			ops = slices.Delete(ops, i, i+1)
		case 1:
			ops = slices.Insert(ops, j, ops[i])
		case 2:
			ops[i], ops[j] = ops[j], ops[i]
		case 3:
			if k, ok := of("KMJ\x8a"); ok {
				ops[k] = pickleInt(pick(m, numbers))
			}
		case 4:
			if k, ok := of("h"); ok {
				ops[k] = []byte{'h', byte(m.n(256))}
			}
		case 5:
			if k, ok := of("N\x88\x89KGM"); ok {
				ops[k] = pick(m, [][]byte{{'N'}, {0x88}, {0x89}, {')'}, {']'}, {'}'}, []byte("X\x01\x00\x00\x00a"), []byte("G\x7f\xf8\x00\x00\x00\x00\x00\x00")})
			}
		case 6:
			if k, ok := of("cX"); ok {
				l, _ := of("cX")
				ops[k] = ops[l]
			}
		default:
			if k, ok := of("q"); ok {
				ops[k] = pick(m, [][]byte{nil, {'q', byte(m.n(256))}, []byte("r\xff\xff\xff\xff"), []byte("r\x00\x00\x10\x00")})
				if len(ops[k]) == 0 {
					ops = slices.Delete(ops, k, k+1)
				}
			}
		}
	}
	return bytes.Join(ops, nil)
}
