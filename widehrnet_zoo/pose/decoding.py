"""Heatmaps to keypoints."""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from .arrays import Arrays, as_float, gather, library_of, like, to_numpy

Decoder = Literal['quarter', 'dark', 'soft']
"""Names of the decoders."""

DECODERS: tuple[str, ...] = get_args(Decoder)

_STENCIL = 2
_SOFT_RADIUS = 4
_SOFT_SHARPNESS = 10.0


def decode_heatmaps(heatmaps: Arrays, decoder: str = 'quarter') -> tuple[Arrays, Arrays]:
    """Find the keypoint of each heatmap.

    Args:
        heatmaps: (B, K, h, w), one keypoint each; a tensor or a NumPy array.
        decoder: `'quarter'`: the largest value, moved a quarter pixel towards the larger neighbour in each direction
            (mmpose 0.24's default). `'dark'`: Taylor expansion of the logarithm of the smoothed heatmap (Zhang et
            al., Distribution-Aware Coordinate Representation for Human Pose Estimation, CVPR 2020, eq. 6-9); near the
            border, where that smoothing would read beyond it, the Gaussian that fits what is inside.
            `'soft'`: expected position under a softmax (Sun et al., Integral Human Pose Regression, ECCV 2018) of
            the heatmap over its maximum, in the 9x9 pixels around the maximum.

    Returns:
        Points (B, K, 2), x and y in heatmap pixels (0 is the centre of the first pixel), and scores (B, K), the
        largest value of each heatmap. Both in float32, of the heatmaps' kind and on their device.

    Raises:
        UserError: If the decoder is unknown or the heatmaps have no four dimensions.
    """
    if decoder not in DECODERS:
        raise UserError(f'There is no decoder {decoder!r}: choose {", ".join(DECODERS)}.')
    if heatmaps.ndim != 4 or 0 in heatmaps.shape[2:]:
        raise UserError(f'Heatmaps are (B, K, h, w), not {tuple(heatmaps.shape)}.')
    heatmaps = as_float(heatmaps)
    width = heatmaps.shape[3]
    flat = _flat(heatmaps)
    index = flat.argmax(2)
    x, y = index % width, index // width
    refine = {'quarter': _quarter, 'dark': _dark, 'soft': _soft}[decoder]
    places = as_float(library_of(heatmaps).stack((x, y), -1))
    return places + refine(heatmaps, x, y), gather(flat, index[..., None])[..., 0]


def _flat(heatmaps: Arrays) -> Arrays:
    batch, count, height, width = heatmaps.shape  # -1 would not do for an empty batch
    return heatmaps.reshape(batch, count, height * width)


def _around(heatmaps: Arrays, rows: Arrays, columns: Arrays) -> tuple[Arrays, Arrays]:
    """Values (B, K, R, C) at whole rows (B, K, R) and columns (B, K, C), and whether each place is on the heatmap.

    The value of a place outside is that of the nearest inside.
    """
    height, width = heatmaps.shape[2:]
    index = rows.clip(0, height - 1)[..., :, None] * width + columns.clip(0, width - 1)[..., None, :]
    values = gather(_flat(heatmaps), _flat(index)).reshape(index.shape)
    inside = ((rows >= 0) & (rows < height))[..., :, None] & ((columns >= 0) & (columns < width))[..., None, :]
    return values, inside


def _quarter(heatmaps: Arrays, x: Arrays, y: Arrays) -> Arrays:
    height, width = heatmaps.shape[2:]
    xp, flat = library_of(heatmaps), _flat(heatmaps)

    def value(x: Arrays, y: Arrays) -> Arrays:
        return gather(flat, (y.clip(0, height - 1) * width + x.clip(0, width - 1))[..., None])[..., 0]

    inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    dx, dy = value(x + 1, y) - value(x - 1, y), value(x, y + 1) - value(x, y - 1)
    return xp.sign(xp.stack((dx, dy), -1)) * 0.25 * inside[..., None]


def _dark(heatmaps: Arrays, x: Arrays, y: Arrays) -> Arrays:
    xp = library_of(heatmaps)
    height, width = heatmaps.shape[2:]
    radius, sigma = _kernel(height)
    # the smoothed heatmap keeps its maximum in the paper (eq. 9); a factor is a constant in the logarithm and falls
    # out of the derivatives
    log = xp.log(_smooth_around(heatmaps, x, y, radius, sigma).clip(1e-10))

    def at(dx: int, dy: int) -> Arrays:
        return log[..., _STENCIL + dy, _STENCIL + dx]

    gx, gy = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
    hxx = (at(2, 0) - 2 * at(0, 0) + at(-2, 0)) / 4
    hyy = (at(0, 2) - 2 * at(0, 0) + at(0, -2)) / 4
    hxy = (at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1)) / 4
    det = hxx * hyy - hxy * hxy
    peak = (det > 0) & (hxx < 0)
    safe = xp.where(peak, det, 1.0)
    offset = xp.stack((hxy * gy - hyy * gx, hxy * gx - hxx * gy), -1) / safe[..., None]
    # beyond the stencil's reach the expansion says nothing
    use = peak & (abs(offset) <= _STENCIL).all(-1)
    offset = xp.where(use[..., None], offset, 0.0)
    # smoothing reads zeros beyond the border, which pull the maximum inwards
    reach = radius + _STENCIL
    near = (x < reach) | (x >= width - reach) | (y < reach) | (y >= height - reach)
    if near.any():
        fitted = _fit_gaussian(to_numpy(heatmaps[near]), to_numpy(x[near]), to_numpy(y[near]), radius)
        offset[near] = like(fitted, offset)
    return offset


def _fit_gaussian(
    heatmaps: npt.NDArray[np.float32], x: npt.NDArray[np.int64], y: npt.NDArray[np.int64], radius: int
) -> npt.NDArray[np.float32]:
    """Offsets (N, 2) to the centre of the Gaussian that fits heatmaps (N, h, w) around a maximum, inside the border.

    The logarithm of a Gaussian is a quadratic: it is fitted by least squares, weighted by the squared values, since
    their noise grows in the logarithm as they fall (Guo, A Simple Algorithm for Fitting a Gaussian Function, IEEE
    Signal Processing Magazine, 2011).
    """
    count, height, width = heatmaps.shape
    reach = max(2, round(radius * 0.6))
    dy, dx = (steps.reshape(-1) for steps in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    rows, columns = y[:, None] + dy, x[:, None] + dx
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    index = rows.clip(0, height - 1) * width + columns.clip(0, width - 1)
    values = np.take_along_axis(heatmaps.reshape(count, -1), index, 1).astype(np.float64)
    values = np.where(inside, values, 0.0).clip(0)
    values = values / values.max(1, keepdims=True).clip(1e-30)
    weights = np.where(values > 1e-3, values**2, 0.0)
    terms = np.stack((np.ones_like(dx), dx, dy, dx * dx, dx * dy, dy * dy), -1).astype(np.float64)
    normal = np.einsum('np,pi,pj->nij', weights, terms, terms, optimize=True)
    right = (weights * np.log(values.clip(1e-3))) @ terms
    _, bx, by, cxx, cxy, cyy = np.linalg.solve(normal + 1e-9 * np.eye(6), right[..., None])[..., 0].T
    det = 4 * cxx * cyy - cxy * cxy
    peak = (det > 1e-9) & (cxx < 0)
    safe = np.where(peak, det, 1.0)
    offset = np.stack((cxy * by - 2 * cyy * bx, cxy * bx - 2 * cxx * by), -1) / safe[:, None]
    use = peak & (np.abs(offset) <= _STENCIL).all(-1)
    place = np.stack((x, y), -1)
    kept = (place + offset).clip(-0.5, (width - 0.5, height - 0.5)) - place
    return np.where(use[:, None], kept, 0.0).astype(np.float32)


def _kernel(height: int) -> tuple[int, float]:
    """Radius and sigma of a Gaussian as wide as the targets, for a number of rows.

    It has 11 pixels for 64 rows and 17 for 96 in mmpose 0.24 (modulate_kernel), with OpenCV's sigma for each.
    """
    radius = max(1, round(height * 11 / 128 - 0.5))
    return radius, 0.3 * (radius - 1) + 0.8


def _gaussian(radius: int, sigma: float) -> npt.NDArray[np.float64]:
    kernel = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    return kernel / kernel.sum()


def _smooth_around(heatmaps: Arrays, x: Arrays, y: Arrays, radius: int, sigma: float) -> Arrays:
    """The smoothed heatmap (B, K, 5, 5) around each position, zero beyond the border."""
    kernel = _gaussian(radius, sigma)
    # only what the stencil reads is smoothed: a small part of a whole heatmap's work
    margin = radius + _STENCIL
    steps = like(np.arange(-margin, margin + 1), x)
    values, inside = _around(heatmaps, y[..., None] + steps, x[..., None] + steps)
    windows = library_of(heatmaps).where(inside, values, 0.0)
    rows = [np.pad(kernel, (i, 2 * _STENCIL - i)) for i in range(2 * _STENCIL + 1)]
    smooth = like(np.stack(rows).astype(np.float32), heatmaps)
    return smooth @ windows @ smooth.T


def _soft(heatmaps: Arrays, x: Arrays, y: Arrays) -> Arrays:
    xp = library_of(heatmaps)
    steps = like(np.arange(-_SOFT_RADIUS, _SOFT_RADIUS + 1), x)
    values, inside = _around(heatmaps, y[..., None] + steps, x[..., None] + steps)
    top = values[..., _SOFT_RADIUS, _SOFT_RADIUS][..., None, None]
    # over the maximum, which is at the centre: no exponent is above 0
    scaled = (values - top) / xp.where(top > 0, top, 1.0) * _SOFT_SHARPNESS
    weights = xp.where(inside & (top > 0), xp.exp(scaled.clip(-80)), 0.0)
    total = weights.sum((-1, -2)).clip(1e-10)
    offset = xp.stack(((weights.sum(-2) * steps).sum(-1), (weights.sum(-1) * steps).sum(-1)), -1)
    return as_float(offset / total[..., None])
