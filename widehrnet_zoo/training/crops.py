"""Pre-decoded person crops in a memory map, so that training never waits for image files."""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..errors import UserError
from ..files import check_folder
from ..formats.fit import check_fit
from ..pose.crops import box_views, crop_people
from ..pose.images import read_image
from ..progress import begun_ahead
from .people import People

_logger = logging.getLogger(__name__)

Made = TypeVar('Made')


class CropCache:
    """Square crops around people, larger than the network's view so that augmentation has room.

    Attributes:
        people: Those whose image could be read.
        crops: uint8 (N, size, size, 3), in memory or mapped from a file; black where there is no photo.
        keypoints: float32 (N, K, 3), x and y in crop pixels and visibility.
        teacher: The same for a teacher's predictions, or `None`.
        boxes: float32 (N, 4), x1, y1, x2, y2 in crop pixels.

    Args:
        people: The people, in pixels of their images.
        crops: Their crops.
        origins: (N, 3), where the first pixel of each crop lies in its image, x and y, and the pixels between two.
    """

    def __init__(self, people: People, crops: npt.NDArray[np.uint8], origins: npt.NDArray[np.float64]):
        self.people, self.crops = people, crops
        corner, step = origins[:, None, :2], origins[:, None, 2:]

        def to_crop(points: npt.NDArray) -> npt.NDArray[np.float32]:
            xy = (points[..., :2] - corner) / step
            return np.concatenate((xy, points[..., 2:]), -1).astype(np.float32)

        self.keypoints = to_crop(self.people.keypoints)
        self.teacher = None if self.people.teacher is None else to_crop(self.people.teacher)
        self.boxes = to_crop(self.people.boxes.reshape(-1, 2, 2)).reshape(-1, 4)

    def __len__(self) -> int:
        return len(self.crops)

    @classmethod
    def _open(cls, folder: Path, people: People) -> 'CropCache':
        size = json.loads((folder / 'meta.json').read_text())['size']
        kept, origins = np.load(folder / 'kept.npy'), np.load(folder / 'origins.npy')
        crops = np.memmap(folder / 'crops.raw', np.uint8, 'r', shape=(len(kept), size, size, 3))
        return cls(people.part(kept), crops, origins)

    @classmethod
    def build(
        cls,
        people: People,
        images: str | Path,
        folder: str | Path,
        size: int,
        margin: float = 1.5,
        aspect: float = 3 / 4,
        max_bad: int = 20,
        workers: int = 2,
        progress: bool = True,
    ) -> 'CropCache':
        """Cut and store the crops of people, whole or not at all.

        Args:
            people: The people.
            images: Folder of the images.
            folder: Where caches are kept; one that was made from the same boxes, settings and image files (by their
                size and time) is opened, not rebuilt.
            size: Side of a stored crop in pixels.
            margin: Side of a stored crop over the height of the test-time crop.
            aspect: Width over height of the test-time crop.
            max_bad: Unreadable images to skip before giving up.
            workers: Threads that decode.
            progress: Show a bar.

        Raises:
            UserError: If more than `max_bad` images cannot be read, or the disk is full or cannot be written.
        """
        images, parent = Path(images), Path(folder)
        check_images(images)
        stamps: dict[str, Any] = dict.fromkeys(people.files)
        for file in stamps:
            with contextlib.suppress(OSError):  # a file that is not there is told of when it is read
                found = (images / file).stat()
                stamps[file] = found.st_size, found.st_mtime_ns
        key = json.dumps(
            [size, margin, aspect, str(images.resolve()), people.files, people.boxes.tolist(), people.sizes, stamps]
        )
        target = parent / f'{size}px-{hashlib.sha256(key.encode()).hexdigest()[:16]}'
        if (target / 'meta.json').exists():
            return cls._open(target, people)
        check_folder(parent, 'data.cache')
        parent.mkdir(parents=True, exist_ok=True)
        needed, free = len(people) * size * size * 3, shutil.disk_usage(parent).free
        if needed > free:
            raise UserError(
                f'The crops of {len(people)} people need {needed / 1e9:.2f} GB in {parent}; {free / 1e9:.2f} GB are '
                'free. Set data.cache to a folder on another disk, or data.crop_size to fewer pixels.'
            )
        # the test-time view of a box, then the square of `margin` times its height around the same centre
        maps = box_views(people.boxes, (size / margin, size / margin * aspect))  # type: ignore[arg-type]
        step = maps[:, 0, 0]
        maps[:, :, 2] = corners = (people.boxes[:, :2] + people.boxes[:, 2:]) / 2 - step[:, None] * size / 2

        def cut(image: npt.NDArray[np.uint8], rows: list[int]) -> npt.NDArray[np.uint8]:
            return crop_people(image, maps[rows], (size, size))

        kept: list[int] = []
        tmp = Path(tempfile.mkdtemp(dir=parent, prefix='building-'))
        try:
            # written in chunks: a full disk under a memory map would be a bus error, under a write it is an error to
            # name
            with open(tmp / 'crops.raw', 'wb') as raw:
                for rows, crops in each_image(people, images, cut, 'crops', max_bad, workers, progress):
                    kept += rows
                    raw.write(crops.tobytes())
            np.save(tmp / 'kept.npy', np.array(kept))
            np.save(tmp / 'origins.npy', np.column_stack((corners, step))[kept])
            (tmp / 'meta.json').write_text(json.dumps({'size': size}))
            try:
                os.rename(tmp, target)
            except OSError:
                # another process was quicker with the same cache
                if not (target / 'meta.json').exists():
                    raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise UserError(f'The disk of {parent} is full ({error.strerror}); nothing was kept there.') from error
            raise
        finally:
            shutil.rmtree(tmp, ignore_errors=True)
        return cls._open(target, people)


def check_images(folder: Path) -> None:
    """Refuse a folder of images that is not there."""
    if not folder.is_dir():
        raise UserError(f'{folder} is not a folder: expected the images of the labels there.')


def each_image(
    people: People,
    images: Path,
    work: Callable[[npt.NDArray[np.uint8], list[int]], Made],
    what: str,
    max_bad: int = 20,
    workers: int = 2,
    progress: bool = True,
) -> Iterator[tuple[list[int], Made]]:
    """Read the images of people in threads, a few ahead of their use, and make something of each.

    Args:
        people: The people.
        images: Folder of their images.
        work: Takes an image, uint8 (H, W, 3), and the places of its people.
        what: Name of the bar.
        max_bad: Images that cannot be read, or do not fit their labels, to skip before giving up.
        workers: Threads.
        progress: Show a bar.

    Yields:
        Places of the people on an image, and what was made of it.

    Raises:
        UserError: If more than `max_bad` images cannot be used, or none can.
    """
    by_file: dict[str, list[int]] = {}
    for i, file in enumerate(people.files):
        by_file.setdefault(file, []).append(i)

    def read(file: str) -> Made | UserError:
        rows = by_file[file]
        try:
            image = read_image(images / file)
            labelled = None if people.sizes is None else people.sizes[rows[0]]
            check_fit(images / file, (image.shape[1], image.shape[0]), labelled, people.boxes[rows])
            return work(image, rows)
        except UserError as error:
            return error

    bad, workers = 0, max(1, workers)
    with (
        contextlib.closing(begun_ahead(read, by_file, workers, 4 * workers)) as reading,
        tqdm(total=len(people), desc=what, unit='person', disable=not progress) as bar,
    ):
        for rows, get in zip(by_file.values(), reading, strict=True):
            found = get()
            bar.update(len(rows))
            if not isinstance(found, UserError):
                yield rows, found
                continue
            bad += 1
            _logger.warning('skipped: %s', found)
            if bad > max_bad:
                raise UserError(
                    f'{bad} images cannot be read, more than data.max_bad_images={max_bad}; the last: {found}'
                ) from found
            if bad == len(by_file):
                raise UserError(f'None of the {bad} images in {images} can be used; the last: {found}')
