#!/usr/bin/env bash
# The demo: `make demo` calls it once torchvit is built and set up.
set -euo pipefail
cd "$(dirname "$0")/.."
bin/torchvit doctor
