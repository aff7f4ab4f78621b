"""The parts that a WideHRNet is built of: stem, blocks, exchange between branches, transitions and neck.

What they take as `layers` is for each `ConvNormAct` in them: `norm_layer`, `act_layer`, `device`, `dtype`.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from timm.layers import (
    ConvNormAct,
    DropPath,
    LayerType,
    create_act_layer,
    create_attn,
    make_divisible,
)
from timm.models import checkpoint
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


class DepthwiseSeparable(nn.Module):
    """Depthwise 3x3, norm, pointwise 1x1, norm, and an activation at the end only."""

    def __init__(self, in_chs: int, out_chs: int, stride: int = 1, apply_act: bool = True, **layers: Any):
        super().__init__()
        self.conv_dw = ConvNormAct(in_chs, in_chs, 3, stride=stride, groups=in_chs, apply_act=False, **layers)
        self.conv_pw = ConvNormAct(in_chs, out_chs, 1, apply_act=apply_act, **layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_pw(self.conv_dw(x))


@torch.fx.wrap  # a graph of torch.fx has the call, not the branch that the layout of one input took
def shuffle_halves(a: Tensor, b: Tensor) -> Tensor:
    """Concatenate two (B, C, H, W) halves and shuffle by two groups: a0, b0, a1, b1, ...

    The result is laid out like `a`: channels last, or not.
    """
    if a.stride(1) < a.stride(3):
        # stack() at dim 2 would make it contiguous
        return torch.stack((a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)), dim=4).flatten(3).permute(0, 3, 1, 2)
    return torch.stack((a, b), dim=2).flatten(1, 2)


class WideStem(nn.Module):
    """Stride-4 stem: a strided 3x3 convolution, then two strided halves that are shuffled together."""

    def __init__(self, in_chans: int, out_chs: int, **layers: Any):
        super().__init__()
        half = out_chs // 2
        self.conv = ConvNormAct(in_chans, out_chs, 3, stride=2, **layers)
        self.branch1 = DepthwiseSeparable(half, half, stride=2, **layers)
        self.branch2 = nn.Sequential()
        self.branch2.add_module('conv_pw', ConvNormAct(half, out_chs, 1, **layers))
        self.branch2.add_module('conv_sep', DepthwiseSeparable(out_chs, half, stride=2, **layers))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv(x).chunk(2, dim=1)
        return shuffle_halves(self.branch1(a), self.branch2(b))


class WideInvertedResidual(nn.Module):
    """Half of the channels pass, half go through an inverted residual; then both are shuffled."""

    def __init__(
        self,
        chs: int,
        expansion: float = 4.0,
        attn_layer: LayerType | None = None,
        norm_layer: LayerType = nn.BatchNorm2d,
        act_layer: LayerType = nn.ReLU,
        drop_path: float = 0.0,
        device: Any = None,
        dtype: Any = None,
    ):
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        super().__init__()
        half = chs // 2
        mid_chs = make_divisible(half * expansion, 4)
        self.conv_pw = ConvNormAct(half, mid_chs, 1, norm_layer=norm_layer, act_layer=act_layer, **dd)
        self.conv_dw = ConvNormAct(
            mid_chs, mid_chs, 3, groups=mid_chs, norm_layer=norm_layer, act_layer=act_layer, **dd
        )
        # timm's SE rounds its reduction without the 10 % limit of the published network, so it is told the width
        attn_kwargs = {'rd_channels': make_divisible(mid_chs // 4, 8)} if attn_layer == 'se' else {}
        self.attn = create_attn(attn_layer, mid_chs, **attn_kwargs, **dd) if attn_layer else nn.Identity()
        self.conv_pwl = ConvNormAct(mid_chs, half, 1, apply_act=False, norm_layer=norm_layer, **dd)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        residual = self.conv_pwl(self.attn(self.conv_dw(self.conv_pw(b))))
        return shuffle_halves(a, b + self.drop_path(residual))


class Fusion(nn.Module):
    """Exchange between branches, with the sum of the official network.

    With `z0` the sum of the highest resolution before its activation,

        z0 = 2 * x0 + sum(f_0j(x_j) for j > 0)
        zi = 2 * f_i0(z0) + xi + sum(f_ij(x_j) for j > 0, j != i)    for i > 0

    The textbook exchange (HRNet, Sun et al., CVPR 2019, eq. 3) is `zi = sum(f_ij(x_j))`. Published weights were
    trained with the sum above and need it.
    """

    def __init__(self, channels: tuple[int, ...], act_layer: LayerType = nn.ReLU, **layers: Any):
        layers['act_layer'] = act_layer
        super().__init__()
        self.paths: Any = nn.ModuleList()
        for i, out_chs in enumerate(channels):
            row = nn.ModuleList()
            for j, in_chs in enumerate(channels):
                if j == i:
                    row.append(nn.Identity())
                elif j > i:
                    row.append(ConvNormAct(in_chs, out_chs, 1, apply_act=False, **layers))
                else:
                    row.append(
                        nn.Sequential(
                            *[
                                DepthwiseSeparable(
                                    in_chs,
                                    out_chs if last else in_chs,
                                    stride=2,
                                    apply_act=not last,
                                    **layers,
                                )
                                for last in [False] * (i - j - 1) + [True]
                            ]
                        )
                    )
            self.paths.append(row)
        self.act = create_act_layer(act_layer, inplace=False)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        top = 2 * x[0]
        out: list[Tensor] = []
        for i, row in enumerate(self.paths):
            z = top if i == 0 else x[i]
            for j, path in enumerate(row):
                if j > i:
                    z = z + F.interpolate(path(x[j]), size=x[i].shape[-2:], mode='nearest')
                elif j < i:
                    z = z + (2 * path(top) if j == 0 else path(x[j]))
            if i == 0:
                top = z
            out.append(z)
        return [self.act(z) for z in out]


class WideHRModule(nn.Module):
    """Blocks on each branch, then the exchange between the branches."""

    def __init__(
        self,
        channels: tuple[int, ...],
        num_blocks: int = 2,
        expansion: float = 4.0,
        attn_layer: LayerType | None = None,
        drop_path: float = 0.0,
        **layers: Any,
    ):
        super().__init__()
        self.branches = nn.ModuleList(
            [
                nn.Sequential(
                    *[
                        WideInvertedResidual(chs, expansion, attn_layer, drop_path=drop_path, **layers)
                        for _ in range(num_blocks)
                    ]
                )
                for chs in channels
            ]
        )
        self.fuse = Fusion(channels, **layers)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return self.fuse([branch(x[i]) for i, branch in enumerate(self.branches)])


class SequentialList(nn.Sequential):
    """`nn.Sequential` whose modules map a list of branches to a list of branches, typed for TorchScript."""

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        for module in self:
            x = module(x)
        return x


@contextmanager
def _without_running_stats(module: nn.Module) -> Iterator[None]:
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    counts = [
        (m.num_batches_tracked, m.num_batches_tracked.clone()) for m in norms if m.num_batches_tracked is not None
    ]
    momentums = [m.momentum for m in norms]
    try:
        for m in norms:
            m.momentum = 0.0
        yield
    finally:
        for m, momentum in zip(norms, momentums, strict=True):
            m.momentum = momentum
        for count, before in counts:
            count.copy_(before)


def checkpoint_module(module: nn.Module, x: list[Tensor]) -> list[Tensor]:
    """Run a module over branches; the backward pass runs it again instead of keeping its activations."""

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        # without the second one, batch norm would count each batch twice in its running statistics
        return nullcontext(), _without_running_stats(module)

    # torch.compile takes no contexts; it updates the statistics in the forward pass only
    kwargs: dict[str, Any] = {} if torch.compiler.is_compiling() else {'context_fn': contexts}
    # reentrant checkpointing does not see tensors in a list, so timm's global choice does not apply
    return checkpoint(module, x, use_reentrant=False, **kwargs)


class Transition(nn.Module):
    """Fit branches to the channels of a stage, and open its new branch from the lowest resolution."""

    def __init__(self, in_channels: tuple[int, ...], out_channels: tuple[int, ...], **layers: Any):
        super().__init__()
        self.keep = nn.ModuleList(
            [
                DepthwiseSeparable(i, o, **layers) if i != o else nn.Identity()
                for i, o in zip(in_channels, out_channels, strict=False)
            ]
        )
        self.new = DepthwiseSeparable(in_channels[-1], out_channels[-1], stride=2, **layers)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        out = [keep(x[i]) for i, keep in enumerate(self.keep)]
        out.append(self.new(x[-1]))
        return out


class TopDownNeck(nn.Module):
    """Bring the branches together from the lowest resolution up; the result has stride 4."""

    def __init__(self, channels: tuple[int, ...], **layers: Any):
        super().__init__()
        from_low = channels[::-1]
        self.projects = nn.ModuleList(
            [DepthwiseSeparable(i, o, **layers) for i, o in zip(from_low, from_low[1:] + from_low[-1:], strict=False)]
        )

    def forward(self, x: list[Tensor]) -> Tensor:
        y = x[-1]
        for i, project in enumerate(self.projects):
            if i > 0:
                branch = x[-1 - i]
                y = branch + F.interpolate(y, size=branch.shape[-2:], mode='bilinear', align_corners=True)
            y = project(y)
        return y


def init_weights(module: nn.Module) -> None:
    """Fresh weights for one module, as the authors draw them: normal with 0.001, biases 0."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        if not module.weight.is_meta:  # there is nothing to draw, and PyTorch takes twice the network's time for it
            nn.init.normal_(module.weight, std=0.001)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif callable(reset := getattr(module, 'reset_parameters', None)):
        reset()  # the running statistics too, which hold anything after `to_empty`
