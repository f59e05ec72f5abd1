#!/usr/bin/env bash
# Starts PgBouncer with the settings of the environment.
set -euo pipefail
shopt -s inherit_errexit
umask 077

readonly NAME=jeex-pgbouncer
# shellcheck source=deploy/images/lib.sh
source /usr/local/lib/jeex/lib.sh

readonly CONFIG=/etc/jeex/pgbouncer/pgbouncer.ini
readonly RUN=/run/pgbouncer
readonly PASSWORDS=/run/secrets/jeex/passwords
readonly TLS=/run/secrets/jeex/tls
readonly FILES=("$PASSWORDS"/jeex_{pooler,monitor} "$TLS"/{tls.crt,tls.key,ca.crt})

# Settings of the environment, by their name in the file, with the least and the most each may be.
readonly NUMBERS='
listen_port 1 65535
max_client_conn 1 100000
default_pool_size 1 10000
min_pool_size 0 10000
reserve_pool_size 0 10000
reserve_pool_timeout 0 3600
max_db_connections 1 10000
max_prepared_statements 1 100000
query_wait_timeout 1 3600
client_idle_timeout 0 86400
server_lifetime 1 86400
server_idle_timeout 1 86400'

main() {
  (($# == 0)) || fail 'it takes no arguments: settings go into the environment'
  [[ -w $RUN ]] || fail "$RUN cannot be written: mount a tmpfs there that uid $(id -u) may write"
  check_files
  local used
  used=$(fingerprint "${FILES[@]}")
  write_settings >"$RUN/settings.ini"
  write_databases >"$RUN/databases.ini"
  write_users || fail "the passwords in $PASSWORDS cannot be used: see above"
  on_change "$used" renew "${FILES[@]}" &
  exec pgbouncer "$CONFIG"
}

check_files() {
  local file
  for file in "${FILES[@]}"; do
    [[ -e $file ]] || fail "the file $file is missing: mount the secret that holds it"
    [[ -r $file ]] || fail "the file $file cannot be read by uid $(id -u): let group 10000 read it, and add that group"
  done
}

write_settings() {
  local key least most value address=${LISTEN_ADDR:-127.0.0.1}
  [[ $address =~ ^[0-9A-Za-z.:*-]+$ ]] || fail "LISTEN_ADDR: expected one address (for example 127.0.0.1)"
  echo "listen_addr = $address"
  while read -r key least most; do
    value=${key^^}
    value=${!value:-}
    [[ -n $value ]] || continue
    is_number "$value" "$least" "$most" || fail "${key^^}: expected a whole number from $least to $most"
    echo "$key = $value"
  done <<<"${NUMBERS#?}"
}

# is_number <text> <least> <most>
is_number() { [[ $1 =~ ^(0|[1-9][0-9]{0,8})$ ]] && (($1 >= $2 && $1 <= $3)); }

# `*` passes every database of the server through; roles are then asked for in `jeex`.
write_databases() {
  local host=${DATABASE_HOST:-postgres} port=${DATABASE_PORT:-5432} name=${DATABASE_NAME:-jeex} auth=jeex
  [[ $host =~ ^[0-9A-Za-z]([0-9A-Za-z.:-]{0,251}[0-9A-Za-z])?$ ]] ||
    fail 'DATABASE_HOST: expected one host name or address (for example postgres)'
  is_number "$port" 1 65535 || fail 'DATABASE_PORT: expected a port from 1 to 65535'
  [[ $name =~ ^([a-z_][a-z0-9_]{0,62}|\*)$ ]] ||
    fail 'DATABASE_NAME: expected a lower-case name (for example jeex), or * for all'
  [[ $name == '*' ]] || auth=$name
  echo '[databases]'
  echo "$auth = host=$host port=$port auth_dbname=$auth"
  [[ $name != '*' ]] || echo "* = host=$host port=$port auth_dbname=$auth"
}

# A quotation mark is doubled, as the file's format wants it.
write_users() {
  local file=$RUN/users.txt role password
  : >"$file.new"
  for role in jeex_pooler jeex_monitor; do
    password=$(<"$PASSWORDS/$role") || return 1
    if [[ ! $password =~ ^[\ -~]{12,200}$ ]]; then
      say "$PASSWORDS/$role: expected 12 to 200 printable ASCII characters"
      return 1
    fi
    printf '"%s" "%s"\n' "$role" "${password//\"/\"\"}" >>"$file.new"
  done
  mv "$file.new" "$file"
}

# A pair that does not fit together PgBouncer refuses by itself, with a line in the log, and keeps what it has.
renew() {
  write_users || return 1
  say 'passwords or certificates have changed: reloading'
  # The process that this one began as, which is PgBouncer by now.
  kill -HUP $$
}

main "$@"
