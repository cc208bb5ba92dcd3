#!/bin/sh
# Builds both programs, serves a random file of 256 MiB from a temporary directory, downloads it over 8 streams, and compares.
set -eu
cd "$(dirname "$0")"
cargo build --release --quiet
folder=$(mktemp -d)
target/release/dtserver --bind 127.0.0.1 --root "$folder" 0 > "$folder/ready" 2> "$folder/log" &
server=$!
trap 'kill "$server" 2> /dev/null; wait "$server" 2> /dev/null || true; rm -rf "$folder"' EXIT
head -c 268435456 /dev/urandom > "$folder/file"
until grep -q listening "$folder/ready"; do kill -0 "$server"; sleep 0.05; done
address=$(sed 's/^listening on \([^,]*\),.*/\1/' "$folder/ready")
target/release/dtclient "$address" 8 file "$folder/out.bin"
cmp "$folder/file" "$folder/out.bin" && echo "identical"
