package torch

import (
	"fmt"
	"slices"
)

// Precision says which kernels a module runs on. The zero value is [PrecisionExact].
type Precision int

// The precisions of a module.
const (
	// PrecisionExact runs the kernels that Python runs: the same bits.
	PrecisionExact Precision = iota
	// PrecisionFast is float32 on the fastest kernels there are: linear layers of oneDNN with packed weights, the
	// activation and the residual fused into them, attention in one call, and on AVX2 kernels of our own for linear
	// layers and 3x3 convolutions. The last bits differ.
	PrecisionFast
	// PrecisionBFloat16 is PrecisionFast with matrices multiplied in bfloat16; norms, sums along the blocks and the last
	// layers stay in float32. Where the processor has no instructions for bfloat16 it is slower than
	// PrecisionExact.
	PrecisionBFloat16
)

var precisionNames = []string{"exact", "fast", "bfloat16"}

// String is exact, fast or bfloat16.
func (p Precision) String() string {
	if p < 0 || int(p) >= len(precisionNames) {
		return fmt.Sprintf("Precision(%d)", int(p))
	}
	return precisionNames[p]
}

// ParsePrecision reads what String writes; "" is PrecisionExact. ErrInvalidArgument for anything else.
func ParsePrecision(name string) (Precision, error) {
	if name == "" {
		return PrecisionExact, nil
	}
	if i := slices.Index(precisionNames, name); i >= 0 {
		return Precision(i), nil
	}
	return PrecisionExact, fmt.Errorf("%w: precision: got %q, want exact, fast or bfloat16", ErrInvalidArgument, name)
}

// MarshalText writes the name.
func (p Precision) MarshalText() ([]byte, error) {
	if p < 0 || int(p) >= len(precisionNames) {
		return nil, fmt.Errorf("%w: precision: got %d, want 0 to %d", ErrInvalidArgument, int(p), len(precisionNames)-1)
	}
	return []byte(p.String()), nil
}

// UnmarshalText reads the name.
func (p *Precision) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePrecision(string(text))
	return err
}
