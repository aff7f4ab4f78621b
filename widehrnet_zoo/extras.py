"""Packages that are imported where a feature needs them."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_CORE = ('torch', 'timm', 'huggingface_hub', 'safetensors', 'tqdm')
"""What an installation for exported files does without; tqdm comes with huggingface-hub."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: Name of the module.
        extra: The extra of this package that installs it.

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


@contextmanager
def needs_pytorch(what: str, extra: str | None = None) -> Iterator[None]:
    """Around imports of modules that need PyTorch, which an installation for exported files alone does not have.

    Args:
        what: What is about to be done, for the message.
        extra: The extra of this package that it needs as well, so that one installation is enough.

    Raises:
        ImportError: If PyTorch, or a package that comes with it, is not installed; the message says what to do.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or '').partition('.')[0]
        if missing not in _CORE:
            raise
        package = f'"widehrnet_zoo[{extra}]"' if extra else 'widehrnet_zoo'
        raise ImportError(
            f'{what} needs {missing}, which is not installed: run `pip install {package}`. Without it only files that '
            '`widehrnet export` wrote for ONNX Runtime, OpenVINO or the kernels can be used.'
        ) from error
