"""Results written to files, by the name of the format."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import UserError
from ..extras import require
from ..files import naming, write_whole
from ..pose.results import PoseResult, json_text
from .mmpose import check_names, write_mmpose
from .tables import write_csv, write_parquet


def _json(results: list[PoseResult], file: Path) -> None:
    write_whole(file, json_text([r.to_dict() for r in results]) + '\n')


def _jsonl(results: list[PoseResult], file: Path) -> None:
    write_whole(file, ''.join(r.to_json(indent=None) + '\n' for r in results))


def _coco_id(path: str | None, place: int) -> int | str:
    stem = str(place) if path is None else Path(path).stem
    # COCO's own files are named by their id: 000000000785.jpg is image 785
    return int(stem) if stem.isascii() and stem.isdigit() else stem


def _check_ids(paths: Iterable[str | None]) -> None:
    seen: dict[int | str, str | None] = {}
    for place, path in enumerate(paths):
        number = _coco_id(path, place)
        if number in seen:
            raise UserError(
                f'{seen[number]} and {path} are both image {number} of COCO results: give them names of their own, '
                'or write a file for each folder.'
            )
        seen[number] = path


def _coco(results: list[PoseResult], file: Path) -> None:
    _check_ids(result.path for result in results)
    entries = [e for place, result in enumerate(results) for e in result.to_coco(_coco_id(result.path, place))]
    try:
        write_whole(file, json.dumps(entries, allow_nan=False) + '\n')
    except ValueError:
        raise UserError('A result holds NaN: COCO results are finite numbers.') from None


FORMATS: dict[str, Callable[[list[PoseResult], Path], object]] = {
    'json': _json,
    'jsonl': _jsonl,
    'csv': write_csv,
    'parquet': write_parquet,
    'coco': _coco,
    'mmpose': write_mmpose,
}
"""Writers by format: one file for all images, but for `mmpose`, which is a folder with a file for each."""


def save_results(results: Iterable[PoseResult], path: str | Path, format: str) -> None:
    """Write the results of several images.

    Args:
        results: The results.
        path: File to write, or the folder for `mmpose`.
        format: `'json'` (a list of `PoseResult.to_dict`), `'jsonl'` (a line for each), `'csv'`, `'parquet'`, `'coco'`
            (COCO results; an image's id is its file name, as a number where it is one) or `'mmpose'`.

    Raises:
        UserError: If there is no such format, the results do not fit it, or the file cannot be written.
        ImportError: If Parquet is asked for and pyarrow is not installed.
    """
    write, held = _writer(format), list(results)
    with naming(path):
        write(held, Path(path))


def check_format(format: str, paths: Iterable[str]) -> None:
    """Find out before long work whether its results can be written.

    Args:
        format: As for `save_results`.
        paths: Files of the images.

    Raises:
        UserError: If there is no such format, or it cannot tell two of the images apart.
        ImportError: If pyarrow is needed and not installed.
    """
    _writer(format)
    if format == 'parquet':
        require('pyarrow', 'parquet')
    elif format == 'coco':
        _check_ids(paths)
    elif format == 'mmpose':
        check_names(paths)


def _writer(format: str) -> Callable[[list[PoseResult], Path], object]:
    if format not in FORMATS:
        raise UserError(f'There is no format {format!r}: choose {", ".join(FORMATS)}.')
    return FORMATS[format]
