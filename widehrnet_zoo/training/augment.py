"""Augmentation of whole batches of cached crops, with their keypoints.

Everything random is read from a table of uniform numbers, one row per sample, so that a sample looks the same however
the batch is spread over processes and devices. The geometry of a sample is one affine map, which moves its pixels and
its keypoints alike.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from ..extras import require
from ..pose.skeletons import Skeleton
from .config import AugmentConfig

__all__ = ['Views', 'augment_colour', 'cut_views', 'draw', 'halves', 'hide_parts', 'move_keypoints', 'sample_views']

COLUMNS = 32
"""Uniform numbers per sample; each use has columns of its own."""


def draw(num: int, *seeds: int) -> Tensor:
    """The table of uniform numbers in [0, 1) for `num` samples, (num, COLUMNS), of a seed such as (run, step)."""
    seed = 0
    for part in seeds:
        seed = (seed * 1_000_003 + part) % 2**63
    return torch.rand(num, COLUMNS, generator=torch.Generator().manual_seed(seed))


def _normal(table: Tensor, column: int) -> Tensor:
    """Standard normal numbers from two columns (Box and Muller, 1958)."""
    radius = torch.sqrt(-2 * torch.log1p(-table[:, column]))
    return radius * torch.cos(2 * torch.pi * table[:, column + 1])


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


def sample_views(
    views: Tensor,
    keypoints: Tensor,
    crop_size: int,
    size: tuple[int, int],
    config: AugmentConfig | None = None,
    table: Tensor | None = None,
    lower: Tensor | None = None,
) -> Views:
    """Where to look, at random or as at test time.

    Args:
        views: (N,) heights of the test-time views in crop pixels.
        keypoints: (N, K, 3) in crop pixels.
        crop_size: Side of the crops.
        size: Height and width of the network's input.
        config: Ranges; `None` gives the test-time view.
        table: (N, COLUMNS) from `draw`, needed with `config`.
        lower: From `halves`.

    Returns:
        The views.
    """
    num, (height, width) = len(views), size
    centre = torch.full((num, 2), crop_size / 2)
    angle, zoom, mirror = torch.zeros(num), torch.ones(num), torch.ones(num)
    if config is not None:
        assert table is not None
        sign = table * 2 - 1
        if lower is not None:
            centre, views = _half_body(views, centre, keypoints, width / height, config, table, lower)
        if config.normal:
            angle = (_normal(table, 0) * config.rotation).clamp(-2 * config.rotation, 2 * config.rotation)
            spread = config.scale - 1
            zoom = 1 + (_normal(table, 2) * spread).clamp(-spread, spread)
        else:
            angle = sign[:, 0] * config.rotation
            zoom = torch.exp(sign[:, 2] * torch.log(torch.tensor(config.scale)))
        kind = table[:, 4]
        angle = torch.where(kind < config.any_rotation_prob, sign[:, 0] * 180, angle)
        turned = kind < config.any_rotation_prob + config.rotation_prob
        angle = torch.deg2rad(torch.where(turned, angle, torch.zeros(num)))
        mirror = torch.where(table[:, 5] < config.flip_prob, -1.0, 1.0)
        is_far = table[:, 28] < config.far_prob
        zoom = torch.where(is_far, zoom * (1 + (config.far - 1) * table[:, 29]), zoom)
        # within a view that is zoom times as large, the person may stand anywhere
        reach = torch.where(is_far, (config.shift + (zoom - 1).clamp(min=0) / 3), torch.tensor(config.shift))
        centre = centre + sign[:, 6:8] * (reach * views)[:, None]
    step = views / height * zoom
    cos, sin = torch.cos(angle) * step, torch.sin(angle) * step
    linear = torch.stack((cos * mirror, -sin, sin * mirror, cos), 1).view(num, 2, 2)
    offset = centre - linear @ torch.tensor([width / 2, height / 2])
    return Views(torch.cat((linear, offset[:, :, None]), 2), mirror < 0)


def _half_body(
    views: Tensor,
    centre: Tensor,
    keypoints: Tensor,
    aspect: float,
    config: AugmentConfig,
    table: Tensor,
    lower: Tensor,
) -> tuple[Tensor, Tensor]:
    """Look at the labelled keypoints of one half: their box, half as large again, in the input's aspect."""
    labelled = keypoints[..., 2] > 0
    wanted = torch.where(table[:, 9:10] < 0.5, lower, ~lower) & labelled
    other = labelled & ~wanted
    wanted = torch.where((wanted.sum(1) > 2)[:, None], wanted, other)
    chosen = (table[:, 8] < config.half_body_prob) & (labelled.sum(1) > 8) & (wanted.sum(1) > 2)
    xy = keypoints[..., :2]
    low = torch.where(wanted[..., None], xy, torch.inf).amin(1)
    high = torch.where(wanted[..., None], xy, -torch.inf).amax(1)
    extent = high - low
    view = torch.maximum(extent[:, 0] / aspect, extent[:, 1]) * 1.5
    # keypoints that all but coincide are no half to look at
    chosen &= view > 0.1 * views
    return torch.where(chosen[:, None], (low + high) / 2, centre), torch.where(chosen, view, views)


def cut_views(crops: Tensor, maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Sample uint8 crops (N, S, S, 3) through `maps`: float images (N, 3, H, W) in 0..255, black outside."""
    height, width = size
    side = crops.shape[1]
    # grid_sample with align_corners=False puts pixel index i at (2 * i + 1) / side - 1
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    points = torch.stack((xs, ys, torch.ones_like(xs)), -1).float().view(1, -1, 3).to(crops.device)
    grid = (points @ maps.transpose(1, 2).to(crops.device) * 2 + 1) / side - 1
    images = crops.permute(0, 3, 1, 2).float()
    return F.grid_sample(images, grid.view(-1, height, width, 2), align_corners=False)


def move_keypoints(keypoints: Tensor, views: Views, flip_order: Sequence[int]) -> Tensor:
    """Take keypoints (N, K, 3) from crop pixels to input pixels, swapping sides where mirrored."""
    points = torch.where(views.mirrored[:, None, None], keypoints[:, list(flip_order)], keypoints)
    offset = points[..., :2] - views.maps[:, None, :, 2]
    xy = torch.linalg.solve(views.maps[:, :, :2], offset.transpose(1, 2)).transpose(1, 2)
    return torch.cat((xy, points[..., 2:]), 2)


def augment_colour(images: Tensor, config: AugmentConfig, table: Tensor) -> Tensor:
    """Change brightness, contrast and saturation, take the colour out, blur; each sample by its own numbers.

    Args:
        images: Float images (N, 3, H, W) in 0..255.
        config: Strengths.
        table: (N, COLUMNS) from `draw`.

    Returns:
        New images in 0..255.
    """
    factors = (1 + config.colour * (table[:, 10:13] * 2 - 1)).to(images.device).view(-1, 3, 1, 1, 1)
    grey = images.mean(1, keepdim=True)
    saturation = torch.where((table[:, 13] < config.grey_prob).to(images.device).view(-1, 1, 1, 1), 0.0, factors[:, 0])
    images = grey + (images - grey) * saturation
    mean = images.mean((1, 2, 3), keepdim=True)
    images = ((images - mean) * factors[:, 1] + mean * factors[:, 2]).clamp_(0, 255)
    blurred = torch.nonzero(table[:, 14] < config.blur_prob).flatten().tolist()
    if blurred:
        v2 = require('torchvision.transforms.v2.functional', 'train')
        for i in blurred:
            sigma = max(0.1, config.blur * float(table[i, 15]))
            kernel = 2 * round(2 * sigma) + 3
            images[i] = v2.gaussian_blur(images[i], [kernel, kernel], [sigma, sigma])
    return images


def hide_parts(images: Tensor, keypoints: Tensor, config: AugmentConfig, table: Tensor) -> Tensor:
    """Hide a rectangle of some samples, in place; hidden keypoints stay labelled, to be found from the rest.

    Args:
        images: Float images (N, 3, H, W).
        keypoints: (N, K, 3) in input pixels.
        config: How often, how large, and with what.
        table: (N, COLUMNS) from `draw`.

    Returns:
        The images.
    """
    height, width = images.shape[2:]
    for i in torch.nonzero(table[:, 16] < config.cutout_prob).flatten().tolist():
        h, w, y, x, on_keypoint, which, by_piece, from_y, from_x = table[i, 17:26].tolist()
        h = max(1, int(config.cutout * (0.3 + 0.7 * h) * height))
        w = min(max(1, int(config.cutout * (0.3 + 0.7 * w) * height)), width)
        labelled = torch.nonzero(keypoints[i, :, 2] > 0).flatten()
        y, x = y * height, x * width
        if on_keypoint < config.cutout_keypoint and len(labelled):
            x, y = keypoints[i, labelled[int(which * len(labelled))], :2].tolist()
        top, left = max(0, int(y - h / 2)), max(0, int(x - w / 2))
        bottom, right = min(height, int(y + h / 2) + 1), min(width, int(x + w / 2) + 1)
        if bottom <= top or right <= left:
            continue
        if by_piece < config.occluder:
            h, w = bottom - top, right - left
            y, x = int(from_y * (height - h + 1)), int(from_x * (width - w + 1))
            # mirrored, so that the piece is no copy of what stands beside it
            images[i, :, top:bottom, left:right] = images[i, :, y : y + h, x : x + w].flip(-1).clone()
        else:
            images[i, :, top:bottom, left:right] = images[i].mean((1, 2))[:, None, None]
    return images
