import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small_model import small, trained_like
from torch import nn

from widehrnet_zoo.bench import contenders, device, run, timing
from widehrnet_zoo.bench.contenders import Contender
from widehrnet_zoo.bench.report import table
from widehrnet_zoo.bench.run import bench
from widehrnet_zoo.bench.timing import Timing, cold_start, interleave
from widehrnet_zoo.cli.main import main
from widehrnet_zoo.kernels import library
from widehrnet_zoo.kernels.library import PARTS, find_library
from widehrnet_zoo.models.macs import count_macs
from widehrnet_zoo.pose.crops import box_views, crop_people, normalise

SIZE = (64, 64)


@pytest.fixture(autouse=True)
def no_trace(monkeypatch):
    """What a benchmark sets for its process is not left to the other tests, and it does not wait between calls."""
    monkeypatch.setattr(timing, '_PAUSE', 0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_networks(monkeypatch):
    """Networks of this package are small ones, whatever their names."""
    network, real = trained_like(small()), contenders._module
    monkeypatch.setattr(contenders, '_module', lambda name, *how: network if 'wide' in name else real(name, *how))
    device._network.cache_clear()
    yield
    device._network.cache_clear()


def test_timings_are_of_the_calls_and_in_turn():
    order = []

    def sleeper(name, seconds):
        def call():
            order.append(name)
            time.sleep(seconds)

        return call

    found = interleave({'slow': sleeper('slow', 0.02), 'fast': sleeper('fast', 0.005)}, 5, 0, progress=False)
    assert order == ['slow', 'slow', 'fast', 'fast'] * 5
    assert found['slow'].median >= 20 and 5 <= found['fast'].median < found['slow'].median
    assert found['slow'].best <= found['slow'].low <= found['slow'].median <= found['slow'].high


def test_a_timing_is_in_milliseconds():
    found = Timing.of([0.001, 0.002, 0.003])
    assert (found.median, found.best, found.runs) == pytest.approx((2.0, 1.0, 3))


def test_macs_are_the_multiplications_of_one_image():
    assert count_macs(nn.Conv2d(3, 8, 3, padding=1), (10, 12)) == 8 * 27 * 120
    assert count_macs(nn.Conv2d(3, 6, 3, padding=1, groups=3), (10, 12)) == 6 * 9 * 120


def test_the_command_writes_table_stages_chart_and_json(tmp_path, capsys, small_networks):
    pytest.importorskip('matplotlib')
    pytest.importorskip('onnxruntime')
    paths = ('eager', 'deployed', 'onnx', 'train')
    args = ['bench', 'widehrnet_10', '--paths', ','.join(paths), '--threads', '1', '--batches', '1', '2', '--quiet']
    # large and often enough that one interruption of a step does not move its median past the whole
    args += ['--runs', '5', '--people', '2']
    assert main([*args, '--out', str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    rows = json.loads((tmp_path / 'bench.json').read_text())['rows']
    assert [(r['path'], r['batch']) for r in rows] == [(p, b) for b in (1, 2) for p in paths]
    assert all(r['median'] > 0 and r['gmacs_per_s'] > 0 for r in rows)
    assert rows[0]['speedup'] == 1
    assert (tmp_path / 'bench.md').read_text() in printed
    assert (tmp_path / 'bench.png').read_bytes()[:4] == b'\x89PNG'
    # the stages of a photo, of what gives heatmaps
    rows = [line.split('|')[1:-1] for line in printed.splitlines() if line.startswith('| widehrnet_10 ')]
    stages = [row for row in rows if len(row) == 6]
    assert [row[0].strip() for row in stages] == [f'widehrnet_10 {path} f32' for path in paths[:3]]
    for row in stages:
        crops, network, decoding, whole = map(float, row[1:5])
        assert 0 < crops < whole and 0 < network < 1.5 * whole and 0 < decoding < whole
        assert float(row[5].strip(' %')) == pytest.approx(100 * network / whole, abs=2)


@pytest.mark.slow
def test_training_steps_are_timed_with_three_times_the_products():
    pytest.importorskip('ninja')
    runners = [Contender('widehrnet_10', path, 'f32', SIZE) for path in ('eager', 'train', 'train-fused')]
    [(eager, plain, fused)] = bench(runners, batches=(2,), runs=2, progress=False)
    assert plain['macs'] == fused['macs'] == 3 * eager['macs']
    assert plain['median'] > eager['median'] and fused['speedup'] == eager['median'] / fused['median']


@pytest.mark.slow
def test_the_fused_training_step_learns_what_the_plain_one_learns():
    pytest.importorskip('ninja')
    images = np.random.default_rng(0).standard_normal((2, 3, *SIZE)).astype(np.float32)
    runs = [Contender('widehrnet_10', path, 'f32', SIZE).open(1) for path in ('train', 'train-fused')]
    losses = [[run(images) for _ in range(3)] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3) and losses[0][2] < losses[0][0]


@pytest.mark.slow
def test_an_exported_program_is_timed():
    run = Contender('widehrnet_10', 'torch-export', 'f32', SIZE)
    with tempfile.TemporaryDirectory() as folder:
        heatmaps = run.prepare(Path(folder)).open(1)(np.zeros((2, 3, *SIZE), np.float32))
    assert heatmaps.shape == (2, 17, 16, 16)


@pytest.mark.slow
def test_a_cold_start_is_of_a_new_process():
    ballast = bytearray(os.urandom(1 << 20) * 1500)  # not to be counted
    found = cold_start(Contender('widehrnet_10', 'deployed', 'f32', SIZE), threads=1)
    assert 0.3 < found['first_result'] < 200
    assert 50 < found['peak_memory'] < len(ballast) / 2**20


def test_unknown_names_are_said(capsys):
    assert main(['bench', '--paths', 'warp']) == 2
    assert 'warp' in capsys.readouterr().err
    assert main(['bench', 'no_such_model', '--paths', 'eager']) == 2
    assert 'no_such_model' in capsys.readouterr().err
    assert main(['bench', '--vs', 'missing.onnx']) == 2
    assert 'missing.onnx' in capsys.readouterr().err


def test_what_the_processor_cannot_do_is_left_out(capsys, monkeypatch, small_networks):
    monkeypatch.setattr(library, 'variants', lambda: {'avx2': 'f32'})
    args = ['bench', 'widehrnet_10', '--precisions', 'bf16', '--size', '64', '64', '--runs', '1', '--quiet']
    assert main([*args, '--paths', 'eager,kernels']) == 0
    printed = capsys.readouterr()
    assert 'eager' in printed.out and 'kernels bf16 is left out. This processor has no AVX512-BF16' in printed.err
    for alone in (['--paths', 'kernels'], ['--steps']):
        assert main([*args, *alone]) == 2
        assert capsys.readouterr().err.startswith('widehrnet: This processor has no AVX512-BF16')


def test_the_table_has_a_line_for_each_row():
    row = {
        'model': 'm', 'path': 'eager', 'precision': 'f32', 'batch': 2, 'median': 4.0, 'low': 3.0, 'high': 5.0,
        'speedup': 1.0, 'gmacs_per_s': None,
    }  # fmt: skip
    assert table([row]).splitlines()[-1] == '| m | eager | f32 | 2 | 4.0 | 3.0-5.0 | 2.0 | 1.00 |  |'


def test_a_video_is_timed_in_turn_and_in_threads(tmp_path, capsys):
    pytest.importorskip('av')
    from safetensors.torch import save_file

    from widehrnet_zoo.bench.video import make_video

    save_file(small().state_dict(), tmp_path / 'random.safetensors')
    video = make_video(tmp_path / 'three.mp4', frames=3)
    args = ['bench', 'widehrnet_10', '--weights', str(tmp_path / 'random.safetensors'), '--video', str(video)]
    assert main([*args, '--runs', '1', '--threads', '1', '--quiet', '--out', str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert '3 frames' in printed and 'drawing' in printed and 'in threads' in printed
    times = json.loads((tmp_path / 'bench.json').read_text())['video']
    # the stages make up the whole
    assert sum(times['stages'].values()) == pytest.approx(1000 / times['in_turn'][0], rel=0.01)


def test_a_device_has_a_table_of_its_own(tmp_path, capsys, small_networks):
    # eager in float32 is what the others are compared with
    args = ['bench', 'widehrnet_10', '--device', 'cpu', '--paths', 'graphs', '--precisions', 'f32,bf16']
    args += ['--vs', 'test_resnet', '--size', '64', '64', '--batches', '2', '--runs', '1', '--quiet']
    assert main([*args, '--people', '2', '--out', str(tmp_path)]) == 0
    said = json.loads((tmp_path / 'bench.json').read_text())
    assert (tmp_path / 'bench.md').read_text() in capsys.readouterr().out
    rows = said['rows']
    assert len(rows) == 2 * 2 * 2 and len(said['photo']) == 4
    for row in rows:
        assert row['per_second'] == pytest.approx(1e3 * row['batch'] / row['median']) and row['memory'] is None
        if row['precision'] == 'f32':
            assert row['error'] < 1e-4
        else:
            assert 1e-4 < row['error'] < 0.2
        shares = [share for _, share in row['kernels']]
        assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1
    assert main(['bench', '--device', 'cpu', '--paths', 'openvino']) == 2
    assert main(['bench', '--device', 'cpu', '--cold']) == 2


@pytest.mark.parametrize('table', [['--paths', 'deployed'], ['--device', 'cpu', '--paths', 'eager']])
def test_what_was_measured_stays_when_the_rest_is_interrupted(tmp_path, capsys, monkeypatch, small_networks, table):
    done = []

    def interrupted(*args):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(args)
        return interleave(*args, progress=False)

    for module in run, device:
        monkeypatch.setattr(module, 'interleave', lambda calls, runs, *_, **__: interrupted(calls, runs, 0))
    args = ['bench', 'widehrnet_10', *table, '--precisions', 'f32', '--size', '64', '64', '--batches', '2', '1']
    assert main([*args, '--runs', '1', '--quiet', '--out', str(tmp_path)]) == 130
    rows = json.loads((tmp_path / 'bench.json').read_text())['rows']
    assert rows and {row['batch'] for row in rows} == {2} and all(row['median'] > 0 for row in rows)
    assert (tmp_path / 'bench.md').read_text() in capsys.readouterr().out


def test_crops_cut_on_the_device_are_those_of_numpy():
    from widehrnet_zoo.bench.device import crop_on_device

    image = np.random.default_rng(0).integers(0, 256, (90, 140, 3), np.uint8)
    views = box_views([[5, 5, 80, 80], [60, 20, 150, 100]], (64, 48))
    found = crop_on_device(torch.from_numpy(image), views, (64, 48))
    expected = normalise(crop_people(image, views, (64, 48)))
    assert found.shape == expected.shape and np.abs(found.numpy() - expected).max() < 1.1 / (255 * 0.224)


@pytest.mark.skipif(find_library() is None, reason='the package was installed without compiled kernels')
def test_the_steps_of_the_kernels_are_told_beside_the_peak(tmp_path):
    assert main(['bench', 'widehrnet_10_attn', '--steps', '--runs', '3', '--out', str(tmp_path)]) == 0
    rows = {row['part']: row for row in json.loads((tmp_path / 'bench.json').read_text())['steps']}
    assert '**all**' in (tmp_path / 'bench.md').read_text()
    whole = rows.pop('whole')
    assert set(rows) == set(PARTS) and all(0 < row['of_peak'] < 1.2 for row in (*rows.values(), whole) if row['gmacs'])
    assert sum(row['share'] for row in rows.values()) == pytest.approx(1)
    # a network's multiplications and no others, but for the identity beside the stem's second half
    expected = count_macs(Contender('widehrnet_10_attn', 'eager', 'f32', (256, 192)).module(), (256, 192)) / 1e9
    assert whole['gmacs'] == pytest.approx(expected, rel=0.1)
