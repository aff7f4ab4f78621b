"""The one loop from photos to keypoints: everything that predicts goes through `stream`.

In go photos, each with or without the boxes of its people, and with or without the scores of the boxes. Out comes one
`Found` for each photo, in the order of the photos: its place, its image as it was read, and its `PoseResult`. A photo
without boxes is shown to the finder, if there is one. Without a finder the whole photo is one box, and where enough is
found in it, a second look at what was found gives the result. A photo with no people gives a result of none.

Photos are read and cropped in threads, ahead of the network; a forward pass takes the crops of several photos. At most
`2 * workers` photos are read ahead of those that the next forward pass needs. The iterable of photos is advanced by the
thread that takes the results, and by no other.

A photo that cannot be read, and boxes that cannot be those of their photo, raise `UserError` in their turn; with `skip`
that is called instead, and the stream goes on without a result for the photo. Nothing else is ever left out.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..pose.crops import box_views, check_boxes, crop_people
from ..pose.images import ImageSource, read_image, read_size
from ..pose.results import PoseResult
from ..pose.skeletons import Skeleton

__all__ = ['Finder', 'Forward', 'Found', 'Photo', 'stream']

Image = npt.NDArray[np.uint8]
Forward = Callable[[Image], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
"""Crops, uint8 (B, H, W, 3), to keypoints (B, K, 2) in pixels of the crop, and scores (B, K)."""
Finder = Callable[[Image], tuple[npt.ArrayLike, npt.ArrayLike]]
"""An image, uint8 (H, W, 3), to boxes (N, 4), x1, y1, x2, y2 in pixels, and their scores (N,)."""

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


class Found(NamedTuple):
    """What comes out.

    Attributes:
        place: Of the photo among those that went in, from 0.
        image: uint8 (H, W, 3), upright RGB; of a file of more than 64 megapixels a half, a third, ... of its sides.
        result: The people in it, in pixels of the photo as it is.
    """

    place: int
    image: Image
    result: PoseResult

    def __repr__(self) -> str:
        return f'Found({self.place}, {self.result!r})'


def stream(
    photos: Iterable[Photo],
    forward: Forward,
    skeleton: Skeleton,
    size: tuple[int, int],
    *,
    padding: float,
    batch_size: int = 16,
    finder: Finder | None = None,
    workers: int = 2,
    inside: bool = True,
    skip: Callable[[int, UserError], None] | None = None,
) -> Iterator[Found]:
    """Keypoints of the people in photos; what holds is said at the top of this module.

    Args:
        photos: What to look at.
        forward: The network, from crops to keypoints.
        skeleton: What its keypoints are.
        size: Height and width of its input.
        padding: Growth of a box to the crop.
        batch_size: Crops per forward pass.
        finder: Finds people in the photos that have no boxes.
        workers: Threads that read photos; 0 reads them in the thread that takes the results.
        inside: Refuse boxes that lie outside their photo or look like fractions of it.
        skip: Called with the place of a photo that fails and its error, instead of raising it.

    Yields:
        One `Found` for each photo that did not fail.

    Raises:
        UserError: If a photo cannot be read or its boxes are wrong.
    """

    def start(place: int, photo: Photo) -> _Job:
        job = _Job(place, photo, skeleton, size, padding, inside)
        if photo.boxes is not None:
            job.take(photo.boxes, photo.scores)
        elif finder is None:
            job.take_whole()
        return job

    jobs: deque[_Job] = deque()
    crops: deque[tuple[_Job, int, Image]] = deque()
    coming = _ahead(photos, start, workers)
    try:
        more = True
        while more or jobs:
            while more and len(crops) < batch_size and not (jobs and jobs[0].left == 0):
                entry = next(coming, None)
                if entry is None:
                    more = False
                    break
                place, get = entry
                try:
                    job = get()
                    if job.left < 0 and finder is not None:
                        job.take(*finder(job.image), shrunk=True)
                except UserError as error:
                    if skip is None:
                        raise
                    skip(place, error)
                    continue
                jobs.append(job)
                crops.extend((job, row, crop) for row, crop in enumerate(job.crops))
            if crops and jobs[0].left:
                batch = [crops.popleft() for _ in range(min(batch_size, len(crops)))]
                points, scores = forward(np.stack([crop for _, _, crop in batch]))
                for (job, row, _), point, score in zip(batch, points, scores, strict=True):
                    job.fill(row, point, score)
                    if job.left == 0 and job.look_again():
                        crops.append((job, 0, job.crops[0]))
            while jobs and jobs[0].left == 0:
                job = jobs.popleft()
                yield Found(job.place, job.image, job.result())
    finally:
        coming.close()


def _ahead(
    photos: Iterable[Photo], start: Callable[[int, Photo], '_Job'], workers: int
) -> Generator[tuple[int, Callable[[], '_Job']]]:
    """Jobs in the order of the photos, begun in threads before they are asked for."""
    if not workers:
        for place, photo in enumerate(photos):
            yield place, partial(start, place, photo)
        return
    begun: deque[tuple[int, Future[_Job]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for place, photo in enumerate(photos):
                begun.append((place, pool.submit(start, place, photo)))
                if len(begun) > 2 * workers:
                    first, future = begun.popleft()
                    yield first, future.result
            while begun:
                first, future = begun.popleft()
                yield first, future.result
        finally:
            for _, future in begun:
                future.cancel()


class _Job:
    """A photo on its way: its boxes, and what was found in them so far."""

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
        self.left = -1  # crops that are not done yet; -1 until the boxes are known
        self.again = False

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
        self._cut()

    def take_whole(self) -> None:
        """Cut the whole photo as one crop, to be looked at again."""
        height, width = self.image.shape[:2]
        self.take([[0, 0, width, height]], shrunk=True)
        self.again = True

    def _cut(self) -> None:
        self.views = box_views(self.boxes, self.size, self.padding)
        self.crops = crop_people(self.image, self.views, self.size)
        self.left = len(self.crops)

    def fill(self, row: int, points: npt.NDArray[np.float32], scores: npt.NDArray[np.float32]) -> None:
        view = self.views[row]
        self.keypoints[row] = points @ view[:, :2].T + view[:, 2]
        self.scores[row] = scores
        self.left -= 1

    def look_again(self) -> bool:
        """Turn to the box around what was found in the whole photo, if that makes a box."""
        if not self.again:
            return False
        self.again = False
        height, width = self.image.shape[:2]
        # a keypoint left out may lie outside the next view, a wrong one only makes it larger: the box takes unsure ones
        found = self.keypoints[0][self.scores[0] > _UNSURE]
        if (self.scores[0] > _SURE).sum() < _ENOUGH:
            return False
        low, high = found.min(0), found.max(0)
        margin = _MARGIN * (high - low)
        low, high = np.maximum(low - margin, 0), np.minimum(high + margin, (width, height))
        # a person smaller than that has nothing to show to a closer look
        if min(high - low) < 2 or max(high - low) < self.size[0] * _LEAST:
            return False
        self.boxes = np.concatenate([low, high])[None].astype(np.float64)
        self._cut()
        return True

    def result(self) -> PoseResult:
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
