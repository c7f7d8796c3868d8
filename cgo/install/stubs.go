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

const pythonLibrary = "libtorch_python.so"

// Libraries that a CPU plan never opens.
var (
	torchLibrary = regexp.MustCompile(`^lib(torch|c10)(_.*)?\.so$`)
	cudaLibrary  = regexp.MustCompile(`^lib(cu|nv|c10_cuda|torch_cuda).*\.so`)
)

// neededStubs lists the libraries that torchvision's libraries name as
// dependencies and the CPU plan does not open: libtorch.so, libtorch_cuda.so,
// libc10_cuda.so, libtorch_python.so, and a CUDA library that cannot be found at all.
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

// symbolSet is what a stub defines. Nothing on the CPU uses any of it.
type symbolSet struct {
	functions []string
	data      []string
}

// stubSymbols lists, for each stub, the symbols that torchvision's libraries
// want from the library it stands for and that no library of the CPU plan has.
// The linker asks for functions only where it binds at once (LD_BIND_NOW, -z
// now), and for data always. Older torchvisions want Python's types, too.
func (t *LibTorch) stubSymbols(stubs []string) (map[string]symbolSet, error) {
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
	symbols := map[string]symbolSet{}
	for _, stub := range stubs {
		path := filepath.Join(t.LibDir, stub)
		if !isFile(path) {
			continue
		}
		there, err := exports(path)
		if err != nil {
			return nil, err
		}
		var set symbolSet
		for _, name := range sortedKeys(wanted) {
			switch {
			case there[name]:
				set.functions = append(set.functions, name)
			case stub == pythonLibrary && (strings.HasPrefix(name, "Py") || strings.HasPrefix(name, "_Py")):
				set.data = append(set.data, name)
			default:
				continue
			}
			delete(wanted, name)
		}
		symbols[stub] = set
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

// stubSource defines functions that trap, and data that is zero.
func stubSource(symbols symbolSet) string {
	var s strings.Builder
	s.WriteString("typedef int torchvit_stub;\n")
	for i, name := range symbols.functions {
		fmt.Fprintf(&s, "__attribute__((visibility(\"default\"))) void torchvit_stub_%d(void) __asm__(%q);\n", i, name)
		fmt.Fprintf(&s, "void torchvit_stub_%d(void) { __builtin_trap(); }\n", i)
	}
	for i, name := range symbols.data {
		fmt.Fprintf(&s, "__attribute__((visibility(\"default\"))) char torchvit_data_%d[1024] __asm__(%q);\n", i, name)
	}
	return s.String()
}
