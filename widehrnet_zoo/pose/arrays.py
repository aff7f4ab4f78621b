"""What differs between NumPy's arrays and PyTorch's tensors, for functions that take both.

Heatmaps and maps of boxes come as tensors from PyTorch and as arrays from every other runtime. The functions on them
are written once, in operations that both libraries have under one name; the few that they have not are here. PyTorch is
not imported for arrays.
"""

from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Arrays: TypeAlias = Any
"""A NumPy array or a PyTorch tensor; what comes out is of the kind of what went in."""


def library_of(values: Arrays) -> Any:
    """The module `numpy` or `torch`."""
    return np if isinstance(values, np.ndarray) else import_module('torch')


def as_float(values: Arrays) -> Arrays:
    """In float32, without gradients."""
    return values.astype(np.float32, copy=False) if isinstance(values, np.ndarray) else values.detach().float()


def to_numpy(values: Arrays) -> npt.NDArray[Any]:
    """On the CPU, as NumPy's."""
    return values if isinstance(values, np.ndarray) else values.detach().cpu().numpy()


def cpu_to_numpy(values: Arrays) -> Arrays:
    """As NumPy's where it is on the CPU: for many small operations PyTorch's threads cost more than the work."""
    return to_numpy(values) if str(getattr(values, 'device', 'cpu')) == 'cpu' else values


def like(values: npt.NDArray[Any], other: Arrays) -> Arrays:
    """An array as what another one is, on its device."""
    return values if isinstance(other, np.ndarray) else import_module('torch').as_tensor(values, device=other.device)


def count_up(count: int, other: Arrays) -> Arrays:
    """0, 1, ..., count - 1 in float32, made where another one is: nothing is copied to a GPU."""
    if isinstance(other, np.ndarray):
        return np.arange(count, dtype=np.float32)
    torch = import_module('torch')
    return torch.arange(count, dtype=torch.float32, device=other.device)


def gather(values: Arrays, index: Arrays) -> Arrays:
    """Values (..., n) at places (..., m) of the last axis."""
    return np.take_along_axis(values, index, -1) if isinstance(values, np.ndarray) else values.gather(-1, index)


def sigmoid(values: Arrays) -> Arrays:
    """1 / (1 + exp(-x))."""
    if not isinstance(values, np.ndarray):
        return values.sigmoid()
    # below -80 it is 0 in float32, and the exponential would overflow
    return 1 / (1 + np.exp(-values.clip(-80)))


def softmax(values: Arrays) -> Arrays:
    """Along the last axis."""
    if not isinstance(values, np.ndarray):
        return values.softmax(-1)
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def topk(values: Arrays, count: int) -> tuple[Arrays, Arrays]:
    """The largest values of the last axis, the highest first, and their places."""
    if not isinstance(values, np.ndarray):
        return values.topk(count, -1)
    places = np.argsort(-values, -1, kind='stable')[..., :count]
    return np.take_along_axis(values, places, -1), places
