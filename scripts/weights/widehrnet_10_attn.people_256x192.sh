#!/usr/bin/env bash
# Make the weights of widehrnet_10_attn.people_256x192 again, with the recipe that made those that ship.
#
#   bash scripts/weights/widehrnet_10_attn.people_256x192.sh PEOPLE [RUNS]
#
# PEOPLE: folder with train.json, val.json and images/.
# RUNS: folder for the runs, by default runs.
# The labels are judged by the weights that ship as widehrnet_18_attn.
set -euo pipefail
data=$(realpath "${1:?usage: $0 PEOPLE [RUNS]}") runs=$(realpath -m "${2:-runs}")
cd "$(dirname "$0")/../.." && mkdir -p "$runs"

widehrnet eval --protocol pck --flip-test --data "$data"/train.json --images "$data"/images \
    --model widehrnet_18_attn.people_256x192 --out "$runs"/on_train

python scripts/weights/clean_labels.py "$data"/train.json "$runs"/on_train/results.json "$runs"/clean.json \
    --easy 0.4

widehrnet train people_128x96 --labels "$runs"/clean.json --images "$data"/images \
    --val-labels "$data"/val.json --minutes 100 --processes 2 --set epochs=1000 \
    --set model.name=widehrnet_10_attn --set teacher.keypoints=predicted --set teacher.weight=0.5 \
    --set data.sample_weights=share --set augment.rotation=30 --set augment.rotation_prob=0.6 \
    --set augment.any_rotation_prob=0.05 --set augment.half_body_prob=0.2 --set fused=true \
    --set precision=bf16 --out "$runs"/light_128x96

widehrnet train people_256x192 --weights "$runs"/light_128x96/model/model.safetensors \
    --labels "$runs"/clean.json --images "$data"/images --val-labels "$data"/val.json --minutes 92 \
    --processes 2 --set epochs=1000 --set model.name=widehrnet_10_attn --set teacher.keypoints=predicted \
    --set teacher.weight=0.5 --set fused=true --set precision=bf16 --out "$runs"/light_256x192
