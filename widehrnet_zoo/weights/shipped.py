"""The weights that ship with the package, and the check that they are whole."""

import functools
import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import sha256

WEIGHTS = Path(__file__).parent
"""Folder of the shipped weights, `<variant>.<tag>.safetensors`, with their hashes and figures in `index.json`."""


@functools.cache
def _index() -> dict[str, dict[str, Any]]:
    index = WEIGHTS / 'index.json'
    return json.loads(index.read_text()) if index.exists() else {}


def shipped_entry(name: str) -> dict[str, Any]:
    """What is known of shipped weights, as `scripts/weights/ship_weights.py` measured it.

    Args:
        name: `variant.tag`.

    Returns:
        `sha256` of the file; `metrics`, figures in per cent by name; and, where they are the weights' own, `padding`,
        the growth of a box to the view, and `score_map`, from heatmap peaks to chances. Empty where nothing ships
        under that name.
    """
    return _index().get(f'{name}.safetensors', {})


def check_shipped(file: Path) -> None:
    """Compare a shipped file with the hash it was released with.

    Args:
        file: A file of `WEIGHTS`.

    Raises:
        UserError: If the file is missing, unknown or was changed.
    """
    if not file.exists():
        raise UserError(f'{file} is missing: this installation is not whole, install widehrnet_zoo again.')
    if sha256(file) != shipped_entry(file.stem).get('sha256'):
        raise UserError(f'{file} is not the file that was released: install widehrnet_zoo again.')
