"""Training and fine-tuning; needs the extra `[train]`."""

from .config import TrainConfig
from .recipes import load_config, shipped_configs
from .run import preview, train

__all__ = ['TrainConfig', 'load_config', 'preview', 'shipped_configs', 'train']
