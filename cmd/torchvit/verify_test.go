package main

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/damage"
	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/vit"
)

func TestVerifyDemandsEqualBits(t *testing.T) {
	for _, name := range []string{"vit_reference.pt", "segmentation.pt", "segmentation_head.pt", "detection.pt"} {
		stdout, _ := ok(t, "verify", generated(t, name))
		assert.Contains(t, stdout, "equal bits demanded", name)
		assert.Contains(t, stdout, "verified", name)
		assert.Contains(t, stdout, "max ULP 0", name)
		assert.NotContains(t, stdout, "DIFFERS", name)
	}
	stdout, _ := ok(t, "verify", generated(t, "detection.pt"), generated(t, "vit_reference.pt"), "--json")
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	require.Len(t, lines, 2)
	var r vit.VerifyReport
	require.NoError(t, json.Unmarshal([]byte(lines[0]), &r))
	assert.True(t, r.OK)
	assert.True(t, r.Exact)
	require.Len(t, r.Calls, 2)
	assert.Equal(t, "out.1.0.boxes", r.Calls[0].Outputs[0].Name)
	assert.Contains(t, r.Calls[0].Inputs[0], "photo")
	assert.Greater(t, r.Calls[0].Outputs[0].NumEl, int64(40))
}

// rewrite changes one record of a model file and writes the archive anew, all checksums right.
func rewrite(t *testing.T, model string, change func(r *damage.Record) bool) string {
	t.Helper()
	data, err := os.ReadFile(model)
	require.NoError(t, err)
	records := damage.Records(t, data)
	changed := 0
	for i := range records {
		if change(&records[i]) {
			changed++
		}
	}
	require.Equal(t, 1, changed)
	path := filepath.Join(t.TempDir(), "changed.pt")
	require.NoError(t, os.WriteFile(path, damage.Zip(t, records, true), 0o644))
	return path
}

func TestVerifyFindsOneChangedWeight(t *testing.T) {
	model := generated(t, "vit_reference.pt")
	unchanged := rewrite(t, model, func(r *damage.Record) bool { return r.Name == "data.pkl" })
	ok(t, "verify", unchanged)

	for _, c := range []struct {
		name  string
		shift func(v float32) float32
	}{
		{"a little", func(v float32) float32 { return math.Float32frombits(math.Float32bits(v) ^ 1<<12) }},
		{"much", func(v float32) float32 { return v + 1 }},
		{"to NaN", func(float32) float32 { return float32(math.NaN()) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := rewrite(t, model, func(r *damage.Record) bool {
				if len(r.Data) != 4*100*192 { // the head's weight
					return false
				}
				old := math.Float32frombits(binary.LittleEndian.Uint32(r.Data))
				require.NotZero(t, old)
				binary.LittleEndian.PutUint32(r.Data, math.Float32bits(c.shift(old)))
				return true
			})
			code, stdout, stderr := cli(t, "verify", path)
			assert.Equal(t, exitError, code)
			assert.Contains(t, stdout, "DIFFERS  out")
			assert.Contains(t, stdout, "FAILED")
			assert.Regexp(t, `^torchvit: [^\n]*does not match its reference: call 0, forward, out: 1 of 100 elements differ[^\n]*\n$`, stderr)
		})
	}
}

func TestVerifyByToleranceElsewhere(t *testing.T) {
	// Two threads, in a process of their own, are not the reference's one.
	cmd, stdout, stderr := program(t, nil, "verify", generated(t, "vit_reference.pt"), "--threads", "2")
	require.NoError(t, cmd.Run(), stderr)
	assert.Contains(t, stdout.String(), "tolerance |got - want| <= 0.0001 + 0.0001 * |want|: threads: reference 1, here 2\n")
	assert.Contains(t, stdout.String(), "verified")

	other := rewrite(t, generated(t, "vit_reference.pt"), func(r *damage.Record) bool {
		if r.Name != "extra/"+vit.MetadataFile {
			return false
		}
		r.Data = []byte(strings.Replace(string(r.Data), `"cpu_capability": "`, `"cpu_capability": "not `, 1))
		return true
	})
	out, _ := ok(t, "verify", other)
	assert.Contains(t, out, "kernels for: reference not ")

	// Beyond the tolerance is beyond it here too.
	far := rewrite(t, other, func(r *damage.Record) bool {
		if len(r.Data) != 4*100*192 {
			return false
		}
		binary.LittleEndian.PutUint32(r.Data, math.Float32bits(7))
		return true
	})
	code, out, _ := cli(t, "verify", far)
	assert.Equal(t, exitError, code)
	assert.Contains(t, out, "DIFFERS")
}

func TestVerifyNeedsAReference(t *testing.T) {
	assert.Contains(t, fails(t, exitError, "verify", tiny(t, "identity.pt")), "no metadata")
	bare := rewrite(t, generated(t, "segmentation_head.pt"), func(r *damage.Record) bool {
		if r.Name != "extra/"+vit.MetadataFile {
			return false
		}
		var m map[string]any
		require.NoError(t, json.Unmarshal(r.Data, &m))
		delete(m, "reference")
		r.Data, _ = json.Marshal(m)
		return true
	})
	assert.Contains(t, fails(t, exitError, "verify", bare), "no reference")
}

// Every method of every kind of model, rewritten, against Python's answers.
func TestVerifyFast(t *testing.T) {
	// Detectors with random weights have scores so alike that last bits change their order.
	models := []string{"vit_reference.pt", "segmentation.pt", "segmentation_unet.pt", "detection_yolo_grid.pt", "vit_registers_small.pt"}
	for i, name := range models {
		models[i] = generated(t, name)
	}
	models = append(models, filepath.Join(testmain.Root(t), "testdata", "models", "garments_faster_rcnn.pt"))
	args := append([]string{"verify", "--precision", "fast", "--json"}, models...)
	cmd, stdout, stderr := program(t, nil, args...)
	require.NoError(t, cmd.Run(), stderr)
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	require.Len(t, lines, len(models))
	for i, line := range lines {
		var r vit.VerifyReport
		require.NoError(t, json.Unmarshal([]byte(line), &r))
		assert.True(t, r.OK, models[i])
		assert.False(t, r.Exact, models[i])
		assert.Contains(t, r.Why, "precision: reference exact, here fast")
		different := int64(0)
		for _, c := range r.Calls {
			for _, o := range c.Outputs {
				different += o.Different
			}
		}
		assert.NotZero(t, different, "%s: other kernels give other last bits", models[i])
	}
	assert.Contains(t, fails(t, exitError, "verify", "--precision", "bfloat16", generated(t, "vit_reference.pt")), "want exact or fast")
	assert.Contains(t, fails(t, exitUsage, "verify", "--precision", "quick", generated(t, "vit_reference.pt")), "want exact, fast or bfloat16")
}
