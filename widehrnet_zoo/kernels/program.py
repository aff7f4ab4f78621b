"""A network as a program for the kernels: a list of steps and the weights that they name."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from .library import FIELDS, Network, variants

Array = npt.NDArray[Any]

STEPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    'stem': (
        ('channels', 'first', 'second', 'outputs', 'keep', 'relu'),
        ('conv', 'conv_bias', 'mix', 'mix_bias', 'depthwise', 'depthwise_bias', 'product', 'bias'),
    ),
    'block': (
        ('at', 'start', 'channels', 'middle', 'squeezed'),
        (
            *('expand', 'expand_bias', 'depthwise', 'depthwise_bias', 'project', 'project_bias'),
            *('squeeze', 'squeeze_bias', 'excite', 'excite_bias'),
        ),
    ),
    'separable': (
        ('from', 'outputs', 'stride', 'relu', 'add'),
        ('depthwise', 'depthwise_bias', 'product', 'bias'),
    ),
    'pointwise': (('from', 'outputs', 'relu'), ('product', 'bias')),
    'add_nearest': (('from', 'start'), ()),
    'add_bilinear': (('from', 'start'), ()),
    'reorder': (('from', 'relu'), ('order',)),
    'head': (('from', 'outputs', 'relu'), ('product', 'bias')),
}
"""For each step the whole numbers and the arrays that it takes, in the order in which the kernels read them."""


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: A key of `STEPS`.
        numbers: Slots, sizes and switches, in the order of `STEPS`.
        arrays: Names of arrays of the program, in the order of `STEPS`; a block without a gate has the first six.
        to: The slot that the step fills or changes; -1 for the head.
    """

    name: str
    numbers: tuple[int, ...]
    arrays: tuple[str, ...]
    to: int


@dataclass
class Program:
    """A network without batch norms, as the kernels run it.

    Activations are rows of channels, one row for each pixel, in numbered slots. A `block` works in place on a run of
    the channels of its slot, `add` steps and a `separable` that adds change theirs, the others fill a new one.

    Attributes:
        channels: Of the images.
        outputs: Number of heatmaps.
        steps: In the order of the work: a stem first, the head last.
        arrays: float32 weights, (in, out) for products and (9, C) for depthwise convolutions; int32 for orders.
    """

    channels: int
    outputs: int
    steps: list[Step] = field(default_factory=list)
    arrays: dict[str, Array] = field(default_factory=dict)

    def add(self, name: str, numbers: dict[str, int], arrays: dict[str, Array], to: int | None = None) -> int:
        """Add a step.

        Args:
            name: A key of `STEPS`.
            numbers: By name.
            arrays: By name.
            to: The slot that the step fills or changes; by default a new one.
        """
        if to is None:
            to = max([step.to for step in self.steps], default=-1) + 1
        wanted, named = STEPS[name]
        names = {key: f'{len(self.steps):03}.{key}' for key in named if key in arrays}
        for key, full in names.items():
            self.arrays[full] = np.ascontiguousarray(arrays[key], np.int32 if key == 'order' else np.float32)
        self.steps.append(Step(name, tuple(int(numbers[key]) for key in wanted), tuple(names.values()), to))
        return to

    def encode(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Steps as rows of numbers, and all arrays one after the other, as the kernels take them."""
        places: dict[str, int] = {}
        at = 0
        for name, array in self.arrays.items():
            places[name] = at
            at += array.size
        rows = np.full((len(self.steps), FIELDS), -1, np.int64)
        for row, step in zip(rows, self.steps, strict=True):
            given = [list(STEPS).index(step.name), *step.numbers, *(places[name] for name in step.arrays), step.to]
            row[: len(given)] = given
        parts = [np.ascontiguousarray(a).reshape(-1).view(np.float32) for a in self.arrays.values()]
        return rows, np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def open(self, variant: str) -> Network:
        """Make it ready to run.

        Args:
            variant: From `choose_variant`.

        Raises:
            UserError: If the kernels cannot run it.
        """
        rows, numbers = self.encode()
        if variants()[variant] == 'int8' and not np.isfinite(numbers).all():
            raise UserError('The weights are damaged: some are NaN or infinite, which 8-bit integers would hide.')
        return Network(rows, numbers, variant, self.channels, self.outputs)
