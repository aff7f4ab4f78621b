"""Photo collections that outgrow one machine: keypoints by Ray Data (extra `ray`).

The photos are divided into shards. Ray Data gives them to a pool of actors, each of which holds the model, and starts
an actor anew, with its shard, when it dies. An actor writes a shard's results as one Parquet file, which is there whole
or not at all: nothing is lost or doubled, and a run that was cut off goes on with the shards that have no file yet.
"""

import hashlib
import json
import os.path
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from .errors import UserError
from .extras import require
from .files import model_files, sha256
from .inference.estimator import PoseEstimator
from .inference.photo import Photo
from .pose.images import PHOTO_SUFFIXES
from .progress import begun_ahead, progress_bar

_RUN = '_run.sha256'
_COUNTS = ('photos', 'people', 'failed')


def predict_collection(
    sources: Iterable[Any],
    out: Any,
    *,
    actors: int = 2,
    cpus: float = 1,
    gpus: float = 0,
    shard_size: int = 200,
    progress: bool = True,
    **options: Any,
) -> dict[str, int]:
    """Keypoints of many photos, on all machines of a Ray cluster, or on this one.

    Args:
        sources: Photos, folders of them, or Parquet files with the columns `path` and `bytes` (the file of a photo); on
            disk, or addresses such as `s3://bucket/photos`; all machines must reach them.
        out: Folder or address for `part-000000.parquet`, ...: a row for each photo, with `path`, `width`, `height`,
            `keypoints` (people, K, 2), `scores` (people, K), `boxes` (people, 4), `box_scores` (people) and `error`,
            which is null where all went well. The same call on the same folder goes on where it was cut off.
        actors: How many hold the model; no more than there are shards are started.
        cpus: Of each actor, and its threads.
        gpus: Of each actor.
        shard_size: Photos to a shard; in a Parquet file a row group is one.
        progress: Show a progress bar.
        **options: Of `PoseEstimator`; names and files, no modules.

    Returns:
        How many `photos`, `people` and `failed` photos are in all parts, and `shards` that this call did.

    Raises:
        UserError: If there are no photos, `out` is of another run, an option is wrong, or Ray fails.
        ImportError: If Ray is not installed.
    """
    data, exceptions = require('ray.data', 'ray'), require('ray.exceptions', 'ray')
    if min(actors, shard_size) < 1:
        raise UserError(f'actors and shard_size must be at least 1, not {actors} and {shard_size}.')
    # actors may work in another folder
    out = str(out) if '://' in str(out) else os.path.abspath(out)
    files = {name: options.get(name) for name in ('model', 'weights')}
    options |= {name: os.path.abspath(file) for name, file in files.items() if file and os.path.exists(file)}
    PoseEstimator(**{**options, 'device': 'cpu'})  # what is wrong with the options is said before anything is started
    entries = sorted({entry for entry in _entries(sources) if not entry[0].startswith(f'{out}/')})
    photos = [address for address, group, _ in entries if group < 0]
    parts = [photos[start : start + shard_size] for start in range(0, len(photos), shard_size)]
    shards: list[dict[str, Any]] = [{'paths': paths, 'group': -1} for paths in parts]
    shards += [{'paths': [address], 'group': group} for address, group, _ in entries if group >= 0]
    shards = [{**shard, 'name': f'part-{number:06}.parquet'} for number, shard in enumerate(shards)]
    if not shards:
        raise UserError('There are no photos: give photos, folders or Parquet files with the columns path and bytes.')
    # other weights in a file of the same name are another run
    opened = [options[name] for name in files if options.get(name) and os.path.isfile(options[name])]
    digests = [sha256(*model_files(file)) for file in opened]
    done = _begun(out, json.dumps([shards, options, digests], sort_keys=True, default=str))
    todo = [shard for shard in shards if shard['name'] not in done]
    counts = {name: sum(part[name] for part in done.values()) for name in _COUNTS} | {'shards': len(todo)}
    total = sum(rows for *_, rows in entries)
    if todo:
        _start_ray()
    data.DataContext.get_current().enable_progress_bars = False
    pool = data.ActorPoolStrategy(size=min(actors, len(todo) or 1))
    actor = {'fn_constructor_args': (out, options), 'compute': pool, 'num_cpus': cpus}
    try:
        with progress_bar(total, 'photo', disable=not progress) as bar:
            bar.update(counts['photos'])
            if todo:
                # an actor that dies, and what it was doing, is begun again: Ray Data's default
                items = data.from_items(todo, override_num_blocks=min(len(todo), 10_000))
                for part in items.map(_Actor, num_gpus=gpus, **actor).iter_rows():
                    bar.update(int(part['photos']))
                    counts |= {name: counts[name] + int(part[name]) for name in _COUNTS}
    except exceptions.RayError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise UserError(f'Ray failed: {reason[:500]}. What is done stays: the same call goes on.') from error
    return counts


def _start_ray() -> None:
    """Start Ray, or join the cluster that RAY_ADDRESS names, unless the caller did."""
    ray = require('ray', 'ray')
    if ray.is_initialized():
        return
    try:
        ray.init()
    except Exception as error:  # a start that takes too long is no other class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f'Ray did not start: {reason[:500]} Try again when the machine is less busy; with RAY_ADDRESS, see that '
            'the cluster is up and can be reached.'
        ) from error


class _Actor:
    def __init__(self, out: Any, options: dict[str, Any]):
        self.out, self.estimator = out, PoseEstimator(**options)

    def __call__(self, shard: dict[str, Any]) -> dict[str, int]:
        rows: list[dict[str, Any]] = []
        read: list[dict[str, Any]] = []  # those of them that the network is shown

        def photos() -> Iterator[Photo]:
            for path, content in _contents(list(map(str, shard['paths'])), int(shard['group'])):
                rows.append({'path': path})
                try:
                    photo = Photo(content())
                except OSError as error:
                    rows[-1]['error'] = f'{path} cannot be read: {error}'
                    continue
                read.append(rows[-1])
                yield photo

        people = 0
        for place, _, result in self.estimator.look(photos(), skip=lambda place, e: read[place].update(error=str(e))):
            arrays = {name: getattr(result, name).tolist() for name in ('keypoints', 'scores', 'boxes', 'box_scores')}
            read[place].update(arrays, width=result.image_size[0], height=result.image_size[1])
            people += len(result)
        counts = {'photos': len(rows), 'people': people, 'failed': sum('error' in row for row in rows)}
        _write(self.out, shard['name'], rows, {**counts, 'skeleton': self.estimator.skeleton.to_dict()})
        return counts


def _place(address: Any) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    text = str(address)
    return require('pyarrow.fs', 'ray').FileSystem.from_uri(text if '://' in text else os.path.abspath(text))


def _entries(sources: Iterable[Any]) -> Iterator[tuple[str, int, int]]:
    """Address, row group of a Parquet file or -1, and number of photos."""
    fs, parquet = require('pyarrow.fs', 'ray'), require('pyarrow.parquet', 'ray')
    for source in map(str, sources):
        files, path = _place(source)
        scheme, mark, _ = source.rpartition('://')
        found = [files.get_file_info(path)]
        if found[0].type == fs.FileType.NotFound:
            raise UserError(f'There is no {source}.')
        if found[0].type == fs.FileType.Directory:
            inside = files.get_file_info(fs.FileSelector(path, recursive=True))
            found = [f for f in inside if f.path.lower().endswith((*PHOTO_SUFFIXES, '.parquet'))]
        for address in (scheme + mark + f.path for f in found if f.type == fs.FileType.File):
            if not address.lower().endswith('.parquet'):
                yield address, -1, 1
                continue
            try:
                table = parquet.ParquetFile(_place(address)[1], filesystem=files)
            except (OSError, ValueError) as error:
                raise UserError(f'{address} cannot be read as Parquet: {error}') from error
            if not {'path', 'bytes'} <= set(table.schema_arrow.names):
                raise UserError(f'{address} has no columns path and bytes.')
            yield from ((address, i, table.metadata.row_group(i).num_rows) for i in range(table.num_row_groups))


def _contents(paths: list[str], group: int) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Names of photos, and what gives their files, a few of which are read ahead."""

    def read(path: str) -> bytes:
        files, inside = _place(path)
        with files.open_input_file(inside) as file:
            return file.read()

    if group >= 0:
        files, path = _place(paths[0])
        table = require('pyarrow.parquet', 'ray').ParquetFile(path, filesystem=files)
        for row in table.read_row_group(group, columns=['path', 'bytes']).to_pylist():
            yield row['path'], partial(bytes, row['bytes'] or b'')
        return
    yield from zip(paths, begun_ahead(read, paths, 4, 8), strict=True)


def _begun(out: Any, run: str) -> dict[str, dict[str, int]]:
    """What the parts that are there hold, by their names; the folder is made where there is none."""
    fs, parquet = require('pyarrow.fs', 'ray'), require('pyarrow.parquet', 'ray')
    files, folder = _place(out)
    files.create_dir(folder)
    said = hashlib.sha256(run.encode()).hexdigest().encode()
    if files.get_file_info(f'{folder}/{_RUN}').type == fs.FileType.NotFound:
        with files.open_output_stream(f'{folder}/{_RUN}') as file:
            file.write(said)
    with files.open_input_file(f'{folder}/{_RUN}') as file:
        if file.read() != said:
            raise UserError(f'{out} holds the results of other photos or options: give another folder.')
    names = [f.path for f in files.get_file_info(fs.FileSelector(folder)) if f.base_name.startswith('part-')]
    schemas = {name.rpartition('/')[2]: parquet.read_schema(name, filesystem=files) for name in names}
    return {name: json.loads(schema.metadata[b'widehrnet_zoo']) for name, schema in schemas.items()}


def _write(out: Any, name: str, rows: list[dict[str, Any]], said: dict[str, Any]) -> None:
    arrow, parquet = require('pyarrow', 'ray'), require('pyarrow.parquet', 'ray')
    number, many = arrow.float32(), arrow.list_
    fields = [('path', arrow.string()), ('width', arrow.int32()), ('height', arrow.int32())]
    fields += [('keypoints', many(many(many(number)))), ('scores', many(many(number))), ('boxes', many(many(number)))]
    fields += [('box_scores', many(number)), ('error', arrow.string())]
    schema = arrow.schema(fields).with_metadata({'widehrnet_zoo': json.dumps(said)})
    files, folder = _place(out)
    # it has its name when it is whole; a shard that is done twice has the same name
    with files.open_output_stream(f'{folder}/.{name}') as stream:
        parquet.write_table(arrow.Table.from_pylist(rows, schema), stream)
    files.move(f'{folder}/.{name}', f'{folder}/{name}')
