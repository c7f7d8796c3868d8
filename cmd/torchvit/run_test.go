package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/npy"
)

func TestParseInput(t *testing.T) {
	for text, want := range map[string]input{
		"a.npy":                     {files: []string{"a.npy"}},
		" a b,c.npy ":               {files: []string{"a b,c.npy"}},
		"[a.npy]":                   {files: []string{"a.npy"}, list: true},
		"[a.npy, b/c.npy]":          {files: []string{"a.npy", "b/c.npy"}, list: true},
		`["a.npy","b.npy"]`:         {files: []string{"a.npy", "b.npy"}, list: true},
		"16000":                     {value: int64(16000)},
		"-1":                        {value: int64(-1)},
		"0.5":                       {value: 0.5},
		"1e3":                       {value: 1000.0},
		"true":                      {value: true},
		"null":                      {value: nil},
		`"text"`:                    {value: "text"},
		"[2,5]":                     {value: torch.List{int64(2), int64(5)}},
		"[]":                        {value: torch.List{}},
		"[[1], [0.5]]":              {value: torch.List{torch.List{int64(1)}, torch.List{0.5}}},
		`{"k": [1, "x"], "b":true}`: {value: map[string]any{"k": torch.List{int64(1), "x"}, "b": true}},
	} {
		got, err := parseInput(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "hello", "[a.npy,2]", "[a.npy,]", "1 2", "99999999999999999999", "{1:2}", "[1,2", "x.npz"} {
		_, err := parseInput(text)
		require.ErrorIs(t, err, errUsage, text)
	}
}

// write makes a .npy file of float32 ones over that shape, times scale.
func write(t *testing.T, scale float32, shape ...int64) string {
	t.Helper()
	x, err := torch.Full(shape, float64(scale), torch.TensorOptions{})
	require.NoError(t, err)
	defer x.Close()
	return writeTensor(t, x)
}

func writeTensor(t *testing.T, x *torch.Tensor) string {
	t.Helper()
	a, err := x.Numpy()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "x.npy")
	require.NoError(t, npy.WriteFile(path, a))
	return path
}

func floats(t *testing.T, a *npy.Array) []float32 {
	t.Helper()
	require.NotNil(t, a)
	require.Equal(t, "f4", a.DType)
	x, err := torch.FromNumpy(a)
	require.NoError(t, err)
	defer x.Close()
	values, err := torch.CopyData[float32](x)
	require.NoError(t, err)
	return values
}

func TestRunNamesItsOutputs(t *testing.T) {
	x := write(t, 1, 2, 2)
	out := filepath.Join(t.TempDir(), "y.npz")
	run := func(args ...string) (*npy.Zip, string) {
		stdout, _ := ok(t, append([]string{"run", "--output", out}, args...)...)
		z, err := npy.ReadZipFile(out)
		require.NoError(t, err)
		return z, stdout
	}
	z, _ := run(tiny(t, "identity.pt"), "--input", x)
	assert.Equal(t, []string{"out"}, z.Names())
	assert.Equal(t, []float32{1, 1, 1, 1}, floats(t, z.Get("out")))

	z, _ = run(tiny(t, "tuple.pt"), "--input", x)
	assert.Equal(t, []string{"out.0", "out.1"}, z.Names())
	assert.Equal(t, []float32{2, 2, 2, 2}, floats(t, z.Get("out.1")))

	// Numbers have no dimensions; strings and None are listed.
	z, stdout := run(tiny(t, "nested.pt"), "--input", x)
	assert.Equal(t, []string{"out.0.0.0", "out.0.0.1", "out.0.1.0", "out.0.1.1", "out.1.a.0", "out.1.a.1", "out.1.b.0", "out.2.0", "out.2.1"}, z.Names())
	assert.Equal(t, &npy.Array{DType: "i8", Shape: []int64{}, Data: []byte{2, 0, 0, 0, 0, 0, 0, 0}}, z.Get("out.0.1.1"))
	assert.Equal(t, "b1", z.Get("out.2.0").DType)
	assert.Equal(t, "f8", z.Get("out.2.1").DType)
	assert.Equal(t, []float32{0, 0, 0, 0}, floats(t, z.Get("out.1.b.0")))
	assert.Contains(t, stdout, "out.2.2  str  \"deep\"\n")
	assert.Contains(t, stdout, "out.2.3  None\n")

	z, _ = run(tiny(t, "detections.pt"), "--input", "["+write(t, 0.5, 3, 4, 6)+","+write(t, 0.25, 3, 2, 2)+"]")
	assert.Equal(t, []string{"out.1.0.boxes", "out.1.0.labels", "out.1.0.scores", "out.1.1.boxes", "out.1.1.labels", "out.1.1.scores"}, z.Names())
	assert.Equal(t, []float32{0, 0, 6, 4}, floats(t, z.Get("out.1.0.boxes")))
	assert.Equal(t, []float32{0.25}, floats(t, z.Get("out.1.1.scores")))

	z, _ = run(tiny(t, "scalars.pt"), "--method", "int_", "--input", "41")
	assert.Equal(t, byte(42), z.Get("out").Data[0])
	z, _ = run(tiny(t, "lists.pt"), "--method", "ints", "--input", "[2,5]")
	assert.Equal(t, []string{"out.0", "out.1"}, z.Names())
	assert.Equal(t, byte(10), z.Get("out.1").Data[0])
}

func TestRunPrintsASummary(t *testing.T) {
	x := write(t, 1, 2, 2)
	stdout, _ := ok(t, "run", tiny(t, "tuple.pt"), "--input", x)
	assert.Equal(t, "out.0  float32  [2, 2]\n  tensor([[1., 1.],\n          [1., 1.]])\nout.1  float32  [2, 2]\n  tensor([[2., 2.],\n          [2., 2.]])\n", stdout)
	stdout, _ = ok(t, "run", tiny(t, "scalars.pt"), "--method", "describe", "--input", "true", "--input", "3", "--input", "0.5", "--input", `"x"`)
	assert.Equal(t, "out  str  \"True 3 0.5 x\"\n", stdout)
	stdout, _ = ok(t, "run", tiny(t, "tuple.pt"), "--input", x, "--json")
	var list struct {
		Outputs []outputInfo
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &list))
	assert.Equal(t, []outputInfo{{Name: "out.0", DType: "float32", Shape: []int64{2, 2}}, {Name: "out.1", DType: "float32", Shape: []int64{2, 2}}}, list.Outputs)
}

func TestRunCasts(t *testing.T) {
	out := filepath.Join(t.TempDir(), "y.npz")
	x, err := torch.NewTensor([]float64{1.0001, 3}, 2)
	require.NoError(t, err)
	defer x.Close()
	path := writeTensor(t, x)
	stdout, _ := ok(t, "run", tiny(t, "identity.pt"), "--input", path, "--dtype", "bfloat16", "--output", out)
	assert.Equal(t, "out  bfloat16  [2]\n", stdout)
	z, err := npy.ReadZipFile(out)
	require.NoError(t, err)
	assert.Equal(t, []float32{1, 3}, floats(t, z.Get("out")), "bfloat16 is written as float32")
}

// TestRunOnPreprocessIsForward takes the way through files, preprocess and then run, against parity.py's dump
// of the same photos.
func TestRunOnPreprocessIsForward(t *testing.T) {
	testmain.NotShort(t)
	dir := t.TempDir()
	cases := []map[string]any{
		{"id": "classification", "model": generated(t, "vit_reference.pt"), "images": []string{photoFile(t, "coffee.jpg")}},
		{"id": "segmentation", "model": generated(t, "segmentation.pt"), "images": []string{photoFile(t, "chelsea.png")}},
		{"id": "detection", "model": generated(t, "detection.pt"), "images": []string{photoFile(t, "rocket.jpg")}},
	}
	text, err := json.Marshal(cases)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cases.json"), text, 0o644))
	testmain.RunPython(t, "scripts/parity.py", "dump", "--cases", filepath.Join(dir, "cases.json"), "--out", dir)
	for _, c := range cases {
		id, model, image := c["id"].(string), c["model"].(string), c["images"].([]string)[0]
		t.Run(id, func(t *testing.T) {
			want, err := npy.ReadZipFile(filepath.Join(dir, id+".npz"))
			require.NoError(t, err)
			x, y := filepath.Join(dir, id+".npy"), filepath.Join(dir, id+".y.npz")
			ok(t, "preprocess", image, "--model", model, "--output", x)
			got, err := npy.ReadFile(x)
			require.NoError(t, err)
			in, name, output := x, "in0", "out"
			if id == "detection" {
				in, name, output = "["+x+"]", "in0.0", "out.1.0.boxes"
			}
			require.Equal(t, want.Get(name), got)

			ok(t, "run", model, "--input", in, "--output", y)
			z, err := npy.ReadZipFile(y)
			require.NoError(t, err)
			require.NotNil(t, z.Get(output))
			for _, name := range z.Names() {
				assert.Equal(t, want.Get(name), z.Get(name), name)
			}
		})
	}
}

func TestPreprocessOfABatch(t *testing.T) {
	out := filepath.Join(t.TempDir(), "x.npy")
	stdout, _ := ok(t, "preprocess", photoFile(t, "coffee.jpg"), photoFile(t, "rocket.jpg"), "--model", generated(t, "vit_reference.pt"), "--output", out, "--json")
	assert.JSONEq(t, `{"output": "`+out+`", "dtype": "float32", "shape": [2, 3, 224, 224]}`, stdout)
	line := fails(t, exitError, "preprocess", photoFile(t, "coffee.jpg"), photoFile(t, "astronaut.jpg"), "--model", generated(t, "segmentation.pt"), "--output", out)
	assert.Contains(t, line, "one by one")
	line = fails(t, exitUsage, "preprocess", photoFile(t, "coffee.jpg"), photoFile(t, "astronaut.jpg"), "--model", generated(t, "detection.pt"), "--output", out)
	assert.Contains(t, line, "one IMAGE")
}
