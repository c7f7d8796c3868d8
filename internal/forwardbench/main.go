// Forwardbench is Go's part of scripts/bench_forward.py: forwards of a model file on one input. It writes the answer
// to a file, prints the seconds from its start to the first answer, reads numbers of forwards, and prints the seconds
// that they took and the peak of its resident memory.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
)

func main() {
	start := time.Now()
	if err := run(context.Background(), start, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "forwardbench:", err)
		os.Exit(1)
	}
}

type settings struct {
	Model     string          `json:"model"`
	Input     string          `json:"input"`  // an .npy of (B, 3, H, W)
	Output    string          `json:"output"` // an .npy to write
	List      bool            `json:"list"`   // whether the model takes a list of images
	Threads   int             `json:"threads"`
	Precision torch.Precision `json:"precision"`
	MKLFast   bool            `json:"mkl_fast"`
}

func run(ctx context.Context, start time.Time, args []string) error {
	var s settings
	if len(args) != 1 {
		return fmt.Errorf("got %d arguments, want the settings", len(args))
	}
	if err := json.Unmarshal([]byte(args[0]), &s); err != nil {
		return err
	}
	if err := torch.Init(torch.Config{Device: "cpu", IntraOpThreads: s.Threads, MKLFastPath: s.MKLFast}); err != nil {
		return err
	}
	module, err := jit.Load(s.Model, jit.LoadOptions{Precision: s.Precision})
	if err != nil {
		return err
	}
	defer module.Close()
	if err := module.Eval(); err != nil {
		return err
	}
	x, err := torch.LoadNpy(s.Input)
	if err != nil {
		return err
	}
	defer x.Close()
	var arg any = x
	if s.List {
		images, err := torch.Call(ctx, "aten::unbind.int", x, 0)
		if err != nil {
			return err
		}
		defer torch.CloseAll(images)
		arg = images
	}
	answer, err := module.Forward(ctx, arg)
	if err != nil {
		return err
	}
	first := time.Since(start).Seconds()
	if err := save(s.Output, answer); err != nil {
		return err
	}
	torch.CloseAll(answer)
	fmt.Println(first, peak())
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			return err
		}
		start := time.Now()
		for range n {
			answer, err := module.Forward(ctx, arg)
			if err != nil {
				return err
			}
			torch.CloseAll(answer)
		}
		fmt.Println(time.Since(start).Seconds(), peak())
	}
	return lines.Err()
}

// save writes the tensor of an answer: itself, the first of a tuple, or the boxes of a detector's first image.
func save(path string, answer any) error {
	switch v := answer.(type) {
	case *torch.Tensor:
		return torch.SaveNpy(path, v)
	case torch.Tuple:
		return save(path, v[len(v)-1])
	case torch.List:
		return save(path, v[0])
	case []map[string]*torch.Tensor:
		return save(path, v[0]["boxes"])
	case map[string]any:
		return save(path, v["boxes"])
	}
	return fmt.Errorf("got an answer of %T, want a tensor or a detector's", answer)
}

// peak is VmHWM in megabytes.
func peak() float64 {
	text, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb / 1024
		}
	}
	return 0
}
