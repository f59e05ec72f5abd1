#!/usr/bin/env bash
# Makes the secrets of deploy/compose.yaml, for development alone: an authority with certificates, the roles' passwords,
# the encryption key, the key that signs tokens. Each container has a volume of its own, with what it needs and no more.
# Whatever is there and still good is kept; a certificate that ends within a week is made anew.
set -euo pipefail
umask 027

# One directory for each volume; compose.yaml says whose it is.
cd "${SECRETS_DIR:-/secrets}"
readonly LIFE_DAYS=90 RENEW_SECONDS=$((7 * 86400)) AUTHORITY_DAYS=3650
readonly ROLES=(jeex_owner jeex_app jeex_readonly jeex_monitor jeex_backup jeex_pooler)

# put FILE [MODE]: standard input becomes the file, whole or not at all.
put() {
  cat >"$1.new"
  chmod "${2:-0640}" "$1.new"
  mv "$1.new" "$1"
}

# make FILE COMMAND...: what the command prints becomes the file, unless there is one.
make() {
  [[ -s $1 ]] || "${@:2}" | put "$1"
}

# copy FILE TARGET: the target's file becomes the same.
copy() {
  cmp --silent "$1" "$2" || put "$2" <"$1"
}

# new_certificate OPTION...: openssl req, without what the system's configuration would add.
new_certificate() {
  openssl req -x509 -config <(printf '[req]\ndistinguished_name=name\n[name]\n') -noenc \
    -newkey ec -pkeyopt ec_paramgen_curve:P-256 "$@" 2> >(grep -v '^-----$' >&2)
}

# fits DIRECTORY: its certificate has its key, is the authority's, and does not end soon.
fits() {
  [[ -s $1/tls.crt && -s $1/tls.key ]] &&
    openssl x509 -in "$1/tls.crt" -noout -checkend "$RENEW_SECONDS" >/dev/null &&
    openssl verify -CAfile authority/ca.crt "$1/tls.crt" >/dev/null 2>&1 &&
    cmp --silent <(openssl x509 -in "$1/tls.crt" -noout -pubkey) <(openssl pkey -in "$1/tls.key" -pubout)
}

# issue CONSUMER NAMES [KEY-MODE]: a server's certificate for these names.
issue() {
  local directory=$1/tls
  mkdir -p "$directory"
  copy authority/ca.crt "$directory/ca.crt"
  if fits "$directory"; then
    echo "certificate of $1: kept"
    return
  fi
  new_certificate -CA authority/ca.crt -CAkey authority/ca.key -days "$LIFE_DAYS" -subj "/CN=JEEX development: $1" \
    -addext basicConstraints=critical,CA:FALSE -addext keyUsage=critical,digitalSignature \
    -addext extendedKeyUsage=serverAuth -addext "subjectAltName=$2" \
    -keyout "$directory/new.key" -out "$directory/new.crt"
  put "$directory/tls.key" "${3:-0640}" <"$directory/new.key"
  put "$directory/tls.crt" <"$directory/new.crt"
  rm "$directory"/new.{key,crt}
  echo "certificate of $1: new, for $LIFE_DAYS days"
}

# hand CONSUMER ROLE...: the passwords of these roles.
hand() {
  mkdir -p "$1/passwords"
  for role in "${@:2}"; do copy "postgres/passwords/$role" "$1/passwords/$role"; done
}

if ! openssl x509 -in authority/ca.crt -noout -checkend "$RENEW_SECONDS" >/dev/null 2>&1; then
  new_certificate -days "$AUTHORITY_DAYS" -subj '/CN=JEEX development authority' \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
    -keyout authority/ca.key -out authority/new.crt
  mv authority/new.crt authority/ca.crt
  echo 'authority: new'
fi
# PostgreSQL takes a key that its own user owns with this mode alone.
issue postgres DNS:postgres 0600
issue pgbouncer DNS:localhost,IP:127.0.0.1
issue service DNS:localhost,IP:127.0.0.1,IP:::1,DNS:persistence

mkdir -p postgres/passwords
for role in "${ROLES[@]}"; do make "postgres/passwords/$role" openssl rand -hex 24; done
hand pgbouncer jeex_pooler jeex_monitor
hand service jeex_app jeex_monitor
hand owner jeex_owner

mkdir -p owner/tls service/encryption service/auth
copy authority/ca.crt owner/tls/ca.crt
copy authority/ca.crt caller/ca.crt
encryption_key() { echo "1:$(openssl rand -hex 32)"; }
make service/encryption/keys encryption_key

# The command makes the keys with its first token, for whoever has the user that runs it.
DATA_DIR=caller jeex-persistence token --sub setup --scope read --ttl 1s --json >/dev/null
chmod 0750 caller/auth
chmod 0640 caller/auth/{key,jwks}.json
copy caller/auth/jwks.json service/auth/jwks.json
echo 'passwords, encryption key and token keys: there'
