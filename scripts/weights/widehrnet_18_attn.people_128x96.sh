#!/usr/bin/env bash
# Make the weights of widehrnet_18_attn.people_128x96 again, with the recipe that made those that ship.
#
#   bash scripts/weights/widehrnet_18_attn.people_128x96.sh PEOPLE [RUNS]
#
# PEOPLE: folder with train.json, val.json and images/.
# RUNS: folder for the runs, by default runs.
set -euo pipefail
data=$(realpath "${1:?usage: $0 PEOPLE [RUNS]}") runs=$(realpath -m "${2:-runs}")
cd "$(dirname "$0")/../.." && mkdir -p "$runs"

widehrnet train people_128x96 --labels "$data"/train.json --images "$data"/images \
    --val-labels "$data"/val.json --epochs 73 --processes 2 --set fused=true --set precision=bf16 \
    --out "$runs"/people_128x96
