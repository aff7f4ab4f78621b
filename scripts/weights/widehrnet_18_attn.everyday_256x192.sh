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
average "$runs"/6/weights.safetensors "$runs"/8/weights.safetensors 0.7 "$runs"/teacher.safetensors

# what the network itself sees of people whom nobody labelled whole; crops as sharp as they are when people are looked at
python scripts/weights/label_people.py "$data"/everyday/train.json "$data"/everyday/images "$runs"/seen.json \
    --weights "$runs"/teacher.safetensors
everyday_labels --seen "$runs"/seen.json --times lspet=1.5 ccp=2 coco=1.8 openimages=0.7 masks=0.6
sharp=(--size 256 192 --set data.cache="$runs"/sharp --set data.margin=1.3)

# these two ran on a GPU within ten minutes, see gpu.md; on two cores they take three hours each
stage 9 "${sharp[@]}" --set epochs=6.3 --set batch_size=256 --lr 3e-3 --set ema_decay=0.997 \
    --weights "$runs"/teacher.safetensors
medium=()
for value in rotation=30 any_rotation_prob=0.02 scale=1.25 shift=0.05 half_body_prob=0.08 border_prob=0.18 \
    box_jitter=0.07 neighbour_prob=0.05 far_prob=0.01 cutout_prob=0.08 colour=0.3 grey_prob=0.05 dark_prob=0.05 \
    noise_prob=0.03 small_prob=0.08 blur_prob=0.03; do
    medium+=(--set "augment.$value")
done
stage 10 "${sharp[@]}" --set epochs=14.1 --set batch_size=128 --lr 2e-3 --set ema_decay=0.995 "${medium[@]}" \
    --weights "$runs"/9/weights.safetensors
average "$runs"/teacher.safetensors "$runs"/10/weights.safetensors 0.85 "$runs"/start_11.safetensors
stage 11 "${sharp[@]}" --minutes 74 --lr 1e-3 --weights "$runs"/start_11.safetensors "${light[@]}" \
    --set augment.rotation_prob=0.45 --set augment.box_jitter=0.06 --set augment.cutout_prob=0.06

python scripts/weights/ship_weights.py "$runs"/11/weights.safetensors widehrnet_18_attn.everyday_256x192 \
    --data "$data" --padding 1.1 --kept-out "$runs"/kept_out.json --report "$runs"/card
