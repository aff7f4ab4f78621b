"""The weights that ship with the package, and the check that they are whole."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from ..errors import UserError

WEIGHTS = Path(__file__).parent
"""Folder of the shipped weights, `<variant>.<tag>.safetensors`, with their hashes and figures in `index.json`."""


@functools.cache
def _index() -> dict[str, dict[str, Any]]:
    index = WEIGHTS / 'index.json'
    return json.loads(index.read_text()) if index.exists() else {}


def shipped_metrics(name: str) -> dict[str, float]:
    """Figures of shipped weights, as `scripts/weights/ship_weights.py` measured them.

    Args:
        name: `variant.tag`.

    Returns:
        Name to figure in per cent; empty where nothing ships under that name.
    """
    return dict(_index().get(f'{name}.safetensors', {}).get('metrics', {}))


def shipped_padding(name: str) -> float | None:
    """Growth of a box to the view that shipped weights learnt from; `None` for the default.

    Args:
        name: `variant.tag`.
    """
    return _index().get(f'{name}.safetensors', {}).get('padding')


def shipped_score_map(name: str) -> dict[str, list[float]] | None:
    """The map from heatmap peaks to chances that was fitted for shipped weights; `None` for none.

    Args:
        name: `variant.tag`.
    """
    return _index().get(f'{name}.safetensors', {}).get('score_map')


def check_shipped(file: Path) -> None:
    """Compare a shipped file with the hash it was released with.

    Args:
        file: A file of `WEIGHTS`.

    Raises:
        UserError: If the file is missing, unknown or was changed.
    """
    if not file.exists():
        raise UserError(f'{file} is missing: this installation is not whole, install widehrnet_zoo again.')
    if hashlib.sha256(file.read_bytes()).hexdigest() != _index().get(file.name, {}).get('sha256'):
        raise UserError(f'{file} is not the file that was released: install widehrnet_zoo again.')
