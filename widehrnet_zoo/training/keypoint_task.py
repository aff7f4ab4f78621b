"""Keypoints: crops of people, heatmaps, PCK."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..metrics.pck import TORSO, normalised_errors, pck, torso_size
from ..pose.crops import STRIDE, padding_of
from ..pose.decoding import decode_heatmaps
from .augment import extent_of, move_keypoints, sample_views
from .batches import Batch, Batches, normalise
from .config import TrainConfig
from .crops import CropCache
from .data import open_caches
from .pictures import draw_found, draw_samples, evenly
from .pixels import cut_views
from .start import input_stats, start_model
from .targets import keypoint_losses, mean_loss
from .task import Task

_AT_ONCE = 64


class KeypointTask(Task):
    """Heatmaps of keypoints, from crops around people."""

    figure = 'pck'
    train: CropCache
    val: CropCache | None

    def __init__(self, config: TrainConfig, train: CropCache, val: CropCache | None):
        super().__init__(config, train, val)
        self.skeleton = train.people.skeleton
        self.shown = f'PCK@{config.pck:g}'

    @classmethod
    def open(cls, config: TrainConfig, progress: bool = True) -> 'KeypointTask':
        """See `Task`."""
        return cls(config, *open_caches(config, progress))

    def start(self) -> nn.Module:
        """See `start_model`."""
        config = self.config
        return start_model(config.model, self.skeleton, config.size, config.seed, config.data.padding)

    def batches(self, model: nn.Module, device: torch.device, rank: int, world: int) -> Batches:
        """See `Batches`."""
        return Batches(self.train, self.config, device, rank, world, padding_of(model))

    def losses(self, maps: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Loss of the heatmaps to the labels, and to the teacher's keypoints where the labels have them."""
        target = self.config.target
        losses = keypoint_losses(maps, batch.targets, target.sharpness)
        loss = mean_loss(losses, batch.weights, batch.total, target.ohkm)
        if batch.teacher_targets is None:
            return loss, None
        targets, weights, total = batch.teacher_targets
        return loss, mean_loss(keypoint_losses(maps, targets, target.sharpness), weights, total)

    def train_figure(self, maps: Tensor, batch: Batch) -> float:
        """PCK of the augmented batch."""
        labels = batch.keypoints.cpu().clone()
        labels[..., 2] *= (batch.weights > 0).cpu()
        low, high = extent_of(labels)
        return pck(*self._errors(maps, labels, (high - low).amax(1).clamp(min=0)), self.config.pck)

    def _errors(self, maps: Tensor, labels: Tensor, sides: Tensor) -> tuple[npt.NDArray, npt.NDArray]:
        """Distances of what heatmaps find from labels in input pixels, and which count.

        Their unit is the torso (right shoulder to left hip) where the skeleton has one, else the longer sides (N,) of
        the boxes.
        """
        names, truth = self.skeleton.keypoints, labels.numpy()
        sizes = torso_size(truth, names) if set(TORSO) <= set(names) else sides.numpy()
        return normalised_errors(_found(maps), truth, sizes)

    def _look(self, model: nn.Module, rows: npt.NDArray[np.intp]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Validation people in their test-time views.

        Returns:
            Images (n, 3, H, W) in 0..255; heatmaps; labels (n, K, 3) in input pixels; the boxes' longer sides (n,).
        """
        assert self.val is not None
        size, device = self.config.size, next(model.parameters()).device
        boxes, labels = torch.from_numpy(self.val.boxes[rows]), torch.from_numpy(self.val.keypoints[rows])
        views = sample_views(boxes, labels, size, padding_of(model))
        images = cut_views(torch.from_numpy(self.val.crops[rows]).to(device), views.maps, size)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.precision == 'bf16'):
            maps = model(normalise(images, *input_stats(model)))
        sides = (boxes[:, 2:] - boxes[:, :2]).amax(1) / views.maps[:, 1, 1]
        return images, maps, move_keypoints(labels, views, range(labels.shape[1])), sides

    @torch.inference_mode()
    def validate(self, model: nn.Module, device: torch.device, rank: int, world: int) -> float:
        """PCK of the test-time views, over all keypoints together, without flip test; NaN without any label."""
        assert self.val is not None
        sums = torch.zeros(2, device=device)
        mine = np.arange(len(self.val))[rank::world]
        for start in range(0, len(mine), _AT_ONCE):
            errors, valid = self._errors(*self._look(model, mine[start : start + _AT_ONCE])[1:])
            sums += torch.tensor([((errors < self.config.pck) & valid).sum(), valid.sum()], device=device)
        if world > 1:
            dist.all_reduce(sums)
        return float(sums[0] / sums[1])

    def preview(self, path: Path, count: int) -> None:
        """See `draw_samples`."""
        draw_samples(Batches(self.train, self.config), path, count)

    @torch.inference_mode()
    def draw_validation(self, model: nn.Module, path: Path) -> None:
        """See `draw_found`."""
        assert self.val is not None
        images, maps, labels, _ = self._look(model, evenly(len(self.val)))
        draw_found(images, labels.numpy(), _found(maps), self.skeleton, path)


def _found(maps: Tensor) -> npt.NDArray[np.float32]:
    """Keypoints of heatmaps by the quarter decoder, (N, K, 3): x, y in input pixels, and the score."""
    points, scores = decode_heatmaps(maps)
    return torch.cat((points * STRIDE, scores[..., None]), -1).float().cpu().numpy()
