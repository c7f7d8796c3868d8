package vit

import (
	"context"
	"errors"
	"fmt"
	"image"
	"math"
	"slices"
	"strconv"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
)

// ErrQuery says that there is no such token to look from: a patch outside the grid, a pixel that the model
// does not see, a prefix token that the model has not.
var ErrQuery = errors.New("no such query token")

// AttendOptions say whose attention is shown and how it is brought together. The zero value is what
// [VisionTransformer.Attend] gives of the last block: all heads, from the class token.
type AttendOptions struct {
	// Blocks are the blocks, from 0; negative ones count from the last. Nil means the last one, and for
	// Rollout all of them.
	Blocks []int
	// Heads are the heads, from 0; nil means all.
	Heads []int
	// Mean gives one map in place of one for each head: their mean, as of torch.mean.
	Mean bool
	// Rollout multiplies the attention through the blocks, by Abnar and Zuidema's rule, and gives one map for
	// each photo. It brings all heads together, so it does not go with Heads or Mean.
	Rollout *RolloutOptions
	// Query is the token that looks; the zero value is the first one, the class token.
	Query Query
	// KeepMass, in (0, 1], adds DINO's mask to each map: the patches with the highest weights that together
	// hold that share of the map, 0.6 in DINO's figures. 0 gives no masks.
	KeepMass float64
	// MaxBatch is the most photos in one batch; 0 is no limit.
	MaxBatch int
}

// RolloutOptions say how attention rollout brings the heads together. The zero value is the paper's.
type RolloutOptions struct {
	// HeadFusion is "mean", also for "", "max" or "min" over the heads.
	HeadFusion string
	// DiscardRatio, in [0, 1), is the share of the fused weights of each block, the lowest, that count as
	// 0. The class token's weight on itself always counts.
	DiscardRatio float64
}

// Query is the token whose attention is shown. The zero value is TokenQuery(0).
type Query struct {
	kind queryKind
	a, b int
}

type queryKind int

const (
	queryToken queryKind = iota
	queryPatch
	queryPixel
)

// TokenQuery looks from a prefix token: 0 is the class token, then come DeiT's distillation token or the
// registers. In a model without a class token they begin at 0.
func TokenQuery(index int) Query { return Query{queryToken, index, 0} }

// PatchQuery looks from the patch in that row and column of the grid, from 0.
func PatchQuery(row, column int) Query { return Query{queryPatch, row, column} }

// PixelQuery looks from the patch that shows a pixel of the photo, x to the right and y down, from 0.
func PixelQuery(x, y int) Query { return Query{queryPixel, x, y} }

// String is "token 0", "patch 3,4" (row, column) or "pixel 10,20" (x, y).
func (q Query) String() string {
	switch q.kind {
	case queryPatch:
		return fmt.Sprintf("patch %d,%d", q.a, q.b)
	case queryPixel:
		return fmt.Sprintf("pixel %d,%d", q.a, q.b)
	}
	return "token " + strconv.Itoa(q.a)
}

// token is the query's place among all tokens of a photo with that grid.
func (q Query) token(t *Tokens, rows, columns int, g transforms.Geometry) (int, error) {
	row, column := q.a, q.b
	switch q.kind {
	case queryToken:
		if q.a < 0 || q.a >= t.Prefix {
			if t.Prefix == 0 {
				return 0, fmt.Errorf("attend: %w: the model has no class token, want a patch or a pixel", ErrQuery)
			}
			return 0, fmt.Errorf("attend: %w: got token %d, want 0 to %d, the model's prefix tokens", ErrQuery, q.a, t.Prefix-1)
		}
		return q.a, nil
	case queryPixel:
		if q.a < 0 || q.b < 0 || q.a >= g.Width || q.b >= g.Height {
			return 0, fmt.Errorf("attend: %w: got pixel %d,%d, want x from 0 to %d and y from 0 to %d", ErrQuery, q.a, q.b, g.Width-1, g.Height-1)
		}
		// The pixel's middle.
		x, y := g.FromPhoto(float32(q.a)+0.5, float32(q.b)+0.5)
		row = int(math.Floor(float64(y))) / t.PatchSize[0]
		column = int(math.Floor(float64(x))) / t.PatchSize[len(t.PatchSize)-1]
		if x < 0 || y < 0 || row >= rows || column >= columns {
			return 0, fmt.Errorf("attend: %w: got pixel %d,%d, which preprocessing crops away", ErrQuery, q.a, q.b)
		}
	}
	if row < 0 || column < 0 || row >= rows || column >= columns {
		return 0, fmt.Errorf("attend: %w: got patch %d,%d, want rows 0 to %d and columns 0 to %d", ErrQuery, row, column, rows-1, columns-1)
	}
	return t.Prefix + row*columns + column, nil
}

// RolloutBlock is the Block of maps that come of many blocks.
const RolloutBlock = -1

// AttentionMaps is the attention of one token to the patches of one photo.
type AttentionMaps struct {
	// Block is the block, from 0, or RolloutBlock.
	Block int
	// Heads, Rows and Columns are the sizes of Values; Rows x Columns is the grid of patches. Heads is 1 for
	// a mean and for rollout.
	Heads, Rows, Columns int
	// HeadIndex holds each map's head, from 0; nil for a mean and for rollout.
	HeadIndex []int
	// Query is the token that looks, among all tokens, prefix tokens first: 0 for the class token.
	Query int
	// Values are the weights, head by head, row by row, prefix tokens left out: softmax's, 0 to 1, or rollout's.
	Values []float32
	// Mask tells for each of Values whether it belongs to the share that AttendOptions.KeepMass keeps; nil
	// without it.
	Mask []bool
	// Geometry tells which part of the photo the grid covers.
	Geometry transforms.Geometry
}

// Head is map i, Rows x Columns values: that of head i where all heads are there.
func (a *AttentionMaps) Head(i int) []float32 {
	n := a.Rows * a.Columns
	return a.Values[i*n : (i+1)*n]
}

// HeadMask is the mask of map i, Rows x Columns; nil without masks.
func (a *AttentionMaps) HeadMask(i int) []bool {
	if a.Mask == nil {
		return nil
	}
	n := a.Rows * a.Columns
	return a.Mask[i*n : (i+1)*n]
}

// Region is the part of the photo that the grid covers, in its pixels.
func (a *AttentionMaps) Region() image.Rectangle {
	return a.photo(a.Geometry.Visible())
}

// QueryPatch is the part of the photo that the looking token stands for, in its pixels; empty for a prefix
// token.
func (a *AttentionMaps) QueryPatch(t *Tokens) image.Rectangle {
	patch := a.Query - t.Prefix
	if patch < 0 {
		return image.Rectangle{}
	}
	h, w := t.PatchSize[0], t.PatchSize[len(t.PatchSize)-1]
	y, x := patch/a.Columns*h, patch%a.Columns*w
	return a.photo(x, y, x+w, y+h)
}

// photo takes a part of the model's input to the photo.
func (a *AttentionMaps) photo(x0, y0, x1, y1 int) image.Rectangle {
	g := a.Geometry
	left, top := g.ToPhoto(float32(x0), float32(y0))
	right, bottom := g.ToPhoto(float32(x1), float32(y1))
	near := func(v float32) int { return int(math.Round(float64(v))) }
	return image.Rect(near(left), near(top), near(right), near(bottom)).Intersect(image.Rect(0, 0, g.Width, g.Height))
}

// Name is what map i is called in captions: "head 3", "mean" or "rollout".
func (a *AttentionMaps) Name(i int) string {
	switch {
	case i < len(a.HeadIndex):
		return "head " + strconv.Itoa(a.HeadIndex[i])
	case a.Block == RolloutBlock:
		return "rollout"
	}
	return "mean"
}

// Mean is the mean of all heads, Rows x Columns values, added up in float32 in the order of the heads.
func (a *AttentionMaps) Mean() []float32 {
	mean := make([]float32, a.Rows*a.Columns)
	for h := range a.Heads {
		for i, v := range a.Head(h) {
			mean[i] += v
		}
	}
	for i := range mean {
		mean[i] /= float32(a.Heads)
	}
	return mean
}

// Attend gives the class token's attention of one block for each photo, as DINO's
// visualize_attention.py does: row 0 of the weights, prefix columns dropped, folded to the grid. A
// negative block counts from the last.
func (v *VisionTransformer) Attend(ctx context.Context, block int, images ...transforms.Source) ([]*AttentionMaps, error) {
	answers, err := v.AttendWith(ctx, AttendOptions{Blocks: []int{block}}, images...)
	if err != nil {
		return nil, err
	}
	maps := make([]*AttentionMaps, len(answers))
	for i, a := range answers {
		maps[i] = a[0]
	}
	return maps, nil
}

// AttendWith is Attend with options. For each photo it gives the maps of each of the blocks, or one with
// the rollout.
//
// Sources: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers" (2021), and its
// visualize_attention.py for the mask; Abnar and Zuidema, "Quantifying Attention Flow in Transformers" (2020),
// for rollout: A' = 0.5 A + 0.5 I with its rows made to sum to 1, and the product of all blocks' A'.
// Everything is computed by libtorch's operators, so the bits are those of the same lines in PyTorch.
//
// Errors: torch.ErrInvalidArgument for a bad option, ErrQuery, ErrNoMethod, ErrNoMetadata for a file that does
// not tell its patches (and for rollout, its depth).
func (v *VisionTransformer) AttendWith(ctx context.Context, o AttendOptions, images ...transforms.Source) ([][]*AttentionMaps, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if !v.runtime.HasMethod("attention") && !v.runtime.HasMethod("attentions") {
		return nil, fmt.Errorf("attend: %w: %s gives no attention; `scripts/export.py` makes a file of a plain ViT that does", ErrNoMethod, v.name)
	}
	tokens := v.meta.Tokens
	if tokens == nil || len(tokens.PatchSize) == 0 {
		return nil, fmt.Errorf("attend: %w: the metadata has no tokens.patch_size", ErrNoMetadata)
	}
	if len(o.Blocks) == 0 {
		o.Blocks = []int{-1}
		if o.Rollout != nil {
			if tokens.Depth == 0 {
				return nil, fmt.Errorf("attend: %w: rollout takes all blocks, and the metadata has no tokens.depth", ErrNoMetadata)
			}
			o.Blocks = make([]int, tokens.Depth)
			for i := range o.Blocks {
				o.Blocks[i] = i
			}
		}
	}
	inputs, err := v.Prepare(ctx, o.MaxBatch, images...)
	if err != nil {
		return nil, err
	}
	defer CloseInputs(inputs)
	answers := make([][]*AttentionMaps, len(images))
	for _, in := range inputs {
		maps, err := v.attend(ctx, o, in)
		if err != nil {
			return nil, err
		}
		for i, index := range in.Index {
			answers[index] = maps[i]
		}
	}
	return answers, nil
}

func (o *AttendOptions) check() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("attend: %w: %s", torch.ErrInvalidArgument, fmt.Sprintf(format, args...))
	}
	if !(o.KeepMass >= 0 && o.KeepMass <= 1) {
		return fail("got KeepMass %v, want 0 to 1", o.KeepMass)
	}
	for i, h := range o.Heads {
		if h < 0 || slices.Index(o.Heads, h) != i {
			return fail("got heads %v, want different ones from 0", o.Heads)
		}
	}
	r := o.Rollout
	if r == nil {
		return nil
	}
	if len(o.Heads) > 0 || o.Mean {
		return fail("got Rollout with Heads or Mean, want one of them: rollout brings all heads together")
	}
	if !(r.DiscardRatio >= 0 && r.DiscardRatio < 1) {
		return fail("got DiscardRatio %v, want 0 or more and less than 1", r.DiscardRatio)
	}
	if !slices.Contains([]string{"", "mean", "max", "min"}, r.HeadFusion) {
		return fail("got HeadFusion %q, want mean, max or min", r.HeadFusion)
	}
	return nil
}

// onePass is the most memory, in bytes, that the weights of several blocks may take together. Beyond it the
// blocks are run one by one, each of which runs those before it again.
const onePass = 1 << 30

// eachAttention calls f with the attention (B, heads, N, N) of each block in turn, with the block's place in
// the list. It closes them.
func (v *VisionTransformer) eachAttention(ctx context.Context, pixels *torch.Tensor, blocks []int, tokens int, f func(i int, attention *torch.Tensor) error) error {
	bytes := pixels.Size(0) * int64(max(v.meta.Tokens.NumHeads, 1)) * int64(tokens) * int64(tokens) * 4 * int64(len(blocks))
	if len(blocks) > 1 && bytes <= onePass && v.runtime.HasMethod("attentions") {
		answer, err := v.Call(ctx, "attentions", pixels, append([]int{}, blocks...))
		if err != nil {
			return err
		}
		defer torch.CloseAll(answer)
		all, ok := answer.([]*torch.Tensor)
		if !ok || len(all) != len(blocks) {
			return fmt.Errorf("attentions: %w: got %T, want %d tensors", ErrOutput, answer, len(blocks))
		}
		for i, a := range all {
			if err := f(i, a); err != nil {
				return err
			}
		}
		return nil
	}
	for i, block := range blocks {
		attention, err := v.Attention(ctx, pixels, block)
		if err != nil {
			return err
		}
		err = f(i, attention)
		attention.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// attend gives for each photo of a batch the maps of each block.
func (v *VisionTransformer) attend(ctx context.Context, o AttendOptions, in Input) ([][]*AttentionMaps, error) {
	tokens := v.meta.Tokens
	pixels := in.Pixels.Shape()
	rows, columns, err := tokens.grid(pixels)
	if err != nil {
		return nil, err
	}
	count := tokens.Prefix + rows*columns
	queries := make([]int64, len(in.Geometry))
	for b, g := range in.Geometry {
		q, err := o.Query.token(tokens, rows, columns, g)
		if err != nil {
			return nil, err
		}
		queries[b] = int64(q)
	}
	m := &attending{AttendOptions: o, ctx: ctx, tokens: tokens, in: in, rows: rows, columns: columns, queries: queries}
	defer m.scope.Close()
	m.answers = make([][]*AttentionMaps, len(queries))
	err = v.eachAttention(ctx, in.Pixels, o.Blocks, count, func(i int, attention *torch.Tensor) error {
		shape := attention.Shape()
		if len(shape) != 4 || shape[0] != pixels[0] || shape[2] != shape[3] || int(shape[3]) != count {
			return fmt.Errorf("attend: %w: got attention of %v, want (%d, heads, N, N) with N = %d prefix tokens and %d x %d patches", torch.ErrShape, shape, pixels[0], tokens.Prefix, rows, columns)
		}
		if o.Rollout != nil {
			return m.roll(attention)
		}
		block := o.Blocks[i]
		if block < 0 {
			block += tokens.Depth
		}
		return m.add(block, attention)
	})
	if err == nil && o.Rollout != nil {
		err = m.addRollout()
	}
	return m.answers, err
}

// attending is the work on one batch.
type attending struct {
	AttendOptions
	ctx           context.Context
	tokens        *Tokens
	in            Input
	rows, columns int
	queries       []int64
	answers       [][]*AttentionMaps
	scope         torch.Scope
	rolled        *torch.Tensor // (B, N, N), the product so far
}

// call runs an operator on a lane, so that the bits are those of Python with as many threads.
func (m *attending) call(s *torch.Scope, name string, args ...any) (*torch.Tensor, error) {
	v, err := torch.CallWith(m.ctx, torch.CallOptions{OnLane: true}, name, args...)
	if err != nil {
		return nil, fmt.Errorf("attend: %w", err)
	}
	s.Track(v)
	return v.(*torch.Tensor), nil
}

// pair is call for an operator that gives two tensors.
func (m *attending) pair(s *torch.Scope, name string, args ...any) (a, b *torch.Tensor, err error) {
	v, err := torch.CallWith(m.ctx, torch.CallOptions{OnLane: true}, name, args...)
	if err != nil {
		return nil, nil, fmt.Errorf("attend: %w", err)
	}
	s.Track(v)
	t := v.(torch.Tuple)
	return t[0].(*torch.Tensor), t[1].(*torch.Tensor), nil
}

// steps runs operators one after the other, each on the result of the one before.
func (m *attending) steps(s *torch.Scope, x *torch.Tensor, steps ...[]any) (*torch.Tensor, error) {
	for _, step := range steps {
		var err error
		if x, err = m.call(s, step[0].(string), append([]any{x}, step[1:]...)...); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// add takes a block's heads.
func (m *attending) add(block int, attention *torch.Tensor) error {
	heads := int(attention.Size(1))
	index := m.Heads
	for _, h := range index {
		if h >= heads {
			return fmt.Errorf("attend: %w: got head %d, want 0 to %d", torch.ErrInvalidArgument, h, heads-1)
		}
	}
	if index == nil {
		index = make([]int, heads)
		for h := range index {
			index[h] = h
		}
	}
	return m.addRow(block, attention, index)
}

// addRow takes the query's row of weights (B, heads, N, N); index nil means that there is one map which is no
// head's.
func (m *attending) addRow(block int, weights *torch.Tensor, index []int) error {
	var scope torch.Scope
	defer scope.Close()
	row, err := m.row(&scope, weights)
	if err != nil {
		return err
	}
	if len(m.Heads) > 0 {
		list, err := torch.NewTensor(toInt64(index))
		if err != nil {
			return err
		}
		defer list.Close()
		if row, err = m.call(&scope, "aten::index_select", row, 1, list); err != nil {
			return err
		}
	}
	own := torch.Own(&scope)
	if row, err = own(row.CastTo(torch.Float32)); err != nil {
		return err
	}
	if m.Mean {
		if row, err = m.call(&scope, "aten::mean.dim", row, []int64{1}, true); err != nil {
			return err
		}
		index = nil
	}
	values, err := torch.CopyData[float32](row)
	if err != nil {
		return err
	}
	var kept []bool
	if m.KeepMass > 0 {
		mask, err := m.mask(&scope, row)
		if err != nil {
			return err
		}
		if kept, err = torch.CopyData[bool](mask); err != nil {
			return err
		}
	}
	heads := int(row.Size(1))
	n := heads * m.rows * m.columns
	for b := range m.answers {
		maps := &AttentionMaps{
			Block: block, Heads: heads, Rows: m.rows, Columns: m.columns, HeadIndex: slices.Clone(index),
			Query: int(m.queries[b]), Values: values[b*n : (b+1)*n : (b+1)*n], Geometry: m.in.Geometry[b],
		}
		if kept != nil {
			maps.Mask = kept[b*n : (b+1)*n : (b+1)*n]
		}
		m.answers[b] = append(m.answers[b], maps)
	}
	return nil
}

// row is the query's row without the prefix columns, contiguous: (B, heads, N, N) to (B, heads, rows*columns).
func (m *attending) row(s *torch.Scope, weights *torch.Tensor) (*torch.Tensor, error) {
	same := !slices.ContainsFunc(m.queries, func(q int64) bool { return q != m.queries[0] })
	if same {
		return m.steps(s, weights,
			[]any{"aten::select.int", 2, m.queries[0]},
			[]any{"aten::slice.Tensor", 2, m.tokens.Prefix, nil, 1},
			[]any{"aten::contiguous"})
	}
	// One pixel lies in different patches of photos of different sizes.
	parts := make([]*torch.Tensor, len(m.queries))
	for b, q := range m.queries {
		var err error
		if parts[b], err = m.steps(s, weights,
			[]any{"aten::narrow", 0, b, 1},
			[]any{"aten::select.int", 2, q},
			[]any{"aten::slice.Tensor", 2, m.tokens.Prefix, nil, 1}); err != nil {
			return nil, err
		}
	}
	return m.call(s, "aten::cat", parts, 0)
}

// mask is DINO's: weights sorted, lowest first, as shares of their sum; the highest ones that hold KeepMass.
// (B, heads, n) to bools of that shape.
func (m *attending) mask(s *torch.Scope, weights *torch.Tensor) (*torch.Tensor, error) {
	values, order, err := m.pair(s, "aten::sort", weights, -1, false)
	if err != nil {
		return nil, err
	}
	sum, err := m.call(s, "aten::sum.dim_IntList", values, []int64{-1}, true)
	if err != nil {
		return nil, err
	}
	kept, err := m.steps(s, values,
		[]any{"aten::div.Tensor", sum},
		[]any{"aten::cumsum", -1},
		[]any{"aten::gt.Scalar", 1 - m.KeepMass})
	if err != nil {
		return nil, err
	}
	back, err := m.call(s, "aten::argsort", order, -1, false)
	if err != nil {
		return nil, err
	}
	return m.call(s, "aten::gather", kept, -1, back)
}

// roll multiplies one more block into the product.
func (m *attending) roll(attention *torch.Tensor) error {
	var scope torch.Scope
	defer scope.Close()
	fused, err := m.fuse(&scope, attention)
	if err != nil {
		return err
	}
	b, n := fused.Size(0), fused.Size(1)
	if drop := int64(float64(n*n) * m.Rollout.DiscardRatio); drop > 0 {
		if fused, err = m.discard(&scope, fused, drop); err != nil {
			return err
		}
	}
	options := torch.Kwargs{"dtype": torch.Float32, "device": fused.Device()}
	eye, err := m.call(&scope, "aten::eye", n, options)
	if err != nil {
		return err
	}
	if m.rolled == nil {
		if m.rolled, err = m.call(&m.scope, "aten::expand", eye, []int64{b, n, n}); err != nil {
			return err
		}
	}
	// (A + I) / 2 is the same number as 0.5 A + 0.5 I, as halving is exact.
	a, err := m.steps(&scope, fused, []any{"aten::add.Tensor", eye}, []any{"aten::div.Scalar", 2})
	if err != nil {
		return err
	}
	sum, err := m.call(&scope, "aten::sum.dim_IntList", a, []int64{-1}, true)
	if err != nil {
		return err
	}
	if a, err = m.call(&scope, "aten::div.Tensor", a, sum); err != nil {
		return err
	}
	product, err := m.call(&m.scope, "aten::matmul", a, m.rolled)
	if err != nil {
		return err
	}
	m.scope.Keep(m.rolled).Close()
	m.rolled = product
	return nil
}

func (m *attending) addRollout() error {
	weights, err := m.call(&m.scope, "aten::unsqueeze", m.rolled, 1)
	if err != nil {
		return err
	}
	return m.addRow(RolloutBlock, weights, nil)
}

// fuse brings the heads together in float32: (B, heads, N, N) to (B, N, N).
func (m *attending) fuse(s *torch.Scope, attention *torch.Tensor) (*torch.Tensor, error) {
	own := torch.Own(s)
	attention, err := own(attention.CastTo(torch.Float32))
	if err != nil {
		return nil, err
	}
	switch m.Rollout.HeadFusion {
	case "max":
		return m.call(s, "aten::amax", attention, []int64{1}, false)
	case "min":
		return m.call(s, "aten::amin", attention, []int64{1}, false)
	}
	return m.call(s, "aten::mean.dim", attention, []int64{1}, false)
}

// discard sets the lowest weights of each photo to 0, but never the first, of the class token on itself.
func (m *attending) discard(s *torch.Scope, fused *torch.Tensor, drop int64) (*torch.Tensor, error) {
	shape := fused.Shape()
	flat, err := m.call(s, "aten::reshape", fused, []int64{shape[0], shape[1] * shape[2]})
	if err != nil {
		return nil, err
	}
	_, lowest, err := m.pair(s, "aten::topk", flat, drop, -1, false, true)
	if err != nil {
		return nil, err
	}
	zeroed, err := m.call(s, "aten::scatter.value", flat, 1, lowest, 0)
	if err != nil {
		return nil, err
	}
	first, err := m.call(s, "aten::narrow", flat, 1, 0, 1)
	if err != nil {
		return nil, err
	}
	rest, err := m.call(s, "aten::narrow", zeroed, 1, 1, shape[1]*shape[2]-1)
	if err != nil {
		return nil, err
	}
	whole, err := m.call(s, "aten::cat", []*torch.Tensor{first, rest}, 1)
	if err != nil {
		return nil, err
	}
	return m.call(s, "aten::reshape", whole, shape)
}

func toInt64(list []int) []int64 {
	out := make([]int64, len(list))
	for i, v := range list {
		out[i] = int64(v)
	}
	return out
}
