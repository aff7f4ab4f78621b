"""Layers of the deployed network: folded convolutions on tensors in (B, H, W, C) memory."""

import torch
import torch.nn.functional as F
from timm.layers import SEModule
from torch import Tensor, nn

from .folding import Affine


def rows(x: Tensor) -> Tensor:
    """View (B, H, W, C) as a matrix with one row per pixel."""
    return x.view(-1, x.shape[-1])


class Pointwise(nn.Module):
    """A 1x1 convolution as a matrix product over rows of channels."""

    weight: Tensor
    bias: Tensor

    def __init__(self, affine: Affine):
        super().__init__()
        # (in, out): the product reads and writes runs of channels inside wider rows, without copies
        self.register_buffer('weight', affine.matrix.t().float().contiguous())
        self.register_buffer('bias', affine.bias.float())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        out = torch.addmm(self.bias, rows(x), self.weight)
        return out.view(*x.shape[:-1], -1)


class Depthwise(nn.Module):
    """A depthwise 3x3 convolution."""

    weight: Tensor
    bias: Tensor

    def __init__(self, affine: Affine, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.register_buffer('weight', affine.weight.float().contiguous())
        self.register_buffer('bias', affine.bias.float())

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H / stride, W / stride, C)."""
        # the permuted view is what PyTorch calls channels last, so nothing moves
        y = F.conv2d(x.permute(0, 3, 1, 2), self.weight, self.bias, self.stride, 1, 1, x.shape[-1])
        return y.permute(0, 2, 3, 1)


class Separable(nn.Module):
    """Depthwise 3x3, then 1x1, with ReLU at the end where asked for."""

    def __init__(self, dw: Affine, pw: Affine, stride: int = 1, relu: bool = True):
        super().__init__()
        self.dw = Depthwise(dw, stride)
        self.pw = Pointwise(pw)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, in) to (B, H / stride, W / stride, out)."""
        y = self.pw(self.dw(x))
        return y.relu_() if self.relu else y


class Gate(nn.Module):
    """Squeeze-excitation's gate (Hu et al., CVPR 2018): pooled channels to factors between 0 and 1."""

    def __init__(self, se: SEModule):
        super().__init__()
        self.fc1 = Pointwise(Affine.of(se.fc1))
        self.fc2 = Pointwise(Affine.of(se.fc2))

    @staticmethod
    def fits(attn: nn.Module) -> bool:
        """Whether the module is squeeze-excitation as published."""
        return (
            type(attn) is SEModule
            and not attn.add_maxpool
            and isinstance(attn.bn, nn.Identity)
            and isinstance(attn.act, nn.ReLU)
            and type(attn.gate).__name__ == 'Sigmoid'
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, C)."""
        return self.fc2(self.fc1(x.mean((1, 2))).relu_()).sigmoid_()


class Block(nn.Module):
    """A wide inverted residual that works on one run of a branch's channels, in place.

    Args:
        expand: 1x1 to the expanded channels.
        dw: Depthwise 3x3.
        project: 1x1 back.
        attn: `Gate`, another attention module on (B, C, H, W), or None.
        start: First channel of the run.
        reach: (C,) what the output of `dw` hardly ever exceeds, for 8-bit kernels.
    """

    reach: Tensor

    def __init__(self, expand: Affine, dw: Affine, project: Affine, attn: nn.Module | None, start: int, reach: Tensor):
        super().__init__()
        self.start, self.stop = start, start + expand.weight.shape[1]
        self.expand = Pointwise(expand)
        self.dw = Depthwise(dw)
        self.attn = attn
        self.project = Pointwise(project)
        self.register_buffer('reach', reach, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C), changed in place and returned."""
        run = rows(x)[:, self.start : self.stop]
        y = torch.addmm(self.expand.bias, run, self.expand.weight).relu_()
        y = self.dw(y.view(*x.shape[:-1], -1)).relu_()
        weight = self.project.weight
        if isinstance(self.attn, Gate):
            gate = self.attn(y)
            if len(gate) == 1:
                # the factors of one image go into the next weights, which are smaller than the activations
                weight = weight * gate.t()
            else:
                y.mul_(gate[:, None, None])
        elif self.attn is not None:
            y = self.attn(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()
        run.addmm_(rows(y), weight).add_(self.project.bias)
        return x


class Gather(nn.Module):
    """Take channels in another order."""

    order: Tensor

    def __init__(self, order: Tensor):
        super().__init__()
        self.register_buffer('order', order)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same in another order."""
        return rows(x).index_select(1, self.order).view_as(x)
