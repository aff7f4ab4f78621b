"""Which of the people that a detector found are kept."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..metrics.oks import oks
from ..pose.results import PoseResult

__all__ = [
    'Limits',
    'Poses',
    'choose_boxes',
    'choose_people',
    'distinct_people',
    'likely_people',
    'pose_likeness',
    'take_people',
]

_SURE = 0.2
"""Keypoints with a higher score say whether two poses are of one person."""

_ENOUGH = 3
"""Sure keypoints that two poses need in common to be compared by them."""

_NO_SIGMA = 0.1
"""OKS falloff where a skeleton has none: near that of COCO's hips and knees."""


POSE_THRESHOLD = 0.295
"""On everyday validation photos, with the person finder that ships, one pose of seven above it is on nobody."""


@dataclass(frozen=True)
class Limits:
    """Which of the people that a detector finds are kept; boxes that are given are not touched.

    Attributes:
        box_threshold: Boxes that the detector scores lower are left out; `None` for the detector's own threshold.
        pose_threshold: A pose whose score (`PoseResult.person_scores`) is lower is of nobody, and left out; `None` for
            `POSE_THRESHOLD` where keypoint scores are chances, half of it where they are peaks of heatmaps.
        max_people: The most people to a photo, those of the highest score; `None` for all.
        min_size: Boxes whose longer side is shorter, in pixels of the photo, are left out.
        largest: Keep only the person with the largest box.
        second_look: Look again at each person, in the box around the keypoints that were found, and take the surer pose
            of the two: more people are found and their keypoints are better, for up to twice the crops.
        same_person: `pose_likeness` from which two poses are of one person; the less complete one goes. 1 keeps all.

    Raises:
        UserError: If a limit is out of its range.
    """

    box_threshold: float | None = None
    pose_threshold: float | None = None
    max_people: int | None = None
    min_size: float = 24.0
    largest: bool = False
    second_look: bool = True
    same_person: float = 0.6

    def __post_init__(self) -> None:
        for name in ('box_threshold', 'pose_threshold', 'same_person'):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 <= value <= 1):
                raise UserError(f'{name} must be a score from 0 to 1, not {value!r:.40}.')
        if not _is_number(self.min_size) or not 0 <= self.min_size < np.inf:
            raise UserError(f'min_size must be a length in pixels, from 0, not {self.min_size!r:.40}.')
        people = self.max_people
        if people is not None and (isinstance(people, bool) or not isinstance(people, (int, np.integer)) or people < 1):
            raise UserError(f'max_people must be a whole number from 1, or None for all, not {people!r:.40}.')

    def least_score(self, chances: bool) -> float:
        """`pose_threshold`, or what stands for `None`.

        Args:
            chances: Whether keypoint scores are chances to be right, by a score map.
        """
        if self.pose_threshold is not None:
            return self.pose_threshold
        return POSE_THRESHOLD if chances else POSE_THRESHOLD / 2

    def changed(self, values: dict[str, Any]) -> 'Limits':
        """These limits with some values changed.

        Args:
            values: By name.

        Raises:
            TypeError: If there is no limit of that name.
            UserError: If a value is out of its range.
        """
        known = [field.name for field in fields(self)]
        for name in values:
            if name not in known:
                raise TypeError(f'There is no argument {name!r}; the limits are {", ".join(known)}.')
        return replace(self, **values)


def choose_boxes(boxes: npt.ArrayLike, scores: npt.ArrayLike, limits: Limits) -> npt.NDArray[np.intp]:
    """Boxes that are worth a look of the network.

    Args:
        boxes: (N, 4) x1, y1, x2, y2 in pixels.
        scores: (N,).
        limits: What is kept.

    Returns:
        Indices of boxes that are large enough. Where only a few people are wanted, there are twice as many, since some
        of them may turn out to be one person, or nobody.
    """
    boxes, scores = np.asarray(boxes, float).reshape(-1, 4), np.asarray(scores, float)
    sides = boxes[:, 2:] - boxes[:, :2]
    rows = np.flatnonzero(sides.max(-1, initial=0) >= limits.min_size)
    worth = sides.prod(-1) if limits.largest else scores
    wanted = 1 if limits.largest else limits.max_people
    return rows[np.argsort(-worth[rows], kind='stable')][: None if wanted is None else 2 * wanted]


def choose_people(result: PoseResult, limits: Limits, chances: bool = True) -> PoseResult:
    """The people of a photo, each once.

    Args:
        result: One pose for each box that a detector found.
        limits: What is kept.
        chances: Whether keypoint scores are chances to be right, by a score map.

    Returns:
        The poses that are kept, the highest score first.
    """
    rows = likely_people(result, limits, chances)
    if limits.largest:
        rows = rows[np.argsort(-(result.boxes[rows, 2:] - result.boxes[rows, :2]).prod(-1), kind='stable')][:1]
    rows = rows[np.argsort(-result.person_scores[rows], kind='stable')][: limits.max_people]
    return take_people(result, rows)


def take_people(result: PoseResult, rows: npt.NDArray[np.intp]) -> PoseResult:
    """Some of the people of a result.

    Args:
        result: The result.
        rows: Their indices, in the order that they shall have.

    Returns:
        The same with these people alone.
    """
    return replace(
        result,
        keypoints=result.keypoints[rows],
        scores=result.scores[rows],
        boxes=result.boxes[rows],
        box_scores=result.box_scores[rows],
    )


def likely_people(result: PoseResult, limits: Limits, chances: bool = True, ease: float = 1.0) -> npt.NDArray[np.intp]:
    """Rows of the poses that are of somebody, each person once.

    Args:
        result: One pose for each box that a detector found.
        limits: What is kept.
        chances: Whether keypoint scores are chances to be right, by a score map.
        ease: Factor on the threshold of scores.

    Returns:
        Indices.
    """
    rows = np.flatnonzero(result.person_scores >= ease * limits.least_score(chances))
    poses = Poses(result.keypoints[rows], result.scores[rows], result.boxes[rows])
    return rows[distinct_people(poses, result.box_scores[rows], result.skeleton.sigmas, limits.same_person)]


class Poses(NamedTuple):
    """Poses in one photo.

    Attributes:
        keypoints: (N, K, 2) in pixels.
        scores: (N, K).
        boxes: (N, 4) x1, y1, x2, y2 in pixels, that they were found in.
    """

    keypoints: npt.NDArray[np.floating]
    scores: npt.NDArray[np.floating]
    boxes: npt.NDArray[np.floating]


def pose_likeness(poses: Poses, one: Poses, sigmas: Sequence[float] | None) -> npt.NDArray[np.floating]:
    """How far poses are the same as one pose, whichever part of a person their boxes held.

    OKS compares all keypoints. In a box of somebody's upper half the legs are guesses, so that by it this pose and that
    of the whole person are far apart. Here only keypoints that are sure in both poses are compared, in the scale of the
    smaller box; all of them, where fewer than three are sure in both.

    Args:
        poses: N poses.
        one: One pose.
        sigmas: (K,) OKS falloffs; `None` takes 0.1 for each.

    Returns:
        (N,) in 0..1.
    """
    falloffs = [_NO_SIGMA] * poses.keypoints.shape[1] if sigmas is None else sigmas
    both = (poses.scores > _SURE) & (one.scores > _SURE)
    both[both.sum(-1) < _ENOUGH] = True
    areas = [(p.boxes[:, 2:] - p.boxes[:, :2]).prod(-1) for p in (poses, one)]
    return oks(poses.keypoints, one.keypoints, np.minimum(*areas), falloffs, both)


def distinct_people(
    poses: Poses, box_scores: npt.NDArray[np.floating], sigmas: Sequence[float] | None, threshold: float
) -> npt.NDArray[np.intp]:
    """Poses of different people: greedy suppression as in `widehrnet_zoo.metrics.oks.oks_nms`, by `pose_likeness`.

    Of two poses of one person the more complete one stays: that with the higher sum of keypoint scores, times its box's
    score.

    Args:
        poses: N poses.
        box_scores: (N,).
        sigmas: (K,) OKS falloffs; `None` takes 0.1 for each.
        threshold: Likeness from which two poses are of one person; 1 keeps all.

    Returns:
        The indices that stay, in their order.
    """
    if threshold >= 1:
        return np.arange(len(box_scores))
    order = np.argsort(-poses.scores.sum(-1) * box_scores, kind='stable')
    kept: list[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        alike = pose_likeness(Poses(*(v[rest] for v in poses)), Poses(*(v[best][None] for v in poses)), sigmas)
        order = rest[alike < threshold]
    return np.sort(np.array(kept, np.intp))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
