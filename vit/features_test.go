package vit_test

import (
	"fmt"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/vit"
)

// reference runs a command of testdata/reference.py with as many threads as this process has.
func reference(t testing.TB, command string, args ...string) {
	t.Helper()
	testmain.NotShort(t)
	info, err := torch.RuntimeInfo()
	require.NoError(t, err)
	testmain.RunPython(t, append([]string{"vit/testdata/reference.py", command, "--threads", strconv.Itoa(info.LaneThreads[0])}, args...)...)
}

// loadNpz reads a file of arrays, which the test closes.
func loadNpz(t testing.TB, path string) map[string]*torch.Tensor {
	t.Helper()
	arrays, err := torch.LoadNpz(path)
	require.NoError(t, err)
	t.Cleanup(func() {
		for _, a := range arrays {
			a.Close()
		}
	})
	return arrays
}

// requireBits wants equal shape and bits, of more than one value.
func requireBits(t testing.TB, want, got *torch.Tensor, what string) {
	t.Helper()
	require.NotNil(t, want, what)
	require.Equal(t, want.Shape(), got.Shape(), what)
	c, err := got.Contiguous()
	require.NoError(t, err)
	defer c.Close()
	d, err := torch.Compare(want, c)
	require.NoError(t, err)
	require.Zero(t, d.Different, "%s: %v", what, d)
	values, err := torch.CopyData[float32](c)
	require.NoError(t, err)
	distinct := map[float32]bool{}
	for _, v := range values {
		distinct[v] = true
	}
	require.Greater(t, len(distinct), len(values)/4, "%s: the values hardly differ", what)
}

var featureModels = []string{"vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_little_patch16_reg4_gap_256", "vit_small_patch14_reg4_dinov2"}

const featureGrids = 4

func TestFeaturesAreTimms(t *testing.T) {
	dir := t.TempDir()
	reference(t, "features", "--out", dir)
	want := loadNpz(t, filepath.Join(dir, "features.npz"))
	extract := func(t *testing.T, file string, o vit.FeatureOptions, x *torch.Tensor) []*torch.Tensor {
		t.Helper()
		e, err := vit.LoadFeatureExtractor(filepath.Join(dir, file), o, vit.Options{})
		require.NoError(t, err)
		defer e.Close()
		maps, err := e.Forward(t.Context(), x)
		require.NoError(t, err)
		t.Cleanup(func() { torch.CloseAll(maps) })
		return maps
	}

	for _, name := range featureModels {
		for _, format := range []vit.FeatureFormat{vit.FormatNCHW, vit.FormatNLC} {
			for _, norm := range []bool{false, true} {
				form := map[bool]string{false: "plain", true: "norm"}[norm]
				t.Run(fmt.Sprintf("%s/%s/%s", name, format, form), func(t *testing.T) {
					e, err := vit.LoadFeatureExtractor(filepath.Join(dir, name+".pt"), vit.FeatureOptions{
						Blocks: []int{2, 0, -2}, Format: format, Norm: norm,
					}, vit.Options{})
					require.NoError(t, err)
					defer e.Close()
					second := e.Metadata().Tokens.Depth - 2
					for g := range featureGrids {
						maps, err := e.Forward(t.Context(), want[fmt.Sprintf("%s.%d.x", name, g)])
						require.NoError(t, err)
						require.Len(t, maps, 3)
						for i, block := range []int{2, 0, second} {
							key := fmt.Sprintf("%s.%d.%s.%s.%d", name, g, format, form, block)
							if format == vit.FormatNCHW {
								require.True(t, maps[i].IsContiguous())
							}
							requireBits(t, want[key], maps[i], key)
						}
						torch.CloseAll(maps)
					}
				})
			}
		}
		if name == "vit_small_patch14_reg4_dinov2" {
			continue
		}
		x := want[name+".0.x"]
		for form, n := range map[string]int{"single": 1, "tuple": 3, "list": 3} {
			t.Run(name+"/traced "+form, func(t *testing.T) {
				file := name + ".traced." + form + ".pt"
				o := vit.FeatureOptions{}
				if form == "single" {
					o = vit.FeatureOptions{Format: vit.FormatNLC, KeepPrefix: true}
				}
				maps := extract(t, file, o, x)
				require.Len(t, maps, n)
				for i, m := range maps {
					key := fmt.Sprintf("%s.traced.%s.%d", name, form, i)
					requireBits(t, want[key], m, key)
				}
				if form == "single" {
					// Tokens after the norm, folded here.
					folded := extract(t, file, vit.FeatureOptions{}, x)
					last := extract(t, name+".pt", vit.FeatureOptions{Norm: true}, x)
					if name != featureModels[0] { // which has a block more than its trace shows
						requireBits(t, last[0], folded[0], name)
					}
					return
				}
				chosen := extract(t, file, vit.FeatureOptions{Blocks: []int{-1, 0, 0}, Format: vit.FormatNLC}, x)
				for i, block := range []int{2, 0, 0} {
					key := fmt.Sprintf("%s.0.NLC.plain.%d", name, block)
					requireBits(t, want[key], chosen[i], key)
				}
			})
		}
	}

	t.Run("decoder", func(t *testing.T) {
		decoder, err := jit.Load(filepath.Join(dir, "decoder.pt"), jit.LoadOptions{})
		require.NoError(t, err)
		defer decoder.Close()
		e, err := vit.LoadFeatureExtractor(filepath.Join(dir, "vit_tiny_patch16_224.pt"), vit.FeatureOptions{Blocks: []int{0, 1, 2}}, vit.Options{})
		require.NoError(t, err)
		defer e.Close()
		for g := range featureGrids {
			maps, err := e.Forward(t.Context(), want[fmt.Sprintf("vit_tiny_patch16_224.%d.x", g)])
			require.NoError(t, err)
			logits, err := decoder.Forward(t.Context(), maps)
			torch.CloseAll(maps)
			require.NoError(t, err)
			requireBits(t, want[fmt.Sprintf("decoder.%d", g)], logits.(*torch.Tensor), "decoder")
			torch.CloseAll(logits)
		}
	})

	t.Run("prefix", func(t *testing.T) {
		x := want["deit_tiny_distilled_patch16_224.2.x"]
		v, err := vit.Load(filepath.Join(dir, "deit_tiny_distilled_patch16_224.pt"), vit.Options{})
		require.NoError(t, err)
		defer v.Close()
		blocks, err := v.ForwardBlocks(t.Context(), x, 1)
		require.NoError(t, err)
		defer torch.CloseAll(blocks)
		kept := extract(t, "deit_tiny_distilled_patch16_224.pt", vit.FeatureOptions{Blocks: []int{1}, Format: vit.FormatNLC, KeepPrefix: true}, x)
		require.Equal(t, []int64{2, 2 + 21, 96}, kept[0].Shape())
		requireBits(t, blocks[0], kept[0], "prefix")
	})

	t.Run("photos", func(t *testing.T) {
		e, err := vit.LoadFeatureExtractor(filepath.Join(dir, "vit_tiny_patch16_224.pt"), vit.FeatureOptions{}, vit.Options{})
		require.NoError(t, err)
		defer e.Close()
		found, err := e.Extract(t.Context(), 2, testImage(t, "coffee.jpg"), testImage(t, "chelsea.png"), testImage(t, "portrait.jpg"))
		require.NoError(t, err)
		require.Len(t, found, 2, "batches of two at most")
		for i, f := range found {
			defer f.Close()
			require.Equal(t, []int64{int64(2 - i), 96, 4, 4}, f.Maps[0].Shape())
			require.Len(t, f.Geometry, 2-i)
		}
		assert.Equal(t, []int{0, 1}, found[0].Index)
		assert.Equal(t, []int{2}, found[1].Index)
		assert.Equal(t, 400, found[0].Geometry[0].Height)
	})
}

func TestFeatureErrors(t *testing.T) {
	tensors := func([]any) (any, error) { return []*torch.Tensor{}, nil }
	blocks := map[string]func([]any) (any, error){"forward_blocks": tensors}
	model := func(task string, methods map[string]func([]any) (any, error), change func(*vit.Metadata)) *vit.Model {
		meta := describe(task)
		if change != nil {
			change(meta)
		}
		m, err := vit.NewModel(&fake{methods: methods}, "fake.pt", vit.Options{Metadata: meta})
		require.NoError(t, err)
		return m
	}
	for name, try := range map[string]struct {
		m    *vit.Model
		o    vit.FeatureOptions
		kind error
		text string
	}{
		"no method":   {model(vit.TaskClassification, nil, nil), vit.FeatureOptions{}, vit.ErrNoMethod, "scripts/export.py"},
		"format":      {model(vit.TaskClassification, blocks, nil), vit.FeatureOptions{Format: "NHWC"}, torch.ErrInvalidArgument, "NHWC"},
		"prefix":      {model(vit.TaskClassification, blocks, nil), vit.FeatureOptions{KeepPrefix: true}, torch.ErrInvalidArgument, "NLC"},
		"block":       {model(vit.TaskClassification, blocks, nil), vit.FeatureOptions{Blocks: []int{3}}, torch.ErrInvalidArgument, "-3 to 2"},
		"norm":        {model(vit.TaskClassification, blocks, nil), vit.FeatureOptions{Blocks: []int{1}, Norm: true}, vit.ErrNoMethod, "forward_norm"},
		"norm traced": {model(vit.TaskFeatures, nil, nil), vit.FeatureOptions{Norm: true}, vit.ErrNoMethod, "forward_norm"},
		"tokens":      {model(vit.TaskClassification, blocks, func(m *vit.Metadata) { m.Tokens = nil }), vit.FeatureOptions{}, vit.ErrNoMetadata, "patch_size"},
	} {
		_, err := vit.NewFeatureExtractor(try.m, try.o)
		require.ErrorIs(t, err, try.kind, name)
		require.ErrorContains(t, err, try.text, name)
	}

	x, err := torch.Zeros([]int64{1, 3, 16, 24}, torch.TensorOptions{})
	require.NoError(t, err)
	defer x.Close()
	answer := func(v any) map[string]func([]any) (any, error) {
		return map[string]func([]any) (any, error){"forward": func([]any) (any, error) { return v, nil }}
	}
	zeros := func(shape ...int64) *torch.Tensor {
		z, err := torch.Zeros(shape, torch.TensorOptions{})
		require.NoError(t, err)
		return z
	}
	for name, try := range map[string]struct {
		answer any
		o      vit.FeatureOptions
		bare   bool
		kind   error
		text   string
	}{
		"no tensor": {torch.Tuple{zeros(1, 7, 4), int64(3)}, vit.FeatureOptions{}, false, vit.ErrOutput, "int64"},
		"empty":     {torch.Tuple{}, vit.FeatureOptions{}, false, vit.ErrOutput, "without tensors"},
		"which":     {zeros(1, 7, 4), vit.FeatureOptions{Blocks: []int{1}}, false, torch.ErrInvalidArgument, "map 1"},
		"rank":      {zeros(1, 7), vit.FeatureOptions{}, false, vit.ErrOutput, "[1 7]"},
		"count":     {zeros(1, 9, 4), vit.FeatureOptions{}, false, torch.ErrShape, "9 tokens"},
		"unknown":   {zeros(1, 7, 4), vit.FeatureOptions{}, true, vit.ErrNoMetadata, "7 tokens"},
	} {
		m := model(vit.TaskFeatures, answer(try.answer), func(m *vit.Metadata) {
			if try.bare {
				m.Tokens = nil
			}
		})
		e, err := vit.NewFeatureExtractor(m, try.o)
		require.NoError(t, err, name)
		_, err = e.Forward(t.Context(), x)
		require.ErrorIs(t, err, try.kind, name)
		require.ErrorContains(t, err, try.text, name)
	}
}
