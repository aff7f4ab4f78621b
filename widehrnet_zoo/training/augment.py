"""Augmentation of whole batches of cached crops, with their keypoints."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class AugmentConfig:
    """Ranges of the augmentations; the defaults suit people in sport.

    Attributes:
        rotation: Half-width of the uniform rotation, in degrees.
        rotation_prob: How often a sample is rotated within `rotation`.
        any_rotation_prob: How often a sample is rotated by any angle.
        scale: Largest zoom; the factor is log-uniform in [1 / scale, scale].
        shift: Largest shift, as a share of the view's height.
        flip_prob: How often a sample is mirrored.
        colour: Largest change of brightness, contrast and saturation.
        cutout_prob: How often a grey rectangle hides a part.
    """

    rotation: float = 45.0
    rotation_prob: float = 0.7
    any_rotation_prob: float = 0.1
    scale: float = 1.3
    shift: float = 0.06
    flip_prob: float = 0.5
    colour: float = 0.35
    cutout_prob: float = 0.2


def sample_views(
    num: int,
    view: float,
    centre: float,
    size: tuple[int, int],
    config: AugmentConfig | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw affine maps from input pixels to cached-crop pixels.

    Args:
        num: Number of samples.
        view: Height of the test-time crop in cached-crop pixels.
        centre: Centre of the cached crop, in its pixels, for both axes.
        size: Height and width of the network's input.
        config: Ranges; `None` gives the test-time view.
        generator: Source of randomness.

    Returns:
        Maps (N, 2, 3), and whether each sample is mirrored (N,).
    """

    def uniform() -> Tensor:
        return torch.rand(num, generator=generator) * 2 - 1

    height, width = size
    angle, zoom, mirror = torch.zeros(num), torch.ones(num), torch.ones(num)
    shift_x, shift_y = torch.zeros(num), torch.zeros(num)
    if config is not None:
        kind = torch.rand(num, generator=generator)
        limit = torch.where(
            kind < config.any_rotation_prob,
            180.0,
            torch.where(kind < config.any_rotation_prob + config.rotation_prob, config.rotation, 0.0),
        )
        angle = torch.deg2rad(uniform() * limit)
        zoom = torch.exp(uniform() * torch.log(torch.tensor(config.scale)))
        mirror = torch.where(torch.rand(num, generator=generator) < config.flip_prob, -1.0, 1.0)
        shift_x, shift_y = uniform() * config.shift * view, uniform() * config.shift * view
    step = view / height * zoom
    cos, sin = torch.cos(angle) * step, torch.sin(angle) * step
    linear = torch.stack((cos * mirror, -sin, sin * mirror, cos), 1).view(num, 2, 2)
    target = torch.tensor([width / 2, height / 2])
    offset = torch.stack((centre + shift_x, centre + shift_y), 1) - linear @ target
    return torch.cat((linear, offset[:, :, None]), 2), mirror < 0


def cut_views(crops: Tensor, maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Sample uint8 crops (N, S, S, 3) through `maps`: float images (N, 3, H, W) in 0..255, black outside."""
    height, width = size
    side = crops.shape[1]
    # grid_sample with align_corners=False puts pixel index i at (2 * i + 1) / side - 1
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    points = torch.stack((xs, ys, torch.ones_like(xs)), -1).float().view(1, -1, 3)
    grid = (points @ maps.transpose(1, 2) * 2 + 1) / side - 1
    images = crops.permute(0, 3, 1, 2).float()
    return F.grid_sample(images, grid.view(-1, height, width, 2), align_corners=False)


def move_keypoints(
    keypoints: Tensor,
    maps: Tensor,
    mirrored: Tensor,
    flip_order: Sequence[int],
) -> Tensor:
    """Take keypoints (N, K, 3) from cached-crop pixels to input pixels, swapping sides where mirrored."""
    points = torch.where(mirrored[:, None, None], keypoints[:, list(flip_order)], keypoints)
    xy = torch.linalg.solve(maps[:, :, :2], (points[..., :2] - maps[:, None, :, 2]).transpose(1, 2)).transpose(1, 2)
    return torch.cat((xy, points[..., 2:]), 2)


def jitter_colour(images: Tensor, config: AugmentConfig, generator: torch.Generator | None = None) -> Tensor:
    """Change brightness, contrast and saturation per sample, and hide a part with a grey rectangle.

    Args:
        images: Float images (N, 3, H, W) in 0..255.
        config: Strengths.
        generator: Source of randomness.

    Returns:
        New images in 0..255.
    """
    num, _, height, width = images.shape
    factors = 1 + config.colour * (torch.rand(3, num, 1, 1, 1, generator=generator) * 2 - 1)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * factors[0]
    mean = images.mean((1, 2, 3), keepdim=True)
    images = ((images - mean) * factors[1] + mean * factors[2]).clamp_(0, 255)
    for i in torch.nonzero(torch.rand(num, generator=generator) < config.cutout_prob).flatten().tolist():
        y, x, h, w = torch.rand(4, generator=generator).tolist()
        top, left = int(y * height), int(x * width)
        bottom, right = top + int((0.08 + 0.2 * h) * height), left + int((0.08 + 0.25 * w) * width)
        images[i, :, top:bottom, left:right] = mean[i]
    return images
