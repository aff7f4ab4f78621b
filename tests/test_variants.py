"""The variants in timm's registry: names, tags, costs, and the weights that go with them."""

import json
from hashlib import sha256

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import load_state_dict

import widehrnet_zoo
from widehrnet_zoo import UserError
from widehrnet_zoo.models import loading, widehrnet
from widehrnet_zoo.models.macs import measure_macs
from widehrnet_zoo.pose.box_maps import PERSON_BOXES
from widehrnet_zoo.pose.skeletons import SKELETONS
from widehrnet_zoo.weights import shipped as weights

# Millions of parameters: the official network with 16 joints (../shared/facts.md); for 10, our own, as measured.
PARAMETERS = {
    'widehrnet_10': 0.924,
    'widehrnet_10_attn': 1.470,
    'widehrnet_18_x2': 1.774,
    'widehrnet_18_x2_attn': 2.221,
    'widehrnet_18': 2.686,
    'widehrnet_18_attn': 4.398,
    'widehrnet_18_x6': 3.597,
    'widehrnet_18_x6_attn': 7.456,
    'widehrnet_30_x2': 2.835,
    'widehrnet_30_x2_attn': 3.579,
    'widehrnet_30': 4.351,
    'widehrnet_30_attn': 7.194,
    'widehrnet_30_x6': 5.867,
    'widehrnet_30_x6_attn': 12.275,
}
# 10^9 multiply-adds of the convolutions at 256x256, counted on the official network
OFFICIAL_MACS = {'widehrnet_18': 0.994, 'widehrnet_18_attn': 0.996, 'widehrnet_30': 1.689, 'widehrnet_30_attn': 1.692}
VARIANTS = list(PARAMETERS)
TAGS = timm.list_models('widehrnet*', include_tags=True)


def test_the_registry_holds_the_zoo_and_nothing_else():
    assert sorted(timm.list_models('*widehrnet*')) == sorted(VARIANTS)
    assert sorted(widehrnet_zoo.list_models()) == sorted(VARIANTS)
    assert set(VARIANTS) <= set(widehrnet.__all__)


@pytest.mark.parametrize('name', VARIANTS)
def test_parameters_and_multiply_adds_are_the_published_ones(name):
    model = timm.create_model(name, num_classes=16)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(PARAMETERS[name], abs=5.1e-4)
    if name in OFFICIAL_MACS:
        macs = measure_macs(model, spoil=True)
        assert macs.at((256, 256), official=True) / 1e9 == pytest.approx(OFFICIAL_MACS[name], abs=5.1e-4)
        assert 0.93 < macs.at((256, 256)) / macs.at((256, 256), official=True) < 0.95


def test_the_light_variant_costs_about_a_third_of_18():
    light, published = (
        measure_macs(timm.create_model(n, num_classes=16), spoil=True).at((256, 256))
        for n in ('widehrnet_10_attn', 'widehrnet_18_attn')
    )
    assert light / 1e9 == pytest.approx(0.335, abs=1e-3)
    assert light / published < 0.37


@pytest.mark.parametrize('name', TAGS)
def test_each_tag_knows_its_data(name):
    cfg = timm.get_pretrained_cfg(name)
    data, _, size = cfg.tag.partition('_')
    skeleton = {
        **SKELETONS,
        'people': SKELETONS['coco'],
        'everyday': SKELETONS['coco'],
        'untrained': SKELETONS['coco'],
        'person': PERSON_BOXES,
    }[data]
    assert cfg.label_names == skeleton.keypoints
    assert cfg.num_classes == skeleton.num_keypoints
    if size:
        assert cfg.input_size == (3, *(int(side) for side in size.split('x')))
    assert cfg.pool_size == tuple(side // 4 for side in cfg.input_size[1:])
    assert (cfg.mean, cfg.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert cfg.license == ('unknown' if data in ('coco', 'mpii') else 'apache-2.0')
    assert 'WideHRNet' in cfg.paper_name
    assert bool(cfg.origin_url) == (data in ('coco', 'mpii'))


@pytest.mark.parametrize('depth', ['18', '18_attn', '30', '30_attn'])
def test_official_variants_have_the_official_tags(depth):
    tags = {name.partition('.')[2] for name in TAGS if name.startswith(f'widehrnet_{depth}.')}
    assert {'coco_256x192', 'coco_384x288', 'mpii_256x256'} <= tags


@pytest.mark.parametrize('create', [timm.create_model, widehrnet_zoo.create_model])
@pytest.mark.parametrize('kwargs', [{}, {'features_only': True}, {'num_classes': 3}])
def test_a_tag_without_weights_says_so_and_how_to_convert(create, kwargs):
    with pytest.raises(UserError, match=r'widehrnet_30\.mpii_256x256 has no weights.*widehrnet convert'):
        create('widehrnet_30.mpii_256x256', pretrained=True, **kwargs)
    with pytest.raises(UserError, match=r'widehrnet_30\.coco_384x288 has no weights'):
        create('widehrnet_30', pretrained=True, pretrained_cfg='coco_384x288', **kwargs)
    with pytest.raises(UserError, match=r'widehrnet_18_x6\.untrained has no weights.*widehrnet list'):
        create('widehrnet_18_x6', pretrained=True, **kwargs)


@pytest.mark.parametrize('name', widehrnet_zoo.list_pretrained())
def test_shipped_weights_are_what_pretrained_means(name):
    variant, _, tag = name.partition('.')
    default = timm.models.get_pretrained_cfg(variant).tag
    assert default in {n.partition('.')[2] for n in widehrnet_zoo.list_pretrained(f'{variant}.*')}
    model = timm.create_model(variant if tag == default else name, pretrained=True).eval()
    assert model.pretrained_cfg['tag'] == tag
    saved = load_state_dict(model.pretrained_cfg['file'], device='cpu')
    for tensor in saved.values():
        if tensor.is_floating_point():
            assert tensor.isfinite().all()
            assert tensor.dtype == torch.float16 or tensor.abs().max() > torch.finfo(torch.float16).max
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(torch.equal(v, saved[k].to(v.dtype)) for k, v in model.state_dict().items())


def test_shipped_weights_give_features():
    model = timm.create_model('widehrnet_10_attn', pretrained=True, features_only=True)
    assert len(model(torch.zeros(1, 3, 64, 64))) == 4


# ---- weights


@pytest.fixture
def shipped(tmp_path, monkeypatch, enliven):
    """A folder of shipped weights, with half-precision weights of the light variant in it."""
    monkeypatch.setattr(weights, 'WEIGHTS', tmp_path)
    monkeypatch.setattr(loading, 'WEIGHTS', tmp_path)
    file = tmp_path / 'widehrnet_10.people_64x64.safetensors'
    state = {
        k: v.half() if v.is_floating_point() else v
        for k, v in enliven(timm.create_model('widehrnet_10')).state_dict().items()
    }
    save_file(state, file)
    (tmp_path / 'index.json').write_text(json.dumps({file.name: {'sha256': sha256(file.read_bytes()).hexdigest()}}))
    # making the model has read the index that was there
    weights._index.cache_clear()
    yield file, state
    weights._index.cache_clear()


def from_file(file, **kwargs):
    return timm.create_model('widehrnet_10', pretrained=True, pretrained_cfg_overlay={'file': str(file)}, **kwargs)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_half_precision_weights_become_the_models_type(shipped, dtype):
    file, state = shipped
    model = from_file(file, dtype=dtype)
    assert all(torch.equal(v, state[k].to(v.dtype)) for k, v in model.state_dict().items())
    assert {p.dtype for p in model.parameters()} == {dtype}


def test_damaged_and_missing_shipped_weights_are_refused(shipped):
    file, _ = shipped
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match='not the file that was released'):
        from_file(file)
    file.unlink()
    with pytest.raises(UserError, match='is missing'):
        from_file(file)


@pytest.mark.parametrize('num_classes', [17, 3])
def test_weights_that_do_not_fit_are_refused(shipped, num_classes):
    _, state = shipped
    model = timm.create_model('widehrnet_10', num_classes=num_classes)
    for change, message in (
        ({'neck.projects.0.conv_dw.conv.weight': None}, r'1 missing \(neck\.projects\.0'),
        ({'more': torch.zeros(1)}, r'1 unexpected \(more'),
        ({'stem.conv.conv.weight': torch.zeros(32, 3, 5, 5)}, r'1 misshapen \(stem\.conv.*5, 5\) instead of'),
    ):
        changed = {k: v for k, v in {**state, **change}.items() if v is not None}
        with pytest.raises(UserError, match=message):
            loading.checkpoint_filter_fn(changed, model)
