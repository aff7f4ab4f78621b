"""What tests share. PyTorch is imported where it is used: the process that hands out the tests needs none."""

import contextlib
import gc
import importlib.util
import os
import pathlib
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

if 'PYTEST_XDIST_WORKER' in os.environ:
    # the processes share the cores, and so do those that tests start
    os.environ['OMP_NUM_THREADS'] = '1'

os.environ['WIDEHRNET_CACHE'] = ''  # the user's own stays as it is
os.environ['CI'] = 'true'  # or OpenVINO starts a process for each step of a conversion that it reports to its makers
gc.disable()


def pytest_collection_finish() -> None:
    """Leave what the imports made out of garbage collection, which would go through all of it again and again."""
    gc.freeze()
    gc.enable()


SHARED = pathlib.Path(__file__).resolve().parents[2] / 'shared'


@pytest.fixture(scope='session')
def shared() -> pathlib.Path:
    """The reference data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip('the reference data (../shared) is not beside this checkout')
    return SHARED


@pytest.fixture(scope='session')
def official() -> ModuleType:
    """Weights, inputs and, as `heatmaps(name)`, outputs of the official network: see data/parity/README.md."""
    folder = pathlib.Path(__file__).parent / 'data' / 'parity'
    spec = importlib.util.spec_from_file_location('official_state', folder / 'official_state.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    import torch

    def heatmaps(name: str) -> tuple:
        with np.load(folder / f'{name}.npz') as reference:
            batch, _, height, width = reference['shape'].tolist()
            return torch.from_numpy(module.images(name, batch, height, width)), torch.from_numpy(reference['heatmaps'])

    module.heatmaps = heatmaps
    return module


@pytest.fixture(scope='session')
def enliven() -> Callable:
    """Random weights and statistics that give outputs of order 1: the published initialisation gives nearly 0."""
    import torch
    from torch import nn

    @torch.no_grad()
    def enliven(module, seed: int = 0):
        random = torch.Generator().manual_seed(seed)
        for m in module.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.weight.uniform_(0.15, 0.45, generator=random)
                m.running_var.uniform_(0.5, 1.5, generator=random)
                m.bias.normal_(0, 0.1, generator=random)
                m.running_mean.normal_(0, 0.1, generator=random)
            elif isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Linear)):
                m.weight.normal_(0, (2 / m.weight[0].numel()) ** 0.5, generator=random)
                if m.bias is not None:
                    m.bias.normal_(0, 0.1, generator=random)
        return module

    return enliven


@pytest.fixture
def quick_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training runs in half the time: without the picture of their curves, and without a collection of garbage."""
    monkeypatch.setattr('widehrnet_zoo.training.run.draw_curves', lambda *_: None)
    monkeypatch.setattr('widehrnet_zoo.training.engine.few_collections', contextlib.nullcontext)
