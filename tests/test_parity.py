"""The network against the official implementation's outputs, and its exchange against the formula."""

import re

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from widehrnet_zoo.models.blocks import Fusion
from widehrnet_zoo.weights.official import convert_state_dict


def state_of(official, name, keys=None):
    keys = keys or {k: v.shape for k, v in official.state_dict(name).items()}
    return {k: torch.from_numpy(np.asarray(official._entry(k, tuple(v)))) for k, v in keys.items()}


@pytest.fixture(scope='module', params=['widehrnet_18', 'widehrnet_18_attn'])
def case(request, official):
    """A variant with the official weights, the official images and heatmaps."""
    model = timm.create_model(f'{request.param}.mpii_256x256').eval()
    model.load_state_dict(convert_state_dict(state_of(official, request.param)))
    return model, *official.heatmaps(request.param)


def error(heatmaps, expected):
    assert heatmaps.shape == expected.shape
    return ((heatmaps - expected).abs().max() / expected.abs().max()).item()


@torch.inference_mode()
def test_heatmaps_are_the_official_ones(case):
    model, images, expected = case
    assert error(model(images), expected) < 1e-5


@torch.inference_mode()
def test_the_textbook_sum_would_not_be_the_official_one(case, monkeypatch):
    model, images, expected = case

    def textbook(self, x):
        sums = [
            sum(F.interpolate(f(x[j]), size=x[i].shape[-2:]) if j > i else f(x[j]) for j, f in enumerate(row))
            for i, row in enumerate(self.paths)
        ]
        return [F.relu(z) for z in sums]

    monkeypatch.setattr(Fusion, 'forward', textbook)
    assert error(model(images), expected) > 0.01  # of the largest heatmap value


@torch.inference_mode()
@pytest.mark.parametrize('name', ['widehrnet_18', 'widehrnet_18_attn'])
def test_official_weights_of_depth_30_fit(official, name):
    keys = {}
    for key, value in official.state_dict(name).items():
        keys[key] = value.shape
        # modules of a stage have the same names and shapes: (2, 4, 2) of them in 18, (3, 8, 3) in 30
        if match := re.match(r'backbone\.stage(\d)\.0\.', key):
            for module in range((3, 8, 3)[int(match[1])]):
                keys[key.replace(match[0], f'backbone.stage{match[1]}.{module}.')] = value.shape
    model = timm.create_model(name.replace('18', '30') + '.mpii_256x256').eval()
    model.load_state_dict(convert_state_dict(state_of(official, name, keys)))
    heatmaps = model(torch.from_numpy(official.images(name, 1, 96, 64)))
    assert heatmaps.shape == (1, 16, 24, 16)
    assert heatmaps.isfinite().all() and heatmaps.std() > 0.01


def plain_path(path, x):
    """The convolutions and norms of a path between branches, by `torch.nn.functional` alone, as facts.md has them."""
    modules = [m for m in path.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    for place, m in enumerate(modules):
        if isinstance(m, nn.Conv2d):
            x = F.conv2d(x, m.weight, None, 2 if m.weight.shape[-1] == 3 else 1, m.weight.shape[-1] // 2, 1, m.groups)
        else:
            x = (x - m.running_mean[:, None, None]) / (m.running_var[:, None, None] + 1e-5).sqrt()
            x = x * m.weight[:, None, None] + m.bias[:, None, None]
            # a step down is [depthwise, norm, 1x1, norm], with ReLU after all but the last
            if place % 4 == 3 and place < len(modules) - 1:
                x = x.relu()
    return x


@torch.inference_mode()
def test_the_exchange_is_the_official_formula(enliven):
    channels = (4, 6, 8, 10)
    fusion = enliven(Fusion(channels).double()).eval()
    random = torch.Generator().manual_seed(1)
    x = [torch.randn(2, c, 16 >> i, 24 >> i, generator=random, dtype=torch.float64) for i, c in enumerate(channels)]

    def f(i, j, branch):
        y = plain_path(fusion.paths[i][j], branch)
        return y.repeat_interleave(2 ** (j - i), 2).repeat_interleave(2 ** (j - i), 3) if j > i else y

    z0 = 2 * x[0] + f(0, 1, x[1]) + f(0, 2, x[2]) + f(0, 3, x[3])
    expected = [
        z0,
        2 * f(1, 0, z0) + x[1] + f(1, 2, x[2]) + f(1, 3, x[3]),
        2 * f(2, 0, z0) + x[2] + f(2, 1, x[1]) + f(2, 3, x[3]),
        2 * f(3, 0, z0) + x[3] + f(3, 1, x[1]) + f(3, 2, x[2]),
    ]
    before = [b.clone() for b in x]
    for i, z in enumerate(fusion(x)):
        torch.testing.assert_close(z, expected[i].relu())
        textbook = x[i] + sum(f(i, j, x[j]) for j in range(4) if j != i)
        assert (z - textbook.relu()).abs().max() > 0.1
    assert all(torch.equal(a, b) for a, b in zip(x, before, strict=True))
