// Bench is Go's part of scripts/bench.py: calls of a model file on one input, or from photos to their classes. It
// writes the answer to a file, prints the seconds from its start to the first answer, reads lines with numbers of
// calls ("forward N" for those of the model alone), and prints the seconds that they took and the peak of its resident
// memory.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/transforms"
	"github.com/torchvit/torchvit/vit"
)

func main() {
	start := time.Now()
	if err := run(context.Background(), start, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type settings struct {
	Model     string          `json:"model"`
	Input     string          `json:"input"`  // an .npy of (B, 3, H, W)
	Photos    []string        `json:"photos"` // in place of Input
	Output    string          `json:"output"` // an .npy to write
	List      bool            `json:"list"`   // whether the model takes a list of images
	Threads   int             `json:"threads"`
	Device    string          `json:"device"`
	DType     string          `json:"dtype"` // of a model that is cast, "" as it is
	Precision torch.Precision `json:"precision"`
	Graphs    bool            `json:"cuda_graphs"`
}

// bench calls a model.
type bench interface {
	// answer writes what is compared with other engines' answers.
	answer(ctx context.Context, path string) error
	// calls makes n calls.
	calls(ctx context.Context, n int) error
	// forwards makes n calls of the model alone.
	forwards(ctx context.Context, n int) error
	Close() error
}

func run(ctx context.Context, start time.Time, args []string) (err error) {
	var s settings
	if len(args) != 1 {
		return fmt.Errorf("got %d arguments, want the settings", len(args))
	}
	if err := json.Unmarshal([]byte(args[0]), &s); err != nil {
		return err
	}
	device, err := torch.NewDevice(s.Device)
	if err != nil {
		return err
	}
	// As the commands of torchvit open it.
	config := torch.Config{Device: device.Type, IntraOpThreads: s.Threads, MKLFastPath: s.Precision != torch.PrecisionExact}
	if err := torch.Init(config); err != nil {
		return err
	}
	options := vit.Options{Device: device, Precision: s.Precision, CUDAGraphs: s.Graphs}
	if s.DType != "" {
		if options.DType, err = torch.ParseDType(s.DType); err != nil {
			return err
		}
	}
	b, err := open(ctx, s, options)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.answer(ctx, s.Output); err != nil {
		return err
	}
	fmt.Println(time.Since(start).Seconds(), peak())
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		number, forwards := strings.CutPrefix(lines.Text(), "forward ")
		n, err := strconv.Atoi(number)
		if err != nil {
			return err
		}
		start := time.Now()
		if forwards {
			err = b.forwards(ctx, n)
		} else {
			err = b.calls(ctx, n)
		}
		if err == nil {
			err = torch.Synchronize(device)
		}
		if err != nil {
			return err
		}
		fmt.Println(time.Since(start).Seconds(), peak())
	}
	return lines.Err()
}

func open(ctx context.Context, s settings, o vit.Options) (bench, error) {
	if len(s.Photos) > 0 {
		model, err := vit.Load(s.Model, o)
		if err != nil {
			return nil, err
		}
		return &photos{VisionTransformer: model, paths: s.Photos}, nil
	}
	module, err := jit.Load(s.Model, jit.LoadOptions{Device: o.Device, DType: o.DType, Precision: o.Precision, CUDAGraphs: o.CUDAGraphs})
	if err != nil {
		return nil, err
	}
	if err := module.Eval(); err != nil {
		return nil, err
	}
	f := &forward{module: module, cuda: o.Device.IsCUDA()}
	own := torch.Own(&f.scope)
	x, err := own(torch.LoadNpy(s.Input))
	if err == nil && o.DType != torch.InvalidDType {
		x, err = own(x.CastTo(o.DType))
	}
	if err == nil && o.Device.IsCUDA() {
		x, err = own(x.To(o.Device))
	}
	if err != nil {
		return nil, err
	}
	f.input = x
	if s.List {
		images, err := torch.Call(ctx, "aten::unbind.int", x, 0)
		if err != nil {
			return nil, err
		}
		f.scope.Track(images)
		f.input = images
	}
	return f, nil
}

// forward calls a module on a tensor, or a list of them.
type forward struct {
	module *jit.Module
	cuda   bool
	scope  torch.Scope
	input  any
}

func (f *forward) Close() error {
	f.scope.Close()
	return f.module.Close()
}

func (f *forward) answer(ctx context.Context, path string) error {
	answer, err := f.module.Forward(ctx, f.input)
	if err != nil {
		return err
	}
	defer torch.CloseAll(answer)
	return save(path, answer)
}

func (f *forward) calls(ctx context.Context, n int) error {
	for range n {
		answer, err := f.module.Forward(ctx, f.input)
		if err == nil && f.cuda {
			err = fetch(answer)
		}
		torch.CloseAll(answer)
		if err != nil {
			return err
		}
	}
	return nil
}

// fetch brings an answer to the host, as Python's side does.
func fetch(answer any) (err error) {
	torch.Tensors(answer, func(t *torch.Tensor) {
		if err == nil {
			var host *torch.Tensor
			if host, err = t.To(torch.CPU); err == nil {
				host.Close()
			}
		}
	})
	return err
}

func (f *forward) forwards(ctx context.Context, n int) error { return f.calls(ctx, n) }

// save writes a tensor of an answer: itself, the last of a tuple, or the scores of a detector's first image.
func save(path string, answer any) error {
	switch v := answer.(type) {
	case *torch.Tensor:
		host, err := v.To(torch.CPU)
		if err != nil {
			return err
		}
		defer host.Close()
		numbers, err := host.CastTo(torch.Float32)
		if err != nil {
			return err
		}
		defer numbers.Close()
		return torch.SaveNpy(path, numbers)
	case torch.Tuple:
		return save(path, v[len(v)-1])
	case torch.List:
		return save(path, v[0])
	case []map[string]*torch.Tensor:
		return save(path, v[0]["scores"])
	case map[string]any:
		return save(path, v["scores"])
	}
	return fmt.Errorf("got an answer of %T, want a tensor or a detector's", answer)
}

const best = 5 // classes of a photo

// photos goes from files to classes, with the next files prepared while the model runs.
type photos struct {
	*vit.VisionTransformer
	paths  []string
	inputs []vit.Input // of forwards
}

func (p *photos) Close() error {
	vit.CloseInputs(p.inputs)
	return p.VisionTransformer.Close()
}

func (p *photos) classify(ctx context.Context, photos ...transforms.Source) ([][]vit.Class, error) {
	return p.Classify(ctx, best, photos...)
}

// files is the paths, n times.
func (p *photos) files(n int) iter.Seq[transforms.Source] {
	return func(yield func(transforms.Source) bool) {
		for range n {
			for _, path := range p.paths {
				if !yield(path) {
					return
				}
			}
		}
	}
}

func (p *photos) answer(ctx context.Context, path string) error {
	var scores []float32
	for classes, err := range vit.Stream(ctx, p.files(1), vit.StreamOptions{Batch: len(p.paths)}, p.classify) {
		if err != nil {
			return err
		}
		for _, class := range classes {
			scores = append(scores, class.Score)
		}
	}
	t, err := torch.NewTensor(scores, int64(len(p.paths)), best)
	if err != nil {
		return err
	}
	defer t.Close()
	return torch.SaveNpy(path, t)
}

func (p *photos) calls(ctx context.Context, n int) error {
	for _, err := range vit.Stream(ctx, p.files(n), vit.StreamOptions{Batch: len(p.paths)}, p.classify) {
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *photos) forwards(ctx context.Context, n int) (err error) {
	if p.inputs == nil {
		var files []transforms.Source
		for file := range p.files(1) {
			files = append(files, file)
		}
		if p.inputs, err = p.Prepare(ctx, 0, files...); err != nil {
			return err
		}
	}
	for range n {
		answer, err := p.Call(ctx, "forward", p.inputs[0].Pixels)
		if err != nil {
			return err
		}
		torch.CloseAll(answer)
	}
	return nil
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
