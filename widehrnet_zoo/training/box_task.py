"""A person finder: whole photos, maps of boxes, average precision."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
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
from .box_pictures import draw_found, draw_samples
from .config import TrainConfig
from .data import open_caches
from .photos import PhotoCache, box_labels
from .pictures import evenly
from .pixels import cut_views
from .start import input_stats, start_model
from .task import Task

_AT_ONCE = 16
_RARE = 0.01
_LEAST = 0.01


class BoxTask(Task):
    """The boxes of people, from whole photos."""

    figure, shown = 'ap50', 'AP50'
    train: PhotoCache
    val: PhotoCache | None

    @classmethod
    def open(cls, config: TrainConfig, progress: bool = True) -> 'BoxTask':
        """See `Task`.

        Raises:
            UserError: If a teacher is set, too.
            ImportError: If pycocotools, which average precision comes from, is not installed.
        """
        require('pycocotools', 'eval')
        if config.teacher.model or config.teacher.keypoints:
            raise UserError('A teacher is for keypoints: leave teacher out where the task is boxes.')
        train, val = open_caches(config, progress)
        return cls(config, PhotoCache(train), None if val is None else PhotoCache(val))

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

    def _look(self, model: nn.Module, rows: npt.NDArray[np.intp]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Validation photos as they are, letterboxed: images, maps, scales and corners, see `photo_view`."""
        assert self.val is not None
        size, device = self.config.size, next(model.parameters()).device
        views, scale, corner = photo_view(torch.from_numpy(self.val.extents[rows]), size)
        pixels = cut_views(torch.from_numpy(self.val.crops[rows]).to(device), views, size)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.precision == 'bf16'):
            maps = model(normalise(pixels, *input_stats(model))).float()
        return pixels, maps, scale, corner

    @torch.inference_mode()
    def validate(self, model: nn.Module, device: torch.device, rank: int, world: int) -> float:
        """AP50 of the validation photos."""
        assert self.val is not None
        results: list[dict[str, Any]] = []
        mine = np.arange(len(self.val))[rank::world]
        for start in range(0, len(mine), _AT_ONCE):
            rows = mine[start : start + _AT_ONCE]
            _, maps, scale, corner = self._look(model, rows)
            scales, ids = scale.numpy() * self.val.scales[rows], [self.val.ids[i] for i in rows]
            results += _results(maps, ids, scales, corner.numpy(), self.val.sizes[rows])
        if world > 1:
            parts: list[Any] = [None] * world
            dist.all_gather_object(parts, results)
            results = [result for part in parts for result in part]
        return BoxScore(self.val.labels(), results).figures()['AP50']

    def preview(self, path: Path, count: int) -> None:
        """See `draw_samples`."""
        draw_samples(BoxBatches(self.train, self.config), path, count)

    @torch.inference_mode()
    def draw_validation(self, model: nn.Module, path: Path) -> None:
        """See `draw_found`."""
        assert self.val is not None
        rows = evenly(len(self.val))
        pixels, maps, scale, corner = self._look(model, rows)
        boxes = torch.from_numpy(self.val.boxes[rows] - np.tile(self.val.extents[rows, :2], 2)[:, None])
        boxes = boxes * scale[:, None, None] + corner.repeat(1, 2)[:, None]
        draw_found(pixels, boxes, torch.from_numpy(self.val.kinds[rows]), maps.cpu(), path)


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
