package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/torchvit/torchvit/vit"
)

func newVerifyCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify MODEL...",
		Short: "Replay the answers that Python put into a model file",
		Long: "verify replays the calls that Python made when it exported the file, photos included, and compares\n" +
			"the answers. It demands equal bits where torch's version, the processor's maker and instruction\n" +
			"set, and the number of threads are those of the reference, and the file's tolerance elsewhere; it\n" +
			"says which, and why. It uses the reference's number of threads unless --threads says otherwise,\n" +
			"and the CPU unless --device does. Exit status 1 where an answer differs.",
		Example: "  torchvit verify vit_tiny.pt\n" +
			"  torchvit verify testdata/models/*.pt\n" +
			"  torchvit verify vit_tiny.pt --device cuda          # within the tolerance\n" +
			"  torchvit verify vit_tiny.pt --precision fast       # the same\n" +
			"  torchvit verify vit_tiny.pt --json | jq .ok",
		Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"pt", "pth", "ts"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			// libtorch's threads are settled when it is opened, before which the files are read.
			for _, path := range args {
				threads, err := vit.ReferenceThreads(path)
				if err != nil {
					return err
				}
				if a.threads == 0 {
					a.threads = threads
				}
			}
			if a.device == "" {
				a.device = "cpu"
			}
			device, err := a.open()
			if err != nil {
				return err
			}
			bar := a.answerProgress(len(args), "models")
			defer bar.finish()
			var failed []error
			for _, path := range args {
				report, err := vit.Verify(cmd.Context(), path, vit.Options{Device: device, Precision: a.precision, Note: a.note(path)})
				if err != nil {
					return err
				}
				if a.json {
					err = printLine(a.stdout, report)
				} else {
					err = printVerifyReport(a.stdout, report)
				}
				if err != nil {
					return err
				}
				failed = append(failed, report.Err())
				bar.add(1)
			}
			return errors.Join(failed...)
		},
	}
	a.precisionFlag(cmd)
	return cmd
}

func printVerifyReport(w io.Writer, r *vit.VerifyReport) error {
	fmt.Fprintln(w, r.Model)
	if r.Exact {
		fmt.Fprintf(w, "  equal bits demanded: %s\n", r.Why)
	} else {
		fmt.Fprintf(w, "  tolerance |got - want| <= %g + %g * |want|: %s\n", r.ATol, r.RTol, r.Why)
	}
	if r.By != "" {
		fmt.Fprintf(w, "  the reference was computed by %s through libtorch, not by Python\n", r.By)
	}
	outputs := 0
	for _, c := range r.Calls {
		fmt.Fprintf(w, "  %s(", c.Method)
		for i, in := range c.Inputs {
			if i > 0 {
				fmt.Fprint(w, ", ")
			}
			fmt.Fprint(w, in)
		}
		fmt.Fprintln(w, ")")
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, o := range c.Outputs {
			outputs++
			verdict, detail := "ok", fmt.Sprintf("%d of %d differ\tmax abs %s\tmax ULP %d", o.Different, o.NumEl, strconv.FormatFloat(float64(o.MaxAbs), 'g', 3, 64), o.MaxULP)
			if !o.OK {
				verdict = "DIFFERS"
			}
			if o.Problem != "" {
				detail = o.Problem
			}
			fmt.Fprintf(tw, "    %s\t%s\t%s %s\t%s\n", verdict, o.Name, o.DType, shapeText(o.Shape), detail)
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	verdict := "verified"
	if !r.OK {
		verdict = "FAILED"
	}
	_, err := fmt.Fprintf(w, "  %s: %d outputs of %d calls\n", verdict, outputs, len(r.Calls))
	return err
}
