# shellcheck shell=bash
# What the entrypoints share. NAME is the image's.

# One line for the operator.
say() { printf '%s: %s\n' "$NAME" "$*" >&2; }

# The last line: what is wrong, and what to do.
fail() {
  say "$*"
  exit 1
}

# Tells contents of files apart; a file that is missing is a content too.
fingerprint() { sha256sum -- "$@" 2>&1 || true; }

# Runs a command whenever files differ from their fingerprint and have stayed the same for one look, so that a pair that
# is being written is left alone. A command that fails is run again at the next look.
# on_change <fingerprint> <command> <file>...
on_change() {
  local used=$1 action=$2 seen='' now
  shift 2
  while sleep 5; do
    now=$(fingerprint "$@")
    if [[ $now != "$used" && $now == "$seen" ]] && "$action"; then used=$now; fi
    seen=$now
  done
}
