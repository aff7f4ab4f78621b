"""The page's folder: its script, the networks with all their processing, and what the script must know of them."""

import importlib.metadata
import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from tqdm import tqdm

from ..deployment.network import deploy
from ..detection import LIGHT_FINDER, PersonFinder, finder_ships
from ..engines.opening import torch_module
from ..errors import UserError
from ..export.export import export
from ..files import check_folder
from ..inference.people import CHANCE, Limits
from ..kernels.program import Program
from ..kernels.record import record
from ..models.opening import OpenedNetwork, open_network
from ..models.registry import DEFAULT_MODEL, LIGHT_MODEL
from ..pose.box_maps import gives_boxes
from ..video import FollowConfig, SmoothConfig
from .runtime import runtime_config

DEFAULT_MODELS = (LIGHT_MODEL, DEFAULT_MODEL)
"""The pose models of `widehrnet web`, the fast one first."""

PAGE = Path(__file__).parent / 'page'

_SAMPLE = Path(__file__).parents[1] / 'samples' / 'portraits.jpg'

_KEY = 'site.json'

_LICENCES = """\
The page, its script and its kernels are part of widehrnet_zoo, under the Apache License 2.0 below. The networks (*.bin,
*.onnx) are of the weights that they were exported from; the cards of the weights that ship with widehrnet_zoo say what
they were trained on. sample.jpg is in the public domain (NASA, US Navy).

ONNX Runtime Web, which the page loads for WebGPU, is Copyright (c) Microsoft Corporation, under the MIT License:

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

"""


def write_site(
    models: Sequence[str | Path] = DEFAULT_MODELS,
    out: str | Path = 'site',
    *,
    weights: str | Path | None = None,
    finder: str | Path | None = None,
    runtime: str | Path | None = None,
    size: tuple[int, int] | None = None,
) -> Path:
    """Write a folder that any static host can serve.

    Args:
        models: Pose models to choose from on the page, the first one first, as `PoseEstimator` takes them.
        out: The folder: a new one, an empty one, or one that this function wrote, whose files are replaced.
        weights: A file of weights, where there is one model.
        finder: A person finder: a file of its weights, a name or a folder; by default the light one that ships.
        runtime: An unpacked npm package `onnxruntime-web` to copy; by default the page loads the runtime from a
            public CDN, pinned and checked against its hashes.
        size: Height and width of the input of all models, instead of their own.

    Raises:
        UserError: If the folder holds something else, or a model, the finder or the runtime cannot be had.
        ImportError: If a package of the extra `export` is missing.
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and ((out / _KEY).is_file() or not any(out.iterdir()))):
        raise UserError(f'{out} exists and was not written by this command: give the name of a new folder.')
    if not models or (weights is not None and len(models) != 1):
        raise UserError(f'Weights are of one model, and there are {len(models)}: name one.' if models else 'No model.')
    if finder is None and not finder_ships(LIGHT_FINDER):
        raise UserError('The person finder is not in this installation: give the weights of one as the finder.')
    check_folder(out.parent)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f'.{out.name}.'))
    try:
        config: dict[str, Any] = {'runtime': runtime_config(runtime, folder)}
        with tqdm(total=len(models) + 1, desc='export', unit='network', disable=None) as bar:
            config['finder'] = _write_finder(finder, folder)
            bar.update()
            config['models'] = []
            for model in models:
                config['models'].append(_write_model(open_network(model, weights, size=size), model, folder, config))
                bar.update()
        config |= {'limits': asdict(Limits()), 'follow': asdict(FollowConfig()), 'smooth': asdict(SmoothConfig())}
        for file in PAGE.iterdir():
            shutil.copyfile(file, folder / file.name)
        shutil.copyfile(_SAMPLE, folder / 'sample.jpg')
        (folder / 'LICENSE.txt').write_text(_LICENCES + _own_licence(), encoding='utf-8')
        (folder / _KEY).write_text(json.dumps(config), encoding='utf-8')
        _place(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return out


def _write_finder(finder: str | Path | None, folder: Path) -> dict[str, Any]:
    opened = PersonFinder(LIGHT_FINDER if finder is None else finder, device='cpu', engine='eager')
    module = torch_module(opened.backend)
    if module is None:
        raise UserError(f'{finder} is an exported file already: give the finder that it was made from.')
    config = _write_network('finder', module, opened.size, opened.backend.mean, opened.backend.std, folder)
    return {**config, 'min_score': opened.min_score}


def _write_model(opened: OpenedNetwork, model: str | Path, folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    skeleton = opened.skeleton
    if gives_boxes(skeleton):
        raise UserError('This model finds people, not keypoints: give it as the finder, and a pose model besides.')
    name = re.sub(r'[^\w.-]', '_', Path(str(model).removesuffix('.safetensors')).name) or 'pose'
    taken = {entry['name'] for entry in config['models']}
    name = next(n for n in (name, *(f'{name}_{i}' for i in range(2, 99))) if n not in taken)
    return {
        **_write_network(name, opened.network, opened.size, opened.mean, opened.std, folder),
        'padding': opened.padding,
        'keypoints': skeleton.keypoints,
        'bones': skeleton.bones,
        'flip_order': skeleton.flip_order if skeleton.flip_pairs else None,
        'sigmas': skeleton.sigmas or [0.1] * skeleton.num_keypoints,
        'score_map': opened.score_map and opened.score_map.to_config(),
        'least_scores': Limits().least_scores(opened.score_map is not None),
        'chance': CHANCE._asdict() if opened.score_map is not None else None,
    }


def _write_network(
    name: str, network: nn.Module, size: tuple[int, int], mean: Sequence[float], std: Sequence[float], folder: Path
) -> dict[str, Any]:
    program = record(deploy(network).cpu())
    (folder / f'{name}.bin').write_bytes(page_program(program))
    export(network, folder / f'{name}.onnx', 'onnx', size=size, pipeline=False)
    return {'name': name, 'maps': program.outputs, 'size': size, 'mean': mean, 'std': std}


def page_program(program: Program) -> bytes:
    """A program as the page's kernels take it: the number of steps, the steps, and the weights."""
    steps, weights = program.encode()
    return np.array([len(steps), *steps.flat], '<i4').tobytes() + weights.tobytes()


def _own_licence() -> str:
    beside = Path(__file__).parents[2] / 'LICENSE'
    if beside.is_file():
        return beside.read_text(encoding='utf-8')
    return importlib.metadata.distribution('widehrnet_zoo').read_text('licenses/LICENSE') or ''


def _place(new: Path, out: Path) -> None:
    """Move a new folder's files to where they belong; what names them comes last."""
    if not out.exists():
        new.chmod(0o755)
        os.replace(new, out)
        return
    files = sorted((f for f in new.rglob('*') if f.is_file()), key=lambda f: f.name == _KEY)
    for file in files:
        target = out / file.relative_to(new)
        target.parent.mkdir(exist_ok=True)
        os.replace(file, target)
