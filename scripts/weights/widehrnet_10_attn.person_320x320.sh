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
. scripts/weights/steps.sh

python scripts/weights/person_labels.py "$data" "$runs"

after() {
    echo --weights "$runs"/person_"$1"/model/model.safetensors
}
# photos nearly as they are when people are found: one by one, and whole
light=()
for value in boxes.mosaic_prob=0.05 boxes.zoom_in=1.35 boxes.zoom_out=1.2 boxes.stretch=1.1 augment.colour=0.25 \
    augment.blur_prob=0.02; do
    light+=(--set "$value")
done
# small inputs first: 192 takes a third of the time of 320
# shellcheck disable=SC2046
{
    train_finder 192 192 0.8 2e-3
    train_finder 192b 192 3.6 2.5e-3 --set boxes.mosaic_prob=0.2 $(after 192)
    train_finder 320 320 2 1.5e-3 --set boxes.mosaic_prob=0.2 $(after 192b)
    train_finder light 320 4 1.5e-3 "${light[@]}" $(after 320)
    train_finder last 320 3 1.5e-3 "${light[@]}" $(after light)
}

widehrnet eval --protocol boxes --data "$runs"/val.json --images "$data" --model "$runs"/person_last/model \
    --out "$runs"/person_eval
