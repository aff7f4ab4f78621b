#!/usr/bin/env bash
# Make the weights of widehrnet_18_attn.people_256x192 again, with the recipe that made those that ship.
#
#   bash scripts/weights/widehrnet_18_attn.people_256x192.sh PEOPLE [RUNS]
#
# PEOPLE: folder with train.json, val.json and images/.
# RUNS: folder for the runs, by default runs.
# The labels of the full size are judged by the weights of this tag themselves, as they ship.
set -euo pipefail
data=$(realpath "${1:?usage: $0 PEOPLE [RUNS]}") runs=$(realpath -m "${2:-runs}")
cd "$(dirname "$0")/../.." && mkdir -p "$runs"

widehrnet train people_128x96 --labels "$data"/train.json --images "$data"/images \
    --val-labels "$data"/val.json --epochs 73 --processes 2 --set fused=true --set precision=bf16 \
    --out "$runs"/people_128x96

widehrnet eval --protocol pck --flip-test --data "$data"/train.json --images "$data"/images \
    --model widehrnet_18_attn.people_256x192 --out "$runs"/on_train

python scripts/weights/clean_labels.py "$data"/train.json "$runs"/on_train/results.json "$runs"/clean.json

widehrnet train people_256x192 --weights "$runs"/people_128x96/model/model.safetensors \
    --labels "$runs"/clean.json --images "$data"/images --val-labels "$data"/val.json --epochs 9.9 \
    --processes 2 --set fused=true --set precision=bf16 --out "$runs"/people_256x192

widehrnet train people_256x192_varied --weights "$runs"/people_256x192/model/model.safetensors \
    --labels "$runs"/clean.json --images "$data"/images --val-labels "$data"/val.json --processes 2 \
    --set fused=true --set precision=bf16 --out "$runs"/varied

widehrnet train people_256x192 --weights "$runs"/varied/model/model.safetensors --labels "$runs"/clean.json \
    --images "$data"/images --val-labels "$data"/val.json --lr 6e-4 --epochs 4.1 --set warmup_steps=20 \
    --set augment.rotation=30 --set augment.any_rotation_prob=0.04 --processes 2 --set fused=true \
    --set precision=bf16 --out "$runs"/last

python scripts/weights/average_weights.py "$runs"/people_256x192/model/model.safetensors "$runs"/last/model/model.safetensors "$runs"/average.safetensors \
    --share 0.8
