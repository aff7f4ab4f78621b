#!/usr/bin/env bash
# Exported files where only NumPy, Pillow and ONNX Runtime are installed: written by this environment, used in another.
#
#   scripts/ci/without_torch.sh     in an environment with the extra `export`; a minute
set -euo pipefail
cd "$(dirname "$0")/../.."
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
photo=$PWD/widehrnet_zoo/samples/portraits.jpg
# any weights of a person finder do: what it finds is compared, and not judged
python3 - "$place/finder.safetensors" <<'PYTHON'
import sys

import torch
from safetensors.torch import save_file

from widehrnet_zoo import create_model
from widehrnet_zoo.pose.box_maps import NUM_MAPS

torch.manual_seed(0)
model = create_model('widehrnet_10_attn', num_classes=NUM_MAPS).eval()
with torch.no_grad():
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.weight.normal_(0, (2 / layer.weight[0].numel()) ** 0.5)
        elif isinstance(layer, torch.nn.BatchNorm2d):
            layer.weight.uniform_(0.15, 0.45)
    # boxes about a tenth of the photo, and scores of all heights
    model.classifier.weight *= 0.1
    model.classifier.weight[0] *= 15
save_file(model.state_dict(), sys.argv[1])
PYTHON
python3 -m widehrnet_zoo export widehrnet_18_attn --format onnx --pipeline --finder "$place/finder.safetensors" \
    --out "$place/pose.onnx"
python3 -m widehrnet_zoo export widehrnet_18_attn --format kernels --finder "$place/finder.safetensors" \
    --out "$place/pose.kernels"
limits=(--max-people 3 --pose-threshold 0)
# an ONNX file of a finder does without the mirrored photo, so the people of one are compared with its own
for finder in pose.finder.onnx finder.safetensors; do
    python3 -m widehrnet_zoo predict "$photo" --detector "finder:$place/$finder" "${limits[@]}" \
        --no-picture --out "$place/by_$finder"
done

python3 -m venv "$place/light"
"$place/light/bin/pip" install --quiet numpy pillow onnxruntime
"$place/light/bin/pip" install --quiet --no-deps .
cd "$place"
if light/bin/python -c 'import torch.nn' 2> /dev/null; then
    echo 'PyTorch is installed where it should not be'
    exit 1
fi
kinds=(onnx)
has='import sys; from widehrnet_zoo.kernels.library import find_library as find; sys.exit(not find())'
if light/bin/python -c "$has"; then
    kinds+=(kernels)
fi
for kind in "${kinds[@]}"; do
    light/bin/python -c 'import resource, sys
from widehrnet_zoo import PoseEstimator
PoseEstimator(sys.argv[1]).detector()
used = resource.getrusage(resource.RUSAGE_SELF)
print(f"{sys.argv[1]}: ready after {used.ru_utime + used.ru_stime:.2f} s of CPU")' "pose.$kind"
    light/bin/widehrnet predict "$photo" --model "pose.$kind" "${limits[@]}" --out "$kind"
    test -s "$kind/portraits_pose.jpg"
    [ "$kind" = onnx ] && expected=by_pose.finder.onnx || expected=by_finder.safetensors
    light/bin/python - "$kind" "$expected" <<'PYTHON'
import json
import sys

import numpy as np

found, expected = (json.load(open(f'{folder}/portraits_pose.json'))['people'] for folder in sys.argv[1:])
assert len(found) == len(expected) > 0, (len(found), len(expected))
points = [np.array([[(k['x'], k['y']) for k in p['keypoints']] for p in people]) for people in (found, expected)]
far = np.abs(points[0] - points[1]).max(-1)
print(f'{sys.argv[1]}: {np.mean(far < 0.1):.1%} of {far.size} keypoints within 0.1 pixels of PyTorch, {far.max():.3f} at most')
assert np.mean(far < 0.1) > 0.97
PYTHON
done
