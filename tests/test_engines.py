import copy
import logging
import multiprocessing
import pickle

import numpy as np
import pytest
import timm
import torch
from small_model import THREE_STAGES, trained_like, watch_layouts

from widehrnet_zoo import PoseEstimator, UserError, deploy
from widehrnet_zoo.engines import pytorch
from widehrnet_zoo.evaluation.subject import describe_model
from widehrnet_zoo.kernels.library import find_library
from widehrnet_zoo.pose.skeletons import SKELETONS

FAST = 'kernels' if find_library() else 'deployed'
CROPS = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)


def small(**kwargs):
    return trained_like(timm.create_model('widehrnet_10', **{**THREE_STAGES, 'attn_layer': 'se', **kwargs}))


def estimator(model, **options):
    return PoseEstimator(model, size=(64, 64), skeleton=SKELETONS['coco'], **options)


def far(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


def test_by_default_the_fastest_engine_runs_and_gives_the_heatmaps_of_plain_pytorch():
    model = small()
    plain = estimator(model, engine='eager')
    expected = plain.heatmaps(CROPS, flip_test=True)
    assert plain.backend.runner is model
    for engine in ('auto', 'deployed', FAST):
        chosen = estimator(model, engine=engine)
        assert chosen.backend.engine == (FAST if engine == 'auto' else engine)
        assert chosen.model is model
        assert far(chosen.heatmaps(CROPS, flip_test=True), expected) < 1e-4
    # where pictures go in, at the size that ships
    photo = np.random.default_rng(1).integers(0, 256, (240, 180, 3), np.uint8)
    poses = [PoseEstimator('widehrnet_10_attn', engine=e)(photo, [[0, 0, 180, 240]]) for e in ('auto', 'eager')]
    assert np.abs(poses[0].keypoints - poses[1].keypoints).max() < 0.05
    assert np.abs(poses[0].scores - poses[1].scores).max() < 1e-4


def test_reports_say_which_weights_ran_and_that_the_kernels_did():
    model = small()
    fast, plain = (describe_model(estimator(model, engine=e), None) for e in (FAST, 'eager'))
    assert fast == {**plain, 'precision': 'float32, kernels' if FAST == 'kernels' else 'float32'}
    assert describe_model(estimator(small(num_blocks=1)), None)['weights'] != fast['weights']


def test_the_engine_follows_weights_that_change():
    model = small()
    fast, plain = estimator(model), estimator(model, engine='eager')
    before = fast.heatmaps(CROPS)
    with torch.no_grad():
        model.classifier.weight.mul_(2)
    assert far(fast.heatmaps(CROPS), plain.heatmaps(CROPS)) < 1e-4 < far(before, plain.heatmaps(CROPS))
    model.load_state_dict(small(num_blocks=2).state_dict())
    assert far(fast.heatmaps(CROPS), plain.heatmaps(CROPS)) < 1e-4
    before = fast.heatmaps(CROPS)
    model.classifier.weight = torch.nn.Parameter(model.classifier.weight.detach() * 3)
    assert far(fast.heatmaps(CROPS), plain.heatmaps(CROPS)) < 1e-4 < far(before, plain.heatmaps(CROPS))
    before = fast.heatmaps(CROPS)
    model.classifier = torch.nn.Conv2d(model.classifier.in_channels, 17, 1)
    assert far(fast.heatmaps(CROPS), plain.heatmaps(CROPS)) < 1e-4 < far(before, plain.heatmaps(CROPS))


def test_weights_are_watched_from_the_moment_that_somebody_has_the_module(tmp_path):
    small().save_pretrained(tmp_path / 'model')
    ours = estimator(tmp_path / 'model', device='cpu')
    before = ours.heatmaps(CROPS)
    # a report gives it to nobody; what comes from the cache has nothing to watch
    assert describe_model(ours, None)['model'] == 'widehrnet_10.untrained, input 64x64'
    assert getattr(ours.backend, '_own', True)
    for opened in (ours, pickle.loads(pickle.dumps(ours))):
        with torch.no_grad():
            opened.model.classifier.weight.mul_(2)
        assert far(opened.heatmaps(CROPS), before) > 1e-2


def keypoints_elsewhere(estimator, photo, results):
    results.put(estimator(photo, [[0, 0, 64, 64]]).keypoints)


def test_estimators_can_be_copied():
    ours = estimator(small())
    expected = ours(CROPS[0], [[0, 0, 64, 64]]).keypoints
    for copied in (pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours)):
        assert np.allclose(copied(CROPS[0], [[0, 0, 64, 64]]).keypoints, expected, atol=1e-3)
        assert copied.backend.engine == FAST


@pytest.mark.slow
def test_an_estimator_can_be_sent_to_another_process():
    ours = estimator(small())
    expected = ours(CROPS[0], [[0, 0, 64, 64]]).keypoints
    context = multiprocessing.get_context('spawn')
    results = context.Queue()
    process = context.Process(target=keypoints_elsewhere, args=(ours, CROPS[0], results))
    process.start()
    try:
        assert np.allclose(results.get(timeout=120), expected, atol=1e-3)
    finally:
        process.join(10)
        process.kill()


def test_without_compiled_kernels_the_deployed_network_runs_and_it_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(pytorch, 'find_library', lambda: None)
    pytorch._say_once.cache_clear()
    model = small()
    with caplog.at_level(logging.WARNING):
        assert [estimator(model).backend.engine for _ in range(2)] == ['deployed'] * 2
    assert len(caplog.records) == 1 and 'no compiled kernels' in caplog.text


def test_what_the_kernels_cannot_run_is_run_by_the_next_best_unless_they_were_asked_for():
    other = small(attn_layer='eca')
    assert estimator(other).backend.engine == 'deployed'
    hooked = small()
    hooked.stem.register_forward_hook(lambda *_: None)
    assert estimator(hooked).backend.engine == 'eager'
    assert estimator(deploy(small())).backend.engine == FAST
    strange = torch.nn.Sequential(torch.nn.Conv2d(3, 17, 4, 4))
    assert estimator(strange).backend.engine == 'eager'
    with pytest.raises(UserError, match='takes a WideHRNet'):
        estimator(strange, engine='kernels')
    if FAST == 'kernels':
        with pytest.raises(UserError, match='squeeze-excitation only'):
            estimator(other, engine='kernels')
    with pytest.raises(UserError, match="no engine 'fast': choose auto, kernels, deployed, graphs, eager"):
        estimator(small(), engine='fast')


def test_graphs_are_half_precision_at_fixed_batch_sizes():
    model = small()
    plain, half = estimator(model, engine='eager'), estimator(model, engine='graphs')
    expected = plain.heatmaps(CROPS)
    shapes = []
    half.backend.runner.network.register_forward_hook(lambda _, given, found: shapes.append(tuple(given[0].shape)))
    last = watch_layouts(half.backend.runner.network)
    assert 0 < far(half.heatmaps(CROPS), expected) < 0.02
    assert last and all(last)
    assert half.heatmaps(CROPS[:1]).shape == (1, *expected.shape[1:])
    assert shapes == [(4, 3, 64, 64), (1, 3, 64, 64)]  # without a GPU there are no graphs, and the rest is the same
    assert describe_model(half, None)['precision'] == 'float16, CUDA graphs'
    assert describe_model(estimator(model, engine='graphs', bf16=True), None)['precision'] == 'bfloat16, CUDA graphs'
    with torch.no_grad():
        model.classifier.weight.mul_(2)
    assert far(half.heatmaps(CROPS), plain.heatmaps(CROPS)) < 0.02


def test_on_cuda_the_default_is_graphs(monkeypatch):
    monkeypatch.setattr(pytorch, '_graphed', lambda module, bf16: (module, bf16))
    model, cuda = small(), torch.device('cuda')
    assert pytorch._fastest(model, cuda, True) == ('graphs', (model, True))
    assert pytorch._fastest(torch.nn.Identity(), cuda, False)[0] == 'eager'
    assert pytorch._fastest(model, torch.device('mps'), False)[0] == 'eager'
