// Trainbench is Go's half of scripts/bench_training.py: steps of training on one batch. It reads numbers of steps
// and prints the seconds that they took and the last loss.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/torchvit/torchvit/loader"
	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/torch/optim"
	"github.com/torchvit/torchvit/train"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "trainbench:", err)
		os.Exit(1)
	}
}

// settings are what both halves do.
type settings struct {
	Model     string  `json:"model"`
	Batch     string  `json:"batch"`
	Threads   int     `json:"threads"`
	Optimizer string  `json:"optimizer"`
	LR        float64 `json:"lr"`
	Freeze    string  `json:"freeze"`
	BFloat16  bool    `json:"bfloat16"`
	Seed      uint64  `json:"seed"`
}

func run(ctx context.Context, args []string) error {
	var s settings
	if len(args) != 1 {
		return fmt.Errorf("got %d arguments, want the settings", len(args))
	}
	if err := json.Unmarshal([]byte(args[0]), &s); err != nil {
		return err
	}
	if err := torch.Init(torch.Config{Device: "cpu", IntraOpThreads: s.Threads}); err != nil {
		return err
	}
	o := train.LoadOptions{}
	if s.BFloat16 {
		o.Precision = torch.BFloat16
	}
	m, err := train.Load(s.Model, o)
	if err != nil {
		return err
	}
	defer m.Close()
	task, err := train.TaskOf(m, train.TaskOptions{})
	if err != nil {
		return err
	}
	batch, err := readBatch(s.Batch)
	if err != nil {
		return err
	}
	defer batch.Close()
	freeze, err := train.ParseFreeze(s.Freeze)
	if err != nil {
		return err
	}
	if err := m.Freeze(freeze); err != nil {
		return err
	}
	var params []jit.NamedTensor
	for _, p := range m.Parameters() {
		params = append(params, p.NamedTensor)
	}
	var opt *optim.Optimizer
	switch s.Optimizer {
	case "sgd":
		opt, err = optim.NewSGD(optim.Parameters(params), optim.SGDOptions{LR: s.LR, Momentum: 0.9})
	case "adam":
		opt, err = optim.NewAdam(optim.Parameters(params), optim.AdamOptions{LR: s.LR})
	default:
		opt, err = optim.NewAdamW(optim.Parameters(params), optim.AdamOptions{LR: s.LR})
	}
	if err != nil {
		return err
	}
	defer opt.Close()
	if err := torch.ManualSeed(s.Seed); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			return err
		}
		start := time.Now()
		var last float64
		for range n {
			if last, err = step(ctx, m, task, opt, batch); err != nil {
				return err
			}
		}
		fmt.Println(time.Since(start).Seconds(), last)
	}
	return lines.Err()
}

func step(ctx context.Context, m *train.Model, task train.Task, opt *optim.Optimizer, b *loader.Batch) (float64, error) {
	l, err := task.Loss(ctx, m, b)
	if err != nil {
		return 0, err
	}
	defer l.Total.Close()
	v, err := l.Total.Item()
	if err != nil {
		return 0, err
	}
	if err := torch.Backward(ctx, l.Total, torch.BackwardOptions{}); err != nil {
		return 0, err
	}
	if err := opt.Step(ctx); err != nil {
		return 0, err
	}
	return v.(float64), opt.ZeroGrad()
}

// readBatch reads what the script wrote: images, classes, masks, or boxes.N and labels.N of image N.
func readBatch(path string) (*loader.Batch, error) {
	tensors, err := torch.LoadNpz(path)
	if err != nil {
		return nil, err
	}
	b := &loader.Batch{Images: tensors["images"], Classes: tensors["classes"], Masks: tensors["masks"]}
	n := int(b.Images.Size(0))
	b.Index = make([]int, n)
	for i := range n {
		if boxes := tensors[fmt.Sprintf("boxes.%d", i)]; boxes != nil {
			b.Boxes, b.Labels = append(b.Boxes, boxes), append(b.Labels, tensors[fmt.Sprintf("labels.%d", i)])
		}
		if b.Boxes != nil {
			one, err := b.Images.Select(0, int64(i))
			if err != nil {
				return nil, err
			}
			b.List = append(b.List, one)
		}
	}
	return b, nil
}
