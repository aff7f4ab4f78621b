"""Checkpoints of a run: safetensors and JSON in a folder that is there whole or not at all."""

import errno
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ..errors import UserError

_logger = logging.getLogger(__name__)

_PREFIX = 'checkpoint-'

WEIGHTS_FILE = 'weights.safetensors'
"""The kept weights in float16, half as large, as they go over slow lines or into a release."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Name a full disk for what it is."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(
                f'{path} cannot be written: {error.strerror}. What was saved before is whole; make room and start '
                'again with --resume.'
            ) from error
        raise


def _write(path: Path, content: bytes) -> None:
    with open(path, 'wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _pack(tensors: dict[str, Tensor]) -> bytes:
    # a clone each, for safetensors refuses tensors that share memory or are not contiguous
    return save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})


def halved(value: Tensor) -> Tensor:
    """A tensor in float16; as it is if float16 cannot hold it (variances of wide activations) or it is of integers."""
    half = value.half() if value.is_floating_point() else value
    return half if torch.isfinite(half).all() and torch.allclose(half.to(value), value, 1e-2, 1e-7) else value


def pack_weights(state: dict[str, Tensor]) -> bytes:
    """A file of weights in float16."""
    return _pack({key: halved(value) for key, value in state.items()})


def _split_optimizer(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, scalars = {}, {}
    for index, values in state['state'].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f'{index}.{key}'] = value
            elif value is None or isinstance(value, (bool, int, float, str)):
                scalars[f'{index}.{key}'] = value
            else:
                raise UserError(
                    f'This optimiser keeps {key} as {type(value).__name__}, which a checkpoint cannot hold: '
                    'choose another one.'
                )
    return tensors, {'scalars': scalars, 'groups': state['param_groups']}


def _join_optimizer(tensors: dict[str, Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    for place, value in [*tensors.items(), *rest['scalars'].items()]:
        index, key = place.split('.', 1)
        state.setdefault(int(index), {})[key] = value
    return {'state': state, 'param_groups': rest['groups']}


def save_checkpoint(
    folder: Path,
    step: int,
    model: dict[str, Tensor],
    optimizer: dict[str, Any],
    ema: dict[str, Tensor] | None,
    state: dict[str, Any],
) -> Path:
    """Write a checkpoint, then remove the older ones.

    Raises:
        UserError: If the disk is full; older checkpoints stay as they are.
    """
    target = folder / f'{_PREFIX}{step:08d}'
    tmp = folder / f'{target.name}.tmp'
    shutil.rmtree(tmp, ignore_errors=True)
    tensors, rest = _split_optimizer(optimizer)
    try:
        with disk_errors(target):
            tmp.mkdir(parents=True)
            _write(tmp / 'model.safetensors', _pack(model))
            if ema is not None:
                _write(tmp / 'ema.safetensors', _pack(ema))
            _write(tmp / 'optimizer.safetensors', _pack(tensors))
            _write(tmp / 'state.json', json.dumps({'step': step, **state, 'optimizer': rest}).encode())
            shutil.rmtree(target, ignore_errors=True)
            os.replace(tmp, target)
            _sync_folder(folder)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    for old in folder.glob(f'{_PREFIX}*'):
        if old.is_dir() and old.name != target.name:
            shutil.rmtree(old, ignore_errors=True)
    return target


def _sync_folder(folder: Path) -> None:
    if os.name == 'posix':
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run, `None` without any."""
    found = [p for p in folder.glob(f'{_PREFIX}*') if p.suffix != '.tmp' and (p / 'state.json').exists()]
    return max(found, default=None)


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Args:
        folder: From `latest_checkpoint`.

    Returns:
        `model`, `ema` (or `None`), `optimizer` as state dicts, and the entries of the state, `step` among them.

    Raises:
        UserError: If a file of it is damaged.
    """
    try:
        state = json.loads((folder / 'state.json').read_text())
        if type(state.get('step')) is not int or state['step'] < 0:
            raise ValueError('state.json does not say the step')
        ema = folder / 'ema.safetensors'
        return {
            **state,
            'model': load_file(folder / 'model.safetensors'),
            'ema': load_file(ema) if ema.exists() else None,
            'optimizer': _join_optimizer(load_file(folder / 'optimizer.safetensors'), state['optimizer']),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise UserError(f'The checkpoint {folder} is damaged: {error}. Remove it and start anew.') from error


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed PyTorch for one step, so that dropout is the same after a resumed run's restart."""
    torch.manual_seed((seed * 1_000_003 + step) * 4099 + rank)
