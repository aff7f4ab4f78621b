"""Pictures of a person finder's run: augmented samples before it, what it finds after it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..pose.box_maps import find_boxes
from ..pose.drawing import contact_sheet
from .box_batches import BoxBatches
from .box_loss import NOBODY, PERSON
from .pictures import pixels_of, save_picture

_COLOURS = {'person': (80, 220, 120), 'unsure': (150, 150, 160), 'found': (255, 140, 40)}
_SURE = 0.3


def _with_boxes(image: np.ndarray, boxes: Tensor, colours: list[Any], scores: Tensor | None = None) -> Image.Image:
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    for i, (box, colour) in enumerate(zip(boxes.tolist(), colours, strict=True)):
        pen.rectangle(box, outline=colour, width=2)
        if scores is not None:
            pen.text((max(0, box[0]) + 3, max(0, box[1]) + 1), f'{float(scores[i]):.2f}', colour)
    return picture


def _labelled(image: np.ndarray, boxes: Tensor, kinds: Tensor) -> tuple[Image.Image, int]:
    used = kinds != NOBODY
    names = ['person' if kind == PERSON else 'unsure' for kind in kinds[used].tolist()]
    return _with_boxes(image, boxes[used], [_COLOURS[name] for name in names]), names.count('person')


def draw_samples(batches: BoxBatches, path: Path, count: int) -> None:
    """Contact sheet of samples as the network will get them, with their boxes; grey ones are out of the loss.

    Args:
        batches: The batches.
        path: Picture to write.
        count: Number of samples, taken from as many batches as it needs.
    """
    tiles: list[tuple[Image.Image, str]] = []
    step = 0
    while len(tiles) < count:
        batch = batches.batch(step)
        for i, image in enumerate(pixels_of(batch.pixels)[: count - len(tiles)]):
            tile, people = _labelled(image, batch.boxes[i], batch.kinds[i])
            name = Path(batches.cache.people.files[batch.indices[i]]).name
            tiles.append((tile, f'{name[:24]}, {people} people'))
        step += 1
    save_picture(contact_sheet(tiles, columns=4), path)


def draw_found(pixels: Tensor, boxes: Tensor, kinds: Tensor, maps: Tensor, path: Path) -> None:
    """Contact sheet of photos: labels on the left, what was found on the right.

    Args:
        pixels: (N, 3, H, W) in 0..255.
        boxes: (N, M, 4) labels in input pixels.
        kinds: (N, M).
        maps: (N, NUM_MAPS, h, w) of the model.
        path: Picture to write.
    """
    found, scores, index = find_boxes(maps, _SURE)
    tiles: list[tuple[Image.Image, str]] = []
    for i, image in enumerate(pixels_of(pixels)):
        tile, people = _labelled(image, boxes[i], kinds[i])
        tiles.append((tile, f'label, {people} people'))
        mine = torch.nonzero(index == i).flatten()
        drawn = _with_boxes(image, found[mine], [_COLOURS['found']] * len(mine), scores[mine])
        tiles.append((drawn, f'found {len(mine)} with a score of {_SURE} or more'))
    save_picture(contact_sheet(tiles, columns=6), path)
