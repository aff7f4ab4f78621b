"""Keypoints as a table, one row for each: CSV and Parquet."""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..extras import require
from ..files import write_whole
from ..pose.results import PoseResult
from ..pose.skeletons import SKELETONS, Skeleton, skeleton_from_names
from .checks import extents

COLUMNS = ('image', 'person', 'keypoint', 'x', 'y', 'score')
"""What every table has: path of the image, person from 0, name of the keypoint, image pixels, score."""

BOX_COLUMNS = ('box_x1', 'box_y1', 'box_x2', 'box_y2', 'box_score')
"""What a table can have besides, the same for all rows of a person."""

SIZE_COLUMNS = ('image_width', 'image_height')
"""What a table can have besides, the same for all rows of an image."""

_ALL = COLUMNS + BOX_COLUMNS + SIZE_COLUMNS

ImageSize = tuple[int, int] | Mapping[str, tuple[int, int]] | None
"""Width and height of all images, or of each by its path; None takes what the table says."""

_LARGEST = float(np.finfo(np.float32).max)
_TEXT = ('image', 'person', 'keypoint')
_SKELETON = b'widehrnet_zoo.skeleton'


def write_csv(results: Iterable[PoseResult], file: str | Path, boxes: bool = False) -> None:
    """Write keypoints as CSV: UTF-8, commas, a header, one row per keypoint.

    Args:
        results: The results; one without a path is named by its place, from 0. An image without people has no row.
        file: The file, written whole or not at all.
        boxes: Write `BOX_COLUMNS` and `SIZE_COLUMNS` too, so that `read_csv` gives all back.

    Raises:
        UserError: If two results are of the same image.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(_ALL if boxes else COLUMNS)
    for row in _rows(results, boxes):
        # the shortest decimal number that is this float32; a number that is not finite is an empty cell
        writer.writerow([_short(v) if isinstance(v, np.float32) else v for v in row])
    write_whole(file, text.getvalue())


def read_csv(file: str | Path, skeleton: Skeleton | None = None, image_size: ImageSize = None) -> list[PoseResult]:
    """Read keypoints from CSV, as `write_csv` or a spreadsheet writes it.

    Args:
        file: The file. The order of columns and rows does not matter, further columns are ignored; an empty cell for
            x, y or score is NaN.
        skeleton: What the keypoints are; by default the known one with the names in the file, in their order, or a
            new one without bones.
        image_size: Of the images, where the table has no `SIZE_COLUMNS`, or instead of them.

    Returns:
        One result for each image in the order of the file, people by their numbers. Without box columns a box is
        the extent of the keypoints, with a score of 1.

    Raises:
        UserError: If the file cannot be read, a column is missing, a cell is not what it should be, or a person
            lacks a keypoint or has one twice.
    """
    try:
        with open(file, encoding='utf-8-sig', newline='') as stream:
            reader = csv.DictReader(stream, strict=True)
            header = reader.fieldnames or []
            _check_columns(file, header)
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(
                        f'{file}, line {reader.line_num}: expected {len(header)} cells, as in the first line.'
                    )
                rows.append((reader.line_num, row))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'{file} cannot be read as CSV: {getattr(error, "strerror", None) or error}.') from error
    return _results(file, 'line', rows, skeleton, image_size)


def write_parquet(results: Iterable[PoseResult], file: str | Path, boxes: bool = False) -> None:
    """Write keypoints as Parquet: the columns of `write_csv` with types, and the skeleton in the metadata.

    Args:
        results: As for `write_csv`, all of one skeleton.
        file: The file, written whole or not at all.
        boxes: Write `BOX_COLUMNS` and `SIZE_COLUMNS` too.

    Raises:
        UserError: If two results are of the same image, or skeletons differ.
        ImportError: If pyarrow is not installed.
    """
    arrow = require('pyarrow', 'parquet')
    parquet = require('pyarrow.parquet', 'parquet')
    results = list(results)
    skeletons = {result.skeleton for result in results}
    if len(skeletons) > 1:
        raise UserError(f'A Parquet table holds one skeleton, not {", ".join(sorted(s.name for s in skeletons))}.')
    text = arrow.dictionary(arrow.int32(), arrow.string())
    kinds = {'image': text, 'keypoint': text, 'person': arrow.int32()}
    kinds |= dict.fromkeys(SIZE_COLUMNS, arrow.int32())
    names = _ALL if boxes else COLUMNS
    metadata = {_SKELETON: json.dumps(results[0].skeleton.to_dict()).encode()} if results else None
    schema = arrow.schema([(name, kinds.get(name, arrow.float32())) for name in names], metadata)
    columns: list[list[Any]] = [[] for _ in names]
    for row in _rows(results, boxes):
        for column, value in zip(columns, row, strict=True):
            column.append(None if isinstance(value, np.float32) and not np.isfinite(value) else value)
    arrays = [arrow.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    buffer = arrow.BufferOutputStream()
    parquet.write_table(arrow.Table.from_arrays(arrays, schema=schema), buffer)
    write_whole(file, buffer.getvalue().to_pybytes())


def read_parquet(file: str | Path, skeleton: Skeleton | None = None, image_size: ImageSize = None) -> list[PoseResult]:
    """Read keypoints from Parquet.

    Args:
        file: The file; null for x, y or score is NaN.
        skeleton: What the keypoints are; by default as in the file's metadata, else as in `read_csv`.
        image_size: As in `read_csv`.

    Returns:
        As `read_csv`.

    Raises:
        UserError: As `read_csv`.
        ImportError: If pyarrow is not installed.
    """
    arrow = require('pyarrow', 'parquet')
    parquet = require('pyarrow.parquet', 'parquet')
    try:
        with parquet.ParquetFile(Path(file)) as opened:
            schema = opened.schema_arrow
            _check_columns(file, schema.names)
            table = opened.read([name for name in _ALL if name in schema.names])
        rows = list(enumerate(table.to_pylist()))
        kept = (schema.metadata or {}).get(_SKELETON)
        if skeleton is None and kept is not None:
            skeleton = Skeleton.from_dict(json.loads(kept))
    except UserError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, arrow.ArrowException) as error:
        raise UserError(f'{file} cannot be read as Parquet: {getattr(error, "strerror", None) or error}.') from error
    return _results(file, 'row', rows, skeleton, image_size)


def _rows(results: Iterable[PoseResult], boxes: bool) -> Iterator[list[Any]]:
    seen: set[str] = set()
    for place, result in enumerate(results):
        # a name of a file that is no Unicode is written with escapes: tables hold text only
        image = str(place) if result.path is None else result.path.encode('utf-8', 'backslashreplace').decode()
        if image in seen:
            raise UserError(f'Two results are of the image {image}: a table tells images apart by their path.')
        seen.add(image)
        for i in range(len(result)):
            more = [*result.boxes[i], result.box_scores[i], *map(int, result.image_size)] if boxes else []
            for k, name in enumerate(result.skeleton.keypoints):
                yield [image, i, name, *result.keypoints[i, k], result.scores[i, k], *more]


def _short(value: np.float32) -> str:
    return str(value) if np.isfinite(value) else ''


def _check_columns(file: str | Path, header: Sequence[str]) -> None:
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise UserError(
            f'{file} has no column {", ".join(missing)}: a table of keypoints has {", ".join(COLUMNS)}, and these '
            f'names in its first line.'
        )
    for group in (BOX_COLUMNS, SIZE_COLUMNS):
        missing = [name for name in group if name not in header]
        if 0 < len(missing) < len(group):
            raise UserError(f'{file} has no column {", ".join(missing)}: give all of {", ".join(group)}, or none.')
    twice = [name for name in _ALL if list(header).count(name) > 1]
    if twice:
        raise UserError(f'{file} has the column {twice[0]} twice.')


Row = dict[str, float]
"""Numbers of one keypoint by column."""

Person = dict[str, Row]
"""Rows by name of the keypoint."""


def _results(
    file: str | Path,
    unit: str,
    rows: Sequence[tuple[int, Mapping[str, Any]]],
    skeleton: Skeleton | None,
    image_size: ImageSize,
) -> list[PoseResult]:
    people: dict[str, dict[int, Person]] = {}
    for line, row in rows:
        where = f'{file}, {unit} {line}'
        image, keypoint = row['image'], row['keypoint']
        if not isinstance(image, str) or not isinstance(keypoint, str) or not keypoint:
            raise UserError(f'{where}: image and keypoint are text, not {image!r:.40} and {keypoint!r:.40}.')
        number = _number(row['person'], f'{where}: person')
        if not (number >= 0 and number.is_integer()):
            raise UserError(f'{where}: person is a whole number from 0, not {row["person"]!r:.40}.')
        person = people.setdefault(image, {}).setdefault(int(number), {})
        if keypoint in person:
            raise UserError(f'{where}: {keypoint:.40} of person {int(number)} in {image:.200} stands there twice.')
        person[keypoint] = {
            name: _number(row[name], f'{where}: {name}') for name in _ALL if name in row and name not in _TEXT
        }
    if skeleton is None:
        skeleton = _skeleton(people)
    return [_result(file, image, found, skeleton, image_size) for image, found in people.items()]


def _number(value: Any, name: str) -> float:
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    try:
        if isinstance(value, (bool, bytes)) or not isinstance(value, (str, int, float)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f'{name} is {value!r:.40}; expected a number.') from None
    if not abs(number) <= _LARGEST:
        raise UserError(f'{name} is {value!r:.40}; expected a finite number, or nothing where it is not known.')
    return number


def _skeleton(people: Mapping[str, Mapping[int, Person]]) -> Skeleton:
    names = tuple(next((person for found in people.values() for person in found.values()), {}))
    for known in SKELETONS.values():
        if set(known.keypoints) == set(names):
            return known
    return skeleton_from_names(names) if names else SKELETONS['coco']


def _result(
    file: str | Path, image: str, found: Mapping[int, Person], skeleton: Skeleton, image_size: ImageSize
) -> PoseResult:
    values = np.zeros((len(found), skeleton.num_keypoints, 3), np.float32)
    boxes, box_scores = np.zeros((len(found), 4), np.float32), np.ones(len(found), np.float32)
    sizes = set()
    for i, number in enumerate(sorted(found)):
        person = found[number]
        wrong = set(person) ^ set(skeleton.keypoints)
        if wrong:
            name = min(wrong)
            what = 'is not of' if name in person else 'is missing, of'
            raise UserError(
                f'{file}: {name:.40} of person {number} in {image:.200} {what} the skeleton {skeleton.name}; each '
                'person needs each of its keypoints once.'
            )
        rows = [person[name] for name in skeleton.keypoints]
        values[i] = [(row['x'], row['y'], row['score']) for row in rows]
        boxes[i] = extents(values[i : i + 1, :, :2])[0]
        if BOX_COLUMNS[0] in rows[0]:
            said = {tuple(row[name] for name in BOX_COLUMNS) for row in rows}
            if len(said) > 1:
                raise UserError(f'{file}: the box of person {number} in {image:.200} differs between its rows.')
            *boxes[i], box_scores[i] = said.pop()
        if SIZE_COLUMNS[0] in rows[0]:
            sizes |= {(row['image_width'], row['image_height']) for row in rows}
    size = _size(file, image, sizes, image_size)
    return PoseResult(values[..., :2].copy(), values[..., 2].copy(), boxes, box_scores, skeleton, size, image)


def _size(file: str | Path, image: str, said: set[tuple[float, float]], image_size: ImageSize) -> tuple[int, int]:
    given: tuple[float, float] | None = image_size.get(image) if isinstance(image_size, Mapping) else image_size
    if given is None:
        if len(said) != 1:
            raise UserError(
                f'{file} does not say one image_width and image_height for {image:.200}: give '
                'image_size=(width, height).'
            )
        given = said.pop()
    width, height = given
    if not all(float(side).is_integer() and side > 0 for side in (width, height)):
        raise UserError(f'{file}: the size of {image:.200} is {width} x {height}; expected whole numbers above 0.')
    return int(width), int(height)
