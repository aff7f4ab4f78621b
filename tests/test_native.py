import numpy as np
import pytest
import timm
import torch
from test_deploy import error, trained_like

from widehrnet_zoo import PoseEstimator, UserError
from widehrnet_zoo.deployment.network import deploy
from widehrnet_zoo.evaluation.subject import describe_model
from widehrnet_zoo.kernels import native
from widehrnet_zoo.kernels.native import accelerate
from widehrnet_zoo.pose.skeletons import SKELETONS

pytestmark = pytest.mark.slow  # the first use compiles


@pytest.fixture(scope='module', autouse=True)
def compiler():
    pytest.importorskip('ninja')
    try:
        native.kernels()
    except UserError as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize('threads', [1, 2, 3])
@pytest.mark.parametrize(
    ('name', 'kwargs'),
    [
        ('widehrnet_10_attn', {}),
        ('widehrnet_18_x2', {}),
        ('widehrnet_10', {'num_blocks': 3, 'channels': (10, 22, 36, 70), 'stem_width': 12, 'attn_layer': 'se'}),
    ],
)
def test_the_kernels_give_the_same_heatmaps(name, kwargs, threads):
    model = trained_like(timm.create_model(name, **kwargs))
    fast = accelerate(deploy(model))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for shape in ((1, 3, 64, 96), (2, 3, 96, 32), (5, 3, 64, 64)):
            assert error(model, fast, *shape) < 1e-4
    finally:
        torch.set_num_threads(before)


def test_bfloat16_products_stay_near():
    if not native.kernels().has_bf16():
        pytest.skip('this processor has no AVX512-BF16')
    model = trained_like(timm.create_model('widehrnet_10_attn'))
    assert 1e-6 < error(model, accelerate(deploy(model), 'bf16'), 2, 3, 64, 64) < 0.05


def test_a_fused_estimator_finds_the_same_and_says_so():
    model = trained_like(timm.create_model('widehrnet_10_attn'))
    crops = np.random.default_rng(0).integers(0, 256, (3, 256, 192, 3), np.uint8)
    plain, fused = PoseEstimator(model), PoseEstimator(model, fused=True)
    expected = plain.heatmaps(crops, flip_test=True)
    assert (fused.heatmaps(crops, flip_test=True) - expected).abs().max() < 1e-4 * expected.abs().max()
    assert fused.model is model
    said, same = describe_model(fused, None), describe_model(plain, None)
    assert said == {**same, 'precision': 'float32, fused'}
    other = PoseEstimator(timm.create_model('widehrnet_10_attn'), fused=True)
    assert describe_model(other, None)['weights'] != said['weights']
    with pytest.raises(UserError, match='takes a WideHRNet'):
        PoseEstimator(torch.nn.Conv2d(3, 17, 4, 4), size=(256, 192), skeleton=SKELETONS['coco'], fused=True)


def test_what_the_kernels_cannot_run_is_refused():
    with pytest.raises(UserError, match='squeeze-excitation only'):
        accelerate(deploy(timm.create_model('widehrnet_10', attn_layer='eca')))
    with pytest.raises(UserError, match='heatmaps only'):
        accelerate(deploy(timm.create_model('widehrnet_10', global_pool='avg')))
    with pytest.raises(UserError, match='f32 or bf16'):
        accelerate(deploy(timm.create_model('widehrnet_10')), 'int4')
    fast = accelerate(deploy(timm.create_model('widehrnet_10')))
    with pytest.raises(UserError, match='multiples of 32'):
        fast(torch.zeros(1, 3, 100, 64))
    with pytest.raises(UserError, match='float32 images'):
        fast(torch.zeros(1, 3, 64, 64, dtype=torch.float64))
