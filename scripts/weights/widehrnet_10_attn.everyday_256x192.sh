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

# sport labels without those that a trained network sees elsewhere
widehrnet eval --protocol pck --flip-test --data "$data"/people/train.json --images "$data"/people/images \
    --model widehrnet_30_attn --out "$runs"/on_train
python scripts/weights/clean_labels.py "$data"/people/train.json "$runs"/on_train/results.json "$runs"/people.json \
    --easy 0.4
python scripts/weights/everyday_labels.py "$data" "$runs" --sport "$runs"/people.json --times lspet=1.5 ccp=2

# people nearly as they are: a light network has no room for more
light=()
for value in rotation=25 rotation_prob=0.4 any_rotation_prob=0.01 scale=1.2 shift=0.03 half_body_prob=0.05 \
    border_prob=0.12 box_jitter=0.05 neighbour_prob=0.03 far_prob=0 cutout_prob=0.04 colour=0.25 grey_prob=0.04 \
    dark_prob=0.03 noise_prob=0.02 small_prob=0.05 blur_prob=0.02; do
    light+=(--set "augment.$value")
done
stage() {
    local name=$1
    shift
    widehrnet train everyday_256x192 --labels "$runs"/train.json --images "$data" --set model.name=widehrnet_10_attn \
        --val-labels "$data"/everyday/val.json --set data.val_images="$data"/everyday/images --set epochs=1000 \
        --set data.cache="$runs"/cache --set stages=[] --set fused=true --set precision=bf16 --set ema_decay=0.996 \
        --set warmup_steps=30 --set lr=2e-3 --out "$runs"/"$name" --resume "${light[@]}" "$@"
}
stage light_1 --size 192 128 --minutes 15 --weights "$start"
stage light_2 --size 256 192 --minutes 12 --weights "$runs"/light_1/model/model.safetensors

python scripts/weights/ship_weights.py "$runs"/light_2/model/model.safetensors widehrnet_10_attn.everyday_256x192 \
    --data "$data" --padding 1.1 --kept-out "$runs"/kept_out.json --report "$runs"/card
