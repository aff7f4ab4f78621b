"""The pixels of a batch, augmented on the device that trains.

What happens to a sample is known where its random numbers are drawn, so samples that nothing happens to cost nothing,
and no device is asked for an answer.
"""

import functools
import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from .augment import Hidden, Neighbours
from .config import AugmentConfig
from .draws import Draws

_OUTSIDE = 5.0
_NOISE_SIDE = 256
_CHUNK = 1024


def send(values: Tensor, device: torch.device) -> Tensor:
    """Values to the device, without waiting for it."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == 'cuda' else values.to(device)


def resident_crops(crops: npt.NDArray[np.uint8], device: torch.device) -> Tensor | None:
    """All crops on an accelerator, if half of its free memory holds them."""
    if device.type != 'cuda' or crops.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
        return None
    found = torch.empty(crops.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(crops), _CHUNK):
        found[start : start + _CHUNK] = torch.from_numpy(crops[start : start + _CHUNK]).to(device)
    return found


def _rows(chosen: Tensor) -> Tensor:
    return torch.nonzero(chosen).flatten()


def _points(size: tuple[int, int], device: torch.device) -> Tensor:
    """Pixel indices x, y, 1 of an input, (H * W, 3)."""
    ys, xs = torch.meshgrid(*(torch.arange(side, dtype=torch.float32, device=device) for side in size), indexing='ij')
    return torch.stack((xs, ys, torch.ones_like(xs)), -1).view(-1, 3)


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether points (N or 1, P, 2 or more) lie in boxes (N, 4), ends excluded: (N, P)."""
    x, y = points[..., 0], points[..., 1]
    left, top, right, bottom = boxes[:, :, None].unbind(1)
    return (x >= left) & (x < right) & (y >= top) & (y < bottom)


def cut_views(
    crops: Tensor,
    maps: Tensor,
    size: tuple[int, int],
    borders: Tensor | None = None,
    hidden: Hidden | None = None,
) -> Tensor:
    """Sample uint8 crops through affine maps; black outside.

    Args:
        crops: uint8 (N, S, S, 3), on the device to work on.
        maps: (N, 2, 3) from input pixel to crop pixel.
        size: Height and width of the input.
        borders: (N, 4) x1, y1, x2, y2 in crop pixels, beyond which the photo is black; on the CPU.
        hidden: Where a piece of the crop lies over another part of it; on the CPU.

    Returns:
        Float images (N, 3, H, W) in 0..255.
    """
    height, width = size
    side, device = crops.shape[1], crops.device
    # grid_sample with align_corners=False puts pixel index i at (2 * i + 1) / side - 1
    scaled = maps * (2 / side)
    scaled[:, :, 2] += 1 / side - 1
    scaled = send(scaled, device)
    points = _points(size, device)
    grid = points @ scaled.transpose(1, 2)
    if hidden is not None and len(rows := _rows(hidden.by_piece & (hidden.boxes[:, 2] > hidden.boxes[:, 0]))):
        boxes, piece = send(hidden.boxes[rows], device), send(hidden.pieces[rows], device)
        # mirrored, so that the piece is not a copy of what is beside it
        x = piece[:, :1] + boxes[:, 2:3] - 1 - points[:, 0]
        y = piece[:, 1:] + points[:, 1] - boxes[:, 1:2]
        moved = torch.where(_inside(points[None], boxes)[..., None], torch.stack((x, y), 2), points[:, :2])
        rows = send(rows, device)
        grid[rows] = moved @ scaled[rows, :, :2].transpose(1, 2) + scaled[rows, :, 2][:, None]
    if borders is not None and len(rows := _rows(borders.isfinite().any(1))):
        ends = send(borders[rows] * (2 / side) + (1 / side - 1), device)
        rows = send(rows, device)
        here = grid[rows]
        grid[rows] = torch.where(_inside(here, ends)[..., None], here, _OUTSIDE)
    images = crops.permute(0, 3, 1, 2).float()
    return F.grid_sample(images, grid.view(-1, height, width, 2), align_corners=False)


def add_neighbours(images: Tensor, crops: Tensor, rows: Tensor, found: Neighbours) -> Tensor:
    """Lay other people over some images, in place.

    Args:
        images: Float images (N, 3, H, W).
        crops: uint8 (n, S, S, 3) of the others.
        rows: (n,) the images that they come into; on the CPU.
        found: Where; on the CPU.
    """
    if len(rows):
        device, size = images.device, (images.shape[2], images.shape[3])
        others = cut_views(crops, found.maps, size)
        inside = _inside(_points(size, device)[None], send(found.boxes, device)).view(-1, 1, *size)
        rows = send(rows, device)
        images[rows] = torch.where(inside, others, images[rows])
    return images


def augment_tones(images: Tensor, config: AugmentConfig, draws: Draws, hidden: Hidden | None = None) -> Tensor:
    """Change brightness, contrast and saturation, take the colour or the light away; hide parts behind the mean colour.

    Args:
        images: Float images (N, 3, H, W) in 0..255; their memory is used.
        config: Strengths.
        draws: Of these samples.
        hidden: Which parts to hide; on the CPU.

    Returns:
        New images in 0..255.
    """
    device, (num, _, height, width) = images.device, images.shape
    mean = images.mean((2, 3))
    if hidden is not None and len(rows := _rows(~hidden.by_piece & (hidden.boxes[:, 2] > hidden.boxes[:, 0]))):
        inside = _inside(_points((height, width), device)[None], send(hidden.boxes[rows], device))
        rows = send(rows, device)
        images[rows] = torch.where(inside.view(-1, 1, height, width), mean[rows][:, :, None, None], images[rows])
    saturation, contrast, brightness = (1 + config.colour * draws.signed('saturation', 'contrast', 'brightness')).T
    saturation = torch.where(draws['grey'] < config.grey_prob, 0.0, saturation)
    # grey + (x - grey) * saturation, then mean + (x - mean) * contrast with another mean: one matrix for each sample
    matrix = torch.eye(3) * saturation[:, None, None] + ((1 - saturation) / 3)[:, None, None]
    matrix = send(matrix * contrast[:, None, None], device)
    shift = mean.mean(1) * send(brightness - contrast, device)
    images = torch.baddbmm(shift.view(-1, 1, 1), matrix, images.view(num, 3, -1)).view_as(images).clamp_(0, 255)
    if len(rows := _rows(draws['dark'] < config.dark_prob)):
        some = draws.part(rows)
        gamma, gain = send(1 + some['gamma'] / 2, device), send(255 * (1 - config.dark * some['dark_size']), device)
        rows = send(rows, device)
        images[rows] = (images[rows] / 255) ** gamma.view(-1, 1, 1, 1) * gain.view(-1, 1, 1, 1)
    return images


def degrade(images: Tensor, config: AugmentConfig, draws: Draws, padding: float) -> Tensor:
    """Blur some samples, show some as small people are seen, add noise to some; in place.

    Args:
        images: Float images (N, 3, H, W) in 0..255.
        config: How often, how much.
        draws: Of these samples.
        padding: Growth of a box to the view, for the size of small people.

    Returns:
        The images.
    """
    device, height = images.device, images.shape[2]
    sigma = torch.where(draws['blur'] < config.blur_prob, (config.blur * draws['blur_size']).clamp(min=0.1), 0.0)
    least, most = config.small
    # pixels of the input for one of the photo, in which a box as high as the view without its padding has so many
    pitch = height / padding / (least * (most / least) ** draws['small_size'])
    pitch = torch.where(draws['small'] < config.small_prob, pitch, 1.0).clamp(min=1)
    # what stood between two pixels of the small photo is lost in it
    sigma = torch.where(pitch > 1, (sigma.square() + (0.45 * pitch).square()).sqrt(), sigma)
    if len(rows := _rows(sigma > 0)):
        place = send(rows, device)
        some = _soften(images[place], sigma[rows])
        if (small := pitch[rows] > 1).any():
            which = send(_rows(small), device)
            some[which] = _coarsen(some[which], pitch[rows][small])
        images[place] = some
    if len(rows := _rows(draws['noise'] < config.noise_prob)):
        noise = _noise(images.shape[2:], draws.part(rows), config.noise, device)
        rows = send(rows, device)
        images[rows] = (images[rows] + noise).clamp_(0, 255)
    return images


def _soften(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of images (N, 3, H, W), each by its own standard deviation (N,), which are on the CPU."""
    num, channels, height, width = images.shape
    reach = (2.5 * sigma).ceil()
    radius = min(int(reach.max()), height - 1, width - 1)
    places = torch.arange(-radius, radius + 1)
    # each ends where it would alone, so that a sample looks the same beside any other
    kernels = torch.exp(-((places / sigma[:, None]) ** 2) / 2) * (places.abs() <= reach[:, None])
    kernels = send(kernels / kernels.sum(1, keepdim=True), images.device)
    kernels = kernels.repeat_interleave(channels, 0).view(num * channels, 1, 1, -1)
    images = F.pad(images, (radius,) * 4, mode='reflect').view(1, num * channels, height + 2 * radius, -1)
    images = F.conv2d(images, kernels, groups=num * channels)
    return F.conv2d(images, kernels.transpose(2, 3), groups=num * channels).view(num, channels, height, width)


def _coarsen(images: Tensor, pitch: Tensor) -> Tensor:
    """Images (N, 3, H, W) with pixels `pitch` (N,) times as large, brought back to their size; pitches on the CPU."""
    num, _, height, width = images.shape
    device, least = images.device, float(pitch.min())
    small = (math.ceil(height / least), math.ceil(width / least))
    steps = send(pitch, device).view(-1, 1, 1)

    def sample(images: Tensor, size: tuple[int, int], step: Tensor, sides: tuple[int, int]) -> Tensor:
        # the middle of pixel i lies at (i + 0.5) * step of the other picture
        places = (_points(size, device)[None, :, :2] + 0.5) * step
        grid = places * send(2 / torch.tensor([sides[1], sides[0]]), device) - 1
        return F.grid_sample(images, grid.view(num, *size, 2), padding_mode='border', align_corners=False)

    return sample(sample(images, small, steps, (height, width)), (height, width), 1 / steps, small)


@functools.cache
def _noise_tile(device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, _NOISE_SIDE, _NOISE_SIDE, generator=generator).to(device)


def _noise(size: tuple[int, int] | torch.Size, draws: Draws, strength: float, device: torch.device) -> Tensor:
    """Gaussian noise (N, 3, H, W), a piece of one fixed tile for each sample."""
    tile = _noise_tile(device)
    corner = send(torch.stack((draws['noise_y'], draws['noise_x'])) * _NOISE_SIDE, device).long()
    ys, xs = ((torch.arange(n, device=device) + c[:, None]) % _NOISE_SIDE for n, c in zip(size, corner, strict=True))
    found = tile[:, ys[:, :, None], xs[:, None, :]].transpose(0, 1)
    return found * send(strength * draws['noise_size'], device).view(-1, 1, 1, 1)
