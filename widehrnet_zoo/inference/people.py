"""Which of the people that a detector found are kept."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..metrics.oks import keypoint_similarity, oks
from ..pose.results import PoseResult, person_scores

_SURE = 0.2
"""Keypoints with a higher score say whether two poses are of one person."""

_ENOUGH = 3
"""Sure keypoints that two poses need in common to be compared by them."""

_AGREE = 0.3
"""OKS of a keypoint from which two looks at it agree."""

_NO_SIGMA = 0.1
"""OKS falloff where a skeleton has none: near that of COCO's hips and knees."""


_WORTH_A_LOOK = 0.7
"""Share of the threshold of poses from which a second look may bring one above it."""

POSE_THRESHOLD = 0.43
"""A photo whose likeliest pose has a lower chance to be of somebody is of nobody."""

_OTHERS_THRESHOLD = 0.25
"""Where somebody is, somebody else is likelier: poses of a lower chance are left out there."""

_PEAK_THRESHOLD = 0.15
"""Least `PoseResult.person_scores` of a pose, of weights whose keypoint scores are peaks of heatmaps."""


class Chance(NamedTuple):
    """Logistic regression of `person_figures`.

    Attributes:
        intercept: Of the log odds.
        weights: (4,) of the figures.
        tall: Height of a box in pixels of the photo from which more of it says nothing: the network sees as much as it
            can use.
    """

    intercept: float
    weights: tuple[float, ...]
    tall: float = 128.0


CHANCE = Chance(1.52, (2.7, 1.3, 1.12, 0.34))
"""Fitted by `scripts/weights/person_chance.py` on training photos."""


@dataclass(frozen=True)
class Limits:
    """Which of the people that a detector finds are kept; boxes that are given are not touched.

    Attributes:
        box_threshold: Boxes that the detector scores lower are left out; `None` for the detector's own threshold.
        pose_threshold: A pose whose chance to be of somebody (`person_chances`) is lower is left out; of weights whose
            keypoint scores are peaks of heatmaps its `PoseResult.person_scores` stands for that. `None` for 0.25 in
            photos where a pose reaches 0.43, and nobody in others; for 0.15 of scores that are peaks.
        max_people: The most people to a photo, those of the highest score; `None` for all.
        min_size: Boxes whose longer side is shorter, in pixels of the photo, are left out.
        largest: Keep only the person with the largest box.
        second_look: Look again at each person, in the box around the keypoints that were found; the pose is that of
            both looks (`merge_looks`): more people are found, and better keypoints, for up to twice the crops.
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
    same_person: float = 0.5

    def __post_init__(self) -> None:
        for name in ('box_threshold', 'pose_threshold', 'same_person'):
            value = getattr(self, name)
            left_out = value is None and name != 'same_person'
            if not left_out and not (_is_number(value) and 0 <= value <= 1):
                raise UserError(f'{name} must be a score from 0 to 1, not {value!r:.40}.')
        if not _is_number(self.min_size) or not 0 <= self.min_size < np.inf:
            raise UserError(f'min_size must be a length in pixels, from 0, not {self.min_size!r:.40}.')
        for name in ('largest', 'second_look'):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise UserError(f'{name} is True or False, not {getattr(self, name)!r:.40}.')
        people = self.max_people
        if people is not None and (isinstance(people, bool) or not isinstance(people, (int, np.integer)) or people < 1):
            raise UserError(f'max_people must be a whole number from 1, or None for all, not {people!r:.40}.')

    def least_scores(self, chances: bool) -> tuple[float, float]:
        """`pose_threshold`, or what stands for `None`: for the likeliest pose of a photo, and for the others.

        Args:
            chances: Whether keypoint scores are chances to be right, by a score map.
        """
        if self.pose_threshold is None and chances:
            return POSE_THRESHOLD, _OTHERS_THRESHOLD
        least = _PEAK_THRESHOLD if self.pose_threshold is None else self.pose_threshold
        return least, least

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
        The poses that are kept, the highest score first. Where keypoint scores are chances, the box's scores are the
        chance that the pose is of somebody.
    """
    worth = person_worth(result.scores, result.box_scores, result.boxes, chances)
    first, others = limits.least_scores(chances)
    rows = _likely(result, worth, limits, others if worth.max(initial=0) >= first else first)
    if chances:
        result = replace(result, box_scores=worth)
    if limits.largest:
        rows = rows[np.argsort(-(result.boxes[rows, 2:] - result.boxes[rows, :2]).prod(-1), kind='stable')][:1]
    rows = rows[np.argsort(-result.person_scores[rows], kind='stable')][: limits.max_people]
    return take_people(result, rows)


def take_people(result: PoseResult, rows: npt.NDArray[np.intp]) -> PoseResult:
    """Some of the people of a result.

    Args:
        result: The result.
        rows: Their indices, in the order that they shall have.
    """
    return replace(
        result,
        keypoints=result.keypoints[rows],
        scores=result.scores[rows],
        boxes=result.boxes[rows],
        box_scores=result.box_scores[rows],
    )


def likely_people(result: PoseResult, limits: Limits, chances: bool = True) -> npt.NDArray[np.intp]:
    """Rows of the poses that are of somebody after one look, or may be after another; each person once.

    Args:
        result: One pose for each box that a detector found.
        limits: What is kept.
        chances: Whether keypoint scores are chances to be right, by a score map.

    Returns:
        Indices, the likeliest first.
    """
    worth = person_worth(result.scores, result.box_scores, result.boxes, chances)
    rows = _likely(result, worth, limits, _WORTH_A_LOOK * limits.least_scores(chances)[0])
    return rows[np.argsort(-worth[rows], kind='stable')]


def _likely(result: PoseResult, worth: npt.NDArray[np.floating], limits: Limits, least: float) -> npt.NDArray[np.intp]:
    rows = np.flatnonzero(worth >= least)
    poses = Poses(result.keypoints[rows], result.scores[rows], result.boxes[rows])
    return rows[distinct_people(poses, result.box_scores[rows], result.skeleton.sigmas, limits.same_person)]


def person_figures(
    keypoint_scores: npt.ArrayLike, box_scores: npt.ArrayLike, boxes: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """What the chance that a pose is of somebody is judged by.

    Args:
        keypoint_scores: (N, K) chances that keypoints are right.
        box_scores: (N,) of the detector, 0..1.
        boxes: (N, 4) x1, y1, x2, y2 in pixels of the photo.

    Returns:
        (N, 4): log of the box's score; log of its height in 128 pixels, at most 0; log odds of the mean of the best
        three keypoint scores, and of their median. Each grows with what it is of, so that less never looks like more.
    """
    scores, boxes = np.asarray(keypoint_scores, float), np.asarray(boxes, float).reshape(-1, 4)
    height = (boxes[:, 3] - boxes[:, 1]) / CHANCE.tall
    best, middle = np.sort(scores, -1)[:, -3:].mean(-1), np.median(scores, -1)
    odds = [np.log(share / (1 - share)) for share in np.clip((best, middle), 1e-3, 0.995)]
    return np.stack([*(np.log(np.clip(v, 1e-3, 1)) for v in (np.asarray(box_scores, float), height)), *odds], -1)


def person_chances(
    keypoint_scores: npt.ArrayLike, box_scores: npt.ArrayLike, boxes: npt.ArrayLike
) -> npt.NDArray[np.float32]:
    """The chance that a pose in a box that a detector found is within OKS 0.5 of somebody.

    Args:
        keypoint_scores: (N, K) chances that keypoints are right.
        box_scores: (N,) of the detector, 0..1.
        boxes: (N, 4) x1, y1, x2, y2 in pixels of the photo.

    Returns:
        float32 (N,).
    """
    odds = CHANCE.intercept + person_figures(keypoint_scores, box_scores, boxes) @ np.array(CHANCE.weights)
    return (1 / (1 + np.exp(-odds))).astype(np.float32)


def person_worth(
    keypoint_scores: npt.ArrayLike, box_scores: npt.ArrayLike, boxes: npt.ArrayLike, chances: bool
) -> npt.NDArray[np.float32]:
    """What `Limits.pose_threshold` is compared with.

    Args:
        keypoint_scores: (N, K).
        box_scores: (N,) of the detector, 0..1.
        boxes: (N, 4) x1, y1, x2, y2 in pixels of the photo.
        chances: Whether keypoint scores are chances to be right, by a score map.

    Returns:
        float32 (N,): `person_chances`, or `widehrnet_zoo.pose.results.person_scores` of scores that are peaks.
    """
    if chances:
        return person_chances(keypoint_scores, box_scores, boxes)
    return person_scores(keypoint_scores, box_scores)


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


def merge_looks(
    first: tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]],
    second: tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]],
    box: npt.NDArray[np.floating],
    sigmas: Sequence[float] | None,
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """One pose of two looks at a person.

    Args:
        first: Keypoints (K, 2) in pixels, and scores (K,).
        second: Likewise.
        box: (4,) x1, y1, x2, y2 around the person.
        sigmas: (K,) OKS falloffs; `None` takes 0.1 for each.

    Returns:
        Keypoints: where the looks agree, their mean, weighted by scores; elsewhere that of the surer look. And scores:
        where the looks agree, their mean, since the higher ones alone are too high; elsewhere how much surer one is.
    """
    falloffs = [_NO_SIGMA] * len(first[1]) if sigmas is None else sigmas
    area = float((box[2:] - box[:2]).prod())
    agree = keypoint_similarity(first[0], second[0], area, falloffs) > _AGREE
    weights = np.maximum(np.stack([first[1], second[1]]), 0)
    share = np.where(agree, weights[1] / np.maximum(weights.sum(0), 1e-9), weights[1] > weights[0])[:, None]
    scores = np.where(agree, (first[1] + second[1]) / 2, np.abs(first[1] - second[1]))
    return (1 - share) * first[0] + share * second[0], scores


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
