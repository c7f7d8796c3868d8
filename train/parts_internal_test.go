package train

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/torchvit/torchvit/torch/jit"
)

// The number of blocks is the same with and without a norm behind them.
func TestBlocks(t *testing.T) {
	names := []string{"patch_embed.proj.weight", "blocks.0.norm1.weight", "blocks.1.norm1.weight", "norm.weight", "head.weight"}
	of := func(names []string) int {
		var list []jit.NamedTensor
		for _, name := range names {
			list = append(list, jit.NamedTensor{Name: name})
		}
		m := &Model{}
		m.parameters, m.root = divide(list)
		return m.blocks()
	}
	assert.Equal(t, 2, of(names))
	assert.Equal(t, 2, of(append(names[:3:3], "head.weight")))
	assert.Zero(t, of([]string{"head.weight"}))
}
