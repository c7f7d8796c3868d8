package train

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
)

// Parameter is a parameter of a model.
type Parameter struct {
	jit.NamedTensor
	// ViT tells that it belongs to the ViT, and not to the head.
	ViT bool
	// Block is the ViT's block that it belongs to; -1 for what stands before the blocks, and for the head. What
	// comes after them, such as the final norm, has the number of blocks.
	Block int
	// after tells that it comes after the blocks.
	after bool
}

// blockNames are the names that blocks have: timm's, DINO's and this project's; torchvision's; transformers';
// open_clip's.
var blockNames = regexp.MustCompile(`^(.*?)(?:layers\.encoder_layer_|(?:blocks|layers|layer|resblocks)\.)(\d+)\.`)

// afterBlocks are the ViT's own parameters that follow its blocks.
var afterBlocks = regexp.MustCompile(`^(?:encoder\.ln|norm|fc_norm|layernorm|ln_post|ln)\.`)

// isHead tells whether the first part of a name below the ViT is that of a head.
func isHead(name string) bool {
	first, _, _ := strings.Cut(name, ".")
	for _, part := range []string{"head", "classifier", "decode", "predict", "embed_dim_to_class", "class_embed", "bbox_embed"} {
		if strings.Contains(first, part) {
			return true
		}
	}
	return slices.Contains([]string{"fc", "levels", "neck", "fpn", "rpn", "pooler"}, first)
}

// divide says of each parameter whether it is the ViT's, and of which block, and gives what stands before the
// names of the ViT's parameters.
func divide(tensors []jit.NamedTensor) (out []Parameter, root string) {
	// The ViT is where most parameters of blocks are: a head may have blocks too.
	count := map[string]int{}
	for _, t := range tensors {
		if m := blockNames.FindStringSubmatch(t.Name); m != nil {
			count[m[1]]++
		}
	}
	trunk, most := "", 0
	for prefix, n := range count {
		if n > most || n == most && prefix < trunk {
			trunk, most = prefix, n
		}
	}
	root = trunk
	for _, inner := range []string{"encoder.", "transformer."} {
		root = strings.TrimSuffix(root, inner)
	}
	out = make([]Parameter, len(tensors))
	blocks := 0
	for i, t := range tensors {
		p := Parameter{NamedTensor: t, Block: -1}
		below, inside := strings.CutPrefix(t.Name, root)
		p.ViT = most > 0 && inside && !isHead(below)
		if m := blockNames.FindStringSubmatch(t.Name); p.ViT && m != nil && m[1] == trunk {
			p.Block, _ = strconv.Atoi(m[2])
			blocks = max(blocks, p.Block+1)
		}
		out[i] = p
	}
	for i, p := range out {
		if p.ViT && p.Block < 0 && afterBlocks.MatchString(strings.TrimPrefix(p.Name, root)) {
			out[i].Block, out[i].after = blocks, true
		}
	}
	return out, root
}

// inViT tells whether a name is that of a part of the ViT.
func (m *Model) inViT(name string) bool {
	below, inside := strings.CutPrefix(name, m.root)
	return inside && !isHead(below) && slices.ContainsFunc(m.parameters, func(p Parameter) bool { return p.ViT })
}

// blocks is the number of the ViT's blocks, whether or not a norm follows them.
func (m *Model) blocks() int {
	n := 0
	for _, p := range m.parameters {
		if !p.ViT {
			continue
		}
		if p.after {
			n = max(n, p.Block)
		} else {
			n = max(n, p.Block+1)
		}
	}
	return n
}

// Freeze says which parameters of a model stay as they are.
type Freeze struct {
	// ViT freezes all of the ViT.
	ViT bool
	// Blocks freezes what stands before the ViT's blocks, and that many of them.
	Blocks int
}

// ParseFreeze reads none, vit or blocks:N.
func ParseFreeze(text string) (Freeze, error) {
	switch text {
	case "", "none":
		return Freeze{}, nil
	case "vit":
		return Freeze{ViT: true}, nil
	}
	if n, ok := strings.CutPrefix(text, "blocks:"); ok {
		if blocks, err := strconv.Atoi(n); err == nil && blocks > 0 {
			return Freeze{Blocks: blocks}, nil
		}
	}
	return Freeze{}, fmt.Errorf("freeze: %w: got %q, want none, vit or blocks:N with N of 1 or more", ErrOptions, text)
}

// String is what ParseFreeze reads.
func (f Freeze) String() string {
	switch {
	case f.ViT:
		return "vit"
	case f.Blocks > 0:
		return "blocks:" + strconv.Itoa(f.Blocks)
	}
	return "none"
}

// holds tells whether a parameter stays as it is.
func (f Freeze) holds(p Parameter) bool {
	return p.ViT && (f.ViT || f.Blocks > 0 && p.Block < f.Blocks)
}

// Freeze says from here on which parameters are learned: those that f does not hold. The error is ErrOptions
// where the model has no such part, and where nothing would be learned.
func (m *Model) Freeze(f Freeze) error {
	blocks := m.blocks()
	switch {
	case (f.ViT || f.Blocks > 0) && blocks == 0:
		return fmt.Errorf("freeze %s: %w: %s has no blocks of a ViT (blocks.N, encoder.layer.N and the like), want none", f, ErrOptions, m.name)
	case f.Blocks > blocks && !f.ViT && f.Blocks > 0:
		return fmt.Errorf("freeze %s: %w: the ViT has %d blocks", f, ErrOptions, blocks)
	}
	learned := 0
	for _, p := range m.parameters {
		on := !f.holds(p) && p.Tensor.DType().IsFloatingPoint()
		if err := p.Tensor.SetRequiresGrad(on); err != nil {
			return fmt.Errorf("freeze: %s: %w", p.Name, err)
		}
		if on {
			learned++
		}
	}
	if learned == 0 {
		return fmt.Errorf("freeze %s: %w: nothing of %s would be learned", f, ErrOptions, m.name)
	}
	return nil
}

// Learned are the parameters that are not frozen.
func (m *Model) Learned() []jit.NamedTensor {
	var out []jit.NamedTensor
	for _, p := range m.parameters {
		if p.Tensor.RequiresGrad() {
			out = append(out, p.NamedTensor)
		}
	}
	return out
}

// count is the number of elements.
func count(tensors []jit.NamedTensor) (n int64) {
	for _, t := range tensors {
		n += t.Tensor.NumEl()
	}
	return n
}

// noGrad runs an operator that writes into its first argument, as under torch.no_grad.
func noGrad(op string, args ...any) error {
	v, err := torch.CallWith(context.Background(), torch.CallOptions{Mode: torch.NoGrad}, op, args...)
	torch.CloseAll(v)
	return err
}
