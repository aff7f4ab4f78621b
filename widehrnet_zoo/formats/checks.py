"""Numbers from files of others, or the reason why they are none."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError


def numbers(value: Any, shape: tuple[int, ...], name: str) -> npt.NDArray[np.float32]:
    """Nested lists of numbers as an array.

    Args:
        value: Lists, arrays or a number.
        shape: What is expected.
        name: What this is, for the error.

    Returns:
        float32 of the shape.

    Raises:
        UserError: If the shape differs, or something in it is not a finite number, as text and booleans are not.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, object)
    fits = array.shape == shape
    if fits and array.dtype.kind in 'iuf':
        with np.errstate(over='ignore'):
            single = array.astype(np.float32)
        if np.isfinite(single).all():
            return single
        raise UserError(f'{name}: there are NaN or infinite values; expected finite numbers.')
    expected = f'{" x ".join(map(str, shape))} numbers' if shape else 'a number'
    found = f'{" x ".join(map(str, array.shape))} values' if array.size and not fits else 'something else'
    raise UserError(f'{name}: expected {expected}, found {found}.')


def extents(keypoints: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Boxes around keypoints.

    Args:
        keypoints: (N, K, 2); NaN is left out.

    Returns:
        float32 (N, 4) x1, y1, x2, y2; NaN where a person has no keypoint.
    """
    boxes = np.full((len(keypoints), 4), np.nan, np.float32)
    for box, points in zip(boxes, keypoints, strict=True):
        known = points[np.isfinite(points).all(1)]
        if len(known):
            box[:2], box[2:] = known.min(0), known.max(0)
    return boxes
