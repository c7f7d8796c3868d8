package optim

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/torchvit/torchvit/torch"
)

// LayerDecayOptions say how LayerDecay groups parameters.
type LayerDecayOptions struct {
	// LR is the learning rate of the last layer. 0 stands for 0.001.
	LR float64
	// Decay is the factor from a layer to the one below it, above 0 to 1. 0 stands for 0.75, timm's.
	Decay float64
	// WeightDecay is that of matrices. Nil stands for 0.05, timm's.
	WeightDecay *float64
	// Layer gives the layer of a parameter, counted from 0 at the image. Nil goes by the names that timm,
	// torchvision, Hugging Face and this project's models use, inside a larger model too: 0 for the
	// embedding, N + 1 for block N, the final norm with the last block, and one more for everything
	// outside the ViT, such as a head.
	Layer func(name string) int
}

// LayerDecay groups parameters for layer-wise decay of the learning rate, as timm's
// param_groups_layer_decay does (Bao et al., BEiT, 2022): a layer learns at LR * Decay^(last - layer).
// Parameters of one dimension, position embeddings and tokens (pos_embed, cls_token and their likes) get no
// weight decay. Frozen parameters, whose requires_grad is false, are left out. ErrNotFound where the names
// show no ViT and Layer is nil.
func LayerDecay(params []Param, o LayerDecayOptions) ([]ParamGroup, error) {
	if o.LR == 0 {
		o.LR = 0.001
	}
	if o.Decay == 0 {
		o.Decay = 0.75
	}
	if !(o.Decay > 0 && o.Decay <= 1) || !(o.LR >= 0) {
		return nil, fmt.Errorf("layer decay: %w: got a decay of %v and a rate of %v, want above 0 to 1, and 0 and more", torch.ErrInvalidArgument, o.Decay, o.LR)
	}
	decay := 0.05
	if o.WeightDecay != nil {
		decay = *o.WeightDecay
	}
	if o.Layer == nil {
		var err error
		if o.Layer, err = layers(params); err != nil {
			return nil, err
		}
	}
	last := 0
	for _, p := range params {
		layer := o.Layer(p.Name)
		if layer < 0 {
			return nil, fmt.Errorf("layer decay: %w: %s: got layer %d, want 0 and more", torch.ErrInvalidArgument, p.Name, layer)
		}
		last = max(last, layer)
	}
	type key struct {
		layer int
		plain bool
	}
	var groups []ParamGroup
	places := map[key]int{}
	for _, p := range params {
		if p.Tensor == nil {
			return nil, fmt.Errorf("layer decay: %w: parameter %q: got a nil tensor", torch.ErrInvalidArgument, p.Name)
		}
		if !p.Tensor.RequiresGrad() {
			continue
		}
		k := key{o.Layer(p.Name), p.Tensor.Dim() <= 1 || embedding.MatchString(p.Name)}
		place, ok := places[k]
		if !ok {
			place = len(groups)
			places[k] = place
			g := ParamGroup{LR: new(o.LR * power(o.Decay, last-k.layer)), WeightDecay: new(decay)}
			if k.plain {
				*g.WeightDecay = 0
			}
			groups = append(groups, g)
		}
		groups[place].Params = append(groups[place].Params, p)
	}
	if len(groups) == 0 {
		return nil, fmt.Errorf("layer decay: %w: got no parameter that requires a gradient", torch.ErrInvalidArgument)
	}
	return groups, nil
}

var (
	// The name of the projection of patches ends the prefix that a wrapper put before a ViT's names:
	// timm, torchvision, Hugging Face.
	patches = regexp.MustCompile(`^(|.*\.)(?:patch_embed\.|conv_proj\.|embeddings\.patch_embeddings\.)`)
	stem    = regexp.MustCompile(`^(?:patch_embed\.|conv_proj\.|embeddings\.|\w+_tokens?$|class_token$|(?:encoder\.)?pos_embed(?:ding)?$|norm_pre\.|ln_pre\.)`)
	block   = regexp.MustCompile(`^(?:blocks\.|encoder\.layers\.encoder_layer_|(?:encoder\.)?layers?\.)(\d+)\.`)
	norm    = regexp.MustCompile(`^(?:encoder\.)?(?:norm|ln|layernorm|ln_post)\.`)

	embedding = regexp.MustCompile(`(?:^|\.)(?:\w+_tokens?|pos_embed(?:ding)?|position_embeddings|positional_embedding|class_embedding)$`)
)

// layers finds the ViT among the names.
func layers(params []Param) (func(name string) int, error) {
	prefix, found := "", false
	for _, p := range params {
		if m := patches.FindStringSubmatch(p.Name); m != nil {
			prefix, found = m[1], true
			break
		}
	}
	if !found {
		return nil, fmt.Errorf("layer decay: %w: got no parameter named patch_embed, conv_proj or patch_embeddings, want a ViT's names, or LayerDecayOptions.Layer", torch.ErrNotFound)
	}
	blockOf := func(name string) (int, bool) {
		m := block.FindStringSubmatch(name)
		if m == nil {
			return 0, false
		}
		n, err := strconv.Atoi(m[1])
		return n, err == nil
	}
	depth := 0
	for _, p := range params {
		if name, ok := strings.CutPrefix(p.Name, prefix); ok {
			if n, ok := blockOf(name); ok {
				depth = max(depth, n+1)
			}
		}
	}
	return func(name string) int {
		name, ours := strings.CutPrefix(name, prefix)
		if !ours {
			return depth + 1
		}
		if n, ok := blockOf(name); ok {
			return n + 1
		}
		switch {
		case stem.MatchString(name):
			return 0
		case norm.MatchString(name):
			return depth
		}
		return depth + 1
	}, nil
}
