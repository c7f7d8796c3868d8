package jit

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// scriptType is a type as TorchScript writes it: Tensor, List[int],
// Dict[str, Tensor], __torch__.Block.
type scriptType struct {
	name string
	args []*scriptType
}

const maxTypeDepth = 50

func (t *scriptType) String() string {
	if len(t.args) == 0 {
		return t.name
	}
	args := make([]string, len(t.args))
	for i, a := range t.args {
		args[i] = a.String()
	}
	return t.name + "[" + strings.Join(args, ", ") + "]"
}

// parseScriptType parses a type annotation.
func parseScriptType(s string) (*scriptType, error) {
	p := typeParser{s: s}
	t, err := p.parse(0)
	if err == nil && strings.TrimSpace(p.s) != "" {
		err = fmt.Errorf("%q follows it", p.s)
	}
	if err != nil {
		return nil, fmt.Errorf("got type %q, want a TorchScript type: %w", s, err)
	}
	return t, nil
}

type typeParser struct{ s string }

func (p *typeParser) parse(depth int) (*scriptType, error) {
	if depth > maxTypeDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxTypeDepth)
	}
	p.s = strings.TrimLeft(p.s, " ")
	n := strings.IndexFunc(p.s, func(r rune) bool {
		return r != '_' && r != '.' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
	if n < 0 {
		n = len(p.s)
	}
	t := &scriptType{name: p.s[:n]}
	if !pickleIdentifier.MatchString(t.name) {
		return nil, fmt.Errorf("%q is no name", t.name)
	}
	if p.s = p.s[n:]; !strings.HasPrefix(p.s, "[") {
		return t, t.check()
	}
	if t.name == "Tuple" && strings.HasPrefix(p.s, "[()]") {
		p.s = p.s[4:]
		return t, nil
	}
	for {
		p.s = p.s[1:] // the bracket or a comma
		if p.s = strings.TrimLeft(p.s, " "); len(t.args) > 0 && strings.HasPrefix(p.s, "]") {
			break
		}
		a, err := p.parse(depth + 1)
		if err != nil {
			return nil, err
		}
		t.args = append(t.args, a)
		if p.s = strings.TrimLeft(p.s, " "); p.s == "" || (p.s[0] != ',' && p.s[0] != ']') {
			return nil, fmt.Errorf("no ] after %s", a)
		}
		if p.s[0] == ']' {
			break
		}
	}
	p.s = p.s[1:]
	return t, t.check()
}

func (t *scriptType) check() error {
	want := -1
	switch t.name {
	case "List", "Optional", "Future", "Await", "RRef", "Final":
		want = 1
	case "Dict":
		want = 2
	case "Tuple", "Union":
		return nil
	default:
		want = 0
	}
	if len(t.args) != want {
		return fmt.Errorf("%s has %d arguments, not %d", t.name, len(t.args), want)
	}
	return nil
}

// typeError says where in a value a part has the wrong type. The path is put
// together on the way up, so that it costs nothing when all is well.
type typeError struct{ path, reason string }

func (e *typeError) Error() string {
	if e.path == "" {
		return e.reason
	}
	return strings.TrimPrefix(e.path, ".") + ": " + e.reason
}

func mismatch(n *pickleNode, t *scriptType) *typeError {
	return &typeError{reason: fmt.Sprintf("got %s, want %s", n.brief(), t)}
}

// in puts a step before the path of an error.
func (e *typeError) in(step string) *typeError {
	e.path = step + e.path
	return e
}

// matches reports where a value is not of a type. Types that it does not know
// are left to libtorch.
func (w *pickleWalker) matches(n *pickleNode, t *scriptType) *typeError {
	kind := func(k ...pickleKind) *typeError {
		if slices.Contains(k, n.kind) {
			return nil
		}
		return mismatch(n, t)
	}
	switch t.name {
	case "Tensor":
		return kind(pickleTensor)
	case "int":
		return kind(pickleInt)
	case "float":
		return kind(pickleFloat)
	case "bool":
		return kind(pickleBool)
	case "str":
		return kind(pickleString)
	case "complex":
		return kind(pickleComplex)
	case "number", "Scalar":
		return kind(pickleInt, pickleFloat, pickleComplex, pickleBool)
	case "NoneType", "None":
		return kind(pickleNone)
	case "Device":
		return kind(pickleDevice)
	}
	switch n.kind {
	case pickleGlobal, pickleStorage, pickleHooks, pickleBlank:
		return mismatch(n, t)
	case pickleTuple, pickleList, pickleDict:
		id := pickleTyped{n, t}
		if w.seen[id] {
			return nil
		}
		if err := w.matchesContainer(n, t); err != nil {
			return err
		}
		w.seen[id] = true
		return nil
	}
	return w.matchesContainer(n, t)
}

func (w *pickleWalker) matchesContainer(n *pickleNode, t *scriptType) *typeError {
	switch t.name {
	case "Final":
		return w.matches(n, t.args[0])
	case "Optional":
		if n.kind == pickleNone {
			return nil
		}
		return w.matches(n, t.args[0])
	case "Union":
		for _, a := range t.args {
			if w.matches(n, a) == nil {
				return nil
			}
		}
		return mismatch(n, t)
	case "List":
		if n.kind != pickleList {
			return mismatch(n, t)
		}
		for i, item := range n.items {
			if err := w.matches(item, t.args[0]); err != nil {
				return err.in(fmt.Sprintf("[%d]", i))
			}
		}
		return nil
	case "Dict":
		if n.kind != pickleDict {
			return mismatch(n, t)
		}
		for i := 0; i < len(n.items); i += 2 {
			if err := w.matches(n.items[i], t.args[0]); err != nil {
				return err.in(" key")
			}
			if err := w.matches(n.items[i+1], t.args[1]); err != nil {
				return err.in("[" + n.items[i].brief() + "]")
			}
		}
		return nil
	case "Tuple":
		if n.kind != pickleTuple || len(n.items) != len(t.args) {
			return mismatch(n, t)
		}
		for i, item := range n.items {
			if err := w.matches(item, t.args[i]); err != nil {
				return err.in(fmt.Sprintf("[%d]", i))
			}
		}
		return nil
	}
	if !strings.HasPrefix(t.name, "__torch__.") || w.code == nil {
		return w.plainValue(n)
	}
	return w.matchesNamed(n, t)
}

func (w *pickleWalker) matchesNamed(n *pickleNode, t *scriptType) *typeError {
	cls := w.code.classes[t.name]
	if cls == nil {
		// Wrapped C++ classes may have abstract bases, which no file names.
		if n.kind != pickleObject || !scriptBuiltinClass(t.name) || !scriptBuiltinClass(n.str) {
			return mismatch(n, t)
		}
		return nil
	}
	ok := false
	switch cls.base {
	case "NamedTuple":
		if n.kind != pickleTuple || len(n.items) != len(cls.attrs) {
			return mismatch(n, t)
		}
		for i, a := range cls.attrs {
			if err := w.matches(n.items[i], a.typ); err != nil {
				return err.in("." + a.name)
			}
		}
		return nil
	case "Enum":
		ok = n.kind == pickleEnum && n.str == t.name
	case "Interface", "ModuleInterface":
		ok = n.kind == pickleObject
	default:
		ok = n.kind == pickleObject && n.str == t.name
	}
	if !ok {
		return mismatch(n, t)
	}
	return nil
}

// plainValue refuses the helpers of a pickle (functions, storages) where a
// value of any type may stand.
func (w *pickleWalker) plainValue(n *pickleNode) *typeError {
	visited := make(map[*pickleNode]bool)
	var visit func(n *pickleNode) *typeError
	visit = func(n *pickleNode) *typeError {
		switch n.kind {
		case pickleGlobal, pickleStorage, pickleHooks, pickleBlank:
			return &typeError{reason: fmt.Sprintf("got %s, want a value", n.brief())}
		case pickleTuple, pickleList, pickleDict, pickleObject:
			if visited[n] {
				return nil
			}
			visited[n] = true
			for _, item := range n.items {
				if err := visit(item); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return visit(n)
}

// scriptClass is a class as its source declares it.
type scriptClass struct {
	base     string // "Module", "NamedTuple", "Enum", "Interface", "ModuleInterface" or ""
	attrs    []scriptAttr
	index    map[string]int
	methods  map[string]bool
	hooks    []string // methods that run before and after forward
	setState bool
}

type scriptAttr struct {
	name string
	typ  *scriptType // nil for the members of an Enum
}

// scriptCode is what the sources in code/ declare.
type scriptCode struct {
	classes map[string]*scriptClass
	order   []string       // names of the classes as they were read
	lengths map[string]int // bytes of each source, by record name
}

// scriptBuiltinClass reports whether a class is C++ in libtorch or in an
// operator library, so that no source declares it.
func scriptBuiltinClass(name string) bool { return strings.HasPrefix(name, "__torch__.torch.classes.") }

func (c *scriptCode) checkClass(name string) error {
	if c.classes[name] == nil && !scriptBuiltinClass(name) {
		return fmt.Errorf("got class %s, which no source in code/ declares", name)
	}
	return nil
}

func (c *scriptCode) checkEnum(w *pickleWalker, name string, arg *pickleNode) error {
	cls := c.classes[name]
	if cls == nil || cls.base != "Enum" {
		return fmt.Errorf("got a call of %s, want an Enum class", name)
	}
	if arg.kind != pickleInt && arg.kind != pickleFloat && arg.kind != pickleString {
		return fmt.Errorf("enum %s: got %s, want a number or a string", name, arg.brief())
	}
	return nil
}

// checkObject compares an object's state with the attributes of its class.
// libtorch stores the values without a look at their types.
func (c *scriptCode) checkObject(w *pickleWalker, n *pickleNode) error {
	state := n.items[0]
	cls := c.classes[n.str]
	if cls == nil || cls.setState { // the state goes to __setstate__, which checks it
		if err := w.plainValue(state); err != nil {
			return fmt.Errorf("object of %s: %w", n.str, err)
		}
		return nil
	}
	if cls.base != "Module" && cls.base != "" {
		return fmt.Errorf("got an object of %s, which is a %s", n.str, cls.base)
	}
	if state.kind != pickleDict {
		return fmt.Errorf("object of %s: got %s as its state, want a dict", n.str, state.brief())
	}
	if len(state.items) != 2*len(cls.attrs) {
		return fmt.Errorf("object of %s: got %d attributes, want %d", n.str, len(state.items)/2, len(cls.attrs))
	}
	for i := 0; i < len(state.items); i += 2 {
		k, v := state.items[i], state.items[i+1]
		at, ok := cls.index[k.str]
		if k.kind != pickleString || !ok {
			return fmt.Errorf("object of %s: got attribute %s, which its class does not have", n.str, k.brief())
		}
		if err := w.matches(v, cls.attrs[at].typ); err != nil {
			return fmt.Errorf("object of %s: %w", n.str, err.in("."+k.str))
		}
	}
	return nil
}

const (
	maxSourceSize    = 16 << 20
	maxBracketDepth  = 100
	maxIndentation   = 200
	maxLineOperators = 400
)

// addSource reads the declarations of one source file. libtorch's own parser
// judges the code; here only what could hurt it is refused, and what the
// objects must look like is learned.
func (c *scriptCode) addSource(record, module, text string) error {
	if len(text) > maxSourceSize {
		return corrupt(record, "got a source of %d bytes, want at most %d", len(text), maxSourceSize)
	}
	blank, err := checkSourceText(record, text)
	if err != nil {
		return err
	}
	if err := checkAnnotations(record, blank); err != nil {
		return err
	}
	c.lengths[record] = len(text)
	var cls *scriptClass
	first := len(c.order)
	line := 0
	for s := range strings.SplitSeq(text, "\n") {
		line++
		fail := func(format string, args ...any) error {
			return corrupt(record, "line %d: %s", line, fmt.Sprintf(format, args...))
		}
		if rest, ok := strings.CutPrefix(s, "class "); ok {
			name, base, ok := cutClass(rest)
			if !ok {
				return fail("got %q, want a class", clip(s))
			}
			full := module + "." + name
			if c.classes[full] != nil {
				return fail("got class %s twice", full)
			}
			cls = &scriptClass{base: base, index: make(map[string]int), methods: make(map[string]bool)}
			c.classes[full] = cls
			c.order = append(c.order, full)
			continue
		}
		if s != "" && s[0] != ' ' && s[0] != '#' {
			if cls = nil; !strings.HasPrefix(s, "def ") && !strings.HasPrefix(s, "import ") && !strings.HasPrefix(s, "op_version_set = ") {
				return fail("got %q, want a class or a function", clip(s))
			}
		}
		if cls == nil || len(s) < 3 || s[:2] != "  " || s[2] == ' ' || s[2] == '#' {
			continue
		}
		if err := cls.addMember(s[2:]); err != nil {
			return fail("%v", err)
		}
	}
	for _, name := range c.order[first:] {
		for _, hook := range c.classes[name].hooks {
			if !c.classes[name].methods[hook] {
				return corrupt(record, "class %s: got hook %q, which is no method of it", name, clip(hook))
			}
		}
	}
	return nil
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "..."
	}
	return s
}

// cutClass splits "Name(Base):" and "Name:".
func cutClass(s string) (name, base string, ok bool) {
	s, ok = strings.CutSuffix(s, ":")
	if !ok {
		return "", "", false
	}
	if name, rest, found := strings.Cut(s, "("); found {
		base, ok = strings.CutSuffix(rest, ")")
		return name, base, ok && pickleIdentifier.MatchString(name) && pickleIdentifier.MatchString(base)
	}
	return s, "", pickleIdentifier.MatchString(s)
}

var (
	scriptMember = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*) : (.+)$`)
	scriptEnum   = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*) = ([-+]?[0-9][-+.0-9a-zA-Z]*|"([^"\\]|\\.)*"|'([^'\\]|\\.)*')$`)
	scriptQuoted = regexp.MustCompile(`"([^"]*)"`)
	scriptString = regexp.MustCompile(`"([^"\\]|\\.)*"|'([^'\\]|\\.)*'`)
	scriptLists  = regexp.MustCompile(`^__(parameters|buffers|forward_hooks|forward_pre_hooks)__ = \[("[^"]*", )*("[^"]*")?\]$`)
)

// addMember reads one line of a class body at its own indentation, in the
// forms that TorchScript writes. libtorch takes others for granted to be one of
// these, and follows a null pointer for "a : int" in an Enum.
func (cls *scriptClass) addMember(s string) error {
	unknown := func() error { return fmt.Errorf("got %q in a class, which TorchScript does not write", clip(s)) }
	if strings.HasPrefix(s, "def ") {
		name, _, _ := strings.Cut(s[len("def "):], "(")
		cls.methods[name] = true
		cls.setState = cls.methods["__setstate__"] && cls.methods["__getstate__"]
		if cls.base == "Enum" || cls.base == "NamedTuple" {
			return unknown()
		}
		return nil
	}
	if cls.base == "Enum" {
		m := scriptEnum.FindStringSubmatch(s)
		if m == nil {
			return unknown()
		}
		return cls.addAttr(m[1], nil)
	}
	if cls.base == "Interface" || cls.base == "ModuleInterface" {
		return unknown()
	}
	var name, typ string
	if rest, ok := strings.CutPrefix(s, `__annotations__["`); ok {
		before, after, ok0 := strings.Cut(rest, `"] = `)
		if !ok0 {
			return unknown()
		}
		name, typ = unquoteScript(before), after
	} else if m := scriptMember.FindStringSubmatch(s); m != nil {
		name, typ = m[1], m[2]
	} else {
		list := scriptLists.FindStringSubmatch(s)
		if list == nil && s != "__annotations__ = []" {
			return unknown()
		}
		if list != nil && strings.HasPrefix(list[1], "forward_") {
			for _, q := range scriptQuoted.FindAllStringSubmatch(s, -1) {
				cls.hooks = append(cls.hooks, q[1])
			}
		}
		return nil
	}
	typ, value, constant := strings.Cut(typ, " = ")
	t, err := parseScriptType(typ)
	if err != nil {
		return err
	}
	if t.name == "Final" { // a constant, written in the code and not in the pickle
		if !constant || cls.base == "NamedTuple" || !isLiteral(value) {
			return unknown()
		}
		return nil
	}
	if constant && cls.base != "NamedTuple" {
		return unknown()
	}
	return cls.addAttr(name, t)
}

// isLiteral tells whether the value of a constant is one: numbers, strings,
// names, tuples, lists and dicts. libtorch computes it while it loads, and a
// division by zero ends the process.
func isLiteral(s string) bool {
	if s == "" {
		return false
	}
	s = scriptString.ReplaceAllString(s, `""`)
	for i := range len(s) {
		switch ch := s[i]; {
		case strings.IndexByte("%/*@&|^~<>!=;", ch) >= 0:
			return false
		case ch == '+' || ch == '-':
			// A sign, or that of an exponent.
			if i > 0 && strings.IndexByte(" ([{,:", s[i-1]) < 0 && (s[i-1] != 'e' || i < 2 || (s[i-2] != '.' && (s[i-2] < '0' || s[i-2] > '9'))) {
				return false
			}
			if i > 1 && s[i-1] == ' ' && strings.IndexByte(",:([{", s[i-2]) < 0 {
				return false
			}
		case ch == '(' && i > 0 && isNameByte(s[i-1]):
			if !strings.HasSuffix(s[:i], "annotate") && !strings.HasSuffix(s[:i], "torch.device") {
				return false
			}
		}
	}
	return true
}

func (cls *scriptClass) addAttr(name string, t *scriptType) error {
	if _, ok := cls.index[name]; ok {
		return fmt.Errorf("got attribute %q twice", clip(name))
	}
	cls.index[name] = len(cls.attrs)
	cls.attrs = append(cls.attrs, scriptAttr{name, t})
	return nil
}

// unquoteScript undoes the escapes of a string literal that TorchScript wrote:
// the usual letters, and three octal digits for any other byte.
func unquoteScript(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		if at := strings.IndexByte(`abfnrtv`, s[i]); at >= 0 {
			b.WriteByte("\a\b\f\n\r\t\v"[at])
			continue
		}
		if i+2 < len(s) && s[i] >= '0' && s[i] <= '3' && isOctal(s[i+1]) && isOctal(s[i+2]) {
			b.WriteByte((s[i]-'0')<<6 | (s[i+1]-'0')<<3 | (s[i+2] - '0'))
			i += 2
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isOctal(c byte) bool { return c >= '0' && c <= '7' }

// checkSourceText refuses text that is not TorchScript's: bytes that are not
// UTF-8, control characters, unbalanced brackets, and nesting so deep that the
// recursive parser of libtorch would run out of stack. It returns the text with
// blanks in place of comments and of what is within strings.
func checkSourceText(record, text string) (string, error) {
	line := 1
	blank := []byte(text)
	fail := func(format string, args ...any) (string, error) {
		return "", corrupt(record, "line %d: %s", line, fmt.Sprintf(format, args...))
	}
	var open []byte
	operators, indent := 0, 0
	atStart := true
	for i := 0; i < len(text); i++ {
		ch := text[i]
		if atStart {
			if ch == ' ' {
				if indent++; indent > maxIndentation {
					return fail("got an indentation of more than %d", maxIndentation)
				}
				continue
			}
			atStart = false
		}
		switch {
		case ch == '\n':
			line, operators, indent, atStart = line+1, 0, 0, true
		case ch == '"' || ch == '\'':
			end, err := stringEnd(text, i)
			if err != nil {
				return fail("%v", err)
			}
			if !utf8.ValidString(text[i:end]) {
				return fail("got text that is not UTF-8")
			}
			line += strings.Count(text[i:end], "\n")
			for j := i + 1; j < end-1; j++ {
				blank[j] = ' '
			}
			i = end - 1
		case ch == '#':
			end := strings.IndexByte(text[i:], '\n')
			if end < 0 {
				end = len(text) - i
			}
			if !utf8.ValidString(text[i : i+end]) {
				return fail("got text that is not UTF-8")
			}
			for j := range end {
				blank[i+j] = ' '
			}
			i += end - 1
		case ch < ' ' || ch >= 0x7f:
			return fail("got byte %#02x outside of a string, want ASCII text", ch)
		case ch == '(' || ch == '[' || ch == '{':
			if ch == '[' && i+1 < len(text) && text[i+1] == ']' && i > 0 && isNameByte(text[i-1]) {
				return fail("got an empty index, want one")
			}
			if open = append(open, ch); len(open) > maxBracketDepth {
				return fail("got brackets nested deeper than %d", maxBracketDepth)
			}
		case ch == ')' || ch == ']' || ch == '}':
			if len(open) == 0 || closing[open[len(open)-1]] != ch {
				return fail("got %q without its opening bracket", ch)
			}
			open = open[:len(open)-1]
		case strings.IndexByte("+-*/%@&|^~<>=!.", ch) >= 0:
			operators++
		case ch == ',':
			operators = 0
		case ch == 'n' || ch == 'i' || ch == 'l': // not, if, lambda
			if strings.HasPrefix(text[i:], "not ") || strings.HasPrefix(text[i:], "if ") || strings.HasPrefix(text[i:], "lambda") {
				operators++
			}
		}
		// Operators, like brackets, nest in the parser. A comma ends the nesting.
		if operators > maxLineOperators {
			return fail("got more than %d operators without a comma", maxLineOperators)
		}
	}
	if len(open) != 0 {
		return fail("got %d brackets left open at the end", len(open))
	}
	return string(blank), nil
}

func isNameByte(c byte) bool {
	return c == '_' || c == ')' || c == ']' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

var (
	scriptDef   = regexp.MustCompile(`(?m)^ *def `)
	scriptLocal = regexp.MustCompile(`(?m)^ *[A-Za-z_][A-Za-z0-9_]* : ([^=\n]*) = `)
	scriptPrim  = regexp.MustCompile(`\bops\.prim\.([A-Za-z_][A-Za-z0-9_]*)`)
	scriptCast  = regexp.MustCompile(`\b(annotate|unchecked_cast|uninitialized)\(`)
)

// scriptNoOperator names nodes of graphs that libtorch makes itself, and that it
// makes of a call in the code without a look at what they need.
var scriptNoOperator = map[string]bool{"PythonOp": true}

// checkAnnotations parses every type in a source: of parameters, results,
// variables and casts. libtorch's parser of types trusts their form, and falls
// over "Optional[]".
func checkAnnotations(record, text string) error {
	fail := func(at int, format string, args ...any) error {
		return corrupt(record, "line %d: %s", 1+strings.Count(text[:at], "\n"), fmt.Sprintf(format, args...))
	}
	for _, m := range scriptDef.FindAllStringIndex(text, -1) {
		indent := m[1] - m[0] - len("def ")
		self, err := checkSignature(text[m[1]:], indent > 2)
		if err == nil && indent == 2 && self == "" {
			err = errors.New("got a method without self, want it first")
		}
		if err != nil {
			return fail(m[1], "%v", err)
		}
	}
	for _, m := range scriptPrim.FindAllStringSubmatchIndex(text, -1) {
		if name := text[m[2]:m[3]]; scriptNoOperator[name] {
			return fail(m[0], "got prim.%s, which is no operator that code can call", name)
		}
	}
	for _, m := range scriptLocal.FindAllStringSubmatchIndex(text, -1) {
		if _, err := parseScriptType(text[m[2]:m[3]]); err != nil {
			return fail(m[2], "%v", err)
		}
	}
	for _, m := range scriptCast.FindAllStringIndex(text, -1) {
		end := matching(text, m[1]-1)
		if end < 0 {
			return fail(m[1], "got a cast without end")
		}
		args := splitArguments(text[m[1]:end])
		if len(args) == 0 {
			return fail(m[1], "got a cast without a type")
		}
		if _, err := parseScriptType(strings.TrimSpace(args[0])); err != nil {
			return fail(m[1], "%v", err)
		}
	}
	return nil
}

// checkSignature checks what follows "def ": name(parameters) -> result:
// It returns the first parameter's name. A function within another, as
// torch.jit.fork makes it, has neither parameters nor a result.
func checkSignature(s string, nested bool) (self string, err error) {
	name, _, _ := strings.Cut(s, "(")
	end := matching(s, len(name))
	if !pickleIdentifier.MatchString(name) || end < 0 {
		return "", fmt.Errorf("got %q, want a function", clip(name))
	}
	result, _, _ := strings.Cut(s[end+1:], "\n")
	result, arrow := strings.CutPrefix(result, " -> ")
	result, colon := strings.CutSuffix(result, ":")
	if nested && colon && !arrow && result == "" && end == len(name)+1 {
		return "", nil
	}
	if !arrow || !colon {
		return "", fmt.Errorf("function %s: got %q, want -> and the type of its result", clip(name), clip(result))
	}
	if _, err := parseScriptType(result); err != nil {
		return "", fmt.Errorf("function %s: %w", clip(name), err)
	}
	for i, p := range splitArguments(s[len(name)+1 : end]) {
		p = strings.TrimSpace(p)
		param, typ, typed := strings.Cut(p, ":")
		typ, _, _ = strings.Cut(typ, "=")
		if i == 0 && p != "*" {
			self = param
		}
		switch {
		case p == "*" || !typed && i == 0 && pickleIdentifier.MatchString(p):
		case !typed || !pickleIdentifier.MatchString(param):
			return "", fmt.Errorf("function %s: got parameter %q, want a name and a type", clip(name), clip(p))
		default:
			if _, err := parseScriptType(strings.TrimSpace(typ)); err != nil {
				return "", fmt.Errorf("function %s: %w", clip(name), err)
			}
		}
	}
	return self, nil
}

// matching returns the offset of the bracket that closes the one at i, and -1
// for none.
func matching(s string, i int) int {
	depth := 0
	for ; i < len(s); i++ {
		switch s[i] {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// splitArguments splits at the commas outside of brackets. Strings are blank.
func splitArguments(s string) (args []string) {
	depth, from := 0, 0
	for i := range len(s) {
		switch s[i] {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth--
		case ',':
			if depth == 0 {
				args = append(args, s[from:i])
				from = i + 1
			}
		}
	}
	if strings.TrimSpace(s[from:]) != "" {
		args = append(args, s[from:])
	}
	return args
}

var closing = map[byte]byte{'(': ')', '[': ']', '{': '}'}

// stringEnd returns the offset behind the string literal that starts at i.
func stringEnd(text string, i int) (int, error) {
	quote := text[i : i+1]
	if strings.HasPrefix(text[i:], strings.Repeat(quote, 3)) {
		quote = text[i : i+3]
	}
	for j := i + len(quote); j < len(text); j++ {
		switch {
		case text[j] == '\\':
			j++
		case strings.HasPrefix(text[j:], quote):
			return j + len(quote), nil
		case text[j] == '\n' && len(quote) == 1:
			return 0, fmt.Errorf("got a string without end")
		}
	}
	return 0, fmt.Errorf("got a string without end")
}

// checkDebugTable checks a .debug_pkl, the table that maps code to the Python
// source it came from. libtorch reads it to word an error, and takes the
// indices and offsets in it as they come.
func checkDebugTable(record string, n *pickleNode, sourceLen int) error {
	fail := func(format string, args ...any) error { return corrupt(record, format, args...) }
	if n.kind != pickleTuple {
		return fail("got %s, want a tuple", n.brief())
	}
	var texts []*pickleNode
	rows := n
	if len(n.items) == 3 && n.items[0].kind == pickleString && n.items[0].str == "FORMAT_WITH_STRING_TABLE" {
		if n.items[1].kind != pickleTuple || len(n.items[1].items) == 0 {
			return fail("got %s, want a tuple of strings", n.items[1].brief())
		}
		texts, rows = n.items[1].items, n.items[2]
		for _, t := range texts {
			if t.kind != pickleString {
				return fail("got %s in the table of strings, want a string", t.brief())
			}
		}
	}
	if rows.kind != pickleTuple {
		return fail("got %s, want a tuple of rows", rows.brief())
	}
	lengths := make(map[*pickleNode]int64)
	last := int64(0)
	for i, row := range rows.items {
		if row.kind != pickleTuple || len(row.items) != 3 || row.items[0].kind != pickleInt ||
			row.items[1].kind != pickleTuple || row.items[2].kind != pickleInt {
			return fail("row %d: got %s, want an offset, a range and a tag", i, row.brief())
		}
		if at := row.items[0].num; at < last || at > int64(sourceLen) {
			return fail("row %d: got offset %d, want %d to %d", i, at, last, sourceLen)
		}
		last = row.items[0].num
		r := row.items[1].items
		if len(r) != 3 || r[0].kind != pickleTuple || r[1].kind != pickleInt || r[2].kind != pickleInt {
			return fail("row %d: got %s, want a source, a start and an end", i, row.items[1].brief())
		}
		length, ok := lengths[r[0]]
		if !ok {
			var err error
			if length, err = debugSourceLength(r[0], texts); err != nil {
				return fail("row %d: %v", i, err)
			}
			lengths[r[0]] = length
		}
		// Nodes that libtorch made itself have the range 0 to 1 of an empty source.
		if r[1].num < 0 || r[2].num < r[1].num || r[2].num > max(length, 1) {
			return fail("row %d: got range %d to %d, want it within a source of %d bytes", i, r[1].num, r[2].num, length)
		}
	}
	return nil
}

// debugSourceLength checks (lines, file name, first line), in which lines and
// name are indices into texts, or strings when there is no table.
func debugSourceLength(n *pickleNode, texts []*pickleNode) (int64, error) {
	if len(n.items) != 3 || n.items[2].kind != pickleInt || n.items[2].num < 0 || n.items[2].num > math.MaxInt32 {
		return 0, fmt.Errorf("got %s, want lines, a file name and a line number", n.brief())
	}
	lines, name := n.items[0], n.items[1]
	if texts == nil {
		if lines.kind != pickleString || (name.kind != pickleString && name.kind != pickleNone) {
			return 0, fmt.Errorf("got %s and %s, want the text and a file name", lines.brief(), name.brief())
		}
		return int64(len(lines.str)), nil
	}
	index := func(i *pickleNode) bool { return i.kind == pickleInt && i.num >= 0 && i.num < int64(len(texts)) }
	if lines.kind != pickleList || !index(name) {
		return 0, fmt.Errorf("got %s and %s, want lines and a file name of the %d strings", lines.brief(), name.brief(), len(texts))
	}
	var length int64
	for _, i := range lines.items {
		if !index(i) {
			return 0, fmt.Errorf("got line %s, want one of the %d strings", i.brief(), len(texts))
		}
		length += int64(len(texts[i.num].str))
	}
	return length, nil
}
