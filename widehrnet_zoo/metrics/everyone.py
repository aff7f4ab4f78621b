"""Are the people of whole photos found, and is what was found a person?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..formats.coco import CocoLabels
from ..pose.crops import overlaps
from .oks import oks

_LABELLED = 8
"""Labelled keypoints of a person who is to be found."""

_HEIGHT = 0.15
"""Height of such a person's box, as a share of the photo's."""

_OKS = 0.5
"""OKS from which a pose is of a labelled person."""

_IOU = 0.25
"""IoU with an annotated box, of a pose's own box, from which the pose is of somebody."""

_SEEN, _FEW = 0.05, 4


class EveryoneScore:
    """People found and false poses, counted over whole photos.

    A person is to be found who has eight or more labelled keypoints and a box of at least 15 % of the photo's height. A
    person is found if a pose has an OKS of 0.5 or more. A pose is false if the box around its keypoints (of those that
    score above 0.05, if there are four) has an IoU below 0.25 with the box of everyone annotated, whether with
    keypoints or not.

    Args:
        labels: The labels.
        results: Poses in COCO's results format.
        sigmas: (K,) OKS falloffs.
    """

    def __init__(self, labels: CocoLabels, results: list[dict[str, Any]], sigmas: Sequence[float]):
        self.image_ids = list(labels.images)
        people: dict[Any, list[dict[str, Any]]] = {i: [] for i in self.image_ids}
        poses: dict[Any, list[npt.NDArray[np.float64]]] = {i: [] for i in self.image_ids}
        for annotation in labels.annotations:
            people[annotation['image_id']].append(annotation)
        for result in results:
            poses[result['image_id']].append(np.reshape(result['keypoints'], (-1, 3)).astype(float))
        rows = [_count(labels.images[i], people[i], poses[i], sigmas) for i in self.image_ids]
        # (images, 4): people, found, poses, false
        self.counts = np.array(rows, np.int64).reshape(-1, 4)

    def figures(self, images: npt.NDArray[np.intp] | None = None) -> dict[str, float]:
        """The shares of people found and of false poses.

        Args:
            images: Indices into `image_ids` to count, repetitions allowed; `None` counts each once.

        Returns:
            `'people found'` and `'false poses'`, 0..1; NaN where there are no people, or no poses.
        """
        people, found, poses, false = (self.counts if images is None else self.counts[images]).sum(0).tolist()
        nan = float('nan')
        return {'people found': found / people if people else nan, 'false poses': false / poses if poses else nan}


def _count(
    image: dict[str, Any], people: list[dict[str, Any]], poses: list[npt.NDArray[np.float64]], sigmas: Sequence[float]
) -> tuple[int, int, int, int]:
    wanted = [p for p in people if p['num_keypoints'] >= _LABELLED and p['bbox'][3] >= _HEIGHT * image['height']]
    found = 0
    for person in wanted:
        points = np.reshape(person['keypoints'], (-1, 3)).astype(float)
        alike = [oks(pose, points, person['area'], sigmas, points[:, 2] > 0) for pose in poses]
        found += bool(alike) and max(map(float, alike)) >= _OKS
    boxes = np.array([p['bbox'] for p in people], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    false = sum(overlaps(_extent(pose), boxes).max(initial=0) < _IOU for pose in poses)
    return len(wanted), found, len(poses), int(false)


def _extent(pose: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    seen = pose[pose[:, 2] > _SEEN]
    points = (seen if len(seen) >= _FEW else pose)[:, :2]
    return np.concatenate([points.min(0), points.max(0)])
