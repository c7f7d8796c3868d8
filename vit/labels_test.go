package vit_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/vit"
)

func TestLabelSetsAreThoseOfTorchvision(t *testing.T) {
	out := testmain.RunPython(t, "-c", `
import json
import torchvision.models._meta as m
print(json.dumps({"imagenet": m._IMAGENET_CATEGORIES, "coco91": m._COCO_CATEGORIES, "voc": m._VOC_CATEGORIES,
    "coco": [c for c in m._COCO_CATEGORIES if c not in ("__background__", "N/A")]}))`)
	var want map[string][]string
	require.NoError(t, json.Unmarshal([]byte(out), &want))
	for name, n := range map[string]int{"imagenet": 1000, "coco91": 91, "coco": 80, "voc": 21} {
		got, err := vit.LabelSet(name)
		require.NoError(t, err)
		require.Len(t, got, n)
		if name == "voc" {
			assert.Equal(t, "background", got[0])
			got[0] = want[name][0]
		}
		assert.Equal(t, want[name], got, name)
	}
}

func TestLabelSets(t *testing.T) {
	for name, want := range map[string]struct {
		n           int
		first, last string
	}{
		"ade20k":        {150, "wall", "flag"},
		"cityscapes":    {19, "road", "bicycle"},
		"voc":           {21, "background", "tvmonitor"},
		"imagenet":      {1000, "tench", "toilet tissue"},
		"coco":          {80, "person", "toothbrush"},
		"coco91":        {91, "__background__", "toothbrush"},
		"coco-panoptic": {133, "person", "rug-merged"},
		"coco-stuff":    {171, "person", "wood"},
	} {
		got, err := vit.LabelSet(name)
		require.NoError(t, err)
		require.Len(t, got, want.n, name)
		assert.Equal(t, want.first, got[0])
		assert.Equal(t, want.last, got[want.n-1])
		for _, label := range got {
			assert.Regexp(t, `^\S(.*\S)?$`, label, name)
		}
		meta := describe(vit.TaskClassification)
		meta.Labels = got
		require.NoError(t, meta.Validate(), name)
	}
	assert.Len(t, vit.LabelSetNames(), 8)
	for _, name := range vit.LabelSetNames() {
		_, err := vit.LabelSet(name)
		require.NoError(t, err)
	}
	_, err := vit.LabelSet("../labels")
	require.ErrorIs(t, err, vit.ErrLabelSet)
	assert.ErrorContains(t, err, `got "../labels", want one of ade20k`)
}
