"""Crops to calibrate on."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..errors import UserError
from ..pose.crops import box_views, crop_people
from ..pose.images import PHOTO_SUFFIXES, read_image


def folder_crops(folder: Path, size: tuple[int, int], count: int = 200) -> npt.NDArray[np.uint8]:
    """One crop of each of a folder's photos, evenly spread over the sorted names.

    Args:
        folder: Photos of one person each, close around the person.
        size: Height and width of the crops.
        count: At most so many.

    Returns:
        uint8 (N, H, W, 3).

    Raises:
        UserError: If the folder is not there or has no photos, or one cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f'There is no folder {folder}.')
    paths = sorted(p for p in folder.rglob('*') if p.suffix.lower() in PHOTO_SUFFIXES)
    if not paths:
        raise UserError(f'{folder} holds no photos ({", ".join(PHOTO_SUFFIXES)}).')
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)]
    crops = []
    for path in tqdm(chosen, desc='calibrate', unit='photo', disable=None):
        image = read_image(path)
        height, width = image.shape[:2]
        box = np.array([[0.1 * width, 0.1 * height, 0.9 * width, 0.9 * height]])
        crops.append(crop_people(image, box_views(box, size), size)[0])
    return np.stack(crops)
