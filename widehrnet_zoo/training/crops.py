"""Pre-decoded person crops in a memory map, so that training never waits for image files."""

import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

_logger = logging.getLogger(__name__)

PADDING = 1.25
"""Growth of a person's box before the crop, as at test time."""


def read_people(labels: str | Path) -> tuple[list[dict[str, Any]], dict[int, dict[str, Any]]]:
    """Read the labelled people of a COCO-keypoints file.

    Args:
        labels: Path of the JSON.

    Returns:
        The annotations that are no crowd and have at least one labelled keypoint, and the images by id.
    """
    data = json.loads(Path(labels).read_text())
    images = {image['id']: image for image in data['images']}
    people = [a for a in data['annotations'] if not a.get('iscrowd') and any(a['keypoints'][2::3])]
    return people, images


class CropCache:
    """Square crops around people, larger than the network's view so that augmentation has room.

    Attributes:
        crops: uint8 (N, size, size, 3), a memory map.
        keypoints: float32 (N, K, 3), x and y in crop pixels and COCO's visibility.
        view: Height in crop pixels of the test-time crop (box widened to `aspect`, times 1.25).
    """

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        meta = json.loads((folder / 'meta.json').read_text())
        self.view: float = meta['view']
        self.aspect: float = meta['aspect']
        self.crops = np.load(folder / 'crops.npy', mmap_mode='r')
        self.keypoints = np.load(folder / 'keypoints.npy')

    def __len__(self) -> int:
        return len(self.crops)

    @classmethod
    def build(
        cls,
        labels: str | Path,
        image_folder: str | Path,
        folder: str | Path,
        size: int = 288,
        margin: float = 1.6,
        aspect: float = 3 / 4,
        max_bad: int = 20,
    ) -> 'CropCache':
        """Cut and store the crops of every labelled person, whole or not at all.

        Args:
            labels: COCO-keypoints JSON.
            image_folder: Folder of its images.
            folder: Where to store; an existing cache there is opened, not rebuilt.
            size: Side of a stored crop in pixels.
            margin: Side of a stored crop over the height of the test-time crop.
            aspect: Width over height of the test-time crop.
            max_bad: Unreadable images to skip before giving up.

        Returns:
            The opened cache.

        Raises:
            RuntimeError: If more than `max_bad` images cannot be read.
        """
        folder = Path(folder)
        if (folder / 'meta.json').exists():
            return cls(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        people, images = read_people(labels)
        tmp = Path(tempfile.mkdtemp(dir=folder.parent, prefix=folder.name + '.tmp'))
        num_keypoints = len(people[0]['keypoints']) // 3
        crops = np.lib.format.open_memmap(tmp / 'crops.npy', 'w+', np.uint8, (len(people), size, size, 3))
        keypoints = np.zeros((len(people), num_keypoints, 3), np.float32)
        kept = 0
        bad = 0
        for person in tqdm(people, desc='crops'):
            path = Path(image_folder) / images[person['image_id']]['file_name']
            try:
                with Image.open(path) as opened:
                    image = ImageOps.exif_transpose(opened).convert('RGB')
            except OSError as error:
                bad += 1
                _logger.warning('skipped %s: %s', path, error)
                if bad > max_bad:
                    raise RuntimeError(f'more than {max_bad} unreadable images, the last is {path}') from error
                continue
            x, y, w, h = person['bbox']
            side = max(w / aspect, h) * PADDING * margin
            step = side / size
            left, top = x + w / 2 - side / 2, y + h / 2 - side / 2
            # Pillow maps pixel centres, the field's affine crops map pixel indices: half a pixel on both sides
            crops[kept] = np.asarray(
                image.transform(
                    (size, size),
                    Image.Transform.AFFINE,
                    (step, 0, left + 0.5 - step / 2, 0, step, top + 0.5 - step / 2),
                    Image.Resampling.BILINEAR,
                )
            )
            points = np.asarray(person['keypoints'], np.float32).reshape(-1, 3)
            keypoints[kept, :, :2] = (points[:, :2] - (left, top)) / step
            keypoints[kept, :, 2] = points[:, 2]
            kept += 1
        crops.flush()
        if kept < len(people):
            np.save(tmp / 'crops.npy', np.array(crops[:kept]))
        np.save(tmp / 'keypoints.npy', keypoints[:kept])
        (tmp / 'meta.json').write_text(json.dumps({'view': size / margin, 'aspect': aspect}))
        os.rename(tmp, folder)
        return cls(folder)
