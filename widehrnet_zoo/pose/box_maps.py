"""The maps of a person finder, and the boxes that they stand for.

The finder is the pose network with other output maps. Each position of the maps (stride 4) has a score and the
distances to the four sides of a box, as in FCOS (Tian et al., ICCV 2019). The score is that of Generalized Focal Loss
(Li et al., NeurIPS 2020): the IoU that the position's own box can be expected to have. A distance is a distribution
over bins, as there, but the bins are spaced by the logarithm, so that one map serves people of 10 and of 500 pixels:
with the bin coordinate

    u(d) = log(1 + d / 4) / log(1 + 512 / 4) * 15

the distance is u's inverse at the mean of the distribution over the bins 0..15.
"""

import math

import numpy as np

from ..errors import UserError
from .arrays import Arrays, as_float, count_up, library_of, like, sigmoid, softmax, topk
from .crops import STRIDE
from .skeletons import Skeleton

BINS = 16
"""Bins of a distance."""

NUM_MAPS = 1 + 4 * BINS
"""Output maps: the score's logit, then the bins of the distances to the left, top, right and bottom side."""

PERSON_BOXES = Skeleton(
    'person boxes', ('person', *(f'{side}_{i}' for side in ('left', 'top', 'right', 'bottom') for i in range(BINS)))
)
"""Names of the maps, which stand in a finder's config where a pose model has its keypoints."""

OVERLAP = 0.45
"""Largest IoU of two boxes of a photo."""

ALIKE = 0.65
"""IoU with a box from which others, of at least half its score, are averaged into it."""

_NEAR, _FAR = 4.0, 512.0
"""Below `_NEAR` input pixels the bins are about evenly spaced; `_FAR` is the largest distance."""

_NO_TENSOR = np.empty(0)

_TINY = 1e-9

_STEP = math.log1p(_FAR / _NEAR) / (BINS - 1)


def gives_boxes(skeleton: Skeleton) -> bool:
    """Whether a model's maps are a person finder's, and no heatmaps of keypoints."""
    return skeleton.keypoints == PERSON_BOXES.keypoints


def bin_coordinates(distances: Arrays) -> Arrays:
    """Distances in input pixels to coordinates on the bins, 0..15; those below 0 and above 512 are clamped."""
    return library_of(distances).log1p(distances.clip(0, _FAR) / _NEAR) / _STEP


def distances_of() -> tuple[float, float]:
    """`near` and `step` of the inverse, distance = (exp(u * step) - 1) * near, for graphs that are written by hand."""
    return _NEAR, _STEP


def split_maps(maps: Arrays) -> tuple[Arrays, Arrays]:
    """Score logits (B, P) and bin logits (B, P, 4, BINS) of maps (B, NUM_MAPS, h, w), P = h * w positions row by row.

    Raises:
        UserError: If the maps are of another network.
    """
    if maps.ndim != 4 or maps.shape[1] != NUM_MAPS:
        raise UserError(f'The maps of a person finder are (B, {NUM_MAPS}, h, w), not {tuple(maps.shape)}.')
    batch, _, height, width = maps.shape
    rows = maps.reshape(batch, NUM_MAPS, height * width).swapaxes(1, 2)
    return rows[..., 0], rows[..., 1:].reshape(batch, height * width, 4, BINS)


def flip_maps(maps: Arrays) -> Arrays:
    """Maps (B, NUM_MAPS, h, w) of mirrored images as those of the images: left and right change sides."""
    sides = np.arange(4 * BINS).reshape(4, BINS)[[2, 1, 0, 3]].reshape(-1)
    order = like(np.concatenate(([0], 1 + sides)), maps)
    maps = maps[:, order]
    return maps[..., ::-1] if isinstance(maps, np.ndarray) else maps.flip(-1)


def box_positions(height: int, width: int, other: Arrays = _NO_TENSOR) -> Arrays:
    """Centres of the maps' positions.

    Args:
        height: Of the maps.
        width: Of the maps.
        other: What the result is like: an array, by default, or a tensor, on whose device it then is.

    Returns:
        float32 (height * width, 2): x and y in input pixels, 0 the left and the top edge.
    """
    xp = library_of(other)
    y, x = xp.meshgrid(*((count_up(side, other) + 0.5) * STRIDE for side in (height, width)), indexing='ij')
    return xp.stack((x, y), -1).reshape(height * width, 2)


def decode_sides(bins: Arrays, positions: Arrays) -> Arrays:
    """Boxes of positions.

    Args:
        bins: (..., 4, BINS) logits.
        positions: (..., 2) x and y in input pixels.

    Returns:
        (..., 4) x1, y1, x2, y2 in input pixels, float32.
    """
    xp = library_of(bins)
    bins = bins.astype(np.float32, copy=False) if xp is np else bins.float()
    distances = xp.expm1((softmax(bins) @ count_up(BINS, bins)) * _STEP) * _NEAR
    return xp.concatenate((positions - distances[..., :2], positions + distances[..., 2:]), -1)


def find_boxes(
    maps: Arrays, min_score: float = 0.05, overlap: float = OVERLAP, limit: int = 1000
) -> tuple[Arrays, Arrays, Arrays]:
    """The boxes of a batch of maps; of tensors, in operations that `torch.jit.trace` takes.

    A box that stays is the mean of those like it (`average_boxes`), which lies closer than the surest of them alone.

    Args:
        maps: (B, NUM_MAPS, h, w), a tensor or a NumPy array.
        min_score: Lower positions are left out.
        overlap: Of two boxes of an image with a larger IoU the lower one goes.
        limit: Positions of each image that are looked at, the highest first.

    Returns:
        Boxes (N, 4), x1, y1, x2, y2 in input pixels, not clipped; scores (N,) in 0..1; and the index (N,) of each
        one's image in the batch. The scores fall from the first to the last, whatever the image.
    """
    xp = library_of(maps)
    logits, bins = split_maps(as_float(maps))
    logits, picked = topk(logits, min(limit, logits.shape[1]))
    scores = sigmoid(logits)
    kept = xp.argwhere(scores >= min_score / 2)
    image, rank = kept[:, 0], kept[:, 1]
    place, scores = picked[image, rank], scores[image, rank]
    positions = box_positions(maps.shape[2], maps.shape[3], maps)
    boxes = decode_sides(bins[image, place], positions[place])
    # no box reaches further than this, so that those of different images never meet
    apart = as_float(image)[:, None] * (4 * _FAR + STRIDE * max(maps.shape[2:]))
    chosen = suppress(boxes + apart, scores, overlap)
    chosen = chosen[scores[chosen] >= min_score]
    return average_boxes(boxes, scores, image, chosen), scores[chosen], image[chosen]


def average_boxes(boxes: Arrays, scores: Arrays, image: Arrays, chosen: Arrays) -> Arrays:
    """Chosen boxes as means of those like them, weighted by IoU times score: box voting (Gidaris, ICCV 2015).

    Args:
        boxes: (N, 4) x1, y1, x2, y2.
        scores: (N,).
        image: (N,) indices of their images.
        chosen: (M,) places of the chosen among them.

    Returns:
        (M, 4): means over the boxes of the same image that have an IoU of `ALIKE` with the chosen one, and half its
        score, or more.
    """
    xp = library_of(boxes)
    mine = boxes[chosen][:, None]
    low, high = xp.maximum(boxes[None, :, :2], mine[..., :2]), xp.minimum(boxes[None, :, 2:], mine[..., 2:])
    common = (high - low).clip(0).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    overlaps = common / (areas[None] + areas[chosen][:, None] - common).clip(_TINY)
    alike = (overlaps >= ALIKE) & (image[None] == image[chosen][:, None])
    weights = alike * (2 * scores[None] >= scores[chosen][:, None]) * overlaps * scores[None]
    total = weights.sum(-1)[:, None]
    # a box without an area is like none, itself neither
    return xp.where(total > 0, weights @ boxes / total.clip(_TINY), mine[:, 0])


def suppress(boxes: Arrays, scores: Arrays, overlap: float) -> Arrays:
    """Greedy non-maximum suppression; of tensors, that of torchvision.

    Args:
        boxes: (N, 4) x1, y1, x2, y2.
        scores: (N,).
        overlap: Of two boxes with a larger IoU the lower one goes.

    Returns:
        Indices of the boxes that stay, the highest score first.
    """
    if not isinstance(boxes, np.ndarray):
        from torchvision.ops import nms

        return nms(boxes, scores, overlap)
    rest = np.argsort(-scores, kind='stable')
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    kept: list[int] = []
    while len(rest):
        best, rest = int(rest[0]), rest[1:]
        kept.append(best)
        common = np.minimum(boxes[rest, 2:], boxes[best, 2:]) - np.maximum(boxes[rest, :2], boxes[best, :2])
        shared = common.clip(0).prod(1)
        rest = rest[shared <= overlap * (areas[rest] + areas[best] - shared)]
    return np.array(kept, np.intp)
