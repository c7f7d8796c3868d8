package train_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/loader"
	"github.com/torchvit/torchvit/train"
)

func augmentation() loader.Augment {
	a, err := train.ParseAugment("flip,crop=0.6:1,color=0.2")
	if err != nil {
		panic(err)
	}
	return a
}

// start runs a child that trains, and kills it with SIGKILL at the n-th thing that it says; n < 0 lets it end.
// It gives what the child said.
func start(t *testing.T, name, data, out string, n int) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TORCHVIT_TEST_CHILD=train", "TRAIN_MODEL="+model(name), "TRAIN_DATA="+data, "TRAIN_OUT="+out)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var said []string
	lines := bufio.NewScanner(pipe)
	for lines.Scan() {
		said = append(said, lines.Text())
		if len(said) == n {
			require.NoError(t, cmd.Process.Kill())
			break
		}
	}
	err = cmd.Wait()
	if n < 0 {
		require.NoError(t, err)
	} else {
		require.ErrorContains(t, err, "killed")
	}
	return said
}

// TestKilledRunGoesOn kills processes that train, at steps, while a checkpoint may be written, and right after a
// resume, and wants the weights of a run that nobody stopped.
func TestKilledRunGoesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("several processes")
	}
	for name, set := range map[string]*dataset.Set{
		"dropout":     folders(t, 30, 1), // random numbers of torch's generator
		"progressive": masks(t, 30, 1),   // buffers of batch norm
		"faster_rcnn": scenes(t, 30, 1),  // samplers
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Dir(filepath.Dir(set.Images[0].Path))
			if name == "faster_rcnn" {
				dir = filepath.Dir(set.Images[0].Path)
			}
			whole := filepath.Join(t.TempDir(), "whole.pt")
			want := start(t, name, dir, whole, -1)
			require.Contains(t, want, fmt.Sprint(train.EventStep, " 9"), "three epochs of three steps")

			out := filepath.Join(t.TempDir(), "tuned.pt")
			kills := []int{1, 4, 2, 7, 3}
			if name == "faster_rcnn" { // which takes seconds to begin
				kills = []int{4}
			}
			for _, n := range kills {
				said := start(t, name, dir, out, n)
				require.Len(t, said, n)
			}
			said := start(t, name, dir, out, -1)
			assert.NotContains(t, said, fmt.Sprint(train.EventStep, " 1"), "the killed processes' work counts")
			assert.Contains(t, said, fmt.Sprint(train.EventStep, " 9"))

			assert.Empty(t, changed(t, weights(t, whole), weights(t, out)))
			assert.Equal(t, losses(t, whole), losses(t, out))
			for _, pattern := range []string{".*", "*/.*"} {
				left, err := filepath.Glob(filepath.Join(filepath.Dir(out), pattern))
				require.NoError(t, err)
				assert.Empty(t, left, "the killed processes' half files")
			}
		})
	}
}

// losses are the columns of a run's tables that do not tell the time.
func losses(t *testing.T, out string) (cells [][]string) {
	t.Helper()
	for _, name := range []string{train.StepsFile, train.EpochsFile} {
		rows := readCSV(t, filepath.Join(runDir(out), name))
		skip := map[int]bool{}
		for i, column := range rows[0] {
			skip[i] = column == "seconds" || column == "images_per_second"
		}
		for _, row := range rows {
			i := -1
			cells = append(cells, slices.DeleteFunc(row, func(string) bool { i++; return skip[i] }))
		}
	}
	return cells
}
