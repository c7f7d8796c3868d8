package main

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestColdStart classifies one photo with a ViT-Ti from a cold process: at most 300 MB. The seconds are told
// and not judged, because they depend on what else the machine does.
func TestColdStart(t *testing.T) {
	if testing.Short() {
		t.Skip("measures; the race detector, which runs the short tests, makes it slower")
	}
	used, clock, rss := math.Inf(1), math.Inf(1), math.Inf(1)
	for range 3 {
		peak := filepath.Join(t.TempDir(), "peak")
		cmd, _, stderr := program(t, []string{peakFile + "=" + peak}, "classify", generated(t, "vit_tiny_patch16_224.pt"), photoFile(t, "coffee.jpg"), "--device", "cpu", "--threads", "1")
		start := time.Now()
		require.NoError(t, cmd.Run(), stderr)
		state := cmd.ProcessState
		clock = min(clock, time.Since(start).Seconds())
		used = min(used, (state.UserTime() + state.SystemTime()).Seconds())
		text, err := os.ReadFile(peak)
		require.NoError(t, err)
		bytes, err := strconv.ParseFloat(string(text), 64)
		require.NoError(t, err)
		rss = min(rss, bytes/1e6)
	}
	t.Logf("%.2f s of processor time, %.2f s on the clock, %.0f MB", used, clock, rss)
	assert.Greater(t, rss, 50.0, "MB")
	assert.Less(t, rss, 300.0, "MB")
}
