#!/usr/bin/env bash
# Make the weights of widehrnet_30_attn.everyday_256x192 again: the stage of its card.
#
#   bash scripts/weights/widehrnet_30_attn.everyday_256x192.sh DATA START [RUNS]
#
# DATA: folder with everyday/ and people/, each with train.json, val.json and images/.
# START: weights of widehrnet_18_attn.everyday_256x192.
# RUNS: where widehrnet_18_attn.everyday_256x192.sh ran, whose labels this takes; by default runs.
set -euo pipefail
data=$(realpath "${1:?usage: $0 DATA START [RUNS]}") start=$(realpath "${2:?usage: $0 DATA START [RUNS]}")
runs=$(realpath -m "${3:-runs}")
cd "$(dirname "$0")/../.." && test -f "$runs"/train.json
. scripts/weights/steps.sh

# the lighter network, and blocks that do nothing yet
python scripts/weights/grow_weights.py "$start" widehrnet_18_attn widehrnet_30_attn "$runs"/start_30.safetensors \
    --labels "$data"/everyday/train.json --images "$data"/everyday/images --photos 100
train_everyday widehrnet_30_attn 30 --size 256 192 --set data.cache="$runs"/sharp --set data.margin=1.3 --minutes 110 \
    --lr 1e-3 --weights "$runs"/start_30.safetensors "${light[@]}" --set augment.rotation_prob=0.45 \
    --set augment.box_jitter=0.06 --set augment.cutout_prob=0.06

python scripts/weights/ship_weights.py "$runs"/30/weights.safetensors widehrnet_30_attn.everyday_256x192 \
    --data "$data" --padding 1.1 --kept-out "$runs"/kept_out.json --report "$runs"/card
