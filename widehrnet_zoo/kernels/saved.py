"""Programs of the kernels as files: safetensors, read with NumPy alone.

The header of a safetensors file is JSON: for each array its type, its shape and where it lies, and texts. The steps of
the program are one of these texts. What a file says is checked here and by the kernels when they open the program, so
that a file cannot make them read what is not there.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..extras import require
from ..files import write_whole
from .program import STEPS, Program, Step

_ABOUT, _STEPS = 'widehrnet_zoo', 'program'
"""Keys of the texts: what the file says of itself, and the steps."""

_TYPES = {'F32': np.dtype('<f4'), 'I32': np.dtype('<i4')}

_LARGEST_HEADER = 10_000_000


def write_program(program: Program, about: str, path: Path) -> None:
    """Write a program, whole or not at all."""
    write_whole(path, encode_program(program, about))


def encode_program(program: Program, about: str) -> bytes:
    """The content of the file that `write_program` writes."""
    steps = [[step.name, list(step.numbers), list(step.arrays), step.to] for step in program.steps]
    save = require('safetensors.numpy', 'export').save
    return save(program.arrays, {_ABOUT: about, _STEPS: json.dumps(steps)})


def read_program(path: Path) -> tuple[Program, str]:
    """Read what `write_program` wrote.

    Returns:
        The program, and what else the file says of itself.

    Raises:
        UserError: If the file is damaged, or something else.
    """
    return decode_program(path.read_bytes(), path)


def decode_program(content: bytes, path: Path) -> tuple[Program, str]:
    """`read_program` of a file's content; the path is for the message."""
    try:
        return _parse(content)
    except UserError:
        raise
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        reason = f'{type(error).__name__}: {str(error)[:100]}'
        raise UserError(
            f'{path} is damaged, or was not written by `widehrnet export --format kernels` ({reason}).'
        ) from error


def _parse(content: bytes) -> tuple[Program, str]:
    length = int.from_bytes(content[:8], 'little')
    if not 2 <= length <= min(_LARGEST_HEADER, len(content) - 8):
        raise ValueError('no header of safetensors')
    header = json.loads(content[8 : 8 + length])
    texts = header.pop('__metadata__')
    said = json.loads(texts[_STEPS])
    data = memoryview(content)[8 + length :]
    arrays = {name: _array(entry, data) for name, entry in header.items()}
    steps = []
    for name, numbers, names, to in said:
        wanted, named = STEPS[name]
        if len(numbers) != len(wanted) or len(names) > len(named) or not all(n in arrays for n in names):
            raise ValueError(f'the step {name} lacks numbers or weights')
        steps.append(Step(name, tuple(map(_whole, numbers)), tuple(names), _whole(to)))
    # what the kernels read and write follows the steps, and so must the memory that they are given
    if [step.name for step in (steps[0], steps[-1])] != ['stem', 'head']:
        raise ValueError('the first step is not a stem, or the last not a head')
    channels, outputs = (
        step.numbers[STEPS[step.name][0].index(key)] for step, key in ((steps[0], 'channels'), (steps[-1], 'outputs'))
    )
    program = Program(channels, outputs, steps, arrays)
    return program, str(texts[_ABOUT])


def _array(entry: dict[str, Any], data: memoryview) -> np.ndarray[Any, Any]:
    dtype, shape, (start, end) = _TYPES[entry['dtype']], tuple(map(_whole, entry['shape'])), entry['data_offsets']
    if min(shape, default=0) < 0 or not 0 <= _whole(start) <= _whole(end) <= len(data):
        raise ValueError('an array lies outside the file')
    if end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError('an array is not as long as its shape')
    return np.frombuffer(data[start:end], dtype).reshape(shape)


def _whole(value: Any) -> int:
    if type(value) is not int or not -(2**62) < value < 2**62:
        raise ValueError(f'{value!r:.40} is not a whole number')
    return value
