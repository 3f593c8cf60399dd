#!/usr/bin/env bash
# Demo of `make demo`: starts a server, fine-tunes on images, predicts held-out ones, shows metrics.
#
#   DATA=directory   use these images (names start with the age) instead of drawn ones
#   QUICK=1          fewer images and epochs at a smaller size: a functional test only
#   INIT=...         initial weights; by default ImageNet's, or the starter if those are unavailable
#   EPOCHS=n, SIZE=pixels, TRAIN_FLAGS=...   passed to `visage train`
#   OUT=directory    output directory; default: demo
set -euo pipefail
cd "$(dirname "$0")/../.."

visage=$(pwd)/${CARGO_TARGET_DIR:-target}/release/visage
case ${CARGO_TARGET_DIR:-} in /*) visage=$CARGO_TARGET_DIR/release/visage ;; esac
out=${OUT:-demo}
mkdir -p "$out"
server=
finish() {
  if [ -n "$server" ] && kill "$server" 2>/dev/null; then wait "$server" 2>/dev/null || true; fi
}
trap finish EXIT
trap 'exit 130' INT TERM
say() { printf '\n\033[1m%s\033[0m  (%s s)\n' "$*" "$SECONDS"; }
fail() { echo "demo: $*" >&2; exit 1; }

# The default size is 112, which takes a quarter of the time of 224. With the starter it is the
# starter's own size, because its frozen layers do not support smaller ones.
count=800 epochs=${EPOCHS:-10} size=${SIZE:-}
if [ -n "${QUICK:-}" ]; then count=240 epochs=${EPOCHS:-2} size=${SIZE:-64}; fi

images_of() { find -L "$1" -type f \( -iname '*.jpg' -o -iname '*.jpeg' -o -iname '*.png' -o -iname '*.webp' -o -iname '*.bmp' \) | sort; }
# Eight evenly spaced items of a list.
spread() { awk '{ line[NR] = $0 } END { n = NR < 8 ? NR : 8; for (i = 0; i < n; i++) print line[int(i * NR / n) + 1] }'; }

rm -rf "$out/held-out"
if [ -z "${DATA:-}" ]; then
  data=$out/faces-$count
  say "Drawing $count faces in $data, and 8 others to predict"
  "$visage" synth "$data" --count "$count" --seed 7
  "$visage" synth "$out/held-out" --count 8 --seed 99
  mapfile -t held_out < <(images_of "$out/held-out")
else
  [ -d "$DATA" ] || fail "DATA=$DATA is not a directory; for a manifest, start \`$visage serve\` and use \`$visage train --dataset FILE\`"
  given=$(realpath "$DATA")
  for part in test val validation; do
    if [ -d "$given/$part" ]; then break; fi
    part=
  done
  if [ -n "$part" ]; then
    data=$given
    mapfile -t held_out < <(images_of "$given/$part" | spread)
  else
    # Links to all images except those that are held out for prediction.
    data=$out/data
    rm -rf "$data" && mkdir -p "$data" "$out/held-out"
    cp -rs "$given/." "$data/"
    while read -r image; do mv "$image" "$out/held-out/"; done < <(images_of "$data" | spread)
    mapfile -t held_out < <(images_of "$out/held-out")
  fi
  [ "${#held_out[@]}" -gt 0 ] || fail "$DATA has no JPEG, PNG, WebP or BMP file"
fi

say "Starting the server"
rm -f "$out/ready.json"
"$visage" serve --data-dir "$out/server" --grpc-listen 127.0.0.1:0 --http-listen 127.0.0.1:0 --ready-file "$out/ready.json" >"$out/server.log" 2>&1 &
server=$!
for _ in $(seq 300); do
  [ -s "$out/ready.json" ] && break
  kill -0 "$server" 2>/dev/null || { cat "$out/server.log" >&2; fail "the server exited before it was ready"; }
  sleep 0.1
done
[ -s "$out/ready.json" ] || { cat "$out/server.log" >&2; fail "the server was not ready within 30 s"; }
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$out/ready.json"; }
grpc=$(field grpc) http=$(field http)
export VISAGE_SERVER=http://$grpc
echo "gRPC on $grpc, HTTP on $http, log in $out/server.log"

train() {
  local side=$size
  if [ -z "$side" ] && [ "$1" != STARTER ]; then side=112; fi
  # shellcheck disable=SC2086 # TRAIN_FLAGS is a list of words
  "$visage" train --dataset "$data" --init "$1" --epochs "$epochs" --seed 7 --promote always ${side:+--input-size "$side"} ${TRAIN_FLAGS:-}
}
init=${INIT:-IMAGENET1K_V1}
say "Fine-tuning ResNet18 on $data from $init"
if ! train "$init"; then
  [ -z "${INIT:-}" ] || exit 1
  # Only unavailable weights have a fallback, which is reported.
  checked=$("$visage" train --dataset "$data" --init "$init" --validate-only 2>&1) && exit 1
  case $checked in *"ImageNet weights are not on the server"*) ;; *) exit 1 ;; esac
  say "ImageNet's weights are unavailable (see the remedies above): continuing with STARTER, the built-in face model"
  train STARTER
fi

say "Predicting held-out images"
printf '%6s  %9s\n' "true" "predicted"
for image in "${held_out[@]}"; do
  name=$(basename "$image")
  age=$("$visage" predict "$image" --json | sed -n 's/.*"age":\([0-9.]*\).*/\1/p')
  printf '%6s  %9.1f  %s\n' "${name%%_*}" "$age" "$name"
done
"$visage" predict "${held_out[0]}" --annotate "$out/annotated.png" >/dev/null
echo "an annotated image: $out/annotated.png"

say "Some of the metrics at http://$http/metrics"
python3 - "http://$http/metrics" <<'PY'
import sys, urllib.request
text = urllib.request.urlopen(sys.argv[1], timeout=10).read().decode()
wanted = ("visage_training_loss", "visage_training_mae", "visage_live_model", "visage_predict_images_total", "visage_build_info")
print("\n".join(line for line in text.splitlines() if line.startswith(wanted)))
PY

say "Next steps"
cat <<EOT
  $visage serve --data-dir $out/server         # the same server; then, in another terminal:
  $visage predict me.jpg --annotate me.png     # an image of your own
  $visage models list                          # model versions
  $visage train --dataset DIRECTORY --epochs 10   # images of your own; file names start with the age
EOT
