package jit_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/damage"
	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch/jit"
)

// modules returns the small TorchScript files in testdata.
func modules(t testing.TB) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(testmain.Root(t), "testdata", "modules", "*.pt"))
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	files := make(map[string][]byte)
	for _, path := range paths {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		files[filepath.Base(path)] = b
	}
	return files
}

// refused checks that a file is refused, with one line.
func refused(t testing.TB, data []byte, name string) error {
	t.Helper()
	a, err := jit.CheckBytes(data)
	if err == nil {
		t.Fatalf("%s: the check let it pass", name)
	}
	if a != nil || strings.Contains(err.Error(), "\n") {
		t.Fatalf("%s: got an archive with an error, or an error of several lines: %v", name, err)
	}
	if !errors.Is(err, jit.ErrCorrupt) && !errors.Is(err, jit.ErrNotTorchScript) {
		t.Fatalf("%s: got an error of neither kind: %v", name, err)
	}
	return err
}

func TestCheckArchiveAcceptsWhatTorchWrites(t *testing.T) {
	for name, data := range modules(t) {
		a, err := jit.CheckBytes(data)
		require.NoError(t, err, name)
		assert.Equal(t, int64(len(data)), a.Size())
		assert.GreaterOrEqual(t, a.Version(), 3)
		assert.NotEmpty(t, a.Name())
		require.NoError(t, a.Close())
	}
}

// oddModule has attributes of every type that a module can keep.
const oddModule = `
import enum, sys, warnings
from typing import Dict, List, NamedTuple, Optional, Tuple, Union
import torch
from torch import nn
warnings.filterwarnings("ignore")
out = sys.argv[1]
class Color(enum.Enum):
    RED = "r"
    BLUE = "b"
class Level(enum.Enum):
    LOW = -1.5
    HIGH = 2.0
class Pair(NamedTuple):
    x: torch.Tensor
    n: int
@torch.jit.interface
class Head(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pass
class Add(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1
@torch.jit.script
class Plain:
    def __init__(self, a: int):
        self.a = a
        self.s = "q"
    def get(self) -> int:
        return self.a
class State(nn.Module):
    def __init__(self):
        super().__init__()
        self.z = torch.ones(2)
    def forward(self, x):
        return x * self.z
    @torch.jit.export
    def __getstate__(self) -> Tuple[torch.Tensor, bool]:
        return (self.z, self.training)
    @torch.jit.export
    def __setstate__(self, s: Tuple[torch.Tensor, bool]) -> None:
        self.z = s[0]
        self.training = s[1]
class Odd(nn.Module):
    head: Head
    either: Union[int, str]
    deep: Optional[Dict[str, List[Tuple[int, float]]]]
    def __init__(self):
        super().__init__()
        self.head, self.color, self.level, self.device, self.complex, self.either = Add(), Color.RED, Level.LOW, torch.device("cpu"), 1 + 2j, 3
        self.pair, self.tensors = Pair(torch.ones(1), 3), torch.jit.annotate(Dict[int, torch.Tensor], {1: torch.zeros(3)})
        self.deep, self.big, self.negative, self.nan = {"k": [(1, 2.5)]}, 1 << 40, -5, float("nan")
        self.state, self.none = State(), None
        self.empty: List[torch.Tensor] = []
        self.flags: List[bool] = [True]
        self.nested: List[List[int]] = [[1], [2, 3]]
        self.unit, self.scalar, self.hollow = (), torch.tensor(3.5), torch.empty(0, 4)
        self.half, self.bf, self.bools, self.cplx = torch.ones(2).half(), torch.ones(2).bfloat16(), torch.tensor([True]), torch.ones(2, dtype=torch.complex64)
        self.view = torch.arange(12.0).view(3, 4).t()[1:3]
        self.shared, self.expanded = self.view[0], torch.ones(1).expand(5)
        self.text, self.plain, self.dtype = "é\n\"q'", Plain(3), torch.float32
        self.register_parameter("no_parameter", None)
        self.register_buffer("buffer", torch.ones(1), persistent=False)
        self.parameters_by_name = nn.ParameterDict({"a b": nn.Parameter(torch.ones(1))})
        self.modules_by_name = nn.ModuleDict({"x y": Add(), "\u00e9": Add()})
        self.lstm = nn.LSTM(2, 2)
    def forward(self, x: torch.Tensor) -> Tuple[torch.Tensor, int]:
        if self.color == Color.RED and self.level == Level.LOW:
            x = x + self.pair[0]
        return self.head(x) + self.tensors[1].sum() + self.state(self.half.float()).sum(), self.pair[1] + self.plain.get()
m = torch.jit.script(Odd())
torch.jit.save(m, out + "/odd.pt", _extra_files={"a.txt": b"hello", "dir/b.bin": b"\x00\xff", "empty": b""})
torch.jit.trace(nn.Sequential(nn.Linear(4, 4), nn.GELU()).eval(), torch.randn(1, 4)).save(out + "/traced.pt")
torch.jit.freeze(torch.jit.script(nn.TransformerEncoderLayer(8, 2).eval())).save(out + "/frozen.pt")
torch.jit.script(torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 8)), {nn.Linear})).save(out + "/quantized.pt")
class Code(nn.Module):
    __constants__ = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = -1, -1e-05, -float("inf"), float("nan")
        self.e, self.f = "a % b - c(d) \" ' ; \n \\ " + "x" * 99, ("it's", -2, (3.5e-12, -4e+20))
        self.g, self.h, self.i, self.j = [1, -2], torch.device("cuda:0"), None, ("a - b", "c * d(e)")
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        waiting = torch.jit.fork(torch.neg, x)
        if self.e == self.j[0] or self.f[0] == self.j[1]:
            x = x + self.f[1]
        return torch.jit.wait(waiting) + x * self.a + self.b + self.c + self.d + self.g[1] + self.f[2][1]
def after(self, x: Tuple[torch.Tensor], y: torch.Tensor) -> torch.Tensor:
    return y + 1
def before(self, x: Tuple[torch.Tensor]) -> Tuple[torch.Tensor]:
    return (x[0] * 2,)
code = Code()
code.register_forward_hook(after)
code.register_forward_pre_hook(before)
torch.jit.script(code).save(out + "/code.pt")
lin = nn.Sequential(nn.Linear(2, 2))
torch.save(lin.state_dict(), out + "/state.pth")
torch.save(lin, out + "/module.pth")
torch.save(lin.state_dict(), out + "/legacy.pth", _use_new_zipfile_serialization=False)
torch.export.save(torch.export.export(lin, (torch.randn(1, 2),)), out + "/exported.pt2")
`

func TestAgainstPython(t *testing.T) {
	dir := t.TempDir()
	// TorchScript wants to see its source in a file.
	script := filepath.Join(dir, "odd.py")
	require.NoError(t, os.WriteFile(script, []byte(oddModule), 0o600))
	got, err := exec.Command(testmain.Python(t), script, dir).CombinedOutput()
	require.NoError(t, err, "%s", got)

	a, err := jit.OpenArchive(filepath.Join(dir, "odd.pt"))
	require.NoError(t, err)
	assert.Equal(t, "odd", a.Name())
	assert.Equal(t, []string{"a.txt", "dir/b.bin", "empty"}, a.ExtraFiles())
	for name, want := range map[string]string{"a.txt": "hello", "dir/b.bin": "\x00\xff", "empty": ""} {
		b, err := a.ReadExtra(name)
		require.NoError(t, err)
		assert.Equal(t, want, string(b))
	}
	_, err = a.ReadExtra("none")
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, a.Close())
	require.NoError(t, a.Close(), "twice")
	require.NoError(t, (*jit.Archive)(nil).Close())

	for _, name := range []string{"traced.pt", "frozen.pt", "quantized.pt", "code.pt"} {
		a, err := jit.OpenArchive(filepath.Join(dir, name))
		require.NoError(t, err, name)
		assert.Empty(t, a.ExtraFiles())
		require.NoError(t, a.Close())
	}
	for name, want := range map[string]string{
		"state.pth":    "a file of torch.save (a state dict or checkpoint)",
		"module.pth":   "a module pickled by torch.save(model)",
		"legacy.pth":   "torch.save in its old format",
		"exported.pt2": "a program of torch.export (.pt2)",
	} {
		_, err := jit.OpenArchive(filepath.Join(dir, name))
		require.ErrorIs(t, err, jit.ErrNotTorchScript, name)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "torch.jit.script(model).save(path)")
	}

	// Every module of the test can also be damaged: one bit at a time.
	for _, name := range []string{"traced.pt", "odd.pt"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		everyByte(t, name, data)
	}
}

// whole fails unless a damaged file is refused, or has the same records with the same bytes after all: a
// bit of compressed text may be changed so that it points to an equal word elsewhere.
func whole(t *testing.T, data []byte, want []damage.Record, name string) (passed int) {
	t.Helper()
	if _, err := jit.CheckBytes(data); err != nil {
		refused(t, data, name)
		return 0
	}
	if !slices.EqualFunc(want, damage.Records(t, data), func(a, b damage.Record) bool { return a.Name == b.Name && bytes.Equal(a.Data, b.Data) }) {
		t.Fatalf("%s: the check let it pass", name)
	}
	return 1
}

// everyByte flips one bit in bytes all over a file, in all of them where it is small.
func everyByte(t *testing.T, name string, good []byte) {
	t.Helper()
	data, want, passed := bytes.Clone(good), damage.Records(t, good), 0
	step := 1 + len(good)/2000
	for i := 0; i < len(data); i += step {
		bit := byte(1) << (i * 5 % 8)
		data[i] ^= bit
		passed += whole(t, data, want, fmt.Sprintf("%s, byte %d, bit %#02x", name, i, bit))
		data[i] ^= bit
	}
	assert.LessOrEqual(t, passed, 2, name)
}

// TestEveryBitCounts flips bits of small files, one at a time, in one file every one, and cuts that at every
// length: no such file may pass with other contents than the file had.
func TestEveryBitCounts(t *testing.T) {
	for name, good := range modules(t) {
		if name != "identity.pt" {
			if !testing.Short() {
				everyByte(t, name, good)
			}
			continue
		}
		data, want := bytes.Clone(good), damage.Records(t, good)
		for i := range data {
			for bit := byte(1); bit != 0; bit <<= 1 {
				data[i] ^= bit
				whole(t, data, want, fmt.Sprintf("%s, byte %d, bit %#02x", name, i, bit))
				data[i] ^= bit
			}
			refused(t, good[:i], fmt.Sprintf("%s cut to %d", name, i))
		}
	}
}

func TestDamagedFiles(t *testing.T) {
	for name, good := range modules(t) {
		want := damage.Records(t, good)
		for c := range damage.Bytes(7, good, 60) {
			whole(t, c.Data, want, name+", "+c.Name)
		}
	}
}

// TestRezippedFiles: a record is damaged and the archive written again with valid checksums. The fingerprint
// that torch keeps in the file finds it.
func TestRezippedFiles(t *testing.T) {
	for name, good := range modules(t) {
		_, err := jit.CheckBytes(damage.Zip(t, damage.Records(t, good), false))
		require.NoError(t, err, "%s: an archive that another tool wrote, unchanged, is whole", name)
		passed := 0
		for c := range damage.Rezipped(t, 7, good, 60, false) {
			a, err := jit.CheckBytes(c.Data)
			if err != nil {
				require.True(t, errors.Is(err, jit.ErrCorrupt) || errors.Is(err, jit.ErrNotTorchScript), "%s, %s: %v", name, c.Name, err)
				continue
			}
			// Names are not part of the fingerprint: a source may be renamed, which libtorch finds out.
			assert.Contains(t, c.Name, "renamed", name)
			assert.NotNil(t, a)
			passed++
		}
		assert.LessOrEqual(t, passed, 3, name)
	}
}

// --- archives made by hand ---

func short(s string) string {
	return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
}

func integer(v int64) string {
	return "\x8a\x08" + string(binary.LittleEndian.AppendUint64(nil, uint64(v)))
}

func tuple(items ...string) string { return "(" + strings.Join(items, "") + "t" }

func ints(v ...int64) string {
	items := make([]string, len(v))
	for i := range v {
		items[i] = integer(v[i])
	}
	return tuple(items...)
}

func storage(class, key, device string, numel int64) string {
	return tuple(short("storage"), "ctorch\n"+class+"\n", short(key), short(device), integer(numel)) + "Q"
}

const hooks = "ccollections\nOrderedDict\n)R"

func tensor(storage string, offset int64, sizes, strides, grad string) string {
	return "ctorch._utils\n_rebuild_tensor_v2\n" + tuple(storage, integer(offset), sizes, strides, grad, hooks) + "R"
}

const (
	yes = "\x88"
	no  = "\x89"
)

// six is a tensor of six float32 that fits its record.
var six = tensor(storage("FloatStorage", "0", "cpu", 6), 0, ints(2, 3), ints(3, 1), yes)

func object(class string, attributes ...string) string {
	return "c__torch__\n" + class + "\n)\x81}(" + strings.Join(attributes, "") + "ub"
}

func pickle(value string) string { return "\x80\x02" + value + "." }

const handCode = `class M(Module):
  __parameters__ = ["w", ]
  __buffers__ = []
  w : Tensor
  n : int
  o : Optional[List[int]]
  k : Final[int] = 3
  __annotations__["0"] = Dict[str, Tensor]
  def forward(self: __torch__.M,
    x: Tensor) -> Tensor:
    return torch.add(x, (self).w, alpha=1)
class C(Enum):
  RED = 1
  BLUE = "b"
class P(NamedTuple):
  x : int
`

func attributes(w string) []string {
	return []string{short("w"), w, short("n"), integer(3), short("o"), "N", short("0"), "}"}
}

// hand returns the records of a small valid archive.
func hand() []damage.Record {
	return []damage.Record{
		{Name: "data/0", Data: make([]byte, 24)},
		{Name: "data.pkl", Data: []byte(pickle(object("M", attributes(six)...)))},
		{Name: "code/__torch__.py", Data: []byte(handCode)},
		{Name: "code/__torch__.py.debug_pkl", Data: []byte(pickle(debugTable(short("line one\n"), ints(0), tuple(integer(5), debugRange(0, 8), integer(0)))))},
		{Name: "constants.pkl", Data: []byte(pickle(")"))},
		{Name: "version", Data: []byte("3\n")},
		{Name: "byteorder", Data: []byte("little")},
		{Name: ".data/serialization_id"},
	}
}

func debugTable(texts, _ string, rows ...string) string {
	return tuple(short("FORMAT_WITH_STRING_TABLE"), tuple(short(""), texts), tuple(rows...))
}

func debugRange(start, end int64) string { return debugRangeOf(integer(1), start, end) }

func debugRangeOf(line string, start, end int64) string {
	lines := "ctorch.jit._pickle\nbuild_intlist\n(](" + line + "etR"
	return tuple(tuple(lines, integer(0), integer(12)), integer(start), integer(end))
}

// with replaces, adds (new name) or removes (nil) a record.
func with(name string, data any) []damage.Record {
	records := hand()
	i := slices.IndexFunc(records, func(r damage.Record) bool { return r.Name == name })
	if data == nil {
		return slices.Delete(records, i, i+1)
	}
	var b []byte
	switch d := data.(type) {
	case string:
		b = []byte(d)
	case []byte:
		b = d
	}
	if i >= 0 {
		records[i].Data = b
		return records
	}
	return slices.Insert(records, len(records)-1, damage.Record{Name: name, Data: b})
}

func TestHandMadeArchive(t *testing.T) {
	a, err := jit.CheckBytes(damage.Zip(t, hand(), true))
	require.NoError(t, err)
	assert.Equal(t, 3, a.Version())
	// Without the fingerprint, as torch wrote before 2.1.
	_, err = jit.CheckBytes(damage.Zip(t, slices.Delete(hand(), 6, 8), true))
	require.NoError(t, err)
	// A tool may add extra files behind a finished archive.
	_, err = jit.CheckBytes(damage.Zip(t, append(hand(), damage.Record{Name: "extra/late.json", Data: []byte("{}")}), true))
	require.NoError(t, err)
}

func TestDamageWithinPickles(t *testing.T) {
	module := func(w string) string { return pickle(object("M", attributes(w)...)) }
	float := func(numel int64) string { return storage("FloatStorage", "0", "cpu", numel) }
	set := func(i int, value string) string {
		a := attributes(six)
		a[i] = value
		return pickle(object("M", a...))
	}
	deep := strings.Repeat("(", 0) + ")" + strings.Repeat("\x85", 300)
	for _, c := range []struct{ name, pkl, want string }{
		{"empty", "", "want a pickle of protocol 2"},
		{"protocol", "\x80\x04.", "want a pickle of protocol 2"},
		{"no value", "\x80\x02.", "got 0 values and 0 open marks"},
		{"two values", pickle("NN"), "got 2 values"},
		{"open mark", pickle("N("), "1 open marks"},
		{"trailing", module(six) + "N", "1 bytes after the end"},
		{"cut", module(six)[:100], "truncated"},
		{"opcode", pickle("cos\nsystem\n"), "got global os.system"},
		{"unknown opcode", pickle("i"), "opcode 0x69"},
		{"old opcodes", pickle("(l"), "opcode 0x6c"},
		{"global name", pickle("c__torch__\nM N\n"), "want Python names"},
		{"global end", pickle("c__torch__"), "name without end"},
		{"unknown class", pickle(object("Other")), "class __torch__.Other, which no source"},
		{"function", pickle("ctorch._utils\n_rebuild_parameter\n"), "which TorchScript does not use"},
		{"sparse", pickle("ctorch._utils\n_rebuild_sparse_tensor\n"), "sparse tensor"},
		{"no module", pickle("N"), "want a module"},
		{"enum as module", pickle("c__torch__\nC\nK\x01R"), "want a module"},
		{"named tuple as object", pickle(object("P", short("x"), integer(1))), "which is a NamedTuple"},
		{"integer length", pickle("\x8a\x04\x00\x00\x00\x00\x00\x00\x00\x00"), "got an integer of 4 bytes"},
		{"string length", pickle("X\xff\xff\xff\x7fabc"), "got a string of 2147483647 bytes"},
		{"not UTF-8", pickle(short("\xff\xfe")), "not UTF-8"},
		{"depth", pickle(deep), "nested deeper than 200"},
		{"marks", pickle(strings.Repeat("(", 2000)), "more than 1000 marks"},
		{"opcodes", pickle("(" + strings.Repeat("N", 5<<20) + "t"), "more than 4194304 opcodes"},
		{"tuple", pickle("\x87"), "TUPLE3: got 0 values"},
		{"tuple over mark", pickle("N(\x85"), "TUPLE1: got 0 values"},
		{"no mark", pickle("]e"), "APPENDS: got no mark"},
		{"append to int", pickle("K\x01(Ne"), "got a int, want a new list"},
		{"append nothing", pickle("(Ne"), "got nothing to fill"},
		{"odd dict", pickle("}(" + short("a") + "u"), "got 1 values, want pairs"},
		{"dict key", pickle("}(]Nu"), "got a list as key"},
		{"dict key twice", pickle("}(K\x01NK\x01Nu"), "got key 1 twice"},
		{"cycle", pickle("]q\x00(h\x00e"), "got a list, want a new list"},
		{"memo hole", pickle("Nr\xff\xff\xff\x7f"), "got memo entry 2147483647, want 0"},
		{"memo huge", pickle("Nr\xff\xff\xff\xff"), "memo entry 4294967295"},
		{"memo of nothing", pickle("q\x00"), "nothing to remember"},
		{"memo missing", pickle("h\x05"), "got memo entry 5, want one below 0"},
		{"reduce", pickle("K\x00)R"), "REDUCE: got a int, want a function"},
		{"reduce nothing", pickle("R"), "REDUCE: got an empty stack"},
		{"new object of a function", pickle("ccollections\nOrderedDict\n)\x81"), "want a class and an empty tuple"},
		{"build", pickle("K\x00}b"), "want a new object"},
		{"unfinished object", pickle("c__torch__\nM\n)\x81\x85"), "unfinished object"},
		{"unfinished object at the end", pickle("c__torch__\nM\n)\x81"), "want a value"},
		{"enum value", set(7, "}("+short("a")+"c__torch__\nC\n]Ru"), "enum __torch__.C: got"},
		{"enum of class", pickle("c__torch__\nM\nK\x01R"), "want an Enum class"},
		{"state", pickle("c__torch__\nM\n)\x81Nb"), "want a dict"},
		{"attribute missing", pickle(object("M", attributes(six)[2:]...)), "got 3 attributes, want 4"},
		{"attribute unknown", set(0, short("v")), `got attribute "v"`},
		{"attribute twice", set(2, short("w")), `got key "w" twice`},
		{"attribute type", set(1, integer(7)), "w: got 7, want Tensor"},
		{"attribute int", set(3, "N"), "n: got a None, want int"},
		{"attribute element", set(5, "](K\x01"+short("x")+"e"), `o[1]: got "x", want int`},
		{"attribute dict", set(7, "}("+short("a")+"Nu"), `0["a"]: got a None, want Tensor`},
		{"attribute storage", set(1, storage("FloatStorage", "0", "cpu", 6)), "got a storage, want a value"},
		{"int list", set(5, "ctorch.jit._pickle\nbuild_intlist\n(](Netr"), "memo"},
		{"int list of None", set(5, "ctorch.jit._pickle\nbuild_intlist\n(](NetR"), "[0]: got a None, want int"},
		{"unknown list", set(5, "ctorch.jit._pickle\nbuild_strlist\n"), "which TorchScript does not use"},
		{"type tag", set(5, "ctorch.jit._pickle\nrestore_type_tag\n]"+short("List[")+"\x86R"), "want a TorchScript type"},
		{"type tag of int", set(5, "ctorch.jit._pickle\nrestore_type_tag\n]"+short("int")+"\x86R"), "want List or Dict"},
		{"type tag mismatch", set(5, "ctorch.jit._pickle\nrestore_type_tag\n](K\x01e"+short("List[str]")+"\x86R"), "[0]: got 1, want str"},
		{"complex", pickle("cbuiltins\ncomplex\nK\x01K\x02\x86R"), "want two floats"},
		{"device", pickle("ctorch\ndevice\n" + short("gpu") + "\x85R"), "want the name of a device"},

		{"storage kind", module(strings.Replace(six, short("storage"), short("stora6e"), 1)), "want \"storage\""},
		{"storage class", module(strings.Replace(six, "FloatStorage", "OtherStorage", 1)), "which TorchScript does not use"},
		{"storage class of another width", module(strings.Replace(six, "FloatStorage", "DoubleStorage", 1)), "data/0: got 24 bytes, want 48"},
		{"storage key", module(tensor(storage("FloatStorage", "1", "cpu", 6), 0, ints(6), ints(1), no)), `got key "1", want "0"`},
		{"storage path", module(tensor(storage("FloatStorage", "../0", "cpu", 6), 0, ints(6), ints(1), no)), `got key "../0"`},
		{"storage device", module(tensor(storage("FloatStorage", "0", "tpu:x", 6), 0, ints(6), ints(1), no)), `got device "tpu:x"`},
		{"storage too short", module(tensor(float(7), 0, ints(7), ints(1), no)), "data/0: got 24 bytes, want 28"},
		{"storage too long", module(tensor(float(5), 0, ints(5), ints(1), no)), "data/0: got 24 bytes, want 20"},
		{"storage negative", module(tensor(float(-1), 0, ints(0), ints(1), no)), "got -1 elements"},
		{"storage huge", module(tensor(float(math.MaxInt64), 0, ints(1), ints(1), no)), "want a count"},
		{"offset", module(tensor(float(6), 1, ints(6), ints(1), no)), "reach element 6, want less than the 6"},
		{"offset negative", module(tensor(float(6), -1, ints(1), ints(1), no)), "got offset -1"},
		{"stride", module(tensor(float(6), 0, ints(2, 3), ints(4, 1), no)), "reach element 6"},
		{"stride negative", module(tensor(float(6), 5, ints(6), ints(-1), no)), "stride -1"},
		{"stride huge", module(tensor(float(6), 0, ints(3, 3), ints(math.MaxInt64, math.MaxInt64), no)), "beyond 2^63"},
		{"size negative", module(tensor(float(6), 0, ints(-2), ints(1), no)), "got size -2"},
		{"size huge", module(tensor(float(6), 0, ints(math.MaxInt64, 4), ints(0, 0), no)), "more than 2^63"},
		{"sizes without strides", module(tensor(float(6), 0, ints(2, 3), ints(1), no)), "got 2 sizes and 1 strides"},
		{"sizes of floats", module(tensor(float(6), 0, tuple("N"), ints(1), no)), "size a None"},
		{"dimensions", module(tensor(float(6), 0, ints(make([]int64, 65)...), ints(make([]int64, 65)...), no)), "got 65 sizes"},
		{"requires_grad", module(tensor(float(6), 0, ints(6), ints(1), "K\x01")), "want requires_grad"},
		{"requires_grad of integers", module(tensor(storage("IntStorage", "0", "cpu", 6), 0, ints(6), ints(1), yes)), "requires_grad on type Int"},
		{"arguments", module("ctorch._utils\n_rebuild_tensor_v2\n(tR"), "got 0 arguments, want 6"},
		{"quantized storage", module(tensor(storage("QInt8Storage", "0", "cpu", 24), 0, ints(24), ints(1), no)), "without quantization"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := refused(t, damage.Zip(t, with("data.pkl", c.pkl), true), c.name)
			require.ErrorIs(t, err, jit.ErrCorrupt)
			require.ErrorContains(t, err, c.want)
			_ = refused(t, damage.Zip(t, with("constants.pkl", c.pkl), true), c.name)
		})
	}
	for name, c := range map[string]struct{ pkl, want string }{
		"constants are no tuple": {pickle("]"), "want a tuple"},
		"a function":             {pickle("ccollections\nOrderedDict\n\x85"), "want a value"},
	} {
		err := refused(t, damage.Zip(t, with("constants.pkl", c.pkl), true), name)
		require.ErrorContains(t, err, c.want)
	}
	// Shared values nested in each other: 2^100 paths, 100 nodes.
	var shared strings.Builder
	shared.WriteString("c__torch__\nM\n)\x81}(" + short("w") + six + short("n") + integer(3) + short("o") + "N" + short("0") + "N" + ")")
	for i := range 100 {
		shared.WriteString(fmt.Sprintf("q%ch%c\x86", i, i))
	}
	_ = refused(t, damage.Zip(t, with("data.pkl", pickle(shared.String())), true), "shared")
	_, err := jit.CheckBytes(damage.Zip(t, with("constants.pkl", pickle(shared.String()[strings.Index(shared.String(), ")q"):]+"\x85")), true))
	require.NoError(t, err, "sharing is fine, and quick")
}

func TestDamageWithinCode(t *testing.T) {
	replace := func(old, replacement string) string {
		require.Contains(t, handCode, old)
		return strings.Replace(handCode, old, replacement, 1)
	}
	for _, c := range []struct{ name, code, want string }{
		{"not UTF-8", "# \xff", "not UTF-8"},
		{"zero byte", replace("return", "\x00eturn"), "got byte 0x00"},
		{"carriage return", replace("\n", "\r\n"), "got byte 0x0d"},
		{"letter", replace("return", "rétürn"), "outside of a string"},
		{"bracket", replace("(self).w", "(self.w"), "brackets left open"},
		{"closing bracket", replace("(self).w", "self).w)"), "without its opening bracket"},
		{"crossed brackets", replace("(self).w", "([self)]"), "without its opening bracket"},
		{"deep", replace("(self).w", strings.Repeat("(", 200)+"x"+strings.Repeat(")", 200)), "nested deeper than 100"},
		{"operators", replace("(self).w", strings.Repeat("-", 1000)+"x"), "more than 400 operators"},
		{"words", replace("(self).w", strings.Repeat("not ", 1000)+"x"), "more than 400 operators"},
		{"indentation", replace("    return", strings.Repeat(" ", 300)+"return"), "indentation of more than"},
		{"string", replace("alpha=1", "alpha=\"1"), "string without end"},
		{"class twice", handCode + handCode, "got class __torch__.M twice"},
		{"class header", replace("class M(Module):", "class M(Module)"), "want a class"},
		{"class name", replace("class M(Module):", "class M!(Module):"), "want a class"},
		{"attribute twice", replace("  n : int\n", "  n : int\n  n : int\n"), `got attribute "n" twice`},
		{"attribute type", replace("  n : int\n", "  n : List[\n  ]\n"), "want a TorchScript type"},
		{"attribute unknown type", replace("  n : int\n", "  n : int[int]\n"), "has 1 arguments, not 0"},
		{"constant without value", replace("  k : Final[int] = 3", "  k : Final[int]"), "which TorchScript does not write"},
		{"statement", replace("  n : int", "  n = 3"), "which TorchScript does not write"},
		{"annotation in enum", replace("  RED = 1", "  RED : int"), "which TorchScript does not write"},
		{"method in enum", replace("  RED = 1", "  def f(self) -> int:"), "which TorchScript does not write"},
		{"empty index", replace("Optional[List[int]]", "Optional[]"), "got an empty index"},
		{"parameter type", replace("x: Tensor", "x: List[Tensor"+"]["+"int]"), "want a TorchScript type"},
		{"parameter without type", replace("x: Tensor", "x"), "want a name and a type"},
		{"result type", replace("-> Tensor:", "-> Dict[int]:"), "Dict has 1 arguments, not 2"},
		{"result missing", replace(" -> Tensor:", ":"), "want -> and the type"},
		{"function name", replace("def forward(", "def 1("), "want a function"},
		{"cast", replace("return torch", "y = annotate(List, x)\n    return torch"), "List has 0 arguments"},
		{"cast of nothing", replace("return torch", "y = uninitialized()\n    return torch"), "a cast without a type"},
		{"variable", replace("return torch", "y : Optional[int, int] = 3\n    return torch"), "Optional has 2 arguments"},
		{"constant that is computed", replace("Final[int] = 3", "Final[int] = 3 % 0"), "which TorchScript does not write"},
		{"constant that is a sum", replace("Final[int] = 3", "Final[int] = 3 - 1"), "which TorchScript does not write"},
		{"constant that is a call", replace("Final[int] = 3", "Final[int] = __torch__.f(3)"), "which TorchScript does not write"},
		{"hook", replace("  n : int\n", "  n : int\n  __forward_hooks__ = [\"gone\", ]\n"), `got hook "gone", which is no method`},
		{"method without self", replace("def forward(", "def other() -> int:\n    return 1\n  def forward("), "a method without self"},
		{"node that is no operator", replace("return torch", "y = ops.prim.PythonOp(x)\n    return torch"), "got prim.PythonOp"},
		{"inner function with parameters", replace("return torch", "def inner(y):\n      return y\n    return torch"), "want -> and the type"},
		{"top level", "x = 3\n" + handCode, "want a class or a function"},
		{"class gone", "", "which no source in code/ declares"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := refused(t, damage.Zip(t, with("code/__torch__.py", c.code), true), c.name)
			require.ErrorIs(t, err, jit.ErrCorrupt)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestDamageWithinDebugTables(t *testing.T) {
	row := func(offset int64, r string) string { return tuple(integer(offset), r, integer(0)) }
	table := func(rows ...string) string { return pickle(debugTable(short("line one\n"), "", rows...)) }
	for _, c := range []struct{ name, pkl, want string }{
		{"none", pickle("N"), "want a tuple"},
		{"rows", pickle(tuple("N")), "row 0: got a None"},
		{"texts", pickle(tuple(short("FORMAT_WITH_STRING_TABLE"), ")", ")")), "want a tuple of strings"},
		{"text", pickle(tuple(short("FORMAT_WITH_STRING_TABLE"), tuple("N"), ")")), "want a string"},
		{"offset beyond the source", table(row(100000, debugRange(0, 1))), "row 0: got offset 100000"},
		{"offset negative", table(row(-1, debugRange(0, 1))), "got offset -1"},
		{"offsets not sorted", table(row(5, debugRange(0, 1)), row(4, debugRange(0, 1))), "row 1: got offset 4, want 5"},
		{"range", table(row(0, debugRange(0, 10))), "got range 0 to 10, want it within a source of 9 bytes"},
		{"range reversed", table(row(0, debugRange(5, 4))), "got range 5 to 4"},
		{"range negative", table(row(0, debugRange(-1, 4))), "got range -1 to 4"},
		{"line", table(row(0, debugRangeOf(integer(2), 0, 1))), "got line 2, want one of the 2 strings"},
		{"line negative", table(row(0, debugRangeOf(integer(-1), 0, 1))), "got line -1"},
		{"tensor", pickle(six), "got a tensor, want none here"},
		{"damaged", "\x80\x02(", "truncated"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := refused(t, damage.Zip(t, with("code/__torch__.py.debug_pkl", c.pkl), true), c.name)
			require.ErrorIs(t, err, jit.ErrCorrupt)
			require.ErrorContains(t, err, c.want)
		})
	}
	_, err := jit.CheckBytes(damage.Zip(t, with("code/__torch__.py.debug_pkl", pickle(tuple(row(0, tuple(tuple(short("text"), "N", integer(1)), integer(0), integer(4)))))), true))
	require.NoError(t, err, "the format without a table of strings")
}

func TestDamagedRecords(t *testing.T) {
	late := append(hand(), damage.Record{Name: "late", Data: []byte("x")})
	wrongID := hand()
	wrongID[7].Data = []byte("0123456789")
	order := slices.Insert(hand(), 0, damage.Record{Name: "data/1", Data: make([]byte, 24)})
	two := tensor(storage("FloatStorage", "1", "cpu", 6), 0, ints(6), ints(1), no)
	order[2].Data = []byte(pickle(object("M", short("w"), six, short("n"), integer(3), short("o"), "N", short("0"), "}("+short("a")+two+"u")))
	for _, c := range []struct {
		name    string
		records []damage.Record
		want    string
	}{
		{"data.pkl missing", with("data.pkl", nil), "data.pkl: got an archive without it"},
		{"constants.pkl missing", with("constants.pkl", nil), "constants.pkl: got an archive without it"},
		{"version missing", with("version", nil), "version: got an archive without it"},
		{"version twice", with(".data/version", "3"), "got version and .data/version"},
		{"version text", with("version", "three"), `got "three", want a number`},
		{"version 0", with("version", "0\n"), `got "0\n"`},
		{"version 99", with("version", "99\n"), "got version 99, want at most 10; a newer PyTorch"},
		{"byteorder", with("byteorder", "big"), `byteorder: got "big"`},
		{"byteorder missing", with("byteorder", nil), "byteorder: got an archive without it"},
		{"code missing", with("code/__torch__.py", nil), "which no source in code/ declares"},
		{"source of a debug table missing", with("code/x.py.debug_pkl", pickle(")")), "without its source"},
		{"module name", with("code/a-b.py", ""), "want Python names"},
		{"tensor missing", with("data/0", nil), "data/0: got an archive without it, want the 24 bytes"},
		{"tensor without owner", with("data/1", "abcd"), "got 2 records, want the 1 that data.pkl names"},
		{"tensors out of order", order, "want the order of writing"},
		{"unknown record", with("other", "x"), "a record that TorchScript does not have"},
		{"record after the id", late, "which torch writes last"},
		{"id", wrongID, "want 40 digits"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := refused(t, damage.Zip(t, c.records, c.name != "id"), c.name)
			require.ErrorIs(t, err, jit.ErrCorrupt)
			require.ErrorContains(t, err, c.want)
			var e *jit.ArchiveError
			require.ErrorAs(t, err, &e)
			assert.NotEmpty(t, e.Reason)
		})
	}
}

func TestDamagedZip(t *testing.T) {
	good := damage.Zip(t, hand(), true)
	end := len(good) - 22
	patch := func(at int, b ...byte) []byte {
		data := bytes.Clone(good)
		copy(data[at:], b)
		return data
	}
	named := func(name string) []byte {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		for _, r := range hand() {
			f, err := w.CreateHeader(&zip.FileHeader{Name: "model/" + r.Name, Method: zip.Store})
			require.NoError(t, err)
			_, err = f.Write(r.Data)
			require.NoError(t, err)
		}
		f, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate})
		require.NoError(t, err)
		_, err = f.Write(make([]byte, 4<<20))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return b.Bytes()
	}
	directory := bytes.Index(good, []byte("PK\x01\x02"))
	second := bytes.Index(good[directory+4:], []byte("PK\x01\x02")) + directory + 4
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"cut", good[:end+10], "no zip end record"},
		{"comment", append(patch(end+20, 1), 'x'), "no zip end record"},
		{"entries", patch(end+8, 3, 0, 3, 0), "directory: got"},
		{"many entries", patch(end+8, 0xff, 0xff, 0xff, 0xff), "more than"},
		{"directory offset", patch(end+16, 1, 0, 0, 0), "want them to end at"},
		{"version", patch(directory+4, 99), "zip versions"},
		{"encrypted", patch(directory+8, 9), "zip flags"},
		{"method", patch(directory+10, 12), "compression method 12"},
		{"checksum", patch(directory+16, 1, 2, 3, 4), "disagrees with the directory"},
		{"size", patch(directory+20, 1, 0, 0, 0), "stored entry: got sizes"},
		{"overlap", patch(second+42, 0, 0, 0, 0), "got room for 0 bytes"},
		{"gap", patch(directory+42, 1, 0, 0, 0), "gap, overlap"},
		{"out of range", patch(second+42, 0xf0, 0xff, 0xff, 0x7f), "got"},
		{"link", patch(directory+38, 0, 0, 0xff, 0xa1), "want a regular file's"},
		{"local name", patch(30, 'x'), "disagrees with the directory on the name"},
		{"local signature", patch(3, 9), "want a zip entry"},
		{"local extra", patch(28, 1), "got"},
		{"name twice", named("model/version"), "got the name twice"},
		{"path up", named("model/../x"), "want a plain relative path"},
		{"absolute path", named("/etc/passwd"), "absolute name"},
		{"backslash", named("model\\x"), "absolute name or one with"},
		{"bomb", named("model/extra/zeros"), "got 4194304 bytes packed into"},
		{"another folder", named("other/x"), "want one folder with data.pkl"},
		{"garbage before", append([]byte("PK\x03\x04garbage"), good...), "got"},
		{"garbage behind", append(bytes.Clone(good), "garbage"...), "no zip end record"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := refused(t, c.data, c.name)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestOtherFiles(t *testing.T) {
	archive := func(names ...string) []byte {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		for _, name := range names {
			_, err := w.Create(name)
			require.NoError(t, err)
		}
		require.NoError(t, w.Close())
		return b.Bytes()
	}
	safetensors := []byte("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}")
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "an empty file"},
		{"text", []byte("hello"), "5 bytes that start with 68 65 6c 6c 6f"},
		{"zeros", make([]byte, 1000), "1000 bytes"},
		{"pickle", []byte("\x80\x04\x95\x00."), "a raw Python pickle"},
		{"safetensors", slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(safetensors))), safetensors, make([]byte, 4)), "a safetensors file, which holds weights and no code"},
		{"ONNX", []byte("\x08\x08\x12\x07pytorch\x1a\x032.1"), "an ONNX model"},
		{"flatbuffer", []byte("\x10\x00\x00\x00PTMF\x00\x00"), "for mobile devices"},
		{"ExecuTorch", []byte("\x10\x00\x00\x00ET12\x00\x00"), "an ExecuTorch program"},
		{"TFLite", []byte("\x10\x00\x00\x00TFL3\x00\x00"), "a TensorFlow Lite model"},
		{"GGUF", []byte("GGUF\x03"), "a GGUF file"},
		{"HDF5", []byte("\x89HDF\r\n\x1a\n"), "an HDF5 file"},
		{"ELF", []byte("\x7fELF\x02\x01"), "a shared library"},
		{"npy", []byte("\x93NUMPY\x01\x00"), "a NumPy array"},
		{"gzip", []byte("\x1f\x8b\x08\x00"), "a packed file"},
		{"LFS", []byte("version https://git-lfs.github.com/spec/v1\noid sha256:0"), "run git lfs pull"},
		{"HTML", []byte("\n<!DOCTYPE html><html>"), "a web page"},
		{"preview", []byte("PYTORCH1........"), "a PyTorch preview release"},
		{"empty zip", archive(), "want a zip archive"},
		{"npz", archive("a.npy"), "a NumPy archive"},
		{"docx", archive("[Content_Types].xml", "word/a.xml"), "an office document"},
		{"zip", archive("a/b", "a/c"), "without data.pkl and code/"},
		{"folders", archive("a/b", "c/d"), "want one folder"},
		{"AOTInductor", archive("m/data/aotinductor/model/x.so", "m/archive_format", "m/version"), "an AOTInductor package (.pt2)"},
		{"export", archive("m/archive_format", "m/models/model.json"), "a program of torch.export"},
		{"package", archive("m/.data/extern_modules", "m/x.py"), "torch.package"},
		{"old TorchScript", archive("m/model.json", "m/version"), "before 1.4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := refused(t, c.data, c.name)
			require.ErrorIs(t, err, jit.ErrNotTorchScript)
			require.NotErrorIs(t, err, jit.ErrCorrupt)
			require.ErrorContains(t, err, c.want)
		})
	}
}

type brokenReader struct{ err error }

func (r brokenReader) ReadAt([]byte, int64) (int, error) { return 0, r.err }

func TestReaderErrors(t *testing.T) {
	broken := errors.New("input/output error")
	_, err := jit.CheckArchive(brokenReader{broken}, 1000)
	require.ErrorIs(t, err, broken)
	require.NotErrorIs(t, err, jit.ErrCorrupt, "the file may be whole, the disk is not")
	_, err = jit.CheckArchive(brokenReader{io.EOF}, 1000)
	require.ErrorIs(t, err, jit.ErrCorrupt, "the file is shorter than its size")
	_, err = jit.CheckArchive(brokenReader{iotest.ErrTimeout}, -1)
	require.Error(t, err)
	_, err = jit.OpenArchive(filepath.Join(t.TempDir(), "none.pt"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = jit.OpenArchive(t.TempDir())
	require.ErrorContains(t, err, "got a folder, want a regular file")
}

func FuzzCheckArchive(f *testing.F) {
	for _, data := range modules(f) {
		f.Add(data, false)
	}
	f.Add(damage.Zip(f, hand(), true), false)
	// A pickle alone, which is put into an archive that is otherwise whole.
	f.Add([]byte(pickle(object("M", attributes(six)...))), true)
	f.Add([]byte(pickle(debugTable(short("line one\n"), "", tuple(integer(5), debugRange(0, 8), integer(0))))), true)
	f.Add([]byte(handCode), true)
	f.Fuzz(func(t *testing.T, data []byte, record bool) {
		files := [][]byte{data}
		if record {
			files = nil
			for _, name := range []string{"data.pkl", "constants.pkl", "code/__torch__.py", "code/__torch__.py.debug_pkl"} {
				files = append(files, damage.Zip(t, with(name, data), true))
			}
		}
		for _, file := range files {
			a, err := jit.CheckBytes(file)
			if (a == nil) == (err == nil) {
				t.Fatalf("got archive %v and error %v, want exactly one", a, err)
			}
			if err != nil {
				refused(t, file, "fuzz")
				continue
			}
			for _, name := range a.ExtraFiles() {
				if _, err := a.ReadExtra(name); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// BenchmarkCheckArchive checks a file of 350 MB, from a file and from memory.
func BenchmarkCheckArchive(b *testing.B) {
	const n = 350 << 20
	data := make([]byte, n)
	for i := 0; i < n; i += 512 {
		binary.LittleEndian.PutUint64(data[i:], uint64(i)*0x9e3779b97f4a7c15)
	}
	records := with("data/0", data)
	records[1].Data = []byte(pickle(object("M", attributes(tensor(storage("FloatStorage", "0", "cpu", n/4), 0, ints(n/4), ints(1), no))...)))
	file := damage.Zip(b, records, true)
	path := filepath.Join(b.TempDir(), "large.pt")
	require.NoError(b, os.WriteFile(path, file, 0o600))
	b.Run("file", func(b *testing.B) {
		b.SetBytes(n)
		for b.Loop() {
			a, err := jit.OpenArchive(path)
			if err != nil {
				b.Fatal(err)
			}
			_ = a.Close()
		}
	})
	b.Run("memory", func(b *testing.B) {
		b.SetBytes(n)
		for b.Loop() {
			if _, err := jit.CheckBytes(file); err != nil {
				b.Fatal(err)
			}
		}
	})
	small, err := os.ReadFile(filepath.Join(testmain.Root(b), "testdata", "modules", "identity.pt"))
	require.NoError(b, err)
	b.Run("small", func(b *testing.B) {
		for b.Loop() {
			if _, err := jit.CheckBytes(small); err != nil {
				b.Fatal(err)
			}
		}
	})
}
