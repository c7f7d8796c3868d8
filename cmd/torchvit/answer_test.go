package main

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNumber(t *testing.T) {
	// numpy.format_float_positional(numpy.float32(v), unique=True, trim="0")
	for want, v := range map[string]float32{
		"0.5": 0.5, "1.0": 1, "0.0": 0, "-3.0": -3, "0.000012345": 1.2345e-5, "0.1": 0.1, "16777216.0": 1 << 24,
		"0.33333334": 1.0 / 3, "340282350000000000000000000000000000000.0": math.MaxFloat32,
		"nan": float32(math.NaN()), "inf": float32(math.Inf(1)), "-inf": float32(math.Inf(-1)),
	} {
		assert.Equal(t, want, number(v).String())
	}
	text, err := json.Marshal([]number{0.25, 2, number(math.NaN())})
	require.NoError(t, err)
	assert.Equal(t, "[0.25,2.0,null]", string(text))
}

func TestPrintLine(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, printLine(&b, &classifyAnswer{Image: "a&b <é>.jpg", Classes: []classifyResult{{"T-shirt/top", 1}}}))
	assert.Equal(t, `{"image":"a&b <é>.jpg","classes":[{"label":"T-shirt/top","score":1.0}]}`+"\n", b.String())
}

func TestTextOfNumbers(t *testing.T) {
	assert.Equal(t, "999 B", bytesText(999))
	assert.Equal(t, "24.3 MB", bytesText(24_300_000))
	assert.Equal(t, "1.50 GB", bytesText(1_500_000_000))
	assert.Equal(t, "5,717,416", grouped(5717416))
	assert.Equal(t, "100", grouped(100))
	assert.Equal(t, "-1,000", grouped(-1000))
	assert.Equal(t, "[1, 3]", shapeText([]int64{1, 3}))
	assert.Equal(t, "[]", shapeText(nil))
}
