"""From whatever a model is given as to what runs it. PyTorch is imported for what needs it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..extras import needs_pytorch
from ..pose.skeletons import Skeleton
from . import cache
from .exported import SUFFIXES
from .exported import open_backend as open_exported

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .cache import CachedBackend
    from .pytorch import TorchBackend

_EXPORTED = (*SUFFIXES, '.engine', '.tflite', '.pte', '.mlpackage')
"""Those that can be run here, and those of others, which are refused by their name."""


@runtime_checkable
class HeatmapBackend(Protocol):
    """Anything that gives heatmaps, with what its input is.

    Attributes:
        skeleton: What the keypoints are.
        size: Height and width of the input.
        mean: Of the input, RGB in 0..1.
        std: Of the input.
    """

    skeleton: Skeleton
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: npt.NDArray[np.float32], /) -> Any:
        """Normalised crops (B, 3, H, W) to heatmaps (B, K, H/4, W/4), any B from 1."""
        ...


def exported_path(model: Any) -> Path | None:
    """The path of an exported file or folder, or `None` where a model is anything else.

    Args:
        model: As for `open_backend`.
    """
    if not isinstance(model, (str, Path)) or (isinstance(model, str) and ':' in model[2:]):  # a drive has a colon too
        return None
    path = Path(model)
    if path.suffix in _EXPORTED:
        return path
    if not path.is_dir() or (path / 'config.json').exists():
        return None
    if isinstance(model, str) and model.startswith('widehrnet_'):
        # a name of the zoo goes before a folder of the same name
        with needs_pytorch(f'The model {model}'):
            from ..models.opening import path_of

        return path_of(model)
    return path


def open_backend(
    model: 'str | Path | nn.Module | None' = None,
    weights: str | Path | None = None,
    device: 'str | torch.device | None' = None,
    size: tuple[int, int] | None = None,
    skeleton: Skeleton | None = None,
    bf16: bool = False,
    engine: str = 'auto',
    int8: bool = False,
) -> 'HeatmapBackend | TorchBackend | CachedBackend':
    """Open a model by whatever it is given as; see `PoseEstimator` for the arguments.

    Where PyTorch has not been imported, a network that was opened before comes from the cache, without it.

    Raises:
        UserError: If the model cannot be opened, or the arguments do not fit it.
        ImportError: If it needs PyTorch, or another runtime, which is not installed.
    """
    path = exported_path(model)
    if path is None:
        request = cache.Request(model, weights, device, size, skeleton, bf16, engine, int8)
        if 'torch' not in sys.modules and (found := cache.open_cached(request)) is not None:
            return found
        with needs_pytorch('A network that is not an exported file'):
            from .pytorch import on_one_thread, open_torch

        if not cache.STARTED_WITHOUT_PYTORCH:
            return open_torch(model, weights, device, size, skeleton, bf16, engine, int8)
        # nothing else runs in this process yet
        with on_one_thread():
            opened = open_torch(model, weights, device, size, skeleton, bf16, engine, int8)
            cache.keep(request, opened)
        return opened
    if weights is not None or size is not None or bf16 or int8 or engine != 'auto':
        raise UserError(
            'An exported file holds its weights, size and precision and has its own runtime: leave weights, size, '
            'bf16, int8 and engine out.'
        )
    return open_exported(path, device=device)


def torch_module(backend: Any) -> 'nn.Module | None':
    """The plain network that a backend runs, or `None` where there is none."""
    if isinstance(backend, cache.CachedBackend):
        return backend.module
    # where there is one, its module has been imported
    pytorch = sys.modules.get(f'{__package__}.pytorch')
    return backend.module if pytorch is not None and isinstance(backend, pytorch.TorchBackend) else None
