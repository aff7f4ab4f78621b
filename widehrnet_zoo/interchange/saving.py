"""One door to the formats that results are written in."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import UserError
from ..files import write_whole
from ..results import PoseResult
from .mmpose import write_mmpose
from .tables import write_csv, write_parquet


def _json(results: list[PoseResult], file: Path) -> None:
    write_whole(file, json.dumps([r.to_dict() for r in results], indent=1, ensure_ascii=False, allow_nan=False) + '\n')


def _coco(results: list[PoseResult], file: Path) -> None:
    entries = []
    for place, result in enumerate(results):
        stem = str(place) if result.path is None else Path(result.path).stem
        # COCO's own files are named by their id: 000000000785.jpg is picture 785
        entries += result.to_coco(int(stem) if stem.isascii() and stem.isdigit() else stem)
    try:
        write_whole(file, json.dumps(entries, allow_nan=False) + '\n')
    except ValueError:
        raise UserError('a result holds NaN: COCO results are finite numbers.') from None


FORMATS: dict[str, Callable[[list[PoseResult], Path], object]] = {
    'json': _json,
    'csv': write_csv,
    'parquet': write_parquet,
    'coco': _coco,
    'mmpose': write_mmpose,
}
"""Writers by format: one file for all pictures, but for `mmpose`, which is a folder with a file for each."""


def save_results(results: Iterable[PoseResult], path: str | Path, format: str) -> None:
    """Write the results of several pictures.

    Args:
        results: The results.
        path: File to write, or the folder for `mmpose`.
        format: `'json'` (a list of `PoseResult.to_dict`), `'csv'`, `'parquet'`, `'coco'` (COCO results; a picture's id
            is its file name, as a number where it is one) or `'mmpose'`.

    Raises:
        UserError: If there is no such format, or the results do not fit it.
        ImportError: If Parquet is asked for and pyarrow is not installed.
    """
    if format not in FORMATS:
        raise UserError(f'there is no format {format!r}: choose {", ".join(FORMATS)}.')
    FORMATS[format](list(results), Path(path))
