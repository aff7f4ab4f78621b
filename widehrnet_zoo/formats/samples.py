"""The people that an evaluation runs over."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..pose.crops import PADDING


@dataclass(frozen=True)
class Samples:
    """One row per crop.

    Attributes:
        paths: The image of each crop.
        image_ids: Its id in the labels.
        annotation_ids: The labelled person that the box belongs to; `None` for a detector's box.
        boxes: float64 (N, 4), x1, y1, x2, y2 in image pixels, before padding.
        box_scores: float64 (N,).
        padding: Growth of a box to the network's view.
    """

    paths: tuple[Path, ...]
    image_ids: tuple[int | str, ...]
    annotation_ids: tuple[int | None, ...]
    boxes: npt.NDArray[np.float64]
    box_scores: npt.NDArray[np.float64]
    padding: float = PADDING

    def __len__(self) -> int:
        return len(self.paths)
