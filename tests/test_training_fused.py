import copy
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from timm.layers import BatchNormAct2d

from widehrnet_zoo.kernels.fused import fuse_training
from widehrnet_zoo.models.registry import create_model
from widehrnet_zoo.training.targets import gaussian_heatmaps, in_view, keypoint_losses, loss_total, mean_loss

pytest.importorskip('ninja')
if shutil.which('c++') is None and shutil.which('g++') is None:
    pytest.skip('the fused kernels need a C++ compiler', allow_module_level=True)

compiled = pytest.mark.slow  # the kernels are compiled first, which takes most of a minute

SMALL = {'stem_width': 16, 'channels': (8, 16, 32), 'num_modules': (1, 1), 'num_classes': 3}


def small(attn):
    torch.manual_seed(0)
    model = create_model('widehrnet_10', attn_layer=attn, **SMALL).to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    return model


def loss_of(model):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(3, 3, 64, 64, generator=generator).contiguous(memory_format=torch.channels_last)
    keypoints = torch.rand(3, 3, 3, generator=generator) * 60 + 1
    heatmaps = model(images)
    targets, weights = gaussian_heatmaps(keypoints, heatmaps.shape[2:], 1.5), in_view(keypoints, heatmaps.shape[2:])
    return mean_loss(keypoint_losses(heatmaps, targets), weights, loss_total(weights))


@compiled
@pytest.mark.parametrize(
    ('attn', 'frozen'), [(None, ()), ('se', ()), ('se', ('stages.*.conv_pw.conv', 'stages.*.attn.fc1'))]
)
def test_fused_training_is_the_same_function_with_the_same_gradients_and_statistics(attn, frozen):
    from widehrnet_zoo.training.start import freeze, train_mode

    plain, fused = small(attn), small(attn)
    for model in (plain, fused):
        freeze(model, frozen)
        train_mode(model)
    fuse_training(fused)
    assert sum('forward' in vars(module) for module in fused.modules()) > 20
    assert 'forward' in vars(fused.stages[0][0].branches[0][0])
    losses = [loss_of(model) for model in (plain, fused)]
    for loss in losses:
        loss.backward()
    assert torch.allclose(*losses, rtol=1e-5)
    # biases before a norm have no gradient but rounding, hence the floor
    floor = 1e-5 * max(p.grad.abs().max() for p in plain.parameters() if p.requires_grad)
    for (name, a), b in zip(plain.named_parameters(), fused.parameters(), strict=True):
        if not a.requires_grad:
            assert b.grad is None, name
            continue
        assert (a.grad - b.grad).abs().max() < 2e-4 * a.grad.abs().max() + floor, name
    for (name, a), b in zip(plain.named_buffers(), fused.buffers(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5), name
    with torch.inference_mode():
        x = torch.randn(1, 3, 64, 64)
        assert torch.allclose(plain.eval()(x), fused.eval()(x), rtol=1e-3, atol=1e-4)
    assert list(plain.state_dict()) == list(fused.state_dict())


@compiled
@pytest.mark.parametrize(('channels', 'height', 'width'), [(12, 5, 7), (16, 8, 6), (20, 1, 2)])
def test_strided_depthwise_convolutions_are_those_of_pytorch(channels, height, width):
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(channels, channels, 3, 2, 1, groups=channels, bias=False)
    fused = fuse_training(copy.deepcopy(plain))
    assert 'forward' in vars(fused)
    images = torch.randn(3, channels, height, width)
    results = []
    for conv in (plain, fused):
        x = images.clone().requires_grad_()
        y = conv(x)
        y.backward(torch.linspace(-1, 1, y.numel()).view_as(y))
        results.append((y, x.grad, conv.weight.grad))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


@compiled
def test_a_block_on_odd_sizes_and_uneven_channels_has_the_gradients_of_pytorch():
    from widehrnet_zoo.models.blocks import WideInvertedResidual

    torch.manual_seed(0)
    plain = WideInvertedResidual(10, attn_layer='se', norm_layer=BatchNormAct2d)
    fused = fuse_training(copy.deepcopy(plain))
    assert 'forward' in vars(fused)
    images = torch.randn(4, 10, 5, 3) + 2
    results = []
    for block in (plain, fused):
        x = images.clone().requires_grad_()
        y = block(x)
        y.backward(torch.linspace(-1, 1, y.numel()).view_as(y))
        results.append((y, x.grad, *(p.grad for p in block.parameters()), *block.buffers()))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-4)


@compiled
def test_in_bfloat16_fused_training_is_as_close_to_float32_as_autocast_is():
    losses, gradients = {}, {}
    for name, model, bf16 in (
        ('float32', small('se'), False),
        ('autocast', small('se'), True),
        ('fused', fuse_training(small('se')), True),
    ):
        with torch.autocast('cpu', torch.bfloat16, enabled=bf16):
            loss = loss_of(model)
        loss.backward()
        losses[name] = loss.item()
        gradients[name] = torch.cat([p.grad.flatten() for p in model.parameters()])
        assert all(p.grad.dtype == torch.float32 for p in model.parameters())
    assert losses['fused'] == pytest.approx(losses['float32'], rel=0.02)

    def distance(name):
        return (gradients[name] - gradients['float32']).norm() / gradients['float32'].norm()

    assert distance('fused') < 1.5 * distance('autocast') < 0.6


@compiled
def test_a_frozen_block_keeps_its_own_forward_and_statistics():
    from widehrnet_zoo.training.start import freeze, train_mode

    model = small('se')
    freeze(model, ('stages.0',))
    fuse_training(model)
    train_mode(model)
    before = {k: v.clone() for k, v in model.stages[0].state_dict().items()}
    loss_of(model).backward()
    assert all(torch.equal(v, before[k]) for k, v in model.stages[0].state_dict().items())
    assert all(p.grad is None for p in model.stages[0].parameters())
    assert all(p.grad is not None for p in model.stages[1].parameters())


def test_a_teacher_on_kernels_shows_the_same():
    from widehrnet_zoo.pose.skeletons import SKELETONS
    from widehrnet_zoo.training.config import TeacherConfig
    from widehrnet_zoo.training.teacher import Teacher

    config = TeacherConfig(model='widehrnet_10_attn.people_256x192')
    heatmaps, pixels = torch.rand(2, 17, 32, 24), torch.rand(2, 3, 128, 96) * 255
    plain, fused = (Teacher(config, SKELETONS['coco'], fused=fused) for fused in (False, True))
    assert type(plain.model) is not type(fused.model)
    loss = plain.loss(heatmaps, pixels, 10.0)
    assert loss > 1
    assert torch.allclose(fused.loss(heatmaps, pixels, 10.0), loss, rtol=1e-3)


def test_compiling_says_so_and_two_installations_keep_apart(tmp_path, monkeypatch, caplog):
    from torch.utils import cpp_extension

    from widehrnet_zoo.errors import UserError
    from widehrnet_zoo.kernels import fused

    calls = []
    monkeypatch.setattr(cpp_extension, 'load', lambda **options: calls.append(options))
    monkeypatch.setenv('TORCH_EXTENSIONS_DIR', str(tmp_path / 'cache'))
    fused.kernels.__wrapped__()
    assert 'Compiling the kernels for training' in caplog.text and 'Compiled in 0 s' in caplog.text
    built = calls[0]['build_directory']
    (tmp_path / 'cache' / calls[0]['name'] / f'{calls[0]["name"]}.so').touch()
    caplog.clear()
    # that PyTorch leaves, or that a killed process left, for which PyTorch before 2.14 waits without end
    left = tmp_path / 'cache' / calls[0]['name'] / 'lock'
    left.touch()
    fused.kernels.__wrapped__()
    assert not caplog.text and calls[1] == calls[0] and not left.exists()
    with monkeypatch.context() as patched:
        patched.setattr(fused.subprocess, 'run', lambda *args, **options: SimpleNamespace(stdout=b'another ninja'))
        fused.kernels.__wrapped__()
    assert 'Compiling the kernels' in caplog.text and calls.pop()['name'] != calls[0]['name']
    other = tmp_path / 'other'
    other.mkdir()
    monkeypatch.setattr(fused, '_SOURCES', tuple(Path(shutil.copy(file, other)) for file in fused._SOURCES))
    fused.kernels.__wrapped__()
    assert calls[2]['build_directory'] != built and calls[2]['name'] != calls[0]['name']
    (tmp_path / 'file').touch()
    monkeypatch.setenv('TORCH_EXTENSIONS_DIR', str(tmp_path / 'file'))
    with pytest.raises(UserError, match='set TORCH_EXTENSIONS_DIR'):
        fused.kernels.__wrapped__()


def test_a_living_build_is_waited_for_and_a_killed_one_is_not(tmp_path, caplog):
    from widehrnet_zoo.kernels import fused

    build = 'import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(); sys.stdin.read()'
    command = [sys.executable, '-c', build, str(tmp_path / 'building')]
    turn = threading.Event()

    def compile_next():
        with fused._alone(tmp_path):
            turn.set()

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline()
        (tmp_path / 'lock').touch()
        waiting = threading.Thread(target=compile_next)
        waiting.start()
        assert not turn.wait(0.3) and (tmp_path / 'lock').exists()
        other.kill()
    assert turn.wait(60) and not (tmp_path / 'lock').exists()
    waiting.join()
    assert 'Another process compiles' in caplog.text
