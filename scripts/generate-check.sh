#!/usr/bin/env bash
# Compares the committed BPF objects and Go with what the source makes now, and
# looks for instructions that kernel 5.10 does not know.
set -euo pipefail
cd "$(dirname "$0")/.."

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/pkg"
cp -r go.mod go.sum bpf "$tmp/"
cp -r pkg/datapath pkg/lb pkg/netns pkg/plan "$tmp/pkg/"
(cd "$tmp/pkg/datapath" && go generate .)
for made in "$tmp"/pkg/datapath/*_bpfel.*; do
    if ! cmp "$made" "pkg/datapath/$(basename "$made")"; then
        echo "generate-check: run make generate and commit the result" >&2
        exit 1
    fi
done
# Atomics whose result is read are 5.12 and later.
for object in pkg/datapath/*_bpfel.o; do
    if llvm-objdump-19 -d "$object" | grep -E 'atomic_fetch|xchg'; then
        echo "generate-check: $object has atomics that 5.10 does not know" >&2
        exit 1
    fi
done
echo "generate-check: the committed objects are what the source makes"
