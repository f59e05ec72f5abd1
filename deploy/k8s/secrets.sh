#!/usr/bin/env bash
# Makes the secrets that an overlay needs, of random values that are kept nowhere else:
#
#   deploy/k8s/secrets.sh <namespace> [<file with the JSON Web Key Set that checks tokens>]
#
# What the namespace has already is left as it is. KUBECTL names another kubectl.
set -euo pipefail
umask 077

(($# == 1 || $# == 2)) || {
  echo "usage: $0 <namespace> [<jwks.json>]" >&2
  exit 2
}
readonly NAMESPACE=$1 JWKS=${2:-}
readonly ROLES=(jeex_owner jeex_app jeex_readonly jeex_monitor jeex_backup jeex_pooler)
FILES=$(mktemp -d)
trap 'rm -rf "$FILES"' EXIT

kube() { "${KUBECTL:-kubectl}" --namespace "$NAMESPACE" "$@"; }

# make <secret|configmap> <name> <option>...: unless it is there.
make() {
  local found
  found=$(kube get "$1" "$2" --ignore-not-found --output name)
  if [[ -n $found ]]; then
    echo "$found: kept"
  elif [[ $1 == secret ]]; then
    kube create secret generic "${@:2}"
  else
    kube create "$@"
  fi
}

mkdir "$FILES/passwords"
for role in "${ROLES[@]}"; do
  openssl rand -hex 24 | tr -d '\n' >"$FILES/passwords/$role"
done
printf '1:%s\n' "$(openssl rand -hex 32)" >"$FILES/keys"

make secret jeex-passwords --from-file="$FILES/passwords"
make secret jeex-encryption --from-file="keys=$FILES/keys"
[[ -z $JWKS ]] || make configmap jeex-auth --from-file="jwks.json=$JWKS"
