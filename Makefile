# Few verbs:
#   make demo    set up, run the demo on real photos, name the pictures it wrote
#   make test    set up, then every check and test (test-unit, test-race, test-asan, test-gc, fuzz)
#   make pictures  the demo, and the README's picture and figures from it
#   make check   formatting and linters only
#   make bench   Go beside Python, ONNX Runtime and OpenVINO, into docs/benchmarks.md; BENCH_ARGS of scripts/bench.py
#   make bench-go  the packages' own benchmarks; BENCH=regexp chooses, COUNT=n repeats
#   make fmt     format Go, C++ and Python
#   make build   bin/torchvit and the shim
#   make cuda    the tests that need a GPU, and the benchmarks there; fails where there is none
#   make compat  the boundary tests against torch 2.11, in an environment of its own
#   make clean   remove what was built, but not the virtual environments and the cache
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := build

GO ?= go
PYTHON ?= python3
VENV := .venv
# Where the recipes look for libtorch; each can be named from outside.
export TORCHVIT_LIBTORCH ?= $(CURDIR)/$(VENV)

hash = $(firstword $(shell cat $(1) 2>/dev/null | sha256sum | cut -c1-16))

# --- set-up; every step is skipped where its stamp says that nothing changed ---

VENV_STAMP := $(VENV)/.torchvit-run-$(call hash,scripts/requirements.txt)
DEV_STAMP := $(VENV)/.torchvit-dev-$(call hash,scripts/requirements.txt scripts/requirements-dev.txt)
PARITY_STAMP := $(VENV)/.torchvit-parity-$(call hash,scripts/requirements.txt scripts/requirements-parity.txt)
MODEL_SOURCES := $(sort $(wildcard scripts/*.py scripts/models/*.py)) scripts/requirements.txt
MODEL_STAMP := testdata/generated/.stamp-$(call hash,$(MODEL_SOURCES))

$(VENV_STAMP):
	@echo "== Python environment (the first time it fetches 5 GB of wheels)"
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV) || { \
		echo "make: cannot create $(VENV): install Python's venv (Debian: apt install python3-venv)" >&2; exit 1; }
	$(VENV)/bin/pip install --disable-pip-version-check -q -r scripts/requirements.txt
	@rm -f $(VENV)/.torchvit-run-*
	@touch $@

$(DEV_STAMP): $(VENV_STAMP)
	$(VENV)/bin/pip install --disable-pip-version-check -q -r scripts/requirements.txt -r scripts/requirements-dev.txt
	@rm -f $(VENV)/.torchvit-dev-*
	@touch $@

$(PARITY_STAMP): $(VENV_STAMP)
	$(VENV)/bin/pip install --disable-pip-version-check -q -r scripts/requirements.txt -r scripts/requirements-parity.txt
	@rm -f $(VENV)/.torchvit-parity-*
	@touch $@

$(MODEL_STAMP): $(PARITY_STAMP)
	@echo "== test models"
	$(VENV)/bin/python scripts/export_parity_models.py --out testdata/generated
	@rm -f testdata/generated/.stamp-*
	@touch $@

.PHONY: build binary models
binary:
	@$(GO) build -o bin/torchvit ./cmd/torchvit

build: $(VENV_STAMP) binary
	@bin/torchvit setup

models: $(MODEL_STAMP)

# --- the verbs ---

.PHONY: demo
demo: build
	@scripts/demo.sh

.PHONY: pictures
pictures: demo
	$(VENV)/bin/python scripts/readme_pictures.py

.PHONY: test test-unit test-race test-asan test-gc fuzz
test: check test-unit test-race test-asan test-gc fuzz
	@echo "make test: all passed"

# Two packages at a time: libtorch uses every core by itself, but a test mostly one. Threads that wait must not spin.
GO_TEST = OMP_WAIT_POLICY=passive $(GO) test -p 2
test-unit: build models
	@echo "== tests"
	$(GO_TEST) -timeout 30m ./...

# Packages that reach libtorch, or share memory between goroutines. The root's
# tests build other modules, which the race detector does not change.
PACKAGES = $(shell $(GO) list ./... | grep -vx 'github.com/torchvit/torchvit')
test-race: build models
	@echo "== race detector"
	$(GO_TEST) -race -short -timeout 30m $(PACKAGES)

# The shim is compiled with AddressSanitizer too, and LeakSanitizer reports at exit.
ASAN_PACKAGES ?= ./cgo ./torch/... ./transforms/...
test-asan: build models
	@echo "== address and leak sanitizer"
	bin/torchvit setup --asan
	$(GO_TEST) -asan -short -timeout 30m $(ASAN_PACKAGES)

# A collection at nearly every allocation, and freed memory overwritten: a
# handle or a pin that is let go too early shows.
GC_PACKAGES ?= ./cgo ./torch/...
test-gc: build models
	@echo "== life cycle under GOGC=1 and clobberfree"
	GOGC=1 GODEBUG=clobberfree=1 $(GO_TEST) -count=1 -short -timeout 30m $(GC_PACKAGES)

# A count, not a time: at the end of a time Go 1.26's coordinator can report
# "context deadline exceeded" as a failure (go.dev/issue/75804).
FUZZTIME ?= 2000x
fuzz: build models
	@echo "== fuzz targets, $(FUZZTIME) each"
	GO=$(GO) scripts/fuzz.sh $(FUZZTIME)

# The peers' environment sees torch and the rest in $(VENV): 320 MB in place of 5 GB.
BENCH_VENV := .venv-bench
BENCH_STAMP := $(BENCH_VENV)/.torchvit-$(call hash,scripts/requirements.txt scripts/requirements-bench.txt)
$(BENCH_STAMP): $(PARITY_STAMP)
	@echo "== environment of the benchmarks' peers"
	@test -x $(BENCH_VENV)/bin/pip || $(PYTHON) -m venv $(BENCH_VENV)
	@$(VENV)/bin/python -c 'import site; print(*site.getsitepackages(), sep="\n")' > \
		$$($(BENCH_VENV)/bin/python -c 'import site; print(site.getsitepackages()[0])')/torchvit.pth
	$(BENCH_VENV)/bin/pip install --disable-pip-version-check -q -r scripts/requirements-bench.txt
	@rm -f $(BENCH_VENV)/.torchvit-*
	@touch $@

BENCH_ARGS ?= --out docs/benchmarks.md
BENCH ?= .
COUNT ?= 1
.PHONY: bench bench-go
bench: build $(BENCH_STAMP)
	$(BENCH_VENV)/bin/python scripts/bench.py $(BENCH_ARGS)

bench-go: build models
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) -p 1 -timeout 60m $(PACKAGES)

TOOL = $(GO) tool -modfile=tools/go.mod
GO_FILES = $(shell git ls-files --cached --others --exclude-standard '*.go')
CXX_FILES = $(shell git ls-files --cached --others --exclude-standard 'cgo/*.cc' 'cgo/*.h' 'cgo/*.c')

GENERATED = $(wildcard cgo/*.go cgo/*.c cgo/*.h cgo/shim/*.h)

.PHONY: check fmt
check: $(DEV_STAMP)
	@echo "== checks"
	$(GO) vet ./...
	CGO_ENABLED=0 $(GO) vet ./...
	@unformatted=$$($(TOOL) gofumpt -l $(GO_FILES)); test -z "$$unformatted" || { \
		printf 'not formatted, run make fmt:\n%s\n' "$$unformatted" >&2; exit 1; }
	$(TOOL) staticcheck ./...
	$(GO) fix -diff ./...
	@before=$$(cat $(GENERATED) | sha256sum); $(GO) generate ./cgo; test "$$before" = "$$(cat $(GENERATED) | sha256sum)" || { \
		echo "generated files in cgo/ were stale and are new now: commit them" >&2; exit 1; }
	$(GO) mod tidy -diff
	$(VENV)/bin/ruff check scripts
	$(VENV)/bin/ruff format --check -q scripts
	$(VENV)/bin/clang-format --dry-run -Werror $(CXX_FILES)

fmt: $(DEV_STAMP)
	$(TOOL) gofumpt -w $(GO_FILES)
	$(VENV)/bin/ruff check --fix-only -q scripts
	$(VENV)/bin/ruff format -q scripts
	$(VENV)/bin/clang-format -i $(CXX_FILES)

# TORCHVIT_REQUIRE_CUDA makes the tests that would skip without a GPU fail.
.PHONY: cuda
cuda: build models $(BENCH_STAMP)
	TORCHVIT_REQUIRE_CUDA=1 $(GO) test -count=1 -p 1 -timeout 20m -run CUDA $(PACKAGES)
	$(BENCH_VENV)/bin/python scripts/bench.py --device cuda --batch 1 8 64

COMPAT := .venv-compat
COMPAT_STAMP := $(COMPAT)/.torchvit-$(call hash,scripts/requirements-compat.txt)
$(COMPAT_STAMP):
	@test -x $(COMPAT)/bin/pip || $(PYTHON) -m venv $(COMPAT)
	$(COMPAT)/bin/pip install --disable-pip-version-check -q -r scripts/requirements-compat.txt
	@rm -f $(COMPAT)/.torchvit-*
	@touch $@

.PHONY: compat
compat: export TORCHVIT_LIBTORCH := $(CURDIR)/$(COMPAT)
compat: export TORCHVIT_CACHE := $(CURDIR)/.cache-compat
compat: export TORCHVIT_PYTHON := $(CURDIR)/$(COMPAT)/bin/python
compat: $(COMPAT_STAMP) binary
	bin/torchvit setup
	bin/torchvit doctor
	$(GO) test -count=1 -p 1 -timeout 20m ./cgo/... ./torch/...

.PHONY: clean
clean:
	rm -rf bin demo .cache-compat
	@# What training made took hours.
	find testdata/generated -mindepth 1 -maxdepth 1 ! -name training ! -name scenes ! -name photos -exec rm -rf {} +
	$(GO) clean -testcache
