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
. scripts/weights/steps.sh

train_people people_128x96 people_128x96 --labels "$data"/train.json --epochs 73
clean_labels "$data" widehrnet_18_attn.people_256x192
train_people people_256x192 people_256x192 --weights "$runs"/people_128x96/model/model.safetensors --epochs 9.9
train_people people_256x192_varied varied --weights "$runs"/people_256x192/model/model.safetensors
train_people people_256x192 last --weights "$runs"/varied/model/model.safetensors --lr 6e-4 --epochs 4.1 \
    --set warmup_steps=20 --set augment.rotation=30 --set augment.any_rotation_prob=0.04
average "$runs"/people_256x192/model/model.safetensors "$runs"/last/model/model.safetensors 0.8 "$runs"/average.safetensors
