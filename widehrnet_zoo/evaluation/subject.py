"""What was measured, on what and by which versions: for the report, and to tell the predictions of runs apart."""

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..engines.pytorch import TorchBackend
from ..files import model_files, sha256
from ..inference.estimator import PoseEstimator
from ..version import __version__

UNKNOWN = 'not known'
"""What is said of weights that cannot be seen."""


def describe_model(estimator: PoseEstimator, name: str | None) -> dict[str, str]:
    """What is measured; see `describe_backend`."""
    return describe_backend(estimator.backend, name, estimator.size)


def describe_backend(backend: Any, name: str | None, size: tuple[int, int] | None = None) -> dict[str, str]:
    """What is measured.

    Args:
        backend: What runs the network.
        name: What to call it; by default what it calls itself.
        size: Height and width of the input; by default the backend's.

    Returns:
        `model`, `weights`, `precision` and `device`.
    """
    backend = getattr(backend, 'torch_backend', backend)
    if isinstance(backend, TorchBackend):
        name = name or backend.name
        state = backend.state_dict()
        weights = f'sha256 of the state {_fingerprint(state)[:16]}' if state else UNKNOWN
        precision = _precision(backend)
    else:
        file = getattr(backend, 'path', None)
        name = name or (type(backend).__name__ if file is None else Path(file).name)
        weights = f'sha256 {sha256(*model_files(file))[:16]}' if file and Path(file).is_file() else UNKNOWN
        precision = f'as exported, run by {type(backend).__name__}'
    height, width = size or backend.size
    return {
        'model': f'{name}, input {height}x{width}',
        'weights': weights,
        'precision': precision,
        'device': str(getattr(backend, 'device', 'cpu')),
    }


def describe_data(data: str | Path, boxes: str | Path | None, people: int) -> dict[str, str]:
    """What it is measured on, and by which versions.

    Args:
        data: File of labels.
        boxes: File of a detector's boxes.
        people: Number of boxes.

    Returns:
        `labels`, `detections` where there are boxes, and `versions`.
    """
    said = {'labels': f'{Path(data).name}, sha256 {sha256(data)[:16]}, {people} boxes'}
    if boxes is not None:
        said['detections'] = f'{Path(boxes).name}, sha256 {sha256(boxes)[:16]}'
    said['versions'] = (
        f'widehrnet_zoo {__version__}, '
        + ', '.join(f'{p} {_version(p)}' for p in ('torch', 'pycocotools'))
        + f', Python {platform.python_version()}'
    )
    return said


def _precision(backend: TorchBackend) -> str:
    if backend.engine == 'kernels':
        return f'{"bfloat16 products" if backend.bf16 else "8-bit products" if backend.int8 else "float32"}, kernels'
    if backend.engine == 'graphs':
        return f'{"bfloat16" if backend.bf16 else "float16"}, CUDA graphs'
    if backend.bf16:
        return 'bfloat16 autocast'
    dtypes = (value.dtype for value in backend.state_dict().values() if value.is_floating_point())
    dtype = next(dtypes, torch.float32)
    return str(dtype).removeprefix('torch.')


def _fingerprint(state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        digest.update(value.detach().to('cpu').contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return 'not installed'
