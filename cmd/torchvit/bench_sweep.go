package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// sweepSetting is a way to share out the cores.
type sweepSetting struct{ lanes, threads int }

// sweepSettings are one lane of 1, 2, 4 ... n threads, and 2, 4 ... n lanes that share n threads.
func sweepSettings(n int) []sweepSetting {
	var out []sweepSetting
	add := func(lanes, threads int) {
		if s := (sweepSetting{lanes, threads}); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	for k := 1; k < n; k *= 2 {
		add(1, k)
	}
	add(1, n)
	for k := 2; k < n; k *= 2 {
		add(k, n/k)
	}
	add(n, 1)
	return out
}

// sweepReport is what `bench --sweep --json` prints.
type sweepReport struct {
	Runs []*benchReport `json:"runs"`
	// Throughput and Latency are the runs with the most photos a second and the shortest median call.
	Throughput int `json:"best_throughput"`
	Latency    int `json:"best_latency"`
}

// sweep measures every setting in a process of its own: libtorch takes its threads once.
func (a *app) sweep(ctx context.Context, path string, flags *pflag.FlagSet) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	settings := sweepSettings(runtime.GOMAXPROCS(0))
	bar := a.newProgress(len(settings), "settings")
	defer bar.finish()
	var r sweepReport
	for i, s := range settings {
		args := []string{"bench", path, "--json", "--lanes", strconv.Itoa(s.lanes), "--threads", strconv.Itoa(s.threads)}
		flags.Visit(func(f *pflag.Flag) {
			if !slices.Contains([]string{"sweep", "json", "lanes", "threads"}, f.Name) {
				args = append(args, "--"+f.Name+"="+f.Value.String())
			}
		})
		var stdout, stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, self, args...)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
			said := strings.TrimPrefix(lines[len(lines)-1], "torchvit: ")
			switch code := cmd.ProcessState.ExitCode(); {
			case code == exitUsage:
				return usagef("%s", said)
			case code == exitError && said != "":
				return errors.New(said)
			}
			return fmt.Errorf("%d lanes of %d threads: %w", s.lanes, s.threads, err) // killed, for instance
		}
		if i == 0 {
			if _, err := stderr.WriteTo(a.stderr); err != nil {
				return err
			}
		}
		run := &benchReport{}
		if err := json.Unmarshal(stdout.Bytes(), run); err != nil {
			return fmt.Errorf("%d lanes of %d threads: %w", s.lanes, s.threads, err)
		}
		r.Runs = append(r.Runs, run)
		if run.Throughput > r.Runs[r.Throughput].Throughput {
			r.Throughput = i
		}
		if run.Median < r.Runs[r.Latency].Median {
			r.Latency = i
		}
		bar.add(1)
	}
	if a.json {
		return a.printJSON(r)
	}
	return r.print(a.stdout)
}

func (r sweepReport) print(w io.Writer) error {
	fmt.Fprintf(w, "%7s %8s %11s %11s %10s %10s\n", "--lanes", "--threads", "median, ms", "p95, ms", "photos/s", "peak")
	for i, run := range r.Runs {
		best := ""
		if i == r.Throughput {
			best += "  most photos"
		}
		if i == r.Latency {
			best += "  shortest call"
		}
		if _, err := fmt.Fprintf(w, "%7d %9d %11.2f %11.2f %10.1f %10s%s\n", len(run.Lanes), run.Lanes[0],
			1e3*run.Median, 1e3*run.P95, run.Throughput, bytesText(run.PeakRSS), best); err != nil {
			return err
		}
	}
	return nil
}
