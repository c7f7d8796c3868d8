package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// bare copies a model without its extra files, so that nothing describes it.
func bare(t *testing.T, path string) string {
	t.Helper()
	m, err := jit.Load(path, jit.LoadOptions{})
	require.NoError(t, err)
	defer m.Close()
	out := filepath.Join(t.TempDir(), "bare.pt")
	require.NoError(t, m.Save(out, nil))
	return out
}

func TestClassifyABareFile(t *testing.T) {
	whole, photo := generated(t, "vit_reference.pt"), photoFile(t, "coffee.jpg")
	meta, err := vit.ReadMetadata(whole)
	require.NoError(t, err)
	require.Equal(t, []int{224, 224}, meta.Preprocess.Crop.Size)
	model := bare(t, whole)
	line := fails(t, exitError, "classify", model, photo)
	for _, says := range []string{"no metadata", "--size", "--mean", "--normalize none", "bare.pt.json", "export.py"} {
		assert.Contains(t, line, says)
	}
	assert.Contains(t, fails(t, exitError, "classify", model, photo, "--size", "224"), "nothing says what becomes of the pixels")
	assert.Contains(t, fails(t, exitError, "classify", model, photo, "--mean", "imagenet"), "nothing says to what size")

	// The same numbers as with the file's own description, and other ones for another.
	labels := filepath.Join(t.TempDir(), "labels.txt")
	var text []byte
	for _, label := range meta.Labels {
		text = append(text, label+"\n"...)
	}
	require.NoError(t, os.WriteFile(labels, text, 0o644))
	spec := meta.Preprocess
	require.Equal(t, transforms.RuleShortestEdge, spec.Resize.Rule)
	resize, err := json.Marshal(spec.Resize.Size[0])
	require.NoError(t, err)
	mean, std := numbers(spec.Mean), numbers(spec.Std)
	flags := []string{
		"--size", "224x224", "--crop", "center", "--resize-size", string(resize), "--interpolation", string(spec.Interpolation),
		"--mean", mean, "--std", std, "--labels", labels,
	}
	want, _ := ok(t, "classify", whole, photo, "--json")
	got, _ := ok(t, append([]string{"classify", model, photo, "--json"}, flags...)...)
	assert.Equal(t, want, got)
	other, _ := ok(t, append([]string{"classify", model, photo, "--json", "--normalize", "torchvision_v2", "--channel-order", "BGR"}, flags...)...)
	assert.NotEqual(t, want, other)

	// Flags win over what a file says of itself, one by one.
	same, _ := ok(t, "classify", whole, photo, "--json", "--interpolation", string(spec.Interpolation), "--mean", mean)
	assert.Equal(t, want, same)
	scores, _ := ok(t, "classify", whole, photo, "--format", "hf", "--top", "3", "--activation", "none")
	var answer []struct {
		Label string
		Score float64
	}
	require.NoError(t, json.Unmarshal([]byte(scores), &answer))
	require.Len(t, answer, 3)
	assert.Greater(t, answer[0].Score, 1.0, "a logit")
	sigmoid, _ := ok(t, "classify", whole, photo, "--format", "hf", "--top", "3", "--activation", "sigmoid")
	assert.NotEqual(t, scores, sigmoid)
}

func numbers(v []float64) string {
	text, _ := json.Marshal(v)
	return string(text[1 : len(text)-1])
}

func TestDescribingFlags(t *testing.T) {
	model := tiny(t, "identity.pt")
	options := func(path, task string, args ...string) (vit.Options, error) {
		cmd := &cobra.Command{}
		d := (&app{}).describeFlags(cmd)
		require.NoError(t, cmd.ParseFlags(args))
		return d.options(path, task, torch.CPU)
	}
	half := []float64{0.5, 0.5, 0.5}
	for name, c := range map[string]struct {
		args []string
		want transforms.Spec
	}{
		"stretch":          {[]string{"--size", "32x48", "--mean", "0.5", "--std", "0.5"}, transforms.Spec{Resize: transforms.ResizeSpec{Rule: "exact", Size: []int{32, 48}}, Mean: half, Std: half}},
		"a name for both":  {[]string{"--size", "32", "--mean", "inception"}, transforms.Spec{Resize: transforms.ResizeSpec{Rule: "exact", Size: []int{32, 32}}, Mean: half, Std: half}},
		"torchvision's":    {[]string{"--size", "224", "--crop", "center", "--resize-size", "256", "--normalize", "none"}, transforms.Spec{Resize: transforms.ResizeSpec{Rule: "shortest_edge", Size: []int{256}}, Crop: transforms.CropSpec{Rule: "center", Size: []int{224, 224}}, Normalize: "none"}},
		"crop alone":       {[]string{"--size", "96x128", "--crop", "center_floor", "--normalize", "none"}, transforms.Spec{Resize: transforms.ResizeSpec{Rule: "shortest_edge", Size: []int{96}}, Crop: transforms.CropSpec{Rule: "center_floor", Size: []int{96, 128}}, Normalize: "none"}},
		"DETR's":           {[]string{"--resize", "detr", "--resize-size", "800", "--resize-max", "1333", "--mean", "inception", "--backend", "torch", "--interpolation", "bicubic", "--normalize", "fused"}, transforms.Spec{Backend: "torch", Interpolation: "bicubic", Resize: transforms.ResizeSpec{Rule: "detr", Size: []int{800}, MaxSize: 1333}, Mean: half, Std: half, Normalize: "fused"}},
		"letterbox":        {[]string{"--resize", "letterbox", "--size", "640", "--normalize", "none", "--channel-order", "BGR"}, transforms.Spec{Resize: transforms.ResizeSpec{Rule: "letterbox", Size: []int{640, 640}}, Normalize: "none", ChannelOrder: "BGR"}},
		"shorter side":     {[]string{"--resize-size", "96", "--normalize", "none"}, transforms.Spec{Resize: transforms.ResizeSpec{Rule: "shortest_edge", Size: []int{96}}, Normalize: "none"}},
		"as the photo is":  {[]string{"--resize", "none", "--normalize", "none"}, transforms.Spec{Resize: transforms.ResizeSpec{Rule: "none"}, Normalize: "none"}},
		"both sides alone": {[]string{"--resize-size", "96x64", "--mean", "0.5", "--std", "0.5,0.5,0.5"}, transforms.Spec{Resize: transforms.ResizeSpec{Rule: "exact", Size: []int{96, 64}}, Mean: half, Std: half}},
	} {
		o, err := options(model, vit.TaskClassification, c.args...)
		require.NoError(t, err, name)
		assert.Equal(t, c.want, o.Metadata.Preprocess, name)
		assert.Equal(t, vit.TaskClassification, o.Metadata.Task)
	}

	o, err := options(model, vit.TaskDetection, "--size", "32", "--normalize", "none", "--output-kind", "set_prediction_sigmoid", "--leaves", "out.1, out.0",
		"--labels", "coco", "--patch-size", "16x8", "--prefix-tokens", "2", "--depth", "12", "--multiple-of", "16", "--layout", "list")
	require.NoError(t, err)
	assert.Equal(t, vit.TaskDetection, o.Metadata.Task)
	assert.Equal(t, vit.OutputSpec{Kind: "set_prediction_sigmoid", Leaves: []string{"out.1", "out.0"}}, o.Metadata.Output)
	assert.Equal(t, &vit.Tokens{PatchSize: []int{16, 8}, Prefix: 2, Depth: 12}, o.Metadata.Tokens)
	assert.Equal(t, vit.InputSpec{Size: []int{32, 32}, MultipleOf: 16, Dynamic: true, Layout: "list"}, o.Metadata.Input)
	assert.Len(t, o.Metadata.Labels, 80)

	// A file's own crop keeps its share of the photo at another size; --task is obeyed.
	o, err = options(generated(t, "vit_reference.pt"), vit.TaskClassification, "--size", "448", "--task", "segmentation")
	require.NoError(t, err)
	assert.Equal(t, []int{448, 448}, o.Metadata.Preprocess.Crop.Size)
	before, err := vit.ReadMetadata(generated(t, "vit_reference.pt"))
	require.NoError(t, err)
	assert.Equal(t, 2*before.Preprocess.Resize.Size[0], o.Metadata.Preprocess.Resize.Size[0])
	assert.Equal(t, vit.TaskSegmentation, o.Metadata.Task)
	assert.Empty(t, o.Metadata.Output.Kind)
	o, err = options(generated(t, "vit_reference.pt"), vit.TaskAttention)
	require.NoError(t, err)
	assert.Equal(t, before, o.Metadata)
	_, err = options(model, vit.TaskAttention, "--size", "32", "--normalize", "none")
	require.ErrorIs(t, err, vit.ErrNoMetadata)
	require.ErrorContains(t, err, "--patch-size")

	for says, args := range map[string][]string{
		"--size 3y4":            {"--size", "3y4"},
		"--size 1x2x3":          {"--size", "1x2x3"},
		"--resize-size 0":       {"--resize-size", "0"},
		"--crop corner":         {"--crop", "corner"},
		"--crop center: want":   {"--crop", "center"},
		"--resize: want --size": {"--resize", "letterbox"},
		"--mean blue":           {"--mean", "blue"},
		"got 2 numbers":         {"--mean", "1,2"},
		"want both":             {"--std", "0.5"},
		"--std red":             {"--std", "red"},
		"--normalize l2":        {"--normalize", "l2"},
		"--mean and --std too":  {"--normalize", "fused"},
		"--backend gpu":         {"--backend", "gpu"},
		"--channel-order GBR":   {"--channel-order", "GBR"},
		"--layout tree":         {"--layout", "tree"},
		"--task dancing":        {"--task", "dancing"},
		"--output-kind boxes":   {"--output-kind", "boxes"},
		"--activation relu":     {"--activation", "relu"},
		"--patch-size x":        {"--patch-size", "x"},
		"--prefix-tokens -1":    {"--prefix-tokens", "-1"},
		"--multiple-of 0":       {"--multiple-of", "0"},
	} {
		_, err := options(model, vit.TaskClassification, args...)
		require.ErrorIs(t, err, errUsage, says)
		require.ErrorContains(t, err, says)
	}
	for says, args := range map[string][]string{
		"resize.rule":        {"--size", "32", "--normalize", "none", "--resize", "twirl"},
		"interpolation":      {"--size", "32", "--normalize", "none", "--interpolation", "magic"},
		"--patch-size too":   {"--size", "32", "--normalize", "none", "--depth", "3"},
		"sets are":           {"--labels", "no-such-file.txt"},
		"output.leaves[0]":   {"--size", "32", "--normalize", "none", "--leaves", "logits"},
		"input.size[0]":      {"--size", "33", "--normalize", "none", "--multiple-of", "16"},
		"for task detection": {"--size", "32", "--normalize", "none", "--task", "detection", "--output-kind", "logits"},
	} {
		_, err := options(model, vit.TaskClassification, args...)
		require.ErrorContains(t, err, says)
	}
}

func TestLabelsAreReadFromFiles(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"lines.txt":  {"cat\r\ndog\r\n\r\n", []string{"cat", "dog"}},
		"list.json":  {"\ufeff[\"cat\", \"dog\"]", []string{"cat", "dog"}},
		"dict.json":  {`{"0": "cat", "2": "dog"}`, []string{"cat", "N/A", "dog"}},
		"blank.txt":  {"a\n\nb\n", []string{"a", "", "b"}},
		"single.txt": {"cat", []string{"cat"}},
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(c.text), 0o644))
		got, err := readLabels(path)
		require.NoError(t, err, name)
		assert.Equal(t, c.want, got, name)
	}
	for name, text := range map[string]string{"empty.txt": "", "key.json": `{"a": "b"}`, "far.json": `{"999999": "b"}`, "bad.json": `[1, 2`} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		_, err := readLabels(path)
		require.Error(t, err, name)
		require.ErrorContains(t, err, name)
	}
	got, err := readLabels("voc")
	require.NoError(t, err)
	assert.Len(t, got, 21)
}
