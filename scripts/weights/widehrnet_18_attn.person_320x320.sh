#!/usr/bin/env bash
# Make the person finder widehrnet_18_attn.person_320x320, from pose weights.
#
#   bash scripts/weights/widehrnet_18_attn.person_320x320.sh EVERYDAY START [RUNS]
#
# EVERYDAY: folder with train.json, val.json, images/ and nobody/.
# START: the pose weights to start from; the card names them.
# RUNS: folder for the runs, by default runs. What is there goes on where it was stopped.
set -euo pipefail
usage="usage: $0 EVERYDAY START [RUNS]"
data=$(realpath "${1:?$usage}") start=$(realpath "${2:?$usage}") runs=$(realpath -m "${3:-runs}")
cd "$(dirname "$0")/../.." && mkdir -p "$runs"
. scripts/weights/steps.sh

python scripts/weights/person_labels.py "$data" "$runs"

stage() {
    train_finder "$@" --set data.crop_size=400 --set model.name=widehrnet_18_attn
}
stage small 192 2 2e-3 --weights "$start" --set boxes.mosaic_prob=0.3
# this one ran on a GPU within eight minutes, see gpu.md; on two cores it takes three hours
stage gpu 320 6.9 2e-3 --weights "$runs"/person_small/weights.safetensors --set boxes.mosaic_prob=0.15 \
    --set batch_size=64 --set boxes.zoom_in=1.4 --set boxes.zoom_out=1.25 --set augment.colour=0.3 \
    --set augment.blur_prob=0.03
stage last 320 1.3 1.2e-3 --weights "$runs"/person_gpu/weights.safetensors --set boxes.mosaic_prob=0.08 \
    --set boxes.zoom_in=1.35 --set boxes.zoom_out=1.2 --set boxes.stretch=1.1 --set augment.colour=0.25 \
    --set augment.blur_prob=0.02

python scripts/weights/average_weights.py "$runs"/person_gpu/weights.safetensors "$runs"/person_last/weights.safetensors \
    "$runs"/person.safetensors --share 0.6
widehrnet eval --protocol boxes --data "$runs"/val.json --images "$data" --model widehrnet_18_attn.person_320x320 \
    --weights "$runs"/person.safetensors --out "$runs"/person_eval
