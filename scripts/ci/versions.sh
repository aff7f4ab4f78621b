#!/usr/bin/env bash
# Run the tests with the lowest or the newest versions that pyproject.toml allows, of the core or of an extra.
#
#   scripts/ci/versions.sh lowest [EXTRA]       in an environment of its own; CI does so for each extra on Python 3.10
#   scripts/ci/versions.sh newest [EXTRA]       likewise, on the newest Python
#   scripts/ci/versions.sh light                in this environment: its PyTorch and timm, the lowest of the rest
#
# PYTHON is the Python to take, python3 by default.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
which=${1:?lowest, newest or light}
shift
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT

"$python" - "$@" > "$environment/lowest.txt" <<'PYTHON'
import re
import sys
from pathlib import Path

text = Path('pyproject.toml').read_text()
# an extra may need more of the core than the core does: gradio 6 a later huggingface-hub
for key in sys.argv[1:] or ['dependencies']:
    block = re.search(rf'^{key} = \[(.*?)\]$', text, re.M | re.S)
    if block is None:
        sys.exit(f'pyproject.toml has no extra {key}')
    found = re.findall(r'"([^"]+)"', block[1])
    if any(requirement.startswith('torchvision') for requirement in found):
        # each torchvision is of one PyTorch; without a word pip tries them all, the largest downloads there are
        found += re.findall(r'"(torch>=[^"]+)"', text)
    for requirement in found:
        # a constraint names no extras: ray[data] is ray
        print(re.sub(r'(\[.*\])?>=([^,]+).*', r'==\2', requirement))
PYTHON

core='tests/test_models.py tests/test_images.py tests/test_crops.py tests/test_decoding.py tests/test_estimator.py
    tests/test_hub.py'
if [ "$which" = light ]; then
    if ! "$python" -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then
        echo 'left out: the lowest NumPy has no wheels for this Python'
        exit 0
    fi
    grep -v -e '^torch==' -e '^timm==' "$environment/lowest.txt" > "$environment/light.txt"
    "$python" -m pip install --quiet --target "$environment/packages" -r "$environment/light.txt"
    # shellcheck disable=SC2086
    PYTHONPATH="$environment/packages:$PWD" "$python" -m pytest -p no:cacheprovider -m 'not slow' \
        ${core#*tests/test_models.py}
    exit
fi

tests_of() {
    case $1 in
        eval) echo tests/test_evaluation_*.py tests/test_finder.py ;;
        train) echo tests/test_training_*.py tests/test_box_training.py ;;
        export) echo tests/test_export.py tests/test_bench.py ;;
        video) echo tests/test_video.py tests/test_video_files.py tests/test_streams.py ;;
        heic) echo tests/test_images.py ;;
        detect) echo tests/test_detection.py tests/test_hub.py ;;
        demo) echo tests/test_demo.py tests/test_interchange_formats.py ;;
        ray) echo tests/test_collection.py ;;
        parquet) echo tests/test_interchange.py tests/test_interchange_formats.py ;;
        *) echo "no tests are named here for the extra $1" >&2; exit 1 ;;
    esac
}
tests="$core tests/test_parity.py"
[ $# -eq 0 ] || tests=$(for extra; do tests_of "$extra"; done)
constraints=()
[ "$which" = newest ] || constraints=(-c "$environment/lowest.txt")
extras=$(IFS=,; echo "$*")
"$python" -m venv "$environment/venv"
"$environment/venv/bin/pip" install --quiet "${constraints[@]}" -e ".${extras:+[$extras]}" 'pytest>=8'
# those of Ray start a cluster, which is slow, and run nowhere else
marked='not slow'
[[ " $* " != *' ray '* ]] || marked='slow or not slow'
"$environment/venv/bin/pip" list
# shellcheck disable=SC2086
"$environment/venv/bin/python" -m pytest -p no:cacheprovider -m "$marked" -rs $tests
