"""The order in which samples come: shuffled passes over the data, a function of the seed alone; and their batches."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import UserError
from ..progress import begun_ahead
from .config import TrainConfig
from .crops import CropCache
from .photos import PhotoCache
from .pixels import resident_crops, send

Plan = TypeVar('Plan')
Made = TypeVar('Made')


class Passes:
    """An endless row of shuffled passes over samples, cut into batches.

    Args:
        count: Number of samples.
        sample_weights: (count,) how often each comes, beside the others; `None` for all alike. In a pass those with the
            largest number come once, others in proportion.
        batch_size: Samples in a batch.
        seed: Of the run.

    Attributes:
        steps_per_epoch: Batches in a pass.
    """

    def __init__(self, count: int, sample_weights: npt.NDArray[np.float64] | None, batch_size: int, seed: int):
        self.count, self.batch_size, self.seed = count, batch_size, seed
        sample_weights = np.ones(count) if sample_weights is None else sample_weights
        self.sample_weights = torch.from_numpy(sample_weights / sample_weights.max())
        self.pass_size = max(1, int(self.sample_weights.sum()))
        self.steps_per_epoch = self.pass_size / batch_size
        self._order: tuple[int, Tensor] | None = None

    def picked(self, step: int) -> np.ndarray:
        """Samples of the whole batch of a step, sorted."""
        size = self.batch_size
        place, parts = step * size, []
        while size:
            epoch, start = divmod(place, self.pass_size)
            parts.append(self._pass(epoch)[start : start + size])
            place, size = place + len(parts[-1]), size - len(parts[-1])
        return torch.cat(parts).sort().values.numpy()

    def _pass(self, epoch: int) -> Tensor:
        """Each sample with its share for its chance: systematic sampling of a shuffled row (Madow, 1949)."""
        if self._order is not None and self._order[0] == epoch:
            return self._order[1]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(self.count, generator=generator)
        if self.pass_size != len(order):
            ends = self.sample_weights[order].cumsum(0)
            places = torch.arange(self.pass_size) + torch.rand((), generator=generator, dtype=torch.float64)
            found = torch.searchsorted(ends * (self.pass_size / ends[-1]), places, right=True)
            order = order[found.clamp(max=len(order) - 1)]
        self._order = (epoch, order)
        return order


class PlannedBatches(ABC, Generic[Plan, Made]):
    """Batches by step, each planned on the CPU while the one before it is used, and made on the device.

    Args:
        cache: People or photos.
        config: The recipe.
        device: Where the pixels are worked on.
        rank: Place of this process.
        world: Number of processes; each takes its part of every batch.

    Attributes:
        steps_per_epoch: Batches in a pass over the data.

    Raises:
        UserError: If the batch cannot be shared out evenly.
    """

    def __init__(
        self,
        cache: CropCache | PhotoCache,
        config: TrainConfig,
        device: torch.device | str = 'cpu',
        rank: int = 0,
        world: int = 1,
    ):
        if config.batch_size % world:
            raise UserError(f'batch_size {config.batch_size} cannot be shared out evenly among {world} processes.')
        self.config, self.device = config, torch.device(device)
        self.rank, self.world = rank, world
        self.passes = Passes(len(cache), cache.people.sample_weights, config.batch_size, config.seed)
        self.steps_per_epoch = self.passes.steps_per_epoch
        self._pixels = cache.crops
        self._resident = resident_crops(cache.crops, self.device) if config.data.resident else None

    def _read(self, indices: Tensor) -> Tensor | None:
        """Crops, uint8 (n, S, S, 3), for a plan; `None` where the device has all."""
        return torch.from_numpy(self._pixels[indices.numpy()]) if self._resident is None else None

    def _crops(self, indices: Tensor, read: Tensor | None) -> Tensor:
        """Crops on the device, those that were read or those that it has."""
        if read is not None:
            return send(read, self.device)
        assert self._resident is not None
        return self._resident[send(indices, self.device)]

    @abstractmethod
    def _plan(self, step: int) -> Plan:
        """What a step's batch is to be, as small tensors on the CPU, with the pixels that it needs."""

    @abstractmethod
    def _make(self, plan: Plan) -> Made:
        """The batch on the device."""

    def stream(self, step: int) -> Iterator[Made]:
        """Batches from `step` on, without end; the next one is planned and read while one is used."""
        for plan in begun_ahead(self._plan, itertools.count(step), 1, 1):
            yield self._make(plan())

    def batch(self, step: int) -> Made:
        """The batch of one step."""
        return self._make(self._plan(step))
