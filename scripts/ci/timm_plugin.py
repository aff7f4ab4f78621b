"""What timm's model tests must be told about this package, given to pytest with `-p timm_plugin`.

The tests list the models of timm's registry as they are collected. Here the list holds the models of this package
alone, which spares collecting some 18,000 other tests. Tests that select by timm's module get ours beside `hrnet`; and
as they expect classifiers, models of this package are created with `global_pool='avg'` where a test says nothing else.
"""

import functools
import os
from collections.abc import Iterable
from typing import Any

import pytest
import timm

import widehrnet_zoo

MODULE = widehrnet_zoo.WideHRNet.__module__.rpartition('.')[2]
FAMILY = 'widehrnet'

_list_models = timm.list_models
_create_model = timm.create_model


@functools.wraps(_list_models)
def list_models(filter: str | Iterable[str] = '', module: str | Iterable[str] = '', **kwargs: Any) -> list[str]:  # noqa: D103
    if not isinstance(module, str):
        module = list(module)
        if 'hrnet' in module:
            module.append(MODULE)
    return [name for name in _list_models(filter, module, **kwargs) if name.startswith(FAMILY)]


@functools.wraps(_create_model)
def create_model(model_name: str, *args: Any, **kwargs: Any) -> Any:  # noqa: D103
    if model_name.startswith(FAMILY):
        kwargs.setdefault('global_pool', 'avg')
    return _create_model(model_name, *args, **kwargs)


timm.list_models = list_models  # type: ignore[assignment]
timm.create_model = create_model


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of this package's models, or this process's share of them."""
    share, shares = (int(n) for n in os.environ.get('TIMM_SUITE_SHARE', '0/1').split('/'))
    ours = [item for item in items if _model_of(item).startswith(FAMILY)]
    kept = ours[share::shares]
    chosen = set(kept)
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = kept


def _model_of(item: pytest.Item) -> str:
    callspec = getattr(item, 'callspec', None)
    return str(callspec.params.get('model_name', '')) if callspec else ''
