package optim_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/torch/npy"
	"github.com/torchvit/torchvit/torch/optim"
)

// trainingCase is what testdata/training.py and Go do alike.
type trainingCase struct {
	ID         string         `json:"id"`
	Kind       string         `json:"kind"`
	Options    map[string]any `json:"options"`
	LayerDecay []float64      `json:"layer_decay"` // rate, decay, weight decay
	Factors    []float64      `json:"factors"`
	ClipNorm   float64        `json:"clip_norm"`
	ClipValue  float64        `json:"clip_value"`
	Accumulate int            `json:"accumulate"`
	Autocast   bool           `json:"autocast"`
	Seed       uint64         `json:"seed"`
	Steps      int            `json:"steps"`

	make maker
}

type maker func([]optim.ParamGroup) (*optim.Optimizer, error)

const steps = 50

func sgd(o optim.SGDOptions) maker {
	return func(g []optim.ParamGroup) (*optim.Optimizer, error) { return optim.NewSGD(g, o) }
}

func adam(o optim.AdamOptions) maker {
	return func(g []optim.ParamGroup) (*optim.Optimizer, error) { return optim.NewAdam(g, o) }
}

func adamW(o optim.AdamOptions) maker {
	return func(g []optim.ParamGroup) (*optim.Optimizer, error) { return optim.NewAdamW(g, o) }
}

func trainingCases() []trainingCase {
	type options = map[string]any
	cases := []trainingCase{
		{
			ID: "sgd", Kind: "sgd", Options: options{"lr": 0.05},
			make: sgd(optim.SGDOptions{LR: 0.05}),
		},
		{
			ID: "sgd-nesterov", Kind: "sgd",
			Options: options{"lr": 0.02, "momentum": 0.9, "nesterov": true, "weight_decay": 1e-4},
			make:    sgd(optim.SGDOptions{LR: 0.02, Momentum: 0.9, Nesterov: true, WeightDecay: 1e-4}),
		},
		{
			ID: "sgd-dampening", Kind: "sgd", ClipValue: 0.03,
			Options: options{"lr": 0.02, "momentum": 0.8, "dampening": 0.1},
			make:    sgd(optim.SGDOptions{LR: 0.02, Momentum: 0.8, Dampening: 0.1}),
		},
		{ID: "adam", Kind: "adam", make: adam(optim.AdamOptions{})},
		{
			ID: "adam-amsgrad", Kind: "adam",
			Options: options{"lr": 0.002, "betas": []float64{0.8, 0.95}, "eps": 1e-6, "amsgrad": true, "weight_decay": 0.01},
			make:    adam(optim.AdamOptions{LR: 0.002, Betas: [2]float64{0.8, 0.95}, Eps: 1e-6, AMSGrad: true, WeightDecay: new(0.01)}),
		},
		{ID: "adamw", Kind: "adamw", make: adamW(optim.AdamOptions{})},
		{
			ID: "adamw-groups", Kind: "adamw", LayerDecay: []float64{0.003, 0.75, 0.05}, ClipNorm: 0.5, Accumulate: 2,
			Options: options{"lr": 0.003}, make: adamW(optim.AdamOptions{LR: 0.003}),
		},
		{ID: "adamw-bfloat16", Kind: "adamw", Autocast: true, ClipNorm: 1, make: adamW(optim.AdamOptions{})},
		{
			ID: "adam-fused", Kind: "adam", Options: options{"fused": true, "amsgrad": true, "weight_decay": 0.01},
			make: adam(optim.AdamOptions{Fused: true, AMSGrad: true, WeightDecay: new(0.01)}),
		},
		{ID: "adamw-fused", Kind: "adamw", Options: options{"fused": true}, make: adamW(optim.AdamOptions{Fused: true})},
	}
	if testing.Short() { // one of each kind of step
		cases = slices.DeleteFunc(cases, func(c trainingCase) bool {
			return !slices.Contains([]string{"sgd-nesterov", "adamw-groups", "adam-fused"}, c.ID)
		})
	}
	schedule := optim.LinearWarmup(10, 0.01, optim.Cosine(steps-10, 0.05))
	for i := range cases {
		c := &cases[i]
		c.Seed, c.Steps, c.Accumulate = uint64(100+i), steps, max(c.Accumulate, 1)
		if c.Options == nil {
			c.Options = options{}
		}
		for step := range steps {
			if c.LayerDecay != nil {
				c.Factors = append(c.Factors, schedule(step))
			}
		}
	}
	return cases
}

// python is what testdata/training.py wrote in this run.
type python struct {
	model   []byte
	batches *npy.Zip
	results map[string]*npy.Zip
	facts   struct {
		Order      []string
		LayerDecay []struct {
			Names       []string
			LR          float64
			WeightDecay float64 `json:"weight_decay"`
		} `json:"layer_decay"`
		Schedules map[string][]float64
	}
}

var pythonOnce struct {
	sync.Once
	*python
}

// reference trains all cases in Python, once for all tests.
func reference(t testing.TB) *python {
	t.Helper()
	pythonOnce.Do(func() {
		dir, p := t.TempDir(), &python{results: map[string]*npy.Zip{}}
		read := func(name string) []byte {
			data, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			return data
		}
		list, err := json.Marshal(trainingCases())
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "cases.json"), list, 0o644))
		testmain.RunPython(t, filepath.Join("torch", "optim", "testdata", "training.py"), dir)
		p.model = read("model.pt")
		p.batches, err = npy.ReadZipFile(filepath.Join(dir, "batches.npz"))
		require.NoError(t, err)
		for _, c := range trainingCases() {
			p.results[c.ID], err = npy.ReadZipFile(filepath.Join(dir, c.ID+".npz"))
			require.NoError(t, err)
		}
		require.NoError(t, json.Unmarshal(read("facts.json"), &p.facts))
		pythonOnce.python = p
	})
	require.NotNil(t, pythonOnce.python, "testdata/training.py failed in another test")
	return pythonOnce.python
}

// trainer trains the model file in Go.
type trainer struct {
	trainingCase
	module    *jit.Module
	forward   *jit.Method
	params    []optim.Param
	optimizer *optim.Optimizer
	images    []*torch.Tensor
	labels    []*torch.Tensor
	losses    []float64
	norms     []float64
	step      int
}

// newTrainer is a trainer at the case's first step; the test's end closes it.
func newTrainer(t testing.TB, c trainingCase) *trainer {
	t.Helper()
	var err error
	p, r := reference(t), &trainer{trainingCase: c}
	r.module, err = jit.LoadBytes(p.model, jit.LoadOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { r.module.Close() })
	require.NoError(t, r.module.Train(true))
	r.forward, err = r.module.Method("forward")
	require.NoError(t, err)
	r.params, err = r.module.NamedParameters()
	require.NoError(t, err)
	groups := optim.Parameters(r.params)
	if c.LayerDecay != nil {
		groups, err = optim.LayerDecay(r.params, optim.LayerDecayOptions{LR: c.LayerDecay[0], Decay: c.LayerDecay[1], WeightDecay: &c.LayerDecay[2]})
		require.NoError(t, err)
	}
	r.optimizer, err = c.make(groups)
	require.NoError(t, err)
	t.Cleanup(func() { r.optimizer.Close() })
	for _, p := range r.params {
		t.Cleanup(func() { p.Tensor.Close() })
	}
	for name, to := range map[string]*[]*torch.Tensor{"images": &r.images, "labels": &r.labels} {
		all, err := torch.FromNumpy(p.batches.Get(name))
		require.NoError(t, err)
		defer all.Close()
		for k := range all.Size(0) {
			one, err := all.Select(0, k)
			require.NoError(t, err)
			defer one.Close()
			x, err := one.Clone()
			require.NoError(t, err)
			t.Cleanup(func() { x.Close() })
			*to = append(*to, x)
		}
	}
	require.NoError(t, torch.ManualSeed(c.Seed))
	return r
}

// run goes on to that step.
func (r *trainer) run(t testing.TB, until int) {
	t.Helper()
	ctx, o := t.Context(), torch.CallOptions{Mode: torch.Grad}
	if r.Autocast {
		o.Autocast = torch.BFloat16
	}
	for ; r.step < until; r.step++ {
		if r.Factors != nil {
			r.optimizer.ScaleLR(r.Factors[r.step])
		}
		for part := range r.Accumulate {
			k := (r.step*r.Accumulate + part) % len(r.images)
			logits, err := r.forward.CallWith(ctx, o, r.images[k])
			require.NoError(t, err)
			if r.Autocast {
				require.Equal(t, torch.BFloat16, logits.(*torch.Tensor).DType())
			}
			loss, err := torch.CallWith(ctx, o, "aten::cross_entropy_loss", logits, r.labels[k], nil, 1, -100, 0.0)
			require.NoError(t, err)
			require.NoError(t, torch.Backward(ctx, loss.(*torch.Tensor), torch.BackwardOptions{}))
			value, err := loss.(*torch.Tensor).Item()
			require.NoError(t, err)
			r.losses = append(r.losses, value.(float64))
			torch.CloseAll(logits, loss)
		}
		if r.ClipNorm > 0 {
			norm, err := optim.ClipGradNorm(ctx, r.params, r.ClipNorm)
			require.NoError(t, err)
			r.norms = append(r.norms, norm)
		}
		if r.ClipValue > 0 {
			require.NoError(t, optim.ClipGradValue(ctx, r.params, r.ClipValue))
		}
		require.NoError(t, r.optimizer.Step(ctx))
		require.NoError(t, r.optimizer.ZeroGrad())
	}
}

// arrays are the parameters and the optimizer's state, without the learning rates.
func (r *trainer) arrays(t testing.TB) map[string]*npy.Array {
	t.Helper()
	state, err := r.optimizer.State()
	require.NoError(t, err)
	defer torch.CloseAll(state)
	require.Equal(t, []int64{int64(r.optimizer.Groups())}, state["lr"].Shape())
	out := map[string]*npy.Array{}
	put := func(name string, x *torch.Tensor) {
		out[name], err = x.Numpy()
		require.NoError(t, err)
	}
	for name, x := range state {
		if name != "lr" {
			put(name, x)
		}
	}
	for _, p := range r.params {
		put(p.Name, p.Tensor)
	}
	return out
}

// equalArrays compares bits.
func equalArrays(t testing.TB, want, got map[string]*npy.Array) {
	t.Helper()
	for name, w := range want {
		g := got[name]
		if !assert.NotNil(t, g, name) {
			continue
		}
		assert.Equal(t, w.DType, g.DType, name)
		assert.Equal(t, w.Shape, g.Shape, name)
		if !slices.Equal(w.Data, g.Data) {
			a, err := torch.FromNumpy(w)
			require.NoError(t, err)
			b, err := torch.FromNumpy(g)
			require.NoError(t, err)
			d, err := torch.Compare(b, a)
			require.NoError(t, err)
			torch.CloseAll(a, b)
			t.Errorf("%s: %s", name, d)
		}
	}
	assert.Len(t, got, len(want))
}

// TestTrainingHasPythonsBits trains a model file for 50 steps in Go and in Python: the same losses, norms,
// parameters and state, to the bit.
func TestTrainingHasPythonsBits(t *testing.T) {
	p := reference(t)
	results := map[string]string{}
	for _, c := range trainingCases() {
		t.Run(c.ID, func(t *testing.T) {
			r := newTrainer(t, c)
			start := r.arrays(t)
			r.run(t, c.Steps)
			want, got := p.results[c.ID].Map(), r.arrays(t)
			for name, values := range map[string][]float64{"losses": r.losses, "norms": r.norms} {
				list, err := torch.NewTensor(values, int64(len(values)))
				require.NoError(t, err)
				got[name], err = list.Numpy()
				require.NoError(t, err)
				list.Close()
			}
			equalArrays(t, want, got)

			// Something was learned, and by every parameter that the loss depends on.
			n := len(r.losses)
			assert.Less(t, sum(r.losses[n-3:]), 0.7*sum(r.losses[:3]), "the loss falls: %v", r.losses)
			for _, param := range r.params {
				moved := !slices.Equal(start[param.Name].Data, got[param.Name].Data)
				assert.Equal(t, param.Name != "unused", moved, param.Name)
			}
			if c.ClipNorm > 0 {
				assert.Greater(t, slices.Max(r.norms), c.ClipNorm, "clipping had something to do")
			}
			bits := fmt.Sprint(got["head.weight"].Data)
			assert.Empty(t, results[bits], "two cases gave the same")
			results[bits] = c.ID
		})
	}
	assert.Equal(t, p.facts.Order, func() (names []string) {
		for _, param := range newTrainer(t, trainingCases()[0]).params {
			names = append(names, param.Name)
		}
		return names
	}(), "Python's order of parameters")
}

func sum(values []float64) (s float64) {
	for _, v := range values {
		s += v
	}
	return s
}

// TestResume stops after 20 steps, writes parameters, state and the generator's state to a file, and goes on
// in a new module with a new optimizer: the bits are those of Python, which never stopped.
func TestResume(t *testing.T) {
	for _, id := range []string{"adamw-groups", "sgd-nesterov", "adam-amsgrad", "adam-fused"} {
		t.Run(id, func(t *testing.T) {
			cases := trainingCases()
			i := slices.IndexFunc(cases, func(c trainingCase) bool { return c.ID == id })
			if i < 0 {
				t.Skip("-short")
			}
			c := cases[i]
			first := newTrainer(t, c)
			first.run(t, 20)

			var file npy.Zip
			add := func(name string, x *torch.Tensor) {
				a, err := x.Numpy()
				require.NoError(t, err)
				file.Add(name, a)
			}
			state, err := first.optimizer.State()
			require.NoError(t, err)
			for name, x := range state {
				add("state/"+name, x)
			}
			rates := []float64{}
			for g := range first.optimizer.Groups() {
				rates = append(rates, first.optimizer.LR(g))
			}
			torch.CloseAll(state)
			rng, err := torch.RNGState()
			require.NoError(t, err)
			add("rng", rng)
			rng.Close()
			path := filepath.Join(t.TempDir(), "checkpoint.npz")
			require.NoError(t, npy.WriteZipFile(path, &file))
			saved, err := first.module.Bytes(nil)
			require.NoError(t, err)
			first.run(t, 22) // what is lost

			second := newTrainer(t, c)
			require.NoError(t, load(t, second, saved))
			read, err := npy.ReadZipFile(path)
			require.NoError(t, err)
			restored := map[string]*torch.Tensor{}
			for _, name := range read.Names() {
				x, err := torch.FromNumpy(read.Get(name))
				require.NoError(t, err)
				if name == "rng" {
					require.NoError(t, torch.SetRNGState(x))
					x.Close()
					continue
				}
				restored[name[len("state/"):]] = x
			}
			require.NoError(t, second.optimizer.LoadState(restored))
			torch.CloseAll(restored) // it copied
			for g, rate := range rates {
				assert.Equal(t, rate, second.optimizer.LR(g))
			}
			second.step = 20
			second.run(t, c.Steps)
			want := reference(t).results[id].Map()
			delete(want, "losses")
			delete(want, "norms")
			equalArrays(t, want, second.arrays(t))
		})
	}
}

// load puts the parameters of a saved module into the trainer's.
func load(t testing.TB, r *trainer, saved []byte) error {
	t.Helper()
	m, err := jit.LoadBytes(saved, jit.LoadOptions{})
	require.NoError(t, err)
	defer m.Close()
	params, err := m.NamedParameters()
	require.NoError(t, err)
	for i, p := range params {
		defer p.Tensor.Close()
		require.Equal(t, p.Name, r.params[i].Name)
		if err := r.params[i].Tensor.CopyFrom(p.Tensor); err != nil {
			return err
		}
	}
	return nil
}
