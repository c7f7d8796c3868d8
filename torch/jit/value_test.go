package jit_test

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
)

// call runs a method and closes its tensors at the test's end.
func call(t *testing.T, m *jit.Module, method string, args ...any) any {
	t.Helper()
	v, err := m.Call(context.Background(), method, args...)
	require.NoError(t, err)
	t.Cleanup(func() { torch.CloseAll(v) })
	return v
}

// floats reads a tensor of any floating dtype and strides.
func floats(t *testing.T, v any) []float32 {
	t.Helper()
	x, ok := v.(*torch.Tensor)
	require.True(t, ok, "got %T, want *torch.Tensor", v)
	f, err := x.CastTo(torch.Float32)
	require.NoError(t, err)
	defer f.Close()
	data, err := torch.CopyData[float32](f)
	require.NoError(t, err)
	return data
}

func TestScalarsBothWays(t *testing.T) {
	m := load(t, "scalars")
	assert.Equal(t, false, call(t, m, "bool_", true))
	assert.Equal(t, true, call(t, m, "bool_", false))
	for _, v := range []any{41, int8(41), int16(41), int32(41), int64(41), uint8(41), uint16(41), uint32(41), uint64(41), uint(41)} {
		assert.Equal(t, int64(42), call(t, m, "int_", v), "%T", v)
	}
	assert.Equal(t, int64(math.MaxInt64), call(t, m, "int_", int64(math.MaxInt64-1)))
	assert.Equal(t, int64(math.MinInt64+1), call(t, m, "int_", int64(math.MinInt64)))
	for _, v := range []any{0.25, float32(0.25)} {
		assert.Equal(t, 0.5, call(t, m, "float_", v), "%T", v)
	}
	assert.Equal(t, 6.0, call(t, m, "float_", 3), "an int is a float where one is asked for, as in Python")
	assert.Equal(t, math.Inf(-1), call(t, m, "float_", math.Inf(-1)))
	nan, ok := call(t, m, "float_", math.NaN()).(float64)
	assert.True(t, ok && math.IsNaN(nan))
	assert.Equal(t, "a!", call(t, m, "str_", "a"))
	assert.Nil(t, call(t, m, "none_"))
	assert.Equal(t, "True 3 0.5 x", call(t, m, "describe", true, 3, 0.5, "x"))

	type named string
	assert.Equal(t, "n!", call(t, m, "str_", named("n")), "types of the caller's own pass by their kind")

	for _, c := range []struct {
		method string
		arg    any
		want   string
	}{
		{"bool_", 1, "argument v: got int, want bool"},
		{"int_", 1.0, "argument v: got float, want int"},
		{"int_", true, "argument v: got bool, want int"},
		{"int_", nil, "argument v: got none, want int"},
		{"float_", "1", "argument v: got str, want float"},
		{"str_", 1, "argument v: got int, want str"},
		{"str_", []string{"a"}, "argument v: got list, want str"},
	} {
		_, err := m.Call(context.Background(), c.method, c.arg)
		assert.ErrorIs(t, err, torch.ErrInvalidArgument)
		assert.ErrorContains(t, err, c.want)
	}
	_, err := m.Call(context.Background(), "int_", uint64(math.MaxUint64))
	assert.ErrorIs(t, err, torch.ErrValue)
	for _, v := range []any{struct{}{}, func() {}, make(chan int), 1i, &struct{}{}, map[float64]int{}} {
		_, err := m.Call(context.Background(), "int_", v)
		assert.ErrorIs(t, err, torch.ErrValue, "%T", v)
	}
}

func TestListsBothWays(t *testing.T) {
	m := load(t, "lists")
	x, y := tensorOf(t, []float32{1, 2}), tensorOf(t, []float32{3, 4})

	assert.Equal(t, []float32{4, 6}, floats(t, call(t, m, "forward", []*torch.Tensor{x, y})))
	assert.Equal(t, []float32{4, 6}, floats(t, call(t, m, "forward", []any{x, y})), "a slice of any")
	assert.Equal(t, []float32{4, 6}, floats(t, call(t, m, "forward", [2]*torch.Tensor{x, y})), "an array")

	out, ok := call(t, m, "tensors", []*torch.Tensor{x, y}).([]*torch.Tensor)
	require.True(t, ok)
	require.Len(t, out, 2)
	assert.Equal(t, []float32{2, 3}, floats(t, out[0]))
	assert.Equal(t, []float32{4, 5}, floats(t, out[1]))

	assert.Equal(t, []bool{false, true}, call(t, m, "bools", []bool{true, false}))
	assert.Equal(t, []int64{2, -4}, call(t, m, "ints", []int{1, -2}))
	assert.Equal(t, []int64{2, -4}, call(t, m, "ints", []int32{1, -2}))
	assert.Equal(t, []float64{0.5, 1}, call(t, m, "floats", []float64{1, 2}))
	assert.Equal(t, []float64{0.5, 1}, call(t, m, "floats", []int{1, 2}), "ints for floats")
	assert.Equal(t, []string{"A", "üBER"}, call(t, m, "strings", []string{"a", "über"}), "TorchScript's upper knows ASCII only")
	assert.Equal(t, torch.List{[]int64{5, 6, 2}, []int64{0}}, call(t, m, "nested", [][]int{{5, 6}, {}}))

	for method, empty := range map[string]any{
		"tensors": []*torch.Tensor{}, "bools": []bool{}, "ints": []int64{}, "floats": []float64{}, "strings": []string{},
		"nested": torch.List{},
	} {
		assert.Equal(t, empty, call(t, m, method, empty), method)
		assert.Equal(t, empty, call(t, m, method, []any{}), method)
	}
	assert.Equal(t, []*torch.Tensor{}, call(t, m, "empty"))

	_, err := m.Call(context.Background(), "ints", []any{1, "2"})
	assert.ErrorIs(t, err, torch.ErrInvalidArgument)
	assert.ErrorContains(t, err, "got str, want int")
	_, err = m.Call(context.Background(), "forward", []*torch.Tensor{x, nil})
	assert.ErrorIs(t, err, torch.ErrInvalidArgument)
	assert.ErrorContains(t, err, "got none, want Tensor")
}

func TestDictsBothWays(t *testing.T) {
	m := load(t, "dicts")
	x, y := tensorOf(t, []float32{1, 2}), tensorOf(t, []float32{3, 4})

	out, ok := call(t, m, "forward", map[string]*torch.Tensor{"a": x, "b": y}).(map[string]any)
	require.True(t, ok)
	require.Len(t, out, 2)
	assert.Equal(t, []float32{2, 4}, floats(t, out["a_twice"]))
	assert.Equal(t, []float32{6, 8}, floats(t, out["b_twice"]))

	for _, in := range []any{map[int]*torch.Tensor{3: x, -1: y}, map[int64]any{3: x, -1: y}, map[int32]*torch.Tensor{3: x, -1: y}} {
		byInt, ok := call(t, m, "by_int", in).(map[int64]any)
		require.True(t, ok, "%T", in)
		require.Len(t, byInt, 2)
		assert.Equal(t, []float32{3, 6}, floats(t, byInt[4]))
		assert.Equal(t, []float32{-3, -4}, floats(t, byInt[0]))
	}
	lists, ok := call(t, m, "lists", map[string][]*torch.Tensor{"k": {x, y}}).(map[string]any)
	require.True(t, ok)
	assert.Equal(t, []float32{4, 6}, floats(t, lists["k"]))
	assert.Equal(t, map[string]any{"pi": 3.25, "e": 2.75}, call(t, m, "numbers"))
	assert.Equal(t, map[string]any{}, call(t, m, "forward", map[string]*torch.Tensor{}))

	_, err := m.Call(context.Background(), "forward", map[int]*torch.Tensor{1: x})
	assert.ErrorIs(t, err, torch.ErrInvalidArgument)
	_, err = m.Call(context.Background(), "forward", []*torch.Tensor{x})
	assert.ErrorContains(t, err, "got list, want Dict(str, Tensor)")
}

func TestTuplesAndNesting(t *testing.T) {
	x := tensorOf(t, []float32{1, 2})

	pair, ok := call(t, load(t, "tuple"), "forward", x).(torch.Tuple)
	require.True(t, ok)
	require.Len(t, pair, 2)
	assert.Equal(t, []float32{1, 2}, floats(t, pair[0]))
	assert.Equal(t, []float32{2, 3}, floats(t, pair[1]))

	point, ok := call(t, load(t, "namedtuple"), "forward", x).(torch.Tuple)
	require.True(t, ok, "a named tuple is a tuple")
	assert.Equal(t, []float32{-1, -2}, floats(t, point[1]))

	deep, ok := call(t, load(t, "nested"), "forward", x).(torch.Tuple)
	require.True(t, ok)
	require.Len(t, deep, 3)
	pairs, ok := deep[0].(torch.List)
	require.True(t, ok, "%T", deep[0])
	require.Len(t, pairs, 2)
	second, ok := pairs[1].(torch.Tuple)
	require.True(t, ok)
	assert.Equal(t, []float32{2, 4}, floats(t, second[0]))
	assert.Equal(t, int64(2), second[1])
	byName, ok := deep[1].(map[string]any)
	require.True(t, ok)
	a, ok := byName["a"].([]*torch.Tensor)
	require.True(t, ok)
	assert.Equal(t, []float32{2, 3}, floats(t, a[1]))
	b, ok := byName["b"].([]*torch.Tensor)
	require.True(t, ok)
	require.Len(t, b, 1)
	assert.Equal(t, []float32{0, 1}, floats(t, b[0]))
	assert.Equal(t, torch.Tuple{true, 0.5, "deep", nil}, deep[2])

	// What a walk over the value finds, in order.
	var found [][]float32
	torch.Tensors(deep, func(x *torch.Tensor) { found = append(found, floats(t, x)) })
	assert.Equal(t, [][]float32{{1, 2}, {2, 4}, {1, 2}, {2, 3}, {0, 1}}, found)
}

// TestDetectionValues is a detector's signature: List[Tensor] in, and
// Tuple[Dict[str, Tensor], List[Dict[str, Tensor]]] out.
func TestDetectionValues(t *testing.T) {
	m := load(t, "detections")
	image, err := torch.Ones([]int64{3, 4, 6}, torch.TensorOptions{})
	require.NoError(t, err)
	defer image.Close()
	half, err := torch.Full([]int64{3, 8, 2}, 0.5, torch.TensorOptions{})
	require.NoError(t, err)
	defer half.Close()

	for _, args := range [][]any{{[]*torch.Tensor{image, half}}, {[]*torch.Tensor{image, half}, nil}} {
		out, ok := call(t, m, "forward", args...).(torch.Tuple)
		require.True(t, ok)
		require.Len(t, out, 2)
		assert.Equal(t, map[string]any{}, out[0])
		found, ok := out[1].(torch.List)
		require.True(t, ok, "%T", out[1])
		require.Len(t, found, 2)
		first, ok := found[0].(map[string]any)
		require.True(t, ok)
		assert.Equal(t, []float32{0, 0, 6, 4}, floats(t, first["boxes"]))
		labels, ok := first["labels"].(*torch.Tensor)
		require.True(t, ok)
		assert.Equal(t, torch.Int64, labels.DType())
		second, ok := found[1].(map[string]any)
		require.True(t, ok)
		assert.Equal(t, []float32{0.5}, floats(t, second["scores"]))
		assert.Equal(t, []float32{2}, floats(t, second["labels"]))
	}

	target := map[string]*torch.Tensor{"boxes": image}
	out, ok := call(t, m, "forward", []*torch.Tensor{image}, []map[string]*torch.Tensor{target, target}).(torch.Tuple)
	require.True(t, ok)
	losses, ok := out[0].(map[string]any)
	require.True(t, ok)
	assert.Equal(t, []float32{2}, floats(t, losses["count"]))

	empty, ok := call(t, m, "forward", []*torch.Tensor{}).(torch.Tuple)
	require.True(t, ok)
	assert.Equal(t, torch.List{}, empty[1])
}

func TestOptionals(t *testing.T) {
	m := load(t, "optionals")
	x, bias := tensorOf(t, []float32{1, 2}), tensorOf(t, []float32{10, 20})
	assert.Equal(t, []float32{2, 4}, floats(t, call(t, m, "forward", x)))
	assert.Equal(t, []float32{2, 4}, floats(t, call(t, m, "forward", x, nil)))
	assert.Equal(t, []float32{12, 24}, floats(t, call(t, m, "forward", x, bias)))
	assert.Equal(t, []float32{13, 26}, floats(t, call(t, m, "forward", x, bias, 3)))
	assert.Equal(t, []float32{2, 4}, floats(t, call(t, m, "forward", x, (*torch.Tensor)(nil))), "a nil tensor is None")
	assert.Nil(t, call(t, m, "maybe", x, false))
	assert.Equal(t, []float32{1, 2}, floats(t, call(t, m, "maybe", x, true)))
	assert.Equal(t, int64(-1), call(t, m, "ints", nil))
	assert.Equal(t, int64(7), call(t, m, "ints", 7))
	_, err := m.Call(context.Background(), "ints", "7")
	assert.ErrorIs(t, err, torch.ErrInvalidArgument)
}

func TestStrings(t *testing.T) {
	m := load(t, "strings")
	for _, s := range []string{"", "plain", "Grüße, 世界 🌍", "a\x00b", strings.Repeat("ü", 70000)} {
		assert.Equal(t, s, call(t, m, "forward", s))
	}
	assert.Equal(t, "Grüße, 世界 🌍", call(t, m, "greeting"))
	// What is not UTF-8 comes out with the replacement character, byte by byte.
	for in, want := range map[string]string{
		"\xff": "\uFFFD", "a\x80b": "a\uFFFDb", "\xc3": "\uFFFD", "\xc0\xaf": "\uFFFD\uFFFD",
		"\xed\xa0\x80": "\uFFFD\uFFFD\uFFFD", "\xf4\x90\x80\x80": "\uFFFD\uFFFD\uFFFD\uFFFD", "\xe4\xb8\xad\xe4": "中\uFFFD",
		"\xe0\x80\x80": "\uFFFD\uFFFD\uFFFD", "\xf0\x80\x80\x80": "\uFFFD\uFFFD\uFFFD\uFFFD", "\xf8\x88": "\uFFFD\uFFFD",
	} {
		assert.Equal(t, want, call(t, m, "forward", in), "%q", in)
	}
}

// TestUnsupportedValues asks for values that have no place in Go: the error names the kind, and what was
// made for the answer so far is freed.
func TestUnsupportedValues(t *testing.T) {
	m := load(t, "unsupported")
	x := tensorOf(t, []float32{1, 2})
	for method, kind := range map[string]string{
		"device": "Device", "complex_": "ComplexDouble", "object": "Object", "nested": "Device",
	} {
		v, err := m.Call(context.Background(), method, x)
		assert.ErrorIs(t, err, torch.ErrValue, method)
		assert.ErrorContains(t, err, "got a value of kind "+kind, method)
		assert.Nil(t, v)
	}
	// Tensors that Go cannot look into still pass through.
	sparse, ok := call(t, m, "sparse", x).(*torch.Tensor)
	require.True(t, ok)
	assert.Equal(t, []int64{2}, sparse.Shape())
	assert.Zero(t, sparse.DataPtr())
	err := torch.WithData(sparse, func([]float32) error { return nil })
	assert.ErrorIs(t, err, torch.ErrLayout)
	complex64s, ok := call(t, m, "complex_tensor", x).(*torch.Tensor)
	require.True(t, ok)
	assert.Equal(t, "dtype(9)", complex64s.DType().String())
	_, err = torch.CopyData[float32](complex64s)
	assert.ErrorIs(t, err, torch.ErrDType)
	assert.Contains(t, complex64s.String(), "wrong dtype")
}

// TestDTypes sends a tensor of each dtype through a module, and reads buffers of each.
func TestDTypes(t *testing.T) {
	m := load(t, "dtypes")
	x := tensorOf(t, []float64{-1.5, 0, 0.1})
	want := []torch.DType{
		torch.Bool, torch.Uint8, torch.Int8, torch.Int16, torch.Int32, torch.Int64,
		torch.Float16, torch.BFloat16, torch.Float32, torch.Float64,
	}
	buffers, ok := call(t, m, "forward", x).([]*torch.Tensor)
	require.True(t, ok)
	require.Len(t, buffers, len(want))
	cast, ok := call(t, m, "cast", x).([]*torch.Tensor)
	require.True(t, ok)
	require.Len(t, cast, len(want))
	for i, d := range want {
		assert.Equal(t, d, buffers[i].DType())
		assert.Equal(t, d, cast[i].DType())
	}
	ints, err := torch.CopyData[int64](buffers[5])
	require.NoError(t, err)
	assert.Equal(t, []int64{math.MinInt64, 0, math.MaxInt64}, ints)
	bools, err := torch.CopyData[bool](buffers[0])
	require.NoError(t, err)
	assert.Equal(t, []bool{true, false, true}, bools)
	brain, err := torch.CopyData[torch.Brain](buffers[7])
	require.NoError(t, err)
	assert.Equal(t, []float32{-1.5, 0, 0.100097656}, []float32{brain[0].Float32(), brain[1].Float32(), brain[2].Float32()})
	half, err := torch.CopyData[torch.Half](buffers[6])
	require.NoError(t, err)
	assert.Equal(t, []float32{-1.5, 0, 0.099975586}, []float32{half[0].Float32(), half[1].Float32(), half[2].Float32()})
}

// TestWrongCalls gives too few and too many arguments, and nesting without end.
func TestWrongCalls(t *testing.T) {
	ctx := context.Background()
	m := load(t, "methods")
	x := tensorOf(t, []float32{1, 2, 3, 4}, 2, 2)

	_, err := m.Forward(ctx)
	assert.ErrorIs(t, err, torch.ErrInvalidArgument)
	assert.ErrorContains(t, err, "forward: got 0 arguments, want one for x (forward(")
	_, err = m.Forward(ctx, x, x, x)
	assert.ErrorIs(t, err, torch.ErrInvalidArgument)
	assert.ErrorContains(t, err, "forward: got 3 arguments, want at most 1 (forward(")
	_, err = m.Call(ctx, "pick", x)
	assert.ErrorContains(t, err, "got 1 arguments, want one for index")
	_, err = m.Call(ctx, "missing", x)
	assert.ErrorIs(t, err, torch.ErrNotFound)
	assert.ErrorContains(t, err, `got "missing", want one of forward, blocks, pick, scaled`)

	type nest []any
	deep := nest{}
	for range 100 {
		deep = nest{deep}
	}
	_, err = m.Forward(ctx, deep)
	assert.ErrorIs(t, err, torch.ErrValue)
	assert.ErrorContains(t, err, "64 levels")
	loop := make([]any, 1)
	loop[0] = loop
	_, err = m.Forward(ctx, loop)
	assert.ErrorIs(t, err, torch.ErrValue)
}
