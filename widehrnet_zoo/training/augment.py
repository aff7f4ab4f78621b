"""Where augmentation looks: the geometry of a batch of cached crops, with their boxes and keypoints.

The geometry of a sample is one affine map, which moves its pixels and its keypoints alike. It is a few numbers for each
person and is worked out where the labels are; `pixels.py` does the rest on the device.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UserError
from ..pose.crops import PADDING
from ..pose.skeletons import Skeleton
from .config import AugmentConfig
from .draws import Draws

NO_BORDERS = (-torch.inf, -torch.inf, torch.inf, torch.inf)

# the sides of a photo that cut people off, with their shares: most often legs are missing
_SIDES = {'bottom': 0.5, 'left': 0.2, 'right': 0.2, 'top': 0.1}
_SECOND_SIDE = 0.25


class Views(NamedTuple):
    """Where to look in each cached crop.

    Attributes:
        maps: (N, 2, 3) affine maps from input pixel to crop pixel.
        mirrored: (N,) booleans.
    """

    maps: Tensor
    mirrored: Tensor


def halves(skeleton: Skeleton, config: AugmentConfig) -> Tensor | None:
    """Whether each keypoint belongs to the lower body; `None` where half-body views are off.

    Raises:
        UserError: If they are asked for and the names do not tell.
    """
    if not config.half_body_prob:
        return None
    lower = torch.tensor([any(part in name for part in config.lower_body) for name in skeleton.keypoints])
    if lower.all() or not lower.any():
        raise UserError(
            'augment.half_body_prob needs an upper and a lower body, and none of the keypoint names '
            f'({", ".join(skeleton.keypoints)}) or all of them contain one of augment.lower_body '
            f'({", ".join(config.lower_body)}).'
        )
    return lower


def cut_by_border(
    boxes: Tensor, keypoints: Tensor, config: AugmentConfig, draws: Draws
) -> tuple[Tensor, Tensor, Tensor]:
    """Let the photo end across some people, as it does in close-ups and at its sides.

    A border lies between two labelled keypoints in its direction, any two alike, so that all from heads to people
    without feet come; a quarter of those who are cut lose a second side. The box becomes that of what is left:
    clipped, and on the other sides between where it was and as far in as the keypoints went.

    Args:
        boxes: (N, 4) x1, y1, x2, y2 in crop pixels.
        keypoints: (N, K, 3) in crop pixels.
        config: How often, and how many keypoints stay.
        draws: Of the batch.

    Returns:
        The boxes; the keypoints, unlabelled beyond the border; and the borders (N, 4), x1, y1, x2, y2 in crop pixels,
        infinite where the photo does not end.
    """
    borders = boxes.new_tensor(NO_BORDERS).expand(len(boxes), 4)
    if not config.border_prob:
        return boxes, keypoints, borders
    chosen = draws['border'] < config.border_prob
    again = chosen & (draws['border_again'] < _SECOND_SIDE)
    borders, left = _one_border(borders, keypoints, chosen, config.border_keep, draws, '')
    borders, left = _one_border(borders, left, again, config.border_keep, draws, '_2')
    before, after = extent_of(keypoints), extent_of(left)
    # a side that no border clips may come in by what the keypoints' box lost there
    share = draws['border_tight'][:, None]
    low, high = boxes[:, :2], boxes[:, 2:]
    low = torch.where(borders[:, :2] > low, borders[:, :2], low + share * (after[0] - before[0]).nan_to_num(0, 0, 0))
    high = torch.where(borders[:, 2:] < high, borders[:, 2:], high - share * (before[1] - after[1]).nan_to_num(0, 0, 0))
    whole = boxes[:, 2:] - boxes[:, :2]
    # a box that all but vanishes (keypoints outside their box) is not a person to look at
    usable = chosen & ((high - low) > 0.05 * whole).all(1)
    return (
        torch.where(usable[:, None], torch.cat((low, high), 1), boxes),
        torch.where(usable[:, None, None], left, keypoints),
        torch.where(usable[:, None], borders, borders.new_tensor(NO_BORDERS)),
    )


def extent_of(keypoints: Tensor) -> tuple[Tensor, Tensor]:
    """Least and largest x, y (N, 2) of the labelled ones of keypoints (N, K, 3); infinite without any."""
    labelled, xy = keypoints[..., 2:] > 0, keypoints[..., :2]
    return torch.where(labelled, xy, torch.inf).amin(1), torch.where(labelled, xy, -torch.inf).amax(1)


def _one_border(
    borders: Tensor, keypoints: Tensor, chosen: Tensor, keep: int, draws: Draws, number: str
) -> tuple[Tensor, Tensor]:
    ends = torch.tensor(list(_SIDES.values()), device=borders.device).cumsum(0)
    side = torch.bucketize(draws[f'border_side{number}'].contiguous(), ends[:-1], right=True)
    # of each side: which coordinate, and whether it grows towards the border
    axis = torch.tensor([int(name in ('bottom', 'top')) for name in _SIDES], device=borders.device)[side]
    sign = torch.tensor([1.0 if name in ('bottom', 'right') else -1.0 for name in _SIDES], device=borders.device)[side]
    labelled = keypoints[..., 2] > 0
    along = keypoints.gather(2, axis.view(-1, 1, 1).expand(-1, keypoints.shape[1], 1))[..., 0] * sign[:, None]
    ordered = torch.where(labelled, along, torch.inf).sort(1).values
    count = labelled.sum(1)
    least = max(1, keep)
    stay = least + (draws[f'border_count{number}'] * (count - least)).floor().long()
    able = chosen & (count > least)
    stay = torch.where(able, stay, 1)[:, None]
    last, following = ordered.gather(1, stay - 1)[:, 0], ordered.gather(1, stay.clamp(max=ordered.shape[1] - 1))[:, 0]
    place = last + (following - last) * draws[f'border_place{number}']
    able &= place.isfinite()
    column = (axis + 2 * (sign > 0))[:, None]
    moved = borders.scatter(1, column, (place * sign)[:, None])
    borders = torch.where(able[:, None], moved, borders)
    xy = keypoints[..., :2]
    return borders, _unlabelled(keypoints, ((xy < borders[:, None, :2]) | (xy > borders[:, None, 2:])).any(2))


def _unlabelled(keypoints: Tensor, where: Tensor) -> Tensor:
    """Keypoints (N, K, 3) without the labels of some of them."""
    return torch.cat((keypoints[..., :2], torch.where(where, 0.0, keypoints[..., 2])[..., None]), 2)


def jitter_boxes(boxes: Tensor, config: AugmentConfig, draws: Draws) -> Tensor:
    """Boxes (N, 4) as a detector gives them: each side moved by itself, up to `box_jitter` of the box's side."""
    if not config.box_jitter:
        return boxes
    extent = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return boxes + extent * config.box_jitter * draws.signed('box_left', 'box_top', 'box_right', 'box_bottom')


def sample_views(
    boxes: Tensor,
    keypoints: Tensor,
    size: tuple[int, int],
    padding: float = PADDING,
    config: AugmentConfig | None = None,
    draws: Draws | None = None,
    lower: Tensor | None = None,
) -> Views:
    """Where to look, at random or as at test time.

    Args:
        boxes: (N, 4) x1, y1, x2, y2 in crop pixels.
        keypoints: (N, K, 3) in crop pixels.
        size: Height and width of the network's input.
        padding: Growth of a box to the view.
        config: Ranges; `None` gives the test-time view.
        draws: Of the batch, needed with `config`.
        lower: From `halves`.
    """
    num, (height, width) = len(boxes), size
    centre, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    # heights of the test-time views: boxes widened to the input's aspect
    views = torch.maximum(extent[:, 0] * (height / width), extent[:, 1]) * padding
    angle, zoom, mirror = boxes.new_zeros(num), boxes.new_ones(num), boxes.new_ones(num)
    if config is not None:
        assert draws is not None
        if lower is not None:
            centre, views = _half_body(views, centre, keypoints, width / height, config, draws, lower)
        if config.normal:
            angle = (draws.normal('angle') * config.rotation).clamp(-2 * config.rotation, 2 * config.rotation)
            spread = config.scale - 1
            zoom = 1 + (draws.normal('zoom') * spread).clamp(-spread, spread)
        else:
            angle = draws.signed('angle') * config.rotation
            zoom = torch.tensor(config.scale).to(boxes) ** draws.signed('zoom')
        kind = draws['turn']
        angle = torch.where(kind < config.any_rotation_prob, draws.signed('angle') * 180, angle)
        turned = kind < config.any_rotation_prob + config.rotation_prob
        angle = torch.deg2rad(torch.where(turned, angle, 0.0))
        mirror = torch.where(draws['mirror'] < config.flip_prob, -1.0, 1.0)
        is_far = draws['far'] < config.far_prob
        zoom = torch.where(is_far, zoom * (1 + (config.far - 1) * draws['far_size']), zoom)
        # within a view that is zoom times as large, the person may stand anywhere
        reach = torch.where(is_far, config.shift + (zoom - 1).clamp(min=0) / 3, config.shift)
        centre = centre + draws.signed('shift_x', 'shift_y') * (reach * views)[:, None]
    step = views / height * zoom
    cos, sin = torch.cos(angle) * step, torch.sin(angle) * step
    linear = torch.stack((cos * mirror, -sin, sin * mirror, cos), 1).view(num, 2, 2)
    offset = centre - linear @ boxes.new_tensor([width / 2, height / 2])
    return Views(torch.cat((linear, offset[:, :, None]), 2), mirror < 0)


def _half_body(
    views: Tensor,
    centre: Tensor,
    keypoints: Tensor,
    aspect: float,
    config: AugmentConfig,
    draws: Draws,
    lower: Tensor,
) -> tuple[Tensor, Tensor]:
    """Look at the labelled keypoints of one half: their box, half as large again, in the input's aspect."""
    labelled = keypoints[..., 2] > 0
    wanted = torch.where(draws['which_half'][:, None] < 0.5, lower, ~lower) & labelled
    other = labelled & ~wanted
    wanted = torch.where((wanted.sum(1) > 2)[:, None], wanted, other)
    chosen = (draws['half'] < config.half_body_prob) & (labelled.sum(1) > 8) & (wanted.sum(1) > 2)
    low, high = extent_of(torch.cat((keypoints[..., :2], wanted[..., None]), 2))
    extent = high - low
    view = torch.maximum(extent[:, 0] / aspect, extent[:, 1]) * 1.5
    # keypoints that all but coincide are not half a body to look at
    chosen &= view > 0.1 * views
    return torch.where(chosen[:, None], (low + high) / 2, centre), torch.where(chosen, view, views)


def move_keypoints(keypoints: Tensor, views: Views, flip_order: Sequence[int]) -> Tensor:
    """Take keypoints (N, K, 3) from crop pixels to input pixels, swapping sides where mirrored."""
    points = swap_sides(keypoints, views, flip_order)
    offset = points[..., :2] - views.maps[:, None, :, 2]
    xy = torch.linalg.solve(views.maps[:, :, :2], offset.transpose(1, 2)).transpose(1, 2)
    return torch.cat((xy, points[..., 2:]), 2)


def swap_sides(values: Tensor, views: Views, flip_order: Sequence[int]) -> Tensor:
    """Values by keypoint, (N, K, ...), with those of left and right swapped where a sample is mirrored."""
    mirrored = views.mirrored.view(-1, *[1] * (values.ndim - 1))
    return torch.where(mirrored, values[:, list(flip_order)], values)


class Hidden(NamedTuple):
    """Rectangles of the input that are hidden.

    Attributes:
        boxes: (N, 4) left, top, right, bottom in whole input pixels, the ends excluded; without area for samples that
            show everything.
        by_piece: (N,) whether a piece of the same crop lies there, instead of its mean colour.
        pieces: (N, 2) left and top of that piece.
    """

    boxes: Tensor
    by_piece: Tensor
    pieces: Tensor


def hidden_parts(keypoints: Tensor, size: tuple[int, int], config: AugmentConfig, draws: Draws) -> Hidden:
    """What is to be hidden; hidden keypoints stay labelled, to be found from the rest.

    Args:
        keypoints: (N, K, 3) in input pixels.
        size: Height and width of the input.
        config: How often, how large, and with what.
        draws: Of the batch.
    """
    height, width = size
    limits = keypoints.new_tensor([width, height])
    extent = (
        config.cutout * height * (0.3 + 0.7 * torch.stack((draws['hide_width'], draws['hide_height']), 1))
    ).floor()
    extent = torch.minimum(extent.clamp(min=1), limits)
    centre = torch.stack((draws['hide_x'], draws['hide_y']), 1) * limits
    labelled = keypoints[..., 2] > 0
    count = labelled.sum(1)
    which = (draws['hide_which'] * count).long()
    # the which-th of the labelled ones
    place = ((labelled.cumsum(1) == which[:, None] + 1) & labelled).int().argmax(1)
    on = keypoints[torch.arange(len(keypoints), device=keypoints.device), place, :2]
    centre = torch.where(((draws['hide_on_keypoint'] < config.cutout_keypoint) & (count > 0))[:, None], on, centre)
    low = (centre - extent / 2).trunc().clamp(min=0)
    high = torch.minimum((centre + extent / 2).trunc() + 1, limits)
    chosen = (draws['hide'] < config.cutout_prob) & (high > low).all(1)
    boxes = torch.where(chosen[:, None], torch.cat((low, high), 1), 0.0)
    room = limits - (boxes[:, 2:] - boxes[:, :2]) + 1
    pieces = (torch.stack((draws['piece_x'], draws['piece_y']), 1) * room).floor()
    return Hidden(boxes, draws['hide_by_piece'] < config.occluder, pieces)


class Neighbours(NamedTuple):
    """Other people who stand in the way.

    Attributes:
        maps: (N, 2, 3) affine maps from input pixel to pixel of the other person's crop.
        boxes: (N, 4) where they stand, left, top, right, bottom in input pixels.
    """

    maps: Tensor
    boxes: Tensor


def neighbours(boxes: Tensor, size: tuple[int, int], draws: Draws) -> Neighbours:
    """Where other people stand beside those whom the samples are of: off to a side, upright, about as large.

    Args:
        boxes: (N, 4) of the others, in the pixels of their own crops.
        size: Height and width of the input.
        draws: Of the samples.
    """
    height, width = size
    extent = boxes[:, 2:] - boxes[:, :2]
    scale = 0.8 * height / torch.maximum(extent[:, 0] * (height / width), extent[:, 1])
    scale = scale * (0.7 + 0.6 * draws['neighbour_zoom'])
    side = torch.where(draws['neighbour_side'] < 0.5, -1.0, 1.0)
    mirror = torch.where(draws['neighbour_side'] * 2 % 1 < 0.5, -1.0, 1.0)
    centre = torch.stack(
        (
            width / 2 + side * width * (0.35 + 0.3 * draws['neighbour_x']),
            height / 2 + 0.15 * height * draws.signed('neighbour_y'),
        ),
        1,
    )
    half = extent * scale[:, None] / 2
    zero = torch.zeros_like(scale)
    linear = torch.stack((mirror / scale, zero, zero, 1 / scale), 1).view(-1, 2, 2)
    offset = (boxes[:, :2] + boxes[:, 2:]) / 2 - (linear @ centre[..., None])[..., 0]
    return Neighbours(torch.cat((linear, offset[..., None]), 2), torch.cat((centre - half, centre + half), 1))


def without_covered(keypoints: Tensor, boxes: Tensor) -> Tensor:
    """Keypoints (N, K, 3), unlabelled where they lie in the box (4,) of their sample."""
    xy = keypoints[..., :2]
    return _unlabelled(keypoints, ((xy >= boxes[:, None, :2]) & (xy < boxes[:, None, 2:])).all(2))
