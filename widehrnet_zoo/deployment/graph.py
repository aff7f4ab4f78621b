"""The deployed network as a graph of plain convolutions in (B, C, H, W), for exporters and compilers."""

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fusion import DownPath, Fusion
from .layers import Block, Depthwise, Gate, Gather, Pointwise, Separable
from .network import DeployedWideHRNet, Stage, Transition


def _conv(layer: Pointwise, outputs: slice = slice(None), bias: Tensor | None = None) -> nn.Conv2d:
    weight, bias = layer.weight[:, outputs].t(), layer.bias[outputs] if bias is None else bias
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
    conv.weight.data, conv.bias.data = weight[:, :, None, None].clone(), bias.clone()  # type: ignore[union-attr]
    return conv


def _depthwise(layer: Depthwise) -> nn.Conv2d:
    chs = len(layer.weight)
    conv = nn.Conv2d(chs, chs, 3, layer.stride, 1, groups=chs)
    conv.weight.data, conv.bias.data = layer.weight.clone(), layer.bias.clone()  # type: ignore[union-attr]
    return conv


def _separable(layer: Separable) -> nn.Sequential:
    parts = [_depthwise(layer.dw), _conv(layer.pw)]
    return nn.Sequential(*parts, nn.ReLU()) if layer.relu else nn.Sequential(*parts)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode='nearest')


class GraphGate(nn.Module):
    """Squeeze-excitation."""

    def __init__(self, gate: Gate):
        super().__init__()
        self.fc1, self.fc2 = _conv(gate.fc1), _conv(gate.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class GraphBlock(nn.Module):
    """A block on one run of channels."""

    def __init__(self, block: Block, chs: int):
        super().__init__()
        self.start, self.stop, self.chs = block.start, block.stop, chs
        self.expand, self.dw, self.project = _conv(block.expand), _depthwise(block.dw), _conv(block.project)
        self.attn: nn.Module = nn.Identity()
        if block.attn is not None:
            self.attn = GraphGate(block.attn) if isinstance(block.attn, Gate) else copy.deepcopy(block.attn)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        run = x[:, self.start : self.stop]
        run = run + self.project(self.attn(self.dw(self.expand(run).relu()).relu()))
        return torch.cat((x[:, : self.start], run, x[:, self.stop :]), 1)


class GraphGather(nn.Module):
    """Channels in another order."""

    order: Tensor

    def __init__(self, order: Tensor):
        super().__init__()
        self.register_buffer('order', order.clone())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return x.index_select(1, self.order)


class GraphFusion(nn.Module):
    """The sum over the branches; every branch is half as high and wide as the one above."""

    def __init__(self, fusion: Fusion):
        super().__init__()
        self.num = num = len(fusion.channels)
        starts = [sum(fusion.channels[:i]) for i in range(num + 1)]
        self.up = nn.ModuleDict()
        for j, up in enumerate(fusion.up, start=1):
            for i in range(j):
                self.up[f'{i}_{j}'] = _conv(up, slice(starts[i], starts[i + 1]))  # type: ignore[arg-type]
        self.down = nn.ModuleDict()
        for path in fusion.down:
            assert isinstance(path, DownPath)
            lowest = path.target == num - 1 and path.source == 0
            steps = [_separable(step) for step in path.steps]  # type: ignore[arg-type]
            last = _conv(path.pw, bias=fusion.bias if lowest else None)
            self.down[f'{path.target}_{path.source}'] = nn.Sequential(*steps, _depthwise(path.dw), last)
        self.gather = nn.ModuleList()
        for i in range(num):
            order = getattr(fusion, f'gather{i}')
            self.gather.append(nn.Identity() if order is None else GraphGather(order))

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Branches to branches."""
        out: list[Tensor] = []
        for i in range(self.num):
            z = x[i]
            if i + 1 < self.num:
                low = self.up[f'{i}_{self.num - 1}'](x[-1])
                for j in range(self.num - 2, i, -1):
                    low = self.up[f'{i}_{j}'](x[j]) + _double(low)
                z = z + _double(low)
            for j in range(i):
                # the official sum: paths from the highest resolution start at its sum
                z = self.down[f'{i}_{j}'](out[0] if j == 0 else x[j]) + z
            out.append(z)
        return [gather(z).relu() for gather, z in zip(self.gather, out, strict=True)]


class GraphStage(nn.Module):
    """Blocks, then the sum."""

    def __init__(self, stage: Stage):
        super().__init__()
        self.branches = nn.ModuleList()
        for blocks, chs in zip(stage.branches, stage.fusion.channels, strict=True):
            made: list[nn.Module] = []
            for block in cast(nn.Sequential, blocks):
                made.append(
                    GraphGather(block.order) if isinstance(block, Gather) else GraphBlock(cast(Block, block), chs)
                )
            self.branches.append(nn.Sequential(*made))
        self.fusion = GraphFusion(stage.fusion)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Branches to branches."""
        return self.fusion([branch(y) for branch, y in zip(self.branches, x, strict=True)])


class GraphTransition(nn.Module):
    """New branches."""

    def __init__(self, transition: Transition):
        super().__init__()
        self.keep = nn.ModuleList(
            [_separable(k) if isinstance(k, Separable) else nn.Identity() for k in transition.keep]
        )
        self.new = _separable(transition.new)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Branches to branches, one more."""
        return [keep(y) for keep, y in zip(self.keep, x, strict=True)] + [self.new(x[-1])]


class GraphNetwork(nn.Module):
    """The deployed network without in-place work; height and width must be multiples of 32."""

    def __init__(self, deployed: DeployedWideHRNet):
        super().__init__()
        stem = deployed.stem
        first = nn.Conv2d(stem.weight.shape[1], stem.weight.shape[0], 3, 2, 1)
        first.weight.data, first.bias.data = stem.weight.contiguous().clone(), stem.bias.clone()  # type: ignore[union-attr]
        self.stem = nn.Sequential(first, nn.ReLU(), _conv(stem.mix), nn.ReLU(), _separable(stem.separable))
        self.body = nn.ModuleList(
            [GraphStage(m) if isinstance(m, Stage) else GraphTransition(m) for m in deployed.body]  # type: ignore[arg-type]
        )
        self.neck = nn.ModuleList([_separable(project) for project in deployed.neck])  # type: ignore[arg-type]
        self.head = _conv(deployed.head) if isinstance(deployed.head, Pointwise) else copy.deepcopy(deployed.head)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to heatmaps (B, K, H/4, W/4)."""
        branches = [self.stem(x)]
        for module in self.body:
            branches = module(branches)
        y = branches[-1]
        for i, project in enumerate(self.neck):
            if i > 0:
                y = branches[-1 - i] + F.interpolate(y, scale_factor=2.0, mode='bilinear', align_corners=True)
            y = project(y)
        return self.head(y)
