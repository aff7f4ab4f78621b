"""What turns normalised crops into heatmaps: a torch module, or an exported file behind the same door."""

import contextlib
import logging
import re
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from timm.data import resolve_model_data_config
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg
from torch import Tensor, nn

from ..errors import UserError
from ..models.registry import create_model, list_models
from ..pose.crops import padding_of
from ..pose.skeletons import Skeleton, skeleton_of

_logger = logging.getLogger(__name__)

__all__ = ['DEFAULT_MODEL', 'HeatmapBackend', 'TorchBackend', 'find_device', 'open_backend']

DEFAULT_MODEL = 'widehrnet_18_attn'
"""The variant that ships with weights."""

_WEIGHTS = ('.safetensors', '.pth', '.pt', '.bin')
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
        known = getattr(module, 'pretrained_cfg', None)
        if not known and size is None:
            raise UserError('this module has no pretrained_cfg that tells its input: give size=(height, width).')
        pool = getattr(getattr(module, 'global_pool', None), 'pool_type', '')
        if pool:
            raise UserError(f"this model pools its features (global_pool={pool!r}): keypoints need global_pool=''.")
        config = resolve_model_data_config(module)
        channels = getattr(module, 'in_chans', 3)
        if channels != 3:
            raise UserError(f'this model takes {channels} channels; pictures have 3.')
        self.module = module.eval() if device is None else module.eval().to(find_device(device))
        self.skeleton = skeleton or skeleton_of(module)
        self.padding = padding_of(module)
        try:
            self.size: tuple[int, int] = size or tuple(config['input_size'][1:])
            self.mean: tuple[float, ...] = tuple(config['mean'])
            self.std: tuple[float, ...] = tuple(config['std'])
        except TypeError as error:
            raise UserError(f'input_size, mean and std in the config of this model are no lists: {error}.') from error
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
        raise UserError(f'there is no device {str(device)!r} here: choose {", ".join(there)}.') from error
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
    if isinstance(model, nn.Module):
        if weights is not None:
            _load(model, weights)
        return TorchBackend(model, size, skeleton, device, bf16, fused)
    name = None if model is None else str(model)
    path = None if name is None or ':' in name[2:] or name.partition('.')[0] in list_models() else Path(name)
    if path is not None and path.suffix in _WEIGHTS and weights is None:
        name, weights, path = None, path, None
    if path is not None and (path.suffix in _EXPORTED or (path.is_dir() and not (path / 'config.json').exists())):
        if weights is not None or size is not None or bf16 or fused:
            raise UserError(
                'an exported file holds its weights, size and precision and has its own runtime: leave weights, size, '
                'bf16 and fused out.'
            )
        if not path.exists():
            raise UserError(f'there is no file {path}.')
        from .exported import open_backend as open_exported

        return open_exported(path, device=device)
    if path is not None and path.is_dir():
        name = f'local-dir:{name}'
    if weights is None:
        module = create_model(name or DEFAULT_MODEL, pretrained=True)
    else:
        module = _with_weights(name, Path(weights), skeleton)
    place = find_device('cpu' if fused and device is None else device)
    return TorchBackend(module, size, skeleton, place, bf16, fused)


def _fuse(module: nn.Module, bf16: bool) -> nn.Module:
    from ..deployment import deploy
    from ..kernels.native import accelerate

    return accelerate(deploy(module), 'bf16' if bf16 else 'f32')


def _with_weights(name: str | None, weights: Path, skeleton: Skeleton | None) -> nn.Module:
    from ..weights.official import find_architecture, read_weights

    if name is not None and ':' in name:
        module = create_model(name)
        _load(module, weights)
        return module
    state = read_weights(weights)
    found = find_architecture(state)
    if name is not None and name.partition('.')[0] != found.variant:
        create_model(name)  # says so if there is no such name
        raise UserError(f'{weights.name} holds weights of {found.variant}, not of {name}.')
    count = found.num_classes
    if name is None or '.' not in name:
        name = _tag_for(found.variant, count, weights)
    # without memory until the weights are known to fit
    module = create_model(name, num_classes=count, device='meta', **found.model_args)
    config = get_pretrained_cfg(name) if '.' in name else None
    if config is not None and config.num_classes != count and skeleton is None:
        raise UserError(
            f'{weights.name} has {count} keypoints and {name} has {config.num_classes}: choose a tag of the same data '
            'set, or give the skeleton.'
        )
    _load(module, weights, state)
    return module


def _tag_for(variant: str, count: int, weights: Path) -> str:
    """The tag of a variant that a file's keypoints and name speak for; the bare variant for other keypoints."""
    tags = [
        cfg.tag or ''
        for cfg in get_arch_pretrained_cfgs(variant).values()
        # a checkpoint of the authors is not one of ours
        if cfg.num_classes == count and not (weights.suffix != '.safetensors' and (cfg.tag or '').startswith('people'))
    ]
    said = set(re.findall(r'\d{2,4}x\d{2,4}|coco|mpii|people', weights.name))
    tags.sort(key=lambda tag: -len(said & set(tag.split('_'))))
    name = f'{variant}.{tags[0]}' if tags else variant
    if not tags or not said & set(tags[0].split('_')):
        _logger.warning(f'{weights.name} does not say its input size: taking that of {name}; name the model to choose.')
    return name


def _load(module: nn.Module, weights: str | Path, state: dict[str, Tensor] | None = None) -> None:
    from ..weights.checkpoints import misfits
    from ..weights.official import read_weights

    state = read_weights(weights) if state is None else state
    own = module.state_dict()
    if problems := misfits(state, own):
        raise UserError(f'{Path(weights).name} does not fit the model: {problems}.')
    if any(tensor.is_meta for tensor in own.values()):
        module.to_empty(device='cpu')
    module.load_state_dict(state)
