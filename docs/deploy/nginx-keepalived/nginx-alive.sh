#!/bin/sh
# keepalived's check (/etc/keepalived/nginx-alive.sh): whether the nginx of this box answers. It does not ask the nodes: they are the
# same for both boxes, and an address that moves because of them costs every viewer its connection for nothing.
exec curl -fsS -m 1 -o /dev/null "${NGINX_ALIVE:-http://127.0.0.1:8089/alive}"
