#!/usr/bin/env bash
# Measures, on this machine, everything docs/bench/RESULTS.md says: builds the gateway, the swarm and the bare server, gives
# each side a core, runs the cases and writes results.json, RESULTS.md and peak.svg. All of them take about 50 minutes, those that are
# run only when they are named left out.
#
# Usage: scripts/bench.sh [OPTION ...] [CASE ...]
#
#   --quick         one run of everything, small and short: shows that the suite works, its figures say nothing
#   --long          200k holds for ten minutes instead of one
#   --rounds N      how many runs the medians are of [3]; of deaths and absence, how many there are [20, 10]
#   --out DIR       where the files go [docs/bench]; cases not named keep what stands there, if it is of this machine
#   --profile NAME  what cargo builds and what is measured [release]
#
# Ends with 0 if every bound was held, 1 if one was not, 2 if something could not be measured.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

say() { printf 'bench: %s\n' "$*" >&2; }

# The options above are the suite's own; here only what decides what is built, and a folder that is the caller's.
profile=release
arguments=()
cases=()
option=
for word in "$@"; do
  case "$option" in
    --profile) profile=$word ;;
    --out) [[ $word = /* ]] || word=$PWD/$word ;;
    --rounds) ;;
    *)
      case "$word" in
        --help | -h)
          sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
          printf '\nCases, all of them if none is named:\n\n'
          awk -F'"' '/^ *name: "/ { name = $2 } /^ *work: "/ { printf "  %-9s %s\n", name, $2 }' "$root/tests/bench/suite/cases.rs"
          exit 0
          ;;
        -*) ;;
        *) cases+=("$word") ;;
      esac
      ;;
  esac
  option=$word
  arguments+=("$word")
done

missing=()
if ! command -v cargo >/dev/null 2>&1; then
  say "cargo is missing: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml") or newer, as https://rustup.rs says"
  exit 2
fi
command -v cc >/dev/null 2>&1 || missing+=(gcc libc6-dev)
# The micro-benches count instructions.
counts=
if [ ${#cases[@]} = 0 ] || [[ " ${cases[*]} " == *" micro "* ]]; then
  counts=yes
  command -v valgrind >/dev/null 2>&1 || missing+=(valgrind)
fi
# So many cases want a Redis.
for case in "${cases[@]-nodes}"; do
  case "$case" in
    nodes | churn | dashboard | deaths | absence)
      command -v redis-server >/dev/null 2>&1 || missing+=(redis-server)
      break
      ;;
  esac
done
if [ ${#missing[@]} -gt 0 ]; then
  say "missing here: apt-get install ${missing[*]}"
  exit 2
fi

cd "$root"
say "building (profile $profile); the first time that takes some minutes"
cargo build --locked --quiet --workspace --profile "$profile" --bins --example bare --example suite
# Built now, so that no compiler runs beside a measurement.
[ -z "$counts" ] || cargo bench --locked --quiet --profile "$profile" --bench codec --bench fanout --no-run

# Where cargo puts the profiles it brings along; others have a folder of their own name.
case "$profile" in
  dev | test) folder=debug ;;
  bench) folder=release ;;
  *) folder=$profile ;;
esac
exec "${CARGO_TARGET_DIR:-target}/$folder/examples/suite" ${arguments[@]+"${arguments[@]}"}
