#!/bin/sh
# Told by keepalived whenever this box takes or loses the address (/etc/keepalived/moved.sh): KIND NAME STATE PRIORITY.
# A box that has lost it still holds every viewer's connection to its node, and nobody is at the other end any more. A node would notice
# after two heartbeats, and until then count each viewer twice. So nginx is started anew: the nodes see the end at once.
set -eu
state=${3:?usage: moved.sh KIND NAME STATE PRIORITY}
kept=${KEPT:-/run/danmaku-front.state}
before=$(cat "$kept" 2>/dev/null || echo none)
echo "$state" >"$kept"
# A log that cannot be written must not keep nginx from being started anew.
logger -t keepalived "$2: $before, now $state" || true
# A box that leaves (STOP) may have been MASTER too.
if [ "$before" = MASTER ] && [ "$state" != MASTER ]; then
  systemctl restart nginx
fi
