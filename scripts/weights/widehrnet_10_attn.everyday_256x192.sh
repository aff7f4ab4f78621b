#!/usr/bin/env bash
# Make the weights of widehrnet_10_attn.everyday_256x192 again: the stages of its card, one after the other.
#
#   bash scripts/weights/widehrnet_10_attn.everyday_256x192.sh DATA START [RUNS]
#
# DATA: folder with everyday/ and people/, each with train.json, val.json and images/.
# START: the weights to start from; the card names them.
# RUNS: folder for the runs, by default runs. What is there goes on where it was stopped.
set -euo pipefail
data=$(realpath "${1:?usage: $0 DATA START [RUNS]}") start=$(realpath "${2:?usage: $0 DATA START [RUNS]}")
runs=$(realpath -m "${3:-runs}")
cd "$(dirname "$0")/../.." && mkdir -p "$runs"
. scripts/weights/steps.sh

clean_labels "$data"/people widehrnet_30_attn --easy 0.4
everyday_labels --times lspet=1.5 ccp=2

# a light network has no room for more than people nearly as they are
light+=(--lr 2e-3)
start_of() {
    echo "$runs"/light_"$1"/model/model.safetensors
}
train_everyday widehrnet_10_attn light_1 --size 192 128 --minutes 15 --weights "$start" "${light[@]}"
train_everyday widehrnet_10_attn light_2 --size 256 192 --minutes 12 --weights "$(start_of 1)" "${light[@]}"
train_everyday widehrnet_10_attn light_3 --size 192 128 --minutes 31 --weights "$(start_of 2)" "${light[@]}"
train_everyday widehrnet_10_attn light_4 --size 256 192 --minutes 24 --weights "$(start_of 3)" "${light[@]}"

python scripts/weights/ship_weights.py "$(start_of 4)" widehrnet_10_attn.everyday_256x192 \
    --data "$data" --padding 1.1 --kept-out "$runs"/kept_out.json --report "$runs"/card
