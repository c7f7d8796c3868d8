package torch_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchvit/torchvit/torch"
)

// tensor copies data into a tensor that the test's end closes.
func tensor[T torch.Element](t testing.TB, data []T, shape ...int64) *torch.Tensor {
	t.Helper()
	return own(t)(torch.NewTensor(data, shape...))
}

// own closes a tensor at the end of the test: own(t)(torch.Empty(...)).
func own(t testing.TB) func(*torch.Tensor, error) *torch.Tensor {
	t.Helper()
	return func(x *torch.Tensor, err error) *torch.Tensor {
		t.Helper()
		require.NoError(t, err)
		t.Cleanup(func() { x.Close() })
		return x
	}
}

func readLines(t testing.TB, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return strings.Fields(string(text))
}
