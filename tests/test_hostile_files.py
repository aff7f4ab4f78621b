"""Damaged, strange and hostile files: each is told in a sentence, none is quietly taken for what it is not.

Hostile input to every door is in tests/fuzz; here is what it found.
"""

import io
import json
import re
import time
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from small_model import official, photos, small

from widehrnet_zoo.cli.main import main
from widehrnet_zoo.errors import UserError
from widehrnet_zoo.formats.boxes import BoxFile
from widehrnet_zoo.formats.coco import read_labels
from widehrnet_zoo.hub import save_pretrained
from widehrnet_zoo.hub.convert import convert_checkpoint
from widehrnet_zoo.inference.estimator import PoseEstimator
from widehrnet_zoo.pose.images import read_image
from widehrnet_zoo.pose.results import PoseResult
from widehrnet_zoo.pose.skeletons import SKELETONS, Skeleton
from widehrnet_zoo.weights.checkpoints import misfits, read_checkpoint
from widehrnet_zoo.weights.official import find_architecture, read_weights


def test_a_picture_of_three_sides_is_damaged():
    buffer = io.BytesIO()
    Image.new('L', (13, 9)).save(buffer, 'IM')
    content = buffer.getvalue()
    assert read_image(content).shape == (9, 13, 3)
    with pytest.raises(UserError, match='its size is'):
        read_image(content.replace(b'13*9\r', b'1*3*9\r', 1))


def test_a_video_whose_title_is_no_unicode_is_read(tmp_path):
    av = pytest.importorskip('av')
    from widehrnet_zoo.video.clips import VideoReader

    with av.open(str(tmp_path / 'v.mkv'), 'w') as video:
        video.metadata['title'] = 'a title of its own'
        stream = video.add_stream('mpeg4', rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, 'yuv420p'
        video.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        video.mux(stream.encode(None))
    content = (tmp_path / 'v.mkv').read_bytes()
    assert b'of its own' in content
    (tmp_path / 'v.mkv').write_bytes(content.replace(b'of its own', b'of its \xe9wn'))
    with VideoReader(tmp_path / 'v.mkv') as reader:
        assert len(list(reader)) == 1


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a pickle was run')",))


def test_a_torch_export_file_with_code_in_it_is_refused_before_pytorch_opens_it(tmp_path, monkeypatch):
    from widehrnet_zoo.engines.exported import open_backend
    from widehrnet_zoo.export.export import export

    export(small(), tmp_path / 'good.pt2', size=(64, 64))
    monkeypatch.setattr(torch.export, 'load', lambda *args, **options: pytest.fail('it was opened'))
    with zipfile.ZipFile(tmp_path / 'good.pt2') as archive:
        good = {name: archive.read(name) for name in archive.namelist()}
    pickled = io.BytesIO()
    torch.save(Evil(), pickled)
    (inputs,) = [name for name in good if name.endswith('.pt') and 'input' in name]
    (model,) = [name for name in good if re.search(r'models/\w+\.json', name)]

    def graph(change):
        values = json.loads(good[model])
        change(values)
        return {**good, model: json.dumps(values).encode()}

    for changed, said in (
        ({**good, inputs: pickled.getvalue()}, 'pickle'),
        ({**good, 'x/data/weights/weight_0': pickled.getvalue()}, 'pickle'),
        ({**good, 'x/data/constants/custom_obj_0': b'x'}, 'an object'),
        ({**good, 'x/data/aotinductor/model/x.so': b'x'}, 'compiled'),
        (graph(lambda v: v.update(guards_code=['print(1)'])), 'guards'),
        (graph(lambda v: v['graph_module']['graph']['nodes'][0].update(target='torch.hub.load')), r'torch\.hub\.load'),
        (graph(lambda v: v.update(x={'expr_str': '__import__("os").getpid()'})), 'expression'),
        (graph(lambda v: v.update(x={'use_pickle': True})), 'pickled weights'),
    ):
        with zipfile.ZipFile(tmp_path / 'x.pt2', 'w') as archive:
            for name, data in changed.items():
                archive.writestr(name, data)
        with pytest.raises(UserError, match=said):
            open_backend(tmp_path / 'x.pt2')


def test_a_graph_that_fails_when_it_runs_is_told_in_one_line(tmp_path, capfd):
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    from widehrnet_zoo.export.export import export

    export(small(), tmp_path / 'x.onnx', size=(64, 64))
    graph = onnx.load(tmp_path / 'x.onnx')
    (concat, *_) = [node for node in graph.graph.node if node.op_type == 'Concat']
    for attribute in concat.attribute:
        attribute.i = 2
    onnx.save(graph, tmp_path / 'x.onnx')
    source = photos(tmp_path / 'in', 1)
    call = ['predict', str(source), '--out', str(tmp_path / 'out'), '--model', str(tmp_path / 'x.onnx'), '--quiet']
    assert main(call) in (1, 2)
    said = capfd.readouterr().err
    assert said.count('\n') == 1 and 'x.onnx' in said and 'unexpected' not in said


def test_a_damaged_name_cannot_ask_for_a_million_modules(tmp_path):
    state = small().state_dict()
    state['stages.0.1000000.branches.0.0.conv_pw.conv.weight'] = torch.zeros(1)
    with pytest.raises(UserError, match='missing'):
        find_architecture(state)
    state = official(small())
    for claim in (torch.empty((2**40, 0, 1, 1)), torch.zeros(1).expand(2**40, 8, 1, 1)):
        state['keypoint_head.final_layer.weight'] = claim
        torch.save({'state_dict': state}, tmp_path / 'x.pth')
        with pytest.raises(UserError, match='final layer'):
            convert_checkpoint(tmp_path / 'x.pth', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_a_checkpoint_that_unpacks_to_a_multiple_of_itself_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    torch.save({'state_dict': {'backbone.x': torch.zeros(8 << 20)}}, tmp_path / 'plain.pth')
    with zipfile.ZipFile(tmp_path / 'plain.pth') as plain, zipfile.ZipFile(tmp_path / 'x.pth', 'w', 8) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    assert (tmp_path / 'x.pth').stat().st_size < 1 << 20
    assert read_checkpoint(tmp_path / 'plain.pth')
    monkeypatch.setattr(torch, 'load', lambda *args, **options: pytest.fail('it was unpacked'))
    for door in (read_weights, lambda file: convert_checkpoint(file, tmp_path / 'out')):
        with pytest.raises(UserError, match='unpack to 32 MiB'):
            door(tmp_path / 'x.pth')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda w: w.fill_(float('nan')), 'not finite'),
        (lambda w: (w * 100).to(torch.int8), 'of another type'),
        (lambda w: w.to(torch.complex64), 'of another type'),
        (lambda w: w.to('meta'), 'of another type'),
        (lambda w: w[:-1], 'misshapen'),
    ],
)
def test_weights_that_only_seem_to_fit_are_refused_at_every_door(tmp_path, change, said):
    model = small()
    state = model.state_dict()
    key = 'stem.conv.bn.weight'
    assert not misfits(state, model.state_dict())
    state[key] = change(state[key].clone())
    assert said in misfits(state, model.state_dict()) and key in misfits(state, model.state_dict())
    names = dict(zip(state, official(model), strict=True))
    torch.save({'state_dict': {names[k]: v for k, v in state.items()}}, tmp_path / 'x_64x64.pth')
    with pytest.raises(UserError, match=said):
        convert_checkpoint(tmp_path / 'x_64x64.pth', tmp_path / 'out')
    with pytest.raises(UserError, match=said):
        PoseEstimator(weights=tmp_path / 'x_64x64.pth')
    assert read_weights(tmp_path / 'x_64x64.pth').keys() == state.keys()


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_a_quantised_count_is_refused():
    model = small()
    state = model.state_dict()
    key = next(k for k, v in state.items() if not v.is_floating_point())
    state[key] = torch.quantize_per_tensor(torch.tensor(0.0), 1.0, 0, torch.quint8)
    assert misfits(state, model.state_dict()) == f'1 of another type ({key} quint8)'


@pytest.mark.parametrize(
    'change',
    [
        {'model_args': {'channels': [8, 2**40], 'num_modules': [1], 'stem_width': 8}},
        {'model_args': {'channels': [8, 16], 'num_modules': [10**9], 'stem_width': 8}},
        {'model_args': {'channels': 'wide'}},
        {'model_args': {'channels': [8, None]}},
        {'num_classes': 10**12},
        {'num_classes': [17]},
        {'architecture': ['widehrnet_10']},
        {'model_args': {'global_pool': [1]}},
        {'skeleton': 7},
        {'skeleton': None, 'label_names': [*range(17)]},
        {'pretrained_cfg': {'std': [0, 0, 0]}},
        {'pretrained_cfg': {'mean': ['a', 'b', 'c']}},
        {'pretrained_cfg': {'std': 3}},
        {'pretrained_cfg': {'input_size': 64}},
        {'pretrained_cfg': {'input_size': [3, '64', 64]}},
        {'pretrained_cfg': {'input_size': [3, 63.5, 64]}},
    ],
)
def test_a_strangers_config_is_refused_with_a_sentence(tmp_path, change):
    folder = save_pretrained(small(), tmp_path / 'model', SKELETONS['coco'], size=(64, 64))
    config = json.loads((folder / 'config.json').read_text())
    for key, value in change.items():
        config[key] = {**config[key], **value} if key == 'pretrained_cfg' else value
    (folder / 'config.json').write_text(json.dumps(config))
    with pytest.raises(UserError):
        PoseEstimator(f'local-dir:{folder}', device='cpu')


@pytest.mark.parametrize(
    'change',
    [
        {'flip_pairs': [[0.9, 1.9]]},
        {'bones': [[float('inf'), 0]]},
        {'sigmas': [float('inf'), 1, 1]},
        {'keypoints': ['a', None, 'b']},
        {'keypoints': {'a': 1}},
        {3: 4, 'x': 5},
    ],
)
def test_a_skeleton_is_taken_as_it_is_written_or_not_at_all(change):
    with pytest.raises(UserError):
        Skeleton.from_dict({'keypoints': ['a', 'b', 'c'], **change})


def labels(**change):
    annotation = {'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [1, 2, 3, 4], 'keypoints': [1, 2, 2], 'area': 9}
    image = {'id': 1, 'file_name': 'a.jpg', 'width': 9, 'height': 9}
    data = {'images': [image], 'annotations': [annotation], 'categories': [{'id': 1, 'keypoints': ['a']}]}
    for place, (key, value) in change.items():
        data[place][0][key] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        ('[' * 200_000, 'nested too deep'),
        (labels(annotations=('bbox', [10**400, 2, 3, 4])), 'bbox'),
        (labels(annotations=('bbox', [1e308, 2, 1e308, 4])), 'bbox'),
        (labels(annotations=('id', [1])), 'as "id"'),
        (labels(annotations=('image_id', {})), 'not among'),
        (labels(annotations=('num_keypoints', 'many')), 'num_keypoints'),
        (labels(images=('id', [])), 'needs an "id"'),
        (labels(images=('width', 'wide')), 'width'),
        (labels(annotations=('iscrowd', [[1]])), 'iscrowd'),
        (labels(annotations=('iscrowd', 1)), 'no person'),
        (labels(categories=('id', None)), 'categories'),
        (labels(categories=('keypoints', 'nose')), 'list of names'),
        (labels(categories=('keypoints', [1])), 'list of names'),
        (labels(categories=('keypoints', False), annotations=('keypoints', 3)), 'keypoints'),
    ],
)
def test_labels_of_the_wrong_kind_are_named(tmp_path, content, said):
    (tmp_path / 'labels.json').write_text(content)
    with pytest.raises(UserError, match=said):
        read_labels(tmp_path / 'labels.json')


@pytest.mark.parametrize(
    'change', [{'path': float('inf')}, *({'image_size': {'width': w, 'height': 1}} for w in (float('inf'), -1, 40.7))]
)
def test_a_result_with_values_of_another_kind_is_not_read_back(change):
    result = PoseResult([[[1, 2]]], [[0.5]], [[0, 0, 9, 9]], [1], Skeleton('one', ('a',)), (9, 9))
    with pytest.raises(UserError, match='not a result'):
        PoseResult.from_dict({**result.to_dict(), **change})


@pytest.mark.parametrize('box', [[1, 2, 3, 10**400], [1, 2, 3, 1e300], [1, 2, True, 4]])
def test_boxes_of_no_size_on_earth_are_refused(tmp_path, box):
    (tmp_path / 'boxes.json').write_text(json.dumps({'a.jpg': [box]}))
    with pytest.raises(UserError, match=r"'a\.jpg'"):
        BoxFile(tmp_path / 'boxes.json')


@pytest.mark.parametrize(
    'text',
    [
        'lr: 2021-99-99',
        'lr: 0b',
        'lr: !!int "x"',
        'lr: !!python/object/apply:os.system [ls]',
        'model: {args: &a {x: *a}}',
        'a0: &a0 [1, 1]\n' + ''.join(f'a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n' for i in range(1, 60)),
        'lr: ' + '[' * 5000,
    ],
)
def test_yaml_that_is_a_trap_is_refused_at_once(tmp_path, text, capsys):
    pytest.importorskip('yaml')
    (tmp_path / 'recipe.yaml').write_text(text)
    start = time.process_time()
    assert main(['train', str(tmp_path / 'recipe.yaml'), '--show']) == 2
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and 'unexpected' not in said and len(said) < 1000
    assert time.process_time() - start < 1.5
