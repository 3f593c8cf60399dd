#!/usr/bin/env bash
# Trains the starter from random weights: first on small images, then from the best epoch on larger
# ones, twice, and once more on the largest with the learning rate raised again.
#
#   DATA=directory   directories `train` and `val` with images named by age (required)
#   OUT=directory    output directory; an interrupted run resumes; default: starter-data
#   CHECK=n          images of `val` on which the rounding to 16 bits is checked; default: 200
set -euo pipefail
cd "$(dirname "$0")/../.."
fail() { echo "starter: $*" >&2; exit 1; }

[ -d "${DATA:-}/train" ] && [ -d "${DATA:-}/val" ] || fail "DATA=${DATA:-} must be a directory with the directories train and val"
data=$(realpath "$DATA") out=$(realpath -m "${OUT:-starter-data}")
visage=$(pwd)/${CARGO_TARGET_DIR:-target}/release/visage
case ${CARGO_TARGET_DIR:-} in /*) visage=$CARGO_TARGET_DIR/release/visage ;; esac
mkdir -p "$out"
server=
finish() {
  if [ -n "$server" ] && kill "$server" 2>/dev/null; then wait "$server" 2>/dev/null || true; fi
}
trap finish EXIT
trap 'exit 130' INT TERM

rm -f "$out/ready"
"$visage" serve --data-dir "$out/data" --data-roots "$data" --weights-roots "$out" --grpc-listen 127.0.0.1:0 --http-listen 127.0.0.1:0 \
  --ready-file "$out/ready" >>"$out/log" 2>&1 &
server=$!
until [ -e "$out/ready" ]; do
  kill -0 "$server" 2>/dev/null || fail "the server did not start; its log is $out/log"
  sleep 0.1
done
VISAGE_SERVER=$(sed -n 's/.*"grpc": *"\([^"]*\)".*/\1/p' "$out/ready")
export VISAGE_SERVER

# Common to all stages.
recipe=(--dataset "$data" --trainable ALL --batch-size 64 --optimizer adamw --weight-decay 0.05 --schedule cosine --loss smooth-l1
  --set target_scale=STANDARDISED --set ema_decay=0.998 --flip --set augmentation.brightness=0.2
  --set augmentation.contrast=0.2 --set augmentation.saturation=0.2 --set augmentation.erasing=0.1 --set monitor=VAL_MAE --promote never)

# Starts or follows a training and prints its model version.
stage() {
  local id=$1
  shift
  if ! "$visage" trainings get "$id" >/dev/null 2>&1; then "$visage" train --id "$id" --detach "${recipe[@]}" "$@" >&2; fi
  "$visage" watch "$id" >&2
  "$visage" trainings get "$id" --json | sed -n 's/.*"model_version": *"\([^"]*\)".*/\1/p' | head -1
}

# The weights of a version, for the next stage.
weights() { "$visage" models export "$1" --format safetensors --output "$out/$2.safetensors"; }

first=$(stage small --init RANDOM --input-size 64 --epochs 20 --lr 2e-3 --warmup-epochs 1 --set schedule.min_factor=0.02 \
  --set augmentation.min_crop_area=0.6)
weights "$first" small
second=$(stage medium --init "$out/small.safetensors" --input-size 112 --epochs 22 --lr 1e-3 --warmup-epochs 0.5 \
  --set schedule.min_factor=0.005 --set augmentation.min_crop_area=0.65 --set loss.beta=0.15)
weights "$second" medium
# The full detail of images of 200 pixels.
large=(--set head_bias=KEEP --input-size 192 --warmup-epochs 0.3 --set schedule.min_factor=0.005 --set augmentation.min_crop_area=0.4 --set loss.beta=0.15)
third=$(stage large --init "$out/medium.safetensors" "${large[@]}" --epochs 8 --lr 7e-4)
weights "$third" large
stage again --init "$out/large.safetensors" "${large[@]}" --epochs 12 --lr 8e-4 >/dev/null
find "$data/val" -type f | sort | head -"${CHECK:-200}" |
  xargs -d '\n' deploy/tools/round_starter.py again --visage "$visage" --output "$out/starter" --check
echo "The starter is in $out/starter; copy its files to src/model/starter and build."
