"""The person finder of this family: a photo in, the boxes of everybody in it out."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..engines.opening import HeatmapBackend, open_backend
from ..errors import UserError
from ..pose.arrays import as_float, cpu_to_numpy, to_numpy
from ..pose.box_maps import OVERLAP, find_boxes, flip_maps, gives_boxes
from ..pose.crops import CELL, check_input_size
from ..pose.images import ImageSource, read_image

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..engines.pytorch import TorchBackend

DEFAULT_FINDER = 'widehrnet_18_attn.person_320x320'
"""The finder that is used where none is named; it ships."""

LIGHT_FINDER = 'widehrnet_10_attn.person_320x320'
"""A finder for browsers, which ships as well: less than half the work, and it finds fewer people."""

Boxes = npt.NDArray[np.float32]


def input_shape(width: int, height: int, size: tuple[int, int]) -> tuple[int, int]:
    """An input of about the photo's shape, in which its people are larger than in a square, for no more work.

    Args:
        width: Of the photo.
        height: Of the photo.
        size: Height and width of the model's own input.

    Returns:
        Height and width: multiples of 32, of at most as many pixels as `size`.
    """
    cells = size[0] * size[1] // CELL**2
    short = max(1, int(math.sqrt(cells * min(width, height) / max(width, height)) + 0.5))
    sides = short * CELL, cells // short * CELL
    return sides if height <= width else sides[::-1]


def letterbox(
    image: npt.NDArray[np.uint8], size: tuple[int, int]
) -> tuple[npt.NDArray[np.uint8], tuple[float, float, float]]:
    """A photo in the middle of a network's input: as large as it fits, bilinear and antialiased, black around it.

    Args:
        image: uint8 (height, width, 3).
        size: Height and width of the input.

    Returns:
        uint8 (*size, 3), and the scale and the shifts in x and y that bring a place in the photo to its place there.
    """
    height, width = image.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas = np.zeros((*size, 3), np.uint8)
    canvas[top : top + inner[0], left : left + inner[1]] = image if inner == (height, width) else _resize(image, inner)
    return canvas, (scale, float(left), float(top))


def _resize(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    # Pillow's numbers are the same on every machine, with and without PyTorch; of a large photo it takes means of
    # squares first, which is faster and hardly seen
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR, reducing_gap=3.0))


class PersonFinder:
    """Finds the people in photos; a `Detector`.

    Args:
        model: A finder: a name (`DEFAULT_FINDER` by default), `hf-hub:`, `local-dir:`, a folder, an exported file, or a
            module.
        weights: A file of weights for it.
        device: Where it runs.
        size: Height and width of the input of every photo, multiples of 32. By default each photo has the input that
            `input_shape` gives for the model's own size; an exported file that takes one size keeps to it.
        min_score: Lower boxes are left out; a score is the IoU that a box can be expected to have.
        overlap: Of two boxes with a larger IoU the lower one goes. An exported file has its own, 0.45, and a lowest
            score of 0.05.
        flip_test: Average with the mirrored photo: closer boxes for twice the work. An exported file does without.
        max_people: The most boxes to a photo, the highest first; `None` for all.
        bf16: Run in bfloat16.
        int8: Run in 8-bit integers; see `PoseEstimator`.
        engine: What runs it; see `PoseEstimator`.

    Raises:
        UserError: If the model cannot be had, or is not a person finder.
    """

    def __init__(
        self,
        model: 'str | Path | nn.Module | None' = None,
        weights: str | Path | None = None,
        device: 'str | torch.device | None' = None,
        *,
        size: tuple[int, int] | None = None,
        min_score: float = 0.11,
        overlap: float = OVERLAP,
        flip_test: bool = False,
        max_people: int | None = None,
        bf16: bool = False,
        int8: bool = False,
        engine: str = 'auto',
    ):
        for name, value in (('min_score', min_score), ('overlap', overlap)):
            if not 0 <= value <= 1:
                raise UserError(f'{name} must be in 0..1, not {value}.')
        if max_people is not None and max_people < 1:
            raise UserError(f'max_people must be at least 1, not {max_people}.')
        size = size and check_input_size(size)
        self.backend: HeatmapBackend | TorchBackend = open_backend(
            DEFAULT_FINDER if model is None else model, weights, device, size, None, bf16, engine, int8
        )
        if not gives_boxes(self.backend.skeleton):
            raise UserError(
                f'{model} finds keypoints ({self.backend.skeleton.name}), not people: expected a person finder, such '
                f'as {DEFAULT_FINDER}.'
            )
        self.min_score, self.overlap, self.max_people = min_score, overlap, max_people
        self.flip_test = flip_test
        self._shaped = size is None and getattr(self.backend, 'any_size', False)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input, or where it has the photo's shape, of the model's own."""
        return self.backend.size

    def __call__(self, image: ImageSource, /) -> tuple[Boxes, Boxes]:
        """Find the people in one photo.

        Args:
            image: What `read_image` takes: a path, an array (height, width, 3), ...

        Returns:
            float32 (N, 4) boxes, x1, y1, x2, y2 in the photo's pixels, and float32 (N,) scores, the highest first.
        """
        return self.find([image])[0]

    def find(self, images: Sequence[ImageSource]) -> list[tuple[Boxes, Boxes]]:
        """Find the people in photos; those with inputs of one shape go through the network as one batch.

        Args:
            images: The photos, of any sizes.

        Returns:
            Boxes and scores of each, as from a call with one.
        """
        if not len(images):
            return []
        pixels = [read_image(image) for image in images]
        sides = [image.shape[:2] for image in pixels]
        shapes = [input_shape(width, height, self.size) if self._shaped else self.size for height, width in sides]
        found: dict[int, tuple[Boxes, Boxes]] = {}
        for shape in set(shapes):
            rows = [row for row, other in enumerate(shapes) if other == shape]
            found.update(zip(rows, self._find([pixels[row] for row in rows], shape), strict=True))
        return [found[row] for row in range(len(pixels))]

    def _find(self, images: list[npt.NDArray[np.uint8]], shape: tuple[int, int]) -> list[tuple[Boxes, Boxes]]:
        boxed = [letterbox(image, shape) for image in images]
        boxes, scores, index = self._boxes(np.stack([canvas for canvas, _ in boxed]))
        found = []
        for i, (image, (_, (scale, left, top))) in enumerate(zip(images, boxed, strict=True)):
            mine = index == i
            height, width = image.shape[:2]
            placed = (boxes[mine] - np.array([left, top, left, top], np.float32)) / np.float32(scale)
            placed = placed.clip(0, np.array([width, height, width, height], np.float32))
            kept = ((placed[:, 2:] - placed[:, :2]) >= 1).all(1)
            found.append((placed[kept][: self.max_people], scores[mine][kept][: self.max_people]))
        return found

    def _boxes(self, canvases: npt.NDArray[np.uint8]) -> tuple[Boxes, Boxes, npt.NDArray[np.intp]]:
        backend: Any = self.backend
        if getattr(getattr(backend, 'metadata', None), 'pipeline', False):
            rows = backend.run(canvases)
            rows = rows[np.argsort(-rows[:, 5], kind='stable')]
            rows = rows[rows[:, 5] >= self.min_score]
            return rows[:, 1:5], rows[:, 5], rows[:, 0].astype(np.intp)
        if self.flip_test:
            canvases = np.concatenate([canvases, canvases[:, :, ::-1]])
        maps = cpu_to_numpy(as_float(backend.from_crops(canvases, backend.mean, backend.std)))
        if self.flip_test:
            half = len(canvases) // 2
            maps = (maps[:half] + flip_maps(maps[half:])) / 2
        boxes, scores, index = map(to_numpy, find_boxes(maps, self.min_score, self.overlap))
        return boxes, scores, index
