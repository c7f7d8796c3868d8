package jit

import (
	"bytes"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCRCConcat(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		a, b := make([]byte, r.IntN(300)), make([]byte, r.IntN(70000))
		for i := range a {
			a[i] = byte(r.Uint32())
		}
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		want := crc32.ChecksumIEEE(append(bytes.Clone(a), b...))
		require.Equal(t, want, crcConcat(crc32.ChecksumIEEE(a), crc32.ChecksumIEEE(b), uint64(len(b))))
	}
}

func TestParseScriptType(t *testing.T) {
	for _, s := range []string{
		"Tensor", "List[int]", "Dict[str, Tensor]", "Optional[List[Dict[str, Tensor]]]", "Tuple[()]", "Tuple[int, float]", "Union[int, str, NoneType]",
		"__torch__.torch.nn.modules.linear.___torch_mangle_0.Linear", "Final[Tuple[int, int]]",
	} {
		typ, err := parseScriptType(s)
		require.NoError(t, err, s)
		if s != "Tuple[()]" {
			assert.Equal(t, s, typ.String())
		}
	}
	for _, s := range []string{
		"", "[int]", "List", "List[]", "List[int", "List[int]]", "List[int, int]", "Dict[str]", "int[int]", "Tensor x", "List[int],", "a..b", "1a", "List[ ,int]",
		strings.Repeat("List[", 60) + "int" + strings.Repeat("]", 60),
	} {
		_, err := parseScriptType(s)
		require.Error(t, err, s)
		assert.NotContains(t, err.Error(), "\n")
	}
}

func TestUnquoteScript(t *testing.T) {
	for in, want := range map[string]string{`a`: "a", `a\"b`: `a"b`, `\n\t\\`: "\n\t\\", `\303\251`: "é", `\'`: "'", `\`: `\`} {
		assert.Equal(t, want, unquoteScript(in), in)
	}
}
