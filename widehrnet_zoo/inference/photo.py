"""One photo on its way through the stream: its boxes, its crops, the second look, its result."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..pose.crops import box_views, check_boxes, crop_people, mirror_views
from ..pose.images import ImageSource, read_image, read_size
from ..pose.results import PoseResult, person_scores
from ..pose.skeletons import Skeleton
from .people import merge_looks

Image = npt.NDArray[np.uint8]

_LOOKS = 5
"""Second looks in a photo, at most: those of a crowd would take as long as the first."""

_GRID = 8
"""Found boxes are cut out on a grid of an eighth of a pixel, so that the last digits of a runtime change no crop."""

# a second look needs three keypoints that are sure; its box takes the unsure ones as well, and a margin
_SURE = 0.2
_UNSURE = 0.1
_ENOUGH = 3
_MARGIN = 0.1
# and at least this share of the input's height in pixels of the photo
_LEAST = 1 / 16


LARGE = 64_000_000
"""Pixels of a file above which it is shrunk as it is read: a photo of 108 megapixels takes a gigabyte as it is."""


class Photo(NamedTuple):
    """What goes in.

    Attributes:
        image: As `read_image` takes it.
        boxes: (4,) or (N, 4), x1, y1, x2, y2 in pixels of the upright image, or None.
        scores: (N,) of the boxes, or None for 1.
    """

    image: ImageSource
    boxes: Any = None
    scores: Any = None


class PhotoJob:
    """A photo on its way: its boxes, and what was found in them so far.

    Attributes:
        crops: uint8 (N, H, W, 3), those of the first look.
        left: Crops that the network has not seen yet; -1 until the boxes are known.
        found: Whether a finder found the boxes.
    """

    def __init__(
        self, place: int, photo: Photo, skeleton: Skeleton, size: tuple[int, int], padding: float, inside: bool
    ):
        self.place, self.skeleton, self.size, self.padding, self.inside = place, skeleton, size, padding, inside
        if photo.boxes is None and photo.scores is not None:
            raise UserError('Scores of boxes are given without boxes.')
        of_file = isinstance(photo.image, (str, Path, bytes))
        self.image = read_image(photo.image, shrink_above=LARGE if of_file else None)
        height, width = self.image.shape[:2]
        self.full = width, height
        if of_file and width * height > LARGE / 16:
            # perhaps of a larger photo
            self.full = read_size(photo.image) or self.full  # type: ignore[arg-type]
        self.shrink = np.divide(self.full, (width, height))
        self.path = str(photo.image) if isinstance(photo.image, (str, Path)) else None
        self.left = -1
        self.again: Callable[[PoseResult], npt.NDArray[np.intp]] | None = None  # which rows are looked at again
        self.closer: npt.NDArray[np.float64] | None = None  # the boxes of a second look
        self.found = False

    def take(self, boxes: Any, scores: Any = None, shrunk: bool = False) -> None:
        """Cut the crops of boxes, which are of the photo's size, or of the shrunk image's."""
        height, width = self.image.shape[:2]
        if self.inside:
            boxes = check_boxes(boxes, (width, height) if shrunk else self.full)
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        if not shrunk:
            boxes = boxes / np.tile(self.shrink, 2)
        people = len(boxes)
        try:
            certain = np.ones(people) if scores is None else np.asarray(scores, np.float64).reshape(-1)
        except (TypeError, ValueError) as error:
            raise UserError(f'box_scores must be numbers: {error}.') from error
        if len(certain) != people or not np.isfinite(certain).all():
            raise UserError(f'{people} boxes need {people} finite box_scores.')
        self.boxes, self.box_scores = boxes, certain.astype(np.float32)
        self.keypoints = np.zeros((people, self.skeleton.num_keypoints, 2), np.float32)
        self.scores = np.zeros((people, self.skeleton.num_keypoints), np.float32)
        self._view(boxes)
        self.crops = crop_people(self.image, self.views, self.size)
        self.left = len(self.crops)

    def take_found(
        self,
        boxes: npt.ArrayLike,
        scores: npt.ArrayLike,
        again: Callable[[PoseResult], npt.NDArray[np.intp]] | None,
    ) -> None:
        """Cut the crops of boxes that a finder found, which lie in the photo."""
        self.inside, self.found = False, True
        self.take(boxes, scores, shrunk=True)
        self.again = again

    def take_whole(self) -> None:
        """Cut the whole photo as one crop, to be looked at again."""
        height, width = self.image.shape[:2]
        self.take([[0, 0, width, height]], shrunk=True)
        self.again = lambda _: np.arange(1)

    def _view(self, boxes: npt.NDArray[np.float64]) -> None:
        if self.found:
            boxes = np.round(boxes * _GRID) / _GRID
        self.views = box_views(boxes, self.size, self.padding)

    def fill(self, row: int, points: npt.NDArray[np.float32], scores: npt.NDArray[np.float32]) -> None:
        """Take what the network says of a crop: keypoints (K, 2) in pixels of the crop, and scores (K,)."""
        self.left -= 1
        view = self.views[row]
        points = points @ view[:, :2].T + view[:, 2]
        if self.closer is not None:
            if self.mirrored:
                points, scores = (v[self.skeleton.flip_order] for v in (points, scores))
            # of the same box, so that the keypoints decide; what a whole photo shows of a person is too rough to count
            first, second = person_scores([self.scores[row], scores], [1, 1])
            if second >= first or not self.found:
                self.boxes[row] = self.closer[row]
            if self.found:
                looks = (self.keypoints[row], self.scores[row]), (points, scores)
                points, scores = merge_looks(*looks, self.boxes[row], self.skeleton.sigmas)
        self.keypoints[row] = points
        self.scores[row] = scores

    @property
    def mirrored(self) -> bool:
        """Whether a second look sees the mirror image: it errs elsewhere than the first, as in the flip test."""
        return self.found and bool(self.skeleton.flip_pairs)

    def look_again(self) -> list[tuple[int, Image]]:
        """Turn to the boxes around what was found, where that makes a box: rows and crops of them."""
        if self.again is None:
            return []
        likely, self.again = self.again(self.result()), None
        # a pose that is dropped here must not win later, because it was looked at once and is the surer for it
        for name in ('boxes', 'box_scores', 'keypoints', 'scores'):
            setattr(self, name, getattr(self, name)[likely])
        closer, rows = self.boxes.copy(), []
        for row in range(min(len(likely), _LOOKS)):
            box = self._around(row)
            if box is not None:
                closer[row] = box
                rows.append(row)
        if not rows:
            return []
        self.closer = closer
        self._view(closer)
        if self.mirrored:
            self.views = mirror_views(self.views, self.size)
        self.left = len(rows)
        return list(zip(rows, crop_people(self.image, self.views[rows], self.size), strict=True))

    def _around(self, row: int) -> npt.NDArray[np.float64] | None:
        height, width = self.image.shape[:2]
        # a keypoint left out may lie outside the next view, a wrong one only makes it larger: the box takes unsure ones
        found = self.keypoints[row][self.scores[row] > _UNSURE]
        if (self.scores[row] > _SURE).sum() < _ENOUGH:
            return None
        low, high = found.min(0), found.max(0)
        margin = _MARGIN * (high - low)
        low, high = np.maximum(low - margin, 0), np.minimum(high + margin, (width, height))
        # a person smaller than that has nothing to show to a closer look
        if min(high - low) < 2 or max(high - low) < self.size[0] * _LEAST:
            return None
        return np.concatenate([low, high]).astype(np.float64)

    def result(self) -> PoseResult:
        """What was found so far, in pixels of the photo."""
        keypoints, boxes = self.keypoints, self.boxes
        if (self.shrink != 1).any():
            # pixel centres: those of the shrunk image are between those of the photo
            keypoints = ((keypoints + 0.5) * self.shrink - 0.5).astype(np.float32)
            boxes = boxes * np.tile(self.shrink, 2)
        return PoseResult(
            keypoints=keypoints,
            scores=self.scores,
            boxes=boxes.astype(np.float32),
            box_scores=self.box_scores,
            skeleton=self.skeleton,
            image_size=self.full,
            path=self.path,
        )
