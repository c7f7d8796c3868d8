package main

import (
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/train"
)

// trainable is a small model of package train's tests.
func trainable(t *testing.T, name string) string {
	t.Helper()
	return filepath.Join(testmain.Root(t), "train", "testdata", name+".pt")
}

// colored writes a folder of images for each class, n of plain colours.
func colored(t *testing.T, n int, classes ...string) string {
	t.Helper()
	dir := t.TempDir()
	colors := []color.RGBA{{200, 30, 30, 255}, {30, 200, 40, 255}, {40, 60, 220, 255}, {90, 90, 90, 255}}
	for i := range n {
		img := image.NewRGBA(image.Rect(0, 0, 40, 36))
		c := colors[i%len(classes)]
		c.G += uint8(i)
		draw.Draw(img, img.Bounds(), image.NewUniform(c), image.Point{}, draw.Src)
		folder := filepath.Join(dir, classes[i%len(classes)])
		require.NoError(t, os.MkdirAll(folder, 0o777))
		f, err := os.Create(filepath.Join(folder, fmt.Sprintf("%d.png", i)))
		require.NoError(t, err)
		require.NoError(t, png.Encode(f, img))
		require.NoError(t, f.Close())
	}
	return dir
}

func TestTrain(t *testing.T) {
	data := colored(t, 24, "blue", "green", "red")
	out := filepath.Join(t.TempDir(), "tuned.pt")
	flags := []string{
		"train", trainable(t, "vit"), "--data", data, "--val", data, "--out", out, "--epochs", "4", "--batch-size", "6", "--lr", "2e-3",
		"--freeze", "vit", "--unfreeze-at", "2", "--layer-decay", "0.9", "--warmup", "2", "--clip-grad-norm", "5",
		"--augment", "flip", "--seed", "3", "--save-every", "2", "--workers", "2", "--precision", "bfloat16",
	}
	stdout, stderr := ok(t, flags...)
	assert.Contains(t, stdout, out+": 4 epochs, 16 steps in ")
	assert.Regexp(t, `\n  the weights of epoch \d: top-1 1\.0000, top-3 1\.0000 \(before: top-1 0\.\d{4}, top-3 1\.0000\)\n$`, stdout)
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	require.Len(t, lines, 2+4, stderr)
	assert.Equal(t, "24 images, 4 epochs of 4 steps, measured on 24 images; 75 parameters are learned", lines[0])
	assert.Regexp(t, `^before: top-1 0\.\d{4}, top-3 1\.0000$`, lines[1])
	assert.Regexp(t, `^epoch 1/4: loss \d\.\d{4}, top-1 \d\.\d{4}, top-3 1\.0000( \(best\))?, [\d.]+m?s$`, lines[2])

	// Every command takes it.
	stdout, _ = ok(t, "verify", out)
	assert.Contains(t, stdout, "equal bits demanded")
	assert.Contains(t, stdout, "the reference was computed by torchvit through libtorch, not by Python")
	assert.Contains(t, stdout, "verified")
	stdout, _ = ok(t, "inspect", out)
	assert.Regexp(t, `training +from vit\.pt, on `+data+` \(24 images\), \d epochs, adamw, seed 3, top-1 1\.0000 after epoch \d, by torchvit\n`, stdout)
	assert.Contains(t, stdout, "calls by torchvit with torch ")
	assert.InDelta(t, 1, float64(evalJSON(t, out, data).Metrics["top-1"]), 0)

	// A run that is over; as JSON.
	fails(t, exitError, flags...)
	stdout, _ = ok(t, append(flags, "--resume", "--json")...)
	var r train.Result
	require.NoError(t, json.Unmarshal([]byte(stdout), &r))
	assert.Equal(t, 16, r.Steps)
	assert.Equal(t, out, r.Model)
	assert.Equal(t, strings.TrimSuffix(out, ".pt")+".run", r.RunDir)
}

func TestTrainHead(t *testing.T) {
	data := scenes(t, "instances.json")
	out := filepath.Join(t.TempDir(), "tuned.pt")
	_, stderr := ok(t, "train", trainable(t, "segmentation"), "--weights", trainable(t, "vit"), "--init-head", "--freeze", "vit", "--data", data,
		"--train-size", "32", "--augment", "scale=0.8:1.2,flip", "--limit", "4", "--epochs", "1", "--out", out, "--dice", "0.5", "--cache", "10")
	assert.Contains(t, stderr, "4 images, 1 epochs of 1 steps; ")
	stdout, _ := ok(t, "inspect", out)
	assert.Contains(t, stdout, "T-shirt", "the data set's classes")
	pictures := t.TempDir()
	ok(t, "segment", out, filepath.Join(testmain.Root(t), "testdata", "images", "coffee.jpg"), "--out", pictures)

	// A head in a file of its own, with the ViT's.
	ok(t, "train", trainable(t, "vit"), "--head", trainable(t, "head"), "--init-head=classes", "--data", data, "--limit", "4", "--epochs", "1", "--out", out,
		"--run-dir", filepath.Join(t.TempDir(), "run"))
	ok(t, "segment", trainable(t, "vit"), "--head", out, filepath.Join(testmain.Root(t), "testdata", "images", "coffee.jpg"), "--out", pictures)
}

func TestTrainDetector(t *testing.T) {
	data := scenes(t, "instances.json")
	for _, name := range []string{"faster_rcnn", "yolo"} {
		out := filepath.Join(t.TempDir(), "tuned.pt")
		stdout, _ := ok(t, "train", trainable(t, name), "--init-head=classes", "--data", data, "--val", data, "--val-limit", "2", "--limit", "4", "--epochs", "1", "--batch-size", "2", "--out", out)
		assert.Contains(t, stdout, "AP50")
		ok(t, "detect", out, filepath.Join(testmain.Root(t), "testdata", "images", "coffee.jpg"))
		ok(t, "verify", out)
	}
}

func TestTrainErrors(t *testing.T) {
	data := colored(t, 3, "blue", "green", "red")
	other := colored(t, 4, "blue", "green", "wombat", "red")
	out := filepath.Join(t.TempDir(), "x.pt")
	vit := trainable(t, "vit")
	for _, c := range []struct {
		status int
		text   string
		args   []string
	}{
		{exitUsage, "got 0 arguments, want a model file", nil},
		{exitUsage, "want --data", []string{vit, "--out", out}},
		{exitUsage, "want --out", []string{vit, "--data", data}},
		{exitUsage, "--epochs 0: want 1 or more", []string{vit, "--data", data, "--out", out, "--epochs", "0"}},
		{exitUsage, "--optimizer lion: want adamw, adam or sgd", []string{vit, "--data", data, "--out", out, "--optimizer", "lion"}},
		{exitUsage, "--schedule x: want cosine, poly, step or constant", []string{vit, "--data", data, "--out", out, "--schedule", "x"}},
		{exitUsage, "--precision int8: want float32 or bfloat16", []string{vit, "--data", data, "--out", out, "--precision", "int8"}},
		{exitUsage, "--freeze all: want none, vit or blocks:N", []string{vit, "--data", data, "--out", out, "--freeze", "all"}},
		{exitUsage, "--init-head tail: want classes or all", []string{vit, "--data", data, "--out", out, "--init-head=tail"}},
		{exitUsage, "--augment: ", []string{vit, "--data", data, "--out", out, "--augment", "spin"}},
		{exitUsage, "--early-stop: want --val too", []string{vit, "--data", data, "--out", out, "--early-stop", "2"}},
		{exitUsage, "--train-size 1x2x3", []string{vit, "--data", data, "--out", out, "--train-size", "1x2x3"}},
		{exitUsage, "--classes cow=red: wrong classes: the data set has no class cow", []string{vit, "--data", data, "--out", out, "--classes", "cow=red"}},
		{exitError, "--init-head=classes", []string{vit, "--data", other, "--out", out}},
		{exitError, "the file holds no parameters", []string{trainable(t, "frozen"), "--data", data, "--out", out}},
		{exitError, "scripts/export.py", []string{trainable(t, "baked"), "--data", other, "--init-head=classes", "--out", out}},
		{exitError, "--data: " + data + "-none: missing", []string{vit, "--data", data + "-none", "--out", out}},
		{exitError, "--val: " + data + "-none: missing", []string{vit, "--data", data, "--val", data + "-none", "--out", out}},
		{exitError, "no such file", []string{vit, "--data", data, "--out", filepath.Join(t.TempDir(), "no", "x.pt"), "--run-dir", t.TempDir()}},
		{exitError, "lr: wrong option: got -1", []string{vit, "--data", data, "--out", out, "--lr", "-1"}},
	} {
		line := fails(t, c.status, append([]string{"train"}, c.args...)...)
		assert.Contains(t, line, c.text)
	}
	assert.NoFileExists(t, out)
}

// TestTrainIsInterrupted ends a process with SIGINT and goes on.
func TestTrainIsInterrupted(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: trains in a process of its own, which the race detector does not see")
	}
	data := colored(t, 24, "blue", "green", "red")
	out := filepath.Join(t.TempDir(), "tuned.pt")
	flags := []string{"train", trainable(t, "vit"), "--data", data, "--out", out, "--epochs", "400", "--batch-size", "2", "--save-every", "1", "--threads", "1"}
	cmd, stdout, stderr := program(t, nil, flags...)
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(strings.TrimSuffix(out, ".pt")+".run", train.CheckpointFile))
		return err == nil
	}, 2*time.Minute, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	require.Error(t, cmd.Wait())
	assert.Equal(t, exitError, cmd.ProcessState.ExitCode())
	assert.Empty(t, stdout.String())
	assert.Regexp(t, `training stopped after step \d+ of 4800: .*last\.npz is there to go on from: .*; the same command with --resume goes on\ntorchvit: interrupted\n$`, stderr.String())
	_, errs := ok(t, append(flags, "--resume", "--json", "--epochs", "1")...)
	assert.Contains(t, errs, "going on after step ")
}

// Never the part that is for measuring in place of the one that is for training.
func TestTrainParts(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
	}
	instances := func(image string) string {
		return `{"images": [{"id": 1, "file_name": "` + image + `", "width": 4, "height": 4}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}`
	}
	f := &trainFlags{data: dir}
	write("annotations/instances_val.json", instances("v.png"))
	write("val/v.png", "")
	_, _, err := f.read("segmentation")
	require.ErrorIs(t, err, dataset.ErrSplit)
	assert.ErrorContains(t, err, "got a part val and none named train")

	write("annotations/instances_train.json", instances("t.png"))
	_, _, err = f.read("segmentation")
	require.ErrorIs(t, err, dataset.ErrMissing, "an image that is missing")
	assert.ErrorContains(t, err, "t.png")

	write("train/t.png", "")
	f.val = dir
	set, val, err := f.read("segmentation")
	require.NoError(t, err)
	assert.Equal(t, "t.png", filepath.Base(set.Images[0].Path))
	assert.Equal(t, "v.png", filepath.Base(val.Images[0].Path))

	require.NoError(t, os.Remove(filepath.Join(dir, "annotations", "instances_val.json")))
	_, _, err = f.read("segmentation")
	require.ErrorIs(t, err, dataset.ErrSplit)
	assert.ErrorContains(t, err, "--val: ")
	require.NoError(t, os.Rename(filepath.Join(dir, "annotations", "instances_train.json"), filepath.Join(dir, "annotations", "all.json")))
	write("images/t.png", "")
	set, val, err = f.read("segmentation")
	require.NoError(t, err, "a set without parts")
	assert.Equal(t, set.Images[0].Path, val.Images[0].Path)
}

// A folder of parts is no folder of classes.
func TestTrainFolderOfParts(t *testing.T) {
	_, _, err := (&trainFlags{data: colored(t, 4, "train", "val")}).read("classification")
	require.ErrorIs(t, err, dataset.ErrClass)
	assert.ErrorContains(t, err, "got the parts train, val, want the folder of one")
}

func TestTrainZeros(t *testing.T) {
	for _, flag := range []string{"--lr", "--layer-decay"} {
		line := fails(t, exitUsage, "train", trainable(t, "vit"), "--data", "d", "--out", "o.pt", flag, "0")
		assert.Contains(t, line, flag+" 0: want more than 0")
	}
}
