"""The deployed network on this package's own CPU kernels, compiled at first use.

A block is one call: the expanded activations live in three rows that stay in the cache, and the depthwise convolution,
its ReLU and the pooling of squeeze-excitation are one pass over them. Products may run in bfloat16, with float32 sums
and float32 activations between the layers.
"""

import functools
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..extras import require
from .fusion import DownPath, Fusion
from .layers import Block, Depthwise, Gate, Gather, Pointwise, Separable
from .network import DeployedWideHRNet, Stage, Transition

__all__ = ['NativeWideHRNet', 'accelerate', 'kernels']

_LANES = 16


@functools.cache
def kernels() -> ModuleType:
    """Compile (once per machine and PyTorch version) and load the kernels.

    Raises:
        ImportError: If ninja is not installed.
        UserError: If there is no working C++ compiler.
    """
    require('ninja', extra='train')
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
            'Clang). Use deploy() without accelerate().'
        ) from error


def _pad(x: Tensor) -> Tensor:
    return F.pad(x, (0, -x.shape[-1] % _LANES)).contiguous()


class _Product:
    def __init__(self, layer: Pointwise, bf16: bool):
        self.packed = kernels().pack(layer.weight.contiguous(), bf16)
        self.bias = _pad(layer.bias)
        self.inputs, self.outputs = layer.weight.shape
        self.bf16 = bf16

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor:
        out = x.new_empty(*x.shape[:-1], self.outputs)
        kernels().pointwise(x, self.packed, self.bias, self.outputs, out, False, relu, self.bf16)
        return out


class _Separable:
    def __init__(self, dw: Depthwise, pw: Pointwise, relu: bool, bf16: bool):
        self.weight, self.bias = _pad(dw.weight.flatten(1).t()), _pad(dw.bias)
        self.stride, self.relu = dw.stride, relu
        self.pw = _Product(pw, bf16)

    def __call__(self, x: Tensor, into: Tensor | None = None) -> Tensor:
        b, h, w, _ = x.shape
        out = into
        if out is None:
            out = x.new_empty(b, (h - 1) // self.stride + 1, (w - 1) // self.stride + 1, self.pw.outputs)
        pw = self.pw
        kernels().separable(
            x,
            self.weight,
            self.bias,
            self.stride,
            pw.packed,
            pw.bias,
            pw.outputs,
            out,
            into is not None,
            self.relu,
            pw.bf16,
        )
        return out


class _Block:
    def __init__(self, block: Block, bf16: bool):
        self.start = block.start
        self.expand, self.project = _Product(block.expand, bf16), _Product(block.project, bf16)
        self.weight, self.bias = _pad(block.dw.weight.flatten(1).t()), _pad(block.dw.bias)
        self.squeeze: list[Tensor] = []
        if block.attn is not None:
            gate = cast(Gate, block.attn)
            self.squeeze = [_pad(t) for fc in (gate.fc1, gate.fc2) for t in (fc.weight, fc.bias)]

    def __call__(self, x: Tensor) -> Tensor:
        expand, project = self.expand, self.project
        kernels().block(
            x,
            self.start,
            expand.packed,
            expand.bias,
            expand.outputs,
            self.weight,
            self.bias,
            project.packed,
            project.bias,
            project.outputs,
            self.squeeze,
            expand.bf16,
        )
        return x


class _Fusion:
    def __init__(self, fusion: Fusion, bf16: bool):
        self.fusion = fusion
        self.up = [_Product(cast(Pointwise, up), bf16) for up in fusion.up]
        paths = cast(list[DownPath], list(fusion.down))
        self.down = [
            (
                p.source,
                p.target,
                [_Separable(s.dw, s.pw, s.relu, bf16) for s in cast(list[Separable], list(p.steps))],
                _Separable(p.dw, p.pw, False, bf16),
            )
            for p in paths
        ]

    def __call__(self, x: list[Tensor]) -> list[Tensor]:
        k, channels = kernels(), self.fusion.channels
        below = [up(branch) for up, branch in zip(self.up, x[1:], strict=True)]
        sums = [x[0]] + [branch.clone() for branch in x[1:]]
        for j in range(len(below) - 1, 0, -1):
            k.add_upsampled(below[j - 1], below[j], 0)
        for i, low in enumerate(below):
            k.add_upsampled(sums[i], low, low.shape[-1] - channels[i])
        for source, target, steps, last in self.down:
            # the paths from the highest resolution read its sum, which is written in place
            y = x[source]
            for step in steps:
                y = step(y)
            last(y, sums[target])
        sums[-1].add_(self.fusion.bias)
        out = []
        for i, z in enumerate(sums):
            gather = getattr(self.fusion, f'gather{i}')
            out.append(z.relu_() if gather is None else k.finish(z, gather))
        return out


class NativeWideHRNet(nn.Module):
    """A deployed network on the compiled kernels; made by `accelerate`.

    Attributes:
        num_classes: Number of keypoints.
        pretrained_cfg: Of the trained model.
    """

    def __init__(self, deployed: DeployedWideHRNet, bf16: bool):
        super().__init__()
        self.num_classes = deployed.num_classes
        self.pretrained_cfg = deployed.pretrained_cfg
        stem = deployed.stem
        # the only layers that stay with PyTorch; in a list, so that they are no parameters of this module
        self._stem = [stem]
        self._mix = _Product(stem.mix, bf16)
        self._open = self._separable(stem.separable, bf16)
        self._body: list[Any] = []
        for module in deployed.body:
            if isinstance(module, Transition):
                keep = [self._separable(m, bf16) if isinstance(m, Separable) else None for m in module.keep]
                self._body.append((keep, self._separable(module.new, bf16)))
            else:
                stage = cast(Stage, module)
                branches = [
                    [m if isinstance(m, Gather) else _Block(m, bf16) for m in cast(nn.Sequential, branch)]
                    for branch in stage.branches
                ]
                self._body.append((branches, _Fusion(stage.fusion, bf16)))
        self._neck = [self._separable(cast(Separable, m), bf16) for m in deployed.neck]
        self._head = _Product(cast(Pointwise, deployed.head), bf16)
        self.eval()

    @staticmethod
    def _separable(layer: Separable, bf16: bool) -> _Separable:
        return _Separable(layer.dw, layer.pw, layer.relu, bf16)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W), H and W multiples of 32, to heatmaps (B, K, H/4, W/4).

        Raises:
            UserError: If the size does not fit, or the images are not float32 on the CPU.
        """
        if x.dtype != torch.float32 or x.device.type != 'cpu' or x.shape[2] % 32 or x.shape[3] % 32:
            raise UserError(
                f'the kernels take float32 images on the CPU whose height and width are multiples of 32, not {x.dtype} '
                f'{tuple(x.shape)} on {x.device}.'
            )
        stem = self._stem[0]
        x = x.contiguous(memory_format=torch.channels_last)
        y = F.conv2d(x, stem.weight, stem.bias, stride=2, padding=1).relu_().permute(0, 2, 3, 1).contiguous()
        branches = [self._open(self._mix(y, relu=True))]
        for parts, last in self._body:
            if isinstance(last, _Separable):
                new = last(branches[-1])
                branches = [y if keep is None else keep(y) for keep, y in zip(parts, branches, strict=True)] + [new]
                continue
            for i, blocks in enumerate(parts):
                for block in blocks:
                    branches[i] = block(branches[i])
            branches = last(branches)
        y = branches[-1]
        for i, project in enumerate(self._neck):
            if i:
                branch = branches[-1 - i]
                up = F.interpolate(y.permute(0, 3, 1, 2), branch.shape[1:3], mode='bilinear', align_corners=True)
                y = branch.add_(up.permute(0, 2, 3, 1))
            y = project(y)
        return self._head(y).permute(0, 3, 1, 2).contiguous()


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
    if next(deployed.buffers()).device.type != 'cpu' or next(deployed.buffers()).dtype != torch.float32:
        raise UserError('the kernels run on the CPU from float32 weights.')
    if precision == 'bf16' and not kernels().has_bf16():
        raise UserError('this processor has no AVX512-BF16: use f32.')
    return NativeWideHRNet(deployed, precision == 'bf16')
