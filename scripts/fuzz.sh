#!/usr/bin/env bash
# Runs every fuzz target for a while: scripts/fuzz.sh [time a target]
set -euo pipefail
cd "$(dirname "$0")/.."

grep -rlE '^func Fuzz' --include='*_test.go' cmd daemon pkg | while read -r file; do
    grep -oE '^func Fuzz[A-Za-z0-9_]*' "$file" | while read -r _ target; do
        echo "== $target in $(dirname "$file")"
        go test -run=NONE -fuzz="^$target\$" -fuzztime="${1:-10s}" "./$(dirname "$file")" </dev/null
    done
done
