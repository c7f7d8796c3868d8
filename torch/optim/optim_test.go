package optim_test

import (
	"context"
	"math"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/optim"
)

// parameter is a leaf of one dimension that the test's end closes.
func parameter(t testing.TB, name string, data ...float32) optim.Param {
	t.Helper()
	x, err := torch.NewTensor(data, int64(len(data)))
	require.NoError(t, err)
	t.Cleanup(func() { x.Close() })
	require.NoError(t, x.SetRequiresGrad(true))
	return optim.Param{Name: name, Tensor: x}
}

// addGrad adds to the parameter's gradient.
func addGrad(t testing.TB, p optim.Param, gradient ...float32) {
	t.Helper()
	y, err := torch.CallWith(t.Context(), torch.CallOptions{Mode: torch.Grad}, "aten::mul.Scalar", p.Tensor, 1)
	require.NoError(t, err)
	defer torch.CloseAll(y)
	g, err := torch.NewTensor(gradient, int64(len(gradient)))
	require.NoError(t, err)
	defer g.Close()
	require.NoError(t, torch.Backward(t.Context(), y.(*torch.Tensor), torch.BackwardOptions{Gradient: g}))
}

func values(t testing.TB, x *torch.Tensor) []float32 {
	t.Helper()
	data, err := torch.CopyData[float32](x)
	require.NoError(t, err)
	return data
}

// grad is the parameter's gradient, nil where there is none.
func grad(t testing.TB, p optim.Param) []float32 {
	t.Helper()
	g, err := p.Tensor.Grad()
	require.NoError(t, err)
	if g == nil {
		return nil
	}
	defer g.Close()
	return values(t, g)
}

// stateOf is the optimizer's state as numbers.
func stateOf(t testing.TB, o *optim.Optimizer) map[string][]float64 {
	t.Helper()
	state, err := o.State()
	require.NoError(t, err)
	defer torch.CloseAll(state)
	out := map[string][]float64{}
	for name, x := range state {
		d, err := x.CastTo(torch.Float64)
		require.NoError(t, err)
		out[name], err = torch.CopyData[float64](d)
		require.NoError(t, err)
		d.Close()
	}
	return out
}

func TestStep(t *testing.T) {
	a, b, frozen := parameter(t, "a", 1, 2), parameter(t, "b", 3), parameter(t, "frozen", 5)
	require.NoError(t, frozen.Tensor.SetRequiresGrad(false))
	o, err := optim.NewSGD([]optim.ParamGroup{
		{Params: []optim.Param{a, frozen}},
		{Params: []optim.Param{b}, LR: new(0.5), WeightDecay: new(2.0)},
	}, optim.SGDOptions{LR: 0.25, Momentum: 0.5})
	require.NoError(t, err)
	defer o.Close()
	assert.Equal(t, 2, o.Groups())
	assert.Equal(t, []float64{0.25, 0.5, 0, 0}, []float64{o.LR(0), o.LR(1), o.LR(2), o.LR(-1)})

	require.NoError(t, o.Step(t.Context()), "nothing has a gradient")
	assert.Equal(t, map[string][]float64{"lr": {0.25, 0.5}}, stateOf(t, o))

	addGrad(t, a, 4, 8)
	require.NoError(t, o.Step(t.Context()))
	assert.Equal(t, []float32{1 - 0.25*4, 2 - 0.25*8}, values(t, a.Tensor))
	assert.Equal(t, []float32{3}, values(t, b.Tensor))
	assert.Equal(t, map[string][]float64{"lr": {0.25, 0.5}, "momentum_buffer.a": {4, 8}}, stateOf(t, o))

	// The gradient stays until ZeroGrad, and a second Backward adds to it.
	addGrad(t, a, 4, 8)
	addGrad(t, b, 1)
	assert.Equal(t, []float32{8, 16}, grad(t, a))
	o.ScaleLR(0.5)
	o.SetLR(1, 0.125)
	o.SetLR(7, 1)
	require.NoError(t, o.Step(t.Context()))
	assert.Equal(t, []float32{0 - 0.125*(0.5*4+8), 0 - 0.125*(0.5*8+16)}, values(t, a.Tensor))
	assert.Equal(t, []float32{3 - 0.125*(1+2*3)}, values(t, b.Tensor), "with its own rate and weight decay")
	assert.Equal(t, []float64{0.125, 0.125}, stateOf(t, o)["lr"])
	require.NoError(t, o.ZeroGrad())
	assert.Nil(t, grad(t, a))
	assert.Nil(t, grad(t, b))
	assert.Equal(t, []float32{5}, values(t, frozen.Tensor))

	// A context that is done leaves everything as it is.
	addGrad(t, a, 1, 1)
	before := values(t, a.Tensor)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, o.Step(ended), context.Canceled)
	assert.Equal(t, before, values(t, a.Tensor))
}

func TestOptionsAreChecked(t *testing.T) {
	a, b := parameter(t, "a", 1), parameter(t, "b", 1)
	one := optim.Parameters([]optim.Param{a})
	adamw := func(groups []optim.ParamGroup, o optim.AdamOptions) func() (*optim.Optimizer, error) {
		return func() (*optim.Optimizer, error) { return optim.NewAdamW(groups, o) }
	}
	sgd := func(o optim.SGDOptions) func() (*optim.Optimizer, error) {
		return func() (*optim.Optimizer, error) { return optim.NewSGD(one, o) }
	}
	ctx := t.Context()
	computed, err := torch.CallWith(ctx, torch.CallOptions{Mode: torch.Grad}, "aten::exp", a.Tensor)
	require.NoError(t, err)
	defer torch.CloseAll(computed)
	inference, err := torch.CallTensor(ctx, "aten::exp", a.Tensor)
	require.NoError(t, err)
	defer inference.Close()
	whole, err := torch.NewTensor([]int64{1})
	require.NoError(t, err)
	defer whole.Close()
	closed, err := torch.NewTensor([]float32{1})
	require.NoError(t, err)
	closed.Close()
	again := optim.Param{Name: "again", Tensor: a.Tensor}
	of := func(name string, x *torch.Tensor) []optim.ParamGroup {
		return optim.Parameters([]optim.Param{{Name: name, Tensor: x}})
	}

	for text, c := range map[string]struct {
		make func() (*optim.Optimizer, error)
		want error
	}{
		"adamw: invalid argument: got no parameters":                                     {adamw(nil, optim.AdamOptions{}), torch.ErrInvalidArgument},
		"betas[1]: got 1, want 0 to less than 1":                                         {adamw(one, optim.AdamOptions{Betas: [2]float64{0.9, 1}}), torch.ErrInvalidArgument},
		"eps: got -1, want 0 and more":                                                   {adamw(one, optim.AdamOptions{Eps: -1}), torch.ErrInvalidArgument},
		"got a learning rate of NaN and a weight decay of 0.01":                          {adamw(one, optim.AdamOptions{LR: math.NaN()}), torch.ErrInvalidArgument},
		"got a learning rate of 0.001 and a weight decay of -1":                          {adamw(one, optim.AdamOptions{WeightDecay: new(-1.0)}), torch.ErrInvalidArgument},
		"momentum: got -0.1, want 0 and more":                                            {sgd(optim.SGDOptions{Momentum: -0.1}), torch.ErrInvalidArgument},
		"nesterov: got momentum 0 and dampening 0, want":                                 {sgd(optim.SGDOptions{Nesterov: true}), torch.ErrInvalidArgument},
		"nesterov: got momentum 0.9 and dampening 0.1":                                   {sgd(optim.SGDOptions{Nesterov: true, Momentum: 0.9, Dampening: 0.1}), torch.ErrInvalidArgument},
		`parameter "none": got a nil tensor`:                                             {adamw(of("none", nil), optim.AdamOptions{}), torch.ErrInvalidArgument},
		`got two parameters with the name "a"`:                                           {adamw([]optim.ParamGroup{{Params: []optim.Param{a, b}}, {Params: []optim.Param{a}}}, optim.AdamOptions{}), torch.ErrInvalidArgument},
		"parameter 1: some parameters appear in more than one":                           {adamw([]optim.ParamGroup{{Params: []optim.Param{a}}, {Params: []optim.Param{again}}}, optim.AdamOptions{}), torch.ErrInvalidArgument},
		"parameter 0: can't optimize a non-leaf Tensor":                                  {adamw(of("x", computed.(*torch.Tensor)), optim.AdamOptions{}), torch.ErrAutograd},
		"parameter 0: got a tensor made in inference mode, want an ordinary one":         {adamw(of("x", inference), optim.AdamOptions{}), torch.ErrAutograd},
		"parameter 0: got Long, want a floating dtype":                                   {adamw(of("x", whole), optim.AdamOptions{}), torch.ErrDType},
		"adamw: tensor: closed":                                                          {adamw(of("x", closed), optim.AdamOptions{}), torch.ErrClosed},
		"group 1: got a learning rate of -1 and a weight decay of 0.01, want 0 and more": {adamw([]optim.ParamGroup{{Params: []optim.Param{a}}, {Params: []optim.Param{b}, LR: new(-1.0)}}, optim.AdamOptions{}), torch.ErrInvalidArgument},
	} {
		o, err := c.make()
		require.ErrorIs(t, err, c.want, text)
		assert.ErrorContains(t, err, text)
		assert.Nil(t, o)
	}
}

// TestUseAfterClose: a closed optimizer and a nil one give errors, and the parameters stay.
func TestUseAfterClose(t *testing.T) {
	a := parameter(t, "a", 1, 2)
	addGrad(t, a, 1, 1)
	o, err := optim.NewAdamW(optim.Parameters([]optim.Param{a}), optim.AdamOptions{})
	require.NoError(t, err)
	require.NoError(t, o.Step(t.Context()))
	state, err := o.State()
	require.NoError(t, err)
	defer torch.CloseAll(state)
	require.NoError(t, o.Close())
	require.NoError(t, o.Close())
	for want, o := range map[error]*optim.Optimizer{torch.ErrClosed: o, torch.ErrInvalidArgument: nil} {
		_, err := o.State()
		assert.ErrorIs(t, err, want)
		assert.ErrorIs(t, o.Step(t.Context()), want)
		assert.ErrorIs(t, o.ZeroGrad(), want)
		assert.ErrorIs(t, o.LoadState(nil), want)
		assert.Zero(t, o.LR(1))
		o.SetLR(0, 1)
		o.ScaleLR(1)
	}
	require.NoError(t, (*optim.Optimizer)(nil).Close())
	assert.Equal(t, []float32{1, 1}, grad(t, a))
	assert.Len(t, values(t, state["exp_avg.a"]), 2, "what State gave lives on")

	for _, p := range []optim.Param{{Name: "nil"}, closed(t)} {
		_, err := optim.ClipGradNorm(t.Context(), []optim.Param{a, p}, 1)
		assert.Error(t, err)
		assert.Error(t, optim.ClipGradValue(t.Context(), []optim.Param{a, p}, 1))
	}
	assert.Equal(t, []float32{1, 1}, grad(t, a))
}

func closed(t testing.TB) optim.Param {
	t.Helper()
	p := parameter(t, "closed", 1)
	p.Tensor.Close()
	return p
}

// TestParametersMayGoFirst: the optimizer has references of its own.
func TestParametersMayGoFirst(t *testing.T) {
	a := parameter(t, "a", 1, 2)
	alias, err := a.Tensor.Alias()
	require.NoError(t, err)
	defer alias.Close()
	o, err := optim.NewSGD(optim.Parameters([]optim.Param{a}), optim.SGDOptions{LR: 1})
	require.NoError(t, err)
	defer o.Close()
	addGrad(t, a, 1, 1)
	a.Tensor.Close()
	require.NoError(t, o.Step(t.Context()))
	assert.Equal(t, []float32{0, 1}, values(t, alias))
}

func TestLoadStateIsChecked(t *testing.T) {
	a, b := parameter(t, "a", 1, 2), parameter(t, "b", 3)
	groups := optim.Parameters([]optim.Param{a, b})
	o, err := optim.NewAdam(groups, optim.AdamOptions{})
	require.NoError(t, err)
	defer o.Close()
	addGrad(t, a, 1, 2)
	require.NoError(t, o.Step(t.Context()))
	before := stateOf(t, o)
	assert.Equal(t, []float64{1}, before["step.a"])
	assert.NotContains(t, before, "step.b", "never stepped")

	fresh := func() map[string]*torch.Tensor {
		state, err := o.State()
		require.NoError(t, err)
		return state
	}
	number := func(v ...float64) *torch.Tensor {
		x, err := torch.NewTensor(v)
		require.NoError(t, err)
		return x
	}
	for text, change := range map[string]func(map[string]*torch.Tensor){
		"parameter a: got step, exp_avg, want step, exp_avg, exp_avg_sq": func(s map[string]*torch.Tensor) {
			s["exp_avg_sq.a"].Close()
			delete(s, "exp_avg_sq.a")
		},
		"got 1 entries that are of no parameter":     func(s map[string]*torch.Tensor) { s["exp_avg.c"] = number(1) },
		"got learning rates of 3 groups, want 1":     func(s map[string]*torch.Tensor) { s["lr"].Close(); s["lr"] = number(1, 2, 3) },
		"parameter 0: got a tensor of [3], want [2]": func(s map[string]*torch.Tensor) { s["exp_avg.a"].Close(); s["exp_avg.a"] = number(1, 2, 3) },
		"parameter 0: got a tensor of [1], want []":  func(s map[string]*torch.Tensor) { s["step.a"].Close(); s["step.a"] = number(1) },
	} {
		s := fresh()
		change(s)
		err := o.LoadState(s)
		torch.CloseAll(s)
		require.Error(t, err, text)
		assert.ErrorContains(t, err, text)
		assert.Equal(t, before, stateOf(t, o), "nothing changed")
	}

	// Of another kind; and an empty state starts anew.
	momentum, err := optim.NewSGD(groups, optim.SGDOptions{Momentum: 0.9})
	require.NoError(t, err)
	defer momentum.Close()
	s := fresh()
	assert.ErrorIs(t, momentum.LoadState(s), torch.ErrInvalidArgument)
	torch.CloseAll(s)
	require.NoError(t, o.LoadState(nil))
	assert.Equal(t, map[string][]float64{"lr": {0.001}}, stateOf(t, o))
}

// TestStateOfBFloat16 goes through float32, as a file does.
func TestStateOfBFloat16(t *testing.T) {
	x, err := torch.NewTensor([]float32{1, -2, 3})
	require.NoError(t, err)
	defer x.Close()
	half, err := x.CastTo(torch.BFloat16)
	require.NoError(t, err)
	defer half.Close()
	require.NoError(t, half.SetRequiresGrad(true))
	p := optim.Param{Name: "half", Tensor: half}
	o, err := optim.NewAdamW(optim.Parameters([]optim.Param{p}), optim.AdamOptions{})
	require.NoError(t, err)
	defer o.Close()
	loss, err := torch.CallWith(t.Context(), torch.CallOptions{Mode: torch.Grad}, "aten::dot", half, half)
	require.NoError(t, err)
	defer torch.CloseAll(loss)
	require.NoError(t, torch.Backward(t.Context(), loss.(*torch.Tensor), torch.BackwardOptions{}))
	require.NoError(t, o.Step(t.Context()))
	state, err := o.State()
	require.NoError(t, err)
	defer torch.CloseAll(state)
	assert.Equal(t, torch.BFloat16, state["exp_avg.half"].DType())
	before, file := stateOf(t, o), map[string]*torch.Tensor{}
	for name, x := range state {
		a, err := x.Numpy()
		require.NoError(t, err)
		file[name], err = torch.FromNumpy(a)
		require.NoError(t, err)
	}
	defer torch.CloseAll(file)
	require.NoError(t, o.LoadState(nil))
	require.NoError(t, o.LoadState(file))
	assert.Equal(t, before, stateOf(t, o))
	again, err := o.State()
	require.NoError(t, err)
	defer torch.CloseAll(again)
	assert.Equal(t, torch.BFloat16, again["exp_avg.half"].DType())
}

func TestClip(t *testing.T) {
	a, b, none := parameter(t, "a", 0, 0), parameter(t, "b", 0), parameter(t, "none", 0)
	all := []optim.Param{a, none, b}
	norm, err := optim.ClipGradNorm(t.Context(), all, 1)
	require.NoError(t, err)
	assert.Zero(t, norm, "nothing has a gradient")

	addGrad(t, a, 2, -3)
	addGrad(t, b, 6)
	norm, err = optim.ClipGradNorm(t.Context(), all, 100)
	require.NoError(t, err)
	assert.Equal(t, 7.0, norm)
	assert.Equal(t, []float32{2, -3}, grad(t, a), "below the limit: as it is")
	norm, err = optim.ClipGradNorm(t.Context(), all, 3.5)
	require.NoError(t, err)
	assert.Equal(t, 7.0, norm)
	assert.InDeltaSlice(t, []float32{1, -1.5}, grad(t, a), 1e-6)
	assert.InDeltaSlice(t, []float32{3}, grad(t, b), 1e-6)
	assert.Nil(t, grad(t, none))

	require.NoError(t, optim.ClipGradValue(t.Context(), all, 1.25))
	assert.InDeltaSlice(t, []float32{1, -1.25}, grad(t, a), 1e-6)
	assert.InDeltaSlice(t, []float32{1.25}, grad(t, b), 1e-6)

	addGrad(t, b, float32(math.Inf(1)))
	norm, err = optim.ClipGradNorm(t.Context(), all, 1)
	require.NoError(t, err)
	assert.True(t, math.IsInf(norm, 1))

	for _, limit := range []float64{-1, math.NaN()} {
		_, err = optim.ClipGradNorm(t.Context(), all, limit)
		assert.ErrorIs(t, err, torch.ErrInvalidArgument)
		assert.ErrorIs(t, optim.ClipGradValue(t.Context(), all, limit), torch.ErrInvalidArgument)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = optim.ClipGradNorm(ended, all, 1)
	assert.ErrorIs(t, err, context.Canceled)
}

// TestManyGoroutines uses one optimizer from many at once and closes it meanwhile.
func TestManyGoroutines(t *testing.T) {
	a := parameter(t, "a", make([]float32, 100)...)
	addGrad(t, a, make([]float32, 100)...)
	o, err := optim.NewAdamW(optim.Parameters([]optim.Param{a}), optim.AdamOptions{})
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for k := range 25 {
				if i == 0 && k == 20 {
					o.Close()
				}
				state, err := o.State()
				torch.CloseAll(state)
				for _, err := range []error{err, o.Step(t.Context()), o.LoadState(nil)} {
					if err != nil {
						assert.ErrorIs(t, err, torch.ErrClosed)
					}
				}
				o.SetLR(0, o.LR(0))
				o.ScaleLR(0.5)
			}
		})
	}
	wg.Wait()
}

// TestForgottenOptimizer: the garbage collector frees what nobody closed, and not before.
func TestForgottenOptimizer(t *testing.T) {
	a := parameter(t, "a", 1, 2)
	addGrad(t, a, 1, 1)
	before := torch.MemoryStats().Live
	func() {
		o, err := optim.NewSGD(optim.Parameters([]optim.Param{a}), optim.SGDOptions{LR: 1, Momentum: 0.5})
		require.NoError(t, err)
		for range 20 {
			runtime.GC()
			require.NoError(t, o.Step(t.Context()))
		}
		assert.Equal(t, before.Optimizers+1, torch.MemoryStats().Live.Optimizers)
		assert.Len(t, stateOf(t, o), 2)
	}()
	assert.Eventually(t, func() bool {
		runtime.GC()
		return torch.MemoryStats().Live == before
	}, 5*time.Second, 5*time.Millisecond)
	assert.Equal(t, 1, testmain.Forget())
}

// TestCUDA: state lives where the parameters do.
func TestCUDA(t *testing.T) {
	testmain.RequireCUDA(t)
	for _, fused := range []bool{false, true} {
		a := parameter(t, "a", 1, 2)
		x, err := a.Tensor.To(torch.Device{Type: "cuda"})
		require.NoError(t, err)
		defer x.Close()
		leaf, err := x.Detach()
		require.NoError(t, err)
		defer leaf.Close()
		require.NoError(t, leaf.SetRequiresGrad(true))
		p := optim.Param{Name: "a", Tensor: leaf}
		o, err := optim.NewAdamW(optim.Parameters([]optim.Param{p}), optim.AdamOptions{Fused: fused})
		require.NoError(t, err)
		defer o.Close()
		loss, err := torch.CallWith(t.Context(), torch.CallOptions{Mode: torch.Grad}, "aten::dot", leaf, leaf)
		require.NoError(t, err)
		defer torch.CloseAll(loss)
		require.NoError(t, torch.Backward(t.Context(), loss.(*torch.Tensor), torch.BackwardOptions{}))
		_, err = optim.ClipGradNorm(t.Context(), []optim.Param{p}, 1)
		require.NoError(t, err)
		require.NoError(t, o.Step(t.Context()))
		assert.InDeltaSlice(t, []float32{0.99899, 1.99898}, values(t, leaf), 1e-5)
		state, err := o.State()
		require.NoError(t, err)
		assert.True(t, state["exp_avg.a"].Device().IsCUDA())
		require.NoError(t, o.LoadState(state))
		torch.CloseAll(state)
		require.NoError(t, o.Step(t.Context()))
	}
}
