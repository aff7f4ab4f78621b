#!/usr/bin/env bash
# Run the tests of the core with the lowest versions of the core packages that pyproject.toml declares.
#
#   scripts/ci/lowest_versions.sh           in an environment of its own, with the lowest PyTorch and timm too
#   scripts/ci/lowest_versions.sh --light   in this one: its PyTorch and timm, the lowest of the rest; a minute
set -euo pipefail
cd "$(dirname "$0")/../.."
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
python3 - > "$environment/constraints.txt" <<'PYTHON'
import re
from pathlib import Path

block = re.search(r'^dependencies = \[(.*?)\]', Path('pyproject.toml').read_text(), re.M | re.S).group(1)
for requirement in re.findall(r'"([^"]+)"', block):
    print(requirement.replace('>=', '=='))
PYTHON
cat "$environment/constraints.txt"
if [ "${1:-}" = --light ]; then
    if ! python3 -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then
        echo 'left out: the lowest NumPy has no wheels for this Python'
        exit 0
    fi
    grep -v -e '^torch==' -e '^timm==' "$environment/constraints.txt" > "$environment/light.txt"
    python3 -m pip install --quiet --target "$environment/packages" -r "$environment/light.txt"
    PYTHONPATH="$environment/packages:$PWD" python3 -m pytest -p no:cacheprovider -m 'not slow' \
        tests/test_images.py tests/test_crops.py tests/test_decoding.py tests/test_estimator.py tests/test_hub.py
    exit
fi
python3 -m venv "$environment/venv"
"$environment/venv/bin/pip" install --quiet -c "$environment/constraints.txt" . 'pytest>=8'
"$environment/venv/bin/python" -m pytest -m 'not slow' tests/test_models.py tests/test_parity.py tests/test_images.py \
    tests/test_crops.py tests/test_decoding.py tests/test_estimator.py tests/test_hub.py
