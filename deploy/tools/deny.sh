#!/usr/bin/env bash
# Checks licences, bans, sources and security advisories of the dependencies with cargo-deny.
#
# The advisories need their database, which is fetched. Without a network, they are not checked,
# and a sentence says so. ADVISORY_DB names a clone of the database to use instead.
set -euo pipefail
cd "$(dirname "$0")/../.."

if ! command -v cargo-deny >/dev/null; then
  echo "deny: cargo-deny is missing; install it with \`cargo install --locked cargo-deny\`" >&2
  exit 1
fi
cargo deny check licenses bans sources

if [ -n "${ADVISORY_DB:-}" ]; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  # The name that cargo-deny derives from the address of the database.
  ln -s "$(realpath "$ADVISORY_DB")" "$scratch/advisory-db-3157b0e258782691"
  { cat deny.toml; printf '\n[advisories]\ndb-path = "%s"\n' "$scratch"; } >"$scratch/deny.toml"
  cargo deny --offline --config "$scratch/deny.toml" check advisories
elif cause=$(cargo deny fetch db 2>&1); then
  cargo deny --offline check advisories
else
  echo "deny: advisories were not checked, because their database could not be fetched: $(tail -n 1 <<<"$cause")"
fi
