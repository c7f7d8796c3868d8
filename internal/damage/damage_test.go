package damage_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/damage"
	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
)

func TestMain(m *testing.M) { testmain.Run(m, torch.Config{Device: "cpu"}) }

// TestLibtorchMeetsDamage gives damaged files to jit.Load. Those that another tool wrote again with valid
// checksums and a valid serialization id, which the check cannot tell from a file of torch's own, go through
// to libtorch's reader as far as their contents make sense: it may load or refuse them, and the process
// lives on.
func TestLibtorchMeetsDamage(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(testmain.Root(t), "testdata", "modules", "*.pt"))
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	x := must(torch.FromSlice([]float32{1, -2, 3, 0.5}, 2, 2))
	defer x.Close()
	var raw, rezipped, checked, refused, loaded, answered int
	for i, path := range paths {
		good, err := os.ReadFile(path)
		require.NoError(t, err)
		for c := range damage.Bytes(uint64(i), good, 24) {
			raw++
			m, err := jit.LoadBytes(c.Data, jit.LoadOptions{})
			if err == nil {
				require.NoError(t, m.Close(), "%s, %s: only a change that means nothing may pass", path, c.Name)
				assert.Equal(t, damage.Records(t, good), damage.Records(t, c.Data), "%s, %s", path, c.Name)
			}
		}
		for c := range damage.Rezipped(t, uint64(i), good, 40, true) {
			rezipped++
			if _, err := jit.CheckBytes(c.Data); err != nil {
				checked++
				continue
			}
			m, err := jit.LoadBytes(c.Data, jit.LoadOptions{Unchecked: true})
			if err != nil {
				refused++
				continue
			}
			loaded++
			// Changed code may run for ever; changed values do not.
			if strings.HasSuffix(c.Name, ".pkl") && !strings.HasSuffix(path, "slow.pt") && m.HasMethod("forward") {
				if y, err := m.Forward(t.Context(), x); err == nil {
					answered++
					torch.CloseAll(y)
				}
			}
			require.NoError(t, m.Close())
		}
	}
	t.Logf("%d damaged files; %d with valid checksums, of which %d did not pass the check, %d not libtorch, %d were loaded and %d answered",
		raw, rezipped, checked, refused, loaded, answered)
	assert.GreaterOrEqual(t, raw, 300)
	assert.GreaterOrEqual(t, rezipped, 200)
	assert.Greater(t, checked, rezipped/2)
	assert.Positive(t, refused)
	assert.Positive(t, loaded, "a test in which nothing reaches libtorch proves nothing")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
