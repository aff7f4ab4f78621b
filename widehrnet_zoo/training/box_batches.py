"""Batches of photos with boxes: parts of photos, four side by side in some samples, mirrored, recoloured.

As with crops of people, each batch is a function of the seed and the step alone; where a photo lies and where its boxes
are then is worked out on the CPU, the pixels on the device.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .box_loss import NOBODY, PERSON, UNSURE
from .config import BoxConfig, TrainConfig
from .draws import Draws
from .passes import PlannedBatches
from .photos import PhotoCache
from .pixels import augment_tones, cut_views, degrade, send

_LARGEST = 2.0
_WIDTHS = 16


@dataclass
class BoxBatch:
    """A process's part of a batch.

    Attributes:
        indices: (n,) photos in the cache; of four side by side the upper left.
        pixels: (n, 3, H, W) float images in 0..255.
        boxes: (n, M, 4) x1, y1, x2, y2 in input pixels.
        kinds: (n, M) `PERSON`, `UNSURE` or `NOBODY`.
    """

    indices: np.ndarray
    pixels: Tensor
    boxes: Tensor
    kinds: Tensor


def place_photos(
    extents: Tensor, boxes: Tensor, kinds: Tensor, size: tuple[int, int], config: BoxConfig, flip: float, draws: Draws
) -> tuple[Tensor, Tensor, Tensor]:
    """Lay photos into places at random: larger, so that a part is seen, or smaller; stretched a little; mirrored.

    Args:
        extents: (N, 4) where each photo lies in its crop.
        boxes: (N, M, 4) in crop pixels.
        kinds: (N, M).
        size: Height and width of the place.
        config: Ranges.
        flip: How often a photo is mirrored.
        draws: Of the photos.

    Returns:
        Maps (N, 2, 3) from pixel of the place to crop pixel; boxes (N, M, 4) in pixels of the place, clipped to it;
        their kinds (N, M).
    """
    height, width = size
    whole = extents[:, 2:] - extents[:, :2]
    fit = torch.minimum(width / whole[:, 0], height / whole[:, 1])
    low, high = 1 / config.zoom_out, config.zoom_in
    scale = (fit * low * (high / low) ** draws['zoom']).clamp(max=_LARGEST)
    stretch = config.stretch ** (draws.signed('stretch') / 2)
    scales = torch.stack((scale * stretch, scale / stretch), 1)
    # as much room as there is beside a small photo, or as a large one reaches over the place
    free = torch.tensor([width, height]) - whole * scales
    corner = free * torch.stack((draws['shift_x'], draws['shift_y']), 1)
    mirrored = draws['mirror'] < flip
    moved = (boxes - extents[:, None, :2].repeat(1, 1, 2)) * scales[:, None].repeat(1, 1, 2)
    x1, y1, x2, y2 = (moved + corner[:, None].repeat(1, 1, 2)).unbind(-1)
    turned = mirrored[:, None]
    x1, x2 = torch.where(turned, width - x2, x1), torch.where(turned, width - x1, x2)
    area = (x2 - x1) * (y2 - y1)
    x1, x2 = x1.clamp(0, width), x2.clamp(0, width)
    y1, y2 = y1.clamp(0, height), y2.clamp(0, height)
    seen = (x2 - x1) * (y2 - y1)
    enough = (seen >= config.least_seen * area) & (y2 - y1 >= config.smallest) & (x2 - x1 >= config.smallest / 4)
    kinds = torch.where((kinds == PERSON) & ~enough, UNSURE, kinds)
    kinds = torch.where(seen > 0, kinds, NOBODY)
    return _maps(extents, size, scales, corner, mirrored), torch.stack((x1, y1, x2, y2), -1), kinds


def photo_view(extents: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Photos as large as they fit in the middle of an input, as at test time.

    Args:
        extents: (N, 4) where each photo lies in its crop.
        size: Height and width of the input.

    Returns:
        Maps (N, 2, 3) from input pixel to crop pixel, scales (N,) in input pixels per crop pixel, and the photos'
        upper left corners (N, 2) in input pixels.
    """
    sides = torch.tensor([size[1], size[0]])
    whole = extents[:, 2:] - extents[:, :2]
    scale = (sides / whole).amin(1)
    corner = (sides - whole * scale[:, None]) / 2
    scales = scale[:, None].expand(-1, 2)
    return _maps(extents, size, scales, corner, torch.zeros(len(extents), dtype=torch.bool)), scale, corner


def _maps(extents: Tensor, size: tuple[int, int], scales: Tensor, corner: Tensor, mirrored: Tensor) -> Tensor:
    linear = torch.diag_embed(1 / scales)
    # between edges: crop = extent + (place - corner) / scale; between pixel indices half a pixel of each
    offset = extents[:, :2] - corner / scales + 0.5 / scales - 0.5
    # a mirrored pixel i is pixel width - 1 - i
    offset[:, 0] = torch.where(mirrored, offset[:, 0] + (size[1] - 1) / scales[:, 0], offset[:, 0])
    linear[:, 0, 0] *= torch.where(mirrored, -1.0, 1.0)
    return torch.cat((linear, offset[..., None]), 2)


def strongest(boxes: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
    """The boxes that are used first, without the columns that no sample uses; their number is a multiple of 16."""
    order = (kinds == NOBODY).long().argsort(dim=1, stable=True)
    most = max(1, int((kinds != NOBODY).sum(1).max()))
    order = order[:, : -(-most // _WIDTHS) * _WIDTHS]
    return boxes.gather(1, order[..., None].expand(-1, -1, 4)), kinds.gather(1, order)


@dataclass
class _Part:
    """Photos of one shape of place.

    Attributes:
        rows: The samples that they are in.
        place: Left, top, width and height of the place in the input.
        photos: (n,) which.
        crops: uint8 (n, S, S, 3) on the CPU; `None` where the device has all.
        maps: (n, 2, 3).
    """

    rows: slice
    place: tuple[int, int, int, int]
    photos: Tensor
    crops: Tensor | None
    maps: Tensor


@dataclass
class _Plan:
    indices: np.ndarray
    parts: list[_Part]
    boxes: Tensor
    kinds: Tensor
    draws: Draws


class BoxBatches(PlannedBatches[_Plan, BoxBatch]):
    """Augmented batches by step; see `PlannedBatches`."""

    def __init__(
        self,
        cache: PhotoCache,
        config: TrainConfig,
        device: torch.device | str = 'cpu',
        rank: int = 0,
        world: int = 1,
    ):
        super().__init__(cache, config, device, rank, world)
        self.cache = cache
        self.extents, self.boxes = torch.from_numpy(cache.extents), torch.from_numpy(cache.boxes)
        self.kinds = torch.from_numpy(cache.kinds)

    def _plan(self, step: int) -> _Plan:
        config, (height, width) = self.config, self.config.size
        indices = torch.from_numpy(self.passes.picked(step))
        # sorted for reading; which samples are of four photos must not depend on the place in the file
        shuffle = Draws.of(len(indices), config.seed, step, 5)['photo'].argsort()
        share = len(indices) // self.world
        mine = shuffle[self.rank * share : (self.rank + 1) * share]
        draws = [Draws.of(len(indices), config.seed, step, i).part(mine) for i in range(5)]
        first = indices[mine]
        # how many are of four photos, and where these meet, is one draw for the batch: their places are of one shape
        count, across, down = Draws.of(1, config.seed, step, 6).table[0, :3].tolist()
        fours = min(share, int(config.boxes.mosaic_prob * share + count))
        x, y = (2 * round((0.35 + 0.3 * u) * side / 2) for u, side in ((across, width), (down, height)))
        quarters = ((0, 0, x, y), (x, 0, width - x, y), (0, y, x, height - y), (x, y, width - x, height - y))
        places = [((0, 0, width, height), slice(fours, share)), *((place, slice(0, fours)) for place in quarters)]
        most = self.boxes.shape[1]
        boxes = torch.zeros(share, 4 * most if fours else most, 4)
        kinds = torch.full(boxes.shape[:2], NOBODY)
        parts = []
        for i, (place, rows) in enumerate(places):
            if rows.start == rows.stop:
                continue
            some = draws[i].part(rows)
            photos = first[rows] if i < 2 else (some['photo'] * len(self.cache)).long()
            maps, inside, of_kind = place_photos(
                self.extents[photos],
                self.boxes[photos],
                self.kinds[photos],
                (place[3], place[2]),
                config.boxes,
                config.augment.flip_prob,
                some,
            )
            # a photo alone has the columns of the first of four
            columns = slice(max(0, i - 1) * most, max(1, i) * most)
            boxes[rows, columns], kinds[rows, columns] = inside + torch.tensor(place[:2] * 2), of_kind
            parts.append(_Part(rows, place, photos, self._read(photos), maps))
        return _Plan(first.numpy(), parts, *strongest(boxes, kinds), draws[0])

    def _make(self, plan: _Plan) -> BoxBatch:
        config, device = self.config, self.device
        pixels = torch.empty(len(plan.indices), 3, *config.size, device=device)
        for part in plan.parts:
            left, top, width, height = part.place
            maps = part.maps.clone()
            crops = self._crops(part.photos, part.crops)
            if (width, height) != (config.size[1], config.size[0]):
                # these are seen at half their size or so: the mean of four pixels keeps what lies between them
                crops = F.avg_pool2d(crops.permute(0, 3, 1, 2).float(), 2).permute(0, 2, 3, 1)
                maps /= 2
                maps[:, :, 2] -= 0.25
            seen = cut_views(crops, maps, (height, width))
            pixels[part.rows, :, top : top + height, left : left + width] = seen
        pixels = augment_tones(pixels, config.augment, plan.draws)
        pixels = degrade(pixels, config.augment, plan.draws, 1.0)
        return BoxBatch(plan.indices, pixels, send(plan.boxes, device), send(plan.kinds, device))
