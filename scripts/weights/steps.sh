# What the scripts of several weights do alike; they source this file with `data` and `runs` set, from the repository root.

# bfloat16, but not where PyTorch is many times slower with it
precision=$(python -c 'from widehrnet_zoo.training.accelerator import bf16_is_slow
print("float32" if bf16_is_slow() else "bf16")')

# clean_labels PEOPLE MODEL [more arguments of clean_labels.py]: without labels that a trained network sees elsewhere
clean_labels() {
    local people=$1 model=$2
    shift 2
    widehrnet eval --protocol pck --flip-test --data "$people"/train.json --images "$people"/images --model "$model" \
        --out "$runs"/on_train
    python scripts/weights/clean_labels.py "$people"/train.json "$runs"/on_train/results.json "$runs"/clean.json "$@"
}

# train_people RECIPE NAME [more arguments of widehrnet train], on sport and fashion photos
train_people() {
    local recipe=$1 name=$2
    shift 2
    widehrnet train "$recipe" --labels "$runs"/clean.json --images "$data"/images --val-labels "$data"/val.json \
        --processes 2 --set fused=true --set precision="$precision" --out "$runs"/"$name" "$@"
}

# average START TRAINED SHARE OUT
average() {
    python scripts/weights/average_weights.py "$1" "$2" "$4" --share "$3"
}

# everyday_labels [more arguments of everyday_labels.py], after clean_labels
everyday_labels() {
    python scripts/weights/everyday_labels.py "$data" "$runs" --sport "$runs"/clean.json "$@"
}

# train_everyday VARIANT NAME [more arguments of widehrnet train]; what is there goes on where it was stopped
train_everyday() {
    local variant=$1 name=$2
    shift 2
    widehrnet train everyday_256x192 --labels "$runs"/train.json --images "$data" --set model.name="$variant" \
        --val-labels "$data"/everyday/val.json --set data.val_images="$data"/everyday/images --set epochs=1000 \
        --set data.cache="$runs"/cache --set stages=[] --set fused=true --set precision="$precision" --set ema_decay=0.996 \
        --set warmup_steps=30 --out "$runs"/"$name" --resume "$@"
}

# train_finder NAME SIDE EPOCHS LR [more arguments of widehrnet train], after person_labels.py; what is there goes on
train_finder() {
    local name=$1 side=$2 epochs=$3 lr=$4
    shift 4
    widehrnet train person_320x320 --labels "$runs"/train.json --images "$data" --val-labels "$runs"/val.json \
        --set data.cache="$runs"/cache --size "$side" "$side" --epochs "$epochs" --lr "$lr" --set batch_size=32 \
        --set fused=true --set precision="$precision" --out "$runs"/person_"$name" --resume "$@"
}

# people nearly as they are: less of everything that changes photos
light=()
for value in rotation=25 rotation_prob=0.4 any_rotation_prob=0.01 scale=1.2 shift=0.03 half_body_prob=0.05 \
    border_prob=0.12 box_jitter=0.05 neighbour_prob=0.03 far_prob=0 cutout_prob=0.04 colour=0.25 grey_prob=0.04 \
    dark_prob=0.03 noise_prob=0.02 small_prob=0.05 blur_prob=0.02; do
    light+=(--set "augment.$value")
done
