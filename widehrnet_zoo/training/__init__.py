"""Training and fine-tuning; needs the extra `[train]`."""

from .config import TrainConfig
from .data import pack
from .recipes import load_config, shipped_configs
from .run import preview, train

__all__ = ['TrainConfig', 'load_config', 'pack', 'preview', 'shipped_configs', 'train']
