#!/usr/bin/env bash
# Make the weights of widehrnet_10_attn.everyday_256x192 again: the stages of its card, one after the other.
#
#   bash scripts/weights/widehrnet_10_attn.everyday_256x192.sh DATA START TEACHER [RUNS]
#
# DATA: folder with everyday/ and people/, each with train.json, val.json and images/.
# START: the weights to start from; the card names them.
# TEACHER: where widehrnet_18_attn.everyday_256x192.sh ran, whose labels and weights the last stage takes.
# RUNS: another folder for these runs, by default runs. What is there goes on where it was stopped.
set -euo pipefail
usage="usage: $0 DATA START TEACHER [RUNS]"
data=$(realpath "${1:?$usage}") start=$(realpath "${2:?$usage}") teacher=$(realpath "${3:?$usage}")
runs=$(realpath -m "${4:-runs}")
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

# taught by a network that knows more, with all its labels
train_everyday widehrnet_10_attn light_5 --size 256 192 --minutes 155 --weights "$(start_of 4)" "${light[@]}" --lr 1.5e-3 \
    --labels "$teacher"/train.json --set data.cache="$runs"/sharp --set data.margin=1.3 --set augment.rotation_prob=0.45 \
    --set augment.box_jitter=0.06 --set augment.cutout_prob=0.06 --set teacher.model=widehrnet_18_attn \
    --set teacher.weights="$teacher"/11/weights.safetensors --set teacher.weight=0.5

python scripts/weights/ship_weights.py "$(start_of 5)" widehrnet_10_attn.everyday_256x192 \
    --data "$data" --padding 1.1 --kept-out "$runs"/kept_out.json --report "$runs"/card
