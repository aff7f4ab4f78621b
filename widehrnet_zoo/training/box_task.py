"""A person finder: whole photos, maps of boxes, average precision."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import UserError
from ..extras import require
from ..metrics.boxes import BoxScore
from ..pose.box_maps import PERSON_BOXES, find_boxes
from .batches import normalise
from .box_batches import BoxBatch, BoxBatches, photo_view
from .box_loss import box_losses
from .config import TrainConfig
from .data import open_caches
from .photos import PhotoCache, box_labels
from .pixels import cut_views
from .start import input_stats, start_model

_RARE = 0.01
_LEAST = 0.01


class BoxTask:
    """A `Task`: the boxes of people, from whole photos."""

    figure, shown = 'ap50', 'AP50'

    def __init__(self, config: TrainConfig, train: PhotoCache, val: PhotoCache | None):
        self.config, self.train, self.val = config, train, val
        self.train_size, self.has_val = len(train), val is not None

    @classmethod
    def open(cls, config: TrainConfig, progress: bool = True) -> 'BoxTask':
        """Read the labels of a recipe and decode, or find, the photos.

        Raises:
            UserError: If a setting is for keypoints only, a label file or too many images are broken, or the disk is
                full.
            ImportError: If pycocotools, which average precision comes from, is not installed.
        """
        require('pycocotools', 'eval')
        if config.teacher.model or config.teacher.keypoints:
            raise UserError('A teacher is for keypoints: leave teacher out where the task is boxes.')
        train, val = open_caches(config, progress)
        return cls(config, PhotoCache(train), None if val is None else PhotoCache(val))

    def by(self, config: TrainConfig) -> 'BoxTask':
        """The same photos, to be learnt by another recipe."""
        return BoxTask(config, self.train, self.val)

    def start(self) -> nn.Module:
        """The model to train, see `start_model`; a new head says at first that people are rare (RetinaNet's prior)."""
        model: Any = start_model(self.config.model, PERSON_BOXES, self.config.size, self.config.seed)
        bias = model.classifier.bias
        if not bias.any():
            with torch.no_grad():
                bias[0] = float(np.log(_RARE / (1 - _RARE)))
        return model

    def batches(self, model: nn.Module, device: torch.device, rank: int, world: int) -> BoxBatches:
        """See `BoxBatches`."""
        return BoxBatches(self.train, self.config, device, rank, world)

    def losses(self, maps: Tensor, batch: BoxBatch) -> tuple[Tensor, Tensor | None]:
        """The loss of the maps, see `box_losses`; there is no teacher."""
        return box_losses(maps, batch.boxes, batch.kinds, self.config.boxes).sum(), None

    def train_figure(self, maps: Tensor, batch: BoxBatch) -> float:
        """AP50 of the augmented batch."""
        height, width = self.config.size
        places = list(range(len(maps)))
        labels = box_labels(places, [(width, height)] * len(maps), batch.boxes.cpu(), batch.kinds.cpu())
        return BoxScore(labels, _results(maps, places)).figures()['AP50']

    @torch.inference_mode()
    def validate(self, model: nn.Module, device: torch.device, rank: int, world: int) -> float:
        """AP50 of the validation photos as they are, letterboxed."""
        assert self.val is not None
        results: list[dict[str, Any]] = []
        training = model.training
        model.eval()
        for rows in np.array_split(np.arange(len(self.val))[rank::world], max(1, len(self.val) // (16 * world))):
            results += self._find(model, device, rows)
        model.train(training)
        if world > 1:
            parts: list[Any] = [None] * world
            dist.all_gather_object(parts, results)
            results = [result for part in parts for result in part]
        return BoxScore(self.val.labels(), results).figures()['AP50']

    def _view(self, cache: PhotoCache, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        maps, scale, corner = photo_view(torch.from_numpy(cache.extents[rows]), self.config.size)
        crops = torch.from_numpy(cache.crops[rows]).to(device)
        return cut_views(crops, maps, self.config.size), scale, corner

    def _find(self, model: nn.Module, device: torch.device, rows: np.ndarray) -> list[dict[str, Any]]:
        assert self.val is not None
        if not len(rows):
            return []
        pixels, scale, corner = self._view(self.val, rows, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.precision == 'bf16'):
            maps = model(normalise(pixels, *input_stats(model))).float()
        ids = [self.val.ids[i] for i in rows]
        sizes = self.val.sizes[rows]
        scales = scale.numpy() * self.val.scales[rows]
        return _results(maps, ids, scales, corner.numpy(), sizes)

    def file(self, batch: BoxBatch, index: int) -> str:
        """The image file of a sample."""
        return self.train.files[batch.indices[index]]

    def preview(self, path: str | Path, count: int) -> None:
        """Draw augmented samples with their boxes."""
        from .box_pictures import draw_samples

        draw_samples(self.batches(nn.Identity(), torch.device('cpu'), 0, 1), path, count)

    @torch.inference_mode()
    def draw_validation(self, model: nn.Module, path: str | Path) -> None:
        """Draw the labels of validation photos beside what the model finds."""
        from .box_pictures import draw_found

        assert self.val is not None
        rows = np.unique(np.linspace(0, len(self.val) - 1, min(16, len(self.val))).round().astype(int))
        device = next(model.parameters()).device
        pixels, scale, corner = self._view(self.val, rows, device)
        maps = model(normalise(pixels, *input_stats(model))).float().cpu()
        boxes = torch.from_numpy(self.val.boxes[rows] - np.tile(self.val.extents[rows, :2], 2)[:, None])
        boxes = boxes * scale[:, None, None] + corner.repeat(1, 2)[:, None]
        draw_found(pixels, boxes, torch.from_numpy(self.val.kinds[rows]), maps, path)


def _results(
    maps: Tensor,
    ids: list[Any],
    scales: np.ndarray | None = None,
    corners: np.ndarray | None = None,
    sizes: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Results of maps, for `BoxScore`; with scales (input pixels per photo pixel), corners and sizes: of the photos."""
    boxes, scores, index = (v.cpu().numpy() for v in find_boxes(maps, _LEAST))
    if scales is not None and corners is not None and sizes is not None:
        boxes = (boxes - np.tile(corners[index], 2)) / scales[index][:, None]
        boxes = boxes.clip(0, np.tile(sizes[index], 2))
    boxes[:, 2:] -= boxes[:, :2]
    return [
        {'image_id': ids[i], 'bbox': box, 'score': score}
        for i, box, score in zip(index.tolist(), boxes.tolist(), scores.tolist(), strict=True)
    ]
