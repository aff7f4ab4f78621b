import copy
import json
import os
import pickle
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch
from safetensors.numpy import load_file
from small_model import THREE_STAGES, trained_like

from widehrnet_zoo import PoseEstimator, UserError
from widehrnet_zoo.cli.main import main
from widehrnet_zoo.deployment.graph import GraphNetwork
from widehrnet_zoo.deployment.network import deploy
from widehrnet_zoo.engines.exported import open_backend
from widehrnet_zoo.export.export import export, onnx_model, sample_crops
from widehrnet_zoo.export.quantize import ENOUGH
from widehrnet_zoo.kernels.library import choose_variant
from widehrnet_zoo.pose.box_maps import NUM_MAPS, PERSON_BOXES
from widehrnet_zoo.pose.decoding import decode_heatmaps

SIZE = (64, 64)


@pytest.fixture(scope='module')
def model():
    return trained_like(timm.create_model('widehrnet_10_attn', **THREE_STAGES))


def exported(model, folder, name, runtime, tolerance):
    pytest.importorskip(runtime)
    assert export(model, folder / name, size=SIZE) < tolerance
    return folder / name


@pytest.fixture(scope='module')
def onnx_file(model, tmp_path_factory):
    return exported(model, tmp_path_factory.mktemp('onnx'), 'pose.onnx', 'onnxruntime', 1e-4)


@pytest.fixture(scope='module')
def openvino_file(model, tmp_path_factory):
    return exported(model, tmp_path_factory.mktemp('openvino'), 'pose.xml', 'openvino', 1e-3)


def images(batch, height, width):
    return np.random.default_rng(0).standard_normal((batch, 3, height, width)).astype(np.float32)


def difference(model, backend, given):
    expected = deploy(model)(torch.from_numpy(given)).numpy()
    return np.abs(backend(given) - expected).max() / np.abs(expected).max()


def test_onnx_runs_at_any_batch_and_size(model, onnx_file):
    backend = open_backend(onnx_file, threads=1)
    for shape in ((1, 64, 64), (3, 64, 64), (2, 96, 128)):
        assert difference(model, backend, images(*shape)) < 1e-4


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_of_an_exported_file_open_it_anew(onnx_file, copied):
    estimator = PoseEstimator(onnx_file)
    again = copied(estimator)
    assert again.backend is not estimator.backend and again.skeleton == estimator.skeleton
    np.testing.assert_array_equal(again.backend(images(1, 64, 64)), estimator.backend(images(1, 64, 64)))


def test_a_file_opened_before_a_fork_is_refused_after_it(onnx_file, monkeypatch):
    backend = open_backend(onnx_file, threads=1)
    monkeypatch.setattr(os, 'getpid', lambda: -1)
    with pytest.raises(UserError, match='opened before this process was forked'):
        backend(images(1, 64, 64))


def test_eight_threads_share_an_openvino_file(openvino_file):
    backend = open_backend(openvino_file, threads=1)
    given = [images(1 + i % 2, 64, 64) + i for i in range(24)]
    expected = [backend(batch) for batch in given]
    with ThreadPoolExecutor(8) as pool:
        for found, right in zip(pool.map(backend, given), expected, strict=True):
            np.testing.assert_array_equal(found, right)


def test_an_order_of_channels_written_as_a_product_gives_the_same_numbers(model, onnx_file):
    ort = pytest.importorskip('onnxruntime')
    network, metadata = GraphNetwork(deploy(model)), open_backend(onnx_file).metadata
    results, kinds = [], []
    for products in (False, True):
        graph = onnx_model(network, metadata, orders_are_products=products)
        kinds.append([node.op_type for node in graph.graph.node])
        session = ort.InferenceSession(graph.SerializeToString(), providers=['CPUExecutionProvider'])
        results.append(session.run(None, {'images': images(2, *SIZE)})[0])
    assert kinds[0].count('Gather') == kinds[1].count('Conv') - kinds[0].count('Conv') > 0
    assert 'Gather' not in kinds[1]
    assert np.abs(results[0] - results[1]).max() < 1e-5 * np.abs(results[0]).max()


def test_the_file_says_what_it_is(model, onnx_file):
    onnx = pytest.importorskip('onnx')
    properties = {p.key: p.value for p in onnx.load(onnx_file).metadata_props}
    said = json.loads(properties['widehrnet_zoo'])
    assert said['size'] == [64, 64] and len(said['mean']) == 3
    assert said['skeleton']['keypoints'][0] == 'nose'


def test_an_exported_file_is_one_argument_to_the_estimator(model, onnx_file):
    picture = np.random.default_rng(0).integers(0, 255, (120, 90, 3), np.uint8)
    boxes = [[5, 5, 80, 110], [20, 30, 60, 100]]
    expected = PoseEstimator(model, size=SIZE)(picture, boxes)
    got = PoseEstimator(onnx_file)(picture, boxes)
    assert got.skeleton == expected.skeleton
    assert np.allclose(got.scores, expected.scores, rtol=1e-3, atol=1e-3 * np.abs(expected.scores).max())
    assert np.mean(np.abs(got.keypoints - expected.keypoints).max(-1) < 0.1) > 0.9


def test_openvino_is_equal(model, openvino_file):
    folder = openvino_file.parent
    assert sorted(p.name for p in folder.iterdir()) == ['pose.bin', 'pose.xml']
    assert difference(model, open_backend(folder), images(2, 64, 64)) < 1e-3


def test_openvino_metadata_that_is_no_unicode_is_refused_with_a_sentence(openvino_file, tmp_path):
    text = openvino_file.read_bytes()
    assert b'&quot;mean&quot;' in text
    (tmp_path / 'pose.xml').write_bytes(text.replace(b'&quot;mean&quot;', b'&quot;me\xa6n&quot;'))
    with pytest.raises(UserError, match='OpenVINO cannot open'):
        open_backend(tmp_path / 'pose.xml')


@pytest.mark.filterwarnings('error::FutureWarning')
def test_torchscript_is_equal(model, tmp_path):
    assert export(model, tmp_path / 'pose.torchscript', size=SIZE) < 1e-4
    for shape in ((3, 64, 64), (1, 96, 128)):
        assert difference(model, open_backend(tmp_path / 'pose.torchscript'), images(*shape)) < 1e-4
    with zipfile.ZipFile(tmp_path / 'pose.torchscript') as parts:
        assert not any(b'graph.py' in parts.read(name) for name in parts.namelist())  # no folders of whoever exports


@pytest.mark.parametrize('precision', ['f32', 'bf16', 'int8'])
def test_kernels_are_equal(model, tmp_path, precision):
    try:
        choose_variant(precision)
    except UserError as error:
        pytest.skip(str(error))
    tolerance = {'f32': 1e-4, 'bf16': 0.1, 'int8': 0.2}[precision]
    assert export(model, tmp_path / 'pose.kernels', size=SIZE, precision=precision) < tolerance
    for shape in ((3, 64, 64), (1, 96, 128)):
        assert difference(model, open_backend(tmp_path / 'pose.kernels'), images(*shape)) < tolerance
    tensors = load_file(tmp_path / 'pose.kernels')  # any reader of safetensors reads it
    assert sum(tensor.size for tensor in tensors.values()) > 1e4


@pytest.mark.slow
def test_torch_export_is_equal(model, tmp_path):
    assert export(model, tmp_path / 'pose.pt2', size=SIZE) < 1e-4
    assert difference(model, open_backend(tmp_path / 'pose.pt2'), images(3, 64, 64)) < 1e-4
    with zipfile.ZipFile(tmp_path / 'pose.pt2') as parts:
        graph = parts.read(next(name for name in parts.namelist() if re.search(r'models/\w+\.json', name)))
    assert b'aten' in graph and b'graph.py' not in graph  # no folders of whoever exports


@pytest.mark.parametrize('suffix', ['onnx', 'torchscript'])
def test_a_pipeline_gives_the_keypoints_of_uint8_crops(model, tmp_path, suffix):
    if suffix == 'onnx':
        pytest.importorskip('onnxruntime')
    file = tmp_path / f'pose.{suffix}'
    export(model, file, size=SIZE, pipeline=True)
    crops = sample_crops(SIZE)
    backend = open_backend(file)
    got = backend.run(crops)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (backend.mean, backend.std))
    heatmaps = deploy(model)((torch.from_numpy(crops).permute(0, 3, 1, 2) - mean) / std)
    points, scores = decode_heatmaps(heatmaps)
    assert np.allclose(got[..., 2], scores, rtol=1e-3, atol=1e-3)
    assert np.mean(np.abs(got[..., :2] - points.numpy() * 4).max(-1) < 1e-3) > 0.95
    with pytest.raises(UserError, match='normalises them itself'):
        backend(images(1, 64, 64))
    if suffix == 'torchscript':
        with pytest.raises(UserError, match='without --pipeline'):
            PoseEstimator(file)


@pytest.mark.slow
def test_int8_is_calibrated_and_stays_near(model, tmp_path):
    pytest.importorskip('nncf')
    crops = np.concatenate([sample_crops(SIZE)] * (ENOUGH // 8 + 1))
    assert 0 < export(model, tmp_path / 'pose.xml', size=SIZE, precision='int8', crops=crops) < 0.5


def test_int8_without_enough_crops_is_refused(model, tmp_path):
    pytest.importorskip('openvino')
    with pytest.raises(UserError, match='100 or more'):
        export(model, tmp_path / 'pose.xml', size=SIZE, precision='int8')
    assert not list(tmp_path.iterdir())


def test_a_file_that_fails_its_check_is_not_kept_and_its_finder_not_written(model, tmp_path, monkeypatch):
    pytest.importorskip('onnxruntime')
    finder = timm.create_model('widehrnet_10', **{**THREE_STAGES, 'num_classes': NUM_MAPS}).eval()
    finder.skeleton = PERSON_BOXES
    old = tmp_path / 'pose.onnx'
    old.write_bytes(b'before')
    monkeypatch.setattr('widehrnet_zoo.export.onnx_graph.NetworkWriter.bilinear', lambda self, x: self.double(x))
    with pytest.raises(UserError, match='Nothing was written'):
        export(model, old, size=SIZE, finder=finder)
    assert old.read_bytes() == b'before'
    assert [p.name for p in tmp_path.iterdir()] == ['pose.onnx']


@pytest.mark.parametrize(
    ('file', 'options', 'word'),
    [
        ('pose.engine', {}, 'not a format'),
        ('pose.xml', {'fmt': 'onnx'}, 'ends in .onnx'),
        ('pose.torchscript', {'precision': 'bf16'}, 'not in bf16'),
        ('pose.onnx', {'precision': 'int8'}, 'not in int8'),
        ('pose.kernels', {'pipeline': True}, 'leave pipeline out'),
        ('pose.onnx', {'size': (60, 64)}, 'multiples of 32'),
        ('pose.onnx', {'crops': np.zeros((1, 8, 8, 3), np.uint8)}, 'Crops must be uint8'),
    ],
)
def test_options_that_do_not_fit_are_refused(model, tmp_path, file, options, word):
    with pytest.raises(UserError, match=word):
        export(model, tmp_path / file, **{'size': SIZE, **options})


def test_broken_and_foreign_files_are_refused(tmp_path):
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    broken = tmp_path / 'broken.onnx'
    broken.write_bytes(b'no graph')
    with pytest.raises(UserError, match='cannot open'):
        open_backend(broken)
    value = onnx.helper.make_tensor_value_info('x', 1, [1])
    other = onnx.helper.make_tensor_value_info('y', 1, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node('Relu', ['x'], ['y'])], 'g', [value], [other])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 20)], ir_version=9)
    onnx.save(model, tmp_path / 'foreign.onnx')
    with pytest.raises(UserError, match='was not written by `widehrnet export`'):
        open_backend(tmp_path / 'foreign.onnx')
    with pytest.raises(UserError, match='has no tpu'):
        open_backend(tmp_path / 'foreign.onnx', device='tpu')
    with pytest.raises(UserError, match='runs on the CPU'):
        (tmp_path / 'foreign.xml').write_text('')
        open_backend(tmp_path / 'foreign.xml', device='cuda')


def test_other_attention_than_published_is_refused_by_onnx(tmp_path):
    pytest.importorskip('onnx')
    with pytest.raises(UserError, match='torch-export instead'):
        export(timm.create_model('widehrnet_10', attn_layer='eca', **THREE_STAGES), tmp_path / 'p.onnx', size=SIZE)


def test_the_command_writes_a_file(model, tmp_path, capsys):
    pytest.importorskip('onnxruntime')
    folder = tmp_path / 'model'
    folder.mkdir()
    from safetensors.torch import save_file

    save_file(model.state_dict(), folder / 'model.safetensors')
    out = tmp_path / 'pose.onnx'
    args = ['export', 'widehrnet_10_attn', '--weights', str(folder / 'model.safetensors'), '--format', 'onnx']
    assert main([*args, '--size', '64', '64', '--out', str(out)]) == 0
    assert 'of the largest value from PyTorch' in capsys.readouterr().out
    assert difference(model, open_backend(out), images(1, 64, 64)) < 1e-4
    assert main([*args, '--precision', 'int8']) == 2
    assert '--calibrate' in capsys.readouterr().err
