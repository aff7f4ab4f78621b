"""Optional packages, imported where a feature needs them."""

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: Name of the module.
        extra: The extra of this package that installs it.

    Returns:
        The module.

    Raises:
        ImportError: If it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split('.')[0] != error.name.split('.')[0]:
            raise
        raise ImportError(
            f'{module} is needed here and not installed: run `pip install "widehrnet_zoo[{extra}]"`.'
        ) from error
