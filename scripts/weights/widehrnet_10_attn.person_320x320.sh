#!/usr/bin/env bash
# Make the person finder widehrnet_10_attn.person_320x320, from the pose weights.
#
#   bash scripts/weights/widehrnet_10_attn.person_320x320.sh EVERYDAY [RUNS]
#
# EVERYDAY: folder with train.json, val.json, images/ and nobody/.
# RUNS: folder for the runs, by default runs. What is there goes on where it was stopped.
set -euo pipefail
data=$(realpath "${1:?usage: $0 EVERYDAY [RUNS]}") runs=$(realpath -m "${2:-runs}")
cd "$(dirname "$0")/../.." && mkdir -p "$runs"

python scripts/weights/person_labels.py "$data" "$runs"

# small inputs first: 192 takes a third of the time of 320
stage() {
    local name=$1
    shift
    widehrnet train person_320x320 --labels "$runs"/train.json --images "$data" --val-labels "$runs"/val.json \
        --set data.cache="$runs"/cache --out "$runs"/person_"$name" --resume "$@"
}
stage 192 --size 192 192 --epochs 15 --lr 2e-3
stage 256 --size 256 256 --epochs 15 --lr 1.5e-3 --weights "$runs"/person_192/model/model.safetensors
stage 320 --size 320 320 --epochs 20 --lr 1.5e-3 --weights "$runs"/person_256/model/model.safetensors
# photos as they are when people are found: one by one, and whole
stage last --size 320 320 --epochs 4 --lr 4e-4 --set boxes.mosaic_prob=0 --set boxes.zoom_in=1.5 \
    --weights "$runs"/person_320/model/model.safetensors

widehrnet eval --protocol boxes --data "$runs"/val.json --images "$data" --model "$runs"/person_last/model \
    --out "$runs"/person_eval
