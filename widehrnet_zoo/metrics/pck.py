"""Distances between predicted and labelled keypoints: PCK, NME, AUC."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..pose.skeletons import SKELETONS

FloatArray = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]

TORSO = ('right_shoulder', 'left_hip')
BODY = tuple(name for name in SKELETONS['mpii'].keypoints if name.startswith(('left_', 'right_')))
"""The limb joints of the Leeds Sports Poses, in its order, which is MPII's; COCO has them too, unlike the others."""
LSP = (*BODY, 'neck', 'head_top')


def normalised_errors(
    keypoints: npt.ArrayLike, labels: npt.ArrayLike, size: npt.ArrayLike
) -> tuple[FloatArray, BoolArray]:
    """Distances in units of each person's size.

    Args:
        keypoints: (N, K, 2) or (N, K, 3) predictions in pixels; NaN for a person without a prediction.
        labels: (N, K, 3): x, y in pixels, and a flag that is above 0 where the keypoint is labelled.
        size: (N,) reference lengths in pixels. People whose size is not above 0 count nowhere.

    Returns:
        (N, K) errors, infinite where there is no prediction, and (N, K) whether the keypoint counts.

    Raises:
        ValueError: If the shapes do not fit.
    """
    keypoints, labels, size = np.asarray(keypoints, float), np.asarray(labels, float), np.asarray(size, float)
    if keypoints.shape[:2] != labels.shape[:2] or size.shape != labels.shape[:1] or labels.shape[-1] != 3:
        raise ValueError(
            f'Predictions {keypoints.shape}, labels {labels.shape} and sizes {size.shape} do not fit: '
            'expected (N, K, 2 or 3), (N, K, 3) and (N,).'
        )
    distance = np.linalg.norm(keypoints[..., :2] - labels[..., :2], axis=-1)
    usable = size > 0
    errors = distance / np.where(usable, size, 1.0)[:, None]
    return np.where(np.isnan(errors), np.inf, errors), (labels[..., 2] > 0) & usable[:, None]


def torso_size(labels: npt.ArrayLike, names: Sequence[str], least: float = 3.0) -> FloatArray:
    """Length of the torso, from the right shoulder to the left hip.

    Source: Sapp and Taskar, "MODEC", CVPR 2013, and the LSP evaluation, which measure in this diagonal.

    Args:
        labels: (N, K, 3) labelled keypoints in pixels.
        names: (K,) keypoint names; `right_shoulder` and `left_hip` must be among them.
        least: Shorter torsos, in pixels, are not usable.

    Returns:
        (N,) lengths in pixels; 0 where an end is not labelled or the torso is shorter than `least`.

    Raises:
        ValueError: If a torso joint is not among the names.
    """
    labels = np.asarray(labels, float)
    missing = [name for name in TORSO if name not in names]
    if missing:
        raise ValueError(
            f'Torso PCK needs the keypoints {" and ".join(TORSO)}; {missing[0]} is not in this skeleton. '
            'PCK by bounding box works with any skeleton.'
        )
    a, b = (labels[:, list(names).index(name)] for name in TORSO)
    length = np.linalg.norm(a[:, :2] - b[:, :2], axis=-1)
    return np.where((a[:, 2] > 0) & (b[:, 2] > 0) & (length >= least), length, 0.0)


def box_size(boxes: npt.ArrayLike) -> FloatArray:
    """The longer side of each box, as in mmpose 0.24's PCK (`max(w, h)`).

    Args:
        boxes: (N, 4) x, y, width, height in pixels.

    Returns:
        (N,) lengths in pixels.
    """
    return np.asarray(boxes, float)[:, 2:4].max(-1)


def pck(errors: npt.ArrayLike, counts: npt.ArrayLike, threshold: float, average: str = 'pooled') -> float:
    """Percentage of correct keypoints, as a fraction: the share with error < threshold.

    Source: Yang and Ramanan, "Articulated human detection with flexible mixtures of parts", TPAMI 2013. With
    `torso_size` and 0.2 it is LSP's PCK@0.2; with `box_size` it is PCK by bounding box.

    Args:
        errors: (N, K) from `normalised_errors`.
        counts: (N, K) whether the keypoint counts.
        threshold: In units of the person's size.
        average: `'pooled'`: over all keypoints together. `'joints'`: the mean of each joint's PCK, as mmpose 0.24's
            `keypoint_pck_accuracy` does; joints without a label are left out.

    Returns:
        A fraction in 0..1; NaN if nothing counts.
    """
    if average not in ('pooled', 'joints'):
        raise ValueError(f"average must be 'pooled' or 'joints', not {average!r}.")
    errors, counts = np.asarray(errors, float), np.asarray(counts, bool)
    return _average((errors < threshold) & counts, counts, average)


def nme(errors: npt.ArrayLike, counts: npt.ArrayLike) -> float:
    """Normalised mean error: the mean of the errors that count.

    Source: mmpose 0.24's `keypoint_nme`. What the distances are divided by is the caller's choice: the torso, the
    longer side of the box, the distance between the eyes.

    Args:
        errors: (N, K) from `normalised_errors`.
        counts: (N, K) whether the keypoint counts.

    Returns:
        In units of the person's size; NaN if nothing counts, infinite if a counted person has no prediction.
    """
    chosen = np.asarray(errors, float)[np.asarray(counts, bool)]
    return float(chosen.mean()) if len(chosen) else float('nan')


def auc(errors: npt.ArrayLike, counts: npt.ArrayLike, limit: float = 0.5, steps: int | None = None) -> float:
    """Area under the PCK curve from 0 to a limit, divided by the limit.

    Exactly, `mean(max(0, 1 - error / limit))`, since each keypoint adds 1 to the curve from its error on. mmpose
    0.24's `keypoint_auc` takes the left sum of `steps` (20) points, with PCK averaged by joint: that is `steps=20`,
    whose best value is 0.95.

    Args:
        errors: (N, K) from `normalised_errors`.
        counts: (N, K) whether the keypoint counts.
        limit: Upper end, in units of the person's size.
        steps: Number of points of mmpose's sum; `None` for the exact area, pooled over keypoints.

    Returns:
        A fraction in 0..1; NaN if nothing counts.
    """
    if limit <= 0:
        raise ValueError(f'limit must be above 0, not {limit}.')
    if steps is not None:
        return float(np.mean([pck(errors, counts, limit * i / steps, 'joints') for i in range(steps)]))
    chosen = np.asarray(errors, float)[np.asarray(counts, bool)]
    return float(np.maximum(0.0, 1 - chosen / limit).mean()) if len(chosen) else float('nan')


def _average(hits: BoolArray, counts: BoolArray, average: str) -> float:
    hit, count = hits.sum(0), counts.sum(0)
    if not count.sum():
        return float('nan')
    if average == 'pooled':
        return float(hit.sum() / count.sum())
    return float((hit[count > 0] / count[count > 0]).mean())
