package jit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
)

func loadWith(t testing.TB, name string, precision torch.Precision) *jit.Module {
	t.Helper()
	m, err := jit.Load(modulePath(t, name), jit.LoadOptions{Precision: precision})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

func normal(t testing.TB, seed uint64, shape ...int64) *torch.Tensor {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	n := int64(1)
	for _, s := range shape {
		n *= s
	}
	data := make([]float32, n)
	for i := range data {
		data[i] = float32(random.NormFloat64())
	}
	return tensorOf(t, data, shape...)
}

// leaves are the tensors of a result, in order.
func leaves(v any) []*torch.Tensor {
	switch v := v.(type) {
	case *torch.Tensor:
		return []*torch.Tensor{v}
	case torch.Tuple:
		var all []*torch.Tensor
		for _, x := range v {
			all = append(all, leaves(x)...)
		}
		return all
	}
	return nil
}

// near demands the same shapes and dtypes, and numbers that differ by at most the tolerance times their range.
func near(t *testing.T, want, got any, tolerance float64, what string) {
	t.Helper()
	w, g := leaves(want), leaves(got)
	require.NotEmpty(t, w, what)
	require.Len(t, g, len(w), what)
	for i := range w {
		require.Equal(t, w[i].Shape(), g[i].Shape(), what)
		require.Equal(t, w[i].DType(), g[i].DType(), what)
		a, b := floats(t, w[i]), floats(t, g[i])
		low, high, worst := math.Inf(1), math.Inf(-1), 0.0
		for k := range a {
			low, high = min(low, float64(a[k])), max(high, float64(a[k]))
			worst = max(worst, math.Abs(float64(a[k])-float64(b[k])))
		}
		if len(a) == 0 {
			continue
		}
		require.Greater(t, high-low, 0.01, "%s: numbers that are all alike prove nothing", what)
		assert.LessOrEqual(t, worst, tolerance*(high-low), "%s: output %d", what, i)
	}
}

// Every method of testdata/modules/linears.pt, as it is and rewritten, on several shapes.
func TestPrecisionLinears(t *testing.T) {
	exact := load(t, "linears")
	square := normal(t, 3, 8, 8)
	for _, c := range []struct {
		precision torch.Precision
		tolerance float64
	}{{torch.PrecisionFast, 2e-6}, {torch.PrecisionBFloat16, 0.03}} {
		t.Run(c.precision.String(), func(t *testing.T) {
			fast := loadWith(t, "linears", c.precision)
			assert.Equal(t, c.precision, fast.Precision())
			counts := map[string]jit.RewrittenMethod{}
			for _, m := range fast.Rewritten().Methods {
				counts[m.Name] = m
			}
			for _, m := range exact.Methods() {
				t.Run(m.Name, func(t *testing.T) {
					for _, batch := range []int64{1, 2, 7} {
						args := []any{normal(t, uint64(batch), batch, 5, 8)}
						switch m.Name {
						case "forward": // a row and columns that make no patch
							args = []any{normal(t, uint64(batch), batch, 3, 9, 10)}
						case "given":
							args = append(args, square)
						case "attention", "weights":
							args = []any{normal(t, uint64(batch), batch, 3, 5, 8)}
						}
						for run := range 3 { // TorchScript records in its first run and optimises in the second
							near(t, call(t, exact, m.Name, args...), call(t, fast, m.Name, args...), c.tolerance,
								fmt.Sprintf("%s, batch %d, run %d", m.Name, batch, run))
						}
					}
				})
			}
			for _, want := range []jit.RewrittenMethod{
				{Name: "forward", Linear: 4, Fused: 4, Attention: 1, PatchEmbed: 1},
				{Name: "activations", Linear: 4, Fused: 3},
				{Name: "both", Linear: 2, Fused: 1},
				{Name: "broadcast", Linear: 3, Fused: 3},
				{Name: "promoted", Linear: 2, Fused: 1},
				{Name: "kept", Linear: 1},
				{Name: "written", Linear: 2},
				{Name: "scaled", Linear: 1, Fused: 2},
				{Name: "halves", Linear: 3},
				{Name: "weights"},
				{Name: "attention", Attention: 2},
				{Name: "one", Linear: 3, Attention: 2},
				{Name: "separate", Linear: 3, Attention: 1},
				{Name: "vector", Linear: 1},
				{Name: "given", Left: 1},
			} {
				assert.Equal(t, want, counts[want.Name])
			}
		})
	}
}

// More rows, columns and inner features than a tile, a panel and a block of any kernel hold, and fewer.
func TestPrecisionSizes(t *testing.T) {
	exact := load(t, "wide")
	for _, c := range []struct {
		precision torch.Precision
		tolerance float64
	}{{torch.PrecisionFast, 2e-6}, {torch.PrecisionBFloat16, 0.02}} {
		fast := loadWith(t, "wide", c.precision)
		assert.Equal(t, []jit.RewrittenMethod{{Name: "forward", Linear: 3, Fused: 3}, {Name: "spread", Left: 1}}, fast.Rewritten().Methods)
		one := normal(t, 5, 3, 800)
		near(t, call(t, exact, "spread", one), call(t, fast, "spread", one), c.tolerance, "a bias of size 1")
		for _, shape := range [][]int64{{800}, {1, 800}, {2, 3, 800}, {5, 800}, {3, 67, 800}, {259, 800}, {2, 300, 800}} {
			x := normal(t, 4, shape...)
			for range 2 {
				near(t, call(t, exact, "forward", x), call(t, fast, "forward", x), c.tolerance, fmt.Sprint(c.precision, shape))
			}
		}
		// What is wrong with a number stays in its row.
		data := make([]float32, 6*800)
		data[2*800+5], data[4*800+799] = float32(math.NaN()), float32(math.Inf(1))
		x := tensorOf(t, data, 6, 800)
		for i, v := range floats(t, call(t, fast, "forward", x).(*torch.Tensor)) {
			switch row := i / 30; row {
			case 2:
				assert.True(t, math.IsNaN(float64(v)), "%v: %d", c.precision, i)
			case 4: // libraries differ in what GELU makes of -Inf
			default:
				assert.False(t, math.IsNaN(float64(v)) || math.IsInf(float64(v), 0), "%v: %d", c.precision, i)
			}
		}
	}
}

// Convolutions of 3x3 for images and weights in either memory format, of sizes that are no multiples of a tile, and with
// answers of one pixel.
func TestPrecisionConvolutions(t *testing.T) {
	info, err := torch.RuntimeInfo()
	require.NoError(t, err)
	want := []jit.RewrittenMethod{
		{Name: "forward", Conv: 3, Fused: 1},
		{Name: "activations", Conv: 4, Fused: 3},
		{Name: "paddings", Conv: 3},
		{Name: "left", Conv: 1},
		{Name: "tokens", Linear: 2, Conv: 1, Fused: 1},
		{Name: "viewed", Conv: 1},
		{Name: "given"},
	}
	if info.CPUCapability != "AVX2" {
		for i := range want {
			want[i].Conv, want[i].Fused = 0, want[i].Linear/2
		}
	}
	weight := normal(t, 3, 8, 64, 3, 3)
	for _, c := range []struct {
		precision torch.Precision
		last      bool
		tolerance float64
	}{{torch.PrecisionFast, false, 2e-6}, {torch.PrecisionFast, true, 2e-6}, {torch.PrecisionBFloat16, false, 0.03}} {
		exact, err := jit.Load(modulePath(t, "conv3x3"), jit.LoadOptions{ChannelsLast: c.last})
		require.NoError(t, err)
		t.Cleanup(func() { exact.Close() })
		fast, err := jit.Load(modulePath(t, "conv3x3"), jit.LoadOptions{ChannelsLast: c.last, Precision: c.precision})
		require.NoError(t, err)
		t.Cleanup(func() { fast.Close() })
		assert.ElementsMatch(t, want, fast.Rewritten().Methods)
		for _, images := range []struct {
			shape   []int64
			methods []string
		}{
			{shape: []int64{1, 64, 5, 5}},
			{shape: []int64{2, 64, 6, 9}},
			{shape: []int64{3, 64, 10, 13}},
			{shape: []int64{1, 64, 33, 65}},
			{[]int64{64, 7, 6}, []string{"paddings", "left", "given"}},
			{[]int64{2, 64, 3, 3}, []string{"forward", "activations", "paddings", "tokens", "viewed"}},
			{[]int64{1, 64, 1, 1}, []string{"tokens", "viewed"}},
		} {
			contiguous := normal(t, 1, images.shape...)
			for _, x := range []*torch.Tensor{contiguous, channelsLast(t, contiguous)} {
				for _, m := range exact.Methods() {
					if images.methods != nil && !slices.Contains(images.methods, m.Name) {
						continue
					}
					if c.last && m.Name == "viewed" { // as the view is not possible
						continue
					}
					args := []any{x}
					if m.Name == "given" {
						args = append(args, weight)
					}
					what := fmt.Sprint(c, m.Name, images.shape, x.Strides())
					for range 2 {
						a, b := call(t, exact, m.Name, args...), call(t, fast, m.Name, args...)
						near(t, a, b, c.tolerance, what)
						for i, y := range leaves(a) {
							assert.Equal(t, y.Strides(), leaves(b)[i].Strides(), what)
						}
					}
				}
			}
		}
		empty := tensorOf(t, []float32{}, 0, 64, 5, 5)
		near(t, call(t, exact, "forward", empty), call(t, fast, "forward", empty), 0, "no image")

		for what, x := range map[string]*torch.Tensor{"channels": normal(t, 1, 1, 56, 5, 5), "small": normal(t, 1, 1, 64, 2, 2)} {
			for _, m := range []*jit.Module{exact, fast} {
				_, err := m.Call(t.Context(), "forward", x)
				assert.Error(t, err, what)
			}
		}
		if c.last {
			continue
		}
		// What is wrong with a number stays near it.
		data := make([]float32, 64*20*20)
		for i := range data {
			data[i] = float32(i%13) / 13
		}
		data[3*400+10*20+11] = float32(math.NaN())
		for i, v := range floats(t, call(t, fast, "viewed", tensorOf(t, data, 1, 64, 20, 20)).(*torch.Tensor)) {
			near := max(abs(i%400/20-10), abs(i%20-11)) <= 1
			assert.Equal(t, near, math.IsNaN(float64(v)), "%v: %d", c, i)
		}
	}
}

// torchvision's RoIAlign on all threads: its bits, and its errors.
func TestPrecisionRoIAlign(t *testing.T) {
	exact, fast := load(t, "nms"), loadWith(t, "nms", torch.PrecisionFast)
	assert.Contains(t, fast.Rewritten().Methods, jit.RewrittenMethod{Name: "pool", RoIAlign: 1})
	x := normal(t, 1, 2, 5, 19, 23)
	for _, n := range []int{0, 1, 8, 37} {
		boxes := make([]float32, 0, 5*n)
		for i := range n {
			k := float32(i)
			boxes = append(boxes, float32(i%2), k/3, k/4, k/3+5+k/7, k/4+9)
		}
		for _, images := range []*torch.Tensor{x, channelsLast(t, x)} {
			rois := tensorOf(t, boxes, int64(n), 5)
			want, ok := call(t, exact, "pool", images, rois).(*torch.Tensor)
			require.True(t, ok)
			got, ok := call(t, fast, "pool", images, rois).(*torch.Tensor)
			require.True(t, ok)
			assert.Equal(t, want.Shape(), got.Shape())
			assert.Equal(t, floats(t, want), floats(t, got))
			if n == 37 {
				assert.NotEqual(t, floats(t, want)[:30], floats(t, want)[30*8:30*9])
			}
		}
	}
	for _, m := range []*jit.Module{exact, fast} {
		_, err := m.Call(t.Context(), "pool", x, normal(t, 1, 40, 4))
		assert.ErrorContains(t, err, "rois")
	}
}

func BenchmarkConv3x3(b *testing.B) {
	x := channelsLast(b, normal(b, 1, 1, 64, 128, 128))
	for _, precision := range []torch.Precision{torch.PrecisionExact, torch.PrecisionFast} {
		b.Run(precision.String(), func(b *testing.B) {
			m := loadWith(b, "conv3x3", precision)
			for b.Loop() {
				y, err := m.Call(b.Context(), "viewed", x)
				require.NoError(b, err)
				torch.CloseAll(y)
			}
		})
	}
}

func abs(i int) int { return max(i, -i) }

// channelsLast is a copy of x in that memory format.
func channelsLast(t testing.TB, x *torch.Tensor) *torch.Tensor {
	t.Helper()
	there, back := []int64{0, 2, 3, 1}, []int64{0, 3, 1, 2}
	if len(x.Shape()) == 3 {
		there, back = []int64{1, 2, 0}, []int64{2, 0, 1}
	}
	moved, err := x.Permute(there...)
	require.NoError(t, err)
	last, err := moved.Contiguous()
	require.NoError(t, err)
	y, err := last.Permute(back...)
	require.NoError(t, err)
	t.Cleanup(func() { torch.CloseAll(moved, last, y) })
	return y
}

// The same on lower instruction sets, as ATen and oneDNN are told to use.
func TestPrecisionInstructionSets(t *testing.T) {
	program, err := os.Executable()
	require.NoError(t, err)
	environments := [][]string{
		{"ATEN_CPU_CAPABILITY=avx2"},
		{"ATEN_CPU_CAPABILITY=default"},
		{"ATEN_CPU_CAPABILITY=default", "ONEDNN_MAX_CPU_ISA=SSE41"},
	}
	if testing.Short() { // under a sanitizer they take minutes
		environments = environments[:1]
	}
	for _, env := range environments {
		cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestPrecision(Linears|Sizes|Convolutions|EmptyBatch)$", "-test.v")
		cmd.Env = append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%v: %s", env, out)
		assert.Equal(t, 4, strings.Count(string(out), "\n--- PASS: TestPrecision"), "%v", env)
	}
}

func TestPrecisionEmptyBatch(t *testing.T) {
	exact, fast := load(t, "linears"), loadWith(t, "linears", torch.PrecisionFast)
	x := tensorOf(t, []float32{}, 0, 5, 8)
	for _, method := range []string{"both", "kept", "activations"} {
		near(t, call(t, exact, method, x), call(t, fast, method, x), 0, method)
	}
}

// A shape that does not fit is an error of the call's, as it is without a rewrite.
func TestPrecisionWrongShape(t *testing.T) {
	fast := loadWith(t, "linears", torch.PrecisionFast)
	x := normal(t, 1, 2, 5, 9)
	_, err := fast.Call(t.Context(), "both", x)
	require.ErrorContains(t, err, "9")
	assert.NotErrorIs(t, err, torch.ErrPrecision)
}

func TestPrecisionTogether(t *testing.T) {
	exact, fast := load(t, "linears"), loadWith(t, "linears", torch.PrecisionFast)
	clone, err := fast.Clone()
	require.NoError(t, err)
	require.NoError(t, fast.Close())
	t.Cleanup(func() { clone.Close() })
	assert.Equal(t, torch.PrecisionFast, clone.Precision())
	x := normal(t, 1, 2, 5, 8)
	want := call(t, exact, "both", x)
	var wait sync.WaitGroup
	results := make([]any, 32)
	errs := make([]error, len(results))
	for i := range results {
		wait.Go(func() { results[i], errs[i] = clone.Call(t.Context(), "both", x) })
	}
	wait.Wait()
	for i, got := range results {
		require.NoError(t, errs[i])
		near(t, want, got, 2e-6, "both")
		torch.CloseAll(got)
	}
}

// What cannot be done with a rewritten module says so.
func TestPrecisionRefuses(t *testing.T) {
	m := loadWith(t, "linears", torch.PrecisionFast)
	method, err := m.Method("both")
	require.NoError(t, err)
	x := normal(t, 1, 2, 5, 8)
	for what, f := range map[string]func() error{
		"parameters": func() error { _, err := m.NamedParameters(); return err },
		"buffers":    func() error { _, err := m.NamedBuffers(); return err },
		"attribute":  func() error { _, err := m.Attribute("gamma"); return err },
		"set":        func() error { return m.SetAttribute("gamma", x) },
		"to":         func() error { return m.To(torch.CPU) },
		"cast":       func() error { return m.CastTo(torch.BFloat16) },
		"save":       func() error { _, err := m.Bytes(nil); return err },
		"train":      func() error { return m.Train(true) },
		"grad": func() error {
			_, err := method.CallWith(t.Context(), torch.CallOptions{Mode: torch.Grad}, x)
			return err
		},
		"autocast": func() error {
			_, err := method.CallWith(t.Context(), torch.CallOptions{Autocast: torch.BFloat16}, x)
			return err
		},
		"dtype": func() error {
			_, err := jit.Load(modulePath(t, "linears"), jit.LoadOptions{Precision: torch.PrecisionFast, DType: torch.BFloat16})
			return err
		},
		"cuda": func() error {
			_, err := jit.Load(modulePath(t, "linears"), jit.LoadOptions{Precision: torch.PrecisionFast, Device: torch.Device{Type: "cuda"}})
			return err
		},
	} {
		err := f()
		if what == "cuda" && !torch.IsCUDAAvailable() {
			assert.Error(t, err, what)
			continue
		}
		assert.ErrorIs(t, err, torch.ErrPrecision, what)
	}
	assert.NoError(t, m.Eval())
	_, err = jit.Load(modulePath(t, "linears"), jit.LoadOptions{Precision: 7})
	assert.ErrorIs(t, err, torch.ErrInvalidArgument)
}

// Modules that hold state, raise, or give other things than tensors do what they did.
func TestPrecisionOtherModules(t *testing.T) {
	x := tensorOf(t, []float32{1, 2, 3, 4}, 2, 2)
	for _, name := range []string{"identity", "add", "tuple", "nested", "scalars", "counter", "raises", "methods", "norm", "attributes", "memory", "unsupported"} {
		t.Run(name, func(t *testing.T) {
			exact, fast := load(t, name), loadWith(t, name, torch.PrecisionFast)
			for i, m := range exact.Methods() {
				assert.Equal(t, m.Name, fast.Methods()[i].Name)
				assert.True(t, m.Stateful || !fast.Methods()[i].Stateful) // evaluation can write less
			}
			args := []any{x}
			if name == "add" {
				args = append(args, x)
			}
			for range 3 {
				want, wantErr := exact.Call(t.Context(), "forward", args...)
				got, gotErr := fast.Call(t.Context(), "forward", args...)
				require.Equal(t, wantErr == nil, gotErr == nil, "%v, %v", wantErr, gotErr)
				assert.Equal(t, fmt.Sprintf("%T", want), fmt.Sprintf("%T", got))
				for i, w := range leaves(want) {
					assert.Equal(t, floats(t, w), floats(t, leaves(got)[i]))
				}
				torch.CloseAll(want, got)
			}
		})
	}
}

// precisionChild opens MKL's fast path, with which Python's bits cannot be had on another processor than Intel's.
func precisionChild() error {
	if err := torch.Init(torch.Config{Device: "cpu", IntraOpThreads: 1, MKLFastPath: true}); err != nil {
		return err
	}
	possible, err := torch.ExactPossible()
	if err != nil {
		return err
	}
	m, err := childModule("linears")
	if possible != (err == nil) || err != nil && !errors.Is(err, torch.ErrPrecision) {
		return fmt.Errorf("exact possible: %v, got %w", possible, err)
	}
	m.Close()
	m, err = jit.Load(filepath.Join(os.Getenv(modulesName), "linears.pt"), jit.LoadOptions{Precision: torch.PrecisionFast})
	if err != nil {
		return err
	}
	defer m.Close()
	data := make([]float32, 2*5*8)
	for i := range data {
		data[i] = float32(i%7) - 3
	}
	x, err := torch.NewTensor(data, 2, 5, 8)
	if err != nil {
		return err
	}
	defer x.Close()
	answer, err := m.Call(context.Background(), "both", x)
	if err != nil {
		return err
	}
	defer torch.CloseAll(answer)
	values, err := torch.CopyData[float32](answer.(*torch.Tensor))
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"possible": possible, "values": values})
}

// With MKL's fast path Exact is refused, except where it changes nothing, and Fast gives nearly the same numbers.
func TestPrecisionWithMKLFastPath(t *testing.T) {
	out := testmain.RunChild(t, "precision", modulesName+"="+filepath.Dir(modulePath(t, "linears")))
	var got struct {
		Possible bool
		Values   []float32
	}
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	cpu, err := os.ReadFile("/proc/cpuinfo")
	require.NoError(t, err)
	assert.Equal(t, strings.Contains(string(cpu), "GenuineIntel"), got.Possible)
	data := make([]float32, 2*5*8)
	for i := range data {
		data[i] = float32(i%7) - 3
	}
	want := call(t, load(t, "linears"), "both", tensorOf(t, data, 2, 5, 8))
	near(t, want, tensorOf(t, got.Values, 2, 5, 8), 2e-6, "both")
}

func TestParsePrecision(t *testing.T) {
	for _, p := range []torch.Precision{torch.PrecisionExact, torch.PrecisionFast, torch.PrecisionBFloat16} {
		got, err := torch.ParsePrecision(p.String())
		require.NoError(t, err)
		assert.Equal(t, p, got)
		text, err := p.MarshalText()
		require.NoError(t, err)
		assert.Equal(t, p.String(), string(text))
	}
	_, err := torch.ParsePrecision("quick")
	assert.ErrorIs(t, err, torch.ErrInvalidArgument)
	_, err = torch.Precision(9).MarshalText()
	assert.ErrorIs(t, err, torch.ErrInvalidArgument)
}
