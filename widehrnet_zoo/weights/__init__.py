"""The weights that ship with the package, and the check that they are whole."""

import functools
import hashlib
import json
from pathlib import Path

from ..errors import UserError

WEIGHTS = Path(__file__).parent
"""Folder of the shipped weights, `<variant>.<tag>.safetensors`, with their hashes in `index.json`."""


@functools.cache
def _hashes() -> dict[str, str]:
    index = WEIGHTS / 'index.json'
    return json.loads(index.read_text()) if index.exists() else {}


def check_shipped(file: Path) -> None:
    """Compare a shipped file with the hash it was released with.

    Args:
        file: A file of `WEIGHTS`.

    Raises:
        UserError: If the file is missing, unknown or was changed.
    """
    if not file.exists():
        raise UserError(f'{file} is missing: this installation is not whole, install widehrnet_zoo again.')
    if hashlib.sha256(file.read_bytes()).hexdigest() != _hashes().get(file.name):
        raise UserError(f'{file} is not the file that was released: install widehrnet_zoo again.')
