package install

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// What the CPU plan opens of libtorch itself.
var cpuPlan = []string{cpuLibrary, "libc10.so"}

// Libraries that a CPU plan never opens.
var (
	torchLibrary = regexp.MustCompile(`^lib(torch|c10)(_.*)?\.so$`)
	cudaLibrary  = regexp.MustCompile(`^lib(cu|nv|c10_cuda|torch_cuda).*\.so`)
)

// neededStubs lists the libraries that torchvision's libraries name as
// dependencies and the CPU plan does not open: libtorch.so, libtorch_cuda.so,
// libc10_cuda.so, and a CUDA library that cannot be found at all.
func (t *LibTorch) neededStubs() ([]string, error) {
	var stubs []string
	cpu, err := readLibrary(filepath.Join(t.LibDir, cpuLibrary))
	if err != nil {
		return nil, err
	}
	for _, path := range []string{t.TorchvisionOps, t.TorchvisionImage} {
		if path == "" {
			continue
		}
		lib, err := readLibrary(path)
		if err != nil {
			return nil, err
		}
		for _, name := range lib.needed {
			missing := torchLibrary.MatchString(name) && !slices.Contains(cpuPlan, name) ||
				cudaLibrary.MatchString(name) && lib.find(name) == "" && cpu.find(name, t.LibDir) == ""
			if missing && !slices.Contains(stubs, name) {
				stubs = append(stubs, name)
			}
		}
	}
	slices.Sort(stubs)
	return stubs, nil
}

// stubSymbols lists, for each stub, the symbols that torchvision's libraries
// want from the library it stands for and that no library of the CPU plan has.
// The linker asks for them only where it binds at once (LD_BIND_NOW, -z now),
// and nothing on the CPU calls them.
func (t *LibTorch) stubSymbols(stubs []string) (map[string][]string, error) {
	wanted := map[string]bool{}
	for _, path := range []string{t.TorchvisionOps, t.TorchvisionImage} {
		if path == "" {
			continue
		}
		names, err := imports(path)
		if err != nil {
			return nil, err
		}
		for name := range names {
			wanted[name] = true
		}
	}
	for _, lib := range cpuPlan {
		there, err := exports(filepath.Join(t.LibDir, lib))
		if err != nil {
			return nil, err
		}
		for name := range there {
			delete(wanted, name)
		}
	}
	symbols := map[string][]string{}
	for _, stub := range stubs {
		path := filepath.Join(t.LibDir, stub)
		if !isFile(path) {
			continue
		}
		there, err := exports(path)
		if err != nil {
			return nil, err
		}
		for _, name := range sortedKeys(wanted) {
			if there[name] {
				symbols[stub] = append(symbols[stub], name)
				delete(wanted, name)
			}
		}
	}
	return symbols, nil
}

func (b *build) compileStubs(ctx context.Context) error {
	stubs, err := b.torch.neededStubs()
	if err != nil {
		return err
	}
	symbols, err := b.torch.stubSymbols(stubs)
	if err != nil {
		return err
	}
	for _, stub := range stubs {
		if err := b.compileC(ctx, stubSource(symbols[stub]), filepath.Join(b.dir, stubsName, stub), stub); err != nil {
			return err
		}
	}
	return nil
}

// stubSource defines each symbol as a function that traps.
func stubSource(symbols []string) string {
	var s strings.Builder
	s.WriteString("typedef int torchvit_stub;\n")
	for i, name := range symbols {
		fmt.Fprintf(&s, "__attribute__((visibility(\"default\"))) void torchvit_stub_%d(void) __asm__(%q);\n", i, name)
		fmt.Fprintf(&s, "void torchvit_stub_%d(void) { __builtin_trap(); }\n", i)
	}
	return s.String()
}
