package det

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/internal/annotate"
)

func TestCaptionKeepsTheScore(t *testing.T) {
	text, err := annotate.NewText(12, true, nil)
	require.NoError(t, err)
	d := Detection{Label: "a label that is too long", LabelID: 7, Score: 0.934}
	assert.Equal(t, "a label that is too long 0.93", DrawOptions{}.caption(d, text, 1000))
	for width := text.Width("0.93"); width < text.Width("a label that is too long 0.93"); width++ {
		s := DrawOptions{}.caption(d, text, width)
		require.LessOrEqual(t, text.Width(s), width)
		require.Regexp(t, `^((a.*)?…)? ?0\.93$`, s)
	}
	assert.Regexp(t, `^a lab.*… 0\.93$`, DrawOptions{}.caption(d, text, 120))
	assert.Equal(t, "0.93", DrawOptions{NoLabels: true}.caption(d, text, 120))
	assert.Equal(t, "7", DrawOptions{NoScores: true}.caption(Detection{LabelID: 7}, text, 120))
	assert.Empty(t, DrawOptions{NoLabels: true, NoScores: true}.caption(d, text, 120))
}
