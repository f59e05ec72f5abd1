#!/usr/bin/env bash
# True for a server that takes connections over TLS 1.3, and neither for one that is being prepared (it has no address
# yet) nor for one that recovers. It sends no start packet, so that the server logs nothing.
set -euo pipefail

[[ $(sed -n 8p "$PGDATA/postmaster.pid") == ready* ]]
openssl s_client -starttls postgres -tls1_3 -connect 127.0.0.1:5432 </dev/null >/dev/null 2>&1
