package export_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

func TestMain(m *testing.M) {
	// The references are made with one thread.
	testmain.Run(m, torch.Config{Device: "cpu", IntraOpThreads: 1})
}

// report is the part of export.py's report that is looked at here.
type report struct {
	Mode    string  `json:"mode"`
	Methods bool    `json:"methods"`
	Dynamic bool    `json:"dynamic"`
	Largest float64 `json:"largest"`
	Cases   []struct {
		Batch   int    `json:"batch"`
		Size    [2]int `json:"size"`
		Outcome string `json:"outcome"`
		Why     string `json:"why"`
	} `json:"cases"`
	Preprocess string `json:"preprocess"`
}

// TestEverySourceGivesPythonsBits exports a tiny model of each source, with a check of every method against
// the library's own in Python, and replays the files here.
func TestEverySourceGivesPythonsBits(t *testing.T) {
	testmain.NotShort(t)
	dir := t.TempDir()
	out := testmain.RunPython(t, "internal/export/testdata/models.py", dir)
	var reports map[string]report
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &reports))

	for name, want := range map[string]struct {
		task, kind, mode string
		methods, dynamic bool
		multipleOf       int
		rule             string
		labels           []string // some of them
		equal            bool     // the preprocess is the library's own
	}{
		"timm.pt":          {vit.TaskClassification, vit.OutputLogits, "script", true, true, 16, transforms.RuleShortestEdge, []string{"class 6"}, true},
		"timm_features.pt": {vit.TaskFeatures, vit.OutputFeatures, "script", false, true, 1, transforms.RuleShortestEdge, nil, true},
		"torchvision.pt":   {vit.TaskDetection, vit.OutputDetections, "script", false, true, 1, transforms.RuleNone, []string{"__background__", "class 3"}, false},
		"hf.pt":            {vit.TaskClassification, vit.OutputLogits, "parts", true, true, 16, transforms.RuleExact, []string{"class 4"}, true},
		"hf_detection.pt":  {vit.TaskDetection, vit.OutputSetPrediction, "trace", false, true, 1, transforms.RuleYOLOS, []string{"person", "toothbrush"}, true},
		"hf_folder.pt":     {vit.TaskSegmentation, vit.OutputSegmentationLogits, "trace", false, true, 1, transforms.RuleExact, []string{"sky", "sea", "sand"}, true},
		"smp.pt":           {vit.TaskSegmentation, vit.OutputSegmentationLogits, "script", false, true, 1, transforms.RuleShortestEdge, []string{"mask"}, false},
		"code.pt":          {vit.TaskSegmentation, vit.OutputSegmentationLogits, "script", false, true, 1, transforms.RuleExact, []string{"class 2"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			r, ok := reports[name]
			require.True(t, ok)
			assert.Equal(t, want.mode, r.Mode)
			assert.Equal(t, want.methods, r.Methods)
			assert.Zero(t, r.Largest, "eager Python's own bits")
			require.GreaterOrEqual(t, len(r.Cases), 4)
			equal := map[int]bool{}
			for _, c := range r.Cases {
				if c.Size == r.Cases[0].Size {
					equal[c.Batch] = c.Outcome == "equal"
				}
			}
			assert.Equal(t, map[int]bool{1: true, 2: true, 3: true}, equal)
			if want.equal {
				assert.Equal(t, "equal to the library's own", r.Preprocess)
			}

			meta, err := vit.ReadMetadata(path)
			require.NoError(t, err)
			assert.Equal(t, want.task, meta.Task)
			assert.Equal(t, want.kind, meta.Output.Kind)
			assert.Equal(t, want.dynamic, meta.Input.Dynamic)
			assert.Equal(t, want.multipleOf, meta.Input.MultipleOf)
			assert.Equal(t, want.rule, meta.Preprocess.Resize.Rule)
			for _, label := range want.labels {
				assert.Contains(t, meta.Labels, label)
			}
			assert.Equal(t, want.methods, meta.Tokens != nil)

			verified, err := vit.Verify(t.Context(), path, vit.Options{})
			require.NoError(t, err)
			require.NoError(t, verified.Err())
			assert.True(t, verified.Exact, verified.Why)
			numbers := int64(0)
			for _, call := range verified.Calls {
				for _, o := range call.Outputs {
					assert.Zero(t, o.Different, "%s %s", call.Method, o.Name)
					numbers += o.NumEl
				}
			}
			assert.Greater(t, numbers, int64(20), "something was compared")

			// The report is in the file, and no path of this machine.
			archive, err := jit.OpenArchive(path)
			require.NoError(t, err)
			defer archive.Close()
			text, err := archive.ReadExtra("torchvit.export.json")
			require.NoError(t, err)
			assert.True(t, json.Valid(text))
			raw, err := os.ReadFile(path)
			require.NoError(t, err)
			assert.NotContains(t, string(raw), testmain.Root(t)+"/scripts")
		})
	}
}

// TestCommandLine is export.py as a user types it, with code of the user's own in another folder.
func TestCommandLine(t *testing.T) {
	testmain.NotShort(t)
	dir, script := t.TempDir(), filepath.Join(testmain.Root(t), "scripts", "export.py")
	code := "from torch import nn\nmodel = nn.Sequential(nn.Conv2d(3, 5, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "mine.py"), []byte(code), 0o644))
	run := func(args ...string) (string, error) {
		cmd := exec.Command(testmain.Python(t), append([]string{script}, args...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run("mine:model", "--task", "classification", "--input", "1x3x32x32", "--out", "mine.pt")
	require.NoError(t, err, out)
	assert.Contains(t, out, "mine:model: scripted")
	assert.Contains(t, out, "3 x 32x32: equal")
	report, err := vit.Verify(t.Context(), filepath.Join(dir, "mine.pt"), vit.Options{})
	require.NoError(t, err)
	require.NoError(t, report.Err())

	for name, c := range map[string]struct {
		want string
		args []string
	}{
		"no task":     {"mine:model: give --task", []string{"mine:model", "--out", "no.pt"}},
		"no model":    {"timm has no such model", []string{"timm:vit_of_nowhere", "--out", "no.pt"}},
		"wrong input": {"does not take the example inputs", []string{"mine:model", "--task", "classification", "--input", "1x4x32x32", "--out", "no.pt"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := run(c.args...)
			require.Error(t, err)
			assert.Contains(t, out, c.want)
			assert.NotContains(t, out, "Traceback")
			assert.NoFileExists(t, filepath.Join(dir, "no.pt"))
		})
	}
}
