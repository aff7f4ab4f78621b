"""The exchange between the branches of a deployed network."""

import itertools
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .folding import Affine
from .layers import Depthwise, Pointwise, Separable, rows


def add_upsampled(x: Tensor, low: Tensor) -> None:
    """Add an image of half the height and width to `x` in place, each of its pixels four times.

    Args:
        x: (B, 2h, 2w, C), contiguous.
        low: (B, h, w, C), may be a run of the channels of wider rows.
    """
    b, h, w, c = low.shape
    x.view(b, h, 2, w, 2, c).add_(low.view(b, h, 1, w, 1, c))


class DownPath(nn.Module):
    """From branch `source` to the lower branch `target`: all but the last 1x1 convolution, which adds to the sum."""

    def __init__(self, source: int, target: int, steps: list[Separable], dw: Affine, pw: Affine):
        super().__init__()
        self.source, self.target = source, target
        self.steps = nn.ModuleList(steps)
        self.dw = Depthwise(dw, stride=2)
        # its bias is added elsewhere, with those of all paths to the target
        self.pw = Pointwise(Affine(pw.weight, torch.zeros_like(pw.bias)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) of the source to (B, H', W', C) at the size of the target."""
        for step in self.steps:
            x = step(x)
        return self.dw(x)


class Fusion(nn.Module):
    """Sum over the branches, without the doubled terms and with every upsampling a plain addition.

    Args:
        channels: Channels per branch.
        up: For each branch j > 0 one 1x1 convolution to the channels of all branches above it, side by side; the
            biases of the paths down to those branches are in there too.
        down: The paths to lower branches.
        bias: (C,) of the paths down to the lowest branch.
        gather: For each branch the channel to take at each place of the result, or None to leave all in place.
    """

    bias: Tensor

    def __init__(
        self,
        channels: tuple[int, ...],
        up: list[Affine],
        down: list[DownPath],
        bias: Tensor,
        gather: list[Tensor | None],
    ):
        super().__init__()
        self.channels = channels
        self.up = nn.ModuleList([Pointwise(affine) for affine in up])
        self.down = nn.ModuleList(down)
        self.register_buffer('bias', bias.float())
        for i, order in enumerate(gather):
            self.register_buffer(f'gather{i}', order)

    def _add_from_below(self, x: list[Tensor]) -> None:
        below = [up(branch) for up, branch in zip(self.up, x[1:], strict=True)]
        if all(a.shape[1] == 2 * b.shape[1] and a.shape[2] == 2 * b.shape[2] for a, b in itertools.pairwise(x)):
            # by steps of two: what comes from far below is summed at the lower resolution first
            for j in range(len(below) - 1, 0, -1):
                add_upsampled(below[j - 1], below[j][..., : below[j - 1].shape[-1]])
            for i, low in enumerate(below):
                add_upsampled(x[i], low[..., -self.channels[i] :])
            return
        for i, z in enumerate(x):
            start = sum(self.channels[:i])
            for low in below[i:]:
                part = low[..., start : start + self.channels[i]].permute(0, 3, 1, 2)
                z.add_(F.interpolate(part, z.shape[1:3], mode='nearest').permute(0, 2, 3, 1))

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Branches (B, H, W, C), highest resolution first, which are overwritten, to their sums after ReLU."""
        # paths from lower branches read them before the sum; those from the highest read its sum, as published
        paths = cast(list[DownPath], list(self.down))
        terms = [(path, path(x[path.source])) for path in paths if path.source > 0]
        self._add_from_below(x)
        terms += [(path, path(x[0])) for path in paths if path.source == 0]
        for path, term in terms:
            rows(x[path.target]).addmm_(rows(term), path.pw.weight)
        x[-1].add_(self.bias)
        out = []
        for i, z in enumerate(x):
            gather = getattr(self, f'gather{i}')
            if gather is not None:
                z = rows(z).index_select(1, gather).view_as(z)
            out.append(z.relu_())
        return out
