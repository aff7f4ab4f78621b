"""The one loop from photos to keypoints: everything that predicts goes through `stream`.

In go photos, each with or without the boxes of its people, and with or without the scores of the boxes. Out comes one
`Found` for each photo, in the order of the photos: its place, its image as it was read, and its `PoseResult`. Photos
without boxes are shown to the finder, if there is one, several at a time, and `keep` says which of the people that it
found stay. A finder's boxes are rough: a second look, at the mirrored crop of the box around the keypoints of the
first, makes the pose surer. Without a finder the whole photo is one box, and what is found in it is looked at again
instead. A photo with no people gives a result of none.

Photos are read and cropped in threads, ahead of the network; a forward pass takes the crops of several photos. At most
`2 * workers` photos are read ahead of those that the next forward pass, or the finder, needs. The iterable of photos is
advanced by the thread that takes the results, and by no other.

A photo that cannot be read, and boxes that cannot be those of their photo, raise `UserError` in their turn; with `skip`
that is called instead, and the stream goes on without a result for the photo. Nothing else is ever left out.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..pose.results import PoseResult
from ..pose.skeletons import Skeleton
from ..progress import begun_ahead
from .photo import Image, Photo, PhotoJob

Forward = Callable[[Image], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
"""Crops, uint8 (B, H, W, 3), to keypoints (B, K, 2) in pixels of the crop, and scores (B, K)."""
Finder: TypeAlias = Callable[[list[Image], list[str | None]], Sequence[tuple[npt.ArrayLike, npt.ArrayLike]]]
"""Images, uint8 (H, W, 3), and their files, to the boxes of each, (N, 4), x1, y1, x2, y2 in pixels, and scores (N,)."""

_TOGETHER = 8
"""Photos that the finder is given at once, at most."""


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


def photos_of(images: Iterable[Any], boxes: Iterable[Any] | None, scores: Iterable[Any] | None) -> Iterator[Photo]:
    """Images with the boxes and the scores given for each.

    Raises:
        UserError: If there are fewer, or more of a list of them.
    """
    given = {'boxes': boxes, 'box_scores': scores}
    for name, values in given.items():
        if isinstance(values, Sized) and isinstance(images, Sized) and len(values) != len(images):
            raise UserError(f'For {len(images)} images give {name} as a list of {len(images)}, one entry for each.')
    missing = object()
    entries = {name: iter(values) for name, values in given.items() if values is not None}
    for count, image in enumerate(images):
        row = {name: next(values, missing) for name, values in entries.items()}
        for name, value in row.items():
            if value is missing:
                raise UserError(
                    f'There are {count} {name} for more images: give one entry for each, None where there are none.'
                )
        yield Photo(image, row.get('boxes'), row.get('box_scores'))


def stream(
    photos: Iterable[Photo],
    forward: Forward,
    skeleton: Skeleton,
    size: tuple[int, int],
    *,
    padding: float,
    batch_size: int = 16,
    finder: Finder | None = None,
    keep: Callable[[PoseResult], PoseResult] | None = None,
    again: Callable[[PoseResult], npt.NDArray[np.intp]] | None = None,
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
        finder: Finds people in the photos that have no boxes, in at most `batch_size` photos at once.
        keep: What stays of the people that the finder found.
        again: Which of those people, before `keep`, may be somebody, the likeliest first. Of these the first five are
            looked at again, in the box around their keypoints; the pose is that of both looks.
        workers: Threads that read photos; 0 reads them in the thread that takes the results.
        inside: Refuse boxes that lie outside their photo or look like fractions of it.
        skip: Called with the place of a photo that fails and its error, instead of raising it.

    Yields:
        One `Found` for each photo that did not fail.

    Raises:
        UserError: If a photo cannot be read or its boxes are wrong.
    """

    def start(entry: tuple[int, Photo]) -> PhotoJob:
        place, photo = entry
        if not isinstance(photo, Photo):
            raise UserError(f'look takes Photo(image, boxes, scores), not {type(photo).__name__}; stream takes images.')
        job = PhotoJob(place, photo, skeleton, size, padding, inside)
        if photo.boxes is not None:
            job.take(photo.boxes, photo.scores)
        elif finder is None:
            job.take_whole()
        return job

    jobs: deque[PhotoJob] = deque()
    unseen: list[PhotoJob] = []
    crops: deque[tuple[PhotoJob, int, Image]] = deque()
    together = min(batch_size, _TOGETHER)
    reading = begun_ahead(start, enumerate(photos), workers, 2 * workers)
    coming = enumerate(reading)

    def fail(place: int, error: UserError) -> None:
        if skip is None:
            raise error
        skip(place, error)

    def find(batch: list[PhotoJob]) -> None:
        assert finder is not None
        try:
            # of a photo that was shrunk the finder sees other pixels than its file has: a file of boxes must not answer
            paths = [job.path if job.full == job.image.shape[1::-1] else None for job in batch]
            boxes = finder([job.image for job in batch], paths)
        except UserError as error:
            if len(batch) == 1:
                jobs.remove(batch[0])
                fail(batch[0].place, error)
                return
            # one photo must not cost the others theirs
            for job in batch:
                find([job])
            return
        for job, found in zip(batch, boxes, strict=True):
            job.take_found(*found, again)
            crops.extend((job, row, crop) for row, crop in enumerate(job.crops))

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
                except UserError as error:
                    fail(place, error)
                    continue
                jobs.append(job)
                if job.left < 0:
                    unseen.append(job)
                else:
                    crops.extend((job, row, crop) for row, crop in enumerate(job.crops))
                # photos with boxes among the others must not pile up behind them
                if unseen and (len(unseen) >= together or len(jobs) >= 2 * together):
                    find(unseen)
                    unseen = []
            if unseen and not more:
                find(unseen)
                unseen = []
            if crops and jobs[0].left:
                batch = [crops.popleft() for _ in range(min(batch_size, len(crops)))]
                points, scores = forward(np.stack([crop for _, _, crop in batch]))
                for (job, row, _), point, score in zip(batch, points, scores, strict=True):
                    job.fill(row, point, score)
                    if job.left == 0:
                        crops.extend((job, closer, crop) for closer, crop in job.look_again())
            while jobs and jobs[0].left == 0:
                job = jobs.popleft()
                result = job.result()
                yield Found(job.place, job.image, keep(result) if keep and job.found else result)
    finally:
        reading.close()
