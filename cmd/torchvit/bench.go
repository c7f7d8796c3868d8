package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/torchvit/torchvit/torch"
	"github.com/torchvit/torchvit/torch/jit"
	"github.com/torchvit/torchvit/vit"
)

type benchOptions struct {
	batch   int
	rounds  int
	seconds float64
	warmup  int
	size    string
	method  string
	dtype   string

	graphs, channelsLast bool
	sweep                bool
}

func newBenchCommand(a *app) *cobra.Command {
	o := benchOptions{}
	cmd := &cobra.Command{
		Use:   "bench MODEL",
		Short: "Measure latency, throughput and memory",
		Long: "bench runs a method on noise of the model's input size, after warm-up runs, and prints the latency\n" +
			"of a call, the throughput of all lanes, the time that the same call takes from C++ alone, and the\n" +
			"peak of resident memory. Preprocess is not part of it. --sweep measures one lane of 1, 2, 4 ... threads,\n" +
			"and lanes that share the cores, each in a process of its own, and names the best.",
		Example: "  torchvit bench vit_tiny.pt\n" +
			"  torchvit bench vit_tiny.pt --batch 8 --rounds 50 --threads 4\n" +
			"  torchvit bench vit_tiny.pt --sweep --precision fast\n" +
			"  torchvit bench vit_tiny.pt --lanes 2 --threads 1 --seconds 10 --json",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !o.sweep {
				return a.bench(cmd.Context(), args[0], o)
			}
			if err := o.validate(); err != nil {
				return err
			}
			if a.lanes != 0 || a.threads != 0 {
				return usagef("--sweep tries --lanes and --threads itself: want neither of them")
			}
			return a.sweep(cmd.Context(), args[0], cmd.Flags())
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&o.batch, "batch", 1, "photos in a call")
	flags.IntVar(&o.rounds, "rounds", 0, "timed calls of each lane (default: as many as --seconds allow)")
	flags.Float64Var(&o.seconds, "seconds", 3, "how long to measure, where --rounds is not given")
	flags.IntVar(&o.warmup, "warmup", 5, "calls of each lane before the clock starts")
	flags.StringVar(&o.size, "size", "", "`HEIGHTxWIDTH` of the input (default: the model file's)")
	flags.StringVar(&o.method, "method", "forward", "`name` of the method, one that takes a batch of photos")
	flags.BoolVar(&o.graphs, "cuda-graphs", false, "record the method as a CUDA graph and replay it")
	flags.BoolVar(&o.channelsLast, "channels-last", false, "weights of convolutions in the memory format channels_last")
	flags.StringVar(&o.dtype, "dtype", "", "cast the module and the input to this `type`: float32, bfloat16, float16, float64")
	flags.BoolVar(&o.sweep, "sweep", false, "measure ways to share the cores between lanes and threads")
	completeDType(cmd)
	a.precisionFlag(cmd)
	return cmd
}

// benchReport is what `bench --json` prints. Times are in seconds.
type benchReport struct {
	Model  string  `json:"model"`
	Method string  `json:"method"`
	Shape  []int64 `json:"shape"` // of the input; a detector gets Shape[0] photos in a list
	DType  string  `json:"dtype"`
	// Precision is exact, fast or bfloat16.
	Precision torch.Precision `json:"precision"`
	Torch     string          `json:"torch"`
	Device    string          `json:"device"`
	// Lanes is the number of intra-op threads of each lane.
	Lanes      []int   `json:"lanes"`
	Load       float64 `json:"load"`
	FirstCall  float64 `json:"first_call"`
	WarmUp     int     `json:"warmup"`
	Calls      int     `json:"calls"`
	Seconds    float64 `json:"seconds"`
	Min        float64 `json:"min"`
	Median     float64 `json:"median"`
	P95        float64 `json:"p95"`
	Mean       float64 `json:"mean"`
	Throughput float64 `json:"throughput"` // photos a second, all lanes
	// CPPMean is the mean of the same call made from C++, 0 where it was not measured.
	CPPMean float64 `json:"cpp_mean,omitempty"`
	// PeakRSS is the process's largest resident set in bytes.
	PeakRSS int64 `json:"peak_rss"`
}

func (o benchOptions) validate() error {
	switch {
	case o.batch < 1:
		return usagef("--batch %d: want 1 or more", o.batch)
	case o.rounds < 0:
		return usagef("--rounds %d: want 1 or more", o.rounds)
	case !(o.seconds > 0 && o.seconds <= 3600):
		return usagef("--seconds %v: want more than 0, at most 3600", o.seconds)
	case o.warmup < 0:
		return usagef("--warmup %d: want 0 or more", o.warmup)
	}
	return nil
}

// inputSize is the height and width to measure with.
func (o benchOptions) inputSize(m *vit.Metadata) (height, width int, err error) {
	if o.size != "" {
		h, w, ok := strings.Cut(o.size, "x")
		height, err1 := strconv.Atoi(h)
		width, err2 := strconv.Atoi(w)
		if !ok || err1 != nil || err2 != nil || height < 1 || width < 1 || height > 1<<14 || width > 1<<14 {
			return 0, 0, usagef("--size %s: want HEIGHTxWIDTH, such as 224x224", o.size)
		}
		return height, width, nil
	}
	if s := m.Input.Size; len(s) == 2 {
		return s[0], s[1], nil
	}
	return 0, 0, usagef("the model file does not say its input's size: want --size HEIGHTxWIDTH")
}

func (a *app) bench(ctx context.Context, path string, o benchOptions) error {
	if err := o.validate(); err != nil {
		return err
	}
	dtype, err := floatingDType(o.dtype)
	if err != nil {
		return err
	}
	meta, err := vit.ReadMetadata(path)
	if errors.Is(err, vit.ErrNoMetadata) && o.size != "" {
		// Nothing is known of the file, and nothing need be but the input's size.
		meta, err = &vit.Metadata{Format: vit.MetadataFormat, Task: vit.TaskClassification, Architecture: "unknown"}, nil
	}
	if err != nil {
		return err
	}
	height, width, err := o.inputSize(meta)
	if err != nil {
		return err
	}
	if meta.Task == vit.TaskSegmentationHead {
		return fmt.Errorf("%s is a segmentation head, which takes tokens: want a model that takes photos", path)
	}
	device, err := a.open()
	if err != nil {
		return err
	}
	info, err := torch.RuntimeInfo()
	if err != nil {
		return err
	}
	r := &benchReport{
		Model: path, Method: o.method, Shape: []int64{int64(o.batch), 3, int64(height), int64(width)},
		Torch: info.Version, Device: device.String(), Precision: a.precision, Lanes: info.LaneThreads, WarmUp: o.warmup,
	}
	start := time.Now()
	model, err := vit.LoadModel(path, vit.Options{
		Device: device, DType: dtype, Precision: a.precision, ChannelsLast: o.channelsLast, CUDAGraphs: o.graphs,
		Note: a.note(path), Metadata: meta,
	})
	if err != nil {
		return err
	}
	defer model.Close()
	r.Load = time.Since(start).Seconds()

	var scope torch.Scope
	defer scope.Close()
	x, err := noise(ctx, &scope, r.Shape, device, dtype)
	if err != nil {
		return err
	}
	r.DType = x.DType().String()
	var arg any = x
	if meta.Layout() == vit.LayoutList {
		photos, err := torch.Call(ctx, "aten::unbind.int", x, 0)
		if err != nil {
			return err
		}
		scope.Track(photos)
		arg = photos
	}
	call := func() (float64, error) {
		start := time.Now()
		v, err := model.Call(ctx, o.method, arg)
		if err == nil {
			err = torch.Synchronize(device)
		}
		took := time.Since(start).Seconds()
		torch.CloseAll(v)
		return took, err
	}
	if r.FirstCall, err = call(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	times, err := a.timeCalls(ctx, r, o, call)
	if err != nil {
		return err
	}
	r.summarize(times)
	if arg == any(x) && !device.IsCUDA() {
		if r.CPPMean, err = fromCPP(ctx, model, o.method, x, r); err != nil {
			return err
		}
	}
	r.PeakRSS = peakRSS()
	if a.json {
		return a.printJSON(r)
	}
	return r.print(a.stdout)
}

// noise is a tensor of numbers of 0 to 1. The speed of the kernels does not depend on them.
func noise(ctx context.Context, scope *torch.Scope, shape []int64, device torch.Device, dtype torch.DType) (*torch.Tensor, error) {
	own := torch.Own(scope)
	x, err := own(torch.Empty(shape, torch.TensorOptions{}))
	if err != nil {
		return nil, err
	}
	err = torch.WithData(x, func(data []float32) error {
		state := uint32(1)
		for i := range data {
			state = state*1664525 + 1013904223
			data[i] = float32(state>>8) / (1 << 24)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if dtype != torch.InvalidDType {
		if x, err = own(x.CastTo(dtype)); err != nil {
			return nil, err
		}
	}
	if device.IsCUDA() {
		return own(x.To(device))
	}
	return x, ctx.Err()
}

// timeCalls keeps every lane busy, and gives the latency of each call after the warm-up.
func (a *app) timeCalls(ctx context.Context, r *benchReport, o benchOptions, call func() (float64, error)) ([]float64, error) {
	lanes := len(r.Lanes)
	var mu sync.Mutex
	var times []float64
	var failed error
	each := func(more func(n int, start time.Time) bool, note func(took float64)) float64 {
		var wait sync.WaitGroup
		start := time.Now()
		for range lanes {
			wait.Go(func() {
				for n := 0; more(n, start); n++ {
					took, err := call()
					mu.Lock()
					if err == nil {
						err = ctx.Err()
					}
					if err != nil && failed == nil {
						failed = err
					}
					stop := failed != nil
					if !stop {
						note(took)
					}
					mu.Unlock()
					if stop {
						return
					}
				}
			})
		}
		wait.Wait()
		return time.Since(start).Seconds()
	}
	each(func(n int, _ time.Time) bool { return n < o.warmup }, func(float64) {})
	if failed != nil {
		return nil, failed
	}
	total := o.rounds * lanes
	if total == 0 {
		total = int(math.Ceil(10 * o.seconds)) // tenths of seconds
	}
	bar := a.newProgress(total, "bench")
	defer bar.finish()
	begun := time.Now()
	shown := 0
	r.Seconds = each(func(n int, start time.Time) bool {
		if o.rounds > 0 {
			return n < o.rounds
		}
		return n == 0 || time.Since(start).Seconds() < o.seconds
	}, func(took float64) {
		times = append(times, took)
		now := len(times)
		if o.rounds == 0 {
			now = min(total, int(10*time.Since(begun).Seconds()))
		}
		bar.add(now - shown)
		shown = now
	})
	return times, failed
}

func (r *benchReport) summarize(times []float64) {
	slices.Sort(times)
	n := len(times)
	r.Calls, r.Min = n, times[0]
	r.Median = (times[(n-1)/2] + times[n/2]) / 2
	r.P95 = times[int(math.Ceil(0.95*float64(n)))-1]
	sum := 0.0
	for _, t := range times {
		sum += t
	}
	r.Mean = sum / float64(n)
	r.Throughput = float64(n) * float64(r.Shape[0]) / r.Seconds
}

// fromCPP measures the same call made from C++ in a loop, for about a second.
func fromCPP(ctx context.Context, model *vit.Model, name string, x *torch.Tensor, r *benchReport) (float64, error) {
	module, ok := model.Runtime().(*jit.Module)
	if !ok {
		return 0, nil
	}
	method, err := module.Method(name)
	if err != nil {
		return 0, err
	}
	n := max(1, min(r.Calls, int(1/r.Median)))
	seconds, err := method.Seconds(ctx, x, n)
	return seconds / float64(n), err
}

// peakRSS is VmHWM of /proc/self/status in bytes, 0 where there is none.
func peakRSS() int64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return kb * 1024
		}
	}
	return 0
}

func (r *benchReport) print(w io.Writer) error {
	ms := func(seconds float64) string { return strconv.FormatFloat(1e3*seconds, 'f', 2, 64) + " ms" }
	fmt.Fprintf(w, "model       %s  %s  %s %s\n", r.Model, r.Method, r.DType, shapeText(r.Shape))
	fmt.Fprintf(w, "libtorch    %s on %s, %d lane(s) of %s thread(s)\n", r.Torch, r.Device, len(r.Lanes), strings.Trim(fmt.Sprint(r.Lanes), "[]"))
	fmt.Fprintf(w, "start       load %s, first call %s\n", ms(r.Load), ms(r.FirstCall))
	fmt.Fprintf(w, "measured    %d calls in %.2f s, after %d warm-up calls on each lane\n", r.Calls, r.Seconds, r.WarmUp)
	fmt.Fprintf(w, "latency     median %s, p95 %s, min %s, mean %s\n", ms(r.Median), ms(r.P95), ms(r.Min), ms(r.Mean))
	fmt.Fprintf(w, "throughput  %.1f photos/s\n", r.Throughput)
	if r.CPPMean > 0 {
		fmt.Fprintf(w, "from C++    mean %s for the same call without Go\n", ms(r.CPPMean))
	}
	_, err := fmt.Fprintf(w, "memory      peak %s resident\n", bytesText(r.PeakRSS))
	return err
}
