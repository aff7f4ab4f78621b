"""Training and fine-tuning; needs the extra `[train]`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import TrainConfig
    from .recipes import load_config, shipped_configs
    from .run import preview, train

__all__ = ['TrainConfig', 'load_config', 'preview', 'shipped_configs', 'train']

_HOMES = {
    'TrainConfig': 'config',
    'load_config': 'recipes',
    'shipped_configs': 'recipes',
    'preview': 'run',
    'train': 'run',
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    import importlib

    return getattr(importlib.import_module(f'.{_HOMES[name]}', __name__), name)
