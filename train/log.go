package train

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// The files of a run's folder beside the checkpoint.
const (
	// StepsFile has a row for each step, EpochsFile one for each epoch; CurvesFile draws both.
	StepsFile  = "steps.csv"
	EpochsFile = "epochs.csv"
	CurvesFile = "curves.png"
)

// table is a CSV file that grows, and is always written whole.
type table struct {
	path    string
	columns []string
	rows    [][]float64
}

// column is the place of a column, which is added where it is new.
func (t *table) column(name string) int {
	if i := slices.Index(t.columns, name); i >= 0 {
		return i
	}
	t.columns = append(t.columns, name)
	return len(t.columns) - 1
}

// cell is a value of a row.
type cell struct {
	name  string
	value float64
}

func (t *table) add(cells ...cell) {
	var row []float64
	for _, c := range cells {
		i := t.column(c.name)
		for len(row) <= i {
			row = append(row, math.NaN())
		}
		row[i] = c.value
	}
	t.rows = append(t.rows, row)
}

// at is the value of a column in a row; NaN where it has none.
func (t *table) at(row []float64, name string) float64 {
	if i := slices.Index(t.columns, name); i >= 0 && i < len(row) {
		return row[i]
	}
	return math.NaN()
}

func (t *table) write() error {
	return writeWhole(t.path, func(w io.Writer) error {
		out := csv.NewWriter(w)
		if err := out.Write(t.columns); err != nil {
			return err
		}
		text := make([]string, len(t.columns))
		for _, row := range t.rows {
			for i := range text {
				text[i] = ""
				if i < len(row) && !math.IsNaN(row[i]) {
					text[i] = strconv.FormatFloat(row[i], 'g', 9, 64)
				}
			}
			if err := out.Write(text); err != nil {
				return err
			}
		}
		out.Flush()
		return out.Error()
	})
}

// readTable reads what write wrote, as far as keep says of the rows; a table without rows where there is no file.
func readTable(path string, keep func(t *table, row []float64) bool) (*table, error) {
	t := &table{path: path}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, fmt.Errorf("run folder: %w", err)
	}
	defer f.Close()
	records, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%w: %s: got no table: %w", ErrRun, path, err)
	}
	if len(records) == 0 {
		return nil, fmt.Errorf("%w: %s: got an empty file, want a table", ErrRun, path)
	}
	t.columns = records[0]
	for _, r := range records[1:] {
		row := make([]float64, len(r))
		for i, text := range r {
			row[i] = math.NaN()
			if text == "" {
				continue
			}
			if row[i], err = strconv.ParseFloat(text, 64); err != nil {
				return nil, fmt.Errorf("%w: %s: got %q, want a number", ErrRun, path, text)
			}
		}
		if keep(t, row) {
			t.rows = append(t.rows, row)
		}
	}
	return t, nil
}

// records are the tables of a run.
type records struct {
	dir           string
	steps, epochs *table
}

// openRecords reads the tables of a run as far as its checkpoint is; a new run begins new ones.
func openRecords(dir string, step, epoch int) (*records, error) {
	r := &records{dir: dir, steps: &table{path: filepath.Join(dir, StepsFile)}, epochs: &table{path: filepath.Join(dir, EpochsFile)}}
	if step == 0 && epoch == 0 {
		return r, nil
	}
	var err error
	r.steps, err = readTable(r.steps.path, func(t *table, row []float64) bool { return t.at(row, "step") <= float64(step) })
	if err == nil {
		r.epochs, err = readTable(r.epochs.path, func(t *table, row []float64) bool { return t.at(row, "epoch") <= float64(epoch) })
	}
	return r, err
}

func (r *records) step(e Event) {
	cells := []cell{{"step", float64(e.Step)}, {"epoch", float64(e.Epoch)}, {"lr", e.LR}, {"loss", e.Loss}}
	for _, p := range e.Parts {
		cells = append(cells, cell{p.Name, p.Value})
	}
	if !math.IsNaN(e.GradNorm) {
		cells = append(cells, cell{"grad_norm", e.GradNorm})
	}
	r.steps.add(append(cells, cell{"images_per_second", e.Rate})...)
}

func (r *records) epoch(e Event, seconds float64) {
	cells := []cell{{"epoch", float64(e.Epoch)}, {"step", float64(e.Step)}, {"loss", e.Loss}}
	for _, m := range e.Metrics {
		cells = append(cells, cell{m.Name, m.Value})
	}
	r.epochs.add(append(cells, cell{"learned", float64(e.Learned)}, cell{"seconds", math.Round(seconds*1000) / 1000})...)
}

// write writes the tables.
func (r *records) write() error {
	for _, t := range []*table{r.steps, r.epochs} {
		if len(t.rows) == 0 {
			continue
		}
		if err := t.write(); err != nil {
			return err
		}
	}
	return nil
}
