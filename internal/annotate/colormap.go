package annotate

import (
	"errors"
	"fmt"
	"image/color"
	"slices"
	"strings"
)

// ErrColorMap says that no colour map has the name that was asked for.
var ErrColorMap = errors.New("no such colour map")

// ColorMap is a colour map of 256 entries, from the lowest value to the highest.
type ColorMap [256][3]uint8

var colorMaps = map[string]*ColorMap{"viridis": &viridis, "inferno": &inferno}

// LookupColorMap finds a colour map by matplotlib's name, "viridis" or "inferno".
// The empty name means viridis, matplotlib's default.
func LookupColorMap(name string) (*ColorMap, error) {
	if name == "" {
		return &viridis, nil
	}
	if m, ok := colorMaps[name]; ok {
		return m, nil
	}
	known := make([]string, 0, len(colorMaps))
	for k := range colorMaps {
		known = append(known, k)
	}
	slices.Sort(known)
	return nil, fmt.Errorf("%w: got %q, want one of %s", ErrColorMap, name, strings.Join(known, ", "))
}

// At gives the colour of v on a scale that runs from low to high; see [Step].
func (m *ColorMap) At(v, low, high float32) color.RGBA {
	c := m[Step(v, low, high)]
	return color.RGBA{R: c[0], G: c[1], B: c[2], A: 255}
}

// Step gives the place in a colour map of v on a scale that runs from low to high, by
// matplotlib's arithmetic (Normalize, then Colormap). Values outside the scale, and
// NaN, get the nearer end (NaN the lowest). Where high equals low the answer is the
// lowest place.
func Step(v, low, high float32) uint8 {
	if high == low {
		return 0
	}
	// matplotlib keeps the limits as Python floats, so that the division is
	// made in double precision and rounded once.
	t := float32(float64(v-low)/(float64(high)-float64(low))) * 256
	switch {
	case t >= 256:
		return 255
	case t > 0:
		return uint8(t)
	}
	return 0
}
