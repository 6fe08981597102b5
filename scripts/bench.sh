#!/usr/bin/env bash
# Measures everything docs/bench/RESULTS.md says, on this machine: builds the gateway, the swarm and the bare server, gives
# each side a core, runs the cases and writes results.json, RESULTS.md and peak.svg. About 40 minutes for all of them.
# Usage: scripts/bench.sh [--quick] [--long] [--rounds N] [--out DIR] [--profile NAME] [CASE ...]; --help lists the cases.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'bench: %s\n' "$*" >&2; }

profile=release
cases=()
previous=
for word in "$@"; do
  case "$previous" in
    --profile) profile=$word ;;
    --out | --rounds) ;;
    *) case "$word" in -*) ;; *) cases+=("$word") ;; esac ;;
  esac
  previous=$word
done

missing=()
command -v cargo >/dev/null 2>&1 || { say "cargo is missing: install Rust as https://rustup.rs says"; exit 2; }
command -v cc >/dev/null 2>&1 || missing+=(gcc libc6-dev)
# The micro-benches count instructions.
if [ ${#cases[@]} = 0 ] || [[ " ${cases[*]} " == *" micro "* ]]; then
  counts=yes
  command -v valgrind >/dev/null 2>&1 || missing+=(valgrind)
else
  counts=
fi
if [ ${#missing[@]} -gt 0 ]; then
  say "missing here: apt-get install ${missing[*]}"
  exit 2
fi

say "building (profile $profile)"
cargo build --locked --quiet --workspace --profile "$profile" --bins --example bare --example suite
# Built now, so that no compiler runs beside a measurement.
[ -z "$counts" ] || cargo bench --locked --quiet --profile "$profile" --bench codec --bench fanout --no-run 2>/dev/null

# Where cargo puts the profiles it brings along; others have their own name.
case "$profile" in
  dev | test) folder=debug ;;
  bench) folder=release ;;
  *) folder=$profile ;;
esac
exec "${CARGO_TARGET_DIR:-target}/$folder/examples/suite" "$@"
