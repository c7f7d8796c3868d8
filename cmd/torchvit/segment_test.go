package main

import (
	"encoding/json"
	"image"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
)

// TestSegmentFormats has Python read every form of the answer: the masks are those of transformers'
// image-segmentation pipeline, decoded by Pillow and pycocotools.
func TestSegmentFormats(t *testing.T) {
	testmain.NotShort(t)
	root := testmain.Root(t)
	model := filepath.Join(root, "testdata", "models", "garments_segmentation.pt")
	var photos []string
	for _, name := range []string{"scene_2.jpg", "scene_3.jpg", "scene_5.jpg", "single_1.jpg"} {
		photos = append(photos, filepath.Join(root, "testdata", "scenes", name))
	}
	dir := t.TempDir()
	answers := map[string]string{}
	for name, flags := range map[string][]string{
		"hf":      {"--format", "hf"},
		"hf-png":  {"--format", "hf", "--masks", "png", "--out", filepath.Join(dir, "hf")},
		"coco":    {"--format", "coco"},
		"rle":     {"--json", "--masks", "rle"},
		"polygon": {"--format", "json", "--masks", "polygon"},
		"png":     {"--format", "json", "--masks", "png", "--out", filepath.Join(dir, "json")},
	} {
		answers[name], _ = ok(t, append(append([]string{"segment", model}, photos...), flags...)...)
	}
	given, err := json.Marshal(map[string]any{"model": model, "photos": photos, "answers": answers})
	require.NoError(t, err)
	path := filepath.Join(dir, "answers.json")
	require.NoError(t, os.WriteFile(path, given, 0o600))
	out := testmain.RunPython(t, "-c", `
import base64, io, json, sys
from types import SimpleNamespace
sys.path.insert(0, "scripts")
import numpy as np, torch
import modelfile, preprocess
from PIL import Image
from pycocotools import mask as coco
from transformers import SegformerImageProcessor
from transformers.pipelines.image_segmentation import ImageSegmentationPipeline

given = json.load(open(sys.argv[1]))
module, metadata, _ = modelfile.load(given["model"])
module.eval()
lines = {name: [json.loads(l) for l in text.splitlines()] for name, text in given["answers"].items() if name != "coco"}
results = json.loads(given["answers"]["coco"])
pipeline = SimpleNamespace(
    image_processor=SegformerImageProcessor(),
    model=SimpleNamespace(config=SimpleNamespace(id2label=dict(enumerate(metadata["labels"])))),
)
compared = 0
for i, path in enumerate(given["photos"]):
    image = preprocess.decode(path)
    pixels = modelfile.aligned(preprocess.to_tensor(image, metadata["preprocess"])[None])
    size = [(image.height, image.width)]
    class Outputs(dict):
        logits = modelfile.run(module, "forward", [pixels], 0)
    want = ImageSegmentationPipeline.postprocess(pipeline, Outputs(target_size=size), subtask="semantic")
    labels = [w["label"] for w in want]
    masks = [np.array(w["mask"]) > 0 for w in want]
    assert len(labels) >= 3 or i == 3, labels
    for name in ("hf", "hf-png"):
        got = lines[name][i]
        assert [g["label"] for g in got] == labels and all(g["score"] is None and list(g) == list(w) for g, w in zip(got, want))
        for g, w in zip(got, want):
            file = io.BytesIO(base64.b64decode(g["mask"])) if name == "hf" else g["mask"]
            picture = Image.open(file)
            assert picture.mode == w["mask"].mode and picture.tobytes() == w["mask"].tobytes()
            compared += 1
    for name in ("rle", "polygon", "png"):
        got = lines[name][i]["classes"]
        assert [g["label"] for g in got] == labels and [g["pixels"] for g in got] == [int(m.sum()) for m in masks]
        for g, m in zip(got, masks):
            if name == "rle":
                found = coco.decode(g["mask"])
            elif name == "polygon":
                found = coco.decode(coco.merge(coco.frPyObjects(g["polygons"], *size[0])))
            else:
                found = np.array(Image.open(g["mask"])) // 255
            assert (found == m).all()
            compared += 1
    got = [r for r in results if r["image_id"] == [1, 2, 3, 4][i]]
    assert [metadata["labels"][r["category_id"]] for r in got] == labels and all(r["score"] == 1 for r in got)
    for r, m in zip(got, masks):
        assert r["segmentation"]["counts"].encode() == coco.encode(np.asfortranarray(m.astype(np.uint8)))["counts"]
        compared += 1
print(compared, len(results))
`, path)
	var compared, results int
	require.NoError(t, json.Unmarshal([]byte("["+strings.Join(strings.Fields(out), ",")+"]"), &[]*int{&compared, &results}))
	assert.Equal(t, 6*results, compared)
	assert.Greater(t, results, 12)
}

func TestSegmentClasses(t *testing.T) {
	root := testmain.Root(t)
	model := filepath.Join(root, "testdata", "models", "garments_segmentation.pt")
	photo := filepath.Join(root, "testdata", "scenes", "scene_5.jpg") // a shirt, a dress and trousers on a cup
	all, _ := ok(t, "segment", model, photo)
	some, _ := ok(t, "segment", model, photo, "--classes", "Trouser,4")
	var want []string
	for line := range strings.Lines(all) {
		if strings.HasPrefix(line, "  Trouser ") || strings.HasPrefix(line, "  Dress ") || !strings.HasPrefix(line, "  ") {
			want = append(want, line)
		}
	}
	require.Len(t, want, 3, all)
	assert.Equal(t, strings.Join(want, ""), some)

	dir := t.TempDir()
	_, stderr := ok(t, "segment", model, photo, "--classes", "Dress", "--masks", "png", "--out", dir)
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Len(t, files, 3)
	assert.Contains(t, stderr, "scene_5.4-Dress.png")
	mask, isGray := decodePNG(t, filepath.Join(dir, "scene_5.4-Dress.png")).(*image.Gray)
	require.True(t, isGray)
	classes, isPaletted := decodePNG(t, filepath.Join(dir, "scene_5.mask.png")).(*image.Paletted)
	require.True(t, isPaletted)
	white := 0
	for i, v := range mask.Pix {
		if v == 255 {
			white++
		}
		require.Equal(t, v == 255, classes.Pix[i] == 4)
	}
	assert.Greater(t, white, 100)

	empty, _ := ok(t, "segment", model, photo, "--classes", "Dress,200", "--format", "coco", "--threshold", "0.3")
	assert.Contains(t, empty, `"category_id":4`)
	none, _ := ok(t, "segment", model, photo, "--classes", "200", "--format", "coco")
	assert.Equal(t, "[]\n", none)
}

// TestSegmentLarge compares windows and augmentation of the command with what package seg's parity test
// checks against Python: here that the flags arrive.
func TestSegmentLarge(t *testing.T) {
	root := testmain.Root(t)
	model := filepath.Join(root, "testdata", "models", "garments_segmentation.pt")
	photo := filepath.Join(root, "testdata", "scenes", "scene_2.jpg")
	seen := map[string]bool{}
	for _, flags := range [][]string{
		nil,
		{"--slide", "mmseg", "--slide-resize", "none"},
		{"--slide", "mmseg", "--slide-resize", "none", "--stride", "128"},
		{"--slide", "mmseg", "--slide-resize", "192", "--window", "128x192", "--window-batch", "2"},
		{"--slide", "segmenter", "--slide-resize", "none", "--stride", "96"}, // with mmseg's stride the windows are the same
		{"--flip"},
		{"--scales", "0.75,1.25"},
		{"--scales", "0.75,1.25", "--flip", "--slide", "segmenter"},
		{"--head", filepath.Join(root, "testdata", "models", "garments_segmentation_head.pt")},
	} {
		path := model
		if len(flags) > 0 && flags[0] == "--head" {
			path = filepath.Join(root, "testdata", "models", "garments_vit.pt")
		}
		out, _ := ok(t, append([]string{"segment", path, photo}, flags...)...)
		assert.GreaterOrEqual(t, strings.Count(out, "\n"), 4, out)
		assert.False(t, seen[out], "%v changes nothing", flags)
		seen[out] = true
	}
}

func TestSegmentUsage(t *testing.T) {
	root := testmain.Root(t)
	model := filepath.Join(root, "testdata", "models", "garments_segmentation.pt")
	photo := filepath.Join(root, "testdata", "scenes", "scene_1.jpg")
	for _, c := range []struct {
		code  int
		want  string
		flags []string
	}{
		{exitUsage, "--format yolo: want text, json, hf or coco", []string{"--format", "yolo"}},
		{exitUsage, "--json with --format hf", []string{"--format", "hf", "--json"}},
		{exitUsage, "--masks bmp: want png, rle or polygon", []string{"--masks", "bmp"}},
		{exitUsage, "--masks png: want --out", []string{"--masks", "png"}},
		{exitUsage, "--masks rle with --format text", []string{"--masks", "rle"}},
		{exitUsage, "--masks polygon with --format coco", []string{"--masks", "polygon", "--format", "coco"}},
		{exitUsage, "--threshold 1.5: want 0 to 1", []string{"--threshold", "1.5"}},
		{exitUsage, "--scales 0: want numbers above 0", []string{"--scales", "1,0"}},
		{exitUsage, "--window: want --slide too", []string{"--window", "128"}},
		{exitUsage, "--slide tiles: want mmseg or segmenter", []string{"--slide", "tiles"}},
		{exitUsage, "--window 0: want HEIGHTxWIDTH", []string{"--slide", "mmseg", "--window", "0"}},
		{exitUsage, "--window-batch 0", []string{"--slide", "mmseg", "--window-batch", "0"}},
		{exitUsage, "--slide-resize small: want none", []string{"--slide", "mmseg", "--slide-resize", "small"}},
		{exitUsage, "--classes hat: want labels of the file", []string{"--classes", "hat"}},
		{exitUsage, "--classes 256", []string{"--classes", "256"}},
		{exitError, "window: got 100 x 100, want multiples", []string{"--slide", "mmseg", "--window", "100"}},
		{exitError, "stride: got 200 x 200, want 1 to the window's", []string{"--slide", "mmseg", "--stride", "200"}},
	} {
		line := fails(t, c.code, append([]string{"segment", model, photo}, c.flags...)...)
		assert.Contains(t, line, c.want)
	}
}
