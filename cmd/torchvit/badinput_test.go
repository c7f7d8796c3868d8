package main

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
)

// pngBomb claims 60,000 x 60,000 pixels in a hundred bytes.
func pngBomb(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("\x89PNG\r\n\x1a\n")
	chunk := func(kind string, data []byte) {
		binary.Write(&b, binary.BigEndian, uint32(len(data)))
		b.WriteString(kind)
		b.Write(data)
		binary.Write(&b, binary.BigEndian, crc32.ChecksumIEEE(append([]byte(kind), data...)))
	}
	header := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 60000), 60000)
	chunk("IHDR", append(header, 8, 2, 0, 0, 0))
	var packed bytes.Buffer
	z := zlib.NewWriter(&packed)
	_, err := z.Write(make([]byte, 1000))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	chunk("IDAT", packed.Bytes())
	chunk("IEND", nil)
	return b.Bytes()
}

func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o644))
		return path
	}
	read := func(path string) []byte {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		return data
	}
	model, photo := generated(t, "vit_reference.pt"), photoFile(t, "coffee.jpg")
	segmentation, detection := generated(t, "segmentation.pt"), generated(t, "detection.pt")
	whole, jpeg := read(model), read(photo)
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 4
	ints, err := torch.NewTensor(make([]int64, 3*32*32), 1, 3, 32, 32)
	require.NoError(t, err)
	defer ints.Close()
	doubles, err := torch.NewTensor(make([]float64, 3*32*32), 1, 3, 32, 32)
	require.NoError(t, err)
	defer doubles.Close()
	good := write(t, 1, 1, 3, 32, 32)

	for _, c := range []struct {
		name string
		code int
		says string
		args []string
	}{
		{"no model", exitError, "no such file", []string{"classify", filepath.Join(dir, "no.pt"), photo}},
		{"truncated model", exitError, "truncated", []string{"classify", file("cut.pt", whole[:len(whole)/2]), photo}},
		{"empty model", exitError, "empty", []string{"segment", file("empty.pt", nil), photo}},
		{"changed model", exitError, "damaged", []string{"inspect", file("flipped.pt", flipped)}},
		{"text", exitError, "not a TorchScript file", []string{"run", file("text.pt", []byte("hello, world\n"))}},
		{"photo for a model", exitError, "not a TorchScript file", []string{"verify", photo}},
		{"folder for a model", exitError, "folder", []string{"bench", dir}},
		{"no metadata", exitError, "export.py", []string{"classify", tiny(t, "identity.pt"), photo}},
		{"no photo", exitError, "no such file", []string{"classify", model, filepath.Join(dir, "no.jpg")}},
		{"truncated photo", exitError, "truncated", []string{"classify", model, file("cut.jpg", jpeg[:2000])}},
		{"no image", exitError, "want JPEG, PNG", []string{"detect", detection, file("text.jpg", []byte("hello"))}},
		{"empty image", exitError, "want JPEG, PNG", []string{"attend", model, file("empty.jpg", nil)}},
		{"folder for a photo", exitError, "folder", []string{"segment", segmentation, dir}},
		{"image bomb", exitError, "60000 x 60000", []string{"classify", model, file("bomb.png", pngBomb(t))}},
		{"image bomb to preprocess", exitError, "60000 x 60000", []string{"preprocess", filepath.Join(dir, "bomb.png"), "--model", model, "--output", filepath.Join(dir, "x.npy")}},
		{"second photo bad", exitError, "text.jpg", []string{"classify", model, photo, filepath.Join(dir, "text.jpg")}},
		{"classify a segmenter", exitError, "want one for classification", []string{"classify", segmentation, photo}},
		{"segment a classifier", exitError, "want one for segmentation", []string{"segment", model, photo}},
		{"detect a classifier", exitError, "want one for detection", []string{"detect", model, photo}},
		{"attend a detector", exitError, "classification or segmentation", []string{"attend", detection, photo}},
		{"head that is none", exitError, "segmentation_head", []string{"segment", model, photo, "--head", segmentation}},
		{"wrong shape", exitError, "multiples of the patch", []string{"run", model, "--input", write(t, 1, 1, 3, 32, 33)}},
		{"wrong dimensions", exitError, "[3, 32]", []string{"run", model, "--input", write(t, 1, 3, 32)}},
		{"wrong dtype", exitError, "int64 [1, 3, 32, 32]", []string{"run", model, "--input", writeTensor(t, ints)}},
		{"castable dtype", exitError, "--dtype float32", []string{"run", model, "--input", writeTensor(t, doubles)}},
		{"too few arguments", exitError, "no --input", []string{"run", model}},
		{"too many arguments", exitError, "forward(Tensor x)", []string{"run", model, "--input", good, "--input", "3"}},
		{"no such method", exitError, "want one of forward", []string{"run", model, "--method", "backward", "--input", good}},
		{"exception in the model", exitError, "negative value at depth 3", []string{"run", tiny(t, "raises.pt"), "--input", write(t, -1, 2, 2)}},
		{"no input file", exitError, "no such file", []string{"run", model, "--input", "no.npy"}},
		{"no npy", exitError, "npy", []string{"run", model, "--input", file("text.npy", []byte("hello"))}},
		{"truncated npy", exitError, "truncated", []string{"run", model, "--input", file("cut.npy", read(good)[:100])}},
		{"nowhere to write", exitError, "there is no folder", []string{"run", model, "--input", good, "--output", filepath.Join(dir, "no", "y.npz")}},
		{"nothing to write", exitError, "neither tensors nor numbers", []string{"run", tiny(t, "strings.pt"), "--input", `"x"`, "--output", filepath.Join(dir, "y.npz")}},
		{"out is a file", exitError, "--out", []string{"classify", model, photo, "--out", photo}},
		{"no model given", exitUsage, "want a model file", []string{"classify"}},
		{"no photo given", exitUsage, "want one image", []string{"segment", segmentation}},
		{"top", exitUsage, "--top 0", []string{"classify", model, photo, "--top", "0"}},
		{"threshold", exitUsage, "--threshold 2", []string{"detect", detection, photo, "--threshold", "2"}},
		{"block", exitUsage, "-4 to 3", []string{"attend", model, photo, "--block", "4"}},
		{"colour map", exitUsage, "viridis or inferno", []string{"attend", model, photo, "--colormap", "jet"}},
		{"palette", exitUsage, "want file, ade20k, cityscapes", []string{"detect", detection, photo, "--palette", "pink"}},
		{"device", exitUsage, "want cpu, cuda", []string{"classify", model, photo, "--device", "tpu"}},
		{"input", exitUsage, "want a .npy file", []string{"run", model, "--input", "hello"}},
		{"dtype", exitUsage, "want float32, bfloat16", []string{"run", model, "--input", good, "--dtype", "int8"}},
		{"output's name", exitUsage, ".npz", []string{"run", model, "--input", good, "--output", "y.npy"}},
		{"preprocess without model", exitUsage, "--model", []string{"preprocess", photo, "--output", "x.npy"}},
		{"preprocess without output", exitUsage, "--output", []string{"preprocess", photo, "--model", model}},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Contains(t, fails(t, c.code, c.args...), c.says)
		})
	}
	assert.NoFileExists(t, filepath.Join(dir, "x.npy"))
	assert.NoFileExists(t, filepath.Join(dir, "y.npz"))
}

func TestNoCUDAIsOneLine(t *testing.T) {
	if _, err := os.Stat("/dev/nvidiactl"); err == nil {
		t.Skip("there is a CUDA device")
	}
	cmd, _, stderr := program(t, nil, "classify", generated(t, "vit_reference.pt"), photoFile(t, "coffee.jpg"), "--device", "cuda")
	require.Error(t, cmd.Run())
	assert.Equal(t, exitError, cmd.ProcessState.ExitCode())
	assert.Regexp(t, `^torchvit: [^\n]*(CUDA|cuda)[^\n]*\n$`, stderr.String())
}

// TestInterrupt presses Ctrl-C while photos are at work: exit status 1, one line, and no half-written file.
func TestInterrupt(t *testing.T) {
	dir := t.TempDir()
	args := []string{"attend", generated(t, "vit_reference.pt"), "--out", dir}
	for range 500 {
		args = append(args, photoFile(t, "coffee.jpg"))
	}
	cmd, _, stderr := program(t, nil, args...)
	pipe, err := func() (io.ReadCloser, error) { cmd.Stdout = nil; return cmd.StdoutPipe() }()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	first := make([]byte, 1)
	_, err = io.ReadFull(pipe, first)
	require.NoError(t, err, stderr)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	began := time.Now()
	_, err = io.Copy(io.Discard, pipe)
	require.NoError(t, err)
	require.Error(t, cmd.Wait())
	assert.Equal(t, exitError, cmd.ProcessState.ExitCode(), "an exit and not a death by signal")
	assert.Less(t, time.Since(began), 20*time.Second)
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	assert.Equal(t, "torchvit: interrupted", lines[len(lines)-1])
	for _, line := range lines[:len(lines)-1] {
		assert.Contains(t, line, "wrote ")
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		assert.Contains(t, e.Name(), "coffee.attention", "no temporary file")
	}
}
