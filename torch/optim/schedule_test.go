package optim_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/torch/optim"
)

// TestSchedules compares with torch.optim.lr_scheduler, whose rates come from step to step and so carry
// rounding along: up to 1e-12.
func TestSchedules(t *testing.T) {
	want := reference(t).facts.Schedules
	schedules := map[string]optim.Schedule{
		"constant":   optim.Constant(),
		"cosine":     optim.Cosine(59, 0.1),
		"polynomial": optim.Polynomial(40, 0.9),
		"step":       optim.StepDecay(7, 0.3),
		"warmup":     optim.LinearWarmup(10, 0.01, optim.Cosine(50, 0)),
	}
	require.Len(t, want, len(schedules))
	for name, rates := range want {
		require.Len(t, rates, 60)
		distinct := map[float64]bool{}
		for step, rate := range rates {
			got := schedules[name](step)
			assert.InDelta(t, rate, got, 1e-12, "%s at step %d", name, step)
			distinct[got] = true
		}
		if name != "constant" {
			assert.Greater(t, len(distinct), 8, name)
		}
	}
	// Beyond the end.
	assert.InDelta(t, 0.1, optim.Cosine(59, 0.1)(1000), 1e-15)
	assert.Zero(t, optim.Polynomial(40, 2)(41))
	for _, s := range []optim.Schedule{optim.Cosine(0, 0.25), optim.LinearWarmup(0, 0, optim.Cosine(0, 0.25))} {
		assert.Equal(t, 0.25, s(0), "no steps: done at once")
	}
	assert.Equal(t, 1.0, optim.StepDecay(0, 0.5)(9))
}

// TestLayerDecay compares the groups with timm's, in order.
func TestLayerDecay(t *testing.T) {
	p := reference(t)
	m, err := jit.LoadBytes(p.model, jit.LoadOptions{})
	require.NoError(t, err)
	defer m.Close()
	params, err := m.NamedParameters()
	require.NoError(t, err)
	for _, p := range params {
		defer p.Tensor.Close()
	}
	o := optim.LayerDecayOptions{LR: 0.003, Decay: 0.6, WeightDecay: new(0.04)}
	groups, err := optim.LayerDecay(params, o)
	require.NoError(t, err)
	require.Len(t, groups, len(p.facts.LayerDecay))
	assert.Len(t, groups, 8, "four layers, with and without weight decay")
	for i, g := range groups {
		want := p.facts.LayerDecay[i]
		assert.Equal(t, want.Names, names(g))
		assert.Equal(t, want.LR, *g.LR)
		assert.Equal(t, want.WeightDecay, *g.WeightDecay)
	}

	// Frozen parameters are left out, and count.
	for _, p := range params {
		require.NoError(t, p.Tensor.SetRequiresGrad(!strings.HasPrefix(p.Name, "head")))
	}
	groups, err = optim.LayerDecay(params, o)
	require.NoError(t, err)
	require.Len(t, groups, 7)
	assert.Equal(t, []string{"unused"}, names(groups[0]))
	assert.Equal(t, 0.003, *groups[0].LR)
	for _, p := range params {
		require.NoError(t, p.Tensor.SetRequiresGrad(false))
	}
	_, err = optim.LayerDecay(params, o)
	assert.ErrorIs(t, err, torch.ErrInvalidArgument)
}

func names(g optim.ParamGroup) (out []string) {
	for _, p := range g.Params {
		out = append(out, p.Name)
	}
	return out
}

// TestLayerDecayFindsTheViT by the names of timm, torchvision and Hugging Face, alone and inside a model.
func TestLayerDecayFindsTheViT(t *testing.T) {
	for _, c := range []struct {
		layers [4]string // of a ViT of two blocks, and what is outside
		plain  string    // without weight decay for their names
	}{
		{[4]string{
			"cls_token pos_embed reg_token patch_embed.proj.weight norm_pre.weight", "blocks.0.attn.qkv.weight",
			"blocks.1.mlp.fc1.weight norm.weight", "head.weight fc_norm.weight segmentation_head.blocks.0.weight",
		}, "cls_token pos_embed reg_token"},
		{[4]string{
			"backbone.vit.dist_token backbone.vit.pos_embed backbone.vit.patch_embed.proj.weight", "backbone.vit.blocks.0.norm1.weight",
			"backbone.vit.blocks.1.norm1.weight backbone.vit.norm.bias", "backbone.levels.0.0.weight rpn.head.conv.weight blocks.7.weight backbone.vit.head.weight",
		}, "backbone.vit.dist_token backbone.vit.pos_embed"},
		{[4]string{
			"vit.class_token vit.conv_proj.weight vit.encoder.pos_embedding", "vit.encoder.layers.encoder_layer_0.ln_1.weight",
			"vit.encoder.layers.encoder_layer_1.mlp.0.weight vit.encoder.ln.weight", "vit.heads.head.weight",
		}, "vit.class_token vit.encoder.pos_embedding"},
		{[4]string{
			"vit.embeddings.cls_token vit.embeddings.position_embeddings vit.embeddings.patch_embeddings.projection.weight",
			"vit.encoder.layer.0.attention.query.weight", "vit.encoder.layer.1.output.dense.weight vit.layernorm.weight",
			"classifier.weight decode_head.mask_tokens",
		}, "vit.embeddings.cls_token vit.embeddings.position_embeddings decode_head.mask_tokens"},
	} {
		x, err := torch.Zeros([]int64{2, 2}, torch.TensorOptions{})
		require.NoError(t, err)
		defer x.Close()
		require.NoError(t, x.SetRequiresGrad(true))
		var params []optim.Param
		want := map[string]float64{}
		for layer, list := range c.layers {
			for name := range strings.FieldsSeq(list) {
				params = append(params, optim.Param{Name: name, Tensor: x})
				want[name] = []float64{0.125, 0.25, 0.5, 1}[layer]
			}
		}
		groups, err := optim.LayerDecay(params, optim.LayerDecayOptions{LR: 1, Decay: 0.5})
		require.NoError(t, err)
		got := map[string]float64{}
		var plain []string
		for _, g := range groups {
			for _, p := range g.Params {
				got[p.Name] = *g.LR
				if *g.WeightDecay == 0 {
					plain = append(plain, p.Name)
				} else {
					assert.Equal(t, 0.05, *g.WeightDecay)
				}
			}
		}
		assert.Equal(t, want, got)
		assert.Equal(t, c.plain, strings.Join(plain, " "))

		// By hand.
		groups, err = optim.LayerDecay(params, optim.LayerDecayOptions{Layer: func(name string) int { return len(name) % 2 }})
		require.NoError(t, err)
		assert.Equal(t, 0.001*[]float64{0.75, 1}[len(params[0].Name)%2], *groups[0].LR)
		_, err = optim.LayerDecay(params, optim.LayerDecayOptions{Layer: func(string) int { return -1 }})
		assert.ErrorIs(t, err, torch.ErrInvalidArgument)
		for _, decay := range []float64{-1, 1.5} {
			_, err = optim.LayerDecay(params, optim.LayerDecayOptions{Decay: decay})
			assert.ErrorIs(t, err, torch.ErrInvalidArgument)
		}
	}
	_, err := optim.LayerDecay([]optim.Param{{Name: "conv.weight"}}, optim.LayerDecayOptions{})
	assert.ErrorIs(t, err, torch.ErrNotFound)
	_, err = optim.LayerDecay([]optim.Param{{Name: "patch_embed.proj.weight"}}, optim.LayerDecayOptions{})
	assert.ErrorIs(t, err, torch.ErrInvalidArgument, "a nil tensor")
}
