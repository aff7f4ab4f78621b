"""People in photos: optional detectors behind one small protocol.

A detector is any callable that takes an RGB image, uint8 (height, width, 3), and gives boxes, (N, 4) x1, y1, x2, y2 in
pixels, and their scores, (N,). `open_detector` makes one from a name; `find_people` calls one and checks what it says.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    'BoxFile': 'boxes',
    'Detector': 'protocol',
    'TorchvisionDetector': 'torchvision',
    'TransformersDetector': 'transformers',
    'find_people': 'protocol',
    'open_detector': 'open',
}
__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_EXPORTS[name]}', __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
