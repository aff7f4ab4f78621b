"""An image of the people that a model does worst on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ..formats.coco import CocoLabels, labelled_boxes
from ..formats.samples import Samples
from ..metrics.mpii import MpiiScore, MpiiTruth
from ..metrics.oks import oks
from ..metrics.people import match_results
from ..pose.crops import PADDING, box_views, crop_people
from ..pose.images import read_image
from ..pose.results import PoseResult
from ..pose.skeletons import SKELETONS, Skeleton

TILE = (256, 192)
CAPTION = 16
COLUMNS = 4


def worst_cases(
    paths: Sequence[Path],
    boxes: npt.ArrayLike,
    predicted: npt.ArrayLike,
    labelled: npt.ArrayLike,
    captions: Sequence[str],
    skeleton: Skeleton,
) -> Image.Image:
    """Prediction and label side by side, one pair per person.

    Args:
        paths: (N,) photos.
        boxes: (N, 4) x1, y1, x2, y2 in image pixels.
        predicted: (N, K, 3) x, y, score; NaN where there is no prediction.
        labelled: (N, K, 3) x, y, and above 0 where labelled.
        captions: (N,) lines of text.
        skeleton: What the keypoints are.
    """
    predicted, labelled = np.asarray(predicted, float), np.asarray(labelled, float)
    maps = box_views(np.asarray(boxes, float), TILE)
    height, width = TILE[0] + CAPTION, 2 * TILE[1] + 4
    columns = min(COLUMNS, len(paths))
    sheet = Image.new('RGB', (columns * width, -(-len(paths) // columns) * height), 'white')
    draw = ImageDraw.Draw(sheet)
    for index, path in enumerate(paths):
        tile = crop_people(read_image(path), maps[index : index + 1], TILE)[0]
        left, top = index % columns * width, index // columns * height
        for side, points in enumerate((predicted[index], labelled[index])):
            pose = _pose(points, maps[index], skeleton)
            sheet.paste(pose.draw(tile), (left + side * TILE[1], top + CAPTION))
        draw.text((left + 2, top + 2), f'{captions[index]}  (left: predicted, right: labelled)', fill='black')
    return sheet


def _pose(points: npt.NDArray[np.float64], view: npt.NDArray[np.float64], skeleton: Skeleton) -> PoseResult:
    scale, shift = view[0, 0], view[:, 2]
    there = np.isfinite(points[:, 0]) & (points[:, 2] > 0)
    placed = np.where(there[:, None], (points[:, :2] - shift) / scale, 0)
    return PoseResult(
        keypoints=placed[None].astype(np.float32),
        scores=there[None].astype(np.float32),
        boxes=np.array([[0, 0, TILE[1], TILE[0]]], np.float32),
        box_scores=np.ones(1, np.float32),
        skeleton=skeleton,
        image_size=(TILE[1], TILE[0]),
        path=None,
    )


def worst_of_coco(
    labels: CocoLabels,
    images: str | Path,
    results: list[dict[str, Any]],
    skeleton: Skeleton,
    count: int,
) -> Image.Image:
    """The labelled people with the largest mean error, in diagonals of their boxes, each keypoint's at most 1.

    Args:
        labels: The labels.
        images: Folder of the photos.
        results: Predictions in COCO's results format. Without `ann` the most alike result of the photo is taken.
        skeleton: What the keypoints are.
        count: Number of people.
    """
    samples = labelled_boxes(labels, images, clip=False)
    by_id = {a['id']: a for a in labels.people}
    people = [by_id[i] for i in samples.annotation_ids if i is not None]
    truth = labels.keypoints(people)
    if all(r.get('ann') is not None for r in results):
        predicted = match_results(people, results, skeleton.num_keypoints)
    else:
        predicted = _nearest(people, truth, results)
    labelled = truth[..., 2] > 0
    diagonal = np.array([np.hypot(*a['bbox'][2:]) for a in people])
    distance = np.linalg.norm(predicted[..., :2] - truth[..., :2], axis=-1) / np.maximum(diagonal, 1)[:, None]
    error = np.where(labelled, np.minimum(np.nan_to_num(distance, nan=1.0), 1.0), 0).sum(-1) / labelled.sum(-1)
    return _worst(samples, predicted, truth, error, 'box diagonals', skeleton, count)


def worst_of_mpii(
    samples: Samples,
    keypoints: npt.NDArray[np.float64],
    truth: MpiiTruth,
    score: MpiiScore,
    count: int,
) -> Image.Image:
    """The people of MPII with the largest mean error, in head sizes.

    Args:
        samples: The views.
        keypoints: (N, 16, 3) predictions.
        truth: The ground truth.
        score: The score of the predictions.
        count: Number of people.
    """
    error = np.where(score.labelled, score.errors, 0).sum(-1) / np.maximum(score.labelled.sum(-1), 1)
    middle = (samples.boxes[:, :2] + samples.boxes[:, 2:]) / 2
    half = (samples.boxes[:, 2:] - samples.boxes[:, :2]) / 2 / PADDING
    samples = replace(samples, boxes=np.concatenate([middle - half, middle + half], 1))
    labelled = np.concatenate([truth.joints - 1, truth.labelled[..., None]], -1)
    return _worst(samples, keypoints, labelled, error, 'head sizes', SKELETONS['mpii'], count)


def _worst(
    samples: Samples,
    predicted: npt.NDArray[np.float64],
    truth: npt.NDArray[np.float64],
    error: npt.NDArray[np.float64],
    unit: str,
    skeleton: Skeleton,
    count: int,
) -> Image.Image:
    rows = np.argsort(-error, kind='stable')[:count]
    return worst_cases(
        [samples.paths[i] for i in rows],
        samples.boxes[rows],
        predicted[rows],
        truth[rows],
        [f'{samples.image_ids[i]}: {error[i]:.2f} {unit}' for i in rows],
        skeleton,
    )


def _nearest(
    people: list[dict[str, Any]],
    truth: npt.NDArray[np.float64],
    results: list[dict[str, Any]],
) -> npt.NDArray[np.float64]:
    by_image: dict[Any, list[npt.NDArray[np.float64]]] = {}
    for result in results:
        by_image.setdefault(result['image_id'], []).append(np.reshape(result['keypoints'], (-1, 3)))
    predicted = np.full_like(truth, np.nan)
    for row, person in enumerate(people):
        candidates = by_image.get(person['image_id'])
        if candidates:
            _, _, w, h = person['bbox']
            likeness = oks(
                np.array(candidates), truth[row], max(w * h, 1.0) / 2, [0.1] * truth.shape[1], truth[row, :, 2] > 0
            )
            predicted[row] = candidates[int(likeness.argmax())]
    return predicted
