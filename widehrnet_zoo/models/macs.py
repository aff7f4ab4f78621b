"""Multiply-accumulates of a network."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .blocks import Fusion

_BASE = 64


@dataclass(frozen=True)
class MacCount:
    """Multiply-accumulates of the convolutions and linear layers of a network for one image.

    Normalisation, activations, sums and resampling are not counted, as in the field's "FLOPs".

    Attributes:
        maps: Of layers on feature maps, at an input of 64x64; in proportion to the input's area.
        pooled: Of layers after a global pooling.
        repeated: The part of `maps` that the authors' code computes twice, the exchange's paths from the highest
            resolution (`2 * f_i0` of the sum in `Fusion`), and this package once.
    """

    maps: int
    pooled: int
    repeated: int

    def at(self, size: tuple[int, int], official: bool = False) -> int:
        """The count at an input size.

        Args:
            size: Height and width, multiples of 32.
            official: Count what the authors' code computes, as published figures do.
        """
        return (self.maps + self.repeated * official) * size[0] * size[1] // _BASE**2 + self.pooled


def measure_macs(model: nn.Module, spoil: bool = False) -> MacCount:
    """Count multiply-accumulates in a pass over an image of 64x64 zeros.

    Args:
        model: The network; it is left as it is.
        spoil: Work on the network itself, which loses its values, norms and hooks, instead of a copy; faster.
    """
    model = (model if spoil else copy.deepcopy(model)).float().eval()
    repeated = {
        id(layer)
        for fusion in model.modules()
        if isinstance(fusion, Fusion)
        for row in list(fusion.paths)[1:]
        for layer in row[0].modules()
    }
    counts = {'maps': 0, 'pooled': 0, 'repeated': 0}

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        # each output is a dot product with a row of the weight
        weight: Any = module.weight
        macs = output.numel() * math.prod(weight.shape[1:])
        counts['maps' if output.ndim == 4 and output.shape[2:].numel() > 1 else 'pooled'] += macs
        counts['repeated'] += macs * (id(module) in repeated)

    for module in list(model.modules()):
        # hooks that came with the copy would run for nothing
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())  # not counted
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    with torch.inference_mode():
        model(torch.zeros(1, first.in_channels, _BASE, _BASE, device=first.weight.device))
    return MacCount(**counts)


def count_macs(model: nn.Module, size: tuple[int, int], official: bool = False) -> int:
    """Multiply-accumulates for one image; see `MacCount`.

    Args:
        model: The network; it is left as it is.
        size: Height and width of the input, multiples of 32.
        official: Count what the authors' code computes, as published figures do.
    """
    return measure_macs(model).at(size, official)


def count_parameters(model: nn.Module) -> int:
    """Number of parameters of a network.

    Args:
        model: The network.
    """
    return sum(p.numel() for p in model.parameters())
