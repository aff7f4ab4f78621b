"""Keypoints: crops of people, heatmaps, PCK."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..pose.crops import padding_of
from .batches import Batch, Batches
from .config import TrainConfig
from .crops import CropCache
from .data import open_caches
from .pictures import draw_preview, draw_validation
from .start import start_model
from .targets import keypoint_losses, mean_loss
from .validate import Validation, find_keypoints, person_sizes, validate


class KeypointTask:
    """A `Task`: heatmaps of keypoints, from crops around people."""

    figure = 'pck'

    def __init__(self, config: TrainConfig, train: CropCache, val: CropCache | None):
        self.config, self.train, self.val = config, train, val
        self.skeleton = train.people.skeleton
        self.train_size, self.has_val = len(train), val is not None
        self.shown = f'PCK@{config.pck:g}'

    @classmethod
    def open(cls, config: TrainConfig, progress: bool = True) -> 'KeypointTask':
        """See `open_caches`."""
        return cls(config, *open_caches(config, progress))

    def by(self, config: TrainConfig) -> 'KeypointTask':
        """The same crops, to be learnt by another recipe."""
        return KeypointTask(config, self.train, self.val)

    def start(self) -> nn.Module:
        """The model to train, see `start_model`."""
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
        from ..metrics.pck import normalised_errors, pck

        labels = batch.keypoints.cpu().clone()
        labels[..., 2] *= (batch.weights > 0).cpu()
        xy, labelled = labels[..., :2], labels[..., 2:] > 0
        extent = torch.where(labelled, xy, -torch.inf).amax(1) - torch.where(labelled, xy, torch.inf).amin(1)
        sides = extent.amax(1).clamp(min=0).numpy()
        sizes = person_sizes(labels.numpy(), self.skeleton, sides)
        return pck(*normalised_errors(find_keypoints(maps), labels.numpy(), sizes), self.config.pck)

    def validate(self, model: nn.Module, device: torch.device, rank: int, world: int) -> float:
        """PCK of the test-time views, see `validate`."""
        assert self.val is not None
        config = self.config
        found = validate(
            model,
            self.val,
            config.size,
            config.pck,
            device=device,
            bf16=config.precision == 'bf16',
            part=(rank, world),
        )
        if world > 1:
            sums = torch.stack(found).to(device)
            dist.all_reduce(sums)
            found = Validation(*sums.cpu().unbind())
        return found.pck

    def file(self, batch: Batch, index: int) -> str:
        """The image file of a sample."""
        return self.train.people.files[batch.indices[index]]

    def preview(self, path: str | Path, count: int) -> None:
        """See `draw_preview`."""
        draw_preview(self.train, self.config, path, count)

    def draw_validation(self, model: nn.Module, path: str | Path) -> None:
        """See `draw_validation`."""
        assert self.val is not None
        draw_validation(model, self.val, self.config.size, path)
