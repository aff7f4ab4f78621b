import os
import pathlib
import subprocess
import sys

import pytest
import timm

from widehrnet_zoo.models import registry

ROOT = pathlib.Path(__file__).resolve().parents[1]

SCRIPT = """
import gc
import sys
gc.disable()  # imports leave no garbage
import torch
assert not any(name.startswith('widehrnet_zoo') for name in sys.modules)
repo = sys.argv[1]
print(','.join(torch.hub.list('somebody/zoo:main', skip_validation=True, trust_repo=True)))
print(torch.hub.help('somebody/zoo:main', 'widehrnet_18_attn', skip_validation=True, trust_repo=True).splitlines()[0])
model = torch.hub.load(repo, 'widehrnet_10', source='local', num_classes=5)
print(tuple(model.eval()(torch.zeros(1, 3, 64, 64)).shape), model.pretrained_cfg['architecture'])
try:
    torch.hub.load(repo, 'widehrnet_30', source='local', pretrained=True)
except ValueError as error:
    print(type(error).__name__, 'widehrnet convert' in str(error))
import timm, widehrnet_zoo
heavy = 'scipy cv2 matplotlib onnx onnxruntime openvino gradio accelerate pycocotools widehrnet_zoo.inference.estimator'
print(len(timm.list_models('widehrnet*')), set(heavy.split()) & set(sys.modules) or 'light')
assert set(widehrnet_zoo.__all__) <= set(dir(widehrnet_zoo))
print(*(name for name in widehrnet_zoo.__all__ if getattr(widehrnet_zoo, name) is None))
"""


@pytest.fixture(scope='module')
def printed(tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    env['TORCH_HOME'] = str(elsewhere)
    # list and help know no source='local', so they find the repository as if it were downloaded already
    (elsewhere / 'hub').mkdir()
    (elsewhere / 'hub' / 'somebody_zoo_main').symlink_to(ROOT)
    command = [sys.executable, '-c', SCRIPT, str(ROOT)]
    done = subprocess.run(command, cwd=elsewhere, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_entry_points_are_the_registry_and_nothing_else(printed):
    assert sorted(printed[0].split(',')) == sorted(registry.list_models())


def test_help_is_the_variants_own(printed):
    assert printed[1].startswith('WideHRNet-18, with squeeze-excitation')


def test_a_model_loads_in_a_clean_process_elsewhere(printed):
    assert printed[2] == '(1, 5, 16, 16) widehrnet_10'


def test_a_variant_without_weights_says_so(printed):
    assert printed[3] == 'UserError True'


def test_the_package_is_light_registers_its_models_and_has_its_names(printed):
    assert printed[4] == f'{len(registry.list_models())} light'
    assert printed[5] == ''


def test_dependencies_are_importable_names_of_the_core_packages(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import hubconf

    assert hubconf.dependencies == ['torch', 'timm', 'huggingface_hub', 'safetensors', 'numpy', 'PIL']
    assert all(__import__(name) for name in hubconf.dependencies)


@pytest.mark.skipif(not registry.list_pretrained('widehrnet_18_attn*'), reason='no weights ship in this checkout')
def test_pretrained_takes_the_shipped_weights(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import hubconf

    ours = hubconf.widehrnet_18_attn(pretrained=True).state_dict()
    theirs = timm.create_model('widehrnet_18_attn', pretrained=True).state_dict()
    assert all(ours[k].equal(theirs[k]) for k in theirs)
