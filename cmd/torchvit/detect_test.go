package main

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/coco"
)

// detected is what detect --json says of one photo.
type detected struct {
	Image         string
	Width, Height int
	Detections    []struct {
		Score float64
		Label string
		Box   struct{ XMin, YMin, XMax, YMax float64 }
	}
}

func detect(t *testing.T, args ...string) (list []detected) {
	t.Helper()
	out, _ := ok(t, append([]string{"detect", generated(t, "detection.pt"), "--json"}, args...)...)
	for line := range strings.Lines(out) {
		var d detected
		require.NoError(t, json.Unmarshal([]byte(line), &d))
		list = append(list, d)
	}
	return list
}

// TestDetectFormats: every format says what JSON says.
func TestDetectFormats(t *testing.T) {
	coffee, astronaut := photoFile(t, "coffee.jpg"), photoFile(t, "astronaut.jpg")
	want := detect(t, coffee, astronaut)
	require.Len(t, want, 2)

	out, _ := ok(t, "detect", generated(t, "detection.pt"), "--format", "hf", coffee, astronaut)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(t, lines, 2)
	for i, line := range lines {
		var hf []struct {
			Score float64
			Label string
			Box   map[string]int
		}
		require.NoError(t, json.Unmarshal([]byte(line), &hf))
		require.Len(t, hf, len(want[i].Detections))
		require.Greater(t, len(hf), 5)
		for j, d := range want[i].Detections {
			assert.Equal(t, float32(d.Score), float32(hf[j].Score))
			assert.Equal(t, d.Label, hf[j].Label)
			assert.Equal(t, map[string]int{"xmin": int(d.Box.XMin), "ymin": int(d.Box.YMin), "xmax": int(d.Box.XMax), "ymax": int(d.Box.YMax)}, hf[j].Box)
		}
	}

	numbered := filepath.Join(t.TempDir(), "000000000139.jpg")
	data, err := os.ReadFile(coffee)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(numbered, data, 0o644))
	for _, photos := range [][]string{{coffee, astronaut}, {numbered}} {
		out, _ = ok(t, append([]string{"detect", generated(t, "detection.pt"), "--format", "coco", "--json"}, photos...)...)
		results, err := coco.ReadResults(strings.NewReader(out))
		require.NoError(t, err)
		for i, photo := range photos {
			id := int64(i) + 1
			if photo == numbered {
				id = 139
			}
			for _, d := range want[i].Detections {
				r := results[0]
				results = results[1:]
				assert.Equal(t, id, r.ImageID)
				assert.Equal(t, float32(d.Score), float32(r.Score))
				assert.Equal(t, d.Label, fmt.Sprintf("thing %d", r.CategoryID))
				assert.Equal(t, float32(d.Box.XMin), float32(r.Box[0]))
				assert.Equal(t, float32(d.Box.YMax)-float32(d.Box.YMin), float32(r.Box[3]))
			}
		}
		assert.Empty(t, results)
	}

	dir := t.TempDir()
	out, stderr := ok(t, "detect", generated(t, "detection.pt"), "--format", "yolo", "--out", dir, coffee)
	assert.Len(t, strings.Split(strings.TrimSpace(out), "\n"), 1+len(want[0].Detections))
	assert.Contains(t, stderr, "wrote "+filepath.Join(dir, "coffee.txt"))
	text, err := os.ReadFile(filepath.Join(dir, "coffee.txt"))
	require.NoError(t, err)
	lines = strings.Split(strings.TrimSpace(string(text)), "\n")
	require.Len(t, lines, len(want[0].Detections))
	for i, d := range want[0].Detections {
		fields := strings.Fields(lines[i])
		require.Len(t, fields, 5)
		x, err := strconv.ParseFloat(fields[1], 64)
		require.NoError(t, err)
		assert.InDelta(t, (d.Box.XMin+d.Box.XMax)/2/600, x, 1e-5)
	}
	_, _ = ok(t, "detect", generated(t, "detection.pt"), "--format", "voc", "--out", dir, coffee)
	text, err = os.ReadFile(filepath.Join(dir, "coffee.xml"))
	require.NoError(t, err)
	var voc struct {
		Width   int      `xml:"size>width"`
		Objects []string `xml:"object>name"`
	}
	require.NoError(t, xml.Unmarshal(text, &voc))
	assert.Equal(t, 600, voc.Width)
	for i, d := range want[0].Detections {
		assert.Equal(t, d.Label, voc.Objects[i])
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 2, "no pictures")
}

// TestDetectOptions: each flag leaves out what it says.
func TestDetectOptions(t *testing.T) {
	coffee := photoFile(t, "coffee.jpg")
	all := detect(t, coffee, "--threshold", "0")[0].Detections
	require.Greater(t, len(all), 10)
	var labels []string
	for _, d := range all {
		if !slices.Contains(labels, d.Label) {
			labels = append(labels, d.Label)
		}
	}
	require.Greater(t, len(labels), 2)
	count := func(args ...string) (n int) {
		return len(detect(t, append([]string{coffee, "--threshold", "0"}, args...)...)[0].Detections)
	}
	of := func(label string, above float64) (n int) {
		for _, d := range all {
			if d.Label == label && d.Score >= above {
				n++
			}
		}
		return n
	}
	assert.Equal(t, 3, count("--max", "3"))
	assert.Equal(t, of(labels[0], 0)+of(labels[1], 0), count("--classes", labels[0]+","+labels[1]))
	middle := all[len(all)/2]
	assert.Equal(t, len(all)-of(middle.Label, 0)+of(middle.Label, middle.Score),
		count("--class-threshold", middle.Label+"="+strconv.FormatFloat(middle.Score, 'g', -1, 32)))
	agnostic, class := count("--nms", "agnostic", "--iou", "0.1"), count("--nms", "class", "--iou", "0.1")
	assert.Less(t, agnostic, class)
	assert.LessOrEqual(t, class, len(all))
	assert.Equal(t, len(all), count("--nms", "none"))
	soft := detect(t, coffee, "--threshold", "0", "--soft-nms", "gaussian", "--nms", "agnostic")[0].Detections
	assert.Len(t, soft, len(all))
	assert.Less(t, soft[len(soft)-1].Score, all[len(all)-1].Score)
}

func TestDetectUsage(t *testing.T) {
	model, photo := generated(t, "detection.pt"), photoFile(t, "coffee.jpg")
	for want, args := range map[string][]string{
		"--iou 1.5: want 0 to 1":               {"--iou", "1.5"},
		"--class-threshold cat: want CLASS":    {"--class-threshold", "cat"},
		"--class-threshold =0.5: want CLASS":   {"--class-threshold", "=0.5"},
		"--class-threshold a=2: want CLASS":    {"--class-threshold", "a=2"},
		"--nms hard: want none, class":         {"--nms", "hard"},
		"--soft-nms cubic: want linear":        {"--soft-nms", "cubic"},
		"--format csv: want text, json, hf, ":  {"--format", "csv"},
		"--format yolo: want --out":            {"--format", "yolo"},
		"--max 0: want 1 or more":              {"--max", "0"},
		"--top-k -1: want 1 or more":           {"--top-k", "-1"},
		"--sigma 0: want a number above 0":     {"--soft-nms", "gaussian", "--sigma", "0"},
		"want --soft-nms gaussian too":         {"--soft-nms", "linear", "--sigma", "1"},
		"--soft-nms linear with --nms none":    {"--soft-nms", "linear", "--nms", "none"},
		"--mask-threshold -0.5: want 0 to 1":   {"--mask-threshold", "-0.5"},
		`got the class "unicorn", want one of`: {"--classes", "unicorn"},
	} {
		code := exitUsage
		if strings.Contains(want, "unicorn") {
			code = exitError
		}
		assert.Contains(t, fails(t, code, append([]string{"detect", model, photo}, args...)...), want)
	}
}
