"""What the page does with a photo and boxes, without the page."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import UserError
from ..inference.estimator import PoseEstimator
from ..inference.people import Limits
from ..inference.stream import Finder
from ..pose.arrays import Arrays
from ..pose.crops import check_boxes
from ..pose.results import PoseResult

MAX_PEOPLE = 32
"""Boxes in one photo; each is a forward pass that others wait for."""


class TimedEstimator(PoseEstimator):
    """A `PoseEstimator` that keeps the time of its steps.

    Attributes:
        seconds: Of the network (normalisation included), of the whole forward step, and of the detector where it was
            asked, since `reset`.
    """

    seconds: dict[str, float]

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.reset()

    def reset(self) -> None:
        """Start from zero."""
        self.seconds = {'network': 0.0, 'forward': 0.0}

    def heatmaps(self, crops: npt.NDArray[np.uint8], *args: Any, **options: Any) -> Arrays:
        """As in `PoseEstimator`, timed."""
        start = time.perf_counter()
        heatmaps = super().heatmaps(crops, *args, **options)
        if isinstance(heatmaps, Tensor) and heatmaps.device.type == 'cuda':
            torch.cuda.synchronize(heatmaps.device)
        self.seconds['network'] += time.perf_counter() - start
        return heatmaps

    def _finder(self, detector: Any, limits: Limits) -> Finder | None:
        finder = super()._finder(detector, limits)

        def timed(*args: Any) -> Any:
            start = time.perf_counter()
            found = finder(*args) if finder is not None else None
            self.seconds['find'] = self.seconds.get('find', 0.0) + time.perf_counter() - start
            return found

        return None if finder is None else timed

    def _forward(self, *args: Any) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        start = time.perf_counter()
        found = super()._forward(*args)
        self.seconds['forward'] += time.perf_counter() - start
        return found

    def warm_up(self) -> None:
        """Run once on nothing: the first pass opens the finder, allocates memory and chooses kernels."""
        self.heatmaps(np.zeros((1, *self.size, 3), np.uint8))
        with suppress(UserError, ImportError):  # which are said where somebody is to be found
            self(np.zeros((*self.size, 3), np.uint8))
        self.reset()


@dataclass(frozen=True)
class Findings:
    """What was found in a photo, and how long each step took.

    Attributes:
        result: The people.
        milliseconds: `crop`, `network`, `decode` and `total`, summed over the people (and over the second look that a
            photo without boxes gets where no detector looks for people), and before them `find`, if people were
            looked for; reading and drawing the photo are not in it.
    """

    result: PoseResult
    milliseconds: dict[str, float]


def read_boxes(rows: Any, image_size: tuple[int, int]) -> npt.NDArray[np.float64] | None:
    """The page's table of boxes as numbers.

    Args:
        rows: Rows of x1, y1, x2, y2, where a cell can be text; a row with an empty cell is being typed, and left out.
        image_size: Width and height of the photo.

    Returns:
        float64 (N, 4) in image pixels, x1 < x2 and y1 < y2; None without boxes.

    Raises:
        UserError: If a cell is not a number, a box lies outside, or there are more than `MAX_PEOPLE`.
    """
    boxes = []
    for index, row in enumerate(rows or []):
        cells = ['' if cell is None else str(cell).strip() for cell in row]
        if not all(cells):
            continue
        try:
            x1, y1, x2, y2 = (float(cell) for cell in cells)
        except ValueError:
            raise UserError(f'Box {index + 1} is ({", ".join(cells)[:60]}); expected four numbers.') from None
        boxes.append((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))
    if len(boxes) > MAX_PEOPLE:
        raise UserError(f'There are {len(boxes)} boxes, and this page takes {MAX_PEOPLE} at most: remove some.')
    return check_boxes(boxes, image_size) if boxes else None


def find_keypoints(
    estimator: TimedEstimator,
    image: npt.NDArray[np.uint8],
    boxes: npt.NDArray[np.float64] | Sequence[Sequence[float]] | None = None,
    flip_test: bool = False,
    name: str | None = None,
) -> Findings:
    """Find the keypoints of people in a photo, and time it.

    Args:
        estimator: The model.
        image: uint8 (H, W, 3).
        boxes: (N, 4) x1, y1, x2, y2 in image pixels; None finds everyone, as the estimator does without boxes.
        flip_test: Average with the mirrored crop.
        name: Name of the photo, for the result.

    Raises:
        UserError: As `PoseEstimator`.
    """
    estimator.reset()
    start = time.perf_counter()
    result = estimator(image, boxes, flip_test=flip_test)
    total = time.perf_counter() - start
    network, forward = estimator.seconds['network'], estimator.seconds['forward']
    find = estimator.seconds.get('find')
    seconds = {} if find is None else {'find': find}
    seconds |= {'crop': total - forward - (find or 0.0), 'network': network, 'decode': forward - network}
    seconds['total'] = total
    return Findings(replace(result, path=name), {step: 1000 * value for step, value in seconds.items()})


def keypoint_rows(result: PoseResult) -> list[list[Any]]:
    """A result as rows for people to read.

    Returns:
        One row per keypoint: person from 1, name, x and y to a tenth of a pixel, score to two places.
    """
    return [
        [i + 1, name.replace('_', ' '), round(point.x, 1), round(point.y, 1), round(point.score, 2)]
        for i in range(len(result))
        for name, point in result.named(i).items()
    ]


def save_findings(
    findings: Findings, image: npt.NDArray[np.uint8], folder: Path, threshold: float
) -> tuple[Path, Path]:
    """Write what a visitor downloads.

    Args:
        findings: What was found.
        image: The photo.
        folder: Where to.
        threshold: Keypoints with a lower score are not drawn.

    Returns:
        The image at full size as JPEG, and the result as JSON.
    """
    stem = Path(findings.result.path or 'photo').stem[:60] or 'photo'
    picture, data = folder / f'{stem}.pose.jpg', folder / f'{stem}.pose.json'
    findings.result.draw(image, threshold=threshold).save(picture, quality=95)
    findings.result.save_json(data)
    return picture, data
