"""The option `--boxes`: a file, or boxes in pixels."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..formats.boxes import BoxFile


def read_boxes(text: str) -> BoxFile | npt.NDArray[np.float64]:
    """Boxes as they are given on the command line.

    Args:
        text: A JSON file, or `x1,y1,x2,y2`, several with semicolons between.

    Returns:
        The file, or float64 (N, 4) in pixels.

    Raises:
        UserError: If it is neither.
    """
    if Path(text).is_file():
        return BoxFile(text)
    try:
        rows = [[float(v) for v in re.split(r'[,\s]+', box.strip())] for box in text.split(';') if box.strip()]
    except ValueError:
        rows = []
    if not rows or any(len(row) != 4 for row in rows):
        raise UserError(f'--boxes {text} is neither a file that exists nor boxes x1,y1,x2,y2 in pixels.')
    return np.array(rows)
