#!/usr/bin/env bash
# Make the weights of widehrnet_18.people_256x192 again, with the recipe that made those that ship.
#
#   bash scripts/weights/widehrnet_18.people_256x192.sh PEOPLE [RUNS]
#
# PEOPLE: folder with train.json, val.json and images/.
# RUNS: folder for the runs, by default runs.
# The labels are judged by the weights that ship as widehrnet_18_attn.
set -euo pipefail
data=$(realpath "${1:?usage: $0 PEOPLE [RUNS]}") runs=$(realpath -m "${2:-runs}")
cd "$(dirname "$0")/../.." && mkdir -p "$runs"

widehrnet eval --protocol pck --flip-test --data "$data"/train.json --images "$data"/images \
    --model widehrnet_18_attn.people_256x192 --out "$runs"/on_train

python scripts/weights/clean_labels.py "$data"/train.json "$runs"/on_train/results.json "$runs"/clean.json

python scripts/weights/grow_weights.py widehrnet_zoo/weights/widehrnet_18_attn.people_256x192.safetensors widehrnet_18_attn widehrnet_18 "$runs"/start.safetensors \
    --labels "$data"/train.json --images "$data"/images

widehrnet train people_256x192 --weights "$runs"/start.safetensors --labels "$runs"/clean.json \
    --images "$data"/images --val-labels "$data"/val.json --minutes 40 --lr 0.0015 --processes 2 \
    --set epochs=1000 --set model.name=widehrnet_18 --set teacher.keypoints=predicted --set teacher.weight=0.5 \
    --set fused=true --set precision=bf16 --out "$runs"/widehrnet_18_256x192
