#!/usr/bin/env bash
# Runs every fuzz target of the module for a while: scripts/fuzz.sh [TIME], a count (2000x) or a
# duration (10m).
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
time=${1:-2000x}

count=0
for package in $("$go" list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...); do
  targets=$("$go" test -list '^Fuzz' "$package" | grep '^Fuzz' || true)
  for target in $targets; do
    echo "$package $target"
    "$go" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package"
    count=$((count + 1))
  done
done
if [ "$count" -eq 0 ]; then
  echo "fuzz: no fuzz target found" >&2
  exit 1
fi
echo "fuzz: $count targets, $time each"
