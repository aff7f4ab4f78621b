"""WideHRNet: lightweight human-pose networks for timm and the Hugging Face Hub.

Importing this package puts the models into timm's registry; everything else is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .models.registry import create_model, list_models, list_pretrained
from .skeletons import SKELETONS, Skeleton

if TYPE_CHECKING:
    from .decoding import decode_heatmaps
    from .deployment import deploy
    from .drawing import draw_poses
    from .estimator import PoseEstimator
    from .hub.saving import push_to_hub, save_pretrained
    from .images import read_image
    from .models.widehrnet import WideHRNet
    from .results import Keypoint, PoseResult

__version__ = '0.1.0'

__all__ = [
    'SKELETONS',
    'Keypoint',
    'PoseEstimator',
    'PoseResult',
    'Skeleton',
    'UserError',
    'WideHRNet',
    '__version__',
    'create_model',
    'decode_heatmaps',
    'deploy',
    'draw_poses',
    'list_models',
    'list_pretrained',
    'push_to_hub',
    'read_image',
    'save_pretrained',
]

_LATER = {
    'Keypoint': 'results',
    'PoseEstimator': 'estimator',
    'PoseResult': 'results',
    'WideHRNet': 'models.widehrnet',
    'decode_heatmaps': 'decoding',
    'deploy': 'deployment',
    'draw_poses': 'drawing',
    'push_to_hub': 'hub.saving',
    'read_image': 'images',
    'save_pretrained': 'hub.saving',
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(importlib.import_module(f'.{_LATER[name]}', __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
