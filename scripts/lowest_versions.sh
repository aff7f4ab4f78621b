#!/usr/bin/env bash
# Run the tests of the core with the lowest versions of the core packages that pyproject.toml declares.
set -euo pipefail
cd "$(dirname "$0")/.."
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
python3 -m venv "$environment"
"$environment/bin/python" - > "$environment/constraints.txt" <<'PYTHON'
import re
from pathlib import Path

block = re.search(r'^dependencies = \[(.*?)\]', Path('pyproject.toml').read_text(), re.M | re.S).group(1)
for requirement in re.findall(r'"([^"]+)"', block):
    print(requirement.replace('>=', '=='))
PYTHON
cat "$environment/constraints.txt"
"$environment/bin/pip" install --quiet -c "$environment/constraints.txt" . 'pytest>=8'
"$environment/bin/python" -m pytest -m 'not slow' tests/test_models.py tests/test_parity.py tests/test_images.py \
    tests/test_crops.py tests/test_decoding.py tests/test_estimator.py tests/test_hub.py
