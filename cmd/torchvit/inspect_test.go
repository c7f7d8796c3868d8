package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/cgo/install"
)

func TestInspect(t *testing.T) {
	stdout, _ := ok(t, "inspect", generated(t, "vit_reference.pt"))
	for _, want := range []string{
		"classification", "vision_transformer", "crop center 224 x 224", "4 blocks of 3 heads", "100: tench, goldfish",
		"forward(Tensor x) -> Tensor", "forward_blocks(Tensor x, int[] indices) -> Tensor[]",
		"1,984,804 in 56 tensors, 7.9 MB of float32", "torchvit.reference.npz", "1 thread(s), float32",
	} {
		assert.Contains(t, stdout, want)
	}
	assert.NotContains(t, stdout, "cls_token")
	stdout, _ = ok(t, "inspect", generated(t, "vit_reference.pt"), "--tensors")
	assert.Contains(t, stdout, "cls_token  float32 [1, 1, 192]")

	stdout, _ = ok(t, "inspect", generated(t, "detection.pt"), "--json")
	var in inspection
	require.NoError(t, json.Unmarshal([]byte(stdout), &in))
	assert.Equal(t, "forward", in.Methods[0].Name)
	assert.True(t, in.Methods[0].Stateful)
	require.NotNil(t, in.Metadata)
	assert.Equal(t, "vit_faster_rcnn", in.Metadata.Architecture)
	assert.Equal(t, "torchvit.json", in.Sources["task"])
	assert.Equal(t, "forward's signature", in.Sources["input.layout"])
	assert.Len(t, in.ExtraFiles, 2)
	assert.EqualValues(t, 4*in.Parameters.Count, in.Parameters.Bytes)
	assert.Len(t, in.Parameters.Tensors, 100)
}

func TestInspectAnyTorchScript(t *testing.T) {
	stdout, _ := ok(t, "inspect", tiny(t, "counter.pt"))
	assert.Contains(t, stdout, "metadata    none")
	assert.Contains(t, stdout, "writes attributes")
	assert.Regexp(t, `(?m)^buffers +1 in 1 tensors`, stdout)
	stdout, _ = ok(t, "inspect", tiny(t, "counter.pt"), "--json")
	assert.Contains(t, stdout, `"metadata": null`)

	// A description beside the file stands in for one inside.
	dir := t.TempDir()
	data, err := os.ReadFile(tiny(t, "identity.pt"))
	require.NoError(t, err)
	model := filepath.Join(dir, "m.pt")
	require.NoError(t, os.WriteFile(model, data, 0o644))
	require.NoError(t, os.WriteFile(model+".json", []byte(`{"format":1,"task":"classification","architecture":"nothing","input":{"size":[8,8]}}`), 0o644))
	stdout, _ = ok(t, "inspect", model)
	assert.Contains(t, stdout, "nothing")
	require.NoError(t, os.WriteFile(model+".json", []byte(`{"format":1,"task":"dancing"}`), 0o644))
	assert.Contains(t, fails(t, exitError, "inspect", model), "dancing")
}

func TestInspectWithoutLibtorch(t *testing.T) {
	env := []string{install.EnvLibTorch + "=", install.EnvCache + "=" + t.TempDir()}
	cmd, stdout, stderr := program(t, env, "inspect", generated(t, "vit_reference.pt"))
	require.NoError(t, cmd.Run(), stderr)
	assert.Contains(t, stdout.String(), "100: tench, goldfish")
	assert.Contains(t, stdout.String(), "torchvit.reference.npz")
	assert.Contains(t, stdout.String(), "torchvit setup")
	assert.NotContains(t, stdout.String(), "parameters   ")

	// What needs libtorch says what to type.
	cmd, _, stderr = program(t, env, "classify", generated(t, "vit_reference.pt"), photoFile(t, "coffee.jpg"))
	require.Error(t, cmd.Run())
	assert.Equal(t, exitError, cmd.ProcessState.ExitCode())
	assert.Contains(t, stderr.String(), "torchvit setup")
	assert.Equal(t, 1, strings.Count(stderr.String(), "\n"))
}

func TestPlainSchema(t *testing.T) {
	for in, want := range map[string]string{
		"forward(__torch__.a.B self, Tensor x) -> Tensor": "forward(Tensor x) -> Tensor",
		"go(__torch__.a.B self) -> int":                   "go() -> int",
		"aten::softmax(Tensor x) -> Tensor":               "aten::softmax(Tensor x) -> Tensor",
		"":                                                "",
	} {
		assert.Equal(t, want, plainSchema(in))
	}
}
