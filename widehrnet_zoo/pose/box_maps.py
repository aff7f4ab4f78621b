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

import torch
from torch import Tensor

from ..errors import UserError
from .skeletons import Skeleton

__all__ = [
    'BINS',
    'NUM_MAPS',
    'PERSON_BOXES',
    'bin_coordinates',
    'box_positions',
    'decode_sides',
    'distances_of',
    'find_boxes',
    'gives_boxes',
    'split_maps',
]

BINS = 16
"""Bins of a distance."""

NUM_MAPS = 1 + 4 * BINS
"""Output maps: the score's logit, then the bins of the distances to the left, top, right and bottom side."""

PERSON_BOXES = Skeleton(
    'person boxes', ('person', *(f'{side}_{i}' for side in ('left', 'top', 'right', 'bottom') for i in range(BINS)))
)
"""Names of the maps, which stand in a finder's config where a pose model has its keypoints."""

_NEAR, _FAR = 4.0, 512.0
"""Below `_NEAR` input pixels the bins are about evenly spaced; `_FAR` is the largest distance."""

_STEP = math.log1p(_FAR / _NEAR) / (BINS - 1)


def gives_boxes(skeleton: Skeleton) -> bool:
    """Whether a model's maps are a person finder's, and no heatmaps of keypoints."""
    return skeleton.keypoints == PERSON_BOXES.keypoints


def bin_coordinates(distances: Tensor) -> Tensor:
    """Distances in input pixels to coordinates on the bins, 0..15; those below 0 and above 512 are clamped."""
    return torch.log1p(distances.clamp(0, _FAR) / _NEAR) / _STEP


def distances_of() -> tuple[float, float]:
    """`near` and `step` of the inverse, distance = (exp(u * step) - 1) * near, for graphs that are written by hand."""
    return _NEAR, _STEP


def _distances(coordinates: Tensor) -> Tensor:
    return torch.expm1(coordinates * _STEP) * _NEAR


def split_maps(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Score logits (B, P) and bin logits (B, P, 4, BINS) of maps (B, NUM_MAPS, h, w), P = h * w positions row by row.

    Raises:
        UserError: If the maps are of another network.
    """
    if maps.ndim != 4 or maps.shape[1] != NUM_MAPS:
        raise UserError(f'The maps of a person finder are (B, {NUM_MAPS}, h, w), not {tuple(maps.shape)}.')
    rows = maps.flatten(2).transpose(1, 2)
    return rows[..., 0], rows[..., 1:].unflatten(-1, (4, BINS))


def box_positions(height: int, width: int, stride: int = 4, device: torch.device | str | None = None) -> Tensor:
    """Centres of the maps' positions, (height * width, 2): x and y in input pixels, 0 the left and the top edge."""
    ys = (torch.arange(height, device=device) + 0.5) * stride
    xs = (torch.arange(width, device=device) + 0.5) * stride
    return torch.stack(torch.meshgrid(ys, xs, indexing='ij')[::-1], -1).view(-1, 2)


def decode_sides(bins: Tensor, positions: Tensor) -> Tensor:
    """Boxes of positions.

    Args:
        bins: (..., 4, BINS) logits.
        positions: (..., 2) x and y in input pixels.

    Returns:
        (..., 4) x1, y1, x2, y2 in input pixels, float32.
    """
    places = torch.arange(BINS, device=bins.device, dtype=torch.float32)
    left_top, right_bottom = _distances(bins.float().softmax(-1) @ places).chunk(2, -1)
    return torch.cat((positions - left_top, positions + right_bottom), -1)


def find_boxes(
    maps: Tensor, min_score: float = 0.05, overlap: float = 0.6, limit: int = 1000, stride: int = 4
) -> tuple[Tensor, Tensor, Tensor]:
    """The boxes of a batch of maps; written in operations that `torch.onnx.export` and `torch.export` take.

    Args:
        maps: (B, NUM_MAPS, h, w).
        min_score: Lower positions are left out.
        overlap: Of two boxes of an image with a larger IoU the lower one goes (torchvision's `nms`).
        limit: Positions of each image that are looked at, the highest first.
        stride: Input pixels per position.

    Returns:
        Boxes (N, 4), x1, y1, x2, y2 in input pixels, not clipped; scores (N,) in 0..1; and the index (N,) of each
        one's image in the batch. The scores fall from the first to the last, whatever the image.
    """
    from torchvision.ops import nms

    scores, bins = split_maps(maps)
    scores, picked = scores.float().topk(min(limit, scores.shape[1]), 1)
    kept = torch.nonzero(scores.sigmoid() >= min_score)
    image, place = kept[:, 0], picked[kept[:, 0], kept[:, 1]]
    scores = scores[image, kept[:, 1]].sigmoid()
    positions = box_positions(maps.shape[2], maps.shape[3], stride, maps.device)
    boxes = decode_sides(bins[image, place], positions[place])
    # no box reaches further than this, so that those of different images never meet
    apart = image.to(boxes.dtype)[:, None] * (4 * _FAR + stride * max(maps.shape[2:]))
    kept = nms(boxes + apart, scores, overlap)
    return boxes[kept], scores[kept], image[kept]
