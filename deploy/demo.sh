#!/usr/bin/env bash
# The demo of `make demo`: starts a server, fine-tunes on pictures, predicts held-out ones, shows metrics.
#
#   DATA=folder   use these pictures (names begin with the age) instead of drawn ones
#   QUICK=1       fewer pictures and epochs at a smaller size: shows that it works, not how well
#   EPOCHS=n, INIT=…  handed on to `visage train`
set -euo pipefail
cd "$(dirname "$0")/.."

visage=${CARGO_TARGET_DIR:-target}/release/visage
out=demo
mkdir -p "$out"
server=
finish() {
  [ -n "$server" ] && kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true
}
trap finish EXIT
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

count=800 epochs=${EPOCHS:-10} size=112
if [ -n "${QUICK:-}" ]; then count=240 epochs=${EPOCHS:-2} size=64; fi

if [ -n "${DATA:-}" ]; then
  data=$DATA size=224
  [ -n "${QUICK:-}" ] && size=64
else
  data=$out/faces-$count
  say "Drawing $count faces in $data"
  "$visage" synth "$data" --count "$count" --seed 7
fi

say "Starting the server"
rm -f "$out/ready.json"
"$visage" serve --data-dir "$out/server" --grpc-listen 127.0.0.1:0 --http-listen 127.0.0.1:0 --ready-file "$out/ready.json" >"$out/server.log" 2>&1 &
server=$!
for _ in $(seq 300); do
  [ -s "$out/ready.json" ] && break
  kill -0 "$server" 2>/dev/null || { cat "$out/server.log" >&2; echo "demo: the server ended before it was ready" >&2; exit 1; }
  sleep 0.1
done
[ -s "$out/ready.json" ] || { cat "$out/server.log" >&2; echo "demo: the server was not ready within 30 s" >&2; exit 1; }
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$out/ready.json"; }
grpc=$(field grpc) http=$(field http)
export VISAGE_SERVER=http://$grpc
echo "gRPC on $grpc, HTTP on $http, log in $out/server.log"

# ImageNet's weights where they can be had; where not, this is said and random ones are used.
init=${INIT:-IMAGENET1K_V1}
say "Fine-tuning ResNet18 on $data from $init"
train() { "$visage" train --dataset "$data" --init "$1" --epochs "$epochs" --input-size "$size" --seed 7 --promote always; }
if ! train "$init"; then
  if [ -n "${INIT:-}" ]; then exit 1; fi
  say "ImageNet's weights cannot be had here (see above), so the demo goes on from RANDOM weights; put the named file in place for better ages"
  train RANDOM
fi

say "Predicting held-out pictures"
held_out=$out/held-out
if [ -z "${DATA:-}" ]; then
  "$visage" synth "$held_out" --count 8 --seed 99
  pictures=("$held_out"/*)
elif [ -d "$data/val" ]; then
  mapfile -t pictures < <(find "$data/val" -type f | sort | awk 'NR % 97 == 1' | head -n 8)
else
  mapfile -t pictures < <(find "$data" -type f | sort | awk 'NR % 97 == 1' | head -n 8)
fi
printf '%6s  %s\n' "true" "predicted"
for picture in "${pictures[@]}"; do
  name=$(basename "$picture")
  age=$("$visage" predict "$picture" --json | sed -n 's/.*"age":\([0-9.]*\).*/\1/p')
  printf '%6s  %9.1f  %s\n' "${name%%_*}" "$age" "$name"
done
"$visage" predict "${pictures[0]}" --annotate "$out/annotated.png" >/dev/null
echo "an annotated picture: $out/annotated.png"

say "Some of the metrics at http://$http/metrics"
python3 - "http://$http/metrics" <<'PY'
import sys, urllib.request
text = urllib.request.urlopen(sys.argv[1], timeout=10).read().decode()
wanted = ("visage_training_loss", "visage_training_mae", "visage_live_model", "visage_predict_images_total", "visage_build_info")
print("\n".join(line for line in text.splitlines() if line.startswith(wanted)))
PY

say "What to type next"
cat <<EOT
  $visage serve --data-dir $out/server         # the same server, to stay; then, in another terminal:
  $visage predict me.jpg --annotate me.png     # your own face
  $visage models list                          # the model versions
  $visage train --dataset FOLDER --epochs 10   # your own pictures; file names begin with the age
EOT
