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

widehrnet eval --protocol pck --flip-test --data "$data"/train.json --images "$data"/images \
    --model widehrnet_18_attn.people_256x192 --out "$runs"/on_train

python scripts/weights/clean_labels.py "$data"/train.json "$runs"/on_train/results.json "$runs"/clean.json

python scripts/weights/grow_weights.py widehrnet_zoo/weights/widehrnet_18_attn.people_256x192.safetensors widehrnet_18_attn widehrnet_30_attn "$runs"/start.safetensors \
    --labels "$data"/train.json --images "$data"/images

widehrnet train people_256x192 --weights "$runs"/start.safetensors --labels "$runs"/clean.json \
    --images "$data"/images --val-labels "$data"/val.json --minutes 31 --lr 0.0008 --processes 2 \
    --set epochs=1000 --set model.name=widehrnet_30_attn --set fused=true --set precision=bf16 \
    --out "$runs"/widehrnet_30_attn_256x192

python scripts/weights/average_weights.py "$runs"/start.safetensors "$runs"/widehrnet_30_attn_256x192/model/model.safetensors "$runs"/first.safetensors \
    --share 0.85

widehrnet train people_256x192_varied --weights "$runs"/first.safetensors --labels "$runs"/clean.json \
    --images "$data"/images --val-labels "$data"/val.json --minutes 75 --processes 2 --set epochs=1000 \
    --set model.name=widehrnet_30_attn --set fused=true --set precision=bf16 --out "$runs"/varied

widehrnet train people_256x192 --weights "$runs"/varied/model/model.safetensors --labels "$runs"/clean.json \
    --images "$data"/images --val-labels "$data"/val.json --minutes 50 --lr 6e-4 --set warmup_steps=20 \
    --set augment.rotation=30 --set augment.any_rotation_prob=0.04 --processes 2 --set epochs=1000 \
    --set model.name=widehrnet_30_attn --set fused=true --set precision=bf16 --out "$runs"/last

python scripts/weights/average_weights.py "$runs"/first.safetensors "$runs"/last/model/model.safetensors "$runs"/average.safetensors \
    --share 0.8

widehrnet train people_256x192 --weights "$runs"/average.safetensors --labels "$runs"/clean.json \
    --images "$data"/images --val-labels "$data"/val.json --minutes 17 --lr 6e-4 --set warmup_steps=10 \
    --set ema_decay=0.99 --set augment.rotation=30 --set augment.any_rotation_prob=0.04 \
    --set teacher.model=widehrnet_18_attn --processes 2 --set epochs=1000 --set model.name=widehrnet_30_attn \
    --set fused=true --set precision=bf16 --out "$runs"/taught

widehrnet train people_256x192 --weights "$runs"/taught/model/model.safetensors --labels "$runs"/clean.json \
    --images "$data"/images --val-labels "$data"/val.json --minutes 98 --lr 1.2e-3 --set warmup_steps=40 \
    --set ema_decay=0.997 --set augment.rotation=30 --set augment.any_rotation_prob=0.04 \
    --set augment.cutout_prob=0.1 --set augment.scale=1.3 --set teacher.model=widehrnet_18_attn --processes 2 \
    --set epochs=1000 --set model.name=widehrnet_30_attn --set fused=true --set precision=bf16 \
    --out "$runs"/taught_on
