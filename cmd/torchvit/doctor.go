package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/cgo/install"
)

// threadPlan is how the flags and the machine divide the processors.
type threadPlan struct {
	GOMAXPROCS int `json:"gomaxprocs"`
	CPUs       int `json:"cpus"`
	Lanes      int `json:"lanes"`
	IntraOp    int `json:"intra_op"`
}

func newThreadPlan(a *app) threadPlan {
	p := threadPlan{GOMAXPROCS: runtime.GOMAXPROCS(0), CPUs: runtime.NumCPU(), Lanes: a.lanes, IntraOp: a.threads}
	if p.Lanes == 0 {
		p.Lanes = 1
	}
	if p.IntraOp == 0 {
		p.IntraOp = max(1, p.GOMAXPROCS/p.Lanes)
	}
	return p
}

func (p threadPlan) check() install.Check {
	c := install.Check{
		Name: "threads", State: install.OK,
		Found: fmt.Sprintf("%d lane(s) of %d intra-op thread(s), GOMAXPROCS %d, %d processor(s)", p.Lanes, p.IntraOp, p.GOMAXPROCS, p.CPUs),
	}
	if p.Lanes*p.IntraOp > p.CPUs {
		c.State, c.Do = install.Warning, "more threads than processors: lower --lanes or --threads"
	}
	return c
}

// doctorReport is what `doctor --json` prints.
type doctorReport struct {
	*install.Report
	Version string     `json:"version"`
	Threads threadPlan `json:"threads"`
}

func newDoctorCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what is there, what is wrong, and what to do",
		Long: "doctor looks at libtorch, its C++ standard, CUDA, the OpenMP runtime, the threads, torchvision's\n" +
			"libraries and the compiled shim. It changes nothing, and works where nothing is installed.\n" +
			"Its exit status is 1 where torchvit cannot run.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			plan := newThreadPlan(a)
			report := install.Diagnose(cmd.Context(), cgo.Sources(), install.Options{LibTorch: a.libTorch})
			report.Checks = append(report.Checks, plan.check())
			var err error
			if a.json {
				err = a.printJSON(doctorReport{Report: report, Version: version(), Threads: plan})
			} else {
				err = printReport(cmd.OutOrStdout(), report)
			}
			if err == nil && !report.Ready {
				err = errors.New("not ready: " + firstFailure(report))
			}
			return err
		},
	}
}

// firstFailure is what to mend first.
func firstFailure(r *install.Report) string {
	for _, c := range r.Checks {
		if c.State == install.Failure {
			if c.Do != "" {
				return c.Name + ": " + c.Do
			}
			return c.Name + ": " + c.Found
		}
	}
	return install.HowTo
}

func printReport(w io.Writer, r *install.Report) error {
	marks := map[install.State]string{install.OK: "ok", install.Info: "-", install.Warning: "WARN", install.Failure: "FAIL"}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range r.Checks {
		fmt.Fprintf(tw, "%s\t%s\t%s\n", marks[c.State], c.Name, c.Found)
		if c.Do != "" {
			fmt.Fprintf(tw, "\t\t-> %s\n", c.Do)
		}
	}
	return tw.Flush()
}
