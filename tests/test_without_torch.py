"""Exported files where PyTorch is not installed: hidden here, and really missing in scripts/ci/without_torch.sh."""

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small_model import SMALL

from widehrnet_zoo import PoseEstimator, UserError
from widehrnet_zoo.cli.main import main
from widehrnet_zoo.detection import PersonFinder
from widehrnet_zoo.engines import exported
from widehrnet_zoo.export.export import export
from widehrnet_zoo.kernels.library import find_library
from widehrnet_zoo.models.registry import create_model
from widehrnet_zoo.pose.box_maps import NUM_MAPS, PERSON_BOXES
from widehrnet_zoo.pose.skeletons import SKELETONS

ROOT = Path(__file__).resolve().parents[1]
SIZE = (64, 64)
needs_kernels = pytest.mark.skipif(find_library() is None, reason='the package was installed without kernels')

HIDDEN = """
import sys
for name in ('torch', 'timm', 'torchvision', 'tqdm', 'safetensors', 'huggingface_hub'):
    sys.modules[name] = None
"""


@pytest.fixture(scope='module')
def networks(enliven):
    pose = enliven(create_model('widehrnet_10', num_classes=17, **SMALL).eval())
    pose.skeleton = SKELETONS['coco']
    finder = boxes_about_a_tenth(enliven(create_model('widehrnet_10', num_classes=NUM_MAPS, **SMALL).eval(), seed=1))
    finder.pretrained_cfg = {**finder.pretrained_cfg, 'input_size': (3, 64, 96)}
    return pose, finder


def boxes_about_a_tenth(finder):
    """Of the photo, with scores of all heights."""
    finder.skeleton = PERSON_BOXES
    with torch.no_grad():
        finder.classifier.weight *= 0.1
        finder.classifier.weight[0] *= 15
    return finder


@pytest.fixture(scope='module')
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp('photo') / 'photo.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 140, 3), np.uint8)).save(path)
    return path


@pytest.fixture(scope='module')
def pair(networks, tmp_path_factory):
    """Puts a pose model and its finder into a folder; each kind is exported once."""
    made = {}

    def put(folder, suffix):
        for module in {'.onnx': ['onnx', 'onnxruntime'], '.xml': ['openvino', 'onnx']}.get(suffix, []):
            pytest.importorskip(module)
        if suffix not in made:
            pose, finder = networks
            made[suffix] = tmp_path_factory.mktemp('pair')
            pipeline = None if suffix == '.kernels' else True
            export(pose, made[suffix] / f'pose{suffix}', size=SIZE, pipeline=pipeline, finder=finder)
        shutil.copytree(made[suffix], folder, dirs_exist_ok=True)
        return folder / f'pose{suffix}'

    return put


def run(code, *arguments):
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    command = [sys.executable, '-c', HIDDEN + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize('suffix', ['.onnx', pytest.param('.kernels', marks=needs_kernels)])
def test_a_pair_of_files_gives_the_keypoints_of_pytorch_without_it(networks, pair, photo, tmp_path, suffix):
    path = pair(tmp_path, suffix)
    assert {f.name for f in tmp_path.iterdir()} == {f'pose{suffix}', f'pose.finder{suffix}'}
    code = """
from widehrnet_zoo import PoseEstimator
estimator = PoseEstimator(sys.argv[1], pose_threshold=0, same_person=1)
results = [estimator(sys.argv[2], **options) for options in ({}, {'flip_test': True}, {'decoder': 'quarter'})]
assert sys.modules['torch'] is None
import json
print(json.dumps([result.to_dict() for result in results]))
"""
    done = run(code, path, photo)
    assert done.returncode == 0, done.stderr
    pose, finder = networks
    estimator = PoseEstimator(pose, size=SIZE, detector=PersonFinder(finder), pose_threshold=0, same_person=1)
    options = ({}, {'flip_test': True}, {'decoder': 'quarter'})
    for found, option in zip(json.loads(done.stdout), options, strict=True):
        expected = estimator(str(photo), **option)
        assert len(expected) > 2 and len(found['people']) == len(expected)
        points = np.array([[(k['x'], k['y']) for k in person['keypoints']] for person in found['people']])
        far = np.abs(points - expected.keypoints).max(-1)
        # where two pixels of a heatmap are equal within rounding, either may be the largest
        assert np.mean(far < 0.1) > 0.97


def test_the_lines_of_the_docs_do_the_same(pair, photo, tmp_path):
    path = pair(tmp_path, '.onnx')
    Image.open(photo).save(tmp_path / 'photo.jpg', quality=95)
    page = (ROOT / 'docs/without-pytorch.md').read_text(encoding='utf-8')
    code = page[page.index('## In thirty lines') :].split('```python\n')[1].split('```')[0]
    done = run(
        f'import os\nos.chdir(sys.argv[1])\n{code}\nprint(json.dumps([boxes.tolist(), keypoints.tolist()]))', tmp_path
    )
    assert done.returncode == 0, done.stderr
    boxes, keypoints = (np.array(v) for v in json.loads(done.stdout.splitlines()[-1]))
    expected = PersonFinder(path.with_name('pose.finder.onnx'))(tmp_path / 'photo.jpg')[0]
    np.testing.assert_allclose(boxes, expected, atol=1e-3)
    found = PoseEstimator(path, decoder='quarter')(tmp_path / 'photo.jpg', boxes)
    # Pillow's crop and ours differ by roundings, which random weights and noise make much of
    assert np.mean(np.abs(keypoints[..., :2] - found.keypoints).max(-1) < 0.1) > 0.8


def test_openvino_takes_the_pair_of_a_folder(networks, pair, photo, tmp_path):
    path = pair(tmp_path, '.xml')
    assert {f.name for f in tmp_path.iterdir()} == {'pose.xml', 'pose.bin', 'pose.finder.xml', 'pose.finder.bin'}
    pose, finder = networks
    limits = {'pose_threshold': 0, 'same_person': 1}
    expected = PoseEstimator(pose, size=SIZE, detector=PersonFinder(finder, flip_test=False), **limits)(photo)
    estimator = PoseEstimator(tmp_path, **limits)
    assert estimator.backend.path == path and estimator.detector().backend.path == path.with_name('pose.finder.xml')
    found = estimator(photo)
    assert len(found) == len(expected) > 2
    assert np.mean(np.abs(found.keypoints - expected.keypoints).max(-1) < 0.1) > 0.97


def test_predict_runs_without_pytorch_and_says_what_needs_it(pair, photo, tmp_path):
    path = pair(tmp_path, '.onnx')
    code = """
import sys
from widehrnet_zoo.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    done = run(code, 'predict', photo, '--model', path, '--out', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / 'out/photo_pose.json').read_text())['skeleton']['name'] == 'coco'
    assert (tmp_path / 'out/photo_pose.jpg').exists() and '1/1 photos' in done.stderr
    code = """
from widehrnet_zoo.cli.main import main
print([main(arguments) for arguments in (['predict', sys.argv[1]], ['list'], ['train', 'finetune'], ['demo'])])
import widehrnet_zoo
widehrnet_zoo.create_model
"""
    done = run(code, photo)
    lines = done.stderr.splitlines()
    assert done.stdout.strip() == '[2, 2, 2, 2]' and lines[4].startswith('Traceback')
    packages = ('widehrnet_zoo', 'widehrnet_zoo', '"widehrnet_zoo[train]"', '"widehrnet_zoo[demo]"')
    for line, package in zip(lines, packages, strict=False):
        assert f'which is not installed: run `pip install {package}`' in line
    assert 'ImportError: widehrnet_zoo.create_model needs ' in lines[-1]


def test_a_finder_that_is_gone_is_missed_only_where_it_is_needed(pair, photo, tmp_path):
    path = pair(tmp_path, '.onnx')
    (tmp_path / 'pose.finder.onnx').unlink()
    estimator = PoseEstimator(path)
    assert len(estimator(photo, [5, 5, 80, 80])) == len(estimator(photo, detector=None)) == 1
    with pytest.raises(UserError, match=r'pose\.finder\.onnx'):
        estimator(photo)
    # a name leads nowhere but to the folder of the file
    content = path.read_bytes().replace(b'"pose.finder.onnx"', b'"/ose.finder.onnx"')
    path.write_bytes(content)
    with pytest.raises(UserError, match='was not written by'):
        PoseEstimator(path)


def test_the_command_writes_both_files(networks, enliven, tmp_path, capsys):
    pytest.importorskip('onnxruntime')
    from safetensors.torch import save_file

    weights = [tmp_path / 'pose.safetensors', tmp_path / 'finder.safetensors']
    # the finder that ships has this variant and this number of maps
    finder = boxes_about_a_tenth(enliven(create_model('widehrnet_10_attn', num_classes=NUM_MAPS).eval()))
    for network, file in zip((networks[0], finder), weights, strict=True):
        save_file(network.state_dict(), file)
    args = ['export', 'widehrnet_10', '--weights', str(weights[0]), '--format', 'onnx', '--size', '64', '64']
    out = tmp_path / 'out/pose.onnx'
    assert main([*args, '--pipeline', '--finder', str(weights[1]), '--out', str(out)]) == 0
    assert 'pose.finder.onnx: the person finder that belongs to it' in capsys.readouterr().out
    assert PoseEstimator(out).detector().backend.path == out.with_name('pose.finder.onnx')
    assert main([*args, '--finder', str(weights[0]), '--out', str(out)]) == 2
    assert 'expected a person finder' in capsys.readouterr().err


def test_mean_and_std_of_a_pipeline_are_its_own(pair, photo, tmp_path):
    path = pair(tmp_path, '.onnx')
    with pytest.raises(UserError, match='normalises crops itself'):
        PoseEstimator(path, mean=(0, 0, 0))(photo, [5, 5, 80, 80])


def test_a_gpu_is_used_where_onnx_runtime_has_it(pair, tmp_path, monkeypatch):
    path = pair(tmp_path, '.onnx')
    ort = pytest.importorskip('onnxruntime')
    with pytest.raises(UserError, match='install onnxruntime-gpu'):
        PoseEstimator(path, device='cuda')
    asked, real = [], ort.InferenceSession

    class Session(real):
        def __init__(self, path, options, providers, **rest):
            asked.append(providers)
            super().__init__(path, options, providers=['CPUExecutionProvider'], **rest)

        def get_providers(self):
            return [name for name, _ in asked[-1]]

    fake = SimpleNamespace(**{**vars(ort), 'InferenceSession': Session})
    fake.get_available_providers = lambda: ['CUDAExecutionProvider', 'CPUExecutionProvider']
    monkeypatch.setattr(exported, 'require', lambda *_: fake)
    estimator = PoseEstimator(path, device='cuda:1')
    assert asked == [[('CUDAExecutionProvider', {'device_id': 1}), ('CPUExecutionProvider', {})]]
    assert estimator.device == estimator.detector().backend.device == 'cuda:1'
    Session.get_providers = lambda self: ['CPUExecutionProvider']
    with pytest.raises(UserError, match='cannot start cuda'):
        PoseEstimator(path, device='cuda')


@needs_kernels
def test_damaged_programs_are_refused(pair, photo, tmp_path):
    path = pair(tmp_path, '.kernels')
    again = pickle.loads(pickle.dumps(PoseEstimator(path, detector=None)))
    assert again(photo) == PoseEstimator(path, detector=None)(photo)
    content = path.read_bytes()
    (length,) = struct.unpack('<Q', content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]

    def written(change, data=data):
        changed = json.loads(json.dumps(header))
        steps = json.loads(changed['__metadata__']['program'])
        change(changed, steps)
        changed['__metadata__']['program'] = json.dumps(steps)
        text = json.dumps(changed).encode()
        path.write_bytes(struct.pack('<Q', len(text)) + text + data)
        return path

    written(lambda header, steps: None)
    PoseEstimator(path)
    first = next(name for name in header if name != '__metadata__')
    for change in (
        lambda header, steps: steps[-1][1].__setitem__(1, 1000),  # more heatmaps than there are weights for
        lambda header, steps: steps.pop(),
        lambda header, steps: steps.clear(),
        lambda header, steps: steps[0].__setitem__(0, 'jump'),
        lambda header, steps: steps[0][1].__setitem__(0, 2**70),
        lambda header, steps: steps[1][1].pop(),
        lambda header, steps: steps[0][2].__setitem__(0, 'nothing'),
        lambda header, steps: header[first].update(data_offsets=[0, len(data) + 4]),
        lambda header, steps: header[first].update(data_offsets=[-4, 4]),
        lambda header, steps: header[first].update(shape=[1]),
        lambda header, steps: header[first].update(dtype='F64'),
        lambda header, steps: header['__metadata__'].pop('widehrnet_zoo'),
        lambda header, steps: header['__metadata__'].update(widehrnet_zoo='{}'),
    ):
        with pytest.raises(UserError):
            PoseEstimator(written(change))
    for damaged in (b'', content[:100], b'\xff' * 100, content[: 8 + length]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match='damaged, or was not written by'):
            PoseEstimator(path)
