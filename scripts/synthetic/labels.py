"""What is written about a person: visibility, box, COCO labels."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from widehrnet_zoo.pose.skeletons import SKELETONS

from .bodies import Floats

_SKELETON = SKELETONS['coco']
# metres of flesh that may lie before a joint that is called visible
_DEPTH = {'nose': 0.03, 'eye': 0.03, 'ear': 0.04, 'shoulder': 0.11, 'elbow': 0.08, 'wrist': 0.07, 'hip': 0.16,
          'knee': 0.1, 'ankle': 0.08}  # fmt: skip
DEPTH = np.array([_DEPTH[name.split('_')[-1]] for name in _SKELETON.keypoints])
AREA = 0.53


def visibility(
    points: Floats, far: Floats, hit: Floats, width: int, height: int, cover: Floats | None = None
) -> npt.NDArray[np.int64]:
    """COCO's flags.

    Args:
        points: float (17, 2), pixels; (0, 0) is the centre of the first.
        far: float (17,), distance from the camera in metres.
        hit: float (17,), distance of what the ray to each keypoint hits first; infinite for nothing.
        width: Pixels.
        height: Pixels.
        cover: float (height, width), opacity of what stands in front, or None.

    Returns:
        int (17,): 0 out of the picture, 1 hidden, 2 visible.
    """
    inside = ((points >= -0.5) & (points <= np.array([width, height]) - 0.5)).all(1)
    hidden = hit < far - DEPTH
    if cover is not None:
        x, y = np.clip(np.rint(points), 0, np.array([width, height]) - 1).astype(int).T
        hidden = hidden | (cover[y, x] > 0.5)
    return np.where(inside, np.where(hidden, 1, 2), 0)


def box_of(points: Floats, width: int, height: int) -> list[float]:
    """The keypoints' box plus a tenth of it on each side, inside the picture: x, y, width, height in pixels."""
    low, high = points.min(0), points.max(0)
    margin = 0.1 * (high - low)
    low, high = np.maximum(low - margin, 0), np.minimum(high + margin, [width, height])
    return [round(float(value), 2) for value in (*low, *(high - low))]


def annotation(number: int, points: Floats, flags: npt.NDArray[np.int64], width: int, height: int) -> dict[str, Any]:
    """One person, in COCO's form; keypoints out of the picture are zeros.

    Args:
        number: Of the image and of the person.
        points: float (17, 2), pixels.
        flags: int (17,), of `visibility`.
        width: Pixels.
        height: Pixels.
    """
    inside = flags > 0
    box = box_of(points[inside], width, height)
    rows = np.concatenate([points, flags[:, None]], 1) * inside[:, None]
    return {
        'id': number,
        'image_id': number,
        'category_id': 1,
        'iscrowd': 0,
        'keypoints': [round(float(value), 2) for value in rows.ravel()],
        'num_keypoints': int(inside.sum()),
        'bbox': box,
        'area': round(AREA * box[2] * box[3], 1),
    }


def label_file(people: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """COCO's file of images, annotations and categories; each entry of `people` has `image` and `annotation`."""
    people = list(people)
    limbs = [[a + 1, b + 1] for a, b in _SKELETON.bones]  # COCO counts from 1
    category = {'id': 1, 'name': 'person', 'keypoints': list(_SKELETON.keypoints), 'skeleton': limbs}
    return {
        'images': [person['image'] for person in people],
        'annotations': [person['annotation'] for person in people],
        'categories': [category],
    }
