package coco

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// String is the counts in COCO's compressed form, "counts" of its JSON (pycocotools.mask.encode). Counts
// from the fourth on are differences to the count two before; each is written five bits at a time, the
// lowest first, as a character from '0' (48) on, which has 32 added where more follow.
func (r RLE) String() string { return string(r.AppendCounts(nil)) }

// AppendCounts appends what [RLE.String] gives to dst.
func (r RLE) AppendCounts(dst []byte) []byte {
	for i, c := range r.Counts {
		v := int64(c)
		if i > 2 {
			v -= int64(r.Counts[i-2])
		}
		for {
			digit := byte(v & 31)
			v >>= 5
			// The fifth bit is the sign of the last digit.
			if v == 0 && digit&16 == 0 || v == -1 && digit&16 != 0 {
				dst = append(dst, digit+48)
				break
			}
			dst = append(dst, digit+48+32)
		}
	}
	return dst
}

// ParseRLE reads counts in the compressed form of [RLE.String]. The error is [ErrRLE] for other characters,
// a text that ends too early, and counts that do not fill a mask of that size.
func ParseRLE[T string | []byte](counts T, height, width int) (RLE, error) {
	n, err := pixels(height, width)
	if err != nil {
		return RLE{}, err
	}
	// Every count but the last of an odd text needs a character, and none but the first is needed to be 0.
	out := RLE{Height: height, Width: width, Counts: make([]uint32, 0, len(counts)/2+1)}
	v, shift, sum := int64(0), 0, uint64(0)
	for i := range len(counts) {
		digit := counts[i] - 48
		if digit > 63 {
			return RLE{}, fmt.Errorf("%w: got byte %d at %d of the counts, want 48 to 111", ErrRLE, counts[i], i)
		}
		if shift > 30 { // seven digits hold all differences of two uint32
			return RLE{}, fmt.Errorf("%w: got a count of more than 7 characters at %d", ErrRLE, i)
		}
		v |= int64(digit&31) << shift
		shift += 5
		if digit&32 != 0 {
			continue
		}
		if digit&16 != 0 {
			v |= -1 << shift
		}
		if k := len(out.Counts); k > 2 {
			v += int64(out.Counts[k-2])
		}
		if v < 0 || v > math.MaxUint32 {
			return RLE{}, fmt.Errorf("%w: got count %d that is %d, want 0 to %d", ErrRLE, len(out.Counts), v, n)
		}
		if sum += uint64(v); sum > uint64(n) {
			return RLE{}, fmt.Errorf("%w: got counts that sum up to %d and more, want %d for size [%d %d]",
				ErrRLE, sum, n, height, width)
		}
		out.Counts = append(out.Counts, uint32(v))
		v, shift = 0, 0
	}
	if shift != 0 {
		return RLE{}, fmt.Errorf("%w: got counts that end within a number", ErrRLE)
	}
	return out, out.Validate()
}

// AppendJSON appends {"size":[height,width],"counts":"..."} to dst.
func (r RLE) AppendJSON(dst []byte) []byte {
	dst = append(r.appendSize(dst), '"')
	start := len(dst)
	dst = r.AppendCounts(dst)
	// The backslash is the only one of the characters that JSON escapes.
	if n := bytes.Count(dst[start:], []byte{'\\'}); n > 0 {
		dst = append(dst[:start], bytes.ReplaceAll(dst[start:], []byte{'\\'}, []byte(`\\`))...)
	}
	return append(dst, `"}`...)
}

func (r RLE) appendSize(dst []byte) []byte {
	dst = append(dst, `{"size":[`...)
	dst = strconv.AppendInt(dst, int64(r.Height), 10)
	dst = append(dst, ',')
	dst = strconv.AppendInt(dst, int64(r.Width), 10)
	return append(dst, `],"counts":`...)
}

// MarshalJSON gives {"size":[height,width],"counts":"..."}, the compressed form that COCO's results have.
// [Uncompressed] gives the other one.
func (r RLE) MarshalJSON() ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return r.AppendJSON(nil), nil
}

// UnmarshalJSON reads both forms of COCO's JSON: counts that are a string, and counts that are a list of
// numbers (crowds of its ground truth). The error is [ErrRLE] where they do not fill the mask.
func (r *RLE) UnmarshalJSON(text []byte) error {
	var fields struct {
		Size   []int           `json:"size"`
		Counts json.RawMessage `json:"counts"`
	}
	if err := json.Unmarshal(text, &fields); err != nil {
		return fmt.Errorf("%w: %w", ErrRLE, err)
	}
	if len(fields.Size) != 2 {
		return fmt.Errorf("%w: got size %v, want [height, width]", ErrRLE, fields.Size)
	}
	height, width := fields.Size[0], fields.Size[1]
	switch {
	case len(fields.Counts) > 0 && fields.Counts[0] == '"':
		var counts string
		if err := json.Unmarshal(fields.Counts, &counts); err != nil {
			return fmt.Errorf("%w: %w", ErrRLE, err)
		}
		out, err := ParseRLE(counts, height, width)
		if err != nil {
			return err
		}
		*r = out
	case len(fields.Counts) > 0 && fields.Counts[0] == '[':
		out := RLE{Height: height, Width: width}
		if err := json.Unmarshal(fields.Counts, &out.Counts); err != nil {
			return fmt.Errorf("%w: counts: %w", ErrRLE, err)
		}
		if err := out.Validate(); err != nil {
			return err
		}
		*r = out
	default:
		return fmt.Errorf("%w: got no counts, want a string or a list of numbers", ErrRLE)
	}
	return nil
}

// Uncompressed is a mask that is written as {"size":[height,width],"counts":[...]}, as crowds are in
// COCO's ground truth.
type Uncompressed RLE

// MarshalJSON gives the form with a list of counts.
func (u Uncompressed) MarshalJSON() ([]byte, error) {
	r := RLE(u)
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return u.appendJSON(nil), nil
}

func (u Uncompressed) appendJSON(dst []byte) []byte {
	dst = append(RLE(u).appendSize(dst), '[')
	for i, c := range u.Counts {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendUint(dst, uint64(c), 10)
	}
	return append(dst, "]}"...)
}

// UnmarshalJSON reads both forms, as that of [RLE] does.
func (u *Uncompressed) UnmarshalJSON(text []byte) error { return (*RLE)(u).UnmarshalJSON(text) }

// RowRuns gives the mask as transformers' post-processing does with return_coco_annotation
// (binary_mask_to_rle), which is not COCO's form: the number of the first pixel of each run that is set,
// counted from 1 along the rows, and the run's length, in turn.
func (r RLE) RowRuns() ([]int, error) {
	mask, err := r.Decode()
	if err != nil {
		return nil, err
	}
	var out []int
	for i := 0; i < len(mask); i++ {
		if mask[i] == 0 {
			continue
		}
		start := i
		for i < len(mask) && mask[i] != 0 {
			i++
		}
		out = append(out, start+1, i-start)
	}
	return out, nil
}

// FromRowRuns reads what [RLE.RowRuns] gives. The error is [ErrRLE] for an odd number of values and for
// runs that do not rise, that overlap or that leave the mask.
func FromRowRuns(values []int, height, width int) (RLE, error) {
	n, err := pixels(height, width)
	if err != nil {
		return RLE{}, err
	}
	if len(values)%2 != 0 {
		return RLE{}, fmt.Errorf("%w: got %d values, want a start and a length for each run", ErrRLE, len(values))
	}
	mask := make([]bool, n)
	end := 1
	for i := 0; i < len(values); i += 2 {
		start, length := values[i], values[i+1]
		if start < end || length < 0 || length > int(n)-(start-1) {
			return RLE{}, fmt.Errorf("%w: got a run of %d pixels from %d on, want one within %d to %d", ErrRLE, length, start, end, n)
		}
		end = start + length
		for k := start - 1; k < end-1; k++ {
			mask[k] = true
		}
	}
	return Encode(mask, height, width)
}
