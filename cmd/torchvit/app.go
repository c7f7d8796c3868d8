package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/torchvit/torchvit/torch"
)

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// app is what the commands share: the streams and the persistent flags.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	device    string
	threads   int
	lanes     int
	json      bool
	libTorch  string
	precision torch.Precision

	// started says that a command has begun its work, so that errors are no
	// longer about usage.
	started bool
}

// commands lists every command in the order of the help text. Each has a file
// of its own.
var commands = []func(*app) *cobra.Command{
	newSetupCommand,
	newDoctorCommand,
	newInspectCommand,
	newRunCommand,
	newPreprocessCommand,
	newClassifyCommand,
	newAttendCommand,
	newSegmentCommand,
	newDetectCommand,
	newEvalCommand,
	newTrainCommand,
	newVerifyCommand,
	newBenchCommand,
	newVersionCommand,
}

// run is the whole program: exit status 0, 1 for an error, 2 for wrong usage.
// An error is one line on stderr.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A forward that runs cannot be interrupted: a second Ctrl-C ends the process at once.
	context.AfterFunc(ctx, stop)
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := newRootCommand(a)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "torchvit: interrupted")
		return exitError
	case !a.started || errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "torchvit: %s (see `torchvit help`)\n", oneLine(err))
		return exitUsage
	}
	fmt.Fprintf(stderr, "torchvit: %s\n", oneLine(err))
	return exitError
}

// errUsage marks an error about what was typed that only the command itself
// can find; make one with usagef.
var errUsage = errors.New("usage")

// usageError is an error with exit status 2.
type usageError struct{ message string }

func (e usageError) Error() string        { return e.message }
func (e usageError) Is(target error) bool { return target == errUsage }

func usagef(format string, args ...any) error {
	return usageError{fmt.Sprintf(format, args...)}
}

// oneLine joins the lines of an error's text.
func oneLine(err error) string {
	var lines []string
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, " | ")
}

func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "torchvit",
		Short: "Run PyTorch Vision Transformers with Python's own numbers",
		Long: "torchvit runs Vision Transformers that were trained in PyTorch and exported to TorchScript:\n" +
			"classification, attention maps, segmentation and detection, with the numbers that Python gives.\n\n" +
			"Start with `torchvit setup`, which prepares libtorch; `torchvit doctor` says what is wrong.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	flags := root.PersistentFlags()
	flags.StringVar(&a.device, "device", "", "cpu, cuda or cuda:N (default: cuda where a driver is there, else cpu)")
	flags.IntVar(&a.threads, "threads", 0, "intra-op threads of each lane (default: GOMAXPROCS over the lanes)")
	flags.IntVar(&a.lanes, "lanes", 0, "forwards that run at the same time (default: 1)")
	flags.BoolVar(&a.json, "json", false, "print JSON")
	flags.StringVar(&a.libTorch, "libtorch", "", "libtorch folder, torch package, virtual environment, or the `folder` of setup --output")
	for _, newCommand := range commands {
		root.AddCommand(newCommand(a))
	}
	a.wrap(root)
	return root
}

// wrap checks the persistent flags, and notes when a command begins its work:
// every error before that is about usage.
func (a *app) wrap(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		a.wrap(sub)
	}
	work := cmd.RunE
	if work == nil {
		return
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if a.threads < 0 {
			return usagef("--threads %d: want 1 or more, or 0 for the default", a.threads)
		}
		if a.lanes < 0 {
			return usagef("--lanes %d: want 1 or more, or 0 for the default", a.lanes)
		}
		if _, err := torch.NewDevice(a.device); a.device != "" && err != nil {
			return usagef("--device %s: want cpu, cuda or cuda:N", a.device)
		}
		a.started = true
		return work(cmd, args)
	}
}

// open opens libtorch as the persistent flags ask, and gives the device that models go to.
func (a *app) open() (torch.Device, error) {
	device := torch.CPU
	config := torch.Config{
		LibTorch: a.libTorch, Lanes: a.lanes, IntraOpThreads: a.threads,
		MKLFastPath: a.precision != torch.PrecisionExact,
	}
	if a.device != "" {
		var err error
		if device, err = torch.NewDevice(a.device); err != nil {
			return device, err
		}
		config.Device = device.Type
		if config.Device == "" {
			config.Device = "cpu"
		}
	}
	// A process opens libtorch once. Only tests run several commands in one.
	if err := torch.Init(config); err != nil && !errors.Is(err, torch.ErrConfigured) {
		return device, err
	}
	if a.device == "" && torch.IsCUDAAvailable() {
		device.Type = "cuda"
	}
	if device.IsCUDA() && !torch.IsCUDAAvailable() {
		return device, fmt.Errorf("--device %s: %w: no CUDA device can be used; `torchvit doctor` says what is there, --device cpu works without", a.device, torch.ErrDevice)
	}
	if _, _, err := device.Codes(); err != nil {
		return device, fmt.Errorf("--device %s: %w", a.device, err)
	}
	return device, nil
}

// precisionFlag adds --precision to a command that runs a model.
func (a *app) precisionFlag(cmd *cobra.Command) {
	cmd.Flags().TextVar(&a.precision, "precision", torch.PrecisionExact,
		"exact: Python's bits; fast: float32 on the fastest kernels; bfloat16: matrices in bfloat16 (slow without AVX512_BF16)")
	_ = cmd.RegisterFlagCompletionFunc("precision", cobra.FixedCompletions([]string{"exact", "fast", "bfloat16"}, cobra.ShellCompDirectiveNoFileComp))
}

// note prints, once for each model file, what its precision's rewrite says of itself.
func (a *app) note(path string) func(string) {
	return func(note string) { fmt.Fprintf(a.stderr, "torchvit: %s: precision %s: %s\n", path, a.precision, note) }
}

// printJSON writes one indented JSON value.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
