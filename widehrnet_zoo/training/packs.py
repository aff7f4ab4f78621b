"""Crops and labels in portable files, to train on another machine that has neither the photos nor the label files.

A pack is a safetensors file: WebP crops at the photo's own resolution, never enlarged, with their labels beside them. A
folder holds the packs of the people to train on and of those to validate on.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tqdm import tqdm

from ..errors import UserError
from ..files import write_whole
from ..pose.crops import PADDING
from ..pose.skeletons import Skeleton
from .crops import CropCache, check_images, each_image
from .people import People
from .state import disk_errors

_FORMAT = 'widehrnet pack 1'
_OPTIONAL = ('teacher', 'sample_weights', 'weights')
_LARGEST = 4096


class _Crop(NamedTuple):
    """A person on the way into a pack: WebP, and the first pixel's x and y in the image with the step."""

    content: bytes
    origin: tuple[float, float, float]


def _cut(
    image: npt.NDArray[np.uint8], box: npt.NDArray, side: int, margin: float, aspect: float, quality: int
) -> _Crop:
    height, width = image.shape[:2]
    extent = box[2:] - box[:2]
    reach = max(extent[0] / aspect, extent[1]) * PADDING * margin
    step = max(1.0, reach / side)
    centre = (box[:2] + box[2:]) / 2
    low = np.floor((centre - reach / 2).clip(0, (width - 1, height - 1))).astype(int)
    high = np.ceil((centre + reach / 2).clip(low + 1, (width, height))).astype(int)
    count = np.floor((high - low) / step).clip(1, side).astype(int)
    region = Image.fromarray(image[low[1] : high[1], low[0] : high[0]])
    if step > 1:
        # whole pixels of the crop, so that both directions keep the same step
        end = np.minimum(count * step, high - low)
        region = region.resize(tuple(count), Image.Resampling.LANCZOS, box=(0.0, 0.0, float(end[0]), float(end[1])))
    else:
        region = region.crop((0, 0, int(count[0]), int(count[1])))
    content = io.BytesIO()
    # a third smaller than JPEG of the same look
    region.save(content, 'WEBP', quality=quality)
    x, y = low + (step - 1) / 2
    return _Crop(content.getvalue(), (float(x), float(y), step))


def write_packs(
    people: People,
    images: str | Path,
    folder: str | Path,
    split: str,
    side: int = 384,
    margin: float = 1.5,
    aspect: float = 3 / 4,
    quality: int = 85,
    megabytes: float = 50.0,
    max_bad: int = 20,
    workers: int = 2,
    progress: bool = True,
) -> list[Path]:
    """Cut people out of their photos into packs.

    Args:
        people: The people.
        images: Folder of the photos.
        folder: Where to; packs of this split that are there are replaced once all are written.
        split: `'train'` or `'val'`.
        side: Largest side of a crop in pixels; where the photo is coarser, the crop is as coarse.
        margin: Side of a crop over the box widened to `aspect` and grown by 1.25.
        aspect: Width over height of the network's input.
        quality: Of the WebP.
        megabytes: Largest size of a file, in 10^6 bytes.
        max_bad: Unreadable images to skip before giving up.
        workers: Threads.
        progress: Show a bar.

    Raises:
        UserError: If more than `max_bad` images cannot be read, or the disk is full.
    """
    images, folder = Path(images), Path(folder)
    check_images(images)

    def cut(image: npt.NDArray[np.uint8], rows: list[int]) -> list[_Crop]:
        return [_cut(image, people.boxes[row], side, margin, aspect, quality) for row in rows]

    crops: list[_Crop] = []
    kept: list[int] = []
    for places, some in each_image(people, images, cut, f'pack {split}', max_bad, workers, progress):
        crops += some
        kept += places
    labels = people.part(np.array(kept))
    parts = list(_parts(crops, labels, megabytes * 1e6))
    name = hashlib.sha256(b''.join(hashlib.sha256(c.content).digest() for c in crops)).hexdigest()[:16]
    written = []
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for i, (part, rows) in enumerate(parts):
            about = {'split': split, 'part': i, 'parts': len(parts), 'set': name, 'side': side}
            path = folder / f'{split}-{i + 1:02d}-of-{len(parts):02d}.pack'
            write_whole(path, _pack(part, labels.part(rows), about))
            written.append(path)
        for old in folder.glob(f'{split}-*-of-*.pack'):
            if old not in written:
                old.unlink()
    return written


def _parts(crops: list[_Crop], labels: People, limit: float) -> Iterator[tuple[list[_Crop], npt.NDArray[np.intp]]]:
    # labels, names and the file's header, generously
    beside = 200 + labels.skeleton.num_keypoints * (12 + 16)
    start, size = 0, 0.0
    for i, crop in enumerate(crops):
        added = len(crop.content) + beside + len(labels.files[i])
        if size and size + added > limit:
            yield crops[start:i], np.arange(start, i)
            start, size = i, 0.0
        size += added
    yield crops[start:], np.arange(start, len(crops))


def _pack(crops: list[_Crop], labels: People, about: dict[str, Any]) -> bytes:
    tensors: dict[str, npt.NDArray] = {
        'images': np.frombuffer(b''.join(crop.content for crop in crops), np.uint8),
        'ends': np.cumsum([len(crop.content) for crop in crops], dtype=np.int64),
        'origins': np.array([crop.origin for crop in crops], np.float64),
        'boxes': labels.boxes,
        'keypoints': labels.keypoints,
    }
    for field in _OPTIONAL:
        if (values := getattr(labels, field)) is not None:
            tensors[field] = values
    said = {
        **about,
        'format': _FORMAT,
        'skeleton': labels.skeleton.to_dict(),
        'files': labels.files,
        'ids': labels.ids,
        'sha256': _digest(tensors),
    }
    return save(tensors, {'pack': json.dumps(said)})


def _digest(tensors: dict[str, npt.NDArray]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(f'{key} {tensors[key].dtype} {tensors[key].shape}'.encode())
        digest.update(np.ascontiguousarray(tensors[key]).data)
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, npt.NDArray], dict[str, Any]]:
    try:
        with safe_open(path, 'numpy') as file:
            said = json.loads((file.metadata() or {})['pack'])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if said['format'] != _FORMAT:
            raise UserError(f'{path} is a pack of another format ({said["format"]!r:.40}) than {_FORMAT!r}.')
        if said['sha256'] != _digest(tensors):
            raise UserError(f'{path} is damaged: its content is not what was written. Copy it here again.')
        if said['split'] not in ('train', 'val') or not 0 < int(said['side']) <= _LARGEST:
            raise ValueError('split or side')
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f'{path} is not a complete pack: {type(error).__name__} {str(error)[:200]}.') from error
    return tensors, said


def open_packs(folder: str | Path, progress: bool = True) -> dict[str, CropCache]:
    """Read all packs of a folder into memory.

    Args:
        folder: With packs of `write_packs`.
        progress: Show a bar.

    Returns:
        The crops by split, `'train'` and, if there are such packs, `'val'`.

    Raises:
        UserError: If there are none, one is missing or damaged, or they are not of one set.
    """
    folder = Path(folder)
    paths = sorted(folder.glob('*.pack'))
    if not paths:
        raise UserError(f'{folder} holds no packs (*.pack): `widehrnet pack` writes them.')
    by_split: dict[str, list[tuple[dict[str, npt.NDArray], dict[str, Any]]]] = {}
    for path in paths:
        tensors, said = _read(path)
        by_split.setdefault(said['split'], []).append((tensors, said))
    found = {}
    for split, packs in by_split.items():
        packs.sort(key=lambda pack: pack[1]['part'])
        sets, parts = {said['set'] for _, said in packs}, packs[0][1]['parts']
        if len(sets) > 1 or any(said['parts'] != parts for _, said in packs):
            raise UserError(f'{folder} holds {split} packs of {len(sets)} different sets: keep those of one only.')
        if [said['part'] for _, said in packs] != list(range(parts)):
            there = ', '.join(str(said['part'] + 1) for _, said in packs)
            raise UserError(f'{folder} has {len(packs)} of {parts} {split} packs ({there}): bring the others too.')
        found[split] = _join(packs, split, progress)
    if 'train' not in found:
        raise UserError(f'{folder} holds packs to validate on only, none to train on.')
    return found


def _join(packs: list[tuple[dict[str, npt.NDArray], dict[str, Any]]], split: str, progress: bool) -> CropCache:
    first, about = packs[0]

    def all_of(key: str) -> npt.NDArray:
        return np.concatenate([tensors[key] for tensors, _ in packs])

    optional: Any = {field: all_of(field) for field in _OPTIONAL if field in first}
    people = People(
        Skeleton.from_dict(about['skeleton']),
        tuple(file for _, said in packs for file in said['files']),
        tuple(name for _, said in packs for name in said['ids']),
        all_of('boxes'),
        all_of('keypoints'),
        **optional,
    )
    side = about['side']
    crops = np.zeros((len(people), side, side, 3), np.uint8)

    def decode(job: tuple[int, npt.NDArray[np.uint8]]) -> None:
        row, content = job
        with Image.open(io.BytesIO(content.tobytes()), formats=['WEBP', 'JPEG']) as image:
            if max(image.size) > side:
                raise UserError(f'The crop of {people.files[row]} is larger than its pack says.')
            crops[row, : image.height, : image.width] = np.asarray(image.convert('RGB'))

    # pieces of one array, without a copy
    pieces = (piece for tensors, _ in packs for piece in np.split(tensors['images'], tensors['ends'][:-1]))
    with (
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
        tqdm(total=len(people), desc=f'open {split}', unit='person', disable=not progress) as bar,
    ):
        for _ in pool.map(decode, enumerate(pieces)):
            bar.update()
    return CropCache(people, crops, all_of('origins'))
