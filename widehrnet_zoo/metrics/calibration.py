"""How far keypoint scores are from the chance that the keypoint is right, and the map that brings them there."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..extras import require
from ..formats.coco import CocoLabels
from ..pose.score_map import ScoreMap
from .oks import keypoint_similarity
from .people import match_results

RIGHT = 0.5
"""Similarity of a keypoint to its label, `exp(-d^2 / (2 * area * (2 * sigma)^2))`, from which it counts as right."""

_LEAST = 200


def keypoint_hits(
    labels: CocoLabels, results: list[dict[str, Any]], sigmas: Sequence[float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Scores of the labelled keypoints, and whether each lies within OKS 0.5 of its label.

    Args:
        labels: Human labels, with `area`.
        results: Predictions from the annotated boxes in COCO's results format, with `ann`.
        sigmas: (K,) falloffs.

    Returns:
        Scores (M,) and booleans (M,), for the M labelled keypoints of people who have a prediction.

    Raises:
        UserError: If a result does not say whose it is, or a person has no `area`.
    """
    found = match_results(labels.people, results, len(sigmas))
    if any('area' not in person for person in labels.people):
        raise UserError('Calibration needs the "area" of every labelled person: OKS is measured by it.')
    truth = np.array([person['keypoints'] for person in labels.people], float).reshape(found.shape)
    similarity = keypoint_similarity(found, truth, [person['area'] for person in labels.people], sigmas)
    counted = (truth[..., 2] > 0) & np.isfinite(found).all(-1)
    return found[..., 2][counted], similarity[counted] >= RIGHT


def calibration_bins(
    scores: npt.ArrayLike, hits: npt.ArrayLike, bins: int = 10
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Mean score, share of hits and count in `bins` equal parts of 0..1; NaN where a part is empty."""
    scores, hits = np.asarray(scores, float).clip(0, 1), np.asarray(hits, float)
    place = np.minimum((scores * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid='ignore'):
        means = np.bincount(place, scores, bins) / count
        shares = np.bincount(place, hits, bins) / count
    return means, shares, count


def expected_calibration_error(scores: npt.ArrayLike, hits: npt.ArrayLike, bins: int = 10) -> float:
    """Mean distance between score and share of hits over equal parts of 0..1, weighted by their counts.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 3.

    Args:
        scores: (M,) scores; those outside 0..1 are taken for the nearer end.
        hits: (M,) booleans.
        bins: Number of parts.

    Returns:
        In 0..1; NaN without scores.
    """
    means, shares, count = calibration_bins(scores, hits, bins)
    if not count.sum():
        return float('nan')
    return float(np.nansum(np.abs(means - shares) * count) / count.sum())


def fit_score_map(scores: npt.ArrayLike, hits: npt.ArrayLike, knots: int = 16) -> ScoreMap:
    """The monotone map from scores to the share of hits.

    Isotonic regression (Zadrozny and Elkan, Transforming Classifier Scores into Accurate Multiclass Probability
    Estimates, KDD 2002), brought to `knots` points of as many scores each. A peak of 0 gets a chance of 0.

    Args:
        scores: (M,) peaks of heatmaps, on photos that were kept out of the training.
        hits: (M,) booleans.
        knots: Points of the map beside the one at 0.

    Raises:
        UserError: If there are too few keypoints to fit it to.
        ImportError: If SciPy is not installed (the extra `[eval]`).
    """
    optimize: Any = require('scipy.optimize', 'eval')
    scores, hits = np.asarray(scores, float), np.asarray(hits, float)
    if len(scores) < _LEAST:
        raise UserError(f'A score map needs {_LEAST} labelled keypoints or more to be fitted to, not {len(scores)}.')
    order = np.argsort(scores, kind='stable')
    fitted = optimize.isotonic_regression(hits[order]).x
    peaks, chances = [0.0], [0.0]
    for part in np.array_split(np.arange(len(order)), knots):
        peak = round(float(scores[order[part]].mean()), 4)
        if peak > peaks[-1]:
            peaks.append(peak)
            chances.append(max(chances[-1], round(float(fitted[part].mean()), 4)))
    return ScoreMap(tuple(peaks), tuple(chances))
