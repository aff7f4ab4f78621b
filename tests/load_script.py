"""The programs of `scripts/` as modules."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

SCRIPTS = Path(__file__).resolve().parents[1] / 'scripts'


def script(name: str) -> ModuleType:
    """Import one by its name, from whichever folder it is in."""
    folder = str(next(SCRIPTS.glob(f'*/{name}.py')).parent)
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)
