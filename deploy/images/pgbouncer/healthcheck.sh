#!/usr/bin/env bash
# True when PgBouncer takes a connection and answers: the eight bytes are the protocol's GSSENCRequest, and `N`, not here,
# is the answer. A question for TLS that no handshake follows would be a warning in its log each time.
set -euo pipefail

[[ ${LISTEN_ADDR:-} == *[!0.:*]* ]] && address=$LISTEN_ADDR || address=127.0.0.1
exec 3<>"/dev/tcp/$address/${LISTEN_PORT:-6432}"
printf '\0\0\0\10\4\322\26\60' >&3
IFS= read -r -t 3 -n 1 answer <&3
[[ $answer == N ]]
