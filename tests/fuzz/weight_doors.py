"""Doors for weights, and for what interrupted runs leave behind."""

import functools
import io
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from doors import KITE, door, finite, later, put
from mutations import bytes_input, json_input, pth_input, safetensors_input

from widehrnet_zoo.errors import UserError

# ---------------------------------------------------------------------------------------------------------- weights

SMALL = {'channels': (8, 16), 'num_modules': (1,), 'stem_width': 8}


@functools.cache
def small() -> Any:
    from widehrnet_zoo.models.registry import create_model

    torch.manual_seed(0)
    model = create_model('widehrnet_10', num_classes=3, **SMALL).eval()
    for key, value in model.state_dict().items():
        if value.is_floating_point() and not key.endswith('running_var'):
            value.normal_(std=0.2)
    return model


@functools.cache
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


def estimates(estimator: Any) -> None:
    found = estimator(photo(), boxes=[[1, 1, 30, 38]])
    finite(found.keypoints, found.scores)


def small_safetensors() -> Callable[[Random], bytes]:
    from safetensors.torch import save

    return safetensors_input(save(small().state_dict(), {'format': 'pt'}))


@door('weights: safetensors', later(small_safetensors), 25)
def safetensors(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.inference.estimator import PoseEstimator

    estimates(PoseEstimator(weights=put(folder, 'x_64x64.safetensors', content), device='cpu', size=(64, 64)))


def official_state() -> dict[str, torch.Tensor]:
    """The small network's weights under the official names."""
    import re

    from test_convert import official_name

    return {re.sub(r'\s', '', official_name(name, False)): value for name, value in small().state_dict().items()}


@door('weights: official .pth', later(lambda: pth_input(official_state())), 15)
def pth(content: bytes, folder: Path) -> None:
    import timm

    from widehrnet_zoo.hub.convert import convert_checkpoint
    from widehrnet_zoo.inference.estimator import PoseEstimator

    path = put(folder, 'x_64x64.pth', content)
    before = sorted(p.name for p in folder.iterdir())
    try:
        convert_checkpoint(path, folder / 'converted')
    except UserError:
        assert sorted(p.name for p in folder.iterdir()) == before, 'a refused file left something behind'
        raise
    model = timm.create_model(f'local-dir:{folder / "converted"}', pretrained=True)
    estimates(PoseEstimator(model, device='cpu', size=(64, 64)))


@functools.cache
def saved_small() -> tuple[bytes, dict[str, Any]]:
    import tempfile

    from widehrnet_zoo.hub import save_pretrained

    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(small(), Path(folder) / 'm', size=(64, 64))
        config = json.loads((Path(folder) / 'm' / 'config.json').read_text())
        return (Path(folder) / 'm' / 'model.safetensors').read_bytes(), config


@door('config.json of a model', later(lambda: json_input(saved_small()[1])), 20)
def config(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.inference.estimator import PoseEstimator

    put(folder, 'config.json', content)
    put(folder, 'model.safetensors', saved_small()[0])
    estimator = PoseEstimator(f'local-dir:{folder}', device='cpu')
    if max(estimator.size) > 4096:
        raise UserError('allowed, and too large to run here')
    estimates(estimator)


def header_seed() -> dict[str, Any]:
    from widehrnet_zoo.engines.metadata import ExportMetadata
    from widehrnet_zoo.pose.skeletons import Skeleton

    values = ExportMetadata('x', Skeleton.from_dict(KITE), (64, 64), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)).to_json()
    return json.loads(values)


@door('header of an exported file', later(lambda: json_input(header_seed())))
def header(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.engines.metadata import ExportMetadata
    from widehrnet_zoo.inference.estimator import PoseEstimator

    read = ExportMetadata.from_json(content.decode('utf-8', 'replace'), 'x.onnx')
    finite(read.mean, read.std)
    assert isinstance(read.pipeline, bool) and read.precision in ('f32', 'bf16', 'int8') and isinstance(read.name, str)
    shape = (read.skeleton.num_keypoints, read.size[0] // 4, read.size[1] // 4)

    class Backend:
        skeleton, size, mean, std = read.skeleton, read.size, read.mean, read.std

        def __call__(self, images: Any) -> Any:
            finite(images)
            return np.ones((len(images), *shape), np.float32)

    if max(read.size) > 4096:
        raise UserError('allowed, and too large to run here')
    estimates(PoseEstimator(backend=Backend()))


# ------------------------------------------------------------------------------------------- what runs leave behind


def run_seed() -> dict[str, Any]:
    return {'model': 'x', 'labels': 'y', 'samples': 4}


@door('predictions of an interrupted evaluation', lambda random: store_input()(random))
def store(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.evaluation.store import PredictionStore

    made = PredictionStore(folder / 's', {'model': 'x'}, 4)
    put(folder / 's', 'part-0000000-2.npz', content)
    keypoints, done = made.load(3)
    assert keypoints.shape == (4, 3, 3) and done.shape == (4,)
    finite(keypoints[done])


@functools.cache
def store_input() -> Callable[[Random], bytes]:
    def npz(**arrays: Any) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    good = np.zeros((2, 3, 3), np.float32)
    return bytes_input(
        npz(rows=np.arange(2), keypoints=good),
        npz(rows=np.array([9, 1]), keypoints=good),
        npz(rows=np.arange(2), keypoints=good[:1, :2]),
        npz(rows=np.array([0.5, 1]), keypoints=good),
        npz(rows=np.array(['a', 'b']), keypoints=good),
        npz(rows=np.arange(2), keypoints=good * np.nan),
        npz(rows=np.array([-1, -2]), keypoints=good),
        npz(rows=np.arange(2)),
    )


@door('stamp of an interrupted evaluation', json_input({'model': 'x', 'samples': 4}))
def stamp(content: bytes, folder: Path) -> None:
    from widehrnet_zoo.evaluation.store import PredictionStore

    (folder / 's').mkdir()
    put(folder / 's', 'run.json', content)
    PredictionStore(folder / 's', {'model': 'x'}, 4)


STATE = {
    'step': 3,
    'epoch': 0.5,
    'optimizer': {
        'scalars': {'0.momentum': 0.5},
        'groups': [{'lr': 0.1, 'params': [0], 'betas': [0.9, 0.99]}],
    },
}


@door('state of an interrupted training', json_input(STATE))
def state(content: bytes, folder: Path) -> None:
    from safetensors.torch import save_file

    from widehrnet_zoo.training.state import load_checkpoint

    put(folder, 'state.json', content)
    for name in ('model', 'ema', 'optimizer'):
        save_file({'0.step': torch.zeros(1)}, folder / f'{name}.safetensors')
    step = load_checkpoint(folder)['step']
    assert isinstance(step, int) and step >= 0
