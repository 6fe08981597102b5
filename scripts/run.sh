#!/usr/bin/env bash
# Builds the gateway in release, if anything has changed, and runs it with every descriptor this user may have. Arguments are
# the gateway's own: scripts/run.sh --config danmaku.toml, scripts/run.sh doctor, scripts/run.sh --help
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

say() { printf 'run: %s\n' "$*" >&2; }

if ! command -v cargo >/dev/null 2>&1; then
  say "cargo is missing: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml") or newer, as https://rustup.rs says"
  exit 1
fi
# The C parts of the TLS library's cryptography need a compiler.
if ! command -v cc >/dev/null 2>&1; then
  say "a C compiler is missing: apt-get install gcc libc6-dev"
  exit 1
fi

binary="${CARGO_TARGET_DIR:-$root/target}/release/danmaku"
[ -x "$binary" ] || say "the first build takes some minutes"
cargo build --release --locked --quiet --manifest-path "$root/Cargo.toml" --package danmaku-gateway --bin danmaku

# Every viewer is a descriptor, and the usual soft limit of 1,024 is met as "it stops accepting".
soft=$(ulimit -Sn)
hard=$(ulimit -Hn)
[ "$hard" != unlimited ] || hard=$(cat /proc/sys/fs/nr_open 2>/dev/null || echo 1048576)
if [ "$soft" != "$hard" ] && ulimit -Sn "$hard" 2>/dev/null; then
  say "descriptor limit raised from $soft to $hard, the most this user may have"
else
  say "descriptor limit: $(ulimit -Sn)"
fi
say "$binary $*"
exec "$binary" "$@"
