import functools

import numpy as np
import pytest
import timm
import torch
from small_model import error, trained_like
from torch import nn

import widehrnet_zoo.models  # noqa: F401
from widehrnet_zoo import SKELETONS, PoseEstimator, Skeleton, deploy
from widehrnet_zoo.deployment.folding import Layout, paired_layout
from widehrnet_zoo.deployment.layers import Gate
from widehrnet_zoo.errors import UserError
from widehrnet_zoo.kernels.library import find_library
from widehrnet_zoo.kernels.native import accelerate
from widehrnet_zoo.weights.official import convert_state_dict

VARIANTS = timm.list_models('widehrnet*')


@functools.cache
def trained(name):
    """A network that no test changes."""
    return trained_like(timm.create_model(name))


@pytest.mark.parametrize('name', ['widehrnet_10', 'widehrnet_10_attn', 'widehrnet_18_x2_attn'])
def test_the_deployed_network_gives_the_same_heatmaps(name):
    model = trained(name)
    deployed = deploy(model)
    assert error(model, deployed, 2, 3, 64, 96) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize('name', VARIANTS)
def test_every_variant_deploys(name):
    model = trained_like(timm.create_model(name))
    assert error(model, deploy(model), 1, 3, 64, 64) < 1e-4


@pytest.mark.parametrize('size', [(100, 76), (65, 33)])
def test_sizes_that_are_no_multiple_of_32_give_the_same_heatmaps_too(size):
    model = trained('widehrnet_10')
    assert error(model, deploy(model), 1, 3, *size) < 1e-4


@pytest.mark.parametrize(
    'kwargs',
    [
        {'attn_layer': 'eca'},
        {'attn_layer': 'cbam'},
        {'num_blocks': 3},
        {'num_blocks': 1},
        {'channels': (10, 22, 36, 70), 'stem_width': 12},
        {'channels': (16, 32, 64), 'num_modules': (2, 1)},
        {'global_pool': 'avg', 'num_classes': 5},
        {'num_classes': 0},
        {'in_chans': 1, 'drop_path_rate': 0.3},
    ],
    ids=str,
)
def test_other_architectures_deploy(kwargs):
    small = {'channels': (8, 12, 16, 20), 'num_modules': (1, 2, 1), 'stem_width': 8}
    model = trained_like(timm.create_model('widehrnet_10', **{**small, **kwargs}))
    assert error(model, deploy(model), 2, kwargs.get('in_chans', 3), 64, 64) < 1e-4


def test_no_block_copies_interleaves_or_normalises():
    deployed = deploy(trained('widehrnet_10_attn'))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in deployed.modules())
    x = torch.randn(1, 8, 6, 32)
    block = next(m for m in deployed.modules() if type(m).__name__ == 'Block')
    before = x.clone()
    assert block(x).data_ptr() == x.data_ptr()
    passes = [c for c in range(32) if not block.start <= c < block.stop]
    assert len(passes) == 16
    assert torch.equal(x[..., passes], before[..., passes])
    assert not torch.equal(x, before)


def test_the_trained_model_is_left_alone():
    model = trained('widehrnet_10')
    before = {k: v.clone() for k, v in model.state_dict().items()}
    deploy(model)(torch.randn(1, 3, 64, 64))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def kernels_of(model):
    if find_library() is None:
        pytest.skip('the package was installed without compiled kernels')
    return accelerate(deploy(model))


@pytest.mark.parametrize('fast', [deploy, kernels_of])
def test_what_the_keypoints_are_goes_with_the_network(fast):
    model = trained_like(timm.create_model('widehrnet_10', num_classes=3))
    model.skeleton = Skeleton('bird', ('beak', 'l', 'r'), flip_pairs=((1, 2),))
    model.padding = 1.1
    again = PoseEstimator(fast(model), size=(64, 64), detector=None)
    assert again.skeleton == model.skeleton and again.padding == 1.1
    assert fast(timm.create_model('widehrnet_10').eval()).skeleton == SKELETONS['coco']


def test_a_batch_is_the_same_as_one_by_one():
    deployed = deploy(trained('widehrnet_10_attn'))
    x = torch.randn(3, 3, 64, 64)
    together, singly = deployed(x), torch.cat([deployed(y[None]) for y in x])
    assert (together - singly).abs().max() < 1e-4 * singly.abs().max()


@pytest.mark.parametrize('chs', [4, 10, 22, 40, 320])
def test_both_blocks_of_a_pair_work_on_one_run_of_memory(chs):
    layout = paired_layout(chs)
    for _ in range(2):
        places = layout.second_half()
        assert torch.equal(places, torch.arange(places[0], places[0] + chs // 2))
        layout = layout.shuffled()


def test_a_shuffled_layout_is_the_shuffle_of_the_memory():
    x = torch.arange(10)
    layout = Layout.from_order(torch.randperm(10))
    stored = x[layout.order]
    a, b = x.chunk(2)
    shuffled = torch.stack((a, b), 1).flatten()
    assert torch.equal(stored[layout.shuffled().position], shuffled)


def test_published_attention_is_taken_into_the_weights():
    deployed = deploy(trained('widehrnet_10_attn'))
    assert any(isinstance(m, Gate) for m in deployed.modules())


@pytest.mark.parametrize(
    ('kwargs', 'word'), [({'norm_layer': 'groupnorm1'}, 'batch norm'), ({'act_layer': 'silu'}, 'ReLU')]
)
def test_what_cannot_be_folded_is_refused(kwargs, word):
    with pytest.raises(UserError, match=word):
        deploy(timm.create_model('widehrnet_10', **kwargs))


def test_other_networks_are_refused():
    with pytest.raises(UserError, match='takes a WideHRNet'):
        deploy(nn.Conv2d(3, 3, 1))
    with pytest.raises(UserError, match='features_only'):
        deploy(timm.create_model('widehrnet_10', features_only=True))


@pytest.mark.parametrize('name', ['widehrnet_18_attn', 'widehrnet_18'])
def test_official_weights_give_the_official_heatmaps_once_deployed(official, name):
    state = {k: torch.from_numpy(np.asarray(v)) for k, v in official.state_dict(name).items()}
    model = timm.create_model(f'{name}.mpii_256x256').eval()
    model.load_state_dict(convert_state_dict(state))
    images, expected = official.heatmaps(name)
    got = deploy(model)(images)
    assert (got - expected).abs().max() < 1e-4 * expected.abs().max()
