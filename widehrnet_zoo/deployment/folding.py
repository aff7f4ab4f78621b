"""The algebra of deployment: fold batch norms and keep track of where each channel lies in memory.

Two orders of the channels of a branch are at work. The *logical* order is the one that the trained weights know; it
changes with every shuffle. The *physical* order is where the numbers are; it never changes inside a module. A
`Layout` holds the map between the two, so that a shuffle is a change of the map instead of a copy of the memory, and
every convolution takes the map into its weights once.
"""

from dataclasses import dataclass, replace

import torch
from timm.layers import BatchNormAct2d, ConvNormAct
from torch import Tensor, nn

from ..errors import UserError
from ..models.blocks import DepthwiseSeparable

DEVIATIONS = 30
"""Standard deviations within which the outputs of depthwise convolutions lie, but for very few.

Their distributions have long tails. In `widehrnet_18_attn.everyday_256x192` 8-bit numbers up to 6, 18, 30 and 72
deviations lead to heatmaps with an error of 0.16, 0.057, 0.051 and 0.083 (root mean square, in parts of the heatmaps').
"""


@dataclass(frozen=True)
class Layout:
    """Where the channels of a branch lie.

    Attributes:
        position: (C,) physical position of each logical channel.
    """

    position: Tensor

    @classmethod
    def natural(cls, chs: int) -> 'Layout':
        """Every channel at its own place."""
        return cls(torch.arange(chs))

    @classmethod
    def from_order(cls, order: Tensor) -> 'Layout':
        """From the logical channel at each physical place."""
        return cls(torch.argsort(order))

    @property
    def order(self) -> Tensor:
        """(C,) logical channel at each physical place."""
        return torch.argsort(self.position)

    def shuffled(self) -> 'Layout':
        """After the halves were shuffled together: new channel 2i is old i, new 2i + 1 is old C/2 + i."""
        half = len(self.position) // 2
        return replace(self, position=torch.stack((self.position[:half], self.position[half:]), 1).flatten())

    def second_half(self) -> Tensor:
        """(C/2,) physical places of the second logical half, ascending."""
        return self.position[len(self.position) // 2 :].sort().values


def paired_layout(chs: int) -> Layout:
    """The layout in which the second half of each of two blocks in a row is one run of memory.

    Whether a channel is in the second half of block 1 and of block 2 makes four classes. In the order of a Gray code
    (neither, second only, both, first only) the members of either block are neighbours.
    """
    half = chs // 2
    first = torch.arange(chs) >= half
    second = torch.empty(chs, dtype=torch.bool)
    for new, old in enumerate(Layout.natural(chs).shuffled().position.tolist()):
        second[old] = new >= half
    rank = torch.where(first, torch.where(second, 2, 3), torch.where(second, 1, 0))
    return Layout.from_order(torch.argsort(rank, stable=True))


@dataclass(frozen=True)
class Affine:
    """Weight and bias of a convolution with its batch norm folded in, float64.

    Attributes:
        weight: (out, in / groups, kh, kw).
        bias: (out,).
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, conv: nn.Conv2d) -> 'Affine':
        """Of a convolution without a norm."""
        weight = conv.weight.detach().cpu().double()
        return cls(weight, weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach().cpu().double())

    @property
    def matrix(self) -> Tensor:
        """(out, in), of a 1x1 convolution."""
        return self.weight[:, :, 0, 0]

    def reorder(self, out: Tensor | None = None, into: Tensor | None = None) -> 'Affine':
        """Take outputs and inputs in another order.

        Args:
            out: Old output at each new place.
            into: Old input at each new place.
        """
        weight = self.weight if into is None else self.weight[:, into]
        return Affine(weight, self.bias) if out is None else Affine(weight[out], self.bias[out])

    def scaled(self, factor: float) -> 'Affine':
        """With its output multiplied."""
        return Affine(self.weight * factor, self.bias * factor)

    def fed(self, factor: float) -> 'Affine':
        """With its input multiplied."""
        return Affine(self.weight * factor, self.bias)


def fold(layer: ConvNormAct, what: str) -> Affine:
    """Fold the batch norm of a convolution: w' = w * gamma / sqrt(var + eps), b' = beta - mean * gamma / sqrt(...).

    Args:
        layer: Convolution, batch norm and activation.
        what: Where it stands in the network, for the message.

    Raises:
        UserError: If the norm depends on the input, or the activation is not ReLU.
    """
    bn = layer.bn
    if not isinstance(bn, nn.BatchNorm2d) or bn.running_mean is None or bn.running_var is None:
        raise UserError(
            f'{what} has {type(bn).__name__}, which cannot be folded into its convolution: '
            'deploy() needs batch norm with running statistics.'
        )
    if isinstance(bn, BatchNormAct2d) and not isinstance(bn.act, (nn.ReLU, nn.Identity)):
        raise UserError(f'{what} has the activation {type(bn.act).__name__}: deploy() knows ReLU only.')
    scale = (bn.running_var.double() + bn.eps).rsqrt()
    if bn.weight is not None:
        scale = scale * bn.weight.double()
    bias = -bn.running_mean.double() * scale
    if bn.bias is not None:
        bias = bias + bn.bias.double()
    if layer.conv.bias is not None:
        bias = bias + layer.conv.bias.double() * scale
    return Affine((layer.conv.weight.double() * scale.view(-1, 1, 1, 1)).detach().cpu(), bias.detach().cpu())


def reach(bn: nn.BatchNorm2d) -> Tensor:
    """(C,) what a norm's outputs hardly ever exceed, `DEVIATIONS` above their mean: beta + 30 |gamma|.

    So that no photos are needed to find scales, as in Nagel et al., Data-Free Quantization Through Weight Equalization
    and Bias Correction, ICCV 2019. Where that is not positive, and nothing passes a ReLU, 1.
    """
    mean = torch.zeros(bn.num_features) if bn.bias is None else bn.bias.detach().cpu()
    deviation = torch.ones_like(mean) if bn.weight is None else bn.weight.detach().cpu().abs()
    most = (mean + DEVIATIONS * deviation).float()
    return torch.where(most > 1e-6, most, torch.ones_like(most))


def fold_separable(
    layer: DepthwiseSeparable, what: str, into: Layout, out: Layout, feed: float = 1.0
) -> tuple[Affine, Affine]:
    """Fold a depthwise and a 1x1 convolution, with inputs and outputs where their layouts say.

    Args:
        layer: The pair.
        what: Where it stands, for the message.
        into: Layout of the input.
        out: Layout of the output.
        feed: What the stored input must be multiplied with to be the true one.

    Raises:
        UserError: If `fold` cannot fold one of them.
    """
    dw = fold(layer.conv_dw, f'{what}.conv_dw').reorder(out=into.order).fed(feed)
    return dw, fold(layer.conv_pw, f'{what}.conv_pw').reorder(out=out.order, into=into.order)
