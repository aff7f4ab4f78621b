#!/usr/bin/env bash
# Train everyday_256x192, or RECIPE, from packs on a machine with a GPU, and leave in OUT what may come back: the averaged weights
# (float16, the newest every 15 seconds, so that a command that is cut off leaves them too), log, curves, use of the GPU.
#   [RECIPE=person_320x320] OUT=folder bash scripts/weights/on_gpu.sh PACKS START MINUTES [more arguments of widehrnet train]
# MINUTES is the budget of all stages, compiling included; imports, decoding and the end take about a minute more.
# Wheels in .whl, if there are any, go before what is installed. See gpu.md beside this file.
set -euo pipefail
packs=$1 start=$2 minutes=$3
shift 3
out=${OUT:-out}
run=$(mktemp -d)
mkdir -p "$out"
if ls .whl/*.whl > /dev/null 2>&1; then
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$run/site" .whl/*.whl
    export PYTHONPATH="$run/site${PYTHONPATH:+:$PYTHONPATH}"
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

bring() {
    newest=$(find "$run" -name weights.safetensors -printf '%T@ %p\n' 2> /dev/null | sort -n | tail -1 | cut -d' ' -f2-)
    if [ -n "$newest" ]; then cp "$newest" "$out/weights.tmp" && mv "$out/weights.tmp" "$out/weights.safetensors"; fi
    for file in log.csv summary.json curves.png validation.png; do
        if [ -f "$run/run/$file" ]; then cp "$run/run/$file" "$out/$file"; fi
    done
}
(while sleep 15; do bring; done) &
beside=$!
if command -v nvidia-smi > /dev/null; then
    nvidia-smi --query-gpu=timestamp,utilization.gpu,memory.used,power.draw --format=csv -l 2 > "$out/gpu.csv" &
    beside="$beside $!"
fi
trap 'kill $beside 2> /dev/null || true; bring' EXIT

python3 -m widehrnet_zoo train "${RECIPE:-everyday_256x192}" --packs "$packs" --weights "$start" --minutes "$minutes" \
    --out "$run/run" --quiet --set save_minutes=1 --set log_steps=25 --set eval_minutes=2 "$@" 2>&1 | tee "$out/console.log"
for log in "$run"/run/*/log.csv; do
    # photos a second between the first and the last row, without compiling
    awk -F, -v stage="$(basename "$(dirname "$log")")" 'NR == 2 { s = $3; m = $4 } NR > 1 { t = $3; n = $4 }
        END { if (n > m) printf "%s: %.0f photos/s\n", stage, (t - s) / (n - m) / 60 }' "$log" | tee -a "$out/console.log"
done
