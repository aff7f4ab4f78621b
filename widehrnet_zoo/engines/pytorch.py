"""What turns normalised crops into heatmaps: a torch module, or an exported file in its place."""

import contextlib
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..deployment.network import deploy
from ..errors import UserError
from ..kernels.native import accelerate
from ..models.opening import open_network, path_of
from ..pose.skeletons import Skeleton
from .exported import open_backend as open_exported

__all__ = ['HeatmapBackend', 'TorchBackend', 'find_device', 'open_backend']

_EXPORTED = ('.onnx', '.xml', '.pt2', '.torchscript', '.engine', '.tflite', '.pte', '.mlpackage')


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


class TorchBackend:
    """A module as a backend; crops stay tensors and are normalised on its device.

    Args:
        module: Maps (B, 3, H, W) to heatmaps (B, K, H/4, W/4); put into evaluation mode.
        size: Height and width of the input; by default from the module's `pretrained_cfg`.
        skeleton: What the keypoints are; by default from the module.
        device: Where it runs; `None` leaves it where it is.
        bf16: Run in bfloat16 autocast.
        fused: Run it deployed, on this package's compiled CPU kernels; with `bf16` its products in bfloat16.

    Raises:
        UserError: If the module gives no heatmaps, or does not say what its input is; or if it is to be fused and that
            cannot be: see `deploy` and `accelerate`.
        ImportError: If it is to be fused and ninja is not installed.
    """

    def __init__(
        self,
        module: nn.Module,
        size: tuple[int, int] | None = None,
        skeleton: Skeleton | None = None,
        device: str | torch.device | None = None,
        bf16: bool = False,
        fused: bool = False,
    ):
        opened = open_network(module, size=size, skeleton=skeleton)
        self.module = module.eval() if device is None else module.eval().to(find_device(device))
        self.skeleton, self.size, self.padding = opened.skeleton, opened.size, opened.padding
        self.mean, self.std, self.score_map = opened.mean, opened.std, opened.score_map
        tensors = [*module.parameters(), *module.buffers()]
        self.device = tensors[0].device if tensors else torch.device('cpu')
        self.bf16 = bf16
        self.fused = _fuse(module, bf16) if fused else None

    def __call__(self, images: Tensor) -> Tensor:
        """Normalised crops (B, 3, H, W) to heatmaps (B, K, H/4, W/4)."""
        if self.fused is not None:
            return self.fused(images)
        images = images.to(next((p.dtype for p in self.module.parameters() if p.is_floating_point()), images.dtype))
        context = torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()
        with context:
            return self.module(images)


def find_device(device: str | torch.device | None = None) -> torch.device:
    """A device that is there.

    Args:
        device: Its name; `None` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        UserError: If there is no such device.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device is None:
        return torch.device('cuda' if cuda else 'mps' if mps else 'cpu')
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ['cpu'] + [f'cuda:{i}' for i in range(torch.cuda.device_count() if cuda else 0)] + ['mps'] * mps
        raise UserError(f'There is no device {str(device)!r} here: choose {", ".join(there)}.') from error
    return found


def open_backend(
    model: str | Path | nn.Module | None = None,
    weights: str | Path | None = None,
    device: str | torch.device | None = None,
    size: tuple[int, int] | None = None,
    skeleton: Skeleton | None = None,
    bf16: bool = False,
    fused: bool = False,
) -> HeatmapBackend | TorchBackend:
    """Open a model by whatever it is given as; see `PoseEstimator` for the arguments."""
    path = path_of(model)
    if path is not None and (path.suffix in _EXPORTED or (path.is_dir() and not (path / 'config.json').exists())):
        if weights is not None or size is not None or bf16 or fused:
            raise UserError(
                'An exported file holds its weights, size and precision and has its own runtime: leave weights, size, '
                'bf16 and fused out.'
            )
        if not path.exists():
            raise UserError(f'There is no file {path}.')
        return open_exported(path, device=device)
    network = open_network(model, weights, size=size, skeleton=skeleton).network
    if not isinstance(model, nn.Module):
        device = find_device('cpu' if fused and device is None else device)
    return TorchBackend(network, size, skeleton, device, bf16, fused)


def _fuse(module: nn.Module, bf16: bool) -> nn.Module:
    return accelerate(deploy(module), 'bf16' if bf16 else 'f32')
