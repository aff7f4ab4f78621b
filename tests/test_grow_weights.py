"""Starting a variant from the weights of another."""

import json
import sys

import numpy as np
import pytest
import torch
from load_script import script
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from widehrnet_zoo.models.registry import create_model


@pytest.fixture
def grow_weights():
    return script('grow_weights')


def trained(name, **kwargs):
    """A network whose weights and statistics are all its own, as after training."""
    torch.manual_seed(0)
    model = create_model(name, **kwargs)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in ((module.weight, 0.5, 1.5), (module.running_var, 0.5, 2.0)):
                nn.init.uniform_(values, low, high)
            for values in (module.bias, module.running_mean):
                nn.init.normal_(values, 0, 0.2)
    return model.eval()


@pytest.mark.parametrize(('channels', 'rounds'), [(8, 3), (40, 10), (80, 10), (160, 8), (320, 9)])
def test_shuffles_bring_all_channels_back(grow_weights, channels, rounds):
    order = np.arange(channels)
    for second in grow_weights.route(channels, rounds):
        assert sorted(second) == sorted(order[channels // 2 :])
        order = np.stack((order[: channels // 2], second), 1).ravel()
    assert (order == np.arange(channels)).all()


def test_too_few_shuffles_are_refused(grow_weights):
    with pytest.raises(ValueError, match='7 shuffles cannot bring 160 channels back'):
        grow_weights.route(160, 7)


@pytest.mark.parametrize('variants', [('widehrnet_18', 'widehrnet_30'), ('widehrnet_10_attn', 'widehrnet_10_attn')])
def test_a_deeper_network_starts_as_the_same_function(grow_weights, variants):
    shallow, deep = {}, {}
    if variants[0] == variants[1]:
        small = {'channels': (8, 16, 32, 64), 'stem_width': 16}
        shallow, deep = ({**small, 'num_modules': modules} for modules in ((1, 1, 1), (2, 4, 2)))
    source, target = trained(variants[0], **shallow), create_model(variants[1], **deep).eval()
    norms = grow_weights.grow(source, target)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = source(images)
        atol = 1e-4 * float(expected.abs().max())
        torch.testing.assert_close(target(images), expected, rtol=0, atol=atol)
        grow_weights.calibrate(norms, lambda: target(images))
        torch.testing.assert_close(target(images), expected, rtol=0, atol=atol)
    # training begins there too, and all that was added learns at the first or the second step
    for norm in norms:
        norm.train()
    torch.testing.assert_close(target(images), expected, rtol=0, atol=atol)
    optimizer = torch.optim.SGD(target.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        (target(images) - 1).square().mean().backward()
        optimizer.step()
    still = [n for n, p in target.named_parameters() if not p.grad.any()]
    assert not still


def test_attention_becomes_its_mean_gate(grow_weights):
    source, target = trained('widehrnet_10_attn'), create_model('widehrnet_10').eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = source(images)
        state = grow_weights.fold_attention(source, lambda: source(images))
        target.load_state_dict(state)
        own = source.state_dict()
        assert all(torch.equal(v, own[k]) for k, v in state.items() if k.endswith('conv.weight'))
        # for a single photo the mean is the gate itself
        torch.testing.assert_close(target(images), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_command(grow_weights, tmp_path, monkeypatch, capsys):
    Image.fromarray(np.zeros((64, 48, 3), np.uint8)).save(tmp_path / 'a.png')
    person = {'id': 1, 'image_id': 1, 'category_id': 1, 'iscrowd': 0, 'num_keypoints': 17, 'area': 1000.0}
    person |= {'bbox': [4, 4, 40, 50], 'keypoints': [20, 20, 2] * 17}
    labels = {
        'images': [{'id': 1, 'file_name': 'a.png', 'width': 48, 'height': 64}],
        'annotations': [person],
        'categories': [{'id': 1, 'name': 'person', 'keypoints': [f'k{i}' for i in range(17)]}],
    }
    (tmp_path / 'labels.json').write_text(json.dumps(labels))
    save_file(trained('widehrnet_18_attn').state_dict(), tmp_path / 'trained.safetensors')
    start = tmp_path / 'start.safetensors'

    def run(source, target):
        photos = ['--labels', str(tmp_path / 'labels.json'), '--images', str(tmp_path)]
        given = ['grow', str(tmp_path / 'trained.safetensors'), source, target, str(start), *photos]
        monkeypatch.setattr(sys, 'argv', given)
        grow_weights.main()

    run('widehrnet_18_attn', 'widehrnet_30')
    assert 'widehrnet_30, ' in capsys.readouterr().out
    create_model('widehrnet_30').load_state_dict(load_file(start))
    with pytest.raises(SystemExit, match='not weights of widehrnet_18'):
        run('widehrnet_18', 'widehrnet_30')
    with pytest.raises(SystemExit, match=r'widehrnet_10_attn cannot start from widehrnet_18_attn: cannot grow'):
        run('widehrnet_18_attn', 'widehrnet_10_attn')
