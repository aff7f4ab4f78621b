"""Whether labels are of the photos that they name: of their size, in their pixels, upright as they are."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..pose.crops import check_boxes
from ..pose.images import read_size
from .coco import CocoLabels


def check_fit(
    name: str | Path, size: tuple[int, int], labelled_size: tuple[int, int] | None, boxes: npt.ArrayLike = ()
) -> None:
    """Refuse labels that are not of a photo.

    Photos are read upright, as their EXIF orientation says: so do OpenCV and mmpose, and detectron2, which refuses
    labels of another size as well.

    Args:
        name: The photo, for the message.
        size: Its width and height, upright.
        labelled_size: Its width and height as the label file says; `None` if it does not.
        boxes: (N, 4) x1, y1, x2, y2, labelled in pixels; none by default.

    Raises:
        UserError: If the sizes differ, or a box lies wholly outside the photo, or the boxes are in fractions of it.
    """
    width, height = size
    if labelled_size is not None and tuple(labelled_size) != (width, height):
        said = f'{name} is {width}x{height} pixels upright, and its labels say {labelled_size[0]}x{labelled_size[1]}'
        if tuple(labelled_size) == (height, width):
            raise UserError(
                f'{said}: the EXIF orientation of a photo is followed, as by OpenCV and detectron2. If the labels are '
                'of the stored pixels, remove the orientation from the photo; if they are of the upright photo, '
                'correct width and height in the label file.'
            )
        raise UserError(
            f'{said}: was it resized after labelling? Use the photo that was labelled, or bring the labels to its size.'
        )
    try:
        check_boxes(boxes, size)
    except UserError as error:
        raise UserError(f'{name}: its labels do not fit: {error}') from error


def check_labels(labels: CocoLabels, folder: str | Path | None) -> None:
    """Check the people of a label file against their photos, of which only the heads are read.

    Args:
        labels: The labels.
        folder: Folder of the photos; without it, and for photos that are not there, the sizes in the label file count.

    Raises:
        UserError: If the labels of a photo do not fit it; the message names the photo.
    """
    by_image: dict[int | str, list[list[float]]] = {}
    for person in labels.people:
        x, y, w, h = person['bbox']
        if w > 0 and h > 0:
            by_image.setdefault(person['image_id'], []).append([x, y, x + w, y + h])
    for image_id, boxes in by_image.items():
        image = labels.images[image_id]
        labelled = labelled_size(image)
        path = None if folder is None else Path(folder) / image['file_name']
        size = None if path is None else read_size(path)
        if size or labelled:
            check_fit(path or image['file_name'], size or labelled, labelled, np.array(boxes))  # type: ignore[arg-type]


def labelled_size(image: dict) -> tuple[int, int] | None:
    """Width and height that an image entry of a label file says, or `None`."""
    width, height = image.get('width'), image.get('height')
    return (int(width), int(height)) if width and height else None
