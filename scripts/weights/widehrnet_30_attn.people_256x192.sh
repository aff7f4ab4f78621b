#!/usr/bin/env bash
# Make the weights of widehrnet_30_attn.people_256x192 again, with the recipe that made those that ship.
#
#   bash scripts/weights/widehrnet_30_attn.people_256x192.sh PEOPLE [RUNS]
#
# PEOPLE: folder with train.json, val.json and images/.
# RUNS: folder for the runs, by default runs.
# The labels are judged by the weights that ship as widehrnet_18_attn.
set -euo pipefail
data=$(realpath "${1:?usage: $0 PEOPLE [RUNS]}") runs=$(realpath -m "${2:-runs}")
cd "$(dirname "$0")/../.." && mkdir -p "$runs"
. scripts/weights/steps.sh

clean_labels "$data" widehrnet_18_attn.people_256x192
python scripts/weights/grow_weights.py widehrnet_zoo/weights/widehrnet_18_attn.people_256x192.safetensors \
    widehrnet_18_attn widehrnet_30_attn "$runs"/start.safetensors --labels "$data"/train.json --images "$data"/images

stage() {
    train_people "$@" --set epochs=1000 --set model.name=widehrnet_30_attn
}
turned=(--set augment.rotation=30 --set augment.any_rotation_prob=0.04)
stage people_256x192 widehrnet_30_attn_256x192 --weights "$runs"/start.safetensors --minutes 31 --lr 0.0008
average "$runs"/start.safetensors "$runs"/widehrnet_30_attn_256x192/model/model.safetensors 0.85 "$runs"/first.safetensors
stage people_256x192_varied varied --weights "$runs"/first.safetensors --minutes 75
stage people_256x192 last --weights "$runs"/varied/model/model.safetensors --minutes 50 --lr 6e-4 \
    --set warmup_steps=20 "${turned[@]}"
average "$runs"/first.safetensors "$runs"/last/model/model.safetensors 0.8 "$runs"/average.safetensors
stage people_256x192 taught --weights "$runs"/average.safetensors --minutes 17 --lr 6e-4 --set warmup_steps=10 \
    --set ema_decay=0.99 --set teacher.model=widehrnet_18_attn "${turned[@]}"
stage people_256x192 taught_on --weights "$runs"/taught/model/model.safetensors --minutes 98 --lr 1.2e-3 \
    --set warmup_steps=40 --set ema_decay=0.997 --set augment.cutout_prob=0.1 --set augment.scale=1.3 \
    --set teacher.model=widehrnet_18_attn "${turned[@]}"
