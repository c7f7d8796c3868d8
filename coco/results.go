package coco

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"

	"github.com/torchvit/torchvit/internal/whole"
)

// Result is one detection, an entry of COCO's results JSON: {"image_id", "category_id", "score", "bbox":
// [x, y, width, height]} or with "segmentation": {"size": [height, width], "counts": "..."}.
type Result struct {
	ImageID, CategoryID int64
	// Score orders the detections of a category. It must be finite.
	Score float64
	// Box is nil where the result is a mask alone, and Mask where it is a box alone. One must be there.
	// Where the first result of a list has a box all must have one, and where it has none all must have a
	// mask, as pycocotools demands.
	Box  *Box
	Mask *RLE
}

func (r *Result) validate() error {
	switch {
	case math.IsNaN(r.Score) || math.IsInf(r.Score, 0):
		return fmt.Errorf("got score %v, want a finite number", r.Score)
	case r.Box == nil && r.Mask == nil:
		return errors.New("got neither bbox nor segmentation")
	case r.Box != nil && !r.Box.finite():
		return fmt.Errorf("got bbox %v, want finite numbers", *r.Box)
	case r.Mask != nil:
		return r.Mask.Validate()
	}
	return nil
}

// like says whether r may stand in a list after first.
func (r *Result) like(first *Result) error {
	switch {
	case first.Box != nil && r.Box == nil:
		return errors.New("got no bbox, want one as the first result has")
	case first.Box == nil && r.Mask == nil:
		return errors.New("got no segmentation, want one as the first result has")
	}
	return nil
}

// ReadResultsFile reads a file as [ReadResults] does.
func ReadResultsFile(path string) ([]Result, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	results, err := ReadResults(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return results, nil
}

// ReadResults reads COCO's results JSON. The errors are those of [Results].
func ReadResults(r io.Reader) ([]Result, error) {
	var out []Result
	for result, err := range Results(r) {
		if err != nil {
			return nil, err
		}
		out = append(out, result)
	}
	return out, nil
}

// Results reads COCO's results JSON entry by entry: boxes, and masks in both forms of run lengths. An empty
// bbox is none. The first error ends it: [ErrData], which names the entry, for JSON that is broken, fields
// that are missing or not numbers and entries that lack what the first one has, with [ErrRLE] for masks
// that are not valid.
func Results(r io.Reader) iter.Seq2[Result, error] {
	return func(yield func(Result, error) bool) {
		dec := json.NewDecoder(bufio.NewReaderSize(r, 1<<16))
		var first *Result
		stopped := false
		err := list(dec, "results", func(f *resultFields) error {
			result, err := f.result()
			if err != nil {
				return err
			}
			if first == nil {
				copied := result
				first = &copied
			}
			if err := result.like(first); err != nil {
				return err
			}
			if !yield(result, nil) {
				stopped = true
				return io.ErrShortWrite // ends the list; nobody sees it
			}
			return nil
		})
		if stopped {
			return
		}
		if err == nil {
			err = end(dec)
		}
		if err != nil {
			yield(Result{}, err)
		}
	}
}

type resultFields struct {
	ImageID    *int64          `json:"image_id"`
	CategoryID *int64          `json:"category_id"`
	Score      *float64        `json:"score"`
	Box        json.RawMessage `json:"bbox"`
	Mask       *RLE            `json:"segmentation"`
}

func (f *resultFields) result() (r Result, err error) {
	switch {
	case f.ImageID == nil:
		return r, missing("image_id")
	case f.CategoryID == nil:
		return r, missing("category_id")
	case f.Score == nil:
		return r, missing("score")
	}
	r = Result{ImageID: *f.ImageID, CategoryID: *f.CategoryID, Score: *f.Score, Mask: f.Mask}
	var values []float64
	if f.Box != nil {
		if err := json.Unmarshal(f.Box, &values); err != nil {
			return r, fmt.Errorf("bbox: %w", err)
		}
	}
	if len(values) != 0 && len(values) != 4 {
		return r, fmt.Errorf("bbox: got %d values, want x, y, width and height", len(values))
	}
	if len(values) == 4 {
		r.Box = (*Box)(values)
	}
	return r, r.validate()
}

// AppendJSON appends the result as an object of COCO's results JSON to dst. The error is [ErrData] for one
// that is not valid, with [ErrRLE] for its mask; dst is then given back as it was.
func (r Result) AppendJSON(dst []byte) ([]byte, error) {
	if err := r.validate(); err != nil {
		return dst, fmt.Errorf("%w: %w", ErrData, err)
	}
	dst = appendInt(dst, `{"image_id":`, r.ImageID)
	dst = appendInt(dst, `,"category_id":`, r.CategoryID)
	if r.Box != nil {
		dst = appendFloats(append(dst, `,"bbox":`...), r.Box[:])
	}
	if r.Mask != nil {
		dst = r.Mask.AppendJSON(append(dst, `,"segmentation":`...))
	}
	return append(appendFloat(append(dst, `,"score":`...), r.Score), '}'), nil
}

// MarshalJSON gives what [Result.AppendJSON] appends.
func (r Result) MarshalJSON() ([]byte, error) { return r.AppendJSON(nil) }

// ResultFile is a file of results under way: [CreateResults], [ResultFile.Write] for each, and
// [ResultFile.Close], which puts the file in its place. It is not for several goroutines at once.
type ResultFile struct {
	path  string
	file  *whole.File
	n     int
	first *Result
	line  []byte
	err   error
}

// CreateResults starts a file of results. What stands at path stays until Close: the file is written whole
// or not at all. Call [ResultFile.Abort] (deferred, say) so that nothing is left where Close is not reached.
func CreateResults(path string) (*ResultFile, error) {
	f, err := whole.Create(path)
	if err != nil {
		return nil, err
	}
	return &ResultFile{path: path, file: f}, nil
}

// Write adds one result. The error is [ErrData] for one that is not valid, which names it and leaves it
// out, or the file's, after which nothing more is written.
func (f *ResultFile) Write(r Result) error {
	if f.err != nil {
		return f.err
	}
	if f.file.Done() {
		return fmt.Errorf("write %s: %w", f.path, os.ErrClosed)
	}
	separator := ",\n"
	if f.first == nil {
		f.first = &r
		separator = "["
	}
	line, err := r.AppendJSON(append(f.line[:0], separator...))
	if unlike := r.like(f.first); err == nil && unlike != nil {
		err = fmt.Errorf("%w: %w", ErrData, unlike)
	}
	if err != nil {
		if f.n == 0 {
			f.first = nil
		}
		return fmt.Errorf("write %s: result %d: %w", f.path, f.n, err)
	}
	f.line = line
	f.n++
	_, f.err = f.file.Write(line)
	return f.err
}

// Close ends the file and puts it at its path. After an error of the file, in Write or here, nothing has
// changed there.
func (f *ResultFile) Close() error {
	if f.err != nil {
		f.Abort()
		return f.err
	}
	end := "]\n"
	if f.n == 0 {
		end = "[]\n"
	}
	if _, err := f.file.WriteString(end); err != nil {
		f.Abort()
		return err
	}
	return f.file.Commit()
}

// Abort drops the file; what stood at its path still does. After Close it does nothing.
func (f *ResultFile) Abort() { f.file.Abort() }

// WriteResultsFile writes a file of results, whole or not at all. The errors are those of
// [ResultFile.Write] and [ResultFile.Close].
func WriteResultsFile(path string, results []Result) error {
	f, err := CreateResults(path)
	if err != nil {
		return err
	}
	defer f.Abort()
	for _, r := range results {
		if err := f.Write(r); err != nil {
			return err
		}
	}
	return f.Close()
}
