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

# sport labels without those that a trained network sees elsewhere
widehrnet eval --protocol pck --flip-test --data "$data"/people/train.json --images "$data"/people/images \
    --model widehrnet_30_attn --out "$runs"/on_train
python scripts/weights/clean_labels.py "$data"/people/train.json "$runs"/on_train/results.json "$runs"/people.json \
    --easy 0.4
python scripts/weights/everyday_labels.py "$data" "$runs" --sport "$runs"/people.json

stage() {
    local name=$1
    shift
    widehrnet train everyday_256x192 --labels "$runs"/train.json --images "$data" \
        --val-labels "$data"/everyday/val.json --set data.val_images="$data"/everyday/images --set epochs=1000 \
        --set data.cache="$runs"/cache --set stages=[] --set fused=true --set precision=bf16 --set ema_decay=0.996 \
        --set warmup_steps=30 --out "$runs"/"$name" --resume "$@"
}
stage 1 --size 128 96 --minutes 30 --lr 1.5e-3 --weights "$start"
stage 2 --size 192 128 --minutes 65 --lr 1e-3 --weights "$runs"/1/model/model.safetensors
stage 3 --size 192 128 --minutes 45 --lr 1.5e-3 --weights "$runs"/2/model/model.safetensors
stage 4 --size 256 192 --minutes 77 --lr 1.5e-3 --weights "$runs"/3/model/model.safetensors

# what the network has to learn last is people as they are: less of everything that changes photos, more sport
light=()
for value in rotation=25 rotation_prob=0.4 any_rotation_prob=0.01 scale=1.2 shift=0.03 half_body_prob=0.05 \
    border_prob=0.12 box_jitter=0.05 neighbour_prob=0.03 far_prob=0 cutout_prob=0.04 colour=0.25 grey_prob=0.04 \
    dark_prob=0.03 noise_prob=0.02 small_prob=0.05 blur_prob=0.02; do
    light+=(--set "augment.$value")
done
python scripts/weights/everyday_labels.py "$data" "$runs" --sport "$runs"/people.json --times lspet=1.5 ccp=2
stage 5 --size 192 128 --minutes 50 --lr 1.5e-3 --weights "$runs"/4/model/model.safetensors "${light[@]}"
stage 6 --size 256 192 --minutes 70 --lr 1.5e-3 --weights "$runs"/5/model/model.safetensors "${light[@]}"

python scripts/weights/ship_weights.py "$runs"/6/model/model.safetensors widehrnet_18_attn.everyday_256x192 \
    --data "$data" --padding 1.1 --kept-out "$runs"/kept_out.json --report "$runs"/card
