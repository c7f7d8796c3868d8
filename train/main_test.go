package train_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/torchvit/torchvit/dataset"
	"github.com/torchvit/torchvit/internal/testmain"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/train"
	"github.com/torchvit/torchvit/transforms"
)

// One thread: the machine of a test has other things to do.
var config = torch.Config{Device: "cpu", IntraOpThreads: 1}

func TestMain(m *testing.M) {
	testmain.Children(map[string]func() error{"train": child})
	testmain.Run(m, config)
}

// killed are the options of the runs that are killed: half of what is random, and steps saved in an epoch.
func killed(out string) train.Options {
	return train.Options{
		Out: out, Epochs: 3, BatchSize: 6, Accumulate: 2, LR: 2e-3, Warmup: 2, Seed: 7, SaveEvery: 2, Freeze: train.Freeze{ViT: true}, Unfreeze: 2,
		Augment: augmentation(), Size: transforms.Size{Height: side, Width: side}, Workers: 2, ClipGradNorm: 1,
	}
}

// child is a process that trains, and says so, until it is killed.
func child() error {
	if err := torch.Init(config); err != nil {
		return err
	}
	set, err := dataset.Read(os.Getenv("TRAIN_DATA"), "", dataset.Options{})
	if err != nil {
		return err
	}
	val := *set
	val.Images = val.Images[:6]
	o := killed(os.Getenv("TRAIN_OUT"))
	o.Resume = true
	o.Progress = func(e train.Event) {
		switch e.Kind {
		case train.EventStep, train.EventSaved:
			fmt.Println(e.Kind, e.Step)
		}
	}
	_, err = train.Run(context.Background(), os.Getenv("TRAIN_MODEL"), set, &val, o)
	return err
}
