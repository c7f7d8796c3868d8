package optim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/internal/handle"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
)

// Param is a parameter with its name, as jit.Module.NamedParameters gives it.
type Param = jit.NamedTensor

// ParamGroup is parameters that learn alike. A nil field takes the optimizer's.
type ParamGroup struct {
	Params []Param
	// LR is the group's base learning rate, 0 and more.
	LR *float64
	// WeightDecay is the group's, 0 and more.
	WeightDecay *float64
}

// Parameters is one group of all of them.
func Parameters(params []Param) []ParamGroup { return []ParamGroup{{Params: params}} }

// SGDOptions are those of torch.optim.SGD. The zero value is its default.
type SGDOptions struct {
	// LR is the learning rate. 0 stands for 0.001.
	LR float64
	// Momentum is its factor, Dampening what is taken off each gradient that joins it.
	Momentum, Dampening float64
	// WeightDecay is the factor of the L2 penalty.
	WeightDecay float64
	// Nesterov looks ahead. It wants momentum and no dampening.
	Nesterov bool
}

// AdamOptions are those of torch.optim.Adam and AdamW. The zero value is their default.
type AdamOptions struct {
	// LR is the learning rate. 0 stands for 0.001.
	LR float64
	// Betas are the decay rates of the means of gradients and of their squares, 0 to less than 1. Two
	// zeros stand for 0.9 and 0.999.
	Betas [2]float64
	// Eps is added to the denominator. 0 stands for 1e-8.
	Eps float64
	// WeightDecay is decoupled in AdamW and an L2 penalty in Adam. Nil stands for 0.01 in AdamW and 0 in
	// Adam.
	WeightDecay *float64
	// AMSGrad divides by the largest mean of squares so far.
	AMSGrad bool
	// Fused takes torch's fused kernel, as fused=True in Python: one pass over the memory in place of ten.
	// Its last bits are those of Python's fused=True.
	Fused bool
}

// Optimizer is a torch.optim.Optimizer.
type Optimizer struct {
	h     handle.Handle[cgo.Optimizer]
	slots []string // names of the state, in the shim's order
	names []string // of the parameters

	mu     sync.Mutex // one call at a time; guards what follows
	groups []cgo.Group
	base   []float64
}

// NewSGD is torch.optim.SGD. The caller closes it.
func NewSGD(groups []ParamGroup, o SGDOptions) (*Optimizer, error) {
	g := cgo.Group{
		LR: o.LR, WeightDecay: o.WeightDecay, Momentum: o.Momentum, Dampening: o.Dampening, Nesterov: o.Nesterov,
	}
	if g.LR == 0 {
		g.LR = 0.001
	}
	if !(o.Momentum >= 0) {
		return nil, fmt.Errorf("sgd: %w: momentum: got %v, want 0 and more", torch.ErrInvalidArgument, o.Momentum)
	}
	if o.Nesterov && (o.Momentum <= 0 || o.Dampening != 0) {
		return nil, fmt.Errorf("sgd: %w: nesterov: got momentum %v and dampening %v, want a momentum and no dampening", torch.ErrInvalidArgument, o.Momentum, o.Dampening)
	}
	return newOptimizer("sgd", cgo.SGD, []string{"momentum_buffer", "", "", ""}, groups, g)
}

// NewAdam is torch.optim.Adam. The caller closes it.
func NewAdam(groups []ParamGroup, o AdamOptions) (*Optimizer, error) {
	return newAdam("adam", cgo.Adam, 0, groups, o)
}

// NewAdamW is torch.optim.AdamW, Adam with decoupled weight decay (Loshchilov and Hutter, 2019). The
// caller closes it.
func NewAdamW(groups []ParamGroup, o AdamOptions) (*Optimizer, error) {
	return newAdam("adamw", cgo.AdamW, 0.01, groups, o)
}

func newAdam(op string, kind int32, decay float64, groups []ParamGroup, o AdamOptions) (*Optimizer, error) {
	if o.LR == 0 {
		o.LR = 0.001
	}
	if o.Betas == [2]float64{} {
		o.Betas = [2]float64{0.9, 0.999}
	}
	if o.Eps == 0 {
		o.Eps = 1e-8
	}
	if o.WeightDecay != nil {
		decay = *o.WeightDecay
	}
	for i, b := range o.Betas {
		if !(b >= 0 && b < 1) {
			return nil, fmt.Errorf("%s: %w: betas[%d]: got %v, want 0 to less than 1", op, torch.ErrInvalidArgument, i, b)
		}
	}
	if !(o.Eps >= 0) {
		return nil, fmt.Errorf("%s: %w: eps: got %v, want 0 and more", op, torch.ErrInvalidArgument, o.Eps)
	}
	g := cgo.Group{
		LR: o.LR, WeightDecay: decay, Beta1: o.Betas[0], Beta2: o.Betas[1], Eps: o.Eps, AMSGrad: o.AMSGrad, Fused: o.Fused,
	}
	return newOptimizer(op, kind, []string{"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}, groups, g)
}

func newOptimizer(op string, kind int32, slots []string, groups []ParamGroup, defaults cgo.Group) (*Optimizer, error) {
	o := &Optimizer{slots: slots}
	var tensors []*torch.Tensor
	for i, group := range groups {
		g := defaults
		g.Count = int64(len(group.Params))
		if group.LR != nil {
			g.LR = *group.LR
		}
		if group.WeightDecay != nil {
			g.WeightDecay = *group.WeightDecay
		}
		if !(g.LR >= 0) || !(g.WeightDecay >= 0) {
			return nil, fmt.Errorf("%s: %w: group %d: got a learning rate of %v and a weight decay of %v, want 0 and more", op, torch.ErrInvalidArgument, i, g.LR, g.WeightDecay)
		}
		for _, p := range group.Params {
			if p.Tensor == nil {
				return nil, fmt.Errorf("%s: %w: parameter %q: got a nil tensor", op, torch.ErrInvalidArgument, p.Name)
			}
			o.names = append(o.names, p.Name)
			tensors = append(tensors, p.Tensor)
		}
		o.groups = append(o.groups, g)
		o.base = append(o.base, g.LR)
	}
	if len(tensors) == 0 {
		return nil, fmt.Errorf("%s: %w: got no parameters", op, torch.ErrInvalidArgument)
	}
	sorted := slices.Sorted(slices.Values(o.names))
	for i := 1; i < len(sorted); i++ {
		if sorted[i] == sorted[i-1] {
			return nil, fmt.Errorf("%s: %w: got two parameters with the name %q", op, torch.ErrInvalidArgument, sorted[i])
		}
	}
	if err := torch.Ensure(); err != nil {
		return nil, err
	}
	var raw cgo.Optimizer
	var failed error
	err := torch.WithNodes(func(nodes []cgo.Node, _ []byte) error {
		raw, failed = cgo.OptimizerNew(kind, nodes)
		return nil
	}, tensors)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	if failed != nil {
		return nil, torch.WrapStatus(op, failed)
	}
	o.h.Init(raw, op, cgo.OptimizerFree)
	return o, nil
}

// use runs f with the optimizer to itself.
func (o *Optimizer) use(op string, f func(raw cgo.Optimizer) error) error {
	if o == nil {
		return fmt.Errorf("%s: %w: got a nil optimizer", op, torch.ErrInvalidArgument)
	}
	raw, ok := o.h.Acquire()
	if !ok {
		return fmt.Errorf("%s: optimizer: %w", op, torch.ErrClosed)
	}
	defer o.h.Release()
	o.mu.Lock()
	defer o.mu.Unlock()
	return f(raw)
}

// Close frees the state. The parameters stay. Closing again, or a nil optimizer, has no effect. It always
// returns nil.
func (o *Optimizer) Close() error {
	if o != nil {
		o.h.Close()
	}
	return nil
}

// Step is Optimizer.step: it changes every parameter that has a gradient. It waits for a lane until ctx
// ends; once begun it runs to its end.
func (o *Optimizer) Step(ctx context.Context) error {
	return o.use("step", func(raw cgo.Optimizer) error {
		_, err := torch.Invoke(ctx, "step", noGrad, nil, func(_ []cgo.Node, _ []byte, mode cgo.Mode, _ *cgo.Node) (cgo.Values, error) {
			return cgo.Values{}, cgo.OptimizerStep(raw, o.groups, mode)
		})
		return err
	})
}

var noGrad = torch.CallOptions{Mode: torch.NoGrad}

// ZeroGrad is Optimizer.zero_grad: the parameters have no gradient afterwards, and their memory goes back.
func (o *Optimizer) ZeroGrad() error {
	return o.use("zero grad", func(raw cgo.Optimizer) error {
		return torch.WrapStatus("zero grad", cgo.OptimizerZeroGrad(raw))
	})
}

// Groups is the number of parameter groups.
func (o *Optimizer) Groups() int {
	if o == nil {
		return 0
	}
	return len(o.groups)
}

// LR is the learning rate of a group, 0 for one that is not there.
func (o *Optimizer) LR(group int) float64 {
	if group < 0 || group >= o.Groups() {
		return 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.groups[group].LR
}

// SetLR sets the learning rate of a group for the steps to come. A group that is not there is left alone.
func (o *Optimizer) SetLR(group int, lr float64) {
	if group < 0 || group >= o.Groups() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.groups[group].LR = lr
}

// ScaleLR sets every group's learning rate to its base rate times factor: what torch.optim's LambdaLR does
// with the factor of a Schedule.
func (o *Optimizer) ScaleLR(factor float64) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.groups {
		o.groups[i].LR = o.base[i] * factor
	}
}

// lrName holds the learning rates of all groups in a state.
const lrName = "lr"

// State is what a checkpoint must hold to go on bit by bit: for each parameter that was stepped tensors such
// as "exp_avg.NAME" under Python's names (momentum_buffer; step, exp_avg, exp_avg_sq, max_exp_avg_sq), and
// "lr", the groups' learning rates in float64. The tensors share the optimizer's memory, so that the next
// step changes them; the caller closes them.
func (o *Optimizer) State() (map[string]*torch.Tensor, error) {
	state := map[string]*torch.Tensor{}
	err := o.use("state", func(raw cgo.Optimizer) error {
		values, err := cgo.OptimizerState(raw)
		if err != nil {
			return torch.WrapStatus("state", err)
		}
		list, _ := torch.DecodeValues(values).([]*torch.Tensor)
		for i, t := range list {
			if t != nil {
				state[o.slots[i%len(o.slots)]+"."+o.names[i/len(o.slots)]] = t
			}
		}
		rates := make([]float64, len(o.groups))
		for i, g := range o.groups {
			rates[i] = g.LR
		}
		state[lrName], err = torch.NewTensor(rates)
		return err
	})
	if err != nil {
		torch.CloseAll(state)
		return nil, err
	}
	return state, nil
}

// LoadState takes what State gave, of an optimizer of the same kind, parameters and groups, and copies it. A
// parameter without entries starts anew. On an error nothing changes.
func (o *Optimizer) LoadState(state map[string]*torch.Tensor) error {
	return o.use("load state", func(raw cgo.Optimizer) error {
		given := make([]*torch.Tensor, len(o.names)*len(o.slots))
		rates, used := make([]float64, len(o.groups)), 0
		for i, g := range o.groups {
			rates[i] = g.LR
		}
		if lr, ok := state[lrName]; ok {
			var err error
			if rates, err = torch.CopyData[float64](lr); err != nil {
				return fmt.Errorf("load state: lr: %w", err)
			}
			if len(rates) != len(o.groups) {
				return fmt.Errorf("load state: %w: got learning rates of %d groups, want %d", torch.ErrInvalidArgument, len(rates), len(o.groups))
			}
			used++
		}
		for p, name := range o.names {
			var have []string
			for s, slot := range o.slots {
				if t := state[slot+"."+name]; slot != "" && t != nil {
					given[p*len(o.slots)+s] = t
					have = append(have, slot)
				}
			}
			used += len(have)
			if want := o.wanted(); len(have) > 0 && !slices.Equal(have, want) {
				return fmt.Errorf("load state: %w: parameter %s: got %s, want %s", torch.ErrInvalidArgument, name, strings.Join(have, ", "), strings.Join(want, ", "))
			}
		}
		if used != len(state) {
			return fmt.Errorf("load state: %w: got %d entries that are of no parameter", torch.ErrInvalidArgument, len(state)-used)
		}
		_, err := torch.Invoke(context.Background(), "load state", noGrad, []any{given}, func(nodes []cgo.Node, _ []byte, mode cgo.Mode, _ *cgo.Node) (cgo.Values, error) {
			return cgo.Values{}, cgo.OptimizerSetState(raw, nodes, mode)
		})
		if err != nil {
			return err
		}
		for i := range o.groups {
			o.groups[i].LR = rates[i]
		}
		return nil
	})
}

// wanted are the names of a stepped parameter's state.
func (o *Optimizer) wanted() []string {
	n := len(o.slots)
	for n > 0 && (o.slots[n-1] == "" || o.slots[n-1] == "max_exp_avg_sq" && !o.groups[0].AMSGrad) {
		n--
	}
	return o.slots[:n]
}
