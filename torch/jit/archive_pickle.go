package jit

import (
	"encoding/binary"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// TorchScript keeps its values in pickles of protocol 2, of which libtorch's
// Pickler writes a small part. The walker below runs that part and nothing
// else: it builds plain nodes, never calls anything, and refuses every opcode,
// global and shape that the Pickler does not write. It is stricter than
// libtorch's Unpickler on purpose, since that one trusts the file: it takes
// strides and offsets as they come, reads a missing last value of a dict past
// the end of its stack, and stores values of any type in typed attributes.

type pickleKind uint8

const (
	pickleNone pickleKind = iota
	pickleBool
	pickleInt
	pickleFloat
	pickleComplex
	pickleString
	pickleTuple
	pickleList
	pickleDict
	pickleGlobal
	pickleStorage
	pickleTensor
	pickleDevice
	pickleObject
	pickleBlank // an object between NEWOBJ and BUILD
	pickleEnum
	pickleHooks // collections.OrderedDict(): a tensor's backward hooks, always empty
)

var pickleKindNames = [...]string{
	"None", "bool", "int", "float", "complex", "str", "tuple", "list", "dict", "global",
	"storage", "Tensor", "Device", "object", "unfinished object", "enum", "OrderedDict",
}

func (k pickleKind) String() string { return pickleKindNames[k] }

// pickleNode is one value. Containers and tensors are shared by pointer where
// the pickle shares them through its memo.
type pickleNode struct {
	kind  pickleKind
	done  bool // list or dict that has been filled or shared and must not change
	depth int16
	num   int64  // bool, int, bits of a float
	str   string // string; name of a global, class or device
	items []*pickleNode
	data  *pickleStore
}

// pickleStore is a tensor's storage: a record of its own in the archive.
type pickleStore struct {
	key    string
	dtype  string
	width  uint64
	numel  uint64
	device string
}

const (
	maxPickleSize  = 64 << 20
	maxPickleOps   = 4 << 20 // the largest seen, of a traced CaiT, has 20,000
	maxPickleDepth = 200
	maxPickleMarks = 1000
	maxTensorDims  = 64
)

// pickleWidths gives the bytes of one element for each storage class of torch.
var pickleWidths = map[string]uint64{
	"ByteStorage": 1, "CharStorage": 1, "ShortStorage": 2, "IntStorage": 4, "LongStorage": 8,
	"HalfStorage": 2, "FloatStorage": 4, "DoubleStorage": 8, "BFloat16Storage": 2, "BoolStorage": 1,
	"ComplexHalfStorage": 4, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16,
	"Float8_e5m2Storage": 1, "Float8_e4m3fnStorage": 1, "Float8_e5m2fnuzStorage": 1, "Float8_e4m3fnuzStorage": 1,
	"UInt16Storage": 2, "UInt32Storage": 4, "UInt64Storage": 8,
	"QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4,
}

var (
	pickleDeviceName = regexp.MustCompile(`^(cpu|cuda|mps|xpu|hpu)(:[0-9]{1,2})?$`)
	pickleIdentifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$`)
)

// pickleWalker runs one pickle.
type pickleWalker struct {
	record string // name in error messages
	buf    []byte
	pos    int
	stack  []*pickleNode
	marks  []int
	memo   []*pickleNode

	// storages holds the tensors' storages by key, which the Pickler counts up
	// from 0. noTensors refuses them (debug tables have none).
	storages  []*pickleStore
	noTensors bool
	// text allows strings that are not UTF-8 (lines of source files).
	text bool
	// code resolves classes and checks objects; nil accepts any class.
	code  *scriptCode
	types map[string]*scriptType
	// seen remembers which container was found to have which type, so that
	// values that are shared many times are looked at once.
	seen map[pickleTyped]bool
}

type pickleTyped struct {
	node *pickleNode
	typ  *scriptType
}

func (w *pickleWalker) fail(format string, args ...any) error {
	return corrupt(w.record, "at byte %d: %s", w.pos, fmt.Sprintf(format, args...))
}

// walk returns the one value of the pickle.
func (w *pickleWalker) walk(buf []byte) (*pickleNode, error) {
	w.buf, w.pos = buf, 0
	if len(buf) > maxPickleSize {
		return nil, w.fail("got a pickle of %d bytes, want at most %d", len(buf), maxPickleSize)
	}
	if len(buf) < 3 || buf[0] != 0x80 || buf[1] != 2 {
		return nil, w.fail("got % x, want a pickle of protocol 2 (80 02)", buf[:min(len(buf), 4)])
	}
	w.types, w.seen = make(map[string]*scriptType), make(map[pickleTyped]bool)
	w.pos = 2
	for ops := 0; ; ops++ {
		if ops == maxPickleOps {
			return nil, w.fail("got more than %d opcodes", maxPickleOps)
		}
		b, err := w.take(1)
		if err != nil {
			return nil, err
		}
		if b[0] == '.' {
			break
		}
		if err := w.step(b[0]); err != nil {
			return nil, err
		}
	}
	if w.pos != len(w.buf) {
		return nil, w.fail("got %d bytes after the end of the pickle, want none", len(w.buf)-w.pos)
	}
	if len(w.stack) != 1 || len(w.marks) != 0 {
		return nil, w.fail("got %d values and %d open marks at the end, want 1 and 0", len(w.stack), len(w.marks))
	}
	n := w.stack[0]
	if n.kind == pickleGlobal || n.kind == pickleBlank || n.kind == pickleStorage {
		return nil, w.fail("got a %v, want a value", n.kind)
	}
	return n, nil
}

func (w *pickleWalker) take(n int) ([]byte, error) {
	if len(w.buf)-w.pos < n {
		return nil, w.fail("got %d bytes, want %d (truncated?)", len(w.buf)-w.pos, n)
	}
	b := w.buf[w.pos : w.pos+n : w.pos+n]
	w.pos += n
	return b, nil
}

func (w *pickleWalker) push(n *pickleNode) { w.stack = append(w.stack, n) }

// floor is the height below which an opcode must not reach: the last mark.
func (w *pickleWalker) floor() int {
	if len(w.marks) == 0 {
		return 0
	}
	return w.marks[len(w.marks)-1]
}

func (w *pickleWalker) pop(op string) (*pickleNode, error) {
	if len(w.stack) <= w.floor() {
		return nil, w.fail("%s: got an empty stack, want a value", op)
	}
	n := w.stack[len(w.stack)-1]
	w.stack = w.stack[:len(w.stack)-1]
	return n, nil
}

// popMark returns a copy of what was pushed since the last mark.
func (w *pickleWalker) popMark(op string) ([]*pickleNode, error) {
	if len(w.marks) == 0 {
		return nil, w.fail("%s: got no mark, want one", op)
	}
	at := w.marks[len(w.marks)-1]
	w.marks = w.marks[:len(w.marks)-1]
	items := append([]*pickleNode(nil), w.stack[at:]...)
	w.stack = w.stack[:at]
	return items, nil
}

var (
	pickleNoneNode  = &pickleNode{kind: pickleNone}
	pickleTrueNode  = &pickleNode{kind: pickleBool, num: 1}
	pickleFalseNode = &pickleNode{kind: pickleBool}
	pickleHooksNode = &pickleNode{kind: pickleHooks}
	pickleSmallInts = func() (t [256]*pickleNode) {
		for i := range t {
			t[i] = &pickleNode{kind: pickleInt, num: int64(i)}
		}
		return t
	}()
)

func (w *pickleWalker) step(op byte) error {
	le := binary.LittleEndian
	switch op {
	case 'N':
		w.push(pickleNoneNode)
	case 0x88:
		w.push(pickleTrueNode)
	case 0x89:
		w.push(pickleFalseNode)
	case 'K':
		b, err := w.take(1)
		if err != nil {
			return err
		}
		w.push(pickleSmallInts[b[0]])
	case 'M':
		b, err := w.take(2)
		if err != nil {
			return err
		}
		w.push(&pickleNode{kind: pickleInt, num: int64(le.Uint16(b))})
	case 'J':
		b, err := w.take(4)
		if err != nil {
			return err
		}
		w.push(&pickleNode{kind: pickleInt, num: int64(int32(le.Uint32(b)))})
	case 0x8a: // LONG1, which the Pickler writes with 8 bytes only
		b, err := w.take(9)
		if err != nil {
			return err
		}
		if b[0] != 8 {
			return w.fail("got an integer of %d bytes, want 8", b[0])
		}
		w.push(&pickleNode{kind: pickleInt, num: int64(le.Uint64(b[1:]))})
	case 'G':
		b, err := w.take(8)
		if err != nil {
			return err
		}
		w.push(&pickleNode{kind: pickleFloat, num: int64(binary.BigEndian.Uint64(b))})
	case 'X':
		return w.opString()
	case '(':
		if len(w.marks) >= maxPickleMarks {
			return w.fail("got more than %d marks within each other", maxPickleMarks)
		}
		w.marks = append(w.marks, len(w.stack))
	case ')':
		w.push(&pickleNode{kind: pickleTuple})
	case ']':
		w.push(&pickleNode{kind: pickleList})
	case '}':
		w.push(&pickleNode{kind: pickleDict})
	case 't':
		items, err := w.popMark("TUPLE")
		if err != nil {
			return err
		}
		return w.tuple(items)
	case 0x85, 0x86, 0x87:
		n := int(op - 0x84)
		if len(w.stack)-w.floor() < n {
			return w.fail("TUPLE%d: got %d values, want %d", n, len(w.stack)-w.floor(), n)
		}
		items := append([]*pickleNode(nil), w.stack[len(w.stack)-n:]...)
		w.stack = w.stack[:len(w.stack)-n]
		return w.tuple(items)
	case 'e':
		return w.opAppends()
	case 'u':
		return w.opSetItems()
	case 'q', 'r':
		return w.opPut(op)
	case 'h', 'j':
		return w.opGet(op)
	case 'c':
		return w.opGlobal()
	case 0x81:
		return w.opNewObject()
	case 'b':
		return w.opBuild()
	case 'R':
		return w.opReduce()
	case 'Q':
		return w.opStorage()
	default:
		w.pos--
		return w.fail("got opcode %#02x, which TorchScript does not write", op)
	}
	return nil
}

func (w *pickleWalker) opString() error {
	b, err := w.take(4)
	if err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(b)
	if uint64(n) > uint64(len(w.buf)-w.pos) {
		return w.fail("got a string of %d bytes, want at most %d", n, len(w.buf)-w.pos)
	}
	s, err := w.take(int(n))
	if err != nil {
		return err
	}
	if !w.text && !utf8.Valid(s) {
		return w.fail("got a string that is not UTF-8")
	}
	w.push(&pickleNode{kind: pickleString, str: string(s)})
	return nil
}

// contain sets the depth of a container, and refuses what no container holds.
func (w *pickleWalker) contain(n *pickleNode) error {
	for _, item := range n.items {
		if item.kind == pickleBlank {
			return w.fail("got an unfinished object within a %v", n.kind)
		}
		n.depth = max(n.depth, item.depth+1)
	}
	if n.depth > maxPickleDepth {
		return w.fail("got values nested deeper than %d", maxPickleDepth)
	}
	return nil
}

func (w *pickleWalker) tuple(items []*pickleNode) error {
	n := &pickleNode{kind: pickleTuple, items: items}
	w.push(n)
	return w.contain(n)
}

// filling returns the list or dict below the last mark. The Pickler fills a
// container at once, before anything else can refer to it, so that no value
// can contain itself.
func (w *pickleWalker) filling(op string, kind pickleKind) (*pickleNode, []*pickleNode, error) {
	items, err := w.popMark(op)
	if err != nil {
		return nil, nil, err
	}
	if len(w.stack) <= w.floor() {
		return nil, nil, w.fail("%s: got nothing to fill, want a %v", op, kind)
	}
	n := w.stack[len(w.stack)-1]
	if n.kind != kind || n.done {
		return nil, nil, w.fail("%s: got a %v, want a new %v", op, n.kind, kind)
	}
	n.items, n.done = items, true
	return n, items, w.contain(n)
}

func (w *pickleWalker) opAppends() error {
	n, items, err := w.filling("APPENDS", pickleList)
	if err != nil {
		return err
	}
	for _, item := range items {
		if item.kind == pickleGlobal || item.kind == pickleStorage || item.kind == pickleHooks {
			return w.fail("got a %v in a %v, want a value", item.kind, n.kind)
		}
	}
	return nil
}

func (w *pickleWalker) opSetItems() error {
	_, items, err := w.filling("SETITEMS", pickleDict)
	if err != nil {
		return err
	}
	if len(items)%2 != 0 {
		return w.fail("SETITEMS: got %d values, want pairs of key and value", len(items))
	}
	type key struct {
		kind pickleKind
		num  int64
		str  string
	}
	keys := make(map[key]bool, len(items)/2)
	for i := 0; i < len(items); i += 2 {
		k, v := items[i], items[i+1]
		switch k.kind {
		case pickleString, pickleInt, pickleFloat, pickleBool:
			id := key{k.kind, k.num, k.str}
			if keys[id] {
				return w.fail("SETITEMS: got key %s twice", k.brief())
			}
			keys[id] = true
		case pickleComplex, pickleTensor, pickleDevice, pickleEnum:
		default:
			return w.fail("SETITEMS: got a %v as key, want a string or a number", k.kind)
		}
		if v.kind == pickleGlobal || v.kind == pickleStorage || v.kind == pickleHooks {
			return w.fail("SETITEMS: got a %v, want a value", v.kind)
		}
	}
	return nil
}

func (w *pickleWalker) opPut(op byte) error {
	id, err := w.memoID(op == 'r')
	if err != nil {
		return err
	}
	// The Pickler counts its memo up from 0. A hole would make libtorch allocate
	// up to 4 billion entries.
	if id != len(w.memo) {
		return w.fail("got memo entry %d, want %d", id, len(w.memo))
	}
	if len(w.stack) <= w.floor() {
		return w.fail("got nothing to remember on the stack")
	}
	n := w.stack[len(w.stack)-1]
	if n.kind == pickleBlank {
		return w.fail("got a memo entry for an unfinished object")
	}
	if n.kind == pickleList || n.kind == pickleDict { // the others may be shared between walkers
		n.done = true
	}
	w.memo = append(w.memo, n)
	return nil
}

func (w *pickleWalker) opGet(op byte) error {
	id, err := w.memoID(op == 'j')
	if err != nil {
		return err
	}
	if id >= len(w.memo) {
		return w.fail("got memo entry %d, want one below %d", id, len(w.memo))
	}
	w.push(w.memo[id])
	return nil
}

func (w *pickleWalker) memoID(long bool) (int, error) {
	if !long {
		b, err := w.take(1)
		if err != nil {
			return 0, err
		}
		return int(b[0]), nil
	}
	b, err := w.take(4)
	if err != nil {
		return 0, err
	}
	id := binary.LittleEndian.Uint32(b)
	if id > math.MaxInt32 {
		return 0, w.fail("got memo entry %d, want less", id)
	}
	return int(id), nil
}

func (w *pickleWalker) line() (string, error) {
	const limit = 4096
	rest := w.buf[w.pos:min(len(w.buf), w.pos+limit)]
	for i, c := range rest {
		if c == '\n' {
			w.pos += i + 1
			return string(rest[:i]), nil
		}
	}
	return "", w.fail("got a name without end")
}

func (w *pickleWalker) opGlobal() error {
	module, err := w.line()
	if err != nil {
		return err
	}
	name, err := w.line()
	if err != nil {
		return err
	}
	if !pickleIdentifier.MatchString(module) || !pickleIdentifier.MatchString(name) || strings.Contains(name, ".") {
		return w.fail("got global %q %q, want Python names", module, name)
	}
	full := module + "." + name
	switch {
	case full == "torch._utils._rebuild_tensor_v2", full == "torch._utils._rebuild_qtensor":
		if w.noTensors {
			return w.fail("got a tensor, want none here")
		}
	case full == "collections.OrderedDict", full == "builtins.complex", full == "torch.device",
		full == "torch.jit._pickle.build_intlist", full == "torch.jit._pickle.build_tensorlist",
		full == "torch.jit._pickle.build_doublelist", full == "torch.jit._pickle.build_boollist",
		full == "torch.jit._pickle.restore_type_tag":
	case module == "torch" && pickleWidths[name] != 0 && !w.noTensors:
	case module == "torch" && (name == "per_tensor_affine" || name == "per_channel_affine" || name == "per_channel_affine_float_qparams") && !w.noTensors:
	case module == "__torch__" || strings.HasPrefix(module, "__torch__."):
		if w.code != nil {
			if err := w.code.checkClass(full); err != nil {
				return w.fail("%v", err)
			}
		}
	case full == "torch._utils._rebuild_sparse_tensor":
		return w.fail("got a sparse tensor, which is not supported here: export the module with dense tensors")
	default:
		return w.fail("got global %s, which TorchScript does not use", full)
	}
	w.push(&pickleNode{kind: pickleGlobal, str: full})
	return nil
}

func (w *pickleWalker) opNewObject() error {
	args, err := w.pop("NEWOBJ")
	if err != nil {
		return err
	}
	cls, err := w.pop("NEWOBJ")
	if err != nil {
		return err
	}
	if args.kind != pickleTuple || len(args.items) != 0 || cls.kind != pickleGlobal || !strings.HasPrefix(cls.str, "__torch__.") {
		return w.fail("NEWOBJ: got a %v %s and a %v, want a class and an empty tuple", cls.kind, cls.str, args.kind)
	}
	w.push(&pickleNode{kind: pickleBlank, str: cls.str})
	return nil
}

func (w *pickleWalker) opBuild() error {
	state, err := w.pop("BUILD")
	if err != nil {
		return err
	}
	blank, err := w.pop("BUILD")
	if err != nil {
		return err
	}
	if blank.kind != pickleBlank || state.kind == pickleGlobal || state.kind == pickleStorage || state.kind == pickleBlank {
		return w.fail("BUILD: got a %v and a %v, want a new object and its state", blank.kind, state.kind)
	}
	n := &pickleNode{kind: pickleObject, str: blank.str, items: []*pickleNode{state}}
	if err := w.contain(n); err != nil {
		return err
	}
	if w.code != nil {
		if err := w.code.checkObject(w, n); err != nil {
			return w.fail("%v", err)
		}
	}
	w.push(n)
	return nil
}

func (w *pickleWalker) opReduce() error {
	arg, err := w.pop("REDUCE")
	if err != nil {
		return err
	}
	fn, err := w.pop("REDUCE")
	if err != nil {
		return err
	}
	if fn.kind != pickleGlobal {
		return w.fail("REDUCE: got a %v, want a function", fn.kind)
	}
	if strings.HasPrefix(fn.str, "__torch__.") {
		if w.code != nil {
			if err := w.code.checkEnum(w, fn.str, arg); err != nil {
				return w.fail("%v", err)
			}
		}
		w.push(&pickleNode{kind: pickleEnum, str: fn.str, items: []*pickleNode{arg}})
		return nil
	}
	if arg.kind != pickleTuple {
		return w.fail("REDUCE: got a %v for %s, want a tuple", arg.kind, fn.str)
	}
	args := arg.items
	switch fn.str {
	case "torch._utils._rebuild_tensor_v2":
		return w.rebuildTensor(args, false)
	case "torch._utils._rebuild_qtensor":
		return w.rebuildTensor(args, true)
	case "collections.OrderedDict":
		if len(args) != 0 {
			return w.fail("OrderedDict: got %d arguments, want 0", len(args))
		}
		w.push(pickleHooksNode)
	case "builtins.complex":
		if len(args) != 2 || args[0].kind != pickleFloat || args[1].kind != pickleFloat {
			return w.fail("complex: got %s, want two floats", arg.brief())
		}
		w.push(&pickleNode{kind: pickleComplex})
	case "torch.device":
		if len(args) != 1 || args[0].kind != pickleString || !pickleDeviceName.MatchString(args[0].str) {
			return w.fail("device: got %s, want the name of a device", arg.brief())
		}
		w.push(&pickleNode{kind: pickleDevice, str: args[0].str})
	case "torch.jit._pickle.restore_type_tag":
		if len(args) != 2 || args[1].kind != pickleString {
			return w.fail("type tag: got %s, want a list or dict and its type", arg.brief())
		}
		t, err := w.typeOf(args[1].str)
		if err != nil {
			return w.fail("%v", err)
		}
		if t.name != "List" && t.name != "Dict" {
			return w.fail("type tag: got %s, want List or Dict", args[1].str)
		}
		return w.typed(args[0], t)
	default:
		elem, ok := map[string]string{"build_intlist": "int", "build_tensorlist": "Tensor", "build_doublelist": "float", "build_boollist": "bool"}[strings.TrimPrefix(fn.str, "torch.jit._pickle.")]
		if !ok {
			return w.fail("REDUCE: got %s, want a function", fn.str)
		}
		if len(args) != 1 {
			return w.fail("%s: got %d arguments, want 1", fn.str, len(args))
		}
		t, err := w.typeOf("List[" + elem + "]")
		if err != nil {
			return w.fail("%v", err)
		}
		return w.typed(args[0], t)
	}
	return nil
}

func (w *pickleWalker) typed(n *pickleNode, t *scriptType) error {
	if err := w.matches(n, t); err != nil {
		return w.fail("%v", err)
	}
	w.push(n)
	return nil
}

func (w *pickleWalker) typeOf(s string) (*scriptType, error) {
	if t := w.types[s]; t != nil {
		return t, nil
	}
	t, err := parseScriptType(s)
	if err != nil {
		return nil, err
	}
	w.types[s] = t
	return t, nil
}

// opStorage reads the persistent id ("storage", class, key, device, numel).
func (w *pickleWalker) opStorage() error {
	id, err := w.pop("BINPERSID")
	if err != nil {
		return err
	}
	if id.kind != pickleTuple || len(id.items) != 5 {
		return w.fail("storage: got %s, want 5 values", id.brief())
	}
	kind, cls, key, device, numel := id.items[0], id.items[1], id.items[2], id.items[3], id.items[4]
	width := uint64(0)
	if cls.kind == pickleGlobal {
		width = pickleWidths[strings.TrimPrefix(cls.str, "torch.")]
	}
	switch {
	case kind.kind != pickleString || kind.str != "storage":
		return w.fail("storage: got kind %s, want \"storage\"", kind.brief())
	case width == 0:
		return w.fail("storage: got type %s, want a storage class", cls.brief())
	case key.kind != pickleString || key.str != strconv.Itoa(len(w.storages)):
		return w.fail("storage: got key %s, want %q", key.brief(), strconv.Itoa(len(w.storages)))
	case device.kind != pickleString || !pickleDeviceName.MatchString(device.str):
		return w.fail("storage: got device %s, want the name of a device", device.brief())
	case numel.kind != pickleInt || numel.num < 0 || uint64(numel.num) > math.MaxInt64/width:
		return w.fail("storage: got %s elements of %d bytes, want a count of 0 or more", numel.brief(), width)
	}
	s := &pickleStore{key.str, strings.TrimSuffix(strings.TrimPrefix(cls.str, "torch."), "Storage"), width, uint64(numel.num), device.str}
	w.storages = append(w.storages, s)
	w.push(&pickleNode{kind: pickleStorage, data: s})
	return nil
}

// rebuildTensor checks (storage, offset, sizes, strides, [quantizer,]
// requires_grad, hooks): every element must lie within the storage.
func (w *pickleWalker) rebuildTensor(args []*pickleNode, quantized bool) error {
	want := 6
	if quantized {
		want = 7
	}
	if len(args) != want {
		return w.fail("tensor: got %d arguments, want %d", len(args), want)
	}
	store, offset, sizes, strides := args[0], args[1], args[2], args[3]
	if store.kind != pickleStorage || offset.kind != pickleInt || sizes.kind != pickleTuple || strides.kind != pickleTuple {
		return w.fail("tensor: got a %v, %v, %v and %v, want a storage, an int and two tuples", store.kind, offset.kind, sizes.kind, strides.kind)
	}
	s := store.data
	if quantized {
		if err := w.quantizer(args[4], s); err != nil {
			return err
		}
	} else if strings.HasPrefix(s.dtype, "Q") {
		return w.fail("tensor: got type %s without quantization", s.dtype)
	}
	grad, hooks := args[want-2], args[want-1]
	if grad.kind != pickleBool || (hooks.kind != pickleHooks && hooks.kind != pickleNone) {
		return w.fail("tensor: got a %v and a %v, want requires_grad and no hooks", grad.kind, hooks.kind)
	}
	if grad.num != 0 && !strings.Contains(s.dtype, "Float") && s.dtype != "Half" && s.dtype != "Double" && !strings.HasPrefix(s.dtype, "Complex") {
		return w.fail("tensor: got requires_grad on type %s, want a floating type", s.dtype)
	}
	if len(sizes.items) != len(strides.items) || len(sizes.items) > maxTensorDims {
		return w.fail("tensor: got %d sizes and %d strides, want as many, at most %d", len(sizes.items), len(strides.items), maxTensorDims)
	}
	if offset.num < 0 || uint64(offset.num) > s.numel {
		return w.fail("tensor: got offset %d, want 0 to %d", offset.num, s.numel)
	}
	// last is the index of the farthest element, kept below 2^63.
	last, count := uint64(offset.num), uint64(1)
	for i, d := range sizes.items {
		st := strides.items[i]
		if d.kind != pickleInt || st.kind != pickleInt || d.num < 0 || st.num < 0 {
			return w.fail("tensor: got size %s and stride %s in dimension %d, want integers of 0 or more", d.brief(), st.brief(), i)
		}
		if d.num > 0 && count > math.MaxInt64/uint64(d.num) {
			return w.fail("tensor: got more than 2^63 elements")
		}
		count *= uint64(d.num)
		if d.num <= 1 {
			continue
		}
		if st.num != 0 && uint64(d.num-1) > (math.MaxInt64-last)/uint64(st.num) {
			return w.fail("tensor: got size %d with stride %d in dimension %d, beyond 2^63", d.num, st.num, i)
		}
		last += uint64(d.num-1) * uint64(st.num)
	}
	if count > 0 && last >= s.numel {
		return w.fail("tensor: got sizes that reach element %d, want less than the %d of storage %s", last, s.numel, s.key)
	}
	// Views that repeat elements (expand) are fine, absurd ones are not.
	if count > math.MaxInt64/16 {
		return w.fail("tensor: got %d elements, want less", count)
	}
	w.push(&pickleNode{kind: pickleTensor, data: s, items: []*pickleNode{sizes}, depth: 1})
	return nil
}

func (w *pickleWalker) quantizer(n *pickleNode, s *pickleStore) error {
	bad := func() error { return w.fail("quantizer: got %s, want a scheme and its numbers", n.brief()) }
	if !strings.HasPrefix(s.dtype, "Q") || n.kind != pickleTuple || len(n.items) < 3 || n.items[0].kind != pickleGlobal {
		return bad()
	}
	q := n.items
	switch q[0].str {
	case "torch.per_tensor_affine":
		if len(q) != 3 || q[1].kind != pickleFloat || q[2].kind != pickleInt {
			return bad()
		}
	case "torch.per_channel_affine", "torch.per_channel_affine_float_qparams":
		if len(q) != 4 || q[1].kind != pickleTensor || q[2].kind != pickleTensor || q[3].kind != pickleInt {
			return bad()
		}
	default:
		return bad()
	}
	return nil
}

// brief describes a value in a few characters for an error message.
func (n *pickleNode) brief() string {
	switch n.kind {
	case pickleBool:
		return strconv.FormatBool(n.num != 0)
	case pickleInt:
		return strconv.FormatInt(n.num, 10)
	case pickleFloat:
		return strconv.FormatFloat(math.Float64frombits(uint64(n.num)), 'g', -1, 64)
	case pickleString:
		if len(n.str) > 40 {
			return strconv.QuoteToASCII(n.str[:40]) + "..."
		}
		return strconv.QuoteToASCII(n.str)
	case pickleTuple, pickleList:
		return fmt.Sprintf("a %v of %d", n.kind, len(n.items))
	case pickleDict:
		return fmt.Sprintf("a dict of %d", len(n.items)/2)
	case pickleGlobal, pickleObject, pickleEnum:
		return n.kind.String() + " " + n.str
	default:
		return "a " + n.kind.String()
	}
}
