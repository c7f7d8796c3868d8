package install

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const cpuLibrary = "libtorch_cpu.so"

// locate turns a folder that a person may name (a torch package, a libtorch
// folder, a virtual environment, a site-packages folder, /usr) into the root
// of a libtorch and the folder of its libraries.
func locate(dir string) (root, libDir string, err error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", "", err
	}
	if !isDir(abs) {
		return "", "", fmt.Errorf("%w: %s is not a folder", ErrNotFound, dir)
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	roots := []string{abs, filepath.Join(abs, "torch")}
	for _, lib := range []string{"lib", "lib64"} {
		found, _ := filepath.Glob(filepath.Join(abs, lib, "python3*", "site-packages", "torch"))
		roots = append(roots, found...)
	}
	for _, root := range roots {
		libs := []string{"lib", "lib64"}
		multiarch, _ := filepath.Glob(filepath.Join(root, "lib", "*-linux-gnu"))
		for _, dir := range multiarch {
			libs = append(libs, filepath.Join("lib", filepath.Base(dir)))
		}
		for _, lib := range libs {
			libDir := filepath.Join(root, lib)
			if isFile(filepath.Join(libDir, cpuLibrary)) {
				return root, libDir, nil
			}
		}
	}
	return "", "", fmt.Errorf("%w: %s holds no lib/%s", ErrNotFound, dir, cpuLibrary)
}

// probe reads all that setup has to know of the libtorch at dir, from files
// alone: torch is never imported.
func probe(dir, source string) (LibTorch, error) {
	root, libDir, err := locate(dir)
	if err != nil {
		return LibTorch{}, err
	}
	t := LibTorch{Root: root, LibDir: libDir, Source: source}
	if err := t.readVersion(); err != nil {
		return LibTorch{}, err
	}
	t.CXXStandard = 17
	if major, minor := majorMinor(t.Version); major > 2 || major == 2 && minor >= 13 {
		t.CXXStandard = 20
	}
	include := filepath.Join(root, "include")
	if !isFile(filepath.Join(include, "torch", "script.h")) {
		return LibTorch{}, fmt.Errorf("%w: torch %s at %s has no headers (include/torch/script.h): take the PyPI wheel or the libtorch archive",
			ErrNotFound, t.Version, root)
	}
	if include != "/usr/include" { // the compiler's own, which must not be named twice
		t.IncludeDirs = append(t.IncludeDirs, include)
	}
	t.IncludeDirs = append(t.IncludeDirs, filepath.Join(include, "torch", "csrc", "api", "include"))

	if t.CXX11ABI, err = hasCXX11ABI(filepath.Join(libDir, "libc10.so")); err != nil {
		return LibTorch{}, fmt.Errorf("%w: torch %s at %s: %w", ErrNotFound, t.Version, root, err)
	}
	cpu, err := readLibrary(filepath.Join(libDir, cpuLibrary))
	if err != nil {
		return LibTorch{}, fmt.Errorf("%w: torch %s at %s: %w", ErrNotFound, t.Version, root, err)
	}
	for _, name := range cpu.needed {
		if strings.HasPrefix(name, "libgomp") || strings.HasPrefix(name, "libiomp") || strings.HasPrefix(name, "libomp") {
			t.OpenMP = cpu.find(name, libDir)
		}
	}
	t.readTorchvision()
	t.readCUDA()
	return t, nil
}

var pythonString = regexp.MustCompile(`(?m)^(\w+)\b[^=\n]*=\s*['"]([^'"]*)['"]`)

// pythonStrings reads the assignments of string literals in a version.py.
func pythonStrings(path string) map[string]string {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	values := map[string]string{}
	for _, m := range pythonString.FindAllStringSubmatch(string(text), -1) {
		values[m[1]] = m[2]
	}
	return values
}

var headerVersion = regexp.MustCompile(`#define\s+TORCH_VERSION\s*\\?\s*"([^"]+)"`)

// readVersion reads version.py of a wheel, build-version of an archive, or the
// header of a distribution's package.
func (t *LibTorch) readVersion() error {
	if values := pythonStrings(filepath.Join(t.Root, "version.py")); values["__version__"] != "" {
		t.Version, t.CUDAVersion = values["__version__"], values["cuda"]
		return nil
	}
	if text, err := os.ReadFile(filepath.Join(t.Root, "build-version")); err == nil {
		t.Version = strings.TrimSpace(string(text))
	} else {
		for _, header := range []string{"torch/headeronly/version.h", "torch/csrc/api/include/torch/version.h"} {
			text, _ := os.ReadFile(filepath.Join(t.Root, "include", header))
			if m := headerVersion.FindSubmatch(text); m != nil {
				t.Version = string(m[1])
				break
			}
		}
	}
	if t.Version == "" {
		return fmt.Errorf("%w: %s holds %s but says nowhere which version it is", ErrNotFound, t.Root, cpuLibrary)
	}
	if isFile(filepath.Join(t.LibDir, "libtorch_cuda.so")) {
		t.CUDAVersion = "unknown"
		if _, tag, ok := strings.Cut(t.Version, "+cu"); ok && len(tag) >= 3 {
			t.CUDAVersion = tag[:len(tag)-1] + "." + tag[len(tag)-1:]
		}
	}
	return nil
}

// majorMinor reads "2.15.0+cu132" as 2, 15.
func majorMinor(version string) (major, minor int) {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return 0, 0
	}
	major, _ = strconv.Atoi(parts[0])
	minor, _ = strconv.Atoi(parts[1])
	return major, minor
}

func (t *LibTorch) readTorchvision() {
	dir := filepath.Join(filepath.Dir(t.Root), "torchvision")
	t.TorchvisionVersion = pythonStrings(filepath.Join(dir, "version.py"))["__version__"]
	// The stable-ABI libraries of newer releases come first.
	for _, name := range []string{"_C_stable.so", "_C.so"} {
		if path := filepath.Join(dir, name); t.TorchvisionOps == "" && isFile(path) {
			t.TorchvisionOps = path
		}
	}
	for _, name := range []string{"image_stable.so", "image.so"} {
		if path := filepath.Join(dir, name); t.TorchvisionImage == "" && isFile(path) {
			t.TorchvisionImage = path
		}
	}
}

// cudaHeaders are those that ATen's CUDA headers include, one of each package.
var cudaHeaders = []string{"cuda_runtime_api.h", "crt/host_config.h", "nv/target", "cublas_v2.h", "cusparse.h", "cusolverDn.h"}

// readCUDA finds the CUDA headers and libraries of NVIDIA's wheels, which sit
// beside torch, or those of a toolkit. The wheels that torch 2.15 depends on
// lack crt/host_config.h; Triton's, which it depends on too, has it. Those of
// torch 2.11 lack nv/target too, so that there is no CUDA side library there.
func (t *LibTorch) readCUDA() {
	if t.CUDAVersion == "" || !isFile(filepath.Join(t.LibDir, "libtorch_cuda.so")) {
		return
	}
	site := filepath.Dir(t.Root)
	glob := func(patterns ...string) (found []string) {
		for _, pattern := range patterns {
			dirs, _ := filepath.Glob(pattern)
			found = append(found, dirs...)
		}
		return found
	}
	wheels := filepath.Join(site, "nvidia", "*")
	for _, dirs := range [][2][]string{
		{
			glob(filepath.Join(wheels, "include"), filepath.Join(wheels, "include", "cccl"), filepath.Join(site, "triton/backends/nvidia/include")),
			glob(filepath.Join(wheels, "lib")),
		},
		{glob("/usr/local/cuda/include", "/usr/local/cuda/include/cccl"), glob("/usr/local/cuda/lib64")},
	} {
		includes := dirs[0]
		missing := slices.ContainsFunc(cudaHeaders, func(header string) bool {
			return !slices.ContainsFunc(includes, func(dir string) bool { return isFile(filepath.Join(dir, header)) })
		})
		if !missing {
			t.CUDAIncludeDirs, t.CUDALibDirs = includes, dirs[1]
			return
		}
	}
}

// hasCXX11ABI says whether libc10 was compiled with libstdc++'s new strings.
func hasCXX11ABI(path string) (bool, error) {
	symbols, err := exports(path)
	if err != nil {
		return false, err
	}
	for name := range symbols {
		if strings.Contains(name, "__cxx11") {
			return true, nil
		}
	}
	return false, nil
}

// library is what the dynamic linker would read of a shared library.
type library struct {
	path   string
	needed []string
	dirs   []string // DT_RPATH and DT_RUNPATH, with $ORIGIN put in
}

func readLibrary(path string) (*library, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, notELF(path, err)
	}
	defer f.Close()
	lib := &library{path: path}
	if lib.needed, err = f.ImportedLibraries(); err != nil {
		return nil, notELF(path, err)
	}
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		paths, _ := f.DynString(tag)
		for _, list := range paths {
			for dir := range strings.SplitSeq(list, ":") {
				dir = strings.NewReplacer("$ORIGIN", filepath.Dir(path), "${ORIGIN}", filepath.Dir(path)).Replace(dir)
				lib.dirs = append(lib.dirs, filepath.Clean(dir))
			}
		}
	}
	return lib, nil
}

// find is the file that a dependency resolves to, in the library's own path
// and in extra, "" where it is the system's.
func (l *library) find(name string, extra ...string) string {
	for _, dir := range slices.Concat(l.dirs, extra) {
		if path := filepath.Join(dir, name); isFile(path) {
			return path
		}
	}
	return ""
}

// exports is the set of symbols that a library defines.
func exports(path string) (map[string]bool, error) {
	return dynamicSymbols(path, func(s elf.Symbol) bool { return s.Section != elf.SHN_UNDEF })
}

// imports is the set of symbols that a library must find elsewhere.
func imports(path string) (map[string]bool, error) {
	return dynamicSymbols(path, func(s elf.Symbol) bool {
		return s.Section == elf.SHN_UNDEF && elf.ST_BIND(s.Info) == elf.STB_GLOBAL
	})
}

func dynamicSymbols(path string, want func(elf.Symbol) bool) (map[string]bool, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, notELF(path, err)
	}
	defer f.Close()
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return nil, notELF(path, err)
	}
	names := make(map[string]bool, len(symbols))
	for _, s := range symbols {
		if want(s) {
			names[s.Name] = true
		}
	}
	return names, nil
}

func notELF(path string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return err
	}
	return fmt.Errorf("%s is not a shared library (damaged?): %w", path, err)
}
