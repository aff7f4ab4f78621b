"""Photos of a collection by a local Ray, with two actors."""

import io
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_model import small

from widehrnet_zoo import PoseEstimator, UserError
from widehrnet_zoo.cli.main import main
from widehrnet_zoo.export.export import export
from widehrnet_zoo.kernels.library import find_library

SIZE = (64, 64)


@pytest.fixture(scope='module')
def cluster():
    ray = pytest.importorskip('ray')
    environment = pytest.MonkeyPatch()
    environment.setenv('RAY_AUTH_MODE', 'disabled')  # no token in the home of whoever runs the tests
    environment.setenv('RAY_USAGE_STATS_ENABLED', '0')
    environment.setenv('RAY_worker_niceness', '0')  # else the actors starve where something else is at work
    ray.init(num_cpus=2, object_store_memory=100 * 2**20, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()
    environment.undo()


@pytest.fixture(scope='module')
def model(tmp_path_factory, enliven):
    suffix = '.onnx' if find_library() is None else '.kernels'
    path = tmp_path_factory.mktemp('model') / f'pose{suffix}'
    export(enliven(small().eval()), path, size=SIZE)
    return path


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (80, 60, 3), np.uint8))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / 'photos'
    (folder / 'more').mkdir(parents=True)
    for i in range(40):
        picture(i).save(folder / ('more' if i % 2 else '.') / f'{i:02}.png')
    (folder / 'bad.jpg').write_text('not a photo')
    (folder / 'notes.txt').write_text('left alone')
    return folder


def table_of(out):
    import pyarrow.parquet as pq

    return pq.read_table(out).sort_by('path').to_pylist()


def workers():
    """Processes of the actors, which are below this one."""
    parents, names = {}, {}
    for entry in Path('/proc').iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / 'stat').read_text().rpartition(')')[2].split()[1])
                names[int(entry.name)] = (entry / 'cmdline').read_bytes()
            except OSError:
                continue

    def below(pid):
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return [pid for pid, name in names.items() if b'MapWorker' in name and below(pid)]


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='processes are found by /proc')
def test_an_actor_that_is_killed_costs_no_photo_and_doubles_none(cluster, model, enliven, photos, tmp_path):
    from widehrnet_zoo.collection import predict_collection

    out = tmp_path / 'out'
    model = Path(shutil.copy(model, tmp_path))
    options = {'model': model, 'detector': None, 'batch_size': 1}
    killed = []

    def kill():
        while not killed:
            if len(list(out.glob('part-*'))) >= 2 and (found := workers()):
                os.kill(found[0], signal.SIGKILL)
                killed.append((found[0], len(list(out.glob('part-*')))))
            time.sleep(0.01)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    counts = predict_collection([photos], out, shard_size=1, progress=False, **options)
    thread.join(10)
    assert killed and killed[0][1] < 41  # in the middle
    assert counts == {'photos': 41, 'people': 40, 'failed': 1, 'shards': 41}
    rows = table_of(out)
    assert [row['path'] for row in rows] == sorted(map(str, [*photos.rglob('*.png'), photos / 'bad.jpg']))
    errors = [row for row in rows if row['error']]
    assert [Path(row['path']).name for row in errors] == ['bad.jpg'] and errors[0]['keypoints'] is None
    expected = PoseEstimator(model, detector=None)(rows[0]['path'])
    np.testing.assert_array_equal(np.array(rows[0]['keypoints'], np.float32), expected.keypoints)
    np.testing.assert_array_equal(np.array(rows[0]['boxes'], np.float32), expected.boxes)
    # a run that was cut off: what is there is not done again
    parts = sorted(out.glob('part-*'))
    for part in parts[:2]:
        part.unlink()
    times = {part: part.stat().st_mtime_ns for part in parts[2:]}
    again = predict_collection([photos], out, shard_size=1, progress=False, **options)
    assert again == {**counts, 'shards': 2} and table_of(out) == rows
    assert times == {part: part.stat().st_mtime_ns for part in parts[2:]}
    assert predict_collection([photos], out, shard_size=1, progress=False, **options)['shards'] == 0
    with pytest.raises(UserError, match='other photos or options'):
        predict_collection([photos / 'more'], out, progress=False, **options)
    other = enliven(small().eval())
    with torch.no_grad():
        next(other.parameters()).mul_(1.01)
    export(other, model, size=SIZE)  # in a file of the same name
    with pytest.raises(UserError, match='other photos or options'):
        predict_collection([photos], out, shard_size=1, progress=False, **options)


@pytest.mark.slow
def test_parquet_of_bytes_and_the_command(cluster, model, tmp_path, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for i in range(6):
        content = io.BytesIO()
        picture(i).save(content, 'PNG')
        rows.append({'path': f'{i}.png', 'bytes': content.getvalue()})
    rows[3]['bytes'], rows[4]['bytes'] = b'not a photo', None
    out, table = tmp_path / 'out', tmp_path / 'photos.Parquet'
    pq.write_table(pa.Table.from_pylist(rows), table, row_group_size=2)
    command = ['predict', str(table), '--ray', '--model', str(model), '--out', str(out)]
    assert main([*command, '--detector', 'none', '--actors', '1', '--quiet']) == 1
    assert '6 photos, 4 people' in capsys.readouterr().out and len(list(out.glob('part-*'))) == 3
    found = table_of(out)
    assert [row['path'] for row in found] == [row['path'] for row in rows]
    assert [row['error'] is not None for row in found] == [False, False, False, True, True, False]
    assert main([*command, '--json']) == 2
    assert 'leave --json out' in capsys.readouterr().err


def test_what_cannot_work_is_said_before_ray_starts(model, tmp_path):
    pytest.importorskip('ray')
    from widehrnet_zoo.collection import predict_collection

    damaged = tmp_path / 'damaged' / 'photos.parquet'
    damaged.parent.mkdir()
    (tmp_path / 'empty').mkdir()
    damaged.write_bytes(b'PAR1 and no more')
    for sources, options, word in (
        ([damaged], {}, 'cannot be read as Parquet'),
        ([tmp_path / 'nothing'], {}, 'There is no'),
        ([tmp_path / 'empty'], {}, 'There are no photos'),
        ([tmp_path / 'empty'], {'decoder': 'udp'}, 'no decoder'),
        ([tmp_path / 'empty'], {'actors': 0}, 'at least 1'),
    ):
        with pytest.raises(UserError, match=word):
            predict_collection(sources, tmp_path / 'out', model=model, **options)
    assert not (tmp_path / 'out').exists()


def test_a_ray_that_does_not_start_is_one_sentence(model, photos, tmp_path, monkeypatch):
    ray = pytest.importorskip('ray')
    from widehrnet_zoo.collection import predict_collection

    def init():
        raise Exception('The current node timed out during startup.\nmore')

    monkeypatch.setattr(ray, 'is_initialized', lambda: False)
    monkeypatch.setattr(ray, 'init', init)
    with pytest.raises(UserError, match=r'did not start: The current node timed out during startup\. Try again'):
        predict_collection([photos], tmp_path / 'out', model=model, progress=False)
