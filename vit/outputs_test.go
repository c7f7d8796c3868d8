package vit_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/vit"
)

func TestOutputsAreNamedByTheirPlace(t *testing.T) {
	a, err := torch.NewTensor([]float32{1}, 1)
	require.NoError(t, err)
	defer a.Close()
	for _, c := range []struct {
		answer any
		want   []vit.Output
	}{
		{a, []vit.Output{{Name: "out", Value: a}}},
		{(*torch.Tensor)(nil), []vit.Output{{Name: "out", Value: nil}}},
		{int64(3), []vit.Output{{Name: "out", Value: int64(3)}}},
		{torch.Tuple{a, []*torch.Tensor{a, nil}}, []vit.Output{{Name: "out.0", Value: a}, {Name: "out.1.0", Value: a}, {Name: "out.1.1", Value: nil}}},
		{torch.Tuple{map[string]any{}, torch.List{map[string]any{"scores": a, "boxes": a}}}, []vit.Output{{Name: "out.1.0.boxes", Value: a}, {Name: "out.1.0.scores", Value: a}}},
		{map[int64]any{10: "x", 2: nil}, []vit.Output{{Name: "out.2", Value: nil}, {Name: "out.10", Value: "x"}}},
		{torch.Tuple{[]int64{4}, []float64{0.5}, []bool{true}, []string{"s"}}, []vit.Output{{Name: "out.0.0", Value: int64(4)}, {Name: "out.1.0", Value: 0.5}, {Name: "out.2.0", Value: true}, {Name: "out.3.0", Value: "s"}}},
		{[]int64{}, nil},
	} {
		require.Equal(t, c.want, vit.Outputs(c.answer))
	}
}

func TestVerifyReport(t *testing.T) {
	r := &vit.VerifyReport{Model: "dir/m.pt", OK: true, Exact: true, Calls: []vit.VerifyCall{{Method: "forward", Outputs: []vit.VerifyOutput{{Name: "out", OK: true}}}}}
	require.NoError(t, r.Err())
	require.Equal(t, "m.pt: verified: 1 outputs of 1 calls, equal bits", r.String())

	r.OK, r.Exact, r.ATol = false, false, 1e-4
	r.Calls[0].Outputs = append(r.Calls[0].Outputs, vit.VerifyOutput{Name: "out.1", NumEl: 7, Different: 2, MaxAbs: vit.Float(math.Inf(1)), MaxULP: 9})
	require.ErrorIs(t, r.Err(), vit.ErrMismatch)
	require.ErrorContains(t, r.Err(), "call 0, forward, out.1: 2 of 7 elements differ")
	require.Contains(t, r.String(), "FAILED")
	text, err := json.Marshal(r)
	require.NoError(t, err)
	require.Contains(t, string(text), `"max_abs":null`)

	r.Calls = nil
	require.ErrorIs(t, r.Err(), vit.ErrMismatch, "nothing compared is nothing verified")
}
