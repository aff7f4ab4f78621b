"""Whole photos in: a detector and a model measured together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..formats.coco import CocoLabels, read_labels
from ..formats.fit import check_labels
from ..inference.estimator import PoseEstimator
from ..inference.photo import Photo
from ..metrics.coco import CocoScore
from ..metrics.everyone import EveryoneScore
from ..pose.results import PoseResult
from .report import Report
from .run import Protocol, check_skeleton, measured_skeleton
from .subject import describe_data, describe_model


def look_at_photos(
    estimator: PoseEstimator, labels: CocoLabels, images: str | Path, workers: int = 2, progress: bool = True
) -> dict[int | str, PoseResult]:
    """What a model finds in the photos of a label file with its own detector, limits and options.

    Args:
        estimator: The model.
        labels: The labels, of which only the photos are looked at.
        images: Folder of the photos.
        workers: Threads that read photos.
        progress: Show a bar.

    Returns:
        What is found by the id of the photo.

    Raises:
        UserError: If a photo cannot be read.
    """
    ids = list(labels.images)
    photos = (Photo(Path(images) / labels.images[i]['file_name']) for i in ids)
    found = estimator.look(photos, workers=workers)
    bar = tqdm(found, desc='photos', total=len(ids), disable=not progress, unit='photo')
    return {ids[one.place]: one.result for one in bar}


def everyone_results(found: Mapping[int | str, PoseResult], category_id: int) -> list[dict[str, Any]]:
    """COCO results of keypoints: `image_id`, `category_id`, `keypoints` and `score`, without boxes."""
    entries = [entry for image_id, result in found.items() for entry in result.to_coco(image_id, category_id)]
    return [{key: value for key, value in entry.items() if key != 'bbox'} for entry in entries]


def evaluate_everyone(
    data: str | Path,
    images: str | Path,
    estimator: PoseEstimator,
    detector: str,
    *,
    out: str | Path | None = None,
    draws: int = 0,
    name: str | None = None,
    workers: int = 2,
    progress: bool = True,
) -> Report:
    """Measure a model on whole photos, where its own detector finds the people.

    Args:
        data: COCO-keypoints JSON.
        images: Folder of the photos.
        estimator: The model, with its detector, limits and options.
        detector: What the report calls the detector.
        out: Folder for `results.json`, `report.json` and `report.md`.
        draws: Resamplings of the photos for 95 % intervals; 0 gives none.
        name: What the report calls the model.
        workers: Threads that read photos.
        progress: Show bars.

    Returns:
        The report: the figures of COCO's protocol and those of `EveryoneScore`.

    Raises:
        UserError: If inputs are missing, broken or do not fit together.
    """
    labels = read_labels(data, nobody=True)
    check_labels(labels, images)
    skeleton = measured_skeleton(estimator, labels)
    check_skeleton(skeleton, labels, Protocol('coco'))
    assert skeleton.sigmas is not None
    found = everyone_results(look_at_photos(estimator, labels, images, workers, progress), labels.category['id'])
    average, everyone = CocoScore(labels, found, skeleton.sigmas), EveryoneScore(labels, found, skeleton.sigmas)

    def figures(chosen: npt.NDArray[np.intp] | None) -> dict[str, float]:
        ids = None if chosen is None else [everyone.image_ids[i] for i in chosen]
        return {**everyone.figures(chosen), **average.figures(None if ids is None else average.positions(ids))}

    likeliest, others = estimator.limits.least_scores(estimator.score_map is not None)
    least = others if likeliest == others else f'{others}, {likeliest} for the likeliest pose of a photo'
    people, hits, poses, false = everyone.counts.sum(0).tolist()
    switches: dict[str, Any] = {
        'protocol': 'coco',
        'flip_test': estimator.flip_test,
        'decoder': estimator.decoder,
        'padding': estimator.padding,
        'boxes': f'detector {detector}',
        **vars(estimator.limits),
        'pose_threshold': least,
        'evaluator': 'pycocotools',
    }
    subject = {
        **describe_model(estimator, name),
        'counted': f'{hits} of {people} people found, {false} of {poses} poses false, in {len(labels.images)} photos',
        **describe_data(data, None, len(labels.annotations)),
    }
    report = Report.of(figures, len(everyone.image_ids), switches, subject, draws, progress)
    if out is not None:
        report.save(out, found)
    return report
