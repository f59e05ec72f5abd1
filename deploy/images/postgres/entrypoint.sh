#!/usr/bin/env bash
# Starts PostgreSQL 18. The first start makes the cluster; that one, and every start after a change of release or of
# passwords, prepares it for the service over the local socket, before anybody can reach it over the network.
set -euo pipefail
shopt -s inherit_errexit
umask 077

readonly NAME=jeex-postgres
# shellcheck source=deploy/images/lib.sh
source /usr/local/lib/jeex/lib.sh

readonly VOLUME=/var/lib/postgresql
readonly CONFIG=/etc/jeex/postgres
readonly RUN=/run/postgresql
readonly TLS=/run/secrets/jeex/tls
readonly MAJOR=18
readonly LEAST_MIB=256
# The mark of what the cluster was prepared with.
readonly MARK=$PGDATA/jeex-bootstrap

main() {
  (($# == 0)) || fail "it takes no arguments: settings go into files in $CONFIG/conf.d"
  trap 'stop_server; fail "stopped before it served; the next start goes on from here"' INT TERM
  check_account
  check_secrets
  check_volume
  lock_volume
  check_data
  write_memory_settings
  local used
  used=$(fingerprint "$TLS"/tls.{crt,key})
  copy_certificate || fail "the certificate in $TLS cannot be copied to $RUN: see above"
  [[ -d $PGDATA ]] || make_cluster
  # Under the lock no other server has this data or this socket: what these files name is an earlier container's.
  rm -f "$PGDATA/postmaster.pid" "$RUN"/.s.PGSQL.*
  is_prepared || prepare
  serve "$used"
}

check_account() {
  [[ $(id -un 2>/dev/null) == postgres ]] || fail "it runs as uid $(id -u): run it as uid 10001, which is postgres"
  [[ -w $RUN ]] || fail "$RUN cannot be written: mount a tmpfs there that uid $(id -u) may write"
}

check_secrets() {
  local file
  for file in "$PASSWORDS_DIR"/jeex_{owner,app} "$TLS"/tls.{crt,key}; do
    [[ -e $file ]] || fail "the file $file is missing: mount the secret that holds it"
    [[ -r $file ]] || fail "the file $file cannot be read by uid $(id -u): let group 10000 read it, and add that group"
  done
  # Both are public keys: the certificate's, and the key's own.
  [[ $(openssl x509 -in "$TLS/tls.crt" -noout -pubkey 2>&1) == "$(openssl pkey -in "$TLS/tls.key" -pubout 2>&1)" ]] ||
    fail "$TLS/tls.key is not the key of $TLS/tls.crt, or one of them is no PEM: renew them together"
}

check_volume() {
  mkdir -p "$(dirname "$PGDATA")" 2>/dev/null && [[ -w $(dirname "$PGDATA") ]] ||
    fail "the volume at $VOLUME cannot be written by uid $(id -u): chown it to 10001:10001 (Kubernetes: fsGroup 10000)"
  [[ ! -e $PGDATA || -O $PGDATA ]] ||
    fail "the data in $PGDATA belongs to uid $(stat -c %u "$PGDATA"), not $(id -u): chown -R it to 10001:10001"
}

# PostgreSQL's own lock knows a server by its process id, which is 1 in every container.
lock_volume() {
  exec 9>"$(dirname "$PGDATA")/.lock"
  flock --wait 5 9 || fail "another container uses the data in $PGDATA: stop that one first"
}

check_data() {
  local file
  for file in "$PGDATA/PG_VERSION" "$VOLUME"/{PG_VERSION,data/PG_VERSION,*/docker/PG_VERSION}; do
    [[ -f $file ]] || continue
    # Behind the newest cluster an old one may stay.
    [[ $(<"$file") != "$MAJOR" ]] || break
    fail "$(dirname "$file") holds data of PostgreSQL $(<"$file"), and this is $MAJOR: dump it with that release and" \
      "restore it here, or mount another volume"
  done
  # A volume's fsGroup may have opened it, which PostgreSQL refuses.
  [[ ! -d $PGDATA ]] || chmod 0700 "$PGDATA"
}

# The server demands a key of its own or of root's; a mounted one may be of anybody. What a copy cut short has left is
# replaced, although nobody may write it.
copy_certificate() {
  local name
  mkdir -p "$RUN/tls"
  for name in tls.crt tls.key; do
    cp --force "$TLS/$name" "$RUN/tls/$name.new" && mv "$RUN/tls/$name.new" "$RUN/tls/$name" || return 1
  done
}

# A pair that does not fit together the server refuses by itself, with a line in the log, and keeps what it has.
# shellcheck disable=SC2329 # on_change calls it
renew_certificate() {
  copy_certificate || return 1
  say 'the certificate has changed: reloading'
  kill -HUP "$server"
}

# Makes it beside its place, so that what was cut short is never taken for a whole one.
make_cluster() {
  say "making a cluster in $PGDATA"
  rm -rf "$PGDATA.new"
  initdb --pgdata="$PGDATA.new" --username=postgres --auth-local=peer --auth-host=scram-sha-256 --data-checksums \
    --encoding=UTF8 --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8 --no-instructions \
    --set=huge_pages=off >"$RUN/initdb.log" 2>&1 ||
    fail "initdb failed: $(grep -m 1 -iE 'error|fatal|could not' "$RUN/initdb.log" || tail -n 1 "$RUN/initdb.log")"
  mv -T "$PGDATA.new" "$PGDATA"
  sync "$(dirname "$PGDATA")"
}

# Bytes: the container's limit, or the machine's memory where there is none.
memory_limit() {
  local machine limit file
  machine=$(($(sed -n 's/^MemTotal: *\([0-9]*\) kB$/\1/p' /proc/meminfo) * 1024))
  for file in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do
    [[ -r $file ]] || continue
    limit=$(<"$file")
    if [[ $limit =~ ^[0-9]+$ ]] && ((limit < machine)); then machine=$limit; fi
  done
  echo "$machine"
}

# bounded <value> <least> <most>
bounded() { echo $(($1 < $2 ? $2 : $1 > $3 ? $3 : $1)); }

# What follows the memory limit; files in conf.d come later and win.
write_memory_settings() {
  local file=$RUN/memory.conf mib connections
  mib=$(($(memory_limit) >> 20))
  ((mib >= LEAST_MIB)) || fail "the memory limit is $mib MiB: give the container at least $LEAST_MIB MiB"
  : >"$file"
  : >"$RUN/postgresql.auto.conf"
  connections=$(setting max_connections) || fail "the configuration is wrong: mend the file in $CONFIG/conf.d named above"
  cat >"$file" <<CONF
shared_buffers = $((mib / 4))MB
effective_cache_size = $((mib * 7 / 10))MB
maintenance_work_mem = $(bounded $((mib / 16)) 16 1024)MB
autovacuum_work_mem = $(bounded $((mib / 32)) 16 256)MB
work_mem = $(bounded $((mib * 256 / connections)) 1024 65536)kB
CONF
  say "memory: $mib MiB, $connections connections: $(paste -sd ' ' "$file" | sed 's/ = /=/g')"
}

# What the configuration says; for that, a directory with the files it looks for does for a cluster.
setting() { postgres -D "$RUN" -c "config_file=$CONFIG/postgresql.conf" -C "$1"; }

# Hashed slowly and with a salt: the passwords are in it.
# mark <salt>
mark() {
  cat /opt/jeex/package.json /opt/jeex/src/db/role*.js "$CONFIG/server.sql" "$PASSWORDS_DIR"/* | sha256sum |
    openssl passwd -6 -salt "$1" -stdin
}

is_prepared() {
  local kept
  [[ -f $MARK ]] || return 1
  kept=$(<"$MARK")
  [[ $(mark "$(cut -d '$' -f 3 <<<"$kept")") == "$kept" ]]
}

prepare() {
  say 'preparing roles and database'
  # Of the files as they are before: one that changes meanwhile is for the next start.
  local made
  made=$(mark "$(openssl rand -hex 8)")
  start_server
  # The line above is on record for the hundred statements of the two.
  local -x PGOPTIONS='-c pgaudit.log=none -c client_min_messages=warning'
  local told
  told=$(bootstrap 2>&1) || {
    stop_server
    fail "the bootstrap failed: $(paste -sd ' ' <<<"$told")"
  }
  [[ -z $told ]] || say "$told"
  stop_server
  echo "$made" >"$MARK.new"
  mv "$MARK.new" "$MARK"
}

bootstrap() {
  jeex-persistence bootstrap >/dev/null &&
    psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --dbname=jeex --file="$CONFIG/server.sql"
}

server=''

# On the local socket alone.
start_server() {
  postgres -D "$PGDATA" -c "config_file=$CONFIG/postgresql.conf" -c listen_addresses= -c log_connections= \
    -c log_disconnections=off -c log_checkpoints=off &
  server=$!
  until [[ $(sed -n 8p "$PGDATA/postmaster.pid" 2>/dev/null) == ready* ]]; do
    kill -0 "$server" 2>/dev/null || fail 'PostgreSQL did not start: see its line above'
    sleep 0.1
  done
}

stop_server() {
  [[ -n $server ]] || return 0
  kill -INT "$server" 2>/dev/null || true
  wait "$server" || true
  server=''
}

# Not as process 1: that inherits what a probe or a visitor leaves behind, and PostgreSQL takes the death of any child for
# a crash of its own.
# serve <fingerprint of the certificate>
serve() {
  local signal
  postgres -D "$PGDATA" -c "config_file=$CONFIG/postgresql.conf" &
  server=$!
  for signal in INT TERM QUIT HUP; do
    # shellcheck disable=SC2064 # both are known now
    trap "kill -$signal $server 2>/dev/null || true" "$signal"
  done
  on_change "$1" renew_certificate "$TLS"/tls.{crt,key} &
  # A signal ends a wait, not the server; the last one gives the server's own exit code.
  while kill -0 "$server" 2>/dev/null; do wait "$server" || true; done
  wait "$server"
}

main "$@"
