package jit

import (
	"context"
	"fmt"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/torch"
)

// Rewritten says what became of a module that was loaded with another precision than PrecisionExact.
type Rewritten struct {
	Methods []RewrittenMethod
	// Note says why nothing was rewritten, or that bfloat16 is slow here; "" where there is nothing to say.
	Note string
}

// RewrittenMethod counts what was replaced in the code of a method.
type RewrittenMethod struct {
	Name string
	// Linear layers with packed weights, Attention calls, PatchEmbed convolutions that became linear layers, Conv of
	// 3x3 that became fewer products (decisions/0016; where ATen's CPU capability is AVX2), RoIAlign calls that use all
	// threads, Fused operators that went into linear layers and Conv; Left counts linear layers that stayed.
	Linear, Fused, Attention, PatchEmbed, Conv, RoIAlign, Left int64
}

func checkPrecision(o LoadOptions) error {
	exact, err := torch.ExactPossible()
	switch {
	case err != nil:
		return err
	case o.Precision < torch.PrecisionExact || o.Precision > torch.PrecisionBFloat16:
		return fmt.Errorf("%w: LoadOptions.Precision: got %s, want exact, fast or bfloat16", torch.ErrInvalidArgument, o.Precision)
	case o.Precision == torch.PrecisionExact && !exact:
		return fmt.Errorf("%w: got exact in a process with MKL's fast path, want fast or bfloat16, or Config.MKLFastPath off", torch.ErrPrecision)
	case o.Precision == torch.PrecisionExact:
		return nil
	case o.DType != torch.InvalidDType:
		return fmt.Errorf("%w: got precision %s and dtype %s, want one of the two", torch.ErrPrecision, o.Precision, o.DType)
	case o.Device.IsCUDA():
		return fmt.Errorf("%w: got precision %s on %s, want it on the CPU; LoadOptions.DType casts a module for CUDA", torch.ErrPrecision, o.Precision, o.Device)
	}
	return nil
}

// rewrite changes the module that raw is.
func rewrite(name string, raw cgo.Module, precision torch.Precision) (Rewritten, error) {
	var r Rewritten
	if precision == torch.PrecisionExact {
		return r, nil
	}
	op := "rewrite " + name
	answer, err := torch.Invoke(context.Background(), op, torch.CallOptions{Mode: torch.NoGrad}, nil, func(_ []cgo.Node, _ []byte, mode cgo.Mode, _ *cgo.Node) (cgo.Values, error) {
		return cgo.ModuleRewrite(raw, precision == torch.PrecisionBFloat16, mode)
	})
	if err != nil {
		return r, err
	}
	parts, _ := answer.(torch.Tuple)
	if len(parts) != 2 {
		return r, fmt.Errorf("%s: %w: got %d parts, want 2", op, torch.ErrValue, len(parts))
	}
	methods, _ := parts[0].(torch.List)
	r.Note, _ = parts[1].(string)
	for _, p := range methods {
		t, _ := p.(torch.Tuple)
		if len(t) != 8 {
			return r, fmt.Errorf("%s: %w: got %d parts, want 8", op, torch.ErrValue, len(t))
		}
		m := RewrittenMethod{}
		m.Name, _ = t[0].(string)
		for i, to := range []*int64{&m.Linear, &m.Fused, &m.Attention, &m.PatchEmbed, &m.Conv, &m.RoIAlign, &m.Left} {
			*to, _ = t[i+1].(int64)
		}
		r.Methods = append(r.Methods, m)
	}
	return r, nil
}

// Precision is what the module was loaded with.
func (m *Module) Precision() torch.Precision {
	if m == nil {
		return torch.PrecisionExact
	}
	return m.precision
}

// Rewritten says what was replaced at loading; nothing for PrecisionExact.
func (m *Module) Rewritten() Rewritten {
	if m == nil {
		return Rewritten{}
	}
	return m.rewritten
}

// needExact is ErrPrecision for a module whose parameters are gone.
func (m *Module) needExact(op string) error {
	if m != nil && m.precision != torch.PrecisionExact {
		return fmt.Errorf("%s: %w: got a module with precision %s, want exact", op, torch.ErrPrecision, m.precision)
	}
	return nil
}
