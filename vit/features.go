package vit

import (
	"context"
	"fmt"
	"slices"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
)

// FeatureFormat is the form of feature maps.
type FeatureFormat string

// The formats, with timm's names: B photos, D channels, a grid of h x w patches.
const (
	// FormatNCHW is (B, D, h, w), contiguous, without the prefix tokens.
	FormatNCHW FeatureFormat = "NCHW"
	// FormatNLC is (B, h*w, D): the patches row by row.
	FormatNLC FeatureFormat = "NLC"
)

// FeatureOptions say which maps a FeatureExtractor gives, and how. The zero value gives the last block's as
// NCHW, before the final norm.
type FeatureOptions struct {
	// Blocks are the blocks whose output is wanted, from 0, in any order; negative ones count from the
	// last. Nil means the last one. For a file of the features task they choose among the maps that its
	// forward gives, and nil means all of them.
	Blocks []int
	// Format is FormatNCHW, also for "", or FormatNLC.
	Format FeatureFormat
	// KeepPrefix leaves the prefix tokens (class, distillation, registers) in front of the patches, as
	// segmentation heads take them: (B, prefix + h*w, D). It needs FormatNLC.
	KeepPrefix bool
	// Norm applies the model's final norm to each map. ViT files of scripts/export.py have it as a method
	// (forward_norm); of older ones only the last block can be had so.
	Norm bool
}

// FeatureExtractor gives the feature maps of chosen blocks of a ViT, for a decoder: a U-Net, an FPN, a head
// of one's own. It is timm's forward_intermediates(x, indices, norm=, output_fmt=, intermediates_only=True),
// with the same bits from the same kernels. The maps never leave libtorch: they go as they are into the
// forward of another jit.Module.
type FeatureExtractor struct {
	*Model
	o      FeatureOptions
	source featureSource
}

// featureSource is the way by which a file gives its maps.
type featureSource int

const (
	fromBlocks   featureSource = iota // forward_blocks, and forward_norm where the norm is wanted
	fromFeatures                      // forward_features: the last block after the norm
	fromForward                       // forward of a features file
)

// LoadFeatureExtractor loads a file of any task that gives features; see [NewFeatureExtractor].
func LoadFeatureExtractor(path string, f FeatureOptions, o Options) (*FeatureExtractor, error) {
	m, err := LoadModel(path, o)
	if err != nil {
		return nil, err
	}
	e, err := NewFeatureExtractor(m, f)
	if err != nil {
		m.Close()
		return nil, err
	}
	return e, nil
}

// NewFeatureExtractor makes one of a model that is loaded. Closing it closes the model.
//
// Errors: ErrNoMethod for a file without forward_blocks, or without a method for the norm where it is asked
// for, and without the features task; torch.ErrInvalidArgument for options that do not go together or a block
// that the model has not; ErrNoMetadata where patches are to be folded, or prefix tokens dropped, and nothing
// says how many there are.
func NewFeatureExtractor(m *Model, o FeatureOptions) (*FeatureExtractor, error) {
	fail := func(kind error, format string, args ...any) (*FeatureExtractor, error) {
		return nil, fmt.Errorf("features: %w: %s", kind, fmt.Sprintf(format, args...))
	}
	if o.Format == "" {
		o.Format = FormatNCHW
	}
	if o.Format != FormatNCHW && o.Format != FormatNLC {
		return fail(torch.ErrInvalidArgument, "got format %q, want %s or %s", o.Format, FormatNCHW, FormatNLC)
	}
	if o.KeepPrefix && o.Format != FormatNLC {
		return fail(torch.ErrInvalidArgument, "got KeepPrefix with %s, want it with %s: prefix tokens have no place in a map", o.Format, FormatNLC)
	}
	o.Blocks = slices.Clone(o.Blocks)
	e := &FeatureExtractor{Model: m, o: o}
	has := m.runtime.HasMethod
	last := len(o.Blocks) == 0 || len(o.Blocks) == 1 && m.isLast(o.Blocks[0])
	switch {
	case m.meta.Task == TaskFeatures && !has("forward_blocks"):
		if o.Norm {
			return fail(ErrNoMethod, "got %s, a file of features, whose maps are as its forward gives them, want one with forward_norm; `scripts/export.py` makes one from timm:, hf: or torchvision:", m.name)
		}
		e.source = fromForward
		return e, nil
	case has("forward_blocks") && (!o.Norm || has("forward_norm")):
	case o.Norm && last && has("forward_features"):
		e.source = fromFeatures
	case o.Norm && has("forward_blocks"):
		return fail(ErrNoMethod, "got %s, without a method forward_norm, want the norm of its last block only, or a file that `scripts/export.py` makes today", m.name)
	default:
		return fail(ErrNoMethod, "got %s, which has no method forward_blocks; `scripts/export.py timm:NAME` (hf:, torchvision:) makes a file that has, and a trace that returns its features works with the task features", m.name)
	}
	if len(o.Blocks) == 0 {
		e.o.Blocks = []int{-1}
	}
	if t := m.meta.Tokens; t != nil && t.Depth > 0 {
		for _, b := range e.o.Blocks {
			if b >= t.Depth || b < -t.Depth {
				return fail(torch.ErrInvalidArgument, "got block %d, want %d to %d: %s has %d blocks", b, -t.Depth, t.Depth-1, m.name, t.Depth)
			}
		}
	}
	if !o.KeepPrefix && (m.meta.Tokens == nil || len(m.meta.Tokens.PatchSize) == 0) {
		return fail(ErrNoMetadata, "nothing says how many tokens of %s stand before the patches, and how large a patch is, want tokens.prefix and tokens.patch_size", m.name)
	}
	return e, nil
}

// isLast reports whether a block is the last one for certain.
func (m *Model) isLast(block int) bool {
	return block == -1 || m.meta.Tokens != nil && m.meta.Tokens.Depth > 0 && block == m.meta.Tokens.Depth-1
}

// Forward gives the maps of pixels (B, 3, H, W), in the order of Blocks. They are the caller's.
func (e *FeatureExtractor) Forward(ctx context.Context, pixels *torch.Tensor) ([]*torch.Tensor, error) {
	var scope torch.Scope
	defer scope.Close()
	tokens, err := e.raw(ctx, &scope, pixels)
	if err != nil {
		return nil, err
	}
	shape := pixels.Shape()
	maps := make([]*torch.Tensor, len(tokens))
	for i, t := range tokens {
		if maps[i], err = e.form(ctx, &scope, t, shape); err != nil {
			return nil, fmt.Errorf("features: map %d: %w", i, err)
		}
	}
	for _, t := range maps {
		scope.Keep(t)
	}
	return maps, nil
}

// raw gives the maps as the file does, in the scope.
func (e *FeatureExtractor) raw(ctx context.Context, scope *torch.Scope, pixels *torch.Tensor) ([]*torch.Tensor, error) {
	v := &VisionTransformer{e.Model}
	switch e.source {
	case fromForward:
		return e.answered(ctx, scope, pixels)
	case fromFeatures:
		tokens, attention, err := v.ForwardFeatures(ctx, pixels)
		if err != nil {
			return nil, err
		}
		scope.Track(tokens, attention)
		return []*torch.Tensor{tokens}, nil
	}
	tokens, err := v.ForwardBlocks(ctx, pixels, e.o.Blocks...)
	if err != nil {
		return nil, err
	}
	scope.Track(tokens)
	if !e.o.Norm {
		return tokens, nil
	}
	own := torch.Own(scope)
	for i, t := range tokens {
		if tokens[i], err = own(e.Tensor(ctx, "forward_norm", t)); err != nil {
			return nil, err
		}
	}
	return tokens, nil
}

// answered gives the tensors in the answer of a features file that Blocks choose.
func (e *FeatureExtractor) answered(ctx context.Context, scope *torch.Scope, pixels *torch.Tensor) ([]*torch.Tensor, error) {
	answer, err := e.Call(ctx, "forward", pixels)
	if err != nil {
		return nil, err
	}
	scope.Track(answer)
	leaves, err := e.Leaves(answer)
	if err != nil {
		return nil, fmt.Errorf("features: %w", err)
	}
	all := make([]*torch.Tensor, len(leaves))
	for i, leaf := range leaves {
		t, ok := leaf.Value.(*torch.Tensor)
		if !ok {
			return nil, fmt.Errorf("features: %w: got %T as %s, want tensors only, tokens (B, N, D) or maps (B, D, h, w)", ErrOutput, leaf.Value, leaf.Name)
		}
		all[i] = t
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("features: %w: got an answer without tensors from %s, want tokens (B, N, D) or maps (B, D, h, w)", ErrOutput, e.name)
	}
	if len(e.o.Blocks) == 0 {
		return all, nil
	}
	chosen := make([]*torch.Tensor, len(e.o.Blocks))
	for i, b := range e.o.Blocks {
		if b >= len(all) || b < -len(all) {
			return nil, fmt.Errorf("features: %w: got map %d, want %d to %d: forward of %s gives %d", torch.ErrInvalidArgument, b, -len(all), len(all)-1, e.name, len(all))
		}
		chosen[i] = all[(b+len(all))%len(all)]
	}
	return chosen, nil
}

// form brings tokens or a map to the format. Every map is a tensor of its own.
func (e *FeatureExtractor) form(ctx context.Context, scope *torch.Scope, t *torch.Tensor, pixels []int64) (*torch.Tensor, error) {
	own := torch.Own(scope)
	shape := t.Shape()
	nchw := e.o.Format == FormatNCHW
	switch len(shape) {
	case 4:
		if nchw {
			return own(t.Alias())
		}
		// (B, D, h, w) to (B, h*w, D)
		flat, err := own(t.Flatten(2, 3))
		if err != nil {
			return nil, err
		}
		return own(flat.Transpose(1, 2))
	case 3:
	default:
		return nil, fmt.Errorf("%w: got shape %v, want tokens (B, N, D) or a map (B, D, h, w)", ErrOutput, shape)
	}
	if e.o.KeepPrefix {
		return own(t.Alias())
	}
	tokens := e.meta.Tokens
	if tokens == nil || len(tokens.PatchSize) == 0 {
		return nil, fmt.Errorf("%w: nothing says how many of the %d tokens stand before the patches, and how large a patch is, want tokens.prefix and tokens.patch_size", ErrNoMetadata, shape[1])
	}
	rows, columns, err := tokens.grid(pixels)
	if err != nil {
		return nil, err
	}
	if shape[1] != int64(tokens.Prefix+rows*columns) {
		return nil, fmt.Errorf("%w: got %d tokens for pixels %v, want %d prefix tokens and %d x %d patches", torch.ErrShape, shape[1], pixels, tokens.Prefix, rows, columns)
	}
	patches, err := own(t.Slice(1, int64(tokens.Prefix), shape[1], 1))
	if err != nil || !nchw {
		return patches, err
	}
	folded, err := own(patches.Reshape(shape[0], int64(rows), int64(columns), shape[2]))
	if err != nil {
		return nil, err
	}
	if folded, err = own(folded.Permute(0, 3, 1, 2)); err != nil {
		return nil, err
	}
	return own(torch.CallTensor(ctx, "aten::contiguous", folded))
}

// grid is the number of patches down and across of pixels (B, 3, H, W).
func (t *Tokens) grid(pixels []int64) (rows, columns int, err error) {
	if len(pixels) != 4 {
		return 0, 0, fmt.Errorf("%w: got pixels %v, want (B, 3, H, W)", torch.ErrShape, pixels)
	}
	return int(pixels[2]) / t.PatchSize[0], int(pixels[3]) / t.PatchSize[len(t.PatchSize)-1], nil
}

// Features are the maps of photos whose inputs share a shape.
type Features struct {
	// Maps are the feature maps, in the order of the options' Blocks, B photos each.
	Maps []*torch.Tensor
	// Geometry tells for each photo which part of it the maps show.
	Geometry []transforms.Geometry
	// Index is the place of each photo among those that were given.
	Index []int
}

// Close frees the maps.
func (f Features) Close() { torch.CloseAll(f.Maps) }

// Extract gives the maps of photos after the file's preprocess. Photos whose inputs have one shape share a
// batch of at most maxBatch (0: no limit). The caller closes each of the Features.
func (e *FeatureExtractor) Extract(ctx context.Context, maxBatch int, images ...transforms.Source) ([]Features, error) {
	inputs, err := e.Prepare(ctx, maxBatch, images...)
	if err != nil {
		return nil, err
	}
	defer CloseInputs(inputs)
	found := make([]Features, 0, len(inputs))
	for _, in := range inputs {
		maps, err := e.Forward(ctx, in.Pixels)
		if err != nil {
			for _, f := range found {
				f.Close()
			}
			return nil, err
		}
		found = append(found, Features{Maps: maps, Geometry: in.Geometry, Index: in.Index})
	}
	return found, nil
}
