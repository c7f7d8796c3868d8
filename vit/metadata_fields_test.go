package vit_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

// full has every key of torchvit.json.
const full = `{"format":1,"task":"segmentation","architecture":"vit_tiny_patch16_224","torch":"2.15.0",
"input":{"size":[224,320],"multiple_of":16,"dynamic":true,"channel_order":"RGB"},
"preprocess":{"backend":"pil","resize":{"rule":"exact","size":[224,320],"max_size":0,"multiple_of":0},
"interpolation":"bicubic","antialias":true,"crop":{"rule":"none","size":[]},"mean":[0.5,0.5,0.5],"std":[0.5,0.5,0.5],"normalize":"torchvision"},
"tokens":{"patch_size":[16,16],"prefix":1,"num_heads":3,"depth":12,"embed_dim":192},"output":{"kind":"segmentation_logits"},
"labels":["nothing","Käse"],"palette":[[0,0,0],[255,10,1]],"thresholds":{"score":0.5},
"training":{"by":"torchvit","from":"a.pt","weights":"b.pt","data":"train","images":6000,"validation":"val","epochs":3,"steps":563,"batch_size":32,
"optimizer":"adamw","lr":1e-3,"weight_decay":0.05,"layer_decay":0.75,"schedule":"cosine","precision":"bfloat16","freeze":"vit","head":"all","seed":-7,
"epoch":2,"metric":"mIoU","value":0.5},
"reference":{"by":"torchvit","torch":"2.15.0+cpu","threads":2,"dtype":"bfloat16","cpu_vendor":"AuthenticAMD","cpu_capability":"AVX512","atol":1e-4,"rtol":0.0001,
"calls":[{"method":"forward","inputs":[{"image":"c0.image"}],"outputs":["out"]},
{"method":"forward_blocks","inputs":[{"tensor":"c1.in0"},{"ints":[2,5]}],"outputs":["out.0","out.1"]},
{"method":"attention","inputs":[{"tensor":"c2.in0"},{"int":-1}],"outputs":["out"]},
{"method":"forward","inputs":[{"tensors":["c3.in0.0","c3.in0.1"]},{"ints":[]}],"outputs":["out.1.0.boxes"]}]}}`

func TestMetadataHoldsEveryField(t *testing.T) {
	m, err := vit.ParseMetadata([]byte("\ufeff" + full))
	require.NoError(t, err)
	require.Equal(t, vit.InputSpec{Size: []int{224, 320}, MultipleOf: 16, Dynamic: true, ChannelOrder: "RGB"}, m.Input)
	require.Equal(t, transforms.ResizeSpec{Rule: transforms.RuleExact, Size: []int{224, 320}}, m.Preprocess.Resize)
	require.Equal(t, &vit.Tokens{PatchSize: []int{16, 16}, Prefix: 1, NumHeads: 3, Depth: 12, EmbedDim: 192}, m.Tokens)
	require.Equal(t, [][3]uint8{{0, 0, 0}, {255, 10, 1}}, m.Palette)
	require.Equal(t, []string{"nothing", "Käse"}, m.Labels)
	require.InDelta(t, 0.5, *m.Thresholds.Score, 0)
	require.Equal(t, &vit.Training{
		By: "torchvit", From: "a.pt", Weights: "b.pt", Data: "train", Images: 6000, Validation: "val", Epochs: 3, Steps: 563, BatchSize: 32,
		Optimizer: "adamw", LR: 1e-3, WeightDecay: 0.05, LayerDecay: 0.75, Schedule: "cosine", Precision: "bfloat16", Freeze: "vit", Head: "all",
		Seed: -7, Epoch: 2, Metric: "mIoU", Value: 0.5,
	}, m.Training)
	require.Equal(t, "torchvit", m.Reference.By)
	require.Equal(t, []int64{}, m.Reference.Calls[3].Inputs[1].Ints, "an empty list is a list")
	require.Equal(t, []string{
		"c0.image", "c0.out", "c1.in0", "c1.out.0", "c1.out.1", "c2.in0", "c2.out",
		"c3.in0.0", "c3.in0.1", "c3.out.1.0.boxes",
	}, m.Reference.Arrays())

	m.Preprocess.Crop.Size = nil // omitted when empty
	again, err := json.Marshal(m)
	require.NoError(t, err)
	same, err := vit.ParseMetadata(again)
	require.NoError(t, err)
	require.Equal(t, m, same)
	// The smallest that is valid.
	_, err = vit.ParseMetadata([]byte(`{"format":1,"task":"detection"}`))
	require.NoError(t, err)
}

func TestMetadataIsReadStrictly(t *testing.T) {
	for _, c := range []struct{ old, replacement, want string }{
		{`"format":1`, `"format":"1"`, `format: got the string "1", want a whole number`},
		{`"format":1`, `"format":1.0`, "format: got the number 1.0, want a whole number"},
		{`"format":1`, `"Format":1`, `"Format": got an unknown key`},
		{`"format":1`, `"format":1,"format":1`, "format: got the key twice"},
		{`"format":1`, `"format":null`, "format: got null"},
		{`"torch":"2.15.0",`, `"torch":"new",`, `torch: got "new"`},
		{`"vit_tiny_patch16_224"`, `"a\nb"`, "architecture: got"},
		{`"size":[224,320],"multiple_of":16`, `"size":[224,321],"multiple_of":16`, "input.size[1]: got 321, want a multiple of"},
		{`"size":[224,320],"multiple_of":16`, `"size":[224],"multiple_of":16`, "input.size: got 1 numbers, want 2"},
		{`"size":[224,320],"multiple_of":16`, `"size":[224,-320],"multiple_of":16`, "input.size[1]: got -320, want 1 to"},
		{`"size":[224,320],"multiple_of":16`, `"size":[224,"x"],"multiple_of":16`, `input.size[1]: got the string "x", want a whole number`},
		{`"multiple_of":16`, `"multiple_of":-1`, "input.multiple_of: got -1"},
		{`"dynamic":true`, `"dynamic":1`, "input.dynamic: got the number 1, want true or false"},
		{`"RGB"`, `"BGR"`, `input.channel_order: got "BGR"`},
		{`"backend":"pil"`, `"backend":"cv2"`, `preprocess: invalid preprocess: backend: got "cv2"`},
		{`"mean":[0.5,0.5,0.5]`, `"mean":[0.5,1e999,0.5]`, "preprocess.mean[1]: got the number 1e999"},
		{`"antialias":true`, `"antialias":"yes"`, "preprocess.antialias: got"},
		{`"resize":{`, `"resize":{"factor":2,`, `"preprocess.resize.factor": got an unknown key`},
		{`"patch_size":[16,16]`, `"patch_size":[]`, "tokens.patch_size: got 0 numbers"},
		{`"embed_dim":192`, `"embed_dim":99999999999999999999`, "tokens.embed_dim: got the number"},
		{`"segmentation_logits"`, `"logits"`, `output.kind: got "logits", want segmentation_logits or class_map for task segmentation`},
		{`"labels":["nothing","Käse"]`, `"labels":["nothing","a\u0007"]`, "labels[1]: got"},
		{`"labels":["nothing","Käse"]`, `"labels":["nothing"]`, "palette: got 2 colours, want one for each of the 1 labels"},
		{`"seed":-7`, `"seed":0.5`, "training.seed: got the number 0.5, want a whole number"},
		{`"metric":"mIoU"`, `"metric":"m\nIoU"`, "training.metric: got"},
		{`"by":"torchvit","torch"`, `"by":"\u0007","torch"`, "reference.by: got"},
		{`[255,10,1]`, `[256,10,1]`, "palette[1][0]: got the number 256, want a whole number of 0 to 255"},
		{`[255,10,1]`, `[255,10]`, "palette[1]: got a list of 2, want a list of 3"},
		{`"score":0.5`, `"score":-0.1`, "thresholds.score: got -0.1"},
		{`"2.15.0+cpu"`, `""`, "reference.torch: got"},
		{`"atol":1e-4`, `"atol":-1`, "reference.atol: got -1"},
		{`"method":"attention"`, `"method":"a b"`, "reference.calls[2].method: got"},
		{`[{"image":"c0.image"}]`, `[]`, "reference.calls[0].inputs: got none"},
		{`{"image":"c0.image"}`, `{}`, "reference.calls[0].inputs[0]: got 0 kinds of input"},
		{`{"tensors":["c3.in0.0","c3.in0.1"]}`, `{"tensors":[]}`, "reference.calls[3].inputs[0].tensors: got none"},
		{`["out.0","out.1"]`, `["out.0","out.0"]`, `reference.calls[1].outputs[1]: got "out.0" twice`},
		{`["out.0","out.1"]`, `["out.0","logits"]`, `reference.calls[1].outputs[1]: got "logits"`},
		{`"calls":[`, `"calls":3,"x":[`, "reference.calls: got the number 3, want a list"},
		{`"thresholds":{"score":0.5}`, `"thresholds":[]`, "thresholds: got a list, want an object"},
		{`{"format"`, `[{"format"`, "torchvit.json: got a list, want an object"},
		{full, full[:300], "got the end of the text at byte 300"},
		{full, "", "got the end of the text at byte 0"},
		{full, full + "x", "got more text after the JSON object"},
		{full, "{format:1}", "got no JSON at byte"},
		{full, "\xff\xfe", "not UTF-8"},
		{full, strings.Repeat(" ", 17<<20), "got 17825792 bytes"},
		{`"format":1`, `"format":1,"input":` + strings.Repeat("[", 100), "input: got a list, want an object"},
	} {
		text := strings.Replace(full, c.old, c.replacement, 1)
		require.NotEqual(t, full, text, c.old)
		_, err := vit.ParseMetadata([]byte(text))
		require.ErrorIs(t, err, vit.ErrMetadata, c.want)
		require.ErrorContains(t, err, c.want)
		require.NotContains(t, err.Error(), "\n")
		require.Less(t, len(err.Error()), 300)
	}
}

func TestValidateMetadataMadeByHand(t *testing.T) {
	m, err := vit.ParseMetadata([]byte(full))
	require.NoError(t, err)
	require.NoError(t, m.Validate())
	m.Preprocess.Std[2] = math.NaN()
	require.ErrorContains(t, m.Validate(), "preprocess.std[2]: got NaN")
	m.Preprocess.Std[2] = 0.5
	nan := math.NaN()
	m.Thresholds.Score = &nan
	require.ErrorIs(t, m.Validate(), vit.ErrMetadata)
	m.Thresholds, m.Reference, m.Tokens = nil, nil, nil
	require.NoError(t, m.Validate(), "the optional parts are optional")
	require.ErrorIs(t, (&vit.Metadata{}).Validate(), vit.ErrMetadata)
}
