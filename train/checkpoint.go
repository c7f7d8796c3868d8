package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/torchvit/torchvit/internal/whole"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/npy"
)

// CheckpointFile is the name of the checkpoint in a run's folder: a .npz file with the parameters and buffers, the
// optimizer's state, that of the generator of random numbers, and as JSON in the bytes of "state" how far the run
// is.
const CheckpointFile = "last.npz"

// checkpointFormat is that of the state.
const checkpointFormat = 1

// state is how far a run is.
type state struct {
	Format int `json:"format"`
	// Options are those that the weights depend on.
	Options map[string]any `json:"options"`
	// Epoch is the one under way, from 0, of which Batch steps of the loader are done; Step is that of the
	// optimizer.
	Epoch int `json:"epoch"`
	Batch int `json:"batch"`
	Step  int `json:"step"`
	// LossSum is the sum of the losses of the epoch's Images so far.
	LossSum float64 `json:"loss_sum"`
	Images  int     `json:"images"`
	// EpochLoss is the mean loss of the last whole epoch, which was measured where Measured.
	EpochLoss float64 `json:"epoch_loss"`
	Measured  bool    `json:"measured"`
	// Start and Best are metrics, BestEpoch from 1 that of the file; Worse counts the measurements since then.
	Start     []Metric `json:"start,omitempty"`
	Best      []Metric `json:"best,omitempty"`
	BestEpoch int      `json:"best_epoch"`
	Worse     int      `json:"worse"`
	Stopped   bool     `json:"stopped"`
	Seconds   float64  `json:"seconds"`
}

// write writes a checkpoint, whole or not at all, and waits for the disk.
func (s *state) write(path string, tensors map[string]*torch.Tensor) error {
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	z := &npy.Zip{}
	z.Add("state", &npy.Array{DType: "u1", Shape: []int64{int64(len(text))}, Data: text})
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		a, err := tensors[name].Numpy()
		if err != nil {
			return fmt.Errorf("checkpoint: %s: %w", name, err)
		}
		z.Add(name, a)
	}
	f, err := whole.Create(path)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	defer f.Abort()
	if err := npy.WriteZip(f.Writer, z); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if err := f.Commit(); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// readState reads a checkpoint; fs.ErrNotExist where there is none.
func readState(path string) (*state, *npy.Zip, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, nil, err
	}
	z, err := npy.ReadZipFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %s is no checkpoint: %w", ErrRun, path, err)
	}
	a := z.Get("state")
	if a == nil || a.DType != "u1" {
		return nil, nil, fmt.Errorf("%w: %s is no checkpoint: it has no state", ErrRun, path)
	}
	s := &state{}
	if err := json.Unmarshal(a.Data, s); err != nil {
		return nil, nil, fmt.Errorf("%w: %s: state: %w", ErrRun, path, err)
	}
	if s.Format != checkpointFormat {
		return nil, nil, fmt.Errorf("%w: %s: got the format %d, want %d", ErrRun, path, s.Format, checkpointFormat)
	}
	return s, z, nil
}

// part gives the tensors of a checkpoint whose names begin with prefix, which is left out. The caller closes them.
func part(z *npy.Zip, prefix string) (map[string]*torch.Tensor, error) {
	out := map[string]*torch.Tensor{}
	for _, name := range z.Names() {
		short, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		t, err := torch.FromNumpy(z.Get(name))
		if err != nil {
			closeMap(out)
			return nil, fmt.Errorf("checkpoint: %s: %w", name, err)
		}
		out[short] = t
	}
	return out, nil
}

func closeMap(tensors map[string]*torch.Tensor) {
	for _, t := range tensors {
		t.Close()
	}
}

// same gives ErrRun for the first option in which a run differs from its checkpoint.
func (s *state) same(now map[string]any) error {
	text, err := json.Marshal(now)
	if err != nil {
		return err
	}
	var want map[string]any
	if err := json.Unmarshal(text, &want); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		a, errA := json.Marshal(s.Options[name])
		b, errB := json.Marshal(want[name])
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
		if string(a) != string(b) {
			return fmt.Errorf("resume: %w: got %s %s, and the run that is there has %s; want the same options, or another folder for the run", ErrRun, name, b, a)
		}
	}
	return nil
}

// openRunDir makes the folder of a run, for this process alone until close, and finds its checkpoint, nil for none.
// What cannot be written is found out here and not after the first epoch. Where it fails it leaves no new folder.
func (o *Options) openRunDir() (s *state, z *npy.Zip, unlock func(), err error) {
	if err := whole.Writable(o.Out); err != nil {
		return nil, nil, nil, fmt.Errorf("out: %w", err)
	}
	_, missing := os.Stat(o.RunDir)
	if err := os.MkdirAll(o.RunDir, 0o777); err != nil {
		return nil, nil, nil, fmt.Errorf("run folder: %w", err)
	}
	if unlock, err = lock(o.RunDir); err != nil {
		return nil, nil, nil, err
	}
	s, z, err = readState(filepath.Join(o.RunDir, CheckpointFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case !o.Resume && (err == nil || errors.Is(err, ErrRun)):
		err = fmt.Errorf("%w: %s holds a run already; go on with it (--resume), or name another folder (--run-dir)", ErrRun, o.RunDir)
	}
	for _, path := range []string{filepath.Join(o.RunDir, CheckpointFile), filepath.Join(o.RunDir, StepsFile), filepath.Join(o.RunDir, EpochsFile), filepath.Join(o.RunDir, CurvesFile), o.Out} {
		if err == nil {
			if err = errors.Join(whole.Writable(path), whole.Sweep(path)); err != nil {
				err = fmt.Errorf("run folder: %w", err)
			}
		}
	}
	free := unlock
	unlock = func() {
		free()
		if missing != nil {
			_ = os.Remove(o.RunDir) // does nothing where something was written
		}
	}
	if err != nil {
		unlock()
		return nil, nil, nil, err
	}
	return s, z, unlock, nil
}

// writeWhole writes a small file whole or not at all.
func writeWhole(path string, write func(io.Writer) error) error {
	if err := whole.Write(path, write); err != nil {
		return fmt.Errorf("run folder: %w", err)
	}
	return nil
}
