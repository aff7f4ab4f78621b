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
. scripts/weights/steps.sh

clean_labels "$data" widehrnet_18_attn.people_256x192 --easy 0.4
stage() {
    train_people "$@" --set epochs=1000 --set model.name=widehrnet_10_attn --set teacher.keypoints=predicted \
        --set teacher.weight=0.5
}
stage people_128x96 light_128x96 --minutes 100 --set data.sample_weights=share --set augment.rotation=30 \
    --set augment.rotation_prob=0.6 --set augment.any_rotation_prob=0.05 --set augment.half_body_prob=0.2
stage people_256x192 light_256x192 --minutes 92 --weights "$runs"/light_128x96/model/model.safetensors
