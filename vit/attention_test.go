package vit_test

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

func TestAttentionIsPythons(t *testing.T) {
	root := testmain.Root(t)
	var models, photos []string
	for _, name := range []string{"vit_reference", "deit_tiny_distilled_patch16_224", "vit_little_patch16_reg4_gap_256", "vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"} {
		models = append(models, filepath.Join(root, "testdata", "generated", name+".pt"))
	}
	for _, name := range []string{"coffee.jpg", "chelsea.png", "portrait.jpg", "panorama.jpg", "tiny.png", "cmyk.jpg", "palette.png"} {
		photos = append(photos, filepath.Join(root, "testdata", "images", name))
	}
	file := filepath.Join(t.TempDir(), "attention.npz")
	reference(t, "attention", append(append([]string{"--out", file, "--models"}, models...), append([]string{"--photos"}, photos...)...)...)
	want := loadNpz(t, file)
	floats := func(key string) []float32 {
		require.NotNil(t, want[key], key)
		values, err := torch.CopyData[float32](want[key])
		require.NoError(t, err)
		return values
	}
	bools := func(key string) []bool {
		require.NotNil(t, want[key], key)
		values, err := torch.CopyData[bool](want[key])
		require.NoError(t, err)
		return values
	}
	same := func(key string, got []float32) {
		t.Helper()
		w := floats(key)
		require.Len(t, got, len(w), key)
		distinct := map[float32]bool{}
		for i := range w {
			require.Equal(t, math.Float32bits(w[i]), math.Float32bits(got[i]), "%s: value %d: got %v, want %v", key, i, got[i], w[i])
			distinct[w[i]] = true
		}
		require.Greater(t, len(distinct), len(w)/4, "%s: the values hardly differ", key)
	}
	sameMask := func(key string, got []bool) {
		t.Helper()
		w := bools(key)
		require.Equal(t, w, got, key)
		kept := 0
		for _, v := range w {
			if v {
				kept++
			}
		}
		require.Greater(t, kept, 3, key)
		require.Less(t, kept, len(w)-3, key)
	}

	for m, path := range models {
		v, err := vit.Load(path, vit.Options{})
		require.NoError(t, err)
		t.Cleanup(func() { v.Close() })
		tokens := v.Metadata().Tokens
		for p, photo := range photos {
			attend := func(o vit.AttendOptions) *vit.AttentionMaps {
				t.Helper()
				answers, err := v.AttendWith(t.Context(), o, photo)
				require.NoError(t, err)
				require.Len(t, answers, 1)
				require.Len(t, answers[0], 1)
				return answers[0][0]
			}
			key := func(name string) string { return fmt.Sprintf("%d.%d.%s", m, p, name) }

			got := attend(vit.AttendOptions{KeepMass: 0.6})
			same(key("heads"), got.Values)
			sameMask(key("mask"), got.Mask)
			require.Equal(t, tokens.Depth-1, got.Block)
			require.Equal(t, tokens.NumHeads, got.Heads)
			require.Len(t, got.HeadMask(1), got.Rows*got.Columns)
			require.Equal(t, "head 1", got.Name(1))
			heads := got

			both, err := v.AttendWith(t.Context(), vit.AttendOptions{Blocks: []int{tokens.Depth / 2, -1}}, photo)
			require.NoError(t, err)
			same(key("middle"), both[0][0].Values)
			same(key("heads"), both[0][1].Values)
			require.Equal(t, []int{tokens.Depth / 2, tokens.Depth - 1}, []int{both[0][0].Block, both[0][1].Block})
			old, err := v.Attend(t.Context(), -1, photo)
			require.NoError(t, err)
			require.Equal(t, both[0][1], old[0])

			got = attend(vit.AttendOptions{Heads: []int{2, 0}})
			require.Equal(t, append(append([]float32{}, heads.Head(2)...), heads.Head(0)...), got.Values)
			require.Equal(t, []string{"head 2", "head 0"}, []string{got.Name(0), got.Name(1)})

			got = attend(vit.AttendOptions{Mean: true, KeepMass: 0.35})
			same(key("mean"), got.Values)
			sameMask(key("mask_mean"), got.Mask)
			require.Equal(t, "mean", got.Name(0))

			same(key("token"), attend(vit.AttendOptions{Query: vit.TokenQuery(tokens.Prefix - 1)}).Values)
			got = attend(vit.AttendOptions{Query: vit.PatchQuery(2, 1)})
			same(key("patch"), got.Values)
			require.Equal(t, tokens.Prefix+2*got.Columns+1, got.Query)
			// The middle of that patch in the photo.
			x, y := got.Geometry.ToPhoto(1.5*float32(tokens.PatchSize[1]), 2.5*float32(tokens.PatchSize[0]))
			same(key("patch"), attend(vit.AttendOptions{Query: vit.PixelQuery(int(x), int(y))}).Values)

			for i, r := range []struct {
				name string
				o    vit.RolloutOptions
			}{
				{"mean.0.0", vit.RolloutOptions{}},
				{"max.0.9", vit.RolloutOptions{HeadFusion: "max", DiscardRatio: 0.9}},
				{"min.0.3", vit.RolloutOptions{HeadFusion: "min", DiscardRatio: 0.3}},
				{"mean.0.5", vit.RolloutOptions{HeadFusion: "mean", DiscardRatio: 0.5}},
			} {
				if p > 0 && i != p%4 {
					continue // each of them runs the model again
				}
				got = attend(vit.AttendOptions{Rollout: &r.o, KeepMass: 0.6})
				same(key("rollout."+r.name), got.Values)
				if i == 3 {
					sameMask(key("mask_rollout"), got.Mask)
				}
				require.Equal(t, []any{vit.RolloutBlock, 1, "rollout"}, []any{got.Block, got.Heads, got.Name(0)})
			}
			if p > 1 {
				continue
			}
			same(key("rollout.patch"), attend(vit.AttendOptions{Rollout: &vit.RolloutOptions{}, Query: vit.PatchQuery(2, 1)}).Values)
			same(key("rollout.some"), attend(vit.AttendOptions{Rollout: &vit.RolloutOptions{}, Blocks: []int{1, 2}}).Values)
		}
	}
}

// In one batch the maps of each photo are its own.
func TestAttentionOfABatch(t *testing.T) {
	v := newFake(t, vit.TaskClassification, map[string]func([]any) (any, error){
		// Weight of token q on token k in photo b, head h and block: all of them different.
		"attention": func(args []any) (any, error) {
			return counted(int(args[0].(*torch.Tensor).Size(0)), args[1].(int))
		},
	})
	photos := []transforms.Source{testImage(t, "coffee.jpg"), testImage(t, "portrait.jpg")}
	// Both are squashed to 16 x 24, so one pixel lies in different patches.
	answers, err := v.AttendWith(t.Context(), vit.AttendOptions{Query: vit.PixelQuery(160, 130), Blocks: []int{0, 2}}, photos...)
	require.NoError(t, err)
	require.Len(t, answers, 2)
	for b, maps := range answers {
		require.Len(t, maps, 2)
		for i, block := range []int{0, 2} {
			a := maps[i]
			g := a.Geometry
			q := 1 + 130*16/g.Height/8*3 + 160*24/g.Width/8
			require.Equal(t, q, a.Query)
			require.Equal(t, block, a.Block)
			for h := range 2 {
				for k, got := range a.Head(h) {
					require.Equal(t, weight(b, block, h, q, k+1), got)
				}
			}
		}
	}
	require.NotEqual(t, answers[0][0].Query, answers[1][0].Query, "the photos would not tell")
}

func weight(b, block, h, q, k int) float32 {
	return float32((((b*3+block)*2+h)*7+q)*7 + k)
}

func counted(batch, block int) (*torch.Tensor, error) {
	values := make([]float32, 0, batch*2*7*7)
	for b := range batch {
		for h := range 2 {
			for q := range 7 {
				for k := range 7 {
					values = append(values, weight(b, block, h, q, k))
				}
			}
		}
	}
	return torch.NewTensor(values, int64(batch), 2, 7, 7)
}

func TestAttentionsOfManyBlocksTakeOnePass(t *testing.T) {
	passes := 0
	v := newFake(t, vit.TaskClassification, map[string]func([]any) (any, error){
		"attention": func(args []any) (any, error) { return counted(1, args[1].(int)) },
		"attentions": func(args []any) (any, error) {
			passes++
			var list []*torch.Tensor
			for _, block := range args[1].([]int) {
				x, err := counted(1, block)
				if err != nil {
					return nil, err
				}
				list = append(list, x)
			}
			return list, nil
		},
	})
	maps, err := v.AttendWith(t.Context(), vit.AttendOptions{Blocks: []int{2, 0, 1}}, testImage(t, "coffee.jpg"))
	require.NoError(t, err)
	require.Equal(t, 1, passes)
	for i, block := range []int{2, 0, 1} {
		require.Equal(t, weight(0, block, 1, 0, 1), maps[0][i].Head(1)[0])
	}
	rolled, err := v.AttendWith(t.Context(), vit.AttendOptions{Rollout: &vit.RolloutOptions{}}, testImage(t, "coffee.jpg"))
	require.NoError(t, err)
	require.Equal(t, 2, passes)
	require.Len(t, rolled[0], 1)
	sum := float32(0)
	for _, x := range rolled[0][0].Values {
		sum += x
	}
	assert.True(t, sum > 0 && sum < 1, "a row of rollout sums to 1 with its prefix tokens: got %v", sum)
}

func TestAttendErrors(t *testing.T) {
	attention := map[string]func([]any) (any, error){
		"attention": func(args []any) (any, error) { return counted(1, 0) },
	}
	v := newFake(t, vit.TaskClassification, attention)
	for name, try := range map[string]struct {
		o    vit.AttendOptions
		kind error
		text string
	}{
		"mass":     {vit.AttendOptions{KeepMass: 1.5}, torch.ErrInvalidArgument, "KeepMass 1.5"},
		"nan":      {vit.AttendOptions{KeepMass: math.NaN()}, torch.ErrInvalidArgument, "KeepMass NaN"},
		"head":     {vit.AttendOptions{Heads: []int{2}}, torch.ErrInvalidArgument, "head 2, want 0 to 1"},
		"heads":    {vit.AttendOptions{Heads: []int{1, 1}}, torch.ErrInvalidArgument, "[1 1]"},
		"both":     {vit.AttendOptions{Mean: true, Rollout: &vit.RolloutOptions{}}, torch.ErrInvalidArgument, "Rollout with"},
		"ratio":    {vit.AttendOptions{Rollout: &vit.RolloutOptions{DiscardRatio: 1}}, torch.ErrInvalidArgument, "DiscardRatio 1"},
		"fusion":   {vit.AttendOptions{Rollout: &vit.RolloutOptions{HeadFusion: "sum"}}, torch.ErrInvalidArgument, `"sum"`},
		"token":    {vit.AttendOptions{Query: vit.TokenQuery(1)}, vit.ErrQuery, "token 1, want 0 to 0"},
		"patch":    {vit.AttendOptions{Query: vit.PatchQuery(2, 0)}, vit.ErrQuery, "patch 2,0, want rows 0 to 1 and columns 0 to 2"},
		"negative": {vit.AttendOptions{Query: vit.PatchQuery(0, -1)}, vit.ErrQuery, "patch 0,-1"},
		"pixel":    {vit.AttendOptions{Query: vit.PixelQuery(600, 0)}, vit.ErrQuery, "pixel 600,0, want x from 0 to 599"},
	} {
		_, err := v.AttendWith(t.Context(), try.o, testImage(t, "coffee.jpg"))
		require.ErrorIs(t, err, try.kind, name)
		require.ErrorContains(t, err, try.text, name)
	}

	meta := describe(vit.TaskClassification)
	meta.Tokens.Prefix, meta.Tokens.Depth = 0, 0
	m, err := vit.NewModel(&fake{methods: attention}, "fake.pt", vit.Options{Metadata: meta})
	require.NoError(t, err)
	bare := &vit.VisionTransformer{Model: m}
	_, err = bare.AttendWith(t.Context(), vit.AttendOptions{}, testImage(t, "coffee.jpg"))
	require.ErrorIs(t, err, vit.ErrQuery)
	require.ErrorContains(t, err, "no class token")
	_, err = bare.AttendWith(t.Context(), vit.AttendOptions{Rollout: &vit.RolloutOptions{}}, testImage(t, "coffee.jpg"))
	require.ErrorIs(t, err, vit.ErrNoMetadata)

	// A crop that leaves out the left and the right.
	meta = describe(vit.TaskClassification)
	meta.Preprocess.Resize = transforms.ResizeSpec{Rule: "shortest_edge", Size: []int{16}}
	meta.Preprocess.Crop = transforms.CropSpec{Rule: "center", Size: []int{16, 16}}
	m, err = vit.NewModel(&fake{methods: attention}, "fake.pt", vit.Options{Metadata: meta})
	require.NoError(t, err)
	_, err = (&vit.VisionTransformer{Model: m}).AttendWith(t.Context(), vit.AttendOptions{Query: vit.PixelQuery(5, 5)}, testImage(t, "panorama.jpg"))
	require.ErrorIs(t, err, vit.ErrQuery)
	require.ErrorContains(t, err, "crops away")
}
