#!/usr/bin/env bash
# A small cluster on this machine, on free ports: a redis-server, three gateways that share it, and nginx before them. Prints what to
# try, and ends everything it started on Ctrl-C. Usage: scripts/cluster.sh [--ready-file FILE]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

say() { printf 'cluster: %s\n' "$*" >&2; }

ready_file=
case "${1-}" in
  '') ;;
  --ready-file) ready_file=${2:?--ready-file wants a file} ;;
  *) say "$1 is no option; usage: scripts/cluster.sh [--ready-file FILE]"; exit 2 ;;
esac

# Debian keeps nginx where only root's path leads.
PATH=$PATH:/usr/sbin:/sbin
missing=()
command -v redis-server >/dev/null 2>&1 || missing+=(redis-server)
command -v nginx >/dev/null 2>&1 || missing+=(nginx)
if [ ${#missing[@]} -gt 0 ]; then
  say "missing here: apt-get install ${missing[*]}"
  exit 2
fi
if ! command -v cargo >/dev/null 2>&1; then
  say "cargo is missing: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml") or newer, as https://rustup.rs says"
  exit 2
fi
binary="${CARGO_TARGET_DIR:-$root/target}/release/danmaku"
[ -x "$binary" ] || say "the first build takes some minutes"
cargo build --release --locked --quiet --manifest-path "$root/Cargo.toml" --package danmaku-gateway --bin danmaku

folder=$(mktemp -d "${TMPDIR:-/tmp}/danmaku-cluster.XXXXXX")
started=()
end() {
  trap - EXIT INT TERM
  # Ends only what was started here. What is gone already, as a node that was killed to see what happens, is no reason to leave the rest.
  set +e
  kill "${started[@]}" 2>/dev/null
  # What stands still ends when it goes on.
  kill -CONT "${started[@]}" 2>/dev/null
  # A gateway drains first; a second signal, once it has seen the first, ends it at once.
  sleep 0.2
  kill "${started[@]}" 2>/dev/null
  wait
  rm -rf "$folder"
}
trap end EXIT
trap 'exit 0' INT TERM

# redis-server and nginx take no port 0: a port that was free a moment ago is tried, and another one if somebody was faster.
free_port() { echo $((20000 + RANDOM % 10000)); }
# Waits until somebody listens on a port, or the program that was to is gone.
comes_up() {
  local pid=$1 port=$2
  for _ in $(seq 50); do
    listens "$port" && break
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -0 "$pid" 2>/dev/null
}
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
wait_until() {
  local what=$1 tries=0
  shift
  until "$@"; do
    tries=$((tries + 1))
    if [ $tries -gt 100 ]; then
      say "$what did not start; its log:"
      cat "$folder/$what.log" >&2
      exit 1
    fi
    sleep 0.1
  done
}

redis_port=
for _ in 1 2 3 4 5; do
  port=$(free_port)
  listens "$port" && continue
  redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$folder" >"$folder/redis.log" 2>&1 &
  pid=$!
  if comes_up "$pid" "$port"; then
    started+=("$pid")
    redis_port=$port
    break
  fi
done
[ -n "$redis_port" ] || { say 'redis-server found no port'; cat "$folder/redis.log" >&2; exit 1; }

secret=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
key=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')
export DANMAKU_AUTH__SECRET=$secret DANMAKU_API_KEY=$key
for node in 1 2 3; do
  DANMAKU_LISTEN__PUBLIC=127.0.0.1:0 DANMAKU_LISTEN__INTERNAL=127.0.0.1:0 DANMAKU_SERVER__SHARDS=1 \
    DANMAKU_SERVER__NODE="node-$node" DANMAKU_REDIS__URL="redis://127.0.0.1:$redis_port" \
    DANMAKU_AUTH__ANONYMOUS=speak DANMAKU_AUTH__ORIGINS='*' \
    DANMAKU_ADMISSION__TRUSTED_PROXIES=127.0.0.1/32 \
    "$binary" --ready-file "$folder/node-$node.ready" >"$folder/node-$node.out" 2>"$folder/node-$node.log" &
  started+=("$!")
done
address() { sed -n "s/.*\"$2\":\"\([^\"]*\)\".*/\1/p" "$folder/node-$1.ready"; }
for node in 1 2 3; do
  wait_until "node-$node" test -s "$folder/node-$node.ready"
done

nginx_port=
for _ in 1 2 3 4 5; do
  port=$(free_port)
  listens "$port" && continue
  cat >"$folder/nginx.conf" <<CONF
daemon off;
pid $folder/nginx.pid;
error_log $folder/nginx.log;
worker_processes 1;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path $folder; proxy_temp_path $folder; fastcgi_temp_path $folder; uwsgi_temp_path $folder; scgi_temp_path $folder;
  map \$http_upgrade \$connection_upgrade { default upgrade; '' close; }
  upstream gateways { least_conn; server $(address 1 public); server $(address 2 public); server $(address 3 public); }
  server {
    listen 127.0.0.1:$port;
    location / {
      proxy_pass http://gateways;
      proxy_http_version 1.1;
      proxy_set_header Host \$http_host;
      proxy_set_header Upgrade \$http_upgrade;
      proxy_set_header Connection \$connection_upgrade;
      proxy_set_header X-Forwarded-For \$remote_addr;
      # Longer than the heartbeat: viewers that are only silent stay. Nothing is gathered before it is passed on.
      proxy_read_timeout 120s;
      proxy_buffering off;
      # A node that is full, drains or is cut off says 503: another one is asked.
      proxy_next_upstream error timeout http_503;
    }
  }
}
CONF
  nginx -c "$folder/nginx.conf" -e "$folder/nginx.log" -p "$folder" >"$folder/nginx.out" 2>&1 &
  pid=$!
  if comes_up "$pid" "$port"; then
    started+=("$pid")
    nginx_port=$port
    break
  fi
done
[ -n "$nginx_port" ] || { say 'nginx did not start:'; cat "$folder/nginx.out" "$folder/nginx.log" >&2; exit 1; }

is_ready() { curl -fsS -o /dev/null "http://$(address "$1" public)/readyz" 2>/dev/null; }
if command -v curl >/dev/null 2>&1; then
  for node in 1 2 3; do wait_until "node-$node" is_ready "$node"; done
fi

cat <<TEXT

Three gateways share a Redis; nginx stands before them.

  stage      http://127.0.0.1:$nginx_port/?room=1001         open it twice: two nodes, one room
  viewers    ws://127.0.0.1:$nginx_port/ws?room=1001
  node 1     ws://$(address 1 public)/ws?room=1001   internal http://$(address 1 internal)
  node 2     ws://$(address 2 public)/ws?room=1001   internal http://$(address 2 internal)
  node 3     ws://$(address 3 public)/ws?room=1001   internal http://$(address 3 internal)
  API key    $key

try:
  npx wscat -c 'ws://$(address 1 public)/ws?room=1001'
  curl -H 'Authorization: Bearer $key' --json '{"room":"1001","text":"said on node 3"}' http://$(address 3 internal)/api/v1/danmaku/push
  redis-cli -p $redis_port hgetall live:room:1001
  kill -STOP ${started[0]}     # Redis stands still: rooms go on, each node by itself; kill -CONT ${started[0]} brings it back
  kill -9 ${started[1]}        # a node dies: the others' counts are right again within 15 s

Logs are in $folder. Ctrl-C ends it all.
TEXT
if [ -n "$ready_file" ]; then
  printf '{"nginx":"127.0.0.1:%s","redis":"127.0.0.1:%s","api_key":"%s","nodes":["%s","%s","%s"],"internal":["%s","%s","%s"]}\n' \
    "$nginx_port" "$redis_port" "$key" "$(address 1 public)" "$(address 2 public)" "$(address 3 public)" \
    "$(address 1 internal)" "$(address 2 internal)" "$(address 3 internal)" >"$ready_file.tmp"
  mv "$ready_file.tmp" "$ready_file"
fi
# Until it is told to end. A node that is killed on purpose is no reason.
while :; do sleep 1 & wait $!; done
