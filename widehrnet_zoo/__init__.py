"""WideHRNet: lightweight human-pose networks for timm and the Hugging Face Hub.

Importing this package puts the models into timm's registry; everything else is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .models.registry import create_model, list_models, list_pretrained
from .pose.skeletons import SKELETONS, Skeleton
from .version import __version__

if TYPE_CHECKING:
    from .deployment import deploy
    from .hub.saving import push_to_hub, save_pretrained
    from .inference.estimator import PoseEstimator
    from .models.widehrnet import WideHRNet
    from .pose.decoding import decode_heatmaps
    from .pose.drawing import draw_poses
    from .pose.images import read_image
    from .pose.results import Keypoint, PoseResult

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
    'Keypoint': 'pose.results',
    'PoseEstimator': 'inference.estimator',
    'PoseResult': 'pose.results',
    'WideHRNet': 'models.widehrnet',
    'decode_heatmaps': 'pose.decoding',
    'deploy': 'deployment',
    'draw_poses': 'pose.drawing',
    'push_to_hub': 'hub.saving',
    'read_image': 'pose.images',
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
