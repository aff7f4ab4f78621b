"""Heatmap targets and the losses on them."""

import torch
import torch.nn.functional as F
from torch import Tensor

STRIDE = 4
"""Input pixels per heatmap pixel."""


def gaussian_heatmaps(keypoints: Tensor, size: tuple[int, int], sigma: float) -> tuple[Tensor, Tensor]:
    """Gaussian targets with sub-pixel centres and peak 1.

    Args:
        keypoints: (N, K, 3): x, y in input pixels, visibility; 0 keeps a keypoint out of the loss.
        size: Height and width of the heatmaps.
        sigma: Standard deviation in heatmap pixels.

    Returns:
        Heatmaps (N, K, H, W), and weights (N, K): 1 where the keypoint counts, 0 where it is unlabelled or
        its centre lies outside.
    """
    height, width = size
    x, y = keypoints[..., 0] / STRIDE, keypoints[..., 1] / STRIDE
    weights = (keypoints[..., 2] > 0) & (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    gx = torch.exp(-((torch.arange(width) - x[..., None]) ** 2) / (2 * sigma**2))
    gy = torch.exp(-((torch.arange(height) - y[..., None]) ** 2) / (2 * sigma**2))
    return gy[..., :, None] * gx[..., None, :], weights.float()


def heatmap_loss(heatmaps: Tensor, targets: Tensor, weights: Tensor, sharpness: float = 10.0) -> Tensor:
    """Squared error plus a cross-entropy over positions.

    The squared error keeps the heatmaps between 0 and 1; the cross-entropy of
    `softmax(sharpness * heatmap)` against the normalised Gaussian moves the peak to the right place long before
    the squared error alone would.

    Args:
        heatmaps: Predictions (N, K, H, W).
        targets: Gaussians of the same shape.
        weights: (N, K), 0 for keypoints that do not count.
        sharpness: Factor before the softmax; 0 leaves the squared error alone.

    Returns:
        The mean over the keypoints that count.
    """
    loss = (heatmaps - targets).square().sum((2, 3))
    if sharpness:
        log_prob = F.log_softmax(heatmaps.flatten(2) * sharpness, dim=-1)
        flat = targets.flatten(2)
        loss = loss - (flat * log_prob).sum(-1) / flat.sum(-1).clamp(min=1e-6)
    return (loss * weights).sum() / weights.sum().clamp(min=1)
