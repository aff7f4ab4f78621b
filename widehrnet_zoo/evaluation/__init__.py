"""Protocols and metrics: COCO, MPII, PCK, NME, AUC.

The parts, by module: `labels` and `mpii` read ground truth, `predict` runs a model, `coco`, `mpii` and `people`
score, `oks` and `pck` hold the formulas, `bootstrap` the intervals; `run` puts them together. Other people's
formats are in `widehrnet_zoo.interchange`.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    'CocoScore': 'coco',
    'MpiiScore': 'mpii',
    'PckScore': 'people',
    'PredictConfig': 'predict',
    'Protocol': 'run',
    'Report': 'report',
    'evaluate': 'run',
    'evaluate_people': 'run',
    'from_coco': '.interchange.formats',
    'from_supervision': '.interchange.formats',
    'read_labels': 'labels',
    'read_results': 'coco',
    'to_supervision': '.interchange.formats',
}
__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_EXPORTS[name]}', __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
