"""Whole photos with the boxes of the people in them, to teach a person finder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..formats.coco import CocoLabels, are_numbers, read_labels
from ..pose.crops import PADDING
from ..pose.skeletons import Skeleton
from .box_loss import PERSON, UNSURE
from .config import DataConfig
from .crops import CropCache
from .people import People

__all__ = ['PhotoCache', 'read_photos']

_PLACE = Skeleton('photo', ('centre',))


@dataclass(frozen=True)
class Photos:
    """Labelled photos.

    Attributes:
        labels: The file that they are of.
        ids: Image ids.
        files: Image files, relative to the folder of the images.
        sizes: float64 (N, 2), width and height.
        boxes: float32 (N, M, 4), x1, y1, x2, y2 in image pixels, clipped to the photo.
        kinds: int64 (N, M): `PERSON`, `UNSURE` for crowds (`iscrowd`), `NOBODY` where a photo has fewer boxes.
        shares: float64 (N,), how often each is to come, or `None` for all alike.
    """

    labels: CocoLabels
    ids: tuple[int | str, ...]
    files: tuple[str, ...]
    sizes: npt.NDArray[np.float64]
    boxes: npt.NDArray[np.float32]
    kinds: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float64] | None


def read_photos(path: str | Path, shares_field: str | None = None) -> Photos:
    """Read COCO boxes; keypoints are not needed, and photos without people teach what nobody looks like.

    Args:
        path: The JSON. Annotations with `iscrowd` are regions in which nothing is learnt.
        shares_field: Field of the images with a number above 0, how often a photo is to come.

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
        if shares_field and not (are_numbers([image.get(shares_field)]) and image[shares_field] > 0):
            raise UserError(
                f'{path}: image {image_id} has {image.get(shares_field)!r} in {shares_field!r}, which data.shares asks '
                'for: a number above 0.'
            )
    if not any(kind == PERSON for found in rows.values() for _, kind in found):
        raise UserError(f'{path} has no box of a person in one of its images.')
    most = max(map(len, rows.values()))
    boxes, kinds = np.zeros((len(rows), most, 4), np.float32), np.zeros((len(rows), most), np.int64)
    for i, found in enumerate(rows.values()):
        for j, (corners, kind) in enumerate(found):
            boxes[i, j], kinds[i, j] = corners, kind
    images = list(labels.images.values())
    return Photos(
        labels,
        tuple(rows),
        tuple(image['file_name'] for image in images),
        np.array([(image['width'], image['height']) for image in images], float),
        boxes,
        kinds,
        np.array([image[shares_field] for image in images], float) if shares_field else None,
    )


class PhotoCache:
    """Photos in the middle of squares, in a `CropCache` whose people are the photos.

    Attributes:
        photos: All of the labels.
        crops: The cache; photos that could not be read are not in it.
        rows: (n,) the photo of each crop.
        extents: float32 (n, 4), x1, y1, x2, y2 where the photo lies in its crop; 0 is the crop's left and top edge.
        boxes: float32 (n, M, 4) the boxes there.
        kinds: int64 (n, M).
        scales: float32 (n,) crop pixels per photo pixel.
    """

    def __init__(self, photos: Photos, crops: CropCache):
        self.photos, self.crops = photos, crops
        places = {image_id: i for i, image_id in enumerate(photos.ids)}
        self.rows = np.array([places[i] for i in crops.people.ids])
        whole = crops.people.boxes
        self.scales = ((crops.boxes[:, 2] - crops.boxes[:, 0]) / (whole[:, 2] - whole[:, 0])).astype(np.float32)
        # a crop's pixels are taken at indices of the photo's pixels; between edges there is half a pixel more, of each
        corner = crops.boxes[:, :2] + (0.5 - 0.5 * self.scales)[:, None]
        shift = np.tile(corner, 2).astype(np.float32)
        self.extents = (whole * self.scales[:, None] + shift).astype(np.float32)
        self.boxes = photos.boxes[self.rows] * self.scales[:, None, None] + shift[:, None]
        self.kinds = photos.kinds[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def build(
        cls, photos: Photos, images: str | Path, folder: str | Path, size: int, data: DataConfig, progress: bool = True
    ) -> 'PhotoCache':
        """Cut and store the photos, or find them; see `CropCache.build`.

        Args:
            photos: The photos.
            images: Folder of the images.
            folder: Where caches are kept.
            size: Side of a stored square in pixels.
            data: Settings for bad images and threads.
            progress: Show a bar.

        Raises:
            UserError: If too many images cannot be read, or the disk is full.
        """
        whole = np.concatenate((np.zeros_like(photos.sizes), photos.sizes), 1)
        people = People(_PLACE, photos.files, photos.ids, whole, np.zeros((len(whole), 1, 3), np.float32))
        # a margin that takes the padding of people back
        margin, most = 1 / PADDING, data.max_bad_images
        crops = CropCache.build(people, images, folder, size, margin, 1.0, most, data.workers, progress)
        return cls(photos, crops)
