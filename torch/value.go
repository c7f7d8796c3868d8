package torch

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"sync"

	"github.com/torchvit/torchvit/cgo"
)

// Tuple is a tuple of TorchScript.
type Tuple []any

// List is a list of TorchScript whose elements are neither all tensors, nor bools, ints, floats or
// strings; those come as []*Tensor, []bool, []int64, []float64 and []string.
type List []any

// Kwargs, as the last argument of a call, holds arguments by name.
type Kwargs map[string]any

// encoder writes Go values as nodes and keeps the tensors among them in use.
type encoder struct {
	nodes []cgo.Node
	text  []byte
	held  []*Tensor
	numel int64 // of all tensors together
}

var encoders = sync.Pool{New: func() any { return new(encoder) }}

func newEncoder() *encoder { return encoders.Get().(*encoder) }

func (e *encoder) release() {
	for i, t := range e.held {
		t.h.Release()
		e.held[i] = nil
	}
	clear(e.nodes)
	*e = encoder{nodes: e.nodes[:0], text: e.text[:0], held: e.held[:0]}
	encoders.Put(e)
}

func (e *encoder) node(kind int32, count int) *cgo.Node {
	e.nodes = append(e.nodes, cgo.Node{Kind: kind, Count: int32(count)})
	return &e.nodes[len(e.nodes)-1]
}

func (e *encoder) string(s string) {
	e.node(cgo.KindString, len(s)).I = int64(len(e.text))
	e.text = append(e.text, s...)
}

func (e *encoder) tensor(t *Tensor) error {
	if t == nil {
		e.node(cgo.KindNone, 0)
		return nil
	}
	raw, ok := t.h.Acquire()
	if !ok {
		return fmt.Errorf("tensor: %w", ErrClosed)
	}
	e.held = append(e.held, t)
	e.node(cgo.KindTensor, 0).Tensor = raw
	e.numel += t.size
	return nil
}

func (e *encoder) bool(b bool) {
	n := e.node(cgo.KindBool, 0)
	if b {
		n.I = 1
	}
}

func (e *encoder) int(i int64)     { e.node(cgo.KindInt, 0).I = i }
func (e *encoder) float(f float64) { e.node(cgo.KindFloat, 0).F = f }

func (e *encoder) value(v any, depth int) error {
	if depth > 64 {
		return fmt.Errorf("%w: got more than 64 levels of nesting", ErrValue)
	}
	switch v := v.(type) {
	case nil:
		e.node(cgo.KindNone, 0)
	case *Tensor:
		return e.tensor(v)
	case bool:
		e.bool(v)
	case int:
		e.int(int64(v))
	case int64:
		e.int(v)
	case float64:
		e.float(v)
	case float32:
		e.float(float64(v))
	case string:
		e.string(v)
	case DType:
		e.int(int64(v) - 1) // c10::ScalarType
	case Device:
		e.string(v.String())
	case []*Tensor:
		e.node(cgo.KindList, len(v))
		for _, t := range v {
			if err := e.tensor(t); err != nil {
				return err
			}
		}
	case Tuple:
		e.node(cgo.KindTuple, len(v))
		for _, x := range v {
			if err := e.value(x, depth+1); err != nil {
				return err
			}
		}
	default:
		return e.reflect(reflect.ValueOf(v), depth)
	}
	return nil
}

// reflect writes the remaining kinds: sized numbers, slices, and maps with keys of strings or ints.
func (e *encoder) reflect(v reflect.Value, depth int) error {
	switch v.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.int(v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if v.Uint() > math.MaxInt64 {
			return fmt.Errorf("%w: got %d, want an int of 64 bits", ErrValue, v.Uint())
		}
		e.int(int64(v.Uint()))
	case reflect.Float32, reflect.Float64:
		e.float(v.Float())
	case reflect.Bool:
		e.bool(v.Bool())
	case reflect.String:
		e.string(v.String())
	case reflect.Slice, reflect.Array:
		e.node(cgo.KindList, v.Len())
		for i := range v.Len() {
			if err := e.value(v.Index(i).Interface(), depth+1); err != nil {
				return err
			}
		}
	case reflect.Map:
		keys := v.MapKeys()
		switch v.Type().Key().Kind() {
		case reflect.String:
			slices.SortFunc(keys, func(a, b reflect.Value) int { return compare(a.String(), b.String()) })
		case reflect.Int, reflect.Int64, reflect.Int32:
			slices.SortFunc(keys, func(a, b reflect.Value) int { return compare(a.Int(), b.Int()) })
		default:
			return fmt.Errorf("%w: got %s, want a map with keys of string or int", ErrValue, v.Type())
		}
		e.node(cgo.KindDict, len(keys))
		for _, k := range keys {
			if err := e.reflect(k, depth+1); err != nil {
				return err
			}
			if err := e.value(v.MapIndex(k).Interface(), depth+1); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("%w: got %s, want *torch.Tensor, bool, int, float, string, nil, torch.Tuple, a slice or a map", ErrValue, v.Type())
	}
	return nil
}

func compare[T string | int64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// decoder reads nodes that came from the shim; their tensors become owned here.
type decoder struct {
	nodes []cgo.Node
	text  string
	at    int
}

// decodeResult gives the value of a call: one plain node, or what is in more, which is freed.
func decodeResult(out *cgo.Node, more cgo.Values) any {
	if more.IsNil() {
		d := decoder{nodes: []cgo.Node{*out}}
		return d.value()
	}
	return DecodeValues(more)
}

// DecodeValues reads values of the shim and frees them. For packages that call cgo themselves.
func DecodeValues(v cgo.Values) any {
	nodes, text := cgo.ValuesRead(v)
	d := decoder{nodes: nodes, text: text}
	value := d.value()
	cgo.ValuesFree(v)
	return value
}

func (d *decoder) value() any {
	n := d.nodes[d.at]
	d.at++
	switch n.Kind {
	case cgo.KindTensor:
		return newTensor(n.Tensor, n.I)
	case cgo.KindBool:
		return n.I != 0
	case cgo.KindInt:
		return n.I
	case cgo.KindFloat:
		return n.F
	case cgo.KindString:
		return d.string(n)
	case cgo.KindTuple:
		t := make(Tuple, n.Count)
		for i := range t {
			t[i] = d.value()
		}
		return t
	case cgo.KindList:
		return d.list(n)
	case cgo.KindDict:
		return d.dict(n)
	}
	return nil
}

// string copies: the text is the shim's.
func (d *decoder) string(n cgo.Node) string {
	return string([]byte(d.text[n.I : n.I+int64(n.Count)]))
}

func (d *decoder) list(n cgo.Node) any {
	switch int32(n.I) {
	case cgo.KindTensor:
		return elements[*Tensor](d, n.Count)
	case cgo.KindBool:
		return elements[bool](d, n.Count)
	case cgo.KindInt:
		return elements[int64](d, n.Count)
	case cgo.KindFloat:
		return elements[float64](d, n.Count)
	case cgo.KindString:
		return elements[string](d, n.Count)
	}
	l := make(List, n.Count)
	for i := range l {
		l[i] = d.value()
	}
	return l
}

func elements[T any](d *decoder, count int32) []T {
	s := make([]T, count)
	for i := range s {
		s[i], _ = d.value().(T) // an undefined tensor comes as nil
	}
	return s
}

func (d *decoder) dict(n cgo.Node) any {
	if n.Count > 0 && d.nodes[d.at].Kind == cgo.KindInt {
		m := make(map[int64]any, n.Count)
		for range n.Count {
			k, _ := d.value().(int64)
			m[k] = d.value()
		}
		return m
	}
	m := make(map[string]any, n.Count)
	for range n.Count {
		k, _ := d.value().(string)
		m[k] = d.value()
	}
	return m
}

// Tensors calls f on every tensor inside a value, in order; maps in the order of their keys.
func Tensors(value any, f func(*Tensor)) {
	switch v := value.(type) {
	case *Tensor:
		if v != nil {
			f(v)
		}
	case []*Tensor:
		for _, t := range v {
			Tensors(t, f)
		}
	case Tuple:
		for _, x := range v {
			Tensors(x, f)
		}
	case List:
		for _, x := range v {
			Tensors(x, f)
		}
	case []any:
		for _, x := range v {
			Tensors(x, f)
		}
	case map[string]any:
		for _, k := range sortedKeys(v) {
			Tensors(v[k], f)
		}
	case map[int64]any:
		for _, k := range sortedKeys(v) {
			Tensors(v[k], f)
		}
	case map[string]*Tensor:
		for _, k := range sortedKeys(v) {
			Tensors(v[k], f)
		}
	}
}

func sortedKeys[K string | int64, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// CloseAll closes every tensor inside a value.
func CloseAll(values ...any) {
	for _, v := range values {
		Tensors(v, func(t *Tensor) { t.Close() })
	}
}
