"""Batches of a training run: each is a function of the seed and the step alone."""

from dataclasses import dataclass

import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from ..errors import UserError
from ..pose.crops import padding_of
from ..pose.flip import warn_unpaired
from ..pose.skeletons import Skeleton
from .augment import (
    Hidden,
    Neighbours,
    cut_by_border,
    halves,
    hidden_parts,
    jitter_boxes,
    move_keypoints,
    neighbours,
    sample_views,
    swap_sides,
    without_covered,
)
from .config import TrainConfig
from .crops import CropCache
from .draws import Draws
from .passes import PlannedBatches
from .pixels import add_neighbours, augment_tones, cut_views, degrade, send
from .targets import STRIDE, gaussian_heatmaps, in_view, loss_total


def normalise(
    images: Tensor,
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN,
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD,
) -> Tensor:
    """Float images (N, 3, H, W) in 0..255 to the network's input."""
    shift, scale = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (mean, std))
    # one pass over the pixels
    return torch.addcmul(send(-shift / scale, images.device), images, send(1 / scale, images.device))


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
        teacher_targets: The teacher's keypoints as heatmaps, weights and total, or `None`.
    """

    indices: np.ndarray
    pixels: Tensor
    keypoints: Tensor
    targets: Tensor
    weights: Tensor
    total: float
    teacher_targets: tuple[Tensor, Tensor, float] | None


@dataclass
class _Plan:
    """All of a process's part of a batch but its pixels, as small tensors on the CPU.

    Attributes:
        indices: (n,) people in the cache.
        crops: Their crops and, after them, those of their neighbours; `None` where the device has all.
        draws: Their random numbers.
        maps: (n, 2, 3).
        borders: (n, 4).
        keypoints: (n, K, 3) in input pixels.
        weights: (n, K).
        total: Of the whole batch.
        hidden: Their hidden parts.
        crowded: (m,) rows that a neighbour comes into.
        others: (m,) those neighbours in the cache.
        beside: Where they stand.
        teacher_targets: (n, K, 3) the teacher's keypoints, their weights and total.
    """

    indices: Tensor
    crops: Tensor | None
    draws: Draws
    maps: Tensor
    borders: Tensor
    keypoints: Tensor
    weights: Tensor
    total: float
    hidden: Hidden
    crowded: Tensor
    others: Tensor
    beside: Neighbours
    teacher_targets: tuple[Tensor, Tensor, float] | None


class Batches(PlannedBatches[_Plan, Batch]):
    """Augmented batches by step.

    Args:
        cache: The crops.
        config: The recipe.
        device: Where the pixels are worked on.
        rank: Place of this process.
        world: Number of processes.
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
        super().__init__(cache, config, device, rank, world)
        self.cache = cache
        self.padding = padding or padding_of(config.data)
        self.skeleton = cache.people.skeleton
        self.lower = halves(self.skeleton, config.augment)
        if config.augment.flip_prob > 0:
            warn_unpaired(self.skeleton, 'The mirroring of training samples (augment.flip_prob)')
        self.boxes, self.keypoints = torch.from_numpy(cache.boxes), torch.from_numpy(cache.keypoints)
        weights = keypoint_weights(self.skeleton, config.target.keypoint_weights).expand(self.keypoints.shape[:2])
        if cache.people.weights is not None:
            weights = weights * torch.from_numpy(cache.people.weights)
        self.weights = weights
        # without weights in the file nobody says why a keypoint has no label
        self.known = self.keypoints[..., 2] > 0 if cache.people.weights is None else weights > 0

    def _plan(self, step: int) -> _Plan:
        config, augment, size = self.config, self.config.augment, self.config.size
        indices = torch.from_numpy(self.passes.picked(step))
        draws = Draws.of(len(indices), config.seed, step)
        boxes, labels, borders = cut_by_border(self.boxes[indices], self.keypoints[indices], augment, draws)
        boxes = jitter_boxes(boxes, augment, draws)
        views = sample_views(boxes, labels, size, self.padding, augment, draws, self.lower)
        order = self.skeleton.flip_order
        keypoints = move_keypoints(labels, views, order)
        heatmap_size = (size[0] // STRIDE, size[1] // STRIDE)
        absent = swap_sides(self.known[indices], views, order) & (in_view(keypoints, heatmap_size) == 0)
        keypoints[..., 2] = torch.where(absent, 0.0, keypoints[..., 2])
        crowded = torch.nonzero(draws['neighbour'] < augment.neighbour_prob).flatten()
        others = (draws['neighbour_who'][crowded] * len(self.cache)).long()
        beside = neighbours(self.boxes[others], size, draws.part(crowded))
        keypoints[crowded] = without_covered(keypoints[crowded], beside.boxes)
        # the whole batch's weights are cheap, so no process needs to ask the others for theirs
        seen = in_view(keypoints, heatmap_size) + absent * config.target.absent
        weights = seen * swap_sides(self.weights[indices], views, order)
        total = loss_total(weights, config.target.ohkm)
        share = len(indices) // self.world
        mine = slice(self.rank * share, (self.rank + 1) * share)
        teacher_targets = None
        if self.cache.teacher is not None:
            points = move_keypoints(torch.from_numpy(self.cache.teacher[indices.numpy()]), views, order)
            scores = in_view(points, heatmap_size) * points[..., 2].clamp(0, 1)
            teacher_targets = (points[mine], scores[mine], loss_total(scores))
        ours = (crowded >= mine.start) & (crowded < mine.stop)
        crowded, others, beside = crowded[ours] - mine.start, others[ours], Neighbours(*(v[ours] for v in beside))
        indices, keypoints, draws = indices[mine], keypoints[mine], draws.part(mine)
        return _Plan(
            indices=indices,
            crops=self._read(torch.cat((indices, others))),
            draws=draws,
            maps=views.maps[mine],
            borders=borders[mine],
            keypoints=keypoints,
            weights=weights[mine],
            total=total,
            hidden=hidden_parts(keypoints, size, augment, draws),
            crowded=crowded,
            others=others,
            beside=beside,
            teacher_targets=teacher_targets,
        )

    def _make(self, plan: _Plan) -> Batch:
        augment, size, device = self.config.augment, self.config.size, self.device
        crops = self._crops(torch.cat((plan.indices, plan.others)), plan.crops)
        pixels = cut_views(crops[: len(plan.indices)], plan.maps, size, plan.borders, plan.hidden)
        pixels = add_neighbours(pixels, crops[len(plan.indices) :], plan.crowded, plan.beside)
        pixels = augment_tones(pixels, augment, plan.draws, plan.hidden)
        pixels = degrade(pixels, augment, plan.draws, self.padding)
        keypoints = send(plan.keypoints, device)
        teacher_targets = None
        if plan.teacher_targets is not None:
            points, scores, total = plan.teacher_targets
            teacher_targets = (self._heatmaps(send(points, device)), send(scores, device), total)
        return Batch(
            indices=plan.indices.numpy(),
            pixels=pixels,
            keypoints=keypoints,
            # empty where a keypoint is known to be out of the view; elsewhere those without a label do not count
            targets=self._heatmaps(keypoints) * (keypoints[..., 2] > 0)[..., None, None],
            weights=send(plan.weights, device),
            total=plan.total,
            teacher_targets=teacher_targets,
        )

    def _heatmaps(self, keypoints: Tensor) -> Tensor:
        height, width = self.config.size
        size = (height // STRIDE, width // STRIDE)
        return gaussian_heatmaps(keypoints, size, self.config.sigma, self.config.target.unbiased)


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
