package vit_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

func TestMain(m *testing.M) { testmain.Run(m, torch.Config{Device: "cpu"}) }

// fake is a runtime without libtorch's modules: the tasks need nothing more than vit.Runtime.
type fake struct {
	methods map[string]func(args []any) (any, error)
	closed  int
}

func (f *fake) Call(_ context.Context, method string, args ...any) (any, error) {
	return f.methods[method](args)
}
func (f *fake) HasMethod(name string) bool { return f.methods[name] != nil }
func (f *fake) Close() error               { f.closed++; return nil }

func describe(task string) *vit.Metadata {
	m := &vit.Metadata{
		Format: 1, Task: task, Architecture: "fake",
		Labels: []string{"cat", "dog", "bird"},
		Tokens: &vit.Tokens{PatchSize: []int{8, 8}, Prefix: 1, NumHeads: 2, Depth: 3, EmbedDim: 4},
	}
	m.Preprocess = transforms.Spec{
		Backend: "pil", Resize: transforms.ResizeSpec{Rule: "exact", Size: []int{16, 24}}, Interpolation: "bilinear",
		Crop: transforms.CropSpec{Rule: "none"}, Normalize: "none",
	}
	return m
}

func newFake(t *testing.T, task string, methods map[string]func(args []any) (any, error)) *vit.VisionTransformer {
	t.Helper()
	m, err := vit.NewModel(&fake{methods: methods}, "fake.pt", vit.Options{Metadata: describe(task)})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return &vit.VisionTransformer{Model: m}
}

func testImage(t *testing.T, name string) transforms.Source {
	return filepath.Join(testmain.Root(t), "testdata", "images", name)
}

func TestClassifySortsAndNames(t *testing.T) {
	v := newFake(t, vit.TaskClassification, map[string]func([]any) (any, error){
		"forward": func(args []any) (any, error) {
			x := args[0].(*torch.Tensor)
			require.Equal(t, []int64{2, 3, 16, 24}, x.Shape(), "two photos make one batch")
			// Classes 0 and 2 are equal in the first photo.
			return torch.NewTensor([]float32{1, 0, 1, 6, 7, 8}, 2, 3)
		},
	})
	answers, err := v.Classify(t.Context(), 3, testImage(t, "astronaut.jpg"), testImage(t, "coffee.jpg"))
	require.NoError(t, err)
	require.Len(t, answers, 2)
	var labels []string
	for _, a := range answers {
		require.Len(t, a, 3)
		for _, c := range a {
			labels = append(labels, c.Label)
			require.Greater(t, c.Score, float32(0))
		}
	}
	require.Equal(t, []string{"cat", "bird", "dog", "bird", "dog", "cat"}, labels)
	require.Equal(t, answers[0][0].Score, answers[0][1].Score)
}

func TestTaskAndMethodErrors(t *testing.T) {
	v := newFake(t, vit.TaskSegmentation, nil)
	_, err := v.Classify(t.Context(), 1, testImage(t, "coffee.jpg"))
	require.ErrorIs(t, err, vit.ErrTask)
	require.ErrorContains(t, err, "scripts/export.py")

	x, err := torch.Zeros([]int64{1, 3, 16, 24}, torch.TensorOptions{})
	require.NoError(t, err)
	defer x.Close()
	_, err = v.Attention(t.Context(), x, 0)
	require.ErrorIs(t, err, vit.ErrNoMethod)
	require.ErrorContains(t, err, "no method attention")
}

func TestOutputsOfTheWrongKind(t *testing.T) {
	v := newFake(t, vit.TaskClassification, map[string]func([]any) (any, error){
		"forward":                func([]any) (any, error) { return torch.Tuple{}, nil },
		"forward_features":       func([]any) (any, error) { return torch.NewTensor([]float32{1}) },
		"forward_blocks":         func([]any) (any, error) { return []*torch.Tensor{}, nil },
		"forward_with_attention": func([]any) (any, error) { return nil, errors.New("boom") },
		"attention":              func([]any) (any, error) { return torch.Zeros([]int64{1, 2, 5, 5}, torch.TensorOptions{}) },
	})
	x, err := torch.Zeros([]int64{1, 3, 16, 24}, torch.TensorOptions{})
	require.NoError(t, err)
	defer x.Close()
	_, err = v.Forward(t.Context(), x)
	require.ErrorIs(t, err, vit.ErrOutput)
	_, _, err = v.ForwardFeatures(t.Context(), x)
	require.ErrorIs(t, err, vit.ErrOutput)
	_, err = v.ForwardBlocks(t.Context(), x, 1, 2)
	require.ErrorIs(t, err, vit.ErrOutput)
	_, _, err = v.ForwardWithAttention(t.Context(), x)
	require.EqualError(t, err, "boom")
	// 2 x 3 patches and one prefix token make 7 tokens, not 5.
	_, err = v.Attend(t.Context(), 0, testImage(t, "coffee.jpg"))
	require.ErrorIs(t, err, torch.ErrShape)
}

func TestAttendDropsPrefixTokensAndFolds(t *testing.T) {
	v := newFake(t, vit.TaskClassification, map[string]func([]any) (any, error){
		"attention": func(args []any) (any, error) {
			require.Equal(t, -1, args[1])
			values := make([]float32, 2*7*7)
			for i := range values {
				values[i] = float32(i)
			}
			return torch.NewTensor(values, 1, 2, 7, 7)
		},
	})
	maps, err := v.Attend(t.Context(), -1, testImage(t, "coffee.jpg"))
	require.NoError(t, err)
	require.Len(t, maps, 1)
	a := maps[0]
	require.Equal(t, 2, a.Block, "-1 is the last of three blocks")
	require.Equal(t, []int{2, 2, 3}, []int{a.Heads, a.Rows, a.Columns})
	require.Equal(t, []float32{1, 2, 3, 4, 5, 6}, a.Head(0))
	require.Equal(t, []float32{50, 51, 52, 53, 54, 55}, a.Head(1))
	require.Equal(t, []float32{25.5, 26.5, 27.5, 28.5, 29.5, 30.5}, a.Mean())
}

func TestMetadataComesFromTheFileBesideIt(t *testing.T) {
	root := testmain.Root(t)
	data, err := os.ReadFile(filepath.Join(root, "testdata", "modules", "identity.pt"))
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "bare.pt")
	require.NoError(t, os.WriteFile(path, data, 0o644))
	_, err = vit.LoadModel(path, vit.Options{})
	require.ErrorIs(t, err, vit.ErrNoMetadata)
	require.ErrorContains(t, err, "bare.pt.json")
	require.NoError(t, os.WriteFile(path+".json", []byte(`{"format": 1}`), 0o644))
	_, err = vit.LoadModel(path, vit.Options{})
	require.Error(t, err, "a description that lacks everything is refused")
	require.NotErrorIs(t, err, vit.ErrNoMetadata)

	m, err := vit.LoadModel(path, vit.Options{Metadata: describe(vit.TaskClassification)})
	require.NoError(t, err)
	require.NoError(t, m.Close())
}

func TestPrepareAs(t *testing.T) {
	v := newFake(t, vit.TaskClassification, nil)
	photo, err := v.OpenPhoto(t.Context(), testImage(t, "coffee.jpg"))
	require.NoError(t, err)
	defer photo.Close()
	spec := v.Metadata().Preprocess
	spec.Resize.Size = []int{8, 40}
	inputs, err := v.PrepareAs(t.Context(), spec, 0, photo, photo)
	require.NoError(t, err)
	defer vit.CloseInputs(inputs)
	require.Len(t, inputs, 1)
	require.Equal(t, []int64{2, 3, 8, 40}, inputs[0].Pixels.Shape())
	require.Equal(t, photo.Width(), inputs[0].Geometry[1].Width)
	spec.Resize.Rule = "no such"
	_, err = v.PrepareAs(t.Context(), spec, 0, photo)
	require.ErrorIs(t, err, transforms.ErrSpec)
}
