"""What a torch.export file may hold before PyTorch opens it.

`torch.export.load` unpickles without limits where it has to, evaluates text of the file as Python and loads compiled
code, so a stranger's file could do anything. A file of `widehrnet export` needs none of that.
"""

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError

# text that becomes Python: sizes by their symbol, operators by their name
_EXPRESSION = re.compile(r"-?\d+|-?(?:int_)?oo|s\d+|Symbol\('s\d+'(?:, (?:positive|integer)=True)*\)")
_TARGET = re.compile(r'torch\.ops\.aten\.(?!from_file)\w+(?:\.\w+)?|_operator\.\w+|math\.\w+|torch\.sym_\w+')


def check_program(path: Path) -> None:
    """Refuse a torch.export file that holds more than a graph of PyTorch's own operators and tensors.

    Raises:
        UserError: If it holds other pickles, code or expressions, or is not such a file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(set(names)) != len(names):
                raise ValueError('an entry is there twice')
            for name in names:
                _check_entry(name, archive)
    except UserError:
        raise
    except Exception as error:  # an archive or a pickle can be damaged in any way
        raise UserError(f'torch.export cannot open {path}: {str(error)[:200] or type(error).__name__}') from error


def _check_entry(name: str, archive: zipfile.ZipFile) -> None:
    if 'aotinductor' in name or 'custom_obj' in name:
        raise _refused(archive, f'compiled code or an object ({name})')
    with archive.open(name) as entry:
        start = entry.read(4)
    if name.endswith('.json'):
        _check_values(json.loads(archive.read(name)), archive)
    elif name.endswith('.pt') or start == b'PK\3\4':
        try:
            torch.load(io.BytesIO(archive.read(name)), map_location='cpu', weights_only=True)
        except Exception as error:
            raise _refused(archive, f'a pickle of more than tensors ({name})') from error


def _check_values(root: Any, archive: zipfile.ZipFile) -> None:
    pending = [root]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(value)
        if not isinstance(value, dict):
            continue
        pending.extend(value.values())
        for key, pattern in (('expr_str', _EXPRESSION), ('target', _TARGET)):
            text = value.get(key)
            if isinstance(text, str) and text and not pattern.fullmatch(text):
                raise _refused(archive, f'the {"expression" if key == "expr_str" else "operator"} {text[:80]!r}')
        if value.get('guards_code') or value.get('use_pickle'):
            raise _refused(archive, 'guards in Python' if value.get('guards_code') else 'pickled weights')


def _refused(archive: zipfile.ZipFile, what: str) -> UserError:
    return UserError(
        f'{archive.filename} was refused: it holds {what}, which runs as code when PyTorch opens it, and which '
        '`widehrnet export` does not write. If you trust its origin, open it by torch.export.load and give '
        'PoseEstimator the module as backend=.'
    )
