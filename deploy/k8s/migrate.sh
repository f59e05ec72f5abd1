#!/usr/bin/env bash
# Runs `jeex-persistence migrate` in a pod like those that migrate for the Deployment, and ends with its exit code:
#
#   deploy/k8s/migrate.sh <namespace> <image> plan
#   deploy/k8s/migrate.sh <namespace> <image> up --i-have-a-backup
#   deploy/k8s/migrate.sh <namespace> <image> down --to 13
#
# The image is the release whose migrations are meant; all else is as the Deployment has it. KUBECTL names another kubectl.
set -euo pipefail

(($# >= 3)) || {
  echo "usage: $0 <namespace> <image> <command of migrate> [<option>...]" >&2
  exit 2
}
readonly NAMESPACE=$1 IMAGE=$2 NAME=jeex-migrate-$RANDOM$RANDOM
shift 2

kube() { "${KUBECTL:-kubectl}" --namespace "$NAMESPACE" "$@"; }

# of <path>: what the Deployment's pods have there, as JSON.
of() {
  local found
  found=$(kube get deployment jeex-persistence --output "jsonpath={.spec.template.spec$1}")
  [[ -n $found ]] || {
    echo "the Deployment jeex-persistence in $NAMESPACE has no $1" >&2
    return 1
  }
  printf '%s' "$found"
}

readonly MIGRATE='.initContainers[?(@.name=="migrate")]'
env=$(of "$MIGRATE.env")
resources=$(of "$MIGRATE.resources")
context=$(of "$MIGRATE.securityContext")
mounts=$(of "$MIGRATE.volumeMounts")
pod_context=$(of .securityContext)
account=$(of .serviceAccountName)
passwords=$(of '.volumes[?(@.name=="migrate-passwords")]')
tls=$(of '.volumes[?(@.name=="migrate-tls")]')
tmp=$(of '.volumes[?(@.name=="migrate-tmp")]')

kube run "$NAME" --image="$IMAGE" --restart=Never --attach --rm --quiet --pod-running-timeout=5m \
  --labels=app.kubernetes.io/name=jeex-migrate,app.kubernetes.io/part-of=jeex \
  --override-type=strategic --overrides="{
    \"spec\": {
      \"serviceAccountName\": \"$account\",
      \"automountServiceAccountToken\": false,
      \"enableServiceLinks\": false,
      \"securityContext\": $pod_context,
      \"volumes\": [$passwords, $tls, $tmp],
      \"containers\": [{
        \"name\": \"$NAME\",
        \"imagePullPolicy\": \"IfNotPresent\",
        \"env\": $env,
        \"resources\": $resources,
        \"securityContext\": $context,
        \"volumeMounts\": $mounts
      }]
    }
  }" -- migrate "$@"
