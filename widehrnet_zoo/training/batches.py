"""Batches of a training run: each is a function of the seed and the step alone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from ..errors import UserError
from ..pose.crops import padding_of
from ..pose.skeletons import Skeleton, warn_unpaired
from .augment import augment_colour, cut_views, draw, halves, hide_parts, move_keypoints, sample_views
from .config import TrainConfig
from .crops import CropCache
from .targets import STRIDE, gaussian_heatmaps, in_view, loss_total

__all__ = ['Batch', 'Batches', 'normalise']


def normalise(
    images: Tensor,
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN,
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD,
) -> Tensor:
    """Float images (N, 3, H, W) in 0..255 to the network's input."""
    shift, scale = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) * 255 for v in (mean, std))
    return (images - shift) / scale


@dataclass
class Batch:
    """A process's part of a batch.

    Attributes:
        indices: (n,) people in the cache.
        pixels: (n, 3, H, W) float images in 0..255.
        keypoints: (n, K, 3) in input pixels.
        targets: (n, K, h, w) heatmaps.
        weights: (n, K), 0 for keypoints out of the loss.
        total: What the loss of the whole batch is divided by.
        taught: The teacher's keypoints as heatmaps, weights and total, or `None`.
    """

    indices: np.ndarray
    pixels: Tensor
    keypoints: Tensor
    targets: Tensor
    weights: Tensor
    total: float
    taught: tuple[Tensor, Tensor, float] | None


class Batches:
    """Augmented batches by step.

    Args:
        cache: The crops.
        config: The recipe.
        device: Where the pixels are worked on.
        rank: Place of this process.
        world: Number of processes; each takes its part of every batch.
        padding: Growth of a box to the view; by default what the recipe says.

    Raises:
        UserError: If the batch cannot be shared out evenly, or a setting does not fit the skeleton.
    """

    def __init__(
        self,
        cache: CropCache,
        config: TrainConfig,
        device: torch.device | str = 'cpu',
        rank: int = 0,
        world: int = 1,
        padding: float | None = None,
    ):
        if config.batch_size % world:
            raise UserError(f'batch_size {config.batch_size} cannot be shared out evenly among {world} processes.')
        self.cache, self.config, self.device = cache, config, torch.device(device)
        self.rank, self.world = rank, world
        self.views = torch.from_numpy(cache.views(padding or padding_of(config.data)))
        self.skeleton = cache.people.skeleton
        self.lower = halves(self.skeleton, config.augment)
        if config.augment.flip_prob > 0:
            warn_unpaired(self.skeleton, 'The mirroring of training samples (augment.flip_prob)')
        self.keypoint_weights = keypoint_weights(self.skeleton, config.target.keypoint_weights)
        shares = np.ones(len(cache)) if cache.people.shares is None else cache.people.shares
        self.shares = torch.from_numpy(shares / shares.max())
        self.pass_size = max(1, int(self.shares.sum()))
        self.steps_per_epoch = self.pass_size / config.batch_size

    def picked(self, step: int) -> np.ndarray:
        """People of the whole batch, sorted: the next ones in an endless row of shuffled passes over the data."""
        count, size = self.pass_size, self.config.batch_size
        place, parts = step * size, []
        while size:
            epoch, start = divmod(place, count)
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
            parts.append(self._pass(generator)[start : start + size])
            place, size = place + len(parts[-1]), size - len(parts[-1])
        return torch.cat(parts).sort().values.numpy()

    def _pass(self, generator: torch.Generator) -> Tensor:
        """Each person with its share for its chance: systematic sampling of a shuffled row (Madow, 1949)."""
        order = torch.randperm(len(self.cache), generator=generator)
        if self.pass_size == len(order):
            return order
        ends = self.shares[order].cumsum(0)
        places = torch.arange(self.pass_size) + torch.rand((), generator=generator, dtype=torch.float64)
        found = torch.searchsorted(ends * (self.pass_size / ends[-1]), places, right=True)
        return order[found.clamp(max=len(order) - 1)]

    def _read(self, step: int) -> tuple[np.ndarray, slice, Tensor]:
        indices = self.picked(step)
        share = len(indices) // self.world
        mine = slice(self.rank * share, (self.rank + 1) * share)
        return indices, mine, torch.from_numpy(self.cache.crops[indices[mine]])

    def stream(self, step: int) -> Iterator[Batch]:
        """Batches from `step` on, without end; the crops of the next one are read while one is used."""
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(self._read, step)
            while True:
                read = following.result()
                following = pool.submit(self._read, step + 1)
                yield self._make(step, *read)
                step += 1

    def batch(self, step: int) -> Batch:
        """The batch of one step."""
        return self._make(step, *self._read(step))

    def _make(self, step: int, indices: np.ndarray, mine: slice, crops: Tensor) -> Batch:
        config, cache = self.config, self.cache
        augment, size = config.augment, config.size
        table = draw(len(indices), config.seed, step)
        labels = torch.from_numpy(cache.keypoints[indices])
        views = sample_views(self.views[indices], labels, cache.crops.shape[1], size, augment, table, self.lower)
        keypoints = move_keypoints(labels, views, self.skeleton.flip_order)
        heatmap_size = (size[0] // STRIDE, size[1] // STRIDE)
        ohkm = config.target.ohkm
        # the whole batch's weights are cheap, so no process needs to ask the others for theirs
        total = loss_total(in_view(keypoints, heatmap_size) * self.keypoint_weights, ohkm)
        device = self.device
        pixels = cut_views(crops.to(device, non_blocking=True), views.maps[mine], size)
        pixels = augment_colour(pixels, augment, table[mine])
        pixels = hide_parts(pixels, keypoints[mine], augment, table[mine])
        moved = keypoints[mine].to(device)
        targets, weights = gaussian_heatmaps(moved, heatmap_size, config.sigma, config.target.unbiased)
        taught = None
        if cache.teacher is not None:
            points = move_keypoints(torch.from_numpy(cache.teacher[indices]), views, self.skeleton.flip_order)
            scores = in_view(points, heatmap_size) * points[..., 2].clamp(0, 1)
            heatmaps, _ = gaussian_heatmaps(points[mine].to(device), heatmap_size, config.sigma, config.target.unbiased)
            taught = (heatmaps, scores[mine].to(device), loss_total(scores))
        weights = weights * self.keypoint_weights.to(device)
        return Batch(indices[mine], pixels, moved, targets, weights, total, taught)


def keypoint_weights(skeleton: Skeleton, by_name: dict[str, float]) -> Tensor:
    """Loss weight of each keypoint, (K,).

    Raises:
        UserError: If a name is not of this skeleton, or a weight is negative.
    """
    unknown = set(by_name) - set(skeleton.keypoints)
    if unknown:
        raise UserError(
            f'target.keypoint_weights names {", ".join(sorted(unknown))}; the keypoints are '
            f'{", ".join(skeleton.keypoints)}.'
        )
    if any(weight < 0 for weight in by_name.values()):
        raise UserError('target.keypoint_weights must not be negative.')
    return torch.tensor([by_name.get(name, 1.0) for name in skeleton.keypoints])
