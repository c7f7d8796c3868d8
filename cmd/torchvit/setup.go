package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/torchvit/torchvit/cgo"
	"github.com/torchvit/torchvit/cgo/install"
)

func newSetupCommand(a *app) *cobra.Command {
	var o install.Options
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Find libtorch and compile the shim for it",
		Long: "setup finds libtorch, compiles torchvit's shim against its headers, and records the choice.\n" +
			"It looks, in this order, at --libtorch or --python, " + install.EnvLibTorch + ", a .venv in the working folder\n" +
			"or above it, the python3 on PATH, and the system's folders. Programs use the last choice.\n" +
			"It takes up to a minute, and nothing the next time.",
		Example: "  torchvit setup\n" +
			"  torchvit setup --libtorch ~/envs/vit            # a virtual environment\n" +
			"  torchvit setup --output /opt/torchvit           # a folder for a container image; run with\n" +
			"                                                  # " + install.EnvLibTorch + "=/opt/torchvit",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Python != "" && a.libTorch != "" {
				return usagef("--python and --libtorch exclude each other")
			}
			o.LibTorch, o.Log = a.libTorch, cmd.ErrOrStderr()
			in, err := install.Setup(cmd.Context(), cgo.Sources(), o)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(in)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "ready: torch %s at %s, shim in %s\n", in.LibTorch.Version, in.LibTorch.Root, in.Dir)
			if o.Output != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "use it with %s=%s\n", install.EnvLibTorch, in.Dir)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Python, "python", "", "python interpreter whose torch to take")
	flags.StringVar(&o.Compiler, "compiler", "", "C++ compiler (default: $CXX, g++, clang++)")
	flags.StringVar(&o.Output, "output", "", "write a folder with all that a run on the CPU needs, for a container image")
	flags.BoolVar(&o.Force, "force", false, "compile even where a compiled shim is kept")
	flags.BoolVar(&o.ASan, "asan", false, "compile the shim with AddressSanitizer, for `go test -asan`")
	return cmd
}
