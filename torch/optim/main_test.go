package optim_test

import (
	"testing"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
)

// One thread, as in testdata/training.py.
func TestMain(m *testing.M) {
	testmain.Run(m, torch.Config{Device: "cpu", IntraOpThreads: 1})
}
