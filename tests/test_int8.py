"""Products of 8-bit integers: by the kernels, and the same in PyTorch, from the program that both run."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from small_model import trained_like

from widehrnet_zoo import PoseEstimator, UserError
from widehrnet_zoo.deployment.network import deploy
from widehrnet_zoo.kernels import library
from widehrnet_zoo.kernels.library import find_library, variants
from widehrnet_zoo.kernels.native import accelerate
from widehrnet_zoo.kernels.program import STEPS
from widehrnet_zoo.kernels.record import record

if find_library() is None:
    pytest.skip('the package was installed without compiled kernels', allow_module_level=True)

needs_vnni = pytest.mark.skipif('int8' not in variants().values(), reason='this processor has no AVX512-VNNI')


@pytest.fixture(scope='module')
def model():
    options = {'channels': (12, 24, 40), 'num_modules': (1, 1), 'stem_width': 8, 'attn_layer': 'se'}
    return trained_like(timm.create_model('widehrnet_10', **options))


def integers(x, dim):
    """Whole numbers from -127 to 127, and what to multiply them with."""
    most = x.abs().amax(dim, keepdim=True).clamp_min(1e-30)
    return (x * (127 / most)).round(), most / 127


def product(x, weight, bias, whole=False):
    """Rows of channels times weights in 8 bits; the rows are in 8 bits already, or become so pixel by pixel."""
    weight, columns = integers(weight, 0)
    x, pixels = (x, 1) if whole else integers(x, -1)
    return bias + x @ weight * columns * pixels


def depthwise(x, weight, bias, stride=1):
    """(H, W, C), with weights (9, C)."""
    kernel = weight.t().reshape(-1, 1, 3, 3)
    return F.conv2d(x.permute(2, 0, 1)[None], kernel, bias, stride, 1, groups=len(bias))[0].permute(1, 2, 0)


def block(x, n, a):
    run = x[..., n['start'] : n['start'] + n['channels']]
    y = depthwise(product(run, a['expand'], a['expand_bias']).relu(), a['depthwise'], a['depthwise_bias']).relu()
    gates = (y.mean((0, 1)) @ a['squeeze'] + a['squeeze_bias']).relu() @ a['excite'] + a['excite_bias']
    y, gates, weight = y.round().clamp(max=255), gates.sigmoid(), a['project']
    if y.shape[0] * y.shape[1] > n['channels']:
        whole, columns = integers(weight, 0)
        weight = whole * columns * gates[:, None]
    else:
        y = (y * gates).round()
    run += product(y, weight, a['project_bias'], whole=True)


def simulated(program, image):
    """Heatmaps of an image (C, H, W)."""
    slots = {}
    for step in program.steps:
        numbers, names = STEPS[step.name]
        n = dict(zip(numbers, step.numbers, strict=True))
        a = {name: torch.from_numpy(program.arrays[array]) for name, array in zip(names, step.arrays, strict=False)}
        x, out = slots.get(n.get('from')), slots.get(step.to)
        if step.name == 'stem':
            _, height, width = image.shape
            patches = F.unfold(image[None], 3, padding=1, stride=2)[0].t().view(height // 2, width // 2, -1)
            first = product(patches, a['conv'], a['conv_bias']).relu()
            mixed = product(first[..., n['keep'] :], a['mix'], a['mix_bias']).relu()
            y = depthwise(torch.cat((first[..., : n['keep']], mixed), -1), a['depthwise'], a['depthwise_bias'], 2)
            slots[step.to] = product(y, a['product'], a['bias']).relu()
        elif step.name == 'block':
            block(out, n, a)
        elif step.name == 'separable':
            y = product(depthwise(x, a['depthwise'], a['depthwise_bias'], n['stride']), a['product'], a['bias'])
            slots[step.to] = out + y if n['add'] else y.relu() if n['relu'] else y
        elif step.name == 'pointwise':
            slots[step.to] = product(x, a['product'], a['bias'])
        elif step.name == 'add_nearest':
            channels = slice(n['start'], n['start'] + out.shape[-1])
            out += x[..., channels].repeat_interleave(2, 0).repeat_interleave(2, 1)
        elif step.name == 'add_bilinear':
            low = x.permute(2, 0, 1)[None]
            out += F.interpolate(low, out.shape[:2], mode='bilinear', align_corners=True)[0].permute(1, 2, 0)
        elif step.name == 'reorder':
            y = x[..., a['order'].long()]
            slots[step.to] = y.relu() if n['relu'] else y
    return product(x, a['product'], a['bias']).permute(2, 0, 1).numpy()


@needs_vnni
def test_the_kernels_round_where_the_same_in_pytorch_does(model):
    program = record(deploy(model))
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 96)).astype(np.float32)
    exact = program.open(library.choose_variant())(images)
    network = program.open(library.choose_variant('int8'))
    found = network(images, 1)
    expected = np.stack([simulated(program, torch.from_numpy(image)) for image in images])
    error, rough = np.abs(found - expected).mean(), np.abs(found - exact).mean()
    assert error < 0.1 * rough  # sums in another order round a few numbers to the other side
    assert rough < 0.05 * np.abs(exact).max()
    assert np.abs(network(images, 3) - found).mean() < 0.1 * rough


@needs_vnni
def test_an_estimator_runs_in_int8(model):
    crops = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    exact, rough = (PoseEstimator(model, size=(64, 64), int8=int8, detector=None) for int8 in (False, True))
    assert rough.backend.runner.variant == 'avx512_vnni'
    difference = (exact.heatmaps(crops) - rough.heatmaps(crops)).abs().max() / exact.heatmaps(crops).abs().max()
    assert 1e-4 < difference < 0.2


@needs_vnni
def test_damaged_weights_are_refused(model):
    deployed = deploy(model)
    deployed.body[1].branches[0][0].expand.weight[0, 0] = float('nan')
    with pytest.raises(UserError, match='NaN or infinite, which 8-bit integers would hide'):
        accelerate(deployed, 'int8')


def test_int8_without_the_processor_or_with_another_engine_is_refused(model, monkeypatch):
    for options, word in (({'bf16': True}, 'ask for bf16 or for int8'), ({'engine': 'eager'}, 'kernels alone')):
        with pytest.raises(UserError, match=word):
            PoseEstimator(model, int8=True, **options)
    monkeypatch.setattr(library, 'variants', lambda: {'avx512': 'f32'})
    with pytest.raises(UserError, match='no AVX512-VNNI, which the kernels need for int8: use f32'):
        PoseEstimator(model, int8=True)
