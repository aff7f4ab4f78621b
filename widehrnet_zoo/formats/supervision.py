"""Results from COCO's results format, and from and to supervision."""

from typing import Any

import numpy as np

from ..errors import UserError
from ..extras import require
from ..pose.results import PoseResult
from ..pose.skeletons import Skeleton
from .checks import extents


def from_coco(
    results: list[dict[str, Any]],
    skeleton: Skeleton,
    image_size: tuple[int, int],
    image_id: int | str | None = None,
    path: str | None = None,
) -> PoseResult:
    """COCO results of one image as a `PoseResult`, the way back from `PoseResult.to_coco`.

    Args:
        results: Entries in COCO's results format; `bbox` (x, y, width, height) may stand beside.
        skeleton: What the keypoints are.
        image_size: Width and height of the image.
        image_id: Take the entries of this image only; `None` takes all.
        path: File of the image.

    Returns:
        The people in the order given. Where an entry has no `bbox`, the box is the extent of its keypoints.

    Raises:
        UserError: If an entry is not a keypoint result, or has another number of keypoints than the skeleton.
    """
    for index, result in enumerate(results):
        lacking = [name for name in ('image_id', 'keypoints', 'score') if name not in result]
        if lacking:
            raise UserError(f'Entry {index} lacks {lacking[0]!r}: it is not a COCO result of keypoints.')
    chosen = [r for r in results if image_id is None or r['image_id'] == image_id]
    for result in chosen:
        if len(result['keypoints']) != 3 * skeleton.num_keypoints:
            raise UserError(
                f'A result has {len(result["keypoints"])} keypoint numbers; the skeleton {skeleton.name} '
                f'needs 3 x {skeleton.num_keypoints}.'
            )
    keypoints = np.array([r['keypoints'] for r in chosen], np.float32).reshape(-1, skeleton.num_keypoints, 3)
    boxes = extents(keypoints[..., :2])
    for row, result in enumerate(chosen):
        if 'bbox' in result:
            x, y, w, h = result['bbox']
            boxes[row] = x, y, x + w, y + h
    return PoseResult(
        keypoints=keypoints[..., :2].copy(),
        scores=keypoints[..., 2].copy(),
        boxes=boxes,
        box_scores=np.array([r['score'] for r in chosen], np.float32),
        skeleton=skeleton,
        image_size=image_size,
        path=path,
    )


def to_supervision(result: PoseResult) -> Any:
    """A result as `supervision.KeyPoints`.

    Args:
        result: People of one image.

    Returns:
        The key points: `xy` (N, K, 2) in image pixels, confidences of keypoints and people, class 0 ("person"). The
        boxes stand in `data['boxes']` as x1, y1, x2, y2.

    Raises:
        ImportError: If supervision is not installed.
    """
    supervision = require('supervision', 'demo')
    count = len(result.keypoints)
    return supervision.KeyPoints(
        xy=np.asarray(result.keypoints, np.float32),
        class_id=np.zeros(count, int),
        keypoint_confidence=np.asarray(result.scores, np.float32),
        detection_confidence=np.asarray(result.box_scores, np.float32),
        data={'class_name': np.array(['person'] * count), 'boxes': np.asarray(result.boxes, np.float32)},
    )


def from_supervision(
    key_points: Any, skeleton: Skeleton, image_size: tuple[int, int], path: str | None = None
) -> PoseResult:
    """`supervision.KeyPoints` as a result.

    Args:
        key_points: People of one image, in image pixels.
        skeleton: What the keypoints are.
        image_size: Width and height of the image.
        path: File of the image.

    Returns:
        The people. Scores that are not there are 1; a box that is not in `data['boxes']` is the extent of the
        keypoints.

    Raises:
        UserError: If the number of keypoints is not the skeleton's.
    """
    points = np.asarray(key_points.xy, np.float32)
    count = len(points)
    points = points.reshape(0, skeleton.num_keypoints, 2) if count == 0 else points
    if points.shape[1:] != (skeleton.num_keypoints, 2):
        raise UserError(
            f'The key points are {points.shape}; the skeleton {skeleton.name} needs (N, {skeleton.num_keypoints}, 2).'
        )
    scores, people = key_points.keypoint_confidence, key_points.detection_confidence
    boxes = key_points.data.get('boxes')
    return PoseResult(
        keypoints=points,
        scores=np.ones(points.shape[:2], np.float32)
        if scores is None
        else np.asarray(scores, np.float32).reshape(points.shape[:2]),
        boxes=extents(points) if boxes is None else np.asarray(boxes, np.float32).reshape(count, 4),
        box_scores=np.ones(count, np.float32) if people is None else np.asarray(people, np.float32),
        skeleton=skeleton,
        image_size=image_size,
        path=path,
    )
