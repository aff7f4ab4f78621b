#!/usr/bin/env bash
# Make the weights of widehrnet_18_attn.everyday_256x192 again: the stages of its card, one after the other.
#
#   bash scripts/weights/widehrnet_18_attn.everyday_256x192.sh DATA START [RUNS]
#
# DATA: folder with everyday/ and people/, each with train.json, val.json and images/.
# START: the weights to start from; the card names them.
# RUNS: folder for the runs, by default runs. What is there goes on where it was stopped.
set -euo pipefail
data=$(realpath "${1:?usage: $0 DATA START [RUNS]}") start=$(realpath "${2:?usage: $0 DATA START [RUNS]}")
runs=$(realpath -m "${3:-runs}")
cd "$(dirname "$0")/../.." && mkdir -p "$runs"
. scripts/weights/steps.sh

stage() {
    train_everyday widehrnet_18_attn "$@"
}
clean_labels "$data"/people widehrnet_30_attn --easy 0.4
everyday_labels
stage 1 --size 128 96 --minutes 30 --lr 1.5e-3 --weights "$start"
stage 2 --size 192 128 --minutes 65 --lr 1e-3 --weights "$runs"/1/model/model.safetensors
stage 3 --size 192 128 --minutes 45 --lr 1.5e-3 --weights "$runs"/2/model/model.safetensors
stage 4 --size 256 192 --minutes 77 --lr 1.5e-3 --weights "$runs"/3/model/model.safetensors

# what the network has to learn last is people as they are, and more sport
everyday_labels --times lspet=1.5 ccp=2
stage 5 --size 192 128 --minutes 50 --lr 1.5e-3 --weights "$runs"/4/model/model.safetensors "${light[@]}"
stage 6 --size 256 192 --minutes 70 --lr 1.5e-3 --weights "$runs"/5/model/model.safetensors "${light[@]}"

stage 7 --size 192 128 --minutes 60 --lr 1.5e-3 --weights "$runs"/6/model/model.safetensors "${light[@]}"

# as human eyes see people in larger photos
everyday_labels --times lspet=1.5 ccp=2 coco=1.8 openimages=0.5 masks=0.6
average "$runs"/6/weights.safetensors "$runs"/7/weights.safetensors 0.5 "$runs"/start_8.safetensors
stage 8 --size 256 192 --minutes 54 --lr 1.2e-3 --weights "$runs"/start_8.safetensors "${light[@]}" \
    --set augment.rotation_prob=0.45 --set augment.box_jitter=0.06 --set augment.cutout_prob=0.06
average "$runs"/6/weights.safetensors "$runs"/8/weights.safetensors 0.7 "$runs"/average.safetensors

python scripts/weights/ship_weights.py "$runs"/average.safetensors widehrnet_18_attn.everyday_256x192 \
    --data "$data" --padding 1.1 --kept-out "$runs"/kept_out.json --report "$runs"/card
