package torch_test

import (
	"testing"

	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
)

func TestMain(m *testing.M) {
	testmain.Children(children)
	testmain.Run(m, torch.Config{Device: "cpu", LaneThreads: []int{2, 1}})
}
