"""Which positions of a finder's maps stand for which person, and what their errors cost.

Positions are assigned by what the network finds there (task alignment: Feng et al., TOOD, ICCV 2021, section 3.2; with
the exponents of Ultralytics' YOLOv8): of the positions inside a box, those with the largest `score^0.5 * IoU^6`. That
number over its largest value in the box is a position's weight in the losses of the box; the weight times the largest
IoU is its target score, so the score learns the quality of the box. (There the target score is the weight too. With one
map for all sizes the first boxes of small people are far too large, and would weigh next to nothing.) The losses are
those of Generalized Focal Loss (Li et al., NeurIPS 2020): the quality focal loss of the
scores, the distribution focal loss of the distances; and CIoU (Zheng et al., AAAI 2020) of the boxes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..pose.box_maps import BINS, bin_coordinates, box_positions, decode_sides, split_maps
from ..pose.crops import STRIDE
from .config import BoxConfig

NOBODY, PERSON, UNSURE = 0, 1, 2
"""Kinds of boxes: a place in the array that is not used; a person; a region that is left out of the loss."""


def _inside(positions: Tensor, boxes: Tensor, least: float = 0.0) -> Tensor:
    """(B, M, P): whether each position lies inside each box, grown to at least `least` pixels."""
    centre, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2
    x, y = positions.unbind(-1)
    half = half.clamp(min=least / 2)
    return ((x - centre[..., :1]).abs() < half[..., :1]) & ((y - centre[..., 1:]).abs() < half[..., 1:])


def _overlaps(boxes: Tensor, found: Tensor) -> Tensor:
    """IoU (B, M, P) of boxes (B, M, 4) with what was found (B, P, 4)."""
    a, b = boxes[:, :, None].unbind(-1), found[:, None].unbind(-1)
    width = (torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0])).clamp(min=0)
    height = (torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1])).clamp(min=0)
    both = width * height
    either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / either.clamp(min=1e-6)


@torch.no_grad()
def assign(
    scores: Tensor, found: Tensor, positions: Tensor, boxes: Tensor, kinds: Tensor, top: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Assign positions to people; a box smaller than a position has the nearest one.

    Args:
        scores: (B, P) in 0..1.
        found: (B, P, 4) the boxes found at the positions, in input pixels.
        positions: (P, 2) x and y in input pixels.
        boxes: (B, M, 4) the labelled boxes.
        kinds: (B, M) `PERSON`, or others, to which nothing is assigned.
        top: Positions to a person, at most.

    Returns:
        Positions (B, M, top) for each box, the best aligned first; what they count, 1 for the best, 0 where the place
        does not stand for the box; and their target scores. A position inside several boxes belongs to that with which
        its own box has the largest IoU.
    """
    top = min(top, len(positions))
    overlaps = _overlaps(boxes, found)
    possible = _inside(positions, boxes, 1.5 * STRIDE) & (kinds == PERSON)[..., None]
    aligned = scores.clamp(min=1e-6).sqrt()[:, None] * overlaps.pow(6)
    # a box that overlaps nothing yet still has positions: a millionth tells nothing of their order, and is above 0
    aligned = torch.where(possible, aligned + 1e-18, 0.0)
    best, places = aligned.topk(top, 2)
    taken = best > 0
    # the owner of a position: of the boxes that took it, the one with the largest IoU
    claims = torch.full_like(overlaps, -1.0).scatter_(2, places, torch.where(taken, overlaps.gather(2, places), -1.0))
    owner = claims.argmax(1)
    rows = torch.arange(boxes.shape[1], device=boxes.device)[:, None]
    owned = taken & (owner.gather(1, places.flatten(1)).view_as(places) == rows)
    best = best * owned
    highest = (overlaps.gather(2, places) * owned).amax(2, keepdim=True)
    weights = best / best.amax(2, keepdim=True).clamp(min=1e-30)
    return places, weights, weights * highest


def box_losses(maps: Tensor, boxes: Tensor, kinds: Tensor, config: BoxConfig) -> Tensor:
    """The loss of a batch of maps.

    Args:
        maps: (B, NUM_MAPS, h, w) from the network.
        boxes: (B, M, 4) labelled boxes, x1, y1, x2, y2 in input pixels, and
        kinds: (B, M) what they are: `PERSON`, `UNSURE` or `NOBODY`.
        config: Weights of the parts, positions to a person.

    Returns:
        (3,) the losses of the scores, the boxes and the distributions, weighted; their sum is the loss.
    """
    from torchvision.ops import complete_box_iou_loss

    logits, bins = split_maps(maps.float())
    positions = box_positions(maps.shape[2], maps.shape[3], maps)
    scores = logits.sigmoid()
    with torch.no_grad():
        found = decode_sides(bins, positions)
    places, weights, quality = assign(scores.detach(), found, positions, boxes, kinds, config.top)

    flat = places.flatten(1)
    targets = torch.zeros_like(scores).scatter_reduce_(1, flat, quality.flatten(1), 'amax')
    taken = torch.zeros_like(scores).scatter_reduce_(1, flat, weights.flatten(1), 'amax') > 0
    unsure = (_inside(positions, boxes) & (kinds == UNSURE)[..., None]).any(1) & ~taken
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction='none')
    total = quality.sum().clamp(min=1)
    score_loss = ((targets - scores).square() * entropy * ~unsure).sum() / total
    weights = weights.flatten(1)
    total = weights.sum().clamp(min=1)

    picked = bins.gather(1, flat[..., None, None].expand(-1, -1, 4, BINS))
    centres = positions[flat]
    truth = boxes[:, :, None].expand(*places.shape, 4).flatten(1, 2)
    # padding has no box: any box with a size keeps what it gives finite, its weight is 0
    truth = torch.where(weights[..., None] > 0, truth, torch.cat((centres - 1, centres + 1), -1))
    box_loss = (complete_box_iou_loss(decode_sides(picked, centres), truth) * weights).sum() / total

    at = bin_coordinates(torch.cat((centres - truth[..., :2], truth[..., 2:] - centres), -1))
    low = at.floor().clamp(max=BINS - 2)
    logs = picked.log_softmax(-1)
    near, far = (logs.gather(-1, low.long()[..., None] + i)[..., 0] for i in (0, 1))
    bin_loss = -((near * (1 - at + low) + far * (at - low)).mean(-1) * weights).sum() / total
    return torch.stack((config.score * score_loss, config.box * box_loss, config.bins * bin_loss))
