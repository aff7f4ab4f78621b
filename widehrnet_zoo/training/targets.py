"""Heatmap targets and the losses on them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..pose.crops import STRIDE


def gaussian_heatmaps(keypoints: Tensor, size: tuple[int, int], sigma: float, unbiased: bool = True) -> Tensor:
    """Gaussian targets with peak 1.

    Args:
        keypoints: (N, K, 2 or more): x, y in input pixels.
        size: Height and width of the heatmaps.
        sigma: Standard deviation in heatmap pixels.
        unbiased: Centres between pixels, as in DARK (Zhang et al., CVPR 2020, section 3.3); else rounded to the
            nearest heatmap pixel, as in HRNet.

    Returns:
        (N, K, H, W).
    """
    height, width = size
    x, y = keypoints[..., 0] / STRIDE, keypoints[..., 1] / STRIDE
    if not unbiased:
        x, y = torch.floor(x + 0.5), torch.floor(y + 0.5)
    columns, rows = (torch.arange(n, device=keypoints.device) for n in (width, height))
    gx = torch.exp(-((columns - x[..., None]) ** 2) / (2 * sigma**2))
    gy = torch.exp(-((rows - y[..., None]) ** 2) / (2 * sigma**2))
    return gy[..., :, None] * gx[..., None, :]


def in_view(keypoints: Tensor, size: tuple[int, int]) -> Tensor:
    """Weights (N, K): 1 for labelled keypoints (N, K, 3) in input pixels that lie inside heatmaps of `size`, else 0."""
    height, width = size
    x, y = keypoints[..., 0] / STRIDE, keypoints[..., 1] / STRIDE
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    return ((keypoints[..., 2] > 0) & inside).float()


def keypoint_losses(heatmaps: Tensor, targets: Tensor, sharpness: float = 10.0) -> Tensor:
    """Squared error plus a cross-entropy over positions, for each keypoint.

    The squared error keeps the heatmaps between 0 and 1; the cross-entropy of `softmax(sharpness * heatmap)` against
    the target, brought to sum 1, moves the peak to the right place long before the squared error alone would.

    Args:
        heatmaps: Predictions (N, K, H, W).
        targets: Gaussians of the same shape.
        sharpness: Factor before the softmax; 0 leaves the squared error alone.

    Returns:
        (N, K).
    """
    loss = (heatmaps - targets).square().sum((2, 3))
    if sharpness:
        log_prob = F.log_softmax(heatmaps.flatten(2) * sharpness, dim=-1)
        flat = targets.flatten(2)
        loss = loss - (flat * log_prob).sum(-1) / flat.sum(-1).clamp(min=1e-6)
    return loss


def teacher_losses(heatmaps: Tensor, teacher: Tensor, sharpness: float = 10.0, temperature: float = 1.0) -> Tensor:
    """Squared error to a teacher's heatmaps plus the divergence of their softmax over positions, for each keypoint.

    Args:
        heatmaps: Predictions (N, K, H, W).
        teacher: The teacher's heatmaps, of the same shape.
        sharpness: Factor before the softmax; 0 leaves the squared error alone.
        temperature: Divides `sharpness` for both; the divergence counts its square times (Hinton et al., Distilling
            the Knowledge in a Neural Network, 2015, section 2).

    Returns:
        (N, K); 0 where both agree.
    """
    loss = (heatmaps - teacher).square().sum((2, 3))
    if sharpness:
        log_prob, wanted = (
            F.log_softmax(h.flatten(2) * (sharpness / temperature), dim=-1) for h in (heatmaps, teacher)
        )
        loss = loss + temperature**2 * (wanted.exp() * (wanted - log_prob)).sum(-1)
    return loss


def mean_loss(losses: Tensor, weights: Tensor, total: Tensor | float, ohkm: int = 0) -> Tensor:
    """Weighted mean over the keypoints that count.

    Args:
        losses: (N, K).
        weights: (N, K), 0 for keypoints that do not count.
        total: What to divide by: `loss_total` of the whole batch, of which this may be a part.
        ohkm: Count only this many keypoints of each sample, those with the largest loss (online hard keypoint
            mining, Chen et al., Cascaded Pyramid Network, CVPR 2018, section 3.2); 0 for all.

    Returns:
        A scalar.
    """
    # the loss of an unlabelled keypoint may be anything, infinity included
    losses = torch.where(weights > 0, losses * weights, 0.0)
    if 0 < ohkm < losses.shape[1]:
        losses = losses.topk(ohkm, dim=1).values
    return losses.sum() / total


def loss_total(weights: Tensor, ohkm: int = 0) -> float:
    """What `mean_loss` divides by: the sum of the weights, or the number of keypoints that mining leaves."""
    if 0 < ohkm < weights.shape[1]:
        return max(1.0, float((weights > 0).sum(1).clamp(max=ohkm).sum()))
    return max(1e-6, float(weights.sum())) if weights.any() else 1.0
