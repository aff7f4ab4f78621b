"""What a recipe learns from: labels and images read, and crops of them opened or packed."""

from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError
from ..pose.crops import PADDING, padding_of
from .config import TrainConfig
from .crops import CropCache
from .packs import open_packs, write_packs
from .people import People, read_people
from .photos import MARGIN, read_photos
from .recipes import stage_configs


def _read(config: TrainConfig) -> Iterator[tuple[str, People, str]]:
    """People to learn from and to validate on, or photos for a person finder, each with the folder of its images."""
    data = config.data
    if not data.labels or not data.images:
        name = 'images' if data.labels else 'labels'
        raise UserError(f'The recipe does not say what to learn from: data.{name} is missing (--{name}).')
    if config.task == 'boxes':
        train = read_photos(data.labels, data.sample_weights)
        val = read_photos(data.val_labels) if data.val_labels else None
    else:
        fields = config.teacher.keypoints, data.sample_weights, data.keypoint_weights
        train = read_people(data.labels, data.skeleton, *fields)
        val = read_people(data.val_labels, train.skeleton) if data.val_labels else None
    yield 'train', train, data.images
    if val is not None:
        yield 'val', val, data.val_images or data.images


def _geometry(config: TrainConfig) -> tuple[int, float, float]:
    """Side of a stored crop in pixels, its margin, and width over height of the crop at test time."""
    sizes, data = [stage.size for stage, _ in stage_configs(config)], config.data
    if config.task == 'boxes':
        # a little more than the largest input has
        return data.crop_size or round(1.2 * max(map(max, sizes))), MARGIN, 1.0
    tallest = max(height for height, _ in sizes)
    # the view of a box, not the box grown by 1.25, has the input's pixels
    side = round(tallest * data.margin * PADDING / padding_of(data))
    return data.crop_size or side, data.margin, config.size[1] / config.size[0]


def open_caches(config: TrainConfig, progress: bool = True) -> tuple[CropCache, CropCache | None]:
    """Read the labels of a recipe and cut, or find, the crops.

    Returns:
        Training and validation crops; `None` without validation labels.

    Raises:
        UserError: If a label file or too many images are broken, or the disk is full.
    """
    data = config.data
    if data.packs:
        return _open_packs(config, data.packs, progress)
    side, margin, aspect = _geometry(config)
    folder, most = data.cache or Path(config.out) / 'cache', data.max_bad_images
    caches = {
        split: CropCache.build(people, images, folder, side, margin, aspect, most, data.workers, progress)
        for split, people, images in _read(config)
    }
    return caches['train'], caches.get('val')


def _open_packs(config: TrainConfig, folder: str, progress: bool) -> tuple[CropCache, CropCache | None]:
    data = config.data
    if data.labels or data.images or data.val_labels:
        raise UserError(
            'data.packs stands in place of data.labels, data.images and data.val_labels: give one or the other.'
        )
    caches = open_packs(folder, progress=progress)
    train, val = caches['train'], caches.get('val')
    if config.teacher.keypoints is None:
        train.teacher = None
    elif train.teacher is None:
        raise UserError(
            f'{folder} has no keypoints of a teacher: pack with teacher.keypoints={config.teacher.keypoints}.'
        )
    if config.task == 'keypoints' and val is not None and val.people.skeleton != train.people.skeleton:
        raise UserError(f'{folder} has people to train and to validate on with different keypoints.')
    return train, val


def pack(
    config: TrainConfig, folder: str | Path, quality: int = 85, megabytes: float = 50.0, progress: bool = True
) -> list[Path]:
    """Write what a recipe learns from into packs, to train from on another machine.

    Args:
        config: The recipe: labels, images, crop size and margin.
        folder: Where to.
        quality: Of the WebP crops.
        megabytes: Largest size of a file, in 10^6 bytes.
        progress: Show bars.

    Raises:
        UserError: If a label file or too many images are broken, or the disk is full.
    """
    if not 1 <= quality <= 100 or not megabytes >= 1:
        raise UserError(f'The quality is in 1..100 and a pack has a megabyte or more, not {quality} and {megabytes:g}.')
    shape, data = _geometry(config), config.data
    written: list[Path] = []
    for split, people, images in _read(config):
        most, workers = data.max_bad_images, data.workers
        written += write_packs(people, images, folder, split, *shape, quality, megabytes, most, workers, progress)
    return written
