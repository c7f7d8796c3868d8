package main

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"strconv"
	"strings"
)

// number is a float32 that is written as the shortest text that reads back to
// it, never with an exponent and always with a point, as scripts/parity.py
// writes it.
type number float32

func (n number) String() string {
	f := float64(n)
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	s := strconv.FormatFloat(f, 'f', -1, 32)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// MarshalJSON writes null for what JSON cannot hold.
func (n number) MarshalJSON() ([]byte, error) {
	if f := float64(n); math.IsNaN(f) || math.IsInf(f, 0) {
		return []byte("null"), nil
	}
	return []byte(n.String()), nil
}

// printLine writes one JSON value on one line, without spaces.
func printLine(w io.Writer, v any) error {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(line.Bytes())
	return err
}

// bytesText writes a number of bytes for people: 24.3 MB.
func bytesText(n int64) string {
	switch {
	case n < 1000:
		return strconv.FormatInt(n, 10) + " B"
	case n < 1_000_000:
		return strconv.FormatFloat(float64(n)/1e3, 'f', 1, 64) + " kB"
	case n < 1_000_000_000:
		return strconv.FormatFloat(float64(n)/1e6, 'f', 1, 64) + " MB"
	}
	return strconv.FormatFloat(float64(n)/1e9, 'f', 2, 64) + " GB"
}

// grouped writes an integer with commas: 5,717,416.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// shapeText writes a shape as Go and Python print a list: [1, 3, 224, 224].
func shapeText(shape []int64) string {
	parts := make([]string, len(shape))
	for i, n := range shape {
		parts[i] = strconv.FormatInt(n, 10)
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// jsonLine prints an answer as a line of JSON, as --json does.
type jsonLine struct{ value any }

func (j jsonLine) print(w io.Writer) error { return printLine(w, j.value) }

// MarshalJSON makes it no other under --json.
func (j jsonLine) MarshalJSON() ([]byte, error) { return json.Marshal(j.value) }

// printAnswer prints what a command found in one photo, as text or as a line of JSON.
func (a *app) printAnswer(answer printer) error {
	if a.json {
		return printLine(a.stdout, answer)
	}
	return answer.print(a.stdout)
}
