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
. scripts/weights/steps.sh

clean_labels "$data" widehrnet_18_attn.people_256x192
python scripts/weights/grow_weights.py widehrnet_zoo/weights/widehrnet_18_attn.people_256x192.safetensors \
    widehrnet_18_attn widehrnet_18 "$runs"/start.safetensors --labels "$data"/train.json --images "$data"/images

train_people people_256x192 widehrnet_18_256x192 --weights "$runs"/start.safetensors --minutes 40 --lr 0.0015 \
    --set epochs=1000 --set model.name=widehrnet_18 --set teacher.keypoints=predicted --set teacher.weight=0.5
