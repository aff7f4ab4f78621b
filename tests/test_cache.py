"""Networks from the cache: the same numbers without PyTorch, and never another network's."""

import functools
import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from small_model import small, trained_like

from widehrnet_zoo.cli.main import main
from widehrnet_zoo.engines import cache
from widehrnet_zoo.engines.cache import CachedBackend, Request, keep, open_cached
from widehrnet_zoo.engines.opening import torch_module
from widehrnet_zoo.engines.pytorch import open_torch
from widehrnet_zoo.evaluation.subject import describe_backend
from widehrnet_zoo.inference.estimator import PoseEstimator
from widehrnet_zoo.kernels.library import find_library
from widehrnet_zoo.models.registry import create_model

pytestmark = pytest.mark.skipif(find_library() is None, reason='the package was installed without kernels')

CROPS = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv('WIDEHRNET_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(cache, '_may_have_gpu', lambda: False)
    return tmp_path / 'cache'


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / 'pose.safetensors'
    write(path, 0)
    return path


@functools.cache
def trained():
    return trained_like(small()).state_dict()


def write(path, seed):
    save_file({**trained(), 'classifier.weight': trained()['classifier.weight'] * (1 + seed)}, path)


def ask(**changes):
    return Request(**{'size': (64, 64), **changes})


def opened(request):
    backend = open_torch(request.model, request.weights, 'cpu', request.size, request.skeleton)
    keep(request, backend)
    return backend


def heatmaps(backend):
    return np.asarray(backend.from_crops(CROPS, backend.mean, backend.std))


def test_a_cached_network_gives_the_numbers_of_its_weights(weights):
    request = ask(weights=weights)
    assert open_cached(request) is None
    plain = opened(request)
    found = open_cached(request)
    assert np.array_equal(heatmaps(found), heatmaps(plain))
    for name in ('skeleton', 'size', 'mean', 'std', 'padding', 'score_map', 'engine'):
        assert getattr(found, name) == getattr(plain, name)
    copied = pickle.loads(pickle.dumps(found))
    assert isinstance(copied, CachedBackend) and np.array_equal(heatmaps(copied), heatmaps(plain))
    # the module is there for who asks, is what reports speak of, and the engine follows its weights
    assert describe_backend(found, None) == describe_backend(plain, None)
    module = torch_module(found)
    with torch.no_grad():
        module.classifier.weight.zero_()
        module.classifier.bias.fill_(2)
    assert np.allclose(heatmaps(found), 2)


def test_what_ships_is_kept_by_its_name_and_only_while_it_is_whole(monkeypatch):
    request = ask(model='widehrnet_10_attn')
    plain = opened(request)
    found = open_cached(request)
    assert np.array_equal(heatmaps(found), heatmaps(plain)) and found.metadata.name.startswith('widehrnet_10_attn.')
    assert open_cached(ask(model='widehrnet_10_attn.people_256x192')) is None

    def refuse(file):
        raise cache.UserError(f'{file} is not the file that was released')

    monkeypatch.setattr(cache, 'check_shipped', refuse)
    assert open_cached(ask(model='widehrnet_10_attn')) is None


def test_a_change_of_anything_is_another_network(weights, monkeypatch, tmp_path):
    plain = opened(ask(weights=weights))
    stamp = weights.stat()
    write(weights, 1)
    os.utime(weights, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # of the same length and time
    assert weights.stat().st_size == stamp.st_size and open_cached(ask(weights=weights)) is None
    changed = opened(ask(weights=weights))
    assert np.array_equal(heatmaps(open_cached(ask(weights=weights))), heatmaps(changed))
    assert not np.allclose(heatmaps(changed), heatmaps(plain), rtol=1e-2)
    asked = ask(weights=weights)
    others = [
        ask(weights=weights, size=(96, 64)),
        ask(weights=weights, skeleton=plain.skeleton),
        ask(weights=weights, model='widehrnet_10'),
    ]
    assert len({other.key for other in (asked, *others)}) == 4
    for name, value in (('__version__', '99'), ('_timm_version', lambda: '99'), ('_code', lambda: 'other')):
        with monkeypatch.context() as patch:
            patch.setattr(cache, name, value)
            assert ask(weights=weights).key not in (None, asked.key)
    # weights that changed while they were read are not kept under what they were
    shutil.rmtree(tmp_path / 'cache')
    asked = ask(weights=weights)
    assert asked.key
    write(weights, 2)
    opened(asked)
    assert not (tmp_path / 'cache').exists()


def test_what_cannot_be_told_without_pytorch_is_not_cached(weights, monkeypatch):
    for other in (
        ask(model=create_model('widehrnet_10')),
        ask(model='hf-hub:org/name'),
        ask(weights=weights, engine='eager'),
        ask(weights=weights, device='cuda'),
        ask(weights=weights.with_name('absent.safetensors')),
        ask(weights=weights, size=object()),
    ):
        assert other.key is None and open_cached(other) is None
    monkeypatch.setattr(cache, '_may_have_gpu', lambda: True)
    assert ask(weights=weights).key is None
    assert ask(weights=weights, device='cpu').key == ask(weights=weights, engine='kernels').key is not None


@pytest.mark.parametrize('damage', [lambda c: c[:-4], lambda c: c[:-4] + b'\1\2\3\4', lambda c: b'', lambda c: c[:9]])
def test_a_damaged_program_is_made_again(weights, folder, damage):
    plain = opened(ask(weights=weights))
    (file,) = folder.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert open_cached(ask(weights=weights)) is None
    opened(ask(weights=weights))
    assert np.array_equal(heatmaps(open_cached(ask(weights=weights))), heatmaps(plain))
    assert len(list(folder.iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_no_hindrance(weights, folder, monkeypatch):
    folder.write_text('a file')
    opened(ask(weights=weights))
    assert open_cached(ask(weights=weights)) is None and folder.read_text() == 'a file'
    monkeypatch.setenv('WIDEHRNET_CACHE', '')
    opened(ask(weights=weights))
    assert open_cached(ask(weights=weights)) is None


def test_the_programs_used_last_are_kept_and_nothing_else_is_removed(weights, folder, monkeypatch):
    monkeypatch.setattr(cache, '_MOST', 2)
    folder.mkdir()
    (folder / 'mine.kernels').write_text('of the user')
    sizes = [(64, 64), (64, 96), (96, 64)]
    for age, size in enumerate(sizes[:2]):
        opened(ask(weights=weights, size=size))
        for path in cache._kept(ask(weights=weights, size=size)):
            os.utime(path, (1000 - age, 1000 - age))
    assert open_cached(ask(weights=weights, size=(64, 96)))  # older, but used now
    opened(ask(weights=weights, size=(96, 64)))
    assert [open_cached(ask(weights=weights, size=size)) is not None for size in sizes] == [False, True, True]
    assert (folder / 'mine.kernels').read_text() == 'of the user'


COMMAND = """
import sys
sys.argv[0] = 'widehrnet'
from widehrnet_zoo.engines import cache
cache._may_have_gpu = lambda: False
from widehrnet_zoo.cli.main import main
code = main()
print('with torch' if 'torch' in sys.modules else 'without torch', 'with timm' if 'timm' in sys.modules else '')
sys.exit(code)
"""


def test_the_command_runs_without_pytorch_the_second_time(weights, folder, tmp_path, monkeypatch):
    photo = tmp_path / 'photo.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 140, 3), np.uint8)).save(photo)
    chosen = ['--model', 'widehrnet_10', '--weights', str(weights), '--boxes', '5,5,80,80', '--quiet', '--no-picture']
    monkeypatch.setattr(cache, 'STARTED_WITHOUT_PYTORCH', True)  # as in a process that begins with the command
    assert main(['predict', str(photo), '--out', str(tmp_path / 'first'), *chosen]) == 0
    assert len(list(folder.iterdir())) == 1
    command = [sys.executable, '-c', COMMAND, 'predict', str(photo), '--out', str(tmp_path / 'second'), *chosen]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / name / 'photo_pose.json').read_text()) for name in ('first', 'second'))
    assert 'without torch' in done.stdout and 'with timm' not in done.stdout and second == first
    plain = PoseEstimator('widehrnet_10', weights, engine='eager', device='cpu')(photo, [5, 5, 80, 80])
    found = [(k['x'], k['y']) for k in first['people'][0]['keypoints']]
    assert np.mean(np.abs(found - plain.keypoints[0]).max(-1) < 0.1) > 0.9
