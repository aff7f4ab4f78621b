import io
import json
import logging
import os
import pathlib
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import timm
import torch
from hub_server import HubServer
from huggingface_hub import EvalResult, ModelCard, constants, file_download
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import _http
from load_script import script
from small_model import SMALL, small, trained_like

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.hub import push_to_hub, save_pretrained
from widehrnet_zoo.models.registry import create_model
from widehrnet_zoo.models.widehrnet import WideHRNet
from widehrnet_zoo.pose.skeletons import SKELETONS, Skeleton, skeleton_of
from widehrnet_zoo.weights.errors import hub_errors

BIRD = Skeleton('bird', ('beak', 'left_wing', 'right_wing', 'tail'), ((1, 2),), ((0, 3),))


def bird(**kwargs):
    return trained_like(small(4, **kwargs))


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = HubServer()
    template = server.url + '/{repo_id}/resolve/{revision}/{filename}'
    monkeypatch.setattr(constants, 'ENDPOINT', server.url)
    for module in (constants, file_download):  # older clients have a copy of the name
        monkeypatch.setattr(module, 'HUGGINGFACE_CO_URL_TEMPLATE', template, raising=False)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(constants, 'HF_TOKEN_PATH', str(tmp_path / 'no-token'))
    monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', True, raising=False)  # not in the oldest supported client
    monkeypatch.setenv('HF_TOKEN', HubServer.TOKEN)
    monkeypatch.setattr(_http.time, 'sleep', lambda seconds: None)
    yield server
    server.close()


@pytest.fixture
def published(hub):
    model = bird()
    commit = push_to_hub(model, 'birds/small', skeleton=BIRD, size=(64, 64))
    hub.log.clear()
    return model, commit


def load(name='hf-hub:birds/small', **kwargs):
    return create_model(name, pretrained=True, **kwargs)


def test_a_pushed_model_comes_back_bit_for_bit_with_its_skeleton(hub, published):
    model, _ = published
    again = load()
    assert same(model, again)
    assert again.skeleton == BIRD
    assert again.pretrained_cfg['input_size'] == (3, 64, 64)
    assert set(hub.repos['birds/small'].commits[hub.repos['birds/small'].refs['main']]) == {
        '.gitattributes',
        'README.md',
        'config.json',
        'model.safetensors',
    }
    plain = timm.create_model('hf-hub:birds/small', pretrained=True)
    assert same(model, plain)
    assert skeleton_of(plain).keypoints == BIRD.keypoints


def test_the_card_of_a_folder_is_titled_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ('birds', 'models/birds'):
        card = ModelCard.load(save_pretrained(bird(), folder, skeleton=BIRD) / 'README.md')
        assert card.data.model_name == 'birds' and card.text.lstrip().startswith('# birds\n')
        assert card.data.license is None and 'Licence of the weights: none is stated' in card.text


def test_the_second_load_fetches_no_body(hub, published):
    load()
    assert hub.gets('model.safetensors') == ['']
    load()
    assert hub.gets('model.safetensors') == ['']
    assert hub.gets('config.json') == ['']


def test_a_revision_is_pinned(hub, published):
    old, commit = published
    new = bird()
    torch.nn.init.ones_(new.classifier.bias)
    push_to_hub(new, 'birds/small', skeleton=BIRD)
    push_to_hub(old, 'birds/small', skeleton=BIRD, revision='first')
    assert same(load(), new)
    assert same(load(f'hf-hub:birds/small@{commit}'), old)
    assert same(load('hf-hub:birds/small@first'), old)
    overlay = {'hf_hub_id': f'birds/small@{commit}'}
    assert same(load('widehrnet_10', num_classes=4, pretrained_cfg_overlay=overlay, **SMALL), old)
    with pytest.raises(UserError, match="no revision 'nine'"):
        load('hf-hub:birds/small@nine')


def test_a_broken_transfer_is_resumed(hub, published, monkeypatch):
    monkeypatch.setattr(constants, 'DOWNLOAD_CHUNK_SIZE', 1024)
    create_model('hf-hub:birds/small')
    hub.fault.cut = 1
    try:
        model = load()
    except UserError:  # older clients resume at the next call
        model = load()
    assert same(model, published[0])
    ranges = hub.gets('model.safetensors')
    assert len(ranges) == 2 and ranges[1].startswith('bytes=') and ranges[1] != 'bytes=0-'


def test_a_transfer_that_keeps_breaking_is_never_taken_as_good(hub, published, monkeypatch):
    create_model('hf-hub:birds/small')
    whole = file_download.http_get
    monkeypatch.setattr(file_download, 'http_get', _gives_up)
    with pytest.raises(UserError, match='run the command again'):
        load()
    assert not list(pathlib.Path(constants.HF_HUB_CACHE).rglob('model.safetensors'))
    monkeypatch.setattr(file_download, 'http_get', whole)
    assert same(load(), published[0])


def _gives_up(url, temp_file, **kwargs):
    temp_file.write(b'half')
    raise OSError('Consistency check failed: file should be of size 9 but has size 4')


def test_a_changed_byte_is_found_and_fetched_again(hub, published, caplog):
    create_model('hf-hub:birds/small')
    hub.fault.flip = 1
    with caplog.at_level(logging.WARNING):
        assert same(load(), published[0])
    assert 'damaged' in caplog.text
    assert len(hub.gets('model.safetensors')) == 2


def test_a_file_that_is_always_damaged_is_never_kept(hub, published):
    create_model('hf-hub:birds/small')
    hub.fault.flip = 2
    with pytest.raises(UserError, match='damaged twice'):
        load()
    assert same(load(), published[0])


def test_damage_inside_the_cache_is_found(hub, published):
    load()
    file = next(pathlib.Path(constants.HF_HUB_CACHE).rglob('model.safetensors')).resolve()
    file.write_bytes(file.read_bytes()[:-100])
    assert same(load(), published[0])


def test_offline_takes_the_cache_and_says_when_there_is_none(hub, published, monkeypatch, tmp_path):
    load()
    hub.log.clear()
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    _reset_session()
    assert same(load(), published[0])
    assert not hub.log
    with pytest.raises(UserError, match='HF_HUB_OFFLINE is set'):
        load(cache_dir=tmp_path / 'empty')
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    _reset_session()


def _reset_session():
    # the client reads the offline switch when it opens its session
    for name in ('close_session', 'reset_sessions'):
        if hasattr(_http, name):
            getattr(_http, name)()


@pytest.mark.parametrize('status', [500, 503])
def test_a_fault_of_the_hub_is_bridged_by_the_cache_and_told_without(hub, published, status, tmp_path):
    load()
    hub.fault.status = status
    assert same(load(), published[0])
    with pytest.raises(UserError, match=f'internal error \\({status}\\)'):
        load(cache_dir=tmp_path / 'empty')


def test_a_fault_is_told_as_well_where_the_client_raises_an_error_of_its_http_library():
    refused = OSError('502 Server Error')  # as `requests.HTTPError` is
    refused.response = SimpleNamespace(status_code=502)
    with pytest.raises(UserError, match=r'internal error \(502\)'), hub_errors('hf-hub:birds/small'):
        raise LocalEntryNotFoundError('not in the cache') from refused


def test_who_may_not_is_told(hub, published, monkeypatch):
    monkeypatch.setenv('HF_TOKEN', 'hf_wrong')
    with pytest.raises(UserError, match=r'401.*log in again|not on .*log in'):
        push_to_hub(published[0], 'birds/other', skeleton=BIRD)
    hub.repos['birds/small'].private = True
    with pytest.raises(UserError, match=r'private and your token does not open it'):
        load()
    monkeypatch.setenv('HF_TOKEN', HubServer.TOKEN)
    assert same(load(), published[0])


@pytest.mark.parametrize(
    ('name', 'told'),
    [
        ('hf-hub:birds/none', 'birds/none is not on'),
        ('hf-hub:a/b/c', 'not the name of a repository'),
        ('s3:birds/small', 'Unknown model source'),
        ('hf-hub:', 'no model id'),
    ],
)
def test_a_wrong_name_is_told(hub, name, told):
    with pytest.raises(UserError, match=told):
        load(name)


def test_nobody_listening_is_told(hub, published, monkeypatch):
    hub.close()
    with pytest.raises(UserError, match=r'cannot be reached.*HF_ENDPOINT'):
        load()


def test_a_hub_without_xet_is_asked_for_the_file_itself(hub, published, monkeypatch):
    monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', False, raising=False)
    assert same(load(), published[0])
    assert hub.gets('model.safetensors') == ['']


@pytest.mark.slow
def test_a_xet_store_that_fails_is_told_with_the_way_around_it(hub, published, monkeypatch):
    pytest.importorskip('hf_xet')
    hub.xet = f'{hub.url}/store'  # where nothing is
    monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', False, raising=False)
    with pytest.raises(UserError, match='HF_HUB_DISABLE_XET=1'):
        load()
    assert any('/store/' in path for _, path, _ in hub.log) and not hub.gets('model.safetensors')
    assert not list(pathlib.Path(constants.HF_HUB_CACHE).rglob('model.safetensors'))
    monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', True, raising=False)
    assert same(load(), published[0])


def test_pickled_weights_are_taken_only_when_named(hub, published):
    model, _ = published
    files = hub.repos['birds/small'].commits[hub.repos['birds/small'].refs['main']]
    del files['model.safetensors']
    pickled = io.BytesIO()
    torch.save(model.state_dict(), pickled)
    files['pytorch_model.bin'] = pickled.getvalue()
    with pytest.raises(UserError, match=r'has no model\.safetensors.*hf_hub_filename'):
        load()
    config = json.loads(files['config.json'])
    config['pretrained_cfg']['hf_hub_filename'] = 'pytorch_model.bin'
    hub.repos['birds/small'].commit({'config.json': json.dumps(config).encode()})
    with pytest.raises(UserError, match=r'has no model\.safetensors'):
        load()
    assert not hub.gets('pytorch_model.bin')
    assert same(load(pretrained_cfg_overlay={'hf_hub_filename': 'pytorch_model.bin'}), model)


def test_a_repository_of_something_else_is_told(hub, published):
    repo = hub.repos['birds/small']
    repo.commit({'config.json': b'{"model_type": "bert"}'})
    with pytest.raises(UserError, match='no architecture'):
        load()
    repo.commit({'config.json': b'{"architecture": '})
    with pytest.raises(UserError, match='not valid JSON'):
        load()
    repo.commit({'config.json': b'{"architecture": "widehrnet_99"}'})
    with pytest.raises(UserError, match='widehrnet_99'):
        load()


@pytest.mark.slow
def test_the_environment_alone_decides_where_from(hub, published, tmp_path):
    script = (
        'import widehrnet_zoo.models.registry as r\n'
        "m = r.create_model('hf-hub:birds/small', pretrained=True)\n"
        "print(m.skeleton.name, float(m.state_dict()['stem.conv.bn.running_mean'][0]))\n"
    )
    root = str(pathlib.Path(__file__).resolve().parents[1])
    env = {k: v for k, v in os.environ.items() if not k.startswith('HF_')}
    env.update(HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / 'home'), PYTHONPATH=root, HF_HUB_DISABLE_TELEMETRY='1')

    def run(**more):
        command = [sys.executable, '-c', script]
        return subprocess.run(command, env={**env, **more}, cwd=tmp_path, capture_output=True, text=True).stdout.strip()

    first = published[0].state_dict()['stem.conv.bn.running_mean'][0]
    assert run() == f'bird {float(first)}'
    hub.close()
    assert run(HF_HUB_OFFLINE='1') == f'bird {float(first)}'


def test_the_card_says_task_metrics_licence_and_keypoints(hub):
    result = EvalResult(
        task_type='keypoint-detection',
        dataset_type='my-birds',
        dataset_name='My birds',
        metric_type='pck',
        metric_name='PCK@0.2',
        metric_value=0.93,
    )
    push_to_hub(bird(), 'birds/small', skeleton=BIRD, results=[result], license='mit')
    files = hub.repos['birds/small'].commits[hub.repos['birds/small'].refs['main']]
    card = ModelCard(files['README.md'].decode())
    assert card.data.pipeline_tag == 'keypoint-detection'
    assert card.data.library_name == 'timm'
    assert card.data.license == 'mit'
    assert card.data.eval_results[0].metric_value == 0.93
    assert 'left_wing' in card.text and 'hf-hub:birds/small' in card.text
    config = json.loads(files['config.json'])
    assert config['label_names'] == list(BIRD.keypoints)
    assert Skeleton.from_dict(config['skeleton']) == BIRD


def test_a_card_that_its_owner_wrote_stays(hub, published):
    repo = hub.repos['birds/small']
    repo.commit({'README.md': b'# mine'})
    push_to_hub(published[0], 'birds/small', skeleton=BIRD)
    assert repo.commits[repo.refs['main']]['README.md'] == b'# mine'


def test_an_overlaid_hub_id_wins_over_the_tags_own_file(hub, published, tmp_path):
    other = save_pretrained(bird(global_pool=''), tmp_path / 'other', skeleton=BIRD) / 'model.safetensors'
    torch.nn.init.ones_(published[0].classifier.bias)
    push_to_hub(published[0], 'birds/small', skeleton=BIRD)
    cfg = {**bird().pretrained_cfg, 'file': str(other)}
    model = timm.create_model(
        'widehrnet_10',
        pretrained=True,
        num_classes=4,
        pretrained_cfg=cfg,
        pretrained_cfg_overlay={'hf_hub_id': 'birds/small'},
        **SMALL,
    )
    assert same(model, published[0])


def test_weights_of_our_own_are_published_with_their_card(hub, monkeypatch, capsys):
    name = 'widehrnet_10_attn.people_256x192'
    publish_weights = script('publish_weights')
    monkeypatch.setattr(sys, 'argv', ['publish', name, f'zoo/{name}'])
    publish_weights.main()
    assert f"create_model('hf-hub:zoo/{name}@" in capsys.readouterr().out
    published, shipped = load(f'hf-hub:zoo/{name}'), create_model(name, pretrained=True)
    assert published.pretrained_cfg['input_size'] == (3, 256, 192)
    assert same(published, shipped)
    repo = hub.repos[f'zoo/{name}']
    files = repo.commits[repo.refs['main']]
    card = files['README.md'].decode()
    assert 'pipeline_tag: keypoint-detection' in card and 'people val OKS AP' in card and '## Limits' in card
    assert 'license: apache-2.0' in card
    pictures = re.findall(r'!\[[^]]+\]\(([^)]+)\)', card)
    assert len(pictures) == 2 and set(pictures) < set(files)
    monkeypatch.setattr(sys, 'argv', ['publish', 'widehrnet_18.coco_256x192', 'zoo/x'])
    with pytest.raises(SystemExit, match='no weights of our own'):
        publish_weights.main()


def test_the_page_on_publishing_runs(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = pathlib.Path(__file__).resolve().parents[1] / 'docs' / 'publish.md'
    blocks = re.findall(r'```python\n(.*?)```', page.read_text(), re.S)
    names: dict = {}
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 6
    assert names['model'].num_classes == 4 and names['pinned'].skeleton.keypoints[0] == 'beak'
    assert (tmp_path / 'my-cache').is_dir()


def test_the_methods_that_hugging_face_users_type(hub, tmp_path):
    model = bird()
    model.skeleton = BIRD
    assert model.save_pretrained(tmp_path / 'birds', license='mit') == tmp_path / 'birds'
    again = WideHRNet.from_pretrained(tmp_path / 'birds')
    assert same(again, model) and again.skeleton == BIRD and not again.training
    commit = model.push_to_hub('birds/small', private=True, commit_message='Small birds')
    model.push_to_hub('birds/small', branch='v2')
    model.save_pretrained(tmp_path / 'more', push_to_hub=True, repo_id='birds/more')
    assert same(WideHRNet.from_pretrained('birds/more'), model)
    for options in ({}, {'revision': commit}, {'revision': 'v2'}, {'token': HubServer.TOKEN, 'force_download': True}):
        assert same(WideHRNet.from_pretrained('birds/small', **options), model)
    hub.log.clear()
    assert same(WideHRNet.from_pretrained('birds/small', local_files_only=True), model)
    assert not hub.log
    assert WideHRNet.from_pretrained('birds/small', num_classes=9).num_classes == 9
    assert WideHRNet.from_pretrained('widehrnet_10_attn').skeleton == SKELETONS['coco']
    with pytest.raises(UserError, match='revision'):
        WideHRNet.from_pretrained(tmp_path / 'birds', revision='v2')
    with pytest.raises(UserError, match='not in the cache, and local_files_only'):
        WideHRNet.from_pretrained('birds/none', local_files_only=True)


def test_a_saved_model_is_one_of_transformers(tmp_path):
    folder = bird().save_pretrained(tmp_path / 'model')
    assert 'num_classes' not in json.loads((folder / 'config.json').read_text())['model_args']
    # before, it knew no model_args
    transformers = pytest.importorskip('transformers', '4.53')
    model = transformers.AutoModel.from_pretrained(folder).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(image).last_hidden_state, bird().eval().forward_features(image))


def test_offline_pushes_nothing_and_says_so_first(monkeypatch):
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(UserError, match='HF_HUB_OFFLINE is set, so nothing can be published'):
        push_to_hub('not even a model', 'birds/small')
