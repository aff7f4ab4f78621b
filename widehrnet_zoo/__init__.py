"""WideHRNet: lightweight human-pose networks for timm and the Hugging Face Hub.

Importing this package puts the models into timm's registry; everything else is loaded when it is first used.
"""

from .start import IS_COMMAND

# isort: split
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import UserError as UserError
from .extras import needs_pytorch
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .deployment import deploy as deploy
    from .hub import push_to_hub as push_to_hub
    from .hub import save_pretrained as save_pretrained
    from .inference.estimator import PoseEstimator as PoseEstimator
    from .models.registry import create_model as create_model
    from .models.registry import list_models as list_models
    from .models.registry import list_pretrained as list_pretrained
    from .models.widehrnet import WideHRNet as WideHRNet
    from .pose.decoding import decode_heatmaps as decode_heatmaps
    from .pose.drawing import draw_poses as draw_poses
    from .pose.images import read_image as read_image
    from .pose.results import Keypoint as Keypoint
    from .pose.results import PoseResult as PoseResult
    from .pose.skeletons import SKELETONS as SKELETONS
    from .pose.skeletons import Skeleton as Skeleton

_HOMES = {
    'SKELETONS': 'pose.skeletons',
    'Keypoint': 'pose.results',
    'PoseEstimator': 'inference.estimator',
    'PoseResult': 'pose.results',
    'Skeleton': 'pose.skeletons',
    'WideHRNet': 'models.widehrnet',
    'create_model': 'models.registry',
    'decode_heatmaps': 'pose.decoding',
    'deploy': 'deployment',
    'draw_poses': 'pose.drawing',
    'list_models': 'models.registry',
    'list_pretrained': 'models.registry',
    'push_to_hub': 'hub',
    'read_image': 'pose.images',
    'save_pretrained': 'hub',
}

__all__ = ['UserError', '__version__', *_HOMES]


# the command says its version and help without PyTorch, and imports the models where it needs them
if not IS_COMMAND:
    try:
        import_module('.models.widehrnet', __name__)
    except ModuleNotFoundError as error:  # exported files run without PyTorch
        if error.name not in ('timm', 'torch'):
            raise


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    with needs_pytorch(f'widehrnet_zoo.{name}'):
        value = getattr(import_module(f'.{_HOMES[name]}', __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
