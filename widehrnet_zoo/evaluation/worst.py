"""An image of the people that a model does worst on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..formats.coco import CocoLabels, labelled_boxes
from ..formats.samples import Samples
from ..metrics.mpii import MpiiScore, MpiiTruth
from ..metrics.oks import oks
from ..metrics.people import match_results
from ..pose.crops import PADDING, box_views, crop_people
from ..pose.drawing import contact_sheet, draw_poses
from ..pose.images import read_image
from ..pose.skeletons import SKELETONS, Skeleton

TILE = (256, 192)
COLUMNS = 4


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
    """The people with the largest errors, each twice: with what was predicted, and with the labels."""
    tiles = []
    for row in np.argsort(-error, kind='stable')[:count]:
        view = box_views(samples.boxes[row], TILE)[0]
        crop = crop_people(read_image(samples.paths[row]), view[None], TILE)[0]
        pair = []
        for points in (predicted[row], truth[row]):
            places = (points[:, :2] - view[:, 2]) / view[0, 0]
            pair.append(np.asarray(draw_poses(crop, places[None], points[None, :, 2] > 0, skeleton)))
        caption = f'{samples.image_ids[row]}: {error[row]:.2f} {unit}  (left: predicted, right: labelled)'
        tiles.append((Image.fromarray(np.concatenate(pair, 1)), caption))
    return contact_sheet(tiles, COLUMNS)


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
