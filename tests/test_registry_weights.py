import logging

import pytest
import timm
import torch
from small_model import SMALL, small, trained_like

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.hub import save_pretrained
from widehrnet_zoo.models.registry import create_model, list_models, list_pretrained


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    model = trained_like(small(4))
    return model, save_pretrained(model, tmp_path_factory.mktemp('saved') / 'model')


def load(saved, **kwargs):
    return create_model(f'local-dir:{saved[1]}', pretrained=True, **kwargs)


def differing(a, b):
    a, b = a.state_dict(), b.state_dict()
    return sorted(k for k in a.keys() | b.keys() if k not in a or k not in b or not torch.equal(a[k], b[k]))


def test_another_number_of_keypoints_keeps_the_backbone_and_tells_of_the_head(saved, caplog):
    with caplog.at_level(logging.WARNING):
        model = load(saved, num_classes=6)
    assert differing(model, saved[0]) == ['classifier.bias', 'classifier.weight']
    assert 'classifier.weight, classifier.bias' in caplog.text or 'classifier.bias, classifier.weight' in caplog.text
    assert '4 outputs' in caplog.text and model.skeleton.keypoints[0] == 'keypoint_0'


def test_a_pooled_head_keeps_the_backbone_and_tells_of_the_head(saved, caplog):
    with caplog.at_level(logging.WARNING):
        model = load(saved, global_pool='avg')
    assert set(differing(model, saved[0])) <= {'classifier.bias', 'classifier.weight'}
    assert 'Not loaded' in caplog.text


def test_another_number_of_channels_adapts_the_stem_and_tells_of_it(saved, caplog):
    with caplog.at_level(logging.WARNING):
        model = load(saved, in_chans=1)
    assert differing(model, saved[0]) == ['stem.conv.conv.weight']
    grey = saved[0].state_dict()['stem.conv.conv.weight'].sum(1, keepdim=True)
    assert torch.allclose(model.state_dict()['stem.conv.conv.weight'], grey)
    assert 'stem.conv.conv.weight is adapted from 3 to 1' in caplog.text


def test_nothing_is_told_where_all_is_loaded(saved, caplog):
    with caplog.at_level(logging.WARNING):
        assert differing(load(saved), saved[0]) == []
    assert not caplog.records


def test_a_local_safetensors_file_keeps_its_head_whatever_the_tag_says(saved, caplog):
    overlay = {'file': str(saved[1] / 'model.safetensors')}
    with caplog.at_level(logging.WARNING):
        model = timm.create_model(
            'widehrnet_10', pretrained=True, num_classes=4, pretrained_cfg_overlay=overlay, **SMALL
        )
    assert differing(model, saved[0]) == []
    assert not caplog.records


def test_a_missing_or_broken_file_is_told(tmp_path, saved):
    def told(file):
        with pytest.raises(UserError) as error:
            small(4, pretrained=True, pretrained_cfg_overlay={'file': str(file)})
        return str(error.value)

    assert 'There is no file' in told(tmp_path / 'none.safetensors')
    (tmp_path / 'cut.safetensors').write_bytes((saved[1] / 'model.safetensors').read_bytes()[:900])
    assert 'not a whole safetensors' in told(tmp_path / 'cut.safetensors')
    (tmp_path / 'cut.pth').write_bytes(b'PK\x03\x04 nothing')
    assert 'not a whole PyTorch file' in told(tmp_path / 'cut.pth')


def test_a_local_folder_that_is_no_model_is_told(tmp_path, saved):
    def told():
        with pytest.raises(UserError) as error:
            create_model(f'local-dir:{tmp_path}', pretrained=True)
        return str(error.value)

    assert 'config.json' in told()
    config = (saved[1] / 'config.json').read_text()
    (tmp_path / 'config.json').write_text(config)
    assert 'has no model.safetensors' in told()
    torch.save(saved[0].state_dict(), tmp_path / 'pytorch_model.bin')
    assert 'pytorch_model.bin is not taken unasked' in told()
    overlay = {'file': str(tmp_path / 'pytorch_model.bin')}
    named = create_model(f'local-dir:{tmp_path}', pretrained=True, pretrained_cfg_overlay=overlay)
    assert differing(named, saved[0]) == []
    (tmp_path / 'config.json').write_text(config[:50])
    assert 'not valid JSON' in told()


@pytest.mark.parametrize('half', [False, True])
def test_saving_keeps_types_and_every_memory_format(tmp_path, half):
    model = small().to(memory_format=torch.channels_last)
    if half:
        model.half()
    folder = save_pretrained(model, tmp_path / 'model')
    again = create_model(f'local-dir:{folder}', pretrained=True, dtype=torch.float16 if half else None)
    assert differing(again, model) == []
    assert (folder / 'model.safetensors').stat().st_mode == (folder / 'config.json').stat().st_mode


def test_a_changed_head_is_saved_as_it_is(tmp_path):
    model = small()
    model.reset_classifier(7, 'avg')
    again = create_model(f'local-dir:{save_pretrained(model, tmp_path / "pooled")}', pretrained=True)
    assert differing(again, model) == []
    assert again.num_classes == 7 and again.global_pool.pool_type == 'avg'
    assert 'image-classification' in (tmp_path / 'pooled' / 'README.md').read_text()


def test_what_cannot_be_rebuilt_is_not_saved(tmp_path):
    changed = small()
    changed.neck = torch.nn.Identity()
    for model in (
        torch.nn.Linear(2, 2),
        create_model('widehrnet_10', features_only=True, out_indices=(0, 1), **SMALL),
        changed,
    ):
        with pytest.raises(UserError):
            save_pretrained(model, tmp_path / 'out')
        assert not list(tmp_path.iterdir())


def test_an_unknown_name_gets_a_near_one():
    with pytest.raises(UserError, match='did you mean'):
        create_model('widehrnet_18_atn')
    with pytest.raises(UserError, match='the zoo has'):
        create_model('yolo')


def test_lists_hold_the_zoos_names_only():
    assert list_models() == timm.list_models('widehrnet*')
    assert list_models('*_x6*') == timm.list_models('widehrnet*_x6*')
    assert list_pretrained() == timm.list_models('widehrnet*', pretrained=True)
