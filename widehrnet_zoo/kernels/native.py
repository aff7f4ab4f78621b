"""The deployed network on this package's own CPU kernels, compiled at first use.

A block is one call: the expanded activations live in three rows that stay in the cache, and the depthwise convolution,
its ReLU and the pooling of squeeze-excitation are one pass over them. Products may run in bfloat16, with float32 sums
and float32 activations between the layers.
"""

import functools
from pathlib import Path
from types import ModuleType
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..deployment.fusion import DownPath, Fusion
from ..deployment.layers import Block, Depthwise, Gate, Gather, Pointwise, Separable
from ..deployment.network import DeployedWideHRNet, Stage, Transition
from ..errors import UserError
from ..extras import require

__all__ = ['NativeWideHRNet', 'accelerate', 'kernels']

_LANES = 16


@functools.cache
def kernels() -> ModuleType:
    """Compile (once per machine and PyTorch version) and load the kernels.

    Raises:
        ImportError: If ninja is not installed.
        UserError: If there is no working C++ compiler.
    """
    require('ninja', extra='export')
    from torch.utils.cpp_extension import load

    try:
        return load(
            name='widehrnet_zoo_native',
            sources=[str(Path(__file__).with_name('native.cpp'))],
            extra_cflags=['-O3', '-march=native', '-ffast-math', '-fopenmp'],
            extra_ldflags=['-fopenmp'],
        )
    except (RuntimeError, OSError) as error:
        raise UserError(
            f'the kernels could not be compiled ({str(error).splitlines()[0]}): they need a C++17 compiler (GCC or '
            'Clang). Go without them: deploy() without accelerate(), no `fused`.'
        ) from error


def _pad(x: Tensor) -> Tensor:
    return F.pad(x, (0, -x.shape[-1] % _LANES)).contiguous()


class _Recorder:
    """Puts the layers of a deployed network down as the steps of a program; takes and returns numbers of slots."""

    def __init__(self, bf16: bool):
        self.program = kernels().Program()
        self.bf16 = bf16

    def _product(self, layer: Pointwise) -> tuple[Tensor, Tensor, int]:
        packed = kernels().pack(layer.weight.contiguous(), self.bf16)
        return packed, _pad(layer.bias), layer.weight.shape[1]

    def pointwise(self, layer: Pointwise, x: int, relu: bool = False) -> int:
        return self.program.pointwise(x, *self._product(layer), relu, self.bf16)

    def separable(self, dw: Depthwise, pw: Pointwise, relu: bool, x: int, into: int = -1) -> int:
        weight, bias = _pad(dw.weight.flatten(1).t()), _pad(dw.bias)
        return self.program.separable(x, weight, bias, dw.stride, *self._product(pw), into, relu, self.bf16)

    def block(self, block: Block, x: int) -> None:
        squeeze: list[Tensor] = []
        if block.attn is not None:
            gate = cast(Gate, block.attn)
            squeeze = [_pad(t) for fc in (gate.fc1, gate.fc2) for t in (fc.weight, fc.bias)]
        weight, bias = _pad(block.dw.weight.flatten(1).t()), _pad(block.dw.bias)
        expand, project = self._product(block.expand), self._product(block.project)
        self.program.block(x, block.start, *expand, weight, bias, *project, squeeze, self.bf16)

    def branch(self, blocks: nn.Sequential, x: int) -> int:
        for block in blocks:
            if isinstance(block, Gather):
                x = self.program.gather(x, block.order)
            else:
                self.block(cast(Block, block), x)
        return x

    def blocks(self, blocks: list[nn.Sequential], x: list[int]) -> list[int]:
        # the lowest two resolutions have the same work, and little of it for two threads to share
        alone = len(x) - 2 if len(x) > 2 else len(x)
        out = [self.branch(branch, y) for branch, y in zip(blocks[:alone], x[:alone], strict=True)]
        if alone < len(x):
            self.program.begin_branches()
            for branch, y in zip(blocks[alone:], x[alone:], strict=True):
                self.program.next_branch()
                out.append(self.branch(branch, y))
            self.program.end_branches()
        return out

    def fusion(self, fusion: Fusion, x: list[int]) -> list[int]:
        program, channels = self.program, fusion.channels
        below = [self.pointwise(cast(Pointwise, up), branch) for up, branch in zip(fusion.up, x[1:], strict=True)]
        for j in range(len(below) - 1, 0, -1):
            program.add_upsampled(below[j - 1], below[j], 0)
        # every sum is in place: paths from a lower branch read it before its own sum, so the lowest targets come first;
        # paths from the highest resolution read its sum
        paths = sorted(cast(list[DownPath], list(fusion.down)), key=lambda p: (p.source == 0, -p.target))
        for path in [p for p in paths if p.source > 0]:
            self.down(path, x, None)
        for i, low in enumerate(below):
            program.add_upsampled(x[i], low, sum(channels[:i]))
        for path in [p for p in paths if p.source == 0]:
            self.down(path, x, fusion.bias if path.target == len(x) - 1 else None)
        out = []
        for i, z in enumerate(x):
            gather = getattr(fusion, f'gather{i}')
            if gather is None:
                program.relu(z)
            out.append(z if gather is None else program.finish(z, gather))
        return out

    def down(self, path: DownPath, x: list[int], bias: Tensor | None) -> None:
        y = x[path.source]
        for step in cast(list[Separable], list(path.steps)):
            y = self.separable(step.dw, step.pw, step.relu, y)
        packed, zeros, outputs = self._product(path.pw)
        weight, dw_bias = _pad(path.dw.weight.flatten(1).t()), _pad(path.dw.bias)
        added = zeros if bias is None else _pad(bias)
        into = x[path.target]
        self.program.separable(y, weight, dw_bias, path.dw.stride, packed, added, outputs, into, False, self.bf16)

    def transition(self, transition: Transition, x: list[int]) -> list[int]:
        new = self._whole(transition.new, x[-1])
        return [
            self._whole(k, y) if isinstance(k, Separable) else y for k, y in zip(transition.keep, x, strict=True)
        ] + [new]

    def _whole(self, layer: Separable, x: int) -> int:
        return self.separable(layer.dw, layer.pw, layer.relu, x)

    def network(self, deployed: DeployedWideHRNet) -> int:
        stem = deployed.stem
        conv = stem.weight.flatten(1).t().contiguous()
        first = (kernels().pack(conv, self.bf16), _pad(stem.bias), conv.shape[1])
        y = self.program.stem(0, *first, *self._product(stem.mix), self.bf16)
        branches = [self._whole(stem.separable, y)]
        for module in deployed.body:
            if isinstance(module, Transition):
                branches = self.transition(module, branches)
            else:
                stage = cast(Stage, module)
                branches = self.blocks(cast(list[nn.Sequential], list(stage.branches)), branches)
                branches = self.fusion(stage.fusion, branches)
        y = branches[-1]
        for i, project in enumerate(cast(list[Separable], list(deployed.neck))):
            if i:
                self.program.add_bilinear(branches[-1 - i], y)
                y = branches[-1 - i]
            y = self._whole(project, y)
        return self.pointwise(cast(Pointwise, deployed.head), y)


class NativeWideHRNet(nn.Module):
    """A deployed network on the compiled kernels; made by `accelerate`.

    Attributes:
        num_classes: Number of keypoints.
        in_chans: Number of input channels.
        pretrained_cfg: Of the trained model.
    """

    def __init__(self, deployed: DeployedWideHRNet, bf16: bool):
        super().__init__()
        self.num_classes = deployed.num_classes
        self.in_chans = deployed.in_chans
        self.pretrained_cfg = deployed.pretrained_cfg
        recorder = _Recorder(bf16)
        self._result = recorder.network(deployed)
        self._program = recorder.program
        self.eval()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W), H and W multiples of 32, to heatmaps (B, K, H/4, W/4).

        Raises:
            UserError: If the size does not fit, or the images are not float32 on the CPU.
        """
        fits = x.ndim == 4 and x.shape[1] == self.in_chans and x.shape[2] % 32 == 0 == x.shape[3] % 32
        if x.dtype != torch.float32 or x.device.type != 'cpu' or not fits:
            raise UserError(
                f'the kernels take float32 images (B, {self.in_chans}, H, W) on the CPU, H and W multiples of 32, not '
                f'{x.dtype} {tuple(x.shape)} on {x.device}.'
            )
        return self._program.run(x, self._result)


def accelerate(deployed: DeployedWideHRNet, precision: str = 'f32') -> NativeWideHRNet:
    """Run a deployed network on this package's own kernels for the CPU.

    Args:
        deployed: From `deploy()`, with heatmaps.
        precision: `'f32'`, equal within rounding; or `'bf16'`: products of bfloat16 numbers with float32 sums, where
            the processor has AVX512-BF16.

    Returns:
        The network; images (B, C, H, W) in float32, H and W multiples of 32, to heatmaps.

    Raises:
        UserError: If there is no compiler, the processor has no bfloat16, or the network has other attention than
            squeeze-excitation or no heatmaps.
        ImportError: If ninja is not installed.
    """
    if precision not in ('f32', 'bf16'):
        raise UserError(f'the kernels run in f32 or bf16, not in {precision}.')
    other = [m.attn for m in deployed.modules() if isinstance(m, Block) and not isinstance(m.attn, (Gate, type(None)))]
    if other:
        raise UserError(f'the kernels know squeeze-excitation only, not {type(other[0]).__name__}.')
    if not isinstance(deployed.head, Pointwise):
        raise UserError("the kernels give heatmaps only: create the model with global_pool=''.")
    weight = next(deployed.buffers())
    if weight.device.type != 'cpu' or weight.dtype != torch.float32:
        raise UserError(f'the kernels run on the CPU from float32 weights, not on {weight.device} from {weight.dtype}.')
    if precision == 'bf16' and not kernels().has_bf16():
        raise UserError('this processor has no AVX512-BF16: use f32.')
    return NativeWideHRNet(deployed, precision == 'bf16')
