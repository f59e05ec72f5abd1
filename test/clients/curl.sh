#!/usr/bin/env bash
# Writes and reads a document with curl, as JSON over HTTPS; below each answer stands its status.
# Usage: curl.sh URL CA_FILE, with the token in TOKEN.
set -euo pipefail

call() {
  curl --silent --show-error --cacert "$ca_file" --header "authorization: Bearer $TOKEN" \
    --write-out '\n%{http_code}\n' --json "$2" "${@:3}" "$url/jeex.persistence.v1.$1"
}
id() { grep --only-matching --max-count=1 '"id":"[^"]*"' | head -n 1 | cut -d '"' -f 4; }

url=$1
ca_file=$2
owner=$(call UserService/CreateUser '{"email": "curl-'"$RANDOM$RANDOM$RANDOM"'@example.org", "name": "curl"}' | id)
actor=(--header "x-actor-id: $owner")
project=$(call ProjectService/CreateProject '{"name": "From curl", "language": "en"}' "${actor[@]}" | id)
document='"projectId": "'$project'", "documentType": "idea"'
call DocumentService/AppendVersion "{$document, \"content\": \"# Größer\\n\"}" "${actor[@]}"
call DocumentService/GetVersion "{$document, \"view\": \"VIEW_FULL\"}" "${actor[@]}"
call DocumentService/AppendVersion "{$document, \"content\": \"# Mine\\n\", \"expectedVersion\": 0}" "${actor[@]}"
