package coco

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// randomMask has ellipses and boxes, holes in them, and noise where density is not 0.
func randomMask(r *rand.Rand, height, width int, density float64) []uint8 {
	mask := make([]uint8, height*width)
	for range 1 + r.IntN(4) {
		value := uint8(r.IntN(3)) * 127
		cx, cy := r.Float64()*float64(width), r.Float64()*float64(height)
		rx, ry := r.Float64()*float64(width)*0.7+1, r.Float64()*float64(height)*0.7+1
		round := r.IntN(2) == 0
		for y := range height {
			for x := range width {
				dx, dy := (float64(x)-cx)/rx, (float64(y)-cy)/ry
				if round && dx*dx+dy*dy < 1 || !round && math.Abs(dx) < 1 && math.Abs(dy) < 1 {
					mask[y*width+x] = value
				}
			}
		}
	}
	for i := range mask {
		if r.Float64() < density {
			mask[i] = uint8(r.IntN(2))
		}
	}
	return mask
}

// naive is the definition of run lengths, pixel by pixel.
func naive(mask []uint8, height, width int) []uint32 {
	var counts []uint32
	value, n := false, uint32(0)
	for x := range width {
		for y := range height {
			if set := mask[y*width+x] != 0; set != value {
				counts = append(counts, n)
				value, n = set, 0
			}
			n++
		}
	}
	return append(counts, n)
}

var sizes = [][2]int{
	{1, 1},
	{1, 7},
	{9, 1},
	{4, 5},
	{63, 64},
	{64, 63},
	{64, 64},
	{65, 65},
	{1, 200},
	{200, 1},
	{128, 192},
	{127, 129},
	{33, 300},
	{300, 33},
	{480, 640},
}

type encodeCase struct {
	Height int    `json:"height"`
	Width  int    `json:"width"`
	Pixels []byte `json:"pixels"`
}

type mergeCase struct {
	Height int      `json:"height"`
	Width  int      `json:"width"`
	Counts []string `json:"counts"`
	Crowd  []int    `json:"crowd"`
}

type polygonCase struct {
	Height   int         `json:"height"`
	Width    int         `json:"width"`
	Polygons [][]float64 `json:"polygons"`
}

type boxCase struct {
	Height int `json:"height"`
	Width  int `json:"width"`
	Box    Box `json:"box"`
}

type boxesCase struct {
	DT    []Box `json:"dt"`
	GT    []Box `json:"gt"`
	Crowd []int `json:"crowd"`
}

func flags(crowd []int) (out []bool) {
	for _, c := range crowd {
		out = append(out, c != 0)
	}
	return out
}

// randomPolygon has points on a coarse grid, on a fine one, and anywhere, some of them far outside.
func randomPolygon(r *rand.Rand, height, width int) []float64 {
	points := make([]float64, 2*(3+r.IntN(12)))
	kind := r.IntN(4)
	for i := range points {
		side := float64(width)
		if i%2 == 1 {
			side = float64(height)
		}
		v := r.Float64() * side
		switch kind {
		case 0:
			v = math.Round(v)
		case 1:
			v = math.Round(v*10) / 10
		case 2:
			v = (r.Float64()*3 - 1) * side
		}
		points[i] = v
		if i >= 2 && r.IntN(8) == 0 {
			points[i] = points[i-2] // straight lines and points that come twice
		}
	}
	return points
}

func TestMasksAreLikePycocotools(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var cases struct {
		Encode   []encodeCase  `json:"encode"`
		Merge    []mergeCase   `json:"merge"`
		Polygons []polygonCase `json:"polygons"`
		Box      []boxCase     `json:"box"`
		Boxes    []boxesCase   `json:"boxes"`
	}
	for _, size := range sizes {
		for _, density := range []float64{0, 0.02, 1} {
			height, width := size[0], size[1]
			cases.Encode = append(cases.Encode, encodeCase{height, width, randomMask(r, height, width, density)})
			c := mergeCase{Height: height, Width: width}
			for range 4 {
				m, err := Encode(randomMask(r, height, width, density*r.Float64()), height, width)
				require.NoError(t, err)
				c.Counts = append(c.Counts, m.String())
				c.Crowd = append(c.Crowd, r.IntN(2))
			}
			cases.Merge = append(cases.Merge, c)
		}
	}
	for i := range 3000 {
		height, width := 1+r.IntN(90), 1+r.IntN(120)
		if i%100 == 0 {
			height, width = 480, 640
		}
		c := polygonCase{Height: height, Width: width}
		for range 1 + r.IntN(3) {
			c.Polygons = append(c.Polygons, randomPolygon(r, height, width))
		}
		cases.Polygons = append(cases.Polygons, c)
		box := Box{r.Float64()*130 - 10, r.Float64()*100 - 10, r.Float64() * 60, r.Float64() * 60}
		if i%3 == 0 {
			for k, v := range box {
				box[k] = math.Round(v)
			}
		}
		cases.Box = append(cases.Box, boxCase{height, width, box})
	}
	for range 30 {
		var c boxesCase
		box := func() Box {
			return Box{r.Float64() * 50, r.Float64() * 50, r.Float64() * 60, math.Round(r.Float64() * 60)}
		}
		for range 2 + r.IntN(6) {
			c.DT = append(c.DT, box())
		}
		for range 2 + r.IntN(6) {
			c.GT = append(c.GT, box())
			c.Crowd = append(c.Crowd, r.IntN(2))
		}
		cases.Boxes = append(cases.Boxes, c)
	}

	var answers struct {
		Encode []struct {
			Counts string
			Area   int
			Box    Box
		}
		Merge []struct {
			Union, Intersection string
			IoU                 [][]float64
		}
		Polygons []struct {
			Counts string
			Area   int
		}
		Box   []struct{ Counts string }
		Boxes [][][]float64
	}
	runPython(t, "masks.py", cases, &answers)
	require.Len(t, answers.Encode, len(cases.Encode))
	require.Len(t, answers.Polygons, len(cases.Polygons))

	for i, c := range cases.Encode {
		want := answers.Encode[i]
		m, err := Encode(c.Pixels, c.Height, c.Width)
		require.NoError(t, err)
		require.Equal(t, want.Counts, m.String(), "[%d %d]", c.Height, c.Width)
		require.Equal(t, want.Area, m.Area())
		require.Equal(t, want.Box, m.Box())
	}
	flat := func(rows [][]float64) (out []float64) {
		for _, row := range rows {
			out = append(out, row...)
		}
		return out
	}
	different := map[float64]bool{}
	for i, c := range cases.Merge {
		var ms []RLE
		for _, text := range c.Counts {
			m, err := ParseRLE(text, c.Height, c.Width)
			require.NoError(t, err)
			ms = append(ms, m)
		}
		union, err := Union(ms...)
		require.NoError(t, err)
		require.Equal(t, answers.Merge[i].Union, union.String())
		intersection, err := Intersection(ms...)
		require.NoError(t, err)
		require.Equal(t, answers.Merge[i].Intersection, intersection.String())
		overlaps, err := IoU(ms, ms, flags(c.Crowd))
		require.NoError(t, err)
		require.Equal(t, flat(answers.Merge[i].IoU), overlaps)
		for _, v := range overlaps {
			different[v] = true
		}
	}
	assert.Greater(t, len(different), 100)

	areas := map[int]bool{}
	for i, c := range cases.Polygons {
		m, err := FromPolygons(c.Polygons, c.Height, c.Width)
		require.NoError(t, err)
		require.Equal(t, answers.Polygons[i].Counts, m.String(), "case %d: [%d %d] %v", i, c.Height, c.Width, c.Polygons)
		require.Equal(t, answers.Polygons[i].Area, m.Area())
		areas[m.Area()] = true
	}
	assert.Greater(t, len(areas), 500)
	for i, c := range cases.Box {
		m, err := FromBox(c.Box, c.Height, c.Width)
		require.NoError(t, err)
		require.Equal(t, answers.Box[i].Counts, m.String(), "%v", c)
	}
	for i, c := range cases.Boxes {
		overlaps, err := BoxIoU(c.DT, c.GT, flags(c.Crowd))
		require.NoError(t, err)
		require.Equal(t, flat(answers.Boxes[i]), overlaps)
	}
}

func TestEncodeAndDecode(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, size := range sizes {
		for _, density := range []float64{0, 0.01, 0.3, 1} {
			height, width := size[0], size[1]
			mask := randomMask(r, height, width, density)
			bools := make([]bool, len(mask))
			ones := make([]uint8, len(mask))
			for i, v := range mask {
				if v != 0 {
					bools[i], ones[i] = true, 1
				}
			}
			m, err := Encode(mask, height, width)
			require.NoError(t, err)
			require.Equal(t, naive(mask, height, width), m.Counts, "[%d %d]", height, width)
			fromBools, err := Encode(bools, height, width)
			require.NoError(t, err)
			require.Equal(t, m, fromBools)

			got, err := m.Decode()
			require.NoError(t, err)
			require.Equal(t, ones, got, "[%d %d]", height, width)
			require.NoError(t, m.DecodeInto(mask))
			require.Equal(t, ones, mask)

			back, err := ParseRLE(m.String(), height, width)
			require.NoError(t, err)
			require.Equal(t, m, back)
			inverted := m.Invert()
			require.NoError(t, inverted.Validate())
			require.Equal(t, height*width, m.Area()+inverted.Area())
			require.True(t, m.Equal(inverted.Invert()))

			values, err := m.RowRuns()
			require.NoError(t, err)
			back, err = FromRowRuns(values, height, width)
			require.NoError(t, err)
			require.Equal(t, m, back)
		}
	}
}

func TestRowRunsAreLikeTransformers(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	var cases []encodeCase
	for _, size := range sizes {
		cases = append(cases, encodeCase{size[0], size[1], randomMask(r, size[0], size[1], 0.1)})
	}
	var answers [][]int
	runPython(t, "row_runs.py", cases, &answers)
	require.Len(t, answers, len(cases))
	some := 0
	for i, c := range cases {
		m, err := Encode(c.Pixels, c.Height, c.Width)
		require.NoError(t, err)
		values, err := m.RowRuns()
		require.NoError(t, err)
		require.Equal(t, answers[i], append([]int{}, values...))
		some += len(values)
	}
	assert.Greater(t, some, 1000)
}

func TestRLEKnownAnswers(t *testing.T) {
	// facts: pycocotools' own answer for this mask.
	m, err := ParseRLE("5220003", 4, 5)
	require.NoError(t, err)
	assert.Equal(t, []uint32{5, 2, 2, 2, 2, 2, 5}, m.Counts)
	assert.Equal(t, "5220003", m.String())

	m, err = Encode([]uint8{0, 1, 0, 0, 1, 9}, 2, 3)
	require.NoError(t, err)
	assert.Equal(t, []uint32{2, 2, 1, 1}, m.Counts)
	assert.Equal(t, Box{1, 0, 2, 2}, m.Box())
	values, err := m.RowRuns()
	require.NoError(t, err)
	assert.Equal(t, []int{2, 1, 5, 2}, values)

	text, err := json.Marshal(m)
	require.NoError(t, err)
	assert.JSONEq(t, `{"size":[2,3],"counts":"221O"}`, string(text))
	text, err = json.Marshal(Uncompressed(m))
	require.NoError(t, err)
	assert.JSONEq(t, `{"size":[2,3],"counts":[2,2,1,1]}`, string(text))
	for _, form := range []string{`{"size":[2,3],"counts":"221O"}`, string(text)} {
		var back RLE
		require.NoError(t, json.Unmarshal([]byte(form), &back))
		assert.Equal(t, m, back)
	}

	// A backslash is one of the characters.
	m = RLE{Height: 1, Width: 12 + 44, Counts: []uint32{44, 12}}
	text, err = m.MarshalJSON()
	require.NoError(t, err)
	assert.Equal(t, `{"size":[1,56],"counts":"\\1<"}`, string(text))
	var back RLE
	require.NoError(t, json.Unmarshal(text, &back))
	assert.Equal(t, m, back)

	for _, empty := range []RLE{
		{},
		{Height: 3},
		{Width: 2, Counts: []uint32{0}},
		{Height: 2, Width: 2, Counts: []uint32{4}},
		{Height: math.MaxUint32}, // takes no memory either
		{Width: math.MaxUint32},
	} {
		require.NoError(t, empty.Validate())
		assert.Zero(t, empty.Area())
		assert.Equal(t, Box{}, empty.Box())
		polygons, err := empty.Polygons()
		require.NoError(t, err)
		assert.Empty(t, polygons)
		mask, err := empty.Decode()
		require.NoError(t, err)
		again, err := Encode(mask, empty.Height, empty.Width)
		require.NoError(t, err)
		assert.True(t, again.Equal(empty))
	}
	// Runs without pixels do not matter.
	a := RLE{Height: 2, Width: 4, Counts: []uint32{1, 2, 0, 3, 2}}
	b := RLE{Height: 2, Width: 4, Counts: []uint32{1, 5, 2, 0}}
	assert.True(t, a.Equal(b))
	assert.Equal(t, a.Box(), b.Box())
	overlap, err := a.IoU(b, false)
	require.NoError(t, err)
	assert.Equal(t, 1.0, overlap)
	union, err := Union(a, b)
	require.NoError(t, err)
	assert.Equal(t, []uint32{1, 5, 2}, union.Counts)
}

func TestRLEErrors(t *testing.T) {
	for name, m := range map[string]RLE{
		"too short":     {Height: 2, Width: 3, Counts: []uint32{5}},
		"too long":      {Height: 2, Width: 3, Counts: []uint32{5, 2}},
		"wraps around":  {Height: 2, Width: 3, Counts: []uint32{math.MaxUint32, 7}},
		"negative":      {Height: -2, Width: -3, Counts: []uint32{6}},
		"huge":          {Height: 1 << 40, Width: 1 << 40},
		"huge product":  {Height: 1 << 31, Width: 2},
		"no counts":     {Height: 1, Width: 1},
		"wrap to small": {Height: 1 << 32, Width: 1 << 32},
	} {
		assert.ErrorIs(t, m.Validate(), ErrRLE, name)
		_, err := m.Decode()
		assert.ErrorIs(t, err, ErrRLE, name)
		_, err = m.MarshalJSON()
		assert.ErrorIs(t, err, ErrRLE, name)
		_, err = Union(m, m)
		assert.ErrorIs(t, err, ErrRLE, name)
		_, err = m.IoU(m, false)
		assert.ErrorIs(t, err, ErrRLE, name)
		_, err = m.Polygons()
		assert.ErrorIs(t, err, ErrRLE, name)
		assert.NotPanics(t, func() { m.Area(); m.Box(); _ = m.String(); m.Invert(); m.Equal(m) }, name)
	}
	for text, want := range map[string]string{
		"5":            "sum up to 5, want 20",
		"52200032":     "sum up to",
		"5 ":           "got byte 32",
		"5p":           "got byte 112",
		"T":            "end within a number",
		"PPPPPPPPPPP0": "more than 7 characters",
		"522L":         "is -2",
	} {
		_, err := ParseRLE(text, 4, 5)
		require.ErrorIs(t, err, ErrRLE, text)
		assert.ErrorContains(t, err, want, text)
	}
	for text, want := range map[string]string{
		`{"size":[2],"counts":"6"}`:                     "want [height, width]",
		`{"size":[2,3]}`:                                "got no counts",
		`{"size":[2,3],"counts":7}`:                     "got no counts",
		`{"size":[2,3],"counts":[7]}`:                   "sum up to 7, want 6",
		`{"size":[2,3],"counts":[-1,7]}`:                "-1",
		`{"size":[2,3],"counts":[4294967297]}`:          "4294967297",
		`{"size":[2,3],"counts":[1.5,4.5]}`:             "1.5",
		`{"size":[99999999,99999999],"counts":"6"}`:     "below 1<<32",
		`{"size":[-2,-3],"counts":"6"}`:                 "below 1<<32",
		`{"size":[2,3],"counts":"é"}`:                   "got byte",
		`[2,3]`:                                         "cannot unmarshal",
		`{"size":[1e3,3],"counts":"6"}`:                 "1e3",
		`{"size":[18446744073709551615,1],"counts":[]}`: "18446744073709551615",
	} {
		m := RLE{Height: 7}
		err := json.Unmarshal([]byte(text), &m)
		require.ErrorIs(t, err, ErrRLE, text)
		assert.ErrorContains(t, err, want, text)
		assert.Equal(t, 7, m.Height, "not changed")
	}

	_, err := Encode(make([]uint8, 5), 2, 3)
	require.ErrorIs(t, err, ErrRLE)
	assert.ErrorContains(t, err, "got a mask of 5 pixels, want 6 for size [2 3]")
	_, err = Union()
	require.ErrorIs(t, err, ErrRLE)
	a, b := RLE{Height: 1, Width: 2, Counts: []uint32{2}}, RLE{Height: 2, Width: 1, Counts: []uint32{2}}
	_, err = Intersection(a, b)
	require.ErrorIs(t, err, ErrRLE)
	_, err = a.IoU(b, false)
	require.ErrorIs(t, err, ErrRLE)
	require.ErrorIs(t, a.DecodeInto(make([]uint8, 3)), ErrRLE)
	_, err = BoxIoU(nil, nil, []bool{true})
	require.ErrorIs(t, err, ErrRLE)

	for _, points := range [][]float64{{}, {1, 2, 3, 4}, {1, 2, 3, 4, 5, 6, 7}, {1, 2, 3, 4, 5, math.NaN()}, {1, 2, 3, 4, 5, 1e9}} {
		_, err := FromPolygons([][]float64{points}, 9, 9)
		require.ErrorIs(t, err, ErrRLE, "%v", points)
	}
	for _, values := range [][]int{{1}, {0, 1}, {1, -1}, {3, 2, 4, 1}, {5, 3}, {1, math.MaxInt}} {
		_, err := FromRowRuns(values, 2, 3)
		require.ErrorIs(t, err, ErrRLE, "%v", values)
	}
}

func TestPolygonsGiveTheMaskBack(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	rings := 0
	for range 8 {
		for _, size := range sizes {
			height, width := size[0], size[1]
			mask := randomMask(r, height, width, []float64{0, 0.02, 0.5, 1}[r.IntN(4)])
			m, err := Encode(mask, height, width)
			require.NoError(t, err)
			polygons, err := m.Polygons()
			require.NoError(t, err)
			back, err := FromPolygons(polygons, height, width)
			require.NoError(t, err)
			require.Equal(t, m, back, "[%d %d] %v", height, width, mask)

			// Outlines are the same areas, holes apart.
			outlines, err := m.Outlines()
			require.NoError(t, err)
			require.Len(t, outlines, len(polygons))
			area := 0.0
			for _, o := range outlines {
				outer := shoelace(o.Outer)
				require.Positive(t, outer)
				area += outer
				for _, hole := range o.Holes {
					rings++
					require.Negative(t, shoelace(hole))
					area += shoelace(hole)
				}
			}
			require.Equal(t, float64(m.Area()), area)
			if height*width > 1e5 {
				break
			}
		}
	}
	assert.Greater(t, rings, 100, "some must have holes")
}

// shoelace is a ring's area, positive where it runs clockwise on the screen.
func shoelace(ring []float64) float64 {
	sum := 0.0
	for i := 0; i < len(ring); i += 2 {
		j := (i + 2) % len(ring)
		sum += ring[i]*ring[j+1] - ring[j]*ring[i+1]
	}
	return sum / 2
}

func TestPolygonsOfARing(t *testing.T) {
	// A ring, a pixel in its hole, and one that touches a corner.
	m, err := Encode([]uint8{
		1, 1, 1, 1, 1, 0,
		1, 0, 0, 0, 1, 0,
		1, 0, 1, 0, 1, 0,
		1, 0, 0, 0, 1, 0,
		1, 1, 1, 1, 1, 0,
		0, 0, 0, 0, 0, 1,
	}, 6, 6)
	require.NoError(t, err)
	outlines, err := m.Outlines()
	require.NoError(t, err)
	assert.Equal(t, []Outline{
		{Outer: []float64{0, 0, 5, 0, 5, 5, 0, 5}, Holes: [][]float64{{1, 1, 1, 4, 4, 4, 4, 1}}},
		{Outer: []float64{2, 2, 3, 2, 3, 3, 2, 3}},
		{Outer: []float64{5, 5, 6, 5, 6, 6, 5, 6}},
	}, outlines)
	polygons, err := m.Polygons()
	require.NoError(t, err)
	require.Len(t, polygons, 3)
	assert.Equal(t, outlines[1].Outer, polygons[1])
	// The way into the hole is a line of no width, there and back.
	assert.Equal(t, []float64{0, 0, 1, 0, 1, 1, 1, 4, 4, 4, 4, 1, 1, 1, 1, 0, 5, 0, 5, 5, 0, 5}, polygons[0])
}
