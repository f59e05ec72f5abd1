#!/usr/bin/env bash
# Finds the API by reflection, and writes and reads a document with grpcurl; prints the answers.
# Usage: grpcurl.sh ADDRESS CA_FILE, with the token in TOKEN.
set -euo pipefail

call() {
  grpcurl -cacert "$ca_file" -expand-headers -H 'authorization: Bearer ${TOKEN}' -d "$2" "${@:3}" \
    "$address" "jeex.persistence.v1.$1"
}
id() { grep --only-matching '"id": "[^"]*"' | head -n 1 | cut -d '"' -f 4; }

address=$1
ca_file=$2
grpcurl -cacert "$ca_file" "$address" list
owner=$(call UserService/CreateUser '{"email": "grpcurl-'"$RANDOM$RANDOM$RANDOM"'@example.org", "name": "grpcurl"}' | id)
actor=(-H "x-actor-id: $owner")
project=$(call ProjectService/CreateProject '{"name": "From grpcurl", "language": "en"}' "${actor[@]}" | id)
document='"projectId": "'$project'", "documentType": "idea"'
call DocumentService/AppendVersion "{$document, \"content\": \"# Größer\\n\"}" "${actor[@]}"
call DocumentService/GetVersion "{$document, \"view\": \"VIEW_FULL\"}" "${actor[@]}"
# It is refused, which grpcurl says with its exit code too.
call DocumentService/AppendVersion "{$document, \"content\": \"# Mine\\n\", \"expectedVersion\": 0}" "${actor[@]}" 2>&1 || true
