import argparse
import pathlib
import re

import pytest
import timm
import torch

from widehrnet_zoo.cli import convert as command
from widehrnet_zoo.errors import UserError
from widehrnet_zoo.hub.convert import convert_checkpoint
from widehrnet_zoo.models.registry import create_model
from widehrnet_zoo.pose.skeletons import SKELETONS, Skeleton, skeleton_of
from widehrnet_zoo.weights.official import find_architecture, read_weights

SEPARABLE = {'conv_dw.conv': '0', 'conv_dw.bn': '1', 'conv_pw.conv': '2', 'conv_pw.bn': '3'}


def official_name(name, attn):
    """The official name of one of our weights, written from the list of official names alone."""
    name = name.replace('classifier.', 'keypoint_head.final_layer.')
    for ours, official in (
        ('stem.conv.', 'stem.conv1.'),
        ('stem.branch1.conv_dw.', 'stem.branch1.0.'),
        ('stem.branch1.conv_pw.', 'stem.branch1.1.'),
        ('stem.branch2.conv_pw.', 'stem.expand_conv.'),
        ('stem.branch2.conv_sep.conv_dw.', 'stem.depthwise_conv.'),
        ('stem.branch2.conv_sep.conv_pw.', 'stem.linear_conv.'),
    ):
        if name.startswith(ours):
            return 'backbone.' + official + name.removeprefix(ours)
    if match := re.fullmatch(r'neck\.projects\.(\d)\.conv_(.)w\.(.+)', name):
        place = {'d': 'depthwise', 'p': 'pointwise'}[match[2]]
        return f'backbone.head_layer.projects.{match[1]}.{place}_conv.{match[3]}'
    if match := re.fullmatch(r'transitions\.(\d)\.(keep\.\d|new)\.(conv_.w\.\w+)\.(\w+)', name):
        stage, which = int(match[1]), match[2]
        branch = f'{stage + 1}.0' if which == 'new' else which.removeprefix('keep.')
        return f'backbone.transition{stage}.{branch}.{SEPARABLE[match[3]]}.{match[4]}'
    if match := re.fullmatch(r'stages\.(\d)\.(\d)\.branches\.(\d)\.(\d)\.(\w+)\.(.+)', name):
        part = {'conv_pw': '0.', 'conv_dw': '1.', 'attn': '2.', 'conv_pwl': '3.' if attn else '2.'}[match[5]]
        block = f'layers.{match[4]}.invertRes.{match[3]}.block.{part}{match[6]}'
        return f'backbone.stage{match[1]}.{match[2]}.{block}'
    if match := re.fullmatch(r'stages\.(\d)\.(\d)\.fuse\.paths\.(\d)\.(\d)\.(\d)\.(conv_.w\.\w+)\.(\w+)', name):
        path = f'fuse_layers.{match[3]}.{match[4]}.{match[5]}.{SEPARABLE[match[6]]}.{match[7]}'
        return f'backbone.stage{match[1]}.{match[2]}.{path}'
    if match := re.fullmatch(r'stages\.(\d)\.(\d)\.fuse\.paths\.(\d)\.(\d)\.(conv|bn)\.(\w+)', name):
        path = f'fuse_layers.{match[3]}.{match[4]}.{"01"[match[5] == "bn"]}.{match[6]}'
        return f'backbone.stage{match[1]}.{match[2]}.{path}'
    return name


SMALL = {'channels': (8, 16, 24), 'num_modules': (1, 2), 'num_blocks': 1, 'stem_width': 8}


def official(num_classes=17, variant='widehrnet_18_attn', seed=0, **kwargs):
    """A small network in the official layout, and the network itself."""
    torch.manual_seed(seed)
    model = create_model(variant, num_classes=num_classes, **{**SMALL, **kwargs}).eval()
    for k, v in model.state_dict().items():
        if v.is_floating_point():
            v.copy_(torch.rand_like(v) + 0.5 if k.endswith('running_var') else torch.randn_like(v) * 0.3)
    state = {official_name(k, 'attn' in variant): v for k, v in model.state_dict().items()}
    assert len(state) == len(model.state_dict())
    return state, model


def saved(tmp_path, state, name='checkpoint.pth', **more):
    torch.save({'meta': {'epoch': 3}, 'state_dict': state, **more}, tmp_path / name)
    return tmp_path / name


def equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize('variant', ['widehrnet_18', 'widehrnet_18_attn'])
def test_official_weights_give_the_official_heatmaps(official, tmp_path, variant):
    state = {k: torch.from_numpy(v) for k, v in official.state_dict(variant).items()}
    done = convert_checkpoint(saved(tmp_path, state), tmp_path / 'out')
    assert (done.architecture.variant, done.architecture.num_classes) == (variant, 16)
    assert done.architecture.model_args == {} and done.size == (256, 256) and done.skeleton == SKELETONS['mpii']

    model = timm.create_model(f'local-dir:{tmp_path / "out"}', pretrained=True).eval()
    images, expected = official.heatmaps(variant)
    with torch.inference_mode():
        ours = model(images)
    assert ours.shape == expected.shape
    assert (ours - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize('variant', ['widehrnet_18_x6_attn', 'widehrnet_18_x2', 'widehrnet_18'])
def test_a_folder_is_the_converted_network(tmp_path, variant):
    state, model = official(variant=variant)
    done = convert_checkpoint(saved(tmp_path, state), tmp_path / 'out')
    assert done.architecture.variant == variant
    again = timm.create_model(f'local-dir:{tmp_path / "out"}', pretrained=True)
    assert equal(again, model)
    assert skeleton_of(again) == SKELETONS['coco']
    assert again.pretrained_cfg['input_size'] == (3, 256, 192)
    assert again.pretrained_cfg['license'] == 'unknown'
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['README.md', 'config.json', 'model.safetensors']


@pytest.mark.parametrize('name', ['widehrnet_10', 'widehrnet_18_attn', 'widehrnet_18_x6', 'widehrnet_30_x2_attn'])
def test_variants_are_found_by_their_registered_names(name):
    state = timm.create_model(name, num_classes=3, device='meta').state_dict()
    found = find_architecture(state)
    assert (found.variant, found.model_args, found.num_classes) == (name, {}, 3)


@pytest.mark.parametrize(
    'wrap',
    [
        lambda state: state,
        lambda state: {'state_dict': state},
        lambda state: {'state_dict': {f'module.{k}': v for k, v in state.items()}, 'optimizer': {'lr': 0.1}},
    ],
    ids=['bare', 'state_dict', 'module'],
)
def test_wrappers_make_no_difference(tmp_path, wrap):
    state, model = official()
    torch.save(wrap(state), tmp_path / 'a.pth')
    ours = read_weights(tmp_path / 'a.pth')
    assert all(torch.equal(ours[k], v) for k, v in model.state_dict().items()) and len(ours) == len(state)


def test_the_plain_copy_is_taken_unless_the_second_is_asked_for(tmp_path):
    plain, plain_model = official()
    second, second_model = official(seed=1)
    statistics = ('running_mean', 'running_var', 'num_batches_tracked')
    copies = {f'ema_{k.replace(".", "_")}': v for k, v in second.items() if not k.endswith(statistics)}
    file = saved(tmp_path, {**plain, **copies})
    ours = read_weights(file)
    assert all(torch.equal(ours[k], v) for k, v in plain_model.state_dict().items())
    ours = read_weights(file, ema=True)
    plain_state, second_state = plain_model.state_dict(), second_model.state_dict()
    for k, v in ours.items():
        assert torch.equal(v, (plain_state if k.endswith(statistics) else second_state)[k])
    done = convert_checkpoint(file, tmp_path / 'out')
    assert any('second' in note for note in done.notes)

    missing = dict(copies)
    missing.popitem()
    with pytest.raises(UserError, match='does not fit the plain weights'):
        read_weights(saved(tmp_path, {**plain, **missing}), ema=True)
    with pytest.raises(UserError, match='without an original'):
        read_weights(saved(tmp_path, {**plain, 'ema_backbone_other': torch.zeros(1)}))
    with pytest.raises(UserError, match='no second'):
        read_weights(saved(tmp_path, plain), ema=True)


def test_no_key_goes_by_unsaid(tmp_path):
    state, _ = official()
    name = 'backbone.stage1.1.fuse_layers.2.0.1.2.weight'
    assert name in state

    def told(changed):
        with pytest.raises(UserError) as error:
            convert_checkpoint(saved(tmp_path, changed), tmp_path / 'out')
        assert not (tmp_path / 'out').exists()
        return str(error.value)

    assert 'stages.1.1.fuse.paths.2.0.1.conv_pw.conv.weight' in told({k: v for k, v in state.items() if k != name})
    assert 'backbone.stage1.9.odd' in told({**state, 'backbone.stage1.9.odd': torch.zeros(1)})
    assert 'instead of' in told({**state, name: state[name][:-1]})
    assert 'not finite' in told({**state, name: state[name] * float('nan')})
    assert 'backbone.transition0.2.0.0.weight' in told({**state, 'backbone.transition0.2.0.0.weight': state[name]})
    block = 'backbone.stage0.0.layers.0.invertRes.0.block'
    twice = {f'{block}.2.conv.weight': state[f'{block}.3.conv.weight']}
    assert 'unexpected' in told({**state, **twice})
    assert 'not tensors' in told({**state, 'epoch': 3})
    backbone = {k: v for k, v in state.items() if k.startswith('backbone.')}
    assert 'the final layer' in told(backbone)
    assert 'Not an official' in told({'conv1.weight': torch.zeros(1)})


def test_half_precision_becomes_float32(tmp_path):
    state, _ = official()
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    convert_checkpoint(saved(tmp_path, half), tmp_path / 'out')
    again = timm.create_model(f'local-dir:{tmp_path / "out"}', pretrained=True)
    weight = again.state_dict()['classifier.weight']
    assert weight.dtype == torch.float32
    assert torch.equal(weight, half['keypoint_head.final_layer.weight'].float())


class Evil:
    def __reduce__(self):
        return (print, ('run by the pickle',))


@pytest.mark.parametrize('zipped', [True, False])
def test_a_pickle_that_asks_for_more_is_refused_with_the_reason(tmp_path, zipped, capsys):
    file = tmp_path / 'evil.pth'
    torch.save({'state_dict': {}, 'meta': Evil()}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r'asks to load [\w.]*print when'):
        read_weights(file)
    assert 'run by' not in capsys.readouterr().out


def test_broken_files_are_refused(tmp_path):
    state, _ = official()
    whole = saved(tmp_path, state).read_bytes()
    file = tmp_path / 'broken.pth'
    for content in (b'', b'text, no weights', whole[: len(whole) // 2], whole[:-200], b'PK\x03\x04' + bytes(60)):
        file.write_bytes(content)
        with pytest.raises(UserError, match='not a whole PyTorch checkpoint'):
            read_weights(file)
    (tmp_path / 'broken.safetensors').write_bytes(whole[:500])
    with pytest.raises(UserError, match='not a whole safetensors'):
        read_weights(tmp_path / 'broken.safetensors')
    torch.save([1, 2], file)
    with pytest.raises(UserError, match='holds a list'):
        read_weights(file)
    with pytest.raises(UserError, match='no file'):
        read_weights(tmp_path / 'none.pth')


def test_the_size_is_from_the_configuration_or_the_name(tmp_path):
    state, _ = official()
    config = 'data_cfg = dict(\n    image_size=[288, 384],\n    heatmap_size=[72, 96])'
    file = saved(tmp_path, state, meta={'config': config})
    assert convert_checkpoint(file, tmp_path / 'a').size == (384, 288)
    file = saved(tmp_path, state, name='wide_coco_384x288-abc.pth')
    assert convert_checkpoint(file, tmp_path / 'b').size == (384, 288)
    again = timm.create_model(f'local-dir:{tmp_path / "b"}')
    assert again.pretrained_cfg['input_size'] == (3, 384, 288) and again.pretrained_cfg['tag'] == 'coco_384x288'


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([*map(str, arguments)]))


def test_the_command_converts_and_overwrites_only_when_told(tmp_path, capsys):
    state, model = official(num_classes=4)
    file, out = saved(tmp_path, state), tmp_path / 'out'
    skeleton = tmp_path / 'birds.json'
    skeleton.write_text('{"name": "bird", "keypoints": ["beak", "left_wing", "right_wing", "tail"]}')
    assert run(file, out, '--size', 64, 96, '--skeleton', skeleton) == 0
    printed = capsys.readouterr().out
    assert '4 keypoints (bird), input 64x96' in printed and 'widehrnet_18_attn' in printed
    again = create_model(f'local-dir:{out}', pretrained=True)
    assert equal(again, model)
    assert again.skeleton == Skeleton('bird', ('beak', 'left_wing', 'right_wing', 'tail'), ((1, 2),))

    before = (out / 'config.json').read_bytes()
    with pytest.raises(UserError, match='--force'):
        run(file, out)
    assert (out / 'config.json').read_bytes() == before
    assert run(file, out, '--force') == 0
    assert (out / 'config.json').read_bytes() != before
    assert not [p for p in tmp_path.iterdir() if p.name.endswith('.tmp')]
    with pytest.raises(UserError, match='the skeleton'):
        run(file, tmp_path / 'other', '--skeleton', 'coco')
    with pytest.raises(UserError, match='multiples of 32'):
        run(file, tmp_path / 'other', '--size', 50, 50)


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    state, _ = official()
    file = saved(tmp_path, state)

    def full(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('safetensors.torch.save_file', full)
    with pytest.raises(UserError, match='No space left'):
        convert_checkpoint(file, tmp_path / 'out')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['checkpoint.pth']


def test_the_page_on_converting_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    state, model = official()
    saved(tmp_path, state, 'wide_hrnet_18_attn_coco_256x192.pth')
    page = (pathlib.Path(__file__).resolve().parents[1] / 'docs' / 'convert.md').read_text()
    shell, *blocks = re.findall(r'```(?:python)?\n(.*?)```', page, re.S)
    assert run(*shell.split()[2:]) == 0
    names: dict = {}
    for block in blocks:
        exec(block, names)
    assert equal(names['model'], model)
    assert 'widehrnet_18_attn coco (256, 192)' in capsys.readouterr().out
