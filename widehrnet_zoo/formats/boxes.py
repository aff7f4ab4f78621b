"""A file of boxes in a detector's place."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..files import read_json
from .coco import are_numbers, is_id

_PERSON = 1
"""Category of people in COCO detections."""


class BoxFile:
    """Boxes that were found before, by the photo's name.

    Two forms are read:

    - `{"a.jpg": [[x1, y1, x2, y2, score], ...], ...}`, corners in pixels, the score optional (1). The names may be
      whole paths, their ends (`b/a.jpg`, `a.jpg`), or, for a video, frame numbers. A photo that is not named is an
      error, `[]` says that nobody is there.
    - COCO detections: `[{"image_id": ..., "bbox": [x, y, width, height], "score": ..., "category_id": 1}, ...]`, where
      the id is the file name, or the number that its stem is (`000000000139.jpg` is 139). A photo without an entry
      has nobody; other categories are left out.

    Args:
        path: The JSON.

    Raises:
        UserError: If the file has another form; the message names the entry.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._boxes: dict[str | int, list[list[float]]] = {}
        content = read_json(path)
        self._complete = isinstance(content, dict)
        entries: Iterable[tuple[Any, Any]]
        if isinstance(content, dict):
            entries = ((name, box) for name, boxes in content.items() for box in self._list(name, boxes))
            self._boxes = {name: [] for name in content}
        elif isinstance(content, list):
            entries = (
                self._detection(i, entry)
                for i, entry in enumerate(content)
                if not isinstance(entry, dict) or entry.get('category_id', _PERSON) == _PERSON
            )
        else:
            raise UserError(f'{path} is not a file of boxes: expected names with boxes, or COCO detections.')
        for name, box in entries:
            if not are_numbers(box) or len(box) not in (4, 5):
                raise UserError(f'{path}: a box of {name!r} is {box!r}; expected four numbers and, at most, a score.')
            self._boxes.setdefault(name, []).append([*box, 1.0][:5])
        # an empty list is what a detector writes that found nobody
        if not self._boxes and content != []:
            raise UserError(f'{path} has no box of a person in it, and names no photo as one of nobody.')

    def _list(self, name: str, boxes: Any) -> list[Any]:
        if not isinstance(boxes, list):
            raise UserError(f'{self.path}: {name!r} has {boxes!r}; expected a list of boxes.')
        return boxes

    def _detection(self, index: int, entry: Any) -> tuple[str | int, list[Any]]:
        if not isinstance(entry, dict) or not is_id(entry.get('image_id')) or not isinstance(entry.get('bbox'), list):
            raise UserError(f'{self.path}: entry {index} lacks "image_id" or "bbox"; expected COCO detections.')
        try:
            x, y, w, h = entry['bbox']
            return entry['image_id'], [x, y, x + w, y + h, entry.get('score', 1.0)]
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f'{self.path}: entry {index} has the bbox {entry["bbox"]!r}; expected 4 numbers.'
            ) from error

    def of_photo(self, name: str | None) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Boxes of a photo.

        Args:
            name: Its path, or the name that the file has for it.

        Returns:
            (N, 4) x1, y1, x2, y2 in pixels, and scores (N,).

        Raises:
            UserError: If the file cannot know the photo.
        """
        if name is None:
            raise UserError(f'{self.path} knows boxes by the names of photos, and this image has none.')
        key = self._key(name)
        if key is not None:
            return self._split(self._boxes[key])
        if not self._boxes:
            return self._split([])
        other = next(iter(self._boxes))
        if self._complete or isinstance(other, str) or not Path(name).stem.isdecimal():
            raise UserError(f'{self.path} has no boxes for {name}; it has {len(self._boxes)} photos, one is {other!r}.')
        return self._split([])

    def check(self, names: Iterable[str]) -> None:
        """Refuse photos that the file cannot tell apart.

        Args:
            names: Paths of all the photos.

        Raises:
            UserError: If two have the same boxes, by a name without its folder.
        """
        seen: dict[str | int, str] = {}
        for name in names:
            key = self._key(name)
            if key is not None and seen.setdefault(key, name) != name:
                raise UserError(
                    f'{self.path} has the boxes of one {key!r}, and {seen[key]} and {name} are both called so: put the '
                    'folders into the names of the file.'
                )

    def knows(self, name: str) -> bool:
        """Whether the file names a photo."""
        return self._key(name) is not None

    def _key(self, name: str) -> str | int | None:
        path = Path(name)
        within = [Path(*path.parts[i:]).as_posix() for i in range(len(path.parts))]
        keys: list[str | int] = [name, *within, path.stem]
        if path.stem.isdecimal():
            keys.append(int(path.stem))
        return next((key for key in keys if key in self._boxes), None)

    def __call__(self, image: Any, /) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Boxes of a photo given by its path; pixels have no name, so an array is refused."""
        return self.of_photo(str(image) if isinstance(image, (str, Path)) else None)

    @staticmethod
    def _split(rows: list[list[float]]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        values = np.array(rows, np.float32).reshape(-1, 5)
        return values[:, :4], values[:, 4]
