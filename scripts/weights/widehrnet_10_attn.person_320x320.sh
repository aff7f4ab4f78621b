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
    local name=$1 epochs=$2 lr=$3
    shift 3
    widehrnet train person_320x320 --labels "$runs"/train.json --images "$data" --val-labels "$runs"/val.json \
        --set data.cache="$runs"/cache --set batch_size=32 --set fused=true --set precision=bf16 \
        --epochs "$epochs" --lr "$lr" --out "$runs"/person_"$name" --resume "$@"
}
after() {
    echo --weights "$runs"/person_"$1"/model/model.safetensors
}
# photos nearly as they are when people are found: one by one, and whole
light=()
for value in boxes.mosaic_prob=0.05 boxes.zoom_in=1.35 boxes.zoom_out=1.2 boxes.stretch=1.1 augment.colour=0.25 \
    augment.blur_prob=0.02; do
    light+=(--set "$value")
done
# shellcheck disable=SC2046
{
    stage 192 0.8 2e-3 --size 192 192
    stage 192b 3.6 2.5e-3 --size 192 192 --set boxes.mosaic_prob=0.2 $(after 192)
    stage 320 2 1.5e-3 --size 320 320 --set boxes.mosaic_prob=0.2 $(after 192b)
    stage light 4 1.5e-3 --size 320 320 "${light[@]}" $(after 320)
    stage last 3 1.5e-3 --size 320 320 "${light[@]}" $(after light)
}

widehrnet eval --protocol boxes --data "$runs"/val.json --images "$data" --model "$runs"/person_last/model \
    --out "$runs"/person_eval
