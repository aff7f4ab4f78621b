"""From the frames of a video, one after the other, to the people in them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..detection import Detector, find_people, open_detector
from ..formats.boxes import BoxFile
from ..inference.estimator import PoseEstimator
from ..inference.people import Limits, choose_boxes, person_worth, take_people
from ..pose.results import PoseResult
from ..pose.skeletons import skeleton_of
from .follow import FollowConfig, Follower
from .one_euro import OneEuro, SmoothConfig

SMOOTH = SmoothConfig()


class VideoEstimator:
    """Finds, follows and smooths people, a frame at a time: `predict_video` for frames that come from elsewhere.

    Args:
        estimator: A `PoseEstimator`, or what is called like one: `estimator(image, boxes) -> PoseResult`.
        detector: Finds people; see `predict_video`.
        min_box_score: Detected boxes with a lower score are left out.
        limits: Which of the people found are followed; by default the estimator's own.
        follow: When people are found and lost.
        smooth: Settings of the 1 euro filter; `None` for none.
        name: What a file of boxes calls the video.
    """

    def __init__(
        self,
        estimator: Callable[..., PoseResult],
        *,
        detector: Detector | str | None = 'auto',
        min_box_score: float = 0.0,
        limits: Limits | None = None,
        follow: FollowConfig | None = None,
        smooth: SmoothConfig | None = SMOOTH,
        name: str = '',
    ):
        self._estimator, self._smooth, self._name = estimator, smooth, name
        self._limits: Limits = limits or getattr(estimator, 'limits', None) or Limits()
        self._min_score = max(min_box_score, self._limits.box_threshold or 0.0)
        chances = getattr(estimator, 'score_map', None) is not None
        least, _ = self._limits.least_scores(chances)
        self._follower = Follower(
            skeleton_of(estimator).sigmas,
            follow,
            lambda scores, box_score, box: bool(person_worth(scores[None], [box_score], box, chances) >= least),
        )
        self._detector = _open(detector, estimator, self._limits)
        self._frames = 0
        self._filters: dict[int, OneEuro] = {}
        self._seen: set[int] = set()

    @property
    def num_met(self) -> int:
        """Number of different people seen so far."""
        return len(self._seen)

    def _detect(self, image: npt.NDArray[np.uint8], index: int) -> tuple[npt.ArrayLike, npt.ArrayLike | None]:
        """New boxes, and scores to judge them by where a detector found them."""
        detector, name = self._detector, str(index)
        if detector is None:
            return ([[0, 0, image.shape[1], image.shape[0]]] if not self._follower.numbers else []), None
        if isinstance(detector, BoxFile):
            if not detector.knows(name):
                if index:
                    return [], None
                name = self._name
            return find_people(detector, image, name, self._min_score)[0], None
        if not self._follower.due(index):
            return [], None
        boxes, scores = find_people(detector, image, name, self._min_score)
        rows = choose_boxes(boxes, scores, self._limits)
        return boxes[rows], scores[rows]

    def __call__(self, image: npt.NDArray[np.uint8], time: float) -> tuple[PoseResult, list[int]]:
        """Find the people in the next frame.

        Args:
            image: uint8 (height, width, 3), RGB.
            time: Its time in seconds, later than that of the frame before.

        Returns:
            The people, and the number of each; 1 is the first who was met.
        """
        follower = self._follower
        height, width = image.shape[:2]
        detected, sure = self._detect(image, self._frames)
        self._frames += 1
        follower.meet(detected, 1 if self._limits.largest else self._limits.max_people, sure)
        boxes, numbers = follower.boxes, follower.numbers
        result = self._estimator(image, boxes)
        rows = follower.update(result.keypoints, result.scores, (width, height))
        chosen = [numbers[row] for row in rows]
        self._seen.update(chosen)
        self._filters = {n: f for n, f in self._filters.items() if n in follower.numbers}
        points = result.keypoints[rows].astype(float)
        if self._smooth is not None:
            for place, (row, number) in enumerate(zip(rows, chosen, strict=True)):
                diagonal = max(float(np.hypot(*(boxes[row, 2:] - boxes[row, :2]))), 1.0)
                filtered = self._filters.setdefault(number, OneEuro(self._smooth))
                points[place] = filtered(points[place], time, diagonal)
        return replace(take_people(result, rows), keypoints=points.astype(np.float32)), chosen


def _open(detector: Detector | str | None, estimator: Any, limits: Limits) -> Detector | None:
    if isinstance(estimator, PoseEstimator):
        return estimator.detector(detector, limits)
    if isinstance(detector, str):
        return None if detector == 'auto' else open_detector(detector, min_score=limits.box_threshold)
    return detector
