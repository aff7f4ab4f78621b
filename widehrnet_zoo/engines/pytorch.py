"""PyTorch, or this package's kernels on tensors, as what turns crops into heatmaps."""

import contextlib
import functools
import itertools
import logging
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..deployment.network import DeployedWideHRNet, deploy
from ..errors import UserError
from ..kernels.library import device_for, find_library, precision_of, variants
from ..kernels.native import KernelNetwork, accelerate
from ..models.opening import open_network
from ..models.widehrnet import WideHRNet
from ..pose.crops import normalise
from ..pose.skeletons import Skeleton
from . import ENGINES
from .fork import check_fork
from .graphs import GraphedNetwork

_logger = logging.getLogger(__name__)


class TorchBackend:
    """A module as a backend; crops stay tensors and are normalised on its device.

    Args:
        module: Maps (B, 3, H, W) to heatmaps (B, K, H/4, W/4); put into evaluation mode.
        size: Height and width of the input; by default from the module's `pretrained_cfg`.
        skeleton: What the keypoints are; by default from the module.
        device: Where it runs; `None` leaves it where it is.
        bf16: Products in bfloat16: by the kernels where they can, or else in PyTorch's autocast.
        engine: One of `ENGINES`. `'auto'` is `'kernels'` for a WideHRNet on a CPU, `'deployed'` where the package was
            installed without kernels or the processor has none in bfloat16; `'graphs'` for a WideHRNet on CUDA; and
            `'eager'` everywhere else.
        int8: Products of 8-bit integers, which the kernels alone know.
        own: Whether nobody else has the module, so that its weights need no watching before `module` is read.

    Attributes:
        engine: Which one runs: `'kernels'`, `'deployed'`, `'graphs'` or `'eager'`.
        any_size: Whether it takes inputs of other heights and widths, multiples of 32.

    Raises:
        UserError: If the module gives no heatmaps, does not say what its input is, or cannot be run by the engine.
    """

    any_size = True

    def __init__(
        self,
        module: nn.Module,
        size: tuple[int, int] | None = None,
        skeleton: Skeleton | None = None,
        device: str | torch.device | None = None,
        bf16: bool = False,
        engine: str = 'auto',
        int8: bool = False,
        own: bool = False,
    ):
        if engine not in ENGINES:
            raise UserError(f'There is no engine {engine!r}: choose {", ".join(ENGINES)}.')
        if int8 and engine not in ('auto', 'kernels'):
            raise UserError(f'The kernels alone run in int8: leave the engine {engine!r} out, or int8.')
        opened = open_network(module, size=size, skeleton=skeleton)
        self._module = module.eval() if device is None else module.eval().to(find_device(device))
        self._own = own
        self.skeleton, self.size, self.padding = opened.skeleton, opened.size, opened.padding
        self.mean, self.std, self.score_map = opened.mean, opened.std, opened.score_map
        tensors = _tensors(module)
        self.device = tensors[0].device if tensors else torch.device('cpu')
        self.bf16, self.int8 = bf16, int8
        self._precision = precision_of(bf16, int8)
        self._wanted = 'kernels' if int8 else engine
        self.engine, self._runner = self._choose()
        self._weights: _Weights | None = _Weights(self._module)

    @property
    def module(self) -> nn.Module:
        """The plain network. Where its weights change, the engine follows at the next call."""
        self._own = False
        return self._module

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """What the module says of itself; empty where it says nothing."""
        return getattr(self._module, 'pretrained_cfg', None) or {}

    @property
    def name(self) -> str:
        """Of the module: architecture and tag, or else the name of its class."""
        names = (self.pretrained_cfg.get(key) for key in ('architecture', 'tag'))
        return '.'.join(name for name in names if name) or type(self._module).__name__

    def state_dict(self) -> dict[str, Tensor]:
        """The module's, to be read; who changes weights takes them from `module`."""
        return self._module.state_dict()

    def _choose(self) -> tuple[str, nn.Module]:
        if self._wanted == 'auto':
            return _fastest(self._module, self.device, self.bf16)
        if self._wanted == 'eager':
            return 'eager', self._module
        if self._wanted == 'graphs':
            return 'graphs', _graphed(self._module, self.bf16)
        deployed = deploy(self._module)
        if self._wanted == 'deployed':
            return 'deployed', deployed
        return 'kernels', accelerate(deployed, self._precision)

    @property
    def runner(self) -> nn.Module:
        """What runs: the module itself, or what was made of it."""
        # the look at thousands of tensors takes a tenth of a crop's time
        stale = self._weights is None or (not self._own and self._weights.changed())
        if stale and self._runner is not self._module:
            self._weights = _Weights(self._module)
            self.engine, self._runner = self._choose()
        return self._runner

    def __getstate__(self) -> dict[str, Any]:
        # what was made of the module is made again where it is opened, for the processor that is there
        return {**self.__dict__, '_runner': self._module if self._runner is self._module else None, '_weights': None}

    def __call__(self, images: Tensor) -> Tensor:
        """Normalised crops (B, 3, H, W) to heatmaps (B, K, H/4, W/4)."""
        runner = self.runner
        if self.engine in ('kernels', 'graphs'):
            return runner(images.float())
        tensors = itertools.chain(runner.parameters(), runner.buffers())
        images = images.to(next((t.dtype for t in tensors if t.is_floating_point()), images.dtype))
        context = torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()
        with context:
            return runner(images)

    @torch.inference_mode()
    def from_crops(self, crops: npt.NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """uint8 crops (B, H, W, 3) to heatmaps (B, K, H/4, W/4), normalised on the module's device."""
        check_fork()
        if self.device.type == 'cpu':
            # not by PyTorch, whose threads go on spinning for milliseconds, where those of the kernels want to run
            return self(torch.from_numpy(normalise(crops, mean, std)))
        shift, scale = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) * 255 for v in (mean, std))
        images = torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2).float().sub_(shift).div_(scale)
        return self(images)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


_version = operator.attrgetter('_version')


class _Weights:
    """Tells when a module's weights change: by an optimiser, `load_state_dict`, `to`, or other tensors or layers.

    It is asked before every call: to walk through the module again would take milliseconds, and Python's loops twice as
    long as `map`.
    """

    def __init__(self, module: nn.Module):
        holders = [holder for m in module.modules() for holder in (m._parameters, m._buffers, m._modules)]
        self._holders: list[dict[str, Any]] = [holder for holder in holders for _ in holder]
        self._names = [name for holder in holders for name in holder]
        self._values: list[Any] = [value for holder in holders for value in holder.values()]
        self._tensors = [value for value in self._values if isinstance(value, Tensor)]
        self._state = self._now()

    def _now(self) -> tuple[Any, ...]:
        if not self._tensors or self._tensors[0].is_inference():
            return ()
        first = self._tensors[0]
        return (first.data_ptr(), first.dtype, sum(map(_version, self._tensors)))

    def changed(self) -> bool:
        """Whether they are others than when this was made."""
        found = map(dict.get, self._holders, self._names)
        return any(map(operator.is_not, found, self._values)) or self._now() != self._state


def _fastest(module: nn.Module, device: torch.device, bf16: bool) -> tuple[str, nn.Module]:
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    if device.type == 'cuda' and type(module) is WideHRNet and not hooked:
        return 'graphs', _graphed(module, bf16)
    if device.type != 'cpu' or type(module) not in (WideHRNet, DeployedWideHRNet) or hooked:
        return ('kernels' if isinstance(module, KernelNetwork) else 'eager'), module
    try:
        deployed = deploy(module)
    except UserError:
        return 'eager', module
    if find_library() is None:
        _say_once(
            'This installation has no compiled kernels, because there was no C++17 compiler (GCC or Clang) when the '
            'package was installed: PyTorch runs the network, several times slower.'
        )
    else:
        try:
            return 'kernels', accelerate(deployed, 'bf16' if bf16 else 'f32')
        except UserError:  # an attention that the kernels do not know, or no bfloat16 on this processor
            if bf16 and 'bf16' not in variants().values():
                _say_once(
                    'This processor has no AVX512-BF16, so PyTorch runs the network for bf16, many times slower than '
                    'the kernels do in float32: leave bf16 out.'
                )
    return ('eager', module) if bf16 else ('deployed', deployed)


def _graphed(module: nn.Module, bf16: bool) -> nn.Module:
    return GraphedNetwork(module, torch.bfloat16 if bf16 else torch.float16)


@functools.cache
def _say_once(text: str) -> None:
    _logger.warning(text)


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


@contextlib.contextmanager
def on_one_thread() -> Iterator[None]:
    """For many small operations, for which PyTorch's threads cost more than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def open_torch(
    model: str | Path | nn.Module | None = None,
    weights: str | Path | None = None,
    device: str | torch.device | None = None,
    size: tuple[int, int] | None = None,
    skeleton: Skeleton | None = None,
    bf16: bool = False,
    engine: str = 'auto',
    int8: bool = False,
) -> TorchBackend:
    """Open a network that is not an exported file; see `PoseEstimator` for the arguments."""
    network = open_network(model, weights, size=size, skeleton=skeleton).network
    if not isinstance(model, nn.Module):
        device = find_device(device_for(device, engine, int8))
    return TorchBackend(network, size, skeleton, device, bf16, engine, int8, own=not isinstance(model, nn.Module))
