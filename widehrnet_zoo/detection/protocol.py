"""What a detector is, and the check of what one says."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..formats.boxes import BoxFile

Boxes = npt.NDArray[np.float32]


class Detector(Protocol):
    """Finds people in an image."""

    def __call__(self, image: npt.NDArray[np.uint8], /) -> tuple[Any, Any]:
        """Find people.

        Args:
            image: uint8 (height, width, 3), RGB.

        Returns:
            Boxes (N, 4), x1, y1, x2, y2 in pixels, and scores (N,); arrays or tensors, in any order.
        """
        ...


@runtime_checkable
class BatchDetector(Protocol):
    """A detector that can look at several images at once: `find` takes them, and gives for each what a call gives."""

    def __call__(self, image: npt.NDArray[np.uint8], /) -> tuple[Any, Any]:
        """Find people; see `Detector`."""
        ...

    def find(self, images: Sequence[npt.NDArray[np.uint8]], /) -> Sequence[tuple[Any, Any]]:
        """Find people in each of several images."""
        ...


def find_people(
    detector: Detector, image: npt.NDArray[np.uint8], path: str | None = None, min_score: float = 0.0
) -> tuple[Boxes, Boxes]:
    """Boxes of the people in an image, checked and clipped to it.

    Args:
        detector: Any detector; a `BoxFile` is asked by the photo's name.
        image: uint8 (height, width, 3), RGB.
        path: The photo's file, or the name that a file of boxes has for it.
        min_score: Lower boxes are left out.

    Returns:
        float32 (N, 4), x1, y1, x2, y2 in pixels, and float32 (N,) scores, the highest first. Boxes with no pixel in
        the image are left out.

    Raises:
        UserError: If the detector gives other things than boxes and scores, or a file of boxes does not know the photo.
    """
    return _checked(detector.of_photo(path) if isinstance(detector, BoxFile) else detector(image), image, min_score)


def find_people_in(
    detector: Detector,
    images: Sequence[npt.NDArray[np.uint8]],
    paths: Sequence[str | None],
    min_score: float = 0.0,
) -> list[tuple[Boxes, Boxes]]:
    """`find_people` of several images, which a `BatchDetector` looks at together.

    Args:
        detector: Any detector.
        images: uint8 (height, width, 3), RGB, each of its own size.
        paths: The photos' files.
        min_score: Lower boxes are left out.

    Returns:
        Boxes and scores of each image.

    Raises:
        UserError: As `find_people`.
    """
    if isinstance(detector, BoxFile) or not isinstance(detector, BatchDetector):
        return [find_people(detector, *each, min_score) for each in zip(images, paths, strict=True)]
    found = detector.find(images)
    if len(found) != len(images):
        raise UserError(f'The detector gave {len(found)} answers for {len(images)} images.')
    return [_checked(each, image, min_score) for each, image in zip(found, images, strict=True)]


def _checked(found: Any, image: npt.NDArray[np.uint8], min_score: float) -> tuple[Boxes, Boxes]:
    try:
        boxes, scores = (_array(v) for v in found)
    except (TypeError, ValueError) as error:
        raise UserError(f'The detector must give boxes and scores; it gave {type(found).__name__}: {error}.') from error
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise UserError(f'The detector must give boxes (N, 4) and scores (N,), not {boxes.shape} and {scores.shape}.')
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise UserError('The detector gave a box or a score that is not a finite number.')
    if (boxes[:, 2:] < boxes[:, :2]).any():
        raise UserError(
            f'The detector gave the box {boxes[(boxes[:, 2:] < boxes[:, :2]).any(1)][0].tolist()}; expected corners '
            'x1, y1, x2, y2 with x2 >= x1 and y2 >= y1 (x, y, width, height is another form).'
        )
    height, width = image.shape[:2]
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    kept = (boxes[:, 2] - boxes[:, 0] >= 1) & (boxes[:, 3] - boxes[:, 1] >= 1) & (scores >= min_score)
    order = np.flatnonzero(kept)[np.argsort(-scores[kept], kind='stable')]
    return boxes[order], scores[order]


def _array(values: Any) -> Boxes:
    if hasattr(values, 'detach'):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, np.float32)
