"""Heatmaps to keypoints."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError

__all__ = ['DECODERS', 'Decoder', 'decode_heatmaps', 'flip_heatmaps']

Decoder = Literal['quarter', 'dark', 'soft']
"""Names of the decoders."""

DECODERS: tuple[str, ...] = get_args(Decoder)

_STENCIL = 2
_SOFT_RADIUS = 4
_SOFT_SHARPNESS = 10.0


def decode_heatmaps(heatmaps: Tensor, decoder: str = 'quarter') -> tuple[Tensor, Tensor]:
    """Find the keypoint of each heatmap.

    Args:
        heatmaps: (B, K, h, w), one keypoint each.
        decoder: `'quarter'`: the largest value, moved a quarter pixel towards the larger neighbour in each direction
            (mmpose 0.24's default). `'dark'`: Taylor expansion of the logarithm of the smoothed heatmap (Zhang et
            al., Distribution-Aware Coordinate Representation for Human Pose Estimation, CVPR 2020, eq. 6-9); near the
            border, where that smoothing would read beyond it, the Gaussian that fits what is inside.
            `'soft'`: expected position under a softmax (Sun et al., Integral Human Pose Regression, ECCV 2018) of
            the heatmap over its maximum, in the 9x9 pixels around the maximum.

    Returns:
        Points (B, K, 2), x and y in heatmap pixels (0 is the centre of the first pixel), and scores (B, K), the
        largest value of each heatmap. Both in float32 on the heatmaps' device.

    Raises:
        UserError: If the decoder is unknown or the heatmaps have no four dimensions.
    """
    if decoder not in DECODERS:
        raise UserError(f'There is no decoder {decoder!r}: choose {", ".join(DECODERS)}.')
    if heatmaps.ndim != 4 or 0 in heatmaps.shape[2:]:
        raise UserError(f'Heatmaps are (B, K, h, w), not {tuple(heatmaps.shape)}.')
    heatmaps = heatmaps.detach().float()
    width = heatmaps.shape[3]
    scores, index = heatmaps.flatten(2).max(dim=2)
    x, y = index % width, index.div(width, rounding_mode='floor')
    refine = {'quarter': _quarter, 'dark': _dark, 'soft': _soft}[decoder]
    return torch.stack((x, y), dim=-1).float() + refine(heatmaps, x, y), scores


def flip_heatmaps(heatmaps: Tensor, flip_order: Sequence[int], shift: bool = True) -> Tensor:
    """Bring the heatmaps of mirrored crops back.

    Args:
        heatmaps: (B, K, h, w) of the mirrored crops.
        flip_order: For each keypoint the one that takes its place in the mirror, `Skeleton.flip_order`.
        shift: Move the result right by one pixel, as in the published figures: the network's strided convolutions
            do not see a crop and its mirror image on the same grid.

    Returns:
        (B, K, h, w), to be averaged with the heatmaps of the crops themselves.
    """
    back = heatmaps.flip(3)[:, list(flip_order)]
    return torch.cat((back[..., :1], back[..., :-1]), dim=3) if shift else back


def _values(heatmaps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Values (B, K) at integer positions, which are kept inside."""
    height, width = heatmaps.shape[2:]
    index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    return heatmaps.flatten(2).gather(2, index[..., None])[..., 0]


def _quarter(heatmaps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    height, width = heatmaps.shape[2:]
    inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    dx = _values(heatmaps, x + 1, y) - _values(heatmaps, x - 1, y)
    dy = _values(heatmaps, x, y + 1) - _values(heatmaps, x, y - 1)
    return torch.stack((dx, dy), dim=-1).sign() * 0.25 * inside[..., None]


def _dark(heatmaps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    height, width = heatmaps.shape[2:]
    radius, sigma = _kernel(height)
    # the smoothed heatmap keeps its maximum in the paper (eq. 9); a factor is a constant in the logarithm and falls
    # out of the derivatives
    log = _smooth_around(heatmaps, x, y, radius, sigma).clamp(min=1e-10).log()

    def at(dx: int, dy: int) -> Tensor:
        return log[..., _STENCIL + dy, _STENCIL + dx]

    gx, gy = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
    hxx = (at(2, 0) - 2 * at(0, 0) + at(-2, 0)) / 4
    hyy = (at(0, 2) - 2 * at(0, 0) + at(0, -2)) / 4
    hxy = (at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1)) / 4
    det = hxx * hyy - hxy * hxy
    peak = (det > 0) & (hxx < 0)
    safe = torch.where(peak, det, 1.0)
    offset = torch.stack((hxy * gy - hyy * gx, hxy * gx - hxx * gy), dim=-1) / safe[..., None]
    # beyond the stencil's reach the expansion says nothing
    use = peak & (offset.abs() <= _STENCIL).all(-1)
    offset = torch.where(use[..., None], offset, 0.0)
    # smoothing reads zeros beyond the border, which pull the maximum inwards
    reach = radius + _STENCIL
    near = (x < reach) | (x >= width - reach) | (y < reach) | (y >= height - reach)
    if near.any():
        offset[near] = _fit_gaussian(heatmaps[near], x[near], y[near], radius)
    return offset


def _fit_gaussian(heatmaps: Tensor, x: Tensor, y: Tensor, radius: int) -> Tensor:
    """Offsets (N, 2) to the centre of the Gaussian that fits heatmaps (N, h, w) around a maximum, inside the border.

    The logarithm of a Gaussian is a quadratic: it is fitted by least squares, weighted by the squared values, since
    their noise grows in the logarithm as they fall (Guo, A Simple Algorithm for Fitting a Gaussian Function, IEEE
    Signal Processing Magazine, 2011).
    """
    height, width = heatmaps.shape[1:]
    heat, x, y = heatmaps.double().cpu(), x.cpu(), y.cpu()
    reach = max(2, round(radius * 0.6))
    steps = torch.arange(-reach, reach + 1)
    dy, dx = (d.flatten() for d in torch.meshgrid(steps, steps, indexing='ij'))
    rows, columns = y[:, None] + dy, x[:, None] + dx
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    index = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    values = torch.where(inside, heat.flatten(1).gather(1, index), 0.0).clamp(min=0)
    values = values / values.amax(1, keepdim=True).clamp(min=1e-30)
    weights = torch.where(values > 1e-3, values.square(), 0.0)
    terms = torch.stack((torch.ones_like(dx), dx, dy, dx * dx, dx * dy, dy * dy), -1).double()
    normal = torch.einsum('np,pi,pj->nij', weights, terms, terms)
    right = torch.einsum('np,pi->ni', weights * values.clamp(min=1e-3).log(), terms)
    _, bx, by, cxx, cxy, cyy = torch.linalg.solve_ex(normal + 1e-9 * torch.eye(6), right)[0].unbind(1)
    det = 4 * cxx * cyy - cxy * cxy
    peak = (det > 1e-9) & (cxx < 0)
    safe = torch.where(peak, det, 1.0)
    offset = torch.stack((cxy * by - 2 * cyy * bx, cxy * bx - 2 * cxx * by), -1) / safe[:, None]
    use = peak & (offset.abs() <= _STENCIL).all(-1)
    place = torch.stack((x, y), -1)
    limits = torch.tensor([width, height]) - 0.5
    kept = torch.minimum((place + offset).clamp(min=-0.5), limits) - place
    return torch.where(use[:, None], kept, 0.0).to(heatmaps)


def _kernel(height: int) -> tuple[int, float]:
    """Radius and sigma of a Gaussian as wide as the targets, for a number of rows.

    It has 11 pixels for 64 rows and 17 for 96 in mmpose 0.24 (modulate_kernel), with OpenCV's sigma for each.
    """
    radius = max(1, round(height * 11 / 128 - 0.5))
    return radius, 0.3 * (radius - 1) + 0.8


def _smooth_around(heatmaps: Tensor, x: Tensor, y: Tensor, radius: int, sigma: float) -> Tensor:
    """The smoothed heatmap (B, K, 5, 5) around each position, zero beyond the border."""
    steps = torch.arange(-radius, radius + 1, device=heatmaps.device, dtype=torch.float32)
    kernel = torch.exp(-(steps**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    # only what the stencil reads is smoothed: a small part of a whole heatmap's work
    margin = radius + _STENCIL
    padded = F.pad(heatmaps, (margin, margin, margin, margin))
    reach = torch.arange(2 * margin + 1, device=heatmaps.device)
    rows, columns = y[..., None, None] + reach[:, None], x[..., None, None] + reach
    index = (rows * padded.shape[3] + columns).flatten(2)
    windows = padded.flatten(2).gather(2, index).unflatten(2, (len(reach), len(reach)))
    smooth = torch.stack([F.pad(kernel, (i, 2 * _STENCIL - i)) for i in range(2 * _STENCIL + 1)])
    return smooth @ windows @ smooth.T


def _soft(heatmaps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    height, width = heatmaps.shape[2:]
    steps = torch.arange(-_SOFT_RADIUS, _SOFT_RADIUS + 1, device=heatmaps.device)
    dy, dx = (d.flatten() for d in torch.meshgrid(steps, steps, indexing='ij'))
    near_x, near_y = x[..., None] + dx, y[..., None] + dy
    index = near_y.clamp(0, height - 1) * width + near_x.clamp(0, width - 1)
    values = heatmaps.flatten(2).gather(2, index)
    top = _values(heatmaps, x, y)[..., None]
    scaled = values / torch.where(top > 0, top, 1.0) * _SOFT_SHARPNESS
    outside = (near_x < 0) | (near_x >= width) | (near_y < 0) | (near_y >= height)
    weights = scaled.masked_fill(outside, -math.inf).softmax(dim=-1)
    offset = torch.stack(((weights * dx).sum(-1), (weights * dy).sum(-1)), dim=-1)
    return torch.where(top > 0, offset, 0.0)
