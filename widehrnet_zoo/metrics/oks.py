"""Object keypoint similarity, and the suppression of double predictions by it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]


def keypoint_similarity(
    keypoints: npt.ArrayLike, reference: npt.ArrayLike, area: npt.ArrayLike, sigmas: Sequence[float]
) -> FloatArray:
    """Similarity of each keypoint, `exp(-d_k^2 / (2 * area * (2 * sigma_k)^2))`, of which `oks` is the mean.

    Args:
        keypoints: (..., K, 2) or (..., K, 3) predictions in image pixels.
        reference: (K, 2) or (K, 3), or broadcastable, in image pixels.
        area: Area of the object in square pixels, broadcastable to the leading shape.
        sigmas: (K,) falloffs; COCO's are in `Skeleton.sigmas`.

    Returns:
        (..., K) similarities in 0..1.

    Raises:
        ValueError: If the numbers of keypoints differ.
    """
    keypoints, reference = np.asarray(keypoints, float)[..., :2], np.asarray(reference, float)[..., :2]
    sigma = np.asarray(sigmas, float)
    if not keypoints.shape[-2] == reference.shape[-2] == len(sigma):
        raise ValueError(
            f'{keypoints.shape[-2]} predicted keypoints, {reference.shape[-2]} reference keypoints and '
            f'{len(sigma)} sigmas: the three must agree.'
        )
    square = ((keypoints - reference) ** 2).sum(-1)
    return np.exp(-square / (2 * (np.asarray(area, float)[..., None] + np.spacing(1)) * (2 * sigma) ** 2))


def oks(
    keypoints: npt.ArrayLike,
    reference: npt.ArrayLike,
    area: npt.ArrayLike,
    sigmas: Sequence[float],
    labelled: npt.ArrayLike | None = None,
) -> FloatArray:
    """Object keypoint similarity.

    `mean over labelled k of exp(-d_k^2 / (2 * area * (2 * sigma_k)^2))`, with `d_k` the distance of keypoint k.
    Source: the COCO keypoint evaluation, https://cocodataset.org/#keypoints-eval. This function is for suppression
    and for single people; average precision always comes from pycocotools.

    Args:
        keypoints: (..., K, 2) or (..., K, 3) predictions in image pixels.
        reference: (K, 2) or (K, 3), or broadcastable, in image pixels.
        area: Area of the object in square pixels, broadcastable to the leading shape.
        sigmas: (K,) falloffs; COCO's are in `Skeleton.sigmas`.
        labelled: (..., K) booleans; `None` counts every keypoint.

    Returns:
        (...) similarities in 0..1; 0 where nothing is labelled.

    Raises:
        ValueError: If the numbers of keypoints differ.
    """
    similarity = keypoint_similarity(keypoints, reference, area, sigmas)
    mask = np.broadcast_to(True if labelled is None else np.asarray(labelled, bool), similarity.shape)
    count = mask.sum(-1)
    return np.where(count > 0, (similarity * mask).sum(-1) / np.maximum(count, 1), 0.0)


def oks_nms(
    keypoints: npt.ArrayLike,
    scores: npt.ArrayLike,
    areas: npt.ArrayLike,
    sigmas: Sequence[float],
    threshold: float = 0.9,
) -> list[int]:
    """Greedy suppression: the best score stays, those more alike than the threshold go, and so on.

    The area of a pair is the mean of the two areas, and every keypoint counts, as in mmpose 0.24's `oks_nms`
    (https://github.com/open-mmlab/mmpose/blob/v0.24.0/mmpose/core/post_processing/nms.py), where the area is that of
    the padded view.

    Args:
        keypoints: (N, K, 2) or (N, K, 3) of one image, in pixels.
        scores: (N,).
        areas: (N,) in square pixels.
        sigmas: (K,).
        threshold: OKS above which the lower score goes.

    Returns:
        The kept indices, best score first; among equal scores the earlier one first.
    """
    keypoints, scores, areas = np.asarray(keypoints, float), np.asarray(scores, float), np.asarray(areas, float)
    order = np.argsort(-scores, kind='stable')
    keep: list[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        keep.append(int(best))
        similarity = oks(keypoints[rest], keypoints[best], (areas[rest] + areas[best]) / 2, sigmas)
        order = rest[similarity <= threshold]
    return keep
