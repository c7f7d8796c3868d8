package cgo_test

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
)

func TestMain(m *testing.M) {
	testmain.Run(m, torch.Config{Device: "cpu", LaneThreads: []int{1}})
}

var caller = cgo.Mode{Lane: -1}

func status(t *testing.T, err error) *cgo.Status {
	t.Helper()
	s, ok := errors.AsType[*cgo.Status](err)
	require.True(t, ok, "%v", err)
	return s
}

func newTensor(t *testing.T, shape ...int64) cgo.Tensor {
	t.Helper()
	x, err := cgo.TensorEmpty(shape, int32(torch.Float32), 0, 0, false)
	require.NoError(t, err)
	t.Cleanup(func() { cgo.TensorFree(x) })
	return x
}

func loadModule(t *testing.T, name string) cgo.Module {
	t.Helper()
	m, found, err := cgo.ModuleLoad(filepath.Join(testmain.Root(t), "testdata", "modules", name+".pt"), nil, -1, 0, nil, nil)
	require.NoError(t, err)
	cgo.ValuesFree(found)
	t.Cleanup(func() { cgo.ModuleFree(m) })
	return m
}

// TestMalformedNodes gives the shim nodes that no encoder writes: counts that lie, text that is not
// there, kinds that do not exist. Each is an error.
func TestMalformedNodes(t *testing.T) {
	x := newTensor(t, 2)
	identity, lists := loadModule(t, "identity"), loadModule(t, "lists")
	softmax, err := cgo.OperatorFind("aten::softmax")
	require.NoError(t, err)
	stack, err := cgo.OperatorFind("aten::stack")
	require.NoError(t, err)
	tensor := cgo.Node{Kind: cgo.KindTensor, Tensor: x}
	text := []byte("abc")
	for name, c := range map[string]struct {
		nodes []cgo.Node
		nargs int
		nkw   int
	}{
		"no nodes":            {nil, 1, 0},
		"fewer than counted":  {[]cgo.Node{tensor}, 2, 0},
		"nil tensor":          {[]cgo.Node{{Kind: cgo.KindTensor}}, 1, 0},
		"unknown kind":        {[]cgo.Node{{Kind: 99}}, 1, 0},
		"negative kind":       {[]cgo.Node{{Kind: -5}}, 1, 0},
		"negative count":      {[]cgo.Node{{Kind: cgo.KindList, Count: -1}}, 1, 0},
		"list past the end":   {[]cgo.Node{{Kind: cgo.KindList, Count: 1 << 30}, tensor}, 1, 0},
		"tuple past the end":  {[]cgo.Node{{Kind: cgo.KindTuple, Count: 3}, tensor}, 1, 0},
		"dict past the end":   {[]cgo.Node{{Kind: cgo.KindDict, Count: math.MaxInt32}}, 1, 0},
		"string outside":      {[]cgo.Node{{Kind: cgo.KindString, I: 2, Count: 9}}, 1, 0},
		"string before":       {[]cgo.Node{{Kind: cgo.KindString, I: -1, Count: 1}}, 1, 0},
		"string far":          {[]cgo.Node{{Kind: cgo.KindString, I: math.MaxInt64, Count: 2}}, 1, 0},
		"name is no string":   {[]cgo.Node{tensor, tensor, tensor}, 1, 1},
		"name without value":  {[]cgo.Node{tensor, {Kind: cgo.KindString, Count: 3}}, 1, 1},
		"negative nargs":      {[]cgo.Node{tensor}, -1, 0},
		"more than are used":  {[]cgo.Node{tensor, {Kind: cgo.KindInt}, tensor}, 2, 0},
		"many positional":     {[]cgo.Node{tensor}, 1000, 0},
		"negative nkwargs":    {[]cgo.Node{tensor, {Kind: cgo.KindInt}, tensor}, 2, -7},
		"deep past the limit": {deep(200), 1, 0},
	} {
		var out cgo.Node
		for _, op := range []cgo.Operator{softmax, stack} {
			more, err := cgo.OperatorCall(op, c.nodes, c.nargs, c.nkw, text, caller, &out)
			if assert.Error(t, err, "%s", name) {
				assert.Contains(t, []cgo.Code{cgo.InvalidArgument, cgo.Value}, status(t, err).Code, "%s: %v", name, err)
				assert.NotContains(t, err.Error(), "\n")
			} else {
				release(out, more)
			}
		}
		for _, m := range []cgo.Module{identity, lists} {
			if c.nkw != 0 || name == "more than are used" {
				continue
			}
			more, err := cgo.ModuleCall(m, 0, c.nodes, c.nargs, text, caller, &out)
			if assert.Error(t, err, "%s", name) {
				assert.Contains(t, []cgo.Code{cgo.InvalidArgument, cgo.Value}, status(t, err).Code, "%s: %v", name, err)
			} else {
				release(out, more)
			}
		}
	}
	// Lists of tensors.
	for name, nodes := range map[string][]cgo.Node{
		"no nodes":           nil,
		"no list":            {tensor},
		"negative count":     {{Kind: cgo.KindList, Count: -1}},
		"list past the end":  {{Kind: cgo.KindList, Count: math.MaxInt32}, tensor},
		"nil tensor":         {{Kind: cgo.KindList, Count: 1}, {Kind: cgo.KindTensor}},
		"a list in the list": {{Kind: cgo.KindList, Count: 1}, {Kind: cgo.KindList}},
	} {
		_, newErr := cgo.OptimizerNew(cgo.SGD, nodes)
		_, gradErr := cgo.Gradients(nodes, false, false, false, caller)
		_, clipErr := cgo.ClipGradNorm(nodes, 1, caller)
		for _, err := range []error{newErr, gradErr, clipErr, cgo.Backward(nodes, false, false, caller)} {
			if assert.Error(t, err, name) {
				assert.Equal(t, cgo.InvalidArgument, status(t, err).Code, "%s: %v", name, err)
			}
		}
	}
	one := []cgo.Node{{Kind: cgo.KindList, Count: 1}, tensor}
	_, err = cgo.OptimizerNew(7, one)
	assert.Equal(t, cgo.InvalidArgument, status(t, err).Code)
	o, err := cgo.OptimizerNew(cgo.SGD, one)
	require.NoError(t, err)
	defer cgo.OptimizerFree(o)
	assert.Error(t, cgo.OptimizerStep(o, []cgo.Group{{Count: 2}}, caller))
	assert.Error(t, cgo.OptimizerStep(o, []cgo.Group{{Count: -1}}, caller))
	assert.Error(t, cgo.OptimizerSetState(o, one, caller))
	// Any takes what its nodes say.
	require.NoError(t, cgo.ModuleSetAttribute(loadModule(t, "attributes"), "count", []cgo.Node{{Kind: cgo.KindInt, I: 5}}, nil))
	assert.Error(t, cgo.ModuleSetAttribute(loadModule(t, "attributes"), "count", nil, nil))
}

func deep(n int) []cgo.Node {
	nodes := make([]cgo.Node, n)
	for i := range nodes {
		nodes[i] = cgo.Node{Kind: cgo.KindList, Count: 1}
	}
	nodes[n-1] = cgo.Node{Kind: cgo.KindInt}
	return nodes
}

func release(out cgo.Node, more cgo.Values) {
	if !more.IsNil() {
		torch.CloseAll(torch.DecodeValues(more))
	} else if out.Kind == cgo.KindTensor {
		cgo.TensorFree(out.Tensor)
	}
}

func TestWrongModesLanesAndIndices(t *testing.T) {
	x := newTensor(t, 2)
	m := loadModule(t, "identity")
	nodes := []cgo.Node{{Kind: cgo.KindTensor, Tensor: x}}
	var out cgo.Node
	for _, method := range []int32{-1, 1, math.MaxInt32, math.MinInt32} {
		_, err := cgo.ModuleCall(m, method, nodes, 1, nil, caller, &out)
		assert.Equal(t, cgo.InvalidArgument, status(t, err).Code)
	}
	for _, mode := range []cgo.Mode{{Mode: 3, Lane: -1}, {Mode: -1, Lane: -1}, {Lane: 1}, {Lane: 99}} {
		_, err := cgo.ModuleCall(m, 0, nodes, 1, nil, mode, &out)
		assert.Equal(t, cgo.InvalidArgument, status(t, err).Code, "%+v", mode)
	}
	_, err := cgo.LaneThreads(7)
	assert.Equal(t, cgo.InvalidArgument, status(t, err).Code)
	n, err := cgo.LaneThreads(0)
	require.NoError(t, err)
	assert.Equal(t, int32(1), n)
	assert.Equal(t, cgo.InvalidArgument, status(t, cgo.LanesStart([]int32{1})).Code, "started already")

	for _, dtype := range []int32{0, -1, 1000, math.MinInt32} {
		_, err := cgo.TensorEmpty([]int64{1}, dtype, 0, 0, false)
		assert.Equal(t, cgo.DType, status(t, err).Code, "%d", dtype)
	}
	_, err = cgo.TensorEmpty([]int64{-1}, int32(torch.Float32), 0, 0, false)
	assert.Error(t, err)
	_, err = cgo.TensorEmpty([]int64{1}, int32(torch.Float32), 1, 0, false)
	assert.Error(t, err, "no CUDA here")
	_, err = cgo.TensorEmpty([]int64{1}, int32(torch.Float32), 77, 0, false)
	assert.Error(t, err, "no such device type")
	_, err = cgo.CUDADeviceCount()
	assert.Equal(t, cgo.Device, status(t, err).Code)
}

// TestDevicelessCPU moves a tensor to where it is: no copy, though the CPU was named with an index.
func TestDevicelessCPU(t *testing.T) {
	x := newTensor(t, 2)
	y, err := cgo.TensorTo(x, 0, 0, 0, false, false, caller)
	require.NoError(t, err)
	defer cgo.TensorFree(y)
	var a, b cgo.Meta
	require.NoError(t, cgo.TensorMeta(x, &a))
	require.NoError(t, cgo.TensorMeta(y, &b))
	assert.Equal(t, a, b)
	z, err := cgo.TensorTo(x, 0, 0, 0, false, true, caller)
	require.NoError(t, err)
	defer cgo.TensorFree(z)
	require.NoError(t, cgo.TensorMeta(z, &b))
	assert.NotEqual(t, a.Data, b.Data, "a copy was asked for")
}

// TestPins drains more tokens than fit at once, from many threads.
func TestPins(t *testing.T) {
	before := cgo.Live().Pins
	var pinner runtime.Pinner
	defer pinner.Unpin()
	data := new([4]float32)
	pinner.Pin(data)
	const n = 1000
	var group sync.WaitGroup
	for g := range 4 {
		group.Go(func() {
			for i := range n / 4 {
				x, err := cgo.TensorFromBlob(unsafe.Pointer(data), []int64{2, 2}, []int64{1, 2}, int32(torch.Float32), uint64(g*n/4+i))
				if assert.NoError(t, err) {
					cgo.TensorFree(x)
				}
			}
		})
	}
	group.Wait()
	assert.Equal(t, before+n, cgo.Live().Pins)
	assert.Equal(t, int64(n), cgo.PinsPending())
	seen := map[uint64]bool{}
	var tokens [64]uint64
	for {
		k := cgo.PinsDrain(tokens[:])
		if k == 0 {
			break
		}
		for _, token := range tokens[:k] {
			assert.False(t, seen[token])
			seen[token] = true
		}
	}
	assert.Len(t, seen, n)
	assert.Zero(t, cgo.PinsPending())
	assert.Equal(t, before, cgo.Live().Pins)
	assert.Zero(t, cgo.PinsDrain(nil))

	// An error gives the token back too.
	for _, dtype := range []int32{0, 1000} {
		_, err := cgo.TensorFromBlob(unsafe.Pointer(data), []int64{4}, nil, dtype, 77)
		require.Error(t, err)
		assert.Equal(t, 1, cgo.PinsDrain(tokens[:]))
		assert.Equal(t, uint64(77), tokens[0])
	}
	_, err := cgo.TensorFromBlob(unsafe.Pointer(data), []int64{-4}, nil, int32(torch.Float32), 78)
	require.Error(t, err)
	assert.Equal(t, 1, cgo.PinsDrain(tokens[:]))
	assert.Equal(t, uint64(78), tokens[0])
}

// TestStatus carries one line and the whole text, both valid UTF-8.
func TestStatus(t *testing.T) {
	before := cgo.Live()
	_, err := cgo.OperatorFind("aten::\xff\xfe")
	s := status(t, err)
	assert.Equal(t, cgo.NotFound, s.Code)
	assert.Equal(t, "operator: got \"aten::\uFFFD\uFFFD\", which no loaded library registers", s.Message)
	_, err = cgo.OperatorFind("aten::" + strings.Repeat("ü", 5000))
	s = status(t, err)
	assert.LessOrEqual(t, len(s.Message), 403)
	assert.True(t, strings.HasSuffix(s.Message, "ü..."), "cut between characters")
	assert.Greater(t, len(s.Detail), 10000)
	assert.Equal(t, before, cgo.Live())

	_, _, err = cgo.ModuleLoad(filepath.Join(t.TempDir(), "no\nfile"), nil, -1, 0, nil, nil)
	assert.NotContains(t, err.Error(), "\n")
	assert.NotContains(t, err.Error(), "Exception raised from", "no C++ backtrace")
}

// TestLoadFromMemory reads a module through a stream over Go's bytes.
func TestLoadFromMemory(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(testmain.Root(t), "testdata", "modules", "extra.pt"))
	require.NoError(t, err)
	names, text, err := torch.EncodeNodes([]string{"note.txt", "absent"})
	require.NoError(t, err)
	m, found, err := cgo.ModuleLoad("", data, -1, 0, names, text)
	require.NoError(t, err)
	defer cgo.ModuleFree(m)
	assert.Equal(t, map[string]any{"note.txt": "Grüße\n", "absent": ""}, torch.DecodeValues(found))
	for _, bad := range [][]byte{nil, {}, {1}, data[:len(data)/2], data[1:]} {
		_, _, err := cgo.ModuleLoad("", bad, -1, 0, nil, nil)
		assert.Error(t, err)
	}
}

// TestCounts: every kind of object is counted, and none is left.
func TestCounts(t *testing.T) {
	before := cgo.Live()
	x, err := cgo.TensorEmpty([]int64{1}, int32(torch.Float32), 0, 0, false)
	require.NoError(t, err)
	m, found, err := cgo.ModuleLoad(filepath.Join(testmain.Root(t), "testdata", "modules", "identity.pt"), nil, -1, 0, nil, nil)
	require.NoError(t, err)
	now := cgo.Live()
	assert.Equal(t, before.Tensors+1, now.Tensors)
	assert.Equal(t, before.Modules+1, now.Modules)
	assert.Equal(t, before.Values+1, now.Values)
	assert.Equal(t, before.Total()+3, now.Total())
	assert.Contains(t, now.String(), "modules 1")
	cgo.TensorFree(x)
	cgo.TensorFree(cgo.Tensor{})
	cgo.ModuleFree(m)
	cgo.ModuleFree(cgo.Module{})
	cgo.ValuesFree(found)
	cgo.ValuesFree(cgo.Values{})
	assert.Equal(t, before, cgo.Live())

	// Values that nobody read free their tensors.
	op, err := cgo.OperatorFind("aten::unbind")
	require.NoError(t, err)
	y := newTensor(t, 5)
	var out cgo.Node
	more, err := cgo.OperatorCall(op, []cgo.Node{{Kind: cgo.KindTensor, Tensor: y}}, 1, 0, nil, caller, &out)
	require.NoError(t, err)
	assert.Equal(t, before.Tensors+6, cgo.Live().Tensors)
	cgo.ValuesFree(more)
	assert.Equal(t, before.Tensors+1, cgo.Live().Tensors)
}
