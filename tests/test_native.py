import copy
import multiprocessing
import os
import pickle
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from small_model import THREE_STAGES, error, trained_like

from widehrnet_zoo import UserError
from widehrnet_zoo.deployment.network import deploy
from widehrnet_zoo.kernels import library
from widehrnet_zoo.kernels.library import Network, choose_variant, find_library, num_threads, variants
from widehrnet_zoo.kernels.native import accelerate
from widehrnet_zoo.kernels.record import record

if find_library() is None:
    pytest.skip('the package was installed without compiled kernels', allow_module_level=True)

UNEVEN = {'num_blocks': 3, 'channels': (10, 22, 36), 'num_modules': (1, 1), 'stem_width': 12, 'num_classes': 5}
SMALL = {**THREE_STAGES, 'attn_layer': 'se'}


CACHE = {}


def made(name, **kwargs):
    """A network and its deployed form; never changed by a test."""
    key = repr((name, kwargs))
    if key not in CACHE:
        CACHE[key] = make(name, kwargs)
    return CACHE[key]


def make(name, kwargs):
    model = trained_like(timm.create_model(name, **kwargs))
    return model, deploy(model)


def small():
    return made('widehrnet_10', **SMALL)[1]


@pytest.mark.parametrize('variant', list(variants()))
@pytest.mark.parametrize('kwargs', [{'attn_layer': 'se'}, UNEVEN, SMALL])
def test_every_set_of_kernels_gives_the_heatmaps_of_pytorch_on_any_number_of_threads(kwargs, variant):
    model, deployed = made('widehrnet_10', **kwargs)
    precision = variants()[variant]
    least, most = {'f32': (0, 1e-5), 'bf16': (1e-6, 0.05), 'int8': (1e-4, 0.2)}[precision]
    fast = accelerate(deployed, precision, variant)
    assert fast.variant == variant
    before = torch.get_num_threads()
    try:
        for shape in ((1, 3, 64, 96), (2, 3, 96, 32), (7, 3, 32, 32)):
            torch.set_num_threads(1)
            images = torch.randn(shape, generator=torch.Generator().manual_seed(1))
            with torch.no_grad():
                expected = model(images)
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                found = float((fast(images) - expected).abs().max() / expected.abs().max())
                assert least <= found < most, (threads, shape)
    finally:
        torch.set_num_threads(before)


def test_other_depths_and_channels_run_as_well():
    for kwargs in ({'num_blocks': 1, 'in_chans': 1}, {'num_blocks': 3, 'expansion': 2.0}):
        model, deployed = made('widehrnet_10', **{**SMALL, **kwargs})
        assert error(model, accelerate(deployed), 1, model.in_chans, 64, 64) < 1e-5


def test_the_kernels_can_be_chosen(monkeypatch):
    model = small()
    fitting = [name for name, precision in variants().items() if precision == 'f32']
    monkeypatch.setenv(library.VARIABLE, fitting[0])
    assert accelerate(model).variant == fitting[0]
    assert copy.deepcopy(accelerate(model)).variant == fitting[0]
    monkeypatch.setenv(library.VARIABLE, 'sse9')
    with pytest.raises(UserError, match=f"no kernels 'sse9' in f32 for this processor: choose {fitting[0]}"):
        accelerate(model)
    monkeypatch.delenv(library.VARIABLE)
    assert accelerate(model).variant == choose_variant() == fitting[-1]


def heatmaps_elsewhere(network, images, results):
    results.put(network(images).numpy())


@pytest.mark.skipif('fork' not in multiprocessing.get_all_start_methods(), reason='processes are not forked here')
def test_copies_and_forked_processes_give_the_same():
    network = accelerate(small())
    images = torch.randn(3, 3, 64, 64)
    expected = network(images)
    assert torch.equal(pickle.loads(pickle.dumps(network))(images), expected)
    assert torch.equal(copy.deepcopy(network)(images), expected)
    # spawned ones are in test_engines.py
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    process = context.Process(target=heatmaps_elsewhere, args=(network, images, results))
    process.start()
    try:
        assert np.allclose(results.get(timeout=60), expected.numpy(), atol=1e-5)
    finally:
        process.join(10)
        process.kill()


@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='threads are counted by Linux')
def test_calls_from_many_threads_share_their_helpers_which_sleep_between_calls():
    network = record(small()).open(choose_variant())
    images = np.random.default_rng(0).standard_normal((5, 3, 64, 64)).astype(np.float32)
    expected = network(images, 1)
    network(images, 3)
    before = len(os.listdir('/proc/self/task'))
    results = {}

    def call(i):
        for _ in range(5):
            results[i] = network(images, 3)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.allclose(results[i], expected, atol=1e-5) for i in range(10))
    for _ in range(100):  # a thread that was joined is still there for a moment
        if len(os.listdir('/proc/self/task')) <= before:
            break
        time.sleep(0.05)
    assert len(os.listdir('/proc/self/task')) <= before
    start = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - start < 0.1


def test_the_number_of_threads_is_that_of_pytorch_or_of_the_environment(monkeypatch):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert num_threads() == 3
    finally:
        torch.set_num_threads(before)
    monkeypatch.setenv('OMP_NUM_THREADS', '5,2')
    monkeypatch.delitem(sys.modules, 'torch')
    assert num_threads() == 5
    monkeypatch.setenv('OMP_NUM_THREADS', '')
    assert num_threads() >= 1


def test_programs_that_cannot_be_are_refused_and_never_read_beyond_their_weights():
    steps, numbers = record(small()).encode()
    rng = np.random.default_rng(0)
    images = np.zeros((1, 3, 32, 32), np.float32)
    refused = 0
    for _ in range(400):
        wrong = steps.copy()
        for _ in range(rng.integers(1, 3)):
            where = tuple(rng.integers(0, wrong.shape))
            wrong[where] = rng.choice([-1, 0, 1, 7, 16, 64, 10**4, 2**40, -(2**62), wrong[where] + 1, wrong[where] * 2])
        try:
            network = Network(wrong, numbers, choose_variant(), 3, 17)
        except UserError as error:
            assert 'the program' in str(error)
            refused += 1
            continue
        with np.errstate(all='ignore'):
            network.outputs = 100
            try:
                network(images, 2)
            except UserError:
                refused += 1
    assert refused > 100


def test_damaged_weights_show_in_the_heatmaps():
    model = trained_like(timm.create_model('widehrnet_10', **SMALL))
    with torch.no_grad():
        model.stages[0][0].branches[0][0].conv_pw.conv.weight[0, 0] = float('nan')
    assert accelerate(deploy(model))(torch.randn(1, 3, 64, 64)).isnan().any()


def test_a_clone_without_kernels_takes_those_of_the_installation(monkeypatch, tmp_path):
    from widehrnet_zoo import kernels

    file = find_library()
    installed = tmp_path / 'widehrnet_zoo' / 'kernels' / file.name
    installed.parent.mkdir(parents=True)
    installed.touch()
    monkeypatch.setattr(kernels, '__path__', [str(tmp_path / 'clone')])
    monkeypatch.setattr('sysconfig.get_path', lambda name: str(tmp_path))
    assert find_library() == installed
    installed.unlink()
    assert find_library() is None


def test_what_the_kernels_cannot_run_is_refused(monkeypatch):
    with pytest.raises(UserError, match='squeeze-excitation only'):
        accelerate(deploy(timm.create_model('widehrnet_10', attn_layer='eca')))
    with pytest.raises(UserError, match='heatmaps only'):
        accelerate(deploy(timm.create_model('widehrnet_10', global_pool='avg')))
    with pytest.raises(UserError, match='f32, bf16, int8, not in int4'):
        accelerate(small(), 'int4')
    fast = accelerate(small())
    with pytest.raises(UserError, match='multiples of 32'):
        fast(torch.zeros(1, 3, 100, 64))
    with pytest.raises(UserError, match='float32 images'):
        fast(torch.zeros(1, 3, 64, 64, dtype=torch.float64))
    assert fast(torch.zeros(0, 3, 64, 64)).shape == (0, 17, 16, 16)
    monkeypatch.setattr(library, 'find_library', lambda: None)
    library._library.cache_clear()
    try:
        with pytest.raises(UserError, match='has no compiled kernels'):
            accelerate(small())
    finally:
        library._library.cache_clear()
