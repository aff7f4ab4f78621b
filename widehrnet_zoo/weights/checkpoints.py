"""What is inside a checkpoint file: read without running code from it, wrappers and second copies sorted out."""

import pickle
import re
import textwrap
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError


def first_of(keys: list[str]) -> str:
    """The first three of a list of names, and how many there are."""
    return f'{", ".join(keys[:3])}{f", ... ({len(keys)} in all)" if len(keys) > 3 else ""}'


def misfits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Why weights are not those of a network.

    Returns:
        What is wrong, by kind and with the first names of each; empty if nothing is.
    """
    shared = [k for k in state if k in expected]
    fitting = [k for k in shared if state[k].shape == expected[k].shape]
    plain = [k for k in fitting if _is_plain(state[k])]
    numbers = [k for k in plain if state[k].is_floating_point() == expected[k].is_floating_point()]
    problems = {
        'missing': [k for k in expected if k not in state],
        'unexpected': [k for k in state if k not in expected],
        'misshapen': [
            f'{k} {tuple(state[k].shape)} instead of {tuple(expected[k].shape)}' for k in shared if k not in fitting
        ],
        'of another type': [f'{k} {str(state[k].dtype).removeprefix("torch.")}' for k in fitting if k not in numbers],
        'not finite': [k for k in numbers if not state[k].float().isfinite().all()],
    }
    return '; '.join(f'{len(keys)} {what} ({first_of(keys)})' for what, keys in problems.items() if keys)


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.device.type == 'cpu' and not tensor.is_quantized


def check_weights(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that are not those of a network.

    Args:
        state: Weights by name.
        expected: The network's own, on any device.
        source: Where the weights are from, for the message.

    Raises:
        UserError: If a name, a shape or a type differs, or a value is not finite.
    """
    if problems := misfits(state, expected):
        raise UserError(
            f'The weights of {source} do not fit the network: {problems}. They are damaged or of another network: open '
            'the variant that they were saved from; an official .pth goes through `widehrnet convert`.'
        )


def load_weights(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Put weights into a network.

    Args:
        network: It may be on the meta device, without memory.
        state: Weights by name.
        source: Where they are from, for the message.

    Raises:
        UserError: If they do not fit.
    """
    own = network.state_dict()
    check_weights(state, own, source)
    if any(tensor.is_meta for tensor in own.values()):
        network.to_empty(device='cpu')
    network.load_state_dict(state)


def read_checkpoint(file: str | Path) -> dict[str, Any]:
    """Unpickle a `.pth` file, or read a safetensors file, running no code from it.

    Returns:
        What it holds, on the CPU.

    Raises:
        UserError: If the file is missing, cut off, no checkpoint, unpacks to a multiple of its size, or asks for more
            than tensors and plain values.
    """
    file = Path(file)
    if not file.is_file():
        raise UserError(f'There is no file {file}: give the path of the checkpoint.')
    if file.suffix == '.safetensors':
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(file))
        except (SafetensorError, OSError) as error:
            raise UserError(f'{file} is not a whole safetensors file ({error}): get it again.') from error
    _check_unpacked_size(file)
    try:
        checkpoint = torch.load(file, map_location='cpu', weights_only=True)
    except Exception as error:
        # torch tells a refused pickle, a cut-off archive and a file of another kind apart by message only
        wanted = _unsafe_globals(file, error)
        if wanted:
            raise UserError(
                f'{file} was refused: beside tensors it asks to load {wanted} when it is unpickled, and a pickle that '
                'does so can run any code. If you trust its origin, open it once where it was made, keep only '
                "{'state_dict': ...} and save that."
            ) from error
        if isinstance(error, OSError):
            raise UserError(f'{file} cannot be read: {error}.') from error
        reason = textwrap.shorten(str(error), 120, placeholder=' ...') or type(error).__name__
        raise UserError(
            f'{file} is not a whole PyTorch checkpoint ({reason}): it was cut off or is another kind of file. Get it '
            'again and compare its size.'
        ) from error
    if not isinstance(checkpoint, dict):
        raise UserError(
            f'{file} holds a {type(checkpoint).__name__}, not a dict of weights: give an mmpose checkpoint.'
        )
    return checkpoint


def _check_unpacked_size(file: Path) -> None:
    """Refuse an archive that claims much more than its own size before any of it is unpacked.

    `torch.save` compresses nothing, but `torch.load` unpacks what is compressed, a thousandfold where it is made so.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            claimed = sum(entry.file_size for entry in archive.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return  # no archive, or a damaged one: torch tells which
    size = file.stat().st_size
    if claimed > 4 * size + (16 << 20):
        raise UserError(
            f'{file} of {size / 2**20:.1f} MiB would unpack to {claimed / 2**20:.0f} MiB, which no file of torch.save '
            'does: it is damaged or made to fill the memory.'
        )


def _unsafe_globals(file: Path, error: Exception) -> str:
    if not isinstance(error, pickle.UnpicklingError):
        return ''
    names: list[str] = []
    if hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):  # from torch 2.5, zip archives only
        try:
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
        except Exception:  # the message below names the first one
            names = []
    return ', '.join(names or re.findall(r'GLOBAL ([\w.]+)', str(error))[:1])


def official_state(checkpoint: Mapping[str, Any], ema: bool = False) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict inside a checkpoint, without wrappers.

    mmcv's EMA hook swaps the averaged weights in before it saves, so the plain names are what mmpose tests with, and
    the `ema_*` buffers are the weights as trained, without averaging. The averages of other trainers
    (`state_dict_ema`, `ema_state_dict`) lie beside the plain ones.

    Args:
        checkpoint: What `read_checkpoint` returns.
        ema: Take the second copy of the weights instead of the plain one. It has no batch-norm statistics of
            its own where the hook copied parameters only; those are the plain ones then.

    Returns:
        Name to tensor in the official layout, and a line for each thing that was left out.

    Raises:
        UserError: If there are no weights, a value is no tensor, or a second copy is asked for and missing or odd.
    """
    notes = []
    state = checkpoint.get('state_dict', checkpoint)
    if not isinstance(state, Mapping) or not state:
        raise UserError('The checkpoint has no weights: its state_dict is empty or no dict.')
    copies: Any = None
    if state is not checkpoint:
        for key in ('ema_state_dict', 'state_dict_ema'):
            if isinstance(checkpoint.get(key), Mapping):
                copies = {k: v for k, v in checkpoint[key].items() if k != 'steps'}
        others = [k for k in checkpoint if k not in ('state_dict', 'ema_state_dict', 'state_dict_ema', 'meta')]
        if others:
            notes.append(f'left out: {", ".join(map(str, others))}')

    plain = _without_prefix(state)
    hooked = {k: plain.pop(k) for k in [k for k in plain if k.startswith('ema_')]}
    if hooked:
        places = {f'ema_{k.replace(".", "_")}': k for k in plain}
        unknown = [k for k in hooked if k not in places]
        if unknown:
            raise UserError(f'Copies without an original in the checkpoint: {first_of(unknown)}. Is the file whole?')
        copies = {places[k]: v for k, v in hooked.items()}
    if ema:
        if copies is None:
            raise UserError('The checkpoint has no second (EMA) copy of the weights: convert it without that option.')
        copies = _without_prefix(copies)
        wrong = [k for k, v in copies.items() if k not in plain or v.shape != plain[k].shape]
        parameters = [k for k in plain if not k.endswith(('running_mean', 'running_var', 'num_batches_tracked'))]
        lacking = [k for k in parameters if k not in copies]
        if wrong or lacking:
            raise UserError(
                f'The second (EMA) copy does not fit the plain weights: {first_of(wrong or lacking)}. '
                'Convert the plain ones.'
            )
        notes.append('left out: the plain weights, the second copy is taken')
        plain = {**plain, **copies}
    elif copies is not None:
        notes.append(f'left out: the second (EMA) copy of {len(copies)} tensors')
    return plain, notes


def _without_prefix(state: Mapping[str, Any]) -> dict[str, Tensor]:
    others = [str(k) for k, v in state.items() if not isinstance(k, str) or not isinstance(v, Tensor)]
    if others:
        raise UserError(f'The checkpoint has entries that are not tensors: {first_of(others)}. Is it one of mmpose?')
    clean = {re.sub(r'^(?:module\.|_orig_mod\.)+', '', k): v for k, v in state.items()}
    if len(clean) != len(state):
        raise UserError('The checkpoint has names both with and without the prefix module.: which ones are meant?')
    return clean
