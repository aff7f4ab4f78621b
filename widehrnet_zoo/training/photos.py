"""Whole photos with the boxes of the people in them, to teach a person finder.

A photo is stored as a person is whose box is the whole photo, in a square around it; its own boxes are the points of
that person, two corners each, with the kind of the box for their visibility. So caches and packs serve both.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..formats.coco import CocoLabels, are_numbers, read_labels
from ..pose.crops import PADDING
from ..pose.skeletons import Skeleton
from .box_loss import NOBODY, PERSON, UNSURE
from .crops import CropCache
from .people import People

MARGIN = 1 / PADDING
"""Margin of a crop that is the photo and no more, for it takes the padding of people's boxes back."""


def read_photos(path: str | Path, sample_field: str | None = None) -> People:
    """Read COCO boxes; keypoints are not needed, and photos without people teach what nobody looks like.

    Args:
        path: The JSON. Annotations with `iscrowd` are regions in which nothing is learnt.
        sample_field: Field of the images with a number above 0, how often a photo is to come.

    Raises:
        UserError: If the file is broken, an image has no size, or nobody is labelled.
    """
    labels = read_labels(path, keypoints=False)
    rows: dict[int | str, list[tuple[tuple[float, ...], int]]] = {image_id: [] for image_id in labels.images}
    for annotation in labels.annotations:
        image = labels.images[annotation['image_id']]
        x, y, w, h = annotation['bbox']
        box = (max(0, x), max(0, y), min(image.get('width') or 0, x + w), min(image.get('height') or 0, y + h))
        if box[2] > box[0] and box[3] > box[1]:
            rows[annotation['image_id']].append((box, UNSURE if annotation['iscrowd'] else PERSON))
    for image_id, image in labels.images.items():
        if not image.get('width') or not image.get('height'):
            raise UserError(f'{path}: image {image_id} has no width and height.')
        if sample_field and not (are_numbers([image.get(sample_field)]) and image[sample_field] > 0):
            raise UserError(
                f'{path}: image {image_id} has {image.get(sample_field)!r} in {sample_field!r}, which '
                'data.sample_weights asks for: a number above 0. Without such a field: --set data.sample_weights=null.'
            )
    if not any(kind == PERSON for found in rows.values() for _, kind in found):
        raise UserError(f'{path} has no box of a person in one of its images.')
    most = max(map(len, rows.values()))
    corners = np.zeros((len(rows), most, 2, 3), np.float32)
    for i, found in enumerate(rows.values()):
        for j, (ends, kind) in enumerate(found):
            corners[i, j] = ((*ends[:2], kind), (*ends[2:], kind))
    images = list(labels.images.values())
    sizes = tuple((image['width'], image['height']) for image in images)
    whole = np.concatenate((np.zeros((len(sizes), 2)), np.array(sizes, float)), 1)
    names = tuple(f'{corner}_{j}' for j in range(most) for corner in ('low', 'high'))
    return People(
        Skeleton('boxes of photos', names),
        tuple(image['file_name'] for image in images),
        tuple(rows),
        whole,
        corners.reshape(len(rows), 2 * most, 3),
        sample_weights=np.array([image[sample_field] for image in images], float) if sample_field else None,
        sizes=sizes,
    )


class PhotoCache:
    """Photos in the middle of squares.

    Args:
        cache: Of `read_photos`, cut with `MARGIN` and an aspect of 1.

    Attributes:
        people: The photos as `read_photos` gives them.
        crops: uint8 (N, size, size, 3).
        ids: Image ids.
        sizes: float64 (N, 2), width and height of the photos.
        scales: float32 (N,), crop pixels per photo pixel.
        extents: float32 (N, 4), x1, y1, x2, y2 where the photo lies in its crop; 0 is the crop's left and top edge.
        boxes: float32 (N, M, 4), the boxes there.
        kinds: int64 (N, M), `PERSON`, `UNSURE`, or `NOBODY` where a photo has fewer boxes.

    Raises:
        UserError: If the cache holds people.
    """

    def __init__(self, cache: CropCache):
        names = cache.people.skeleton.keypoints
        if names[:2] != ('low_0', 'high_0') or (cache.people.boxes[:, :2] != 0).any():
            raise UserError('These are crops of people, for keypoints: a person finder learns from whole photos.')
        self.people, self.crops, self.ids = cache.people, cache.crops, cache.people.ids
        self.sizes = cache.people.boxes[:, 2:]
        self.scales = ((cache.boxes[:, 2] - cache.boxes[:, 0]) / self.sizes[:, 0]).astype(np.float32)
        # a crop's pixels are taken at indices of the photo's pixels; between edges there is half a pixel more, of each
        self._shift = np.tile(0.5 - 0.5 * self.scales[:, None], 4).astype(np.float32)
        self.extents = cache.boxes + self._shift
        corners = cache.keypoints.reshape(len(cache), -1, 2, 3)
        self.boxes = corners[..., :2].reshape(len(cache), -1, 4) + self._shift[:, None]
        self.kinds = corners[:, :, 0, 2].astype(np.int64)

    def __len__(self) -> int:
        return len(self.crops)

    def labels(self) -> CocoLabels:
        """The photos' boxes as COCO labels, in the photos' pixels."""
        corners = self.people.keypoints.reshape(len(self), -1, 2, 3)
        return box_labels(self.ids, self.sizes, corners[..., :2].reshape(len(self), -1, 4), corners[:, :, 0, 2])


def box_labels(ids: Iterable[Any], sizes: Iterable[Any], boxes: Iterable[Any], kinds: Iterable[Any]) -> CocoLabels:
    """The people of photos as COCO labels.

    Args:
        ids: Of the photos.
        sizes: Their widths and heights.
        boxes: (B, 4) of each: x1, y1, x2, y2 in pixels.
        kinds: (B,) of each: `PERSON`, `UNSURE` or `NOBODY`.
    """
    images: dict[int | str, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    for image_id, (width, height), own, kind in zip(ids, sizes, boxes, kinds, strict=True):
        images[image_id] = {'id': image_id, 'file_name': '', 'width': width, 'height': height}
        for (x1, y1, x2, y2), k in zip(own.tolist(), kind.tolist(), strict=True):
            if k != NOBODY:
                entry = {'id': len(annotations) + 1, 'image_id': image_id, 'category_id': 1}
                annotations.append({**entry, 'iscrowd': int(k != PERSON), 'bbox': [x1, y1, x2 - x1, y2 - y1]})
    return CocoLabels(images, annotations, {'id': 1, 'name': 'person'})
