"""Following people from frame to frame by their keypoints, without a tracker."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..inference.people import Poses, pose_likeness
from ..pose.crops import overlaps


@dataclass(frozen=True)
class FollowConfig:
    """When people are found and lost.

    Attributes:
        detect_every: Frames between looks of the detector for new people; 0 looks only when nobody is followed.
        min_score: A person whose mean keypoint score is lower is not seen in a frame.
        keypoint_score: Keypoints with a lower score do not count in a person's box.
        patience: Frames that somebody may be unseen before being given up.
        same_box: IoU from which a detected box is of somebody who is followed already.
        same_pose: `pose_likeness` from which two followed people are one; the one met later goes.
        growth: The box of the next frame: the keypoints' extent, this share of it larger on each side.

    Raises:
        UserError: If a number is negative.
    """

    detect_every: int = 15
    min_score: float = 0.25
    keypoint_score: float = 0.2
    patience: int = 8
    same_box: float = 0.3
    same_pose: float = 0.7
    growth: float = 0.1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise UserError(f'{name} must be at least 0, not {value}.')


@dataclass
class _Person:
    number: int
    box: npt.NDArray[np.float64]
    box_score: float | None = None
    frames: int = 0
    unseen: int = 0
    keypoints: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    scores: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))


class Follower:
    """Who is where.

    Args:
        sigmas: (K,) OKS falloffs of the keypoints; `None` takes 0.1 for each.
        config: When people are found and lost.
        is_somebody: Says of what is first seen in a box, by its keypoint scores (K,), the box's score and the box,
            whether that is a person; `None` takes all.
    """

    def __init__(
        self,
        sigmas: Sequence[float] | None = None,
        config: FollowConfig | None = None,
        is_somebody: Callable[[npt.NDArray[np.float64], float, npt.NDArray[np.float64]], bool] | None = None,
    ):
        self.config = config or FollowConfig()
        self._sigmas, self._is_somebody = sigmas, is_somebody
        self._people: list[_Person] = []
        self._met = 0

    @property
    def boxes(self) -> npt.NDArray[np.float64]:
        """(N, 4) where to look for each person in the next frame, x1, y1, x2, y2 in pixels."""
        return np.array([p.box for p in self._people]).reshape(-1, 4)

    @property
    def numbers(self) -> list[int]:
        """The number of each person, in the order of `boxes`; 1 is the first who was met."""
        return [p.number for p in self._people]

    def due(self, frame: int) -> bool:
        """Whether the detector is to look at a frame."""
        every = self.config.detect_every
        return not self._people or (every > 0 and frame % every == 0)

    def meet(self, boxes: npt.ArrayLike, most: int | None = None, scores: npt.ArrayLike | None = None) -> None:
        """Add those detected people who are not followed yet.

        Somebody unseen at the moment takes over the detected box.

        Args:
            boxes: (N, 4) x1, y1, x2, y2 in pixels.
            most: The most people to follow at a time; `None` for all.
            scores: (N,) the detector's; `None` for boxes that are taken as they are.
        """
        boxes = np.asarray(boxes, float).reshape(-1, 4)
        certain = [None] * len(boxes) if scores is None else np.asarray(scores, float).tolist()
        for box, score in zip(boxes, certain, strict=True):
            alike = overlaps(box, self.boxes)
            if len(alike) and alike.max() >= self.config.same_box:
                person = self._people[int(alike.argmax())]
                if person.unseen:
                    person.box, person.frames = box, 0
                continue
            if most is not None and len(self._people) >= most:
                continue
            self._met += 1
            self._people.append(_Person(self._met, box, score))

    def update(
        self, keypoints: npt.ArrayLike, scores: npt.ArrayLike, image_size: tuple[int, int]
    ) -> npt.NDArray[np.intp]:
        """Take in what was seen at `boxes`.

        Args:
            keypoints: (N, K, 2) in pixels, in the order of `boxes`.
            scores: (N, K).
            image_size: Width and height of the frame.

        Returns:
            Indices of the rows that show somebody; the others are of nobody or of somebody seen in another row.
        """
        keypoints, scores = np.asarray(keypoints, float), np.asarray(scores, float)
        seen = []
        for row, person in enumerate(self._people):
            box = self._box(keypoints[row], scores[row], person, image_size)
            if box is None or not (person.keypoints.size or self._passes(person, scores[row])):
                person.unseen += 1
                continue
            person.box, person.keypoints, person.scores = box, keypoints[row], scores[row]
            person.unseen = 0
            person.frames += 1
            seen.append(row)
        doubles = self._doubles(seen)
        gone = {row for row, p in enumerate(self._people) if p.unseen > self.config.patience or row in doubles}
        # somebody never seen since being met was nobody
        gone |= {row for row, p in enumerate(self._people) if p.unseen and not p.keypoints.size}
        kept = [row for row in seen if row not in gone]
        self._people = [p for row, p in enumerate(self._people) if row not in gone]
        return np.array(kept, np.intp)

    def _passes(self, person: _Person, scores: npt.NDArray[np.float64]) -> bool:
        if self._is_somebody is None or person.box_score is None:
            return True
        return self._is_somebody(scores, person.box_score, person.box)

    def _box(
        self,
        keypoints: npt.NDArray[np.float64],
        scores: npt.NDArray[np.float64],
        person: _Person,
        image_size: tuple[int, int],
    ) -> npt.NDArray[np.float64] | None:
        sure = keypoints[scores >= self.config.keypoint_score]
        if scores.mean() < self.config.min_score or not len(sure):
            return None
        low, high = sure.min(0), sure.max(0)
        middle, size = (low + high) / 2, (high - low) * (1 + 2 * self.config.growth)
        if person.frames:
            # when keypoints drop out for a frame, the box must not collapse onto the rest
            size = np.maximum(size, 0.8 * (person.box[2:] - person.box[:2]))
        if size.max() < 4 or (middle < 0).any() or (middle > image_size).any():
            return None
        size = np.maximum(size, size.max() / 4)
        return np.concatenate([middle - size / 2, middle + size / 2])

    def _doubles(self, rows: list[int]) -> set[int]:
        gone: set[int] = set()
        by_age = sorted(rows, key=lambda row: self._people[row].number)
        for place, row in enumerate(by_age):
            if row in gone:
                continue
            one, others = self._people[row], [self._people[other] for other in by_age[place + 1 :]]
            if others:
                alike = pose_likeness(_poses(others), _poses([one]), self._sigmas)
                gone |= {
                    other for other, a in zip(by_age[place + 1 :], alike, strict=True) if a >= self.config.same_pose
                }
        return gone


def _poses(people: list[_Person]) -> Poses:
    return Poses(
        np.stack([p.keypoints for p in people]), np.stack([p.scores for p in people]), np.stack([p.box for p in people])
    )
