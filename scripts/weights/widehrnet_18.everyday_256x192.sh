#!/usr/bin/env bash
# Make the weights of widehrnet_18.everyday_256x192 again, with the recipe that made those that ship.
#
#   bash scripts/weights/widehrnet_18.everyday_256x192.sh DATA TEACHER [RUNS]
#
# DATA: folder with everyday/ and people/, each with train.json, val.json and images/.
# TEACHER: where widehrnet_18_attn.everyday_256x192.sh ran, whose labels it takes; the weights are those that ship.
# RUNS: another folder for these runs, by default runs. What is there goes on where it was stopped.
set -euo pipefail
usage="usage: $0 DATA TEACHER [RUNS]"
data=$(realpath "${1:?$usage}") teacher=$(realpath "${2:?$usage}") runs=$(realpath -m "${3:-runs}")
cd "$(dirname "$0")/../.." && mkdir -p "$runs"
. scripts/weights/steps.sh
attn=widehrnet_zoo/weights/widehrnet_18_attn.everyday_256x192.safetensors

# the same network without attention, each gate at its mean
python scripts/weights/grow_weights.py $attn widehrnet_18_attn widehrnet_18 "$runs"/plain_start.safetensors \
    --labels "$teacher"/train.json --images "$data" --photos 100

# the large products of the two coarse branches stay those of the network with attention: git keeps them once
train_everyday widehrnet_18 plain_18 --size 256 192 --minutes 78 --lr 2e-3 --weights "$runs"/plain_start.safetensors \
    --labels "$teacher"/train.json "${light[@]}" --set data.cache="$runs"/sharp --set data.margin=1.3 \
    --set augment.rotation_prob=0.45 --set augment.box_jitter=0.06 --set augment.cutout_prob=0.06 \
    --set 'model.freeze=["stages.*.branches.[23].*.conv_pw.conv", "stages.*.branches.[23].*.conv_pwl.conv"]' \
    --set teacher.model=widehrnet_18_attn --set teacher.weights="$teacher"/11/weights.safetensors --set teacher.weight=0.5

python scripts/weights/ship_weights.py "$runs"/plain_18/weights.safetensors widehrnet_18.everyday_256x192 --data "$data" \
    --padding 1.1 --kept-out "$runs"/kept_out.json --mantissa 6 --like $attn --report "$runs"/card
